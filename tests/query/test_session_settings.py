"""Settings of the engine: each is decided, of the process or of one session."""

from __future__ import annotations

import duckdb
import pytest

from lakelog.errors import QueryFailed
from lakelog.query import session_settings
from lakelog.query.session_settings import OF_PROCESS, OF_SESSION


def test_every_setting_of_the_engine_is_listed() -> None:
    """A later engine's settings are looked at before they can be set for all sessions."""
    with duckdb.connect() as own:
        names = {n.lower() for (n,) in own.execute("SELECT name FROM duckdb_settings()").fetchall()}
    assert sorted(names - OF_PROCESS - OF_SESSION) == []
    assert not OF_PROCESS & OF_SESSION


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SET threads = 2", "SET threads = 2"),
        ("SET GLOBAL memory_limit = '1GB'", "SET GLOBAL memory_limit = '1GB'"),
        ("set default_order='desc'", "set SESSION default_order='desc'"),
        ("PRAGMA default_order='desc'", "SET SESSION default_order='desc'"),
        ("RESET default_order", "RESET SESSION default_order"),
        ("SET SESSION default_order='desc'", "SET SESSION default_order='desc'"),
        ("SET TIME ZONE 'UTC'", "SET TIME ZONE 'UTC'"),
        ("SET VARIABLE a = 1", "SET VARIABLE a = 1"),
        ("USE main", "USE main"),
        ("SELECT 'SET GLOBAL TimeZone = 1'", "SELECT 'SET GLOBAL TimeZone = 1'"),
        ("SET a = ';'; SELECT 1;", "SET SESSION a = ';';\nSELECT 1"),
    ],
)
def test_what_may_change_an_answer_is_set_for_its_session(text: str, expected: str) -> None:
    """The engine takes some settings for those of all sessions unless told otherwise."""
    with duckdb.connect() as own:
        assert session_settings.for_session(own, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "SET GLOBAL TimeZone = 'UTC'",
        "/* a */ set -- b\n global/**/\"default_order\"='desc'",
        "RESET GLOBAL Calendar",
        "SELECT 1; SET GLOBAL of_a_later_engine = 1",
        "SET /* /* */ */ GLOBAL TimeZone = 'UTC'",
    ],
)
def test_what_may_change_answers_of_all_is_refused(text: str) -> None:
    """However it is written, and whether or not it is known."""
    with duckdb.connect() as own, pytest.raises(QueryFailed):
        session_settings.for_session(own, text)
