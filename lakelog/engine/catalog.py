"""The engine's own tables: what tables, columns, functions and keywords it knows."""

from __future__ import annotations

from lakelog.libraries import duckdb


class EngineCatalog:
    """What a cursor finds; and SQL that asks it."""

    COLUMNS = (
        "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
        " AND schema_name = 'main' AND NOT starts_with(table_name, 'lakelog_')"
    )
    """Tables of the user's, and each's columns."""
    FUNCTIONS = "SELECT DISTINCT function_name, function_type FROM duckdb_functions()"
    """Names of functions and what each is: scalar, aggregate, macro, table."""
    KEYWORDS = "SELECT keyword_name FROM duckdb_keywords()"

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor

    def has_schema(self, name: str) -> bool:
        """Whether there is a schema of a name."""
        query = "SELECT 1 FROM duckdb_schemas() WHERE schema_name = $1"
        return bool(self._cursor.execute(query, [name]).fetchall())

    def has_relation(self, name: str, schemas: str, definition: str) -> bool:
        """Whether there is a table or view of a name in small letters that a query finds without a
        schema, besides tables of schemas that begin with `schemas` and views whose SQL has
        `definition` in it."""
        # Those of other databases, such as that of an older system, need the database's name.
        nearby = "database_name IN (current_database(), 'temp')"
        rows = self._cursor.execute(
            f"SELECT 1 FROM duckdb_tables() WHERE {nearby} AND lower(table_name) = $1"
            " AND NOT starts_with(schema_name, $2) UNION ALL"
            f" SELECT 1 FROM duckdb_views() WHERE {nearby} AND lower(view_name) = $1"
            " AND NOT contains(sql, $3)",
            [name, schemas, definition],
        ).fetchall()
        return bool(rows)

    @staticmethod
    def columns_of(table: str) -> str:
        """SQL for the names and types of the columns of a table, given as a literal, in order."""
        return (
            "SELECT column_name, data_type FROM duckdb_columns() WHERE NOT internal"
            f" AND table_name = {table} AND schema_name = current_schema()"
            " AND database_name = current_database() ORDER BY column_index"
        )

    @staticmethod
    def keys_of(table: str) -> str:
        """SQL for the columns of each unique key of a table, given as a literal."""
        return (
            "SELECT constraint_column_names FROM duckdb_constraints()"
            f" WHERE constraint_type IN ('PRIMARY KEY', 'UNIQUE') AND table_name = {table}"
        )
