"""The logs of single programs: every field of a line as each of them documents it."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.audit.audit import audit
from lakelog.formats import mixture, pattern
from lakelog.formats.registry import FORMATS
from lakelog.ingest import transform
from lakelog.ingest.transform import Transformer
from lakelog.lines.pieces import Chunk
from tests.support.effort import share
from tests.support.linear_time import assert_linear
from tests.support.samples import lines_of
from tests.support.text_facts import SHARED
from tests.support.text_lines import edited
from tests.support.two_ways import NOW, compare, one_by_one

NAMES = [form.NAME for form in mixture.PROGRAMS]


@pytest.fixture(autouse=True)
def still() -> Iterator[None]:
    """The clock of the exact rule shows what the queries are given."""
    with mock.patch.object(pattern, "now", return_value=NOW):
        yield


def test_what_the_journal_says_between_lines() -> None:
    """Its remarks are events of their own, and `t` that is no date is no time."""
    remark = b"-- Boot 3f7a1e2b4c5d6e7f8091a2b3c4d5e6f7 --"
    assert FORMATS["syslog"].parse(remark)["message"] == remark[3:-2].strip().decode()
    text = b"t=5 h=3\nt=6 h=4\n"
    assert FORMATS.detect(text, text, "x.log").NAME == "plain"


def test_a_line_of_a_firewall_is_no_other(engine: Any) -> None:
    """A number at its beginning, as pf's filterlog has it, is no time of Exchange."""
    line = "5,,,1000000103,em0,match,block,in,4,0x0,,64,0,0,DF,6,tcp,60,192.0.2.1,192.0.2.2,1,22"
    (found,) = one_by_one(engine, FORMATS.by_name("exchange"), [line.encode()]).values()
    assert found == "no line of exchange"


def test_objects_of_services(lake: lakelog.Lake, tmp_path: Path) -> None:
    """What programs under docker compose log as JSON is read as such, beside the lines of others;
    the source is the service."""
    path = tmp_path / "compose.log"
    path.write_text(
        'caddy  | {"level":"info","ts":1761019822.3152757,"logger":"http","msg":"up","k":1}\n'
        'web-1  | {"level":"warning","time":"2025-10-21T04:10:23Z","message":"s","source":"db"}\n'
        'web-1  | plain words\n\x1b[36mapi  | \x1b[0m{"event":"x","level":"error","n":2}\n'
    )
    report = lake.ingest(str(path))
    assert (report.files[0].format, report.events, report.quarantined) == ("compose-json", 4, 0)
    query = (
        "SELECT epoch_us(time), type, level, source, message, data FROM events ORDER BY position"
    )
    found = [(*row[:-1], json.loads(row[-1] or "{}")) for row in lake.sql(query).fetchall()]
    assert found == [
        (
            1761019822315276,
            "log",
            "INFO",
            "caddy",
            "up",
            {"level": "info", "logger": "http", "k": 1},
        ),
        (1761019823000000, "event", "WARN", "web-1", "s", {"level": "warning", "source": "db"}),
        (1761019823000000, "log", None, "web-1", "plain words", {}),
        (1761019823000000, "x", "ERROR", "api", None, {"event": "x", "n": 2}),
    ]
    assert [f.wrong for f in audit(lake.store, lake.branch_name, lake.engine, []).files] == [0]


