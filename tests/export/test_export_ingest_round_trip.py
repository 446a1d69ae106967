"""What lakelog exported comes back equal, in every format that export and ingest both know.

LAKELOG_TABLES=1000 plays that many random tables; a few are played otherwise.
"""

from __future__ import annotations

import datetime
import decimal
import json
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import lakelog
from lakelog.cli import cli
from lakelog.lines import columnar, source

TABLES = int(os.environ.get("LAKELOG_TABLES", "6"))
EVENT = "time, type, category, source, subject, level, message, data, id"
TEXTS = [
    "",
    "a",
    "null",
    "NULL",
    "123",
    "-0.5",
    "1e5",
    "true",
    '"',
    '""',
    "'",
    ",",
    ",,",
    "\r\n",
    "\n",
    "\t",
    " lead",
    "trail ",
    "ünïcodé",
    "日本",
    "\x00",
    "\x1f",
    "\\",
    "\\n",
    "{",
    "[1]",
    '{"a":1}',
    "2026-11-20",
    "2026-11-20T08:00:00Z",
    'a,"b"\nc',
    "\ufeff",
    "=1+1",
    "\u2028",
    "😀",
]
LEVELS = [None, "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]


def payload(dice: random.Random, depth: int = 0) -> Any:
    """Any JSON, with what formats are known to spoil."""
    kind = dice.randrange(10 if depth < 3 else 8)
    if kind == 0:
        return None
    if kind == 1:
        return dice.random() < 0.5
    if kind == 2:
        return dice.choice([0, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 10**22])
    if kind == 3:
        return dice.choice([0.0, -0.0, 0.1, 1e300, 5e-324, 1 / 3, 1e16, 123456789.123456789])
    if kind < 8:
        return dice.choice(TEXTS)
    if kind == 8:
        return [payload(dice, depth + 1) for _ in range(dice.randrange(4))]
    keys = [dice.choice(["a", "b", "data", "seq", "origin", "type", "k k", "é", ""]) for _ in "xyz"]
    return {k: payload(dice, depth + 1) for k in keys[: dice.randrange(4)]}


def event(dice: random.Random) -> dict[str, Any]:
    """One event with some of its columns."""
    micros = dice.choice([0, 1, 999_999, 500_000])
    made: dict[str, Any] = {
        "time": datetime.datetime(dice.randint(1970, 2037), 5, 17, 3, 4, 5, micros, datetime.UTC),
        "type": dice.choice([t for t in TEXTS if t]),
    }
    for column in ("category", "source", "subject", "message"):
        if dice.random() < 0.6:
            made[column] = dice.choice(TEXTS)
    if level := dice.choice(LEVELS):
        made["level"] = level
    if dice.random() < 0.3:
        made["id"] = f"{dice.getrandbits(64):x}"
    if dice.random() < 0.8:
        made["data"] = payload(dice)
    return made


def rows(path: Path) -> list[Any]:
    """What a lake holds, without what it says of events by itself."""
    with lakelog.open(path, create=False) as lake:
        found = lake.sql(f"SELECT {EVENT} FROM events").fetchall()
        assert lake.sql("SELECT * FROM quarantine").fetchall() == []
    return sorted(
        ([*row[:7], None if row[7] is None else json.loads(row[7]), row[8]] for row in found),
        key=repr,
    )


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.matrix
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet", "arrow", "arrows"])
def test_export_and_ingest_are_inverse(home: Path, ending: str) -> None:
    """Random events that are exported and ingested are what they were, and so are their files."""
    for seed in range(TABLES):
        dice = random.Random(seed)
        path = home / f"{seed}"
        path.mkdir()
        with lakelog.open(path / "a") as lake:
            lake.append([event(dice) for _ in range(dice.choice([1, 3, 40, 1300]))])
            if dice.random() < 0.5:
                lake.compact()
        verb = "sql" if ending in ("json", "arrows") else "export"
        query = "SELECT * FROM events" + " ORDER BY time, type" * (seed % 2)
        run("--lake", path / "a", verb, query, "-o", path / f"1.{ending}")
        run("--lake", path / "b", "ingest", path / f"1.{ending}")
        assert rows(path / "b") == rows(path / "a"), seed
        run("--lake", path / "b", "ingest", path / f"1.{ending}")
        assert rows(path / "b") == rows(path / "a"), seed


def typed(dice: random.Random, count: int) -> dict[str, pa.Array]:
    """A column of every type that DuckDB or pandas write, with nulls."""
    moment = datetime.datetime(2026, 11, 20, 8, 25, 13, 123456)
    pools: dict[str, tuple[pa.DataType, list[Any]]] = {
        "i8": (pa.int8(), [-128, 0, 127]),
        "u64": (pa.uint64(), [0, 2**64 - 1]),
        "f32": (pa.float32(), [0.5, -2.0, 1e10]),
        "f64": (pa.float64(), [0.1, 1 / 3, float("nan"), float("inf"), float("-inf"), -0.0]),
        "dec": (pa.decimal128(38, 9), [decimal.Decimal("12345678901234567890.123456789")]),
        "dec256": (pa.decimal256(60, 3), [decimal.Decimal("1" * 40 + ".125")]),
        "yes": (pa.bool_(), [True, False]),
        "text": (pa.string(), TEXTS),
        "large": (pa.large_string(), TEXTS),
        "bytes": (pa.binary(), [b"abc", b"\xff\x00", b""]),
        "day": (pa.date32(), [moment.date()]),
        "clock": (pa.time64("us"), [moment.time(), datetime.time(0)]),
        "naive": (pa.timestamp("us"), [moment, moment.replace(microsecond=0)]),
        "utc": (pa.timestamp("us", "UTC"), [moment.replace(tzinfo=datetime.UTC)]),
        "ns": (pa.timestamp("ns"), [1_700_000_000_123_456_789, -1]),
        "span": (pa.duration("us"), [datetime.timedelta(days=-1, microseconds=5)]),
        "list": (pa.list_(pa.float64()), [[], [1.5, None, float("nan")]]),
        "deep": (pa.list_(pa.list_(pa.string())), [[["a"], None, []], []]),
        "struct": (
            pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]),
            [{"a": 1, "b": ["x"]}, {"a": None, "b": None}],
        ),
        "map": (pa.map_(pa.string(), pa.int32()), [[("k", 1), ("l", None)], []]),
        "dictionary": (pa.dictionary(pa.int8(), pa.string()), ["a", "b"]),
    }
    return {
        name: pa.array([dice.choice([*pool, None]) for _ in range(count)], kind)
        for name, (kind, pool) in pools.items()
    }


