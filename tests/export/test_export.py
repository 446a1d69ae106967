"""lakelog export: rows as files that other tools read, whole or not at all."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import lakelog
from lakelog.cli import cli
from lakelog.errors import ExportRefused
from lakelog.export import folder
from lakelog.export import row_files as writing
from tests.support import trainsets


@pytest.fixture
def lake(home: Path) -> Path:
    """A lake of 500 notes over three days."""
    with trainsets.lake_of(home / "lake", trainsets.notes(500)) as made:
        made.settle()
    return home / "lake"


def export(lake: Path, *arguments: object) -> Result:
    return CliRunner().invoke(cli, ["--lake", str(lake), "export", *map(str, arguments)])


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "arrow"])
def test_one_file_holds_every_row(lake: Path, home: Path, ending: str) -> None:
    """A file in each format holds the rows of the query."""
    out = home / f"rows.{ending}"
    done = export(lake, "SELECT subject, level, message FROM events", "-o", out)
    assert done.exit_code == 0, done.output
    if ending == "arrow":
        assert pa.ipc.open_file(str(out)).read_all().num_rows == 500
        return
    read = {"csv": "read_csv", "jsonl": "read_json", "parquet": "read_parquet"}[ending]
    found = duckdb.sql(f"SELECT count(*), count(DISTINCT message) FROM {read}('{out}')").fetchall()
    assert found == [(500, 500)]


@pytest.mark.parametrize(
    ("verb", "query", "name"),
    [
        ("sql", "SELECT if(i < 90000, i, error('no')) FROM range(99999) AS r(i)", "out.csv.gz"),
        ("sql", "SELECT INTERVAL '1 day' AS i", "out.parquet"),
        *(
            ("export", "SELECT md5(i::VARCHAR) FROM range(99999) AS r(i)", name)
            for name in ("out.csv.gz", "out.csv.zst", "out.csv", "out.parquet", "out.arrow", "out/")
        ),
    ],
)
def test_a_file_that_fails_is_one_line(
    lake: Path, home: Path, verb: str, query: str, name: str
) -> None:
    """A query that fails, or a full disk: what was opened for the file fails no second time. From
    3.13 on Python reports of streams that nobody closed what 3.11 reports in development mode."""
    words = ["--lake", lake, verb, query, "-o", home / name]
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-m", "lakelog", *words],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert os.listdir(home) == ["lake"]


def test_shards_are_counted_in_their_names(lake: Path, home: Path) -> None:
    """A directory has files of at most so many rows, named for their count."""
    assert export(lake, "events", "-o", home / "out", "--shard-rows", 200).exit_code == 0
    names = sorted(os.listdir(home / "out"))
    assert names == [f"part-0000{n}-of-00003.parquet" for n in range(3)]
    assert [pq.read_metadata(home / "out" / n).num_rows for n in names] == [200, 200, 100]


def test_hive_partitions_are_read_back(lake: Path, home: Path) -> None:
    """Partition columns stand in the directories' names, encoded, and not in the files."""
    query = (
        "SELECT CASE WHEN data.n % 3 = 0 THEN NULL ELSE 'a b/c=ä' END AS k, message, level"
        ' FROM (SELECT * REPLACE (from_json(data, \'{"n":"INT"}\') AS data) FROM events)'
    )
    done = export(lake, query, "-o", home / "out", "--partition-by", "level,k")
    assert done.exit_code == 0, done.output
    glob = f"{home}/out/**/*.parquet"
    source = f"read_parquet('{glob}', hive_partitioning = true)"
    assert duckdb.sql(f"SELECT count(*) FROM {source}").fetchall() == [(500,)]
    found = duckdb.sql(f"SELECT k, count(*) FROM {source} GROUP BY 1 ORDER BY 2").fetchall()
    assert found == [(None, 167), ("a b/c=ä", 333)]
    one = next((home / "out").rglob("*.parquet"))
    assert pq.read_schema(one).names == ["message"]


def test_partitions_of_an_empty_text_and_of_a_space_are_two(lake: Path, home: Path) -> None:
    """Readers get both as they were."""
    query = "SELECT k, 1 AS n FROM (VALUES (''), (' '), (NULL)) AS r(k)"
    assert export(lake, query, "-o", home / "out", "--partition-by", "k").exit_code == 0
    rows = pyarrow.dataset.dataset(home / "out", partitioning="hive").to_table().to_pylist()
    assert {row["k"] for row in rows} == {"", " ", None}
    source = f"read_parquet('{home}/out/**/*.parquet', hive_partitioning = true)"
    keys = duckdb.sql(f"SELECT k FROM {source}").fetchall()
    assert set(keys) == {("",), (" ",), (None,)}


