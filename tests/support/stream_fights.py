"""Processes that fight for event streams: the program of one, and what has to hold afterwards."""

from __future__ import annotations

from collections import Counter
from typing import Any

import lakelog

FIGHT = """
import random, sys
import lakelog
from lakelog.errors import WrongVersion
path, seed, tries, subjects = sys.argv[1], *map(int, sys.argv[2:])
dice = random.Random(seed)
with lakelog.open(path, create=False) as lake:
    known = {}
    for number in range(tries):
        name = f"s{dice.randrange(subjects)}"
        event = {"type": "WIN", "subject": name, "data": {"by": seed, "number": number}}
        try:
            lake.append(event, expect={name: known.get(name, 0)})
        except WrongVersion as error:
            known[name] = error.actual
            print(f"lost {name} {error.expected} {error.actual}\\n", end="", flush=True)
        else:
            known[name] = known.get(name, 0) + 1
            # One write: where output is not buffered, a kill would leave a part of the line.
            print(f"won {name} {known[name]} {number}\\n", end="", flush=True)
"""


def judge(path: str, outputs: list[str], subjects: int) -> int:
    """Compare what processes said with what is there; return how many appends won."""
    won = [line.split() for out in outputs for line in out.splitlines() if line.startswith("won")]
    assert max(Counter((name, version) for _, name, version, _ in won).values()) == 1
    with lakelog.open(path, create=False) as lake:
        there = dict[tuple[str, int], Any]()
        for number in range(subjects):
            stream = lake.stream(f"s{number}")
            assert [e["version"] for e in stream] == list(range(1, stream.version + 1))
            for e in stream:
                there[f"s{number}", e["version"]] = e["data"]
        assert {(name, int(version)) for _, name, version, _ in won} <= there.keys()
        assert len(set(there.values())) == len(there)
        assert lake.verify().problems == ()
        return len(won)
