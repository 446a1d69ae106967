"""Look-ups by id or subject answer the same each time they are asked, whatever was published,
appended, removed or undone in between."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import lakelog
from lakelog.errors import QueryFailed
from lakelog.query.sql import analysis

MakeLake = Callable[..., lakelog.Lake]

ASKED = "SELECT data->>'n' FROM events WHERE subject = 's1' ORDER BY seq"


def _append(lake: lakelog.Lake, first: int, count: int) -> None:
    lake.append(
        {"type": f"T{n % 2}", "subject": f"s{n % 3}", "id": f"i{n}", "data": {"n": n}}
        for n in range(first, first + count)
    )


def _of(lake: lakelog.Lake, query: str = ASKED) -> list[int]:
    return [int(n) for (n,) in lake.sql(query).fetchall()]


def _asked_often(lake: lakelog.Lake, query: str = ASKED) -> list[int]:
    answers = [_of(lake, query) for _ in range(4)]
    assert answers == answers[:1] * 4
    return answers[0]


def test_rows_follow_what_is_appended_sealed_removed_and_undone(make_lake: MakeLake) -> None:
    lake = make_lake()
    _append(lake, 0, 9)
    before = lake.settle().move.snapshot
    assert _asked_often(lake) == [1, 4, 7]
    _append(lake, 9, 3)
    assert _asked_often(lake) == [1, 4, 7, 10]
    _append(lake, 12, 3)
    assert _asked_often(lake) == [1, 4, 7, 10, 13]
    lake.settle()
    assert _asked_often(lake) == [1, 4, 7, 10, 13]
    lake.compact()
    assert _asked_often(lake) == [1, 4, 7, 10, 13]
    assert [int(n) for (n,) in lake.at(before).sql(ASKED).fetchall()] == [1, 4, 7]
    lake.rollback(before)
    assert _asked_often(lake) == [1, 4, 7]


def test_other_questions_of_the_same_subject_are_answered_in_full(make_lake: MakeLake) -> None:
    lake = make_lake()
    _append(lake, 0, 12)
    lake.settle()
    lake.compact()
    _asked_often(lake)
    assert _of(lake, ASKED.replace("ORDER", "AND type = 'T0' ORDER")) == [4, 10]
    lake.sql("SELECT count(*) FROM events WHERE subject = 's1' AND type = 'T0'").fetchall()
    for query, rows in (
        ("SELECT count(*) FROM events WHERE subject = 's1'", [(4,)]),
        ("SELECT id FROM events WHERE subject IN ('s1', 's2') AND id = 'i4'", [("i4",)]),
        ("SELECT max(fields.n) FROM events WHERE subject = 's1'", [(10,)]),
        ("SELECT count(*) FROM events WHERE subject = 'none'", [(0,)]),
        ("SELECT a.id FROM events a JOIN events b USING (seq) WHERE a.id = 'i4'", [("i4",)]),
    ):
        assert [lake.sql(query).fetchall() for _ in range(4)] == [rows] * 4, query
    names = lake.sql("FROM events LIMIT 0").columns
    for _ in range(4):
        answer = lake.sql("FROM events WHERE subject = 's1'")
        assert answer.columns == names
        assert answer.to_arrow_table().num_rows == 4


def test_concurrent_lookups_of_one_subject(make_lake: MakeLake) -> None:
    lake = make_lake()
    _append(lake, 0, 30)
    lake.settle()
    wrong: list[list[int]] = []

    def ask() -> None:
        held = [lake.sql(ASKED) for _ in range(5)]
        wrong.extend(
            rows
            for rows in ([int(n) for (n,) in a.fetchall()] for a in held)
            if rows != list(range(1, 30, 3))
        )

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_subjects_of_many_rows_and_of_large_ones(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append({"type": "A", "subject": "many", "data": n} for n in range(5000))
    lake.append({"type": "A", "subject": "large", "data": "x" * 600_000} for _ in range(3))
    lake.settle()
    for subject, count in (("many", 5000), ("large", 3)):
        query = f"SELECT count(data) FROM events WHERE subject = '{subject}'"
        assert [lake.sql(query).fetchall() for _ in range(4)] == [[(count,)]] * 4


def test_errors_of_a_look_up_are_those_of_the_query_as_it_is_written(make_lake: MakeLake) -> None:
    lake = make_lake()
    _append(lake, 0, 9)
    lake.settle()
    wrong = "SELECT 1 FROM events WHERE subject = 's1' AND (data->>'n')::DATE > now()"
    for _ in range(4):
        with pytest.raises(QueryFailed) as failed:
            lake.sql(wrong).fetchall()
        assert wrong in failed.value.details
        with pytest.raises(QueryFailed, match='Referenced column "nope"'):
            lake.sql("SELECT nope FROM events WHERE subject = 's1'")


def test_times_follow_the_zone_of_the_session(make_lake: MakeLake) -> None:
    """A look-up with a time means by it what the session's zone says when it is asked."""
    lake = make_lake()
    for hour in (3, 13):
        time = f"2026-11-01T{hour:02}:00:00Z"
        lake.append({"type": "a", "subject": name, "time": time} for name in "xy")
        lake.settle()
    before_noon = "SELECT count(*) FROM events WHERE subject = '{}' AND time < '2026-11-01 12:00'"
    assert lake.sql(before_noon.format("x")).fetchall() == [(1,)]
    engine = lake.engine()
    engine.execute("SET GLOBAL TimeZone = 'America/New_York'")
    try:
        for name in "yx":
            assert lake.sql(before_noon.format(name)).fetchall() == [(2,)]
    finally:
        engine.execute("RESET GLOBAL TimeZone")