def test_programs_of_several_services(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Each line under docker compose is read as it would be without its service, which is its
    source; a trace is not that of another service."""
    path = tmp_path / "compose.log"
    path.write_text(
        'web-1    | 192.0.2.1 - - [12/Mar/2024:10:00:00 +0000] "GET /x HTTP/1.1" 500 12\n'
        "worker-1 | INFO:     started\n"
        "worker-1 | Traceback (most recent call last):\n"
        'worker-1 |   File "x.py", line 1\n'
        "db-1     | 2024-03-12 10:00:02.123 UTC [1] ERROR:  deadlock detected\n"
        "worker-1 | ValueError: x\n"
        "cache-1  | 1:M 12 Mar 2024 10:00:03.500 * Ready\n"
    )
    report = lake.ingest(str(path))
    assert (report.files[0].format, report.events, report.quarantined) == ("compose-json", 7, 0)
    query = "SELECT second(time), level, source, message FROM events ORDER BY position"
    assert lake.sql(query).fetchall() == [
        (0, "ERROR", "web-1", "GET /x HTTP/1.1"),
        (0, "INFO", "worker-1", "started"),
        (0, None, "worker-1", "Traceback (most recent call last):"),
        (0, None, "worker-1", 'File "x.py", line 1'),
        (2, "ERROR", "db-1", "deadlock detected"),
        (2, None, "worker-1", "ValueError: x"),
        (3, "INFO", "cache-1", "Ready"),
    ]
    assert [f.wrong for f in audit(lake.store, lake.branch_name, lake.engine, []).files] == [0]


@pytest.mark.parametrize("name", ["compose", "compose@Europe/Rome"])
def test_a_name_of_before_is_known(tmp_path: Path, name: str) -> None:
    """Cursors, scripts and quarantine may have the name of a format that another one took over."""
    (tmp_path / "app.log").write_text("web-1  | 2024-03-12 10:00:00,123 - app - INFO - up\n")
    with lakelog.open(tmp_path / "lake") as lake:
        assert lake.ingest(str(tmp_path / "app.log"), format=name).events == 1
        hour = lake.sql("SELECT hour(time), source, message FROM events").fetchall()
    assert hour == [(9 if "@" in name else 10, "web-1", "up")]


def test_bars_between_other_cells_are_no_services() -> None:
    """A level is no service, and text with bars but no time is none of compose."""
    for text in (b"INFO | 2024-03-12 10:00:00 | up\n", b"a | b | c\n1 | 2 | 3\n"):
        assert FORMATS.detect(text, text, "some.log").NAME != "compose-json"


def test_a_zone_may_be_named_by_a_city(engine: Any) -> None:
    """A time in the zone of a city is of that zone, where there is one, in summer and winter."""
    form = FORMATS["php"]
    days = {
        "11-Oct-2023 22:14:15 Europe/Berlin": "2023-10-11T20:14:15",
        "11-Jan-2023 22:14:15.5 Europe/Berlin": "2023-01-11T21:14:15.500000",
        "29-Oct-2023 02:30:00 Europe/Berlin": "2023-10-29T01:30:00",
        "11-Oct-2023 22:14:15 Mars/Base": "2023-10-11T22:14:15",
    }
    lines = [f"[{day}] PHP Notice:  on".encode() for day in days]
    found = [form.events(line)[0] for line in lines]
    assert [event["time"].removesuffix("+00:00") for event in found] == [*days.values()]
    compare(engine, form, form.QUERY, lines, lambda _: True)


@pytest.mark.parametrize("few", [0, 1000])
def test_the_level_of_two_lines(engine: Any, few: int) -> None:
    """Java's own logging begins the second line with the level."""
    form, head = FORMATS["jul"], "Oct 11, 2023 10:14:15 PM a.B m\n"
    lines = ("SEVERE: gone\n\tat a.b(C.java:1)\n", "CONFIG: x\n", "loud: x\n", "")
    text = "".join(head + line for line in lines).encode()
    with mock.patch.object(transform, "FEW", few):
        table = Transformer(lambda: engine, form, "o").run(Chunk(text, 0), final=True).table
    assert table["level"].to_pylist() == ["ERROR", "INFO", None, None]
    assert table["message"][0].as_py() == "SEVERE: gone\n\tat a.b(C.java:1)"


@pytest.mark.parametrize("few", [0, 1000])
def test_a_level_that_the_program_does_not_have(engine: Any, few: int) -> None:
    """A report of another kind than Erlang's own is an event without a level; its word stays."""
    lines = b"=ODD REPORT==== 14-Jul-2013::17:53:10 ===\nx\n"
    with mock.patch.object(transform, "FEW", few):
        table = (
            Transformer(lambda: engine, FORMATS["erlang"], "o")
            .run(Chunk(lines, 0), final=True)
            .table
        )
    (row,) = table.select(["level", "message", "data"]).to_pylist()
    assert row == {"level": None, "message": "x", "data": '{"level":"ODD"}'}


def test_statements_of_one_second(lake: lakelog.Lake, tmp_path: Path) -> None:
    """MariaDB tells the time once a second; the other statements have it, too."""
    path = tmp_path / "general.log"
    path.write_text(
        "/usr/sbin/mariadbd, Version: 10.5.8-MariaDB-log (Source). started with:\n"
        "Tcp port: 3306  Unix socket: /run/mysqld/mysqld.sock\n"
        "Time\t\t    Id Command\tArgument\n"
        "210228 15:52:47\t    12 Connect\troot@localhost on \n\t\t    12 Query\tSELECT 1,\n  2\n"
        "\t\t    12 Quit\t\n210228 15:52:48\t    13 Quit\n\t\t    14 Query\tSELECT 3\n"
    )
    report = lake.ingest(str(path))
    assert (report.files[0].format, report.events, report.quarantined) == ("mysql-general", 6, 0)
    query = "SELECT strftime(time, '%S'), data->>'thread', data->>'command', message FROM events"
    assert lake.sql(f"{query} ORDER BY position OFFSET 1").fetchall() == [
        ("47", "12", "Connect", "root@localhost on"),
        ("47", "12", "Query", "SELECT 1,\n  2"),
        ("47", "12", "Quit", None),
        ("48", "13", "Quit", None),
        ("48", "14", "Query", "SELECT 3"),
    ]
    (file,) = audit(lake.store, lake.branch_name, lake.engine, []).files
    assert file.wrong == 0


@pytest.mark.parametrize("form", mixture.STYLES, ids=lambda form: form.NAME)
def test_digits_without_end_stop_no_file(form: Any) -> None:
    """What a pattern takes for a number is none that the engine's integers cannot hold."""
    for line in getattr(form, "PATTERNS", ()):
        for name in line.numbers:
            start = line.regex.index(f"(?P<{name}>")
            ends = (n for n, char in enumerate(line.regex) if char == ")" and n > start)
            group = next(g for n in ends if (g := compiled(line.regex[start : n + 1])))
            assert any(group.fullmatch("1" * digits) for digits in range(1, 19)), name
            assert not group.fullmatch("9" * 19), name


def compiled(regex: str) -> re.Pattern[str] | None:
    """A part of a pattern, None for one that ends within a group."""
    with contextlib.suppress(re.error):
        return re.compile(regex)
    return None


@pytest.mark.matrix
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=share(10))
@given(data=st.data())
def test_programs_by_sql_are_those_of_the_exact_rule(engine: Any, name: str, data: Any) -> None:
    """Whatever becomes of lines, full and narrowed queries agree with the exact rule."""
    form, seeds = FORMATS[name], lines_of(name)
    lines = data.draw(st.lists(edited(seeds), min_size=8, max_size=20))
    few = data.draw(st.lists(st.sampled_from(seeds), min_size=1, max_size=3))
    for query in (form.QUERY, *form.cheaper([line.encode() for line in few])):
        compare(engine, form, query, lines, lambda line: "time" in form.parse(line.strip()))


