"""`types.NAME`: the events of one type with the fields of their payloads as typed columns."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.errors import QueryFailed
from lakelog.maintain import payloads
from lakelog.query import TypeTable
from lakelog.query.schemas import as_written
from tests.support.cli import run

MakeLake = Callable[..., lakelog.Lake]
START = 1_770_000_000
ROWS: list[dict[str, Any]] = [
    {"words": 5120, "ok": True, "cpu": {"percent": 12.5}, "tags": ["a"], "time": "8:00"},
    {"words": 4100, "ok": False, "cpu": {"percent": 80, "n": 1}, "mixed": 1, "Words": "W"},
    {"words": None, "mixed": "x", "it's": 3, "cpu_percent": "other", "by": {"k": {}}, "": 1},
]


@pytest.fixture
def lake(make_lake: MakeLake) -> lakelog.Lake:
    """Three events of type COMPLETE and one of another, tagged v1, and one more in the tail."""
    lake = make_lake(seal="never")
    lake.append(
        {"type": "COMPLETE", "time": START + n, "subject": f"s{n}", "data": data}
        for n, data in enumerate(ROWS)
    )
    lake.append([{"type": "my type", "time": START, "data": {"words": "many"}}])
    lake.settle()
    lake.tag("v1")
    lake.append([{"type": "COMPLETE", "time": START + 9, "subject": "s9", "data": {"words": 9}}])
    return lake


def test_fields_are_columns_of_their_types(lake: lakelog.Lake) -> None:
    """Columns follow those of events in order of path; names that are taken get another one, kinds
    that contradict each other are text, lists and objects without known members JSON."""
    answer = lake.sql("SELECT * FROM types.COMPLETE ORDER BY seq")
    columns = dict(zip(answer.columns, map(str, answer.types), strict=True))
    assert list(columns)[: len(TypeTable.COLUMNS)] == list(TypeTable.COLUMNS)
    assert list(columns.items())[len(TypeTable.COLUMNS) :] == [
        ("Words", "VARCHAR"),
        ("by_k", "JSON"),
        ("cpu_n", "BIGINT"),
        ("cpu_percent", "DOUBLE"),
        ("cpu_percent_2", "VARCHAR"),
        ("it's", "BIGINT"),
        ("mixed", "VARCHAR"),
        ("ok", "BOOLEAN"),
        ("tags", "JSON"),
        ("data_time", "VARCHAR"),
        ("words_2", "BIGINT"),
    ]
    query = """SELECT words_2, ok, cpu_percent, tags, data_time, mixed, "it's", by_k
        FROM types.COMPLETE ORDER BY seq"""
    assert lake.sql(query).fetchall() == [
        (5120, True, 12.5, '["a"]', "8:00", None, None, None),
        (4100, False, 80.0, None, None, "1", None, None),
        (None, None, None, None, None, "x", 3, "{}"),
        (9, None, None, None, None, None, None, None),
    ]
    assert lake.sql('SELECT words FROM types."my type"').fetchall() == [("many",)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT sum(words_2) FROM types.complete", 9229),
        ("SELECT max(c.words_2) FROM types.COMPLETE c WHERE c.subject = 's1'", 4100),
        ("SELECT max(COMPLETE.words_2) FROM types.COMPLETE WHERE types.COMPLETE.ok", 5120),
        ("FROM types . /* a */ COMPLETE SELECT count(ok)", 2),
        ("SELECT count(*) FROM types.COMPLETE JOIN types.\"my type\" m ON m.words = 'many'", 4),
        ("WITH q AS (FROM types.COMPLETE) SELECT (SELECT max(words_2) FROM q)", 5120),
        ("SELECT count(*) FROM types.COMPLETE WHERE seq IN (SELECT seq FROM events)", 4),
        ('SELECT count(*) FROM "v1".types.COMPLETE', 3),
        ('SELECT count(*) FROM "v1".types.COMPLETE a, types.COMPLETE b', 12),
        ("SELECT count(*) FROM (DESCRIBE types.COMPLETE)", 23),
        ("SELECT count(*) FROM (SUMMARIZE types.COMPLETE)", 23),
        ("SELECT max(y) FROM types.COMPLETE AS č (x, y)", "COMPLETE"),
        ("SELECT count(*) FROM types.COMPLETE TABLESAMPLE 100%", 4),
    ],
)
def test_types_are_tables_wherever_one_can_stand(
    lake: lakelog.Lake, query: str, expected: Any
) -> None:
    """Names of types are matched like other names in SQL, and are also tables of refs."""
    assert lake.sql(query).fetchall() == [(expected,)]


def test_types_at_a_state_and_in_other_interfaces(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Pinned states, parameters, DB-API, the command line and exports know them."""
    assert lake.at("v1").sql("SELECT count(*) FROM types.COMPLETE").fetchall() == [(3,)]
    query = "SELECT seq FROM types.COMPLETE WHERE words_2 = ?"
    assert lake.sql(query, [4100]).fetchall() == [(1,)]
    with lakelog.connect(lake.path) as connection, connection.cursor() as cursor:
        assert cursor.execute(query, [4100]).fetchall() == [(1,)]
    assert lake.export("types.COMPLETE", tmp_path / "c.parquet").rows == 4
    done = run(lake.path, "sql", "SELECT words_2 FROM types.COMPLETE", "--at", "v1")
    assert done.stdout.count("words_2") == 3


