"""Times of lines without one: each gets that of the line before, so that it sorts in place.

Lines with no timed line before them get the time of the first one after them in their chunk; where
there is none, the time of ingest stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakelog.errors import InvalidEvent
from lakelog.event.encode import parse_time, to_micros
from lakelog.formats import pattern
from lakelog.formats.format import Format
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
else:
    np = Lazy("numpy")
    pa = Lazy("pyarrow")


class TimeCarry:
    """The time of the line before, across the chunks of a file.

    `before` are the bytes in front of its first chunk. A chunk of many files has those of each in
    `files`, by where they begin.
    """

    def __init__(self, form: Format, before: bytes, files: dict[int, bytes] | None = None) -> None:
        self._form, self._before, self._files = form, before, files
        self._last: int | None = None

    def fill(self, table: pa.Table, untimed: list[Any]) -> pa.Table:
        """Give rows at the positions of `untimed` the time of the row before; rows are in the
        file's order. Chunks are given one after the other."""
        # Nearly all chunks: every line has a time, and only the last one matters for the next
        # chunk.
        if not len(untimed):
            self._last = table["time"][-1].value
            return table
        places = np.asarray(table["position"])
        times = table["time"].cast("int64").to_numpy().copy()
        blank = np.isin(places, np.concatenate(untimed))
        # Files of a group are filled one by one: the time of one says nothing about the next.
        files = self._files or {int(places[0]): self._before}
        starts = np.searchsorted(places, np.fromiter(files, np.int64)).tolist()
        for start, stop, before in zip(
            starts, [*starts[1:], len(times)], files.values(), strict=True
        ):
            if blank[start:stop].any():
                last = self._last if self._last is not None else self._last_time_in(before)
                _fill(times[start:stop], blank[start:stop], last)
        if not self._files and (self._last is not None or not blank.all()):
            self._last = int(times[-1])
        place = table.schema.get_field_index("time")
        return table.set_column(place, "time", pa.array(times).cast(table["time"].type))

    def _last_time_in(self, before: bytes) -> int | None:
        """The time of the last whole line that has one, in microseconds."""
        # The first of these lines may be cut at its beginning, for `before` is a window.
        for line in reversed(before.split(b"\n")[1:]):
            try:
                event = self._form.events(pattern.as_utf8(line.strip()))[-1]
                return to_micros(parse_time(event["time"]))
            except (InvalidEvent, KeyError, IndexError):
                continue
        return None


def _fill(times: np.ndarray, blank: np.ndarray, before: int | None) -> None:
    """Set times that are blank to those before them, in place."""
    timed = np.flatnonzero(~blank)
    first = before if before is not None else int(times[timed[0]]) if len(timed) else None
    # the last timed row up to each, or -1 for a time from before these rows
    last = np.maximum.accumulate(np.where(blank, -1, np.arange(len(times))))
    has_time = last >= 0 if first is None else np.ones(len(times), dtype=bool)
    times[has_time] = np.where(last < 0, first or 0, times[last])[has_time]
