"""The public compliance suite of PEP 249, dbapi20, over a lake.

It is adapted by its own hooks alone: the tables that it would create are views of the lake, and the
rows that it would insert are events. What tests writing by SQL is left out for one reason: "a
method or database API was used which is not supported by the database" is NotSupportedError in PEP
249, and a lake is not written by SQL. That such a statement raises it is tested here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import dbapi
from tests.support.cli import run
from tests.support.requirements import need_module

dbapi20: Any = need_module("dbapi20")

WRITES = {
    "test_cursor_isolation": "inserts a row by a cursor, which another one of it has to see",
    "test_description": "asks for the description after CREATE TABLE",
    "test_executemany": "inserts by parameters",
    "test_fetchone": "inserts between two queries",
    "test_rowcount": "counts inserted rows",
    "test_None": "inserts NULL",
    "test_nextset": "an optional method, which the suite leaves to the driver's author",
    "test_setoutputsize": "an optional method, which the suite leaves to the driver's author",
}
"""Tests of the suite that are left out, and what each does."""


@pytest.fixture(scope="module", autouse=True)
def lake() -> Iterator[lakelog.Lake]:
    """The rows of the suite as events, and its tables as views of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/lake"
        with lakelog.open(path) as lake:
            lake.append([{"type": "booze", "message": name} for name in Compliance.samples])
            for table in ("booze", "barflys"):
                definition = Path(folder, f"{table}.sql")
                definition.write_text(
                    f"SELECT message AS name, source AS drink FROM events WHERE type = '{table}'"
                )
                run(path, "view", "create", f"dbapi20test_{table}", str(definition))
            Compliance.connect_args = (path,)
            yield lake


class Compliance(dbapi20.DatabaseAPI20Test):  # type: ignore[misc]
    """The suite."""

    driver = dbapi
    lower_func = ""  # stored procedures are optional, and a lake has none

    def executeDDL1(self, cursor: dbapi.Cursor) -> None:
        """The view is there; only a cursor that is closed already may not be used."""
        cursor.connection.commit()

    executeDDL2 = executeDDL1

    def _populate(self) -> list[str]:
        """Statements that insert the rows: none, they are events."""
        return []

    def _paraminsert(self, cursor: dbapi.Cursor) -> None:
        """What shows that a cursor works: a query with parameters, where the suite inserts."""
        cursor.execute("SELECT name FROM dbapi20test_booze WHERE name = ?", ("Redback",))
        assert cursor.fetchall() == [("Redback",)]

    def test_non_idempotent_close(self) -> None:
        """PEP 249: "an Error (or subclass) exception will be raised if any operation is attempted";
        whether a second close is one is left open, and here it is none."""
        connection = self._connect()
        connection.close()
        connection.close()


for _name in WRITES:
    setattr(Compliance, _name, None)  # not collected: see above


@pytest.mark.parametrize(
    "statement",
    ["CREATE TABLE t (name varchar(20))", "INSERT INTO events VALUES (1)", "DROP TABLE events"],
)
def test_writing_is_not_supported(lake: lakelog.Lake, statement: str) -> None:
    with lakelog.connect(lake.path) as connection, pytest.raises(dbapi.NotSupportedError):
        connection.cursor().execute(statement)
