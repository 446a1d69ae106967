"""Torture the lake and print what was found.

python -m tests.torture [ROW...] [--minutes M | --hours H] [--seed S] [--json FILE]
python -m tests.torture ROW --seed S --case N      play one case again
python -m tests.torture coverage                   branch coverage of what stores a lake
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

from tests.torture import coverage, report
from tests.torture.rows import ROWS
from tests.torture.run import Result, play, run

MINUTES = 10.0


def main() -> int:
    """Read the command line, play, print; 0 if nothing was wrong and every count was reached."""
    given = _parsed()
    warnings.simplefilter("ignore")
    if given.rows == ["coverage"]:
        return coverage.measure()
    if given.case is not None:
        row = ROWS[given.rows[0]]
        tally, error = play(row, given.seed, given.case, patience=row.patience)
        print(error or f"{given.rows[0]}, case {given.case}: {tally.done} verified, nothing wrong")
        return 1 if error else 0
    minutes = given.hours * 60 if given.hours else given.minutes
    results = []
    print(report.heading(given.seed), flush=True)
    until = time.monotonic() + minutes * 60
    names = given.rows or [*ROWS]
    for index, name in enumerate(names):
        share = ROWS[name].share / sum(ROWS[n].share for n in names[index:])
        seconds = max(until - time.monotonic(), 1.0) * share
        results.append(_row(name, minutes, seconds, given.seed, given.jobs))
        if given.json:
            report.save(results, given.json)
    _go_on(results, until, given.jobs)
    if given.json:
        report.save(results, given.json)
    print(report.table(results))
    print(report.notes(results))
    print(report.findings(results))
    short = [r.row.name for r in results if not r.findings and not r.holds]
    if short:
        print(f"fewer than the target, for want of time: {', '.join(short)}")
    return 0 if all(r.holds for r in results) else 1


def _row(name: str, minutes: float, seconds: float, seed: int, jobs: int) -> Result:
    """Play a row for so long; what others left of their time is shared by those after them."""
    row = ROWS[name]
    target = row.hour * minutes / 60 if minutes >= 60 else row.target * min(1, minutes / MINUTES)
    result = run(row, max(1, round(target)), seconds, seed, jobs)
    _say(result)
    return result


def _go_on(results: list[Result], until: float, jobs: int) -> None:
    """Give the time that is left to rows that fell short, each as much as it seems to need."""
    short = [result for result in results if result.short]
    need = {r.row.name: r.seconds / max(r.tally.done, 1) * r.short for r in short}
    for result in short:
        left = until - time.monotonic()
        if left > 1:
            wanted = need[result.row.name]
            seconds = min(1.5, left / sum(need.values())) * wanted
            more = run(result.row, result.short, seconds, result.seed, jobs, first=result.next)
            result.add(more)
            _say(result)
        del need[result.row.name]


def _say(result: Result) -> None:
    said = "SKIPPED" if result.skipped else f"{result.tally.done:,} of {result.target:,}"
    wrong = f", {len(result.findings)} WRONG" if result.findings else ""
    print(
        f"{result.row.name}: {said} in {result.seconds:.0f} s{wrong}", file=sys.stderr, flush=True
    )
    # At once: whoever ends the run has seen what there was.
    for finding in result.findings:
        last = finding.text.strip().rpartition("\n")[2]
        print(f"  {finding.replay}: {last}", file=sys.stderr, flush=True)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="rows:\n" + "\n".join(f"  {r.name:<11}{r.what}" for r in ROWS.values()),
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="only these rows")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="10 by default")
    parser.add_argument("--hours", type=float, help="hours instead: the larger counts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="play one case of one row again")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 2))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    given = parser.parse_args()
    unknown = set(given.rows) - ROWS.keys() - {"coverage"}
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}: choose from {', '.join(ROWS)}")
    if given.case is not None and (len(given.rows) != 1 or given.rows[0] not in ROWS):
        parser.error("--case needs one row")
    return given


if __name__ == "__main__":
    sys.exit(main())
