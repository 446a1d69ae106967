"""lakelog.connect: the Python database interface (PEP 249) over a lake, and Arrow beside it."""

from __future__ import annotations

import datetime
import threading
import time
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import lakelog
from lakelog import dbapi
from tests.support.lakes import events
from tests.support.requirements import need_module

ERRORS = (
    "Warning Error InterfaceError DatabaseError DataError OperationalError IntegrityError"
    " InternalError ProgrammingError NotSupportedError"
).split()


@pytest.fixture
def connection(lake: lakelog.Lake) -> dbapi.Connection:
    """A connection to a lake of ten published events, tagged v1, and three in the tail."""
    lake.append(events("A", 10))
    lake.tag("v1")
    lake.append(events("B", 3))
    with lakelog.connect(lake.path) as made:
        yield made


@pytest.fixture
def cursor(connection: dbapi.Connection) -> dbapi.Cursor:
    """A cursor of that connection."""
    with connection.cursor() as made:
        yield made


# --- the module -----------------------------------------------------------------------------------


def test_the_module_says_what_it_is() -> None:
    """The globals of PEP 249 are there, and connect is at lakelog's front door."""
    assert (dbapi.apilevel, dbapi.threadsafety, dbapi.paramstyle) == ("2.0", 1, "qmark")
    assert lakelog.connect is dbapi.connect


def test_the_errors_are_the_tree_of_pep_249() -> None:
    """Every error has its place, is a LakelogError, and is an attribute of connections too."""
    for name in ERRORS:
        assert getattr(dbapi.Connection, name) is getattr(dbapi, name)
    assert issubclass(dbapi.Warning, Exception)
    assert not issubclass(dbapi.Warning, dbapi.Error)
    assert issubclass(dbapi.Error, lakelog.LakelogError)
    assert dbapi.InterfaceError.__bases__ == dbapi.DatabaseError.__bases__ == (dbapi.Error,)
    for name in ERRORS[4:]:
        assert getattr(dbapi, name).__bases__ == (dbapi.DatabaseError,)


def test_the_constructors_make_python_values() -> None:
    """Date, Time, Timestamp and their like from ticks, and Binary, are Python's own."""
    assert dbapi.Date(2026, 1, 2) == datetime.date(2026, 1, 2)
    assert dbapi.Time(3, 4, 5) == datetime.time(3, 4, 5)
    assert dbapi.Timestamp(2026, 1, 2, 3) == datetime.datetime(2026, 1, 2, 3)
    assert dbapi.Binary(b"x") == b"x"
    moment = dbapi.TimestampFromTicks(1_770_000_000.5)
    assert moment.timestamp() == 1_770_000_000.5
    assert dbapi.DateFromTicks(1_770_000_000.5) == moment.date()
    assert dbapi.TimeFromTicks(1_770_000_000.5) == moment.time()


