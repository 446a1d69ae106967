"""Write the decisions of an agent that repairs failed episodes, and what came of each.

python data/decisions.py --decisions 6000 --seed 7 FILE

Each decision has a failure, its options, the choice with a confidence, and minutes later an
outcome. What really helps depends on the failure; the agent retries too often, and its small model
is surer of itself than it should be. The same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

BEGIN, DAYS = datetime(2026, 10, 2, tzinfo=UTC), 28
OPTIONS = ["retry", "transcribe-again", "escalate", "skip"]
SHOWS = ["TechPodcast", "DataHour", "NightScience", "CityDesk", "SlowNews", "DeepField"]
# How often each choice ends well, by failure; then how often the agent meets the failure.
HELPS = {
    "timeout": ([0.82, 0.55, 0.70, 0.10], 0.40),
    "decode": ([0.12, 0.78, 0.74, 0.15], 0.25),
    "memory": ([0.20, 0.25, 0.81, 0.20], 0.15),
    "quota": ([0.35, 0.30, 0.66, 0.45], 0.20),
}
CHOOSES = {"timeout": [8, 1, 1, 1], "decode": [5, 4, 1, 1], "memory": [4, 2, 3, 1]}
CHOOSES["quota"] = [5, 1, 2, 2]
WORDS = {
    "timeout": ["no answer from {host} within 30 s", "{host} closed the connection after {n} s"],
    "decode": ["audio frame {n} cannot be decoded", "unexpected end of stream at byte {n}"],
    "memory": ["worker stopped at {n} MB", "allocation of {n} MB failed"],
    "quota": ["daily quota of {host} is used up", "{host} answered 429 after {n} requests"],
}


def main() -> None:
    """Read count, seed and file name from the command line, and write the file."""
    parser = argparse.ArgumentParser(description="Write an agent's decisions as JSON lines.")
    parser.add_argument("--decisions", type=int, default=6_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("path", type=Path)
    given = parser.parse_args()
    events = sorted(decisions(given.decisions, given.seed), key=lambda event: str(event["time"]))
    with open(given.path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(event, separators=(",", ":")) + "\n" for event in events)


def decisions(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield a decision and its outcome, `count` times."""
    rng = random.Random(seed)
    for number in range(count):
        moment = BEGIN + timedelta(seconds=rng.uniform(0, DAYS * 86_400))
        failure = rng.choices([*HELPS], [share for _, share in HELPS.values()])[0]
        chosen = rng.choices(OPTIONS, CHOOSES[failure])[0]
        model = rng.choices(["atlas-mini", "atlas-large"], [3, 2])[0]
        attempt = rng.choices([1, 2, 3], [6, 3, 1])[0]
        likely = HELPS[failure][0][OPTIONS.index(chosen)] * (1.05 - 0.12 * attempt)
        surety = 0.35 + 0.5 * likely if model == "atlas-mini" else likely
        confidence = min(0.99, max(0.02, surety + rng.gauss(0, 0.07)))
        confidence = min(0.99, confidence + 0.12) if model == "atlas-mini" else confidence
        host, size = f"media-{rng.randrange(1, 4)}", rng.randrange(20, 9_000)
        words = rng.choice(WORDS[failure]).format(host=host, n=size)
        shared = {
            "category": "ai",
            "source": "repair-agent",
            "subject": f"ep_{rng.randrange(count // 2):05d}",
        }
        data = {"decision_id": f"d-{number:05d}", "decision_point": "repair"}
        yield {
            "time": f"{moment:%Y-%m-%dT%H:%M:%S}Z",
            "type": "decision",
            **shared,
            "message": words,
            "data": {
                **data,
                "show": rng.choice(SHOWS),
                "failure": failure,
                "attempt": attempt,
                "model": model,
                "options": OPTIONS,
                "chosen": chosen,
                "confidence": round(confidence, 3),
            },
        }
        went_well = rng.random() < likely
        yield {
            "time": f"{moment + timedelta(seconds=rng.uniform(20, 900)):%Y-%m-%dT%H:%M:%S}Z",
            "type": "outcome",
            **shared,
            "data": {**data, "outcome": "repaired" if went_well else "lost"},
        }


if __name__ == "__main__":
    main()
