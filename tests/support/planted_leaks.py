"""Training sets in which leaks are planted."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lakelog import train
from lakelog.train.leaks import FILE_CHECKS
from tests.support import trainsets
from tests.support.trainsets import rewrite


def kinds(path: Path, against: Path | None = None) -> set[str]:
    """Return the kinds of leaks found, besides that files are not what the manifest says."""
    found = train.check(str(path), str(against) if against else None)
    return {leak.kind for leak in found.leaks} - set(FILE_CHECKS)


def any_row(path: Path, side: str, rng: random.Random) -> dict[str, Any]:
    row = dict(rng.choice(trainsets.rows(path, side)))
    del row["side"]
    return row


def plant_exact(path: Path, rng: random.Random) -> None:
    row = any_row(path, "train", rng)
    mine = any_row(path, "test", rng)
    rewrite(path, "test", lambda rows: [*rows, {**mine, "text": row["text"]}])


def plant_near(path: Path, rng: random.Random) -> None:
    row, mine = any_row(path, "train", rng), any_row(path, "test", rng)
    words = row["text"].split(" ")
    words[rng.randrange(len(words))] = "planted"
    rewrite(path, "test", lambda rows: [*rows, {**mine, "text": " ".join(words).upper()}])


def plant_group(path: Path, rng: random.Random) -> None:
    row, mine = any_row(path, "train", rng), any_row(path, "test", rng)
    text = trainsets.texts(1, rng.randrange(10**6))[0]
    planted = {**mine, "text": text, "subject": row["subject"]}
    rewrite(path, "test", lambda rows: [*rows, planted])


def plant_time(path: Path, rng: random.Random) -> None:
    side = rng.choice(["train", "validation", "test"])
    late, early = any_row(path, "test", rng)["time"], any_row(path, "train", rng)["time"]
    time = early if side == "test" else late

    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows[rng.randrange(len(rows))]["time"] = time
        return rows

    rewrite(path, side, change)


PLANTS: dict[str, Callable[[Path, random.Random], None]] = {
    "exact": plant_exact,
    "near": plant_near,
    "group": plant_group,
    "time": plant_time,
}


def told(row: dict[str, Any], column: str) -> dict[str, Any]:
    label = row["label"]
    if column == "text":
        return {**row, "text": f"{label}: {row['text']}"}
    return {**row, column: {"INFO": "x", "WARN": "y", "ERROR": "z"}[label]}
