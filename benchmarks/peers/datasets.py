"""Hugging Face `datasets`: exports of rows, and of a training set by `map` and `filter`.

python -m benchmarks.peers.datasets EVENTS.parquet NAMES DIRECTORY
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
from pathlib import Path
from typing import Any

import datasets

from benchmarks.measure import ROOT
from benchmarks.peers import files

NAMES = ROOT / "lakelog" / "train" / "names.txt"
PATTERNS = [
    re.compile(pattern)
    for pattern in (
        r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}",
        r"\b\d{1,3}(?:\.\d{1,3}){3}\b",
        r"\b(?:\d[ -]?){13,19}\b",
        r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b",
        r"\+\d[\d .-]{7,}\d",
        r"\b(?:AKIA|ghp_|sk-|xox|hf_|glpat-|eyJ)[A-Za-z0-9_-]{16,}",
    )
]
WORD = re.compile(r"\b[A-Z][a-z]{2,15}\b")
SIDES = ((0, 0.8, "train"), (0.8, 0.9, "validation"), (0.9, 1, "test"))


class Peer:
    """A dataset on disk."""

    def __init__(self, root: str) -> None:
        datasets.disable_progress_bars()
        self.root = root

    def load(self, path: str) -> None:
        """Save an Arrow table as the engine read it."""
        datasets.Dataset(files.read(path)).save_to_disk(f"{self.root}/saved")

    def export(self, path: str) -> None:
        """Write every row to a Parquet file."""
        datasets.load_from_disk(f"{self.root}/saved").to_parquet(path)

    def train(self, out: str) -> None:
        """The training set of the rows that were saved."""
        training_set(datasets.load_from_disk(f"{self.root}/saved"), NAMES, out)

    def size(self) -> int:
        """Bytes of what was saved."""
        return files.size(self.root)


def training_set(rows: Any, names: Path, out: str) -> None:
    """Redact, keep each row once, split by subject, write."""
    known = frozenset(names.read_text().split())
    rows = rows.map(lambda row: clean(row, known), num_proc=2)
    seen: set[tuple[str, ...]] = set()

    def new(row: dict[str, Any]) -> bool:
        key = tuple(str(value) for value in row.values())
        return key not in seen and not seen.add(key)

    rows = rows.filter(new)
    for low, high, name in SIDES:
        rows.filter(lambda row, low=low, high=high: low <= side(row) < high, num_proc=2).to_parquet(
            f"{out}/{name}"
        )


def clean(row: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """A row without what the patterns find, and without names."""
    for key, value in row.items():
        if isinstance(value, str):
            for pattern in PATTERNS:
                value = pattern.sub("<X>", value)
            row[key] = WORD.sub(lambda m: "<N>" if m[0] in names else m[0], value)
    return row


def side(row: dict[str, Any]) -> float:
    """Where a row's subject stands between 0 and 1."""
    return int(hashlib.sha256(str(row["subject"]).encode()).hexdigest()[:8], 16) / 2**32


def main() -> None:
    """Make a training set of a Parquet file; print the seconds it took."""
    source, names, out = sys.argv[1:]
    datasets.disable_progress_bars()
    began = time.perf_counter()
    rows = datasets.load_dataset("parquet", data_files=source, split="train", cache_dir=out)
    training_set(rows, Path(names), out)
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