def test_only_partitions_that_rows_have_take_memory(lake: Path, home: Path) -> None:
    """Columns of many values that go together have few partitions."""
    query = "SELECT i % 100 AS a, i % 100 AS b, i % 100 AS c, i FROM range(400) AS r(i)"
    with lakelog.open(lake) as opened:
        tracemalloc.start()
        try:
            done = opened.export(query, home / "out", partition_by=["a", "b", "c"])
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (done.rows, len(done.files)) == (400, 100)
    assert peak < 20_000_000
    rows = pyarrow.dataset.dataset(home / "out", partitioning="hive").to_table().to_pylist()
    assert sorted(row["i"] for row in rows) == [*range(400)]
    assert all(row["a"] == row["b"] == row["c"] == row["i"] % 100 for row in rows)


def test_the_day_of_the_time_is_a_partition(lake: Path, home: Path) -> None:
    """`date` partitions by the day of the column time."""
    assert export(lake, "events", "-o", home / "out", "--partition-by", "date").exit_code == 0
    assert sorted(os.listdir(home / "out")) == ["date=2026-09-01"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("events", "-o", "{home}"), "is in use"),
        (("events", "-o", "{home}/o", "--partition-by", "nope"), "no column 'nope'"),
        (("SELECT 1 AS a", "-o", "{home}/o", "--partition-by", "a"), "partition by fewer"),
        (("SELECT 1 AS '../a', 2 AS b", "-o", "{home}/o", "--partition-by", "../a"), "with AS"),
        (("SELECT 1 AS 'a/b', 2 AS b", "-o", "{home}/o", "--partition-by", "a/b"), "with AS"),
        (("SELECT 1 AS 'a=b', 2 AS b", "-o", "{home}/o", "--partition-by", "a=b"), "with AS"),
        (("SELECT 1 AS '.a', 2 AS b", "-o", "{home}/o", "--partition-by", ".a"), "with AS"),
        (
            ("SELECT 1 AS a, repeat('é', 60) AS b", "-o", "{home}/o", "--partition-by", "b"),
            "a value is too long for the name of a directory, b=%C3%A9",
        ),
        (
            ("SELECT 1 AS a, '\\xFF'::BLOB AS b", "-o", "{home}/o", "--partition-by", "b"),
            "b has bytes that are no text",
        ),
        (("nowhere", "-o", "{home}/o"), "nowhere"),
        (("events", "-o", "{home}/o", "--format", "xml"), "xml"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    lake: Path, home: Path, arguments: tuple[str, ...], words: str
) -> None:
    """What cannot be exported is told in one line, and no file or directory appears."""
    before = sorted(os.listdir(home))
    done = export(lake, *[a.format(home=home) for a in arguments])
    assert done.exit_code in (1, 2)
    assert words in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert sorted(os.listdir(home)) == before


def test_a_killed_export_leaves_nothing_that_looks_whole(lake: Path, home: Path) -> None:
    """After SIGKILL the name is not taken, and the next export removes what was left."""
    query = "SELECT a.* FROM events a, range(20000)"
    command = [sys.executable, "-m", "lakelog", "--lake", lake, "export", query, "-o", home / "out"]
    running = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    try:
        while not list(home.glob(".out.tmp-*/part-*")) and running.poll() is None:
            time.sleep(0.02)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert not (home / "out").exists()
    assert list(home.glob(".out.tmp-*"))
    assert export(lake, "events", "-o", home / "out").exit_code == 0
    assert not list(home.glob(".out.tmp-*"))


def test_json_says_what_was_written(lake: Path, home: Path) -> None:
    """--json gives rows and files on stdout."""
    done = export(lake, "events", "-o", home / "out", "--json", "-q")
    told = json.loads(done.stdout)
    assert told["rows"] == 500
    assert list(told["files"]) == ["part-00000-of-00001.parquet"]


def test_the_zone_of_the_machine_does_not_matter(lake: Path, home: Path) -> None:
    """Times are UTC in every file, wherever it is written."""
    command = [sys.executable, "-m", "lakelog", "--lake", lake, "export", "events", "-o"]
    for zone in ("America/New_York", "UTC"):
        environment = {**os.environ, "TZ": zone}
        out = [home / f"{zone[:2]}.parquet", "-q"]
        subprocess.run(list(map(str, [*command, *out])), env=environment, check=True)
    assert str(pq.read_schema(home / "Am.parquet").field("time").type) == "timestamp[us, tz=UTC]"
    assert (home / "Am.parquet").read_bytes() == (home / "UT.parquet").read_bytes()


