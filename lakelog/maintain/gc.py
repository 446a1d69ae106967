"""Garbage collection: only what no ref reaches, only after a grace, references first (F9.10).

What nothing reaches is written to gc/condemned.json with the time it was first seen so. After
the grace (default 24 h), if it is still unreached when the refs are read again, it is deleted:
manifests and pages first, then id runs, segments, and chunks of state directories, these only while
no save of a state directory is running. Times are mtimes of a probe file created in the
lake now, not this host's clock. Old moves are packed and thinned before (thinning.py).
If a ref, manifest or page cannot be read, or a listing is empty where refs were known before,
nothing is deleted (GcRefused).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

from lakelog.chunks import state_files
from lakelog.errors import Damaged, GcRefused, UnknownRef
from lakelog.segments.connection import SPILL
from lakelog.store import disk, document, history_window, signatures
from lakelog.store.bootstrap import Store
from lakelog.store.paths import LEASE, OBJECTS, Paths, hex_dirs, is_encoded, parse_object
from lakelog.store.refs import Move
from lakelog.store.thinning import DAY, HOUR, pack, window

# Names deleted for one look at the refs: a ref that is made meanwhile is noticed before the next.
BATCH = 500
_EVERY = HOUR
# A manifest without its segments would be damage; a segment without manifest is garbage again.
_ORDER = ("manifests", "ids", "segments")
Names = set[str]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class GcResult:
    """What one run deleted, condemned and packed; `bytes` are those of deleted files."""

    deleted: int
    bytes: int
    condemned: int
    packed: int
    names: tuple[str, ...]
    dry_run: bool


def gc(store: Store, *, dry_run: bool = False, progress: Progress | None = None) -> GcResult:
    """Collect garbage; works on a full disk. Raises GcRefused, having deleted nothing, OSError."""
    with disk.claim(f"{store.paths.cache}/gc.lock") as alone:
        if not alone:
            raise GcRefused("another process is collecting in this lake: wait for it")
        # A ref that is read below but not durable yet could vanish in a power cut, and what it had
        # replaced would be gone: so refs are made durable before anything is judged by them.
        _refuse_lost_branch(store.paths)
        for branch in store.refs.all_branches():
            disk.sync_dir(store.paths.head_dir(branch))
        disk.sync_dir(store.paths.tags)
        previous = history_window.read_condemned(store)
        now = history_window.lake_time(store)
        # Before marking: what packing drops is then not looked at.
        packed = 0 if dry_run else _pack_all(store, now)
        marker = Marker(store, now)
        # These are in no file of their own, so they are condemned, but never deleted here.
        carried = set(_unkept_texts(store, marker.live))
        unreached = itertools.chain(_find_unreached(store, marker.live), carried)
        condemned = {n: previous.get(n, now) for n in unreached}
        due = _due(store, {n: t for n, t in condemned.items() if n not in carried}, now)
        names: tuple[str, ...] = tuple(due)
        freed = sum(_size(store, n) for n in due)
        if not dry_run:
            # On a full disk what is due already is deleted all the same: that makes room.
            with _full_disk_suppressed(bool(due)):
                _write_condemned(store, condemned)
            with _announced(store, now) if due else nullcontext(True) as no_push:
                # A push that names objects just now may name these: they wait for the next run.
                names = names if no_push else ()
                freed = _delete(store, list(names), marker, progress)
            store.manifests.forget()
            _remove_signatures(store)
            _sweep_cache(store, marker.live, now)
            # Again without the deleted names, so that the list says what is on disk.
            condemned = {
                n: t for n, t in condemned.items() if n in carried or disk.exists(_path(store, n))
            }
            _write_condemned(store, condemned)
        return GcResult(len(names), freed, len(condemned), packed, names, dry_run)


def is_due(store: Store) -> bool:
    """Whether the last run, or else the creation of the lake, was at least an hour ago."""
    for path in (store.paths.condemned, store.paths.config):
        with contextlib.suppress(FileNotFoundError):
            return disk.now_us() - os.stat(path).st_mtime_ns // 1000 >= _EVERY
    return False


@contextlib.contextmanager
def _full_disk_suppressed(suppressed: bool = True) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not suppressed or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


@contextlib.contextmanager
def _refuse_unreadable() -> Iterator[None]:
    """Raise GcRefused where something cannot be read: it might name any object."""
    try:
        yield
    except (Damaged, UnknownRef) as error:
        raise GcRefused(f"nothing was deleted: {error}") from error


class Marker:
    """Marks what tags, heads and the moves of each window reach, as digests (32 bytes) in `live`.

    Every manifest is read once, and a page once for each run of states that share it: states are
    visited in the order of their moves, and only the pages in which one differs from the state
    before are removed from the stack or pushed onto it. Raises GcRefused where anything cannot be
    read.
    """

    def __init__(self, store: Store, now: int) -> None:
        self._store, self._now = store, now
        self.live: set[bytes] = set()
        self._lost = {bytes.fromhex(d) for d in map(_digest_of, lost_names(store)) if d}
        self._present: set[bytes] = set()
        self._unmarked: set[bytes] = set()
        self._names: list[str] = []
        self._changes: list[tuple[list[bytes], list[bytes]]] = []
        self._states: list[dict[str, str]] = []
        # Apart from `live`: an index may be marked as the chunk of a directory that holds a lake.
        self._indices: set[bytes] = set()
        self._seen: dict[str, int] = {}
        self.refresh()
        if not self.live:
            raise GcRefused("no branch or tag could be listed: nothing was deleted")

    def refresh(self) -> None:
        """Mark what is reached by refs that are new since the last call."""
        store = self._store
        # Cached heads would hide a move that was made since.
        store.refs.forget()
        with _refuse_unreadable():
            for branch in store.refs.all_branches():
                for move in self._new_moves(branch):
                    self._reach(move.snapshot, move.carried)
            for tag in store.refs.tags():
                self._reach(tag.snapshot, tag.carried)

    def _new_moves(self, branch: str) -> Iterator[Move]:
        """Yield the moves of a branch's window that were not yielded yet, newest first."""
        refs, last = self._store.refs, self._seen.get(branch, 0)
        fresh = itertools.takewhile(lambda move: move.number > last, refs.newest_first(branch))
        newest = next(fresh, None)
        if newest is None:
            # Moves that were lost, or a directory that is not mounted: then all would look
            # unreached.
            was_used = refs.hint_number(branch) or disk.listing(self._store.paths.wal_dir(branch))
            if was_used and not last:
                raise GcRefused(f"branch {branch!r} lists no moves: nothing was deleted")
            return  # just being created, or its creator died before the first move
        self._seen[branch] = newest.number
        yield from window(self._store.settings, itertools.chain([newest], fresh), self._now)

    def _reach(self, digest: str, text: bytes) -> None:
        """Mark one state, its id runs, pages, and the segments that are alive in it."""
        name = bytes.fromhex(digest)
        if name in self.live or name in self._lost:
            return
        outline = self._store.manifests.outline(digest, text)
        self.live.add(name)
        # A state that lost a page does not open, so it needs nothing; repair has noted that.
        pages = (bytes.fromhex(page) for page, _ in outline.pages)
        if self._lost and not self._lost.isdisjoint(pages):
            return
        self.live.update(map(bytes.fromhex, outline.runs))
        self._load_pages(outline.pages)
        self.live.update(map(bytes.fromhex, outline.added))
        # What the pages add and this state deleted stays unmarked: another state may have it.
        hidden = self._unmarked.intersection(map(bytes.fromhex, outline.removed))
        self.live |= self._unmarked - hidden
        self._unmarked = hidden
        self._reach_states(outline.states)

    def _reach_states(self, recent: dict[str, str]) -> None:
        """Mark the indices of the state directories of a state, and their chunks."""
        labels: dict[str, str] = {}
        for changes in (*filter(None, self._states), recent):
            labels |= changes
        for index in filter(None, labels.values()):
            name = bytes.fromhex(index)
            if name in self._indices or name in self._lost:
                continue
            self._indices.add(name)
            self.live.add(name)
            self.live.update(map(bytes.fromhex, state_files.chunks_of(self._store.paths, index)))

    def _load_pages(self, pages: list[tuple[str, int]]) -> None:
        """Make `_present` the segments that these pages leave alive, `_unmarked` those of them
        that are not in `live` yet."""
        names = [name for name, _ in pages]
        pairs = zip(names, self._names, strict=False)
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        # Undo the pages of the state before, newest first, down to those that both share.
        while len(self._names) > common:
            self._names.pop()
            self._states.pop()
            added, deleted = self._changes.pop()
            self._present.difference_update(added)
            self._unmarked.difference_update(added)
            self._add(deleted)
        for name, size in pages[common:]:
            adds, tombstones, states = self._store.manifests.page_outline(name, size)
            self._states.append(states)
            # Only what really changes is noted, so that undoing it restores the set before.
            deleted = [key for key in map(bytes.fromhex, tombstones) if key in self._present]
            self._present.difference_update(deleted)
            self._unmarked.difference_update(deleted)
            self._names.append(name)
            self._changes.append((self._add(map(bytes.fromhex, adds)), deleted))
            self.live.add(bytes.fromhex(name))

    def _add(self, keys: Iterable[bytes]) -> list[bytes]:
        """Add segments to `_present`; return those that were not in it."""
        fresh = [key for key in keys if key not in self._present]
        self._present.update(fresh)
        self._unmarked.update(key for key in fresh if key not in self.live)
        return fresh


