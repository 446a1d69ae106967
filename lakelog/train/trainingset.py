"""Exporting a training set: select, shape, redact, dedupe, split, write, check, sign.

    1 resolve the snapshot, check the query       5 write the files and lineage of every split
    2 stage the redacted rows of the shape        6 check the finished files for leaks
    3 deduplicate, assign each row to a split     7 write card, report and manifest
    4 refuse a split that cannot be met           8 rename; pin the snapshot in the lake

Everything is written to a temporary directory next to `out` and renamed at the end, so a killed
export leaves nothing that looks complete. The same snapshot, recipe, key and library versions give
the same bytes.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import lakelog.export as exports
from lakelog.erased import copies
from lakelog.errors import ExportRefused, InvalidRecipe
from lakelog.lake import Lake
from lakelog.libraries import duckdb, pa
from lakelog.train import (
    dataset,
    leaks,
    losses,
    provenance,
    redact,
    row_splits,
    scratch,
    staging,
    tokenizer,
)
from lakelog.train import recipe as recipes
from lakelog.train.assign import RowTable
from lakelog.train.cluster import Clusters
from lakelog.train.recipe import SPLITS, Recipe
from lakelog.train.report import card, quality, report
from lakelog.train.selection import RowQuery, at_state, choose, refusing_values, session_of
from lakelog.train.shapes import chat_exports, windows
from lakelog.train.shards import Shards
from lakelog.train.staging import Stage
from lakelog.train.tables import Array, JsonMap, require_extra
from lakelog.workers import WorkerPool

_STAGE = ".stage"
StageCallback = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class TrainingExport:
    """The result of an export: manifest.json as a dict, and the certificate of its files."""

    path: str
    manifest: JsonMap
    certificate: leaks.Certificate

    @property
    def id(self) -> str:
        """16 hex digits of snapshot, recipe and key."""
        return str(self.manifest["id"])

    @property
    def snapshot(self) -> str:
        """The snapshot that was exported."""
        return str(self.manifest["snapshot"])

    @property
    def warnings(self) -> list[str]:
        """Sentences about splits whose size is far from what the recipe asks for."""
        return report.warnings(self.manifest)

    @property
    def not_kept(self) -> str:
        """What the rows lack, in words; empty if nothing."""
        return losses.sentence(self.manifest["losses"])

    @property
    def rows(self) -> dict[str, int]:
        """Rows of each split."""
        return {split: facts["rows"] for split, facts in self.manifest["splits"].items()}


def export(
    lake: Lake,
    recipe: object,
    out: str,
    *,
    progress: StageCallback | None = None,
    workers: str | None = None,
    model: str = "",
) -> TrainingExport:
    """Export the training set of a recipe (a path, TOML text, dict or Recipe) to a directory.

    `workers` is where rows are redacted: by "local" processes, or at "ray://HOST:PORT"; the files
    are the same. In a set that only a `model` learns from, protected fields are NULL, as without
    keys; `exports` does not list it. Raises InvalidRecipe for a recipe that is wrong, ExportRefused
    for one that cannot be met, an `out` that is in use, a snapshot that is gone or a key that is
    missing, and what `working` raises; nothing is then left.
    """
    checked = recipes.load(recipe)
    out = os.path.abspath(os.fspath(out))
    if lake.store.paths.is_sealed and WorkerPool.is_elsewhere(workers):
        raise ExportRefused(
            f"--on {workers}: the lake at {lake.path} is encrypted or has protected fields, and Ray"
            " writes rows to disk when its memory is full: export it --on local"
        )
    # Everything that can be refused without reading the lake is refused here: a missing key or
    # library must not show after an hour of redaction.
    exports.require_free(out)
    key = redact.key_of(checked)
    # Before a row is read: what is erased from now on may be in the set.
    created = datetime.now(UTC).isoformat(timespec="microseconds")
    if checked.redact["deep"]:
        require_extra("datafog", "redact", "[redact] deep")
    counter = _requirements(checked)
    with closing(
        session_of(lake, checked, scratch.MEMORY_BYTES, keeps_sealed=bool(model))
    ) as asker:
        selection = choose(lake, checked, asker)
        # Read before the export is recorded, or it would find itself.
        before = _previous(lake, checked)
        facts: JsonMap = {}
        copies.note(lake.store.paths, "training set", os.path.abspath(out))

        # Called before the rename: from then on the directory is complete, and its snapshot must
        # not be collected by gc. A tag without a directory is harmless, the reverse is not.
        def sign(manifest: JsonMap) -> None:
            facts.update(provenance.facts_of(manifest, out))
            provenance.pin(lake, facts, model)

        job = _ExportJob(
            selection,
            checked,
            out,
            key=key,
            branch=lake.branch_name,
            previous=before,
            created=created,
            counter=counter,
            progress=progress,
            sign=sign,
        )
        with WorkerPool.at(workers) as pool:
            result = job.run(pool)
    # The note is appended last. It is for people and for `path`; the tag alone decides whether the
    # snapshot is kept.
    if not model:
        provenance.record(lake, facts)
    return result


def _requirements(recipe: Recipe) -> tokenizer.Tokenizer | None:
    """Load the optional libraries that a recipe needs, before anything is read."""
    if recipe.filter["languages"]:
        require_extra("py3langid", "language", "[filter] languages")
    name = recipe.budget["tokenizer"]
    return tokenizer.load(name, recipe.budget["download"]) if name else None


def export_again(
    lake: Lake,
    recipe: Recipe,
    manifest: JsonMap,
    out: str,
    progress: StageCallback | None = None,
    *,
    earlier: dataset.Dataset | None = None,
    erased: JsonMap | None = None,
) -> TrainingExport:
    """Repeat an export from the snapshot, time, branch and predecessor that its manifest names. No
    row gets another split than in an `earlier` set; `erased` goes into manifest and certificate."""
    key = redact.key_of(recipe)
    # Another key gives other pseudonyms in every row; better to refuse than to report all files as
    # changed.
    if redact.fingerprint(key) != manifest["redaction"]["key"]:
        raise ExportRefused(
            f"[redact] key_env: {recipe.redact['key_env']} holds another key than the export's"
        )
    with closing(session_of(lake, recipe, scratch.MEMORY_BYTES)) as asker:
        selection = at_state(asker, recipe, manifest["snapshot"])
        job = _ExportJob(
            selection,
            recipe,
            out,
            key=key,
            branch=manifest["branch"],
            previous=manifest["previous"],
            created=manifest["created"],
            counter=_requirements(recipe),
            progress=progress,
            earlier=earlier,
            erased=erased,
        )
        return job.run()


@dataclasses.dataclass(frozen=True)
class _ExportJob:
    """One export that is to be built; a repeated one has the facts of the first."""

    selection: RowQuery
    recipe: Recipe
    out: str
    key: bytes
    branch: str
    previous: JsonMap | None
    created: str
    """When the first export began, in UTC."""
    counter: tokenizer.Tokenizer | None
    progress: StageCallback | None
    sign: Callable[[JsonMap], None] | None = None
    """Called when the export is complete, just before the rename."""
    earlier: dataset.Dataset | None = None
    erased: JsonMap | None = None

    def run(self, pool: WorkerPool | None = None) -> TrainingExport:
        """Build the export."""
        say = self.progress or (lambda _: None)
        with exports.atomic_directory(self.out) as directory:
            stage_folder = f"{directory}/{_STAGE}"
            os.mkdir(stage_folder)
            # An engine of its own, apart from the lake's session: both are in use at the same time,
            # each with its own memory limit.
            con = scratch.connect(stage_folder)
            say("selecting and redacting")
            with refusing_values(self.recipe):
                stage = staging.write(
                    con, self.selection, self.recipe, stage_folder, self.key, pool
                )
            say(f"deduplicating and splitting {stage.rows:,} rows")
            # From here on rows are numbers in arrays: the texts stay in the staged file.
            rows = row_splits.split_keys(con, stage, self.recipe, self.counter)
            near = row_splits.assign_splits(con, stage, self.recipe, rows, self.earlier)
            say("writing files")
            schema, splits = _write(directory, stage, rows, self.recipe)
            manifest = _manifest(self.selection, self.recipe, stage, rows, splits, near, self.key)
            # A rebuild repeats these three facts, otherwise its manifest could not be equal.
            manifest["created"] = self.created
            manifest["branch"], manifest["previous"] = self.branch, self.previous
            if self.erased:
                manifest["erased"] = self.erased
            manifest["files"] = _files(directory)
            # A first manifest, without quality and verdict: `dataset.from_export` and the leak
            # check need it to read the files as a stranger would.
            provenance.write(directory, manifest)
            say("looking for leaks")
            output = dataset.from_export(directory, manifest, self.recipe)
            # On the files and not on the arrays: the certificate vouches for what was written. A
            # fresh connection has none of the tables of the split.
            certificate = leaks.find(scratch.connect(stage_folder), output)
            _finish(output, certificate, schema, rows, con)
            # The engine spills into the stage; it is closed before the stage is removed, and that
            # before the directory gets its name.
            con.close()
            shutil.rmtree(stage_folder)
            if self.sign is not None:
                self.sign(manifest)
        return TrainingExport(self.out, manifest, certificate)


def _write(
    directory: str, stage: Stage, rows: RowTable, recipe: Recipe
) -> tuple[pa.Schema, JsonMap]:
    """Write data, lineage and dialects of every split, in the order of the selection."""
    full = stage.schema()
    schema = pa.schema([full.field(name) for name in stage.columns])
    traced = pa.schema([("events", pa.list_(pa.int64()))])
    os.mkdir(f"{directory}/data")
    os.mkdir(f"{directory}/lineage")
    # A split with a share of 0 has no rows, and gets no files.
    outputs = {}
    for split in SPLITS:
        if (rows.split == SPLITS.index(split)).any():
            data = Shards(f"{directory}/data", split, schema)
            outputs[split] = (
                data,
                Shards(f"{directory}/lineage", split, traced),
                _open_dialects(directory, split, recipe),
            )
    names = [*stage.columns, "__seqs"]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        futures: list[Any] = []
        # The splits of one batch are written in parallel, batch after batch: each writer keeps the
        # order of the selection, and no more than two batches are in memory.
        for start, batch in _batches(stage, names):
            batch_splits = rows.split[start : start + batch.num_rows]
            # Waits for the previous batch, and raises what a thread raised.
            for future in futures:
                future.result()
            futures = [
                pool.submit(_write_split, batch, batch_splits == SPLITS.index(split), *sinks)
                for split, sinks in outputs.items()
            ]
        for future in futures:
            future.result()
    splits = {}
    for split, (data, lineage, dialects) in outputs.items():
        data.close()
        lineage.close()
        for file in dialects.values():
            file.close()
        in_split = rows.split == SPLITS.index(split)
        splits[split] = {
            "rows": data.rows,
            "tokens": int(rows.tokens[in_split].sum()),
            "files": data.names,
            "bytes": sum(os.path.getsize(f"{directory}/data/{n}") for n in data.names),
        }
    return schema, splits


def _batches(stage: Stage, names: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    start = 0
    for batch in stage.batches(names):
        yield start, batch.select(names)
        start += batch.num_rows


def _write_split(
    batch: pa.RecordBatch, in_split: Array, data: Shards, lineage: Shards, dialects: JsonMap
) -> None:
    rows = batch.filter(pa.array(in_split))
    if not rows.num_rows:
        return
    # `__seqs` is always the last of the columns that `_batches` selects.
    events = rows.column(rows.num_columns - 1)
    visible = rows.select(rows.schema.names[:-1])
    data.write(visible)
    lineage.write(pa.table([events.cast(pa.list_(pa.int64()))], names=["events"]))
    for dialect, file in dialects.items():
        file.write(chat_exports.lines(visible, dialect))


def _open_dialects(directory: str, split: str, recipe: Recipe) -> JsonMap:
    files = {}
    for dialect in recipe.shape["also"] or ():
        os.makedirs(f"{directory}/{dialect}", exist_ok=True)
        files[dialect] = open(f"{directory}/{dialect}/{split}.jsonl", "wb")  # noqa: SIM115
    return files


def _manifest(
    selection: RowQuery,
    recipe: Recipe,
    stage: Stage,
    rows: RowTable,
    splits: JsonMap,
    near: Clusters | None,
    key: bytes,
) -> JsonMap:
    mark = redact.fingerprint(key)
    return {
        "format": provenance.FORMAT,
        "id": provenance.export_id(recipe, selection.digest, mark),
        "name": recipe.name,
        "shape": recipe.kind,
        "snapshot": selection.digest,
        "recipe": {"sha256": recipe.digest, **recipes.as_dict(recipe)},
        "versions": provenance.versions(recipe),
        "roles": dataclasses.asdict(stage.roles),
        "fence": recipe.split["before"],
        "splits": splits,
        "left_out": {reason: n for reason, n in rows.left_out.items() if n},
        "losses": stage.losses,
        "near": {"pairs": near.pairs, "crowded": near.crowded} if near else None,
        "redaction": {
            "kinds": recipe.redact["kinds"],
            "mode": recipe.redact["mode"],
            "key": mark,
            "found": stage.redacted,
        },
        "traced": selection.is_traced or "seq" in selection.columns,
        # Replaced by the verdict of the certificate in `_finish`.
        "clean": True,
    }


def _finish(
    output: dataset.Dataset,
    certificate: leaks.Certificate,
    schema: pa.Schema,
    rows: RowTable,
    con: duckdb.DuckDBPyConnection,
) -> None:
    """Write certificate, report, card and recipe, then the manifest that names them all."""
    directory, recipe, manifest = output.path, output.recipe, output.manifest
    measured = quality.measure(con, output)
    figures = {"lengths": quality.lengths(rows), **measured}
    if before := manifest["previous"]:
        before = {**before, "quality": quality.comparable(before["quality"], figures)}
    manifest["previous"] = before
    figures["drift"] = quality.drift(figures, before["quality"] if before else None)
    manifest["clean"], manifest["quality"] = certificate.clean, figures
    # The manifest lists every other file with its digest, so it is written after all of them.
    _put(f"{directory}/recipe.toml", recipe.text)
    for name, content in card.documents(recipe, manifest, certificate.record(), schema).items():
        _put(f"{directory}/{name}", content)
    manifest["files"] = _files(directory)
    provenance.write(directory, manifest)


def _files(directory: str) -> JsonMap:
    return {
        name: {"bytes": size, "sha256": provenance.sha256(f"{directory}/{name}")}
        for name, size in exports.sizes(directory).items()
        # The stage and the lock are hidden files and not part of the set; the manifest cannot
        # contain its own digest.
        if not name.startswith(".") and name != dataset.MANIFEST
    }


def _previous(lake: Lake, recipe: Recipe) -> JsonMap | None:
    """Id and key figures of the family's latest export that is still where it was written."""
    # The latest first. An export that was moved or deleted is skipped: drift is then measured
    # against the one before.
    for facts in reversed(provenance.exports(lake)):
        if facts["name"] == recipe.name and facts["shape"] == recipe.kind:
            try:
                manifest = provenance.read(facts["path"])
            except ExportRefused:
                continue
            compared = ("lengths", "balance")
            return {
                "id": manifest["id"],
                "quality": {name: manifest["quality"][name] for name in compared},
            }
    return None


