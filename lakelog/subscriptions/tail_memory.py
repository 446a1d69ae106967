"""What this process gave from the tail of a branch, so that it is not given again once published.

An event of the same id that is published before one of the tail makes that its duplicate, and an
event that has a version is known by its place in its stream once it is published, no longer by that
in the tail.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from lakelog import arrays
from lakelog.appends import StreamSubject
from lakelog.libraries import np, pa, pc
from lakelog.query import TailRows
from lakelog.subscriptions.position import (
    LivePosition,
    is_of_stream,
    mark_text,
    stream_mark,
    writer_mark,
)
from lakelog.wal import PendingFrames

_IDS_MAX = 100_000
"""Ids and versions of the tail that are remembered before those are dropped that are sealed."""
_STREAMS_MAX = 100
"""So many streams of the tail have a mark in a position, which stands in headers."""
TailPlace = tuple[str, int]
"""A writer, and the number of an event among its own."""


class TailMemory:
    """The ids and versions of the tail by their places in it."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str], TailPlace] = {}
        self._has_ids = False
        self._versions: dict[tuple[int, str, int], TailPlace] = {}
        self.stream_marks: dict[str, int] = {}
        """The marks of its streams, behind all of it."""

    def forget_ids(self) -> None:
        """Without a tail no id can come twice."""
        self._ids.clear()
        self._has_ids = False

    def hold(self, table: pa.Table, before: pa.Table | None, pending: PendingFrames) -> None:
        """Remember a tail, of which the rows `before` were looked at last."""
        if len(self._ids) > _IDS_MAX:
            self.forget_ids()
        # Rows that were looked at before stay as they were.
        if self._has_ids and before is not None and TailRows.begins_with(table, before):
            table = table.slice(before.num_rows)
        else:
            self.stream_marks = {}
        self._has_ids = True
        # A number of Python would load pandas, if it is there.
        keyed = table.filter(pc.not_equal(table["id"], arrays.texts([""])[0]))
        for source, name, place in zip(
            keyed["source"].to_pylist(), keyed["id"].to_pylist(), _places(keyed), strict=True
        ):
            self._ids[source or "", name] = place
        if pending.has_versions:
            # As long as a client may come from before they were published.
            if len(self._versions) > _IDS_MAX:
                self._versions = dict(itertools.islice(self._versions.items(), _IDS_MAX // 2, None))
            generation = pending.head.move.generation  # versions may be given again in the next
            of_stream = pc.starts_with(table["origin"].cast("string"), StreamSubject.ORIGIN)
            rows = table.filter(of_stream)
            versions = zip(rows["origin"].to_pylist(), rows["position"].to_pylist(), strict=True)
            for (origin, version), place in zip(versions, _places(rows), strict=True):
                self._versions[generation, origin, version] = place
                _mark_stream(self.stream_marks, origin, version)

    def is_new(self, events: pa.Table, position: LivePosition) -> np.ndarray:
        """Which published events were not given from the tail before, to whom is at a position."""
        is_new = np.ones(events.num_rows, bool)
        if self._ids:
            is_new &= self._is_new_id(events, position.marks)
        # Versions only matter to whoever was given events of the tail.
        if position.marks:
            is_new &= self._is_new_version(events, position)
        return is_new

    def _is_new_version(self, events: pa.Table, position: LivePosition) -> np.ndarray:
        """Which published events were not given as those of a stream from the tail before."""
        is_new, marks = np.ones(events.num_rows, bool), position.marks
        origins, versions = events["origin"].to_pylist(), events["position"].to_pylist()
        for row, (origin, version) in enumerate(zip(origins, versions, strict=True)):
            if origin.startswith(StreamSubject.ORIGIN):
                stream_place = position.generation, origin, version
                # A version that is not known was not given from this process's tail.
                writer, number = self._versions.get(stream_place, ("", 0))
                is_given = number < marks.get(writer_mark(writer), 0)
                is_new[row] = not is_given and version >= marks.get(stream_mark(origin), 0)
        return is_new

    def _is_new_id(self, events: pa.Table, marks: Mapping[str, int]) -> np.ndarray:
        """Which published events were not given under their id from the tail before."""
        places = (
            self._ids.get((source or "", name)) if name else None
            for source, name in zip(
                events["source"].to_pylist(), events["id"].to_pylist(), strict=True
            )
        )
        origins = events["origin"].to_pylist()
        # Given from the tail by another writer, under the same id.
        return np.array(
            [
                place is None
                or place[0] == origin
                or place[1] >= marks.get(writer_mark(place[0]), 0)
                for place, origin in zip(places, origins, strict=True)
            ],
            bool,
        )


def _mark_stream(marks: dict[str, int], origin: str, version: int) -> None:
    """Mark a version of a stream as given, as long as there are not too many streams."""
    # Streams without a mark are told by the versions that are remembered.
    mark = stream_mark(origin)
    if mark in marks or sum(map(is_of_stream, marks)) < _STREAMS_MAX:
        marks[mark] = version + 1


def marks_behind(position: LivePosition, rows: pa.Table) -> Iterator[tuple[dict[str, int], str]]:
    """The marks behind each of some rows of the tail, always one dictionary, and their text."""
    marks, texts, names = dict(position.marks), dict[str, str](), ("origin", "position")
    places = zip(_places(rows), *(rows[name].to_pylist() for name in names), strict=True)
    for (writer, number), origin, version in places:
        mark = writer_mark(writer)
        marks[mark] = number + 1
        if origin.startswith(StreamSubject.ORIGIN):
            _mark_stream(marks, origin, version)
            texts.clear()
        # As a rule one mark moves, among those of a hundred writers.
        if len(texts) == len(marks):
            texts[mark] = mark_text(mark, number + 1)
        else:
            texts = {name: mark_text(name, marks[name]) for name in sorted(marks)}
        yield marks, "".join(texts.values())


def _places(rows: pa.Table) -> list[TailPlace]:
    """The places of rows of the tail."""
    return list(zip(rows["writer"].to_pylist(), TailRows.ordinals(rows).tolist(), strict=True))
