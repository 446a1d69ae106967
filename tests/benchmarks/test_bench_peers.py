"""The comparison with peers runs with those that are installed here, and its page is honest."""

from __future__ import annotations

import dataclasses
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gen, measure, report
from benchmarks.peers import PEERS, compare, plots, reasons, sql, table
from benchmarks.peers.rows import Figures, Row, sections

HERE = ["lakelog", "duckdb_table", "duckdb_copy", "duckdb_typed", "sqlite", "floor"]
SMALL = dataclasses.replace(
    compare.TINY,
    minutes=60,
    processes="1,2",
    machines="2",
    bursting=0.02,
    unsealed=1_000,
    segments="10,40",
    moves="10,40",
)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the peers work in the test's own directory."""
    for module in (measure, compare):
        monkeypatch.setattr(module, "WORK", tmp_path)
    return tmp_path


def run(work: Path, parts: list[str], peers: list[str], resume: bool = False) -> compare.Run:
    """Do parts of the work, from what was kept in the directory before."""
    kept = work / "figures.json"
    found = compare.Run(SMALL, sys.executable, kept, 7, compare.load(kept, SMALL))
    found.all(parts, peers, resume)
    return found


@pytest.mark.thorough
def test_every_part_runs_and_is_kept(work: Path) -> None:
    """Each peer gives a figure above zero for what it can do, and the page is made of the file."""
    parts = ["load", "commits", "processes", "killed", "search"]
    run(work, parts, HERE)
    served = run(work, ["http"], ["lakelog", "sqlite"]).figures["http"]
    assert [*served["lakelog"]["of"]] == ["lines", "single", "otlp", "server_peak"]
    assert [*served["sqlite"]["of"]] == ["lines", "single", "server_peak"]
    streamed = run(work, ["streams"], ["lakelog", "sqlite", "eventsourcing"]).figures["streams"]
    assert len({got["of"]["found"] for got in streamed.values()}) == 1
    curves = run(work, ["templates", "shared", "segments", "history"], ["lakelog"])
    assert curves.figures["templates"]["lakelog"]["grouped"] > 0.9
    assert not [
        got["error"] for held in curves.figures.values() for got in held.values() if "error" in got
    ]
    kept = compare.load(work / "figures.json", SMALL)
    assert kept == curves.figures
    alone = ["templates", "shared", "segments", "history"]
    assert [*kept] == [*parts, "http", "streams", *alone]
    assert {*kept["load"]} == {*HERE}
    assert {*kept["killed"]} == {"lakelog", "duckdb_table", "sqlite"}
    assert {*kept["search"]} == {"lakelog", "sqlite", "duckdb_copy"}
    rows = [row for found in sections(kept).values() for row in found]
    assert all(
        value > 0
        for row in rows
        for value in row.values(kept).values()
        if not row.key.startswith("refused")
    )
    assert {"tag", "past", "back", "views-later", "load-first", "load-needle"} <= {
        row.key for row in rows if "lakelog" in row.values(kept)
    }
    answers = [got["answers"] for got in kept["load"].values() if "answers" in got]
    assert len(answers) == 5
    assert all(answer == answers[0] for answer in answers)
    text = table.page(kept, report.machine(), "tiny")
    assert "another answer" not in text
    assert "## Left out" not in text
    plots.write(kept, work / "plots")
    drawn = [*(work / "plots").glob("*.svg")]
    assert {"load-rate.svg", "curve-segments.svg"} <= {path.name for path in drawn}
    assert all(ElementTree.parse(path).getroot().tag.endswith("svg") for path in drawn)


@pytest.mark.thorough
def test_a_run_is_resumed(work: Path) -> None:
    """What has figures is not measured again; what failed is, and what is new is added."""
    run(work, ["load"], ["sqlite"])
    kept = work / "figures.json"
    body = json.loads(kept.read_text())
    body["figures"]["load"] |= {"floor": {"error": "it failed", "at": ""}}
    body["figures"]["load"]["sqlite"]["load"] = 12345
    kept.write_text(json.dumps(body))
    again = run(work, ["load"], ["sqlite", "floor"], resume=True).figures["load"]
    assert again["sqlite"]["load"] == 12345
    assert again["floor"]["load"] > 0
    assert run(work, ["load"], ["sqlite"]).figures["load"]["sqlite"]["load"] < 12345


def test_a_peer_without_time_left_loses_its_older_figures(work: Path) -> None:
    """What an earlier run measured, perhaps on another machine, is not among those of this one."""
    earlier: Figures = {"load": {"sqlite": {"load": 12345}}}
    size = dataclasses.replace(SMALL, minutes=0)
    compare.Run(size, sys.executable, work / "figures.json", 7, earlier).all(
        ["load"], ["sqlite"], resume=False
    )
    text = table.page(compare.load(work / "figures.json", size), report.machine(), "tiny")
    assert "- SQLite, load: not done when 0 minutes were over" in text


def test_a_peer_that_is_not_there_is_left_out(work: Path) -> None:
    """The page says whom it could not measure, and why; the others are measured."""
    found = run(work, ["load"], ["chdb", "sqlite"])
    text = table.page(found.figures, report.machine(), "tiny")
    assert "- chDB, load: ModuleNotFoundError" in text
    assert "| SQLite |" in text


