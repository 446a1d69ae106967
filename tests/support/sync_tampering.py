"""What somebody else does to a target between two syncs, by each kind of target."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

from lakelog.sync.target import WATERMARKS
from tests.support.sync_places import Place

_TABLES = ("events", WATERMARKS)
_COLUMNS = "seq, type, source, subject, message, data, id, position"


class Tampering:
    """Changes to a target, none of which fails: one that cannot be made there does nothing."""

    def __init__(self, place: Place) -> None:
        self.place: Any = place

    def empty(self) -> None:
        """Remove all rows."""

    def drop(self) -> None:
        """Remove the table."""

    def drop_a_column(self) -> None:
        """Remove a column with its values."""

    def save(self) -> None:
        """Keep rows and watermark of one moment, as a replica that lags behind."""

    def fail_over(self) -> None:
        """Have what was kept in the place of what is there."""

    def crash(self) -> None:
        """Kill the server, and start it again."""

    def forget(self) -> None:
        """Do as a refusal advises for a table that cannot be filled again: remove its watermark, or
        let there be another table."""


class SqlTampering(Tampering):
    """Of a database."""

    def empty(self) -> None:
        self._try("DELETE FROM events")

    def drop(self) -> None:
        self._try("DROP TABLE events")

    def drop_a_column(self) -> None:
        self._try("ALTER TABLE events DROP COLUMN message")

    def save(self) -> None:
        for name in _TABLES:
            self._try(f"DROP TABLE IF EXISTS saved_{name}")
            self._try(f"CREATE TABLE saved_{name} AS SELECT * FROM {name}")

    def fail_over(self) -> None:
        with contextlib.suppress(Exception):
            self.place.ask("SELECT 1 FROM saved_lakelog_sync")
            self.place.ask("DELETE FROM events")
            self.place.ask("DELETE FROM lakelog_sync")
            self.place.ask("INSERT INTO lakelog_sync SELECT * FROM saved_lakelog_sync")
            into = f"INSERT INTO events ({_COLUMNS})"
            self.place.ask(f"{into} SELECT {_COLUMNS} FROM saved_events")

    def crash(self) -> None:
        if (server := getattr(self.place, "server", None)) is not None:
            server.stop()
            server.start()

    def forget(self) -> None:
        self.place.ask(f"DELETE FROM {WATERMARKS}")

    def _try(self, statement: str) -> None:
        with contextlib.suppress(Exception):
            self.place.ask(statement)


class ElasticTampering(Tampering):
    """Of our server that answers as Elasticsearch does."""

    saved: dict[str, Any] | None = None

    def empty(self) -> None:
        if index := self.place.server.indices.get("events"):
            index.documents.clear()
            index.visible.clear()

    def drop(self) -> None:
        self.place.server.indices.pop("events", None)

    def save(self) -> None:
        self.saved = copy.deepcopy(self.place.server.indices)

    def fail_over(self) -> None:
        if self.saved is not None:
            self.place.server.indices = copy.deepcopy(self.saved)

    def forget(self) -> None:
        self.place.server.indices.pop(WATERMARKS, None)


class StrictInfluxTampering(Tampering):
    """Of our server that answers as InfluxDB does."""

    saved: dict[Any, Any] | None = None

    def empty(self) -> None:
        self._remove("events")

    def save(self) -> None:
        self.saved = copy.deepcopy(self.place.server.points)

    def fail_over(self) -> None:
        if self.saved is not None:
            self.place.server.points = copy.deepcopy(self.saved)

    def forget(self) -> None:
        self._remove(WATERMARKS)

    def _remove(self, measurement: str) -> None:
        points = self.place.server.points
        for key in [key for key in points if key[0] == measurement]:
            del points[key]


class InfluxTampering(Tampering):
    """Of InfluxDB itself."""

    has_saved = False

    def empty(self) -> None:
        self._ask('DROP MEASUREMENT "events"')

    def save(self) -> None:
        for name in _TABLES:
            self._ask(f'DROP MEASUREMENT "saved_{name}"')
            self._ask(f'SELECT * INTO "saved_{name}" FROM "{name}" GROUP BY *')
        self.has_saved = True

    def fail_over(self) -> None:
        for name in _TABLES if self.has_saved else ():
            self._ask(f'DROP MEASUREMENT "{name}"')
            self._ask(f'SELECT * INTO "{name}" FROM "saved_{name}" GROUP BY *')

    def crash(self) -> None:
        self.place.server.kill()
        self.place.server.start()

    def forget(self) -> None:
        self._ask(f'DROP MEASUREMENT "{WATERMARKS}"')

    def _ask(self, query: str) -> None:
        self.place.server.ask(query)


class KafkaTampering(Tampering):
    """Of a topic, in which nobody can change anything."""

    def forget(self) -> None:
        self.place.name += "-"
        self.place.url += "-"
