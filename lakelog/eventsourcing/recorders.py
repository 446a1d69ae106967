"""Where the library `eventsourcing` keeps events: in streams of a lake.

Each aggregate is a stream, `events/ID`, each of its snapshots an event of `snapshots/ID`; one more
stream, `events`, numbers all events 1, 2, 3 as notifications, and `tracking/NAME` has what was read
of another application. An application with a name has it in front: `shop.events/ID`. What belongs
together is one append. The `number` in each event only rises in its stream: the version of an
aggregate, the last notification that there is, or the last one that was read.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar
from uuid import UUID

from eventsourcing import persistence
from eventsourcing.persistence import Notification, StoredEvent, Tracking
from eventsourcing.utils import Environment, EnvType, resolve_topic

from lakelog import lake
from lakelog.errors import WrongVersion
from lakelog.event import bookkeeping
from lakelog.event.types import JsonObject
from lakelog.store import arrival_signal

_PAGE = 500
"""Notifications that a subscription reads at once."""
_HEADS_KEPT = 10_000
_COUNTED = "lakelog.counted"
_R = TypeVar("_R", bound="LakeRecorder")


class _Head(NamedTuple):
    """The newest event of a stream: its version in the lake and its number."""

    version: int = 0
    number: int | None = None


class LakeRecorder(persistence.Recorder):
    """Appends to the streams of one application, and keeps the heads of those seen last."""

    def __init__(self, store: lake.Lake, application: str = "", id_type: type = UUID) -> None:
        self._lake, self._application, self._id_type = store, application, id_type
        self._heads: dict[str, _Head] = {}

    def _append(self, events_after: Callable[[int], list[JsonObject]]) -> None:
        """Append what `events_after` makes of the last notification's number, all or nothing.

        Raises IntegrityError where the number of an event is not above those of its stream.
        """
        looked = set[str]()
        while events := events_after(self._head(self._named("events")).number or 0):
            heads = {event["subject"]: self._head(event["subject"]) for event in events}
            numbers, repeated = {name: head.number for name, head in heads.items()}, None
            for event in events:
                subject, number = event["subject"], event["data"]["number"]
                if (newest := numbers[subject]) is not None and number <= newest:
                    repeated = subject
                numbers[subject] = number
            if repeated is None:
                try:
                    expect = {name: head.version for name, head in heads.items()}
                    versions = self._lake.append(events, expect=expect).versions
                except WrongVersion as error:
                    self._look(error.subject)
                    continue
                if len(self._heads) > _HEADS_KEPT:
                    self._heads.clear()
                self._heads |= {name: _Head(versions[name], numbers[name]) for name in heads}
                return
            if repeated in looked:
                raise persistence.IntegrityError(f"{repeated} has this number, or a later one")
            looked.add(repeated)
            self._look(repeated)

    def _head(self, subject: str) -> _Head:
        """Return the head that was seen last; an append finds out whether it is still right."""
        return self._heads.get(subject, _Head())

    def _look(self, subject: str) -> _Head:
        query = (
            "SELECT position, CAST(data->>'$.number' AS BIGINT) FROM events"
            " WHERE subject = ? AND origin = ? ORDER BY position DESC LIMIT 1"
        )
        rows = self._lake.sql(query, [subject, f"stream:{subject}"]).fetchall()
        self._heads[subject] = _Head(*rows[0]) if rows else _Head()
        return self._heads[subject]

    @property
    def arrivals(self) -> arrival_signal.ArrivalSignal:
        """Tells that there may be something new in the lake's branch."""
        return arrival_signal.signal_of(self._lake.store.paths, self._lake.branch_name)

    @staticmethod
    def _counted(subject: str, number: int) -> JsonObject:
        data = {"number": number}
        return {"subject": subject, "type": _COUNTED, "source": bookkeeping.SOURCE, "data": data}

    def _named(self, *names: object) -> str:
        return ".".join(filter(None, (self._application, "/".join(map(str, names)))))


