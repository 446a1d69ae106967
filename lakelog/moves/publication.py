"""Publishing: how one state of a branch becomes the next one (F9.3, F9.4).

    1 read the head                      4 leave out watermarks of writers without files
    2 plan the change against it         5 sync all that is new, check it once more
    3 write pages, and a long manifest   6 link the next move at once, sync its directory

A manifest that is not long is carried by the move, and appears with it.

A publish is an operation with preconditions, not a new state. `plan(head, manifest)` tests them
and returns the change, or None to give up; after a lost race it is called again with the new
head, so what no longer holds is computed again and nothing is merged on assumption. The link
decides: a number can be linked once. A result that cannot be read back is OutcomeUnknown and keeps
every file.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from lakelog import manifest
from lakelog.disk import Begun, Folder, disk
from lakelog.entries import Entry, IdRun, RetentionEntry, SegmentEntry, assign_seq
from lakelog.errors import OutcomeUnknown, SnapshotGone, StaleFiles
from lakelog.manifest import Manifest
from lakelog.moves import page_tree
from lakelog.paths import KEYS, FileNames
from lakelog.refs import Head, IsSafe, Move, PreparedMove, author, escape_text
from lakelog.store import Clock, Store

USER_OPS = tuple(
    "rollback undo snapshot retention dedupe quarantine repair push pull merge".split()
)
"""Moves a user made; all others are publishing or maintenance, which undo skips."""
AUTOMATIC_OPS = {"seal", "ingest", "compact", "maintain", "state", "container", "subscription"}
"""Moves that nobody asked for by name; their states thin out with age."""
# A bound, so that a publisher that can never win ends with an error.
_RETRIES = 10_000
_REWRITES = 3
"""How often the files of one publish are written again because they were gone or too old."""


@dataclass(frozen=True)
class Change:
    """What one publish does to a branch. `snapshot` names a target instead of a new manifest."""

    op: str
    message: str = ""
    entries: tuple[Entry, ...] = ()
    sealed: dict[str, int] = field(default_factory=dict)
    ids_add: tuple[IdRun, ...] = ()
    ids_drop: tuple[str, ...] = ()
    retention: RetentionEntry | None = None
    merge_pages: bool = False
    snapshot: str | None = None
    onto: Manifest | None = None
    """The state that it grows from, in place of that of the branch; only a merge needs it."""
    rewind: bool = False
    watermarks: dict[str, int] | None = None
    """Replaces the watermarks outright; only a repair past a damaged move needs it."""
    pending_files: list[Begun] = field(default_factory=list)
    """Files of `entries` and `ids_add` that are made durable with that of the move."""
    is_right: Callable[[], bool] = lambda: True
    """Whether it may still be made, as far as that depends on what is no part of the head: asked
    first, and right before the link."""

    def added_keys(self) -> list[str]:
        """Return the keys of the segments and id runs that it adds."""
        segments = (e.key for e in self.entries if isinstance(e, SegmentEntry))
        runs = (KEYS.object("ids", run.digest) for run in self.ids_add)
        return [*(KEYS.object("segments", key) for key in segments), *runs]


ChangePlan = Callable[[Head, Manifest], Change | None]


@dataclass
class Follow:
    """A change that one publish makes right after its own, which spares the disk some waiting.

    It goes to a state that is there, and is planned once, on the move before it, if that `is_due`.
    `head` is its own, None where it was not made: then the caller publishes it by itself.
    """

    plan: ChangePlan
    is_due: Callable[[Head], bool] = lambda _: True
    head: Head | None = None


class SettleWith(Protocol):
    """Publishes what is pending, and `follow` with the last of it."""

    def __call__(self, *, follow: Follow | None = None) -> Head: ...


def publish(
    store: Store,
    branch: str,
    plan: ChangePlan,
    discard: Callable[[], object] | None = None,
    commit: str = "",
    *,
    hint: bool = True,
    follow: Follow | None = None,
) -> Head | None:
    """Move the branch by what `plan` returns, then by `follow`; None if `plan` gave up.

    `discard` drops the files that `plan` wrote, if it can write them again when they are gone or
    too old. `commit` marks the move, by random digits of its own unless given. Without `hint` the
    hint is left to the next move, which the caller makes at once. Raises StaleFiles
    if it cannot, or if they never last; Damaged, OutcomeUnknown,
    OSError. Whatever was written is then garbage for gc.
    """
    commit, rewrites = commit or disk.random_hex(), 0
    for attempt in range(_RETRIES):
        head = store.refs.head(branch)
        state = store.manifests.of(head.move)
        try:
            change = plan(head, state)
        except SnapshotGone:
            continue  # rows of it were erased meanwhile
        if change is None or not change.is_right():
            return None
        if store.attachment is not None:
            try:
                joined = store.attachment.join(store, head, state, change)
            except BaseException:
                store.volume.abandon(change.pending_files)  # else each try leaves some
                raise
            if joined is None:
                # Others have moved the branch meanwhile; what was written has its names, as after
                # a move that was lost.
                store.volume.finish(change.pending_files)
                continue
            change = joined
        try:
            moved = try_move(store, head, state, change, commit, follow)
        except StaleFiles:
            # This process slept, or gc ran with a short grace. What it had written is not safe to
            # name, so it is planned and written from the start.
            rewrites += 1
            if discard is None or rewrites > _REWRITES:
                raise
            discard()
            continue
        if moved is not None:
            follow_up = follow.head if follow else None
            # The hint comes after the move is durable: a hint above the newest move means damage.
            store.refs.note(moved, hint=hint and follow_up is None)
            if follow_up is not None:
                store.refs.note(follow_up)
            return follow_up or moved
        # Somebody else moved the branch. The wait grows, else publishers would starve each other.
        time.sleep(min(0.0002 * attempt, 0.01))
    raise OutcomeUnknown(f"branch {branch!r} moved {_RETRIES} times while publishing; try again")


def with_reason(message: str, why: str) -> str:
    """Return the message of a move with the reason that a user gave."""
    return f"{message}: {why}" if why else message


def note(store: Store, branch: str, op: str, message: str) -> None:
    """Add a move that changes nothing: the log then says who did what outside of the branch."""
    publish(store, branch, lambda now, _: Change(op, message, snapshot=now.move.snapshot))


def try_move(
    store: Store,
    head: Head,
    state: Manifest,
    change: Change,
    commit: str,
    follow: Follow | None = None,
) -> Head | None:
    """Steps 3 to 6 against one head; None if another process took the number, or this one slept.
    Raises StaleFiles."""
    started_at, pending_files, prepared = disk.now_us(), change.pending_files, list[PreparedMove]()
    try:
        # Before anything that an older reader would misread is written (F15.3).
        store.raise_format()
        # The sync after that move may have failed: a power cut must not take it and leave the next.
        store.refs.sync(head.move.branch, head.digest)
        move, successor = _next_move(store, head, state, change, commit, started_at)
        prepared.append(store.refs.prepare(move, pending_files))
        follow_up = _second_move(store, prepared[0].head, successor, follow) if follow else None
        if follow_up is not None:
            prepared.append(store.refs.prepare(follow_up, pending_files))
        # All are durable before the first link, and what a move names has its name by then.
        store.volume.finish(pending_files)
        store.volume.deliver(change.added_keys())

        # A move to an existing state adds no files whose age could matter.
        def is_safe(file: Begun) -> bool:
            # Of a lake that was removed nothing may come into one that was made in its place.
            store.require_same_lake("", ())
            is_whole = change.snapshot is not None or _is_safe(
                store, change, move, started_at, file
            )
            return is_whole and change.is_right()

        linked = link_move(store, move, is_safe, prepared.pop(0))
        if linked is not None and follow_up is not None and follow is not None:
            follow.head = link_move(store, follow_up, prepared=prepared.pop())
        return linked
    finally:
        store.volume.abandon(pending_files)
        for unlinked in prepared:
            store.volume.drop(unlinked.file)


def _second_move(store: Store, head: Head, state: Manifest, follow: Follow) -> Move | None:
    """Plan what follows a move that is not linked yet; None where it is not due."""
    change = follow.plan(head, state) if follow.is_due(head) else None
    # The age of files that a change adds is checked right before its link, which is not done here.
    if change is None or change.snapshot is None:
        return None
    return _next_move(store, head, state, change, disk.random_hex(), disk.now_us())[0]


def _next_move(
    store: Store, head: Head, state: Manifest, change: Change, commit: str, started_at: int
) -> tuple[Move, Manifest]:
    """Return the move that makes a change, and the state before it or the new one that it makes;
    pages and a long manifest are written by then."""
    now_us = Clock.following(head.move.time, started_at)
    if change.snapshot is None:
        state, carried = store.manifests.settle(
            grow(store, change.onto or state, change, commit, now_us), change.pending_files
        )
        snapshot = state.digest
    else:
        snapshot, carried = change.snapshot, store.manifests.text_to_carry(change.snapshot)
    # From the head, not from the target of a rollback: sealing is never undone (F7.6).
    marks = change.watermarks
    if marks is None:
        marks = watermarks(store, head.move, change.sealed)
    move = Move(
        number=head.move.number + 1,
        branch=head.move.branch,
        prev=head.digest,
        commit=commit,
        time=now_us,
        author=author(),
        op=change.op,
        message=escape_text(change.message),
        snapshot=snapshot,
        generation=head.move.generation + change.rewind,
        wal=marks,
        carried=carried,
    )
    return move, state


def grow(store: Store, state: Manifest, change: Change, commit: str, now_us: int) -> Manifest:
    """Return the next manifest; its pages are written by then."""
    entries, next_seq = assign_seq(change.entries, state.next_seq)
    pages = state.pages
    if change.merge_pages:
        pages = page_tree.merge_pages(store.manifests, pages, commit)
    # Folded with the recent ones first: an entry and its tombstone meet here before a page is made.
    recent = manifest.fold([(*state.recent, *entries)], oldest=not pages)
    pages, recent = page_tree.spill(store.manifests, pages, recent, commit)
    runs = tuple(run for run in state.ids if run.digest not in change.ids_drop)
    return Manifest(
        parent=state.digest,
        commit=commit,
        time=now_us,
        author=author(),
        op=change.op,
        message=escape_text(change.message),
        next_seq=next_seq,
        totals=manifest.add_up(state.totals, entries),
        pages=pages,
        recent=recent,
        ids=(*runs, *change.ids_add),
        retention=change.retention or state.retention,
    )


def watermarks(store: Store, move: Move, sealed: dict[str, int]) -> dict[str, int]:
    """Return the move's watermarks: raised by what was sealed, without writers whose files are
    gone. The directory is synced first: else a power cut could bring such a file back (F9.7)."""
    raised = dict(move.wal)
    for writer, sequence in sealed.items():
        # Never lowered: frames below were removed from the WAL, and would be missing.
        raised[writer] = max(sequence, raised.get(writer, -1))
    directory = store.paths.wal_dir(move.branch)
    present = {p[0] for p in FileNames(Folder(directory).names()).wals}
    absent = raised.keys() - present
    if store.attachment is not None:
        absent = store.attachment.gone_writers(store, move, absent, present)
    if absent:
        store.make_branch_dirs(move.branch)  # a copy may have left out what was empty
        Folder(directory).sync()
        for writer in absent:
            del raised[writer]
    return raised


def link_move(
    store: Store, move: Move, is_safe: IsSafe = lambda _: True, prepared: PreparedMove | None = None
) -> Head | None:
    """Link a move and make it durable; None if another move has that number, or not `is_safe`,
    which is called right before, with the move's file. That is `prepared`, which is durable by
    now, or is written here.

    The directory is synced before, too: the sync after the move before may have failed, and a power
    cut must not take that move and leave this one. If this process synced it, this costs nothing.
    """
    if move.number > 1:
        store.refs.sync(move.branch, move.prev)
    for _ in range(3):
        try:
            next_try, prepared = prepared, None  # what failed once is written again
            head = store.refs.link(move, is_safe, next_try)
            if head is None:
                return None
        except FileExistsError:
            return _read_back(store, move)
        except OSError as error:
            # These say that nothing was written, unless it was by an earlier attempt of this loop.
            if error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES):
                if store.refs.exists(move.branch, move.number):
                    return _read_back(store, move)
                raise
            # After any other error the link may be there or not: the same bytes are tried again.
            continue
        if move.number > 1 and not store.refs.exists(move.branch, move.number - 1):
            store.volume.remove(KEYS.move(move.branch, move.number))
            return None  # we slept: gc packed the move before ours, and the one of our number
        store.refs.sync(move.branch, head.digest)
        return head
    return _read_back(store, move)


def _read_back(store: Store, move: Move) -> Head | None:
    """Return the move of that number if it is this very one, after an error or a lost race; None if
    it is another. Raises OutcomeUnknown where it cannot be read."""
    try:
        linked = store.refs.read_head(move.branch, move.number)
    except (FileNotFoundError, OSError) as error:
        raise OutcomeUnknown(
            f"move {move.number} of {move.branch!r} may or may not have been made ({error}):"
            " see `lakelog log`"
        ) from error
    # All of it, as each attempt of one publish has the same commit.
    if linked.move != move:
        return None
    store.refs.sync(move.branch, linked.digest)
    return linked


def run_maintenance(store: Store, branch: str) -> None:
    """Merge pages that are too many, in a move of its own: no commit has to wait for it."""
    state = store.state(branch)
    if not page_tree.is_mergeable(state.pages):
        return

    def plan(_: Head, present: Manifest) -> Change | None:
        return (
            Change("maintain", merge_pages=True) if page_tree.is_mergeable(present.pages) else None
        )

    publish(store, branch, plan)


def _is_safe(store: Store, change: Change, move: Move, started_at: int, file: Begun) -> bool:
    """Whether the manifest of this publish is there and too young for gc (F9.3, step 6).

    So must be the segments and id runs that it adds, else this raises StaleFiles: a process may be
    stopped for days. Ages are by the clock of the volume, which stamped the file of the move.
    What a repair takes back may be old.
    """
    volume, half = store.volume, store.settings.gc_grace_hours * 1_800_000_000
    needed = change.added_keys()
    try:
        stamp = (
            volume.stamp_of(file)
            if move.carried
            else volume.stamp(KEYS.object("manifests", move.snapshot))
        )
    except FileNotFoundError:
        return False
    # With a grace of 0 no file would be young enough: then only presence is checked.
    checks_age = bool(half) and change.op != "repair"
    for key in needed:
        try:
            added_stamp = volume.stamp(key)
        except FileNotFoundError:
            location = volume.location(key)
            raise StaleFiles(f"{location}: gone before it was published; try again") from None
        if checks_age and stamp - added_stamp >= half * 1_000:
            location = volume.location(key)
            raise StaleFiles(f"{location}: too old to be published, gc may take it; try again")
    # The link follows at once, but this process may have slept since it read the head.
    return not checks_age or disk.now_us() - started_at < half
