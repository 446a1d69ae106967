"""Which tests are slow: those that take most of the time of a run of all tests.

    make test LAKELOG_TEST_SLOW=1 PYTEST_ADDOPTS=--junitxml=build/tests.xml
    python -m tests.support.slow build/tests.xml

writes tests/slow.txt, one test a line without its cases: those whose cases take longest, as many as
take SHARE of all seconds. Tests that are not in it, such as new ones, are always played.
"""

from __future__ import annotations

import argparse
from collections import Counter
from xml.etree import ElementTree

from tests.support.effort import SLOW
from tests.support.tree import ROOT

SHARE = 0.7


def name_of(module: str, case: str) -> str:
    """Return the name that a case has on the command line, without its parameters; "" for what is
    no test of this project."""
    test, folders = case.partition("[")[0], module.split(".")
    for length in range(len(folders), 0, -1):
        path = "/".join(folders[:length]) + ".py"
        if (ROOT / path).exists():
            return "::".join([path, *folders[length:], test])
    return ""


def slowest(reports: list[str]) -> list[str]:
    """Return the slow tests of some reports in the format of JUnit, by name."""
    seconds, cases = Counter[str](), Counter[str]()
    for report in reports:
        for case in ElementTree.parse(report).iter("testcase"):
            if name := name_of(case.get("classname") or "", case.get("name") or ""):
                seconds[name] += float(case.get("time") or 0)
                cases[name] += 1
    rest, slow = SHARE * seconds.total(), list[str]()
    for name in sorted(seconds, key=lambda name: -seconds[name] / cases[name]):
        if rest <= 0:
            break
        slow.append(name)
        rest -= seconds[name]
    return sorted(slow)


def main() -> None:
    """Write the list, and say how long it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="+", metavar="REPORT")
    slow = slowest(parser.parse_args().reports)
    SLOW.write_text("".join(f"{name}\n" for name in slow))
    print(f"{len(slow)} slow tests")


if __name__ == "__main__":
    main()
