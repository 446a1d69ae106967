"""What a lake costs after years: by what is alive in it, not by what has been."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import lakelog
from benchmarks import lakes
from benchmarks.measure import Scale, child, directory, seconds
from benchmarks.report import Row, Target
from lakelog.disk import disk
from lakelog.entries.entry import Record, SegmentEntry
from lakelog.history import window as history_window
from lakelog.maintain import compact, gc
from lakelog.manifest import manifest
from lakelog.moves.publication import Change, grow, publish, run_maintenance
from lakelog.settings import parse
from lakelog.store import Store

_TOGETHER = 256
_LIVE, _STEP = 8_100, 4_096
_START = 1_767_225_600_000_000
_MARK = """
from lakelog.maintain import gc
from lakelog.disk import disk
from lakelog.store import Store
store = Store.load(sys.argv[1])
result = len(gc.Marker(store, disk.now_us()).live)
"""


_COLLECT = """
from lakelog.maintain import gc
from lakelog.disk import disk
from lakelog.history import window
from lakelog.store import Store
now = int(sys.argv[2])
disk.now_us = lambda: now
window.lake_time = lambda store: now
done = gc.gc(Store.load(sys.argv[1]))
result = done.deleted
"""
_DAY = 86_400
_ROWS = 20
_COARSE = 60


def watched(scale: Scale) -> list[Row]:
    """Follow a log at 20 lines a second for a month, a publish a second, compacted when that is
    due and collected every hour as the helper does; then stop, and collect again after the grace.

    Time and segments are made up: the clock jumps, and segments are empty files that nobody reads.
    All else is what the store writes. Before the last day a publish stands for a minute, and gc
    runs four times a day: of those days it leaves a state a minute at most.
    """
    rows = []
    with directory() as root:
        store = lakes.new(root / "lake")
        end = _month(store, int(scale.watched_days * _DAY))
        for what, later in (("running", 0), ("a day after", 25 * 3_600), ("", 50 * 3_600)):
            done = child(_COLLECT, store.paths.root, str(end + later * 1_000_000))
            files, beyond, segments = _weigh(Path(store.paths.root))
            rows += [
                Row(f"watch, gc {what}: files", "", [files]),
                Row(f"watch, gc {what}: segments", "", [segments]),
                Row(f"watch, gc {what}: beyond the segments", "MB", [beyond / 1e6]),
                Row(f"watch, gc {what}", "s", [done.inside]),
                Row(f"watch, gc {what}: memory", "MB", [done.peak]),
            ]
    return rows


def _weigh(root: Path) -> tuple[float, float, float]:
    """Return the number of files, the bytes of all but segments, and the number of segments."""
    files = [path for path in root.rglob("*") if path.is_file()]
    segments = [path for path in files if path.suffix == ".parquet"]
    beyond = sum(path.stat().st_blocks * 512 for path in files)
    return float(len(files)), float(beyond), float(len(segments))


def _month(store: Store, seconds: int) -> int:
    """Publish every second, and compact and collect; return the time (us) at the end."""
    now = disk.now_us() + _DAY * 1_000_000  # after what the file system says of the files

    def clock(*_: object) -> int:
        return now

    now_patch = mock.patch.object(disk, "now_us", clock)
    lake_patch = mock.patch.object(history_window, "lake_time", clock)
    with lakes.unsynced(), now_patch, lake_patch:
        passed = collected = 0
        while passed < seconds:
            is_last = seconds - passed <= _DAY
            step = 1 if is_last else _COARSE
            passed, now = passed + step, now + step * 1_000_000
            cursor = _cursor(passed)
            change = Change("ingest", entries=(_fresh(store, now, step * _ROWS), cursor))
            publish(store, "main", lambda *_, change=change: change)
            if passed // step % compact.DUE == 0:
                _compacted(store, now)
            if passed - collected >= (3_600 if is_last else 6 * 3_600):
                gc.gc(store)
                collected = passed
    return now


def _compacted(store: Store, now: int) -> None:
    """Merge what compaction would choose, as entries alone."""
    state = store.manifests.load(store.refs.head("main").move.snapshot)
    for group in compact.choose(store.manifests.segments(state), store.settings):
        made = _fresh(store, now, sum(entry.events for entry in group))
        made = dataclasses.replace(
            made,
            layout="sorted",
            time=(group[0].time[0], group[-1].time[1]),
            seq=(group[0].seq[0], group[-1].seq[1]),
            made_from=tuple(entry.key for entry in group),
        )
        change = Change("compact", entries=(*(entry.tombstone() for entry in group), made))
        publish(store, "main", lambda *_, change=change: change)
    run_maintenance(store, "main")


def _fresh(store: Store, now: int, rows: int) -> SegmentEntry:
    """Make the entry of a segment of so many rows, and an empty file in its place."""
    time = now - 900_000, now
    entry = dataclasses.replace(_entry(0), bytes=60 * rows, events=rows, time=time)
    os.close(disk.create(store.paths.object("segments", entry.key)))
    return entry


def _cursor(number: int) -> Record:
    """Make an entry as a watcher writes it for the file that it follows."""
    size = number * 2_000
    members = {
        "origin": "c" * 32,
        "bytes": size,
        "lines": number * 20,
        "name": "/var/log/app/application.log",
        "size": size,
        "mtime": number,
        "looked": number,
        "device": 64_768,
        "inode": 1_234_567,
        "head": "a" * 32,
        "head_len": 4_096,
        "tail": disk.random_hex(),
        "crc": number,
        "forms": [[0, "jsonl"]],
        "places": [[size >> shift, number >> shift] for shift in range(12)],
    }
    return Record("cursor", "c" * 32, members)


def marking(scale: Scale) -> list[Row]:
    """Mark what is alive in a history of many moves, and in one of a quarter of them."""
    taken = [
        [child(_MARK, str(history(count))) for _ in range(scale.rounds)]
        for count in (scale.moves, scale.moves // 4)
    ]
    many, few = ([one.inside for one in group] for group in taken)
    peak = [one.peak for one in taken[0]]
    return [
        Row(f"gc mark of {scale.moves:,} moves", "s", many, target=Target("<=", 1, "figure")),
        Row("gc mark, 4 x the moves", "s", many, few, Target("<=", 5)),
        Row("gc mark: memory", "MB", peak, target=Target("<=", 200, "figure")),
    ]


def entries(scale: Scale) -> list[Row]:
    """Read the live entries of a head after many came and went, and of one that only has those."""
    taken: list[list[float]] = []
    pages = []
    with directory() as root:
        for name, gone in (("long", scale.entries), ("short", _LIVE)):
            store = lakes.new(root / name)
            with lakes.unsynced():
                state = _turned_over(store, gone)
            pages.append(float(len(state.pages)))
            store.manifests.segments(state)
            runs = range(scale.rounds)
            taken.append([seconds(partial(store.manifests.segments, state)) * 1000 for _ in runs])
    what = f"{_LIVE:,} live of {scale.entries:,} entries"
    return [
        Row(f"{what}: read", "ms", taken[0], taken[1], Target("<=", 40, "figure")),
        Row(f"{what}: pages", "", pages[:1], pages[1:], Target("<=", 64, "figure")),
    ]


def idle(scale: Scale) -> list[Row]:
    """Ask again where nothing came: of many frames, of many WAL files, and of one of each."""
    rows = []
    for what, count in (("frames", scale.frames), ("WAL files", scale.files)):
        with directory() as root:
            figures = [_asked_again(root / f"{n}", what, n, scale) for n in (count, 1)]
        rows.append(
            Row(f"query, {count:,} idle {what}", "ms", *figures, target=Target("<=", 5, "figure"))
        )
    return rows


def _asked_again(root: Path, what: str, count: int, scale: Scale) -> list[float]:
    """Return the milliseconds of queries after the first, of a tail that stands still."""
    settings = {**lakes.QUIET, "rotate_events": 10**9, "rotate_bytes": 10**9}
    with lakes.unsynced(), lakelog.open(str(root), settings=settings) as lake:
        for number in range(count):
            if what == "frames":
                lake.append({"type": "A", "data": number})
            else:
                with lakelog.open(str(root)) as short:
                    short.append({"type": "A", "data": number})
        ask = partial(_needle, lake)
        ask()
        return [seconds(ask) * 1000 for _ in range(scale.rounds * 4)]


def _needle(lake: lakelog.Lake) -> None:
    lake.sql("SELECT max(type) FROM events WHERE type = 'B'").fetchall()


def _turned_over(store: Store, count: int) -> manifest.Manifest:
    """Return a state of _LIVE segments after so many entries."""
    state = store.manifests.load(store.refs.head("main").move.snapshot)
    live: list[SegmentEntry] = []
    for first in range(0, count, _STEP):
        fresh = [_entry(first + n) for n in range(_STEP // 2 if len(live) >= _LIVE else _STEP)]
        old, live = live[: len(live) + len(fresh) - _LIVE], [*live, *fresh][-_LIVE:]
        for change in (
            Change("compact", entries=(*(entry.tombstone() for entry in old), *fresh)),
            Change("maintain", merge_pages=True),
        ):
            state = store.manifests.write(grow(store, state, change, disk.random_hex(), first))
    return state


def history(count: int) -> Path:
    """Return a kept lake of so many moves: seals of one segment, compacted now and then. The
    segments are empty files, which marking does not open."""

    def make(root: Path) -> None:
        # All states are kept: those of a lake of an earlier run would thin out meanwhile.
        settings: dict[str, object] = {**lakes.QUIET, "history_dense_hours": 1_000}
        store = Store.create(str(root), parse(settings))
        live: list[SegmentEntry] = []
        with lakes.unsynced():
            for number, entry in enumerate(_entries(store, count)):
                change = Change("seal", entries=(entry,))
                if len(live) >= _TOGETHER:
                    change = Change(
                        "compact", entries=(*(entry.tombstone() for entry in live), entry)
                    )
                    live.clear()
                else:
                    live.append(entry)
                publish(store, "main", lambda *_, change=change: change)
                if number % manifest.FAN == 0:
                    run_maintenance(store, "main")

    return lakes.kept(f"history-{count}", make)


def _entries(store: Store, count: int) -> Iterator[SegmentEntry]:
    for number in range(count):
        entry = _entry(number)
        os.close(disk.create(store.paths.object("segments", entry.key)))
        yield entry


def _entry(number: int) -> SegmentEntry:
    since = _START + number * 1_000_000
    return SegmentEntry(
        disk.random_hex(32),
        bytes=0,
        kind="events",
        events=4,
        layout="arrival",
        time=(since, since + 900_000),
        types={"A": 2, "B": 2},
        sources={"app": 4},
        levels={"info": 4},
        subject=("a", "z"),
    )