@pytest.mark.parametrize("ending", [".parquet", ".csv.gz", ".jsonl", ".arrow", ".arrows", "/"])
def test_python_writes_what_the_command_does(lake: Path, home: Path, ending: str) -> None:
    """`lake.export` gives the bytes that `lakelog export` gives, and says which files."""
    query = "SELECT * FROM events WHERE level = $level"
    assert export(lake, query, "-o", f"{home}/a{ending}", "--param", "level=INFO").exit_code == 0
    with lakelog.open(lake) as opened:
        written = opened.export(query, f"{home}/b{ending}", params={"level": "INFO"})
    one, other = (sorted((home / n).glob("*")) or [home / n] for n in (f"a{ending}", f"b{ending}"))
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in other]
    assert written.files == {p.name: p.stat().st_size for p in other}
    assert written.rows > 0
    assert written.bytes == sum(written.files.values())


def test_python_exports_states_frames_and_partitions(lake: Path, home: Path) -> None:
    """A past state, a data frame of the caller and Hive directories are exported from Python."""
    with lakelog.open(lake) as opened:
        opened.tag("v1")
        opened.append({"type": "later"})
        assert opened.at("v1").export("events", home / "v1.csv").rows == 500
        assert opened.export('"v1".events', home / "same.csv").rows == 500
        assert opened.export("events", home / "now.csv").rows == 501
        wanted = pa.table({"level": ["INFO"]})  # noqa: F841 - the query names it
        joined = opened.export("FROM events SEMI JOIN wanted USING (level)", home / "info.jsonl")
        assert 0 < joined.rows < 500
        told: list[int] = []
        cut = opened.export(
            "events",
            home / "days",
            partition_by=["date"],
            shard_rows=50,
            format="jsonl",
            progress=told.append,
        )
        assert all(name.startswith("date=") and name.endswith(".jsonl") for name in cut.files)
        assert told[-1] == cut.rows == 501
        for out, more in (("x.xyz", {}), ("x.csv", {"format": "xml"}), ("y", {"shard_rows": 0})):
            with pytest.raises(ExportRefused):
                opened.export("events", home / out, **more)  # type: ignore[arg-type]
    assert not [p for p in home.iterdir() if p.name[0] in "xy"]


@pytest.mark.parametrize(
    ("query", "arguments"),
    [
        ("SELECT max(time) - min(time) AS took FROM events", ["-o", "took.parquet"]),
        ("SELECT type, [type] AS types FROM events", ["-o", "out", "--partition-by", "types"]),
    ],
)
def test_a_type_that_files_cannot_hold(lake: Path, query: str, arguments: list[str]) -> None:
    """It is refused with what to do, and leaves nothing behind."""
    arguments[1] = str(lake.parent / arguments[1])
    result = export(lake, query, *arguments)
    assert result.exit_code == 1
    assert "cannot hold: cast it, as in CAST(x AS VARCHAR)" in result.stderr
    assert [path.name for path in lake.parent.iterdir()] == ["lake"]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet", "rows/"])
