"""What `lakelog top` counts: each event once, however it comes, of the state that there is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import lakelog
from lakelog.top import LiveFeed, lags, of_state
from lakelog.top.rates import LakeFigures, SecondCounts
from tests.conftest import MakeLake


def events(count: int, level: str = "INFO", **columns: str) -> list[dict[str, object]]:
    return [{"type": "log", "source": "web", "level": level, **columns} for _ in range(count)]


def rates(figures: LakeFigures, column: str) -> dict[str, int]:
    """Events of the last seconds by value, of looks one second apart."""
    return {name: round(recent) for name, (recent, _, _) in figures.by(column).items() if recent}


def test_rates_are_of_what_came_since_the_first_look(make_lake: MakeLake) -> None:
    """By level, source and type; totals are of all events, sealed or not."""
    lake = make_lake()
    lake.append(events(7))
    lake.settle()
    lake.append(events(2, "WARN"))
    feed = LiveFeed(lake)
    figures = feed.look(1.0)
    assert figures.rate() == (0.0, 0.0)
    lake.append([*events(3), *events(1, "ERROR", source="db"), {"type": "bare"}])
    figures = feed.look(2.0)
    assert figures.rate() == (5.0, 5.0)
    assert figures.errors() == (1.0, 1.0)
    assert rates(figures, "level") == {"INFO": 3, "ERROR": 1, "": 1}
    assert rates(figures, "source") == {"web": 3, "db": 1, "": 1}
    assert {n: total for n, (_, _, total) in figures.by("level").items()} == {
        "INFO": 10,
        "WARN": 2,
        "ERROR": 1,
        "": 1,
    }
    assert figures.events == 14
    assert [e.level for e in figures.newest][-2:] == ["ERROR", ""]


def test_what_is_sealed_or_compacted_does_not_come_again(make_lake: MakeLake) -> None:
    """Nor does it change the totals."""
    lake = make_lake()
    feed = LiveFeed(lake)
    feed.look(1.0)
    lake.append(events(4))
    assert feed.look(2.0).rate()[0] == 4.0
    lake.settle()
    lake.append(events(1))
    lake.settle()
    lake.compact()
    figures = feed.look(3.0)
    assert figures.rate()[0] == 2.0  # four in one second, none that are known in the next
    assert figures.events == 5


@pytest.mark.parametrize("is_idle", [True, False])
def test_a_bulk_load_is_counted_by_its_statistics(
    make_lake: MakeLake, tmp_path: Path, is_idle: bool
) -> None:
    """Also while others append."""
    lake = make_lake()
    feed = LiveFeed(lake)
    feed.look(1.0)
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(e) + "\n" for e in events(50, "ERROR")))
    lake.ingest(file)
    if not is_idle:
        lake.append(events(2))
    figures = feed.look(2.0)
    assert rates(figures, "level") == {"ERROR": 50} | ({} if is_idle else {"INFO": 2})
    assert figures.events == 50 if is_idle else 52


def test_a_rollback_begins_anew(make_lake: MakeLake) -> None:
    """Totals and newest events are those of the state that the branch was taken to."""
    lake = make_lake()
    lake.append(events(3))
    lake.tag("before")
    lake.append(events(2, "ERROR"))
    feed = LiveFeed(lake)
    feed.look(1.0)
    lake.rollback("before")
    figures = feed.look(2.0)
    assert figures.rate() == (0.0, 0.0)
    assert {n: total for n, (_, _, total) in figures.by("level").items()} == {"INFO": 3}
    assert [event.level for event in figures.newest] == ["INFO"] * 3


def test_a_restored_backup_begins_anew(make_lake: MakeLake, tmp_path: Path) -> None:
    """Also where it has as many events by then."""
    lake = make_lake()
    lake.append(events(3))
    lake.backup(tmp_path / "copy")
    lake.append(events(2, "ERROR"))
    lake.settle()
    feed = LiveFeed(lake)
    feed.look(1.0)
    shutil.rmtree(lake.path)
    shutil.copytree(tmp_path / "copy", lake.path)
    with lakelog.open(lake.path, create=False) as restored:
        restored.append(events(2, "DEBUG"))
        restored.settle()
    figures = feed.look(2.0)
    totals = {name: total for name, (_, _, total) in figures.by("level").items()}
    assert totals == {"INFO": 3, "DEBUG": 2}


def test_figures_of_a_past_state_are_its_own(make_lake: MakeLake) -> None:
    """Nothing in them is of now."""
    lake = make_lake()
    lake.append(events(3, message="old"))
    lake.tag("v1")
    lake.append(events(2, "ERROR", message="new"))
    figures = of_state(lake, "v1")
    assert (figures.events, figures.is_live) == (3, False)
    assert {event.message for event in figures.newest} == {"old"}
    assert figures.totals["level"] == {"INFO": 3}


def test_values_that_statistics_do_not_count_are_counted_once(make_lake: MakeLake) -> None:
    """Segments say `many` of a column with many values."""
    lake = make_lake()
    lake.append([{"type": "log", "source": f"s{n}"} for n in range(1_500)])
    lake.settle()
    feed = LiveFeed(lake)
    assert not feed.look(1.0).totals.get("source")
    feed.count()
    lake.append([{"type": "log", "source": "s1"}] * 2)
    figures = feed.look(2.0)
    assert figures.by("source")["s1"] == (2.0, 2.0, 3)
    assert len(of_state(lake, "main").totals["source"]) == 1_500


def test_a_segment_with_few_values_is_not_the_total(make_lake: MakeLake) -> None:
    """Where another segment says `many`, the counts that there are stand for no column."""
    lake = make_lake()
    lake.append([{"type": "log", "source": f"s{n}"} for n in range(1_500)])
    lake.settle()
    lake.append(events(2))
    lake.settle()
    feed = LiveFeed(lake)
    feed.look(1.0)
    feed.count()
    for figures in (feed.look(2.0), of_state(lake, "main")):
        assert (figures.totals["source"]["web"], figures.totals["source"]["s7"]) == (2, 1)
        assert figures.totals["type"] == {"log": 1_502}


def test_what_names_no_source_and_an_empty_one_counts_together(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append([{"type": "log"}, {"type": "log", "source": ""}, {"type": "log"}])
    for second in (1.0, 2.0):
        assert LiveFeed(lake).look(second).totals["source"] == {"": 3}
        lake.settle()


def test_a_minute_is_remembered() -> None:
    """What is older counts for nothing; a late look is of all the seconds since the one before."""
    figures = LakeFigures()
    for second in range(200):
        counts = SecondCounts(float(second), events=10)
        counts.add("level", "ERROR", 5)
        figures.look(counts)
    assert figures.rate() == (10.0, 10.0)
    assert figures.errors() == (5.0, 5.0)
    figures.look(SecondCounts(203.0, events=8))
    assert figures.seconds(6) == [10.0, 10.0, 2.0, 2.0, 2.0, 2.0]
    for second in range(300, 303):
        figures.look(SecondCounts(float(second)))
    assert figures.rate() == (0.0, 0.0)
    assert not +figures.minute["level"]


def test_lags_name_who_feeds_and_follows(make_lake: MakeLake, tmp_path: Path) -> None:
    """Subscriptions with what they are behind, sync targets with their tables or what is wrong."""
    lake = make_lake()
    lake.append(events(3))
    with lake.subscribe("mail"):
        pass
    shown = [
        (lag.role, lag.name, lag.is_wrong) for lag in lags(lake, ("postgres://127.0.0.1:1/x",))
    ]
    assert shown == [("subscription", "mail", False), ("sync", "postgres", True)]
