"""Ingest: what may be taken in, and what becomes of it."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.database import connection
from lakelog.errors import InvalidSetting
from lakelog.ingest import batch, transform
from lakelog.lines import source
from tests.support.feeds import PACKED, assert_each_once, bad_lines, event, feed, numbers, put, text
from tests.support.tree import SHARED

MakeLake = Callable[..., lakelog.Lake]
COLUMNS = "time, type, category, source, subject, level, message, id, data"


def taken(lake: lakelog.Lake, path: Path, lines: bytes, **options: Any) -> list[dict[str, Any]]:
    """Ingest lines and return their rows in order, data parsed, columns of null left out."""
    lake.ingest(put(path, lines), **options)
    query = f"SELECT {COLUMNS} FROM events ORDER BY origin, position"
    rows = lake.sql(query).to_arrow_table().to_pylist()
    for row in rows:
        row["data"] = json.loads(row["data"]) if row["data"] else None
    return [{k: v for k, v in row.items() if v is not None} for row in rows]


@pytest.fixture(params=[0, 100])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Lines so few are decided one by one: with 0 all by SQL where it can."""
    monkeypatch.setattr(transform, "FEW", request.param)
    return int(request.param)


# --- envelopes ------------------------------------------------------------------------------------

NOON = dt.datetime(2026, 5, 1, 12, 0, tzinfo=dt.UTC)
SECONDS = 1_777_636_800


@pytest.mark.parametrize(
    ("value", "micros"),
    [
        ("2026-05-01T12:00:00Z", 0),
        ("2026-05-01T14:00:00.5+02:00", 500_000),
        ("2026-05-01 12:00:00", 0),
        ("2026-05-01T12:00:00,25", 250_000),
        ("2026-05-01T12:00:00.123456789Z", 123_456),
        ("2026-05-01T12:00:00 UTC", 0),
        (SECONDS, 0),
        (SECONDS + 0.5, 500_000),
        (SECONDS * 1000 + 1, 1000),
        (SECONDS * 10**6 + 7, 7),
        (SECONDS * 10**9 + 7999, 7),
        (str(SECONDS), 0),
        (f"{SECONDS}.000250", 250),
    ],
)
@pytest.mark.usefixtures("few")
def test_every_spelling_of_time(
    lake: lakelog.Lake, tmp_path: Path, value: Any, micros: int
) -> None:
    """ISO text with or without zone and epochs in s, ms, us or ns mean the same under any name."""
    names = ("time", "timestamp", "ts", "@timestamp")
    lines = text([{name: value, "type": "A", **more} for name in names for more in ({}, {"x": 1})])
    rows = taken(lake, tmp_path / "f.jsonl", lines)
    assert [r["time"] - NOON for r in rows] == [dt.timedelta(microseconds=micros)] * 8


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize(
    ("line", "row"),
    [
        ({"type": "A"}, {"type": "A"}),
        (
            {"event_type": "A", "content_type": "c", "item_id": "i"},
            {"type": "A", "category": "c", "subject": "i"},
        ),
        ({"type": "A", "event_type": "B"}, {"type": "A", "data": {"event_type": "B"}}),
        ({"eventName": "Put"}, {"type": "Put", "data": {"eventName": "Put"}}),
        ({"x": 1}, {"type": "event", "data": {"x": 1}}),
        (
            {"type": "A", "level": "warning", "message": "m"},
            {"type": "A", "level": "WARN", "message": "m", "data": {"level": "warning"}},
        ),
        ({"type": "A", "level": 30}, {"type": "A", "data": {"level": 30}}),
        ({"type": 5, "message": 7, "data": None}, {"type": "5", "message": "7"}),
        ({"type": "A", "data": {"a": 1}, "b": 2}, {"type": "A", "data": {"a": 1, "b": 2}}),
        (
            {"type": "A", "data": {"a": 1}, "a": 2},
            {"type": "A", "data": {"data": {"a": 1}, "a": 2}},
        ),
        ({"type": "A", "data": [1], "b": None}, {"type": "A", "data": {"data": [1], "b": None}}),
        ({"type": "A", "source": {"k": 1}}, {"type": "A", "data": {"source": {"k": 1}}}),
        ({"type": "A", "message": "[x] {y}"}, {"type": "A", "message": "[x] {y}"}),
        (
            {"type": "ž\u2028", "subject": "\0", "source": ""},
            {"type": "ž\u2028", "subject": "\0", "source": ""},
        ),
    ],
)
@pytest.mark.usefixtures("few")
def test_columns_and_payload(
    lake: lakelog.Lake, tmp_path: Path, line: dict[str, Any], row: dict[str, Any], compact: bool
) -> None:
    """Known spellings become columns, unknown keys go into data, nothing is lost."""
    made = taken(lake, tmp_path / "f.jsonl", text([{"ts": SECONDS, **line}] * 2, compact))
    assert made == [{"time": NOON, **row}] * 2


