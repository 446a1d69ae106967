"""Ingest takes every row once: files known by what they hold, events by their id."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.audit.audit import audit
from lakelog.files import file_cursor
from lakelog.files.file_cursor import FileCursor
from lakelog.ingest import batch, ingest, transform
from lakelog.lines import source
from tests.support.feeds import (
    PACKED,
    assert_each_once,
    bad_lines,
    event,
    feed,
    keyed,
    numbers,
    put,
    text,
)

BANNER = text([{"type": "BANNER", "message": "x" * 5000, "time": 1}])
MakeLake = Callable[..., lakelog.Lake]


def outcome(lake: lakelog.Lake, path: str | Path, **options: Any) -> tuple[int, int, int]:
    """Ingest one file; return its new, known and quarantined lines."""
    (report,) = lake.ingest(str(path), **options).files
    assert report.error == ""
    return report.events, report.skipped, report.quarantined


def cursor(lake: lakelog.Lake) -> list[file_cursor.FileCursor]:
    """The cursors of the branch."""
    state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    return FileCursor.of_state(lake.store, state)


# --- again, grown, renamed ------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("few", [0, 10_000])
def test_again_and_grown(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: str, few: int
) -> None:
    """The same file again adds nothing; grown by one per cent it gives only what is new."""
    monkeypatch.setattr(transform, "FEW", few)
    path = tmp_path / "f.jsonl"
    put(path, PACKED[packing](feed(1000) + b"oops\n"))
    assert outcome(lake, path) == (1000, 0, 1)
    head = lake.store.refs.head("main").move
    assert outcome(lake, path) == (0, 1001, 0)
    assert lake.store.refs.head("main").move == head, "nothing new is no move"
    put(path, PACKED[packing](feed(1000) + b"oops\n" + feed(10, 1000)))
    assert outcome(lake, path) == (10, 1001, 0)
    assert outcome(lake, path) == (0, 1011, 0)
    assert_each_once(lake, 1010)
    assert len(bad_lines(lake)) == 1


@pytest.mark.parametrize("size", [3, 300])
def test_other_names_and_packings_of_one_file(
    lake: lakelog.Lake, tmp_path: Path, size: int
) -> None:
    """A file copied, moved, linked, compressed or unpacked is the same file, and goes on."""
    put(tmp_path / "f", feed(size))
    assert outcome(lake, tmp_path / "f") == (size, 0, 0)
    shutil.copy(tmp_path / "f", tmp_path / "copy")
    os.rename(tmp_path / "f", tmp_path / "f.1")
    os.symlink(tmp_path / "f.1", tmp_path / "link")
    for name in ("copy", "f.1", "link"):
        assert outcome(lake, tmp_path / name) == (0, size, 0)
    for number, packing in enumerate([*PACKED] * 2):
        put(tmp_path / "packed", PACKED[packing](feed(size + number)))
        assert outcome(lake, tmp_path / "packed")[0] == (1 if number else 0), packing
    assert_each_once(lake, size + 2 * len(PACKED) - 1)
    shared = {c.shared for c in cursor(lake) if c.shares}
    assert shared == {len(feed(size))}, "the copy that went on brought only what is new in it"


def test_the_same_events_with_ids(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Events with ids are known under another name, in another order, packed, or appended."""
    lake.append([event(n, id=f"id-{n}") for n in range(300, 330)])
    assert outcome(lake, put(tmp_path / "a", keyed(range(300)))) == (300, 0, 0)
    shuffled = list(range(330))
    random.Random(1).shuffle(shuffled)
    path = put(tmp_path / "b", PACKED["gz"](keyed(shuffled)))
    lake.settle()
    assert outcome(lake, path) == (0, 330, 0)
    lake.append([event(n, id=f"id-{n}") for n in range(330)])
    spaced = text((event(n, id=f"id-{n}") for n in shuffled), compact=False)
    assert outcome(lake, put(tmp_path / "c", spaced)) == (0, 330, 0)
    assert sorted(numbers(lake)) == list(range(330))


