"""Provenance of an export: manifest.json, and the tag that protects its snapshot from gc.

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

from lakelog.errors import AlreadyExists, ExportRefused
from lakelog.event import BookkeepingEvent
from lakelog.lake import Lake
from lakelog.train import dataset
from lakelog.train import manifest as manifest_form
from lakelog.train.recipe import Recipe
from lakelog.train.tables import JsonMap

MANIFEST = dataset.MANIFEST
FORMAT = manifest_form.FORMAT
TAG = "train-"
_MODEL_TAG = "model-"


def versions(recipe: Recipe) -> dict[str, str]:
    """The versions of the libraries that determine the bytes of a recipe's training set."""
    names = ["lakelog", "duckdb", "pyarrow", "numpy"]
    if recipe.filter["languages"]:
        names.append("py3langid")
    if recipe.budget["tokenizer"]:
        names.append(recipe.budget["tokenizer"].partition(":")[0])
    installed = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def export_id(recipe: Recipe, snapshot: str, key: str) -> str:
    """Return the id of an export: 16 hex digits."""
    # Without the time and the path: the same export has the same id wherever and whenever it is
    # made.
    return hashlib.sha256(
        f"{recipe.digest}\n{snapshot}\n{key}\n{recipe.name}".encode()
    ).hexdigest()[:16]


def write(folder: str, manifest: JsonMap) -> None:
    """Write the manifest of an export."""
    with open(f"{folder}/{MANIFEST}", "wb") as file:
        file.write(manifest_form.text_of(manifest))


def read(folder: str) -> JsonMap:
    """Read the manifest of an export. Raises ExportRefused where there is none."""
    data = dataset.scan(folder).read(MANIFEST, manifest_form.BYTES_MAX)
    if data is None:
        raise ExportRefused(f"{folder}: not an export: it has no {MANIFEST}")
    parsed, faults = manifest_form.parse(data)
    if faults:
        raise ExportRefused(f"{folder}/{MANIFEST}: {faults[0]}; make the export again")
    return parsed


def facts_of(manifest: JsonMap, out: str) -> JsonMap:
    """The facts about an export that are stored in the lake."""
    return {
        "export": manifest["id"],
        "name": manifest["name"],
        "path": os.path.abspath(out),
        "snapshot": manifest["snapshot"],
        "recipe": manifest["recipe"]["sha256"],
        "shape": manifest["shape"],
        "created": manifest["created"],
        "rows": {split: facts["rows"] for split, facts in manifest["splits"].items()},
        "bytes": sum(f["bytes"] for f in manifest["files"].values()),
        "clean": manifest["clean"],
    }


def pin(lake: Lake, facts: JsonMap, model: str = "") -> None:
    """Tag the snapshot, so that gc keeps it; of a set that only a model learns from, an erasure
    sees by that state whose rows the model knows."""
    prefix, message = TAG, json.dumps(facts, ensure_ascii=False)
    if model:
        prefix, message = _MODEL_TAG, f"what model {model} learns from"
    # A repeated export of the same snapshot and recipe has the same tag.
    with contextlib.suppress(AlreadyExists):
        lake.tag(prefix + facts["export"], facts["snapshot"], message)


def record(lake: Lake, facts: JsonMap) -> None:
    """Append a bookkeeping event about the export to the lake."""
    lake.append(BookkeepingEvent.of(BookkeepingEvent.TRAIN, facts["name"], data=facts))


def exports(lake: Lake) -> list[JsonMap]:
    """The exports of a lake, oldest first, by their tags, which survive a rollback.

    The path of an export is that of its newest event, if there is one; `here` says whether its
    files are there.
    """
    by_id: dict[str, JsonMap] = {}
    for tag in lake.store.refs.tags():
        if tag.name.startswith(TAG):
            # Anybody may create a tag that begins with train-.
            with contextlib.suppress(ValueError):
                by_id[tag.name.removeprefix(TAG)] = json.loads(tag.message)
    # Tags are immutable and hold the first path; a later export of the same id to another directory
    # appends an event.
    notes = lake.sql(
        "SELECT data->>'$.export', data->>'$.path' FROM events"
        f" WHERE type IN ('{BookkeepingEvent.TRAIN}', '{BookkeepingEvent.EARLIER_TRAIN}')"
        f" AND source = '{BookkeepingEvent.SOURCE}' ORDER BY time, seq NULLS LAST"
    ).fetchall()
    for name, path in notes:
        if name in by_id and path:
            by_id[name]["path"] = path
    for facts in by_id.values():
        # An export appears whole, so one file of it says that it is there.
        facts["here"] = os.path.isfile(os.path.join(facts["path"], MANIFEST))
    return sorted(by_id.values(), key=lambda e: (e["created"], e["export"]))


def sha256(path: str) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
