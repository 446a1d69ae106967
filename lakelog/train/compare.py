"""Looking at exports: what separates two, and which of them hold an event or a subject."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakelog.errors import LakelogError
from lakelog.train import provenance
from lakelog.train.dataset import SIDE, open_set
from lakelog.train.recipe import SIDES
from lakelog.train.scratch import connect, parquet
from lakelog.train.selection import quoted

if TYPE_CHECKING:
    from lakelog.lake import Lake


@dataclass(frozen=True)
class ExportDiff:
    """What separates two exports. `moved` counts groups that changed their side."""

    recipe: dict[str, tuple[Any, Any]]
    snapshots: tuple[str, str]
    rows: dict[str, tuple[int, int]]
    added: int
    removed: int
    moved: int


@dataclass(frozen=True)
class Containment:
    """An export that holds what was asked for. `rows` by side; None if its files are gone."""

    export: str
    name: str
    path: str
    rows: dict[str, int] | None


def diff(a: str, b: str) -> ExportDiff:
    """Compare the exports in two directories: recipe, rows, and groups that changed sides."""
    one, two = open_set(a), open_set(b)
    con = connect(os.path.dirname(os.path.abspath(a)))
    rows: dict[str, Any] = {
        side: tuple(f.manifest["splits"].get(side, {}).get("rows", 0) for f in (one, two))
        for side in SIDES
    }
    added = removed = moved = 0
    content = one.roles["content"]
    if content == two.roles["content"]:
        key = f"md5(to_json(row({', '.join(map(quoted, content))}))::VARCHAR) AS k"
        added, removed = (
            con.sql(
                f"SELECT count(*) FROM (SELECT k FROM ({x.source(key)}) EXCEPT"
                f" SELECT k FROM ({y.source(key)}))"
            ).fetchall()[0][0]
            for x, y in ((two, one), (one, two))
        )
    group = one.roles["group"]
    if group and group == two.roles["group"]:
        asked = f"SELECT DISTINCT {SIDE} AS side, {quoted(group)} AS g"
        sides = [f"{asked} FROM ({f.source(quoted(group))})" for f in (one, two)]
        moved = con.sql(
            f"SELECT count(*) FROM ({sides[0]}) a JOIN ({sides[1]}) b USING (g)"
            " WHERE a.side <> b.side"
        ).fetchall()[0][0]
    snapshots = (one.manifest["snapshot"], two.manifest["snapshot"])
    changed = _changed(one.manifest["recipe"], two.manifest["recipe"])
    return ExportDiff(changed, snapshots, rows, added, removed, moved)


def _changed(one: dict[str, Any], two: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys of two recipes whose values differ."""
    found: dict[str, tuple[Any, Any]] = {}
    for section in one:
        a, b = one[section], two.get(section)
        if not isinstance(a, dict):
            if a != b and section != "sha256":
                found[section] = (a, b)
            continue
        for key, value in a.items():
            other = b.get(key) if isinstance(b, dict) else None
            if value != other:
                found[f"{section}.{key}"] = (value, other)
    return found


def where(lake: Lake, wanted: str) -> list[Containment]:
    """Say which exports hold an event (its id or seq) or a subject, by their lineage.

    Only the numbers of events stand in an export, so the lake is asked which they are.
    """
    found = []
    for facts in provenance.exports(lake):
        rows = _rows(lake, facts, wanted)
        if rows is None or rows:
            found.append(Containment(facts["export"], facts["name"], facts["path"], rows))
    return found


def _rows(lake: Lake, facts: dict[str, Any], wanted: str) -> dict[str, int] | None:
    folder = f"{facts['path']}/lineage"
    try:
        if provenance.read(facts["path"])["id"] != facts["export"]:
            return None
        number = int(wanted) if wanted.isdecimal() and len(wanted) < 19 else -1
        table = (
            lake.at(facts["snapshot"])
            .sql(
                "SELECT seq FROM events WHERE id = $w OR subject = $w OR seq = $n",
                {"w": wanted, "n": number},
            )
            .to_arrow_table()
        )
        names = sorted(os.listdir(folder))
    except (LakelogError, OSError):
        return None
    con = connect(os.path.dirname(facts["path"]))
    con.register("sought", table)
    made: dict[str, int] = {}
    for side in SIDES:
        paths = [f"{folder}/{n}" for n in names if n.startswith(f"{side}-")]
        if paths:
            count = con.sql(
                "SELECT count(DISTINCT (f, r)) FROM (SELECT filename AS f, file_row_number AS r,"
                f" unnest(events) AS seq FROM {parquet(paths, numbered=True)[:-1]},"
                " filename = true))"
                " SEMI JOIN sought USING (seq)"
            ).fetchall()[0][0]
            if count:
                made[side] = count
    return made
