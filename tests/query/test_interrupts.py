"""Ctrl-C while a query runs: KeyboardInterrupt, however the engine words it."""

from __future__ import annotations

import duckdb
import pytest

import lakelog
from lakelog.errors import QueryFailed
from lakelog.query.relation import guarded

READING = "Invalid Input Error: {} the object registered as 'events'{} failed: {}: "


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Query interrupted"),
        duckdb.InterruptException("INTERRUPT Error: Interrupted!"),
        duckdb.InvalidInputException(READING.format("exporting", "", "KeyboardInterrupt")),
        duckdb.InvalidInputException(
            READING.format("reading", " as Arrow data", "KeyboardInterrupt")
        ),
    ],
)
def test_an_interrupt_is_a_keyboard_interrupt(lake: lakelog.Lake, error: Exception) -> None:
    """While the tables of a query are made, and while its rows are."""

    def work() -> None:
        raise error

    with pytest.raises(KeyboardInterrupt):
        lake._session._translated(work)
    with pytest.raises(KeyboardInterrupt), guarded():
        work()


def test_other_errors_of_a_table_are_told() -> None:
    """What else goes wrong while a table is read is the query's error."""
    words = READING.format("reading", "", "ValueError")
    with pytest.raises(QueryFailed, match="ValueError"), guarded():
        raise duckdb.InvalidInputException(words)
