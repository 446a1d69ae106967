"""What came since the last look, at the cost of that alone.

The frames of the tail that were not there are decoded; what came in bulk is counted by the
statistics of the segments that a move added. Nothing is queried, and no segment is opened, but for
the newest events once at the beginning and after a load.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter

import orjson

from lakelog.entries import SegmentEntry
from lakelog.lake import Lake
from lakelog.manifest import Manifest
from lakelog.pinned import PinnedLake
from lakelog.refs import Head, only_grew
from lakelog.top.rates import COLUMNS, LakeFigures, NewestEvent, SecondCounts
from lakelog.values import JsonObject
from lakelog.wal import Frame, PendingFrames

DECODED_MAX = 20_000
"""Events of one look that are read; of more, these stand for all."""
_STORAGE_EVERY = 10.0
_NEWEST = 50
_DAY_US = 86_400_000_000
# Other names of these members that `append` takes.
_TYPES = ("type", "event_type")
_TIMES = ("time", "timestamp", "ts", "@timestamp")
_SHOWN = ("time", "type", "source", "level", "message", "data")
_LENGTH_MAX, _VALUE_MAX = 400, 100


class LiveFeed:
    """Looks at the branch of an open lake again and again."""

    def __init__(self, lake: Lake) -> None:
        self._lake, self.figures = lake, LakeFigures()
        self._tail = lake.subscriptions().tail
        self._head: Head | None = None
        self._state: Manifest | None = None
        self._marks: dict[str, int] = {}
        self._measured = -_STORAGE_EVERY
        self._totals: dict[str, Counter[str]] = {}

    def look(self, moment: float | None = None) -> LakeFigures:
        """Return the figures with what came since. Raises LakelogError, OSError."""
        moment = time.monotonic() if moment is None else moment
        pending = self._tail.collect()
        state = self._lake.store.manifests.of(pending.head.move)
        counts, is_bulk = SecondCounts(moment), False
        before_head = self._head
        # Figures of before are of events that the branch does not have any more.
        refs = self._lake.store.refs
        if before_head is not None and not only_grew(refs, pending.head, before_head):
            self.figures.clear()
            before_head = None
        if before_head is None:
            self._begin(pending)
        else:
            self._frames(pending, counts)
            is_bulk = self._bulk(before_head, pending.head, counts)
        self._head, self._state = pending.head, state
        # By sequence: a frame is counted once, also when its file is sealed and gone.
        self._marks = {w: fs[-1].sequence for w, fs in pending.frames.items() if fs}
        self.figures.look(counts)
        for column, counter in self._totals.items():
            counter.update(counts.counts[column])
        self._sums(state, pending)
        # A listing of files takes longer than all else.
        if moment - self._measured >= _STORAGE_EVERY:
            self._measured = moment
            _measure(self.figures, self._lake)
            # Measuring has replaced them by those of segments alone.
            self.figures.totals = dict(self._totals)
            # What was loaded is in segments, and was not decoded on the way.
            if is_bulk:
                self._newest()
        return self.figures

    def count(self) -> None:
        """Count once what statistics do not, by a query over one column; another thread may do so
        while others look."""
        for column in uncounted(self.figures):
            self._totals[column] = _counted(self._lake, column)
            self.figures.totals[column] = self._totals[column]

    def _frames(self, pending: PendingFrames, counts: SecondCounts) -> None:
        """Count and decode the frames of the tail that were not there before."""
        frames = [
            frame
            for writer, group in pending.frames.items()
            for frame in group
            if frame.sequence > self._marks.get(writer, pending.watermark(writer))
            # Quarantined lines are no events.
            and not frame.flags & Frame.QUARANTINED
        ]
        total = sum(frame.events for frame in frames)
        counts.events += total
        decoded, budget = list[JsonObject](), DECODED_MAX
        # From the newest on, until enough are read.
        for frame in sorted(frames, key=lambda f: -f.ingested_at):
            if budget <= 0:
                break
            events = list[JsonObject]()
            with contextlib.suppress(ValueError):  # of bytes that verify will name
                events = [orjson.loads(line) for line in frame.text().splitlines()][:budget]
            decoded[:0] = events
            budget -= len(events)
        # What was read stands for the rest.
        scale = total / len(decoded) if decoded else 1.0
        for column in COLUMNS:
            for value, events_of_it in _tally(decoded, column).items():
                counts.add(column, value, round(events_of_it * scale))
        for event in decoded[-_NEWEST:]:
            self.figures.newest.append(_newest_of(event))

    def _bulk(self, before_head: Head, head: Head, counts: SecondCounts) -> bool:
        """Count what moves added that did not come through the tail; whether there was any."""
        # Moves that add nothing, such as tags, change no number.
        if head.move.number == before_head.move.number:
            return False
        store, has_load = self._lake.store, False
        before = self._state
        for number in store.refs.numbers(self._lake.branch_name):
            if not before_head.move.number < number <= head.move.number:
                continue
            move = store.refs.read(self._lake.branch_name, number)
            # A seal's events were counted in the tail already.
            state = store.manifests.of(move)
            if move.op != "seal" and before is not None and state.next_seq > before.next_seq:
                entries = store.manifests.segments(state, "events")
                # By number: a compaction exchanges older segments.
                fresh = [e for e in entries if e.seq[0] >= before.next_seq]
                for entry in fresh:
                    _count(entry, counts)
                has_load |= bool(fresh)
            before = state
        return has_load

    def _newest(self) -> None:
        self.figures.newest.clear()
        for event in self._lake.tail(_NEWEST):
            self.figures.newest.append(_newest_of(dict(event)))

    def _begin(self, pending: PendingFrames) -> None:
        """Count what is there: by the statistics of segments, and what the tail has."""
        _measure(self.figures, self._lake)
        self._marks, live = {}, SecondCounts(0.0)
        is_known = {column: bool(values) for column, values in self.figures.totals.items()}
        self._frames(pending, live)
        self._totals = {
            column: Counter(values) + live.counts[column]
            for column, values in self.figures.totals.items()
            # Known counts of segments without those of the tail would be wrong by that much.
            if is_known[column] or self.figures.events == self.figures.pending
        }
        self.figures.totals = dict(self._totals)
        self._newest()

    def _sums(self, state: Manifest, pending: PendingFrames) -> None:
        figures = self.figures
        figures.events = state.totals.events + pending.events
        figures.pending, figures.quarantined = pending.events, state.totals.quarantined
        figures.bytes, figures.segments = state.totals.bytes, state.totals.segments


def of_state(lake: Lake, ref: str) -> LakeFigures:
    """The figures of a past state: its totals and its newest events. Raises UnknownRef."""
    figures, state = LakeFigures(is_live=False), lake.at(ref)
    _measure(figures, state)
    query = f"SELECT {', '.join(_SHOWN)} FROM events ORDER BY seq DESC LIMIT {_NEWEST}"
    for event in state.sql(query).fetchall():
        figures.newest.appendleft(_newest_of(dict(zip(_SHOWN, event, strict=True))))
    for column in uncounted(figures):
        figures.totals[column] = _counted(state, column)
    return figures


def uncounted(figures: LakeFigures) -> list[str]:
    """The columns of whose values the statistics of segments know no counts: there are many."""
    events = figures.events - figures.pending
    # Statistics of an empty lake are complete.
    return [c for c in COLUMNS if events and not figures.totals.get(c)]


def _counted(state: Lake | PinnedLake, column: str) -> Counter[str]:
    """Count the values of a column, which reads it."""
    rows = state.sql(f"SELECT coalesce({column}, ''), count(*) FROM events GROUP BY 1").fetchall()
    return Counter(dict(rows))


def _measure(figures: LakeFigures, state: Lake | PinnedLake) -> None:
    stats = state.stats()
    figures.events, figures.pending = stats.events + stats.pending, stats.pending
    figures.bytes, figures.segments = stats.bytes, stats.segments
    figures.quarantined, figures.wal_bytes = stats.quarantined, stats.wal_bytes
    figures.index_bytes = stats.words_bytes + stats.ids_bytes
    totals = {"type": stats.types, "source": stats.sources, "level": stats.levels}
    # Of segments with many values there are no counts: the sum of all others is no total.
    figures.totals = {
        column: values if sum(values.values()) == stats.events else {}
        for column, values in totals.items()
    }
    if stats.time is not None:
        # An hour at least: a lake of a minute would show a senseless figure for a day.
        days = max((stats.time[1] - stats.time[0]) / _DAY_US, 1 / 24)
        figures.bytes_a_day = stats.bytes / days


def _count(entry: SegmentEntry, counts: SecondCounts) -> None:
    counts.events += entry.events
    for column in COLUMNS:
        values = getattr(entry, f"{column}s")
        for value, events in values.items() if isinstance(values, dict) else ():
            counts.add(column, value, events)


def _tally(events: list[JsonObject], column: str) -> Counter[str]:
    """Count the values of a column; texts, as nearly all are, at once."""
    # An unhashable value, as a list, is counted one by one.
    with contextlib.suppress(TypeError):
        values = [event.get(column) for event in events]
        if column == "type":
            alias = _TYPES[1]
            values = [v or e.get(alias) for v, e in zip(values, events, strict=True)]
        tally = Counter(value or "" for value in values)
        if all(isinstance(value, str) and len(value) <= _VALUE_MAX for value in tally):
            return tally
    return Counter(_value(event, column) for event in events)


def _value(event: JsonObject, column: str) -> str:
    names = _TYPES if column == "type" else (column,)
    value = next((event[name] for name in names if event.get(name) is not None), "")
    return str(value)[:_VALUE_MAX]


def _newest_of(event: JsonObject) -> NewestEvent:
    moment = next((event[name] for name in _TIMES if event.get(name) is not None), "")
    message = event.get("message")
    if not message:
        data = event.get("data")
        message = data if isinstance(data, str) else orjson.dumps(data, default=str).decode()
        message = "" if data is None else message
    return NewestEvent(
        _clock(moment),
        _value(event, "level"),
        _value(event, "source"),
        _value(event, "type"),
        str(message)[:_LENGTH_MAX],
    )


def _clock(moment: object) -> str:
    """The time of day of a time as an event has it."""
    spelled = moment.isoformat() if hasattr(moment, "isoformat") else str(moment)
    if isinstance(moment, (int, float)):
        seconds = moment / 1000 if moment > 1e11 else moment
        spelled = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return spelled[11:19] if len(spelled) >= 19 else spelled[:8]
