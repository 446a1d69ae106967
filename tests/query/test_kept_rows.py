"""Questions that come again, of few events or with other names, are answered as if each were new.

The rows of a short state are kept by the engine once it was asked a few times, and a query that
differs from an earlier one in a name alone is not parsed again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import QueryFailed
from tests.support.effort import PATIENCE

MakeLake = Callable[..., lakelog.Lake]
QUERIES = (
    "SELECT count(*) FROM events WHERE subject = 's1'",
    "SELECT type, count(*), sum((data->>'n')::INT) FROM events GROUP BY type ORDER BY type",
    "SELECT * FROM events ORDER BY seq",
    "SELECT time, data FROM events ORDER BY time DESC, id LIMIT 2",
    "SELECT fields.n FROM events WHERE type = 'T1' ORDER BY seq",
    "SELECT a.id FROM events a JOIN events b USING (seq) WHERE b.subject = 's2' ORDER BY ALL",
    "SELECT id FROM events WHERE search('word3') ORDER BY id",
)


def _append(lake: lakelog.Lake, first: int, count: int) -> None:
    lake.append(
        {
            "type": f"T{n % 2}",
            "subject": f"s{n % 3}",
            "id": f"i{n}",
            "message": f"word{n}",
            "data": {"n": n},
        }
        for n in range(first, first + count)
    )


def _answers(lake: lakelog.Lake) -> list[object]:
    return [lake.sql(query).fetchall() for query in QUERIES]


def test_answers_follow_every_change_of_a_state(make_lake: MakeLake) -> None:
    """What is asked again is answered as by a lake that is opened anew, whose queries are first."""
    lake = make_lake()
    _append(lake, 0, 9)
    before = lake.settle().move.snapshot
    changes: list[Callable[[], object]] = [
        lambda: None,
        lambda: _append(lake, 9, 2),
        lake.settle,
        lake.compact,
        lambda: _append(lake, 11, 1),
        lambda: lake.erase(subject="s1", why="asked"),
        lambda: lake.rollback(before),
        lake.undo,
    ]
    for change in changes:
        change()
        with lakelog.open(lake.path) as other:
            expected = _answers(other)
        for _ in range(3):
            assert _answers(lake) == expected
    past = lake.at(before)
    assert [past.sql(QUERIES[0]).fetchall() for _ in range(5)] == [[(0,)]] * 5  # erased there, too


def test_kept_rows_have_the_columns_of_every_other_table(make_lake: MakeLake) -> None:
    lake = make_lake()
    _append(lake, 0, 9)
    lake.settle()
    columns = lake.sql("FROM events").columns
    for _ in range(5):
        assert len(lake.sql("SELECT id FROM events").fetchall()) == 9
    answer = lake.sql("FROM events")
    assert (answer.columns, answer.to_arrow_table().num_rows) == (columns, 9)
    with pytest.raises(QueryFailed, match="rowid"):
        lake.sql("SELECT rowid FROM events")
    assert (
        lake.sql("SHOW TABLES").fetchall() == lakelog.open(lake.path).sql("SHOW TABLES").fetchall()
    )


@pytest.mark.damaged
def test_a_damaged_segment_stops_no_query_that_does_not_need_it(make_lake: MakeLake) -> None:
    lake = make_lake()
    for name in "AB":
        lake.append({"type": name, "subject": name})
        lake.settle()
    entries = lake.store.manifests.segments(lake.store.state("main"))
    (damaged,) = (entry for entry in entries if "A" in entry.types)
    path = Path(lake.store.paths.object("segments", damaged.key))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-9] + b"123456789")
    for _ in range(6):
        assert lake.sql("SELECT type FROM events WHERE type = 'B'").fetchall() == [("B",)]
        with pytest.raises(lakelog.LakelogError):
            lake.sql("SELECT type FROM events").fetchall()


NAMES = [
    "s1",
    "s2",
    "",
    "it's",
    "lakelog.name.0",
    "x' OR 'a",
    "s1' --",
    "Ünï",
    "a->b",
    "fields",
    "?",
]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id FROM events WHERE subject = {0} ORDER BY id",
        "SELECT id, {0} FROM events e WHERE type='T1' AND e.Subject\n=\n{0} ORDER BY id",
        "SELECT id FROM events WHERE subject = {0} AND subject = {0} ORDER BY id",
        "SELECT id FROM events WHERE subject = {0} OR id = 'i1' ORDER BY id",
        "SELECT id FROM events WHERE subject = 's1' AND id IN ('i1', {0}) ORDER BY id",
        "SELECT id FROM events WHERE subject = 's1' /* subject = {0} */ ORDER BY id",
        "SELECT id, $$ subject = 's1' $$ FROM events WHERE message = {0} OR id = {0} ORDER BY id",
        "SELECT 'subject = ' || {0} AS subject FROM events WHERE subject = 's1' ORDER BY id",
        "SELECT count(*) FROM events WHERE message = 'subject = ''s1''' OR subject = {0}",
    ],
    ids=map(str, range(9)),
)
def test_each_name_gets_its_own_answer(make_lake: MakeLake, query: str) -> None:
    """Whatever the name is, and wherever it stands: the answer is that of one who asks once."""
    lake = make_lake()
    _append(lake, 0, 9)
    lake.append(
        [{"type": "T1", "subject": name, "id": f"n{n}"} for n, name in enumerate(NAMES[3:])]
    )
    lake.settle()
    table = lake.sql("SELECT * FROM events ORDER BY seq").to_arrow_table()
    for name in NAMES * 2:
        asked = query.format("'" + name.replace("'", "''") + "'")
        plain = asked.replace("FROM events", "FROM every_row")
        expected = lake.sql(plain, variables={"every_row": table}).fetchall()
        assert lake.sql(asked).fetchall() == expected, asked


def test_parameters_are_those_of_each_call(make_lake: MakeLake) -> None:
    lake = make_lake()
    _append(lake, 0, 9)
    lake.settle()
    query = "SELECT id FROM events WHERE subject = ? AND seq > ? ORDER BY id"
    for subject in ("s0", "s1", "none", "s0", "s1", "none"):
        answer = lake.sql(query, [subject, 3])
        expected = [(f"i{n}",) for n in range(4, 9) if f"s{n % 3}" == subject]
        assert answer.fetchall() == expected
        assert list(answer) == expected
        assert answer.columns == ["id"]
        assert answer.to_arrow_table().num_rows == len(expected)
        assert answer.filter("id <> 'i4'").fetchall() == [row for row in expected if row != ("i4",)]
        named = lake.sql("SELECT count(*) FROM events WHERE subject = $who", {"who": subject})
        assert named.fetchall() == [(0 if subject == "none" else 3,)]
        for wrong in (["s1"], ["s1", 3, 4], ["s1", "three"], []):
            with pytest.raises(QueryFailed):
                lake.sql(query, wrong).fetchall()
        with pytest.raises(QueryFailed):
            lake.sql("SELECT id FROM events", ["s1"]).fetchall()
        for value, name in ((1, "INTEGER"), ("1", "VARCHAR"), (1, "INTEGER")):
            typed = lake.sql("SELECT typeof(?), count(*) FROM events", [value])
            assert typed.fetchall() == [(name, 9)]


def test_a_child_of_fork_frees_no_results_of_its_parent(make_lake: MakeLake) -> None:
    """Nor those that the parent has forgotten: the threads of the engine are not in the child."""
    program = (
        "import gc, os, sys, lakelog\n"
        f"lake = lakelog.open({make_lake(seal='never').path!r})\n"
        "lake.append([{'type': 'A'}] * 9)\n"
        "gc.disable()\n"
        "cursor = lake._session.connect().cursor()\n"
        "cursor.execute('SELECT * FROM range(10_000_000) ORDER BY 1 DESC').fetchmany(1)\n"
        "garbage = [cursor, lake]\n"
        "garbage.append(garbage)\n"
        "path = lake.path\n"
        "del garbage, cursor, lake\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    gc.collect()\n"
        "    count = lakelog.open(path).count()\n"
        "    os._exit(0 if count == 9 else 1)\n"
        "sys.exit(os.waitpid(child, 0)[1])\n"
    )
    run = [sys.executable, "-W", "ignore", "-c", program]
    assert subprocess.run(run, timeout=10 * PATIENCE).returncode == 0


def test_a_child_of_fork_asks_on(make_lake: MakeLake) -> None:
    lake = make_lake()
    _append(lake, 0, 9)
    lake.settle()
    query = "SELECT count(*) FROM events WHERE subject = 's1'"
    assert [lake.sql(query).fetchall() for _ in range(6)] == [[(3,)]] * 6
    child = os.fork()
    if not child:
        answers = [lake.sql(query).fetchall() for _ in range(6)]
        os._exit(0 if answers == [[(3,)]] * 6 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert lake.sql(query).fetchall() == [(3,)]
