"""Verification: every byte of a lake is read again, every name, chain and sum is checked.

Each problem names one file. `damage` is a file that is not what was written; `torn` the
unfinished last frame of a WAL whose writer is gone (an append that was never acknowledged, or
damage of that very frame, which looks the same); `derived` a cache or hint that may be deleted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lakelog.errors import Damaged, DamagedLake, DamagedRef
from lakelog.settings import DEFAULTS
from lakelog.store import disk, document, manifest, marks, opening
from lakelog.store.layout import (
    OBJECTS,
    decode_name,
    parse_move,
    parse_object,
    parse_packed,
    parse_wal,
)
from lakelog.store.opening import Store
from lakelog.store.refs import Refs, read_packed
from lakelog.store.tail import Tail, WalFile

Progress = Callable[[int, int], None]
_TORN_WAIT = 0.05


@dataclass(frozen=True)
class Problem:
    """One file that is not as it should be; `kind` is damage, torn or derived."""

    path: str
    reason: str
    kind: str = "damage"
    offset: int | None = None


@dataclass(frozen=True)
class Report:
    """What a verification read and found; `cut` are torn frames kept from dead writers."""

    problems: tuple[Problem, ...]
    files: int
    bytes: int
    cut: tuple[str, ...] = ()

    @property
    def intact(self) -> bool:
        """Whether nothing is damaged or torn."""
        return not any(p.kind != "derived" for p in self.problems)

    def require(self) -> None:
        """Raise Damaged, naming the first file at fault, unless intact."""
        for problem in self.problems:
            if problem.kind != "derived":
                raise Damaged(problem.path, problem.reason, problem.offset)


class Checker:
    """Collects problems, counting files and bytes as they are read."""

    def __init__(self, store: Store, progress: Progress | None = None) -> None:
        self.store, self._progress = store, progress
        self.problems: list[Problem] = []
        self.files = self.bytes = 0
        self.total = _total_bytes(store) if progress else 0
        self._good: set[str] = set()

    def add(self, path: str, reason: str, kind: str = "damage", offset: int | None = None) -> None:
        """Note a problem, once per file and reason."""
        problem = Problem(path, reason, kind, offset)
        if problem not in self.problems:
            self.problems.append(problem)

    def count(self, size: int) -> None:
        """Note that a file was read."""
        self.files, self.bytes = self.files + 1, self.bytes + size
        if self._progress:
            self._progress(self.bytes, max(self.total, self.bytes))

    def document(self, path: str, kind: str = "damage") -> dict[str, object] | None:
        """Read a checksummed document; None if it is gone or not intact."""
        try:
            data = disk.read(path)
            self.count(len(data))
            return document.decode(data)
        except FileNotFoundError:
            return None
        except document.NotIntact as error:
            self.add(path, str(error), kind)
        return None

    def object(self, kind: str, digest: str) -> bool:
        """Hash one content-addressed file, once; report it if it is missing or damaged."""
        path = self.store.layout.object(kind, digest)
        if path in self._good:
            return True
        try:
            intact = marks.hash_file(path) == digest
            self.count(os.stat(path).st_size)
        except FileNotFoundError:
            self.add(path, "it is missing")
            return False
        if not intact:
            self.add(path, "the bytes do not match their name")
            return False
        self._good.add(path)
        return True

    def report(self) -> Report:
        """Return what was found."""
        cut = tuple(sorted(disk.listing(self.store.layout.cut)))
        return Report(tuple(self.problems), self.files, self.bytes, cut)


def open_for_check(root: str) -> tuple[Store, Problem | None]:
    """Open a lake even if lakelog.json is damaged. Raises LakeNotFound, FormatTooNew."""
    try:
        return opening.load(root), None
    except DamagedLake as error:
        return Store(root, "", DEFAULTS), Problem(error.path, error.reason)


def verify(store: Store, progress: Progress | None = None, first: Problem | None = None) -> Report:
    """Check a whole lake: refs, tags, every object on disk, WALs, sums and chains."""
    checker = Checker(store, progress)
    if first:
        checker.problems.append(first)
    else:
        checker.document(store.layout.config)
    for kind in OBJECTS:
        for digest in _on_disk(store, kind):
            checker.object(kind, digest)
    reached = set(_check_tags(checker))
    for branch in store.refs.all_branches():
        reached |= set(_check_branch(checker, branch))
        _check_wals(checker, branch)
    for digest in sorted(reached):
        check_snapshot(checker, digest)
    checker.document(store.layout.condemned)
    _check_marks(checker)
    return checker.report()


def verify_snapshot(store: Store, digest: str, progress: Progress | None = None) -> Report:
    """Check one snapshot: its manifest, pages, id runs and segments."""
    checker = Checker(store, progress)
    check_snapshot(checker, digest)
    return checker.report()


def check_snapshot(checker: Checker, digest: str) -> None:
    """Check what one manifest reaches, and that its totals are the sums of its segments."""
    store = checker.store
    path = store.layout.object("manifests", digest)
    if not checker.object("manifests", digest):
        return
    state = store.manifests.load(digest)
    pages = [checker.object("manifests", page.digest) for page in state.pages]
    if not all(pages):
        return
    try:
        entries = store.manifests.entries(state)
    except Damaged as error:
        checker.add(error.path, error.reason)
        return
    for run in state.ids:
        checker.object("ids", run["digest"])
    for entry in entries:
        checker.object("segments", entry["key"])
    if manifest.add_up(manifest.Totals(), entries) != state.totals:
        checker.add(path, "its totals are not the sums of its segments")


def _on_disk(store: Store, kind: str) -> Iterator[str]:
    root = f"{store.layout.root}/{kind}"
    for folder in sorted(disk.listing(root)):
        for name in sorted(disk.listing(f"{root}/{folder}")):
            digest = parse_object(name)
            if digest:
                yield digest


def _check_tags(checker: Checker) -> Iterator[str]:
    for name in sorted(disk.listing(checker.store.layout.tags)):
        if name.endswith(".json") and not name.startswith(disk.TEMPORARY):
            path = f"{checker.store.layout.tags}/{name}"
            body = checker.document(path)
            if body and body["name"] != decode_name(name[:-5]):
                checker.add(path, "the tag belongs to another name")
            elif body:
                yield str(body["snapshot"])


def _check_branch(checker: Checker, branch: str) -> Iterator[str]:
    """Check each move and the chain between them; yield the snapshots they name."""
    layout = checker.store.layout
    directory = layout.head_dir(branch)
    refs = Refs(layout)
    names = disk.listing(directory)
    packed: dict[int, bytes] = {}
    for name in filter(parse_packed, names):
        try:
            packed.update(read_packed(f"{directory}/{name}"))
            checker.count(os.stat(f"{directory}/{name}").st_size)
        except DamagedRef as error:
            checker.add(error.path, error.reason)
    numbers = sorted({n for n in map(parse_move, names) if n is not None} | packed.keys())
    before: tuple[int, str, int] | None = None
    for number in numbers:
        path = layout.move(branch, number)
        try:
            data = packed.get(number) or disk.read(path)
            move = refs.decode(branch, number, data)
        except FileNotFoundError:
            continue
        except DamagedRef as error:
            checker.add(path, error.reason)
            before = None
            continue
        checker.count(len(data))
        reason = _chain_fault(before, number, move.prev, move.time)
        if reason:
            checker.add(path, reason)
        before = (number, document.digest(data), move.time)
        yield move.snapshot
    if not numbers:
        checker.add(directory, "the branch has no moves")
    checker.document(layout.hint(branch), "derived")


def _chain_fault(
    before: tuple[int, str, int] | None, number: int, prev: str, when: int
) -> str | None:
    """Say what is wrong between a move and the one before it."""
    if before is None:
        return None
    if number != before[0] + 1:
        return f"the move before it, {number - 1}, is missing"
    if prev != before[1]:
        return "it does not name the move before it"
    return "its time is not later than the move before it" if when <= before[2] else None


def _check_wals(checker: Checker, branch: str) -> None:
    layout = checker.store.layout
    files = Tail(layout, checker.store.refs, branch).scan()
    for group in files.values():
        last = _check_writer(checker, group)
        newest = group[-1]
        if last is not None and newest.torn and _stays_torn(checker, branch, newest):
            checker.add(newest.path, _torn_reason(newest), "torn", newest.end)
    for name in disk.listing(layout.wal_dir(branch)):
        if not parse_wal(name) and not name.startswith(disk.TEMPORARY):
            checker.add(f"{layout.wal_dir(branch)}/{name}", "not a WAL file's name", "derived")


def _check_writer(checker: Checker, group: list[WalFile]) -> int | None:
    """Check one writer's files; return its last sequence, or None at damage."""
    last: int | None = None
    for index, file in enumerate(group):
        checker.count(file.end + file.torn)
        if file.header is None:
            checker.add(file.path, "its header is damaged", offset=0)
            return None
        if file.damage is not None:
            checker.add(file.path, "a frame is damaged", offset=file.damage)
            return None
        if file.torn and file.ended:
            checker.add(file.path, "there are bytes after its end", offset=file.end)
        starts = [f.sequence for f in file.frames]
        expected = list(range(starts[0], starts[0] + len(starts))) if starts else []
        if starts != expected:
            checker.add(file.path, "its sequence numbers are not contiguous")
        follows = group[index + 1].header if index + 1 < len(group) else None
        if follows and not _leads_to(file, follows.first, set(follows.doubtful)):
            checker.add(file.path, "frames before the next file are missing", offset=file.end)
        last = file.last
        _check_frames(checker, file)
    return last


