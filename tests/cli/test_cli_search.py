"""`lakelog search`: events, counts, histograms, values of fields, and neighbours."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import lakelog
from lakelog.cli import cli

START = 1_790_000_000


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A lake with 50 requests of each of two servers, every tenth of which failed."""
    place = tmp_path_factory.mktemp("cli") / "lake"
    with lakelog.open(place) as lake:
        lake.append(
            [
                {
                    "type": "request",
                    "source": f"web-{n % 2}",
                    "time": START + 60 * n,
                    "level": "ERROR" if n % 10 == 0 else "INFO",
                    "message": f"request {n} " + ("refused" if n % 10 == 0 else "answered"),
                    "data": {"status": 503 if n % 10 == 0 else 200, "note": "x" * 200},
                }
                for n in range(100)
            ]
        )
    return str(place)


def run(path: str, *words: str, color: bool = False) -> Result:
    result = CliRunner().invoke(cli, ["--lake", path, "search", *words], color=color)
    assert result.exit_code == 0, result.output
    return result


def events(result: Result) -> list[str]:
    return [json.loads(line)["message"] for line in result.stdout.splitlines()]


def test_events_come_newest_first(path: str) -> None:
    """As many as are asked for, and the oldest first where that is asked for."""
    assert events(run(path, "refused", "-n", "2")) == ["request 90 refused", "request 80 refused"]
    assert events(run(path, "refused", "-n", "1", "--oldest")) == ["request 0 refused"]
    assert len(events(run(path, "request"))) == 100
    assert len(events(run(path, "request OR x", "--all"))) == 100


def test_words_are_one_search(path: str) -> None:
    """Several arguments are one search; a shell's quotes are not needed for plain words."""
    assert events(run(path, "request", "30", "refused")) == ["request 30 refused"]


def test_times_bound_a_search(path: str) -> None:
    """From the first time on, and before the second."""
    bounds = ("--since", "2026-09-21T14:23:20", "--until", "2026-09-21T14:33:20")
    assert events(run(path, "refused", *bounds)) == ["request 10 refused"]


def test_counts(path: str) -> None:
    """A number alone for people, a record for programs; at a state as well."""
    assert json.loads(run(path, "status>=500", "--count").stdout) == {"count": 10}
    assert run(path, "status>=500", "--count", "--format", "table").stdout == "10\n"
    lakelog.open(path).tag("all")
    assert json.loads(run(path, "refused", "--count", "--at", "all").stdout) == {"count": 10}


def test_histograms(path: str) -> None:
    """Spans of time with their counts; in a table as bars within 80 columns."""
    rows = [json.loads(line) for line in run(path, "request", "--histogram").stdout.splitlines()]
    assert sum(row["count"] for row in rows) == 100
    assert 10 <= len(rows) <= 31
    bars = run(path, "request", "--histogram", "--format", "table").stdout.splitlines()
    assert len(bars) == len(rows)
    assert all("█" in bar and len(bar) <= 80 for bar in bars)
    assert run(path, "nothing", "--histogram", "--format", "table").stdout == "no events\n"


def test_values_of_fields(path: str) -> None:
    """The most frequent values of columns and of members of payloads, or of one alone."""
    rows = [json.loads(line) for line in run(path, "refused", "--fields").stdout.splitlines()]
    values = {(row["field"], row["value"]): row["count"] for row in rows}
    assert values["level", "ERROR"] == 10
    assert values["status", "503"] == 10
    assert values["source", "web-0"] == 10
    shown = run(path, "request", "--field", "status", "--format", "table").stdout
    assert shown.split() == ["status", "90", "200", "10", "503"]
    shown = run(path, "*", "--field", "nosuch", "--field", "a.b", "--format", "table").stdout
    assert shown == "no events with nosuch or a.b\n"


