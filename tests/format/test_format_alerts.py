"""The statements of FORMAT.md on alerts: their entries, and the events that say how they stand."""

from __future__ import annotations

import json
import threading
from typing import Any

from lakelog.alerts import AlertRule, RuleBook, evaluating
from lakelog.disk import disk
from lakelog.lake import Lake
from tests.conftest import MakeLake


def entries(lake: Lake, entry_type: str) -> dict[str, dict[str, Any]]:
    state = lake.store.state("main")
    return {e.key: dict(e.members) for e in lake.store.manifests.records(state, entry_type)}


def test_rules_are_entries_of_the_manifest(make_lake: MakeLake) -> None:
    """F6.21: a rule has what is not as by default, and a rollback takes it back."""
    lake = make_lake()
    lake.tag("before")
    book = RuleBook(lake)
    book.add(AlertRule("plain", search="level>=ERROR", above=3))
    rule = AlertRule(
        "whole",
        query="SELECT source, 1 AS n FROM events WHERE time >= $since",
        value="n",
        below=2,
        labels_by=("source",),
        labels={"team": "a"},
        every=1_000_000,
        wait=2_000_000,
        sinks=("log", "http://127.0.0.1:1/x"),
    )
    book.add(rule)
    members = entries(lake, "alert")
    assert members["plain"].keys() == {"search", "above", "time"}
    assert {n: members["whole"][n] for n in ("by", "labels", "every", "for", "below")} == {
        "by": ["source"],
        "labels": {"team": "a"},
        "every": 1_000_000,
        "for": 2_000_000,
        "below": 2.0,
    }
    assert [r.name for r in book.rules()] == ["plain", "whole"]
    assert book.rule("whole").wait == 2_000_000
    assert book.rule("whole").sinks == rule.sinks
    book.remove("plain")
    assert entries(lake, "alert").keys() == {"whole"}
    lake.rollback("before")
    assert not book.rules()


def test_silences_are_entries_of_the_manifest(make_lake: MakeLake) -> None:
    """F6.22: a silence has its matchers as texts, holds by a clock that is behind, and is removed
    by its key."""
    lake = make_lake()
    silence = RuleBook(lake).silence(["rule=a", "source=~web.*"], 60_000_000, "why")
    ends = (silence.start - 3_600_000_000, silence.end)
    held = [silence.is_active(moment) for end in ends for moment in (end - 1, end)]
    assert held == [False, True, True, False]
    ((key, members),) = entries(lake, "silence").items()
    assert key == silence.id
    assert members["matchers"] == ["rule=a", "source=~web.*"]
    assert members["end"] - members["start"] == 60_000_000
    assert members["comment"] == "why"
    RuleBook(lake).end_silence(key)
    assert not entries(lake, "silence")


def test_changes_and_deliveries_are_events(make_lake: MakeLake) -> None:
    """F6.23: a change names its receivers, and each outcome is an event behind it."""
    lake = make_lake()
    lake.append({"type": "x", "source": "web", "level": "ERROR"})
    RuleBook(lake).add(AlertRule("errors", search="level>=ERROR", above=0, labels_by=("source",)))
    with evaluating(lake, lambda _: None, threading.Event()) as evaluator:
        assert evaluator is not None
        evaluator.round()
    query = "SELECT type, level, data FROM events WHERE source = 'lakelog' ORDER BY seq"
    (change_type, level, change), (delivery_type, _, delivery) = lake.sql(query).fetchall()
    assert (change_type, delivery_type) == ("lakelog.alert", "lakelog.alert.delivery")
    assert level is None  # what counts levels must not count it
    made, outcome = json.loads(change), json.loads(delivery)
    assert (made["rule"], made["labels"], made["state"]) == ("errors", {"source": "web"}, "firing")
    assert made["number"] == outcome["number"] == 1
    assert outcome["change"] == made["id"]
    assert [sink["id"] for sink in made["sinks"]] == [outcome["sink"]]
    assert (outcome["outcome"], outcome["attempt"]) == ("delivered", 1)
    lake.rollback("@1")
    later = disk.now_us() + 3_600_000_000
    with evaluating(lake, lambda _: None, threading.Event(), clock=lambda: later) as evaluator:
        assert evaluator is not None
        evaluator.round()
    (_, _, change), (_, _, delivery) = lake.sql(query).fetchall()
    made = json.loads(change)
    assert (made["number"], made["state"]) == (2, "resolved")
    assert json.loads(delivery)["change"] == made["id"]