def test_columns_of_one_name_are_named_as_sql_names_them(lake: Path, home: Path, name: str) -> None:
    """No value is lost where a format or a reader knows columns by their names."""
    query, out = "SELECT 1 AS a, 2 AS a, 3 AS \"A\", {'b': 4} AS s", home / name
    assert export(lake, query, "-o", out).exit_code == 0
    read = {"jsonl": "read_json", "csv": "read_csv"}.get(name.partition(".")[2], "read_parquet")
    files = f"{home}/rows/*" if name == "rows/" else out
    found = duckdb.sql(f"FROM {read}('{files}')")
    with lakelog.open(lake) as opened:
        assert found.columns == opened.sql(query).limit(1).columns == ["a", "a_1", "A_2", "s"]
    assert found.fetchall()[0][:3] == (1, 2, 3)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_the_table_is_written_as_a_query_of_it(home: Path, ending: str) -> None:
    """Of a table named `events` the payloads are known to be JSON: the text is what it is where
    that has to be found out, for any payload that a lake takes."""
    payloads = [None, 3, "a,\n", [], {"x": float("nan"), "y": '",\\\r\n\0'}, {"n": 10**4_000}]
    lines = [
        '{"a" : [ 1e999 ]}',
        '{"a":"\\ud83d"}',
        "1" * 6_000,
        "[" * 999 + "]" * 999,
        '{"a":1,"a":2}',
    ]
    (home / "in.jsonl").write_text("".join(f'{{"type":"t","data":{each}}}\n' for each in lines))
    with lakelog.open(home / "lake") as opened:
        opened.append([{"type": "t", "data": each} for each in payloads])
        assert opened.ingest(home / "in.jsonl").events >= 4
        for _ in range(2):
            for query in ("events", "SELECT * FROM events"):
                opened.export(query, home / f"{len(query)}.{ending}")
            texts = [(home / f"{n}.{ending}").read_bytes() for n in (6, 20)]
            assert texts[0] == texts[1]
            assert len(texts[0].splitlines()) >= 10
            opened.settle()


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_values_of_types_that_arrow_lacks_are_those_of_sql(
    lake: Path, home: Path, ending: str
) -> None:
    """Maps are objects, bits are digits, a time keeps its zone, and no number becomes another."""
    query = """SELECT MAP {'a': 1} AS m, {'n': MAP {2: NULL}} AS s, '101'::BIT AS b,
        10000000000000000000000000000000000000::UHUGEINT AS u, TIMETZ '12:00:00+05' AS z"""
    out = home / f"rows.{ending}"
    assert export(lake, query, "-o", out).exit_code == 0
    if ending == "parquet":
        assert pq.read_table(out, columns=["b", "u", "z"]).to_pylist() == [
            {"b": "101", "u": 10**37, "z": "12:00:00+05"}
        ]
    else:
        line = {
            "csv": '"{""a"":1}","{""n"":{""2"":null}}",101,1' + "0" * 37 + ",12:00:00+05",
            "jsonl": '{"m":{"a":1},"s":{"n":{"2":null}},"b":"101","u":1'
            + "0" * 37
            + ',"z":"12:00:00+05"}',
        }[ending]
        assert out.read_text().splitlines()[-1] == line
    assert export(lake, "SELECT MAP {[1]: 2} AS m", "-o", home / f"list.{ending}").exit_code == 0
    done = export(lake, f"SELECT {2**128 - 1}::UHUGEINT AS u", "-o", home / f"large.{ending}")
    assert (done.exit_code, "Could not cast value 3402" in done.output) == (1, True)


def test_json_and_nanoseconds_are_lines_as_those_of_sql(lake: Path, home: Path) -> None:
    """A column of JSON is no text in JSON lines, and a time within a list keeps all its digits."""
    query = """SELECT '{"a":[1,null]}'::JSON AS j, '"x"'::JSON AS t, '[1]' AS text,
        [TIMESTAMP_NS '1969-12-31 23:59:59.123456789'] AS l, TIME_NS '12:00:00.123456789' AS n"""
    assert export(lake, query, "-o", home / "rows.jsonl").exit_code == 0
    assert json.loads((home / "rows.jsonl").read_text()) == {
        "j": {"a": [1, None]},
        "t": "x",
        "text": "[1]",
        "l": ["1969-12-31 23:59:59.123456789"],
        "n": "12:00:00.123456789",
    }
    partitions = [*("--partition-by", "t"), "--format", "jsonl"]
    assert export(lake, query, "-o", home / "parts", *partitions).exit_code == 0
    (part,) = (home / "parts").rglob("*.jsonl")
    assert json.loads(part.read_text())["j"] == {"a": [1, None]}


def test_parquet_has_dictionaries_where_values_repeat(lake: Path, home: Path) -> None:
    """A column of few values has a dictionary, one of many has none; nested columns, columns of
    nothing and results without rows are written as well."""
    query = "SELECT type, seq, seq::VARCHAR || 'x' AS text, level, NULL AS nothing FROM events"
    with lakelog.open(lake) as opened:
        opened.export(query, home / "a.parquet")
        assert pq.read_table(home / "a.parquet").equals(opened.sql(query).to_arrow_table())
        for other in ("SELECT [seq] AS a, {'b': 1} AS b FROM events", f"{query} WHERE false"):
            opened.export(other, home / "b.parquet")
            wanted = opened.sql(other).to_arrow_table().to_pylist()
            assert pq.read_table(home / "b.parquet").to_pylist() == wanted
    group = pq.read_metadata(home / "a.parquet").row_group(0)
    columns = [group.column(n) for n in range(group.num_columns)]
    with_dictionary = {c.path_in_schema for c in columns if c.has_dictionary_page}
    assert {"type", "level"} <= with_dictionary
    assert not with_dictionary & {"seq", "text"}


