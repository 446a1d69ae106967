"""Committing how far a subscription came, in one move with the events that its subscriber appends.

The move is made only if the branch only grew since the positions were read and each partition
still stands where this member took it from. So of two members that handled the same events one
commits, and one that slept while others took its partitions over commits nothing: the position is
the fencing token.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace

from lakelog import frame_rows
from lakelog.disk import disk
from lakelog.entries import Entry
from lakelog.errors import StaleFiles
from lakelog.event import EncodedBatch, Event
from lakelog.ingest import ChunkResult, Job
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.refs import Head, Refs, only_grew
from lakelog.subscriptions.branch_access import BranchAccess
from lakelog.subscriptions.delivery import Handled
from lakelog.subscriptions.position import Position
from lakelog.subscriptions.record import SubscriptionRecord, find
from lakelog.wal import Frame

OP = "subscription"
_ATTEMPTS = 20
"""Tries with outputs whose ids another publisher adds meanwhile."""


class PositionMoved(Exception):
    """The subscription does not stand where it was read: read it again, and handle from there."""


@dataclass(frozen=True)
class CommitRequest:
    """Partitions of a subscription that go from positions to others, and what was handled.

    `base` is where the branch was when the positions were read; `is_right` says of a later
    state whether what was handled still has to be.
    """

    record: SubscriptionRecord
    base: Head
    before: Mapping[int, Position]
    after: Mapping[int, Position]
    handled: Handled
    is_right: Callable[[Manifest], bool] = lambda state: True

    def holds(self, refs: Refs, head: Head, state: Manifest, present: SubscriptionRecord) -> bool:
        """Whether the branch is still where the positions were read."""
        # A rewind changes what numbers mean: what was handled may not be there any more.
        if not only_grew(refs, head, self.base):
            return False
        # One of that name that was removed and created again is another one.
        if present.id != self.record.id or not self.is_right(state):
            return False
        return present.stands_at(self.before)

    def entry(self, present: SubscriptionRecord) -> Entry:
        """The entry of the manifest after it."""
        moved = present.moved(self.after, self.handled.count, self.handled.dead)
        return replace(moved, appended=present.appended + len(self.handled.outputs)).entry()


def commit(access: BranchAccess, request: CommitRequest) -> Head:
    """Move the partitions and append what the subscriber wants to, all or nothing.

    Raises PositionMoved, InvalidEvent, OSError.
    """
    for _ in range(_ATTEMPTS):
        head = (
            _with_outputs(access, request) if request.handled.outputs else _plain(access, request)
        )
        if head is not None:
            return head
    raise PositionMoved


def _plain(access: BranchAccess, request: CommitRequest) -> Head | None:
    """Commit positions alone."""

    def plan(head: Head, state: Manifest) -> Change:
        present = _require(access, request, head, state)
        return Change(OP, present.name, (request.entry(present),))

    return publish(access.store, access.branch, plan)


def _with_outputs(access: BranchAccess, request: CommitRequest) -> Head | None:
    """Commit positions and outputs; None where those have to be compared with newer ids first."""
    with closing(Job(access.store, access.branch, access.connect).batch()) as batch:
        base = _require(access, request, batch.base, batch.state)
        # Positions of outputs go on from what was appended: they are the identities of its events.
        batch.take(_rows(access, base.origin, base.appended, request.handled.outputs))
        entries, ids = tuple(batch.write()), tuple(batch.id_run())

        def plan(head: Head, state: Manifest) -> Change | None:
            present = _require(access, request, head, state)
            # What others published meanwhile may have an id of ours: rows and ids are made anew.
            if batch.clashes(state) or base.appended != present.appended:
                return None
            message = batch.move_message(present.name)
            change = Change(OP, message, (*entries, request.entry(present)), ids_add=ids)
            return replace(change, is_right=batch.is_first)

        # This process slept, and garbage collection took what it had written.
        with contextlib.suppress(StaleFiles):
            return publish(access.store, access.branch, plan)
    return None


def _require(
    access: BranchAccess, request: CommitRequest, head: Head, state: Manifest
) -> SubscriptionRecord:
    """Return the record of a state to which a commit fits. Raises PositionMoved."""
    present = find(access.store, state, request.record.name)
    if present is None or not request.holds(access.store.refs, head, state, present):
        raise PositionMoved
    return present


def _rows(access: BranchAccess, origin: str, position: int, events: list[Event]) -> ChunkResult:
    """Return events as rows of an origin of their own."""
    encoded = EncodedBatch.of(events)
    flags = Frame.KEYED if encoded.keyed else 0
    place = len(events), flags, position, disk.now_us()
    frame = Frame.unwritten(origin, encoded.text, *place)
    table = frame_rows.events(access.connect, [frame]).drop_columns(["writer", "sequence"])
    return ChunkResult(table=table, lines=len(events))
