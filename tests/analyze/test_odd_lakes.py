"""Lakes that no analysis is made for: each verb answers, or says in one line why it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.cli import cli

START, DAY = 1_780_012_800, 86_400
VERBS = (
    "patterns",
    "anomalies --since 3d --every 6h",
    "forecast events",
    "forecast x.v --full 100",
    "decisions",
    "decisions show p",
    "decisions recommend p",
    "decisions tune p --setting wait",
    "predict list",
)
LETTERS = str.maketrans("0123456789", "qwertzuiop")


def hours(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"type": "x", "time": START + n * 3_600, **more} for n in range(count)]


def in_zones() -> list[dict[str, Any]]:
    """Around the end of summer time: hours that come twice, and offsets that differ."""
    return [
        {"type": "x", "time": f"2026-10-25T0{n % 4}:{n % 60:02}:00{zone}", "data": {"v": n}}
        for n in range(60)
        for zone in ("+02:00", "+01:00", "Z", "-05:30")
    ]


LAKES: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "one": [{"type": "decision", "data": {"decision_point": "p", "chosen": "a", "wait": 1}}],
    "constant": hours(240, message="same", data={"v": 7}),
    "jumps": [
        {"type": "x", "time": START + (-1) ** n * n * DAY, "data": {"v": n}} for n in range(300)
    ],
    "zones": in_zones(),
    "sources": [
        {"type": "x", "source": f"s{n}", "time": START + n, "data": {"v": n}} for n in range(5_000)
    ],
    "own templates": [
        {"type": "log", "time": START + n, "message": str(n).translate(LETTERS) * 3}
        for n in range(3_000)
    ],
    "hostile": [
        {"type": "log", "time": START + n * DAY, "message": message}
        for n, message in enumerate(
            (
                "x" * 2_000_000,
                "word " * 10_000,
                "{" * 20_000,
                "a\x00b 1",
                "\x1a\x1a",
                "%_\\ <*> '",
                "",
            )
        )
    ],
    "odd decisions": [
        {"type": "decision", "time": START + n, "data": {"decision_point": "p", **odd}}
        for n, odd in enumerate(
            [{"chosen": None}, {"chosen": ["a"]}, {"chosen": "a", "confidence": "much"}]
            + [{"chosen": "a", "options": {"a": 1}, "wait": float(10**300), "propensity": 0}] * 9
        )
    ],
}


@pytest.mark.parametrize("name", LAKES)
def test_each_verb_answers_or_says_why_not(home: Path, name: str) -> None:
    path = home / "lake"
    with lakelog.open(path, settings={"seal": "never"}) as lake:
        lake.append(LAKES[name])
    for verb in VERBS:
        answer = CliRunner().invoke(cli, ["--lake", str(path), *verb.split()])
        assert answer.exit_code in (0, 1, 2, 3), (verb, answer.output)
        assert answer.exception is None or isinstance(answer.exception, SystemExit), verb
        assert len(answer.output) < 20_000_000, verb
        if answer.exit_code:
            assert answer.stderr.startswith("lakelog: "), verb
            assert answer.stderr.count("\n") <= 2, answer.stderr
