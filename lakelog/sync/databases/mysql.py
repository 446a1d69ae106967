"""MySQL and MariaDB as a target: `mysql://USER@HOST:PORT/DATABASE`, through PyMySQL.

The password comes from the URL or MYSQL_PWD, and is in no message. With `?ssl_ca=FILE` the server's
certificate and host name are checked; else the connection is encrypted where the server offers it.
Numbers that are not finite, which these databases cannot store, become NULL.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from lakelog import sql
from lakelog.clients import Address, ConnectionLost
from lakelog.errors import InvalidSetting, LakelogError, MissingPackage, SyncRefused
from lakelog.libraries import pa, pc
from lakelog.runtime.lazy import Lazy
from lakelog.sync.column_types import TypeNames
from lakelog.sync.databases.sql_target import SqlTarget
from lakelog.sync.target import KEY, WATERMARKS, RowRefused, TargetColumn, Watermark

pymysql = Lazy("pymysql")
_SHAPE = "a MySQL URL looks like mysql://USER@HOST:PORT/DATABASE"
_OPTIONS = ("ssl_ca", "ssl_cert", "ssl_key")
# ANSI_QUOTES for names as other databases have them; STRICT, or values would be cut without a word;
# the first event has the number 0, which AUTO_INCREMENT takes for none; an engine with
# transactions, whatever is the default; and no limits that are for people.
_SESSION = (
    "SET SESSION sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES,"
    "NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION', sql_notes = 1,"
    " time_zone = '+00:00', innodb_lock_wait_timeout = 30, default_storage_engine = InnoDB,"
    " sql_select_limit = 18446744073709551615, sql_big_selects = 1, sql_safe_updates = 0,"
    # A batch may take longer, and reads the lake in its transaction.
    " wait_timeout = 28800"
    # Only MariaDB reads the first comment, and only MySQL the second.
    "/*M!100300 , max_statement_time = 0, idle_transaction_timeout = 0,"
    " idle_write_transaction_timeout = 0 */ /*!50708 , max_execution_time = 0 */"
)
_LOCK = "lakelog_sync"
_SECONDS = 30
"""How long a statement waits for a lock, and for a server that does not answer to connect."""
_UNFILLED = "(columns were added, and their rows not yet written)"
"""The mapping of a table, which no sync has, from the moment that it gets columns."""
_BATCH_KEYS, _STATEMENT_BYTES = 1_000, 1 << 20
_BUSY = {1040, 1203, 1205, 1213, 1226, 1290, 1836}
_LOST = {1053, 1077, 1152, 1158, 1159, 1160, 1161, 1317, 1927, 4031, *_BUSY}
"""Errors of a server that stops, is full of connections, takes no writes while another one takes
over, or broke off what it did: try again."""
_IS_NULL, _CUT = 1048, 1265
_AGAINST_RULES = {_IS_NULL, 1062, 1369, 1452, 1644, 3819, 4025}
_OF_ROW = {1264, _CUT, 1292, 1366, 1406, 3140, *_AGAINST_RULES}
"""Errors of values: out of range, too long, of another type; null, twice, of no parent, or against
a constraint, a view or a trigger."""
_CLIENT = range(2000, 2100)
"""Errors of the connection itself."""


class MysqlTarget(SqlTarget):
    """A database of a server of MySQL 5.7, MariaDB 10.2, or later."""

    BEGIN = "START TRANSACTION"
    READ = "START TRANSACTION WITH CONSISTENT SNAPSHOT"
    SAVE = "REPLACE INTO {table} (name, version, watermark) VALUES ({values})"
    write_rows = 16_384
    type_names = TypeNames(
        {
            **{name: name.upper() for name in ("varchar", "json", "smallint", "bigint", "date")},
            "text": "LONGTEXT",
            "integer": "INT",
            "numeric": "DECIMAL",
            "double": "DOUBLE",
            "boolean": "TINYINT(1)",
            "timestamptz": "DATETIME(6)",
            "timestamp": "DATETIME(6)",
        }
    )
    BLOB = "LONGBLOB"
    HAS_SCALE = True
    ACCEPTED: ClassVar[dict[str, tuple[str, ...]]] = {
        "text": ("longtext", "mediumtext", "text", "varchar"),
        "timestamptz": ("datetime", "timestamp"),
        "blob": ("longblob", "mediumblob", "blob"),
    }

    def __init__(self, url: str) -> None:
        """Take the target of a URL. Raises InvalidSetting, which does not repeat it."""
        super().__init__()
        parsed = Address.parse(url, _SHAPE, _OPTIONS)
        database, *surplus = parsed.names()
        if not parsed.host or not database or surplus or len(parsed.hosts) > 1:
            raise InvalidSetting(_SHAPE)
        user, port = parsed.user or os.environ.get("USER", ""), parsed.port or 3306
        self.address = f"mysql://{user}@{Address.place(parsed.host, port)}/{database}"
        self._options: dict[str, Any] = {
            **parsed.options,
            "host": parsed.host,
            "port": port,
            "user": user,
            # As bytes: the driver would take text for Latin-1.
            "password": (parsed.password or os.environ.get("MYSQL_PWD", "")).encode(
                errors="surrogateescape"
            ),
            "database": database,
            "ssl_verify_identity": True if parsed.options else None,
        }

    def value_sql(self, column: TargetColumn) -> str:
        """Times without a zone, and numbers as far as there are such: none is -0."""
        name = sql.identifier(column.name)
        if column.kind == "double":
            return f"CASE WHEN isfinite({name}) THEN {name}::DOUBLE + 0 END"
        return f"{name}::TIMESTAMP" if column.kind == "timestamptz" else super().value_sql(column)

    def mismatch(self, column: TargetColumn, declared: str) -> str:
        """The type that a column has to have; also where a declared one has too few digits, which
        cuts values without a word."""
        is_time = column.kind in ("timestamp", "timestamptz")
        is_short = is_time and not declared.endswith("(6)")
        is_short |= column.kind == "double" and "(" in declared
        return self._type(column) if is_short else super().mismatch(column, declared)

    def begin(self, table: str, version: int) -> None:
        """Start a transaction on a table of this version; see SyncTarget."""
        with self._errors(table):
            # Named locks belong to the connection: they end with it, however it ends.
            # Not a lock of rows: statements such as CREATE TABLE end a transaction.
            if self._fetch(f"SELECT GET_LOCK('{_LOCK}', {_SECONDS})") != [(1,)]:
                raise ConnectionLost(f"{self.address}: another sync is writing")
            if not self._columns(WATERMARKS)[0]:
                self._fetch(
                    f"CREATE TABLE {WATERMARKS} (name VARCHAR(255) CHARACTER SET utf8mb4"
                    " COLLATE utf8mb4_bin PRIMARY KEY, version BIGINT NOT NULL,"
                    " watermark LONGTEXT CHARACTER SET utf8mb4 NOT NULL)"
                )
            self._require_transactions(table)
        super().begin(table, version)

    def _require_transactions(self, table: str) -> None:
        """Refuse tables whose rows would stay where a batch fails. Raises SyncRefused."""
        names = ", ".join(map(sql.literal, (table, WATERMARKS)))
        rows = self._fetch(
            "SELECT t.table_name, t.engine FROM information_schema.tables t"
            " JOIN information_schema.engines e ON e.engine = t.engine"
            f" WHERE t.table_schema = database() AND t.table_name IN ({names})"
            " AND coalesce(e.transactions, '') <> 'YES'"
        )
        for name, engine in rows:
            raise SyncRefused(
                f"{self.address}: table {name} is of the engine {engine}, which has no"
                f" transactions: ALTER TABLE {name} ENGINE = InnoDB"
            )

    def create(self, table: str, columns: Sequence[TargetColumn], keyed: bool) -> None:
        """Create the table; the transaction begins after it, so an empty one may be left."""
        super().create(table, columns, keyed)
        with self._errors(table):
            self._fetch(self.BEGIN)

    def extend(self, table: str, columns: Sequence[TargetColumn]) -> None:
        """Add columns; the transaction begins after them."""
        mark = self.watermarks().get(table)
        with self._errors(table):
            # ALTER TABLE ends the transaction. Of a sync that is cut off after it the next one has
            # to know that the columns are empty: it takes the mapping for another one.
            if mark is not None:
                self._save(table, dataclasses.replace(mark, mapping=_UNFILLED))
        super().extend(table, columns)
        with self._errors(table):
            self._fetch(self.BEGIN)

    def rollback(self) -> None:
        """Give the transaction up; never raises."""
        super().rollback()
        with contextlib.suppress(Exception):
            self._fetch(f"SELECT RELEASE_LOCK('{_LOCK}')")

    def commit(self, table: str, watermark: Watermark) -> None:
        """End the transaction with the watermark; see SyncTarget."""
        super().commit(table, watermark)
        with self._errors(table):
            self._fetch(f"SELECT RELEASE_LOCK('{_LOCK}')")

    def _open(self) -> Any:
        with MissingPackage.unless("mysql", "MySQL needs a driver"):
            connect = pymysql.connect
        options = {name: value for name, value in self._options.items() if value is not None}
        connection = connect(
            charset="utf8mb4", autocommit=True, connect_timeout=_SECONDS // 3, **options
        )
        self._connection = connection
        # Of each connection: a server's defaults may differ.
        self._fetch(_SESSION)
        # Their variables have other names in each server.
        self._fetch("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE")
        return connection

    def _fetch(self, statement: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def _rows(self, statement: str) -> Iterator[list[tuple[Any, ...]]]:
        # Not all at once in memory, as by its other cursors.
        with self._connection.cursor(pymysql.cursors.SSCursor) as cursor:
            cursor.execute(statement)
            while rows := list(cursor.fetchmany(self.write_rows)):
                yield rows

    def _insert(self, table: str, rows: pa.Table, ending: str) -> None:
        # ON DUPLICATE KEY would also replace rows that are equal in another unique column.
        if ending:
            self._delete(table, rows.select([KEY]))
        self._require_nullable(table, rows)
        names = ", ".join(map(sql.identifier, rows.column_names))
        into = f"INSERT INTO {self._name(table)} ({names}) VALUES ".encode()
        for values in _statements(_literals(rows)):
            # As bytes: the driver would look at each value by itself, ten times as slowly.
            self._connection.query(into + values)
            # Blanks at the end of a value that is too long are cut with a note, in any mode.
            for _, number, message in self._connection.show_warnings():
                if number == _CUT:
                    raise pymysql.err.DataError(number, message)

    def _require_nullable(self, table: str, rows: pa.Table) -> None:
        """Raise the error of a null for a NOT NULL column: the server may write the time of now, or
        the next number, in its place."""
        names = [sql.literal(name) for name in rows.column_names if rows[name].null_count]
        if names:
            required = self._fetch(
                f"SELECT column_name FROM information_schema.columns {_where(table)}"
                f" AND is_nullable = 'NO' AND column_name IN ({', '.join(names)})"
            )
            for (name,) in required:
                raise pymysql.err.DataError(_IS_NULL, f"Column '{name}' cannot be null")

    def _delete(self, table: str, keys: pa.Table) -> int:
        key_texts, count = [str(int(key)) for key in keys[KEY].to_pylist()], 0
        with self._connection.cursor() as cursor:
            # In parts: a statement must not be longer than max_allowed_packet.
            for start in range(0, len(key_texts), _BATCH_KEYS):
                some = ", ".join(key_texts[start : start + _BATCH_KEYS])
                condition = f"WHERE {KEY} IN ({some})"
                count += cursor.execute(f"DELETE FROM {self._name(table)} {condition}")
        return count

    def _columns(self, table: str) -> tuple[dict[str, str], bool]:
        rows = self._fetch(
            f"SELECT column_name, column_type FROM information_schema.columns {_where(table)}"
            " ORDER BY ordinal_position"
        )
        keys = self._fetch(
            "SELECT group_concat(column_name) FROM information_schema.statistics"
            f" {_where(table)} AND non_unique = 0 GROUP BY index_name"
        )
        return dict(rows), (KEY,) in keys

    def _definition(self, column: TargetColumn, keyed: bool) -> str:
        defined = super()._definition(column, keyed)
        # Of the database's own collation, two texts may be equal that differ in case.
        is_json = column.column_type is not None and column.column_type.is_json
        is_text = column.kind == "text" and not is_json
        return f"{defined} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin" if is_text else defined

    def _is_declared(self, expected: str, declared: str) -> bool:
        # MariaDB's JSON is text that it checks, and integers are shown with a width.
        if expected == "json":
            return declared in ("json", "longtext")
        return expected == declared or expected == declared.split("(")[0]

    def _explained(self, error: Exception, table: str) -> LakelogError:
        number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        reason = " ".join(str(error.args[-1] if error.args else error).split())
        # A wrong certificate is no lost connection: trying again would never help.
        if number in _LOST or number in _CLIENT or isinstance(error, (OSError, EOFError)):
            if re.search(r"certificate|SSL is required", reason):
                reason = f"{reason}: check ssl_ca, and that the certificate names this host"
                return SyncRefused(f"{self.address}: {reason}")
            return ConnectionLost(f"{self.address}: {reason}")
        place = f"{self.address}, table {table}" if table else self.address
        error_class = RowRefused if number in _OF_ROW else SyncRefused
        return error_class(f"{place}: {reason[:400]}{_ADVICE.get(number, '')}")


def _where(table: str) -> str:
    """SQL for what the catalog has of a table."""
    return f"WHERE table_schema = database() AND table_name = {sql.literal(table)}"


def _literals(rows: pa.Table) -> pa.Array:
    """Each row as a list of SQL literals, in parentheses."""
    columns = [_literal(column) for column in rows.combine_chunks().columns]
    inner = pc.binary_join_element_wise(*columns, ",")
    return pc.binary_join_element_wise("(", inner, ")", "")


def _literal(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as SQL literals."""
    value_type = column.type
    if pa.types.is_binary(value_type):
        # A blob has no literal in UTF-8 but its hexadecimal digits.
        literals = [None if value is None else f"x'{value.hex()}'" for value in column.to_pylist()]
        return pc.fill_null(pa.chunked_array([pa.array(literals, pa.string())]), "NULL")
    # Arrow writes a boolean as true, which MySQL has no literal for in a TINYINT.
    encoded = pc.cast(
        pc.cast(column, pa.int8()) if pa.types.is_boolean(value_type) else column, pa.string()
    )
    if pa.types.is_string(value_type) or pa.types.is_temporal(value_type):
        quoted = pc.replace_substring(encoded, "'", "''")
        encoded = pc.binary_join_element_wise("'", quoted, "'", "")
    return pc.fill_null(encoded, "NULL")


def _statements(rows: pa.ChunkedArray) -> Iterator[bytes]:
    """Join rows to statements of about a megabyte, which every server accepts."""
    waiting, size = list[bytes](), 0
    for row in pc.cast(rows, pa.binary()).to_pylist():
        waiting.append(row)
        size += len(row)
        if size >= _STATEMENT_BYTES:
            yield b",".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b",".join(waiting)


_ROW = "this batch was not written"
_ADVICE = {
    **dict.fromkeys((1044, 1045, 1049, 1698), ": check user, password and database"),
    **dict.fromkeys((1142, 1143, 1370), f": grant the right and run it again; {_ROW}"),
    **dict.fromkeys((1021, 1114, 3), f": free space and run it again; {_ROW}"),
    **dict.fromkeys(_AGAINST_RULES, f": change the row or the constraint; {_ROW}"),
    **dict.fromkeys((1264, _CUT, 1366, 1406), f": widen the column with ALTER TABLE; {_ROW}"),
    1153: f": raise max_allowed_packet on the server; {_ROW}",
}
"""What to do next, by the number of the error."""
