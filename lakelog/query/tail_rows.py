"""The tail as a table: WAL frames become rows once, however often they are queried."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from lakelog import arrays, frame_rows
from lakelog.database import Connect
from lakelog.disk import disk
from lakelog.entries import IdRun
from lakelog.identities import unique_rows
from lakelog.libraries import np, pa
from lakelog.manifest import Manifest
from lakelog.runtime.locks import OrderedLock, Rank
from lakelog.store import Store
from lakelog.wal import Frame, PendingFrames

_COMBINE, _WRITERS = 64, 64
_WRITER_BITS = 40
_RUN = b"lakelog.run"
"""Metadata of a table of the tail: of two with the same value, the longer begins with the other."""
_FRAME_ROWS_MAX = 20_000
"""Events of a tail whose rows are kept for those who read on from where they stand."""
FrameId = tuple[str, int]


@dataclass(frozen=True)
class TailSlice:
    """Rows of a tail with `seq`, the positions of writers behind them, and whether none follow."""

    rows: pa.Table
    ends: dict[str, int]
    is_end: bool


class TailRows:
    """Rows of one branch's tail, kept between queries; what is sealed is dropped."""

    ORDER = "tail_order"
    """A column of the tail: the order in which its rows will be sealed, the same for every reader.
    Its lower half (`ordinals`) counts the events of the row's writer."""

    def __init__(self, store: Store, connect: Connect) -> None:
        self._store, self._connect = store, connect
        self._forget()
        self._mutex = OrderedLock(Rank.TAIL_ROWS)

    def _forget(self) -> None:
        self._table: pa.Table | None = None
        self._run, self._deduped_run = disk.random_hex(), ""
        self._frames: list[tuple[FrameId, int]] = []
        self._head, self._grew, self._upto = 0, False, dict[str, int]()
        self._answer: tuple[PendingFrames, tuple[IdRun, ...], pa.Table | None] | None = None
        self._deduped: tuple[pa.Table | None, tuple[IdRun, ...], pa.Table] | None = None
        self._keys: set[str] = set()
        self._numbered: tuple[pa.Table, int, pa.Table] | None = None
        self._writers: list[tuple[int, str]] = []
        self._frame_tables: dict[FrameId, pa.Table] = {}
        self._places: tuple[PendingFrames, dict[FrameId, int]] | None = None

    def events(self, pending: PendingFrames, runs: tuple[IdRun, ...]) -> pa.Table | None:
        """Return the tail's rows, each identity once, or None if there are none."""
        # hold_once: a signal handler that asks again in this thread would wait for itself.
        with self._mutex.hold_once():
            if not self._has_passed(pending):
                try:
                    return self._events(pending, runs)
                except BaseException:
                    # Ctrl-C, or the engine's limits: what stands half changed may lack rows.
                    self._forget()
                    raise
        # Another thread has asked for newer rows meanwhile: what is kept goes forward alone.
        return TailRows(self._store, self._connect).events(pending, runs)

    def _has_passed(self, pending: PendingFrames) -> bool:
        """Whether rows were made that this tail does not have yet."""
        number, frames = pending.head.move.number, pending.frames
        return number < self._head or (
            number == self._head
            and any(
                w not in frames or upto > frames[w][-1].sequence for w, upto in self._upto.items()
            )
        )

    def _events(self, pending: PendingFrames, runs: tuple[IdRun, ...]) -> pa.Table | None:
        answer = self._answer
        if answer is None or answer[0] is not pending or answer[1] != runs:
            before = self._table
            table, run = self._refresh(pending), self._run
            if table is not None and pending.has_keys:
                table = self._without_repeats(before, table, runs)
                run = self._deduped_run
            if table is not None:
                table = table.replace_schema_metadata({_RUN: run})
            answer = self._answer = pending, runs, table
        return answer[2]

    def _without_repeats(
        self, before: pa.Table | None, table: pa.Table, runs: tuple[IdRun, ...]
    ) -> pa.Table:
        """Drop rows whose identity came before; looks at new rows alone where those before them
        are as they were, unless one of theirs comes again: then the order decides."""
        cached = self._deduped
        count = 0 if before is None else before.num_rows
        if cached is not None and cached[0] is before and cached[1] == runs and self._grew:
            fresh, _ = unique_rows(self._store, table.slice(count), runs)
            keys = fresh["key"].drop_null().to_pylist()
            # An id of theirs that comes again among the new rows: the order decides which one
            # stays.
            if self._keys.isdisjoint(keys):
                self._keys.update(keys)
                deduped = _combined(pa.concat_tables([cached[2], fresh]))
                self._deduped = table, runs, deduped
                return deduped
        deduped, _ = unique_rows(self._store, table, runs)
        self._keys = set(deduped["key"].drop_null().to_pylist())
        self._deduped_run = disk.random_hex()
        self._deduped = table, runs, deduped
        return deduped

    @staticmethod
    def ordinals(table: pa.Table) -> np.ndarray:
        """Return the number of each row of the tail among the events of its writer. The position of
        an event that has a version is that, and says nothing of the others."""
        return arrays.numbers(table[TailRows.ORDER]) & ((1 << _WRITER_BITS) - 1)

    @staticmethod
    def begins_with(table: pa.Table, start: pa.Table) -> bool:
        """Whether a table of the tail begins with another's very rows, wherever those lie."""
        runs = [(rows.schema.metadata or {}).get(_RUN) for rows in (table, start)]
        return runs[0] is not None and runs[0] == runs[1] and table.num_rows >= start.num_rows

    def numbered(self, pending: PendingFrames, state: Manifest) -> pa.Table | None:
        """Return the tail's rows with `seq`, which sealing them now would give them."""
        table = self.events(pending, state.ids)
        if table is None:
            return None
        with self._mutex.hold_once():
            cached = self._numbered
            if cached is None or cached[0] is not table or cached[1] != state.next_seq:
                # Sealed now, rows would get these numbers: seq of the tail is provisional.
                places = _sealed_places(table, pending, self._store.settings.segment_rows)
                column = arrays.integers(places + state.next_seq)
                numbered = table.append_column("seq", column)
                cached = self._numbered = table, state.next_seq, numbered
            return cached[2]

    def behind(
        self, pending: PendingFrames, state: Manifest, marks: Mapping[str, int], count: int
    ) -> TailSlice | None:
        """Return the next rows of the tail, by arrival, of frames that end behind the positions of
        their writers in `marks`: so many events, or a frame at least. None if there are no rows.

        So a tail of any length costs who stands near its end no more than what is new. Where an
        event may come twice, the rows are all there are: which one counts, only those before tell.
        """
        if pending.has_keys or pending.has_versions:
            table = self.numbered(pending, state)
            return None if table is None else TailSlice(table, {}, True)
        arrivals = [
            (stamp, frame.writer, frame.sequence, frame)
            for writer, frames in pending.frames.items()
            for stamp, frame in _stamped(_newest(frames, marks.get(writer, 0), "end"))
            if not frame.flags & Frame.QUARANTINED
        ]
        # Writers and numbers decide between equal times, so that no two looks order them otherwise.
        arrivals.sort(key=lambda arrival: arrival[:3])
        sums = itertools.accumulate(arrival[3].events for arrival in arrivals)
        length = next((nth for nth, events in enumerate(sums, 1) if events >= count), None)
        frames = [frame for *_, frame in arrivals[:length]]
        if not frames:
            return None
        with self._mutex.hold_once():
            table = self._frame_rows(pending, state, frames)
        ends = {frame.writer: frame.end for frame in frames}
        return TailSlice(table, ends, len(frames) == len(arrivals))

    def _frame_rows(self, pending: PendingFrames, state: Manifest, frames: list[Frame]) -> pa.Table:
        """Rows of frames, of which those that were asked for before are not made again."""
        absent_frames = [f for f in frames if (f.writer, f.sequence) not in self._frame_tables]
        if absent_frames:
            fresh, start = frame_rows.events(self._connect, absent_frames), 0
            for frame in absent_frames:
                self._frame_tables[frame.writer, frame.sequence] = fresh.slice(start, frame.events)
                start += frame.events
        # Of frames of a few events each, every step would take as long as for whole ones.
        table = pa.concat_tables([self._frame_tables[f.writer, f.sequence] for f in frames])
        table = table.combine_chunks() if len(frames) > 1 else table
        count = sum(frame_table.num_rows for frame_table in self._frame_tables.values())
        while count > _FRAME_ROWS_MAX and len(self._frame_tables) > 1:
            count -= self._frame_tables.pop(next(iter(self._frame_tables))).num_rows
        if self._places is None or self._places[0] is not pending:
            self._places = pending, _frame_places(pending, self._store.settings.segment_rows)
        writers = sorted(pending.starts, key=lambda writer: (pending.starts[writer], writer))
        places = [
            np.arange(frame.events) + self._places[1][frame.writer, frame.sequence]
            for frame in frames
        ]
        seqs = arrays.integers(np.concatenate(places) + state.next_seq)
        return _ordered(table, frames, writers).append_column("seq", seqs)

    def quarantine(self, pending: PendingFrames) -> pa.Table | None:
        """Return the tail's quarantined lines, or None if there are none."""
        frames = [f for fs in pending.frames.values() for f in fs if f.flags & Frame.QUARANTINED]
        return frame_rows.quarantined(self._connect, frames) if frames else None

    def _refresh(self, pending: PendingFrames) -> pa.Table | None:
        """Drop rows of sealed frames, add rows of new ones."""
        stands, number = self._rank(pending), pending.head.move.number
        # Frames only grew: what is there stays, and the new ones are added.
        self._grew = stands and number == self._head and self._upto.keys() <= pending.frames.keys()
        if not self._grew:
            frame_keys = {(w, f.sequence) for w, fs in pending.frames.items() for f in fs}
            self._forget_all_but(frame_keys if stands else ())
            self._upto = {}
            for (writer, sequence), _ in self._frames:
                self._upto[writer] = max(sequence, self._upto.get(writer, -1))
        fresh = [
            f
            for writer, frames in pending.frames.items()
            for f in _newest(frames, self._upto.get(writer, -1), "sequence")
            if not f.flags & Frame.QUARANTINED
        ]
        self._head = number
        self._upto = {w: fs[-1].sequence for w, fs in pending.frames.items()}
        if fresh:
            writers = [writer for _, writer in self._writers]
            fresh_rows = _ordered(frame_rows.events(self._connect, fresh), fresh, writers)
            table = (
                fresh_rows if self._table is None else pa.concat_tables([self._table, fresh_rows])
            )
            self._table = _combined(table)
            self._frames += [((f.writer, f.sequence), f.events) for f in fresh]
        return self._table

    def _rank(self, pending: PendingFrames) -> bool:
        """Rank writers by their start, as sealing does; False if a rank was moved by that."""
        # Sealing takes writers by the start of the oldest of their WALs: that of a writer whose
        # older ones are gone is another one than it was.
        ranked = {writer: start for start, writer in self._writers}
        if pending.starts.items() <= ranked.items():
            return True
        # Ranks only ever grow, but the list must not: writers that are gone leave it.
        remaining = ranked if len(ranked) <= _WRITERS else {}
        after = sorted((start, writer) for writer, start in {**remaining, **pending.starts}.items())
        order = [writer for _, writer in after[: len(ranked)]]
        stands = order == [writer for _, writer in self._writers]
        self._writers = after
        return stands

    def _forget_all_but(self, frames: Collection[FrameId]) -> None:
        is_kept = [entry[0] in frames for entry in self._frames]
        if all(is_kept):
            return
        assert self._table is not None
        # A new run: tables made from here on do not begin with those before.
        self._run = disk.random_hex()
        mask = np.repeat(np.array(is_kept), [n for _, n in self._frames])
        self._frames = [e for e, keep in zip(self._frames, is_kept, strict=True) if keep]
        self._table = self._table.filter(arrays.mask(mask)) if self._frames else None


