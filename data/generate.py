"""Write the sample that the demo reads; lakelog/cli/sample.py says what is in it.

python data/generate.py --events 60000 --seed 7 data/sample.jsonl
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, uninstalled

from lakelog.cli import sample


def main() -> None:
    """Read count, seed and file name from the command line, and write the file."""
    parser = argparse.ArgumentParser(description="Write a sample of events as JSON lines.")
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("path", type=Path)
    arguments = parser.parse_args()
    with open(arguments.path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(sample.lines(arguments.events, arguments.seed))


if __name__ == "__main__":
    main()