@pytest.mark.matrix
@pytest.mark.parametrize("name", NAMES)
def test_no_line_takes_long(name: str) -> None:
    """However a line goes on after a good beginning, the time grows with its length alone."""
    form = FORMATS[name]
    for seed, sign in itertools.product(lines_of(name), (' "', "a.", "[", "|", ", ", ": ", "- ")):
        for part in (1, 2, 3):
            begin = seed[: len(seed) * part // 3]
            assert_linear(lambda line: form.sniff([line.encode()]), begin, sign, "\0")


@pytest.mark.needs("../shared")
@pytest.mark.parametrize(
    ("name", "form", "events"),
    [
        ("services/freeswitch__freeswitch.log", "freeswitch", 5),
        ("services/freeswitch-bf__freeswitch.log", "freeswitch", None),
    ],
)
def test_real_files_of_programs(
    lake: lakelog.Lake, name: str, form: str, events: int | None
) -> None:
    """Each file is taken for what it is, no line is lost, and an audit agrees."""
    report = lake.ingest(str(SHARED / name))
    lines = len((Path(SHARED) / name).read_bytes().splitlines())
    assert (report.files[0].format, report.quarantined) == (form, 0)
    assert report.events == (events or lines)
    assert [f.wrong for f in audit(lake.store, lake.branch_name, lake.engine, []).files] == [0]
