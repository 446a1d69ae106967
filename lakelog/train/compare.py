"""Comparing two exports, and finding the exports that contain an event or a subject."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from lakelog.errors import LakelogError
from lakelog.lake import Lake
from lakelog.train import provenance
from lakelog.train.dataset import SPLIT, open_set
from lakelog.train.recipe import SPLITS
from lakelog.train.scratch import connect, parquet
from lakelog.train.selection import quoted
from lakelog.train.tables import JsonMap


@dataclass(frozen=True)
class ExportDiff:
    """The differences between two exports. `moved` counts groups that changed splits."""

    recipe: dict[str, tuple[object, object]]
    snapshots: tuple[str, str]
    rows: dict[str, tuple[int, int]]
    added: int
    removed: int
    moved: int


@dataclass(frozen=True)
class Containment:
    """An export that contains the event or subject. `rows` by split; None if its files are gone."""

    export: str
    name: str
    path: str
    rows: dict[str, int] | None


def diff(a: str, b: str) -> ExportDiff:
    """Compare the exports in two directories: recipe, rows, and groups that changed splits."""
    before, after = open_set(a), open_set(b)
    # Spills next to the set, where there was room for the set itself.
    con = connect(os.path.dirname(os.path.abspath(a)))
    rows: JsonMap = {
        split: tuple(f.manifest["splits"].get(split, {}).get("rows", 0) for f in (before, after))
        for split in SPLITS
    }
    added = removed = moved = 0
    content = before.roles["content"]
    # Rows can only be matched if both sets mean the same by equal content; otherwise the counts
    # stay 0.
    if content == after.roles["content"]:
        key = f"md5(to_json(row({', '.join(map(quoted, content))}))::VARCHAR) AS k"
        added, removed = (
            con.sql(
                f"SELECT count(*) FROM (SELECT k FROM ({x.source(key)}) EXCEPT"
                f" SELECT k FROM ({y.source(key)}))"
            ).fetchall()[0][0]
            for x, y in ((after, before), (before, after))
        )
    group = before.roles["group"]
    # Moved groups are counted apart from rows: they are what makes the metrics of two exports
    # incomparable.
    if group and group == after.roles["group"]:
        query = f"SELECT DISTINCT {SPLIT} AS split, {quoted(group)} AS g"
        by_split = [f"{query} FROM ({f.source(quoted(group))})" for f in (before, after)]
        moved = con.sql(
            f"SELECT count(*) FROM ({by_split[0]}) a JOIN ({by_split[1]}) b USING (g)"
            " WHERE a.split <> b.split"
        ).fetchall()[0][0]
    snapshots = (before.manifest["snapshot"], after.manifest["snapshot"])
    changed = _recipe_changes(before.manifest["recipe"], after.manifest["recipe"])
    return ExportDiff(changed, snapshots, rows, added, removed, moved)


def _recipe_changes(before: JsonMap, after: JsonMap) -> dict[str, tuple[Any, Any]]:
    """The keys of two recipes whose values differ."""
    changes: dict[str, tuple[object, object]] = {}
    for section in before:
        a, b = before[section], after.get(section)
        if not isinstance(a, dict):
            if a != b and section != "sha256":
                changes[section] = (a, b)
            continue
        for key, value in a.items():
            new_value = b.get(key) if isinstance(b, dict) else None
            if value != new_value:
                changes[f"{section}.{key}"] = (value, new_value)
    return changes


def where(lake: Lake, key: str) -> list[Containment]:
    """Return the exports that contain an event (by id or seq) or a subject, by their lineage.

    An export records only the `seq` of its events, so the lake resolves ids and subjects to them.
    """
    containments = []
    for facts in provenance.exports(lake):
        rows = _rows(lake, facts, key)
        if rows is None or rows:
            containments.append(Containment(facts["export"], facts["name"], facts["path"], rows))
    return containments


def _rows(lake: Lake, facts: JsonMap, key: str) -> dict[str, int] | None:
    folder = f"{facts['path']}/lineage"
    try:
        # Another export may have been written to the same path since.
        if provenance.read(facts["path"])["id"] != facts["export"]:
            return None
        # More digits than a 64-bit integer has cannot be a `seq`; DuckDB would refuse the
        # parameter.
        number = int(key) if key.isdecimal() and len(key) < 19 else -1
        table = (
            lake.at(facts["snapshot"])
            .sql(
                "SELECT seq FROM events WHERE id = $w OR subject = $w OR seq = $n",
                {"w": key, "n": number},
            )
            .to_arrow_table()
        )
        names = sorted(os.listdir(folder))
    except (LakelogError, OSError):
        # A lost snapshot or directory makes one export unknown and must not fail the search in the
        # others.
        return None
    con = connect(os.path.dirname(facts["path"]))
    con.register("sought", table)
    counts: dict[str, int] = {}
    for split in SPLITS:
        paths = [f"{folder}/{n}" for n in names if n.startswith(f"{split}-")]
        if paths:
            # A row may contain several of the events, so rows are counted by file and position.
            count = con.sql(
                "SELECT count(DISTINCT (f, r)) FROM (SELECT filename AS f, file_row_number AS r,"
                f" unnest(events) AS seq FROM {parquet(paths, numbered=True)[:-1]},"
                " filename = true))"
                " SEMI JOIN sought USING (seq)"
            ).fetchall()[0][0]
            if count:
                counts[split] = count
    return counts