EXPECTED = {
    "u64": 2**64 - 1,
    "f64": 0.1,
    "dec": "12345678901234567890.123456789",
    "yes": True,
    "bytes": "\\xff\x00",
    "day": "2026-11-20",
    "clock": "08:25:13.123456",
    "naive": "2026-11-20T08:25:13.123456",
    "utc": "2026-11-20T08:25:13.123456Z",
    "ns": "2023-11-14T22:13:20.123456789",
    "span": "-PT23H59M59.999995S",
    "list": [1.5, None, "NaN"],
    "deep": [["a"], None, []],
    "struct": {"a": 1, "b": ["x"]},
    "map": {"k": 1, "l": None},
    "dictionary": "a",
}


def test_values_of_every_type_are_kept() -> None:
    """A column of any type is JSON that says the same: numbers with all digits, times as ISO."""
    moment = datetime.datetime(2026, 11, 20, 8, 25, 13, 123456)
    one = {
        "u64": pa.array([2**64 - 1], pa.uint64()),
        "f64": pa.array([0.1]),
        "dec": pa.array([decimal.Decimal("12345678901234567890.123456789")]),
        "yes": pa.array([True]),
        "bytes": pa.array([b"\xff\x00"]),
        "day": pa.array([moment.date()]),
        "clock": pa.array([moment.time()]),
        "naive": pa.array([moment]),
        "utc": pa.array([moment], pa.timestamp("us", "UTC")),
        "ns": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
        "span": pa.array([datetime.timedelta(days=-1, microseconds=5)]),
        "list": pa.array([[1.5, None, float("nan")]]),
        "deep": pa.array([[["a"], None, []]]),
        "struct": pa.array([{"a": 1, "b": ["x"]}]),
        "map": pa.array([[("k", 1), ("l", None)]], pa.map_(pa.string(), pa.int32())),
        "dictionary": pa.array(["a"]).dictionary_encode(),
    }
    line = columnar.json_lines(pa.table(one).to_batches()[0])
    assert json.loads(line, parse_float=lambda t: t if len(t) > 20 else float(t)) == EXPECTED


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (-719_162, "0001-01-01"),
        (2_932_896, "9999-12-31"),
        (2_932_897, "10000-01-01"),
        (106_751_991, "294247-01-10"),
        (-719_529, "-0001-12-31"),
        (2**31 - 1, "Infinity"),
        (-(2**31) + 1, "-Infinity"),
    ],
)
def test_dates_of_any_year_are_kept(days: int, expected: str) -> None:
    """PostgreSQL and DuckDB have dates that Python does not, and an infinity of them."""
    column = pa.array([days], pa.int32()).view(pa.date32())
    line = columnar.json_lines(pa.RecordBatch.from_arrays([column], ["x"]))
    assert json.loads(line) == {"x": expected}