def _put(path: str, content: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)


_UNDECIDED_BATCH = 8_192


def undecided(
    lake: Lake, recipe: object, ref: str | None = None, *, keeps_sealed: bool = False
) -> Iterator[pa.RecordBatch]:
    """Yield the decisions of a state, the present one or that of a tag or time, that have no
    outcome yet: `subject`, `time`, `context`, `options`, `chosen`, what the recipe keeps, and the
    event's number as `__at`; in the order of their times. They are the rows that an export leaves
    out because their window is not over, redacted as those of a set are; with `keeps_sealed`
    without protected fields.

    Raises InvalidRecipe for another shape than `decision`, ExportRefused, QueryFailed.
    """
    checked = recipes.load(recipe)
    if checked.kind != "decision":
        raise InvalidRecipe(
            f"{checked.where}: decisions need [shape] kind = 'decision', not {checked.kind!r}"
        )
    # The state that a set was made of is past: now another one is asked.
    checked = dataclasses.replace(checked, select={**checked.select, "at": ref})
    key = redact.key_of(checked)
    with closing(
        session_of(lake, checked, scratch.MEMORY_BYTES, keeps_sealed=keeps_sealed)
    ) as session:
        yield from _redacted(choose(lake, checked, session), checked, key)


def _redacted(selection: RowQuery, recipe: Recipe, key: bytes) -> Iterator[pa.RecordBatch]:
    sql = windows.undecided(selection, recipe)
    relation = selection.session.sql(f"SELECT * FROM ({sql}) LIMIT 0", digest=selection.digest)
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    kinds = recipe.redact["kinds"]
    columns = redact.text_columns(types) if kinds else []
    query = selection.session.sql(redact.with_hints(sql, columns, kinds), digest=selection.digest)
    cleaner = redact.Cleaner(scratch.connect(), types, columns, recipe, key)
    yield from cleaner.batches(query.to_arrow_reader(_UNDECIDED_BATCH))
