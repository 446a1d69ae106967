"""Where erased rows may have gone beyond the lake, and the command that cleans each place."""

from __future__ import annotations

import contextlib
import os
import shlex
from dataclasses import replace

import orjson

from lakelog import document
from lakelog.disk import File, Folder, NotIntact, disk
from lakelog.erased import copies
from lakelog.erased.copies import CopyNote
from lakelog.erased.records import Erasure
from lakelog.errors import LakelogError
from lakelog.paths import FileNames
from lakelog.store import Store
from lakelog.values import JsonObject, parse_time, to_micros

_EXPORT, TRAINING_SET, REMOTE, _BACKUP = "export", "training set", "remote", "backup"
_TRAIN, _REBUILD = "train-", "lakelog train rebuild --erased "
_MANIFEST_MAX = 8_000_000
_CLEANED = {
    _EXPORT: "write it again, or delete it: {name}",
    _BACKUP: "lakelog backup {lake} {name}",
    "logs": "delete the copies of log files that have its lines: {name}",
    "table": "publish it again, then expire its older snapshots: {name}",
    "replay": "delete there what was replayed: {name}",
    "alert": "delete there what it was told: {name}",
    "subscription": "delete what its program stored of the events: {name}",
    REMOTE: "add it again as a remote and push to it, or delete what is there: {name}",
    "sync": "sync to it again, which fills its tables again, and look at it: {name}",
}


def places(store: Store, tags: dict[str, int]) -> list[JsonObject]:
    """Return the places that may have rows of an erasure, of which `tags` (names with counts) have
    some: `place`, `name`, `command` and `done`."""
    sets = {_training_set(store, name): None for name in tags if name.startswith(_TRAIN)}
    destinations, all_tags = [], set(store.refs.tag_names())
    names = FileNames(Folder(store.paths.remotes).names()).tags
    # The bucket of a shared lake is pruned as a remote, and no copy: it is erased from itself.
    shared = store.attachment.volume.url if store.attachment is not None else None
    addresses = {name: _address(store, name) for name in names}
    remotes = [name for name in names if addresses[name] != shared]
    for copy in copies.listing(store.paths):
        if copy.place == REMOTE and copy.name in (*addresses.values(), shared):
            continue  # it was removed, and added again
        unfinished = _unfinished(copy)
        destinations += [_copy(store, CopyNote.of(_EXPORT, path)) for path in unfinished]
        if copy.place != TRAINING_SET:
            destinations.append(_copy(store, copy))
            continue
        tag = _TRAIN + str(_manifest_of(copy.path).get("id"))
        # Of one that is being written nobody knows yet what it will have.
        if unfinished or tag in tags:
            sets[copy.path] = None
        elif tag not in all_tags and os.path.lexists(copy.path):
            # Its tag was deleted: what it has is not known, and nobody can make it again.
            destinations.append(_copy(store, replace(copy, place=_EXPORT)))
    destinations = [
        {
            "place": TRAINING_SET,
            "name": path,
            "command": _REBUILD + shlex.quote(path),
            "done": False,
        }
        for path in sets
    ] + destinations
    for remote in remotes:
        command = f"lakelog push {shlex.quote(remote)}"
        destinations.append({"place": REMOTE, "name": remote, "command": command, "done": False})
    return destinations


def places_of(store: Store, erasure: Erasure, tags: dict[str, int]) -> list[JsonObject]:
    """Return the places of an erasure, of which `tags` have rows. Its copies are those from when
    the rows were last there: later looks no longer find who has them."""
    return erasure.outside if erasure.copies else [*places(store, tags), *erasure.records]


def _training_set(store: Store, tag: str) -> str:
    """The directory into which the export of a tag was written first."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(orjson.loads(store.refs.tag(tag).message)["path"])
    return ""


def _address(store: Store, remote: str) -> str:
    with contextlib.suppress(OSError, NotIntact, KeyError):
        return str(document.decode(File(store.paths.remote(remote)).read())["url"])
    return ""


def _unfinished(copy: CopyNote) -> list[str]:
    """What a running or a killed writer of files has beside them."""
    if copy.place not in (_EXPORT, TRAINING_SET):
        return []
    folder, name = os.path.split(os.path.realpath(copy.path))
    with contextlib.suppress(OSError):
        names = Folder(folder).names()
        return [f"{folder}/{n}" for n in names if n.startswith(f".{name}{disk.TEMPORARY}")]
    return []


def _copy(store: Store, copy: CopyNote) -> JsonObject:
    name = shlex.quote(copy.name)
    command = _CLEANED.get(copy.place, "look at it: {name}").format(
        name=name, lake=shlex.quote(store.paths.root)
    )
    place = {"place": copy.place, "name": copy.name, "command": command, "done": False}
    return place | ({"path_bytes": copy.path_bytes} if copy.path_bytes else {})


def is_clean(store: Store, place: JsonObject, erasure: Erasure) -> bool:
    """Whether a place is known to have nothing of an erasure any more: it is gone, it was written
    again since, or it has the note of the erasure itself."""
    if place["done"] or is_gone(place):
        return True
    if place["place"] == TRAINING_SET:
        return not _set_may_have(store, erasure, _manifest_of(_path(place)))
    return place["place"] == _BACKUP and _has_note(_path(place), erasure.key)


def names_set(store: Store, erasure: Erasure, path: str) -> bool:
    """Whether an erasure names the training set in a directory, which may have what was erased."""
    return any(
        _path(place) == path and not is_clean(store, place, erasure)
        for place in erasure.outside
        if place["place"] == TRAINING_SET
    )


def _set_may_have(store: Store, erasure: Erasure, manifest: JsonObject) -> bool:
    """Whether the set that is in a directory now has something of an erasure that names it: it is
    of a state that had some, or its export had begun before."""
    if erasure.key in manifest.get("erased", ()):
        return False
    with contextlib.suppress(LakelogError, KeyError):
        start = to_micros(parse_time(str(manifest["created"])))
        return (
            erasure.public(_TRAIN + str(manifest["id"])) in erasure.tags
            or erasure.time >= start
            or store.erased.holds(str(manifest["snapshot"]))
        )
    return True


def is_gone(place: JsonObject) -> bool:
    """Whether nothing is where files were written: they may have been moved, or their disk is not
    there."""
    has_files = place["place"] in (_EXPORT, TRAINING_SET, _BACKUP)
    return has_files and not place["done"] and not os.path.lexists(_path(place))


def _path(place: JsonObject) -> str:
    return CopyNote("", str(place["name"]), 0, place.get("path_bytes", "")).path


def _manifest_of(path: str) -> JsonObject:
    """The manifest of a training set; without members where there is none."""
    with contextlib.suppress(OSError, ValueError):
        body: object = orjson.loads(File(f"{path}/manifest.json").read(_MANIFEST_MAX))
        return body if isinstance(body, dict) else {}
    return {}


def _has_note(root: str, key: str) -> bool:
    """Whether a copy of the lake has swept the same erasure."""
    with contextlib.suppress(LakelogError, OSError, NotIntact, KeyError):
        copy = Store.load(root)  # an encrypted one is read with its keys
        body = document.decode(File(f"{copy.paths.erasures}/{key}.json").read())
        return bool(body["phase"] == "swept")
    return False
