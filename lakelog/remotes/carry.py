"""Objects on their way: uploaded and downloaded in parallel, each checked against its digest.

What is there is not sent again, so an interrupted transfer goes on where it was. An object gets
its name only when all of its bytes are there and have the digest of the name; refs follow after.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from lakelog import chunks
from lakelog.disk import File, Folder, NotIntact
from lakelog.errors import Damaged, TransferRefused
from lakelog.remotes import remote as remotes
from lakelog.remotes import untrusted
from lakelog.remotes.objects import STATES, Name, Sizes, objects_of, path_of
from lakelog.remotes.remote import Remote
from lakelog.remotes.remote_volume import RemoteVolume
from lakelog.remotes.site import key_of
from lakelog.remotes.untrusted import NotBelieved
from lakelog.runtime.progress import ProgressCallback
from lakelog.store import Store

_LOOKS = 3
_LIST_FROM = 2_000
"""From this many objects on, a listing costs less than asking for each."""
_MANIFEST_MAX = 16 << 20
"""Bytes of a manifest's file at most, where nothing states them."""
_SPARE = 64 << 20
"""Bytes that a download leaves free on the disk."""
_UNPACKING = threading.BoundedSemaphore(2)
"""Files of states are decompressed to be checked: two at a time, so that memory is bounded."""


@dataclass
class Carried:
    """Objects, bytes and signatures that were sent or received, and objects that were there."""

    objects: int = 0
    bytes: int = 0
    kept: int = 0
    signatures: int = 0


@dataclass(frozen=True)
class Merged:
    """How many events a merge brought, and how many that are new there were here."""

    events: int
    known: int


@dataclass
class Transfer:
    """What a push, fetch or pull did: by ref, `new`, `updated`, `merged`, `forced`, `up to date`,
    `repaired`, or `kept`, a tag that names another state here, or that a branch has no move there;
    what was carried, and what a merge brought."""

    remote: str
    url: str
    dry_run: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    carried: Carried = field(default_factory=Carried)
    merged: Merged | None = None
    erased: list[str] = field(default_factory=list)
    """The keys of erasures that a push took there, or a pull here."""


def missing_at(remote: Remote, objects: Sizes) -> Sizes:
    """Return those of the objects that a remote does not have, or not in their length."""
    lengths = lengths_at(remote, objects)
    return {name: size for name, size in objects.items() if lengths.get(name) != size}


