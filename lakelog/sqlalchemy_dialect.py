"""SQLAlchemy over a lake: `create_engine("lakelog:///lake")`, found by an entry point.

    lakelog:///PATH[?branch=NAME][&at=REF]     three slashes before a relative path, four before
                                               an absolute one, as SQLAlchemy's URLs of files have

A lake is read and never written: INSERT and DDL raise NotSupportedError. Tables are `events` and
`quarantine`, views are those of `lakelog views`; `inspect` and `Table(..., autoload_with=engine)`
give their columns. Columns of JSON are parsed by Python's json; `events.c.data["ms"]` is a field.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, cast

from sqlalchemy import exc, types
from sqlalchemy.engine import URL, Connection, reflection
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.engine.interfaces import (
    ReflectedColumn,
    ReflectedPrimaryKeyConstraint,
    ReflectedTableComment,
)
from sqlalchemy.sql import compiler
from sqlalchemy.sql.elements import BinaryExpression

from lakelog import dbapi
from lakelog.errors import InvalidView
from lakelog.query import Query
from lakelog.sql import identifier
from lakelog.values import JsonObject

_OPTIONS = ("branch", "at")
_SCHEMA = "main"
_TYPES: dict[str, Callable[[], types.TypeEngine[Any]]] = {
    **dict.fromkeys(("VARCHAR", "ENUM"), types.Text),
    **dict.fromkeys(("TINYINT", "SMALLINT", "UTINYINT"), types.SmallInteger),
    **dict.fromkeys(("INTEGER", "USMALLINT"), types.Integer),
    **dict.fromkeys(("BIGINT", "UINTEGER"), types.BigInteger),
    **dict.fromkeys(("HUGEINT", "UHUGEINT", "UBIGINT"), lambda: types.Numeric(38, 0)),
    **dict.fromkeys(("FLOAT", "DOUBLE"), types.Double),
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"), types.DateTime),
    "TIMESTAMP WITH TIME ZONE": lambda: types.DateTime(timezone=True),
    "BOOLEAN": types.Boolean,
    "BLOB": types.LargeBinary,
    "DATE": types.Date,
    "TIME": types.Time,
    "INTERVAL": types.Interval,
    "JSON": types.JSON,
    "UUID": types.Uuid,
}
"""Types of the engine; all others, which are nested, stay as Python values."""


def _pointer(steps: Sequence[str | int]) -> str:
    """Return a JSON pointer (RFC 6901): unlike a path, it takes any name as it is."""
    return "/" + "/".join(str(step).replace("~", "~0").replace("/", "~1") for step in steps)


class _Member(types.JSON.JSONIndexType):
    """`data["model"]`, or an element by its number."""

    def bind_processor(self, dialect: object) -> Callable[[Any], str | int]:
        return lambda step: step if isinstance(step, int) else _pointer([step])


class _Path(types.JSON.JSONPathType):
    """`data["usage", "tokens", 0]`."""

    def bind_processor(self, dialect: object) -> Callable[[Any], str | int]:
        return _pointer


_STEPS: Any = {types.JSON.JSONIndexType: _Member, types.JSON.JSONPathType: _Path}


class _Compiler(compiler.SQLCompiler):
    """SQL as DuckDB has it, where it differs from the standard."""

    def visit_json_getitem_op_binary(
        self, binary: BinaryExpression[Any], operator: object, **kwargs: object
    ) -> str:
        """A member of JSON: as JSON, or as the type that `.as_integer()` and others ask for."""
        document, path = (self.process(n, **kwargs) for n in (binary.left, binary.right))
        if isinstance(binary.type, types.JSON):
            return f"({document} -> {path})"
        type_sql = self.dialect.type_compiler_instance.process(binary.type)
        return f"CAST({document} ->> {path} AS {type_sql})"

    visit_json_path_getitem_op_binary = visit_json_getitem_op_binary

    def visit_regexp_match_op_binary(
        self, binary: BinaryExpression[Any], operator: object, **kwargs: object
    ) -> str:
        value, pattern = (self.process(n, **kwargs) for n in (binary.left, binary.right))
        return f"regexp_matches({value}, {pattern})"

    def visit_not_regexp_match_op_binary(
        self, binary: BinaryExpression[Any], operator: object, **kwargs: object
    ) -> str:
        return f"NOT {self.visit_regexp_match_op_binary(binary, operator, **kwargs)}"


class _TypeCompiler(compiler.GenericTypeCompiler):
    """Names of types, where DuckDB's differ from the standard's."""

    def visit_FLOAT(self, type_: object, **kwargs: object) -> str:
        return "DOUBLE"  # FLOAT has four bytes here, Python's float eight

    def visit_TIMESTAMP(self, type_: types.DateTime, **kwargs: object) -> str:
        return "TIMESTAMP WITH TIME ZONE" if type_.timezone else "TIMESTAMP"

    def visit_datetime(self, type_: types.DateTime, **kwargs: object) -> str:
        return self.visit_TIMESTAMP(type_, **kwargs)


class LakeDialect(DefaultDialect):
    """What SQLAlchemy asks of a database, answered by `lakelog.dbapi`."""

    name = driver = "lakelog"
    supports_statement_cache = True
    supports_native_boolean = True
    supports_native_uuid = True
    supports_native_decimal = True
    supports_alter = False
    supports_empty_insert = False
    supports_sane_rowcount = supports_sane_multi_rowcount = False
    default_paramstyle = "qmark"
    default_schema_name = _SCHEMA
    statement_compiler = _Compiler
    type_compiler_cls = _TypeCompiler
    colspecs = _STEPS

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        """Return the driver."""
        return dbapi

    def create_connect_args(self, url: URL) -> tuple[list[str], JsonObject]:
        """Return what `lakelog.connect` is called with. Raises ArgumentError."""
        if url.host or url.username or url.port:
            raise exc.ArgumentError(
                "a lake is a directory: lakelog:///PATH, or lakelog:////PATH from the root"
            )
        if not url.database:
            raise exc.ArgumentError("which lake? lakelog:///PATH names its directory")
        options = dict(url.query)
        # A misspelled option would open the present state in place of the one that was meant.
        unknown = sorted(options.keys() - set(_OPTIONS))
        if unknown:
            raise exc.ArgumentError(f"a lake has no option {unknown[0]}: {' and '.join(_OPTIONS)}")
        return [url.database], options

    def initialize(self, connection: Connection) -> None:
        """Ask nothing: every lake is alike, and has no isolation levels."""

    def do_ping(self, dbapi_connection: object) -> bool:
        """A lake that was opened can be read."""
        return True

    @reflection.cache
    def get_schema_names(self, connection: Connection, **_: object) -> list[str]:
        """Return the one schema that tables without another are in."""
        return [_SCHEMA]

    @reflection.cache
    def get_table_names(
        self, connection: Connection, schema: str | None = None, **_: object
    ) -> list[str]:
        """Return the tables of a lake: those of its types with schema `types`, and those of a
        state with the name of its tag or branch."""
        if schema == "types":
            with _lake(connection).cursor() as cursor:
                cursor.execute("SELECT DISTINCT type FROM events ORDER BY type")
                return [name for (name,) in cursor.fetchall()]
        tables = list(Query.TABLES)
        return tables if self.has_table(connection, tables[0], schema) else []

    @reflection.cache
    def get_view_names(
        self, connection: Connection, schema: str | None = None, **_: object
    ) -> list[str]:
        """Return the views that lakelog brings, and the lake's own."""
        return _lake(connection).view_names() if schema in (None, _SCHEMA) else []

    def get_temp_table_names(self, *_: object, **__: object) -> list[str]:
        """Return none: a lake is not written."""
        return []

    get_temp_view_names = get_temp_table_names

    def get_sequence_names(self, *_: object, **__: object) -> list[str]:
        """Return none."""
        return []

    def has_table(
        self, connection: Connection, table_name: str, schema: str | None = None, **_: object
    ) -> bool:
        """Whether there is a table or view of the name; a type's, too, with schema `types`."""
        try:
            self._description(connection, table_name, schema)
        except exc.NoSuchTableError:
            return False
        except exc.UnreflectableTableError:
            pass  # it is there all the same
        return True

    @reflection.cache
    def get_columns(
        self, connection: Connection, table_name: str, schema: str | None = None, **_: object
    ) -> list[ReflectedColumn]:
        """Return columns with their types; also those of `types.NAME` and of `"v1".events`."""
        return [
            {
                "name": name,
                # Payloads are JSON that the engine keeps as text.
                "type": _sql_type("JSON" if name == "data" else code, precision, scale),
                "nullable": True,
                "default": None,
            }
            for name, code, _, _, precision, scale, _ in self._description(
                connection, table_name, schema
            )
        ]

    def get_pk_constraint(self, *_: object, **__: object) -> ReflectedPrimaryKeyConstraint:
        """Return none: events have no key but `seq`, which nothing enforces."""
        return {"constrained_columns": [], "name": None}

    def get_foreign_keys(self, *_: object, **__: object) -> list[Any]:
        """Return none."""
        return []

    get_indexes = get_unique_constraints = get_check_constraints = get_foreign_keys

    def get_table_comment(self, *_: object, **__: object) -> ReflectedTableComment:
        """Return none."""
        return {"text": None}

    def _description(
        self, connection: Connection, table: str, schema: str | None
    ) -> list[dbapi.Row]:
        """Describe a table as PEP 249 does. Raises NoSuchTableError, UnreflectableTableError for a
        view that cannot be computed of these events."""
        names = [table] if schema in (None, _SCHEMA) else [schema, table]
        try:
            with _lake(connection).cursor() as cursor:
                return (
                    cursor.execute(
                        f"SELECT * FROM {'.'.join(map(identifier, names))} LIMIT 0"
                    ).description
                    or []
                )
        except dbapi.ProgrammingError as error:
            raise exc.NoSuchTableError(table) from error
        except dbapi.OperationalError as error:
            if isinstance(error.__cause__, InvalidView):
                raise exc.UnreflectableTableError(str(error)) from error
            raise


def _lake(connection: Connection) -> dbapi.Connection:
    lake: object = connection.connection.dbapi_connection
    return cast(dbapi.Connection, lake)


def _sql_type(code: str, precision: int | None, scale: int | None) -> types.TypeEngine[Any]:
    if code == "DECIMAL":
        return types.Numeric(precision, scale)
    return _TYPES.get(code, types.NullType)()
