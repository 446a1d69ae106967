"""The benchmark events: every figure in the docs rests on their bytes."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path

import orjson

from benchmarks import gen

SHA256_OF_20_000 = "f7d80a0bf5bc7e7c277ce4eb536d863d3f0e038e1f04ba949b0b729a56188492"


def test_bytes_are_the_ones_all_figures_were_measured_on(tmp_path: Path) -> None:
    """Twenty thousand events with the default seed have the SHA-256 they always had."""
    path = tmp_path / "events.jsonl"
    gen.write(20_000, path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256_OF_20_000


def test_a_file_holds_what_events_yields(tmp_path: Path) -> None:
    """Each line of a written file is one event, and a longer run begins with a shorter one."""
    path = tmp_path / "events.jsonl"
    gen.write(100, path)
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert lines == list(gen.events(100)) == list(islice(gen.events(200), 100))


def test_another_seed_gives_other_events() -> None:
    """The seed decides the events."""
    assert list(gen.events(10, seed=8)) != list(gen.events(10))