def _refuse_lost_branch(paths: Paths) -> None:
    """Refuse where a file is in the place of a branch that was appended to; any other file there
    is no branch. Raises GcRefused."""
    for name in filter(is_encoded, disk.listing(paths.wals)):
        head = f"{paths.heads}/{name}"
        if disk.is_file(head) and not disk.is_file(f"{paths.wals}/{name}"):
            raise GcRefused(f"nothing was deleted: {head} is a file, where moves should be")


def _find_unreached(store: Store, live: set[bytes]) -> Iterator[str]:
    """Names on disk that nothing reaches, temporary files included."""
    for kind in OBJECTS:
        root = f"{store.paths.root}/{kind}"
        for folder in hex_dirs(disk.listing(root)):
            for name in disk.listing(f"{root}/{folder}"):
                digest = parse_object(name)
                if digest is None and name.startswith(disk.TEMPORARY):
                    yield f"{kind}/{folder}/{name}"
                elif digest is not None and bytes.fromhex(digest) not in live:
                    yield f"{kind}/{digest}"
    for name in state_files.names_on_disk(store.paths):
        digest = state_files.digest_of_name(name)
        unfinished = os.path.basename(name).startswith(disk.TEMPORARY)
        if unfinished or (digest is not None and bytes.fromhex(digest) not in live):
            yield name
    yield from _temporary(store)