def _leads_to(file: WalFile, first: int, doubtful: set[int]) -> bool:
    missing = set(range(file.last + 1, first)) - doubtful
    return not missing


def _check_frames(checker: Checker, file: WalFile) -> None:
    for frame in file.frames:
        try:
            frame.lines()
        except Exception as error:
            checker.add(file.path, f"a frame does not open: {error}", offset=frame.offset)


def _torn_reason(file: WalFile) -> str:
    return f"{file.torn} bytes after the last good frame: an unfinished append, or damage"


def _stays_torn(checker: Checker, branch: str, file: WalFile) -> bool:
    """A living writer's half-written frame is whole a moment later; a bad one is not."""
    if not disk.is_locked(file.path):
        return True
    for _ in range(3):
        time.sleep(_TORN_WAIT)
        again = Tail(checker.store.layout, checker.store.refs, branch).scan()
        now = [f for f in again.get(file.writer, []) if f.n == file.n]
        if not now or not now[0].torn or now[0].end != file.end:
            return False
    return True


def _check_marks(checker: Checker) -> None:
    path = checker.store.layout.marks
    try:
        data = disk.read(path)
    except FileNotFoundError:
        return
    checker.count(len(data))
    bad = sum(marks.parse(line) is None for line in data.splitlines())
    if bad or (data and not data.endswith(b"\n")):
        checker.add(path, f"{max(bad, 1)} lines are damaged; the file may be deleted", "derived")


def _total_bytes(store: Store) -> int:
    total = 0
    for folder, _, names in os.walk(store.layout.root):
        for name in names:
            try:
                total += os.stat(f"{folder}/{name}").st_size
            except FileNotFoundError:
                continue
    return total
