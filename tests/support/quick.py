"""A minute of tests: of the packages that changed, then a sample of the others (`make quick`).

What changed is what git says of the working tree, or of the last commit where that is clean.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import PurePosixPath

from tests.support.tree import ROOT

SECONDS = 32
"""No test begins later: with collecting and the longest test it is a minute."""
SAMPLE = 40
ALWAYS = ["tests/test_architecture.py", "tests/test_wording.py"]


def changed() -> list[str]:
    """The files that differ from the last commit, or that it changed."""
    status = _git("status", "--porcelain", "--untracked-files=all", "--no-renames")
    files = [line[3:] for line in status.splitlines()]
    return files or _git("show", "--format=", "--name-only", "HEAD").split()


def tests_of(path: str) -> list[str]:
    """The paths of the tests of a file of the project that are there."""
    package, *folders = PurePosixPath(path).parts
    if package == "tests" and folders and folders[0] != "support":
        is_test = folders[-1].startswith("test_")
        candidates = [path if is_test else str(PurePosixPath(path).parent)]
    elif package == "lakelog" and len(folders) > 1:
        candidates = [f"tests/{folders[0]}"]
    elif package == "lakelog" and folders:
        candidates = [f"tests/test_{folders[0]}"]
    else:
        candidates = []
    return [candidate for candidate in candidates if (ROOT / candidate).exists()]


def main() -> int:
    """Run the tests and return pytest's exit code."""
    first = sorted({test for path in changed() for test in tests_of(path)})
    print(f"==> {', '.join(first) or 'nothing changed'}; then one test of {SAMPLE}", flush=True)
    environment = {
        **os.environ,
        "LAKELOG_TEST_FIRST": os.pathsep.join(first + ALWAYS),
        "LAKELOG_TEST_SAMPLE": str(SAMPLE),
        "LAKELOG_TEST_SECONDS": str(SECONDS),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2"]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
