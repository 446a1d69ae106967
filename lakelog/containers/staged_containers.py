"""What a snapshot has of each container: its image and description, staged in cache/containers.

A container is a directory with

    image.tar        what `save` wrote of the image that `commit` made of the container
    container.json   how it was mounted, published and restarted, and the labels of its state

and each of its state directories is one labelled `NAME:PATH`, slashes being underscores, with
more of them at its end where two would have one label.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import orjson

from lakelog.deploy import Container, Engine, read_container
from lakelog.disk import Folder, LockFile
from lakelog.errors import Damaged, NotAllowed, StateRefused
from lakelog.lake import Lake
from lakelog.paths import INDEX
from lakelog.state import SavedState, StateCatalog

PREFIX = "container:"
"""What labels of containers begin with."""
_ARCHIVE, _DESCRIPTION = "image.tar", "container.json"
_FORMAT = 1
_STATE = "STATE_DIRECTORY"


@dataclass(frozen=True)
class SavedContainer:
    """A container as it was saved: `volumes` are the labels of its state by where it is mounted."""

    container: Container
    image: str
    volumes: dict[str, str]


@contextlib.contextmanager
def staging(lake: Lake) -> Iterator[str]:
    """Yield an empty directory for archives, which nobody else uses meanwhile."""
    if lake.store.paths.keys is not None:
        raise NotAllowed(
            "containers are staged in plain, and this lake is encrypted: save their volumes with"
            " `lakelog state save --dir`"
        )
    folder = f"{lake.store.paths.cache}/containers"
    Folder(lake.store.paths.cache).make_all()
    # The folder is emptied by whoever comes next: two at a time would empty each other's.
    with LockFile(f"{folder}.lock").claim() as is_alone:
        if not is_alone:
            raise StateRefused("another process saves or restores containers: wait for it")
        # One that died may have left gigabytes.
        shutil.rmtree(folder, ignore_errors=True)
        # Images hold what programs know, secrets among it.
        os.mkdir(folder, 0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def stage(engine: Engine, saved_container: SavedContainer, folder: str) -> None:
    """Write the archive and the description of a container; the image is only in the archive."""
    os.mkdir(folder)
    engine.commit(saved_container.container.name, saved_container.image)
    try:
        engine.save(saved_container.image, f"{folder}/{_ARCHIVE}")
    finally:
        engine.untag(saved_container.image)
    body = {
        "format": _FORMAT,
        "engine": engine.name,
        "image": saved_container.image,
        "container": saved_container.container.to_json(),
        "state": saved_container.volumes,
    }
    with open(f"{folder}/{_DESCRIPTION}", "wb") as file:
        file.write(orjson.dumps(body, option=orjson.OPT_INDENT_2))


def load(
    lake: Lake, state: SavedState, names: Sequence[str], engine: Engine
) -> Iterator[SavedContainer]:
    """Load the images of containers into the engine, and yield each container."""
    for record in state.directories:
        if record.label.removeprefix(PREFIX) not in names or not record.label.startswith(PREFIX):
            continue
        with staging(lake) as folder:
            StateCatalog(lake).extract(record, f"{folder}/0")
            try:
                with open(f"{folder}/0/{_DESCRIPTION}", "rb") as file:
                    body = orjson.loads(file.read())
                container = read_container(body["container"])
                saved_container = SavedContainer(container, str(body["image"]), dict(body["state"]))
            # The manifest is signed by nobody: what it says may be anything.
            except (OSError, KeyError, TypeError, ValueError):
                path = lake.store.paths.state_file(record.index, INDEX)
                raise Damaged(path, f"it describes no container {record.label}") from None
            engine.load(f"{folder}/0/{_ARCHIVE}")
        yield saved_container


def state_of(container: Container) -> dict[str, str]:
    """Return the state directories of a container on this host, by label: what it names in
    STATE_DIRECTORY, or without that its volumes, as they are its own."""
    state_paths = [PurePosixPath(p) for p in container.variables.get(_STATE, "").split(":") if p]
    state, labels = {}, _labels(container)
    # What it calls its state, and not volumes that only hold caches or code.
    for mount in container.mounts:
        is_state = any(path.is_relative_to(mount.destination) for path in state_paths)
        if mount.is_writable and (is_state if state_paths else mount.name):
            # The engine may run elsewhere, as in a virtual machine.
            if not os.path.isdir(mount.source):
                raise StateRefused(
                    f"the state of {container.name} in {mount.source or 'memory'} cannot be read"
                    " here: run this"
                    " where the engine runs, as a user who may read it"
                )
            state[labels[mount.destination]] = mount.source
    return state


def labels_of(container: Container, state: dict[str, str]) -> dict[str, str]:
    """Return the label of each state directory by where it is mounted."""
    labels = _labels(container)
    return {destination: label for destination, label in labels.items() if label in state}


def _labels(container: Container) -> dict[str, str]:
    """Return a label of its own for each place at which something is mounted."""
    labels: dict[str, str] = {}
    for destination in sorted(mount.destination for mount in container.mounts):
        label = f"{container.name}:{destination.strip('/').replace('/', '_')}"
        # Those of /data/a and /data_a would be one, and one of the two would not be saved.
        while label in labels.values():
            label += "_"
        labels[destination] = label
    return labels


def repository_of(name: str) -> str:
    """Return the name of a container as repositories may be called."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "container"