@pytest.mark.usefixtures("few")
def test_numbers_and_repeated_keys_keep_their_text(lake: lakelog.Lake, tmp_path: Path) -> None:
    """What 64-bit integers, doubles and dicts cannot hold is stored as it was written."""
    payloads = [
        '{"n":123456789012345678901234567890}',
        '{"n":0.1000000000000000055511151231257827}',
        '{"n":1e400}',
        '{"n":-1e-400}',
        '{"n":18446744073709551616}',
        '{"n":1,"n":2}',
        '{"n":9007199254740993e1}',
        '{"n":3.141592653589793}',
        '{"n":1234567890123456789}',
    ]
    lines = [f'{{"ts":{SECONDS},"type":"A","data":{p}}}' for p in payloads]
    lines += [f'{{"ts":{SECONDS},"type":"A", "data": {p}, "id":null}}' for p in payloads]
    lake.ingest(put(tmp_path / "f.jsonl", text(lines)))
    found = lake.sql("SELECT data FROM events ORDER BY position").fetchall()
    assert [d for (d,) in found] == payloads * 2


def test_an_event_without_time_has_the_time_of_its_arrival(
    lake: lakelog.Lake, tmp_path: Path
) -> None:
    """Where the input has no time, the time is when it was taken in."""
    before = dt.datetime.now(dt.UTC)
    rows = taken(lake, tmp_path / "f.jsonl", b'{"type":"A"}\n{"type":"A","level":5}\n')
    assert all(before <= r["time"] <= dt.datetime.now(dt.UTC) for r in rows)


