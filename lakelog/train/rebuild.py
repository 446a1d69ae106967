"""Making an export again: the same bytes with the same library versions, else told what differs.

With other versions, or with `logical`, rows are compared by digests instead: each row as JSON, and
the sorted digests of a side as one, so neither the order of rows nor the bytes of Parquet matter.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakelog.errors import Damaged, ExportRefused, SnapshotGone
from lakelog.train import dataset, provenance, recipe, scratch, trainingset

if TYPE_CHECKING:
    from lakelog.lake import Lake


@dataclass(frozen=True)
class RebuildResult:
    """What a rebuild found. `versions` are those that differ: name to (then, now)."""

    path: str
    same: bool
    differing: tuple[str, ...]
    versions: dict[str, tuple[str, str]]
    logical: dict[str, bool]
    """By side, whether its rows are the same; empty unless bytes differ or it was asked for."""


def rebuild(
    lake: Lake,
    path: str,
    out: str | None = None,
    *,
    logical: bool = False,
    progress: Callable[[str], None] | None = None,
) -> RebuildResult:
    """Make the export in `path` again, in `out` if that is given, and compare.

    Raises ExportRefused if `path` is no export, its snapshot is gone, or the key is another one.
    """
    manifest = provenance.read(path)
    wanted = _recipe(path, manifest)
    _require_own(lake, path, manifest)
    now = provenance.versions(wanted)
    versions = {
        name: (then, now.get(name, "none"))
        for name, then in manifest["versions"].items()
        if now.get(name) != then
    }
    with tempfile.TemporaryDirectory(prefix="lakelog-rebuild-", dir=_beside(path)) as folder:
        target = out or f"{folder}/again"
        try:
            trainingset.again(lake, wanted, manifest, target, progress)
        except (Damaged, SnapshotGone) as error:
            raise ExportRefused(f"snapshot {manifest['snapshot'][:12]} is gone: {error}") from error
        fresh = provenance.read(target)
        differing = _differing(manifest["files"], fresh["files"])
        alike = _rows_alike(path, target) if logical or differing else {}
    same = not differing or (logical and all(alike.values()))
    return RebuildResult(path, same, tuple(differing), versions, alike)


def _recipe(path: str, manifest: dict[str, Any]) -> recipe.Recipe:
    """The recipe of an export, with the name it had there."""
    text_path = f"{path}/recipe.toml"
    if not os.path.isfile(text_path):
        raise ExportRefused(f"{text_path} is missing: it is needed to make the export again")
    with open(text_path, encoding="utf-8") as file:
        text = file.read()
    if hashlib.sha256(text.encode()).hexdigest() != manifest["recipe"]["sha256"]:
        raise ExportRefused(f"{text_path} was changed since the export: put it back")
    return recipe.named(recipe.parse(text, text_path), manifest["name"])


def _require_own(lake: Lake, path: str, manifest: dict[str, Any]) -> None:
    """Raise ExportRefused for a set that this lake did not export: its recipe is SQL to be run."""
    known = {(e["export"], e["recipe"]) for e in provenance.exports(lake)}
    if (manifest["id"], manifest["recipe"]["sha256"]) not in known:
        raise ExportRefused(
            f"{path}: this lake knows no such export, and would run the SQL of its recipe; read"
            " recipe.toml and export it with `lakelog train export`"
        )


def _beside(path: str) -> str:
    return os.path.dirname(os.path.abspath(path))


def _differing(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    names = sorted({*then, *now})
    return [n for n in names if then.get(n, {}).get("sha256") != now.get(n, {}).get("sha256")]


def _rows_alike(one: str, two: str) -> dict[str, bool]:
    """Whether the rows of each side are the same."""
    con = scratch.connect(_beside(one))
    digests = [_digests(con, dataset.open_set(path)) for path in (one, two)]
    sides = sorted({*digests[0], *digests[1]})
    return {side: digests[0].get(side) == digests[1].get(side) for side in sides}


def _digests(con: Any, folder: dataset.Dataset) -> dict[str, str]:
    """A digest of the rows of each side, whatever their order."""
    made = {}
    for side in folder.files:
        source = folder.source("*", (side,))
        asked = con.sql(f"SELECT sha256(to_json(r)::VARCHAR) AS d FROM ({source}) r ORDER BY d")
        found = hashlib.sha256()
        for batch in asked.to_arrow_reader(65_536):
            found.update("".join(batch.column(0).to_pylist()).encode())
        made[side] = found.hexdigest()
    return made
