"""Lakes to measure on: real segments and manifests, made quickly and kept for the next run.

Segments cover a minute each, one after another, as a writer's rotation leaves them; they are
written and published by lakelog itself with its syncs left out, then synced at once. A kept lake
is named by what made it, so that a change of lakelog's formats makes a new one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import zstandard

from benchmarks import gen, measure
from lakelog import document, frame_rows
from lakelog.database import connect
from lakelog.disk import disk
from lakelog.entries.entry import SegmentEntry
from lakelog.event import EncodedBatch
from lakelog.identities import IdentityKeys
from lakelog.moves.publication import Change, publish, run_maintenance
from lakelog.paths import Paths
from lakelog.segments import segment
from lakelog.settings import DEFAULTS, Settings, parse
from lakelog.store import Store
from lakelog.wal import frames as wal

ROWS = 50
MINUTE = 60_000_000
PER_MOVE = 250
QUIET: dict[str, object] = {"seal": "never"}
"""Settings of lakes whose sealing is timed: no process starts beside."""
_CYCLE = 100
LARGE = 100
"""Segments of a large lake."""
_TEXT = 200
_MAKERS = """entries/entry manifest/manifest manifest/manifests segments/segment document/checksum
    paths/lake_paths refs/refs identities/identity_run wal/frames store/verified_files"""


def segmented(count: int, per_move: int = PER_MOVE) -> Path:
    """Return a kept lake of `count` segments; copy it before changing it."""

    def make(root: Path) -> None:
        store = Store.create(str(root), parse(QUIET))
        for first in range(0, count, per_move):
            add_segments(store, first, min(per_move, count - first))

    return kept(f"segments-{count}-{per_move}-{ROWS}", make)


def large(megabytes: int) -> Path:
    """Return a kept lake of a hundred equal segments, of so many MB together."""

    def make(root: Path) -> None:
        store = Store.create(str(root), parse(QUIET))
        for number in range(LARGE):
            add_large(store, number, megabytes)

    return kept(f"large-{megabytes}", make)


def filled(count: int, batch: int = 1_000, *, settled: bool = True) -> Path:
    """Return a kept lake of `count` events, appended in batches and settled."""

    def make(root: Path) -> None:
        import lakelog

        with lakelog.open(str(root), settings=QUIET) as lake:
            for part in batches(count, batch):
                lake.append(part)
            if settled:
                lake.settle()

    return kept(f"events-{count}", make)


def with_ids(root: Path, count: int) -> None:
    """Make a lake whose history holds `count` ids, in runs such as merging leaves behind."""
    store = Store.create(str(root), parse(QUIET))
    random = np.random.default_rng(7)
    with unsynced():
        for size in run_sizes(count):
            high = random.integers(0, 2**64, size, dtype=np.uint64)
            low = random.integers(0, 2**32, size, dtype=np.uint32)
            runs = IdentityKeys.of_numbers(high, low).write(store.paths, disk.random_hex())
            publish(store, "main", lambda *_, runs=runs: Change("seal", ids_add=runs))


def run_sizes(count: int) -> list[int]:
    """Cut ids into runs: fifths, then pieces an eighth of those, then an eighth again."""
    large, middle = count // 5, count // 40
    sizes = [large] * 4
    sizes += [middle] * 2
    sizes += [middle // 8] * 7
    return [count - sum(sizes), *sizes]


def add_segments(store: Store, first: int, count: int) -> None:
    """Write segments number `first` and on, and publish them as one move."""
    with unsynced():
        entries = tuple(make_segments(store, first, count))
        publish(store, "main", lambda *_: Change("seal", entries=entries))
        run_maintenance(store, "main")


def add_large(store: Store, number: int, megabytes: int) -> None:
    """Write a segment of a hundredth of so many MB, whose data no codec shortens, as one move."""
    count = megabytes * 1_000_000 // LARGE // _TEXT * 2
    text = pa.py_buffer(os.urandom(count * _TEXT // 2).hex().encode())
    offsets = pa.py_buffer(np.arange(count + 1, dtype=np.int32) * _TEXT)
    base = template().slice(0, _CYCLE)
    table = base.take(pa.array(np.arange(count) % _CYCLE))
    columns = {
        "time": pa.array(_stamps(number, count), pa.timestamp("us", tz="UTC")),
        "data": pa.StringArray.from_buffers(count, offsets, text),
    }
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    with unsynced():
        entry = segment.write_segment(
            store.paths, table, kind="events", layout="arrival", commit=disk.random_hex()
        )
        publish(store, "main", lambda *_: Change("seal", entries=(entry,)))
    store.verified.add_all([(entry.key, store.paths.object("segments", entry.key))])


def _stamps(number: int, count: int) -> Any:
    start = int(gen.START.timestamp()) * 1_000_000 + number * MINUTE
    return start + np.arange(count, dtype=np.int64) * MINUTE // count


def make_segments(store: Store, first: int, count: int) -> Iterator[SegmentEntry]:
    """Write small segments, each a minute after the one before; yield their entries."""
    base = template()
    marked = []
    for number in range(first, first + count):
        column = pa.array(_stamps(number, ROWS), pa.timestamp("us", tz="UTC"))
        table = base.slice(number % _CYCLE * ROWS, ROWS)
        for name in ("time", "ingested_at"):
            table = table.set_column(table.schema.get_field_index(name), name, column)
        entry = segment.write_segment(
            store.paths, table, kind="events", layout="arrival", commit=disk.random_hex()
        )
        marked.append((entry.key, store.paths.object("segments", entry.key)))
        yield entry
    store.verified.add_all(marked)


@cache
def template() -> pa.Table:
    """Rows of a hundred small segments, made from WAL lines as sealing does."""
    lines = EncodedBatch.of(list(gen.events(_CYCLE * ROWS))).lines
    text = b"\n".join(lines) + b"\n"
    payload = zstandard.ZstdCompressor().compress(text)
    frame = wal.Frame("0" * 32, 0, len(lines), 0, 0, 0, len(text), payload)
    paths = Paths(str(measure.WORK / "template"))
    return frame_rows.events(lambda: connect(paths, DEFAULTS), [frame]).combine_chunks()


def batches(count: int, size: int, **more: Any) -> Iterator[list[gen.Event]]:
    """Yield the benchmark events in lists of `size`, made as they are asked for."""
    part = []
    for event in gen.events(count):
        part.append({**event, **more} if more else event)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def new(root: Path, settings: dict[str, object] | None = None) -> Store:
    """Make an empty lake at `root`."""
    return Store.create(str(root), parse(settings or {}, Settings()))


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """Return the lake of that name, made now if it is not there."""
    path = measure.WORK / "kept" / f"{name}-{_formats()}"
    if not path.exists():
        measure.progress(f"building {name}")
        for stale in path.parent.glob(f"{name}-*"):
            shutil.rmtree(stale)
        building = path.with_name(f".building-{os.getpid()}")
        shutil.rmtree(building, ignore_errors=True)
        building.parent.mkdir(parents=True, exist_ok=True)
        make(building)
        os.sync()
        building.rename(path)
    return path


def copy(source: Path, target: Path) -> Path:
    """Copy a kept lake, synced, its segments marked as verified like those of the original."""
    shutil.copytree(source, target)
    store = Store.load(str(target))
    disk.unlink(store.paths.verified)
    state = store.manifests.load(store.refs.head("main").move.snapshot)
    keys = [e.key for e in store.manifests.segments(state)]
    store.verified.add_all([(key, store.paths.object("segments", key)) for key in keys])
    os.sync()
    return target


@contextmanager
def unsynced() -> Iterator[None]:
    """Leave out the syncs of lakelog; for building only."""
    held = disk.sync_file, disk.sync_dir
    disk.sync_file = disk.sync_dir = lambda _: None  # type: ignore[assignment]
    try:
        yield
    finally:
        disk.sync_file, disk.sync_dir = held


def size_of(path: Path, folder: str) -> int:
    """Bytes of the files below a folder of a lake."""
    return sum(f.stat().st_size for f in (path / folder).rglob("*") if f.is_file())


@cache
def _formats() -> str:
    """A name for the code that decides what a lake's bytes are."""
    sha = hashlib.sha256(orjson.dumps([document.__name__, ROWS, _CYCLE]))
    for name in _MAKERS.split():
        sha.update((measure.ROOT / "lakelog" / f"{name}.py").read_bytes())
    return sha.hexdigest()[:10]
