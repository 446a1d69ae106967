"""Ctrl-C while a query runs: KeyboardInterrupt, however the engine words it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


FORK = """import os, sys, lakelog
with lakelog.open(sys.argv[1]) as lake:
    lake.append([{"type": "A", "data": {"n": n}} for n in range(3000)])
    lake.settle()
    answers = [lake.sql("FROM events") for _ in range(4)]
    child = os.fork()
    if not child:
        reads = ("fetchmany", "fetchall", "to_arrow_table", "columns")
        for answer, name in zip(answers, reads):
            try:
                read = getattr(answer, name)
                read() if callable(read) else read
                print("read", flush=True)
            except lakelog.LakelogError as error:
                print(error, flush=True)
        print(len(lake.sql("FROM events").fetchall()), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print(sum(len(answer.fetchall()) for answer in answers))
"""


def test_a_fork_asks_again(tmp_path: Path) -> None:
    """What was asked before a fork can be read by the parent; in the child it is an error."""
    command = [sys.executable, "-c", FORK, str(tmp_path / "lake")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    refusal = "the query was asked before a fork: ask again in the new process"
    assert done.stdout.splitlines() == [*[refusal] * 4, "3000", "12000"]