@pytest.mark.usefixtures("few")
def test_oos_lines(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Only the first five bars divide an OOS line; empty columns are null."""
    lines = [
        '2026-05-01T12:00:00|DISCOVER|podcast|Tech|ep_1|{"title": "a|b|c", "n": [1, "|"]}',
        "2026-05-01T12:00:00+00:00|COMPLETE||||",
        '2026-05-01 12:00:00.000|PROCESS|podcast|Tech|ep_1|"|"',
    ]
    rows = taken(lake, tmp_path / "f.json", text(lines))
    first = {"category": "podcast", "source": "Tech", "subject": "ep_1"}
    assert rows == [
        {"time": NOON, "type": "DISCOVER", **first, "data": {"title": "a|b|c", "n": [1, "|"]}},
        {"time": NOON, "type": "COMPLETE"},
        {"time": NOON, "type": "PROCESS", **first, "data": "|"},
    ]


@pytest.mark.usefixtures("few")
def test_ai_events(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Events of the AI logger: details, metrics and all else become the payload."""
    line = {
        "timestamp": "2026-05-01T12:00:00.000000",
        "event_type": "decision",
        "category": "ai",
        "source": "agent",
        "details": {"why": "x"},
        "system_metrics": {"cpu": 12.345678901234567},
        "session_id": "s1",
    }
    rows = taken(lake, tmp_path / "f.jsonl", text([line] * 3, compact=False))
    payload = {k: line[k] for k in ("details", "system_metrics", "session_id")}
    known = {"type": "decision", "category": "ai", "source": "agent", "data": payload}
    assert rows == [{"time": NOON, **known}] * 3


# --- _bulk ----------------------------------------------------------------------------------------


def test_bulk_files(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Actions give a document its id and category; a delete is no event, each update is one."""
    lines = [
        '{ "index" : { "_index" : "a", "_id" : "1" } }',
        '{"@timestamp": 1777636800, "n": 1}',
        '{"create":{"_index":"b","_id":"1"}}',
        '{"@timestamp":1777636800,"type":"T","n":2}',
        "",
        '{"delete":{"_index":"b","_id":"1"}}',
        '{"update":{"_index":"a","_id":"1"}}',
        '{"doc":{"ts":1777636800,"n":3}}',
        '{"index":{}}',
        '{"ts":1777636800,"source":"s","data":{"n":4}}',
        '{"index":{"_index":"a","_id":"1"}}',
        '{"ts":1777636800,"n":1}',
    ]
    rows = taken(lake, tmp_path / "f.jsonl", text(lines))
    a, b = ({"time": NOON, "category": k, "source": k} for k in "ab")
    assert rows == [
        {**a, "type": "event", "id": "1", "data": {"n": 1}},
        {**b, "type": "T", "id": "1", "data": {"n": 2}},
        {**a, "type": "event", "subject": "1", "data": {"n": 3}},
        {"time": NOON, "type": "event", "source": "s", "data": {"n": 4}},
    ]


def test_bad_pairs_of_a_bulk_file(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A document without action, a bad one and an update without doc are quarantined."""
    lines = [
        '{"index":{"_id":"1"}}',
        "{oops",
        '{"n":1}',
        '{"update":{"_id":"1"}}',
        '{"n":2}',
        '{"index":{"_id":"2"}}',
        '{"n":3}',
    ]
    report = lake.ingest(put(tmp_path / "f.jsonl", text(lines)))
    assert (report.events, report.quarantined) == (1, 3)
    assert [line for _, _, line in bad_lines(lake)] == ["{oops", '{"n":1}', '{"n":2}']
    assert numbers(lake) == [3]


# --- where it comes from --------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("name", ["events.jsonl", "events.gz", "events.zst", "events"])
def test_compression_is_told_by_content(
    lake: lakelog.Lake, tmp_path: Path, packing: str, name: str
) -> None:
    """Plain, gzip, zstd, xz and bzip2, one or many members, whatever the name says."""
    report = lake.ingest(put(tmp_path / name, PACKED[packing](feed(200))))
    assert (report.events, report.quarantined) == (200, 0)
    assert numbers(lake) == list(range(200))


def test_directories_patterns_and_files(make_lake: MakeLake, tmp_path: Path) -> None:
    """Directories are walked, hidden files and lakes in them left out; patterns are expanded."""
    logs = tmp_path / "logs"
    (logs / "deep" / "er").mkdir(parents=True)
    lake = make_lake("logs/lake")
    lake.append({"type": "OWN"})
    lake.settle()
    for n, name in enumerate(["a.jsonl", "b.log", "deep/c.jsonl", "deep/er/d.jsonl"]):
        put(logs / name, feed(1, n))
    put(logs / ".hidden", feed(1, 9))
    (logs / ".git").mkdir()
    put(logs / ".git" / "x", feed(1, 9))

    def names(*paths: str) -> list[str]:
        found = lake.ingest(list(paths), dry_run=True).files
        return [os.path.relpath(f.path, logs) for f in found]

    every = ["a.jsonl", "b.log", "deep/c.jsonl", "deep/er/d.jsonl"]
    assert names(str(logs)) == every
    assert names(f"{logs}/*.jsonl") == ["a.jsonl"]
    assert names(f"{logs}/**/*.jsonl") == ["a.jsonl", "deep/c.jsonl", "deep/er/d.jsonl"]
    assert names(f"{logs}/d*") == ["deep/c.jsonl", "deep/er/d.jsonl"]
    assert names(f"{logs}/b.log", str(logs / "deep")) == ["b.log", *every[2:]]
    assert lake.ingest(str(logs)).events == 4


def test_a_file_named_like_a_pattern(lake: lakelog.Lake, tmp_path: Path) -> None:
    """An existing file is taken by its name before that is read as a pattern."""
    assert lake.ingest(put(tmp_path / "a[1]*.jsonl", feed(2))).events == 2


def test_a_name_that_is_no_text(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A file whose name is not UTF-8 is taken in, its name shown with escapes."""
    path = os.fsencode(tmp_path) + b"/caf\xe9.jsonl"
    Path(os.fsdecode(path)).write_bytes(feed(2) + b"oops\n")
    report = lake.ingest(os.fsdecode(path))
    assert (report.events, report.files[0].path[-12:]) == (2, r"caf\xe9.jsonl"[-12:])
    assert "xe9" in lake.log()[0].move.message


def test_standard_input_is_a_source_like_a_file(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read from stdin is known when it comes again, from there or as a file."""

    def piped(data: bytes) -> int:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        return lake.ingest("-").events

    assert piped(feed(300)) == 300
    assert piped(PACKED["gz"](feed(310))) == 10
    assert lake.ingest(put(tmp_path / "f.jsonl", feed(320))).events == 10
    assert piped(b"") == 0
    assert_each_once(lake, 320)


def test_a_named_pipe(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A pipe, as a shell's <(command) gives one, is read like standard input."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writing = threading.Thread(target=path.write_bytes, args=(feed(3),))
    writing.start()
    assert lake.ingest(str(path)).events == 3
    writing.join()


def test_format_is_told_by_content_or_forced(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Names mean nothing; a forced format is used; an unknown one is refused."""
    bars = b"2026-05-01T12:00:00|A|||x|{}\n"
    bulk = b'{"index":{}}\n{"n":1}\n'
    for name, lines in {"oos": bars, "bulk": bulk, "jsonl": feed(2)}.items():
        (report,) = lake.ingest(put(tmp_path / "same.json", lines)).files
        assert (report.format, report.quarantined) == (name, 0)
    forced = lake.ingest(put(tmp_path / "x", b'{"create":{}}\n{"n":5}\n'), format="jsonl")
    assert (forced.events, forced.files[0].format) == (2, "jsonl")
    with pytest.raises(InvalidSetting, match="no format 'xml'"):
        lake.ingest(str(tmp_path / "x"), format="xml")


def test_the_format_of_a_file_stays(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A file that grows by lines of another look is read as it began."""
    path = tmp_path / "f.jsonl"
    assert lake.ingest(put(path, b"2026-05-01T12:00:00|A|||x|{}\n")).events == 1
    put(path, path.read_bytes() + b'{"type":"B"}\n')
    report = lake.ingest(str(path))
    assert (report.events, report.quarantined, report.files[0].format) == (0, 1, "oos")


# --- what a row carries ---------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [500, 1 << 20])
def test_origin_and_position_lead_back_to_the_line(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """Every row carries its file's fingerprint and the byte offset of its line."""
    monkeypatch.setattr(source.Source, "CHUNK", chunk)
    contents = {}
    for name in ("a", "b"):
        lines = [json.dumps(event(n, file=name, message="ž" * (n % 40))) for n in range(50)]
        contents[name] = ("\n\n".join(lines) + "\n{oops\n").encode()
        lake.ingest(put(tmp_path / name, contents[name]))
    rows = lake.sql("SELECT origin, position, data->>'file' AS f, message FROM events").fetchall()
    assert len(rows) == 100
    assert len({(origin, file) for origin, _, file, _ in rows}) == 2
    for _, position, file, message in rows:
        line = contents[file][position:].split(b"\n")[0]
        assert json.loads(line)["message"] == message
    for position, _, line in bad_lines(lake):
        assert contents["a"][position:].startswith(line.encode())


@pytest.mark.matrix
@pytest.mark.parametrize(("chunk", "rows_max"), [(50, 7), (333, 1), (4096, 100)])
@pytest.mark.parametrize("kind", ["jsonl", "oos", "bulk"])
def test_pieces_of_any_size_give_the_same_rows(
    lake: lakelog.Lake,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chunk: int,
    rows_max: int,
    kind: str,
) -> None:
    """However a file is cut into chunks and publishes, each line is one row in its order."""
    monkeypatch.setattr(source.Source, "CHUNK", chunk)
    monkeypatch.setattr(batch, "ROWS_MAX", rows_max)
    monkeypatch.setattr(transform, "FEW", 2)
    lines: list[Any] = [event(n) if n % 5 else event(n, level=n) for n in range(60)]
    if kind == "oos":
        lines = [f'2026-05-01T12:00:00|A|||x|{{"n": {n}}}' for n in range(60)]
    if kind == "bulk":
        lines = [x for e in lines for x in ('{"index":{}}', e)]
    report = lake.ingest(put(tmp_path / "f.jsonl", text(lines)))
    assert (report.events, report.files[0].lines, report.quarantined) == (60, len(lines), 0)
    assert numbers(lake) == list(range(60))


@pytest.mark.usefixtures("few")
def test_a_source_for_events_that_name_none(lake: lakelog.Lake, tmp_path: Path) -> None:
    """`source` is given to events without one, decided by SQL or not, and keeps files apart."""
    lines = text([{"type": "A"}, {"type": "B", "source": "own"}, {"type": "C", "level": 5}])
    path = put(tmp_path / "f.jsonl", lines)
    assert [lake.ingest(path, source=s).events for s in ("web1", "web2", None)] == [3, 3, 3]
    assert lake.ingest(path, source="web1").events == 0
    found = lake.sql("SELECT source, count(*) AS n FROM events GROUP BY 1 ORDER BY 1").fetchall()
    assert found == [("own", 3), ("web1", 2), ("web2", 2), (None, 2)]


# --- reports --------------------------------------------------------------------------------------


def test_a_dry_run_counts_and_stores_nothing(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A dry run says what would happen, repeated ids and files included, and leaves no trace."""
    a = put(tmp_path / "a.jsonl", feed(5, id="x") + feed(5) + b"oops\n")
    b = put(tmp_path / "b.jsonl", PACKED["gz"](feed(5, id="x") + feed(5) + b"oops\n"))
    c = put(tmp_path / "c.jsonl", feed(5, 50, id="x"))
    before = lake.store.refs.head("main").move
    dry = lake.ingest([a, b, c], dry_run=True)
    assert lake.store.refs.head("main").move == before
    assert (lake.count(), bad_lines(lake)) == (0, [])
    wet = lake.ingest([a, b, c])
    assert dry == wet
    assert [(f.events, f.quarantined, f.skipped) for f in wet.files] == [
        (6, 1, 4),
        (0, 0, 11),
        (0, 0, 5),
    ]


def test_progress_is_told(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress is told in bytes of all files and events so far, up to the whole."""
    monkeypatch.setattr(source.Source, "CHUNK", 1000)
    paths = [put(tmp_path / name, feed(100, at)) for name, at in (("a", 0), ("b", 100))]
    told: list[tuple[int, int, int]] = []
    lake.ingest(paths, progress=lambda *now: told.append(now))
    size = sum(map(os.path.getsize, paths))
    assert [t for _, t, _ in told] == [size] * len(told)
    assert [d for d, _, _ in told] == sorted(d for d, _, _ in told)
    assert told[-1][0] == size


def test_the_interrupted_keeps_what_it_published(tmp_path: Path) -> None:
    """Ctrl-C ends ingest with 130; what was published stays, and the rest comes the next time."""
    path = put(tmp_path / "f.jsonl", feed(3000))
    script = (
        "import os, signal, sys\n"
        "from lakelog.cli import main\n"
        "from lakelog.lines import source\n"
        "from lakelog.ingest import batch\n"
        "source.Source.CHUNK, batch.ROWS_MAX = 20_000, 100\n"
        "real, left = batch.publish, [5]\n"
        "def publish(*args):\n"
        "    left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(*args)\n"
        "batch.publish = publish\n"
        "main()\n"
    )
    words = ["--lake", str(tmp_path / "lake"), "ingest", path]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, "lakelog: interrupted")
    with lakelog.open(str(tmp_path / "lake"), create=False) as lake:
        kept = lake.count()
        assert 0 < kept < 3000
        assert lake.ingest(path).events == 3000 - kept
        assert_each_once(lake, 3000)
        assert lake.verify().problems == ()


# --- real files -----------------------------------------------------------------------------------


def facts(name: str) -> dict[str, Any]:
    """What an independent count says of a file."""
    found: dict[str, Any] = json.loads((SHARED / "facts.json").read_text())["files"][name]
    return found


def counted(lake: lakelog.Lake, what: str, limit: int) -> list[list[Any]]:
    """The most frequent values of an expression, with their counts."""
    query = f"SELECT {what} AS v, count(*) AS n FROM events GROUP BY 1 ORDER BY n DESC"
    return [[str(v), n] for v, n in lake.sql(query).fetchall()][:limit]


real = pytest.mark.needs("../shared")


@real
def test_a_real_bulk_file(lake: lakelog.Lake) -> None:
    """Elasticoffee: every document, by beverage, the sum and the times; its first line is bad."""
    name = "bulk/elasticoffee.bulk"
    known, report = facts(name), lake.ingest(str(SHARED / name))
    assert report.events == known["documents"] == lake.count()
    assert report.quarantined == known["non_json_lines"]
    assert report.files[0].lines == known["lines"]
    assert sorted(counted(lake, "data->>'beverage'", 99)) == sorted(known["by_beverage"])
    query = "SELECT sum((data->>'quantity')::INT) AS s, min(time) AS a, max(time) AS b FROM events"
    ((total, low, high),) = lake.sql(query).fetchall()
    assert total == known["sum_quantity"]
    assert [t.strftime("%Y-%m-%dT%H:%M:%SZ") for t in (low, high)] == [
        known["min_ts"],
        known["max_ts"],
    ]
    keys = lake.sql(
        "SELECT count(DISTINCT k) AS n FROM (SELECT unnest(json_keys(data)) AS k FROM events)"
    )
    assert keys.fetchall() == [(known["distinct_keys"] - 1,)]  # one became the column time


@real
def test_real_webhooks(lake: lakelog.Lake) -> None:
    """GitHub: every payload, by its event, and those with an action."""
    name = "github/webhook_payloads.ndjson"
    known, report = facts(name), lake.ingest(str(SHARED / name))
    assert (report.events, report.quarantined) == (known["json_lines_ok"], 0)
    types = counted(lake, "type", 99)
    assert len(types) == known["distinct_event_types"]
    assert all(pair in types for pair in known["top_events"])
    query = "SELECT count(*) AS n FROM events WHERE json_exists(data, '$.payload.action')"
    assert lake.sql(query).fetchall() == [(known["with_action"],)]
    lines = (SHARED / name).read_bytes().splitlines()
    stored = lake.sql("SELECT data FROM events ORDER BY position").fetchall()
    assert [json.loads(d) for (d,) in stored] == [json.loads(line) for line in lines]


@real
def test_real_cloudtrail(lake: lakelog.Lake) -> None:
    """CloudTrail: every event, by name and source, each id once."""
    name = "cloudtrail/ec2_proxy_s3_exfiltration.ndjson"
    known, report = facts(name), lake.ingest(str(SHARED / name))
    assert (report.events, report.quarantined) == (known["json_lines_ok"], 0)
    assert all(pair in counted(lake, "type", 99) for pair in known["by_eventName"])
    sources = counted(lake, "data->>'eventSource'", 99)
    assert all(pair in sources for pair in known["by_source"])
    assert len(counted(lake, "data->>'eventID'", 999)) == known["distinct_eventID"]


@real
def test_real_auditd(lake: lakelog.Lake) -> None:
    """Auditd: every line, its CR LF no part of it, every key kept."""
    name = "auditd/log4shell_auoms.ndjson"
    known, report = facts(name), lake.ingest(str(SHARED / name))
    assert (report.events, report.quarantined) == (known["json_lines_ok"], 0)
    stored = lake.sql("SELECT data FROM events ORDER BY position").fetchall()
    lines = (SHARED / name).read_bytes().splitlines()
    assert [json.loads(d) for (d,) in stored] == [json.loads(line) for line in lines]
    assert {k for (d,) in stored for k in json.loads(d)} == set(known["keys_in_every_object"])


@real
@pytest.mark.parametrize("log", ["conn", "dns", "http"])
def test_real_zeek(lake: lakelog.Lake, log: str) -> None:
    """Zeek: every line, the first time to the microsecond, and the counts of each log."""
    name = f"zeek/{log}.log"
    known, report = facts(name), lake.ingest(str(SHARED / name))
    assert (report.events, report.quarantined) == (known["json_lines_ok"], 0)
    for fact in (key for key in known if key.startswith("by_")):
        found = dict(counted(lake, f"data->>'{fact[3:]}'", 99))
        assert all(found[value] == count for value, count in known[fact]), fact
    ((low,),) = lake.sql("SELECT epoch_us(min(time)) AS t FROM events").fetchall()
    assert low == round(known["min_ts"] * 1e6)


def _json_lines() -> dict[str, tuple[int, int]]:
    """Files of JSON lines, and how many of their lines are JSON and how many are not."""
    if not SHARED.is_dir():
        return {}
    known = json.loads((SHARED / "facts.json").read_text())["files"]
    whole = ("cloudevents/cloudevents.schema.json", "nab/windows.json")  # one document each
    return {
        name: (facts["json_lines_ok"], facts["json_lines_bad"])
        for name, facts in known.items()
        if "json_lines_ok" in facts and name not in whole
    }


@pytest.mark.matrix
@real
@pytest.mark.parametrize(("name", "counts"), _json_lines().items())
def test_real_json_lines(lake: lakelog.Lake, name: str, counts: tuple[int, int]) -> None:
    """Every line of JSON is an event; of others, some are text, which is an event too."""
    report = lake.ingest(str(SHARED / name))
    assert report.events + report.quarantined == sum(counts)
    assert report.events >= counts[0]
    assert lake.count() == report.events


def test_a_few_lines_are_ingested_and_sealed_without_the_engine(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To start it takes longer than to store them."""

    def refuse(*_: object) -> None:
        raise AssertionError("the engine was started")

    (tmp_path / "a.jsonl").write_text('{"type": "a", "data": {"n": 1}}\n' * 9)
    with monkeypatch.context() as patch:
        patch.setattr(connection, "connect_engine", refuse)
        assert lake.ingest(str(tmp_path / "a.jsonl")).events == 9
        lake.append([{"type": "b", "id": "1"}])
        lake.sealer().settle()
    assert lake.sql("SELECT type, count(*) FROM events GROUP BY 1 ORDER BY 1").fetchall() == [
        ("a", 9),
        ("b", 1),
    ]
