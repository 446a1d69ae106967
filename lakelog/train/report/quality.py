"""Statistics of finished files: balance, lengths, missing values, drift, samples."""

from __future__ import annotations

import math

from lakelog.libraries import duckdb, np
from lakelog.train.assign import RowTable
from lakelog.train.dataset import SPLIT, Dataset
from lakelog.train.manifest import CLASS_CHARS_MAX, CLASSES_MAX
from lakelog.train.selection import column_of, quoted
from lakelog.train.tables import JsonMap

_VALUES_MAX = 20
_EDGES = [0, *(2**power for power in range(1, 21))]
_SAMPLES, _SAMPLE_CHARS = 3, 600
DRIFTED = 0.2
"""A population stability index above this is a drift worth looking at."""


def lengths(rows: RowTable) -> JsonMap:
    """Tokens per row as a histogram over powers of two, by split."""
    by_split = {}
    for place, split in enumerate(("train", "validation", "test")):
        tokens = rows.tokens[rows.split == place]
        if len(tokens):
            counts = np.histogram(tokens, [*_EDGES, np.iinfo(np.int64).max])[0]
            by_split[split] = [int(n) for n in counts]
    return {"edges": _EDGES, "counts": by_split}


def measure(con: duckdb.DuckDBPyConnection, folder: Dataset) -> JsonMap:
    """Return balance of the column that matters most, missing values and samples."""
    column = _balance_column(folder)
    all_rows = folder.source("*")
    probe = con.sql(f"SELECT * EXCLUDE {SPLIT} FROM ({all_rows}) LIMIT 0")
    types = dict(zip(probe.columns, map(str, probe.types), strict=True))
    missing = _missing(con, all_rows, list(probe.columns))
    return {
        "balance": _balance(con, all_rows, column) if column in probe.columns else None,
        "classes": _classes(con, folder, types),
        "missing": {name: n for name, n in missing.items() if n},
        "columns": types,
        "samples": _samples(con, folder),
    }


def _balance_column(folder: Dataset) -> str | None:
    recipe = folder.recipe
    column = recipe.split["stratify"] or folder.roles["label"] or recipe.budget["balance"]
    if column is None and "type" in folder.columns:
        column = "type"
    return column_of(column) if column else None


def _missing(con: duckdb.DuckDBPyConnection, all_rows: str, names: list[str]) -> dict[str, int]:
    counts = ", ".join(f"count(*) - count({quoted(n)})" for n in names)
    row = con.sql(f"SELECT {counts} FROM ({all_rows})").fetchall()[0]
    return dict(zip(names, map(int, row), strict=True))


def _classes(
    con: duckdb.DuckDBPyConnection, folder: Dataset, types: dict[str, str]
) -> dict[str, list[str]]:
    """The values of the label, in order, if it is a text with few enough to be classes."""
    label = folder.roles["label"]
    if not label or types.get(label) != "VARCHAR":
        return {}
    name = quoted(label)
    rows = con.sql(
        f"SELECT DISTINCT {name} FROM ({folder.source(name)}) WHERE {name} IS NOT NULL"
        f" ORDER BY 1 LIMIT {CLASSES_MAX + 1}"
    ).fetchall()
    names = [value for (value,) in rows]
    is_class = 0 < len(names) <= CLASSES_MAX and max(map(len, names)) <= CLASS_CHARS_MAX
    return {label: names} if is_class else {}


def _balance(con: duckdb.DuckDBPyConnection, all_rows: str, column: str | None) -> JsonMap:
    name = f"{quoted(str(column))}::VARCHAR"
    rows = con.sql(
        f"SELECT {name} AS v, {SPLIT}, count(*) AS n FROM ({all_rows})"
        f" GROUP BY ALL ORDER BY v, {SPLIT}"
    ).fetchall()
    totals: dict[str, int] = {}
    for value, _, count in rows:
        totals[str(value)] = totals.get(str(value), 0) + count
    # Sorted by count and then by name, so that equal counts give the same report in each rebuild.
    top = sorted(totals, key=lambda v: (-totals[v], v))[:_VALUES_MAX]
    by_value: dict[str, dict[str, int]] = {value: {} for value in top}
    for value, split, count in rows:
        if str(value) in by_value:
            by_value[str(value)][split] = count
    return {"column": column, "values": by_value, "others": len(totals) - len(top)}


def _samples(con: duckdb.DuckDBPyConnection, folder: Dataset) -> list[str]:
    split = next(iter(folder.files))
    rows = con.sql(
        f"SELECT to_json(r)::VARCHAR FROM (SELECT * EXCLUDE {SPLIT} FROM"
        f" ({folder.source('*', (split,))}) LIMIT {_SAMPLES}) r"
    ).fetchall()
    return [s if len(s) <= _SAMPLE_CHARS else s[:_SAMPLE_CHARS] + " ..." for (s,) in rows]


def comparable(before: JsonMap, current: JsonMap) -> JsonMap:
    """Return the figures of the last export without the values that this one lacks, which have
    numbers instead: its rows may be erased, and then nobody looks for them in this one."""
    old, new = before["balance"], current["balance"]
    if not old:
        return before
    values = new["values"] if new else {}
    counts = enumerate(old["values"].items())
    named = {v if v in values else f"\0{place}": by_split for place, (v, by_split) in counts}
    return {**before, "balance": {**old, "values": named}}


def drift(current: JsonMap, before: JsonMap | None) -> dict[str, float]:
    """Population stability index against the last export: of lengths, and of the balanced column.

    Below 0.1 is alike, above 0.2 has drifted.
    """
    if before is None:
        return {}
    indexes = {}
    by_split = [q["lengths"]["counts"].values() for q in (current, before)]
    sums = [[sum(column) for column in zip(*counts, strict=True)] for counts in by_split]
    # Histograms are compared bin by bin, so they need the same edges.
    if all(sums) and len(sums[0]) == len(sums[1]):
        indexes["lengths"] = _stability(sums[0], sums[1])
    new, old = current.get("balance"), before.get("balance")
    if new and old and new["column"] == old["column"]:
        values = sorted({*new["values"], *old["values"]})
        counts = [[sum(q["values"].get(v, {}).values()) for v in values] for q in (new, old)]
        indexes[new["column"]] = _stability(counts[0], counts[1])
    return indexes


def _stability(current: list[int], before: list[int]) -> float:
    total, past, index = sum(current) or 1, sum(before) or 1, 0.0
    for a, b in zip(current, before, strict=True):
        # A bin that is empty on one side would make the logarithm infinite.
        p, q = max(a / total, 1e-4), max(b / past, 1e-4)
        index += (p - q) * math.log(p / q)
    return round(index, 4)
