"""Finding what log messages have in common: templates, and which message has which.

A peer of this part has the method

    mine(path)   the group of each message of a file of JSON lines, in order

Messages are made of templates that are known, so that the groups can be compared with them. Their
words and values are others with each seed; some templates are frequent and most are rare.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from benchmarks.peers.steps import Maker, seconds

TEMPLATES = 200
_WORDS = """
accepted cannot checkpoint client closed completed connection consumer cursor deleted disk expired
failed fetched flushed for from handshake index invalid job lag leader lease loaded lock merged
message missing opened page partition peer pool queue quota refused rejected renewed replica
request restarted retried route scheduled segment session shard skipped snapshot stale started
stopped stored stream sync table task tenant thread timed token transaction upload user volume
waited worker written
""".split()


def templates(make: Maker, path: str, messages: str) -> dict[str, Any]:
    """Give a peer so many messages, and compare its groups; the name of the events is the seed."""
    count, file = int(messages), Path(make.root, "messages.jsonl")
    right = _write(file, count, random.Random(Path(path).name))
    found: list[Sequence[Hashable]] = []
    peer = make("mined")
    taken = seconds(lambda: found.append(peer.mine(str(file))))
    return {"count": count, "mined": taken, "grouped": _grouped(right, found[0])}


def _write(path: Path, count: int, chance: random.Random) -> list[int]:
    """Write messages, and return the number of the template of each."""
    made = list(_made(chance))
    weights = [1 / (rank + 1) for rank in range(len(made))]
    right = chance.choices(range(len(made)), weights, k=count)
    with open(path, "wb") as file:
        for second, number in enumerate(right):
            message = " ".join(_value(word, chance) for word in made[number])
            event = {
                "time": 1_790_000_000 + second // 100,
                "type": "log",
                "source": f"service-{number % 8}",
                "message": message,
            }
            file.write(orjson.dumps(event) + b"\n")
    return right


def _made(chance: random.Random) -> Iterator[list[str]]:
    """Templates: words, and names of kinds of values in braces."""
    kinds = [*(f"{{{kind}}}" for kind in ("number", "address", "id", "path", "span", "name"))]
    seen = set()
    while len(seen) < TEMPLATES:
        words = chance.sample(_WORDS, chance.randint(3, 8))
        if tuple(words) not in seen:
            seen.add(tuple(words))
            for kind in chance.sample(kinds, chance.randint(0, 3)):
                words.insert(chance.randint(1, len(words)), kind)
            yield words


def _value(word: str, chance: random.Random) -> str:
    """A word as it is; of a kind of value, one of many."""
    match word:
        case "{number}":
            return str(chance.randrange(100_000))
        case "{address}":
            parts = ".".join(str(chance.randrange(256)) for _ in range(4))
            return f"{parts}:{chance.randrange(1024, 65_536)}"
        case "{id}":
            return f"{chance.getrandbits(64):016x}"
        case "{path}":
            return f"/var/lib/{chance.choice(_WORDS)}/{chance.randrange(1000)}.db"
        case "{span}":
            return f"{chance.randrange(10_000)}ms"
        case "{name}":
            return f"user={chance.choice(_WORDS)}{chance.randrange(1000)}"
    return word


def _grouped(right: Sequence[Hashable], found: Sequence[Hashable]) -> float:
    """The share of messages whose group has the messages of their template, and no others."""
    pairs = Counter(zip(right, found, strict=True))
    sizes, others = Counter(right), Counter(found)
    same = (n for (one, other), n in pairs.items() if n == sizes[one] == others[other])
    return sum(same) / len(right)
