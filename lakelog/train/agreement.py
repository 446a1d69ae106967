"""Consistency of recipe, manifest and rows of a set.

The recipe states what was requested; manifest and rows are compared with it, so a manifest that was
adjusted to doctored rows is detected. Each function yields one sentence per fault.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator

from lakelog.libraries import duckdb
from lakelog.train import assign, provenance, selection
from lakelog.train import recipe as recipes
from lakelog.train.dataset import MANIFEST, RECIPE, SPLIT, Dataset, Inventory
from lakelog.train.recipe import SPLITS
from lakelog.train.report import quality
from lakelog.train.scratch import parquet
from lakelog.train.selection import content_hashes, quoted, text_of
from lakelog.train.tables import JsonMap, quantity

_ONE_EVENT = ("events", "text", "classification")
"""Shapes whose rows are one event each."""


def with_recipe(dataset: Dataset) -> Iterator[str]:
    """Yield where the manifest contradicts the recipe."""
    manifest, recipe = dataset.manifest, dataset.recipe
    parsed = tomllib.loads(recipe.text)
    name = parsed.get("name") or recipe.card["title"]
    if name and name != manifest["name"]:
        yield f"{MANIFEST}: name is {manifest['name']!r}, and {RECIPE} says {name!r}"
    # A round trip through JSON gives both the same types (tuples become lists).
    sections = json.loads(json.dumps({"sha256": recipe.digest, **recipes.as_dict(recipe)}))
    for section in {**sections, **manifest["recipe"]}:
        if manifest["recipe"].get(section) != sections.get(section):
            yield f"{MANIFEST}: recipe.{section} is not what {RECIPE} says"
    # These values follow from the recipe alone, so an edited manifest cannot claim others.
    expected: JsonMap = {
        "id": provenance.export_id(recipe, manifest["snapshot"], manifest["redaction"]["key"]),
        "shape": recipe.kind,
        "fence": recipe.split["before"],
    }
    for key, value in expected.items():
        if manifest[key] != value:
            yield f"{MANIFEST}: {key} is {manifest[key]!r}, and by {RECIPE} it is {value!r}"
    # The stated value may be long and hostile; 60 characters of it are enough for a message.
    for role, value in dataset.roles.items():
        if manifest["roles"][role] != value:
            excerpt = str(manifest["roles"][role])[:60]
            yield f"{MANIFEST}: roles.{role} is {excerpt!r}, and by {RECIPE} it is {value!r}"
    for key in ("kinds", "mode"):
        if manifest["redaction"][key] != recipe.redact[key]:
            yield f"{MANIFEST}: redaction.{key} is not what {RECIPE} says"
    if set(manifest["splits"]) != set(recipe.splits):
        yield f"{MANIFEST}: splits are not those of {RECIPE}"
    yield from _missing_columns(dataset)


def _missing_columns(dataset: Dataset) -> Iterator[str]:
    """Yield the missing columns without which the promises of the recipe cannot be checked."""
    split, columns = dataset.recipe.split, dataset.columns
    if split["group"] and not dataset.roles["group"]:
        yield f"{RECIPE} groups by {split['group']}, and the rows have no such column"
    if split["before"] and not dataset.roles["time"]:
        yield f"{RECIPE} has a temporal cutoff, and the rows have no column time"
    missing = [
        n for n in (*dataset.roles["content"], dataset.roles["until"]) if n and n not in columns
    ]
    if missing:
        yield f"the rows have no column {missing[0]}"


def with_files(dataset: Dataset, inventory: Inventory) -> Iterator[str]:
    """Yield where the list of files and the counts of the splits contradict the files."""
    stated_splits = dataset.manifest["splits"]
    for split in SPLITS:
        names = [f.rpartition("/")[2] for f in dataset.files.get(split, [])]
        stated = stated_splits.get(split, {"rows": 0, "bytes": 0, "files": []})
        count = len(names)
        if names != [f"{split}-{n:05d}-of-{count:05d}.parquet" for n in range(count)]:
            yield f"data: the files of {split} are not numbered one after the other"
        if stated["files"] != names:
            yield f"{MANIFEST}: splits.{split}.files are not the files in data"
        rows = sum(dataset.footers[f"data/{n}"].rows for n in names)
        if stated["rows"] != rows:
            yield f"{MANIFEST}: splits.{split}.rows is {stated['rows']:,}; the files have {rows:,}"
        if stated["bytes"] != sum(inventory.sizes[f"data/{n}"] for n in names):
            yield f"{MANIFEST}: splits.{split}.bytes is not the size of the files"
        for name in names:
            lineage = dataset.footers.get(f"lineage/{name}")
            # Equal row groups, not just equal counts: row n of the lineage must describe row n of
            # the data.
            if lineage is None or lineage.groups != dataset.footers[f"data/{name}"].groups:
                yield f"lineage/{name} has not the rows of data/{name}"
    rows_max = dataset.recipe.budget["rows"]
    if (
        rows_max
        and sum(f.rows for n, f in dataset.footers.items() if n.startswith("data/")) > rows_max
    ):
        yield f"there are more rows than the budget of {RECIPE}"


def with_rows(con: duckdb.DuckDBPyConnection, dataset: Dataset) -> Iterator[str]:
    """Yield where the rows contradict recipe and manifest."""
    yield from _nulls(con, dataset)
    yield from _repeated_rows(con, dataset)
    yield from _misplaced_rows(con, dataset)
    yield from _wrong_figures(con, dataset)


def _count(con: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(con.sql(f"SELECT count(*) FROM ({query})").fetchall()[0][0])


def _nulls(con: duckdb.DuckDBPyConnection, dataset: Dataset) -> Iterator[str]:
    for role in ("group", "time", "until"):
        name = dataset.roles[role]
        all_rows = f"SELECT * FROM ({dataset.source(quoted(name))})" if name else ""
        if name and (n := _count(con, f"{all_rows} WHERE {quoted(name)} IS NULL")):
            yield f"{quantity(n, 'row', 'has', 'have')} no {name}, which is the {role} of a row"


def _repeated_rows(con: duckdb.DuckDBPyConnection, dataset: Dataset) -> Iterator[str]:
    """Repeated rows: by content where the recipe deduplicates, and by event."""
    if dataset.recipe.dedupe["exact"]:
        hashes = dataset.source(content_hashes(dataset.roles["content"]))
        n = _count(con, f"SELECT h1, h2 FROM ({hashes}) GROUP BY ALL HAVING count(*) > 1")
        if n:
            sentence = quantity(n, "row", "occurs", "occur")
            yield f"{sentence} more than once, and {RECIPE} drops equal rows"
    cursor = con.cursor()
    query = dataset.recipe.select["sql"].strip().rstrip(";").strip()
    # Only for queries whose rows are single events: a join or aggregate may use an event in several
    # rows.
    if dataset.recipe.kind in _ONE_EVENT and selection.is_traceable(cursor, query):
        lineage = [f"{dataset.path}/{n}" for n in dataset.footers if n.startswith("lineage/")]
        events = f"SELECT unnest(events) AS e FROM {parquet(lineage)}"
        if n := _count(con, f"SELECT e FROM ({events}) GROUP BY e HAVING count(*) > 1"):
            yield f"lineage: {quantity(n, 'event', 'occurs', 'occur')} more than once"


def _misplaced_rows(con: duckdb.DuckDBPyConnection, dataset: Dataset) -> Iterator[str]:
    """Rows that are not in the split that the hash of their group gives.

    Not checked for stratified splits, whose blocks depend on rows left out, nor where redaction
    may have changed the keys.
    """
    settings, group = dataset.recipe.split, dataset.roles["group"]
    if (
        not group
        or settings["stratify"] is not None
        or any(dataset.manifest["redaction"]["found"].values())
    ):
        return
    # The same SQL and the same thresholds as in the export, so a difference was made afterwards.
    number = assign.number_of(text_of(dataset.recipe.salt), f"{quoted(group)}::VARCHAR")
    counts = con.sql(
        f"SELECT {SPLIT}, {number} AS n, count(*) FROM ({dataset.source(quoted(group))})"
        f" WHERE {quoted(group)} IS NOT NULL GROUP BY ALL"
    ).fetchnumpy()
    expected = assign.splits_of(counts["n"], dataset.recipe)
    wrong = sum(
        int(rows)
        for split, place, rows in zip(counts[SPLIT], expected, counts["count_star()"], strict=True)
        if SPLITS[place] != split
    )
    if wrong:
        yield (
            f"{quantity(wrong, 'row', 'is', 'are')} not in the split that the hash of {group} gives"
        )


def _wrong_figures(con: duckdb.DuckDBPyConnection, dataset: Dataset) -> Iterator[str]:
    """Figures and samples of the manifest that are not those of the rows."""
    stated = dataset.manifest.get("quality")
    if stated is None:
        yield f"{MANIFEST}: quality is missing"
        return
    actual = json.loads(json.dumps(quality.measure(con, dataset)))
    for key, value in actual.items():
        if stated[key] != value:
            yield f"{MANIFEST}: quality.{key} is not what the rows give"
    counts = {split: sum(n) for split, n in stated["lengths"]["counts"].items()}
    if counts != {split: s["rows"] for split, s in dataset.manifest["splits"].items() if s["rows"]}:
        yield f"{MANIFEST}: quality.lengths does not count every row"
    # Drift can be recomputed from figures in the manifest itself; the earlier export may be gone.
    before = dataset.manifest["previous"]
    if stated["drift"] != quality.drift(
        {**stated, **actual}, before["quality"] if before else None
    ):
        yield f"{MANIFEST}: quality.drift is not what the figures give"
