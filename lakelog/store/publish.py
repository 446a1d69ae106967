"""Publishing: the one ritual by which a state of the lake becomes the next one.

    1 read the head                      4 leave out watermarks of writers without files
    2 plan the change against it         5 sync the moves, look that every new file is still there
    3 write pages, and a long manifest   6 link the next move at once, sync its directory

A manifest that is not long is part of the move, and appears with it.

A publish is an operation with preconditions, not a new state. `plan(head, manifest)` tests them
and returns the change, or None to give up; after a lost race it is asked again with the new
head, so what no longer holds is computed anew and nothing is merged by hope. The link decides:
numbers are taken once. A result that cannot be read back is OutcomeUnknown and keeps every file.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lakelog.errors import OutcomeUnknown, StaleFiles
from lakelog.store import clock, disk, manifest
from lakelog.store.bootstrap import Store, make_branch_dirs, raise_format
from lakelog.store.manifest import Entry, Manifest
from lakelog.store.paths import parse_wal
from lakelog.store.refs import Head, Move, author, encode_move, in_unicode

USER_OPS = ("rollback", "undo", "snapshot", "retention", "dedupe", "quarantine", "repair")
"""Moves a user made; all others are publishing or maintenance, which undo skips."""
AUTOMATIC_OPS = {"seal", "ingest", "compact", "maintain"}
"""Moves that nobody asked for by name; their states thin out with age."""
_RETRIES = 10_000
_ANEW = 3
"""How often new files are made for one publish whose files do not last."""


@dataclass(frozen=True)
class Change:
    """What one publish does to a branch. `snapshot` names a target instead of a new manifest."""

    op: str
    message: str = ""
    entries: tuple[Entry, ...] = ()
    sealed: dict[str, int] = field(default_factory=dict)
    ids_add: tuple[Entry, ...] = ()
    ids_drop: tuple[str, ...] = ()
    retention: Entry | None = None
    merge_pages: bool = False
    snapshot: str | None = None
    rewind: bool = False
    watermarks: dict[str, int] | None = None
    """Replaces the watermarks outright; only a repair past a damaged move needs it."""


Plan = Callable[[Head, Manifest], Change | None]


def publish(
    store: Store, branch: str, plan: Plan, anew: Callable[[], object] | None = None
) -> Head | None:
    """Move the branch by what `plan` returns; None if it gave up.

    `anew` lets go of the files that `plan` made, if it may make them again when they do not last.
    Raises StaleFiles if it may not, or they never last; Damaged, OutcomeUnknown, OSError. Whatever
    was written is then garbage for gc.
    """
    commit, outlived = disk.random_hex(), 0
    for attempt in range(_RETRIES):
        head = store.refs.head(branch)
        state = store.manifests.load(head.move.snapshot)
        change = plan(head, state)
        if change is None:
            return None
        try:
            done = try_move(store, head, state, change, commit)
        except StaleFiles:
            outlived += 1
            if anew is None or outlived > _ANEW:
                raise
            anew()
            continue
        if done is not None:
            store.refs.note(done)
            return done
        time.sleep(min(0.0002 * attempt, 0.01))
    raise OutcomeUnknown(f"branch {branch!r} moved {_RETRIES} times while publishing; try again")


def try_move(store: Store, head: Head, state: Manifest, change: Change, commit: str) -> Head | None:
    """Steps 3 to 6 against one head; None if another process took the number, or this one slept.
    Raises StaleFiles."""
    raise_format(store)
    began = disk.now_us()
    now = clock.following(head.move.time, began)
    if change.snapshot is None:
        grown, carried = store.manifests.settle(grow(store, state, change, commit, now))
        snapshot = grown.digest
    else:
        snapshot, carried = change.snapshot, store.manifests.text_to_carry(change.snapshot)
    marks = change.watermarks
    if marks is None:
        marks = watermarks(store, head.move, change.sealed)
    move = Move(
        number=head.move.number + 1,
        branch=head.move.branch,
        prev=head.digest,
        commit=commit,
        time=now,
        author=author(),
        op=change.op,
        message=in_unicode(change.message),
        snapshot=snapshot,
        generation=head.move.generation + change.rewind,
        wal=marks,
        carried=carried,
    )
    return link_move(
        store,
        move,
        lambda made: change.snapshot is not None or _lasts(store, change, move, began, made),
    )


def grow(store: Store, state: Manifest, change: Change, commit: str, now: int) -> Manifest:
    """Return the next manifest, pages already written."""
    entries, next_seq = manifest.number(list(change.entries), state.next_seq)
    pages = state.pages
    if change.merge_pages:
        pages = manifest.merge_pages(store.manifests, pages, commit)
    tail = manifest.fold([(*state.tail, *entries)], oldest=not pages)
    pages, tail = manifest.spill(store.manifests, pages, tail, commit)
    kept = tuple(run for run in state.ids if run["digest"] not in change.ids_drop)
    return Manifest(
        parent=state.digest,
        commit=commit,
        time=now,
        author=author(),
        op=change.op,
        message=in_unicode(change.message),
        next_seq=next_seq,
        totals=manifest.add_up(state.totals, entries),
        pages=pages,
        tail=tail,
        ids=(*kept, *change.ids_add),
        retention=change.retention or state.retention,
    )


def watermarks(store: Store, move: Move, sealed: dict[str, int]) -> dict[str, int]:
    """Return the move's watermarks: raised by what was sealed, without writers whose files are
    gone. The directory is synced first: else a power cut could bring such a file back."""
    merged = dict(move.wal)
    for writer, sequence in sealed.items():
        merged[writer] = max(sequence, merged.get(writer, -1))
    directory = store.paths.wal_dir(move.branch)
    present = {p[0] for p in map(parse_wal, disk.listing(directory)) if p}
    gone = merged.keys() - present
    if gone:
        make_branch_dirs(store, move.branch)  # a copy may have left out what was empty
        disk.sync_dir(directory)
        for writer in gone:
            del merged[writer]
    return merged


def link_move(
    store: Store, move: Move, lasts: Callable[[str], bool] = lambda _: True
) -> Head | None:
    """Link a move and make it durable; None if another move has that number, or its files do not
    last, which is looked at right before, when the temporary file of the move is there.

    The move before may be somebody's whose own sync failed: it has to last before one that names
    it can, else a power cut between the two would leave a hole. Where it lasts, this costs nothing.
    """
    directory = store.paths.head_dir(move.branch)
    if move.number > 1:
        disk.sync_dir(directory)
    for _ in range(3):
        try:
            head = store.refs.link(move, lasts)
            if head is None:
                return None
        except FileExistsError:
            return _ours(store, move)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES):
                if store.refs.exists(move.branch, move.number):
                    return _ours(store, move)
                raise
            continue
        if move.number > 1 and not store.refs.exists(move.branch, move.number - 1):
            disk.unlink(store.paths.move(move.branch, move.number))
            return None  # we slept: gc folded away the move before ours, and the one of our number
        disk.sync_dir(directory)
        return head
    return _ours(store, move)


def _ours(store: Store, move: Move) -> Head | None:
    """Decide a race by reading the number back: equal commit means it was us."""
    try:
        there = store.refs.read_head(move.branch, move.number)
    except (FileNotFoundError, OSError) as error:
        raise OutcomeUnknown(
            f"move {move.number} of {move.branch!r} may or may not have been made ({error}):"
            " see `lakelog log`"
        ) from error
    if there.move.commit != move.commit or encode_move(there.move) != encode_move(move):
        return None
    disk.sync_dir(store.paths.head_dir(move.branch))
    return there


def run_maintenance(store: Store, branch: str) -> None:
    """Merge pages that are too many, as a move of its own, off every commit's path."""
    state = store.state(branch)
    if not manifest.is_mergeable(state.pages):
        return

    def plan(_: Head, now: Manifest) -> Change | None:
        return Change("maintain", merge_pages=True) if manifest.is_mergeable(now.pages) else None

    publish(store, branch, plan)