def test_a_run_of_another_size_is_not_mixed_in(work: Path) -> None:
    """Figures of a small run never stand among those of a full one."""
    compare.save(work / "quick.json", compare.QUICK, {}, {})
    with pytest.raises(SystemExit, match="figures of a quick run"):
        compare.load(work / "quick.json", compare.FULL)


def test_runs_are_merged_by_what_was_measured_last() -> None:
    """Parts of several runs make one; of two figures for the same the later one stands."""
    one: Figures = {"load": {"sqlite": {"at": "2026-11-20 10:00", "load": 1}}}
    two: Figures = {
        "load": {"sqlite": {"at": "2026-11-20 09:00", "load": 2}},
        "killed": {"sqlite": {"at": "2026-11-20 09:00", "recovery": 3}},
    }
    assert compare.merged(one, two) == compare.merged(two, one)
    assert compare.merged(one, two) == {"load": one["load"], "killed": two["killed"]}


def loaded(**seconds: float) -> Figures:
    """Figures of loads of a thousand events that took so long."""
    same: dict[str, Any] = {
        "events": 1000,
        "count": 1000,
        "commit": "abc",
        "at": "2026-11-20 10:00",
        "seed": 7,
        "load_before": 0.1,
    }
    return {"load": {peer: {**same, "load": took} for peer, took in seconds.items()}}


def line(figures: Figures) -> str:
    """The line of the page that has the rate of the load."""
    text = table.page(figures, report.machine(), "full")
    return next(row for row in text.splitlines() if "load 1,000 events" in row)


def test_a_row_that_is_lost_is_bold_and_has_a_reason() -> None:
    """Who is first has a star; where lakelog could have been and is not, the row is bold."""
    won, behind = loaded(lakelog=1, sqlite=2), loaded(lakelog=2, sqlite=1)
    assert line(won) == "| load 1,000 events | ev/s | 1000 * | 500 |"
    assert line(behind) == "| **load 1,000 events** [1] | ev/s | **1000 *** | **500** |"
    text = table.page(behind, report.machine(), "full")
    assert f"1. {reasons.of('load-rate')}" in text
    assert "Where lakelog is not first" not in table.page(won, report.machine(), "full")
    assert line(loaded(lakelog=1.02, sqlite=1)).count(" *") == 2


def test_the_floor_is_shown_and_not_ranked() -> None:
    """The bare file takes no first place, and stands to the right."""
    assert line(loaded(lakelog=1, floor=0.1)) == "| load 1,000 events | ev/s | 1000 * | 10 k |"


def test_what_a_figure_does_not_say_is_said() -> None:
    """A load that ran out of time, an answer unlike lakelog's, and a peer that does not sync."""
    short = loaded(lakelog=1, sqlite=1)
    short["load"]["sqlite"]["count"] = 300
    assert "300 (cut at 300)" in line(short)
    unlike = loaded(lakelog=1, deltalake=1)
    for peer, answer in (("lakelog", "one"), ("deltalake", "two")):
        unlike["load"][peer] |= {"ask": dict.fromkeys(sql.ALL, 1.0), "answers": {"errors": answer}}
    text = table.page(unlike, report.machine(), "full")
    assert "| Delta † |" in text
    assert text.count("another answer") == 1


def test_figures_of_a_busy_machine_are_marked_as_rough() -> None:
    """A quick run, or one with other work beside it, is not taken for a measurement."""
    quiet, machine = loaded(lakelog=1), report.machine()
    busy = loaded(lakelog=1)
    busy["load"]["lakelog"]["load_before"] = 6.5
    assert "not how fast" not in table.page(quiet, machine, "full")
    assert "Other work ran beside" in table.page(busy, machine, "full")
    assert "A quick run" in table.page(quiet, machine, "quick")
    for slowest, is_even in ((0.2, True), (0.9, False)):
        synced = loaded(floor=1)["load"]["floor"] | {"of": {"1 by 1": {"p50": 0.1, "p99": slowest}}}
        text = table.page({**quiet, "commits": {"floor": synced}}, machine, "full")
        assert ("The disk stalled" not in text) is is_even


def test_peers_are_asked_only_what_they_are_for() -> None:
    """zstd stands in the rows of size alone."""
    size = Row("load-bytes", "bytes", "B", "load", lambda got: got["load"])
    rate = Row("load-rate", "rate", "ev/s", "load", lambda got: got["load"])
    figures = loaded(zstd=1, lakelog=1)
    assert "zstd" in size.values(figures)
    assert "zstd" not in rate.values(figures)
    assert PEERS["zstd"].only == ("bytes", "small")


def test_the_same_seed_gives_the_same_events(work: Path) -> None:
    """A run is replayed with its seed: the events are those of the generator."""
    found = compare.Run(SMALL, sys.executable, work / "figures.json", 3)
    gen.write(50, work / "again.jsonl", 3)
    assert found._events(50).read_bytes() == (work / "again.jsonl").read_bytes()
