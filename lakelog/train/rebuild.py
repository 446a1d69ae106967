"""Rebuilding an export: byte-identical with the same library versions, else a list of differences.

If bytes differ, or with `logical`, rows are compared by digest: each row as JSON, then the sorted
digests of a split as one, so neither the order of rows nor the bytes of Parquet matter.

After an erasure a set is made again without what was erased from its state, in the place of the
old one: no row of another subject gets another split.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from lakelog.disk import File, Folder
from lakelog.erased import copies, records
from lakelog.erasure import names_set
from lakelog.errors import Damaged, ExportRefused, SnapshotGone
from lakelog.export import scratch_directory
from lakelog.lake import Lake
from lakelog.libraries import duckdb
from lakelog.train import dataset, provenance, scratch, trainingset
from lakelog.train import recipe as recipes
from lakelog.train.selection import quoted
from lakelog.train.tables import JsonMap
from lakelog.values import parse_time, to_micros

_AGAIN = ".without-erased"
"""How the name ends of a set that is about to take the place of another one."""


@dataclass(frozen=True)
class RebuildResult:
    """The outcome of a rebuild. `versions` are those that differ: name to (then, now)."""

    path: str
    same: bool
    differing: tuple[str, ...]
    versions: dict[str, tuple[str, str]]
    logical: dict[str, bool]
    """By split, whether its rows are the same; empty unless bytes differ or it was asked for."""
    erased: dict[str, int] = field(default_factory=dict)
    """By the key of each erasure that the set was made again without, its events in the state."""
    not_erased: tuple[str, ...] = ()
    """The keys of erasures of what the set has still, where the two differ: that is why."""


def rebuild(
    lake: Lake,
    path: str,
    out: str | None = None,
    *,
    logical: bool = False,
    erased: bool = False,
    progress: Callable[[str], None] | None = None,
) -> RebuildResult:
    """Rebuild the export in `path`, into `out` if given, and compare the two; or, where it is
    `erased`, make it again in its place without what was erased since.

    Raises ExportRefused if `path` is no export, its snapshot is gone, or the key is another one; of
    an erased one also where nothing was erased, or the directory has files that are not the set's.
    Raises InvalidKey where rows differ, or would, without the keys of protected fields.
    """
    if erased:
        return _rebuild_erased(lake, path, progress)
    manifest, recipe = _own_export(lake, path)
    current = provenance.versions(recipe)
    versions = {
        name: (previous, current.get(name, "none"))
        for name, previous in manifest["versions"].items()
        if current.get(name) != previous
    }
    if out is not None:
        _note(lake, out)
    # On the same file system as the export: it is likely to have room for a second copy.
    with scratch_directory(path) as folder:
        target = out or f"{folder}/again"
        erasures = manifest.get("erased")
        # Of one that was made again, the splits are those of the set before, which it alone tells.
        earlier = dataset.open_set(path) if erasures else None
        with _refusing_lost(manifest):
            trainingset.export_again(
                lake, recipe, manifest, target, progress, earlier=earlier, erased=erasures
            )
        rebuilt = provenance.read(target)
        digests = [
            {name: file["sha256"] for name, file in facts["files"].items()}
            for facts in (manifest, rebuilt)
        ]
        differing = sorted({name for name, _ in digests[0].items() ^ digests[1].items()})
        # Row digests cost a full scan of both sets, so they are computed only if bytes differ or on
        # request.
        same_rows = _same_rows(path, target, folder) if logical or differing else {}
    if not all(same_rows.values()):
        _require_keys(lake)
    same = not differing or (logical and all(same_rows.values()))
    keys = () if same else sorted(_erasures_since(lake, path, manifest).keys() - (erasures or {}))
    return RebuildResult(path, same, tuple(differing), versions, same_rows, not_erased=tuple(keys))


def _rebuild_erased(lake: Lake, path: str, progress: Callable[[str], None] | None) -> RebuildResult:
    """Make an export again in its place. Each row that stays is in the split in which it was; one
    that was killed goes on where it was."""
    path = os.path.abspath(path)
    again = f"{path}{_AGAIN}"
    # Killed between the steps of `_put_in_place`: the new set is whole, the old one has lost its
    # manifest.
    if os.path.isfile(f"{again}/{provenance.MANIFEST}") and not os.path.isfile(
        f"{path}/{provenance.MANIFEST}"
    ):
        return _put_in_place(path, again)
    manifest, recipe = _own_export(lake, path)
    erased = _erasures_since(lake, path, manifest)
    if not erased:
        raise ExportRefused(f"{path}: nothing was erased from the state that it was made of")
    _require_keys(lake)
    # The old directory is deleted as a whole: nobody else's file may be in it.
    strangers = set(dataset.scan(path).sizes) - {*manifest["files"], provenance.MANIFEST}
    if strangers:
        raise ExportRefused(f"{path}/{min(strangers)} is no file of the set: move it away first")
    # Left by one that was killed: it may lack rows, or an erasure that came since.
    if os.path.isdir(again):
        shutil.rmtree(again)
    earlier = dataset.open_set(path)
    _note(lake, again)
    try:
        with _refusing_lost(manifest):
            trainingset.export_again(
                lake, recipe, manifest, again, progress, earlier=earlier, erased=erased
            )
    except ExportRefused as error:
        # Nothing is left for a split, or its key is gone: waiting does not clean it.
        raise ExportRefused(
            f"{path} cannot be made again: delete it, and export another one ({error})"
        ) from None
    if moved := _count_moved(earlier, dataset.open_set(again)):
        shutil.rmtree(again)
        raise ExportRefused(f"{path}: {moved:,} rows would get another split: it stays as it is")
    return _put_in_place(path, again)


def _require_keys(lake: Lake) -> None:
    """Raise InvalidKey where protected fields would be gone because this process has no keys."""
    if (protection := lake.store.paths.protection) is not None:
        protection.require_ciphers()


def _erasures_since(lake: Lake, path: str, manifest: JsonMap) -> dict[str, int]:
    """By their keys, the erasures of what an export had, with the events that each took out of its
    state: none where the key of a subject was destroyed, or where the export ran meanwhile."""
    tag, created = provenance.TAG + manifest["id"], to_micros(parse_time(manifest["created"]))
    return {
        erasure.key: erasure.tags.get(tag, 0)
        for erasure in records.listing(lake.store.paths)
        if tag in erasure.tags
        or (erasure.subjects and erasure.time >= created)
        or names_set(lake.store, erasure, os.path.abspath(path))
    }


def _put_in_place(path: str, again: str) -> RebuildResult:
    """Delete a set and give its name to the one that was made again."""
    # The manifest goes first: a set without one is never taken for clean, nor for a set.
    File(f"{path}/{provenance.MANIFEST}").remove()
    if os.path.isdir(path):
        shutil.rmtree(path)
    os.rename(again, path)
    Folder(os.path.dirname(os.path.abspath(path))).sync()
    return RebuildResult(path, False, (), {}, {}, provenance.read(path)["erased"])


def _count_moved(earlier: dataset.Dataset, again: dataset.Dataset) -> int:
    """How many rows of a set are in another split of the earlier one, and not in the same."""
    columns = ", ".join(quoted(name) for name in again.columns)
    digest = f"sha256(to_json(row({columns}))::VARCHAR) AS d"
    query = (
        f"SELECT count(*) FROM again JOIN (SELECT d, list({dataset.SPLIT}) AS splits FROM earlier"
        f" GROUP BY 1) USING (d) WHERE NOT list_contains(splits, again.{dataset.SPLIT})"
    )
    with scratch_directory(earlier.path) as folder, scratch.connect(folder) as con:
        for name, rows in (("earlier", earlier), ("again", again)):
            con.execute(f"CREATE TEMP TABLE {name} AS {rows.source(digest)}")
        return int(con.sql(query).fetchall()[0][0])


def _own_export(lake: Lake, path: str) -> tuple[JsonMap, recipes.Recipe]:
    """The manifest and the recipe of an export of this lake. Raises ExportRefused."""
    manifest = provenance.read(path)
    # Both checks come before any SQL of the recipe is run: the directory may come from somebody
    # else.
    recipe = _recipe(path, manifest)
    own_exports = {(e["export"], e["recipe"]) for e in provenance.exports(lake)}
    if (manifest["id"], manifest["recipe"]["sha256"]) not in own_exports:
        raise ExportRefused(
            f"{path}: this lake knows no such export, and would run the SQL of its recipe; read"
            " recipe.toml and export it with `lakelog train export`"
        )
    # It may have been moved since it was exported.
    _note(lake, path)
    return manifest, recipe


def _note(lake: Lake, path: str) -> None:
    copies.note(lake.store.paths, "training set", os.path.abspath(path))


@contextlib.contextmanager
def _refusing_lost(manifest: JsonMap) -> Iterator[None]:
    """Raise ExportRefused where the state of an export cannot be read any more."""
    try:
        yield
    except (Damaged, SnapshotGone) as error:
        raise ExportRefused(f"snapshot {manifest['snapshot'][:12]} is gone: {error}") from error


def _recipe(path: str, manifest: JsonMap) -> recipes.Recipe:
    """The recipe of an export, with the name of the export."""
    text_path = f"{path}/recipe.toml"
    if not os.path.isfile(text_path):
        raise ExportRefused(f"{text_path} is missing: it is needed to make the export again")
    with open(text_path, encoding="utf-8") as file:
        content = file.read()
    if hashlib.sha256(content.encode()).hexdigest() != manifest["recipe"]["sha256"]:
        raise ExportRefused(f"{text_path} was changed since the export: put it back")
    return replace(recipes.parse(content, text_path), name=manifest["name"])


def _same_rows(exported: str, rebuilt: str, folder: str) -> dict[str, bool]:
    """Whether the rows of each split are the same; what has no room in memory is in `folder`."""
    with scratch.connect(folder) as con:
        digests = [_digests(con, dataset.open_set(path)) for path in (exported, rebuilt)]
    splits = sorted({*digests[0], *digests[1]})
    return {split: digests[0].get(split) == digests[1].get(split) for split in splits}


def _digests(con: duckdb.DuckDBPyConnection, folder: dataset.Dataset) -> dict[str, str]:
    """A digest of the rows of each split that does not depend on their order."""
    digests = {}
    for split in folder.files:
        source = folder.source("*", (split,))
        row_digests = con.sql(
            f"SELECT sha256(to_json(r)::VARCHAR) AS d FROM ({source}) r ORDER BY d"
        )
        digest = hashlib.sha256()
        for batch in row_digests.to_arrow_reader(65_536):
            digest.update("".join(batch.column(0).to_pylist()).encode())
        digests[split] = digest.hexdigest()
    return digests
