"""Lost moves: what proves that the newest moves of a branch are gone, though no number is missing.

They may be gone together with the hint. A segment names the frames that were sealed into it (F4.4),
and a WAL is removed only after the move of its frames is durable (F9.6). So frames of a segment
that are above every watermark of their branch, and in no WAL, were published by a move that is
lost. A publish that died leaves a segment as well, but its frames are still in WALs, or another
publish sealed them and raised the watermark. Neither age nor what a process noted of itself
decides, and what was rolled back, removed or deleted stays below the watermarks (F7.6). What came
from another lake proves nothing: a fetch or a push may have it here for a while (F8.19).

Rows of files were in no WAL. Their segments are noted in cache/verified.jsonl only after their move
is durable, so one that is noted there, that no kept state names, and that is younger than every
move was published too. Without that note it is left over from an ingest that died.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import orjson

from lakelog.disk import File, Folder
from lakelog.errors import InvalidName
from lakelog.maintain.repair import recover
from lakelog.paths import FileNames
from lakelog.refs import Move
from lakelog.segments import Segment
from lakelog.store import Store

Ranges = dict[str, tuple[int, int]]
_FROM_OTHERS = {"push", "pull", "merge"}


@dataclass(frozen=True)
class Trace:
    """A segment whose move is lost. `ranges` are the group commits of each writer of `branch` that
    are in no other place; of rows that were ingested there are none."""

    key: str
    branch: str
    ranges: Ranges

    @property
    def reason(self) -> str:
        """What it proves."""
        if not self.ranges:
            return "it was published, and no move names it: the newest moves are lost"
        writer, (low, high) = next(iter(self.ranges.items()))
        return (
            f"no move of branch {self.branch!r} says that its group commits {low} to {high} of"
            f" writer {writer[:12]} were sealed, and no WAL has them: the newest moves are lost"
        )


def find(store: Store, keys: Iterable[str]) -> Iterator[Trace]:
    """Yield the segments whose moves are lost, of those that were listed before this is called."""
    lake = _Lake(store)
    for key in keys:
        trace = _trace(lake, key)
        if trace is not None and key not in lake.received:
            yield trace


def _trace(lake: _Lake, key: str) -> Trace | None:
    try:
        notes = Segment(lake.store.paths, key).metadata()
        ranges = {w: (r[0], r[1]) for w, r in orjson.loads(notes["wal"]).items()}
    except Exception:  # whatever Arrow says of one that is damaged or gone: it proves nothing
        return None
    if not ranges:
        return _ingested_trace(lake, key, notes)
    # Arrow checks no footer: a flipped bit would name another branch, or commits that never were.
    with contextlib.suppress(InvalidName):
        trace = _sealed_trace(lake, key, notes, ranges)
        if trace and recover.is_intact(lake.store, "segments", key):
            return trace
    return None


def branches(store: Store) -> list[str]:
    """All branches, those included of which only WALs are left."""
    paths, names = store.paths, set(store.refs.all_branches())
    for branch in FileNames(Folder(paths.wals).names()).refs:
        folder, head = paths.wal_dir(branch), paths.head_dir(branch)
        if not File(folder).is_regular() and not File(head).is_regular():
            names.update(branch for _ in FileNames(Folder(folder).names()).wals)
    return sorted(names)


class _Branch:
    """What WALs and moves know of the writers of a branch."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        # WALs first, as a reader does: what is sealed meanwhile is then in the moves (F12.2).
        self.sequences = recover.wal_sequences(store, name)
        self.moves = [move for move, _ in recover.moves(store, name)[0].values()]
        # Of all moves: a finished writer has no watermark in the newest.
        self.marks = recover.highest(move.wal for move in self.moves)

    @property
    def newest(self) -> Move | None:
        return max(self.moves, key=lambda move: move.number, default=None)

    @functools.cached_property
    def published(self) -> set[str]:
        """The segments that its states name. Those of tags do not count: their moves may be lost,
        and then the branch lacks what a tag has."""
        return recover.segments_of(self._store, self.moves)

    def knows(self, writer: str) -> bool:
        return writer in self.marks or writer in self.sequences

    def uncovered(self, ranges: Ranges) -> Ranges:
        """The part of what was sealed that is above the watermarks and in no WAL."""
        uncovered: Ranges = {}
        for writer, (first, high) in ranges.items():
            low = max(first, self.marks.get(writer, -1) + 1)
            # The ends are frames for certain; between them doubtful ones may be absent.
            ends = {high} | ({first} if low == first else set())
            if low <= high and not ends <= self.sequences.get(writer, set()):
                uncovered[writer] = low, high
        return uncovered


class _Lake:
    """What is known of a lake, each thing read when it is first asked for."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._branches: dict[str, _Branch] = {}

    def branch(self, name: str) -> _Branch:
        if name not in self._branches:
            self._branches[name] = _Branch(self.store, name)
        return self._branches[name]

    @functools.cached_property
    def moves(self) -> list[Move]:
        return [m for name in self.store.refs.all_branches() for m in self.branch(name).moves]

    @functools.cached_property
    def newest_time(self) -> int:
        return max((move.time for move in self.moves), default=0)

    @functools.cached_property
    def has_objects_of_others(self) -> bool:
        """Whether objects of other lakes may be here that nothing names, as a transfer died."""
        was_exchanged = any(move.op in _FROM_OTHERS for move in self.moves)
        return was_exchanged or bool(Folder(self.store.paths.remotes).names())

    @functools.cached_property
    def received(self) -> set[str]:
        """The segments that came from others: they prove nothing of the moves here."""
        return self.store.received.keys()

    @functools.cached_property
    def named(self) -> set[str]:
        return set(recover.named_segments(self.store))


def _sealed_trace(lake: _Lake, key: str, notes: dict[str, str], ranges: Ranges) -> Trace | None:
    name = notes.get("branch", "")
    branch = lake.branch(name)
    uncovered = branch.uncovered(ranges)
    # Of a branch that was deleted nobody sees anything, and its WALs may be gone.
    if not uncovered or (branch.newest is not None and branch.newest.op == "delete"):
        return None
    # The move that had the watermark is lost, but a later one is not.
    if key in branch.published:
        return None
    owner = notes.get("lake", "")
    if any(map(branch.knows, ranges)):
        is_own = True
    elif owner and owner != lake.store.lake_id:
        is_own = False
    else:
        # A second lake with the same id, made from a copy, may have exchanged states with this one.
        is_own = not lake.has_objects_of_others or (bool(owner) and key not in lake.named)
    return Trace(key, name, uncovered) if is_own else None


def _ingested_trace(lake: _Lake, key: str, notes: dict[str, str]) -> Trace | None:
    # Compaction notes its segments before they are published, and they hold no new rows.
    if notes.get("layout") != "arrival":
        return None
    path = lake.store.paths.object("segments", key)
    try:
        was_published = lake.store.verified.holds(key, path)
        is_young = os.stat(path).st_mtime_ns // 1000 > lake.newest_time
    except FileNotFoundError:
        return None
    return Trace(key, "", {}) if was_published and is_young and key not in lake.named else None
