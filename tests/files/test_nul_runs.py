"""Holes of NULs: skipped and counted, wherever they are, and no line is lost or torn for them."""

from __future__ import annotations

import gzip
import itertools
import os
import random
from collections import Counter
from pathlib import Path

import pytest

import lakelog
from lakelog.audit.audit import audit
from lakelog.collect import turns, watch
from lakelog.ingest import group
from lakelog.lines import pieces, source
from lakelog.lines.pieces import Chunk, Hole, Overlong, Pause
from lakelog.lines.source import Source
from tests.support.watching import Place, Watched, stored

LINE = b'{"type":"T","n":%d}\n'
TEXT = b"2024-01-02 03:04:05 INFO a.b: text %d\n  and more\n"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of some lines, so that holes are longer than one."""
    monkeypatch.setattr(source.Source, "CHUNK", 400)
    monkeypatch.setattr(source, "_NEAR", 16)
    monkeypatch.setattr(source, "HOLE", 64)
    monkeypatch.setattr(source, "_HOLE_END", bytes(64))


def proven(lake: lakelog.Lake, path: Path) -> None:
    """The audit finds each line of a file once."""
    (file,) = audit(lake.store, lake.branch_name, lake.engine, [str(path)]).files
    assert not file.wrong, file
    assert not file.error


def events(lake: lakelog.Lake) -> list[tuple[int, str | None]]:
    """Where each event stands and what it says."""
    query = "SELECT position, coalesce(message, data) FROM events WHERE origin IS NOT NULL"
    rows: list[tuple[int, str | None]] = lake.sql(f"{query} ORDER BY position").fetchall()
    return rows


def test_after_a_line_of_nuls_alone_the_next_line_begins(
    lake: lakelog.Lake, tmp_path: Path
) -> None:
    """What is left of such a line is no beginning: the record stands where its own line does."""
    path = tmp_path / "a.log"
    path.write_bytes(TEXT % 0 + b"\0\0\n" + b"  of nothing\n" + TEXT % 1)
    lake.ingest(str(path))
    head = len(TEXT % 0)
    assert [at for at, _ in events(lake)] == [0, head + 3, head + 16]
    proven(lake, path)


@pytest.mark.matrix
@pytest.mark.parametrize("form", [LINE, TEXT])
@pytest.mark.parametrize("length", [2, 4096, 70_000, 3_000_000])
@pytest.mark.parametrize("packed", [False, True])
def test_a_hole_before_the_first_line(
    lake: lakelog.Lake, tmp_path: Path, form: bytes, length: int, packed: bool
) -> None:
    """A file that begins with NULs gives its lines at their own places, and none to quarantine."""
    data = b"\0" * length + b"".join(form % n for n in range(30))
    path = tmp_path / "a.log"
    path.write_bytes(gzip.compress(data) if packed else data)
    report = lake.ingest(str(path))
    assert (report.events, report.quarantined, report.files[0].nuls) == (30, 0, length)
    assert events(lake)[0][0] == length
    assert lake.ingest(str(path)).events == 0
    proven(lake, path)


@pytest.mark.matrix
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("form", [LINE, TEXT])
@pytest.mark.parametrize("length", [16, 63, 64, 65, 399, 400, 401, 5000])
def test_a_hole_within_a_line(lake: lakelog.Lake, tmp_path: Path, form: bytes, length: int) -> None:
    """What is before a hole is a line that ends there, what is behind it begins one."""
    for start in range(380, 420, 7):
        data = (form % 1 * 50)[:start] + b"\0" * length + b"".join(form % n for n in range(20))
        path = tmp_path / f"{start}.log"
        path.write_bytes(data)
        report = lake.ingest(str(path))
        assert report.files[0].nuls == length
        proven(lake, path)
        query = "SELECT count(*) FROM events WHERE origin = (SELECT max(origin) FROM events)"
        assert lake.sql(query).fetchall()[0][0] > 0
    places = {place for place, _ in events(lake)}
    assert {start + length for start in range(380, 420, 7)} <= places


@pytest.mark.matrix
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(40))
def test_holes_anywhere(lake: lakelog.Lake, tmp_path: Path, seed: int) -> None:
    """However a file of lines and holes grows and is read, each line between is there once."""
    dice, path, wanted = random.Random(seed), tmp_path / "a.log", Counter[str]()
    form = dice.choice([LINE, TEXT])
    path.touch()
    for n in range(dice.randint(3, 30)):
        with open(path, "ab") as file:
            if dice.random() < 0.4:
                file.write(b"\0" * dice.choice([2, 16, 50, 64, 65, 300, 400, 1000, 3000]))
            for line in range(dice.randint(1, 9)):
                file.write(form % (100 * n + line))
                wanted[str(100 * n + line)] += 1
        if dice.random() < 0.5:
            lake.ingest(str(path))
    report = lake.ingest(str(path))
    assert report.quarantined == 0
    what = "string_split(message, chr(10))[1]" if form is TEXT else "data"
    query = f"SELECT regexp_extract({what}, '(\\d+)[^0-9]*$', 1) FROM events"
    assert Counter(text for (text,) in lake.sql(query).fetchall()) == wanted
    proven(lake, path)


@pytest.mark.usefixtures("small")
def test_pieces_do_not_depend_on_what_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any bytes, the lines, the parts of overlong ones and the NULs are the same for every size
    of chunk, and together they are the file."""
    monkeypatch.setattr(source.Source, "LINE_MAX", 900)
    monkeypatch.setattr(source.Source, "PART", 200)
    path = tmp_path / "f"
    for seed in range(60):
        dice = random.Random(seed)
        parts = (
            dice.choice(
                [
                    b"x\n",
                    b"\n",
                    b"\0",
                    b"\0" * 2,
                    b"\0" * 16,
                    b"y" * dice.randint(1, 2000),
                    b"\0" * dice.randint(1, 1500),
                    "ž".encode() * dice.randint(1, 300),
                ]
            )
            for _ in range(dice.randint(1, 30))
        )
        data = b"".join(parts)
        path.write_bytes(data)
        seen = []
        for size in (64, 100, 333, 400, 800):
            monkeypatch.setattr(source.Source, "CHUNK", size)
            file = Source(str(path))
            pieces = list(file.pieces(0))
            file.close()
            starts = [piece.base for piece in pieces] + [len(data)]
            assert [p.base + p.length for p in pieces] == starts[1:]
            seen.append([line for piece in pieces for line in lines_of(piece)])
        assert all(lines == seen[0] for lines in seen), seed


