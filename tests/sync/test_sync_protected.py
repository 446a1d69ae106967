"""A table that has protected fields does not lose them to a sync without keys."""

from __future__ import annotations

from pathlib import Path

import pytest

import lakelog
from lakelog.errors import InvalidKey
from lakelog.sync.comparison import check
from lakelog.sync.sync import sync
from tests.support import protected
from tests.support.sync_places import SqlitePlace

EMAILS = "SELECT seq, data->>'email' AS email FROM events"
PLANS = "SELECT seq, data->>'plan' AS plan FROM events"
OF_ALL = "SELECT seq, e.data->>'email' AS email FROM events e"


@pytest.fixture
def lake(home: Path, monkeypatch: pytest.MonkeyPatch) -> lakelog.Lake:
    """A lake with three events of protected fields."""
    lake = protected.create(home / "lake", monkeypatch)
    protected.append(lake, range(3))
    return lake


@pytest.mark.parametrize("query", [None, EMAILS, OF_ALL])
def test_without_keys_nothing_is_taken_from_a_table(
    home: Path, lake: lakelog.Lake, query: str | None
) -> None:
    """Neither by a sync, nor by a check, which would find that all rows differ."""
    place = SqlitePlace(home)
    with lake:
        sync(lake, place.url, query=query)
        protected.append(lake, range(3, 6))
        before = place.ask("SELECT * FROM events ORDER BY seq")
        assert len(before) == 3
    with protected.without_keys(home), lakelog.open(home / "lake") as blind:
        with pytest.raises(InvalidKey, match="set LAKELOG_SUBJECT_KEYS"):
            sync(blind, place.url, query=query)
        for repair in (False, True):
            with pytest.raises(InvalidKey, match="set LAKELOG_SUBJECT_KEYS"):
                check(blind, place.url, repair=repair)
        assert place.ask("SELECT * FROM events ORDER BY seq") == before
    with lakelog.open(home / "lake") as lake:
        assert sync(lake, place.url, query=query).total == 6
        assert all(result.is_equal for result in check(lake, place.url))
        shown = "SELECT data->>'email' FROM events ORDER BY seq"
        column = "email" if query else "data->>'email'"
        assert place.ask(f"SELECT {column} FROM events ORDER BY seq") == lake.sql(shown).fetchall()


def test_without_keys_a_table_without_the_fields_goes_on(home: Path, lake: lakelog.Lake) -> None:
    """As one whose rows read no protected field, or that was filled without keys."""
    place = SqlitePlace(home)
    with lake:
        sync(lake, place.url, table="plans", query=PLANS)
    with protected.without_keys(home), lakelog.open(home / "lake") as blind:
        sync(blind, place.url, table="emails", query=EMAILS)
        blind.append([{"type": "SIGNUP", "subject": "s1", "data": {"plan": "free"}}])
        for table, query in (("plans", PLANS), ("emails", EMAILS)):
            assert sync(blind, place.url, table=table, query=query).total == 4
        assert all(result.is_equal for result in check(blind, place.url))
        assert place.ask("SELECT DISTINCT email FROM emails") == [(None,)]
    with lakelog.open(home / "lake") as lake:
        found = {result.table: result.different for result in check(lake, place.url)}
        assert found == {"plans": 0, "emails": 3}
        assert check(lake, place.url, "emails", repair=True)[0].is_repaired
        assert all(result.is_equal for result in check(lake, place.url))
    again = f"{EMAILS} WHERE type = 'SIGNUP'"
    with (
        protected.without_keys(home),
        lakelog.open(home / "lake") as blind,
        pytest.raises(InvalidKey),
    ):
        sync(blind, place.url, table="emails", query=again)


@pytest.mark.parametrize("is_typed", [True, False])
def test_no_reason_of_a_refused_row_has_a_protected_field(
    home: Path, lake: lakelog.Lake, is_typed: bool
) -> None:
    """Whether the value cannot be converted or the database repeats it: the line is sealed, and
    its reason is not."""
    place = SqlitePlace(home)
    refusal = f"RAISE(ABORT, 'constraint failed: {protected.PLANTED}')"
    with lake:
        sync(lake, place.url, query=f"{EMAILS} WHERE false")
        if not is_typed:
            place.ask(f"CREATE TRIGGER t BEFORE INSERT ON events BEGIN SELECT {refusal}; END")
        columns = {"email": "integer"} if is_typed else {}
        table = "typed" if is_typed else "events"
        options = {"query": EMAILS, "columns": columns, "on_error": "quarantine"}
        assert sync(lake, place.url, table=table, **options).quarantined == 3
        quarantined = lake.sql("SELECT reason, line FROM quarantine").fetchall()
    for reason, line in quarantined:
        assert protected.PLANTED in line
        assert protected.PLANTED not in reason
        assert f"table {table}" in reason
