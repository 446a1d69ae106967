"""eventsourcing, with its own recorder on SQLite."""

from __future__ import annotations

import uuid

import orjson
from eventsourcing.persistence import InfrastructureFactory, StoredEvent
from eventsourcing.utils import Environment

from benchmarks.peers.files import Event

_NAMESPACE = uuid.UUID(int=0)


class Peer:
    """A recorder as applications use it."""

    def __init__(self, root: str) -> None:
        variables = {
            "PERSISTENCE_MODULE": "eventsourcing.sqlite",
            "SQLITE_DBNAME": f"{root}/events.db",
        }
        environment = Environment("bench", variables)
        self._recorder = InfrastructureFactory.construct(environment).application_recorder()

    def expect(self, subject: str, version: int, event: Event) -> None:
        """Insert one event, whose version nobody else may have."""
        state = orjson.dumps(event)
        stored = StoredEvent(_id(subject), version + 1, event["event_type"], state)
        self._recorder.insert_events([stored])

    def stream(self, subject: str) -> int:
        """Read all events of an aggregate."""
        return len(self._recorder.select_events(_id(subject)))


def _id(subject: str) -> uuid.UUID:
    return uuid.uuid5(_NAMESPACE, subject)
