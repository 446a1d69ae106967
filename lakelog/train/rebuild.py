"""Rebuilding an export: byte-identical with the same library versions, else a list of differences.

If bytes differ, or with `logical`, rows are compared by digest: each row as JSON, then the sorted
digests of a split as one, so neither the order of rows nor the bytes of Parquet matter.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakelog.errors import Damaged, ExportRefused, SnapshotGone
from lakelog.libraries import duckdb
from lakelog.train import dataset, provenance, scratch, trainingset
from lakelog.train import recipe as recipes
from lakelog.train.tables import JsonMap

if TYPE_CHECKING:
    from lakelog.lake import Lake


@dataclass(frozen=True)
class RebuildResult:
    """The outcome of a rebuild. `versions` are those that differ: name to (then, now)."""

    path: str
    same: bool
    differing: tuple[str, ...]
    versions: dict[str, tuple[str, str]]
    logical: dict[str, bool]
    """By split, whether its rows are the same; empty unless bytes differ or it was asked for."""


def rebuild(
    lake: Lake,
    path: str,
    out: str | None = None,
    *,
    logical: bool = False,
    progress: Callable[[str], None] | None = None,
) -> RebuildResult:
    """Rebuild the export in `path`, into `out` if given, and compare the two.

    Raises ExportRefused if `path` is no export, its snapshot is gone, or the key is another one.
    """
    manifest = provenance.read(path)
    # Both checks come before any SQL of the recipe is run: the directory may come from somebody
    # else.
    recipe = _recipe(path, manifest)
    _require_own(lake, path, manifest)
    current = provenance.versions(recipe)
    versions = {
        name: (previous, current.get(name, "none"))
        for name, previous in manifest["versions"].items()
        if current.get(name) != previous
    }
    # On the same file system as the export: it is likely to have room for a second copy.
    with tempfile.TemporaryDirectory(prefix="lakelog-rebuild-", dir=_parent(path)) as folder:
        target = out or f"{folder}/again"
        try:
            trainingset.export_again(lake, recipe, manifest, target, progress)
        except (Damaged, SnapshotGone) as error:
            raise ExportRefused(f"snapshot {manifest['snapshot'][:12]} is gone: {error}") from error
        rebuilt = provenance.read(target)
        differing = _differing_files(manifest["files"], rebuilt["files"])
        # Row digests cost a full scan of both sets, so they are computed only if bytes differ or on
        # request.
        same_rows = _same_rows(path, target) if logical or differing else {}
    same = not differing or (logical and all(same_rows.values()))
    return RebuildResult(path, same, tuple(differing), versions, same_rows)


def _recipe(path: str, manifest: JsonMap) -> recipes.Recipe:
    """The recipe of an export, with the name of the export."""
    text_path = f"{path}/recipe.toml"
    if not os.path.isfile(text_path):
        raise ExportRefused(f"{text_path} is missing: it is needed to make the export again")
    with open(text_path, encoding="utf-8") as file:
        content = file.read()
    if hashlib.sha256(content.encode()).hexdigest() != manifest["recipe"]["sha256"]:
        raise ExportRefused(f"{text_path} was changed since the export: put it back")
    return recipes.with_name(recipes.parse(content, text_path), manifest["name"])


def _require_own(lake: Lake, path: str, manifest: JsonMap) -> None:
    """Raise ExportRefused for a set that this lake did not export: its recipe is SQL to be run."""
    own_exports = {(e["export"], e["recipe"]) for e in provenance.exports(lake)}
    if (manifest["id"], manifest["recipe"]["sha256"]) not in own_exports:
        raise ExportRefused(
            f"{path}: this lake knows no such export, and would run the SQL of its recipe; read"
            " recipe.toml and export it with `lakelog train export`"
        )


def _parent(path: str) -> str:
    return os.path.dirname(os.path.abspath(path))


def _differing_files(previous: JsonMap, current: JsonMap) -> list[str]:
    names = sorted({*previous, *current})
    return [
        n for n in names if previous.get(n, {}).get("sha256") != current.get(n, {}).get("sha256")
    ]


def _same_rows(exported: str, rebuilt: str) -> dict[str, bool]:
    """Whether the rows of each split are the same."""
    con = scratch.connect(_parent(exported))
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
