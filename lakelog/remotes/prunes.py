"""Deleting from a store of objects what no branch or tag there needs any more.

    gc/pruned      when deleting was first asked for: from then on pushes have leases
    gc/push-<hex>  the lease of a push that names objects
    gc/deleting    a prune deletes: a document {holder}, by which the same directory takes it over

As over SFTP (F9.11) each makes its own file before it looks for the other's, and a push looks at
its objects again under its lease. A push that began before `gc/pruned` was there has none: so
nothing is deleted before that is as old as the grace, and nothing younger than that ever. All ages
are by the clock of the store.

`check` tells whether a remote has all that its branches and tags need. What is named there is found
as a fetch finds it, so pages that are not here are received; nothing else is, and no branch or tag
changes on either side.
"""

from __future__ import annotations

import contextlib
import functools
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field

from lakelog import document
from lakelog.disk import LockFile
from lakelog.errors import TransferRefused
from lakelog.history import lake_time
from lakelog.lake import Lake
from lakelog.maintain import Marker
from lakelog.paths import KEYS, LEASE, OBJECTS, FileName
from lakelog.remotes import carry, encryption, known
from lakelog.remotes import remote as remotes
from lakelog.remotes.erasures import RemoteErasures
from lakelog.remotes.object_store import DELETING, PRUNED, ObjectStoreRemote
from lakelog.remotes.objects import STATES, Sizes
from lakelog.remotes.remote_volume import RemoteVolume
from lakelog.remotes.site import WITHOUT_MOVE, Site, key_of
from lakelog.runtime.progress import ProgressCallback
from lakelog.store import AttachmentRegistry, Policy, Store

GRACE_LEAST = 3_600
"""Seconds of grace at least: a push that takes longer from its first look to its ref fails."""
_RENEWED_S = 900
"""Seconds after which a prune says again that it runs: others take it for left after an hour."""
_SHARED_GRACE = 86_400
_FOLDERS = (*OBJECTS, "states", KEYS.names)


@dataclass
class Pruned:
    """What a prune deleted, or would; `waits` are the seconds until the first one may delete."""

    remote: str
    url: str
    dry_run: bool = False
    objects: int = 0
    bytes: int = 0
    young: int = 0
    waits: int = 0


def prune(lake: Lake, name: str, *, grace: int, dry_run: bool = False) -> Pruned:
    """Delete the objects of a remote that nothing there needs and that are older than a grace in
    seconds. Raises TransferRefused where something cannot be read, or a push runs; NotAllowed."""
    remote = known.load(lake.store, name)
    if grace < GRACE_LEAST:
        raise TransferRefused(f"a grace is an hour at least: a push may take as long as {grace} s")
    if not dry_run:
        Policy.require(lake.store.paths, "remove-remote")
    result = Pruned(name, remote.url, dry_run)
    with known.connected(remote.url) as connection:
        # A directory is pruned by its own gc, which has its locks; a registry collects by itself.
        if not isinstance(connection, ObjectStoreRemote):
            raise TransferRefused(
                f"{remote.url}: it is pruned there, with `lakelog gc` or by the registry itself"
            )
        site = Site(connection)
        # Before anything is announced: refusing must leave no file there.
        site.require_lake()
        _require_right(lake, site, grace)
        # Announced first, then looked: a push that comes later sees it and waits. Who only looks
        # keeps no push waiting.
        announced = contextlib.nullcontext() if dry_run else deleting(lake.store, connection)
        with announced as announcement:
            now_s = announcement.now_s if announcement else remotes.retrying(connection.now)
            result.waits = _wait(connection, now_s, grace)
            if announcement:
                remotes.put_new(connection, PRUNED, b"{}")  # from now on pushes have leases
                if result.waits:
                    return result
                _refuse_pushes(connection, now_s)
            named_there = Checked(name, remote.url)
            live = {
                key_of(name_of_object)
                for name_of_object in named_objects(lake.store, site, named_there)
            }
            # A manifest may have a file there, although here a move carries it.
            live |= {key_of(("manifests", snapshot)) for snapshot in named_there.snapshots}
            # Nothing is deleted on incomplete knowledge: what is named there but unreadable may
            # need it.
            if named_there.faults:
                fault = named_there.faults[0]
                raise TransferRefused(
                    f"{site.url}: nothing was deleted: {fault.path}: {fault.reason}"
                )
            digests = _kept_here(lake.store, remote.url)
            for key, size, age in _others(connection, live, now_s):
                # Age is counted by the clock of the store: ours may be wrong by hours.
                if age < grace or _digest(key) in digests:
                    result.young += 1
                    continue
                if announcement:
                    announcement.require()
                    remotes.retrying(functools.partial(connection.remove, key))
                result.objects, result.bytes = result.objects + 1, result.bytes + size
    return result