@pytest.mark.parametrize(
    ("micros", "expected"),
    [
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999"),
        (2**63 - 2, "294247-01-10T04:00:54.775806"),
        (-62_135_596_800_000_001, "0000-12-31T23:59:59.999999"),
        (-(2**63) + 2, "-290308-12-21T19:59:05.224194"),
        (2**63 - 1, "Infinity"),
        (-(2**63) + 1, "-Infinity"),
    ],
)
def test_moments_of_any_year_are_kept(micros: int, expected: str) -> None:
    """The text of Arrow for a moment that it cannot write would be stored as if it were one."""
    column = pa.array([micros], pa.int64()).view(pa.timestamp("us"))
    line = columnar.json_lines(pa.RecordBatch.from_arrays([column], ["x"]))
    assert json.loads(line) == {"x": expected}


def test_text_that_is_no_utf8_stays_as_it_is() -> None:
    """Writers of Arrow need not check their text: each row has its bytes, escaped or not."""
    raw = pa.array([b"ok", b"caf\xe9", b'"\xe9', None], pa.binary())
    column = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    lines = columnar.json_lines(pa.RecordBatch.from_arrays([column], ["x"])).splitlines()
    assert lines == [b'{"x":"ok"}', b'{"x":"caf\xe9"}', b'{"x":"\\"\xe9"}', b"{}"]