def lines_of(piece: pieces.Piece) -> list[tuple[int, bytes]]:
    """Where the lines of a piece are that are not blank."""
    if isinstance(piece, Hole | Pause):
        return []
    if isinstance(piece, Overlong):
        return [(piece.base, piece.data)]
    assert isinstance(piece, Chunk)
    starts = piece.lines[1].tolist()
    texts = [piece.text[a:b] for a, b in itertools.pairwise(starts)]
    places = zip(starts, texts, strict=False)
    return [(piece.base + at, text.strip()) for at, text in places if text.strip()]


def test_a_file_that_is_mostly_holes_is_text(lake: lakelog.Lake, tmp_path: Path) -> None:
    """What a power cut leaves in the blocks of a log makes it no binary file."""
    path = tmp_path / "a.log"
    path.write_bytes(LINE % 1 + LINE[:9] + b"\0" * 4000 + LINE % 2 + LINE % 3)
    report = lake.ingest(str(path))
    assert (report.events, report.files[0].nuls, report.files[0].error) == (3, 4000, "")
    proven(lake, path)


def test_nuls_at_the_end_wait(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Room at the end of a file, which its writer fills later, is not skipped before."""
    path = tmp_path / "a.log"
    before = b"".join(LINE % n for n in range(300))
    path.write_bytes(before + LINE[:5] + b"\0" * 5000)
    report = lake.ingest(str(path))
    assert (report.events, report.quarantined) == (300, 0)
    assert report.files[0].left >= 5000
    with open(path, "r+b") as file:
        file.seek(len(before))
        file.write(LINE % 2 + LINE % 3)
    report = lake.ingest(str(path))
    assert (report.events, report.quarantined, report.files[0].nuls) == (2, 0, 0)
    with open(path, "ab") as file:
        file.write(LINE % 4)
    report = lake.ingest(str(path))
    assert (report.events, report.quarantined) == (1, 0)
    assert report.files[0].nuls == 5000 + 5 - len(LINE % 2 + LINE % 3)
    proven(lake, path)


@pytest.mark.parametrize("final", [False, True])
def test_a_watched_file_that_ends_in_nuls_is_read_to_its_end(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, final: bool
) -> None:
    """Room at the end of a log keeps no watcher busy; what is written there later is read."""
    monkeypatch.setattr(watch, "STABLE", -1.0)
    place = Place(tmp_path / "logs")
    place.write("a.log", 5)
    size = (place.root / "a.log").stat().st_size
    place.end("a.log", b"\0" * 3000)
    with Watched(lake, place) as watcher:
        for _ in range(4):
            watcher.round(final=final)
        assert not watcher.is_behind
        assert not watcher.has_open_ends
        with open(place.root / "a.log", "r+b") as file:
            file.seek(size)
            place.written.append("e5")
            file.write(b'{"type":"T","subject":"e5"}\n')
        watcher.round(final=final)
        assert watcher.totals.nuls == 0
    assert stored(lake) == Counter(place.written)


def test_a_sparse_file_as_large_as_a_disk_is_read_at_once(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of bytes that nobody wrote none is read: the lines around them are there in three rounds,
    and so are those of other files."""
    monkeypatch.setattr(watch, "STABLE", -1.0)
    place, size = Place(tmp_path / "logs"), 300 << 30
    place.write("a.log", 5)
    os.truncate(place.root / "a.log", size)
    place.write("a.log", 5)
    place.write("b.log", 5)
    os.truncate(place.root / "b.log", size)
    place.write("c.log", 5)
    with Watched(lake, place) as watcher:
        for _ in range(3):
            watcher.round()
        assert not watcher.is_behind
        assert stored(lake) == Counter(place.written)
        place.write("a.log", 1)
        place.move("a.log", "a.log.1")
        watcher.round()
        assert size - 1000 < watcher.totals.nuls < size
    assert stored(lake) == Counter(place.written)


def test_a_turn_may_end_within_nuls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NULs that somebody wrote have to be read; whoever reads them can stop at every chunk."""
    monkeypatch.setattr(source.Source, "CHUNK", 1 << 16)
    path = tmp_path / "a.log"
    path.write_bytes(LINE % 1 + b"\0" * 1_000_000 + LINE % 2)
    file = Source(str(path))
    kinds = [type(piece) for piece in file.pieces(0)]
    file.close()
    assert kinds.count(Pause) > 10
    assert kinds[-2:] == [Hole, Chunk]


def test_a_short_run_within_a_line_is_data(lake: lakelog.Lake, tmp_path: Path) -> None:
    """A NUL or a few within a line tear it not: it is quarantined as it is, by its own place."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINE % 1 + b'{"type":"T\0\0\0"}\n' + LINE % 2)
    report = lake.ingest(str(path))
    assert (report.events, report.quarantined, report.files[0].nuls) == (2, 1, 0)
    proven(lake, path)


@pytest.mark.parametrize("large", [False, True])
def test_a_writer_that_does_not_append(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """Copied and truncated again and again, a file whose writer goes on at its old offset gives
    each line once; how much was skipped is in the totals and in an event."""
    monkeypatch.setattr(watch, "STABLE", -1.0)
    if large:
        monkeypatch.setattr(group, "PIECE_MAX", 100)
        monkeypatch.setattr(turns, "SIZE", 100)
    place = Place(tmp_path / "logs")
    holes = 0
    with Watched(lake, place) as watcher, open(place.root / "a.log", "wb") as file:
        for turn in range(4):
            for _ in range(30):
                place.written.append(f"e{len(place.written)}")
                file.write(b'{"type":"T","subject":"%s"}\n' % place.written[-1].encode())
            file.flush()
            watcher.round()
            place.copy_truncate("a.log", f"a.log.{turn}")
            watcher.round()
            holes += file.tell() if turn < 3 else 0
        while watcher.is_behind:
            watcher.round()
        assert watcher.totals.quarantined == 0
        assert watcher.totals.nuls == holes
    assert stored(lake) == Counter(place.written)
    told = lake.sql("SELECT message FROM events WHERE type = 'lakelog.watch'").fetchall()
    assert sum(int(text.split()[0].replace(",", "")) for (text,) in told) == holes
    assert os.listdir(place.root)


def test_a_file_that_begins_with_a_hole_is_known_again(
    lake: lakelog.Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a writer left that went on at its old offset is known by its NULs as well, though its
    lines are such as any log may begin with."""
    monkeypatch.setattr(watch, "STABLE", -1.0)
    place = Place(tmp_path / "logs")
    path = place.root / "a.log"
    path.write_bytes(b"\0" * 6000 + b"INFO Starting worker\n")
    with Watched(lake, place) as watcher:
        watcher.round()
        watcher.round()
    (place.root / "copy").write_bytes(path.read_bytes())
    os.rename(place.root / "copy", path)
    with Watched(lake, place) as watcher:
        watcher.round()
        watcher.round()
    query = "SELECT count(*) FROM events WHERE type <> 'lakelog.watch'"
    assert lake.sql(query).fetchall() == [(1,)]
