"""Checking a set of unknown origin: its form, files and consistency, then its leaks.

    manifest  the form and size of every value        rows       against recipe and manifest
    files     every file is listed, plain, unchanged   documents  card, report and certificate
    recipe    the manifest says what the recipe says   ...        the leaks, see `leaks`

Nothing out of the set becomes SQL but quoted names of columns, and the engine reaches the listed
shards alone. `sandbox` runs all of this in a process whose memory is bounded.

Consistency of recipe, manifest and rows of a set.

The recipe states what was requested; manifest and rows are compared with it, so a manifest that was
adjusted to doctored rows is detected. Each function yields one sentence per fault.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator

from lakelog.libraries import duckdb, pa, pq
from lakelog.train import assign, leaks, provenance, scratch, selection
from lakelog.train import recipe as recipes
from lakelog.train.dataset import MANIFEST, RECIPE, SPLIT, Dataset, Inventory, SetFault, load
from lakelog.train.leaks import FILE_CHECKS, Certificate, Leak
from lakelog.train.recipe import SPLITS
from lakelog.train.report import card, quality
from lakelog.train.scratch import parquet
from lakelog.train.selection import content_hashes, quoted, text_of
from lakelog.train.shapes import chat_exports
from lakelog.train.tables import JsonMap, quantity

_BATCH = 4_096
_SHOWN = 20


def inspect(path: str, against: str | None, near: float | None, spill: str) -> Certificate:
    """Check a set, or one against another, and return what was found as a certificate.

    `near` is a similarity from 0 to 1 in place of the recipe's, `spill` the directory for what does
    not fit in memory. The files may come from anybody: the engine that decodes them reaches nothing
    else. Raises ExportRefused for a directory without a set.
    """
    dataset, inventory, faults = load(path)
    other_set = None
    if against is not None:
        other_set, _, other_faults = load(against)
        faults += [SetFault(f.check, f"{against}: {f.fault}") for f in other_faults]
    faults += [SetFault("files", fault) for fault in _files(inventory, dataset)]
    # Without a set that can be queried there is nothing to compare; the faults so far say why.
    if dataset is None or (against is not None and other_set is None):
        return _certificate(faults)
    for checked in (dataset, other_set) if other_set else (dataset,):
        faults += [SetFault("recipe", fault) for fault in with_recipe(checked)]
    faults += [SetFault("rows", fault) for fault in with_files(dataset, inventory)]
    # The queries below name columns of the recipe, and would fail instead of reporting.
    if any("no column" in f.fault for f in faults):
        return _certificate(faults)
    # Bounded by the set's size: a file that decodes to much more than it stores may fill neither
    # the memory nor the disk.
    spill_bytes = 2_000_000_000 + 8 * inventory.bytes_on_disk
    paths = [*dataset.paths, *(other_set.paths if other_set else [])]
    # From here on the engine decodes files of unknown origin, so it can reach them and nothing
    # else.
    con = scratch.connect_isolated(paths, spill, spill_bytes)
    faults += _run_guarded(
        con, dataset, lambda: [SetFault("rows", fault) for fault in with_rows(con, dataset)]
    )
    certificates: list[Certificate] = []
    faults += _run_guarded(
        con, dataset, lambda: _leaks(con, dataset, other_set, near, certificates)
    )
    certificate = certificates[0] if certificates else Certificate({}, ())
    # The documents state the verdict at the recipe's own threshold for this set alone; with other
    # parameters they cannot be compared.
    if other_set is None and near is None and certificates and dataset.manifest.get("quality"):
        fault = _run_guarded(con, dataset, lambda: _documents(dataset, inventory, certificate))
        faults += fault
    return _certificate(faults, certificate)


def _certificate(faults: list[SetFault], certificate: Certificate | None = None) -> Certificate:
    """Return one certificate of faults and leaks; only the first faults of a kind are named."""
    findings: list[Leak] = []
    for check in FILE_CHECKS:
        descriptions = [f.fault for f in faults if f.check == check]
        findings += [Leak(check, 1, description) for description in descriptions[:_SHOWN]]
        if unnamed := len(descriptions) - _SHOWN:
            findings += [Leak(check, unnamed, f"{unnamed:,} more")] if unnamed > 0 else []
    checks, leaks_ = (certificate.checks, certificate.leaks) if certificate else ({}, ())
    return Certificate({**checks, **FILE_CHECKS}, (*leaks_, *findings))


def _run_guarded(
    con: duckdb.DuckDBPyConnection, dataset: Dataset, work: Callable[[], Iterable[SetFault]]
) -> list[SetFault]:
    """Return the findings of `work`; where files cannot be decoded, those files."""
    try:
        return list(work())
    except (duckdb.Error, pa.ArrowException, ValueError, TypeError, KeyError) as error:
        # Running out of memory is reported by `sandbox`, which knows the limit.
        if isinstance(error, (duckdb.OutOfMemoryException, pa.ArrowMemoryError)):
            raise MemoryError from None
        damaged = [SetFault("files", fault) for fault in _undecodable(con, dataset)]
        reason = " ".join(str(error).split())[:200]
        return damaged or [SetFault("files", f"the rows cannot be checked: {reason}")]


def _undecodable(con: duckdb.DuckDBPyConnection, dataset: Dataset) -> Iterable[str]:
    """Decode each file separately to name the damaged ones."""
    for name in dataset.footers:
        source = parquet([f"{dataset.path}/{name}"])
        try:
            con.sql(f"SELECT bit_xor(hash(t)) FROM {source} t").fetchall()
        except duckdb.Error as error:
            yield f"{name} cannot be decoded: {' '.join(str(error).split())[:200]}"


def _leaks(
    con: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    other_set: Dataset | None,
    near: float | None,
    certificates: list[Certificate],
) -> list[SetFault]:
    certificates.append(leaks.find(con, dataset, other_set, near=near))
    if other_set is None and near is None and dataset.manifest["clean"] != certificates[0].clean:
        return [SetFault("manifest", f"{MANIFEST}: clean is not what the rows give")]
    return []


def _files(inventory: Inventory, dataset: Dataset | None) -> Iterable[str]:
    """Files that differ from the manifest, are missing, unlisted, or not regular files."""
    yield from inventory.faults
    if dataset is None:
        return
    stated = dataset.manifest["files"]
    for name, facts in stated.items():
        if name not in inventory.sizes:
            yield f"{name} is missing"
        elif (
            # Sizes first: they cost nothing, and a file of another size need not be hashed.
            inventory.sizes[name] != facts["bytes"]
            or provenance.sha256(inventory.path(name)) != facts["sha256"]
        ):
            yield f"{name} was changed"
    yield from (
        f"{n} is not in the manifest" for n in inventory.sizes if n not in (*stated, MANIFEST)
    )
    if RECIPE in inventory.sizes and RECIPE not in stated:
        yield f"{RECIPE} is not in the manifest"


def _documents(
    dataset: Dataset, inventory: Inventory, certificate: Certificate
) -> Iterable[SetFault]:
    """Documents that differ from those generated from recipe, manifest and rows.

    Only a set of this version is compared: another one may word its documents otherwise.
    """
    # Another version may word its documents differently, which is no forgery.
    if dataset.manifest["versions"].get("lakelog") != provenance.versions(dataset.recipe).get(
        "lakelog"
    ):
        return
    schema = next(f.schema for n, f in dataset.footers.items() if n.startswith("data/"))
    contents = card.documents(dataset.recipe, dataset.manifest, certificate.record(), schema)
    expected = {*contents, MANIFEST, RECIPE, *dataset.footers}
    for name, content in contents.items():
        data = content.encode()
        if inventory.read(name, len(data)) != data:
            yield SetFault("documents", f"{name} is not what the manifest and the rows give")
    for dialect in dataset.recipe.shape["also"] or ():
        for split in dataset.files:
            name = f"{dialect}/{split}.jsonl"
            expected.add(name)
            if name not in inventory.sizes or _dialect(
                dataset, split, dialect
            ) != provenance.sha256(inventory.path(name)):
                yield SetFault("documents", f"{name} has not the conversations of the rows")
    for name in inventory.sizes:
        if name not in expected:
            yield SetFault("documents", f"{name} is no file of a training set")


def _dialect(dataset: Dataset, split: str, dialect: str) -> str:
    """The SHA-256 of the regenerated JSON lines of a split."""
    digest = hashlib.sha256()
    for path in dataset.files[split]:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                digest.update(chat_exports.lines(batch, dialect))
    return digest.hexdigest()


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
