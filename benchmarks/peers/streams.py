"""Appends that expect a version: of two that expect the same, one is refused.

A peer of this part has the methods

    expect(subject, version, event)   append an event to a subject that has so many, durably
    stream(subject)                   read all events of a subject; return how many there are
    prepare_streams()                 if it has to make something for them first

Each client is a thread, which begins another subject after a hundred events. What is read are
subjects that were not read before.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from benchmarks.peers.commits import crowd, summed
from benchmarks.peers.steps import Event, Maker, close, read, seconds

CLIENTS = (1, 8, 32)
LENGTH = 100
READ = 5


def streams(make: Maker, path: str, span: str) -> dict[str, Any]:
    """Append by each number of clients for a while, and read some of the subjects."""
    result: dict[str, Any] = {}
    events = read(path, 10_000)
    for count in CLIENTS:
        peer = make(str(count))
        if make.can("prepare_streams"):
            peer.prepare_streams()

        def append(expected: tuple[str, int, Event], peer: Any = peer) -> None:
            peer.expect(*expected)

        append(("first", 0, events[0]))  # loads what all others need
        clients = [_expected(f"order-{number}", events) for number in range(count)]
        taken, whole = crowd(append, clients, 10**9, float(span))
        result[str(count)] = summed(taken, whole, 1)
        if count == 1:
            subjects = [f"read-{n}" for n in range(READ)]
            for subject in subjects:
                for version in range(LENGTH):
                    peer.expect(subject, version, events[version])
            peer.stream("first")  # loads what all others need
            times = [seconds(lambda s=s, peer=peer: peer.stream(s)) for s in subjects]
            result["read"] = statistics.median(times)
            result["found"] = peer.stream(subjects[0])
        close(peer)
    return {"of": result}


def _expected(name: str, events: list[Event]) -> Iterator[tuple[str, int, Event]]:
    """Appends of one client without end: to which subject, at which version, of which event."""
    number = 0
    while True:
        stream, version = divmod(number, LENGTH)
        yield f"{name}-{stream}", version, events[number % len(events)]
        number += 1
