"""PostgreSQL as a target: `postgresql://USER@HOST:PORT/DATABASE`, through ADBC.

Rows go in by COPY; where rows of the same keys may be there, into a temporary table first, and from
there by INSERT ... ON CONFLICT. The password comes from the URL, PGPASSWORD or ~/.pgpass, and is in
no message. Text with NUL characters, which PostgreSQL cannot store, gets U+FFFD in their place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from lakelog import sql
from lakelog.clients import Address, ConnectionLost
from lakelog.errors import InvalidSetting, LakelogError, MissingPackage, SyncRefused
from lakelog.libraries import pa, pc
from lakelog.runtime.lazy import Lazy
from lakelog.sync.column_types import TypeNames
from lakelog.sync.databases.adbc import AdbcConnection
from lakelog.sync.databases.sql_target import SqlTarget
from lakelog.sync.target import KEY, RowRefused, TargetColumn

driver = Lazy("adbc_driver_postgresql")
_OLDEST = 120_000
"""The oldest server that is accepted, as `server_version_num` counts."""
_DEFAULTS = {
    "connect_timeout": "5",
    "application_name": "lakelog",
    "client_encoding": "UTF8",
    # A server whose machine is gone would be waited for until the kernel gives up, after 15 min.
    "keepalives_idle": "10",
    "tcp_user_timeout": "30000",
}
_SESSION = {
    # The text that we send, whatever the environment, the role or the database say.
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    # A sync that hangs elsewhere in a transaction must not be waited for without end.
    "lock_timeout": "30s",
    # Those of roles are for people: a batch may take longer, and reads the lake in its transaction.
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_read_only": "off",
}
_NAME_BYTES = 63
"""Longer names are cut off by the server, so that they would never be found again."""
_FROM_2000 = 946_684_800_000_000
"""Microseconds from 1970 on to where the server counts from."""
_STAGED, _KEYS = "lakelog_rows", "lakelog_keys"
_LOST = re.compile(
    r"server closed the connection|no connection to the server|connection not open|Connection re"
    r"|could not (receive|send)|Failed to connect|terminating connection|SSL|timeout expired"
    r"|connection pointer is NULL|lost synchronization|Broken pipe|EOF|unexpectedly|no COPY in"
)
_FATAL = re.compile(r"FATAL:\s+(.*)")
_PERMANENT = re.compile(
    r"authentication failed|does not exist|not permitted|no pg_hba|no password supplied"
    r"|invalid (connection option|URI|integer|port)|translate host name"
)


class PostgresTarget(SqlTarget):
    """A database of a PostgreSQL server, version 12 or later."""

    # Of another level, as a role may have it, whoever waits for the lock sees the watermark and the
    # rows as they were before.
    BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
    READ = "BEGIN ISOLATION LEVEL REPEATABLE READ"
    # Two syncs would otherwise both plan against one watermark, or both create the table.
    LOCK = "SELECT 1 FROM pg_advisory_xact_lock(1818323813)"
    type_names = TypeNames(
        {
            **{name: name for name in ("text", "json", "jsonb", "uuid", "boolean", "date")},
            **{name: name for name in ("smallint", "integer", "bigint", "numeric")},
            "varchar": "character varying",
            "double": "double precision",
            "timestamptz": "timestamp with time zone",
            "timestamp": "timestamp without time zone",
        },
        has_arrays=True,
    )
    BLOB = "bytea"
    ACCEPTED: ClassVar[dict[str, tuple[str, ...]]] = {
        "text": ("text", "character varying", "json", "jsonb", "uuid"),
        "bigint": ("bigint", "integer", "smallint", "numeric"),
    }

    def __init__(self, url: str) -> None:
        """Take the target of a URL. Raises InvalidSetting, which does not repeat it."""
        super().__init__()
        self._declared: dict[str, str] | None = None
        usage = "a PostgreSQL URL looks like postgresql://USER@HOST:PORT/DATABASE"
        parsed = Address.parse(url, usage)
        database, *surplus = parsed.names()
        if surplus:
            raise InvalidSetting(usage)
        secrets = (
            parsed.password,
            parsed.options.get("password"),
            parsed.options.get("sslpassword"),
        )
        self._secrets = [secret for secret in (*secrets, os.environ.get("PGPASSWORD")) if secret]
        hosts = ",".join(Address.place(*host) for host in parsed.hosts)
        user = f"{parsed.user}@" if parsed.user else ""
        self.address = f"postgresql://{user}{hosts}/{database}"
        # Each part escaped: libpq lets the first @ end the password, and repeats what it cannot
        # decode, which may be the password.
        user, password, path = map(Address.quoted, (parsed.user, parsed.password, database))
        login = f"{user}{f':{password}' if password else ''}@" if user or password else ""
        query = urlencode(
            _DEFAULTS | dict(parsed.options), quote_via=quote, safe="", errors="surrogateescape"
        )
        self._url = f"postgresql://{login}{hosts}/{path}?{query}"

    def value_sql(self, column: TargetColumn) -> str:
        """Text without NUL characters; all else as it is."""
        value = super().value_sql(column)
        return f"replace({value}, chr(0), chr(65533))" if column.kind == "text" else value

    def mismatch(self, column: TargetColumn, declared: str) -> str:
        """The type that a column has to have; a list may be an array of the database."""
        if declared.endswith("[]") and column.column_type is None:
            return "" if column.is_list else self._type(column)
        return super().mismatch(column, declared)

    def _open(self) -> Any:
        with MissingPackage.unless("postgres", "PostgreSQL needs a driver"):
            self._connection = AdbcConnection(driver.connect(self._url))
        # By number: the text has the names of distributions in it.
        version = int(self._fetch("SELECT current_setting('server_version_num')")[0][0])
        _require_version(version, self.address)
        settings = (f"set_config('{name}', '{value}', false)" for name, value in _SESSION.items())
        self._fetch(f"SELECT {', '.join(settings)}")
        return self._connection

    def _rows(self, statement: str) -> Iterator[pa.RecordBatch]:
        yield from self._connection.fetch_batches(statement)

    def _readable(self, name: str, declared: str) -> str:
        column = sql.identifier(name)
        if declared.endswith("[]"):
            return f"to_json({column})::text"
        # As text 5.00 is no integer, which the mapping may have for it.
        if declared.startswith("numeric"):
            return f"CASE WHEN {column} = trunc({column}) THEN trunc({column}) ELSE {column} END"
        return f"{column}::text" if declared in _TEXTUAL else column

    def begin(self, table: str, version: int) -> None:
        """Start a transaction on a table of this version; see SyncTarget."""
        super().begin(table, version)
        self._declared = None

    def _insert(self, table: str, rows: pa.Table, ending: str) -> None:
        self._require_finite(table, rows)
        if self._declared is None:
            # Looked up once in a transaction, which nobody else can change within.
            self._declared = self._columns(table)[0]
        columns = [_Staged.of(field, self._declared) for field in rows.schema]
        # COPY straight into the table, where no row of these keys may be there.
        if not ending and not any(column.cast for column in columns):
            *schema, name = table.split(".")
            self._connection.append(name, rows, schema=schema[0] if schema else "")
            return
        # Of our columns alone: others may be NOT NULL with a default, or an identity.
        staged = ", ".join(column.staged for column in columns)
        self._stage(_STAGED, f"AS SELECT {staged} FROM {self._name(table)} WITH NO DATA")
        # A temporary table is nobody else's, and is dropped with the transaction.
        self._connection.append(_STAGED, rows, temporary=True)
        names = ", ".join(column.name for column in columns)
        values = ", ".join(column.cast or column.name for column in columns)
        into = f"INSERT INTO {self._name(table)} ({names})"
        self._fetch(f"{into} SELECT {values} FROM {_STAGED}{ending}")

    def _require_finite(self, table: str, rows: pa.Table) -> None:
        """Raise RowRefused for an infinite time: the driver sends the year 294247 in its place."""
        for name in (f.name for f in rows.schema if pa.types.is_timestamp(f.type)):
            bounds = pc.min_max(rows[name].cast(pa.int64())).as_py()
            if bounds["max"] == 2**63 - 1 or (bounds["min"] or 0) < _FROM_2000 - 2**63:
                raise RowRefused(
                    f"{self.address}, table {table}: column {name} has an infinite time, which"
                    f" cannot be sent{_ADVICE['22P02']}"
                )

    def _delete(self, table: str, keys: pa.Table) -> int:
        self._stage(_KEYS, f"AS SELECT NULL::bigint AS {KEY} WITH NO DATA")
        self._connection.append(_KEYS, keys, temporary=True)
        deleted = f"DELETE FROM {self._name(table)} t USING {_KEYS} k WHERE t.{KEY} = k.{KEY}"
        return int(self._fetch(f"WITH d AS ({deleted} RETURNING 1) SELECT count(*) FROM d")[0][0])

    def _stage(self, name: str, query: str) -> None:
        """Have an empty temporary table with the columns of a query."""
        self._fetch(f"DROP TABLE IF EXISTS pg_temp.{name}")
        self._fetch(f"CREATE TEMPORARY TABLE {name} ON COMMIT DROP {query}")

    def _columns(self, table: str) -> tuple[dict[str, str], bool]:
        # to_regclass is NULL for a table that is not there, where a cast would raise.
        oid = f"to_regclass({sql.literal(self._name(table))})"
        rows = self._fetch(
            "SELECT attname::text, format_type(atttypid, atttypmod), attnum FROM pg_attribute"
            f" WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )
        numbers = {name: number for name, _, number in rows}
        # A partial index is no constraint: ON CONFLICT could not use it.
        keys = self._fetch(
            f"SELECT indkey::text FROM pg_index WHERE indrelid = {oid} AND indisunique"
            " AND indpred IS NULL"
        )
        is_keyed = str(numbers.get(KEY)) in [row[0] for row in keys]
        return {name: sql_type for name, sql_type, _ in rows}, is_keyed

    def _name(self, table: str) -> str:
        return ".".join(sql.identifier(_fitting(name)) for name in table.split("."))

    def _definition(self, column: TargetColumn, keyed: bool) -> str:
        _fitting(column.name)
        return super()._definition(column, keyed)

    def _explained(self, error: Exception, table: str) -> LakelogError:
        state = getattr(error, "sqlstate", None) or ""
        message = Address.without_secrets(str(error), self._secrets)
        fatal = _FATAL.search(message)
        # Classes of errors that pass: connection, deadlock, shutdown; a lock that was not given in
        # time, and a standby, which may take over.
        if state[:2] in ("08", "40", "57") or state in ("55P03", "25006"):
            return ConnectionLost(f"{self.address}: {_line(message)}")
        if not state and _PERMANENT.search(message):
            reason = fatal[1] if fatal else _line(message)
            return SyncRefused(f"{self.address}: {reason.strip()}{_ADVICE['28']}")
        if not state and (fatal or _LOST.search(message)):
            return ConnectionLost(f"{self.address}: {_line(message)}")
        place = f"{self.address}, table {table}" if table else self.address
        advice = _ADVICE.get(state) or _ADVICE.get(state[:2], "")
        # Data exceptions, and what is against a constraint, a view, an index or a trigger.
        is_of_row = {state, state[:2]} & {"22", *_AGAINST_RULES}
        error_class = RowRefused if is_of_row else SyncRefused
        return error_class(f"{place}: {_line(message)}{advice}")


@dataclass(frozen=True)
class _Staged:
    """A column of rows: its name, how it stands in the staging table, and how its values become
    those of the table, where they are not the same."""

    name: str
    staged: str
    cast: str = ""

    @classmethod
    def of(cls, field: pa.Field, declared: dict[str, str]) -> _Staged:
        """Return the column of an Arrow field for a table with these types."""
        name, sql_type = sql.identifier(field.name), declared.get(field.name, "")
        base = "text" if pa.types.is_string(field.type) else ""
        base = "bigint" if pa.types.is_int64(field.type) else base
        plain = sql_type.split("(")[0]
        if not base or plain in (base, "character varying", ""):
            return cls(name, name)
        cast = name
        if sql_type.endswith("[]"):
            elements = f"SELECT value FROM jsonb_array_elements_text({name}::jsonb)"
            cast = f"CASE WHEN {name} IS NOT NULL THEN ARRAY({elements})::{sql_type} END"
        # All else is cast as in an assignment, which refuses what does not fit.
        elif plain in _TEXTUAL:
            cast = f"{name}::{plain}"
        return cls(name, f"NULL::{base} AS {name}", cast)


def _fitting(name: str) -> str:
    """Return a name that PostgreSQL keeps as it is. Raises SyncRefused."""
    if len(name.encode()) > _NAME_BYTES:
        raise SyncRefused(
            f"the name {name[:20]}… is longer than the {_NAME_BYTES} bytes that PostgreSQL keeps:"
            " choose a shorter one, for a column with AS"
        )
    return name


_TEXTUAL = frozenset(("json", "jsonb", "uuid"))
_AGAINST_RULES = ("23", "44", "54", "P0001")
_ADVICE = {
    "22P05": ": use a database with the encoding UTF8, or columns of text for such values",
    "22P02": ": leave the value out with --query, or let the column be text",
    "22001": ": widen the column with ALTER TABLE and run it again; this batch was not written",
    "22": ": change the type of the column and run it again; this batch was not written",
    **dict.fromkeys(
        _AGAINST_RULES,
        ": change the row or the constraint and run it again; this batch was not written",
    ),
    "42501": ": grant the right and run it again; this batch was not written",
    "53100": ": free space on the server and run it again; this batch was not written",
    "53": ": free it and run it again; this batch was not written",
    "28": ": check user, password, host and database, then run it again",
}
"""What to do next, by SQLSTATE or its class."""


def _line(message: str) -> str:
    """What PostgreSQL says, in one line: the error, its first detail, and where."""
    lines = []
    for mark in ("ERROR", "FATAL", "DETAIL", "CONTEXT"):
        if match := re.search(rf"{mark}:\s+(.*)", message):
            # The values of a row can be long, and say little that its key does not.
            lines.append(match[1].strip()[:200].rstrip("."))
    summary = "; ".join(lines) or message.split("\n")[0].split("failed: ")[-1]
    return " ".join(summary.split())


def _require_version(number: int, address: str) -> None:
    """Raise SyncRefused for a server that is too old."""
    if number < _OLDEST:
        major = (
            f"{number // 10_000}"
            if number >= 100_000
            else f"{number // 10_000}.{number // 100 % 100}"
        )
        raise SyncRefused(
            f"{address}: PostgreSQL {major} is too old: upgrade it to {_OLDEST // 10_000} or later"
        )