def test_fields_of_any_name(tmp_path: Path) -> None:
    """A member of a payload without a name, or that is called as a column is, has values of its
    own; a field that is named twice is counted once."""
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append({"type": "t", "id": "of the event", "data": {"id": "inner", "": "unnamed"}})
    shown = run(str(tmp_path / "lake"), "inner", "--fields").stdout.splitlines()
    assert [(row["field"], row["value"]) for row in map(json.loads, shown)] == [
        ("type", "t"),
        ("", "unnamed"),
        ("data.id", "inner"),
    ]
    twice = run(str(tmp_path / "lake"), "inner", "--field", "id", "--field", "id").stdout
    assert twice.splitlines() == ['{"field":"id","value":"of the event","count":1}']


def test_neighbours_are_of_the_same_source(path: str) -> None:
    """Each event that is found stands between those of its source, and one line parts groups."""
    rows = run(path, "refused", "-n", "1", "-C", "1").stdout.splitlines()
    assert [json.loads(row)["message"] for row in rows] == [
        "request 88 answered",
        "request 90 refused",
        "request 92 answered",
    ]
    assert [json.loads(row)["found"] for row in rows] == [False, True, False]
    rows = run(path, "refused", "-n", "1", "-A", "1", "--oldest").stdout.splitlines()
    assert [json.loads(row)["message"] for row in rows] == [
        "request 0 refused",
        "request 2 answered",
    ]
    lines = run(path, "refused", "-n", "2", "-A", "1", "--format", "lines").stdout.splitlines()
    assert lines[3] == "--"
    assert len(lines) == 6
    # Those that touch are one group, in the order of the source.
    near = run(path, "message:60 OR message:64 OR message:66", "-C", "1")
    assert events(near) == [
        f"request {n} " + ("refused" if n == 60 else "answered") for n in range(58, 70, 2)
    ]
    shown = run(path, "message:60 OR message:64", "-C", "1", "--format", "lines").stdout
    assert "--" not in shown.splitlines()


def test_lines_show_what_was_found(path: str) -> None:
    """What was found is reversed; where the line of the event cut it off, a second line has it."""
    shown = run(path, "refused", "-n", "1", "--format", "lines", color=True).stdout
    assert "refused" in shown
    lines = run(path, "503", "-n", "1", "--format", "lines").stdout.splitlines()
    assert any("503" in line for line in lines)
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a", "--count", "--histogram"], "one at a time"),
        (["a", "--count", "-n", "3"], "take no -n"),
        (["a", "--fields", "-C", "2"], "take no -n"),
        (["a", "--histogram", "--oldest"], "take no -n"),
        (["a", "-f", "--count"], "-f goes with"),
        (["a", "--format", "lines", "-o", "x"], "neither --json nor -o"),
        (["a", "--format", "lines", "--json"], "neither --json nor -o"),
        (["a", "--all", "-n", "3"], "do not go together"),
        (["(a"], "the closing ) is missing"),
        (["a", "--since", "yesterday"], "--since is a time such as 2026-11-20T08:00, or a span"),
        (["a", "--at", "nowhere"], "nowhere"),
        (["-health"], "behind --: lakelog search -- '-word'"),
    ],
)
def test_mistakes_are_one_line(path: str, words: list[str], said: str) -> None:
    """What is wrong is said in one line."""
    result = CliRunner().invoke(cli, ["--lake", path, "search", *words])
    assert result.exit_code != 0
    text = str(result.exception) if "lakelog.errors" in repr(type(result.exception)) else ""
    assert said in (result.output + text)


def test_live_events_are_searched(tmp_path: Path) -> None:
    """With -f, what is there in order of arrival, then each that comes and matches."""
    path = tmp_path / "lake"
    with lakelog.open(path) as lake:
        lake.append([{"type": "a", "message": f"{m}"} for m in ("first refused", "answered")])
        command = [sys.executable, "-m", "lakelog", "--lake", str(path), "search", "refused", "-f"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["message"] == "first refused"
            lake.append([{"type": "a", "message": f"{m}"} for m in ("answered", "second REFUSED")])
            assert json.loads(process.stdout.readline())["message"] == "second REFUSED"
            process.send_signal(signal.SIGINT)
            assert process.wait() == 130