def test_moments_of_ticks_are_the_same_in_every_time_zone(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a parameter, too: what has no offset is a time of UTC."""
    lake.append([{"type": "A", "time": 1_770_000_000}])
    with monkeypatch.context() as environment:
        environment.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        moment = dbapi.TimestampFromTicks(1_770_000_000)
        assert (moment.hour, moment.minute) == (8, 10)
        with lakelog.connect(lake.path) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM events WHERE time = ?", [moment])
            assert cursor.fetchone() == (1,)
    time.tzset()


# --- connections ----------------------------------------------------------------------------------


def test_a_connection_sees_what_is_appended_later(lake: lakelog.Lake) -> None:
    """Each execute asks the lake as it is then; a result is fixed when it is asked."""
    with lakelog.connect(lake.path) as connection, connection.cursor() as cursor:
        count = "SELECT count(*) FROM events"
        assert cursor.execute(count).fetchone() == (0,)
        before = connection.cursor().execute("SELECT type FROM events")
        lake.append(events("A", 2))
        assert cursor.execute(count).fetchone() == (2,)
        assert before.fetchall() == []


def test_a_connection_asks_a_branch_or_a_state(lake: lakelog.Lake) -> None:
    """`branch` follows a branch, `at` stays at one state."""
    lake.append(events("A", 2))
    lake.tag("v1")
    with lake.branch("dev") as dev:
        dev.append(events("D", 3))
    lake.append(events("B", 1))
    for given, count in (({}, 3), ({"branch": "dev"}, 5), ({"at": "v1"}, 2)):
        with lakelog.connect(lake.path, **given) as connection:
            assert connection.cursor().execute("SELECT count(*) FROM events").fetchone() == (count,)


def test_what_cannot_be_opened_says_so(lake: lakelog.Lake, tmp_path: Any) -> None:
    """No lake is operational, no branch or state a mistake; lakelog's own words are kept."""
    with pytest.raises(dbapi.OperationalError, match="create one with `lakelog init`") as caught:
        lakelog.connect(str(tmp_path / "nowhere"))
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    with pytest.raises(dbapi.ProgrammingError, match="no branch 'nope'"):
        lakelog.connect(lake.path, "nope")
    with pytest.raises(dbapi.ProgrammingError, match="no tag, branch"):
        lakelog.connect(lake.path, at="nope")


def test_commit_and_rollback_do_nothing(connection: dbapi.Connection) -> None:
    """There is nothing to commit or to take back, as PEP 249 allows; pools call rollback."""
    connection.commit()
    connection.rollback()
    assert connection.cursor().execute("SELECT 1").fetchall() == [(1,)]


def test_pandas_reads_a_connection(lake: lakelog.Lake) -> None:
    """pandas.read_sql takes a connection as it takes any of PEP 249, with its warning."""
    pandas = need_module("pandas")
    with lakelog.connect(lake.path) as connection, pytest.warns(UserWarning, match="SQLAlchemy"):
        frame = pandas.read_sql("SELECT type FROM events", connection)
    assert len(frame) == lake.count()


LATE = """SELECT CASE WHEN i < 2_000_000 THEN i ELSE error('late')::BIGINT END
    FROM range(3_000_000) t(i)"""


def test_rows_are_fetched_as_they_are_made(cursor: dbapi.Cursor) -> None:
    """A cursor gives the first rows of a result that is never whole in memory: an error of a later
    row comes when that row is fetched."""
    cursor.execute(LATE)
    assert cursor.fetchone() == (0,)
    assert [n for (n,) in cursor.fetchmany(3)] == [1, 2, 3]
    with pytest.raises(dbapi.DatabaseError, match="late"):
        cursor.fetchall()
    assert cursor.execute("SELECT count(*) FROM events").fetchall() == [(13,)]


def test_a_relation_half_read_answers_other_questions(lake: lakelog.Lake) -> None:
    """Rows come as they are made, whatever else is asked of the relation meanwhile."""
    relation = lake.sql("SELECT i, i * 0.5::DOUBLE FROM range(100_000) t(i)")
    first = iter(relation)
    assert [next(first), next(first)] == [(0, 0.0), (1, 0.5)]
    assert relation.limit(1).fetchall() == [(0, 0.0)]
    assert len(relation) == 100_000
    second = iter(relation)
    assert next(second) == (0, 0.0)
    assert sum(1 for _ in first) == 99_998
    assert sum(1 for _ in second) == 99_999
    assert relation.fetchone() == (0, 0.0)
    assert relation.fetchall()[-1] == (99_999, 49999.5)
    assert [i for i, _ in relation.fetchmany(2)] == [1, 2]
    late = lake.sql(LATE)
    assert next(iter(late)) == (0,)
    assert next(iter(late)) == (0,)  # the run before was given up


def test_pandas_reads_in_parts(lake: lakelog.Lake) -> None:
    """`chunksize` gives each part before the next ones are made."""
    pandas = need_module("pandas")
    with lakelog.connect(lake.path) as connection:
        with pytest.warns(UserWarning, match="SQLAlchemy"):
            parts = pandas.read_sql(LATE, connection, chunksize=1000)
        assert len(next(parts)) == 1000
        parts.close()


def test_a_closed_connection_refuses_everything(connection: dbapi.Connection) -> None:
    """Whatever is asked of it, or of its cursors, is an InterfaceError; closing again is fine."""
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    connection.close()
    connection.close()
    for ask in (
        connection.cursor,
        connection.commit,
        connection.rollback,
        connection.__enter__,
        cursor.fetchone,
        cursor.fetchall,
        lambda: cursor.execute("SELECT 1"),
    ):
        with pytest.raises(dbapi.InterfaceError, match="the connection is closed"):
            ask()


def test_threads_may_have_connections_of_their_own(connection: dbapi.Connection, lake: Any) -> None:
    """The module is safe for threads, each with its connection."""
    found: list[Any] = []

    def ask() -> None:
        with lakelog.connect(lake.path) as own:
            found.append(own.cursor().execute("SELECT count(*) FROM events").fetchone())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(13,)] * 4


