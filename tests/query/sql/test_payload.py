"""Extractions from payloads over typed segments: the answers are those of a table of JSON text.

A hundred random queries are compared, and a thousand by `make torture`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pytest

import lakelog
from lakelog.errors import QueryFailed
from lakelog.maintain import payloads
from lakelog.views import LakeViews
from tests.support.effort import IS_WHOLE, share

MakeLake = Callable[..., lakelog.Lake]
START = 1_770_000_000
MEMBERS = """-- name: members
-- map
SELECT data->>'n' AS n, count(*) AS events, sum(TRY_CAST(data->'o'->>'n' AS INT))::BIGINT AS total
FROM segment WHERE data->>'b' IS NOT NULL GROUP BY ALL
-- merge
SELECT n, sum(events)::BIGINT AS events, sum(total)::BIGINT AS total FROM partials GROUP BY ALL
-- finish
SELECT n, events, total FROM state
"""
WORDS = ["a", "b", "", "ž 'q' \"", "1", "2.50", "true", "null", "[1]", "\U0001f600\n"]
NAMES = ["n", "N", "s", "f", "b", "mixed", "a.b", "it's", "o", "l", "deep", "none"]


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lakelog.Lake]:
    """A lake of typed segments of several schemas, one segment of text, and a tail."""
    path = tmp_path_factory.mktemp("typed") / "lake"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(payloads, "TYPED", True)
        with lakelog.open(str(path), settings={"seal": "never", "segment_rows": 200}) as lake:
            random_ = random.Random(7)
            for number in range(3):
                _append(lake, random_, 200 * number, 200, odd=(0, 0.02, 0.3)[number])
            lake.settle()
            lake.compact()
            _append(lake, random_, 600, 60, odd=0.2)
            lake.settle()
            _append(lake, random_, 660, 30, odd=0.2)
            yield lake


@pytest.fixture(scope="module")
def text(typed: lakelog.Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    """The same events as a table of a plain database."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = typed.sql("FROM events").to_arrow_table()
        connection.register("rows", rows)
        connection.execute("CREATE TABLE events AS FROM rows")
        yield connection


def _append(lake: lakelog.Lake, random_: random.Random, first: int, count: int, odd: float) -> None:
    lake.append(
        {
            "time": START + first + n,
            "type": random_.choice("AAB"),
            "subject": random_.choice("xyz"),
            "data": _odd(random_) if random_.random() < odd else _payload(random_, first),
        }
        for n in range(count)
    )


def _payload(random_: random.Random, first: int) -> dict[str, Any]:
    whole = {
        "n": random_.randrange(-5, 50),
        "s": random_.choice(WORDS),
        "f": random_.choice([0.5, -1.25, 3.0, 1e20, 1e-7, 0.1]),
        "b": random_.random() < 0.5,
        "mixed": random_.choice([1, "x", 2.5, None, [1], {"k": 1}, True]) if first > 200 else 5,
        "a.b": random_.randrange(3),
        "it's": random_.choice(WORDS),
        "o": {"n": random_.randrange(5), "s": random_.choice(WORDS), "A": 1},
        "l": [random_.randrange(9) for _ in range(random_.randrange(4))],
        "deep": {"x": {"y": {"z": random_.choice([1.5, 2, None])}}},
        "none": None,
    }
    if first == 0:  # all of them fit one schema
        return {name: whole[name] for name in ("n", "b", "a.b", "o")}
    return {name: whole[name] for name in whole if random_.random() < 0.85}


def _odd(random_: random.Random) -> Any:
    """A payload that fits no schema."""
    return random_.choice(
        [
            *(None, [1, 2], "text", 7, {}, {"n": "many"}, {"N": 1, "n": 2}),
            *({"n": 2**70, "s": {"x": 1}}, {"o": 3, "l": {"0": 1}, "f": "0.5"}),
            {"n": None, "s": None, "b": "true", "new": [{}]},
        ]
    )


