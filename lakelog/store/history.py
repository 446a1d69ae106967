"""History: naming states of the lake, comparing them, and going back.

A snapshot is a manifest as users see it. Rollback is one new move that names an old manifest; it
deletes nothing and can be undone.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lakelog.errors import (
    AlreadyExists,
    DamagedManifest,
    InUse,
    InvalidName,
    NothingToUndo,
    WouldDropEvents,
)
from lakelog.store import clock, disk
from lakelog.store.bootstrap import Store, start_branch
from lakelog.store.gc import require_kept
from lakelog.store.manifest import Entry, Manifest, Totals
from lakelog.store.paths import encode_name
from lakelog.store.publish import USER_OPS, Change, grow, link_move, publish
from lakelog.store.refs import Head, Move, Tag, author, in_unicode
from lakelog.store.resolve import moves, resolve
from lakelog.store.tail import Tail

SHORT = 12
Settle = Callable[[], Head]


@dataclass(frozen=True)
class Snapshot:
    """One state of the lake: `id` (64 hex digits), time (us), author, message, op, counts."""

    id: str
    time: int
    author: str
    op: str
    message: str
    events: int
    bytes: int
    segments: int
    quarantined: int
    parent: str

    @property
    def short(self) -> str:
        """The first 12 digits of the id, enough to name it."""
        return self.id[:SHORT]


@dataclass(frozen=True)
class LogEntry:
    """One move with the totals of the state it made; None where the manifest is gone."""

    move: Move
    tags: tuple[str, ...]
    events: int | None
    segments: int | None


@dataclass(frozen=True)
class Diff:
    """What separates snapshot `a` from `b`: segments only in one, event and type counts.

    Type counts are of the segments that differ; a type is None where a segment has too many.
    `behaviour` (query/behaviour.py) is worked out when it is first asked for.
    """

    a: Snapshot
    b: Snapshot
    added: tuple[Entry, ...]
    removed: tuple[Entry, ...]
    events: int
    types: dict[str, int] | None
    moves: tuple[Move, ...]
    look: Callable[[Diff], Any] | None = field(default=None, repr=False, compare=False)

    @functools.cached_property
    def behaviour(self) -> Any:
        """New and vanished types and fields, changed types, shifts by source: one scan of either
        side. None where nothing can look. Raises Damaged."""
        return None if self.look is None else self.look(self)


def describe(state: Manifest) -> Snapshot:
    """Return a manifest as a snapshot."""
    t = state.totals
    return Snapshot(
        state.digest,
        state.time,
        state.author,
        state.op,
        state.message,
        t.events,
        t.bytes,
        t.segments,
        t.quarantined,
        state.parent,
    )


def log(store: Store, branch: str, limit: int | None = None) -> list[LogEntry]:
    """Return moves, newest first, with what each left behind."""
    names: dict[str, list[str]] = {}
    for tag in store.refs.tags():
        names.setdefault(tag.snapshot, []).append(tag.name)
    entries: list[LogEntry] = []
    for move in moves(store, branch):
        if limit is not None and len(entries) >= limit:
            break
        events: int | None
        segments: int | None
        try:
            totals = _totals(store, move)
            events, segments = totals.events, totals.segments
        except DamagedManifest:
            events = segments = None
        entries.append(LogEntry(move, tuple(names.get(move.snapshot, ())), events, segments))
    return entries


def _totals(store: Store, move: Move) -> Totals:
    """The totals of the state that a move made; does not search other moves for one that is gone.
    Raises DamagedManifest."""
    path = store.paths.object("manifests", move.snapshot)
    if not move.carried and not disk.exists(path):
        raise DamagedManifest(path, "the manifest is missing")
    return store.manifests.load(move.snapshot).totals


def diff(store: Store, a: str, b: str, look: Callable[[Diff], Any] | None = None) -> Diff:
    """Compare two manifests by their segments."""
    left, right = store.manifests.load(a), store.manifests.load(b)
    old = {e["key"]: e for e in store.manifests.entries(left)}
    new = {e["key"]: e for e in store.manifests.entries(right)}
    added = tuple(e for k, e in new.items() if k not in old)
    removed = tuple(e for k, e in old.items() if k not in new)
    types: dict[str, int] | None = {}
    for sign, entries in ((1, added), (-1, removed)):
        for entry in (e for e in entries if e["kind"] == "events"):
            types = _add_types(types, entry["types"], sign)
    if types is not None:
        types = {name: n for name, n in sorted(types.items()) if n}
    events = right.totals.events - left.totals.events
    return Diff(describe(left), describe(right), added, removed, events, types, (), look)


def snapshot(store: Store, branch: str, settle: Settle, message: str) -> Snapshot:
    """Settle and make a move that records a message."""
    settle()
    head = publish(store, branch, lambda *_: Change("snapshot", message))
    assert head is not None
    return describe(store.manifests.load(head.move.snapshot))


def tag(store: Store, branch: str, settle: Settle, name: str, ref: str | None, message: str) -> Tag:
    """Name a snapshot for good; the branch, named or not, is settled first.

    Raises AlreadyExists, InvalidName, UnknownRef.
    """
    path = store.paths.tag(name)
    if disk.exists(path):
        raise AlreadyExists(f"tag {name!r} exists: choose another name, or delete it first")
    _refuse_taken(name, "branch", store.refs.branches())
    target = _settled(store, branch, settle, ref)
    require_kept(store, target, ref or name)
    made = Tag(
        name,
        target,
        disk.now_us(),
        author(),
        in_unicode(message),
        branch,
        disk.random_hex(),
        store.manifests.text_to_carry(target),
    )
    try:
        store.refs.link_tag(made)
    except FileExistsError:
        raise AlreadyExists(
            f"tag {name!r} exists: choose another name, or delete it first"
        ) from None
    return made


_SCHEMAS = ("omega", "information_schema", "pg_catalog")
"""Schemas that SQL has beside those of tags and branches."""


def _refuse_taken(name: str, kind: str, names: list[str]) -> None:
    """Refuse a name that a ref of the other kind has: SQL, diff and rollback could mean either.

    SQL does not tell capitals from small letters, so neither does this.
    """
    if name.lower() in _SCHEMAS:
        raise InvalidName(f"{name!r} cannot be a name: SQL has a schema of that name")
    for taken in names:
        if taken.lower() == name.lower():
            raise AlreadyExists(f"{kind} {taken!r} has that name: choose another for this one")


def delete_tag(store: Store, name: str) -> Tag:
    """Remove a tag; its snapshot stays while a move in the window names it."""
    gone = store.refs.tag(name)
    disk.unlink(store.paths.tag(name))
    disk.sync_dir(store.paths.tags)
    return gone


def make_branch(
    store: Store, branch: str, settle: Settle, name: str, ref: str | None, message: str
) -> Head:
    """Start a branch at a snapshot; cursors and ids come along, pending events do not.

    A deleted branch of that name starts again under the next number. Raises AlreadyExists.
    """
    encode_name(name)
    if name in store.refs.branches():
        raise AlreadyExists(f"branch {name!r} exists: choose another name")
    _refuse_taken(name, "tag", [tag.name for tag in store.refs.tags()])
    target = _settled(store, branch, settle, ref)
    require_kept(store, target, ref or name)
    store.manifests.load(target)
    if name in store.refs.all_branches() and store.refs.numbers(name):
        # What a killed process left in the WAL of the branch that ended is not the new one's.
        return _revive(store, name, target, message, _last_frames(store, name))
    try:
        start_branch(store, name, target, message)
    except FileExistsError:
        raise AlreadyExists(f"branch {name!r} exists: choose another name") from None
    head = store.refs.head(name)
    store.refs.note(head)  # so that it is missed if its only move is lost
    return head


def delete_branch(store: Store, name: str, settle: Settle) -> None:
    """End a branch by a move, so that its history stays readable. Raises InUse, UnknownRef."""
    store.refs.head(name)
    directory = store.paths.wal_dir(name)
    for file in disk.listing(directory):
        if disk.is_locked(f"{directory}/{file}"):
            raise InUse(f"branch {name!r} has an active writer: close it, then delete the branch")
    settle()
    deleted = publish(store, name, lambda now, _: Change("delete", snapshot=now.move.snapshot))
    assert deleted is not None
    # Who opened the branch before and wrote its first file since may not have seen that it ended.
    marks = deleted.move.wal
    if any(last > marks.get(writer, -1) for writer, last in _last_frames(store, name).items()):
        _revive(store, name, deleted.move.snapshot, "it was written to", {})
        raise InUse(f"branch {name!r} was written to just now: it stays; delete it again")


def rollback(store: Store, branch: str, settle: Settle, ref: str, cursors: bool = True) -> Head:
    """Make an old state the branch's newest, after checking that it can be opened.

    Everything pending is published first, so it stays in the log. With `cursors` false the
    positions of followed sources stay where they are. Raises UnknownRef, Damaged.
    """
    target = _settled(store, branch, settle, ref)
    check(store, target)
    settle()
    name = f"to {ref}" if ref != target else f"to {target[:SHORT]}"

    def plan(_: Head, now: Manifest) -> Change:
        require_kept(store, target, ref)
        snapshot = _with_formats(store, now, target, cursors)
        return Change("rollback", name, snapshot=snapshot, rewind=True)

    head = publish(store, branch, plan)
    assert head is not None
    return head


def _with_formats(store: Store, now: Manifest, target: str, cursors: bool = True) -> str:
    """Write the target's state with the present formats of files, for they say how to read what
    comes next, and unless `cursors` with the present ones; return its digest. It is the target
    itself if that has them."""
    state = store.manifests.load(target)
    there = {e["key"]: e for e in store.manifests.entries(now, "format")}
    then = {e["key"]: e for e in store.manifests.entries(state, "format")}
    changes = [{"del": "format", "key": key} for key in then.keys() - there.keys()]
    changes += [entry for key, entry in there.items() if then.get(key) != entry]
    changes += [] if cursors else store.manifests.entries(now, "cursor")
    if not changes:
        return target
    message = "with present cursors" if not cursors else "with present formats"
    change = Change("rollback", message, entries=tuple(changes))
    grown = grow(store, state, change, disk.random_hex(), disk.now_us())
    return store.manifests.write(grown).digest  # a file: the move names it as any other target


def undo(store: Store, branch: str, settle: Settle, force: bool, to_branch: str | None) -> Head:
    """Go to the state before the last move a user made.

    Raises NothingToUndo, and WouldDropEvents if events came after it and neither `force` nor
    `to_branch` says what to do with them.
    """
    kept: Head | None = None
    while True:
        last, before = _last_user_move(store, branch)
        require_kept(store, before.snapshot, f"the state before the {last.op}")
        check(store, before.snapshot)
        head = settle()
        seen = store.manifests.load(head.move.snapshot).next_seq
        later = max(seen - store.manifests.load(last.snapshot).next_seq, 0)
        if later and not force and to_branch is None:
            raise WouldDropEvents(
                f"{later} events came after the {last.op} and would be dropped from {branch!r}:"
                " undo --force drops them (the log still has them), --to-branch NAME keeps them on"
                " a new branch",
                later,
            )
        if to_branch is not None:
            kept = _keep(store, to_branch, head, kept, f"kept by undo of {last.op}")
        only = None if force and to_branch is None else seen
        done = publish(store, branch, lambda _, now: _step_back(store, last, before, now, only))  # noqa: B023
        if done is not None:
            return done


def _keep(store: Store, name: str, head: Head, kept: Head | None, message: str) -> Head:
    """Make a branch at a head, or move the one made a moment ago there."""
    snapshot = head.move.snapshot
    if kept is None:
        return make_branch(store, head.move.branch, lambda: head, name, None, message)
    if kept.move.snapshot != snapshot:
        publish(store, name, lambda *_: Change("branch", message, snapshot=snapshot))
    return store.refs.head(name)


def _step_back(
    store: Store, last: Move, before: Move, now: Manifest, only: int | None
) -> Change | None:
    """Return the undo, or None if events were published that nobody was asked about, or another
    user moved the branch meanwhile."""
    if only is not None and now.next_seq != only:
        return None
    if _last_user_move(store, last.branch)[0].number != last.number:
        return None
    message = f"of {last.op} {last.message}".strip()
    snapshot = _with_formats(store, now, before.snapshot)
    return Change("undo", message, snapshot=snapshot, rewind=True)


def check(store: Store, digest: str) -> Manifest:
    """Make sure a manifest opens and its pages are there in full length."""
    state = store.manifests.load(digest)
    if not store.manifests.is_there(digest):
        path = store.paths.object("manifests", digest)
        raise DamagedManifest(path, "the manifest is missing")
    for page in state.pages:
        name = store.paths.object("manifests", page.digest)
        try:
            size = os.stat(name).st_size
        except FileNotFoundError:
            raise DamagedManifest(name, "the page is missing") from None
        if size != page.bytes:
            raise DamagedManifest(name, f"the page has {size} bytes instead of {page.bytes}")
    return state


def _settled(store: Store, branch: str, settle: Settle, ref: str | None) -> str:
    """Return the snapshot of `ref`, or of the branch with all that was pending."""
    if ref is None:
        return settle().move.snapshot
    if ref == branch:
        settle()
    return resolve(store, branch, ref)


def _last_frames(store: Store, branch: str) -> dict[str, int]:
    """The last sequence that is in a branch's WAL files, by writer."""
    files = Tail(store.paths, store.refs, branch).scan()
    last = {writer: max(file.last for file in group) for writer, group in files.items()}
    return {writer: sequence for writer, sequence in last.items() if sequence >= 0}