def _ordered(table: pa.Table, frames: list[Frame], writers: list[str]) -> pa.Table:
    """Add the order in which rows of frames will be sealed: by writer, then as they were written.
    `writers` are in the order in which they are sealed."""
    ranks = {writer: rank << _WRITER_BITS for rank, writer in enumerate(writers)}
    orders = [np.arange(frame.position, frame.end) + ranks[frame.writer] for frame in frames]
    return table.append_column(TailRows.ORDER, arrays.integers(np.concatenate(orders)))


def _combined(table: pa.Table) -> pa.Table:
    """Return a table of few chunks: where they are many, the last ones become one.

    Those before that are more than twice as long stay, so that a row of a long tail is copied a few
    times and not again with each of its first rows.
    """
    lengths = [len(chunk) for chunk in table["type"].chunks]
    if len(lengths) <= _COMBINE:
        return table
    rows = lengths.pop()
    while lengths and lengths[-1] <= 2 * rows:
        rows += lengths.pop()
    start = table.num_rows - rows
    return pa.concat_tables([table.slice(0, start), table.slice(start).combine_chunks()])


def _newest(frames: list[Frame], mark: int, member: str) -> list[Frame]:
    """Return the frames at the end whose `member` is above a mark; looks at no others but one, as
    new frames are few and the old ones many."""
    places = map(operator.attrgetter(member), reversed(frames))
    count = sum(1 for _ in itertools.takewhile(mark.__lt__, places))
    return frames[len(frames) - count :]