def _require_right(lake: Lake, site: Site, grace: int) -> None:
    """Refuse a shared lake from elsewhere, or within the time in which machines name what they have
    stored; else bring its moves here. Raises TransferRefused."""
    # A shared lake says so in its config; others can be pruned from anywhere.
    if AttachmentRegistry.MEMBER not in (site.config().get("requires") or []):
        return
    attachment = lake.store.attachment
    if attachment is None or attachment.volume.url != site.url:
        raise TransferRefused(
            f"{site.url}: several machines share this lake: prune it from a directory that is"
            " attached to it"
        )
    if grace < _SHARED_GRACE:
        raise TransferRefused(f"{site.url}: a grace is a day at least in a shared lake")
    attachment.refresh(lake.store)


def _kept_here(store: Store, url: str) -> set[bytes]:
    """The digests of all that the history of a directory needs which is attached to a bucket: a
    listing there may lack a branch or tag, and older states stay within reach."""
    attachment = store.attachment
    if attachment is None or attachment.volume.url != url:
        return set()
    offered = attachment.offered_keys(store)
    marker = Marker(store, lake_time(store), in_bucket=True)
    return marker.live | set(filter(None, map(_digest, offered)))


def _digest(key: str) -> bytes | None:
    name = key.rpartition("/")[2]
    digest = FileName(name).digest or FileName(f"{name}{OBJECTS['segments']}").digest
    return bytes.fromhex(digest) if digest else None


@dataclass
class PruneAnnouncement:
    """That a prune runs, as the store has it; `now_s` is the time there when it was made."""

    remote: ObjectStoreRemote
    data: bytes
    now_s: float
    _renewed_at: tuple[float, float] = field(default_factory=lambda: remotes.clocks())

    def require(self) -> None:
        """Keep it for longer. Raises TransferRefused where others may have taken it for left."""
        age = remotes.seconds_since(self._renewed_at)
        if age < _RENEWED_S:
            return
        clocks = remotes.clocks()
        # Who slept for as long finds another one, or pushes that saw none.
        if age > _RENEWED_S * 2 or not self._is_there():
            raise TransferRefused(f"{self.remote.url}: this prune stood still: run it again")
        remotes.retrying(lambda: self.remote.replace(DELETING, self.data))
        self._renewed_at = clocks

    def _is_there(self) -> bool:
        try:
            return remotes.read(self.remote, DELETING) == self.data
        except FileNotFoundError:
            return False


@contextlib.contextmanager
def deleting(store: Store, remote: ObjectStoreRemote) -> Iterator[PruneAnnouncement]:
    """Say that a prune runs. Raises TransferRefused where another one does."""
    holder = document.digest(f"{platform.node()}:{store.paths.root}".encode())[:32]
    data = document.encode({"holder": holder})
    # One prune of a directory at a time, so that what a killed one left is known to be nobody's.
    with LockFile(f"{store.paths.cache}/prune.lock").claim() as alone:
        if not alone or not remotes.put_new(remote, DELETING, data):
            is_left = alone and _remove_if_old(remote)
            raise TransferRefused(
                f"{remote.url}: an interrupted prune was cleared away: run it again"
                if is_left
                else f"{remote.url}: another prune runs there, or was interrupted: after an hour"
                " `lakelog remote prune` goes on"
            )
        try:
            # By its bytes it may be the one that a killed prune left, which is as old.
            remotes.retrying(lambda: remote.replace(DELETING, data))
            yield PruneAnnouncement(remote, data, _stamp(remote, DELETING) or 0)
        finally:
            remotes.retrying(lambda: remote.remove(DELETING))


def _stamp(remote: ObjectStoreRemote, key: str) -> float | None:
    return remotes.retrying(lambda: remote.stamp(key))


def _remove_if_old(remote: ObjectStoreRemote) -> bool:
    started = _stamp(remote, DELETING) or 0
    if remotes.retrying(remote.now) - started < GRACE_LEAST:
        return False
    remotes.retrying(lambda: remote.remove(DELETING))
    return True


def _wait(remote: ObjectStoreRemote, now_s: float, grace: int) -> int:
    """Seconds until something may be deleted, if it is noted now that pushes need leases."""
    since = _stamp(remote, PRUNED)
    return grace if since is None else max(0, round(grace - (now_s - since)))


def _refuse_pushes(remote: ObjectStoreRemote, now_s: float) -> None:
    for name in RemoteVolume(remote).names("gc"):
        started = _stamp(remote, f"gc/{name}") if name.startswith(LEASE) else None
        if started is None:
            continue
        if now_s - started < GRACE_LEAST:
            # One lease by one: a push may come and go while they are looked at.
            raise TransferRefused(f"{remote.url}: a push runs there: try again when it has ended")
        # One that was killed, or sleeps: it will notice.
        remotes.retrying(functools.partial(remote.remove, f"gc/{name}"))


