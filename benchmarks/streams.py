"""Appending to streams by expected version, against transactions of SQLite that check it.

SQLite: one table with the primary key (subject, version), journal_mode WAL, synchronous FULL, one
transaction for each event, which reads the version of its subject first. `eventsourcing` has a
recorder of its own for SQLite (its defaults) beside ours. Each round has subjects of its own.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable

from eventsourcing.persistence import InfrastructureFactory, StoredEvent
from eventsourcing.utils import Environment

import lakelog
from benchmarks import gen, lakes
from benchmarks.measure import Scale, directory, interleave, seconds
from benchmarks.peers import sqlite
from benchmarks.report import Row, Target

_NAMES = (f"order-{number}" for number in itertools.count())
StreamAppend = Callable[[str, int, gen.Event], object]


def expected(scale: Scale) -> list[Row]:
    """Time single events that expect a version: of one subject, and each of a new one."""
    count = scale.singles
    with directory() as root, lakelog.open(root / "lake", settings=lakes.QUIET) as lake:
        peer = sqlite.Peer(str(root))
        peer.prepare_streams()

        def append(subject: str, version: int, event: gen.Event) -> None:
            lake.append({**event, "subject": subject}, expect={subject: version})

        rows = []
        for name, streams in (("one stream", 1), ("new streams", count)):
            ours, theirs = interleave(
                scale.rounds,
                lambda streams=streams: _append(append, streams, count),
                lambda streams=streams: _append(peer.expect, streams, count),
            )
            rates = [[count / t for t in times] for times in (ours, theirs)]
            rows.append(Row(f"expect 1, {name}", "ev/s", *rates, Target(">=", 1)))
    return rows


def _append(append: StreamAppend, streams: int, count: int) -> float:
    names = list(itertools.islice(_NAMES, streams))
    versions = dict.fromkeys(names, 0)
    events = list(gen.events(count))

    def run() -> None:
        for event, name in zip(events, itertools.cycle(names), strict=False):
            append(name, versions[name], event)
            versions[name] += 1

    return seconds(run)


def recorders(scale: Scale) -> list[Row]:
    """Time recorders of `eventsourcing`: single events of 100 aggregates, then reading each."""
    count = max(scale.singles, 100)
    with directory() as root:
        lake = {"PERSISTENCE_MODULE": "lakelog.eventsourcing", "LAKELOG_PATH": root / "lake"}
        peer = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": root / "events.db"}
        shops = [Shop(lake), Shop(peer)]
        times = interleave(scale.rounds, *(lambda s=s: s.insert(count) for s in shops))
        reads = interleave(scale.rounds, *(lambda s=s: s.select() for s in shops))
    ours, theirs = ([count / t for t in found] for found in times)
    looks = [[t * 10 for t in found] for found in reads]  # 100 aggregates, in milliseconds
    return [
        Row("eventsourcing: insert 1", "ev/s", ours, theirs),
        Row("eventsourcing: one aggregate", "ms", *looks),
    ]


class Shop:
    """A recorder, with 100 new aggregates in each round."""

    def __init__(self, variables: dict[str, object]) -> None:
        environment = Environment("shop", {name: str(value) for name, value in variables.items()})
        self._recorder = InfrastructureFactory.construct(environment).application_recorder()
        self._rounds: list[list[uuid.UUID]] = []

    def insert(self, count: int) -> float:
        """Time so many events, one at a time."""
        ids = [uuid.uuid4() for _ in range(100)]
        self._rounds.append(ids)

        def run() -> None:
            for index in range(count):
                version, state = index // 100 + 1, b'{"step": %d}' % index
                event = StoredEvent(ids[index % 100], version, "shop:Order.Paid", state)
                self._recorder.insert_events([event])

        return seconds(run)

    def select(self) -> float:
        """Time reading each of 100 aggregates that were not read yet."""
        ids = self._rounds.pop()

        def run() -> None:
            for originator_id in ids:
                assert self._recorder.select_events(originator_id)

        return seconds(run)