def test_statements_that_give_no_tree_read_types_too(lake: lakelog.Lake) -> None:
    """Views and pivots over a type see what was appended since."""
    assert lake.sql("PIVOT types.COMPLETE ON ok USING count(*)").fetchall()
    lake.sql("CREATE VIEW long AS SELECT COMPLETE.words_2 FROM types.COMPLETE WHERE words_2 > 9")
    assert len(lake.sql("FROM long").fetchall()) == 2
    lake.append([{"type": "COMPLETE", "data": {"words": 99}}])
    assert len(lake.sql("FROM long").fetchall()) == 3


def test_a_view_over_a_type_stops_no_other_statement(lake: lakelog.Lake) -> None:
    """Neither one of a type that never was nor one whose events a rollback took."""
    with pytest.raises(QueryFailed, match="no events of type nope"):
        lake.sql("CREATE VIEW typo AS FROM types.nope")
    assert lake.sql("SELECT len(list(type)) > 0 FROM quarantine, events").fetchall()
    lake.tag("before")
    lake.append([{"type": "LATE", "data": {"n": 1}}])
    lake.sql("CREATE VIEW late AS SELECT count(*) FROM types.LATE")
    assert lake.sql("FROM late").fetchall() == [(1,)]
    lake.rollback("before")
    assert lake.sql("FROM late").fetchall() == [(0,)]
    lake.sql("SET threads = 1")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("FROM types.COMPLTE", "no events of type COMPLTE: did you mean 'COMPLETE'?"),
        ("FROM types.nothing_like_it", "no events of type nothing_like_it: `lakelog schema`"),
        ('FROM "v1".types.COMPLTE', "did you mean 'COMPLETE'?"),
        ('FROM "mian".types.COMPLETE', "no tag or branch \"mian\": did you mean 'main'?"),
        ("SELECT wrods FROM types.COMPLETE", 'Candidate bindings: "words_2"'),
        ("SELECT data FROM types.COMPLETE", "tables of types have its fields as columns"),
    ],
)
def test_what_is_missing_is_one_line_with_a_suggestion(
    lake: lakelog.Lake, query: str, words: str
) -> None:
    """Unknown types, refs and columns are told in one line."""
    with pytest.raises(QueryFailed) as failed:
        lake.sql(query).fetchall()
    assert words in str(failed.value) or "Candidate bindings" in words
    assert "\n" not in str(failed.value)


def test_errors_show_the_query_as_it_was_written(lake: lakelog.Lake) -> None:
    """The table has the name that it has in the query, and the caret stands where it belongs."""
    query = "SELECT 1 FROM types.COMPLETE WHERE mixed::INT > 1"
    with pytest.raises(QueryFailed) as failed:
        lake.sql(query).fetchall()
    *_, line, caret = failed.value.details.splitlines()
    assert line.endswith(query)
    assert line[caret.index("^") :] in ("::INT > 1", "mixed::INT > 1")
    assert as_written('x "types.a b" AS "a b" y') == 'x types."a b" y'


def test_a_ref_or_schema_called_types_is_itself(lake: lakelog.Lake) -> None:
    """A tag called types keeps its meaning."""
    lake.tag("types")
    assert lake.sql("SELECT count(*) FROM types.events").fetchall() == [(5,)]
    with pytest.raises(QueryFailed):
        lake.sql("FROM types.COMPLETE")


def _payload(random_: random.Random, odd: float) -> Any:
    if random_.random() < odd:
        return random_.choice(
            [None, [1], "text", {"n": "many", "o": 1}, {"N": 1, "n": 2}, {"n": 2.5, "b": 1}]
        )
    whole = {
        "n": random_.randrange(50),
        "f": random_.choice([0.5, 3.0, 1e20]),
        "x": random_.choice([1, 2.5, -7]),
        "s": random_.choice(["a", "ž 'q' \"", "1", ""]),
        "b": random_.random() < 0.5,
        'a"b\\': random_.randrange(3),
        "o": {"n": random_.randrange(5), "s": random_.choice(["x", None])},
        "l": [random_.randrange(9) for _ in range(random_.randrange(4))],
    }
    return {name: whole[name] for name in whole if random_.random() < 0.9}


