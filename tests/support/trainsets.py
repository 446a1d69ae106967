"""Small lakes to train on, recipes for them, and the rows of what was exported."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import lakelog

WORDS = [f"w{n:03d}" for n in range(4000)]


def recipe(kind: str, sql: str = "SELECT * FROM events", **sections: Any) -> dict[str, Any]:
    """Return a recipe as a dict; keyword arguments are sections, `shape` keys join the kind."""
    shape = {"kind": kind, **sections.pop("shape", {})}
    title = sections.pop("name", "demo")
    return {"name": title, "select": {"sql": sql}, "shape": shape, **sections}


def texts(count: int, seed: int = 1, words: int = 30) -> list[str]:
    """Return texts that have next to nothing in common."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=words)) for _ in range(count)]


def notes(count: int = 300, users: int = 60, seed: int = 1, first: int = 0) -> list[dict[str, Any]]:
    """Return events with a message each, by users, a minute apart."""
    rng = random.Random(seed)
    levels = ("INFO", "WARN", "ERROR")
    return [
        {
            "type": "note",
            "time": f"2026-09-{1 + (first + n) // 1440:02d}T"
            f"{(first + n) // 60 % 24:02d}:{(first + n) % 60:02d}:00Z",
            "source": "test",
            "subject": f"user{rng.randrange(users)}",
            "level": rng.choice(levels),
            "message": text,
            "data": {"n": first + n, "tag": rng.choice("abc")},
        }
        for n, text in enumerate(texts(count, seed))
    ]


def lake_of(path: Path, events: list[dict[str, Any]]) -> lakelog.Lake:
    """Return a new lake with these events."""
    lake = lakelog.open(str(path))
    lake.append(events)
    return lake


def rows(path: Any, side: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of an export, or of one side, with `side` added."""
    import pyarrow.parquet as pq

    found = []
    for file in sorted(Path(path).glob(f"data/{side or ''}*.parquet")):
        for row in pq.read_table(file).to_pylist():
            found.append({**row, "side": file.name.split("-")[0]})
    return found


def rewrite(path: Any, side: str, change: Any) -> None:
    """Change the rows of a side behind the manifest's back."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = next(Path(path).glob(f"data/{side}-*.parquet"))
    table = pq.read_table(file)
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), table.schema), file)