@pytest.mark.parametrize("few", [0, 100])
def test_ids_within_one_file(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Of one id and source in a file the first stays, across publishes; an empty id is none."""
    monkeypatch.setattr(transform, "FEW", few)
    monkeypatch.setattr(source.Source, "CHUNK", 2000)
    monkeypatch.setattr(batch, "ROWS_MAX", 30)
    lines = [event(n, id=f"{n % 50}", source=f"{n % 100 // 50}") for n in range(200)]
    lines += [event(n, id="") for n in range(200, 220)]
    assert outcome(lake, put(tmp_path / "f", text(lines))) == (120, 100, 0)
    assert sorted(numbers(lake)) == [*range(100), *range(200, 220)]


def test_equal_lines_are_events_of_their_own(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Two equal lines of a file without ids are two events."""
    assert outcome(lake, put(tmp_path / "f", text([event(0)] * 7))) == (7, 0, 0)
    assert numbers(lake) == [0] * 7


# --- rotation -------------------------------------------------------------------------------------


def test_rotation_by_rename(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Files shifted from name to name, the oldest compressed, give each line once."""
    count = 0
    for turn in range(6):
        for old in range(3, 0, -1):
            if (tmp_path / f"log.{old}").exists():
                data = (tmp_path / f"log.{old}").read_bytes()
                put(tmp_path / f"log.{old + 1}", PACKED["gz"](data) if old == 2 else data)
        if turn:
            with open(tmp_path / "log", "ab") as file:  # written after it was last read
                file.write(feed(5, count))
            count += 5
            os.rename(tmp_path / "log", tmp_path / "log.1")
        put(tmp_path / "log", feed(30, count))
        count += 30
        lake.ingest(str(tmp_path))
        assert_each_once(lake, count)


def test_truncated_and_written_anew_under_one_banner(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A file cut to nothing and begun with the same long banner is a new one, however long."""
    path = tmp_path / "f"
    for turn, more in enumerate([40, 40, 10, 200]):
        put(path, BANNER + feed(more, 1000 * turn))
        assert outcome(lake, path) == (more + 1, 0, 0)
        put(path, path.read_bytes() + feed(3, 1000 * turn + more))
        assert outcome(lake, path)[0] == 3
    count = 4 + 40 + 40 + 10 + 200 + 12
    rows = "SELECT count(*), count(DISTINCT (origin, position)) AS n FROM events"
    assert lake.sql(f"{rows} WHERE type NOT LIKE 'lakelog.%'").fetchall() == [(count, count)]


def test_files_with_equal_heads(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Files that begin alike and differ later are told apart as each grows."""
    for turn in range(3):
        for n in range(4):
            data = BANNER + b"".join(feed(5, 100 * n + 1000 * t) for t in range(turn + 1))
            assert outcome(lake, put(tmp_path / f"f{n}", data))[0] == (5 if turn else 6)
    assert sorted(n for n in numbers(lake) if n is not None) == sorted(
        100 * n + 1000 * t + i for n in range(4) for t in range(3) for i in range(5)
    )
    assert len({c.key for c in cursor(lake)}) == len({c.origin for c in cursor(lake)}) == 4


def test_a_file_that_grows_past_the_window(lake: lakelog.Lake, tmp_path: Path) -> None:
    """While a file grows from one line past 4,096 bytes it stays one file with one origin."""
    path, data = tmp_path / "f", b""
    for n in range(80):
        data += feed(1, n)
        assert outcome(lake, put(path, data)) == (1, n, 0)
        if n % 10 == 0:
            assert outcome(lake, put(tmp_path / "copy.gz", PACKED["gz"](data))) == (0, n + 1, 0)
    assert len(data) > source.Source.WINDOW
    (only,) = cursor(lake)
    assert (only.head_len, only.bytes, only.lines) == (source.Source.WINDOW, len(data), 80)
    origins = lake.sql("SELECT DISTINCT origin FROM events").fetchall()
    assert origins == [(only.origin,)]
    assert_each_once(lake, 80)


def test_a_short_file_begun_again(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A short log truncated and begun with the same line gives rows of another origin."""
    path = tmp_path / "f"
    banner = feed(1)
    for turn in range(1, 4):
        assert outcome(lake, put(path, banner))[0] == 1
        assert outcome(lake, put(path, banner + feed(2, 10 * turn)))[0] == 2
    rows = "SELECT count(*), count(DISTINCT (origin, position)) AS n FROM events"
    assert lake.sql(f"{rows} WHERE type NOT LIKE 'lakelog.%'").fetchall() == [(9, 9)]


def test_two_sources_of_equal_files(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Equal files under two sources are two files, and each goes on by itself."""
    path = tmp_path / "f"
    for grown in (10, 12):
        for name in ("web1", "web2"):
            added = 10 if grown == 10 else 2
            assert outcome(lake, put(path, feed(grown)), source=name) == (added, grown - added, 0)
    assert lake.count() == 24


# --- the last line --------------------------------------------------------------------------------

LAST = [
    # what is there first, what comes later, and whether the first part is an event by itself
    (b'{"type":"A","time":1,"data":{"n":5}}', b"", True),
    (b'{"type":"A","time":1,"data":{"n":5}}', b"\n", True),
    (b'{"type":"A","time":1,"data":{"n":5}}', b"  \r\n", True),
    (b'{"type":"A","time":1,"da', b'ta":{"n":5}}\n', False),
    (b'{"type":"A","time":1,"message":"\xc5', b'\xa1","data":{"n":5}}\n', False),
    (b'{"type":"A","time":1,"data":{"n":5}} ', b"\n", True),
]


@pytest.mark.matrix
@pytest.mark.parametrize("packing", ["plain", "gz", "zst"])
@pytest.mark.parametrize(("first", "then", "whole"), LAST)
@pytest.mark.parametrize("before", [0, 3])
def test_a_last_line_without_newline(
    lake: lakelog.Lake,
    tmp_path: Path,
    first: bytes,
    then: bytes,
    whole: bool,
    before: int,
    packing: str,
) -> None:
    """A good one is taken. One that is no event stands in quarantine once nobody writes to its
    file, and becomes one event with its rest if that comes."""
    path, pack = tmp_path / "f", PACKED[packing]
    report = lake.ingest(put(path, pack(feed(before, 10) + first))).files[0]
    assert (report.events, report.quarantined, report.error) == (before + whole, 1 - whole, "")
    assert (report.left, len(bad_lines(lake))) == (0, 1 - whole)
    again = lake.ingest(str(path)).files[0]
    assert (again.events, again.quarantined) == (0, 0), "it is quarantined once"
    assert audit(lake.store, "main", lake.engine, [str(path)]).wrong == []
    later = lake.ingest(put(path, pack(feed(before, 10) + first + then + feed(1, 20)))).files[0]
    assert (later.events, later.quarantined, later.left) == (2 - whole, 0, 0)
    assert sorted(numbers(lake)) == [5, *range(10, 10 + before), 20]
    assert bad_lines(lake) == []
    assert audit(lake.store, "main", lake.engine, [str(path)]).wrong == []


def test_the_rest_of_a_last_line_replaces_that_alone(lake: lakelog.Lake, tmp_path: Path) -> None:
    """What else is published stays, of the file and of others."""
    lake.append({"type": "B"})
    path, line = tmp_path / "f", b'{"type":"A","time":1,"data":{"n":9}}\n'
    assert outcome(lake, put(path, feed(3) + line[:15])) == (3, 0, 1)
    other = b"no event\n"
    assert outcome(lake, put(tmp_path / "other.jsonl", feed(2) + other))[2] == 1
    assert outcome(lake, put(path, feed(3) + line))[0] == 1
    assert lake.count() == 1 + 3 + 2 + 1
    assert len(bad_lines(lake)) == 1


def test_a_last_line_that_is_being_written(lake: lakelog.Lake, tmp_path: Path) -> None:
    """As long as somebody has the file open for writing, an unfinished line is left and said."""
    path = tmp_path / "f"
    with open(path, "wb", buffering=0) as writer:
        writer.write(feed(3) + b'{"type":"A","ti')
        report = lake.ingest(str(path)).files[0]
        assert (report.events, report.quarantined, report.left) == (3, 0, 15)
        writer.write(b'me":1,"data":{"n":9}}\n')
    assert outcome(lake, path)[0] == 1
    assert numbers(lake) == [0, 1, 2, 9]
    assert bad_lines(lake) == []


def test_the_last_line_of_other_formats(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Digits may go on, and an action waits for its document."""
    line = b"2026-05-01T12:00:00|A|||x|"
    path = tmp_path / "oos"
    writers = [open(tmp_path / name, "ab") for name in ("oos", "bulk")]  # noqa: SIM115
    for last, events in ((b"", 0), (b"1", 0), (b"12\n", 1), (b'12\n{"n":3}', 1)):
        data = line + b"7\n" + line + last.replace(b"{", line + b"{")
        assert outcome(lake, put(path, data))[0] == events + (last == b"")
    found = lake.sql("SELECT data FROM events ORDER BY position").fetchall()
    assert found == [("7",), ("12",), ('{"n":3}',)]
    path, pair = tmp_path / "bulk", b'{"index":{"_index":"i"}}\n{"n":1}\n'
    whole = len(pair)
    for size, events in ((whole - 3, 0), (whole - 1, 1), (whole + 10, 0), (2 * whole, 1)):
        assert outcome(lake, put(path, (pair * 2)[:size]))[0] == events
    assert outcome(lake, put(path, pair * 2 + pair[:-1]))[0] == 1
    assert outcome(lake, path)[::2] == (0, 0)
    for writer in writers:
        writer.close()


# --- many files, other moves ----------------------------------------------------------------------


def test_many_small_files(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of files in one run: each once, runs of ids merged on the way, none kept twice."""
    monkeypatch.setattr(ingest, "_MAINTAIN_EVERY", 8)
    for n in range(60):
        put(tmp_path / f"{n:03}.jsonl", text([event(n, id=f"{n}"), event(n, id=f"{n}")]))
    report = lake.ingest(f"{tmp_path}/*.jsonl")
    assert (report.events, report.skipped) == (60, 60)
    state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
    assert len(state.ids) < 16
    again = lake.ingest(f"{tmp_path}/*.jsonl")
    assert (again.events, again.skipped) == (0, 120)
    assert_each_once(lake, 60)


def test_branches_have_their_own_cursors(make_lake: MakeLake, tmp_path: Path) -> None:
    """A branch starts with the cursors of its beginning and goes on by itself."""
    lake = make_lake()
    path = tmp_path / "f"
    lake.ingest(put(path, feed(10)))
    other = lake.branch("other")
    put(path, feed(15))
    assert [outcome(at, path)[0] for at in (lake, other, lake, other)] == [5, 5, 0, 0]
    assert_each_once(lake, 15)
    assert_each_once(other, 15)
    other.close()


@pytest.mark.parametrize("keep", [False, True])
def test_rollback_and_cursors(lake: lakelog.Lake, tmp_path: Path, keep: bool) -> None:
    """After a rollback the file comes again, each row once; with its cursors kept it does not."""
    path, data = tmp_path / "f.jsonl", feed(20)
    lake.ingest(put(path, data + b"oops\n"))
    lake.tag("v1")
    lake.ingest(put(path, data + b"oops\n" + feed(30, 20) + b"{oops\n"))
    lake.ingest(put(tmp_path / "g", keyed(range(50, 60))))
    assert_each_once(lake, 60)
    lake.rollback("v1", cursors=not keep)
    assert_each_once(lake, 20)
    assert outcome(lake, path) == ((0, 52, 0) if keep else (30, 21, 1))
    assert outcome(lake, tmp_path / "g") == ((0, 10, 0) if keep else (10, 0, 0))
    assert_each_once(lake, 20 if keep else 60)
    assert len(bad_lines(lake)) == (1 if keep else 2)
    lake.undo(force=True)
    assert_each_once(lake, 60)
    assert outcome(lake, path) == (0, 52, 0)


def test_a_cursor_kept_over_growth_and_rollback(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A short file that grew past a rollback with kept cursors is known by its newest cursor."""
    path = tmp_path / "f"
    lake.ingest(put(path, feed(1)))
    lake.tag("v1")
    lake.ingest(put(path, feed(5)))
    lake.rollback("v1", cursors=False)
    assert outcome(lake, path) == (0, 5, 0)
    assert outcome(lake, put(path, feed(7)))[0] == 2
    assert sorted(numbers(lake)) == [0, 5, 6]


def test_compaction_between_ingests(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Compacted rows are still known by cursor and by id, and keep their places."""
    for turn in range(4):
        lake.ingest(put(tmp_path / "f", feed(10 * (turn + 1))))
        lake.ingest(put(tmp_path / f"g{turn}", keyed(range(100, 110 + turn))))
        lake.compact()
    assert sorted(numbers(lake)) == [*range(40), *range(100, 113)]
    places = lake.sql("SELECT count(DISTINCT (origin, position)) AS n FROM events").fetchall()
    assert places == [(53,)]


@pytest.mark.parametrize("seen", [0, 1, 40, 4000])
def test_a_file_that_grows_between_its_head_and_its_lines(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: int
) -> None:
    """What is written after a file's beginning was looked at is taken in once, not twice."""
    lines = b"".join(b'{"type":"T","subject":"s%d"}\n' % n for n in range(500))
    path = tmp_path / "f"
    path.write_bytes(lines[:seen])
    real, calls = source.Source.read, [0]

    def read(self: source.Source, size: int) -> bytes:
        data = real(self, size)
        calls[0] += 1
        if calls[0] == 1:
            path.write_bytes(lines)
        return data

    monkeypatch.setattr(source.Source, "read", read)
    for _ in range(3):
        lake.ingest(str(path))
    found = lake.sql("SELECT count(*), count(DISTINCT subject) FROM events").fetchall()
    assert found == [(500, 500)]