def _others(
    remote: ObjectStoreRemote, live: set[str], now_s: float
) -> Iterator[tuple[str, int, float]]:
    """Yield (key, bytes, age in seconds) of objects that are not live, and of what is derived of
    such."""
    for folder in _FOLDERS:
        for key, size, stamp in _files(remote, folder):
            name = key.rpartition("/")[2]
            about = key_of(("segments", name)) if folder == KEYS.names else key
            if about not in live:
                yield key, size, now_s - stamp


def _files(remote: ObjectStoreRemote, folder: str) -> list[tuple[str, int, float]]:
    return remotes.retrying(lambda: list(remote.files(folder)))


@dataclass(frozen=True)
class Fault:
    """A file of a remote, or a branch or tag there, and what is wrong with it."""

    path: str
    reason: str


@dataclass
class Checked:
    """What a check looked at, and what it found."""

    remote: str
    url: str
    refs: int = 0
    objects: int = 0
    bytes: int = 0
    faults: list[Fault] = field(default_factory=list)
    snapshots: set[str] = field(default_factory=set)


def check(
    lake: Lake, name: str, *, read_data: bool = False, progress: ProgressCallback = lambda *_: None
) -> Checked:
    """Compare the lengths of all objects that a remote's branches and tags need, or with
    `read_data` each byte. Raises UnknownRef, Unreachable, OSError, TransferRefused where no lake
    is."""
    remote = known.load(lake.store, name)
    result = Checked(name, remote.url)
    with known.connected(remote.url) as connection:
        site = Site(connection)
        site.require_lake()
        objects = named_objects(lake.store, site, result)
        result.objects, result.bytes = len(objects), sum(objects.values())
        result.faults += _faults(site, objects, read_data, progress)
    return result


def named_objects(store: Store, site: Site, result: Checked) -> Sizes:
    """Return the objects that are named there; what cannot be read is a fault."""
    # Another lake may have made a data key since this one last pulled.
    encryption.adopt_keys(store, site, only_looks=True)
    objects: Sizes = {}
    references = list(_named(site, result))
    # All at once: what stands in for erased states is one look at the remote.
    erased = RemoteErasures(store, site, result.remote)
    # Here another manifest may be read in the place of an erased state than there.
    stored_as = erased.stored_as(state for _, state, _ in references)
    for path, state, carried_text in references:
        snapshot = stored_as[state]
        carried = carried_text if snapshot == state else b""
        result.refs += 1
        result.snapshots.add(snapshot)
        try:
            objects |= carry.objects_there(store, site.remote, snapshot, carried)
        except TransferRefused as error:
            result.faults.append(_fault(site, path, error))
    return objects


def _named(site: Site, result: Checked) -> Iterator[tuple[str, str, bytes]]:
    """Yield (path, snapshot, manifest) of all branches and tags."""
    for branch in site.branches():
        try:
            head = site.head(branch)
            if head is None:
                result.faults.append(Fault(f"refs/heads/{branch}", WITHOUT_MOVE))
            # A deleted branch names nothing that has to be there.
            elif head.move.op != "delete":
                yield f"refs/heads/{branch}", head.move.snapshot, head.move.carried
        except TransferRefused as error:
            result.faults.append(_fault(site, f"refs/heads/{branch}", error))
    for name in site.tags():
        try:
            if tag := site.tag(name):
                yield f"refs/tags/{name}", tag[0].snapshot, tag[0].carried
        except TransferRefused as error:
            result.faults.append(_fault(site, f"refs/tags/{name}", error))


def _faults(
    site: Site, objects: Sizes, read_data: bool, progress: ProgressCallback
) -> Iterator[Fault]:
    lengths = carry.lengths_at(site.remote, objects)
    whole: Sizes = {}
    for name, size in objects.items():
        length = lengths.get(name)
        if length is None:
            yield Fault(key_of(name), "it is missing")
        elif length != size and name[0] not in STATES:
            yield Fault(key_of(name), f"it has {length:,} bytes instead of {size:,}")
        else:
            # Of a state's file the length is only an upper bound where it was never here.
            whole[name] = max(size, length) if name[0] in STATES else size
    if read_data:
        for name, reason in carry.damaged_at(site.remote, whole, progress):
            yield Fault(key_of(name), reason)


def _fault(site: Site, path: str, error: TransferRefused) -> Fault:
    return Fault(path, str(error).removeprefix(f"{site.url}: "))
