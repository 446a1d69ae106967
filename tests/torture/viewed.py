"""Views answer right whatever becomes of the lake and of their cache.

A case is one random history: acts on a lake (tests/support/viewhistory.py) whose views are read
all along, and faults of `cache/views` in between. After each fault every view that lakelog brings,
and one that a user made, gives what an engine gives that starts anew and has no cache; those that
the model knows are compared with plain Python over the events too.
"""

from __future__ import annotations

import contextlib
import errno
import gc as memory
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import orjson

import lakelog
from lakelog import views
from lakelog.errors import LakelogError
from lakelog.history import thinning
from lakelog.views import catalog
from lakelog.views.definition import parse
from lakelog.views.engine import Projector
from lakelog.views.layers import SCHEMA, StateShape
from lakelog.views.partials import Partials
from lakelog.views.state_notes import StateNotes
from tests.support import seam, viewmodel
from tests.support.requirements import MOUNTS, lacking
from tests.support.viewhistory import NOW, History, plain
from tests.torture import mounts
from tests.torture.case import Case, Row

TURNS = 6
FAULTS = "damaged killed swapped full lost tiny read_only in_the_way older".split()
"""Every other one of a case is of one kind, so that a short run reaches all."""
Asked = tuple[str, dict[str, str]]
ASKED: list[Asked] = [
    *((name, {}) for name in catalog.BUILT_IN),
    ("mine", {}),
    ("mine", {"type": "PING"}),
    ("rates", {"bucket": "1d"}),
]
"""Some have states of the same columns, which must not be taken for each other."""
MINE = """-- name: mine
-- version: {version}
-- params: type text = null
-- key: source
-- map
SELECT source, count(*) AS n FROM segment WHERE {only} ($type IS NULL OR type = $type) GROUP BY ALL
-- merge
SELECT source, sum(n) AS n FROM partials GROUP BY source
-- finish
SELECT source, n FROM state ORDER BY n DESC, source
"""
_warm: list[duckdb.DuckDBPyConnection] = []
_shapes: dict[str, StateShape] = {}


class Gone(Partials):
    """A cache that is not there and never comes."""

    def of(self, *_: Any) -> list[Any]:
        """Nothing."""
        return []

    def save(self, *_: Any) -> None:
        """Keep nothing."""


class Unnoted(StateNotes):
    """No state is noted, and none will be."""

    def of(self, *_: Any) -> list[Any]:
        """Nothing."""
        return []


class Trouble:
    """A hook: below one directory changes fail from the `at`-th on, with `code` if it is given.
    What fails there, by us or by itself, is counted."""

    def __init__(self, below: Path, code: int = 0, at: int = 1) -> None:
        self._below, self._code, self._at = str(below), code, at
        self._open: set[int] = set()
        self.changes = self.fired = 0

    def __call__(self, name: str, real: Any, *args: Any, **kwargs: Any) -> Any:
        """Do it, unless it is to fail."""
        if name == "close":
            self._open.discard(args[0])
        known = name in seam.CHANGES or name == "listing"
        if not known or not self._inside(args[-1 if name == "rename" else 0]):
            return real(*args, **kwargs)
        self.changes += name in seam.CHANGES
        try:
            if self._code and name in seam.CHANGES and self.changes >= self._at:
                seam.tear(name, args, OSError(self._code, "planted"))
                raise OSError(self._code, "planted")
            result = real(*args, **kwargs)
        except OSError:
            self.fired += 1
            raise
        if name == "create":
            self._open.add(result)
        return result

    def _inside(self, where: Any) -> bool:
        return where in self._open if isinstance(where, int) else where.startswith(self._below)


def dies(at: int) -> seam.Hook:
    """A hook: the process is killed before its `at`-th change of the disk, or in half a write."""
    left = [at]

    def hook(name: str, real: Any, *args: Any, **kwargs: Any) -> Any:
        if name in seam.CHANGES:
            left[0] -= 1
            if not left[0]:
                seam.tear(name, args, seam.Killed())
                os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    return hook


