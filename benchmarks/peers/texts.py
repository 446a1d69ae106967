"""Searching the text of events: what each peer of `search` is asked, and what that costs.

A peer of this part has the methods

    load_texts(path)          take in all events with an index of their words, durable or not
    find(question, words)     the number that answers a question of these words
    text_bytes()              bytes of it all, and those of the index alone, 0 where it has none

The questions are of another word each time, so that nothing is remembered of the answer.
"""

from __future__ import annotations

import re
import resource
import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.peers.steps import Maker

_WORDS = (
    "model latency transcript chunk token cache retry timeout segment audio speech queue".split()
)
_TIMES = 5
_ID = re.compile(rb'"item_id":"(d\d+)"')


def words(question: str, turn: int, ids: list[str]) -> str:
    """What a question asks for at a turn: one word, two that stand side by side, or characters."""
    word = _WORDS[turn % len(_WORDS)]
    if question == "id":
        return ids[(turn + 1) * len(ids) // (_TIMES + 3)]
    if question == "rare":
        return f"podcast{turn * 37 % 200:03d}_{turn * 7_919 % 10_000:05d}"
    if question == "phrase":
        return f"{word} {_WORDS[(turn + 5) % len(_WORDS)]}"
    if question == "inside":
        return word[1:6]
    return word


QUESTIONS = ("id", "rare", "count", "first", "phrase", "hours", "inside")
"""The event of an id; those with a name of two words; how many have a word; the newest 100 that
have it, and two words side by side; how many have it in each span of time; how many have characters
inside of words."""


def search(make: Maker, path: str, asking: str) -> dict[str, Any]:
    """Load, ask each question a few times, with its processor time, that of programs included."""
    with open(path, "rb") as file:
        lines = file.read().splitlines()
    events, ids = len(lines), [m[1].decode() for line in lines if (m := _ID.search(line))]
    del lines
    peer = make()
    build = _cpu(lambda: peer.load_texts(path))
    whole, index = peer.text_bytes()
    result: dict[str, Any] = {"cpu": {}, "answers": {}, "count": events}
    for question in QUESTIONS:
        answers, costs = [], []
        for turn in range(1 + _TIMES):
            asked = words(question, turn, ids)
            costs.append(_cpu(lambda: answers.append(peer.find(question, asked))))  # noqa: B023
            if sum(costs) > 20 * float(asking):
                break
        if answers[0] is None:
            continue
        # The first time loads what all others need.
        result["cpu"][question] = statistics.median(costs[1:] or costs)
        result["answers"][question] = answers[0]
    return {**result, "build": build / events, "each": whole / events, "index": index / events}


def _cpu(run: Callable[[], object]) -> float:
    """Processor seconds of a call, by this process and those that it started and waited for."""
    before = _used()
    run()
    return _used() - before


def _used() -> float:
    own, others = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