def test_times_follow_the_clock(make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has asked for what is before now finds, whenever it asks again, what came
    since. Without the day by which a bound is later, as that would have to pass."""
    monkeypatch.setattr(analysis, "_SLACK", 0)
    lake = make_lake()
    until_now = "SELECT count(*) FROM events WHERE subject = '{}' AND time <= now()"
    for count in (1, 2, 3):
        lake.append({"type": "a", "subject": name} for name in "xy")
        lake.settle()
        for name in "xy":
            assert lake.sql(until_now.format(name)).fetchall() == [(count,)]


def test_a_search_is_that_of_its_own_word(make_lake: MakeLake) -> None:
    """Words that differ are told apart wherever else the query has them, in texts and comments."""
    lake = make_lake()
    lake.append(
        {"type": "a", "subject": f"s{n}", "message": word}
        for n, word in enumerate(("alpha", "beta", "alphabet", "lakelogplace", "x7"))
    )
    lake.settle()
    found = {"alpha": ["s0"], "beta": ["s1"], "lakelogplace": ["s3"], "x7": ["s4"], "none": []}
    found |= {"alpha*": ["s0", "s2"], "*beta": ["s1"], "*7": ["s4"], "*none": []}
    calls = {
        "SELECT subject FROM events WHERE search('{}') ORDER BY seq": 1,
        "SELECT subject FROM events WHERE search('{0}') AND 'lakelogplace' <> '{0}' ORDER BY 1": 1,
        "SELECT subject FROM events /* search('alpha') */ WHERE search('{}') ORDER BY seq": 1,
        "SELECT subject FROM events WHERE search('{0}') OR search('{0}') ORDER BY seq": 1,
        "SELECT $$ search('{0}') $$ || subject FROM events WHERE search('{0}') ORDER BY seq": 0,
    }
    for call, is_plain in calls.items():
        for word, subjects in found.items():
            if word == "lakelogplace" and "<>" in call:
                subjects = []
            wanted = [s if is_plain else f" search('{word}') {s}" for s in subjects]
            assert [s for (s,) in lake.sql(call.format(word)).fetchall()] == wanted, (call, word)
