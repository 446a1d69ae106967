"""What gives a session tables beside `events` and `quarantine`: the views of a lake, and schemas,
such as that of an older system, which are made when a query first names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from lakelog.libraries import duckdb

if TYPE_CHECKING:
    from lakelog.manifest import Manifest
    from lakelog.query.sql.analysis import Query
    from lakelog.query.sql.extractions import TypeTable
    from lakelog.wal import PendingFrames

Pinned: TypeAlias = "tuple[Manifest, PendingFrames | None]"
"""A state, and what of its branch is not yet published."""


class TableProvider(Protocol):
    """Gives a session more tables than `events` and `quarantine`. All methods but `close` are
    called under the lock of the session."""

    def names(self, state: Manifest) -> list[str]:
        """Return the tables of a state that a query may read without a schema."""

    def offer(
        self, cursor: duckdb.DuckDBPyConnection, query: Query, digest: str | None
    ) -> Pinned | None:
        """Make the tables that a query names, and return the state they are of, if there are."""

    def reads_events(self, query: Query) -> bool:
        """Whether a query names a table that is SQL over `events`."""

    def attach(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Make the tables over `events` on a cursor that has been offered what they need."""

    def schema(self, name: str, pinned: Pinned, table: str, events: str) -> str | None:
        """Return a schema that holds a table of the state of a ref, whose `events` are in schema
        `events`; None where the name is no table of it. Raises QueryFailed."""

    def type_table(self, pinned: Pinned, name: str) -> TypeTable:
        """Return the events of a type of a state as a table. Raises QueryFailed for no such."""

    def field_kinds(self, pinned: Pinned, path: tuple[str | int, ...]) -> frozenset[str]:
        """Return the kinds of values that a field of payloads has in a state."""

    def close(self) -> None:
        """Let go of what uses the session's database, which is still open."""


class ExtraSchema(Protocol):
    """Tables as SQL over `events`."""

    def attach(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Make the tables; each reads the temporary view `events` of the cursor that asks."""


EXTRA_SCHEMAS: dict[str, ExtraSchema] = {}
"""An ExtraSchema, or a module that is one, by the name of its schema in small letters."""


def named_in(query: Query) -> set[str]:
    """Return the registered schemas that a query names."""
    # What was not parsed may name a schema anywhere: better one table too many.
    if not query.parsed:
        return {name for name in EXTRA_SCHEMAS if f"{name}." in query.sql.lower()}
    return {schema.lower() for schema, _ in query.tables} & EXTRA_SCHEMAS.keys()
