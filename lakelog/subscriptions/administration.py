"""The subscriptions of a branch, as a person looks after them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson

from lakelog import arrays, sql
from lakelog.disk import disk
from lakelog.entries import Removal
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
    as_events,
)
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
    """Let a subscription begin again at a place; members that run go on from there.

    Raises SubscriptionGone, InvalidSetting.
    """
    # The end is a number, which what is pending does not have yet.
    if start == "end":
        access.settle()
    # Refused before the branch is moved.
    registry.start_position(start, access.state(access.head()))

    def plan(_: Head, state: Manifest) -> Change:
        record = registry.require(access, state, name)
        places = dict.fromkeys(range(PARTITIONS), registry.start_position(start, state))
        return Change(registry.OP, f"reset {name}", entries=(record.moved(places, 0, 0).entry(),))

    publish(access.store, access.branch, plan)
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
    head, letters = _unsettled(access, name)
    state, store = access.state(head), access.store
    # Of earlier builds a letter holds the event itself.
    events = {seq: data["event"] for seq, data in letters.items() if "event" in data}
    seqs = {(d["origin"], d["position"]): seq for seq, d in letters.items() if "event" not in d}
    if seqs:
        places = ", ".join(f"({sql.literal(origin)}, {number})" for origin, number in seqs)
        condition = f"(origin, position) IN ({places})"
        found = catch_up.read(store, access.connect, state, condition, Position(0), len(seqs))
        for event in chain.from_iterable(arrays.records(part.events) for part in found):
            events[seqs[event["origin"], event["position"]]] = event
    return [
        DeadEvent(seq, data["attempts"], data["error"], events[seq])
        for seq, data in letters.items()
        if seq in events
    ]


def _unsettled(access: BranchAccess, name: str) -> tuple[Head, dict[int, JsonObject]]:
    """The dead letters of a subscription that were not handled since, by their numbers, and the
    head at which it is so."""
    head = access.settle()
    state = access.state(head)
    registry.require(access, state, name)
    letters: dict[int, JsonObject] = {}
    # Segments that count their types say at once that they have no letters.
    entries = [
        entry
        for entry in access.store.manifests.segments(state, "events")
        if not isinstance(entry.types, dict) or {DEAD_LETTER, SETTLED} & entry.types.keys()
    ]
    if not entries:
        return head, letters
    access.store.verified.require(entries)
    query = f"""SELECT seq, type, data FROM ({rows_sql(access.store.paths, entries)})
        WHERE source = '{BookkeepingEvent.SOURCE}' AND type IN ('{DEAD_LETTER}', '{SETTLED}')
        AND coalesce(data->>'subscription', subject) = {sql.literal(name)} ORDER BY seq"""
    with closing(access.connect().cursor()) as cursor:
        for seq, event_type, payload in cursor.execute(query).fetchall():
            data = orjson.loads(payload)
            if event_type == SETTLED:
                # In the order of the log: what was settled came before.
                letters.pop(data["letter"], None)
            else:
                letters[seq] = data
    return head, letters


def retry(
    access: BranchAccess, name: str, handler: EventHandler, say: Any = lambda message: None
) -> tuple[int, int]:
    """Call a handler with each dead letter; return how many it handled, and how many are left.

    What it returns is appended with the note that the letter is settled. Raises SubscriptionGone.
    """
    letters, settled = dead_letters(access, name), 0
    # A handler may take long, so that others may have handled the letter meanwhile.
    for letter in letters:
        try:
            outputs = as_events(handler(letter.event))
        # Whatever a handler raises is its own.
        except Exception as error:
            say(f"{name}: event {letter.event.get('seq')} failed again: {error}")
            continue
        settled += _settle(access, name, letter, outputs)
    return settled, len(letters) - settled


def _settle(access: BranchAccess, name: str, letter: DeadEvent, outputs: Sequence[Event]) -> bool:
    """Append that a letter was handled, once however many retry at a time."""
    while True:
        head = access.head()
        record = registry.require(access, access.state(head), name)
        # Looked up again for each head: of two that retry at a time one finds it settled.
        if letter.seq not in _unsettled(access, name)[1]:
            return False
        note = BookkeepingEvent.of(SETTLED, name, data={"letter": letter.seq})
        handled = Handled(0, -1, [*outputs, note])
        try:
            commit(
                access, CommitRequest(record, head.move.generation, {}, {}, handled, is_alone=True)
            )
        except PositionMoved:
            continue
        return True
