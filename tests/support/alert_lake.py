"""A lake whose rules are evaluated at times that a test sets."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lakelog.alerts import AlertRule, Evaluator, RuleBook, evaluating, history
from lakelog.disk import disk
from lakelog.lake import Lake

SECOND = 1_000_000
MINUTE = 60 * SECOND


@dataclass
class AlertLake:
    """Rules of a lake, a clock (us), and the lines that its `log` receiver took."""

    lake: Lake
    time: int = field(default_factory=disk.now_us)
    lines: list[str] = field(default_factory=list)
    evaluator: Evaluator | None = None

    def add(self, name: str = "r", **members: Any) -> AlertRule:
        """Keep a rule that is asked every minute, by default for errors by source."""
        if not members.keys() & {"query", "view", "search"}:
            members |= {"search": "level>=ERROR", "labels_by": ("source",)}
        if "query" not in members and "below" not in members:
            members.setdefault("above", 0)
        rule = AlertRule(name, **members)
        RuleBook(self.lake).add(rule, replace=True)
        return rule

    def errors(self, count: int, source: str = "web", ago: int = SECOND) -> None:
        """Append errors that are so old (us)."""
        moment = (self.time - ago) / 1e6
        event = {"type": "x", "source": source, "level": "ERROR", "time": moment}
        self.lake.append([{**event, "message": f"boom {n}"} for n in range(count)])

    def round(self, later: int = 0) -> list[str]:
        """Evaluate once, some time later; return what `log` took."""
        self.time += later
        assert self.evaluator is not None
        before = len(self.lines)
        self.evaluator.round()
        return self.lines[before:]

    def changes(self) -> list[tuple[str, str]]:
        """Each change: its source, or the rule's name without one, and the state."""
        return [
            (entry["labels"].get("source", entry["rule"]), entry["state"])
            for entry in history(self.lake)
            if entry["event"] == "change"
        ]


@contextlib.contextmanager
def watched(lake: Lake) -> Iterator[AlertLake]:
    """Evaluate the rules of a lake."""
    alerts = AlertLake(lake)
    with evaluating(
        lake, alerts.lines.append, threading.Event(), clock=lambda: alerts.time
    ) as evaluator:
        assert evaluator is not None
        alerts.evaluator = evaluator
        yield alerts
