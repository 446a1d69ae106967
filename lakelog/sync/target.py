"""Targets of a sync: what a database has to do, and the values that pass between it and the engine.

A transaction takes a table from one state to the next: `begin`, then `create`, `extend`, `delete`,
`clear` and `write` as needed, then `commit` with the watermark. The watermark is a row of the table
`lakelog_sync` in the same database, so rows and watermark are there together or not at all, and
whoever reads the watermark knows what is in the table, also after a lost connection.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import urllib.parse
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import ClassVar

import orjson

from lakelog.errors import InvalidSetting, LakelogError, SyncRefused
from lakelog.libraries import pa
from lakelog.sync.column_types import ColumnType, TypeNames

WATERMARKS = "lakelog_sync"
"""The table of watermarks in a target: name of the table, version, watermark as JSON."""
KEY = "seq"
"""The column that identifies an event: no compaction changes it, no publish gives it twice."""

REPLACE = "replace"
"""The mode in which a table is computed again as a whole."""


class WatermarkMoved(LakelogError):
    """Raised by `begin` when another sync has changed the table: read the watermark again."""


class RowRefused(SyncRefused):
    """Raised where a target does not accept a value of a row, as by its type or a constraint."""


@dataclass(frozen=True)
class Watermark:
    """What a table holds: the mapped events of `snapshot` whose seq is below `upto`.

    `events` counts them, `rows` what the mapping made of them; `events` is -1 in the middle of a
    back-fill. `version` is one more with each commit. `state_time` is when the snapshot was
    published, `synced_at` when it was written here (us). `tip` is the digest of the last event: by
    it the state is known again after `move` and `snapshot` were collected. `columns` are the types
    that a user gave columns, and `destroyed_keys` counts the keys of subjects that were destroyed
    before its rows were read; `has_fields` says whether they have protected fields, opened.
    `refusals` is a state whose quarantine has the rows that the table refused.
    """

    lake_id: str
    branch: str
    mapping: str
    mode: str
    move: int = 0
    generation: int = 0
    snapshot: str = ""
    upto: int = 0
    events: int = 0
    rows: int = 0
    version: int = 0
    state_time: int = 0
    synced_at: int = 0
    tip: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    destroyed_keys: int = 0
    has_fields: bool = False
    refusals: str = ""

    def to_json(self) -> str:
        """Return the text that is stored in the target."""
        record = dataclasses.asdict(self)
        # Versions that know of none of them read it where there are none.
        for name in ("columns", "destroyed_keys", "has_fields", "refusals"):
            if not record[name]:
                del record[name]
        return orjson.dumps(record).decode()

    @classmethod
    def parse(cls, record: str, place: str) -> Watermark:
        """Return the watermark of a text. Raises LakelogError where a later version wrote it."""
        try:
            return cls(**orjson.loads(record))
        except (TypeError, ValueError):
            raise LakelogError(
                f"{place}: the watermark in {WATERMARKS} cannot be read: upgrade lakelog"
            ) from None


@dataclass(frozen=True)
class TargetColumn:
    """A column of the mapping: `kind` is text, bigint, double, boolean, timestamptz, timestamp,
    date, blob or numeric; `scale` is that of a numeric. Text may be JSON, perhaps of a list.
    `engine_type` is what the mapping yields, `column_type` the type that a user gave it."""

    name: str
    kind: str
    scale: int = 0
    is_json: bool = False
    is_list: bool = False
    engine_type: str = ""
    column_type: ColumnType | None = None


@dataclass(frozen=True)
class TableShape:
    """A table as it is in the target: types by column, and whether KEY alone is a unique key; one
    that is schemaless takes any columns, and of one that expires the target drops old rows."""

    types: dict[str, str]
    is_keyed: bool
    is_empty: bool
    is_schemaless: bool = False
    expires: bool = False

    def lacking(self, columns: Sequence[TargetColumn]) -> tuple[TargetColumn, ...]:
        """The columns that are to be added to it."""
        # Names are compared as SQL does it where a user created the table.
        names = {name.lower() for name in self.types}
        return tuple(c for c in columns if not self.is_schemaless and c.name.lower() not in names)


class SyncTarget(abc.ABC):
    """A database that a sync writes to. One thread uses it.

    Every method raises ConnectionLost when the connection breaks, and SyncRefused for what the
    database does not accept; then the transaction is gone.
    """

    address: str
    """Where it is, for messages: without a password."""
    type_names: ClassVar[TypeNames]
    """The types that a user may give a column."""
    table = "events"
    """The table of a sync that names none: what the URL names, or `events`."""
    write_rows = 65_536
    """How many rows `write` takes best at a time; it may be given fewer."""
    batch_rows = 1_000_000
    """How many rows a transaction takes best: it may keep them in memory, or undo them."""
    can_set_aside = False
    """Whether `attempt` undoes what is refused within it."""
    is_exclusive = False
    """Whether nobody else can open it while it is connected."""
    can_replace = False
    """Whether all rows of a table, which need no KEY, can be exchanged in one transaction."""

    def exists(self) -> bool:
        """Whether the database may be there: of a server, only connecting tells. A file that is not
        is created by `connect`."""
        return True

    @abc.abstractmethod
    def connect(self) -> None:
        """Connect, or connect again. Raises MissingPackage, ConnectionLost, SyncRefused."""

    def interrupted(self, table: str) -> Watermark | None:
        """The watermark that `recover` would leave, its rows not counted; None where nothing is to
        be undone, as a transaction that is cut off leaves nothing."""
        return None

    def recover(self, table: str) -> None:  # noqa: B027
        """Undo what a batch that was cut off has left in a table, where no transaction does it.

        Raises WatermarkMoved while another sync writes the batch."""

    @abc.abstractmethod
    def watermarks(self) -> dict[str, Watermark]:
        """The watermarks of all tables, by name."""

    @abc.abstractmethod
    def shape(self, table: str) -> TableShape | None:
        """A table as it is, None where there is none."""

    @abc.abstractmethod
    def value_sql(self, column: TargetColumn) -> str:
        """The SQL by which DuckDB turns a column into what `write` takes."""

    @abc.abstractmethod
    def mismatch(self, column: TargetColumn, declared: str) -> str:
        """The type that a column has to have, where the declared one does not fit; or nothing."""

    @abc.abstractmethod
    def begin(self, table: str, version: int) -> None:
        """Start a transaction. Raises WatermarkMoved if the table has another version (0: none)."""

    @abc.abstractmethod
    def create(self, table: str, columns: Sequence[TargetColumn], keyed: bool) -> None:
        """Create the table, with KEY as its primary key if `keyed`."""

    @abc.abstractmethod
    def extend(self, table: str, columns: Sequence[TargetColumn]) -> None:
        """Add columns."""

    @abc.abstractmethod
    def clear(self, table: str) -> None:
        """Delete all rows."""

    @abc.abstractmethod
    def delete(self, table: str, keys: pa.Table) -> int:
        """Delete the rows of these events, given as one column KEY; return how many they were."""

    @abc.abstractmethod
    def write(self, table: str, rows: pa.Table, keyed: bool) -> None:
        """Insert rows; with `keyed` a row replaces one of the same KEY."""

    def attempt(self) -> AbstractContextManager[None]:
        """Where `can_set_aside`: after a RowRefused within it, the transaction goes on without what
        was written within; or, as by default, it can be written again, and is there once."""
        return contextlib.nullcontext()

    @abc.abstractmethod
    def commit(self, table: str, watermark: Watermark) -> None:
        """End the transaction with the watermark. If it raises, it may have happened all the same:
        the watermark in the target says."""

    @abc.abstractmethod
    def rollback(self) -> None:
        """Give the transaction up; never raises."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the connection; never raises."""

    def moved(self, table: str) -> WatermarkMoved:
        """Return the error that another sync has changed a table."""
        return WatermarkMoved(f"{self.address}: another sync is writing to {table}")


def path_of(url: str, scheme: str) -> str:
    """Return the path of `SCHEME:PATH` or `SCHEME:///PATH`. Raises InvalidSetting for none."""
    location = url.removeprefix(f"{scheme}:")
    # As SQLAlchemy has it: three slashes before a relative path, four before an absolute one.
    path = urllib.parse.unquote(location[3:]) if location.startswith("///") else location
    if not path or path.startswith("//") or path == ":memory:" or "\0" in path:
        raise InvalidSetting(f"a target of {scheme} is a file, such as {scheme}:events.db")
    return path
