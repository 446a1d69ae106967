"""Where alerts stand: pending, firing or resolved, as the events of the lake say it.

Each change is an event of type `lakelog.alert`, and each attempt to tell a receiver one of type
`lakelog.alert.delivery`. A change names the receivers that shall know of it, so it is the intent of
each delivery; what was delivered is an event after that. Changes are numbered: whoever appends one
is alone and has read all before it, so the numbers hold however the clock jumped.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import orjson

from lakelog import arrays, history
from lakelog.alerts.question import ALERT, DELIVERY
from lakelog.disk import File
from lakelog.entries import SegmentEntry
from lakelog.erased import copies
from lakelog.errors import LakelogError
from lakelog.event import BookkeepingEvent, Event
from lakelog.lake import Lake
from lakelog.refs import Head, Move, only_grew
from lakelog.sql import literal
from lakelog.subscriptions import Follower
from lakelog.values import JsonObject, from_micros, to_micros

PENDING, FIRING, RESOLVED = STATES = ("pending", "firing", "resolved")
DELIVERED, FAILED, GIVEN_UP = ("delivered", "failed", "given up")
OWN = f"source = '{BookkeepingEvent.SOURCE}' AND type IN ('{ALERT}', '{DELIVERY}')"
"""SQL for the events of alerts."""
# More than there can be: all of them.
_ALL = 2**31
_REWINDS = ("rollback", "undo")
_NUMBER_MAX = 1 << 53
"""More changes than there ever are, in what every reader of JSON takes for a whole number."""
_EARLIER_MAX = 20
"""States that rollbacks left whose events of alerts are read."""


@dataclass(frozen=True)
class Alert:
    """An alert that is pending or firing since a time (us). `change` is the id of the change that
    made it so, `receivers` are the sinks that shall know that it fires, by their ids, each with the
    id of the change that says so."""

    rule: str
    labels: Mapping[str, str]
    state: str
    since: int
    change: str
    value: float | None = None
    silence: str = ""
    receivers: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """What is equal for alerts of one rule with the same labels."""
        return fingerprint(self.rule, self.labels)


@dataclass(frozen=True)
class PendingDelivery:
    """A change that a sink does not know yet: its document, how often it was tried in vain, and
    the time (us) of the next attempt."""

    change: str
    sink: str
    number: int
    document: JsonObject
    attempts: int = 0
    retry: int = 0
    error: str = ""


@dataclass
class SinkRecord:
    """How a sink did: deliveries, and the newest failure since the newest of them."""

    delivered: int = 0
    given_up: int = 0
    failures: int = 0
    error: str = ""
    time: int = 0


@dataclass
class AlertStanding:
    """What the events say: alerts by fingerprint, deliveries by change and sink, those by which a
    sink knows that an alert fires by fingerprint and sink, and sinks by rule and id."""

    alerts: dict[str, Alert] = field(default_factory=dict)
    deliveries: dict[tuple[str, str], PendingDelivery] = field(default_factory=dict)
    delivered: dict[str, dict[str, PendingDelivery]] = field(default_factory=dict)
    sinks: dict[tuple[str, str], SinkRecord] = field(default_factory=dict)
    number: int = 0

    def add(self, event_type: str, document: JsonObject) -> None:
        """Take an event over. Raises KeyError, TypeError, ValueError where it is malformed."""
        if event_type == ALERT:
            self._change(document)
        else:
            self._delivery(document)

    def following(self, place: int) -> int:
        """The number of a change that is appended, at a place among others."""
        # Those that are equal, as forged events want them, stand as they arrived.
        return min(self.number + place + 1, _NUMBER_MAX)

    def of_rule(self, name: str) -> dict[str, Alert]:
        """The alerts of a rule by fingerprint."""
        return {key: alert for key, alert in self.alerts.items() if alert.rule == name}

    def _change(self, document: JsonObject) -> None:
        number, change = int(document["number"]), str(document["id"])
        # Numbers of forged events only ever make ours larger.
        self.number = max(self.number, number)
        value, addresses = document.get("value"), {s["id"]: s["to"] for s in document["sinks"]}
        if not all(isinstance(text, str) for sink in addresses.items() for text in sink):
            raise TypeError("a sink has an id and an address, both texts")
        alert = Alert(
            str(document["rule"]),
            {str(name): str(label) for name, label in document["labels"].items()},
            str(document["state"]),
            micros_of(str(document["since"])),
            change,
            # Other programs write 3.0 as 3 where events went through them.
            None if value is None else float(value),
            str(document.get("silenced") or ""),
            dict.fromkeys(addresses, change),
        )
        before = self.alerts.get(alert.fingerprint)
        # Others are told of what fires already: those who know of it still do.
        if before is not None and before.state == alert.state == FIRING:
            alert = replace(alert, receivers={**before.receivers, **alert.receivers})
        micros_of(document["time"])  # read when a delivery fails
        # A resolved alert is none any more; its deliveries go on.
        if alert.state == RESOLVED:
            self.alerts.pop(alert.fingerprint, None)
            self.delivered.pop(alert.fingerprint, None)
        else:
            self.alerts[alert.fingerprint] = alert
        for sink in addresses:
            waiting = PendingDelivery(change, sink, number, document)
            self.deliveries[change, sink] = waiting

    def _delivery(self, document: JsonObject) -> None:
        key = str(document["change"]), str(document["sink"])
        record = self.sinks.setdefault((str(document["rule"]), key[1]), SinkRecord())
        outcome, time_us = str(document["outcome"]), micros_of(str(document["time"]))
        if outcome == FAILED:
            record.failures += 1
            record.error, record.time = str(document["error"]), time_us
            # One that was given up meanwhile stays so.
            if (waiting := self.deliveries.get(key)) is not None:
                attempts, retry = int(document["attempt"]), micros_of(str(document["retry"]))
                self.deliveries[key] = replace(
                    waiting, attempts=attempts, retry=retry, error=record.error
                )
            return
        # Delivered or given up: either way it does not wait any more.
        ended = self.deliveries.pop(key, None)
        if outcome == DELIVERED:
            if ended is not None and ended.document["state"] == FIRING:
                alert_key = fingerprint(ended.document["rule"], ended.document["labels"])
                # It may be over by now.
                if alert_key in self.alerts:
                    self.delivered.setdefault(alert_key, {})[key[1]] = ended
            record.delivered += 1
            record.failures, record.error, record.time = 0, "", time_us
        else:
            record.given_up += 1
            record.error, record.time = str(document["error"]), time_us


class AlertLog:
    """The events of alerts in a branch. One process at a time appends to them, so what it appends
    itself it need not read again."""

    def __init__(self, lake: Lake) -> None:
        self._lake, self._standing = lake, AlertStanding()
        self._head: Head | None = None
        self._erasures: tuple[int, int, int] | None = None
        self._earlier: tuple[Head, list[Move]] | None = None
        self._writing = threading.Lock()

    def read(self) -> AlertStanding:
        """Return where all stands; after an erasure that is what is left of it. Raises
        LakeReplaced."""
        lake, refs, earlier = self._lake, self._lake.store.refs, self._head
        lake.writer().require_lake()
        head = refs.head(lake.branch_name)
        # Others may have told something before a rewind, and a backup that is restored may lack it:
        # the events say who knows what. What was erased must be told, and stored, no more.
        erasures = File(lake.store.paths.erasures).identity()
        if erasures != self._erasures or not only_grew(refs, head, earlier):
            self._standing = read_standing(lake, self.earlier_moves())
        self._head, self._erasures = head, erasures
        return self._standing

    def earlier_moves(self) -> list[Move]:
        """The moves whose states rollbacks left: see `earlier_moves`."""
        head = self._lake.store.refs.head(self._lake.branch_name)
        # Looking for them reads each move that is kept.
        if self._earlier is None or not only_grew(self._lake.store.refs, head, self._earlier[0]):
            self._earlier = head, [*earlier_moves(self._lake)]
        return self._earlier[1]

    def note_delivery(self, address: str) -> None:
        """Note that a receiver got labels and lines of events, so that an erasure names it."""
        copies.note(self._lake.store.paths, "alert", address)

    def append(self, events: list[Event]) -> None:
        """Store changes or outcomes in one write; durable when this returns."""
        # Rules are asked by one thread, while others deliver.
        with self._writing:
            self._lake.append(events)
            for event in events:
                self._standing.add(event["type"], cast("JsonObject", event["data"]))


def read_standing(lake: Lake, earlier: Iterable[Move] | None = None) -> AlertStanding:
    """Return where the alerts of a branch stand, by its events, and by those that it lost since:
    what was told is not unsaid by a rollback. `earlier` are the moves whose states rollbacks
    left."""
    store, groups = lake.store, list[list[SegmentEntry]]()
    for move in earlier_moves(lake) if earlier is None else earlier:
        # Nothing else says it any more where gc took the state.
        with contextlib.suppress(LakelogError):
            groups.append(store.manifests.segments(store.manifests.of(move), "events"))
    try:
        entries = documents(lake, others=itertools.chain(*groups))
    except LakelogError:  # one of them is gone or damaged
        entries = documents(lake)
        for group in groups:
            with contextlib.suppress(LakelogError):
                entries += documents(lake, others=group)
    standing = AlertStanding()
    by_key = {_key(*entry): entry for entry in entries}
    for event_type, document in sorted(by_key.values(), key=_order):
        # Whoever may append may append what only looks like it: that changes nothing.
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError, OverflowError):
            standing.add(event_type, document)
    return standing


def earlier_moves(lake: Lake) -> Iterator[Move]:
    """Yield the moves whose states the branch had before a rollback or undo, the newest first."""
    store, branch, is_rewind, count = lake.store, lake.branch_name, False, 0
    for move in history.kept_moves(store, store.refs.newest_first(branch)):
        if is_rewind:
            yield move
            count += 1
        # A branch that was not taken back up to here has the generation 0.
        if not move.generation or count == _EARLIER_MAX:
            return
        is_rewind = move.op in _REWINDS


def documents(
    lake: Lake, newest: int = _ALL, rule: str = "", others: Iterable[SegmentEntry] = ()
) -> list[tuple[str, JsonObject]]:
    """Return the newest events of alerts, each its type and document, in their order; those of one
    rule with its name, and those of `others`, segments of earlier states."""
    condition = f"{OWN} AND subject = {literal(rule)}" if rule else OWN
    # By arrival, as the tail gives them; forged ones may stand anywhere.
    rows = arrays.records(Follower(lake.subscriptions(), condition).last(newest, others))
    entries = map(_entry, rows)
    return sorted(((name, document) for name, document in entries if document), key=_order)


def change_event(document: JsonObject) -> Event:
    """Return the event of a change. It has no level: views of levels must not count it."""
    labels = "".join(f" {name}={value}" for name, value in document["labels"].items())
    message = f"{document['rule']}{labels} is {document['state']}"
    return BookkeepingEvent.of(ALERT, document["rule"], message=message, data=document)


def delivery_event(document: JsonObject) -> Event:
    """Return the event of an attempt to tell a sink."""
    message = f"{document['to']}: {document['outcome']}"
    return BookkeepingEvent.of(DELIVERY, document["rule"], message=message, data=document)


def fingerprint(rule: str, labels: Mapping[str, str]) -> str:
    """Return 16 hex digits that stand for a rule and labels, in whatever order."""
    # Sorted, so that the order of columns does not matter.
    content = orjson.dumps([rule, sorted(labels.items())])
    return hashlib.sha256(content).hexdigest()[:16]


def micros_of(moment: str) -> int:
    """The time (us) that a document has as text. Raises ValueError, OverflowError."""
    time_us = to_micros(datetime.datetime.fromisoformat(moment))
    from_micros(time_us)  # in UTC it may be before the year 1, and could not be written again
    return time_us


def _entry(row: Mapping[str, Any]) -> tuple[str, JsonObject]:
    """The type and the document of an event, empty for one that is none, as anybody may append."""
    event_type = str(row["type"])
    try:
        document: JsonObject = orjson.loads(row["data"] or "")
        members = [(document[name], type_) for name, type_ in _MEMBERS[event_type].items()]
        is_whole = all(isinstance(value, type_) for value, type_ in members) and all(
            0 <= value <= _NUMBER_MAX for value, type_ in members if type_ is int
        )
    except (ValueError, KeyError, TypeError):
        return event_type, {}
    return event_type, document if is_whole else {}


def _key(event_type: str, document: JsonObject) -> tuple[object, ...]:
    """What tells an event of alerts from all others."""
    names = ("change", "sink", "attempt") if event_type == DELIVERY else ("id",)
    return event_type, *(document[name] for name in names)


def _order(entry: tuple[str, JsonObject]) -> tuple[int, int]:
    # By number and attempt: bulk loading may have mixed up the arrival.
    event_type, document = entry
    return document["number"], document["attempt"] if event_type == DELIVERY else 0


_CHANGE: dict[str, type] = dict.fromkeys(
    ("id", "rule", "state", "severity", "since", "time", "message", "threshold", "link"), str
)
_MEMBERS: dict[str, dict[str, type]] = {
    ALERT: {
        **_CHANGE,
        "number": int,
        "labels": dict,
        "rule_labels": dict,
        "sinks": list,
        "samples": list,
    },
    DELIVERY: {
        **dict.fromkeys(("change", "rule", "sink", "to", "outcome", "time"), str),
        "number": int,
        "attempt": int,
    },
}
"""What the documents of events have at least."""