def _lasts(store: Store, change: Change, move: Move, began: int, made: str) -> bool:
    """Protocol 5.3: whether the manifest of this publish is there and too young for gc.

    So must be the segments and id runs that it adds, by the lake's own clock, which stamped the
    move's temporary file, for a process may stand still for days: else this raises StaleFiles. What
    a repair adopts may be old.
    """
    paths, half = store.paths, store.settings.gc_grace_hours * 1_800_000_000
    added = (e["key"] for e in change.entries if e.get("add") == "segment")
    needed = [paths.object("segments", key) for key in added]
    needed += [paths.object("ids", run["digest"]) for run in change.ids_add]
    try:
        written = _stamp(made if move.carried else paths.object("manifests", move.snapshot))
    except FileNotFoundError:
        return False
    aged = bool(half) and change.op != "repair"
    for path in needed:
        try:
            then = _stamp(path)
        except FileNotFoundError:
            raise StaleFiles(f"{path}: gone before it was published; try again") from None
        if aged and written - then >= half:
            raise StaleFiles(f"{path}: too old to be published, gc may take it; try again")
    return not aged or disk.now_us() - began < half


def _stamp(path: str) -> int:
    """When a file was written, in microseconds of the file system's clock."""
    return os.stat(path).st_mtime_ns // 1000
