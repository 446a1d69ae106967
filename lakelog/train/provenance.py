"""Where an export came from: manifest.json, and the tag that keeps its snapshot from gc.

The manifest names the snapshot, the recipe's digest, the versions of the libraries, and every file
with its size and SHA-256. `id` is made of snapshot, recipe and key, so the same export has the same
id wherever it stands. `lineage/` has one file for each data file, with the same rows in the same
row groups: the numbers (`seq`) of the events that each row was made of.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from importlib import metadata
from typing import TYPE_CHECKING, Any

from lakelog.errors import AlreadyExists, ExportRefused
from lakelog.train.recipe import Recipe

if TYPE_CHECKING:
    from lakelog.lake import Lake

MANIFEST = "manifest.json"
FORMAT = 1
TAG = "train-"
EVENT = "train.export"


def versions() -> dict[str, str]:
    """The libraries that decide about bytes."""
    found = {}
    for name in ("lakelog", "duckdb", "pyarrow", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def export_id(recipe: Recipe, snapshot: str, key: str) -> str:
    """Return the id of an export: 16 hex digits."""
    return hashlib.sha256(
        f"{recipe.digest}\n{snapshot}\n{key}\n{recipe.name}".encode()
    ).hexdigest()[:16]


def write(folder: str, manifest: dict[str, Any]) -> None:
    """Write the manifest of an export."""
    with open(f"{folder}/{MANIFEST}", "w", encoding="utf-8") as file:
        file.write(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def read(folder: str) -> dict[str, Any]:
    """Read the manifest of an export. Raises ExportRefused where there is none."""
    path = os.path.join(folder, MANIFEST)
    try:
        with open(path, encoding="utf-8") as file:
            made = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        raise ExportRefused(f"{folder}: it holds no export: there is no {MANIFEST}") from None
    except ValueError:
        raise ExportRefused(f"{path}: it is damaged; make the export again") from None
    if not isinstance(made, dict) or made.get("format") != FORMAT:
        raise ExportRefused(f"{path}: it is no manifest of a training set of format {FORMAT}")
    return made


def facts_of(manifest: dict[str, Any], out: str) -> dict[str, Any]:
    """What the lake keeps of an export."""
    return {
        "export": manifest["id"], "name": manifest["name"], "path": os.path.abspath(out),
        "snapshot": manifest["snapshot"], "recipe": manifest["recipe"]["sha256"],
        "shape": manifest["shape"], "created": manifest["created"],
        "rows": {side: split["rows"] for side, split in manifest["splits"].items()},
        "bytes": sum(f["bytes"] for f in manifest["files"].values()),
        "clean": manifest["clean"],
    }  # fmt: skip


def pin(lake: Lake, facts: dict[str, Any]) -> None:
    """Name the snapshot for good, so that gc keeps it."""
    with contextlib.suppress(AlreadyExists):
        lake.tag(TAG + facts["export"], facts["snapshot"], json.dumps(facts, ensure_ascii=False))


def tell(lake: Lake, facts: dict[str, Any]) -> None:
    """Say in the lake what was exported."""
    lake.append({
        "type": EVENT, "category": "train", "source": "lakelog", "subject": facts["name"],
        "data": facts,
    })  # fmt: skip


def exports(lake: Lake) -> list[dict[str, Any]]:
    """What was exported from a lake, oldest first, by its tags: a rollback does not forget it.

    Where an export stands now is told by the newest event of it, if there is one.
    """
    found: dict[str, dict[str, Any]] = {}
    for tag in lake.store.refs.tags():
        if tag.name.startswith(TAG):
            with contextlib.suppress(ValueError):
                found[tag.name.removeprefix(TAG)] = json.loads(tag.message)
    said = lake.sql(
        "SELECT data->>'$.export', data->>'$.path' FROM events"
        f" WHERE type = '{EVENT}' ORDER BY time, seq NULLS LAST"
    ).fetchall()
    for name, path in said:
        if name in found and path:
            found[name]["path"] = path
    return sorted(found.values(), key=lambda e: (e["created"], e["export"]))
