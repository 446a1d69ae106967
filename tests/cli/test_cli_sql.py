"""lakelog sql: where the query comes from, every format, and values that are hard to write."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakelog.cli.render import tables, terminal
from lakelog.render import OutputFormat, values
from tests.support.cli import lines, run

BY_NUMBER = "SELECT data->>'n' AS n, type, time FROM events ORDER BY n"
HARD = {
    "h": ("170141183460469231731687303715884105727", 170141183460469231731687303715884105727),
    "d": ("1.50::DECIMAL(38,2)", 1.5),
    "i": ("INTERVAL '1 day 2 hours'", "P1DT2H"),
    "neg": ("INTERVAL '-3.5 seconds'", "-PT3.5S"),
    "b": (r"'\xAA\x00b'::BLOB", "\\xaa\x00b"),
    "u": ("'bc5a631e-1084-46bb-a94c-1df6bd70d452'::UUID", "bc5a631e-1084-46bb-a94c-1df6bd70d452"),
    "l": ("[1, NULL]", [1, None]),
    "s": ("{'a': [{'b': DATE '2020-01-01'}]}", {"a": [{"b": "2020-01-01"}]}),
    "m": ("MAP {1: 'x'}", {"1": "x"}),
    "nan": ("'nan'::DOUBLE", "NaN"),
    "inf": ("'-inf'::FLOAT", "-Infinity"),
    "t": ("TIME '10:00:00.5'", "10:00:00.500000"),
    "tz": ("'10:00:00+02'::TIMETZ", "10:00:00+02:00"),
    "ts": ("TIMESTAMP '2020-01-01 01:02:03'", "2020-01-01T01:02:03"),
    "ns": ("'1969-12-31 23:59:59.123456789'::TIMESTAMP_NS", "1969-12-31T23:59:59.123456789"),
    "z": ("'2020-01-01 01:02:03.5+01'::TIMESTAMPTZ", "2020-01-01T00:02:03.500000Z"),
    "far": ("'20000-01-01'::DATE", "20000-01-01"),
    "e": ("'x'::ENUM('x', 'y')", "x"),
    "j": ("""'{"a": [1, 1e400]}'::JSON""", {"a": [1, float("inf")]}),
    "ub": ("18446744073709551615::UBIGINT", 18446744073709551615),
    "bool": ("true", True),
    "null": ("NULL", None),
    "text": ("'a,\"b\"' || chr(10) || '|c\\'", 'a,"b"\n|c\\'),
}
SELECT_HARD = "SELECT " + ", ".join(f'{sql} AS "{name}"' for name, (sql, _) in HARD.items())
EXPECTED = {name: value for name, (_, value) in HARD.items()}


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Ten events of two types."""
    path = tmp_path / "lake"
    run(path, "append", input=lines(6) + lines(4, "PONG"))
    return path


def rows(lake: Path, *words: str, **rest: Any) -> list[Any]:
    """Run a query and return its rows from JSON."""
    return json.loads(run(lake, "sql", *words, "--json", **rest).stdout)


# --- where the query comes from -------------------------------------------------------------------


def test_a_query_comes_from_argument_file_or_stdin(lake: Path, tmp_path: Path) -> None:
    """The query is the argument, -f FILE, `-`, or what is piped in."""
    count, found = "SELECT count(*) AS n FROM events", [{"n": 10}]
    path = tmp_path / "count.sql"
    path.write_text(f"\ufeff-- how many\n{count};\n")
    assert rows(lake, count) == found
    assert rows(lake, "-f", str(path)) == found
    assert rows(lake, "-", input=count) == found
    assert rows(lake, input=count) == found
    assert rows(lake, "-f", "-", input=count) == found


def test_parameters_are_values(lake: Path) -> None:
    """--param takes JSON where it parses and text elsewhere, and is never pasted into the SQL."""
    query = "SELECT count(*) AS n FROM events WHERE type = $t AND (data->>'n')::INT < $below"
    assert rows(lake, query, "--param", "t=PING", "--param", "below=3") == [{"n": 3}]
    assert rows(lake, query, "--param", "t=' OR 1=1 --", "--param", "below=3") == [{"n": 0}]
    assert rows(lake, "SELECT $l AS l", "--param", "l=[1,2]") == [{"l": [1, 2]}]
    assert "not KEY=VALUE" in run(lake, "sql", query, "--param", "t", code=2).stderr


