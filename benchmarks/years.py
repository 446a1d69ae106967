"""What a lake costs after years: by what is alive in it, not by what has been."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import lakelog
from benchmarks import lakes
from benchmarks.measure import Scale, child, directory, seconds
from benchmarks.report import Row, Target
from lakelog.settings import parse
from lakelog.store import disk, manifest, opening
from lakelog.store.manifest import Entry
from lakelog.store.opening import Store
from lakelog.store.publish import Change, grow, publish, run_maintenance

_TOGETHER = 256
_LIVE, _STEP = 8_100, 4_096
_START = 1_767_225_600_000_000
_MARK = """
from lakelog.store import disk, gc, opening
store = opening.load(sys.argv[1])
result = len(gc.Marking(store, disk.now_us()).live)
"""


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
            store.manifests.entries(state)
            runs = range(scale.rounds)
            taken.append([seconds(partial(store.manifests.entries, state)) * 1000 for _ in runs])
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
        rows.append(Row(f"query, {count:,} idle {what}", "ms", *figures,
                        target=Target("<=", 5, "figure")))  # fmt: skip
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
    live: list[Entry] = []
    for first in range(0, count, _STEP):
        fresh = [_entry(first + n) for n in range(_STEP // 2 if len(live) >= _LIVE else _STEP)]
        old, live = live[: len(live) + len(fresh) - _LIVE], [*live, *fresh][-_LIVE:]
        for change in (
            Change("compact", entries=(*map(manifest.removal, old), *fresh)),
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
        store = opening.create(str(root), parse(settings))
        live: list[Entry] = []
        with lakes.unsynced():
            for number, entry in enumerate(_entries(store, count)):
                change = Change("seal", entries=(entry,))
                if len(live) >= _TOGETHER:
                    change = Change("compact", entries=(*map(manifest.removal, live), entry))
                    live.clear()
                else:
                    live.append(entry)
                publish(store, "main", lambda *_, change=change: change)
                if number % manifest.FAN == 0:
                    run_maintenance(store, "main")

    return lakes.kept(f"history-{count}", make)


def _entries(store: Store, count: int) -> Iterator[Entry]:
    for number in range(count):
        entry = _entry(number)
        os.close(disk.create(store.layout.object("segments", entry["key"])))
        yield entry


def _entry(number: int) -> Entry:
    since = _START + number * 1_000_000
    return {
        "add": "segment", "key": disk.random_hex(32), "bytes": 0, "kind": "events", "events": 4,
        "layout": "arrival", "time": [since, since + 900_000], "types": {"A": 2, "B": 2},
        "sources": {"app": 4}, "levels": {"info": 4}, "subject": ["a", "z"],
    }  # fmt: skip