def test_an_arrow_stream_is_written_as_one(lake: Path, home: Path) -> None:
    """`.arrows` is the stream format of Arrow, `.arrow` its file format."""
    assert export(lake, "events", "-o", home / "rows.arrows").exit_code == 0
    assert pa.ipc.open_stream(home / "rows.arrows").read_all().num_rows == 500


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "rows.jsonl.gz", "rows.arrow"])
def test_concurrent_exports_to_one_name_are_each_whole(lake: Path, home: Path, name: str) -> None:
    """While one export writes, another of that name ends; then the one that ends last is there."""
    read = "SELECT i FROM range({}) t(i)".format
    ended: list[bytes] = []
    with lakelog.open(lake) as opened:
        opened.export(read(100), home / f"short-{name}")
        opened.export(read(200_000), home / f"long-{name}")

        def write_another(rows: int) -> None:
            opened.export(read(100), home / name)
            ended.append((home / name).read_bytes())

        to = writing.destination(home / name)
        writing.export(opened.sql, read(200_000), to, progress=write_another)
    assert set(ended) == {(home / f"short-{name}").read_bytes()}
    assert (home / name).read_bytes() == (home / f"long-{name}").read_bytes()
    assert sorted(os.listdir(home)) == sorted(["lake", name, f"short-{name}", f"long-{name}"])


@pytest.mark.matrix
@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl.gz"])
def test_a_killed_export_of_a_file_leaves_none(lake: Path, home: Path, ending: str) -> None:
    """What SIGKILL leaves is hidden, is not ingested with its directory, and goes with the next."""
    out = home / "out"
    out.mkdir()
    query = "SELECT a.* FROM events a, range(20000)"
    command = [sys.executable, "-m", "lakelog", "--lake", lake, "sql", query, "-o"]
    running = subprocess.Popen([*map(str, command), f"{out}/x.{ending}"], stderr=subprocess.DEVNULL)
    try:
        while not any(p.stat().st_size for p in out.iterdir()) and running.poll() is None:
            time.sleep(0.02)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert [p.name.startswith(f".x.{ending}.tmp-") for p in out.iterdir()] == [True]
    with lakelog.open(home / "other") as other:
        other.ingest(str(out))
        assert other.count() == 0
    assert export(lake, "events", "-o", out / f"x.{ending}").exit_code == 0
    assert [p.name for p in out.iterdir()] == [f"x.{ending}"]


def test_a_failed_export_leaves_the_file_before_it(lake: Path, home: Path) -> None:
    """A query that fails on the way neither touches the file of that name nor leaves another."""
    (home / "x.csv").write_text("before")
    failing = "SELECT CASE WHEN (data->>'n')::INT = 499 THEN error('late') END FROM events"
    assert export(lake, failing, "-o", home / "x.csv").exit_code != 0
    assert (home / "x.csv").read_text() == "before"
    assert sorted(os.listdir(home)) == ["lake", "x.csv"]


@pytest.mark.parametrize("ending", ["csv", "jsonl.gz", "parquet", "arrow", "arrows"])
def test_a_long_export_is_whole_in_a_file_and_in_a_pipe(
    lake: Path, home: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk begins to write a long file early; a pipe has no disk, and gets the same bytes."""
    whole = home / f"whole.{ending}"
    assert export(lake, "events", "-o", whole).exit_code == 0
    monkeypatch.setattr(folder, "_AHEAD", 1)
    begun, pipe = home / f"begun.{ending}", home / f"pipe.{ending}"
    assert export(lake, "events", "-o", begun).exit_code == 0
    os.mkfifo(pipe)
    with subprocess.Popen(["cp", pipe, home / "read"]) as reader:
        done = export(lake, "events", "-o", pipe)
        if done.exit_code:
            reader.kill()
    assert done.exit_code == 0, done.output
    assert (home / "read").read_bytes() == begun.read_bytes() == whole.read_bytes()


def test_an_export_to_a_pipe_names_no_file_and_no_size(lake: Path, home: Path) -> None:
    """What went through a pipe is nowhere: it says the rows alone, and not 0 bytes of them."""
    pipe = home / "pipe.csv"
    os.mkfifo(pipe)
    with subprocess.Popen(["cp", pipe, home / "read"]) as reader:
        done = export(lake, "events", "-o", pipe, "--json")
        if done.exit_code:
            reader.kill()
    assert json.loads(done.stdout) == {"path": str(pipe), "rows": 500, "files": {}}
    assert "500 rows, " in done.stderr
    assert "byte" not in done.stderr
    assert "file" not in done.stderr