def _unkept_texts(store: Store, live: set[bytes]) -> Iterator[str]:
    """Names of states outside the window that a move still carries: of a deleted branch, or where
    the disk was too full to pack again. Condemned, they soon cannot be gone back to."""
    for branch in store.refs.all_branches():
        for move in store.refs.newest_first(branch):
            if move.carried and bytes.fromhex(move.snapshot) not in live:
                yield f"manifests/{move.snapshot}"


def _sweep_cache(store: Store, live: set[bytes], now: int) -> None:
    """Remove from cache/ what is of no use any more: filters and peaks of objects that are gone,
    lines about them, and spill directories and empty buffers of killed processes."""
    paths = store.paths
    with contextlib.suppress(OSError, ValueError):  # as all of cache/ it can be made again
        for folder in (paths.blooms, paths.peaks):
            for name in disk.listing(folder):
                # They may be written before the move that adds their segment: they get a day.
                is_alive = not name.startswith(disk.TEMPORARY) and bytes.fromhex(name) in live
                if not is_alive and now - _stamp(f"{folder}/{name}") >= DAY:
                    disk.unlink(f"{folder}/{name}")
        store.verified.keep(lambda digest: bytes.fromhex(digest) in live)
        for name in disk.listing(paths.cache):
            path = f"{paths.cache}/{name}"
            if name.startswith(SPILL) and now - _newest(path) >= DAY:
                for file in disk.listing(path):
                    disk.unlink(f"{path}/{file}")
                disk.remove_dir(path)
        for name in disk.listing(paths.buffers):
            path = f"{paths.buffers}/{name}"
            # What has lines is stored by the next process that logs.
            is_young = now - _stamp(path) < DAY or disk.size(path) > 0
            if not is_young and not disk.is_locked(path):
                disk.unlink(path)


def _remove_signatures(store: Store) -> None:
    """Remove the signatures of tags and states that are gone."""
    gone = list(signatures.unowned(store.paths, store.manifests.is_there))
    signatures.remove(store.paths, gone)


def _newest(path: str) -> int:
    """When a directory or a file in it was last changed, in microseconds."""
    return max(_stamp(name) for name in (path, *(f"{path}/{f}" for f in disk.listing(path))))


