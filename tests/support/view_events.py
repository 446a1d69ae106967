"""What several tests use: views that lakelog brings."""

from __future__ import annotations

import random
from typing import Any

from lakelog import views
from tests.support.viewhistory import NOW, START, History

MINUTE = 60_000_000


def event(minute: float, type: str, subject: str | None = "a", **more: Any) -> dict[str, Any]:
    time = START + int(minute * MINUTE)
    made = {"time": iso(time), "type": type, "category": "podcast", **more}
    return {**made, "subject": subject} if subject else made


def iso(micros: int) -> str:
    from lakelog.values import from_micros

    return from_micros(micros).isoformat()


def rows(lake: Any, name: str, params: dict[str, Any] | None = None, **more: Any) -> list[Any]:
    return [tuple(r.values()) for r in views.read(lake, name, params, now=NOW, **more).to_pylist()]


def some(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Events as histories have them: late ones, equal times, nulls."""
    made = History.__new__(History)
    made.random = random.Random(seed)
    return [made.event() for _ in range(count)]
