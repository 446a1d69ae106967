"""lakelog views and view: answering, listing, making, watching, and what is wrong usage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.cli.render import tables
from lakelog.views import LakeViews
from lakelog.views.catalog import BUILT_IN
from tests.support.cli import run
from tests.support.own_views import BUSIEST
from tests.support.processes import environment
from tests.support.view_events import event

WHEN = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def lake(home: Path) -> Path:
    """A lake of a few items, tagged v1 and then grown."""
    path = home / "lake"
    with lakelog.open(str(path), settings={"seal": "never"}) as made:
        made.append([event(n, "DISCOVER", f"i{n}") for n in range(4)])
        made.tag("v1")
        made.append(event(90, "COMPLETE", "i0", data={"duration_ms": 7}))
    return path


def answer(lake: Path, *words: str) -> Any:
    result = run(lake, "view", *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_view_is_answered_with_parameters_and_at_a_state(lake: Path) -> None:
    """NAME, --param, --at, --since and --until decide what is shown."""
    assert [(r["status"], r["items"]) for r in answer(lake, "status")] == [
        ("DISCOVER", 3),
        ("COMPLETE", 1),
    ]
    assert [r["items"] for r in answer(lake, "status", "--at", "v1")] == [4]
    assert answer(lake, "throughput", "--param", "type=DISCOVER")[0]["events"] == 4
    since = ("--since", "2026-01-01T01:00", "--until", "2026-01-01T02:00")
    assert [r["status"] for r in answer(lake, "items", *since)] == ["COMPLETE"]
    assert answer(lake, "items", "--since", "1h") == []


def test_views_lists_them_with_their_parameters(lake: Path) -> None:
    """The list says what each view is about, and which are the lake's own."""
    found = {r["view"]: r for r in map(json.loads, run(lake, "views").stdout.splitlines())}
    assert found["throughput"]["params"] == "bucket duration = 1h; type text = COMPLETE"
    assert found["status"]["from"] == "lakelog"
    table = run(lake, "views", "--format", "table").stdout
    assert "funnel" in table
    assert max(map(len, table.splitlines())) <= 80


def test_a_view_is_made_shown_and_dropped(lake: Path, home: Path) -> None:
    """create takes a file, show prints it back, drop takes it off; what exists is not replaced."""
    file = home / "busiest.sql"
    file.write_text(BUSIEST)
    made = run(lake, "view", "create", "busiest", str(file))
    assert (made.exit_code, made.stdout) == (0, "")
    assert "created incremental view busiest, version 1" in made.stderr
    assert answer(lake, "busiest") == [{"source": None, "events": 5}]
    assert run(lake, "view", "show", "busiest").stdout == BUSIEST
    again = run(lake, "view", "create", "busiest", str(file), code=2)
    assert again.stderr.count("\n") == 1
    assert run(lake, "view", "create", "busiest", str(file), "--replace").exit_code == 0
    assert run(lake, "view", "drop", "busiest").exit_code == 0
    gone = run(lake, "view", "busiest", code=2)
    assert gone.stderr == "lakelog: error: no view 'busiest': see `lakelog views`\n"


def test_a_wrong_file_is_one_line_with_the_place(lake: Path, home: Path) -> None:
    """What is wrong with a definition is said in one line, with section and line."""
    file = home / "x.sql"
    file.write_text(BUSIEST.replace("sum(events)", "sum(nosuch)"))
    result = run(lake, "view", "create", "x", str(file), code=2)
    assert result.stderr.count("\n") == 1
    assert "section merge, line 9: " in result.stderr
    run(lake, "view", "create", "x", str(home / "none.sql"), code=1)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("a", "b"),
        ("create", "x"),
        ("drop",),
        ("show", "x", "y"),
        ("nosuch",),
        ("status", "--param", "category"),
        ("status", "--param", "nope=1"),
        ("status", "--since", "yesterday"),
        ("drop", "x", "--watch"),
        ("rates", "--param", "bucket=-1h"),
        ("status", "--at", "v1", "--format", "nope"),
    ],
)
def test_wrong_usage_is_said_and_exits_with_2(lake: Path, words: tuple[str, ...]) -> None:
    """Missing words, unknown views and wrong parameters are wrong usage."""
    result = run(lake, "view", *words, code=2)
    assert result.stdout == ""
    assert "lakelog: error: " in result.stderr or "Usage" in result.stderr


