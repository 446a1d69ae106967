"""Days of a log with what is different for a while."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

START, DAY, SPAN = 1_780_012_800, 86_400, 900
Change = Callable[[int], dict[str, Any]]
QUIET: dict[str, Any] = {"requests": 20, "ms": 30.0, "ends": True, "errors": 0}


def days(count: int, change: Change = lambda _: {}, seed: int = 1) -> list[dict[str, Any]]:
    """Requests with their times, and jobs that start and end, by quarters of an hour; `change` is
    what is different in a quarter, by its number."""
    dice, events = random.Random(seed), []
    for quarter in range(count * DAY // SPAN):
        world = QUIET | change(quarter)
        time = START + quarter * SPAN

        def add(type_: str, message: str, at: int = time, **more: Any) -> None:
            moment = at + dice.random() * SPAN * 0.9
            events.append({"type": type_, "time": moment, "message": message, **more})

        for _ in range(max(0, round(dice.gauss(world["requests"], world["requests"] ** 0.5)))):
            ms = dice.lognormvariate(0, 0.3) * world["ms"]
            add("request", f"took {ms:.1f} ms", source="web", data={"ms": round(ms, 1)})
        add("start", f"job {quarter} begins", source="batch")
        if world["ends"]:
            add("end", f"job {quarter} is done", source="batch")
        for _ in range(world["errors"]):
            add("error", f"refused by 10.0.0.{quarter % 9}", source="web", level="ERROR")
    return events


def during(first: int, change: dict[str, Any], length: int = 5) -> Change:
    return lambda quarter: change if first <= quarter < first + length else {}


BEGIN = 5 * 96 + 40
"""A quarter of an hour of the sixth day."""