def _stamp(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns // 1000
    except FileNotFoundError:
        return 0


def _temporary(store: Store) -> Iterator[str]:
    """Temporary files outside the object folders."""
    paths = store.paths
    folders = [paths.root, paths.tags, paths.signatures, paths.remotes, paths.cache, paths.gc]
    for branch in store.refs.all_branches():
        folders += [paths.head_dir(branch), paths.wal_dir(branch)]
    for folder in folders:
        for name in disk.listing(folder):
            if name.startswith(disk.TEMPORARY):
                yield os.path.relpath(f"{folder}/{name}", paths.root)


def _due(store: Store, condemned: dict[str, int], now: int) -> list[str]:
    """Names condemned for the grace whose files are older than it, references first."""
    grace = store.settings.gc_grace_hours * HOUR
    # Both: a file that repair put back is young, though its name was condemned long ago.
    due = [n for n, since in condemned.items() if now - since >= grace]
    old = [n for n in due if now - _mtime(store, n) >= grace]
    # Temporary files before those of states/, which are deleted apart.
    rank = {kind: i for i, kind in enumerate(_ORDER)} | {"states": 10}
    return sorted(old, key=lambda n: (rank.get(n.split("/")[0], 9), n))


def _delete(store: Store, due: list[str], marker: Marker, progress: Progress | None) -> int:
    """Delete in batches, each after marking what new refs reach; return the bytes freed."""
    others = [name for name in due if not name.startswith("states/")]
    freed = _delete_batches(store, others, marker, progress)
    states = due[len(others) :]
    if not states:
        return freed
    # A save that is running relies on chunks that it found there.
    with disk.hold(store.paths.states_lock, shared=False) as alone:
        return freed + _delete_batches(store, states if alone else [], marker, progress)


@contextlib.contextmanager
def _announced(store: Store, now: int) -> Iterator[bool]:
    """Announce deletions to pushes that can hold no lock; False while one of them has a lease."""
    disk.unlink(store.paths.deleting)  # of a run that was killed: this one holds the lock of gc
    disk.close(disk.create(store.paths.deleting))
    try:
        # After the announcement, so that either a push sees that or its lease is seen here (F9.11).
        yield not any(_is_leased(store, name, now) for name in disk.listing(store.paths.gc))
    finally:
        disk.unlink(store.paths.deleting)


def _is_leased(store: Store, name: str, now: int) -> bool:
    """Whether a file in gc/ is the lease of a push; one that is an hour old is taken away."""
    path = f"{store.paths.gc}/{name}"
    if not name.startswith(LEASE):
        return False
    if abs(now - _stamp(path)) < HOUR:
        return True
    disk.unlink(path)
    disk.sync_dir(store.paths.gc)
    return False


def _delete_batches(store: Store, due: list[str], marker: Marker, progress: Progress | None) -> int:
    freed = 0
    for start in range(0, len(due), BATCH):
        marker.refresh()
        batch = [n for n in due[start : start + BATCH] if not _is_live(n, marker.live)]
        for name in batch:
            freed += _size(store, name)
            disk.unlink(_path(store, name))
            if name.startswith("segments/"):
                disk.unlink(store.paths.bloom(name.removeprefix("segments/")))
        # Before the next batch: manifests must be gone for good before their segments go.
        for folder in {os.path.dirname(_path(store, n)) for n in batch}:
            disk.sync_dir(folder)
        if progress:
            progress(min(start + BATCH, len(due)), len(due))
    return freed


def _is_live(name: str, live: set[bytes]) -> bool:
    digest = _digest_of(name)
    return digest is not None and bytes.fromhex(digest) in live


def _digest_of(name: str) -> str | None:
    """Return the digest of a condemned or lost name, None for the path of a temporary file."""
    return name.split("/")[1] if _is_object(name) else state_files.digest_of_name(name)


def _is_object(name: str) -> bool:
    """Whether a condemned name is `kind/digest`, not the path of a temporary file."""
    kind, _, rest = name.partition("/")
    return kind in OBJECTS and "/" not in rest


def _pack_all(store: Store, now: int) -> int:
    """Pack the moves of every branch, as far as the disk has room."""
    packed = 0
    with _full_disk_suppressed(), _refuse_unreadable():
        tagged = {tag.snapshot for tag in store.refs.tags()}
        for branch in store.refs.all_branches():
            for _ in pack(store, branch, now, tagged):
                packed += 1
    return packed


def lost_names(store: Store) -> Names:
    """Names of objects that repair gave up and that are still missing (F8.2)."""
    try:
        names = document.decode(disk.read(store.paths.lost))["names"]
    except (FileNotFoundError, document.NotIntact):
        return set()
    return {name for name in names if not disk.exists(_path(store, name))}


def _write_condemned(store: Store, condemned: dict[str, int]) -> None:
    disk.replace_whole(store.paths.condemned, document.encode({"names": condemned}))


def _path(store: Store, name: str) -> str:
    if _is_object(name):
        return store.paths.object(*name.split("/"))
    return f"{store.paths.root}/{name}"


def _mtime(store: Store, name: str) -> int:
    return _stamp(_path(store, name))


def _size(store: Store, name: str) -> int:
    try:
        return os.stat(_path(store, name)).st_size
    except FileNotFoundError:
        return 0
