"""Lakes of every kind for the tests of the format, each built by one small function.

A function takes an empty path and leaves a lake at rest there; it returns what can be read in it:
(branch, "") for a branch with its tail, ("", tag) for a tag. ALL names them.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa

import lakelog
from lakelog.disk import disk
from lakelog.entries.entry import Record, Removal, SegmentEntry
from lakelog.moves.publication import Change, publish, run_maintenance
from lakelog.segments import segment
from tests.support.scratch import memory

Refs = list[tuple[str, str]]
REFS: dict[Callable[[str], object], Any] = {}
"""What each builder of a lake at rest returned."""
MAIN: Refs = [("main", "")]
EXOTIC: list[dict[str, Any]] = [
    {"type": "TEXT", "message": 'a,"data":{"b":1} "quotes" \\ / \n\t', "data": {"x": ',"data":'}},
    {"type": "UNICODE", "subject": "čeština 🎙 \u2028", "source": "ď", "data": ["ž", "\U0001f600"]},
    {"type": "NUL", "message": "a\0b", "data": {"nul": "\0"}},
    {"type": "BIG", "data": {"n": 2**63, "m": -(2**63), "long": 10**40, "pi": 3.141592653589793}},
    {"type": "LONG", "data": "x" * 5000, "message": "m" * 100, "subject": "s" * 80},
    {"type": "OLD", "time": "0001-01-01T00:00:00Z"},
    {"type": "NEW", "time": "9999-12-31T23:59:59.999999Z"},
    {"type": "ZONE", "time": "2026-05-01T12:00:00+02:00", "level": "warning"},
    {"timestamp": "2026-05-01T10:00:00.5Z", "event_type": "ALIAS", "item_id": "i", "data": None},
    {"ts": 1777630000, "type": "EPOCH", "content_type": "podcast", "extra": {"kept": True}},
    {"type": "NULLS", "data": {"null": None, "list": [None, 1.5e300, True]}, "level": None},
    {"type": "FLAT", "data": 7},
    {"type": "FALSE", "data": False},
    {"type": "EMPTY", "data": ""},
    {"type": "NO ID", "id": ""},
    {"type": "NO ID", "id": ""},
    {"type": "ID", "id": "given"},
]


def opened(path: str, **settings: object) -> lakelog.Lake:
    """Open a lake that seals only when told to."""
    return lakelog.open(path, settings={"seal": "never", **settings})


def on_host(name: str) -> contextlib.AbstractContextManager[object]:
    """Let this machine have another name."""
    return mock.patch.object(os, "uname", return_value=types.SimpleNamespace(nodename=name))


def events(name: str, count: int, start: int = 0, **columns: Any) -> list[dict[str, Any]]:
    """Return events that differ, a minute apart."""
    return [
        {"time": 1_770_000_000 + 60 * i, "type": name, "source": f"s{i % 3}", "data": {"n": i}}
        | columns
        for i in range(start, start + count)
    ]


def empty(path: str) -> Refs:
    opened(path).close()
    return MAIN


def plain(path: str) -> Refs:
    with opened(path) as lake:
        for i in range(3):
            lake.append(events("PLAIN", 4, 4 * i))
        lake.append(EXOTIC)
    return MAIN


def sealed(path: str) -> Refs:
    with opened(path) as lake:
        lake.append(EXOTIC)
        lake.settle()
        lake.append(events("LATER", 3))
        lake.tag("v1")
        lake.append(EXOTIC[:4])
    return [*MAIN, ("", "v1")]


def ids(path: str) -> Refs:
    """Ids given twice: in one batch, in the tail, across writers and seals, under two sources."""
    with opened(path) as a, opened(path) as b:
        a.append([{"type": "A", "id": "1"}, {"type": "B", "id": "1"}, {"type": "C", "id": "2"}])
        a.settle()
        b.append([{"type": "D", "id": "1"}, {"type": "E", "id": "3"}, {"type": "F"}])
        a.append([{"type": "G", "id": "3"}, {"type": "H", "id": "3", "source": "other"}])
        a.tag("v1")
        b.append([{"type": "I", "id": "2"}, {"type": "J", "id": "4"}, {"type": "K", "id": ""}])
        a.append([{"type": "L", "id": "4"}, {"type": "M", "id": ""}, {"type": "N", "id": "4"}])
    return [*MAIN, ("", "v1")]


def content(path: str) -> Refs:
    with opened(path) as lake:
        lake.append(events("X", 3), dedupe="content")
        lake.append(events("X", 5), dedupe="content")
        lake.settle()
        lake.append(events("X", 7), dedupe="content")
        lake.append(events("X", 2))
        lake.append([{"type": "NOW"}, {"type": "NOW"}], dedupe="content")
    return MAIN


def writers(path: str) -> Refs:
    """Writers that rotate at every frame, some sealed, trimmed and gone, one idle in between."""
    handles = [opened(path, rotate_events=1) for _ in range(4)]
    for turn in range(3):
        for i, handle in enumerate(handles[turn:]):
            handle.append(events(f"W{i}", 2, 10 * turn))
        handles[3].settle()
        handles[3].append({"type": "BETWEEN"})
    handles[0].append(events("IDLE", 3))
    for handle in handles:
        handle.close()
    return MAIN


def compacted(path: str) -> Refs:
    with opened(path) as lake:
        for i in range(5):
            lake.append(events("T", 4, i))
            lake.settle()
        lake.tag("before")
        lake.compact()
        lake.append(events("U", 3))
        lake.tag("after")
        lake.append(events("V", 3))
    return [*MAIN, ("", "before"), ("", "after")]


def rewound(path: str) -> Refs:
    with opened(path) as lake:
        lake.append({"type": "KEPT", "id": "k"})
        lake.tag("v1")
        lake.append([{"type": "GONE", "id": "g"}, {"type": "GONE"}])
        lake.rollback("v1")
        lake.append([{"type": "AGAIN", "id": "g"}, {"type": "AGAIN", "id": "k"}])
        lake.tag("v2")
        lake.undo(force=True)
        lake.append([{"type": "AFTER", "id": "g"}])
        lake.tag("v3")
        lake.append([{"type": "TAIL"}])
    return [*MAIN, ("", "v1"), ("", "v2"), ("", "v3")]


def branches(path: str) -> Refs:
    """Branches and tags with names of every kind; one branch deleted and made again."""
    names = ["Übung/ä", "UPPER", ".dot", "a%b", "x" * 60]
    with opened(path) as lake:
        lake.append(events("ROOT", 3, id="same"))
        for i, name in enumerate(names):
            with lake.branch(name) as other:
                other.append(events(f"B{i}", i + 1))
                other.tag(f"tag {name}")
                other.append({"type": "B", "id": "same"})
        with lake.branch("gone") as other:
            other.append(events("G", 2))
        with lakelog.open(path, branch="gone", settings={"seal": "never"}) as other:
            lakelog.history.delete_branch(lake.store, "gone", other.settle)
        with lake.branch("gone") as other:
            other.append({"type": "BACK"})
        lake.append(events("ROOT", 2))
    return [*MAIN, ("gone", ""), *((n, "") for n in names), *(("", f"tag {n}") for n in names)]


def retained(path: str) -> Refs:
    with opened(path) as lake:
        for year in (2020, 2022, 2024):
            lake.append([{"type": f"Y{year}", "time": f"{year}-{m:02d}-01"} for m in range(1, 13)])
            lake.settle()
        lake.append([{"type": "MIXED", "time": f"{y}-06-01"} for y in range(2018, 2027)])
        lake.tag("all")
        line = lakelog.values.parse_time("2022-06-15")
        age = disk.now_us() - lakelog.values.to_micros(line)
        lake.retention(f"{age}us", apply=True)
        lake.append(events("LATER", 2))
    return [*MAIN, ("", "all")]


def quarantined(path: str) -> Refs:
    with opened(path) as lake:
        lake.quarantine(
            [("a.log", 0, "not JSON", "{oops"), ("a.log", 9, "no type", '{"a":"\\u00e9"}')]
        )
        lake.append(events("GOOD", 2))
        lake.settle()
        lake.quarantine([("b.log", 5, "not UTF-8", "\ufffd\0x")])
        lake.append(events("GOOD", 2))
    return MAIN


def packed(path: str) -> Refs:
    """More moves than stay unpacked, the oldest folded by gc."""
    with opened(path, history_days=0, gc_grace_hours=0) as lake:
        lake.append(events("FIRST", 3))
        lake.tag("first")
        for i in range(230):
            publish(lake.store, "main", lambda *_, i=i: Change("snapshot", f"number {i}"))
        lake.append(events("LAST", 3))
        assert lake.gc().packed > 100
    return [*MAIN, ("", "first")]


def paged(path: str) -> Refs:
    """Pages of all three levels: hundreds of tiny segments, thousands of other entries."""
    with opened(path) as lake:
        for turn in range(90):
            fresh = [tiny_segment(lake, f"P{turn}-{i}") for i in range(4)]
            other = [Record("artifact", f"a{turn}-{i}", {}) for i in range(44)]
            gone = [Removal("artifact", f"a{turn - 1}-0")] if turn else []
            change = Change("ingest", entries=(*gone, *other, *fresh))
            publish(lake.store, "main", lambda *_, change=change: change)
            run_maintenance(lake.store, "main")
        lake.tag("pages")
        lake.append(events("TAIL", 3))
        lake.compact()
    return [*MAIN, ("", "pages")]


def doubtful(path: str) -> Refs:
    """Appends that failed twice: one frame is there and one is not, both under doubtful numbers."""
    with opened(path) as lake:
        lake.append(events("FIRST", 2))
        with failing("sync_file", 2), contextlib.suppress(OSError):
            lake.append(events("WRITTEN", 2))
        lake.append(events("SECOND", 2))
        with failing("write_all", 2), contextlib.suppress(OSError):
            lake.append(events("ABSENT", 2))
        lake.append(events("THIRD", 2))
        with failing("sync_file", 1):
            lake.append(events("RETRIED", 2))
        lake.append(events("FOURTH", 2))
    return MAIN


def torn(path: str) -> Refs:
    """A writer that died in the middle of its last frame."""
    with opened(path) as lake:
        lake.append(events("WHOLE", 3))
        lake.append(events("TORN", 3))
    folder = f"{path}/wal/main"
    (name,) = os.listdir(folder)
    os.truncate(f"{folder}/{name}", os.path.getsize(f"{folder}/{name}") - 40)
    return MAIN


ALL: dict[str, Callable[[str], Refs]] = {
    build.__name__: build
    for build in (
        empty,
        plain,
        sealed,
        ids,
        content,
        writers,
        compacted,
        rewound,
        branches,
        retained,
        quarantined,
        packed,
        paged,
        doubtful,
        torn,
    )
}


@functools.cache
def at_rest(build: Callable[[str], object]) -> Path:
    """Return a lake built once for all tests of this process; copy it to change it."""
    folder = tempfile.mkdtemp(prefix="lakelog-", dir=memory())
    atexit.register(shutil.rmtree, folder, True)
    REFS[build] = build(f"{folder}/lake")
    return Path(folder, "lake")


def copied(build: Callable[[str], object], home: Path) -> str:
    """Copy a lake that is built once for all tests of this process; return its path."""
    return str(shutil.copytree(at_rest(build), home / "lake"))


def tiny_segment(lake: lakelog.Lake, name: str) -> SegmentEntry:
    """Write a segment of one event and return its entry."""
    names, row = segment.segment_schema().names, dict.fromkeys(segment.segment_schema().names)
    row |= {"time": 1_770_000_000_000_000, "ingested_at": 1_770_000_000_000_000, "type": name}
    table = pa.table({n: [row[n]] for n in names}).cast(segment.segment_schema())
    commit = disk.random_hex()
    return segment.write_segment(
        lake.store.paths, table, kind="events", layout="arrival", commit=commit
    )


@contextlib.contextmanager
def failing(call: str, times: int) -> Iterator[None]:
    """Let the next calls of one function of the disk fail, as a full disk does."""
    real, left = getattr(disk, call), [times]

    def fail(*arguments: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(28, "no space left on device")
        return real(*arguments)

    with mock.patch.object(disk, call, fail):
        yield