def test_compaction_changes_no_table_of_a_type(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names, types and values of columns are those before, whichever way segments store them."""
    monkeypatch.setattr(payloads, "TYPED", True)
    lake = make_lake(seal="never", segment_rows=200)
    random_ = random.Random(3)
    for part, odd in enumerate((0, 0.05, 0.3)):
        lake.append(
            {
                "time": START + n,
                "type": random_.choice("AABC"),
                "data": {"n": "other"} if odd and n % 9 == 0 else _payload(random_, odd),
            }
            for n in range(200 * part, 200 * part + 200)
        )
        lake.settle()
    queries = [
        *(f"SELECT * FROM types.{type_} ORDER BY seq" for type_ in "ABC"),
        "SELECT o_n, count(*), sum(x), max(s) FROM types.A WHERE f > 1 OR b GROUP BY 1 ORDER BY 1",
        "SELECT count(*) FROM types.B WHERE TRY_CAST(n AS INT) > 20 AND x > 0",
    ]
    before = [_answer(lake, query) for query in queries]
    lake.compact()
    state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    assert any(entry.fields for entry in lake.store.manifests.segments(state, "events"))
    assert [_answer(lake, query) for query in queries] == before


def _answer(lake: lakelog.Lake, query: str) -> Any:
    answer = lake.sql(query)
    return answer.columns, list(map(str, answer.types)), answer.fetchall()


def test_filters_skip_segments_and_reach_their_columns(make_lake: MakeLake) -> None:
    """Conditions of a query on a type select segments, and are part of the scan of typed ones."""
    lake = make_lake(seal="never")
    for first in (0, 100):
        lake.append(
            {"type": "A", "time": START + n, "subject": f"s{n}", "data": {"n": n, "o": {"x": n}}}
            for n in range(first, first + 100)
        )
        lake.append([{"type": "B", "time": START, "data": {"s": "b"}}])
        lake.settle()
    assert lake.explain("FROM types.A WHERE subject = 's150'") == (1, 2)
    assert lake.explain(f"FROM types.a WHERE epoch(time) < {START}") == (2, 2)
    lake.compact()
    plan = lake.sql("EXPLAIN SELECT count(*) FROM types.A WHERE o_x > 3").fetchall()[0][1]
    filters = [line for line in plan.splitlines() if "fields.o.x > 3" in line]
    assert filters
    assert "Read Parquet" in plan[: plan.index(filters[0])]


def test_a_type_without_fields_is_a_table_before_it_is_sealed(make_lake: MakeLake) -> None:
    lake = make_lake(seal="never")
    lake.append([{"type": "PING", "subject": "a"}, {"type": "PONG", "subject": "b"}])
    assert lake.sql("SELECT subject FROM types.PING").fetchall() == [("a",)]
    lake.settle()
    assert lake.sql("SELECT subject FROM types.PING").fetchall() == [("a",)]


def test_fields_have_the_types_of_all_events_in_every_state(make_lake: MakeLake) -> None:
    """A query of `fields` gives the same before and after sealing, compaction and a rollback, in
    the types of the ledger: numbers, JSON of nested values, text where kinds contradict."""
    lake = make_lake(seal="never")
    queries = {
        "max(fields.ms), typeof(any_value(fields.ms))": [(1000, "BIGINT")],
        "round(avg(fields.share), 2), count(*) FILTER (fields.ms BETWEEN 9 AND 11)": [(250.25, 3)],
        "max(fields.mixed), max(fields.deep.n), any_value(fields.list)": [("999", 1000, "[1]")],
        "count(fields.missing), bool_and(fields.ok), max(fields.by.k7)": [(0, True, 7)],
    }

    def check(table: str) -> None:
        for items, expected in queries.items():
            assert lake.sql(f"SELECT {items} FROM {table}").fetchall() == expected

    lake.append(
        {
            "type": f"T{n % 3}",
            "data": {
                "ms": n,
                "share": n / 2 if n % 2 else n // 2,
                "ok": True,
                "list": [1],
                "mixed": str(n) if n % 5 else n,
                "deep": {"n": n},
                "by": {f"k{n}": n},
            },
        }
        for n in range(1, 1001)
    )
    check("events")
    lake.settle()
    check("events")
    lake.tag("v1")
    lake.compact()
    check("events")
    lake.append({"type": "T0", "data": {"ms": "late"}})
    assert lake.sql("SELECT max(fields.ms) FROM events").fetchall() == [("late",)]
    check('"v1".events')
    lake.rollback("v1")
    check("events")
