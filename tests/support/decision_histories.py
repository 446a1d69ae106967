"""Histories of decisions and what their rows are."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

START = datetime(2026, 9, 1, tzinfo=UTC)


def at(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat()


def history(seed: int, subjects: int = 40) -> list[dict[str, Any]]:
    """Return random histories: decisions, outcomes and noise, some at one and the same time."""
    rng = random.Random(seed)
    events = []
    for subject in range(subjects):
        clock = rng.randrange(1000)
        for _ in range(rng.randrange(4, 20)):
            clock += rng.choice([0, 0, 1, 30, 600, 4000])
            kind = rng.choice(["AI_DECISION", "AI_DECISION", "COMPLETE", "FAIL", "tick"])
            data = {"options": ["a", "b"], "chosen": rng.choice("ab"), "r": len(events)}
            events.append({"type": kind, "subject": f"s{subject}", "time": at(clock), "data": data})
    rng.shuffle(events)
    return events


def expected(events: list[dict[str, Any]], window: int, past: int) -> dict[Any, Any]:
    """Return what each decision may know, event by event in plain Python."""
    order = {id(e): n for n, e in enumerate(events)}
    stamp = {id(e): (datetime.fromisoformat(e["time"]), order[id(e)]) for e in events}
    last = max(t for t, _ in stamp.values())
    found = {}
    for event in events:
        if event["type"] != "AI_DECISION":
            continue
        own = sorted(
            (e for e in events if e["subject"] == event["subject"]), key=lambda e: stamp[id(e)]
        )
        place = own.index(event)
        end = stamp[id(event)][0] + timedelta(seconds=window)
        outcome = None
        for later in own[place + 1 :]:
            if later["type"] == "AI_DECISION" or stamp[id(later)][0] > end:
                break
            if later["type"] in ("COMPLETE", "FAIL"):
                outcome = later
                break
        if outcome is None and end > last:
            continue
        context = [e["data"]["r"] for e in own[max(0, place - past) : place]]
        label = stamp[id(outcome)][0] if outcome else end
        found[event["data"]["r"]] = (outcome and outcome["type"], label, context)
    return found
