"""Where the library `eventsourcing` keeps events: in streams of a lake.

Each aggregate is a stream, `events/ID`, each of its snapshots an event of `snapshots/ID`; one more
stream, `events`, numbers all events 1, 2, 3 as notifications, and `tracking/NAME` has what was read
of another application. An application with a name has it in front: `shop.events/ID`. What belongs
together is one append. The `number` in each event only rises in its stream: the version of an
aggregate, the last notification that there is, or the last one that was read. Versions of events
have no gap, so that an aggregate that was read before a rollback is not stored behind it.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar
from uuid import UUID

from eventsourcing import persistence
from eventsourcing.persistence import Notification, StoredEvent, Tracking
from eventsourcing.utils import Environment, EnvType, resolve_topic

from lakelog import lake, protect
from lakelog.errors import SubscriptionRewound
from lakelog.event import BookkeepingEvent
from lakelog.refs import only_grew
from lakelog.sql import json_path
from lakelog.streams import NumberedStreams
from lakelog.values import JsonObject

_STATE, _BASE64 = "state", "state_base64"
_PATHS = ", ".join(json_path([name]) for name in (_STATE, _BASE64, protect.MEMBER))
_HAS_STATE = f"list_contains(json_exists(data, [{_PATHS}]), true)"
"""SQL for events whose state is there: of others it was a protected field, whose key was
destroyed."""
_PAGE = 500
"""Notifications that a subscription reads at once."""
_R = TypeVar("_R", bound="LakeRecorder")


class LakeRecorder(persistence.Recorder):
    """Appends to the streams of one application."""

    def __init__(self, store: lake.Lake, application: str = "", id_type: type = UUID) -> None:
        self.lake, self._application, self._id_type = store, application, id_type
        self._streams = NumberedStreams(
            lambda events, expect: store.append(events, expect=expect).versions,
            store.sql,
            lambda subject: store.stream(subject, limit=0).version,
            lambda: store.store.refs.head(store.branch_name),
            store.store.refs,
        )

    def _append(self, events_after: Callable[[int], list[JsonObject]]) -> None:
        counter = self._named("events")
        if subject := self._streams.append(events_after, counter, f"{counter}/"):
            raise persistence.IntegrityError(f"{subject} has this number, or not the one before it")

    def _newest(self, *names: str) -> int | None:
        return self._streams.look(self._named(*names)).number

    def _named(self, *names: object) -> str:
        return ".".join(filter(None, (self._application, "/".join(map(str, names)))))

    def _state_of(self, data: JsonObject) -> bytes | None:
        """The state in a payload, None where its key was destroyed. Raises InvalidKey without the
        file of keys."""
        if protect.MEMBER in data and (protection := self.lake.store.paths.protection) is not None:
            protection.require_ciphers()
        state, encoded = data.get(_STATE), data.get(_BASE64)
        if state is not None:
            return str(state).encode()
        return None if encoded is None else base64.b64decode(encoded)

    def _counted(self, number: int, *names: str) -> JsonObject:
        event: JsonObject = {"subject": self._named(*names), "data": {"number": number}}
        return event | {"type": "lakelog.counted", "source": BookkeepingEvent.SOURCE}


class LakeAggregateRecorder(LakeRecorder, persistence.AggregateRecorder):
    """Events, or snapshots, of aggregates."""

    purpose = "events"

    def insert_events(self, stored_events: Sequence[StoredEvent], **_: object) -> list[int] | None:
        """Store events, all or nothing. Raises IntegrityError for a version that is known."""
        self._append(lambda _: [self._encoded(event) for event in stored_events])
        return None

    def _encoded(self, event: StoredEvent, **data: object) -> JsonObject:
        data["number"] = event.originator_version
        try:
            data[_STATE] = event.state.decode()
        except UnicodeDecodeError:
            data[_BASE64] = base64.b64encode(event.state).decode()
        subject, source = self._named(self.purpose, event.originator_id), self._named(self.purpose)
        return {"subject": subject, "type": event.topic, "source": source, "data": data}

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Read events of one aggregate by their versions. Raises InvalidKey."""
        subject = self._named(self.purpose, originator_id)
        # If the first event after gt - 1 has a version up to gt + 1, all wanted ones are after it.
        events = self.lake.stream(subject, after=max((gt or 0) - 1, 0)).events
        if gt and not (events and json.loads(events[0]["data"])["number"] <= gt + 1):
            events = self.lake.stream(subject).events
        selection = [
            StoredEvent(originator_id, data["number"], event["type"], state)
            for event in events
            for data in [json.loads(event["data"])]
            if (gt is None or data["number"] > gt) and (lte is None or data["number"] <= lte)
            if (state := self._state_of(data)) is not None
        ]
        return (selection[::-1] if desc else selection)[:limit]


