"""Snapshots of containers: their images and their state directories, in one manifest of the lake.

A snapshot is a saved state whose operation is `container` and whose tag is its id, such as
20250403-123456. Each container is a directory of it, labelled `container:NAME`. Further tags of the
snapshot are further names of it.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lakelog import chunks, remotes
from lakelog.containers.staged_containers import (
    PREFIX,
    SavedContainer,
    labels_of,
    load,
    repository_of,
    stage,
    staging,
    state_of,
)
from lakelog.deploy import Container, Engine
from lakelog.disk import File, disk
from lakelog.errors import ContainerFailed, Damaged, StateRefused, TransferRefused, UnknownRef
from lakelog.lake import Lake
from lakelog.remotes import push
from lakelog.runtime.progress import ProgressCallback
from lakelog.state import RestoreRequest, SavedState, SaveResult, StateCatalog, save_state
from lakelog.store import Policy

OP = "container"
# As the engines name volumes; what is none of these is a path of this host.
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_OCI = "oci://"


@dataclass(frozen=True)
class ContainerSnapshot:
    """A snapshot of containers: its id, further names, and what was captured."""

    id: str
    tags: tuple[str, ...]
    state: SavedState

    @property
    def containers(self) -> tuple[str, ...]:
        """The names of its containers."""
        labels = (record.label for record in self.state.directories)
        return tuple(x.removeprefix(PREFIX) for x in labels if x.startswith(PREFIX))


@dataclass(frozen=True)
class Started:
    """What a restore started: `backup` is the state saved of directories that it overwrote, and
    `replaced` the name that a container of the same name has now; "" where there was none."""

    name: str
    image: str
    targets: dict[str, str]
    backup: str
    replaced: str


def snapshot_containers(
    lake: Lake,
    names: Sequence[str],
    *,
    tag: str | None = None,
    directories: Mapping[str, str] | None = None,
    message: str = "",
    pause: bool = True,
    engine: Engine | None = None,
    progress: ProgressCallback | None = None,
) -> SaveResult:
    """Save containers and their state as one snapshot, and return it. `directories` are saved with
    them, by their labels. Running containers are paused until all is saved, unless `pause` is off.

    Raises ContainerFailed, StateRefused, AlreadyExists, OSError; then nothing is saved.
    """
    engine = engine or Engine()
    # Before anything is held and read, which may take minutes.
    StateCatalog(lake).refuse_taken(tag)
    # Once each, whether it was named or given by its id.
    containers = list({c.name: c for c in map(engine.inspect, names)}.values())
    id = _free_id(lake)
    with staging(lake) as folder, contextlib.ExitStack() as stack:
        # All are paused before the first is read, so that they are saved at one moment.
        for container in containers:
            if pause and container.is_running:
                stack.enter_context(engine.paused(container.name))
        labelled = dict(directories or {})
        for number, container in enumerate(containers):
            state = state_of(container)
            labelled |= {label: source for label, source in state.items() if label not in labelled}
            suffix = f".{number}" if number else ""
            image = f"localhost/lakelog/{repository_of(container.name)}:{id}{suffix}"
            saved_container = SavedContainer(container, image, labels_of(container, state))
            stage(engine, saved_container, f"{folder}/{number}")
            labelled[PREFIX + container.name] = f"{folder}/{number}"
        result = save_state(
            lake, labelled, name=id, message=message, keep=None, progress=progress, op=OP
        )
    # After the save: a snapshot without its second name is still whole.
    if tag is not None:
        tag_snapshot(lake, id, tag)
    return result


def list_snapshots(lake: Lake) -> list[ContainerSnapshot]:
    """Return the snapshots of containers, newest first; those whose manifest is damaged are left
    out, which `verify` names."""
    states: dict[str, list[SavedState]] = {}
    for state in StateCatalog(lake).states(OP):
        states.setdefault(state.snapshot, []).append(state)
    return [_snapshot(snapshot_states) for snapshot_states in states.values()]


def _snapshot(states: list[SavedState]) -> ContainerSnapshot:
    # The id is the tag that was made first.
    newest, *older = sorted(states, key=lambda state: (state.time, state.name))
    return ContainerSnapshot(newest.name, tuple(state.name for state in older), newest)


def find_snapshot(lake: Lake, name: str) -> ContainerSnapshot:
    """Return the snapshot of an id or tag, `latest` being the newest. Raises UnknownRef."""
    snapshots = list_snapshots(lake)
    for snapshot in snapshots:
        if name in (snapshot.id, *snapshot.tags) or name == "latest":
            return snapshot
    if name != "latest" and snapshots:
        StateCatalog(lake).find(name)  # says if it is damaged, or if there is none
    raise UnknownRef(f"no snapshot of containers is named {name!r}: see `omega list-snapshots`")


def tag_snapshot(lake: Lake, name: str, tag: str) -> ContainerSnapshot:
    """Give a snapshot one more name. Raises UnknownRef, AlreadyExists, InvalidName."""
    snapshot = find_snapshot(lake, name)
    lake.tag(tag, snapshot.state.snapshot, f"of snapshot {snapshot.id}")
    return find_snapshot(lake, snapshot.id)


def verify_snapshot(lake: Lake, snapshot: ContainerSnapshot) -> list[tuple[str, str]]:
    """Read every byte of a snapshot; return (path, reason) of what is damaged or missing."""
    problems: dict[str, str] = {}
    for record in snapshot.state.directories:
        try:
            index = chunks.StateFiles(lake.store.paths).read_index(record.index)
        except Damaged as error:
            problems[error.path] = error.reason
            continue
        for digest in dict.fromkeys(digest for digest, _ in index.chunks):
            try:
                chunks.StateFiles(lake.store.paths).read_chunk(digest)
            except Damaged as error:
                problems[error.path] = error.reason
    return list(problems.items())


def push_snapshot(
    lake: Lake, name: str, repository: str, engine: Engine | None = None
) -> list[str]:
    """Send the images of a snapshot to REGISTRY/REPO, tagged by its id, and return their names; of
    several containers to REGISTRY/REPO/CONTAINER. Where a remote of the lake has that address, with
    or without oci://, the snapshot goes there, with its state, and images to REPO/CONTAINER.

    Raises UnknownRef, Damaged, ContainerFailed, TransferRefused, Unreachable.
    """
    address, repository = repository, repository.removeprefix(_OCI)
    if "/" not in repository or repository.endswith("/"):
        raise ContainerFailed(f"{repository!r} is not like registry.example.com/team/app")
    snapshot, engine = find_snapshot(lake, name), engine or Engine()
    places = [remotes.load(lake.store, known_remote) for known_remote in lake.store.remote_names()]
    remote = next(
        (known_remote.name for known_remote in places if known_remote.url == _OCI + repository),
        None,
    )
    if remote is None and address != repository:
        raise TransferRefused(
            f"no remote has the address {address}: `lakelog remote add NAME {address}` first"
        )
    # Before the first image leaves: a registry must not get half of a snapshot.
    _refuse_damaged(lake, snapshot)
    pushed = []
    # First the snapshot itself, by which the images are found again.
    if remote is not None:
        push(lake, remote, tags=[snapshot.id])
        pushed.append(f"{_OCI}{repository} {snapshot.id}")
    for saved_container in load(lake, snapshot.state, snapshot.containers, engine):
        # A repository that holds a lake holds nothing else.
        is_shared = len(snapshot.containers) > 1 or remote is not None
        path_suffix = f"/{repository_of(saved_container.container.name)}" if is_shared else ""
        image = f"{repository}{path_suffix}:{snapshot.id}"
        engine.tag(saved_container.image, image)
        try:
            engine.push(image)
        finally:
            engine.untag(image)
            engine.untag(saved_container.image)
        pushed.append(image)
    return pushed


def restore_snapshot(
    lake: Lake,
    name: str,
    new_name: str | None = None,
    *,
    only: Sequence[str] = (),
    state: bool = True,
    replace: bool = False,
    options: Sequence[str] = (),
    engine: Engine | None = None,
    progress: ProgressCallback | None = None,
) -> list[Started]:
    """Start the containers of a snapshot, one of them under another name if one is given; their
    state goes back where it was, or, under another name, to new places with that name.

    `replace` stops a container of the same name and keeps it under another. `options` are those of
    `run`. Everything is checked first. Raises NotAllowed, UnknownRef, Damaged, StateRefused,
    ContainerFailed, OSError.
    """
    Policy.require(lake.store.paths, "restore")
    # Names and every byte before the first container: a restore of several has no way back.
    snapshot, engine = find_snapshot(lake, name), engine or Engine()
    names = _chosen(snapshot, only, new_name)
    _refuse_damaged(lake, snapshot)
    for container_name in names:
        if engine.exists(new_name or container_name) and not replace:
            raise StateRefused(
                f"a container {new_name or container_name} is there: choose another name, or"
                " --replace it"
            )
    started = []
    for saved_container in load(lake, snapshot.state, names, engine):
        started.append(
            _start(lake, snapshot, saved_container, new_name, state, options, engine, progress)
        )
    return started


def _chosen(
    snapshot: ContainerSnapshot, only: Sequence[str], new_name: str | None
) -> tuple[str, ...]:
    if missing := [name for name in only if name not in snapshot.containers]:
        available = ", ".join(snapshot.containers)
        raise UnknownRef(f"{snapshot.id} holds no container {missing[0]!r}, but {available}")
    # As of an unset variable: it does not mean the name that it had.
    if new_name == "":
        raise StateRefused("the name of a container is empty: leave it out for the one that it had")
    names = tuple(only) or snapshot.containers
    if new_name is not None and len(names) != 1:
        raise StateRefused(
            f"{snapshot.id} holds {', '.join(names)}: name one of them to give it another name"
        )
    return names


def _refuse_damaged(lake: Lake, snapshot: ContainerSnapshot) -> None:
    for path, reason in verify_snapshot(lake, snapshot)[:1]:
        raise Damaged(path, reason)


def _start(
    lake: Lake,
    snapshot: ContainerSnapshot,
    saved_container: SavedContainer,
    new_name: str | None,
    with_state: bool,
    options: Sequence[str],
    engine: Engine,
    progress: ProgressCallback | None,
) -> Started:
    name = new_name or saved_container.container.name
    # Under another name it must not write to the state of the first one.
    like, targets = _placed(saved_container, name, engine)
    targets = targets if with_state else {}
    _refuse_foreign_paths(snapshot, like)
    request = RestoreRequest(lake, snapshot.id, targets, tuple(targets))
    if targets:
        # Before the container of that name is stopped.
        request.check()
    backup = ""
    # The old container is stopped first: it would write to its state while that is exchanged.
    with _set_aside(engine, name) as replaced:
        if targets:
            backup = request.run(progress=progress).backup or ""
        try:
            engine.run(name, saved_container.image, like, options)
        except ContainerFailed as error:
            if not backup:
                raise
            raise ContainerFailed(
                f"{error}; its state was restored before: `lakelog state restore {backup}` brings"
                " back what was there"
            ) from None
    return Started(name, saved_container.image, targets, backup, replaced)


def _refuse_foreign_paths(snapshot: ContainerSnapshot, container: Container) -> None:
    """Raise StateRefused where another machine has chosen directories of this host."""
    # A volume is the engine's; with slashes its name would be a path to it.
    paths = [m.source for m in container.mounts if m.source and not _VOLUME.fullmatch(m.name)]
    if paths and not snapshot.state.is_own:
        # A record of another machine could name any directory of this one.
        raise StateRefused(
            f"{snapshot.id} was saved by another machine, and mounts {', '.join(paths)} of this"
            " one: `lakelog state restore NAME --to PATH` brings its state where you say, `lakelog"
            " machine adopt` makes its states this machine's"
        )


@contextlib.contextmanager
def _set_aside(engine: Engine, name: str) -> Iterator[str]:
    """Stop a container of this name and rename it; bring it back if the body fails."""
    if not engine.exists(name):
        yield ""
        return
    old = engine.inspect(name)
    backup_name = f"{name}-before-{_stamp(disk.now_us())}"
    if old.is_running:
        engine.stop(name)
    engine.rename(name, backup_name)
    try:
        yield backup_name
    except BaseException:
        # What `run` created before it failed has the name.
        if engine.exists(name):
            engine.remove(name)
        engine.rename(backup_name, name)
        if old.is_running:
            engine.start(name)
        raise


def _placed(
    saved_container: SavedContainer, name: str, engine: Engine
) -> tuple[Container, dict[str, str]]:
    """Return the container with the mounts that it gets under a name, and where the state of each
    label goes: a container beside the first one must not share its state."""
    is_same = name == saved_container.container.name
    mounts, targets = [], {}
    for mount in saved_container.container.mounts:
        label = saved_container.volumes.get(mount.destination)
        volume, source = mount.name, mount.source
        if label is not None and not is_same:
            volume = volume and f"{name}-{volume}"
            source = f"{source}-{name}"
        if label is not None and volume:
            source = engine.volume(volume)
        if label is not None:
            targets[label] = source
        mounts.append(replace(mount, name=volume, source=source))
    values = {**saved_container.container.__dict__, "mounts": tuple(mounts)}
    # Two containers cannot have one port of the host.
    return Container(**(values if is_same else {**values, "ports": ()})), targets


def _free_id(lake: Lake) -> str:
    stamp = _stamp(disk.now_us())
    number = 1
    while File(lake.store.paths.tag(id := stamp if number == 1 else f"{stamp}-{number}")).exists():
        number += 1
    return id


def _stamp(time: int) -> str:
    return f"{datetime.datetime.fromtimestamp(time // 1_000_000, datetime.UTC):%Y%m%d-%H%M%S}"
