"""History: naming states of the lake, and going back.

A rollback is one new move that names an old manifest; it deletes nothing and can be undone (F9.8).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from lakelog.appends import StreamLock
from lakelog.disk import File, disk
from lakelog.entries import Entry
from lakelog.errors import (
    AlreadyExists,
    Damaged,
    DamagedManifest,
    InvalidName,
    NothingToUndo,
    Unreachable,
    WouldDropEvents,
)
from lakelog.history.deletion import Settle, last_frames, revive
from lakelog.history.resolving import moves, resolve
from lakelog.history.snapshot import HistoryEntry, Snapshot
from lakelog.history.window import kept_moves, require_kept
from lakelog.manifest import Manifest, Totals
from lakelog.moves import USER_OPS, Change, Follow, SettleWith, grow, publish, with_reason
from lakelog.paths import encode_name
from lakelog.refs import Head, Move, Tag, author, escape_text
from lakelog.store import Policy, Store

CarryOut = Callable[[Move, Move, int | None], Head | None]
"""Makes an undo: the move to undo, the one before, and next_seq unless later events may go."""
_SCHEMAS = ("omega", "information_schema", "pg_catalog")
"""Schemas of SQL besides those of tags and branches."""


def _refuse_taken(
    name: str, ref_type: str, names: list[str], is_alive: Callable[[str], bool] = bool
) -> None:
    """Refuse a name that a ref of the other kind has: SQL, diff and rollback could mean either.

    SQL ignores case, so this does too. To ask of each whether it is alive takes long.
    """
    if name.lower() in _SCHEMAS:
        raise InvalidName(f"{name!r} cannot be a name: SQL has a schema of that name")
    twins = filter(lambda ref_name: ref_name.lower() == name.lower(), names)
    for twin in filter(is_alive, twins):
        raise AlreadyExists(f"{ref_type} {twin!r} has that name: choose another for this one")


class BranchHistory:
    """The history of one branch; `settle` publishes what is pending on it and returns its head."""

    def __init__(self, store: Store, branch: str, settle: Settle) -> None:
        self._store, self.branch, self._settle = store, branch, settle

    def log(self, limit: int | None = None) -> list[HistoryEntry]:
        """Return moves, newest first, with the counts of the state that each made."""
        names: dict[str, list[str]] = {}
        for tag in self._store.refs.tags():
            names.setdefault(tag.snapshot, []).append(tag.name)
        entries: list[HistoryEntry] = []

        newest_first = self._store.refs.newest_first
        in_window: Callable[[], set[int]] = functools.cache(
            lambda: {m.number for m in kept_moves(self._store, newest_first(self.branch))}
        )
        for move in moves(self._store, self.branch):
            if limit is not None and len(entries) >= limit:
                break
            counts: tuple[int, int] | tuple[None, None] = (None, None)
            # History is thinned: that a state is gone does not keep its move from being listed
            # (F10.1).
            try:
                totals = self._totals(move, in_window)
                counts = totals.events, totals.segments
            except Damaged:
                pass
            except Unreachable:
                in_window = set[int]  # each further request would take as long
            entries.append(HistoryEntry(move, tuple(names.get(move.snapshot, ())), *counts))
        return entries

    def _totals(self, move: Move, in_window: Callable[[], set[int]]) -> Totals:
        """The totals of the state that a move made. Does not search other moves for it, which would
        read all of them for each line of a log. Raises DamagedManifest, Unreachable."""
        manifests, is_here = self._store.manifests, bool(move.carried)
        is_here = is_here or manifests.has_file(move.snapshot)
        if not is_here and self._store.attachment is not None:
            # A bucket is asked for those alone that are kept, as each takes a request.
            is_here = move.number in in_window() and manifests.obtain(move.snapshot)
        if not is_here:
            path = self._store.paths.object("manifests", move.snapshot)
            raise DamagedManifest(path, "the manifest is missing")
        return self._store.manifests.of(move).totals

    def snapshot(self, message: str) -> Snapshot:
        """Settle and make a move that records a message."""
        self._settle()
        head = publish(self._store, self.branch, lambda *_: Change("snapshot", message))
        assert head is not None
        return Snapshot.of(self._store.manifests.of(head.move))

    def tag(self, name: str, ref: str | None, message: str) -> Tag:
        """Name a snapshot for good; the branch, named or not, is settled first.

        Raises AlreadyExists, InvalidName, UnknownRef.
        """
        path = self._store.paths.tag(name)
        refusal = AlreadyExists(f"tag {name!r} exists: choose another name, or delete it first")
        # Before settling, which may take a while; the link below decides.
        if File(path).exists():
            raise refusal
        _refuse_taken(name, "branch", self._store.refs.all_branches(), self._store.refs.is_alive)
        target = self.settle_ref(ref)
        # gc reads the tags again before it deletes, so a state that is kept now stays once it is
        # tagged.
        require_kept(self._store, target, ref or name)
        new = Tag(
            name,
            target,
            disk.now_us(),
            author(),
            escape_text(message),
            self.branch,
            disk.random_hex(),
            self._store.manifests.text_to_carry(target),
        )
        try:
            self._store.refs.link_tag(new)
        except FileExistsError:
            raise refusal from None
        return new

    def make_branch(self, name: str, ref: str | None, message: str) -> Head:
        """Start a branch at a snapshot, with its cursors and ids, without pending events.

        A deleted branch of that name continues with the next number. Raises AlreadyExists.
        """
        encode_name(name)  # raises InvalidName
        if self._store.refs.is_alive(name):
            raise AlreadyExists(f"branch {name!r} exists: choose another name")
        _refuse_taken(name, "tag", self._store.refs.tag_names())
        target = self.settle_ref(ref)
        require_kept(self._store, target, ref or name)
        # A branch on a state that does not open could not be used.
        self._store.manifests.load(target)
        if name in self._store.refs.all_branches() and self._store.refs.numbers(name):
            # Frames that a killed process left in the WAL belong to the branch that was deleted
            # (F7.6).
            return revive(self._store, name, target, message, last_frames(self._store, name))
        try:
            self._store.start_branch(name, target, message)
        except FileExistsError:
            raise AlreadyExists(f"branch {name!r} exists: choose another name") from None
        head = self._store.refs.head(name)
        self._store.refs.note(head)  # with a hint, the loss of its only move is noticed (F11.3)
        return head

    def rollback(
        self, settle: SettleWith, ref: str, cursors: bool, why: str, name: str = ""
    ) -> Head:
        """Make an old state the branch's newest, after checking that it can be opened.

        What is pending is published first, by `settle`, so it stays in the log. Without `cursors`
        followed sources keep their positions. The log calls the state `name`, or `ref`. Raises
        UnknownRef, Damaged.
        """
        Policy.require(self._store.paths, "rollback")
        target = self.settle_ref(ref)
        # Before anything changes: a branch on a state that does not open would be of no use.
        self.check(self._store, target)
        message = with_reason(
            f"to {name or (ref if ref != target else target[: Snapshot.SHORT])}", why
        )

        def plan(_: Head, now: Manifest) -> Change:
            # For each attempt: gc may have condemned it while another process moved the branch.
            require_kept(self._store, target, ref)
            return self.rewind(self._store, now, target, "rollback", message, cursors)

        # Watermarks stay as they are, so pending frames would be sealed on top of the old state. No
        # version may be given between the two, on a state that the branch is about to leave.
        with StreamLock(self._store, self.branch).held():
            settle(follow=(both := Follow(plan)))
            head = both.head or publish(self._store, self.branch, plan)
        assert head is not None
        return head

    @classmethod
    def rewind(
        cls, store: Store, state: Manifest, target: str, op: str, message: str, cursors: bool = True
    ) -> Change:
        """Return the change that goes back to a state; writes a new state where it needs one."""
        snapshot = cls._apply_formats(store, state, target, cursors)
        return Change(op, message, snapshot=snapshot, rewind=True)

    @staticmethod
    def _apply_formats(
        store: Store, present_state: Manifest, target: str, cursors: bool = True
    ) -> str:
        """Return the digest of the target with the present formats, which say how files are read
        from now on, and unless `cursors` with the present cursors. It is the target itself if that
        has them; otherwise a new state is written."""
        state = store.manifests.load(target)
        present = {e.key: e for e in store.manifests.records(present_state, "format")}
        former = {e.key: e for e in store.manifests.records(state, "format")}
        removals = (entry for key, entry in former.items() if key not in present)
        changes: list[Entry] = [entry.tombstone() for entry in removals]
        changes += [entry for key, entry in present.items() if former.get(key) != entry]
        for entry_type in () if cursors else ("cursor", "stream"):
            changes += store.manifests.records(present_state, entry_type)
        if not changes:
            return target
        message = "with present cursors" if not cursors else "with present formats"
        change = Change("rollback", message, entries=tuple(changes))
        successor = grow(store, state, change, disk.random_hex(), disk.now_us())
        # In a file of its own, whatever its size: the move names it as it does any other target
        # (F6.16).
        return store.manifests.write(successor).digest

    def undo(
        self, force: bool, to_branch: str | None, why: str = "", carry_out: CarryOut | None = None
    ) -> Head:
        """Go to the state before the last move a user made; `carry_out` does so in another way.

        Raises NothingToUndo, and WouldDropEvents if events came after it and neither `force` nor
        `to_branch` says what to do with them.
        """
        Policy.require(self._store.paths, "undo")

        def step(undone: Move, previous: Move, only: int | None) -> Head | None:
            return publish(
                self._store,
                self.branch,
                lambda _, now: self._step_back(undone, previous, now, only, why),
            )

        rescued: Head | None = None
        while True:
            with StreamLock(self._store, self.branch).held():  # as in a rollback
                undone, previous = self.last_user_move()
                # All that can fail comes first, then the question what to do with later events:
                # nobody is asked about an undo that cannot be done.
                self.require_previous(undone, previous)
                self.check(self._store, previous.snapshot)
                # Pending events count as later ones, and only a published state can be put on a
                # branch.
                head = self._settle()
                next_seq = self._store.manifests.of(head.move).next_seq
                later = self.later_events(undone, head)
                if later and not force and to_branch is None:
                    raise WouldDropEvents(
                        f"{later} event{'s' * (later != 1)} came after the {undone.op} and would be"
                        f" dropped from {self.branch!r}: undo --force drops them (the log still has"
                        " them), --to-branch NAME keeps them on a new branch",
                        later,
                    )
                if to_branch is not None:
                    rescued = self._rescue(to_branch, head, rescued, f"kept by undo of {undone.op}")
                # What is published from here on was neither counted nor put on the branch: then the
                # move is not made, and all of this is done again.
                only = None if force and to_branch is None else next_seq
                moved = (carry_out or step)(undone, previous, only)
                if moved is not None:
                    return moved

    def require_previous(self, undone: Move, previous: Move) -> None:
        """Refuse to undo a move if gc has let go of the state before. Raises UnknownRef."""
        require_kept(self._store, previous.snapshot, f"the state before the {undone.op}")

    def later_events(self, undone: Move, head: Head) -> int:
        """Return how many events came after a move, up to a head."""
        manifests = self._store.manifests
        return max(manifests.of(head.move).next_seq - manifests.of(undone).next_seq, 0)

    def _rescue(self, name: str, head: Head, rescued: Head | None, message: str) -> Head:
        """Create a branch at a head, or move the one of the attempt before there."""
        snapshot = head.move.snapshot
        if rescued is None:
            return BranchHistory(self._store, self.branch, lambda **_: head).make_branch(
                name, None, message
            )
        if rescued.move.snapshot != snapshot:
            publish(self._store, name, lambda *_: Change("branch", message, snapshot=snapshot))
        return self._store.refs.head(name)

    def _step_back(
        self, undone: Move, previous: Move, state: Manifest, only: int | None, why: str
    ) -> Change | None:
        """Return the undo, or None if more events were published than the user was told of, or
        another user moved the branch meanwhile."""
        if only is not None and state.next_seq != only:
            return None
        if self.last_user_move()[0].number != undone.number:
            return None
        return self.rewind(
            self._store, state, previous.snapshot, "undo", self.undo_message(undone, why)
        )

    @staticmethod
    def undo_message(undone: Move, why: str) -> str:
        """Return the message of the undo of a move."""
        return with_reason(f"of {undone.op} {undone.message}".strip(), why)

    @staticmethod
    def check(store: Store, digest: str) -> Manifest:
        """Return a manifest after checking that its pages are there in full length; their content
        and the segments are for `verify`. Raises DamagedManifest."""
        state = store.manifests.load(digest)
        # `load` may have it in memory.
        if not store.manifests.is_there(digest):
            path = store.paths.object("manifests", digest)
            raise DamagedManifest(path, "the manifest is missing")
        paths = {page.digest: store.paths.object("manifests", page.digest) for page in state.pages}
        # Those that only the bucket of a shared lake has, together.
        store.verified.obtain(list(paths.items()))
        for page in state.pages:
            name = paths[page.digest]
            try:
                size = os.stat(name).st_size
            except FileNotFoundError:
                raise DamagedManifest(name, "the page is missing") from None
            if size != page.bytes:
                raise DamagedManifest(name, f"the page has {size} bytes instead of {page.bytes}")
        return state

    def settle_ref(self, ref: str | None) -> str:
        """Return the snapshot of `ref`, or of the branch, with all that was pending."""
        # Of another ref before anything is published: that would be one more step for `main~1`.
        if ref is None:
            return self._settle().move.snapshot
        if ref == self.branch:
            self._settle()
        return resolve(self._store, self.branch, ref)

    def last_user_move(self) -> tuple[Move, Move]:
        """Return the newest move a user made and the move before it."""
        latest: Move | None = None
        for move in moves(self._store, self.branch):
            if latest is not None and move.snapshot:  # a damaged move has none
                return latest, move
            if latest is None and move.op in USER_OPS:
                latest = move
        raise NothingToUndo(
            f"nothing to undo on {self.branch!r}: no rollback, snapshot or other user move"
        )
