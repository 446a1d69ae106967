"""Types that a user gives columns: what each target makes of them, and values that do not fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.cli import exits
from lakelog.errors import InvalidSetting, SyncRefused
from lakelog.sync.column_types import ColumnType
from lakelog.sync.comparison import canonical_of, check
from lakelog.sync.sync import target_of
from tests.support.cli import run
from tests.support.elastic_server import ElasticPlace, ElasticServer
from tests.support.influx_server import InfluxPlace, InfluxServer
from tests.support.lakes import opened
from tests.support.mysql_server import MysqlPlace, MysqlServer, mysql_server
from tests.support.strict_server import running
from tests.support.sync_places import (
    DuckdbPlace,
    Place,
    PostgresPlace,
    PostgresServer,
    SqlitePlace,
    postgres_server,
    synced,
)

ROWS: list[dict[str, Any]] = [
    {
        "n": "17",
        "price": 12.5,
        "ok": True,
        "when": "2024-03-01T12:00:00+02:00",
        "day": "2024-03-01",
        "u": "0B0B4B3E-0f1e-4c7b-8f0c-0c0c0c0c0c0c",
        "tags": ["a", 'b "c"', None],
        "ids": [1, "2"],
        "deep": {"b": [1.0, 1e2], "a": "č"},
        "name": "čeština",
    },
    {"n": None, "tags": [], "ids": None, "deep": [], "name": "x"},
    {},
]
FIELDS = ("n", "price", "ok", "when", "day", "u", "tags", "ids", "deep", "name")
QUERY = f"SELECT {', '.join(f'data->{name!r} AS {name}' for name in FIELDS)}, time FROM events"
PLAIN = {
    "n": "integer",
    "price": "numeric(10,2)",
    "ok": "boolean",
    "when": "timestamptz",
    "day": "date",
    "deep": "JSON",
    "tags": "json",
    "name": "text",
}


def of_rows(home: Path) -> str:
    path = str(home / "lake")
    with opened(path) as lake:
        lake.append([{"type": "row", "data": row} for row in ROWS])
    return path


def compared(path: str, place: Place) -> Any:
    with lakelog.open(path) as lake:
        return check(lake, place.url)[0]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as running_server:
        yield running_server


@pytest.fixture(scope="module")
def mysql() -> Iterator[MysqlServer]:
    with mysql_server() as running_server:
        yield running_server


@pytest.fixture(params=["sqlite", "duckdb", "postgres", "mysql"])
def place(request: pytest.FixtureRequest, home: Path) -> Place:
    if request.param == "sqlite":
        return SqlitePlace(home)
    if request.param == "duckdb":
        return DuckdbPlace(home)
    if request.param == "postgres":
        return PostgresPlace(request.getfixturevalue("postgres"))
    return MysqlPlace(request.getfixturevalue("mysql"))


NATIVE = {
    "sqlite": "INTEGER TEXT INTEGER TEXT TEXT TEXT TEXT TEXT",
    "duckdb": "INTEGER DECIMAL(10,2) BOOLEAN TIMESTAMP_WITH_TIME_ZONE DATE JSON JSON VARCHAR",
    "postgresql": "integer numeric(10,2) boolean timestamp_with_time_zone date json json text",
    "mysql": "int(11) decimal(10,2) tinyint(1) datetime(6) date longtext longtext longtext",
}


def test_types_are_those_of_the_target(home: Path, place: Place) -> None:
    """The columns have them, the values are those of the lake, and `check` finds them equal."""
    path = of_rows(home)
    assert synced(path, place.url, query=QUERY, columns=PLAIN).total == 3
    target = target_of(place.url)
    target.connect()
    shape = target.shape("events")
    target.close()
    assert shape is not None
    declared = [shape.types[name].replace(" ", "_") for name in PLAIN]
    assert declared == NATIVE[place.url.partition(":")[0]].split()
    first, second, third = place.rows(columns="n, ok, tags, name, price")
    assert (first[0], bool(first[1]), first[3], float(first[4])) == (17, True, "čeština", 12.5)
    tags = first[2] if isinstance(first[2], str) else json.dumps(first[2])
    assert json.loads(tags) == ["a", 'b "c"', None]
    assert (second[0], third) == (None, (None,) * 5)
    result = compared(path, place)
    assert (result.is_equal, result.rows, result.skipped) == (True, 3, ())
    place.ask("UPDATE events SET tags = '[\"A\"]' WHERE seq = 0")
    assert compared(path, place).different == 1
    with lakelog.open(path) as lake:
        assert check(lake, place.url, repair=True)[0].is_repaired
        assert check(lake, place.url)[0].is_equal


def test_native_types_of_postgresql(home: Path, postgres: PostgresServer) -> None:
    path, place = of_rows(home), PostgresPlace(postgres)
    given = {"u": "uuid", "tags": "text[]", "ids": "integer[]", "deep": "jsonb", "n": "smallint"}
    given["name"] = "varchar(7)"
    synced(path, place.url, query=QUERY, columns=given)
    assert place.ask(
        "SELECT u::text, tags[2], ids[1] + ids[2], deep->>'a', cardinality(tags), name FROM events"
        " ORDER BY seq LIMIT 1"
    ) == [(ROWS[0]["u"].lower(), 'b "c"', 3, "č", 3, "čeština")]
    result = compared(path, place)
    assert (result.is_equal, result.skipped) == (True, ())
    for change in ("tags = ARRAY['z']", "u = gen_random_uuid()", "deep = '{}'", "ids = '{1}'"):
        place.ask(f"UPDATE events SET {change} WHERE seq = 0")
        assert compared(path, place).different == 1, change
        with lakelog.open(path) as lake:
            check(lake, place.url, repair=True)
        assert compared(path, place).is_equal
    with opened(path) as lake:
        lake.append([{"type": "row", "data": ROWS[0]}])
    assert synced(path, place.url, query=QUERY, columns=given).written == 1


def test_native_arrays_of_duckdb(home: Path) -> None:
    path, place = of_rows(home), DuckdbPlace(home)
    synced(path, place.url, query=QUERY, columns={"tags": "text[]", "ids": "int[]", "u": "uuid"})
    assert place.ask("SELECT tags[2], list_sum(ids), u::VARCHAR FROM events WHERE seq = 0") == [
        ('b "c"', 3, ROWS[0]["u"].lower())
    ]
    assert compared(path, place).is_equal
    place.ask("UPDATE events SET ids = [9] WHERE seq = 0")
    assert compared(path, place).different == 1


def test_values_that_cannot_be_converted(home: Path, place: Place) -> None:
    """They stop the sync, or are set aside as they were; all other rows are there."""
    path = of_rows(home)
    with opened(path) as lake:
        wrong = ({"n": "1e99"}, {"n": "abc", "day": "never"}, {"n": 5}, {"day": "2024-02-30"})
        lake.append([{"type": "row", "data": row} for row in wrong])
    options = {"query": QUERY, "columns": {"n": "integer", "day": "date"}}
    with pytest.raises(SyncRefused, match=r"seq 3: column n: '1e99' is not integer") as caught:
        synced(path, place.url, **options)
    assert "\n" not in str(caught.value)
    if isinstance(place, DuckdbPlace):  # it has no savepoints
        return
    assert synced(path, place.url, **options, on_error="quarantine").quarantined == 3
    assert [row[0] for row in place.rows(columns="seq")] == [0, 1, 2, 5]
    with opened(path) as lake:
        lines = lake.sql("SELECT position, line FROM quarantine ORDER BY position").fetchall()
    assert [position for position, _ in lines] == [3, 4, 6]
    assert json.loads(lines[1][1])["day"] == "never"
    assert compared(path, place).is_equal


def test_integer_of_more_digits_than_a_numeric_has(home: Path, place: Place) -> None:
    """A row with one is refused alone; SQLite, which keeps it as text, has it."""
    path, query = of_rows(home), "SELECT (data->>'n')::HUGEINT AS n FROM events"
    with opened(path) as lake:
        lake.append([{"type": "row", "data": {"n": str(2**127 - 1)}}])
    if isinstance(place, SqlitePlace):
        assert synced(path, place.url, query=query).total == 4
        assert place.ask("SELECT n FROM events WHERE seq = 3") == [(str(2**127 - 1),)]
        return
    refused = r"seq 3: column n: '170141\d+' is not numeric\(38,0\)"
    with pytest.raises(SyncRefused, match=refused) as caught:
        synced(path, place.url, query=query)
    if isinstance(place, DuckdbPlace):  # it has no savepoints
        assert "or give its type with --column" in str(caught.value)
        assert synced(path, place.url, query=query, columns={"n": "text"}).total == 4
        return
    assert synced(path, place.url, query=query, on_error="quarantine").quarantined == 1
    assert [row[0] for row in place.rows(columns="seq")] == [0, 1, 2]
    with opened(path) as lake:
        assert str(2**127 - 1) in lake.sql("SELECT line FROM quarantine").fetchall()[0][0]
    assert compared(path, place).is_equal


def test_type_that_is_changed(home: Path, place: Place) -> None:
    """A table that has another is refused; one that can hold it is filled again."""
    path, options = of_rows(home), {"query": QUERY}
    synced(path, place.url, **options, columns={"n": "bigint"})
    for columns in ({"n": "text"}, {}):
        with pytest.raises(SyncRefused, match=r"column n is .* is needed: .*ALTER TABLE, or"):
            synced(path, place.url, **options, columns=columns)
    assert not synced(path, place.url, **options, columns={"n": "bigint"}).written
    columns = {"n": "bigint", "name": "text"}
    with pytest.raises(SyncRefused, match="the mapping is another one"):
        synced(path, place.url, **options, columns=columns, on_rewind="refuse")
    assert synced(path, place.url, **options, columns=columns).is_rebuilt
    assert compared(path, place).is_equal


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"nn": "integer"}, "no column 'nn': did you mean 'n'"),
        ({"n": "number"}, "no type 'number': it is one of text"),
        ({"n": "numeric(99,2)"}, "numeric has digits"),
        ({"n": "numeric"}, "numeric has digits"),
        ({"n": "integer(3)"}, "nothing in parentheses"),
        ({"n": "date[]"}, "an array is of text"),
        ({"n": "jsonb"}, "has no type jsonb: it has text"),
        ({"n": "text[]"}, "has no arrays"),
        ({"seq": "text"}, "seq identifies the event"),
    ],
)
def test_column_or_type_that_there_is_not(
    home: Path, columns: dict[str, str], problem: str
) -> None:
    path = of_rows(home)
    with pytest.raises(InvalidSetting, match=problem) as caught:
        synced(path, SqlitePlace(home).url, query=QUERY, columns=columns)
    assert "\n" not in str(caught.value)


def test_names_of_types() -> None:
    for spelling, name in {
        "INT8": "bigint",
        "Double  Precision": "double",
        "numeric ( 12, 2 )": "numeric(12,2)",
        "timestamp with time zone": "timestamptz",
        "int[]": "integer[]",
        "VARCHAR(9)": "varchar(9)",
    }.items():
        assert str(ColumnType.parse(spelling)) == name
        assert ColumnType.parse(name) == ColumnType.parse(spelling)


@pytest.mark.parametrize(
    ("declared", "ours", "theirs"),
    [
        ("jsonb", '{"b": 1.0, "a":1, "a":2}', '{"a":2,"b":1}'),
        ("json", "1e2", "100.0"),
        ("uuid", "{0B0B4B3E0F1E4C7B8F0C0C0C0C0C0C0C}", "0b0b4b3e-0f1e-4c7b-8f0c-0c0c0c0c0c0c"),
        ("integer[]", '[1, "2", null]', "[1,2,null]"),
        ("bigint[]", '["9007199254740993"]', "[9007199254740993]"),
        ("double precision[]", '["1e2", "nan"]', '[100, "NaN"]'),
        ("jsonb", "[9.007199254740993e15, 1e400]", "[9007199254740993, 2e400]"),
        ("text[]", '["é", true]', '["\\u00e9", "true"]'),
    ],
)
def test_canonical_values(declared: str, ours: str, theirs: str) -> None:
    canonical = canonical_of(declared)
    assert canonical is not None
    assert canonical(ours) == canonical(theirs)
    assert canonical(None) is None
    assert canonical(ours) != canonical('"other"')


def test_types_of_services(home: Path) -> None:
    """A field of an index has the type, and a field of a point is a number."""
    path, query = of_rows(home), "SELECT time, data->>'n' AS n, message FROM events"
    with running(ElasticServer()) as server:
        place: Any = ElasticPlace(server)
        columns = {"n": "integer", "message": "keyword"}
        synced(path, place.url, query=query, columns=columns)
        index = place.server.indices["events"]
        assert index.fields["n"] == {"type": "integer"}
        assert index.fields["message"]["type"] == "keyword"
        with pytest.raises(SyncRefused, match="data is an object"):
            synced(path, place.url, table="other", columns={"data": "keyword"})
        with pytest.raises(SyncRefused, match="column n is integer, where long is needed"):
            synced(path, place.url, query=query, columns={"n": "bigint", "message": "keyword"})
    with running(InfluxServer()) as server:
        place = InfluxPlace(server, "")
        synced(path, place.url, query=query, columns={"n": "bigint"})
        synced(path, place.url, query=query, columns={"n": "bigint"})


def test_types_on_the_command_line_and_in_a_file(home: Path) -> None:
    path, place = of_rows(home), SqlitePlace(home)
    given = ["--query", QUERY, "--column", "n=integer", "--column", "price=numeric(10,2)"]
    done = run(path, "sync", place.url, *given, "--print-unit")
    assert "--column n=integer --column" in done.stdout.replace("'", "").replace('"', "")
    run(path, "sync", place.url, *given, "--once")
    assert place.rows(columns="n, price") == [(17, "12.50"), (None, None), (None, None)]
    config = home / "syncs.toml"
    config.write_text(
        f'[[sync]]\ntarget = "{place.url}"\ntable = "other"\nquery = """{QUERY}"""\n'
        'columns = { n = "integer", day = "date" }\n'
    )
    run(path, "sync", "--config", str(config), "--once")
    assert place.rows("other", "n, day")[0] == (17, "2024-03-01")
    config.write_text(f'[[sync]]\ntarget = "{place.url}"\ncolumns = {{ n = 4 }}\n')
    refused = run(path, "sync", "--config", str(config), code=exits.USAGE)
    assert "columns is a table such as" in refused.stderr
    refused = run(path, "sync", place.url, "--column", "n", code=exits.USAGE)
    assert "write NAME=TYPE" in refused.stderr
