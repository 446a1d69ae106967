"""Notes of states: two states of a lake are compared by what few pages of them differ in."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

import lakelog
from lakelog.entries import SegmentEntry
from lakelog.errors import LakelogError
from lakelog.manifest import Manifest, manifest
from lakelog.segments import rows_sql
from lakelog.views import Lineage
from lakelog.views.state_notes import StateNote
from tests.conftest import MakeLake
from tests.support import encrypted
from tests.support.effort import share
from tests.support.tree import ROOT
from tests.support.view_events import rows, some
from tests.support.viewhistory import WIDE, History

Rows = Counter[Any]


class Comparison:
    """The states of one history, each compared with each."""

    def __init__(self, path: Path, seed: int) -> None:
        self.history = History(path, seed)
        self.history.open("main")
        self.engine = duckdb.connect()
        self.states: list[tuple[StateNote, Manifest, Rows]] = []
        self.counts: Counter[str] = Counter()
        self.rows_by_segment: dict[str, Rows] = {}

    def rows(self, entry: SegmentEntry, without: Iterable[tuple[int, int]] = ()) -> Rows:
        """The rows of a segment but for those of some seq."""
        if entry.key not in self.rows_by_segment:
            self.rows_by_segment[entry.key] = self.read(entry)
        found = self.rows_by_segment[entry.key]
        return Counter(r for r in found if not any(a <= r[0] <= b for a, b in without))

    def read(self, entry: SegmentEntry) -> Rows:
        """The rows of a segment."""
        query = rows_sql(self.history.lake.store.paths, [entry])
        columns = "seq, epoch_us(ingested_at), epoch_us(time), type, subject"
        return Counter(self.engine.execute(f"SELECT {columns} FROM ({query})").fetchall())

    def add(self) -> None:
        """Compare the present state with all earlier ones, in both directions."""
        store = self.history.lake.store
        state = store.state(self.history.lake.branch_name)
        entries = store.manifests.segments(state, "events")
        present: Rows = sum(map(self.rows, entries), Counter())
        self.states.append((StateNote.of(state), state, present))
        for note, other, earlier in self.states:
            self.compare(note, earlier, state, present)
            with contextlib.suppress(LakelogError):  # collected, or erased
                store.manifests.segments(other)
                self.compare(self.states[-1][0], present, other, earlier)

    def compare(self, note: StateNote, before: Rows, state: Manifest, after: Rows) -> None:
        """Rows of a noted state with those that it says to read are those of the other state."""
        reads = note.reads(self.history.lake.store.manifests, Lineage(), state)
        if reads is None:
            self.counts["rows are gone" if before - after else "not told"] += 1
            return
        for read in reads:
            before = before + self.rows(read.entry, read.without)
            self.counts["a part is read" if read.without else "a segment is read"] += 1
        assert before == after, self.history.done
        self.counts["told over shared pages" if note.shared(state) else "told"] += 1

    def live(self, steps: int) -> Counter[str]:
        """Do so many things, and compare after each."""
        for _ in range(steps):
            self.history.step()
            self.history.lake.settle()
            self.add()
        self.history.close()
        return self.counts


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of few entries, so that a short history has many, of all levels."""
    monkeypatch.setattr(manifest, "FAN", 2)


@pytest.mark.rounds
@pytest.mark.usefixtures("small_pages")
@pytest.mark.timeout(900)
def test_what_a_note_says_to_read_makes_any_other_state(home: Path) -> None:
    """Rows of a noted state, with those that are read, are exactly those of another, whatever
    happened between the two; and where no row is gone, the note mostly tells."""
    counts: Counter[str] = Counter()
    for seed in range(share(64)):
        counts += Comparison(home / str(seed), seed).live(24)
    assert counts["told over shared pages"] > counts["not told"]
    assert counts["a part is read"]


def opened_by(code: str, home: Path) -> list[str]:
    """The files of a lake that another process opens, below its directory."""
    program = f"""
import sys, lakelog
from lakelog import views
from tests.support import seam
from tests.support.view_events import some
from tests.support.viewhistory import NOW
opened = []
with lakelog.open({str(home / "lake")!r}, create=False) as lake, seam.opens_watched(opened.append):
    {code}
    lake._views.engine.background_writer.drain()
print(*opened, sep=chr(10))
"""
    child = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    )
    start = f"{home}/lake/"
    return [line.removeprefix(start) for line in child.stdout.split("\n") if line.startswith(start)]


READ = "views.read(lake, 'status', now=NOW)"