class LakeApplicationRecorder(LakeAggregateRecorder, persistence.ApplicationRecorder):
    """Events of aggregates, numbered as notifications."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: object) -> list[int]:
        """Store events, with what was read to make them if a `tracking` is given, all or nothing;
        return the numbers of their notifications. Raises IntegrityError."""
        tracking, numbers = kwargs.get("tracking"), list[int]()

        def events_after(newest: int) -> list[JsonObject]:
            # Called again after each lost race, with what is newest then.
            numbers[:] = range(newest + 1, newest + 1 + len(stored_events))
            pairs = zip(stored_events, numbers, strict=True)
            events = [self._encoded(event, notification=number) for event, number in pairs]
            if events:
                events.append(self._counted(numbers[-1], "events"))
            if isinstance(tracking, Tracking):
                names = "tracking", tracking.application_name
                events.append(self._counted(tracking.notification_id, *names))
            return events

        self._append(events_after)
        return numbers

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Read events in the order of their notifications, without a gap but for what was erased.
        Raises InvalidKey."""
        # Whoever gave the last number saw all events before it: a look from now on finds them.
        newest = min(self.max_notification_id() or 0, stop if stop is not None else 1 << 62)
        query = (
            "SELECT subject, type, data, CAST(data->>'$.notification' AS BIGINT) AS number"
            f" FROM events WHERE source = ? AND number BETWEEN ? AND ? AND {_HAS_STATE}"
            " AND (len(?) = 0 OR list_contains(?, type)) ORDER BY number LIMIT ?"
        )
        values = [self._named(self.purpose), (start or 0) + (not inclusive_of_start), newest]
        rows = self.lake.sql(query, [*values, list(topics), list(topics), limit]).fetchall()
        prefix = self._named(self.purpose, "")
        return [
            Notification(
                self._id_type(subject.removeprefix(prefix)), payload["number"], topic, state, number
            )
            for subject, topic, data, number in rows
            for payload in [json.loads(data)]
            if (state := self._state_of(payload)) is not None
        ]

    def max_notification_id(self) -> int | None:
        """Return the number of the last notification, None if there is none."""
        return self._newest("events")

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> LakeSubscription:
        """Yield notifications above `gt`, those there and then those to come, of all processes."""
        return LakeSubscription(self, gt, topics)


class LakeTrackingRecorder(LakeRecorder, persistence.TrackingRecorder):
    """What was read of other applications."""

    def insert_tracking(self, tracking: Tracking) -> None:
        """Store what was read. Raises IntegrityError if it, or more, was read before."""
        names = "tracking", tracking.application_name
        self._append(lambda _: [self._counted(tracking.notification_id, *names)])

    def max_tracking_id(self, application_name: str) -> int | None:
        """Return the last notification of an application that was read, None if none was."""
        return self._newest("tracking", application_name)


class LakeProcessRecorder(
    LakeTrackingRecorder, LakeApplicationRecorder, persistence.ProcessRecorder
):
    """Events of aggregates, together with what was read to make them."""


class LakeSubscription(persistence.Subscription[LakeApplicationRecorder]):
    """Notifications as they come; `stop` ends it within a fifth of a second, and a rewind of the
    branch by an error, as it cannot know what was made of those that are gone."""

    def __init__(
        self, recorder: LakeApplicationRecorder, gt: int | None, topics: Sequence[str]
    ) -> None:
        super().__init__(recorder, gt, topics)
        self._is_over = threading.Event()
        self._notifications = self._read(recorder, gt or 0, topics)

    def stop(self) -> None:
        """End it: there is no next notification."""
        super().stop()
        self._is_over.set()

    def __next__(self) -> Notification:
        """Return the next notification; wait for it. Raises StopIteration once it was stopped,
        SubscriptionRewound once the branch was rewound."""
        return next(self._notifications)

    def _read(
        self, recorder: LakeApplicationRecorder, after: int, topics: Sequence[str]
    ) -> Iterator[Notification]:
        access = recorder.lake.subscriptions()
        newest = access.head()
        for is_due in access.signal.looks(self._is_over, lambda: 0.2):
            while is_due:
                page = recorder.select_notifications(after + 1, _PAGE, topics=topics)
                # Behind the page, which is of this head or of an earlier one.
                head = access.head()
                if not only_grew(access.store.refs, head, newest):
                    raise SubscriptionRewound(
                        f"branch {access.branch!r} was rewound, so that numbers of notifications"
                        " are given again: undo what was made of later ones, and subscribe again"
                    )
                newest = head
                is_due = bool(page)
                for notification in page:
                    if self._is_over.is_set():
                        return
                    after = notification.id
                    yield notification


class Factory(persistence.InfrastructureFactory[LakeTrackingRecorder]):
    """Makes the recorders of one application. Raises OSError for an environment without a lake."""

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        self._lake: lake.Lake | None = None

    def _recorder(self, recorder_class: type[_R], topic: str | None = None) -> _R:
        if not (path := self.env.get("LAKELOG_PATH")):
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
        topic = self.env.get(self.APPLICATION_RECORDER_TOPIC)
        return self._recorder(LakeApplicationRecorder, topic)

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
