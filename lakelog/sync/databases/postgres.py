"""PostgreSQL as a target: `postgresql://USER@HOST:PORT/DATABASE`, through ADBC.

Rows go in by COPY; where rows of the same keys may be there, into a temporary table first, and from
there by INSERT ... ON CONFLICT. The password comes from the URL, PGPASSWORD or ~/.pgpass, and is in
no message. Text with NUL characters, which PostgreSQL cannot store, gets U+FFFD in their place.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, urlencode

from lakelog.clients.address import Address, shown, without_secrets
from lakelog.clients.failure import ConnectionLost
from lakelog.errors import InvalidSetting, LakelogError, MissingPackage, SyncRefused
from lakelog.runtime.lazy import Lazy
from lakelog.segments import sql
from lakelog.sync.databases.adbc import AdbcConnection
from lakelog.sync.databases.sql_target import SqlTarget
from lakelog.sync.target import KEY, Column

if TYPE_CHECKING:
    import pyarrow as pa

driver = Lazy("adbc_driver_postgresql")
_OLDEST = 120_000
"""The oldest server that is accepted, as `server_version_num` counts."""
_DEFAULTS = {
    "connect_timeout": "5",
    "application_name": "lakelog",
    # A server whose machine is gone would be waited for until the kernel gives up, after 15 min.
    "keepalives_idle": "10",
    "tcp_user_timeout": "30000",
}
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

    # Two syncs would otherwise both plan against one watermark, or both create the table.
    LOCK = "SELECT 1 FROM pg_advisory_xact_lock(1818323813)"
    TYPES: ClassVar[dict[str, str]] = {
        "text": "text",
        "bigint": "bigint",
        "double": "double precision",
        "boolean": "boolean",
        "timestamptz": "timestamp with time zone",
        "timestamp": "timestamp without time zone",
        "date": "date",
        "blob": "bytea",
        "numeric": "numeric",
    }
    ACCEPTED: ClassVar[dict[str, tuple[str, ...]]] = {
        kind: (name,) for kind, name in TYPES.items()
    } | {"text": ("text", "character varying")}

    def __init__(self, url: str) -> None:
        """Take the target of a URL. Raises InvalidSetting, which does not repeat it."""
        super().__init__()
        words = "a PostgreSQL URL looks like postgresql://USER@HOST:PORT/DATABASE"
        to = Address.parse(url, words)
        database, *more = to.names()
        if more:
            raise InvalidSetting(words)
        secrets = (to.password, to.options.get("password"), to.options.get("sslpassword"))
        self._secrets = [each for each in (*secrets, os.environ.get("PGPASSWORD")) if each]
        hosts = ",".join(shown(*host) for host in to.hosts)
        user = f"{to.user}@" if to.user else ""
        self.address = f"postgresql://{user}{hosts}/{database}"
        # Each part escaped: libpq lets the first @ end the password, and repeats what it cannot
        # decode, which may be the password.
        user, password, path = (quote(each, safe="") for each in (to.user, to.password, database))
        login = f"{user}{f':{password}' if password else ''}@" if user or password else ""
        query = urlencode(_DEFAULTS | dict(to.options), quote_via=quote, safe="")
        self._url = f"postgresql://{login}{hosts}/{path}?{query}"

    def value_sql(self, column: Column) -> str:
        """Text without NUL characters; all else as it is."""
        value = super().value_sql(column)
        return f"replace({value}, chr(0), chr(65533))" if column.kind == "text" else value

    def _open(self) -> Any:
        try:
            self._connection = AdbcConnection(driver.connect(self._url))
        except ImportError:
            raise MissingPackage(
                "PostgreSQL needs a driver: pip install 'lakelog[postgres]'"
            ) from None
        version = int(self._fetch("SELECT current_setting('server_version_num')")[0][0])
        _require_version(version, self.address)
        # A sync that hangs elsewhere in a transaction must not be waited for without end.
        self._fetch("SET lock_timeout = '30s'")
        return self._connection

    def _insert(self, table: str, rows: pa.Table, ending: str) -> None:
        if not ending:
            *schema, name = table.split(".")
            self._connection.append(name, rows, schema=schema[0] if schema else "")
            return
        self._stage(_STAGED, f"LIKE {self._name(table)}")
        self._connection.append(_STAGED, rows, temporary=True)
        names = ", ".join(map(sql.identifier, rows.column_names))
        into = f"INSERT INTO {self._name(table)} ({names})"
        self._fetch(f"{into} SELECT {names} FROM {_STAGED}{ending}")

    def _delete(self, table: str, keys: pa.Table) -> int:
        self._stage(_KEYS, f"{KEY} bigint")
        self._connection.append(_KEYS, keys, temporary=True)
        deleted = f"DELETE FROM {self._name(table)} t USING {_KEYS} k WHERE t.{KEY} = k.{KEY}"
        return int(self._fetch(f"WITH d AS ({deleted} RETURNING 1) SELECT count(*) FROM d")[0][0])

    def _stage(self, name: str, columns: str) -> None:
        """Have an empty temporary table."""
        self._fetch(f"DROP TABLE IF EXISTS pg_temp.{name}")
        self._fetch(f"CREATE TEMPORARY TABLE {name} ({columns}) ON COMMIT DROP")

    def _columns(self, table: str) -> tuple[dict[str, str], bool]:
        oid = f"to_regclass({sql.literal(self._name(table))})"
        rows = self._fetch(
            "SELECT attname::text, format_type(atttypid, atttypmod), attnum FROM pg_attribute"
            f" WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )
        numbers = {name: number for name, _, number in rows}
        keys = self._fetch(
            f"SELECT indkey::text FROM pg_index WHERE indrelid = {oid} AND indisunique"
            " AND indpred IS NULL"
        )
        is_keyed = str(numbers.get(KEY)) in [row[0] for row in keys]
        return {name: kind for name, kind, _ in rows}, is_keyed

    def _name(self, table: str) -> str:
        return ".".join(map(sql.identifier, table.split(".")))

    def _explained(self, error: Exception, table: str) -> LakelogError:
        state = getattr(error, "sqlstate", None) or ""
        words = without_secrets(str(error), self._secrets)
        fatal = _FATAL.search(words)
        if state[:2] in ("08", "40", "57") or state == "55P03":
            return ConnectionLost(f"{self.address}: {_line(words)}")
        if not state and _PERMANENT.search(words):
            what = fatal[1] if fatal else _line(words)
            return SyncRefused(f"{self.address}: {what.strip()}{_ADVICE['28']}")
        if not state and (fatal or _LOST.search(words)):
            return ConnectionLost(f"{self.address}: {_line(words)}")
        where = f"{self.address}, table {table}" if table else self.address
        advice = _ADVICE.get(state) or _ADVICE.get(state[:2], "")
        return SyncRefused(f"{where}: {_line(words)}{advice}")


_ADVICE = {
    "22001": ": widen the column with ALTER TABLE and run it again; this batch was not written",
    "22": ": change the type of the column and run it again; this batch was not written",
    "23": ": change the row or the constraint and run it again; this batch was not written",
    "42501": ": grant the right and run it again; this batch was not written",
    "53100": ": free space on the server and run it again; this batch was not written",
    "53": ": free it and run it again; this batch was not written",
    "28": ": check user, password, host and database, then run it again",
}
"""What to do next, by SQLSTATE or its class."""


def _line(words: str) -> str:
    """What PostgreSQL says, in one line: the error, its first detail, and where."""
    kept = []
    for mark in ("ERROR", "FATAL", "DETAIL", "CONTEXT"):
        if found := re.search(rf"{mark}:\s+(.*)", words):
            # The values of a row can be long, and say little that its key does not.
            kept.append(found[1].strip()[:200].rstrip("."))
    text = "; ".join(kept) or words.split("\n")[0].split("failed: ")[-1]
    return " ".join(text.split())


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