def _stamped(frames: list[Frame]) -> Iterator[tuple[int, Frame]]:
    """Frames of a writer by when they arrived: in their order, though a clock was set back."""
    return zip(itertools.accumulate((f.ingested_at for f in frames), max), frames, strict=True)


def _frame_places(pending: PendingFrames, rows_max: int) -> dict[FrameId, int]:
    """The place of the first event of each frame among all, in the order in which they would be
    sealed if each event is kept."""
    is_of_one = len(pending.frames) == 1  # whose frames keep their order in all segments
    segments = iter([pending.frames]) if is_of_one else pending.batches(rows_max)
    places, count = dict[FrameId, int](), 0
    for segment in segments:
        for frame in itertools.chain.from_iterable(segment.values()):
            if not frame.flags & Frame.QUARANTINED:
                places[frame.writer, frame.sequence] = count
                count += frame.events
    return places


def _sealed_places(table: pa.Table, pending: PendingFrames, rows_max: int) -> np.ndarray:
    """Return the place of each row among all, in the order in which they would be sealed."""
    order = arrays.numbers(table[TailRows.ORDER])
    batch_list = list(pending.batches(rows_max))
    # Sealing fills one segment after the other: rows of the first come before those of the next.
    if len(batch_list) > 1:
        ends = [{w: fs[-1].sequence for w, fs in batch.items()} for batch in batch_list]
        writers = np.asarray(table["writer"].cast("string").to_pylist())
        sequences = arrays.numbers(table["sequence"])
        part_of = np.zeros(len(order), np.int64)
        for end in ends[:-1]:
            for writer in pending.frames:
                part_of[(writers == writer) & (sequences > end.get(writer, -1))] += 1
        ranks = np.lexsort((order, part_of))
    elif (order[1:] > order[:-1]).all():
        return np.arange(len(order), dtype=np.int64)
    else:
        ranks = np.argsort(order)
    places = np.empty(len(order), np.int64)
    places[ranks] = np.arange(len(order))
    return places
