"""A replay: the events of one state in the order of their times, each when it is due.

Events of one time come in the order of `seq`. A replay that is resumed goes on behind the last
event that was delivered, in the state that it began with: its cursor names both. What was sent when
a replay was killed may be sent again, the cursor being written after it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import orjson

from lakelog import arrays
from lakelog.disk import File, disk
from lakelog.errors import InvalidSetting
from lakelog.lake import Lake
from lakelog.libraries import pa
from lakelog.pinned import PinnedLake
from lakelog.render import ColumnBatch, QueryResult
from lakelog.replay.pace import ReplayPace
from lakelog.replay.targets import ReplayTarget

COLUMNS = tuple("time type category source subject level message id data".split())
"""What is given out of an event: what an append takes."""
_BATCH, _CHUNK, _TOGETHER = 16_384, 1_024, 2_000
"""Events that are read together, and those that are encoded together where each has its time; and
microseconds within which they are sent together."""
Due = tuple[pa.RecordBatch, bytes]
"""Events that are due, and their lines."""


@dataclass(frozen=True)
class ReplayCursor:
    """How far a replay has come: the state, time and seq of the last event delivered, and when it
    was asked for."""

    lake: str
    state: str
    time: int
    seq: int
    events: int
    asked_us: int | None = None

    @classmethod
    def load(cls, path: str, lake: Lake) -> ReplayCursor | None:
        """Read a cursor, None if there is no file. Raises InvalidSetting for another lake's."""
        try:
            cursor = cls(**orjson.loads(File(path).read()))
        except FileNotFoundError:
            return None
        except (TypeError, orjson.JSONDecodeError):
            raise InvalidSetting(
                f"{path} is not the cursor of a replay: name another file"
            ) from None
        # States and numbers of another lake mean other events.
        if cursor.lake != lake.store.lake_id:
            raise InvalidSetting(f"{path} is the cursor of a replay of another lake")
        return cursor

    def save(self, path: str) -> None:
        """Write the cursor, durably."""
        # Synced: a cursor that is lost would send everything again.
        File(os.path.abspath(path)).replace(orjson.dumps(asdict(self)) + b"\n")


def asked_us(cursor: str | None, lake: Lake) -> int:
    """Return when a replay was asked for, in microseconds: now, or when that of a cursor was.
    Raises InvalidSetting for what is no cursor of the lake."""
    saved_cursor = ReplayCursor.load(cursor, lake) if cursor else None
    if saved_cursor is None or saved_cursor.asked_us is None:
        return disk.now_us()
    return saved_cursor.asked_us


@dataclass(frozen=True)
class Replayed:
    """What a replay did: events that were delivered, and whether all were."""

    events: int
    is_whole: bool


@dataclass(frozen=True)
class ReplaySelection:
    """Which events are replayed: those for which SQL conditions hold, of a state, "" for the
    present one; and when that was asked for, in microseconds, by which conditions may have been."""

    conditions: tuple[str, ...] = ()
    ref: str = ""
    asked_us: int | None = None


class Replay:
    """One replay of a lake's events to a target."""

    def __init__(
        self,
        lake: Lake,
        selection: ReplaySelection,
        pace: ReplayPace,
        target: ReplayTarget,
        *,
        cursor: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """`cursor` is a file that keeps how far it came, and from which it goes on."""
        self._pace, self._target, self._path, self._progress = pace, target, cursor, progress
        saved_cursor = ReplayCursor.load(cursor, lake) if cursor else None
        # Before anything is delivered that no cursor would know of.
        if cursor and not os.path.isdir(folder := os.path.dirname(os.path.abspath(cursor))):
            raise InvalidSetting(f"{folder}: no such directory: create it first")
        self._lake = lake.store.lake_id
        self._state = self._pin(lake, selection.ref, saved_cursor)
        self._conditions, self._asked_us = selection.conditions, selection.asked_us
        self._cursor = saved_cursor

    def _pin(self, lake: Lake, ref: str, cursor: ReplayCursor | None) -> PinnedLake:
        # The state that it began with: events that came since are not part of the replay, whatever
        # the name of a branch says by now.
        if cursor is not None:
            return lake.at(cursor.state)
        # Pending events are published first, so that the state has them.
        return lake.at(ref) if ref else lake.at(lake.settle().move.snapshot)

    def run(self) -> Replayed:
        """Give out all events that are left. Raises QueryFailed, and what the target raises."""
        delivered = 0
        for batch in self._batches():
            if not delivered:
                _lines(batch.slice(0, 1))  # what it loads takes longer than pauses may be off
            for due in self._due(batch, delivered):
                if due is None:
                    return Replayed(delivered, is_whole=False)
                self._deliver(*due)
                delivered += due[0].num_rows
                if self._progress is not None:
                    self._progress(delivered)
        return Replayed(delivered, is_whole=True)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        conditions = [f"(\n{condition}\n)" for condition in self._conditions]
        # Behind the last one delivered, in the order of the query.
        if self._cursor is not None:
            position = f"make_timestamptz({self._cursor.time}), {self._cursor.seq}"
            conditions.append(f"(time, seq) > ({position})")
        clause = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        names = ", ".join((*COLUMNS, "seq"))
        # time and then seq: events of one time in the order of their storage.
        query = f"SELECT {names} FROM events {clause} ORDER BY time, seq"
        yield from self._state.sql(query).to_arrow_reader(_BATCH)

    def _due(self, batch: pa.RecordBatch, delivered: int) -> Iterator[Due | None]:
        """Yield the slices of a batch, each once it is due; None where the replay was stopped."""
        if self._pace.is_free:
            # All at once: nothing has to be waited for but a pause.
            yield (batch, _lines(batch)) if self._pace.wait_for(0, 0) else None
            return
        for start in range(0, batch.num_rows, _CHUNK):
            for due in self._paced(batch.slice(start, _CHUNK), delivered + start):
                yield due
                if due is None:
                    return

    def _paced(self, chunk: pa.RecordBatch, delivered: int) -> Iterator[Due | None]:
        times, start = arrays.numbers(chunk.column("time")).tolist(), 0
        # Encoded before they are due, which takes longer than a short pause.
        lines = _lines(chunk).split(b"\n")
        while start < len(times):
            if not self._pace.wait_for(times[start], delivered + start):
                yield None
                return
            # All that is late by now goes at once, so that what took long is made up for.
            due = self._pace.due(times[start], delivered + start)
            limit, stop = max(due, time.monotonic()) + _TOGETHER / 1e6, start + 1
            while stop < len(times) and self._pace.due(times[stop], delivered + stop) <= limit:
                stop += 1
            yield chunk.slice(start, stop - start), b"\n".join(lines[start:stop]) + b"\n"
            start = stop

    def _deliver(self, batch: pa.RecordBatch, lines: bytes) -> None:
        # Delivered before the cursor says so: a kill in between sends it twice, and loses nothing.
        self._target.send(lines)
        if self._path is not None:
            final = batch.num_rows - 1
            events = self._cursor.events if self._cursor else 0
            self._cursor = ReplayCursor(
                self._lake,
                self._state.id,
                int(arrays.numbers(batch.column("time"))[final]),
                int(arrays.numbers(batch.column("seq"))[final]),
                events + batch.num_rows,
                self._asked_us,
            )
            self._cursor.save(self._path)


def _lines(batch: pa.RecordBatch) -> bytes:
    """Return events as JSON lines, one each."""
    columns = [ColumnBatch(batch.select(list(COLUMNS)))]
    result = QueryResult(list(COLUMNS), columns, (COLUMNS.index("data"),))
    return b"".join(map(bytes, result.encode("ndjson")))
