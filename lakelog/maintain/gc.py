"""Garbage collection: only what no ref reaches, only after a grace, references first (F9.10).

What nothing reaches is written to gc/condemned.json with the time it was first seen so. After
the grace (default 24 h), if it is still unreached when the refs are read again, it is deleted:
manifests and pages first, then id runs, segments, and chunks of state directories, these only while
no save of a state directory is running. Times are mtimes of a probe file created in the
lake now, not this host's clock. Old moves are packed and thinned before (thinning.py).
If a ref, manifest or page cannot be read, or a listing is empty where refs were known before,
nothing is deleted (GcRefused). `expire` waits for no grace: it ends the kept history of a branch,
and deletes what only states before its end needed.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

from lakelog import bloom, chunks, document, history, ranks, wal
from lakelog.database import SPILL
from lakelog.disk import File, Folder, LockFile, OpenFile, disk
from lakelog.errors import Damaged, GcRefused, UnknownRef
from lakelog.maintain.reachability import Marker, digest_of, path_of, refuse_unreadable
from lakelog.maintain.repair import lost_moves
from lakelog.moves import Change, publish
from lakelog.paths import LEASE, OBJECTS, FileName, FileNames, Paths
from lakelog.runtime.progress import ProgressCallback
from lakelog.store import Signatures, Store

# Names deleted for one look at the refs: a ref that is made meanwhile is noticed before the next.
BATCH = 500
_HOUR = 3_600_000_000
_EVERY = _HOUR
_DAY = 24 * _HOUR
# A manifest without its segments would be damage; a segment without manifest is garbage again.
_ORDER = ("manifests", "ids", "segments")


@dataclass(frozen=True)
class GcResult:
    """What one run deleted, condemned and packed; `bytes` are those of deleted files."""

    deleted: int
    bytes: int
    condemned: int
    packed: int
    names: tuple[str, ...]
    dry_run: bool


def gc(
    store: Store, *, dry_run: bool = False, progress: ProgressCallback | None = None
) -> GcResult:
    """Collect garbage; works on a full disk. Raises GcRefused, having deleted nothing, OSError."""
    with _alone(store) as previous:
        # By the file system's clock, which has stamped the files.
        now_us = history.lake_time(store)
        # Before marking: what packing drops is then not looked at.
        packed_files = 0 if dry_run else _pack_all(store, now_us)
        marker = Marker(store, now_us)
        # These are in no file of their own, so they are condemned, but never deleted here.
        carried = set(_unkept_texts(store, marker.live))
        unreached = itertools.chain(_find_unreached(store, marker.live), carried)
        # A clock that was far ahead must not keep what it saw unneeded for as long.
        latest = now_us + store.settings.gc_grace_hours * _HOUR
        previous = {n: t for n, t in previous.items() if t <= latest}
        condemned = {n: previous.get(n, now_us) for n in unreached}
        due = _due(store, {n: t for n, t in condemned.items() if n not in carried}, now_us)
        # Those that wait were judged when they were condemned.
        _refuse_lost_moves(store, {*due, *(condemned.keys() - previous.keys())})
        names: tuple[str, ...] = tuple(due)
        freed = sum(_size(store, n) for n in due)
        if not dry_run:
            # On a full disk what is due already is deleted all the same: that makes room.
            with _full_disk_suppressed(bool(due)):
                _write_condemned(store, condemned)
            # Nothing to delete needs no announcement.
            with _announced(store, now_us) if due else nullcontext(True) as no_push:
                # A push that names objects just now may name these: they wait for the next run.
                names = names if no_push else ()
                freed = _delete(store, list(names), marker, progress)
            store.manifests.forget()
            _remove_signatures(store)
            with contextlib.suppress(OSError):  # on a full disk the notes stay as they are
                store.received.trim(
                    lambda key: now_us - _stamp(f"{store.paths.root}/{key}") >= _DAY
                )
            _sweep_cache(store, marker.live, now_us)
            trim_deleted(store)
            # Again without the deleted names, so that the list says what is on disk.
            condemned = {
                n: t
                for n, t in condemned.items()
                if n in carried or File(path_of(store, n)).exists()
            }
            _write_condemned(store, condemned)
        return GcResult(len(names), freed, len(condemned), packed_files, names, dry_run)


def expire(
    store: Store,
    branch: str,
    why: str = "",
    *,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
) -> GcResult:
    """Give up the states of a branch before its present one, by a move, and delete at once what
    only they needed. Tags and other branches keep what they name. Raises GcRefused, OSError."""
    with _alone(store) as previous:
        now_us = history.lake_time(store)
        before, marker = Marker(store, now_us).live, Marker(store, now_us, branch)
        names = set(_unkept_texts(store, marker.live)) | set(_find_unreached(store, marker.live))
        digests = {n: bytes.fromhex(d) for n in names if (d := digest_of(n))}
        # With what a run before this one, which was killed, had not deleted yet.
        given_up = {n for n, d in digests.items() if d in before or previous.get(n) == 0}
        _refuse_lost_moves(store, {*given_up, *(names - previous.keys())})
        due = _sorted(n for n in given_up if File(path_of(store, n)).exists())
        if dry_run:
            return GcResult(len(due), sum(_size(store, n) for n in due), 0, 0, tuple(due), True)
        # As if condemned long ago: from the move on nobody goes back to such a state (F9.10).
        condemned = {**previous, **dict.fromkeys(given_up, 0)}
        # Written before the move: whoever comes next deletes what the move has given up.
        _write_condemned(store, condemned)
        publish(store, branch, lambda now, _: Change("expire", why, snapshot=now.move.snapshot))
        marker = Marker(store, now_us)
        with _announced(store, now_us) as no_push:
            freed = _delete(store, due if no_push else [], marker, progress)
        store.manifests.forget()
        _remove_signatures(store)
        deleted = dict.fromkeys(n for n in due if not File(path_of(store, n)).exists())
        # What could not be deleted stays condemned.
        _write_condemned(store, {n: t for n, t in condemned.items() if n not in deleted})
        remaining = len(due) - len(deleted)
        return GcResult(len(deleted), freed, remaining, 0, tuple(deleted), False)


def trim_deleted(store: Store) -> None:
    """Remove what is sealed of the WALs of deleted branches: nobody settles these any more. Raises
    OSError."""
    for branch in store.refs.all_branches():
        if not Folder(store.paths.wal_dir(branch)).names() or store.refs.is_alive(branch):
            continue
        # One whose moves or segments cannot be read keeps what it has: `verify` names them.
        with contextlib.suppress(Damaged, UnknownRef):
            head = store.refs.read_head(branch, store.refs.head_number(branch))
            is_kept = any(history.kept_moves(store, [head.move]))
            tail = wal.Tail(store.paths, store.refs, branch)
            wal.trim(store, branch, tail, head, is_kept=is_kept)


def is_due(store: Store) -> bool:
    """Whether the last run, or else the creation of the lake, was at least an hour ago, or lies in
    the future, as the clock was set back."""
    for path in (store.paths.condemned, store.paths.config):
        with contextlib.suppress(FileNotFoundError):
            # The file of condemned names is written by each run.
            return not 0 <= disk.now_us() - os.stat(path).st_mtime_ns // 1000 < _EVERY
    return False


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[dict[str, int]]:
    """Be the only run in the lake, with durable refs; yield what was condemned before."""
    with LockFile(f"{store.paths.cache}/gc.lock").claim() as alone:
        if not alone:
            raise GcRefused("another process is collecting in this lake: wait for it")
        # A ref that is read below but not durable yet could vanish in a power cut, and what it had
        # replaced would be gone: so refs are made durable before anything is judged by them.
        _refuse_lost_branch(store.paths)
        for branch in store.refs.all_branches():
            # Before the listing, as a move may be made meanwhile (F11.3).
            hinted, moves = (
                store.refs.hint_number(branch),
                Folder(store.paths.head_dir(branch)).names(),
            )
            # The hint says that a later move was there.
            if hinted > max(FileNames(moves).moves, default=0):
                path = store.paths.move(branch, hinted)
                raise GcRefused(f"nothing was deleted: {path} is missing: run `lakelog repair`")
            Folder(store.paths.head_dir(branch)).sync()
        Folder(store.paths.tags).sync()
        yield history.read_condemned(store)


@contextlib.contextmanager
def _full_disk_suppressed(suppressed: bool = True) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not suppressed or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def _refuse_lost_branch(paths: Paths) -> None:
    """Refuse where the moves of a branch that was appended to are gone, or a file is in their
    place; any other file there is no branch. Raises GcRefused."""
    for branch in FileNames(Folder(paths.wals).names()).refs:
        head, folder = paths.head_dir(branch), paths.wal_dir(branch)
        if File(folder).is_regular():
            continue
        if File(head).is_regular():
            raise GcRefused(f"nothing was deleted: {head} is a file, where moves should be")
        # WAL files without moves: the branch lost its log.
        if not File(head).exists() and any(FileNames(Folder(folder).names()).wals):
            raise GcRefused(f"nothing was deleted: {head} is missing, though it was appended to")


def _refuse_lost_moves(store: Store, names: set[str]) -> None:
    """Refuse where one of these segments, which nothing reaches, was in a state whose move is lost:
    it may be the only place of events. Raises GcRefused."""
    # Temporary files have one part more.
    split_names = (name.split("/") for name in sorted(names) if name.startswith("segments/"))
    for trace in lost_moves.find(
        store, [split_name[1] for split_name in split_names if len(split_name) == 2]
    ):
        # The first is enough: nothing is deleted.
        path = store.paths.object("segments", trace.key)
        raise GcRefused(
            f"nothing was deleted: {path}: {trace.reason}; `lakelog repair` takes back what it can"
        )


def _find_unreached(store: Store, live: set[bytes]) -> Iterator[str]:
    """Names on disk that nothing reaches, temporary files included."""
    for object_type in OBJECTS:
        root = f"{store.paths.root}/{object_type}"
        for folder in FileNames(Folder(root).names()).hex_dirs:
            for name in Folder(f"{root}/{folder}").names():
                digest = FileName(name).digest
                # Temporary names of writers that died; young ones are left by `_least_age`.
                if digest is None and name.startswith(disk.TEMPORARY):
                    yield f"{object_type}/{folder}/{name}"
                elif digest is not None and bytes.fromhex(digest) not in live:
                    yield f"{object_type}/{digest}"
    for name in chunks.StateFiles(store.paths).names():
        digest = chunks.digest_of_name(name)
        unfinished = os.path.basename(name).startswith(disk.TEMPORARY)
        if unfinished or (digest is not None and bytes.fromhex(digest) not in live):
            yield name
    yield from _temporary(store)


def _unkept_texts(store: Store, live: set[bytes]) -> Iterator[str]:
    """Names of states outside the window that a move still carries: of a deleted branch, or where
    the disk was too full to pack again. Condemned, they soon cannot be gone back to."""
    for branch in store.refs.all_branches():
        # Moves of deleted branches are kept as well, to bring them back.
        for move in store.refs.newest_first(branch):
            if move.carried and bytes.fromhex(move.snapshot) not in live:
                yield f"manifests/{move.snapshot}"


def _sweep_cache(store: Store, live: set[bytes], now_us: int) -> None:
    """Remove from cache/ what is of no use any more: filters and peaks of objects that are gone,
    lines about them, and spill directories and empty buffers of killed processes."""
    paths = store.paths
    indexes = paths.blooms, paths.names, paths.word_indexes, paths.peaks, paths.rank_indexes
    for folder in (*indexes, paths.ranges):
        for name in Folder(folder).names():
            is_alive = _is_of_live(name.partition("-")[0], live)
            # Of versions that are no longer installed nobody uses it.
            if folder == paths.rank_indexes and is_alive:
                is_alive = not ranks.is_foreign(name)
            # They may be written before the move that adds their segment: they get a day.
            if not is_alive and now_us - _stamp(f"{folder}/{name}") >= _DAY:
                # What cannot be removed keeps nothing else.
                with contextlib.suppress(OSError):
                    if folder == paths.rank_indexes:
                        ranks.drop(paths, [name])
                    else:
                        File(f"{folder}/{name}").remove()
    with contextlib.suppress(OSError):  # as all of cache/ it can be made again
        store.verified.keep(lambda digest: _is_of_live(digest, live))
        for name in Folder(paths.cache).names():
            path = f"{paths.cache}/{name}"
            if name.startswith(SPILL) and now_us - _newest(path) >= _DAY:
                Folder(path).remove_with_files()
        for name in Folder(paths.buffers).names():
            path = f"{paths.buffers}/{name}"
            # What has lines is stored by the next process that logs.
            is_young = now_us - _stamp(path) < _DAY or os.path.getsize(path) > 0
            if not is_young and not LockFile(path).is_held():
                File(path).remove()


def _is_of_live(digest: str, live: set[bytes]) -> bool:
    """Whether it is that of a live object; a torn line or a strange name has none."""
    with contextlib.suppress(ValueError):
        return bytes.fromhex(digest) in live
    return False


def _remove_signatures(store: Store) -> None:
    """Remove the signatures of tags and states that are gone."""
    signatures = Signatures(store.paths)
    signatures.remove(list(signatures.unowned(store.manifests.is_there)))


def _newest(path: str) -> int:
    """When a directory or a file in it was last changed, in microseconds."""
    return max(_stamp(name) for name in (path, *(f"{path}/{f}" for f in Folder(path).names())))


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
        for name in Folder(folder).names():
            if name.startswith(disk.TEMPORARY):
                yield os.path.relpath(f"{folder}/{name}", paths.root)


def _due(store: Store, condemned: dict[str, int], now_us: int) -> list[str]:
    """Names condemned for the grace whose files are older than it, references first."""
    grace = store.settings.gc_grace_hours * _HOUR
    # Both: a file that repair put back is young, though its name was condemned long ago.
    due = [n for n, since in condemned.items() if now_us - since >= grace]
    # Without a grace, too, somebody is about to give a young temporary file its name.
    return _sorted(
        n for n in due if now_us - _stamp(path_of(store, n)) >= max(grace, _least_age(n))
    )


def _least_age(name: str) -> int:
    return _HOUR if os.path.basename(name).startswith(disk.TEMPORARY) else 0


def _sorted(names: Iterable[str]) -> list[str]:
    """Return names in the order in which they are deleted, references first."""
    # Temporary files before those of states/, which are deleted apart.
    rank = {object_type: i for i, object_type in enumerate(_ORDER)} | {"states": 10}
    return sorted(names, key=lambda n: (rank.get(n.split("/")[0], 9), n))


def _delete(store: Store, due: list[str], marker: Marker, progress: ProgressCallback | None) -> int:
    """Delete in batches, each after marking what new refs reach; return the bytes freed."""
    # States go last: they have a lock of their own.
    objects = [name for name in due if not name.startswith("states/")]
    freed = _delete_batches(store, objects, marker, progress)
    states = due[len(objects) :]
    if not states:
        return freed
    # A save that is running relies on chunks that it found there.
    with LockFile(store.paths.states_lock).hold(shared=False) as alone:
        return freed + _delete_batches(store, states if alone else [], marker, progress)


@contextlib.contextmanager
def _announced(store: Store, now_us: int) -> Iterator[bool]:
    """Announce deletions to pushes that can hold no lock; False while one of them has a lease."""
    File(store.paths.deleting).remove()  # of a run that was killed: this one holds the lock of gc
    OpenFile(File(store.paths.deleting).open_new()).close()
    try:
        # After the announcement, so that either a push sees that or its lease is seen here (F9.11).
        yield not any(_is_leased(store, name, now_us) for name in Folder(store.paths.gc).names())
    finally:
        File(store.paths.deleting).remove()


def _is_leased(store: Store, name: str, now_us: int) -> bool:
    """Whether a file in gc/ is the lease of a push; one that is an hour old is taken away."""
    path = f"{store.paths.gc}/{name}"
    if not name.startswith(LEASE):
        return False
    if abs(now_us - _stamp(path)) < _HOUR:
        return True
    File(path).remove()
    Folder(store.paths.gc).sync()
    return False


def _delete_batches(
    store: Store, due: list[str], marker: Marker, progress: ProgressCallback | None
) -> int:
    freed = 0
    for start in range(0, len(due), BATCH):
        # Refs that were made since may name what is due.
        marker.refresh()
        batch = [n for n in due[start : start + BATCH] if not _is_live(n, marker.live)]
        for name in batch:
            freed += _size(store, name)
            File(path_of(store, name)).remove()
        segments = [n.removeprefix("segments/") for n in batch if n.startswith("segments/")]
        for drop in (bloom.drop, ranks.drop):
            drop(store.paths, segments)
        # Before the next batch: manifests must be gone for good before their segments go.
        for folder in {os.path.dirname(path_of(store, n)) for n in batch}:
            Folder(folder).sync()
        if progress:
            progress(min(start + BATCH, len(due)), len(due))
    return freed


def _is_live(name: str, live: set[bytes]) -> bool:
    digest = digest_of(name)
    return digest is not None and bytes.fromhex(digest) in live


def _pack_all(store: Store, now_us: int) -> int:
    """Pack the moves of every branch, as far as the disk has room."""
    count = 0
    # A full disk is where packing is wanted most, and can do least.
    with _full_disk_suppressed(), refuse_unreadable():
        for _ in history.pack(store, now_us):
            count += 1
    return count


def _write_condemned(store: Store, condemned: dict[str, int]) -> None:
    File(store.paths.condemned).replace(document.encode({"names": condemned}))


def _size(store: Store, name: str) -> int:
    try:
        return os.stat(path_of(store, name)).st_size
    except FileNotFoundError:
        return 0
