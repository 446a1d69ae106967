"""A small lake with every kind of file, and ways to damage one file of it and put it back."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import lakelog
from lakelog import database
from lakelog.entries.entry import Record
from lakelog.errors import Damaged
from lakelog.history import thinning
from lakelog.maintain.repair.repair import RepairOutcome, repair
from lakelog.maintain.repair.verify import Report, open_for_check, verify
from lakelog.moves.publication import Change, publish
from tests.support import lakes

END_BYTES = 24
Rows = tuple[list[Any], list[Any], int]
_stamps = iter(range(1, 1 << 60))


def build(path: str) -> None:
    """Make a lake that has every kind of file, at rest: nobody writes it any more."""
    with lakes.opened(path, history_days=0, threads=1) as lake, lakes.opened(path) as other:
        other.append(lakes.events("A", 6, id=None))
        lake.append([{"type": "ID", "id": f"i{i}"} for i in range(8)])
        lake.tag("v1", message="the first")
        lake.append([{"type": "ID", "id": f"j{i}"} for i in range(4)])
        lake.quarantine([("a.log", 7, "not JSON", "{oops")])
        lake.compact()
        entries = tuple(Record("artifact", f"a{i}", {}) for i in range(20))
        publish(lake.store, "main", lambda *_: Change("ingest", entries=entries))
        lakes.tiny_segment(lake, "ORPHAN")
        with mock.patch.object(thinning, "UNPACKED", 2):
            assert lake.gc().packed
        lake.append(lakes.events("B", 3))
        lake.settle()
        other.quarantine([("b.log", 9, "no type", "{}")])
        other.append([{"type": "ID", "id": "i3"}, {"type": "ID", "id": "k1"}])
    tails(path)


def tails(path: str) -> None:
    """Leave WALs with unsealed frames: one of two files, one that ends without END."""
    with lakes.opened(path) as lake:
        lake.append(lakes.events("TAIL", 3))
        lake.append([{"type": "ID", "id": "k1"}, {"type": "ID", "id": "j2"}])
        lake.append(lakes.events("TAIL", 2, 3))
        lake.writer()._rotate()
        lake.append(lakes.events("TAIL", 2, 5))
        lake.append(lakes.events("TAIL", 2, 7))
        name = lake.writer().name
    last = f"{path}/wal/main/{name}-000001.jsonl.zst"
    os.truncate(last, os.path.getsize(last) - END_BYTES)
    with lakelog.open(path) as lake:
        lake.sql("SELECT * FROM events").fetchall()
    for folder in Path(path).glob("[sim]*/[0-9a-f][0-9a-f]"):
        with contextlib.suppress(OSError):
            folder.rmdir()  # hundreds of empty folders only cost time, and may be missing


def files(path: str) -> list[str]:
    """Every file of a lake that has bytes, relative to it, but cache/clock: that has no sum."""
    every = (os.path.join(folder, n) for folder, _, names in os.walk(path) for n in names)
    found = sorted(os.path.relpath(f, path) for f in every if os.path.getsize(f))
    return [name for name in found if name != "cache/clock"]


def kind_of(name: str) -> str:
    """What kind of file a path of a lake is."""
    parts = name.split("/")
    if name.startswith("refs/heads"):
        return {"h": "hint", "p": "packed"}.get(parts[-1][0], "move")
    if name.startswith("cache/words/"):
        return "words"
    if parts[0] in ("gc", "cache"):
        return parts[-1].split(".")[0]
    return parts[1] if parts[0] == "refs" else parts[0]


_ID = 8
"""Where a row of events has its id."""


def read(path: str) -> Rows:
    """Read everything that verifies, as a new process would: events, quarantine and count."""
    with lakelog.open(path, create=False) as lake:
        events = lake.sql("SELECT * FROM events").fetchall()
        bad = lake.sql("SELECT * FROM quarantine").fetchall()
        return sorted(events, key=repr), sorted(bad, key=repr), lake.count()


def checked(path: str) -> Report:
    """Verify a lake whatever is damaged in it."""
    store, first = open_for_check(path)
    return verify(store, problem=first)


def outcome(path: str) -> Rows | Damaged:
    """Read everything, or return the named error."""
    try:
        return read(path)
    except Damaged as error:
        return error


def is_right(found: Rows | Damaged, right: Rows) -> bool:
    """Whether a reading is the right one or a named error."""
    return isinstance(found, Damaged) or found == right


def were_there(found: Rows, right: Rows) -> bool:
    """Whether each row was appended: it is a right one, or one of the same id as a right one that
    is lost, for an id that was given twice is shown once."""
    # But for the last column, `seq`: without the rows of a lost frame the tail is numbered anew.
    there, wanted = ([row[:-1] for row in rows[0]] for rows in (found, right))
    lost = {row[_ID] for row in wanted if row not in there}
    events = all(row in wanted or (row[_ID] and row[_ID] in lost) for row in there)
    return events and all(row in right[1] for row in found[1])


@contextlib.contextmanager
def changed(path: str, name: str, data: bytes | None) -> Iterator[None]:
    """Let one file of a lake have other bytes, or be gone, for a while; then put all back."""
    file, cache = Path(path, name), Path(path, "cache/verified.jsonl")
    before, marks = file.read_bytes(), cache.read_bytes()
    try:
        if data is None:
            file.unlink()
        else:
            put(file, data)
        yield
    finally:
        put(file, before)
        put(cache, marks)


def put(file: Path, data: bytes) -> None:
    """Write in place, with a time no write had before, however coarse the clock is."""
    file.write_bytes(data)
    stamp = next(_stamps)
    os.utime(file, ns=(stamp, stamp))


def flipped(data: bytes, at: int, bit: int) -> bytes:
    """Return bytes with one bit changed."""
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def copied(path: str, to: Path) -> str:
    """Return a copy of a lake that may be damaged for good."""
    shutil.copytree(path, to)
    return str(to)


def repaired(path: str, copy: str | None = None) -> RepairOutcome:
    """Repair a lake whatever is damaged in it, as `lakelog repair` does."""
    store, first = open_for_check(path)
    bases: list[Any] = []

    def connect() -> Any:
        bases.append(database.connect(store.paths, store.settings))
        return bases[-1]

    try:
        return repair(store, connect, copy, first)
    finally:
        for base in bases:
            base.close()


def identities(rows: list[Any]) -> list[Any]:
    """What an event is known by: its id, or where it came from; seq may change in a repair."""
    return sorted((row[8] or (row[10], row[11]) for row in rows), key=repr)
