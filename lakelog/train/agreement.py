"""Whether recipe, manifest and rows say the same: a set is only as good as all three together.

The recipe is what was asked for; the manifest and the rows are held against it, so a manifest that
was mended to fit doctored rows is found. Each function returns words, one text for each fault.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lakelog.train import assign, provenance, selection
from lakelog.train import recipe as recipes
from lakelog.train.dataset import MANIFEST, RECIPE, SIDE, Dataset
from lakelog.train.inventory import Inventory
from lakelog.train.recipe import SIDES
from lakelog.train.report import quality
from lakelog.train.scratch import parquet
from lakelog.train.selection import quoted, text_of
from lakelog.train.wording import counted

if TYPE_CHECKING:
    import duckdb

_ONE_EVENT = ("events", "text", "classification")
"""Shapes whose rows are one event each."""


def with_recipe(set_: Dataset) -> Iterator[str]:
    """What the manifest says otherwise than the recipe."""
    told, wanted = set_.manifest, set_.recipe
    parsed = tomllib.loads(wanted.text)
    name = parsed.get("name") or wanted.card["title"]
    if name and name != told["name"]:
        yield f"{MANIFEST}: name is {told['name']!r}, and {RECIPE} says {name!r}"
    sections = json.loads(json.dumps({"sha256": wanted.digest, **recipes.as_dict(wanted)}))
    for section in {**sections, **told["recipe"]}:
        if told["recipe"].get(section) != sections.get(section):
            yield f"{MANIFEST}: recipe.{section} is not what {RECIPE} says"
    expected: dict[str, Any] = {
        "id": provenance.export_id(wanted, told["snapshot"], told["redaction"]["key"]),
        "shape": wanted.kind,
        "fence": wanted.split["before"],
    }
    for key, value in expected.items():
        if told[key] != value:
            yield f"{MANIFEST}: {key} is {told[key]!r}, and by {RECIPE} it is {value!r}"
    for role, value in set_.roles.items():
        if told["roles"][role] != value:
            said = str(told["roles"][role])[:60]
            yield f"{MANIFEST}: roles.{role} is {said!r}, and by {RECIPE} it is {value!r}"
    for key in ("kinds", "mode"):
        if told["redaction"][key] != wanted.redact[key]:
            yield f"{MANIFEST}: redaction.{key} is not what {RECIPE} says"
    if set(told["splits"]) != set(wanted.sides):
        yield f"{MANIFEST}: splits are not those of {RECIPE}"
    yield from _missing_columns(set_)


def _missing_columns(set_: Dataset) -> Iterator[str]:
    """Columns without which what the recipe promises cannot be checked."""
    split, columns = set_.recipe.split, set_.columns
    if split["group"] and not set_.roles["group"]:
        yield f"{RECIPE} groups by {split['group']}, and the rows have no such column"
    if split["before"] and not set_.roles["time"]:
        yield f"{RECIPE} has a fence in time, and the rows have no column time"
    lost = [n for n in (*set_.roles["content"], set_.roles["until"]) if n and n not in columns]
    if lost:
        yield f"the rows have no column {lost[0]}"


def with_files(set_: Dataset, listed: Inventory) -> Iterator[str]:
    """What the list of files and the counts of the splits say otherwise than the files."""
    told = set_.manifest["splits"]
    for side in SIDES:
        names = [f.rpartition("/")[2] for f in set_.files.get(side, [])]
        split = told.get(side, {"rows": 0, "bytes": 0, "files": []})
        count = len(names)
        if names != [f"{side}-{n:05d}-of-{count:05d}.parquet" for n in range(count)]:
            yield f"data: the files of {side} are not numbered one after the other"
        if split["files"] != names:
            yield f"{MANIFEST}: splits.{side}.files are not the files in data"
        rows = sum(set_.footers[f"data/{n}"].rows for n in names)
        if split["rows"] != rows:
            yield f"{MANIFEST}: splits.{side}.rows is {split['rows']:,}; the files have {rows:,}"
        if split["bytes"] != sum(listed.sizes[f"data/{n}"] for n in names):
            yield f"{MANIFEST}: splits.{side}.bytes is not the size of the files"
        for name in names:
            beside = set_.footers.get(f"lineage/{name}")
            if beside is None or beside.groups != set_.footers[f"data/{name}"].groups:
                yield f"lineage/{name} has not the rows of data/{name}"
    most = set_.recipe.budget["rows"]
    if most and sum(f.rows for n, f in set_.footers.items() if n.startswith("data/")) > most:
        yield f"there are more rows than the budget of {RECIPE}"


def with_rows(con: duckdb.DuckDBPyConnection, set_: Dataset) -> Iterator[str]:
    """What the rows say otherwise than recipe and manifest."""
    yield from _nulls(con, set_)
    yield from _twice(con, set_)
    yield from _moved(con, set_)
    yield from _measured(con, set_)


def _count(con: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(con.sql(f"SELECT count(*) FROM ({query})").fetchall()[0][0])


def _nulls(con: duckdb.DuckDBPyConnection, set_: Dataset) -> Iterator[str]:
    for role in ("group", "time", "until"):
        name = set_.roles[role]
        if name and (n := _count(con, f"{_all(set_, name)} WHERE {quoted(name)} IS NULL")):
            yield f"{counted(n, 'row', 'has', 'have')} no {name}, which is the {role} of a row"


def _all(set_: Dataset, name: str) -> str:
    return f"SELECT * FROM ({set_.source(quoted(name))})"


def _twice(con: duckdb.DuckDBPyConnection, set_: Dataset) -> Iterator[str]:
    """Rows that are in twice: by content where the recipe drops equals, by event elsewhere."""
    content = ", ".join(map(quoted, set_.roles["content"]))
    if set_.recipe.dedupe["exact"]:
        hashes = set_.source(f"hash({content}) AS h1, hash({content}, 'lakelog') AS h2")
        n = _count(con, f"SELECT h1, h2 FROM ({hashes}) GROUP BY ALL HAVING count(*) > 1")
        if n:
            words = counted(n, "row", "occurs", "occur")
            yield f"{words} more than once, and {RECIPE} drops equal rows"
    cursor = con.cursor()
    query = set_.recipe.select["sql"].strip().rstrip(";").strip()
    if set_.recipe.kind in _ONE_EVENT and selection.is_traceable(cursor, query):
        lineage = [f"{set_.path}/{n}" for n in set_.footers if n.startswith("lineage/")]
        events = f"SELECT unnest(events) AS e FROM {parquet(lineage)}"
        if n := _count(con, f"SELECT e FROM ({events}) GROUP BY e HAVING count(*) > 1"):
            yield f"lineage: {counted(n, 'event', 'occurs', 'occur')} more than once"


def _moved(con: duckdb.DuckDBPyConnection, set_: Dataset) -> Iterator[str]:
    """Rows that are not where the hash of their group puts them.

    Not known after strata, whose blocks depend on rows left out, or where redaction changed keys.
    """
    split, group = set_.recipe.split, set_.roles["group"]
    if (
        not group
        or split["stratify"] is not None
        or any(set_.manifest["redaction"]["found"].values())
    ):
        return
    number = assign.number_of(text_of(set_.recipe.salt), f"{quoted(group)}::VARCHAR")
    asked = con.sql(
        f"SELECT {SIDE}, {number} AS n, count(*) FROM ({set_.source(quoted(group))})"
        f" WHERE {quoted(group)} IS NOT NULL GROUP BY ALL"
    ).fetchnumpy()
    sides = assign.sides_of(asked["n"], set_.recipe)
    wrong = sum(
        int(rows)
        for side, place, rows in zip(asked[SIDE], sides, asked["count_star()"], strict=True)
        if SIDES[place] != side
    )
    if wrong:
        yield (
            f"{counted(wrong, 'row', 'is', 'are')} not in the split that the hash of {group} gives"
        )


def _measured(con: duckdb.DuckDBPyConnection, set_: Dataset) -> Iterator[str]:
    """Where the figures and samples of the manifest are not those of the rows."""
    told = set_.manifest.get("quality")
    if told is None:
        yield f"{MANIFEST}: quality is missing"
        return
    found = json.loads(json.dumps(quality.measure(con, set_)))
    for key, value in found.items():
        if told[key] != value:
            yield f"{MANIFEST}: quality.{key} is not what the rows give"
    counts = {side: sum(n) for side, n in told["lengths"]["counts"].items()}
    if counts != {side: s["rows"] for side, s in set_.manifest["splits"].items() if s["rows"]}:
        yield f"{MANIFEST}: quality.lengths does not count every row"
    before = set_.manifest["previous"]
    if told["drift"] != quality.drift({**told, **found}, before["quality"] if before else None):
        yield f"{MANIFEST}: quality.drift is not what the figures give"