class Life(History):
    """A history whose faults return how often they fired."""

    def __init__(self, case: Case) -> None:
        super().__init__(case.place / "lake", case.start, gc_grace_hours=0, history_days=0)
        self._case, self._patch, self._version = case, case.patch, 0
        self._wanted: dict[str | None, dict[int, list[str]]] = {}
        self._cache = self.path / "cache" / "views"
        self._aside, self._beside = case.place / "aside", case.place / "beside"

    def turn(self, name: str) -> None:
        """Some acts, some of the views read after each; then a fault, and all views compared."""
        for _ in range(self.random.randint(1, 4)):
            self.step()
            self._wanted.clear()
            self.compare(self.random.sample(range(len(ASKED)), 2))
        self.done.append(name)
        fired: int = getattr(self, name)()
        self.compare(range(len(ASKED)))
        self._case.tally.notes[name.replace("_", " ")] += fired
        self._case.verified(fired)

    def acts(self) -> list[Callable[[], Any]]:
        """What may happen to a lake; what harms the cache is a fault here."""
        harm = {"lose_cache", "damage_cache"}
        return [a for a in super().acts() if a.__name__ not in harm] + [self.collect]

    def define(self) -> None:
        """Give the user's view another meaning, with the same columns."""
        self._version += 1
        only = f"length(type) > {self._version % 3 + 3} AND"
        text = MINE.format(version=self._version, only=only)
        catalog.create(self.lake.store, self.lake.branch_name, parse(text), replace=True)

    def undo(self) -> None:
        """Undo; what was collected cannot come back."""
        with contextlib.suppress(LakelogError):
            super().undo()

    def collect(self) -> None:
        """Collect garbage, and with it what older states were made of."""
        self.lake.gc()

    def compare(self, which: Any) -> None:
        """Compare views of the present, or of an older state, with a fresh engine's answers."""
        old = self.random.choice(self.tags) if self.tags and self.random.random() < 0.2 else None
        state = self.lake.at(old) if old else self.lake
        wanted = self._wanted.setdefault(old, {})
        fresh = [number for number in which if number not in wanted]
        with self._anew() if fresh else contextlib.nullcontext():
            wanted |= {number: _answer(state, *ASKED[number]) for number in fresh}
        for number in which:
            found = _answer(state, *ASKED[number])
            assert found == wanted[number], (
                f"{ASKED[number]} at {old or 'the head'} after {self.done}: {len(found)} rows,"
                f" afresh {len(wanted[number])}; not in both: {_apart(found, wanted[number])}"
            )
            self.compared += 1

    def model(self) -> None:
        """Compare with plain Python over the events."""
        rows = viewmodel.events(self.lake)
        for name, make in viewmodel.MODEL.items():
            mine = sorted(viewmodel.given(name, views.read(self.lake, name, now=NOW)), key=str)
            assert mine == sorted(make(rows), key=str), f"{name} by the model: {self.done}"

    @contextlib.contextmanager
    def _anew(self) -> Iterator[None]:
        """Let views be answered by an engine that has just been made and knows no cache."""
        if not _warm:
            _warm.append(duckdb.connect(":memory:", config={"threads": "1"}))
            _warm[0].execute("SET GLOBAL TimeZone = 'UTC'")
        _warm[0].execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
        session = self.lake._session
        views = self.lake._views
        kept = views.engine
        views._engine = fresh = Projector(self.lake.store, _warm[0].cursor(), session.tables)
        fresh._writer.partials = Gone(self.lake.store.paths, 0)
        fresh._writer.notes = Unnoted(self.lake.store.paths)
        fresh._shapes = _shapes
        try:
            yield
            fresh.close()
        finally:
            views._engine = kept

    # --- faults ---

    def lost(self) -> int:
        """The cache goes, or some of its files, perhaps below an engine that goes on."""
        files = self._pieces()
        some = [file for file in files if self.random.random() < 0.5]
        if self.random.random() < 0.5:
            self.lose_cache()
            some = files
        for file in some:
            file.unlink(missing_ok=True)
        if self.random.random() < 0.5:
            self.reopen()
        return len(some)

    def damaged(self) -> int:
        """Files are off by a bit, cut, or have a hole; counted if they were found out."""
        spoilt: dict[Path, bytes] = {}
        for file in self._pieces():
            if self.random.random() < 0.7:
                spoilt[file] = self._spoilt(file.read_bytes())
                file.write_bytes(spoilt[file])
        self.reopen()
        self.compare(range(len(ASKED)))
        self._pieces()
        return sum(not f.exists() or f.read_bytes() != data for f, data in spoilt.items())

    def _spoilt(self, data: bytes) -> bytes:
        at = max(self.random.randrange(len(data)) for _ in range(2))
        way = self.random.choice(("bit", "bit", "bit", "cut", "hole"))
        if way == "cut":
            return data[:at]
        if way == "hole" and any(data[at : at + 64]):
            return data[:at] + bytes(len(data[at : at + 64])) + data[at + 64 :]
        return data[:at] + bytes([data[at] ^ 1 << self.random.randrange(8)]) + data[at + 1 :]

    def swapped(self) -> int:
        """Files stand in each other's place, rather those of like columns and cover; counted if
        they were opened there."""
        files, moved = self._pieces(), set[str]()
        self.random.shuffle(files)
        if self.random.random() < 0.7:
            files.sort(key=lambda file: (_columns(file), file.name))
        for one, other in zip(files[::2], files[1::2], strict=False):
            one.rename(self._beside)
            other.rename(one)
            self._beside.rename(other)
            moved |= {str(one), str(other)}
        opened: set[str] = set()
        with seam.opens_watched(opened.add):
            self.reopen()
            self.compare(range(len(ASKED)))
            self._pieces()
        return len(moved & opened)

    def older(self) -> int:
        """The cache of an earlier time comes back."""
        files = len(self._pieces())
        if self._aside.exists():
            shutil.rmtree(self._cache, ignore_errors=True)
            self._aside.rename(self._cache)
            self.reopen()
            return len(self._pieces())
        if files:
            shutil.copytree(self._cache, self._aside)
        return 0

    def full(self) -> int:
        """There is no room from some write on, then there is."""
        return self._troubled(Trouble(self._cache, errno.ENOSPC, self.random.randint(1, 9)))

    def read_only(self) -> int:
        """Nothing may be changed, for a while."""
        return self._troubled(Trouble(self._cache, errno.EROFS))

    def in_the_way(self) -> int:
        """A file stands where the directory was, for a while."""
        self._pieces()
        if self._cache.exists():
            self._cache.rename(self._beside)
        self._cache.write_bytes(b"in the way")
        fired = self._troubled(Trouble(self._cache))
        self._cache.unlink()
        if self._beside.exists():
            self._beside.rename(self._cache)
        return fired

    def tiny(self) -> int:
        """The cache lies on a disk of its own that is really full after some pages."""
        if lacking(MOUNTS):
            self._case.tally.skipped += 1
            return 0
        self._pieces()
        room = self._case.place / "room"
        with mounts.tmpfs(room, self.random.randint(4, 16) * 4096):
            if self._cache.exists():
                self._cache.rename(self._beside)
            self._cache.symlink_to(room)
            fired = self._troubled(Trouble(self._cache))
            self._cache.unlink()
            if self._beside.exists():
                self._beside.rename(self._cache)
        room.rmdir()
        return fired

    def _troubled(self, trouble: Trouble) -> int:
        """Open anew, change something, and compare while there is trouble."""
        with self._patch.context() as patch:
            seam.install(patch, trouble)
            self.reopen()
            self.append()
            self.settle()
            self._wanted.clear()
            self.compare(range(len(ASKED)))
            self._pieces()
        return trouble.fired

    def killed(self) -> int:
        """Another process appends, seals and answers, and is killed at some change of the disk."""
        self._pieces()
        self._wanted.clear()
        at = self.random.randint(1, 60)
        batch = [self.event() for _ in range(20)]
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(30)
                memory.freeze()  # databases of the parent cannot be freed here
                seam.install(self._patch, dies(at))
                with lakelog.open(str(self.path), create=False) as lake:
                    lake.append(batch)
                    lake.settle()
                    for asked in self.random.sample(ASKED, 6):
                        _answer(lake, *asked)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert status in (0, signal.SIGKILL), f"another process ended with status {status}"
        if self.random.random() < 0.5:
            self.reopen()
        return int(status == signal.SIGKILL)

    def _pieces(self) -> list[Path]:
        """The files of the cache, once all of them are written."""
        self.lake._views.engine.background_writer.drain()
        return sorted(file for file in self._cache.rglob("*") if file.is_file())