@pytest.mark.usefixtures("small_pages")
def test_a_new_process_opens_only_new_pages(make_lake: MakeLake, home: Path) -> None:
    """Of a state whose view was answered no page is opened, of a later one those that came since,
    whose events alone are computed; a view that was never asked opens all."""
    lake = make_lake()
    for seed in range(40):
        lake.append(some(3, seed))
        lake.settle()
    old_pages = {page.digest for page in lake.store.state("main").pages}
    assert len(old_pages) > 3

    def pages_opened(code: str) -> set[str]:
        opened = opened_by(code, home)
        return {path.split("/")[-1][:64] for path in opened if path.startswith("manifests/")}

    assert old_pages <= pages_opened(READ)
    assert not pages_opened(READ)
    assert old_pages <= pages_opened(READ.replace("status", "errors"))
    for seed in range(3):
        lake.append(some(3, 40 + seed))
        lake.settle()
    assert len(pages_opened(READ) & old_pages) < len(old_pages) / 2
    assert not pages_opened(READ)
    pieces = lake._views.engine._writer.partials
    folder = home / "lake" / "cache" / "views"
    headers = [pieces._header(p.parent.name, str(p)) for p in folder.rglob("*.piece")]
    assert sorted(h.file.events for h in headers if h) == [9, 120, 120]


def test_a_note_that_names_another_file_is_not_believed(make_lake: MakeLake, home: Path) -> None:
    """A note that somebody wrote has no file read that is no piece, and none removed."""
    lake = make_lake()
    lake.append(some(60))
    lake.settle()
    right = rows(lake, "status")
    lake.close()
    (note,) = (home / "lake" / "cache" / "views").rglob("notes")
    body = orjson.loads(note.read_bytes().partition(b"\n")[0])
    outside = home / "lake" / "lakelog.json"
    chain = {f"x{n}": [60, 0, 59, [f"x{n + 1}"]] for n in range(3000)}
    content = outside.read_bytes()
    hostile: list[Any] = [
        {"piece_files": [["../../../lakelog.json", "0" * 64, 0, 60]]},
        {"piece_files": [[{"a": 1}, None, "x", []]]},
        {"piece_files": []},
        {"pages": [["../../lakelog", 3, -5]]},
        {"pages": 7, "added": [1]},
        {"added": {"x": ["a", None, 2, 3]}},
        {"added": {"x": [60, 0, 59, ["x"]]}},
        {"added": chain | {"x3000": [60, 0, 59, []]}},
        {"events": "60"},
    ]
    for change in hostile:
        changed = body | {"states": [body["states"][0] | change]}
        line = orjson.dumps(changed)
        note.write_bytes(line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n")
        with lakelog.open(str(home / "lake"), create=False) as again:
            assert rows(again, "status") == right, change
    assert outside.read_bytes() == content


def test_no_piece_is_left_by_who_answered_before_an_erasure(
    make_lake: MakeLake, home: Path
) -> None:
    """What waits to be written while events are erased is not written, and no note stays."""
    lake = make_lake()
    lake.append([*some(40), {"type": "FAIL", "subject": "ada"}])
    lake.settle()
    engine = lake._views.engine
    with engine.background_writer.answering():
        rows(lake, "status")
        with lakelog.open(str(home / "lake"), create=False) as other:
            rows(other, "errors")
            other.erase(subject="ada", why="asked")
    engine.background_writer.drain()
    assert [p for p in (home / "lake" / "cache" / "views").rglob("*") if p.is_file()] == []
    assert rows(lake, "status") == rows(lake, "status", None, **WIDE)


def test_pieces_of_many_processes_are_joined_and_the_largest_is_left(
    make_lake: MakeLake, home: Path
) -> None:
    """Small pieces become one again and again, while the large one is written only once."""
    lake = make_lake()
    lake.append(some(2000))
    lake.settle()
    rows(lake, "status")
    lake.close()
    folder = home / "lake" / "cache" / "views"
    (large,) = folder.rglob("*.piece")
    number = large.stat().st_ino
    for seed in range(24):
        with lakelog.open(str(home / "lake"), create=False) as lake:
            lake.append(some(10, seed))
            lake.settle()
            assert rows(lake, "status") == rows(lake, "status", None, **WIDE)
    assert large.stat().st_ino == number
    assert 1 < len(list(folder.rglob("*.piece"))) <= 11


def test_notes_of_an_encrypted_lake_have_no_word_in_plain(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are envelopes, of which a later process reads what the cache has of a state."""
    path = encrypted.create(home / "lake", monkeypatch)
    for _ in range(2):
        with lakelog.open(path, create=False) as lake:
            if not lake.count():
                lake.append(some(60))
                lake.settle()
            assert rows(lake, "status") == rows(lake, "status", None, **WIDE)
    files = [file for file in Path(path, "cache", "views").rglob("*") if file.is_file()]
    assert sorted(file.suffix for file in files) == ["", ".piece"]
    assert all(file.read_bytes().startswith(b"LKN1") for file in files)
    with lakelog.open(path, create=False) as lake:
        engine = lake._views.engine
        rows(lake, "status")
        ((name, shape),) = engine._shapes.items()
        (note,) = engine._writer.notes.of(name, shape)
        assert note.events == 60