def _revive(store: Store, name: str, target: str, message: str, watermarks: dict[str, int]) -> Head:
    """Append the next move to a deleted branch; frames up to `watermarks` are not in it."""
    number = store.refs.head_number(name)
    old = store.refs.read_head(name, number)
    now = clock.following(old.move.time, disk.now_us())
    made = Move(
        number + 1,
        name,
        old.digest,
        disk.random_hex(),
        now,
        author(),
        "branch",
        in_unicode(message),
        target,
        old.move.generation + 1,
        {**old.move.wal, **watermarks},
        carried=store.manifests.text_to_carry(target),
    )
    head = link_move(store, made)
    if head is None:
        raise AlreadyExists(f"branch {name!r} exists: choose another name")
    store.refs.note(head)
    return head


def _last_user_move(store: Store, branch: str) -> tuple[Move, Move]:
    """Return the newest move a user made and the move before it."""
    found: Move | None = None
    for move in moves(store, branch):
        if found is not None and move.snapshot:
            return found, move
        if found is None and move.op in USER_OPS:
            found = move
    raise NothingToUndo(f"nothing to undo on {branch!r}: no rollback, snapshot or other user move")


def _add_types(
    types: dict[str, int] | None, more: dict[str, int] | str, sign: int
) -> dict[str, int] | None:
    if types is None or isinstance(more, str):
        return None
    for name, count in more.items():
        types[name] = types.get(name, 0) + sign * count
    return types
