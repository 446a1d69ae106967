"""Queries: one state, fixed when sql() is called, and every other state by its name."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest

import lakelog
from lakelog import history
from lakelog.errors import LakelogError, QueryFailed
from lakelog.manifest import Manifests
from lakelog.query import schemas, tail_rows
from tests.support.effort import share

MakeLake = Callable[..., lakelog.Lake]


def put(lake: lakelog.Lake, *types: str) -> None:
    """Append one event per type."""
    lake.append([{"type": name} for name in types])


def types(relation: Any) -> str:
    """Return the first column of a relation, sorted, as one word."""
    return "".join(sorted(row[0] for row in relation.fetchall()))


def alter(lake: lakelog.Lake) -> None:
    """Do everything that changes what a later query would read."""
    put(lake, "x")
    lake.settle()
    put(lake, "y")
    lake.compact()
    lake.retention("0s", apply=True)
    lake.rollback("@1")
    put(lake, "z")
    lake.gc()


# --- the tail -------------------------------------------------------------------------------------


def test_a_query_with_nothing_new_reads_no_log(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many WAL files of ended writers there are, they are opened once; and frames that were
    read are not looked at again."""
    lake = make_lake(seal="never")
    for name in "abcdefgh":
        with make_lake() as short:
            put(short, name)
    put(lake, "i")
    assert types(lake.sql("SELECT type FROM events")) == "abcdefghi"
    opened: list[str] = []
    real = os.open

    def counting(path: Any, *more: Any, **named: Any) -> int:
        opened.append(str(path))
        return real(path, *more, **named)

    monkeypatch.setattr(os, "open", counting)
    seen = lake.sealer()._tail.collect()
    assert types(lake.sql("SELECT type FROM events")) == "abcdefghi"
    assert lake.sealer()._tail.collect() is seen
    assert len({path for path in opened if path.endswith(".zst")}) == 1  # the living writer's
    put(lake, "j")
    assert types(lake.sql("SELECT type FROM events")) == "abcdefghij"
    make_lake().settle()
    assert types(lake.sql("SELECT type FROM events")) == "abcdefghij"
    assert lake.sealer()._tail.collect().frames == {}