def _answer(state: Any, name: str, given: dict[str, str]) -> list[str]:
    """The rows of a view as text, or why there are none."""
    try:
        return plain(views.read(state, name, given, now=NOW))
    except LakelogError as error:
        return [f"{type(error).__name__}: {error}"]


def _columns(piece: Path) -> str:
    """What a file says of its columns, "" if it is no more a file of the cache."""
    data = piece.read_bytes()
    with contextlib.suppress(ValueError, LookupError):
        return str(orjson.loads(data[12 : 12 + int.from_bytes(data[8:12], "little")])["columns"])
    return ""


def _apart(found: list[str], wanted: list[str]) -> list[str]:
    """Some rows that only one of two answers has."""
    return sorted(set(found) ^ set(wanted))[:4]


def histories(case: Case) -> None:
    """Live through one history."""
    case.patch.setattr(thinning, "UNPACKED", 3)
    life = Life(case)
    try:
        life.define()
        life.open("main")
        for turn in range(case.some(TURNS)):
            life.turn(life.random.choice(FAULTS) if turn % 2 else FAULTS[case.number % len(FAULTS)])
        life.model()
    finally:
        life.close()
    case.tally.notes["answers compared"] += life.compared


ROWS = [Row("views", "views, harmed cache", 60, 300, 22, histories)]
