"""What finished files are like, in numbers: balance, lengths, missing values, drift, samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lakelog.lazy import Lazy
from lakelog.train.dataset import SIDE, Dataset
from lakelog.train.manifest import CLASS_CHARS_MAX, CLASSES_MAX
from lakelog.train.selection import column_of, quoted

if TYPE_CHECKING:
    import duckdb
    import numpy as np

    from lakelog.train.assign import RowTable
else:
    np = Lazy("numpy")

_VALUES_MAX = 20
_EDGES = [0, *(2**power for power in range(1, 21))]
_SAMPLES, _SAMPLE_CHARS = 3, 600
DRIFTED = 0.2
"""A population stability index above this is a drift worth looking at."""


def lengths(rows: RowTable) -> dict[str, Any]:
    """Tokens a row as a histogram over powers of two, by side."""
    from_side = {}
    for place, side in enumerate(("train", "validation", "test")):
        found = rows.tokens[rows.fate == place]
        if len(found):
            counts = np.histogram(found, [*_EDGES, np.iinfo(np.int64).max])[0]
            from_side[side] = [int(n) for n in counts]
    return {"edges": _EDGES, "counts": from_side}


def measure(con: duckdb.DuckDBPyConnection, folder: Dataset) -> dict[str, Any]:
    """Return balance of the column that matters most, missing values and samples."""
    column = _balanced(folder)
    whole = folder.source("*")
    probe = con.sql(f"SELECT * EXCLUDE {SIDE} FROM ({whole}) LIMIT 0")
    types = dict(zip(probe.columns, map(str, probe.types), strict=True))
    missing = _missing(con, whole, list(probe.columns))
    return {
        "balance": _balance(con, whole, column) if column in probe.columns else None,
        "classes": _classes(con, folder, types),
        "missing": {name: n for name, n in missing.items() if n},
        "columns": types,
        "samples": _samples(con, folder),
    }


def _balanced(folder: Dataset) -> str | None:
    wanted = folder.recipe
    column = wanted.split["stratify"] or folder.roles["label"] or wanted.budget["balance"]
    if column is None and "type" in folder.columns:
        column = "type"
    return column_of(column) if column else None


def _missing(con: duckdb.DuckDBPyConnection, whole: str, names: list[str]) -> dict[str, int]:
    counts = ", ".join(f"count(*) - count({quoted(n)})" for n in names)
    found = con.sql(f"SELECT {counts} FROM ({whole})").fetchall()[0]
    return dict(zip(names, map(int, found), strict=True))


def _classes(
    con: duckdb.DuckDBPyConnection, folder: Dataset, types: dict[str, str]
) -> dict[str, list[str]]:
    """The values of the label, in order, if it is a text with few enough to be classes."""
    label = folder.roles["label"]
    if not label or types.get(label) != "VARCHAR":
        return {}
    name = quoted(label)
    found = con.sql(
        f"SELECT DISTINCT {name} FROM ({folder.source(name)}) WHERE {name} IS NOT NULL"
        f" ORDER BY 1 LIMIT {CLASSES_MAX + 1}"
    ).fetchall()
    names = [value for (value,) in found]
    is_class = 0 < len(names) <= CLASSES_MAX and max(map(len, names)) <= CLASS_CHARS_MAX
    return {label: names} if is_class else {}


def _balance(con: duckdb.DuckDBPyConnection, whole: str, column: str | None) -> dict[str, Any]:
    name = f"{quoted(str(column))}::VARCHAR"
    rows = con.sql(
        f"SELECT {name} AS v, {SIDE}, count(*) AS n FROM ({whole}) GROUP BY ALL ORDER BY v, {SIDE}"
    ).fetchall()
    totals: dict[str, int] = {}
    for value, _, count in rows:
        totals[str(value)] = totals.get(str(value), 0) + count
    shown = sorted(totals, key=lambda v: (-totals[v], v))[:_VALUES_MAX]
    sides: dict[str, dict[str, int]] = {value: {} for value in shown}
    for value, side, count in rows:
        if str(value) in sides:
            sides[str(value)][side] = count
    return {"column": column, "values": sides, "others": len(totals) - len(shown)}


def _samples(con: duckdb.DuckDBPyConnection, folder: Dataset) -> list[str]:
    side = next(iter(folder.files))
    found = con.sql(
        f"SELECT to_json(r)::VARCHAR FROM (SELECT * EXCLUDE {SIDE} FROM"
        f" ({folder.source('*', (side,))}) LIMIT {_SAMPLES}) r"
    ).fetchall()
    return [s if len(s) <= _SAMPLE_CHARS else s[:_SAMPLE_CHARS] + " ..." for (s,) in found]


def drift(now: dict[str, Any], before: dict[str, Any] | None) -> dict[str, float]:
    """Population stability index against the last export: of lengths, and of the balanced column.

    Below 0.1 is alike, above 0.2 has drifted.
    """
    if before is None:
        return {}
    made = {}
    sums = [_summed(q["lengths"]["counts"]) for q in (now, before)]
    if all(sums) and len(sums[0]) == len(sums[1]):
        made["lengths"] = _stability(sums[0], sums[1])
    one, two = now.get("balance"), before.get("balance")
    if one and two and one["column"] == two["column"]:
        values = sorted({*one["values"], *two["values"]})
        counts = [[sum(q["values"].get(v, {}).values()) for v in values] for q in (one, two)]
        made[one["column"]] = _stability(counts[0], counts[1])
    return made


def _summed(counts: dict[str, list[int]]) -> list[int]:
    return [sum(column) for column in zip(*counts.values(), strict=True)]


def _stability(now: list[int], before: list[int]) -> float:
    total, past, found = sum(now) or 1, sum(before) or 1, 0.0
    for a, b in zip(now, before, strict=True):
        p, q = max(a / total, 1e-4), max(b / past, 1e-4)
        found += (p - q) * math.log(p / q)
    return round(found, 4)
