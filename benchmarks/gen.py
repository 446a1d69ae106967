"""Synthetic events for the benchmarks, the same bytes for the same count and seed.

    python -m benchmarks.gen 1000000 events.jsonl

Five kinds from a podcast pipeline and its agents, about 236 bytes of JSON each, some 50 a second
from 2026-09-01 on. Every figure in the docs was measured on these bytes:
SHA-256 of `write(1_000_000, path)` with seed 7 is
46970d69956b10d8a353b3ba1546856b523a664f7b89b65b1c61f0f729e5e1d7.

The order in which random numbers are drawn is part of the format: do not reorder the calls.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

START = datetime(2026, 9, 1, tzinfo=UTC)
EVENTS_PER_SECOND = 50
SOURCES = [f"Podcast{number:03d}" for number in range(200)]
ERRORS = ["TimeoutError", "HTTP 503", "DecodeError", "OutOfMemory"]
CHOICES = ["retry", "skip", "escalate"]
WORDS = (
    "model latency transcript chunk token cache retry timeout segment audio speech queue worker "
    "batch index vector embed decode network disk memory cpu gpu config reload start stop error "
    "warning failed success user session request response"
).split()

Event = dict[str, Any]


def events(count: int, seed: int = 7) -> Iterator[Event]:
    """Yield `count` events in order of time, as the older systems wrote them."""
    rng = random.Random(seed)
    seconds = START.timestamp()
    for number in range(count):
        seconds += rng.expovariate(EVENTS_PER_SECOND)
        kind = rng.random()
        source = rng.choice(SOURCES)
        if kind < 0.87:
            yield _podcast(rng, kind, _stamp(seconds), source)
        else:
            yield _decision(rng, number, _stamp(seconds))


def write(count: int, path: str | Path, seed: int = 7) -> None:
    """Write `count` events to `path`, one JSON object a line."""
    with open(path, "wb") as file:
        for event in events(count, seed):
            file.write(orjson.dumps(event) + b"\n")


def _podcast(rng: random.Random, kind: float, stamp: str, source: str) -> Event:
    if kind < 0.35:
        name, payload = "DISCOVER", _discover
    elif kind < 0.6:
        name, payload = "PROCESS", _process
    elif kind < 0.82:
        name, payload = "COMPLETE", _complete
    else:
        name, payload = "FAIL", _fail
    return {
        "timestamp": stamp,
        "event_type": name,
        "content_type": "podcast",
        "source": source,
        "item_id": f"{source}_{rng.randrange(10000):05d}",
        "data": payload(rng, source),
    }


def _discover(rng: random.Random, source: str) -> Event:
    url = f"https://media.example.com/{source}/ep{rng.randrange(10000)}.mp3"
    return {"url": url, "title": _words(rng, 5)}


def _process(rng: random.Random, _source: str) -> Event:
    return {"worker": rng.randrange(16), "attempt": rng.choice([1, 1, 1, 2, 3])}


def _complete(rng: random.Random, _source: str) -> Event:
    return {
        "duration_ms": int(rng.lognormvariate(8, 1)),
        "word_count": int(rng.lognormvariate(8, 0.5)),
        "confidence": round(rng.random(), 3),
    }


def _fail(rng: random.Random, _source: str) -> Event:
    return {"error": rng.choice(ERRORS), "message": _words(rng, 8)}


def _decision(rng: random.Random, number: int, stamp: str) -> Event:
    return {
        "timestamp": stamp,
        "event_type": "AI_DECISION",
        "content_type": "ai",
        "source": f"agent{rng.randrange(8)}",
        "item_id": f"d{number}",
        "data": {
            "decision": rng.choice(CHOICES),
            "options": CHOICES,
            "confidence": round(rng.random(), 3),
            "reason": _words(rng, 10),
            "system_metrics": {
                "cpu_percent": round(rng.random() * 100, 1),
                "memory_percent": round(rng.random() * 100, 1),
            },
        },
    }


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


def _stamp(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def main() -> None:
    """Read the count and the file name from the command line, and write the file."""
    parser = argparse.ArgumentParser(description="Write synthetic events as JSON lines.")
    parser.add_argument("count", type=int)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    write(arguments.count, arguments.path, arguments.seed)


if __name__ == "__main__":
    main()
