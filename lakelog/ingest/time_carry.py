"""Times of lines without one: each gets that of the line before, so that it sorts in place.

Lines with no timed line before them get the time of the first one after them in their chunk; where
there is none, the time of ingest stays. A line that begins with a time is not among them, whether
that can be read or not.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime
from typing import Any

from lakelog import arrays
from lakelog.errors import InvalidEvent
from lakelog.formats import DateOrders, Format, LeadingTime, LineEncoding
from lakelog.ingest import stripes
from lakelog.libraries import np, pa, pc
from lakelog.lines import Chunk
from lakelog.values import parse_time, to_micros


class Untimed:
    """The rows of a chunk to which no format gave a time: they have `now`, that of ingest."""

    def __init__(self, ingest_time: datetime) -> None:
        self.now = ingest_time
        self.positions: list[object] = []
        """The positions of rows that get the time of the row before."""
        self.timed: list[Any] = []
        """The indexes of lines that begin with a time, which the exact rule reads."""

    def take(self, rows: pa.Table, lines: pa.Array, places: np.ndarray) -> pa.Table:
        """Sort out the untimed rows of the lines at some places; return the rows that stay."""
        blank = stripes.untimed_positions(rows, self.now)
        if not len(blank):
            return rows
        index = np.searchsorted(places, blank)
        is_timed = np.zeros(len(blank), dtype=bool)
        is_timed[LeadingTime.timed(lines.take(arrays.integers(index)))] = True
        self.positions.append(blank[~is_timed])
        if not is_timed.any():
            return rows
        self.timed.append(index[is_timed])
        timed = arrays.integers(blank[is_timed])
        return rows.filter(pc.invert(pc.is_in(rows["position"], timed)))


class TimeCarry:
    """The time of the line before, across the chunks of a file.

    `before` are the bytes in front of its first chunk. A chunk of many files has those of each in
    `files`, by where they begin, and their first bytes in `heads`.
    """

    def __init__(
        self,
        form: Format,
        before: bytes,
        files: dict[int, bytes] | None = None,
        heads: dict[int, bytes] | None = None,
    ) -> None:
        self._form, self._before, self._files = form, before, files
        self._reach = DateOrders.HEAD if form.traits.prose else DateOrders.OBJECT
        self._heads, self._orders = heads or {}, DateOrders(self._reach)
        self._last: int | None = None
        self._orders.add(self._known(0, before))

    def in_files(
        self, chunk: Chunk, starts: np.ndarray, index: np.ndarray
    ) -> Generator[int, None, None]:
        """Yield the indexes of records one by one; while one is parsed, days and months are read in
        the order that the dates of its file have."""
        # the first part is empty where the first file is one of the seams
        parts = np.split(index, np.searchsorted(starts[index], chunk.seams))
        for place, file_index in zip((0, *chunk.seams), parts, strict=True):
            if not len(file_index):
                continue
            orders = self._orders
            if self._files:
                orders = DateOrders(self._reach)
                orders.add(self._known(place, self._files.get(place, b"")))
            lows, highs = starts[file_index], starts[file_index + 1]
            highs = np.minimum(highs, lows + self._reach)
            spans = zip(lows.tolist(), highs.tolist(), strict=True)
            with orders.settled(chunk.text[low:high] for low, high in spans):
                yield from file_index.tolist()

    def _known(self, place: int, before: bytes) -> list[bytes]:
        """Lines that were read earlier of the file that begins at a place."""
        return [*self._heads.get(place, b"").split(b"\n"), *before.split(b"\n")]

    def fill(self, table: pa.Table, untimed: list[Any]) -> pa.Table:
        """Give rows at the positions of `untimed` the time of the row before; rows are in the
        file's order. Chunks are given one after the other."""
        places = arrays.numbers(table["position"])
        times = arrays.numbers(table["time"]).copy()
        blank = np.isin(places, np.concatenate(untimed)) if untimed else places < 0
        has_time = ~(blank | arrays.arrived(table))
        # Files of a group are filled one by one: the time of one says nothing about the next.
        files = self._files or {int(places[0]): self._before}
        starts = np.searchsorted(places, np.fromiter(files, np.int64)).tolist()
        for start, stop, place in zip(starts, [*starts[1:], len(times)], files, strict=True):
            if blank[start:stop].any():
                last_time = self._last
                if last_time is None:
                    last_time = self._last_time_in(place if self._files else 0, files[place])
                _fill(times[start:stop], blank[start:stop], has_time[start:stop], last_time)
        if not self._files and has_time.any():
            self._last = int(times[np.flatnonzero(has_time)[-1]])
        if not blank.any():
            return table
        place = table.schema.get_field_index("time")
        return table.set_column(place, "time", arrays.times(times).cast(table["time"].type))

    def _last_time_in(self, place: int, before: bytes) -> int | None:
        """The time of the last whole line that has one, in microseconds."""
        orders = DateOrders(self._reach)
        orders.add(self._known(place, before))
        with orders.settled():
            # The first of these lines may be cut at its beginning, for `before` is a window.
            for line in reversed(before.split(b"\n")[1:]):
                try:
                    event = self._form.events(LineEncoding.as_utf8(line.strip()))[-1]
                    return to_micros(parse_time(event["time"]))
                except (InvalidEvent, KeyError, IndexError):
                    continue
        return None


def _fill(times: np.ndarray, blank: np.ndarray, has_time: np.ndarray, before: int | None) -> None:
    """Set times that are blank to the last one before them that a row has itself, in place."""
    timed = np.flatnonzero(has_time)
    first_time = before if before is not None else int(times[timed[0]]) if len(timed) else None
    # the last timed row up to each, or -1 for a time from before these rows
    last_timed = np.maximum.accumulate(np.where(has_time, np.arange(len(times)), -1))
    filled = blank if first_time is not None else blank & (last_timed >= 0)
    times[filled] = np.where(last_timed < 0, first_time or 0, times[last_timed])[filled]
