"""What grows with the lake: by number of segments and by length of history, on synthetic states.

Manifests are written by lakelog's own code, and name segments that are not there; what is timed
reads none of them, as in a lake whose query needs none. Delta Lake's log is made likewise: one
commit that adds the files, and a checkpoint of it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers.steps import Maker, batches, close, seconds

if TYPE_CHECKING:
    from lakelog.entries.entry import SegmentEntry

EARLY = "SELECT count(*) FROM events WHERE time < TIMESTAMPTZ '2020-01-01'"
"""A question that statistics alone answer: what it costs is finding that no segment is needed."""
PART = 4_096
ROUNDS = 9


def segments(make: Maker, events: str, counts: str) -> dict[str, Any]:
    """Steps on states of so many segments, as {count: {step: seconds}}."""
    build = {"lakelog": _lake_of, "deltalake": _delta_of}[make.name]
    return {"of": {n: _steps(make, events, n, build) for n in counts.split(",")}}


def history(make: Maker, events: str, counts: str) -> dict[str, Any]:
    """Steps on lakes of so many moves, as {count: {step: seconds}}."""
    return {"of": {n: _steps(make, events, f"moves-{n}", _moves_of) for n in counts.split(",")}}


def _steps(
    make: Maker, events: str, name: str, build: Callable[[str, int], None]
) -> dict[str, float]:
    """Open and count, ask in vain, commit, tag, and go back, on what `build` makes."""
    root = Path(make.root, name)
    root.mkdir(parents=True)
    build(str(root), int(name.rpartition("-")[2]))
    os.sync()
    parts = batches(events, 1, held=100)
    steps = _lake_steps if make.name == "lakelog" else _delta_steps
    taken: dict[str, list[float]] = {}
    for step, took in steps(make, name, parts):
        taken.setdefault(step, []).append(took)
    return {step: statistics.median(each) for step, each in taken.items()}


def _lake_steps(make: Maker, name: str, parts: Any) -> Any:
    number = count()
    for _ in range(3):
        began = time.perf_counter()
        peer = make(name)
        peer.lake.count()
        yield "open and count", time.perf_counter() - began
        lake = peer.lake
        yield "question, first", seconds(lambda lake=lake: lake.sql(EARLY).fetchall())
        for _ in range(ROUNDS // 3):
            yield "question", seconds(lambda lake=lake: lake.sql(EARLY).fetchall())
            tag = f"t{next(number)}"
            lake.settle()
            yield "tag", seconds(lambda lake=lake, tag=tag: lake.tag(tag))
            batch = next(parts)
            yield "append one", seconds(lambda peer=peer, batch=batch: peer.commit(batch))
            yield "publish it", seconds(lake.settle)
            yield "roll back", seconds(lambda lake=lake, tag=tag: lake.rollback(tag))
        close(peer)


def _delta_steps(make: Maker, name: str, parts: Any) -> Any:
    import deltalake

    for _ in range(3):
        peer = make(name)
        yield "open and count", seconds(lambda peer=peer: deltalake.DeltaTable(peer.path).count())
        peer.mark()
        for _ in range(ROUNDS // 3):
            batch = next(parts)
            yield "append one", seconds(lambda peer=peer, batch=batch: peer.commit(batch))
        yield "roll back", seconds(peer.back)


def _lake_of(root: str, size: int) -> None:
    """Make a lake whose one published state names so many segments."""
    from benchmarks import lakes
    from lakelog.disk import disk
    from lakelog.moves import publication as publish
    from lakelog.refs import author

    with lakes.unsynced():
        store = lakes.new(Path(root, "lake"), {"seal": "never"})
        [sample] = lakes.make_segments(store, 0, 1)
        head = store.refs.head("main")
        state, carried = store.manifests.load(head.move.snapshot), b""
        for first in range(0, size, PART):
            entries = tuple(_moved(sample, n) for n in range(first, min(first + PART, size)))
            change = publish.Change("seal", entries=entries, merge_pages=True)
            grown = publish.grow(store, state, change, disk.random_hex(), state.time + 1)
            state, carried = store.manifests.settle(grown, [])
        move = dataclasses.replace(
            head.move,
            number=head.move.number + 1,
            prev=head.digest,
            commit=disk.random_hex(),
            time=head.move.time + 1,
            author=author(),
            op="seal",
            snapshot=state.digest,
            carried=carried,
        )
        publish.link_move(store, move)


def _moves_of(root: str, size: int) -> None:
    """Make a lake of so many moves, each of which published a segment."""
    from benchmarks import lakes
    from lakelog.disk import disk
    from lakelog.moves import publication as publish

    with lakes.unsynced():
        store = lakes.new(Path(root, "lake"), {"seal": "never"})
        [sample] = lakes.make_segments(store, 0, 1)
        head = store.refs.head("main")
        state = store.manifests.load(head.move.snapshot)
        for number in range(size):
            change = publish.Change("seal", entries=(_moved(sample, number),))
            grown = publish.grow(store, state, change, disk.random_hex(), state.time + 1)
            state, carried = store.manifests.settle(grown, [])
            move = dataclasses.replace(
                head.move,
                number=head.move.number + 1,
                prev=head.digest,
                commit=disk.random_hex(),
                time=head.move.time + 1,
                op="seal",
                snapshot=state.digest,
                carried=carried,
            )
            head = publish.link_move(store, move) or head


def _moved(entry: SegmentEntry, number: int) -> SegmentEntry:
    """An entry as another segment would have it, so many minutes later."""
    from benchmarks import lakes

    low, high = (time + number * lakes.MINUTE for time in entry.time)
    return dataclasses.replace(entry, key=f"{number:064x}", time=(low, high))


def _delta_of(root: str, size: int) -> None:
    """Make a table whose log names so many files, behind a checkpoint as its writers leave it."""
    import deltalake

    from benchmarks import gen
    from benchmarks.peers.deltalake import Peer

    peer = Peer(root)
    peer.commit(list(gen.events(50)))
    log = Path(peer.path, "_delta_log")
    lines = map(json.loads, (log / f"{0:020}.json").read_text().splitlines())
    add = next(line["add"] for line in lines if "add" in line)
    with (log / f"{1:020}.json").open("w") as file:
        for number in range(size):
            file.write(json.dumps({"add": {**add, "path": f"part-{number:08}.parquet"}}) + "\n")
    deltalake.DeltaTable(peer.path).create_checkpoint()