def test_at_asks_a_state(lake: Path) -> None:
    """--at asks a tag; other states are schemas of their own."""
    run(lake, "tag", "v1")
    run(lake, "append", input=lines(5))
    assert rows(lake, "SELECT count(*) AS n FROM events", "--at", "v1") == [{"n": 10}]
    assert rows(lake, 'SELECT count(*) AS n FROM "v1".events') == [{"n": 10}]
    assert rows(lake, "SELECT count(*) AS n FROM events") == [{"n": 15}]


def test_explain_counts_segments_and_shows_the_plan(lake: Path) -> None:
    """--explain says how many segments the query opens of how many there are."""
    run(lake, "snapshot")
    run(lake, "append", input=lines(5, time="2001-01-01"))
    run(lake, "snapshot")
    query = "SELECT type FROM events WHERE time < '2002-01-01'"
    (found,) = [json.loads(run(lake, "sql", query, "--explain").stdout)]
    assert (found["segments_opened"], found["segments"]) == (1, 2)
    assert "PARQUET" in found["plan"].upper()
    shown = run(lake, "sql", query, "--explain", "--format", "table").stdout
    assert shown.startswith("opens 1 of 2 segments\n")


# --- formats --------------------------------------------------------------------------------------


def parse(data: bytes, form: str) -> list[list[str]]:
    """Return the cells of any format as text, the header first."""
    if form in ("json", "ndjson"):
        found = json.loads(data) if form == "json" else [json.loads(x) for x in data.splitlines()]
        return [list(found[0]), *([str(v) for v in row.values()] for row in found)]
    if form == "csv":
        return list(csv.reader(io.StringIO(data.decode(), newline="")))
    if form == "md":
        cells = [line.strip("| ").split(" | ") for line in data.decode().splitlines()]
        return [cells[0], *cells[2:]]
    if form == "table":
        cells = [line.split("  ") for line in data.decode().splitlines()]
        return [[c.strip() for c in row if c.strip()] for row in [cells[0], *cells[2:]]]
    if form == "html":
        lines = [line for line in data.decode().splitlines() if "<tr>" in line]
        return [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", line) for line in lines]
    source = pa.BufferReader(data)
    table = pq.read_table(source) if form == "parquet" else pa.ipc.open_stream(source).read_all()
    return [table.column_names, *([str(v) for v in row.values()] for row in table.to_pylist())]


@pytest.mark.parametrize("form", [str(form) for form in OutputFormat])
def test_every_format_gives_the_same_rows(lake: Path, form: str) -> None:
    """Each format on stdout holds the same header and rows."""
    query = "SELECT type, count(*) AS events FROM events GROUP BY 1 ORDER BY 1"
    data = run(lake, "sql", query, "--format", form).stdout_bytes
    assert parse(data, form) == [["type", "events"], ["PING", "6"], ["PONG", "4"]]


@pytest.mark.parametrize("form", [str(form) for form in OutputFormat])
def test_every_format_holds_an_empty_result(lake: Path, form: str) -> None:
    """No rows are no trouble: an empty list, or the header alone."""
    data = run(lake, "sql", "SELECT type, seq FROM events WHERE false", "--format", form)
    if form == "json":
        assert json.loads(data.stdout) == []
    elif form == "ndjson":
        assert data.stdout == ""
    else:
        assert parse(data.stdout_bytes, form) == [["type", "seq"]]


def test_a_pipe_gets_ndjson_and_a_terminal_a_table(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --format stdout decides; parquet and arrow are not for a terminal."""
    assert run(lake, "sql", "SELECT 1 AS a").stdout == '{"a":1}\n'
    monkeypatch.setattr(terminal, "is_terminal", lambda stream: True)
    plain = run(lake, "sql", "SELECT 1 AS a", env={"NO_COLOR": "1"})
    assert plain.stdout.split() == ["a", "─", "1"]
    for form in ("parquet", "arrow"):
        assert "add -o FILE" in run(lake, "sql", "SELECT 1", "--format", form, code=2).stderr


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.json", "json"),
        ("a.ndjson", "ndjson"),
        ("a.jsonl", "ndjson"),
        ("a.CSV", "csv"),
        ("a.md", "md"),
        ("a.html", "html"),
        ("a.parquet", "parquet"),
        ("a.arrows", "arrow"),
        ("a.txt", "table"),
    ],
)
def test_the_ending_of_the_file_tells_the_format(
    lake: Path, tmp_path: Path, name: str, form: str
) -> None:
    """-o FILE needs no --format where the name's ending is known."""
    run(lake, "sql", "SELECT 'x' AS a", "-o", str(tmp_path / name))
    assert parse((tmp_path / name).read_bytes(), form) == [["a"], ["x"]]


def test_an_arrow_file_is_the_file_format(lake: Path, tmp_path: Path) -> None:
    """-o x.arrow is what memory-mapping readers open; repeated names are told apart."""
    run(lake, "sql", "SELECT 1 AS a, 2 AS a", "-o", str(tmp_path / "x.arrow"))
    assert pa.ipc.open_file(tmp_path / "x.arrow").read_all().column_names == ["a", "a_1"]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_types_that_arrow_lacks_are_other_types_in_files(
    lake: Path, tmp_path: Path, form: str
) -> None:
    """As in exports: the engine alone gives Arrow other values, for the largest UHUGEINT -1."""
    out = tmp_path / f"rows.{form}"
    query = "SELECT '101'::BIT AS b, TIMETZ '12:00:00+05' AS z, [7::UHUGEINT] AS u"
    run(lake, "sql", query, "-o", str(out))
    table = pq.read_table(out) if form == "parquet" else pa.ipc.open_file(out).read_all()
    assert table.to_pylist() == [{"b": "101", "z": "12:00:00+05", "u": [7]}]
    said = run(lake, "sql", f"SELECT {2**128 - 1}::UHUGEINT AS u", "-o", str(out), code=1)
    assert "Could not cast value 3402" in said.output


def test_a_file_appears_whole_or_not_at_all(lake: Path, tmp_path: Path) -> None:
    """A query that fails half-way leaves the older file, and no temporary one."""
    path = tmp_path / "out.csv"
    path.write_text("older")
    query = "SELECT if(range < 50000, range, error('boom')) AS r FROM range(60000)"
    said = run(lake, "sql", query, "-o", str(path), code=1)
    assert said.stderr.count("\n") == 1
    assert "boom" in said.stderr
    assert path.read_text() == "older"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("out")] == ["out.csv"]


def test_a_device_is_written_to_as_it_is(lake: Path) -> None:
    """-o /dev/null stays a device."""
    run(lake, "sql", "SELECT 1", "--format", "csv", "-o", "/dev/null")
    assert Path("/dev/null").is_char_device()


# --- values ---------------------------------------------------------------------------------------


def test_hard_values_are_exact_json(lake: Path) -> None:
    """Long integers, decimals, intervals, bytes, nested values and odd numbers become JSON."""
    assert rows(lake, SELECT_HARD) == [EXPECTED]
    assert b"170141183460469231731687303715884105727" in run(lake, "sql", SELECT_HARD).stdout_bytes


def test_a_long_result_reads_like_a_short_one(lake: Path) -> None:
    """Above a thousand rows, where results stream, every value is written just the same."""
    names = ", ".join(f'"{name}"' for name in HARD)
    query = f"SELECT {names} FROM ({SELECT_HARD}), range(1500)"
    found = run(lake, "sql", query).stdout_bytes.splitlines()
    assert len(found) == 1500
    assert {*found} == {*run(lake, "sql", SELECT_HARD).stdout_bytes.splitlines()}


@pytest.mark.matrix
@pytest.mark.parametrize("name", [n for n in HARD if n not in ("j", "far")])
def test_a_long_column_reads_like_a_short_one(lake: Path, name: str) -> None:
    """So it is for each type on its own, streamed through Arrow where that gives the same."""
    query = f"SELECT {HARD[name][0]} AS v"
    short = run(lake, "sql", query, "--format", "csv").stdout_bytes
    long = run(lake, "sql", f"SELECT v FROM ({query}), range(1500)", "--format", "csv")
    head, _, row = short.partition(b"\r\n")
    assert long.stdout_bytes == head + b"\r\n" + row * 1500


def test_events_keep_their_order_in_a_long_result(lake: Path) -> None:
    """Times and payloads of thousands of events come out of the stream as they went in."""
    run(lake, "append", input=lines(3000, "MANY", time="2026-01-02T03:04:05.600Z"))
    query = "SELECT time, data FROM events WHERE type = 'MANY' ORDER BY (data->>'n')::INT"
    found = rows(lake, query)
    assert [r["data"]["n"] for r in found] == list(range(3000))
    assert {r["time"] for r in found} == {"2026-01-02T03:04:05.600000Z"}


def test_the_payload_is_json_in_json(lake: Path) -> None:
    """data and JSON columns are nested in JSON and text elsewhere, digits and all."""
    exact = '{"n":12345678901234567890123.50}'
    run(lake, "append", input=f'{{"type":"BIG","data":{exact}}}\n')
    query = "SELECT data, 'x' AS type, data::JSON AS again FROM events WHERE type = 'BIG'"
    data = run(lake, "sql", query).stdout
    assert data == f'{{"data":{exact},"type":"x","again":{exact}}}\n'
    cells = parse(run(lake, "sql", query, "--format", "csv").stdout_bytes, "csv")
    assert cells[1] == [exact, "x", exact]
    assert rows(lake, "SELECT 'no json' AS data") == [{"data": "no json"}]


def test_csv_is_rfc_4180_and_markdown_escapes(lake: Path) -> None:
    """Quotes, commas and line breaks survive CSV; pipes and line breaks do not break Markdown."""
    query = f"SELECT {HARD['text'][0]} AS t, NULL AS n"
    data = run(lake, "sql", query, "--format", "csv").stdout_bytes
    assert data == b't,n\r\n"a,""b""\n|c\\",\r\n'
    assert run(lake, "sql", query, "--format", "md").stdout.splitlines()[2] == (
        '| a,"b"<br>\\|c\\\\ |  |'
    )


# --- tables ---------------------------------------------------------------------------------------


def test_a_table_is_cut_at_200_rows(lake: Path) -> None:
    """A long result shows 200 rows and says how to get all."""
    said = run(lake, "sql", "SELECT range AS r FROM range(100000)", "--format", "table")
    assert len(said.stdout.splitlines()) == 202
    assert said.stderr == "the first 200 rows shown; -o or --format csv gives all\n"


def test_a_table_fits_the_terminal(lake: Path) -> None:
    """Whole events fit 80 columns; what is left out is named; numbers stand right."""
    said = run(lake, "sql", "SELECT * FROM events", "--format", "table")
    assert max(map(len, said.stdout.splitlines())) <= 80
    assert "data" in said.stdout.splitlines()[0]
    assert "of 13 columns shown, not" in said.stderr
    columns = ", ".join(f"{n} AS column_{n}" for n in range(60))
    assert (
        "column_22, and 37 more; -o"
        in run(lake, "sql", f"SELECT {columns}", "--format", "table").stderr
    )
    narrow = run(lake, "sql", "SELECT 1234567 AS n, 'x' AS t", "--format", "table")
    assert narrow.stdout.splitlines() == ["      n  t", "──────────", "1234567  x"]


def test_a_cell_cannot_command_the_terminal(lake: Path) -> None:
    """Control characters are shown, not sent; a line break does not break the table."""
    query = "SELECT 'a' || chr(27) || '[31m' || chr(10) || chr(7) AS t"
    data = run(lake, "sql", query, "--format", "table").stdout
    assert data.splitlines()[2] == "a\\x1b[31m↵\\x07"


@pytest.mark.parametrize(
    ("environment", "painted"),
    [
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": "0"}, False),
        ({}, False),
    ],
)
def test_colours_obey_the_environment(
    lake: Path, environment: dict[str, str], painted: bool
) -> None:
    """NO_COLOR forbids colours, FORCE_COLOR demands them, a pipe has none."""
    words = ("sql", "SELECT NULL AS n", "--format", "table")
    given = {"NO_COLOR": "", "FORCE_COLOR": "", **environment}
    assert ("\x1b[" in run(lake, *words, env=given, color=True).stdout) is painted


def test_a_dumb_terminal_gets_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """TERM=dumb is a terminal without colours."""
    monkeypatch.setattr(terminal, "is_terminal", lambda stream: True)
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    assert not terminal.has_colour(None)
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.has_colour(None)


@pytest.mark.parametrize(
    ("natural", "least", "width", "fitted"),
    [
        ([3, 4], [3, 4], 80, {0: 3, 1: 4}),
        ([100], [8], 80, {0: 80}),
        ([100, 100], [8, 8], 80, {0: 39, 1: 39}),
        ([27, 100], [27, 8], 60, {0: 27, 1: 31}),
        ([27, 27, 27, 27], [27, 27, 27, 27], 60, {0: 27, 1: 27}),
        ([90, 5], [90, 5], 80, {0: 80}),
        ([], [], 80, {}),
    ],
)
def test_columns_share_the_width(
    natural: list[int], least: list[int], width: int, fitted: dict[int, int]
) -> None:
    """Columns get what they need, share what is short, and leave from the right."""
    assert tables.fit_columns(natural, least, [], list(range(len(natural))), width) == fitted


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (0, "PT0S"),
        (0.5, "PT0.5S"),
        (60, "PT1M"),
        (3600, "PT1H"),
        (86400, "P1D"),
        (90061.000001, "P1DT1H1M1.000001S"),
        (-1, "-PT1S"),
        (-86400, "-P1D"),
    ],
)
def test_durations_are_iso_8601(given: float, shown: str) -> None:
    """An interval is written as an ISO 8601 duration."""
    assert values.duration(values.datetime.timedelta(seconds=given)) == shown