class Queries:
    """Makes random queries."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def extraction(self, owner: str = "") -> str:
        """An extraction from the payload in one of its spellings."""
        choose = self.random.choice
        names = choose([[choose(NAMES)], ["o", choose("nsAx")], ["deep", "x", "y", "z"], ["l", 1]])
        data = f"{owner}data"
        quoted = [n if isinstance(n, int) else "'" + n.replace("'", "''") + "'" for n in names]
        path = "$" + "".join(f"[{n}]" if isinstance(n, int) else f'."{n}"' for n in names)
        path = path.replace("'", "''")
        if len(names) == 1:
            simple = f"{data}->>{quoted[0]}"
            return choose([f"({simple})", f"({data}->{quoted[0]})", f"({data}->>'{path}')"])
        chain = "->".join(map(str, quoted[:-1]))
        return choose(
            [
                f"({data}->{chain}->>{quoted[-1]})",
                f"(({data}->{chain})->{quoted[-1]})",
                f"json_extract_string({data}, '{path}')",
                f"json_extract({data}::JSON, '{path}')",
                f"json_value({data}, '{path}')",
                f"(({data}->{chain})->>{quoted[-1]})",
            ]
        )

    def value(self, owner: str = "") -> str:
        """An expression of an extraction."""
        one = self.extraction(owner)
        kind = self.random.choice("BIGINT INTEGER DOUBLE BOOLEAN VARCHAR DATE TINYINT".split())
        return self.random.choice(
            [one, one, f"TRY_CAST({one} AS {kind})", f"TRY_CAST({one} AS {kind})"]
            + [f"coalesce({one}::VARCHAR, 'z')", f"{one} IS NULL", f"length({one}::VARCHAR)"]
            + [f"CASE WHEN seq % 2 = 0 THEN {one}::VARCHAR END" if not owner else one]
            + [f"({one})::{kind}"] * (self.random.random() < 0.2)
        )

    def condition(self, owner: str = "") -> str:
        """A condition on extractions."""
        one, number = self.extraction(owner), self.random.randrange(-2, 9)
        word = self.random.choice(["a", "1", "x", "2.50", "true"])
        return self.random.choice(
            [
                f"TRY_CAST({one} AS BIGINT) > {number}",
                f"TRY_CAST({one} AS DOUBLE) <= {number}.5",
                f"{one}::VARCHAR = '{word}'",
                f"{one} IS NOT NULL",
                f"NOT ({one}::VARCHAR IN ('{word}', 'b'))",
                f"({one}::VARCHAR LIKE '%{word}%' OR {owner}type = 'B')",
                f"{owner}type = 'A' AND TRY_CAST({one} AS INTEGER) BETWEEN 0 AND {number}",
            ]
        )

    def query(self) -> str:
        """A query of one of several forms."""
        v, c = self.value, self.condition
        return self.random.choice(
            [
                f"SELECT {v()}, {v()} AS named, seq FROM events WHERE {c()}",
                f"SELECT * FROM events WHERE {c()} AND {c()}",
                f"SELECT * EXCLUDE (time), {v()} FROM events",
                f"FROM events WHERE {c()}",
                f"SELECT {v()}, count(*), max({v()}) FROM events WHERE {c()} GROUP BY 1",
                f"SELECT {v()} AS k, sum(TRY_CAST({self.extraction()} AS DOUBLE)),"
                f" count({v()}) FILTER (WHERE {c()}) FROM events GROUP BY k HAVING count(*) > 1",
                f"SELECT e.seq, z.seq, {v('e.')} FROM events e JOIN events z ON {c('e.')}"
                " AND e.seq = z.seq + 1",
                f"WITH q AS (SELECT *, {v()} AS v FROM events WHERE {c()})"
                f" SELECT type, v, {v()} FROM q WHERE {c()}",
                f"SELECT q.* FROM (SELECT {v()}, seq FROM events) q JOIN events e USING (seq)"
                f" WHERE {c('e.')}",
                f"SELECT seq, row_number() OVER (PARTITION BY {v()} ORDER BY seq),"
                f" lag({v()}) OVER (ORDER BY seq) FROM events",
                f"SELECT seq, {v()} FROM events e WHERE EXISTS"
                f" (SELECT 1 FROM events z WHERE z.seq = e.seq + 1 AND {c('e.')} AND {c('z.')})",
                f"SELECT {v()} FROM events UNION ALL SELECT {v()} FROM events WHERE {c()}",
                f"SELECT DISTINCT {v()}, {v()} FROM events ORDER BY ALL",
                f"SELECT (SELECT max({v('z.')}) FROM events z WHERE z.seq = e.seq), data"
                " FROM events e",
                f"SELECT events.*, {v('events.')} FROM events WHERE seq IN"
                f" (SELECT seq FROM events WHERE {c()})",
            ]
        )


def _answer(connection: Any, query: str) -> Any:
    """Names and rows of an answer, the rows in one order, or that it is an error."""
    try:
        answer = connection.sql(query)
        rows = answer.fetchall()
    except (QueryFailed, duckdb.Error) as error:
        return str(error).partition(":")[0]
    return answer.columns, sorted(repr([_rounded(value) for value in row]) for row in rows)


def _rounded(value: Any) -> Any:
    return float(f"{value:.9g}") if isinstance(value, float) else value


@pytest.mark.rounds
@pytest.mark.parametrize("part", range(20 if IS_WHOLE else 2))
def test_random_queries_give_the_answers_over_text(
    typed: lakelog.Lake, text: duckdb.DuckDBPyConnection, part: int
) -> None:
    """Queries over typed and text segments and a tail give what the same gives over JSON text."""
    for case in range(50 * part, 50 * part + share(50, 2)):
        query = Queries(case).query()
        assert _answer(typed, query) == _answer(text, query), (case, query)


def test_no_query_shows_the_columns_of_extractions(
    typed: lakelog.Lake, text: duckdb.DuckDBPyConnection
) -> None:
    """Stars have the columns of events, and results the names that they have over text."""
    names = typed.sql("FROM events").columns
    where = "WHERE data->>'n' = '1'"
    assert typed.sql(f"SELECT * FROM events {where}").columns == names
    assert typed.sql(f"SELECT e.* FROM events e {where}").columns == names
    assert typed.sql(f"SELECT * FROM (FROM events {where})").columns == names
    joined = typed.sql(
        f"SELECT * FROM events JOIN events z USING (seq) {where.replace('d', 'z.d')}"
    )
    assert not [name for name in joined.columns if "~" in name]
    for item in ("data->>'n'", "(data->'o'->>'n')::INT", "sum((e.data->'o'->'n')::INT) + 1"):
        query = f"SELECT {item} FROM events e"  # engines write nested ones differently
        assert typed.sql(query).columns == text.sql(query).columns


def test_filters_on_fields_reach_the_columns_of_segments(typed: lakelog.Lake) -> None:
    """The scan of a typed segment filters by a nested member, and reads no other of them."""
    plan = typed.sql(
        "EXPLAIN SELECT count(*) FROM events WHERE (data->'o'->>'n')::BIGINT > 3 AND seq < 200"
    ).fetchall()[0][1]
    filters = [line for line in plan.splitlines() if "fields" in line and "> 3" in line]
    assert filters
    assert "Read Parquet" in plan[: plan.index(filters[0])]
    assert not any("json" in line for line in filters)


@pytest.mark.parametrize(
    "query", ["SELECT\n  1, (data->>'s')::INT FROM events", "SELECT nope, data->>'s' FROM events"]
)
def test_errors_show_the_query_as_it_was_written(
    typed: lakelog.Lake, text: duckdb.DuckDBPyConnection, query: str
) -> None:
    """What fails shows the user's own query, with the caret where a table of text has it."""
    with pytest.raises(duckdb.Error) as expected:
        text.sql(query).fetchall()
    with pytest.raises(QueryFailed) as failed:
        typed.sql(query).fetchall()
    picture = str(expected.value).partition("\n\nLINE ")[2]
    assert picture or "nope" in failed.value.details
    assert failed.value.details.partition("\n\nLINE ")[2] == picture


