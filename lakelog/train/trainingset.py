"""Exporting a training set: select, shape, redact, dedupe, split, write, check, sign.

    1 fix the snapshot and look at the query      5 write every side's files and its lineage
    2 stage the shape's rows, redacted            6 look for leaks in the finished files
    3 dedupe, and give each row a side            7 card, report, manifest
    4 refuse a split that cannot be met           8 take the name; pin the snapshot in the lake

Everything is made in a directory beside `out` and renamed at the end, so a killed export leaves
nothing that looks whole. The same snapshot, recipe, key and library versions give the same bytes.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lakelog.errors import ExportRefused
from lakelog.export import folder
from lakelog.lazy import Lazy
from lakelog.train import (
    dataset,
    documents,
    filters,
    leaks,
    provenance,
    redact,
    scratch,
    staging,
    tokenizer,
)
from lakelog.train import recipe as recipes
from lakelog.train.assign import RowTable
from lakelog.train.recipe import SIDES, Recipe
from lakelog.train.report import proportions, quality
from lakelog.train.selection import Selection, at_state, choose, session_of
from lakelog.train.shapes import chat_files
from lakelog.train.shards import Shards
from lakelog.train.stage import Stage

if TYPE_CHECKING:
    import pyarrow as pa

    from lakelog.lake import Lake
    from lakelog.train.cluster import Clusters
else:
    pa = Lazy("pyarrow")

_BATCH = 65_536
_STAGE = ".stage"
Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class TrainingExport:
    """What an export made: manifest.json as a dict, and the certificate of its files."""

    path: str
    manifest: dict[str, Any]
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
        return proportions.warnings(self.manifest)

    @property
    def rows(self) -> dict[str, int]:
        """Rows by side."""
        return {side: split["rows"] for side, split in self.manifest["splits"].items()}


def export(
    lake: Lake, recipe: Any, out: str, *, progress: Progress | None = None
) -> TrainingExport:
    """Make the training set of a recipe (a path, TOML text, dict or Recipe) in the directory `out`.

    Raises InvalidRecipe for a recipe that is wrong, ExportRefused for one that cannot be met, an
    `out` that is in use, a snapshot that is gone or a key that is missing; nothing is then left.
    """
    wanted = recipes.load(recipe)
    out = os.path.abspath(os.fspath(out))
    folder.refuse_taken(out)
    key = redact.key_of(wanted)
    if wanted.redact["deep"]:
        redact.require_library()
    counter = _requirements(wanted)
    asker = session_of(lake, wanted, scratch.MEMORY_BYTES)
    try:
        selection = choose(lake, wanted, asker)
        before = _previous(lake, wanted)
        facts: dict[str, Any] = {}

        def sign(manifest: dict[str, Any]) -> None:
            facts.update(provenance.facts_of(manifest, out))
            provenance.pin(lake, facts)

        made = _make(
            selection, wanted, out, key, before, None, lake.branch_name, counter, progress, sign
        )
    finally:
        asker.close()
    provenance.tell(lake, facts)
    return made


def _requirements(wanted: Recipe) -> tokenizer.Tokenizer | None:
    """Load what a recipe needs beyond lakelog itself, before anything is read."""
    if wanted.filter["languages"]:
        filters.require_library()
    name = wanted.budget["tokenizer"]
    return tokenizer.load(name, wanted.budget["download"]) if name else None


def again(
    lake: Lake, wanted: Recipe, manifest: dict[str, Any], out: str, progress: Progress | None = None
) -> TrainingExport:
    """Make an export once more, from the snapshot and with the facts that its manifest names."""
    key = redact.key_of(wanted)
    if redact.fingerprint(key) != manifest["redaction"]["key"]:
        raise ExportRefused(
            f"[redact] key_env: {wanted.redact['key_env']} holds another key than the export's"
        )
    asker = session_of(lake, wanted, scratch.MEMORY_BYTES)
    try:
        selection = at_state(asker, wanted, manifest["snapshot"])
        return _make(
            selection,
            wanted,
            out,
            key,
            manifest["previous"],
            manifest["created"],
            manifest["branch"],
            _requirements(wanted),
            progress,
        )
    finally:
        asker.close()


def _make(
    selection: Selection,
    wanted: Recipe,
    out: str,
    key: bytes,
    before: dict[str, Any] | None,
    created: str | None,
    branch: str,
    counter: tokenizer.Tokenizer | None,
    progress: Progress | None,
    sign: Callable[[dict[str, Any]], None] | None = None,
) -> TrainingExport:
    """Make an export; `sign` is called once it is whole and has not taken its name yet."""
    say = progress or (lambda _: None)
    with folder.building(out) as made:
        stage_folder = f"{made}/{_STAGE}"
        os.mkdir(stage_folder)
        con = scratch.connect(stage_folder)
        say("selecting and redacting")
        stage = staging.write(con, selection, wanted, stage_folder, key)
        say(f"deduplicating and splitting {stage.rows:,} rows")
        rows = staging.known(con, stage, wanted, counter)
        near = staging.settle_fates(con, stage, wanted, rows)
        say("writing files")
        schema, splits = _write(made, stage, rows, wanted)
        manifest = _manifest(selection, wanted, stage, rows, splits, near, key)
        manifest["created"] = created or _now()
        manifest["branch"], manifest["previous"] = branch, before
        manifest["files"] = _files(made)
        provenance.write(made, manifest)
        say("looking for leaks")
        written = dataset.fresh(made, manifest, wanted)
        certificate = leaks.look(scratch.connect(stage_folder), written)
        _finish(written, certificate, schema, rows, con)
        con.close()
        shutil.rmtree(stage_folder)
        if sign is not None:
            sign(manifest)
    return TrainingExport(out, manifest, certificate)


def _write(
    made: str, stage: Stage, rows: RowTable, wanted: Recipe
) -> tuple[pa.Schema, dict[str, Any]]:
    """Write data, lineage and dialects of every side, in the order of the selection."""
    full = stage.schema()
    schema = pa.schema([full.field(name) for name in stage.columns])
    traced = pa.schema([("events", pa.list_(pa.int64()))])
    os.mkdir(f"{made}/data")
    os.mkdir(f"{made}/lineage")
    sides = {}
    for side in SIDES:
        if (rows.fate == SIDES.index(side)).any():
            data = Shards(f"{made}/data", side, schema)
            sides[side] = (
                data,
                Shards(f"{made}/lineage", side, traced),
                _dialects(made, side, wanted),
            )
    names = [*stage.columns, "__seqs"]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        waiting: list[Any] = []
        for start, batch in _batches(stage, names):
            fates = rows.fate[start : start + batch.num_rows]
            for future in waiting:
                future.result()
            waiting = [
                pool.submit(_write_side, batch, fates == SIDES.index(side), *sinks)
                for side, sinks in sides.items()
            ]
        for future in waiting:
            future.result()
    splits = {}
    for side, (data, lineage, others) in sides.items():
        data.close()
        lineage.close()
        for file in others.values():
            file.close()
        on_side = rows.fate == SIDES.index(side)
        splits[side] = {
            "rows": data.rows,
            "tokens": int(rows.tokens[on_side].sum()),
            "files": data.names,
            "bytes": sum(os.path.getsize(f"{made}/data/{n}") for n in data.names),
        }
    return schema, splits


def _batches(stage: Stage, names: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    start = 0
    for batch in stage.batches(names):
        yield start, batch.select(names)
        start += batch.num_rows


def _write_side(
    batch: pa.RecordBatch, chosen: Any, data: Shards, lineage: Shards, others: dict[str, Any]
) -> None:
    kept = batch.filter(pa.array(chosen))
    if not kept.num_rows:
        return
    events = kept.column(kept.num_columns - 1)
    shown = kept.select(kept.schema.names[:-1])
    data.write(shown)
    lineage.write(pa.table([_lists(events)], names=["events"]))
    for dialect, file in others.items():
        file.write(chat_files.lines(shown, dialect))


def _lists(events: Any) -> Any:
    return events.cast(pa.list_(pa.int64()))


def _dialects(made: str, side: str, wanted: Recipe) -> dict[str, Any]:
    opened = {}
    for dialect in wanted.shape["also"] or ():
        os.makedirs(f"{made}/{dialect}", exist_ok=True)
        opened[dialect] = open(f"{made}/{dialect}/{side}.jsonl", "wb")  # noqa: SIM115
    return opened


def _manifest(
    selection: Selection,
    wanted: Recipe,
    stage: Stage,
    rows: RowTable,
    splits: dict[str, Any],
    near: Clusters | None,
    key: bytes,
) -> dict[str, Any]:
    mark = redact.fingerprint(key)
    return {
        "format": provenance.FORMAT,
        "id": provenance.export_id(wanted, selection.digest, mark),
        "name": wanted.name,
        "shape": wanted.kind,
        "snapshot": selection.digest,
        "recipe": {"sha256": wanted.digest, **recipes.as_dict(wanted)},
        "versions": provenance.versions(wanted),
        "roles": dataclasses.asdict(stage.roles),
        "fence": wanted.split["before"],
        "splits": splits,
        "left_out": {reason: n for reason, n in rows.left_out.items() if n},
        "losses": stage.losses,
        "near": {"pairs": near.pairs, "crowded": near.crowded} if near else None,
        "redaction": {
            "kinds": wanted.redact["kinds"],
            "mode": wanted.redact["mode"],
            "key": mark,
            "found": stage.redacted,
        },
        "traced": selection.traced or "seq" in selection.columns,
        "clean": True,
    }


def _finish(
    written: dataset.Dataset,
    certificate: leaks.Certificate,
    schema: pa.Schema,
    rows: RowTable,
    con: Any,
) -> None:
    """Write certificate, report, card and recipe, then the manifest that names them all."""
    made, wanted, manifest = written.path, written.recipe, written.manifest
    measured = quality.measure(con, written)
    found = {"lengths": quality.lengths(rows), **measured}
    before = manifest["previous"]
    found["drift"] = quality.drift(found, before["quality"] if before else None)
    manifest["clean"], manifest["quality"] = certificate.clean, found
    _put(f"{made}/recipe.toml", wanted.text)
    for name, text in documents.texts(wanted, manifest, certificate.record(), schema).items():
        _put(f"{made}/{name}", text)
    manifest["files"] = _files(made)
    provenance.write(made, manifest)


def _files(made: str) -> dict[str, Any]:
    return {
        name: {"bytes": size, "sha256": provenance.sha256(f"{made}/{name}")}
        for name, size in folder.sizes(made).items()
        if not name.startswith(".") and name != dataset.MANIFEST
    }


def _previous(lake: Lake, wanted: Recipe) -> dict[str, Any] | None:
    """What the last export of the family was like, if it is still where it was made."""
    for facts in reversed(provenance.exports(lake)):
        if facts["name"] == wanted.name and facts["shape"] == wanted.kind:
            try:
                manifest = provenance.read(facts["path"])
            except ExportRefused:
                continue
            kept = ("lengths", "balance")
            return {
                "id": manifest["id"],
                "quality": {name: manifest["quality"][name] for name in kept},
            }
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _put(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