@pytest.mark.parametrize("ending", ["parquet", "arrow", "arrows"])
def test_tables_of_any_schema_give_the_same_events(home: Path, ending: str) -> None:
    """Row groups, batches and slices make no difference to what the rows of a table are."""
    for seed in range(max(2, TABLES // 4)):
        dice = random.Random(seed)
        table = pa.table(typed(dice, dice.choice([1, 7, 900])))
        texts = []
        for number, step in enumerate((10_000, 5, 1)):
            path = home / f"{seed}-{number}.{ending}"
            write(table, path, step)
            stream = source.Source(str(path))
            texts.append(stream.read(1 << 30))
            assert not stream.broken
            stream.close()
        assert texts[0].count(b"\n") == table.num_rows
        assert (
            texts[0]
            == texts[1]
            == texts[2]
            == columnar.json_lines(table.combine_chunks().to_batches()[0])
        )


def write(table: pa.Table, path: Path, step: int) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=step, store_schema=True)
        return
    opener = pa.ipc.new_file if path.suffix == ".arrow" else pa.ipc.new_stream
    with opener(path, table.schema) as out:
        out.write_table(table, max_chunksize=step)


def test_columns_are_mapped_by_name(home: Path) -> None:
    """Columns of a foreign table that name a column of an event are that; the others are data."""
    moment = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    table = pa.table(
        {
            "timestamp": pa.array([moment, moment], pa.timestamp("ns", "UTC")),
            "event_type": ["PLAY", "SKIP"],
            "user": ["a", None],
            "ms": [1.5, 2.0],
            "seq": [7, 8],
        }
    )
    pq.write_table(table, home / "t.parquet")
    run("--lake", home / "lake", "ingest", home / "t.parquet")
    with lakelog.open(home / "lake") as lake:
        found = lake.sql("SELECT time, type, data FROM events ORDER BY type").fetchall()
    assert [(row[0], row[1], json.loads(row[2])) for row in found] == [
        (moment, "PLAY", {"user": "a", "ms": 1.5, "seq": 7}),
        (moment, "SKIP", {"ms": 2.0, "seq": 8}),
    ]


def test_a_table_written_anew_with_more_rows_brings_only_those(home: Path) -> None:
    """Rows are known by what they hold, so the same rows in another file are not ingested twice."""
    table = pa.table({"type": ["a"] * 5000, "n": range(5000)})
    pq.write_table(table.slice(0, 3000), home / "t.parquet")
    run("--lake", home / "lake", "ingest", home / "t.parquet")
    pq.write_table(table, home / "t.parquet", row_group_size=100, compression="zstd")
    with lakelog.open(home / "lake") as lake:
        assert lake.ingest(str(home / "t.parquet")).events == 2000
        assert lake.count() == 5000


def test_a_first_row_of_several_lines_has_its_time(home: Path) -> None:
    """A time column is known by rows whose quoted cells go on over the end of a line."""
    when = datetime.datetime(2034, 5, 17, 3, 4, 5, 1, datetime.UTC)
    with lakelog.open(home / "a") as lake:
        lake.append({"time": when, "type": "\r\n", "source": "x", "data": {"a": 'a,"b"\nc'}})
    run("--lake", home / "a", "export", "events", "-o", home / "1.csv")
    run("--lake", home / "b", "ingest", home / "1.csv")
    assert rows(home / "b") == rows(home / "a")


def test_csv_payload_is_the_payload(home: Path) -> None:
    """JSON in a column `data` of a table becomes the payload, with the other columns beside it."""
    (home / "t.csv").write_text('type,data,n\na,"{""x"":1}",2\nb,plain,3\nc,,4\nd,[1],5\n')
    run("--lake", home / "lake", "ingest", home / "t.csv")
    with lakelog.open(home / "lake") as lake:
        found = lake.sql("SELECT data FROM events ORDER BY type").fetchall()
    assert [json.loads(row[0]) for row in found] == [
        {"x": 1, "n": 2},
        {"data": "plain", "n": 3},
        {"n": 4},
        {"data": [1], "n": 5},
    ]


@pytest.mark.parametrize("is_category", [False, True])
def test_an_arrow_file_of_polars_is_that_of_another(home: Path, is_category: bool) -> None:
    """It writes texts as views, and categories as dictionaries of them."""
    texts = pa.array(['{"x":1}', None, '{"x":1}'], pa.string_view())
    if is_category:
        codes = pa.array(["a", None, "a"]).dictionary_encode().indices
        values = pa.array(['{"x":1}'], pa.string_view())
        texts = pa.DictionaryArray.from_arrays(codes, values)
    table = pa.table({"type": pa.array(["a", "b", "c"], pa.string_view()), "data": texts})
    with pa.OSFile(str(home / "t.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)
    run("--lake", home / "lake", "ingest", home / "t.arrow")
    with lakelog.open(home / "lake") as lake:
        stored = lake.sql("SELECT type, data FROM events ORDER BY type").fetchall()
    assert stored == [("a", '{"x":1}'), ("b", None), ("c", '{"x":1}')]


def test_members_that_only_look_like_ours_are_kept(home: Path) -> None:
    """An event of another program with a `seq` or an `origin` of its own keeps them."""
    (home / "t.jsonl").write_text('{"type":"a","origin":"x","position":3,"seq":1}\n')
    run("--lake", home / "lake", "ingest", home / "t.jsonl")
    with lakelog.open(home / "lake") as lake:
        assert json.loads(lake.sql("SELECT data FROM events").fetchall()[0][0]) == {
            "origin": "x",
            "position": 3,
            "seq": 1,
        }


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"SQLite format 3\0" + bytes(range(256)) * 8, "SQLite"),
        (b"\x7fELF\x02\x01\x01" + bytes(200), "ELF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "PNG"),
        (b"PK\x03\x04" + bytes(200), "ZIP"),
        (random.Random(1).randbytes(5000), "binary"),
        (b"PAR1" + bytes(3000) + b"PAR1", "damaged"),
        (b"ARROW1\0\0" + bytes(3000), "damaged"),
    ],
)
def test_binary_files_are_refused_with_a_sentence(home: Path, start: bytes, what: str) -> None:
    """A file that no format knows is named with what it is; nothing of it becomes an event."""
    (home / "thing").write_bytes(start)
    (home / "good.jsonl").write_text('{"type":"a"}\n')
    done = CliRunner().invoke(
        cli, ["--lake", f"{home}/lake", "ingest", f"{home}/thing", f"{home}/good.jsonl"]
    )
    assert done.exit_code != 0
    assert what in done.output
    with lakelog.open(home / "lake") as lake:
        assert lake.count() == 1
        assert lake.sql("SELECT * FROM quarantine").fetchall() == []