def test_tables_of_refs_read_columns_too(typed: lakelog.Lake) -> None:
    """Extractions from `"REF".events` are columns as those from `events` are, in one query too."""
    text = typed.sql("FROM events").to_arrow_table()
    query = """SELECT e.seq, e.data->>'n', (e.data->'o'->>'n')::INT, z.data->>'s' FROM {} e
        JOIN {} z USING (seq) WHERE TRY_CAST(z.data->>'n' AS INT) > 3 ORDER BY 1"""
    expected = typed.sql(query.format("text", "text"), variables={"text": text}).fetchall()
    assert expected
    for tables in (("main.events", "events"), ("events", "main.events"), ("main.events",) * 2):
        assert typed.sql(query.format(*tables)).fetchall() == expected
    assert (
        typed.sql("SELECT max(fields.o.n) FROM main.events").fetchall()
        == typed.sql("SELECT max(fields.o.n) FROM events").fetchall()
    )
    plan = typed.sql(
        "EXPLAIN SELECT count(*) FROM main.events WHERE (data->'o'->>'n')::BIGINT > 3 AND seq < 200"
    ).fetchall()[0][1]
    assert "fields.o.n > 3" in plan
    assert [*typed.sql("SELECT *, data->>'n' FROM main.events").columns][-2:] == [
        "seq",
        "(\"data\" ->> 'n')",
    ]


