"""The subscriptions of a branch, as a person looks after them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson

from lakelog import arrays, sql
from lakelog.disk import disk
from lakelog.entries import Removal, SegmentEntry
from lakelog.event import BookkeepingEvent, Event
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.refs import Head
from lakelog.segments import rows_sql
from lakelog.subscriptions import catch_up, registry
from lakelog.subscriptions.branch_access import BranchAccess
from lakelog.subscriptions.commit import CommitRequest, PositionMoved, commit
from lakelog.subscriptions.delivery import (
    DEAD_LETTER,
    SETTLED,
    EventHandler,
    Handled,
    ReadEvent,
    outputs_of,
)
from lakelog.subscriptions.group_runner import COMMIT_EVERY
from lakelog.subscriptions.position import PARTITIONS, Position
from lakelog.subscriptions.record import WHAT, SubscriptionRecord, of_state
from lakelog.values import JsonObject


@dataclass(frozen=True)
class SubscriptionStatus:
    """How far a subscription is behind its branch: events that came since, of which its condition
    may leave some out, and seconds since the first of them came."""

    name: str
    condition: str | None
    position: int
    events_behind: int
    seconds_behind: float
    handled: int
    appended: int
    dead: int
    created: int


@dataclass(frozen=True)
class DeadEvent:
    """An event that a subscriber gave up: its number in the dead letters, and what it raised."""

    seq: int
    attempts: int
    error: str
    event: ReadEvent


def listed(access: BranchAccess) -> list[SubscriptionStatus]:
    """Return the subscriptions of a branch by name, live events counted. Raises Damaged."""
    pending = access.pending()
    state = access.state(pending.head)
    ages: dict[int, int] = {}
    statuses = []
    for record in of_state(access.store, state).values():
        numbers = record.numbers
        # From where partitions stand on average, as events of all are mixed.
        backlog = pending.events + state.next_seq - -(-sum(numbers) // len(numbers))
        # Several subscriptions often stand at one place: it is looked up once.
        if backlog and record.lowest not in ages:
            arrivals = [f.ingested_at for fs in pending.frames.values() for f in fs]
            ages[record.lowest] = _oldest(access, state, record.lowest, arrivals)
        age = max(0.0, (disk.now_us() - ages[record.lowest]) / 1e6) if backlog else 0.0
        counts = record.handled, record.appended, record.dead, record.created
        statuses.append(
            SubscriptionStatus(record.name, record.condition, record.lowest, backlog, age, *counts)
        )
    return sorted(statuses, key=lambda status: status.name)


def _oldest(access: BranchAccess, state: Manifest, seq: int, arrivals: list[int]) -> int:
    """Return when the first event from a number on arrived, in us."""
    entries = [e for e in access.store.manifests.segments(state, "events") if e.seq[1] >= seq]
    if entries:
        # Of the segments that hold the first: what follows came later.
        entries = [e for e in entries if e.seq[0] <= max(seq, min(e.seq[0] for e in entries))]
        access.store.verified.require(entries)
        rows = rows_sql(access.store.paths, entries)
        query = f"SELECT epoch_us(min(ingested_at)) FROM ({rows}) WHERE seq >= {seq}"
        with closing(access.connect().cursor()) as cursor:
            arrivals += [
                value for (value,) in cursor.execute(query).fetchall() if value is not None
            ]
    return min(arrivals, default=disk.now_us())


def reset(access: BranchAccess, name: str, start: str = "beginning") -> SubscriptionRecord:
    """Let a subscription begin again at a place; members that run go on from there. Dead letters of
    events that come again are settled.

    Raises SubscriptionGone, InvalidSetting.
    """
    # The end is a number, which what is pending does not have yet.
    if start == "end":
        access.settle()
    while True:
        head, letters = _dead_events(access, name)
        place = registry.start_position(start, access.state(head))
        # Of events that come again.
        outputs: dict[int, list[Event]] = {
            letter.seq: [] for letter in letters if letter.event.get("seq", -1) >= place.seq
        }
        after = dict.fromkeys(range(PARTITIONS), place)
        with contextlib.suppress(PositionMoved):
            _commit_settled(access, name, head, outputs, after, DEAD_LETTER, SETTLED)
            return registry.require(access, access.state(access.head()), name)


def remove(access: BranchAccess, name: str) -> None:
    """Remove a subscription; members that run end with SubscriptionGone, which this raises, too."""

    def plan(_: Head, state: Manifest) -> Change:
        registry.require(access, state, name)
        return Change(registry.OP, f"remove {name}", entries=(Removal(WHAT, name),))

    publish(access.store, access.branch, plan)


def dead_letters(access: BranchAccess, name: str) -> list[DeadEvent]:
    """Return the events that subscribers gave up and that were not handled since, of those that are
    still in the branch.

    Raises SubscriptionGone, Damaged, InvalidKey.
    """
    return _dead_events(access, name)[1]


def _dead_events(access: BranchAccess, name: str) -> tuple[Head, list[DeadEvent]]:
    """The same, and the head at which it is so."""
    head, letters = _unsettled(access, name)
    state, store = access.state(head), access.store
    # Of earlier builds a letter holds the event itself.
    events = {seq: data["event"] for seq, data in letters.items() if "event" in data}
    seqs = {(d["origin"], d["position"]): seq for seq, d in letters.items() if "event" not in d}
    if seqs:
        # The engine joins them: it takes a long time to read a list of thousands.
        record = registry.require(access, state, name)
        rows = _letters_sql(access, record, _noting(access, state, DEAD_LETTER))
        condition = f"""(origin, position) IN (
            SELECT data->>'origin', (data->>'position')::BIGINT FROM ({rows}))"""
        found = catch_up.read(store, access.connect, state, condition, Position(0), len(seqs))
        for event in chain.from_iterable(arrays.records(part.events) for part in found):
            # Those of letters that are settled are found, too.
            if (seq := seqs.get((event["origin"], event["position"]))) is not None:
                events[seq] = event
    return head, [
        DeadEvent(seq, data["attempts"], data["error"], events[seq])
        for seq, data in letters.items()
        if seq in events
    ]


def _unsettled(access: BranchAccess, name: str) -> tuple[Head, dict[int, JsonObject]]:
    """The dead letters of a subscription that were not handled since, by their numbers, and the
    head at which it is so."""
    head = access.settle()
    state = access.state(head)
    record = registry.require(access, state, name)
    letters: dict[int, JsonObject] = {}
    entries = _noting(access, state, DEAD_LETTER, SETTLED)
    if not entries:
        return head, letters
    access.store.verified.require(entries)
    query = f"{_letters_sql(access, record, entries)} ORDER BY seq"
    with closing(access.connect().cursor()) as cursor:
        for seq, event_type, payload in cursor.execute(query).fetchall():
            data = orjson.loads(payload)
            if event_type == SETTLED:
                # In the order of the log: what was settled came before.
                letters.pop(data["letter"], None)
            else:
                letters[seq] = data
    return head, letters


def _noting(access: BranchAccess, state: Manifest, *types: str) -> list[SegmentEntry]:
    """The segments that may hold events of some types."""
    # Segments that count their types say at once that they have none.
    return [
        entry
        for entry in access.store.manifests.segments(state, "events")
        if not isinstance(entry.types, dict) or entry.types.keys() & set(types)
    ]


def _letters_sql(
    access: BranchAccess, record: SubscriptionRecord, entries: Sequence[SegmentEntry]
) -> str:
    """SQL for the dead letters of a subscription, and for the notes that they are settled."""
    # Not by name: one of that name that was removed had letters of its own.
    return f"""SELECT seq, type, data FROM ({rows_sql(access.store.paths, entries)})
        WHERE source = '{BookkeepingEvent.SOURCE}' AND type IN ('{DEAD_LETTER}', '{SETTLED}')
        AND origin = {sql.literal(record.origin)}"""


def retry(
    access: BranchAccess, name: str, handler: EventHandler, say: Any = lambda message: None
) -> tuple[int, int]:
    """Call a handler with each dead letter; return how many it handled, and how many are left.

    What it returns is appended with the note that the letter is settled, about once a second.
    Raises SubscriptionGone.
    """
    letters, settled = dead_letters(access, name), 0
    outputs, settled_at = dict[int, list[Event]](), time.monotonic()
    try:
        for letter in letters:
            try:
                outputs[letter.seq] = outputs_of(handler(letter.event))
            # Whatever a handler raises is its own.
            except Exception as error:
                say(f"{name}: event {letter.event.get('seq')} failed again: {error}")
            if outputs and time.monotonic() - settled_at >= COMMIT_EVERY:
                settled += _settle(access, name, outputs)
                outputs, settled_at = {}, time.monotonic()
    finally:
        # Also where the handler was interrupted: what it has done must not be done again.
        settled += _settle(access, name, outputs)
    return settled, len(letters) - settled


def _settle(access: BranchAccess, name: str, outputs: Mapping[int, list[Event]]) -> int:
    """Append that letters were handled, each once however many retry at a time; return of how many
    it was this call."""
    while outputs:
        # Looked up for each head: a handler may take long, so that others settle letters meanwhile.
        head, unsettled = _unsettled(access, name)
        remaining = {seq: events for seq, events in outputs.items() if seq in unsettled}
        if not remaining:
            break
        with contextlib.suppress(PositionMoved):
            _commit_settled(access, name, head, remaining, {}, SETTLED)
            return len(remaining)
    return 0


def _commit_settled(
    access: BranchAccess,
    name: str,
    head: Head,
    outputs: Mapping[int, list[Event]],
    after: Mapping[int, Position],
    *fences: str,
) -> None:
    """Settle letters that are left at a head, by their numbers, with what is appended for each, in
    the move that takes partitions to other positions.

    Raises PositionMoved where events of types `fences` may have come since.
    """
    state = access.state(head)
    noting = {entry.key for entry in _noting(access, state, *fences)}
    notes = [BookkeepingEvent.of(SETTLED, name, data={"letter": seq}) for seq in outputs]
    results = Handled(0, -len(notes), [*chain.from_iterable(outputs.values()), *notes])

    def is_right(later: Manifest) -> bool:
        return all(entry.key in noting for entry in _noting(access, later, *fences))

    record = registry.require(access, state, name)
    commit(access, CommitRequest(record, head, {}, after, results, is_right))