class LakeAggregateRecorder(LakeRecorder, persistence.AggregateRecorder):
    """Events, or snapshots, of aggregates."""

    purpose = "events"

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: object
    ) -> Sequence[int] | None:
        """Store events, all or nothing. Raises IntegrityError for a version of an aggregate that is
        not above those that it has."""
        self._append(lambda _: list(self._encoded(stored_events)))
        return None

    def _encoded(
        self, stored_events: Sequence[StoredEvent], notified: int | None = None
    ) -> Iterator[JsonObject]:
        for index, event in enumerate(stored_events, 1):
            data: JsonObject = {"number": event.originator_version}
            if notified is not None:
                data["notification"] = notified + index
            try:
                data["state"] = event.state.decode()
            except UnicodeDecodeError:
                data["state_base64"] = base64.b64encode(event.state).decode()
            subject = self._named(self.purpose, event.originator_id)
            yield {
                "subject": subject,
                "type": event.topic,
                "source": self._named(self.purpose),
                "data": data,
            }

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Read events of one aggregate by their versions."""
        subject = self._named(self.purpose, originator_id)
        # If the first event after gt - 1 has a version up to gt + 1, all wanted ones are after it.
        events = self._lake.stream(subject, after=max((gt or 0) - 1, 0)).events
        if gt and not (events and json.loads(events[0]["data"])["number"] <= gt + 1):
            events = self._lake.stream(subject).events
        selection = [
            StoredEvent(originator_id, data["number"], event["type"], _state_of(data))
            for event in events
            for data in [json.loads(event["data"])]
            if (gt is None or data["number"] > gt) and (lte is None or data["number"] <= lte)
        ]
        return (selection[::-1] if desc else selection)[:limit]


def _state_of(data: JsonObject) -> bytes:
    state = data.get("state")
    return base64.b64decode(data["state_base64"]) if state is None else str(state).encode()


class LakeApplicationRecorder(LakeAggregateRecorder, persistence.ApplicationRecorder):
    """Events of aggregates, numbered as notifications."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: object
    ) -> Sequence[int] | None:
        """Store events, and what was read to make them if a `tracking` is given, all or nothing;
        return the numbers of their notifications. Raises IntegrityError."""
        tracking, numbers = kwargs.get("tracking"), range(0)

        def events_after(newest: int) -> list[JsonObject]:
            nonlocal numbers
            numbers = range(newest + 1, newest + 1 + len(stored_events))
            events = list(self._encoded(stored_events, newest))
            if events:
                events.append(self._counted(self._named("events"), numbers[-1]))
            if isinstance(tracking, Tracking):
                subject = self._named("tracking", tracking.application_name)
                events.append(self._counted(subject, tracking.notification_id))
            return events

        self._append(events_after)
        return list(numbers)

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Read events in the order of their notifications, without a gap."""
        # Whoever gave the last number saw all events before it: a look from now on finds them.
        newest = min(self.max_notification_id() or 0, stop if stop is not None else 1 << 62)
        lowest = (start or 0) + (not inclusive_of_start)
        query = (
            "SELECT subject, type, data, CAST(data->>'$.notification' AS BIGINT) AS number"
            " FROM events WHERE source = ? AND number BETWEEN ? AND ?"
            " AND (len(?) = 0 OR list_contains(?, type)) ORDER BY number LIMIT ?"
        )
        values = [self._named(self.purpose), lowest, newest, list(topics), list(topics), limit]
        prefix = self._named(self.purpose, "")
        return [
            Notification(
                self._id_type(subject.removeprefix(prefix)),
                payload["number"],
                topic,
                _state_of(payload),
                number,
            )
            for subject, topic, data, number in self._lake.sql(query, values).fetchall()
            for payload in [json.loads(data)]
        ]

    def max_notification_id(self) -> int | None:
        """Return the number of the last notification, None if there is none."""
        return self._look(self._named("events")).number

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> persistence.Subscription[LakeApplicationRecorder]:
        """Yield notifications above `gt`, those there and then those to come, of all processes."""
        return LakeSubscription(self, gt, topics)


class LakeTrackingRecorder(LakeRecorder, persistence.TrackingRecorder):
    """What was read of other applications."""

    def insert_tracking(self, tracking: Tracking) -> None:
        """Store what was read. Raises IntegrityError if it, or more, was read before."""
        subject = self._named("tracking", tracking.application_name)
        self._append(lambda _: [self._counted(subject, tracking.notification_id)])

    def max_tracking_id(self, application_name: str) -> int | None:
        """Return the last notification of an application that was read, None if none was."""
        return self._look(self._named("tracking", application_name)).number


class LakeProcessRecorder(
    LakeTrackingRecorder, LakeApplicationRecorder, persistence.ProcessRecorder
):
    """Events of aggregates, together with what was read to make them."""


class LakeSubscription(persistence.Subscription[LakeApplicationRecorder]):
    """Notifications as they come; `stop` ends it within a fifth of a second."""

    def __init__(
        self, recorder: LakeApplicationRecorder, gt: int | None, topics: Sequence[str]
    ) -> None:
        super().__init__(recorder, gt, topics)
        self._source, self._topic_names, self._is_over = recorder, topics, False
        self._after = gt or 0
        self._page: Iterator[Notification] = iter(())

    def stop(self) -> None:
        """End it: there is no next notification."""
        super().stop()
        self._is_over = True

    def __next__(self) -> Notification:
        """Return the next notification; wait for it. Raises StopIteration once it was stopped."""
        arrivals = self._source.arrivals
        while not self._is_over:
            for notification in self._page:
                self._after = notification.id
                return notification
            count = arrivals.count
            page = self._source.select_notifications(
                self._after + 1, _PAGE, topics=self._topic_names
            )
            self._page = iter(page)
            if not page:
                arrivals.wait(count, 0.2)
        raise StopIteration


class Factory(persistence.InfrastructureFactory[LakeTrackingRecorder]):
    """Makes the recorders of one application. Raises OSError for an environment without a lake."""

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        self._lake: lake.Lake | None = None

    def _recorder(self, recorder_class: type[_R], topic: str | None = None) -> _R:
        path = self.env.get("LAKELOG_PATH")
        if not path:
            keys = " or ".join(self.env.create_keys("LAKELOG_PATH"))
            raise OSError(f"no lake is named in the environment: set {keys}")
        id_type = (self.env.get("ORIGINATOR_ID_TYPE") or "uuid").lower()
        if id_type not in ("uuid", "text"):
            raise OSError(f"ORIGINATOR_ID_TYPE is uuid or text, not {id_type!r:.40}")
        if self._lake is None:
            self._lake = lake.open(path, branch=self.env.get("LAKELOG_BRANCH") or "main")
        made_by: type[_R] = resolve_topic(topic) if topic else recorder_class
        return made_by(self._lake, self.env.name.lower(), UUID if id_type == "uuid" else str)

    def aggregate_recorder(self, purpose: str = "events") -> LakeAggregateRecorder:
        """A recorder of events, or of snapshots, without notifications."""
        recorder = self._recorder(LakeAggregateRecorder)
        recorder.purpose = purpose
        return recorder

    def application_recorder(self) -> LakeApplicationRecorder:
        """A recorder that numbers all events."""
        return self._recorder(
            LakeApplicationRecorder, self.env.get(self.APPLICATION_RECORDER_TOPIC)
        )

    def tracking_recorder(
        self, tracking_recorder_class: type[LakeTrackingRecorder] | None = None
    ) -> LakeTrackingRecorder:
        """A recorder of what was read of other applications."""
        topic = None if tracking_recorder_class else self.env.get(self.TRACKING_RECORDER_TOPIC)
        return self._recorder(tracking_recorder_class or LakeTrackingRecorder, topic)

    def process_recorder(self) -> LakeProcessRecorder:
        """A recorder of events together with what was read to make them."""
        return self._recorder(LakeProcessRecorder, self.env.get(self.PROCESS_RECORDER_TOPIC))

    def close(self) -> None:
        """Close the lake, if one was opened."""
        # Once: the library closes a factory again when its application is collected.
        open_lake, self._lake = self._lake, None
        if open_lake is not None:
            open_lake.close()