# --- cursors --------------------------------------------------------------------------------------


def test_rows_come_one_by_one_in_parts_or_all(cursor: dbapi.Cursor) -> None:
    """fetchone, fetchmany, fetchall and iteration share one walk over the rows."""
    cursor.execute("SELECT range::INT FROM range(3000)")
    assert cursor.fetchone() == (0,)
    assert cursor.fetchmany() == [(1,)]
    cursor.arraysize = 3
    assert cursor.fetchmany() == [(2,), (3,), (4,)]
    assert cursor.fetchmany(2) == [(5,), (6,)]
    assert next(cursor) == (7,)
    assert cursor.fetchall() == [(n,) for n in range(8, 3000)]
    assert cursor.fetchone() is None
    assert cursor.fetchmany(5) == cursor.fetchall() == []
    assert list(cursor.execute("SELECT 1 UNION ALL SELECT 1")) == [(1,), (1,)]
    assert cursor.execute("SELECT range FROM range(2)").fetchall() == [(0,), (1,)]


def test_parameters_are_question_marks_or_names(cursor: dbapi.Cursor) -> None:
    """`?` takes a sequence and `$name` a dict; times prune as literals do."""
    query = "SELECT count(*) FROM events WHERE type = {} AND time >= {}"
    since = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    assert cursor.execute(query.format("?", "?"), ("B", since)).fetchone() == (3,)
    assert cursor.execute(query.format("?", "?"), ["B' OR 1=1 --", since]).fetchone() == (0,)
    named = {"t": "A", "since": since}
    assert cursor.execute(query.format("$t", "$since"), named).fetchone() == (10,)


def test_the_description_names_and_types_columns(cursor: dbapi.Cursor) -> None:
    """Seven-tuples of name and type code, a decimal's digits; None before a query."""
    assert cursor.description is None
    cursor.execute("SELECT type, time, seq, 'x'::BLOB AS b, 1.5::DECIMAL(9, 2) AS d FROM events")
    assert cursor.description is not None
    assert {len(column) for column in cursor.description} == {7}
    kinds = [dbapi.STRING, dbapi.DATETIME, dbapi.NUMBER, dbapi.BINARY, dbapi.NUMBER]
    for (name, code, *_), wanted, kind in zip(
        cursor.description, ("type", "time", "seq", "b", "d"), kinds, strict=True
    ):
        assert name == wanted
        assert [k for k in set(kinds) if k == code] == [kind]
        assert kind == code
    assert cursor.description[4][4:6] == (9, 2)
    assert cursor.rowcount == -1
    assert cursor.description[2][1] != dbapi.ROWID


def test_values_are_exact(cursor: dbapi.Cursor) -> None:
    """Rows hold the engine's Python values: decimals, times with a zone, bytes, nested ones."""
    cursor.execute(
        "SELECT 1.50::DECIMAL(9,2), 10::HUGEINT ** 30, 'x'::BLOB, [{'a': NULL}], time FROM events"
    )
    row = cursor.fetchone()
    assert row is not None
    assert row[:4] == (Decimal("1.50"), 1e30, b"x", [{"a": None}])
    assert row[4].utcoffset() == datetime.timedelta(0)


def test_arrow_comes_whole_or_in_batches(cursor: dbapi.Cursor) -> None:
    """fetch_arrow_table and fetch_record_batch give all rows, before any was fetched otherwise."""
    query = "SELECT type, time FROM events ORDER BY type"
    table = cursor.execute(query).fetch_arrow_table()
    assert isinstance(table, pa.Table)
    assert table["type"].to_pylist() == ["A"] * 10 + ["B"] * 3
    assert cursor.fetchone() is None
    reader = cursor.execute(query).fetch_record_batch()
    assert isinstance(reader, pa.RecordBatchReader)
    assert reader.read_all() == table
    cursor.execute(query).fetchone()
    with pytest.raises(dbapi.ProgrammingError, match="execute the query again"):
        cursor.fetch_arrow_table()