def test_show_lists_the_tables_and_describes_them(lake: Path) -> None:
    """SHOW TABLES names events, quarantine, views and the statement's own tables, none of ours;
    SHOW and DESCRIBE of each give its columns, whether it was read before or not."""
    query = "CREATE TABLE mine AS SELECT 1 AS x; SHOW TABLES"
    names = [row["name"] for row in map(json.loads, run(lake, "sql", query).stdout.splitlines())]
    assert {"events", "quarantine", "status", "mine"} <= set(names)
    assert names == sorted(set(names))
    assert not [name for name in names if name.startswith("lakelog_")]
    for query in ("show events;", "SHOW quarantine", "DESCRIBE events", "SHOW status"):
        columns = [
            row["column_name"]
            for row in map(json.loads, run(lake, "sql", query).stdout.splitlines())
        ]
        assert columns[0] in ("time", "category", "ingested_at")
    for query in (
        "SHOW COLUMNS FROM events;",
        "\n-- which\nshow full columns in status",
        "SELECT 1 AS x; SHOW FIELDS FROM files",
        'SHOW COLUMNS FROM "main"."events"',
    ):
        last = run(lake, "sql", query).stdout.splitlines()
        shown = [json.loads(line).get("column_name") for line in last]
        assert {"type", "category", "path"} & set(shown), query
    wrong = run(lake, "sql", "SELECT 'show columns from x' FORM y", code=1)
    assert 'near "y"' in wrong.stderr
    near = run(lake, "sql", "SHOW event", code=1)
    assert "events" in near.stderr


def test_a_plan_is_shown_as_it_is_drawn(lake: Path) -> None:
    """EXPLAIN on a terminal is the plan over several lines, not one cell that is cut."""
    shown = run(lake, "sql", "EXPLAIN SELECT * FROM events", "--format", "table").stdout
    assert "explain_key" not in shown
    assert shown.count("\n") > 3
    assert "Projections:" in shown


def test_sql_may_begin_with_a_comment(lake: Path, tmp_path: Path) -> None:
    """A query whose first line is a comment is a query, and no option of the verb."""
    for comment in ("-- what it is = x\n", "--short\n", "--\tx\n", "-- a\n-- b\n"):
        shown = run(lake, "sql", f"{comment}SELECT 1 AS x", "--format", "csv").stdout
        assert shown.split() == ["x", "1"], comment
    run(lake, "export", "-- x\nSELECT 1 AS x", "-o", str(tmp_path / "x.csv"))
    assert (tmp_path / "x.csv").read_text().split() == ["x", "1"]
    wrong = run(lake, "sql", "--what ever", code=2)
    assert "No such option" in wrong.stderr