def test_every_view_reads_well_in_80_columns(lake: Path) -> None:
    """The tables of all views fit a terminal of 80 columns."""
    for name in ("status", "items", "errors", "percentiles", "health", "sessions", "stuck"):
        shown = run(lake, "view", name, "--format", "table")
        assert shown.exit_code == 0, shown.output
        assert max(map(len, shown.stdout.splitlines()), default=0) <= 80


MANY = [f"'{letter * 30}' AS {letter}" for letter in "abcdefghij"]


def test_the_main_columns_of_a_view_stay_in_a_narrow_table(lake: Path, home: Path) -> None:
    """A line `-- main:` names the columns that are shown where not all fit, in their order."""
    file = home / "wide.sql"
    file.write_text(f"-- name: wide\n-- main: j, c, i\nSELECT {', '.join(MANY)} FROM events\n")
    run(lake, "view", "create", "wide", str(file))
    shown = run(lake, "view", "wide", "--format", "table")
    names = shown.stdout.split("\n")[0].split()
    assert {"c", "i", "j"} < set(names)
    assert names == sorted(names)
    assert "columns shown, not" in shown.stderr
    with lakelog.open(str(lake)) as opened:
        assert opened.view("wide").column_names == list("abcdefghij")


def test_the_main_columns_of_built_in_views_are_there_and_fit(lake: Path) -> None:
    """Cost and reward are shown at 80 columns."""
    with lakelog.open(str(lake)) as opened:
        for name in BUILT_IN:
            main = LakeViews(opened).definition(name).main
            table = opened.view(name, {"field": "duration_ms"} if name == "percentiles" else None)
            assert set(main) <= set(table.column_names)
    rows = [(WHEN, *["word" * 20] * 3, 7, 0, 1234, 567, 0, 0, 0.012345, 1.5)]
    columns = ["bucket", "provider", "model", "operation", "calls", "errors", "input_tokens"]
    columns += ["output_tokens", "cached_tokens", "reasoning_tokens", "cost", "mean_seconds"]
    with lakelog.open(str(lake)) as opened:
        main = LakeViews(opened).definition("llm_usage").main
    drawn, left_out = tables.render(columns, rows, 80, colour=False, main=main)
    assert not set(main) & set(left_out)
    assert max(map(len, drawn.splitlines())) <= 80


def test_views_are_tables_for_sql_and_statements_see_what_is_new(lake: Path) -> None:
    """`lakelog sql` knows the views, in each of several statements."""
    query = "CREATE TABLE kept AS SELECT * FROM status; SELECT sum(items) AS n FROM kept, health"
    result = run(lake, "sql", query, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout[result.stdout.rindex("[") :]) == [{"n": 4}]


def test_watch_shows_what_changed_until_it_is_interrupted(lake: Path) -> None:
    """--watch prints the view, prints it again after an append, and ends on Ctrl-C with 130."""
    command = [sys.executable, "-m", "lakelog", "--lake", str(lake), "view", "status", "--watch"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment(), "PYTHONPATH": os.getcwd()},
    ) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(2)]
        with lakelog.open(str(lake), create=False) as writer:
            writer.append(event(100, "FAIL", "i3"))
        seen += [process.stdout.readline() for _ in range(3)]
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(240) == 130
    items = [(r["status"], r["items"]) for r in map(json.loads, seen)]
    assert items[:2] == [("DISCOVER", 3), ("COMPLETE", 1)]
    assert items[2:] == [("DISCOVER", 2), ("COMPLETE", 1), ("FAIL", 1)]
