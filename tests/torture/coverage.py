"""Branch coverage of what stores a lake: a command of its own, since it takes minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.tree import ROOT

LEAST = 98.0
TESTS = """store segments maintain format query analyze test_settings.py cli/test_cli.py
    ingest/test_ingest.py ingest/test_quarantine.py ingest/test_audit.py""".split()
"""The tests whose business is the store."""
LONG = "protocol_schedule protocol_power_cuts lake_model crash_recovery".split()
"""Those that only play longer add nothing."""


def measure() -> int:
    """Run the tests, print every file below 100 %; 0 if the whole has LEAST of its branches, and of
    its lines and branches together."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_DIR")) as folder:
        told = Path(folder, "coverage.json")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--cov=lakelog/store",
            "--cov=lakelog/segments",
            "--cov=lakelog/maintain",
            "--cov-branch",
            f"--cov-report=json:{told}",
            "--cov-report=",
            *(f"tests/{name}" for name in TESTS),
            *(f"--ignore=tests/store/test_{name}.py" for name in LONG),
        ]
        env = {**os.environ, "COVERAGE_FILE": f"{folder}/.coverage"}
        done = subprocess.run(command, cwd=ROOT, env=env)
        if done.returncode:
            return done.returncode
        return _tell(json.loads(told.read_text()))


def _tell(found: dict[str, dict[str, dict[str, dict[str, float]]]]) -> int:
    for path, file in sorted(found["files"].items()):
        covered = file["summary"]
        if covered["percent_covered"] < 100:
            missing = ", ".join(map(str, file["missing_lines"][:12]))
            arcs = ", ".join(f"{a}->{b}" for a, b in file["missing_branches"][:8])  # type: ignore[misc]
            print(f"{path}: {covered['percent_covered']:.1f} %, lines {missing or '-'}; {arcs}")
    whole: dict[str, float] = found["totals"]  # type: ignore[assignment]
    branches = 100 * whole["covered_branches"] / whole["num_branches"]
    print(
        f"{whole['percent_covered']:.2f} % of lines and branches,"
        f" {branches:.2f} % of branches; at least {LEAST} % wanted"
    )
    return 0 if min(whole["percent_covered"], branches) >= LEAST else 1
