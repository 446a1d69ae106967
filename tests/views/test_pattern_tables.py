"""The tables `patterns` and `event_patterns`: the same for the same events."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import views
from lakelog.views import LakeViews
from lakelog.views.pattern_tables import SHAPES_MAX
from tests.conftest import MakeLake

HISTORIES = int(os.environ.get("LAKELOG_PATTERN_HISTORIES", "6"))
SAYINGS = (
    "user {name} logged in from 10.0.0.{n}",
    "job {n} of {name} done in {n} ms",
    "queue {name} is full",
    "cache warmed",
    "disk at {n}%",
    "peer {name}:{n} closed, {n} bytes",
)
NAMES = "ada bea cora dora ella fina gwen hana ida jule".split()


SUBJECTS = ("s1", "s2", "s3", "s4")


def said(
    dice: random.Random, count: int, subjects: Sequence[str] = SUBJECTS
) -> list[dict[str, Any]]:
    return [
        {
            "type": dice.choice(("log", "note")),
            "source": dice.choice(("a", "b", None)),
            "subject": dice.choice(subjects),
            "message": dice.choice(SAYINGS).format(name=dice.choice(NAMES), n=dice.randint(0, 9)),
        }
        for _ in range(count)
    ]


def grouped(lake: Any, of: str = "") -> tuple[Any, Any]:
    """The templates with their counts and examples' forms, and each event's template."""
    patterns = lake.sql(f"SELECT template, count, sources FROM {of}patterns ORDER BY ALL")
    events = lake.sql(
        f"SELECT message, template, count(*) FROM {of}events JOIN {of}event_patterns USING (seq)"
        f" JOIN {of}patterns USING (pattern_id) GROUP BY ALL ORDER BY ALL"
    )
    return patterns.fetchall(), events.fetchall()


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_a_state_has_the_same_patterns_however_it_came_to_be(
    make_lake: MakeLake, home: Path, seed: int
) -> None:
    """Cut into segments, compacted, rolled back, branched, erased: as in a lake that got all at
    once."""
    dice, lake = random.Random(seed), make_lake()
    events: list[dict[str, Any]] = []
    kept: dict[str, list[dict[str, Any]]] = {}
    subjects = list(SUBJECTS)
    for step in range(14):
        match dice.randrange(8):
            case 0 | 1:
                new = said(dice, dice.randint(1, 60), subjects)
                lake.append(new)
                events += new
            case 2:
                lake.settle()
            case 3:
                lake.compact()
            case 4:
                lake.tag(f"t{step}")
                kept[f"t{step}"] = list(events)
            case 5 if kept:
                name = dice.choice([*kept])
                lake.rollback(name)
                events = list(kept[name])
            case 6:
                lake = lake.branch(f"b{step}")
            case 7 if len(subjects) > 2:
                erased = subjects.pop()
                lake.erase(subject=erased, why="asked for it")
                for state in (events, *kept.values()):
                    state[:] = [event for event in state if event["subject"] != erased]
        if dice.random() < 0.5:
            grouped(lake)  # what is kept of it must not matter
    with lakelog.open(home / "fresh") as fresh:
        fresh.append(events)
        assert grouped(lake) == grouped(fresh)
        for name, of_tag in kept.items():
            with lakelog.open(home / f"fresh-{name}") as other:
                other.append(of_tag)
                assert grouped(lake, f'"{name}".') == grouped(other) == grouped(lake.at(name))


def test_what_is_new_and_what_is_gone(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append([{"type": "log", "source": "s", "message": "old thing 1"}])
    lake.append([{"type": "log", "source": "s", "message": "both ways 1"}])
    lake.tag("v1")
    lake.append([{"type": "log", "source": "s", "message": "both ways 2"}])
    lake.append([{"type": "note", "source": "t", "message": "new thing 3"}])
    assert texts(views.patterns(lake, new=lake.at("v1"))) == ["new thing <*>"]
    assert texts(views.patterns(lake, absent_since=lake.at("v1"))) == ["old thing <*>"]
    assert texts(views.patterns(lake, source="t")) == ["new thing <*>"]
    assert texts(views.patterns(lake, type="log")) == ["both ways <*>", "old thing <*>"]
    lake.rollback("v1")
    assert texts(views.patterns(lake, new=lake.at("v1"))) == []


def texts(table: Any) -> list[str]:
    return list(table["template"].to_pylist())


def test_rare_messages_have_the_template_of_their_first_word(make_lake: MakeLake) -> None:
    """Beyond the shapes that are mined each message has a template, and is counted once."""
    lake, letters = make_lake(), str.maketrans("0123456789", "qwertzuiop")
    messages = [f"{'abc'[n % 3]} {str(n).translate(letters)} x" * 2 for n in range(SHAPES_MAX)]
    lake.append([{"type": "log", "message": f"often said {n}"} for n in range(5)])
    lake.append([{"type": "log", "message": message} for message in messages])
    lake.tag("v1")
    lake.append([{"type": "log", "message": "rarely " + "x y" * 70}])
    lake.append([{"type": "log", "message": f"{word} rare end"} for word in ("a", "b", "c") * 9])
    patterns, events = grouped(lake)
    assert sum(count for _, count, _ in patterns) == SHAPES_MAX + 5 + 1 + 27
    assert sum(count for _, _, count in events) == SHAPES_MAX + 5 + 1 + 27
    said_of = {message: template for message, template, _ in events}
    assert said_of["often said 3"] == "often said <*>"
    rare = [message for message in messages if said_of[message] in {"a <*>", "b <*>", "c <*>"}]
    assert 0 < len(rare) < 200
    new = texts(views.patterns(lake, new=lake.at("v1")))
    assert not {"a <*>", "b <*>", "c <*>", "often said <*>"} & {*new}


_PEAK = """
import sys
import lakelog
from lakelog import views
from tests.support.peak_memory import peak
with lakelog.open(sys.argv[1], create=False) as lake:
    assert sum(views.patterns(lake)["count"].to_pylist()) == 60_000