def lengths_at(remote: Remote, objects: Sizes) -> dict[Name, int | None]:
    """Return the lengths that objects have at a remote."""
    # From _LIST_FROM on, but never where objects have no folders, as in a registry.
    if len(objects) < _LIST_FROM or remote.lists_objects:
        looked_for = list(objects)
        # In as many shares as there are workers: a kind may ask for many lengths in one round trip.
        share = max(-(-len(objects) // remotes.WORKERS), 1)
        shares = (looked_for[i : i + share] for i in range(0, len(objects), share))
        answers = remotes.in_parallel(lambda names: _lengths_of(remote, names), shares)
        return {name: size for _, share_names in answers for name, size in share_names.items()}
    names = {key_of(name): name for name in objects}
    folders = {os.path.dirname(key) for key in names}
    lengths: dict[Name, int | None] = {}
    for folder, files in remotes.in_parallel(
        lambda folder: remotes.retrying(lambda: list(remote.lengths(folder))), folders
    ):
        sizes = ((names.get(f"{folder}/{file}"), size) for file, size in files)
        lengths.update((name, size) for name, size in sizes if name)
    return lengths


def _lengths_of(remote: Remote, names: list[Name]) -> dict[Name, int | None]:
    keys = [key_of(name) for name in names]
    return dict(zip(names, remotes.retrying(lambda: remote.sizes(keys)), strict=True))


def damaged_at(
    remote: Remote, objects: Sizes, progress: ProgressCallback
) -> Iterator[tuple[Name, str]]:
    """Read objects at a remote; yield those that are not what they should be, with a reason."""
    total, bytes_done = sum(objects.values()), 0
    for name, reason in remotes.in_parallel(
        lambda name: _read_back(remote, name, objects[name]), objects
    ):
        bytes_done += objects[name]
        progress(bytes_done, total)
        if reason:
            yield name, reason


def _read_back(remote: Remote, name: Name, size: int) -> str:
    digest, content = hashlib.sha256(), bytearray()
    try:
        for chunk in _checked(remote, name, size, digest.update):
            # States are compressed as whoever saved them chose: their digest is of what is inside.
            if name[0] in STATES:
                content += chunk
        if name[0] in STATES:
            with _UNPACKING:
                untrusted.check_state_file(bytes(content), *name)
        elif digest.hexdigest() != name[1]:
            return "it does not have the bytes of its name"
    except (NotBelieved, TransferRefused) as error:
        return str(error).removeprefix(f"{remote.url}: ")
    return ""


def upload(
    store: Store,
    remote: Remote,
    objects: Sizes,
    carried: Carried,
    progress: ProgressCallback = lambda *_: None,
) -> None:
    """Send objects, then make them durable there. Raises Damaged for one that is not intact."""
    total = carried.bytes + sum(objects.values())
    if remote.is_lake_directory and (keys := _segments(objects)):
        store.received.note(RemoteVolume(remote), keys)
    for name, _ in remotes.in_parallel(lambda name: _send(store, remote, name), objects):
        carried.objects, carried.bytes = carried.objects + 1, carried.bytes + objects[name]
        progress(carried.bytes, total)
    remotes.retrying(remote.flush)


def _send(store: Store, remote: Remote, name: Name) -> None:
    path = path_of(store.paths, name)
    store.verified.obtain([(name[1], path)])  # of a shared lake it may be in the bucket alone
    try:
        size = os.path.getsize(path)
    except FileNotFoundError:
        raise Damaged(path, "it is missing, so it was not sent") from None

    def read_chunks() -> Iterator[bytes]:
        if name[0] in STATES:
            # Read whole: its digest is that of the content, known only after decompression.
            yield _state_file(path, name)
            return
        digest = hashlib.sha256()
        for chunk in File(path).pieces(1 << 20):
            digest.update(chunk)
            yield chunk
        # Before the receiver gives it a name: damage does not travel.
        if digest.hexdigest() != name[1]:
            raise Damaged(path, "it does not have the bytes of its name, so it was not sent")

    remotes.retrying(lambda: remote.put(key_of(name), read_chunks, size))


def _state_file(path: str, name: Name) -> bytes:
    """Return the bytes of a state's file which whoever receives them will believe."""
    try:
        data = chunks.read_file(path)
        chunks.check(data, os.path.basename(path))
    except NotIntact as error:
        raise Damaged(path, f"{error}, so it was not sent") from None
    try:
        untrusted.check_state_file(data, *name)
    except NotBelieved:
        raise TransferRefused(
            f"{path}: a saved directory of so many files does not travel: save it in parts, with"
            " several --dir"
        ) from None
    return data


def download(
    store: Store,
    remote: Remote,
    objects: Sizes,
    carried: Carried,
    progress: ProgressCallback = lambda *_: None,
) -> None:
    """Receive objects that are not here. Raises TransferRefused for one that is not intact."""
    missing = missing_here(store, objects)
    carried.kept += len(objects) - len(missing)
    total = carried.bytes + sum(missing.values())
    _refuse_unfit(store, sum(missing.values()))
    if keys := _segments(missing):
        store.received.add(keys)
    folders: set[str] = set()
    for name, size in remotes.in_parallel(
        lambda name: _receive(store, remote, name, missing[name]), missing
    ):
        carried.objects, carried.bytes = carried.objects + 1, carried.bytes + size
        folders.add(os.path.dirname(path_of(store.paths, name)))
        progress(carried.bytes, total)
    # Once for each folder, at the end: names are durable before a ref that needs them is made.
    for folder in folders:
        Folder(folder).sync()


def _segments(objects: Sizes) -> list[str]:
    return [digest for object_type, digest in objects if object_type == "segments"]


def missing_here(store: Store, objects: Sizes) -> Sizes:
    """Return those of the objects that the lake does not have."""
    return {n: size for n, size in objects.items() if not File(path_of(store.paths, n)).exists()}


@contextlib.contextmanager
def gc_held_off(
    lock: Callable[[], AbstractContextManager[object]],
    missing: Callable[[], Sizes],
    bring: Callable[[Sizes], object],
) -> Iterator[None]:
    """Hold a lock against gc while nothing is missing: a ref that is made inside names only what
    is there. What gc deleted since it was looked at is brought again."""
    for _ in range(_LOOKS):
        with contextlib.ExitStack() as stack:
            stack.enter_context(lock())
            # Looked at under the lock: what is missing now would be named by the ref.
            missing_objects = missing()
            if not missing_objects:
                yield
                return
        bring(missing_objects)
    raise TransferRefused("gc deletes what was just sent: raise the setting gc_grace_hours")


def _refuse_unfit(store: Store, size: int) -> None:
    # f_bavail: what is free for this user; root's reserve is not.
    status = os.statvfs(store.paths.root)
    free = status.f_bavail * status.f_frsize
    if size and size + _SPARE > free:
        raise TransferRefused(
            f"{store.paths.root}: {size:,} bytes are to be received and {_SPARE:,} to stay free,"
            f" but {free:,} are free: free space and run it again"
        )


def _receive(store: Store, remote: Remote, name: Name, size: int) -> int:
    """Receive an object of a length, or a file of a state of at most that; return its length."""
    path = path_of(store.paths, name)
    folder = os.path.dirname(path)
    Folder(folder).make_for_objects()
    digest = hashlib.sha256()
    # Written as a temporary file, hashed on the way: nothing gets a name before it is checked.
    temporary = Folder(folder).write_pieces(_checked(remote, name, size, digest.update))
    try:
        if name[0] in STATES:
            with believing(remote), _UNPACKING:
                untrusted.check_state_file(File(temporary).read(), *name)
        elif digest.hexdigest() != name[1]:
            raise _wrong(remote, name)
        if name[0] == "manifests":
            with believing(remote):
                untrusted.check_page(untrusted.manifest_text(File(temporary).read(), name[1]))
        # Another process may have received it meanwhile; equal names have equal bytes.
        with contextlib.suppress(FileExistsError):
            File(temporary).link(path)
        return os.path.getsize(temporary)
    finally:
        File(temporary).remove()


def _checked(
    remote: Remote, name: Name, size: int, update: Callable[[bytes], object]
) -> Iterator[bytes]:
    """Yield the bytes of an object, going on where a connection broke; never more than `size`."""
    got = 0
    try:
        for chunk in remotes.pieces(remote, key_of(name)):
            got += len(chunk)
            # Before it is written: a server that sends without end must not fill the disk.
            if got > size:
                raise _wrong(remote, name)
            update(chunk)
            yield chunk
    except FileNotFoundError:
        raise _missing(remote, name) from None
    if got != size and name[0] not in STATES:
        raise _wrong(remote, name)


def _missing(remote: Remote, name: Name) -> TransferRefused:
    return TransferRefused(
        f"{remote.url}: {key_of(name)} is missing there: a lake that has it sends it again by"
        " `lakelog push --repair`"
    )


def _wrong(remote: Remote, name: Name) -> TransferRefused:
    return TransferRefused(
        f"{remote.url}: {key_of(name)} does not have the bytes of its name: refused, nothing was"
        " changed"
    )


def receive_manifest(store: Store, remote: Remote, digest: str) -> None:
    """Receive a manifest that has a file of its own, unless it is here."""
    name = ("manifests", digest)
    path = store.paths.object(*name)
    if File(path).exists():
        return
    try:
        data = remotes.read(remote, key_of(name), _MANIFEST_MAX)
    except FileNotFoundError:
        raise _missing(remote, name) from None
    with believing(remote):
        untrusted.check_manifest(untrusted.manifest_text(data, digest))
    File(path).put(data)


def objects_there(store: Store, remote: Remote, snapshot: str, carried: bytes) -> Sizes:
    """Return the objects of a state that a remote has, as `objects_of`; what names them, which is
    its manifest and pages, is received before."""
    if not carried and not store.manifests.is_there(snapshot):
        receive_manifest(store, remote, snapshot)

    def obtain(objects: Sizes) -> None:
        download(store, remote, objects, Carried())

    return objects_of(store, snapshot, carried=carried, obtain=obtain)


@contextlib.contextmanager
def believing(remote: Remote) -> Iterator[None]:
    """Raise TransferRefused for what is not believed."""
    try:
        yield
    except NotBelieved as error:
        raise TransferRefused(f"{remote.url}: {error}: refused, nothing was changed") from None