def test_polars_reads_through_a_connection(connection: dbapi.Connection) -> None:
    """A tool that knows only PEP 249 and ADBC's names can use it."""
    frame = pl.read_database("SELECT type, seq FROM events", connection)
    assert frame.shape == (13, 2)


def test_without_a_result_there_is_nothing_to_fetch(cursor: dbapi.Cursor) -> None:
    """Fetching before execute, and anything after close, is an InterfaceError."""
    for fetch in (cursor.fetchone, cursor.fetchmany, cursor.fetchall, cursor.fetch_arrow_table):
        with pytest.raises(dbapi.InterfaceError, match="execute a query first"):
            fetch()
    cursor.setinputsizes([1])
    cursor.setoutputsize(1)
    cursor.close()
    cursor.close()
    with pytest.raises(dbapi.InterfaceError, match="the cursor is closed"):
        cursor.execute("SELECT 1")


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO events VALUES (1)",
        "DELETE FROM events",
        "CREATE TABLE t (a INT)",
        "DROP VIEW events",
        "COPY (SELECT 1) TO 'x.csv'",
        "SET threads = 1",
        "BEGIN",
        "ATTACH ':memory:' AS other",
    ],
)
def test_a_lake_is_not_written_through_sql(cursor: dbapi.Cursor, query: str) -> None:
    """Everything but a query is NotSupportedError, which says how to append."""
    with pytest.raises(dbapi.NotSupportedError, match=r"lakelog\.open\(path\)\.append"):
        cursor.execute(query)
    with pytest.raises(dbapi.NotSupportedError, match="append"):
        cursor.executemany("INSERT INTO events VALUES (?)", [[1]])


@pytest.mark.parametrize(
    "query",
    [
        "FROM events",
        "VALUES (1)",
        "EXPLAIN SELECT 1",
        "DESCRIBE events",
        "SHOW TABLES",
        "PIVOT events ON level USING count(*) GROUP BY type",
        "SELECT 1 ; -- done",
    ],
)
def test_every_kind_of_query_runs(cursor: dbapi.Cursor, query: str) -> None:
    """Whatever gives rows may be asked."""
    cursor.execute(query).fetchall()
    assert cursor.description


@pytest.mark.parametrize(
    ("query", "given", "kind", "words"),
    [
        ("SELEC 1", None, dbapi.ProgrammingError, "syntax error"),
        ("SELECT nope FROM events", None, dbapi.ProgrammingError, "nope"),
        ("SELECT ?", [1, 2], dbapi.ProgrammingError, "arameter"),
        ("SELECT 1; SELECT 2", None, dbapi.ProgrammingError, "one statement, not 2"),
        (" -- nothing", None, dbapi.ProgrammingError, "one statement, not 0"),
        ("SELECT type::INT FROM events", None, dbapi.DataError, "Could not convert"),
        ("SELECT 300::UTINYINT", None, dbapi.DataError, "300"),
        ("FROM read_parquet('nowhere')", None, dbapi.OperationalError, "nowhere"),
    ],
)
def test_each_failure_has_its_class(
    cursor: dbapi.Cursor, query: str, given: Any, kind: type[Exception], words: str
) -> None:
    """A failure is the error PEP 249 has for it, in the words of the engine, when rows are made."""
    with pytest.raises(dbapi.Error, match=words) as caught:
        cursor.execute(query, given).fetchall()
    assert type(caught.value) is kind


@pytest.mark.damaged
def test_damage_is_operational(lake: lakelog.Lake) -> None:
    """A segment that is not what was written is refused, and named."""
    lake.append(events("A", 2))
    lake.settle()
    (entry,) = lake.store.manifests.segments(
        lake.store.manifests.load(lake.at("main").snapshot().id)
    )
    path = lake.store.paths.object("segments", entry.key)
    with open(path, "r+b") as file:
        file.truncate(100)
    with (
        lakelog.connect(lake.path) as connection,
        pytest.raises(dbapi.OperationalError, match=entry.key[:12]),
    ):
        connection.cursor().execute("SELECT type FROM events")