print(peak() >> 20)
"""


def test_memory_does_not_grow_with_the_text_of_unique_messages(
    make_lake: MakeLake, home: Path
) -> None:
    dice, letters = random.Random(1), "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(dice.choices(letters, k=6)) for _ in range(20_000)]
    lake = make_lake()
    for _ in range(4):
        said_once = [" ".join(dice.choices(words, k=140)) for _ in range(15_000)]
        lake.append([{"type": "log", "message": message} for message in said_once])
    path = str(lake.store.paths.root)
    lake.close()
    run = [sys.executable, "-c", _PEAK, path]
    peak = subprocess.run(run, check=True, capture_output=True, text=True, timeout=600).stdout
    assert int(peak) < 750


def test_events_without_a_message_and_own_ones_have_no_pattern(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append([{"type": "x"}, {"type": "lakelog.train", "source": "lakelog", "message": "own"}])
    assert grouped(lake) == ([], [])
    lake.append([{"type": "x", "message": ""}])
    assert grouped(lake)[0] == [("", 1, 0)]


def test_a_table_or_view_of_ones_own_stays_what_it_was(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append([{"type": "x", "message": "a 1"}])
    LakeViews(lake).create("patterns", "SELECT 7 AS n FROM events")
    assert lake.sql("SELECT n FROM patterns").fetchall() == [(7,)]
    assert lake.sql("SELECT count(*) FROM event_patterns").fetchall() == [(1,)]
    lake.sql("CREATE TABLE event_patterns AS SELECT 3 AS m")
    assert lake.sql("SELECT m FROM event_patterns").fetchall() == [(3,)]


def test_what_a_session_keeps_of_a_tag_is_erased_too(make_lake: MakeLake) -> None:
    """A tag keeps its digest when events of it are erased; its tables change."""
    lake = make_lake()
    lake.append([{"type": "x", "subject": s, "message": f"bye {s}"} for s in ("ada", "bea")])
    lake.tag("v1")
    assert len(grouped(lake, '"v1".')[0]) == 2
    lake.erase(subject="ada", why="asked for it")
    assert grouped(lake, '"v1".')[0] == grouped(lake.at("v1"))[0] == [("bye bea", 1, 0)]