def test_a_query_may_call_something_else_events(typed: lakelog.Lake) -> None:
    """What WITH calls events is not the lake's table."""
    query = """WITH events AS (SELECT '{"n":"mine"}' AS data) SELECT data->>'n' FROM events"""
    assert typed.sql(query).fetchall() == [("mine",)]


def test_views_read_typed_payloads_as_text(typed: lakelog.Lake) -> None:
    """The map of a view reads typed columns, and its answer is that over text."""
    LakeViews(typed).create("members", MEMBERS)
    over_text = typed.sql("""SELECT data->>'n' AS n, count(*) AS events,
        sum(TRY_CAST(data->'o'->>'n' AS INT))::BIGINT AS total
        FROM events WHERE data->>'b' IS NOT NULL GROUP BY 1""")
    expected = sorted(map(repr, over_text.fetchall()))
    assert sorted(map(repr, typed.sql("FROM members").fetchall())) == expected


def test_fields_are_typed_columns(typed: lakelog.Lake) -> None:
    """`fields.x.y` is a value in the type that all its values have, those of text and tail too."""
    query = "SELECT fields.o.n AS n, TRY_CAST(data->'o'->>'n' AS BIGINT) AS expected FROM events"
    answer = typed.sql(f"{query} WHERE fields.o.n > 3 OR events.fields.deep.x.y.z = 2")
    assert [str(kind) for kind in answer.types] == ["BIGINT", "BIGINT"]
    rows = answer.fetchall()
    assert rows
    assert all(n == expected for n, expected in rows)
    expected = typed.sql("""SELECT count(*) FROM events
        WHERE TRY_CAST(data->'o'->>'n' AS BIGINT) > 3
        OR TRY_CAST(json_extract_string(data, '$.deep.x.y.z') AS DOUBLE) = 2""").fetchall()
    assert [(len(rows),)] == expected
    assert typed.sql('SELECT fields."it\'s" FROM events').columns == ["it's"]
    assert typed.sql("SELECT fields.o FROM events WHERE fields.o IS NOT NULL").fetchall()
    texts = typed.sql("SELECT fields.n, data->>'n' FROM events").fetchall()  # some are "many"
    assert all(n == expected for n, expected in texts)


def test_fields_of_a_lake_of_text(make_lake: MakeLake) -> None:
    """Where no segment is typed, `fields.x` has the type of its values as well."""
    lake = make_lake()
    lake.append([{"type": "A", "data": {"n": n, "o": {"s": "x"}}} for n in range(3)])
    assert lake.sql(
        "SELECT fields.n, fields.o.s FROM events WHERE fields.n::INT > 1"
    ).fetchall() == [(2, "x")]


def test_errors_of_queries_over_fields(make_lake: MakeLake) -> None:
    """A query over `fields` fails with what is wrong in it, not with `fields`."""
    lake = make_lake()
    lake.append({"type": "A", "data": {"n": "abc"}})
    for query, words in (
        ("SELECT fields.n::INT FROM events", "Could not convert string 'abc' to INT32$"),
        ("SELECT fields.n + 1 FROM events", "No function matches"),
        ("SELECT fields.n, nope FROM events", '"nope" not found'),
        ("SELECT COLUMNS('s.*'), fields.n FROM events", "fields are known where FROM names events"),
    ):
        with pytest.raises(QueryFailed, match=words):
            lake.sql(query).fetchall()


def test_mixed_scalars_are_text_in_every_state(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append([{"type": "A", "data": {"n": n, "o": {"x": 1}}} for n in (1, "5", 2.5) * 100])
    query = "SELECT DISTINCT fields.n, typeof(fields.n) FROM events ORDER BY ALL"
    texts = [("1", "VARCHAR"), ("2.5", "VARCHAR"), ("5", "VARCHAR")]
    assert lake.sql(query).fetchall() == texts
    lake.compact()
    assert lake.sql(query).fetchall() == texts
    assert lake.sql("SELECT count(*) FROM events WHERE fields.n = '5'").fetchone() == (100,)
    assert lake.sql("SELECT typeof(fields.o) FROM events LIMIT 1").fetchone() == ("JSON",)