def test_rows_of_a_long_tail_stay_where_they_are(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries between many appends find their rows in few chunks, and seldom move the first."""
    monkeypatch.setattr(tail_rows, "_COMBINE", 4)
    lake, places = make_lake(seal="never"), set[int]()
    for n in range(100):
        put(lake, *[chr(97 + n % 26)] * (1 + n % 3))
        assert lake.sql("SELECT max(data), count(*) FROM events").fetchone()[1] == lake.count()
        table = lake._session.tables.rows_of("main")._table
        assert table is not None
        assert table["type"].num_chunks <= 8
        places.add(table["type"].chunk(0).buffers()[2].address)
    assert len(places) < 12
    arrived = lake.sql("SELECT type FROM events ORDER BY seq").fetchall()
    assert arrived == [(chr(97 + n % 26),) for n in range(100) for _ in range(1 + n % 3)]


@pytest.mark.rounds
def test_ids_that_come_bit_by_bit_count_once(make_lake: MakeLake) -> None:
    """A reader that asks after each append sees what one sees that asks at the end, whoever
    appended, whatever came again, and whatever was sealed in between."""
    chance = random.Random(5)
    writers = [make_lake(seal="never"), make_lake(), make_lake()]
    reader, query = make_lake(), "SELECT id, data FROM events ORDER BY ALL"
    for number in range(share(150)):
        kind = chance.random()
        if kind < 0.1:
            chance.choice(writers).settle()
        elif kind < 0.2:
            chance.choice(writers).append({"type": "A", "data": number})
        else:
            given = str(chance.randrange(60))
            chance.choice(writers).append({"type": "A", "id": given, "data": number})
        assert reader.sql(query).fetchall() == make_lake().sql(query).fetchall()


# --- one state ------------------------------------------------------------------------------------


def test_a_relation_is_fixed_when_sql_is_called(lake: lakelog.Lake) -> None:
    """Appends, seals, compaction, retention and rollback do not change what it will fetch."""
    put(lake, "a")
    lake.settle()
    put(lake, "b")
    lake.tag("v1")
    put(lake, "c")
    with lake.branch("dev") as dev:
        put(dev, "d")
        relations = {
            "abc": lake.sql("SELECT type FROM events"),
            "ab": lake.sql('SELECT type FROM "v1".events'),
            "abcd": lake.sql('SELECT type FROM "dev".events'),
            "abc ": lake.sql('SELECT type FROM "main".events'),
        }
        counted = lake.sql("SELECT count(*) FROM events")
        alter(dev)
        alter(lake)
        assert types(lake.sql("SELECT type FROM events")) == "z"
        assert types(lake.sql('SELECT type FROM "dev".events')) == "abcz"
        for expected, relation in relations.items():
            assert types(relation) == expected.strip()
            assert types(relation) == expected.strip()
        assert counted.fetchall() == [(3,)]


def test_a_relation_outlives_its_lake(make_lake: MakeLake) -> None:
    """A relation can be fetched and built upon after the lake was closed and forgotten."""
    lake = make_lake()
    put(lake, "a", "b")
    relation = lake.sql("SELECT type FROM events")
    lake.close()
    del lake
    assert types(relation.filter("type = 'b'")) == "b"
    assert relation.aggregate("count(*)").fetchall() == [(2,)]


def test_a_collected_segment_is_an_error_not_fewer_rows(make_lake: MakeLake) -> None:
    """Without any grace gc may take what a relation wants: then it fails, and a new one works."""
    lake = make_lake(gc_grace_hours=0, history_days=0)
    put(lake, "a")
    lake.settle()
    put(lake, "b")
    relation = lake.sql("SELECT type FROM events")
    view = lake.at("main")
    lake.compact()
    for _ in range(100):
        lake.snapshot()
    assert lake.gc().deleted > 0
    with pytest.raises((duckdb.Error, LakelogError)):
        relation.fetchall()
    lake.store.manifests.forget()
    with pytest.raises(LakelogError):
        view.sql("SELECT type FROM events")
    assert types(lake.sql("SELECT type FROM events")) == "ab"


STATES = ["empty", "tail", "sealed", "both", "compacted", "all", "rolled back"]


def bring_into(lake: lakelog.Lake, state: str) -> int:
    """Bring a lake into a state; return how many events it has."""
    if state == "empty":
        return 0
    put(lake, "a", "b")
    if state == "tail":
        return 2
    lake.settle()
    if state == "sealed":
        return 2
    if state in ("compacted", "all"):
        put(lake, "c")
        lake.compact()
    if state in ("both", "all"):
        put(lake, "d")
    if state == "all":
        lake.settle()
        lake.append([{"type": "e", "id": "1"}, {"type": "e", "id": "1"}])
    if state == "rolled back":
        lake.tag("v1")
        put(lake, "c")
        lake.rollback("v1")
    return {"both": 3, "compacted": 3, "all": 5, "rolled back": 2}[state]


@pytest.mark.parametrize("state", STATES)
def test_columns_are_the_same_in_every_state(lake: lakelog.Lake, state: str) -> None:
    """Names, order and types of the columns depend on nothing, for events and quarantine."""
    bring_into(lake, state)
    stamp = pa.timestamp("us", "UTC")
    text = "type category source subject level message data id".split()
    expected = [("time", stamp), *((c, pa.string()) for c in text), ("ingested_at", stamp)]
    expected += [("origin", pa.string()), ("position", pa.int64()), ("seq", pa.int64())]
    for table in ("events", '"main".events'):
        schema = pa.table(lake.sql(f"SELECT * FROM {table}")).schema
        assert [(f.name, f.type) for f in schema] == expected
    bad = pa.table(lake.sql("FROM quarantine")).schema
    assert bad.names == ["ingested_at", "origin", "position", "reason", "line"]


@pytest.mark.matrix
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM events",
        "select COUNT(*) as n from Events e",
        "FROM events SELECT count(*)",
        'SELECT count(*) FROM "events"',
        "SELECT count(*) FROM events WHERE true",
        "SELECT count(*) FROM (FROM events)",
        "SELECT count(type) FROM events",
        'SELECT count(*) FROM "main".events',
        "SELECT (SELECT count(*) FROM events)",
    ],
)
def test_all_ways_to_count_agree(lake: lakelog.Lake, state: str, query: str) -> None:
    """The count from the totals is the count of the rows, in every state."""
    expected = bring_into(lake, state)
    assert lake.sql(query).fetchall() == [(expected,)]
    assert lake.count() == expected


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("SELECT count(*) FROM events LIMIT 0", []),
        ("SELECT count(*) FROM events HAVING count(*) > 9", []),
        ("SELECT count(*) FILTER (type = 'a') FROM events", [(1,)]),
        ("SELECT DISTINCT count(*) FROM events", [(2,)]),
        ("SELECT count(*) FROM events GROUP BY type", [(1,), (1,)]),
        ("SELECT count(*) FROM events, events e2", [(4,)]),
        ("SELECT count(*) FROM events TABLESAMPLE 0%", [(0,)]),
        ("SELECT count(*) OVER () FROM events", [(2,), (2,)]),
        ("SELECT count(*) + 1 FROM events", [(3,)]),
        ("SELECT count(*), count(*) FROM events", [(2, 2)]),
        ("WITH events AS (SELECT 1) SELECT count(*) FROM events", [(1,)]),
        ("SELECT count(*) FROM events UNION ALL SELECT 7 ORDER BY 1", [(2,), (7,)]),
        ("SELECT count(*) FROM events; SELECT 1", [(1,)]),
        ("SELECT count(DISTINCT data) FROM events", [(0,)]),
    ],
)
def test_what_only_looks_like_a_count_is_run(
    lake: lakelog.Lake, query: str, rows: list[Any]
) -> None:
    """Only exactly SELECT count(*) FROM events is answered from the totals."""
    bring_into(lake, "both")
    lake.rollback("@2")
    assert lake.sql(query).fetchall() == rows


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("SELECT count(*) FROM events", "count_star()"),
        ("SELECT count(*) AS n FROM events", "n"),
        ('SELECT count(*) AS "a ""b" FROM events', 'a "b'),
    ],
)
def test_a_count_has_the_column_s_name(lake: lakelog.Lake, query: str, name: str) -> None:
    """The count from the totals looks like that of the engine."""
    relation = lake.sql(query)
    assert relation.columns == [name]
    assert [str(t) for t in relation.types] == ["BIGINT"]


# --- SQL ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("FROM events SELECT type ORDER BY 1", ["a", "b", "c"]),
        ("TABLE events", 3),
        ("WITH e AS (FROM events) SELECT type FROM e WHERE type > 'a' ORDER BY 1", ["b", "c"]),
        ("SELECT type FROM events e WHERE e.type = (SELECT min(type) FROM events)", ["a"]),
        ("SELECT e.type FROM events e JOIN events f ON e.type = f.type WHERE f.type < 'b'", ["a"]),
        ("SELECT upper(type) FROM (SELECT type FROM events) ORDER BY 1", ["A", "B", "C"]),
        ("SELECT type FROM Events WHERE EVENTS.TYPE = 'b'", ["b"]),
        ("SELECT type FROM query_table('events') ORDER BY 1", ["a", "b", "c"]),
        ("SELECT type FROM query('SELECT type FROM events') ORDER BY 1", ["a", "b", "c"]),
        ("PIVOT (SELECT type, 1 AS n FROM events) ON type USING sum(n)", 1),
        ("DESCRIBE events", 13),
        ("SUMMARIZE events", 13),
        ("EXPLAIN SELECT * FROM events", 1),
        ("SELECT 1 FROM events; SELECT type FROM events WHERE type = 'c'", ["c"]),
        ("SELECT type FROM events WHERE data IS NULL ORDER BY ALL LIMIT 1", ["a"]),
        ("SELECT i FROM range(3) t(i) WHERE i NOT IN (SELECT count(*) FROM events) ORDER BY 1", 3),
    ],
)
def test_sql_of_every_shape(lake: lakelog.Lake, query: str, rows: Any) -> None:
    """Wherever and however a statement names events, it reads them."""
    put(lake, "a", "b")
    lake.settle()
    put(lake, "c")
    found = lake.sql(query).fetchall()
    assert (len(found) if isinstance(rows, int) else [row[0] for row in found]) == rows


@pytest.mark.parametrize("params", [["b"], ("b",), {"t": "b"}])
def test_parameters_are_bound(lake: lakelog.Lake, params: Any) -> None:
    """Values are given by place or by name, never by pasting text together."""
    put(lake, "a", "b", "b'; --")
    lake.settle()
    put(lake, "b")
    mark = "$t" if isinstance(params, dict) else "?"
    query = f"SELECT type FROM events WHERE type = {mark}"
    assert types(lake.sql(query, params)) == "bb"
    assert lake.sql("SELECT ? AS x, ? AS y", [1, None]).fetchall() == [(1, None)]


@pytest.mark.parametrize(
    "query",
    [
        "SELEC 1",
        "SELECT nope FROM events",
        "SELECT * FROM nope",
        'SELECT * FROM "nope".events',
        'SELECT * FROM "2024-01-01".events',
        'SELECT * FROM "a~b".events',
        'SELECT nope FROM "v1".events',
        "SELECT type FROM events WHERE",
        "SELECT\n type\n FROM\n events\n WHERE\n nope = 1",
        "SELECT type FROM events WHERE type = ?",
        'SELECT "',
        "SELECT count(*) FROM events events2 JOIN",
        "CREATE TABLE t AS SELECT nope FROM events",
        "SELECT * FROM 'https://example.invalid/x.parquet'",
        "SELECT '\ud800' FROM events",
    ],
)
def test_wrong_sql_is_one_clear_line(lake: lakelog.Lake, query: str) -> None:
    """The engine's words come as QueryFailed on one line, without our internal names."""
    put(lake, "a")
    lake.tag("v1")
    with pytest.raises(QueryFailed) as caught:
        lake.sql(query)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    assert "lakelog_" not in text


@pytest.mark.parametrize("query", ["", " ", ";", "-- nothing"])
def test_no_statement_is_no_relation(lake: lakelog.Lake, query: str) -> None:
    """Empty text runs nothing, and an error says what to ask."""
    with pytest.raises(QueryFailed, match="the query is empty"):
        lake.sql(query)


def test_results_go_to_other_tools(lake: lakelog.Lake) -> None:
    """A relation is a PyCapsule stream for pyarrow and polars, and has fetchers of its own."""
    put(lake, "a", "b")
    relation = lake.sql("SELECT type, seq FROM events ORDER BY type")
    assert pa.table(relation).to_pydict() == {"type": ["a", "b"], "seq": [0, 1]}
    series = pl.from_arrow(relation)
    frame = series.struct.unnest() if isinstance(series, pl.Series) else series
    for made in (frame, pl.DataFrame(relation), relation.pl()):
        assert made["type"].to_list() == ["a", "b"]
    assert relation.limit(1).fetchall() == [("a", 0)]


def test_tables_made_by_the_user_stay(lake: lakelog.Lake) -> None:
    """Tables, views and macros made from events live as long as the lake is open."""
    put(lake, "a")
    lake.settle()
    lake.sql("CREATE TABLE mine AS SELECT type FROM events")
    lake.sql("CREATE VIEW live AS SELECT type FROM events")
    lake.sql("CREATE MACRO total() AS (SELECT count(*) FROM events)")
    put(lake, "b")
    lake.settle()
    lake.sql("CREATE TABLE domain AS SELECT 1 AS main")
    with lake.branch("dev") as dev:
        for name in "cd":
            put(dev, name)
            assert types(lake.sql('SELECT type FROM "dev".events')).endswith(name)
    assert types(lake.sql("SELECT * FROM mine")) == "a"
    assert types(lake.sql("SELECT * FROM live")) == "ab"
    assert types(lake.sql("SELECT type FROM events WHERE type = 'a' UNION ALL FROM live")) == "aab"
    assert lake.sql("SELECT total(), * FROM mine").fetchall() == [(2, "a")]
    assert lake.sql("SELECT total() FROM events WHERE type = 'a'").fetchall() == [(2,)]
    lake.sql("INSERT INTO mine SELECT type FROM events")
    assert types(lake.sql("SELECT * FROM mine")) == "aab"
    assert types(lake.sql("CREATE TEMP TABLE t AS SELECT type FROM events; FROM t")) == "ab"
    assert types(lake.sql('CREATE TEMP TABLE t AS SELECT type FROM "dev".events; FROM t')) == "abcd"


# --- other states by name -------------------------------------------------------------------------

NAMES = [
    "v1",
    "V1",
    "a b",
    "x.y",
    "a/b",
    "a'b",
    "ünï",
    "日本",
    "100%",
    "select",
    "events",
    "0",
    "temp",
    "system",
    "memory",
    "lakelog_1",
    "main.events",
]


@pytest.mark.parametrize("kind", ["tag", "branch"])
def test_any_name_is_a_schema(make_lake: MakeLake, kind: str) -> None:
    """Tags and branches of every allowed name are read by it, alone and beside others."""
    lake = make_lake()
    for number, name in enumerate(NAMES):
        lake.append({"type": str(number)})
        lake.tag(name) if kind == "tag" else lake.branch(name).close()
    for number, name in enumerate(NAMES):
        quoted = f'"{name}".events'
        assert lake.sql(f"SELECT count(*) FROM {quoted}").fetchall() == [(number + 1,)], name
        both = (
            f"SELECT count(*), (SELECT count(*) FROM events) FROM {quoted} WHERE {quoted}.type > ''"
        )
        assert lake.sql(both).fetchall() == [(number + 1, len(NAMES))], name
    whole = " UNION ALL ".join(f'SELECT count(*) FROM "{name}".events' for name in NAMES)
    assert [n for (n,) in lake.sql(whole).fetchall()] == list(range(1, len(NAMES) + 1))


def test_main_means_main_wherever_it_is_read(make_lake: MakeLake) -> None:
    """On another branch or in an old state, "main".events is the branch main and its tail."""
    main = make_lake()
    put(main, "a")
    main.tag("v1")
    with main.branch("dev") as dev:
        put(main, "m")
        put(dev, "d", "e")
        query = """SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM "main".events),
            (SELECT count(*) FROM main.events), (SELECT count(*) FROM "dev".events),
            (SELECT count(*) FROM v1.events)"""
        assert main.sql(query).fetchall() == [(2, 2, 2, 3, 1)]
        assert dev.sql(query).fetchall() == [(3, 2, 2, 3, 1)]
        assert dev.at("v1").sql(query).fetchall() == [(1, 2, 2, 3, 1)]
        assert dev.sql('SELECT count(*) FROM "main".events').fetchall() == [(2,)]
        assert types(make_lake(branch="dev").sql('SELECT type FROM "main".events')) == "am"


def test_columns_of_two_states_are_told_apart(lake: lakelog.Lake) -> None:
    """Qualified columns, joins and set operations over several states work without aliases."""
    put(lake, "a")
    lake.tag("v1")
    put(lake, "b")
    lake.tag("v2")
    query = 'SELECT "v2".events.type FROM "v2".events ANTI JOIN "v1".events USING (type)'
    assert types(lake.sql(query)) == "b"
    query = """SELECT "v1".events.type, v2.events.type FROM "v1".events, v2.events
        WHERE "v1" . "events".type <> v2.events.type"""
    assert lake.sql(query).fetchall() == [("a", "b")]
    assert types(lake.sql("SELECT type FROM v2.events EXCEPT SELECT type FROM v1.events")) == "b"
    assert types(lake.sql("SELECT V1.Events.type FROM V1.EVENTS -- 'v2'.events\n")) == "a"
    assert lake.sql("SELECT 'v1.events', count(*) FROM v1.events").fetchall() == [("v1.events", 1)]


def test_a_column_called_events_is_no_table(lake: lakelog.Lake) -> None:
    """An alias that happens to be a tag's name keeps its columns."""
    lake.tag("d")
    query = "SELECT d.events, d.quarantine FROM (SELECT 1 AS events, 2 AS quarantine) d"
    assert lake.sql(query).fetchall() == [(1, 2)]


def test_quarantine_has_states_too(lake: lakelog.Lake) -> None:
    """Bad lines are read by ref like events."""
    lake.quarantine([("a.log", 1, "not JSON", "{")])
    lake.tag("v1")
    lake.quarantine([("a.log", 2, "not JSON", "[")])
    lake.settle()
    assert types(lake.sql('SELECT line FROM "v1".quarantine')) == "{"
    assert types(lake.sql("SELECT line FROM quarantine")) == "[{"


def test_a_tag_made_anew_is_read_anew(lake: lakelog.Lake) -> None:
    """A name given to another state is that state from the next query on."""
    for name in "ab":
        put(lake, name)
        lake.tag("v1")
        relation = lake.sql('SELECT type FROM "v1".events')
        assert types(relation) == "ab"[: "ab".index(name) + 1]
        history.delete_tag(lake.store, "v1")
        with pytest.raises(QueryFailed):
            lake.sql('SELECT type FROM "v1".events')
        assert types(relation).startswith("a")


def test_a_branch_seen_from_elsewhere_is_fresh_each_time(make_lake: MakeLake) -> None:
    """Every query of another branch sees all that was acknowledged there, through its rewinds."""
    main = make_lake()
    with main.branch("dev") as dev:
        start = dev.at("dev").id
        for number in range(1, 80):
            put(dev, str(number))
            found = main.sql('SELECT max(type::INT), count(*) FROM "dev".events').fetchall()
            assert found == [(number, 1 + (number - 1) % 10)]
            if number % 10 == 0:
                dev.settle()
                dev.rollback(start)
    assert len(main._session.binder.refs.versions) <= schemas.VERSIONS_MAX + 2


# --- threads --------------------------------------------------------------------------------------


def test_threads_may_share_a_lake(lake: lakelog.Lake) -> None:
    """Eight threads query, append, seal and collect: each sees what it was told is stored."""
    lake.tag("v1")
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for n in range(1, 13):
                lake.append({"type": f"t{thread}"})
                query = "SELECT count(*), (SELECT count(*) FROM v1.events) FROM events"
                mine = lake.sql(f"{query} WHERE type = 't{thread}'").fetchall()
                assert mine == [(n, 0)]
                assert lake.count() >= n
                if thread == 0:
                    lake.settle()
                if thread == 1 and n % 3 == 0:
                    lake.compact()
                if thread == 2:
                    lake.gc()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert lake.count() == 96


def test_a_manifest_survives_being_forgotten_by_another_thread(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gc forgets what is in memory while queries read: a reader keeps what it has."""
    shelf: Manifests = lake.store.manifests
    digest = lake.store.refs.head("main").move.snapshot

    class Forgetful(dict[str, Any]):
        def __contains__(self, key: object) -> bool:
            found = super().__contains__(key)
            self.clear()
            return found

    monkeypatch.setattr(shelf, "_manifests", Forgetful({digest: shelf.load(digest)}))
    assert shelf.load(digest).digest == digest


def test_the_newest_above_a_seq_in_one_segment(lake: lakelog.Lake) -> None:
    """A bound on seq and a limit go together, also where one arrival segment is all there is."""
    lake.append([{"type": f"t{n}", "time": 1_770_000_000 + n} for n in range(5)])
    lake.settle()
    for bound, expected in ((0, ["t4", "t3"]), (4, ["t4"])):
        query = f"SELECT type FROM events WHERE seq >= {bound} ORDER BY time DESC LIMIT 2"
        assert [name for (name,) in lake.sql(query).fetchall()] == expected


def test_needles_in_any_spelling(lake: lakelog.Lake) -> None:
    """Look-ups by subject give the same in every form, again for each evaluation, and errors of
    their rows are those of the query as it is written."""
    lake.append({"type": "N", "subject": f"s{n % 3}", "data": {"n": n}} for n in range(9))
    lake.settle()
    for query in (
        "SELECT data->>'n' FROM events WHERE subject = 's1'",
        "FROM events e SELECT e.data->>'n' WHERE e.subject = 's1' -- a comment",
        "SELECT data->>'n' FROM events WHERE subject = 's1' AND seq IN (SELECT seq FROM events)",
        "-- first\nSELECT data->>'n' FROM events WHERE subject = 's1'",
        "WITH a AS (FROM events WHERE subject = 's1') SELECT data->>'n' FROM a",
    ):
        answer = lake.sql(query)
        for _ in range(2):
            assert sorted(answer.fetchall()) == [("1",), ("4",), ("7",)], query
        assert answer.to_arrow_table().num_rows == 3
        assert answer.limit(1).fetchall()
    wrong = "SELECT 1 FROM events WHERE subject = 's1' AND (data->>'n')::DATE > now()"
    with pytest.raises(QueryFailed) as failed:
        lake.sql(wrong).fetchall()
    assert wrong in failed.value.details
    with pytest.raises(QueryFailed, match='Referenced column "nope"'):
        lake.sql("SELECT nope FROM events WHERE subject = 's1'")


def test_types_that_arrow_lacks_are_values_of_sql_wherever_they_are(lake: lakelog.Lake) -> None:
    """In lists, arrays, structs and maps, for Arrow and for Polars: no number becomes another, and
    what has no type there is text."""
    query = """SELECT u, [u, NULL] AS l, [u]::UHUGEINT[1] AS a, MAP {'k': [u]} AS m,
            {'b b': '101'::BIT, 't': [TIMETZ '12:00:00+05'], 'e': 'x'::ENUM ('x'), 'n': 1} AS s
        FROM (SELECT 99999999999999999999999999999999999999::UHUGEINT AS u)"""
    number = 10**38 - 1
    wanted = {
        "u": number,
        "l": [number, None],
        "a": [number],
        "m": {"k": [number]},
        "s": {"b b": "101", "t": ["12:00:00+05"], "e": "x", "n": 1},
    }
    assert lake.sql(query).to_arrow_table().to_pylist(maps_as_pydicts="strict") == [wanted]
    (row,) = lake.sql(query).pl().to_dicts()
    # Polars 1 has lists of pairs in place of maps.
    if isinstance(row["m"], list):
        row["m"] = {pair["key"]: pair["value"] for pair in row["m"]}
    assert row == wanted
    with pytest.raises(QueryFailed, match="Could not cast value"):
        lake.sql("SELECT [340282366920938463463374607431768211455::UHUGEINT]").pl()
