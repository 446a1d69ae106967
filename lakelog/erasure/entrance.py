"""What erasures refuse of events before they are stored, as lines of a WAL (F3.13).

Sealing leaves out the same: what it would not keep must not be acknowledged. So an event that was
erased is known here by its content, too, if an erasure remembers contents of its time: those of
rows by a condition, and of events that were dated after the erasure of their subject.
"""

from __future__ import annotations

import orjson

from lakelog import erased, frame_rows
from lakelog.database import Connect
from lakelog.errors import InvalidEvent
from lakelog.event import EncodedBatch
from lakelog.runtime.lazy import LazyProperty
from lakelog.store import Store
from lakelog.values import parse_time, to_micros
from lakelog.wal import Frame


class ErasedLines:
    """The events that the erasures of a lake know."""

    def __init__(self, store: Store, connect: Connect) -> None:
        """Read what was erased so far. Raises DamagedRef."""
        self._store, self._connect = store, connect
        self._subjects = erased.SubjectIndex.of_lake(store.paths)
        # Those of subjects know contents of their events alone: mostly nothing of these is read.
        of_any = set(self._subjects.keys) - self._subjects.subject_keys
        self._spans_of_any = {self._spans[key] for key in of_any if key in self._spans}

    @LazyProperty
    def _refusal(self) -> erased.Refusal:
        return erased.Refusal(self._store.paths)

    @LazyProperty
    def _spans(self) -> dict[str, tuple[int, int]]:
        return self._refusal.content_spans

    def without(self, encoded: EncodedBatch) -> EncodedBatch:
        """Return a batch but its erased events. Raises DamagedRef."""
        reasons = self._reasons(encoded)
        return encoded.without(reasons) if reasons else encoded

    def check(self, encoded: EncodedBatch) -> None:
        """Refuse a batch of which an event was erased: nothing of it is stored. Raises
        InvalidEvent, DamagedRef."""
        for reason in self._reasons(encoded).values():
            raise InvalidEvent(f"an event {reason}: it is refused")

    def _reasons(self, encoded: EncodedBatch) -> dict[int, str]:
        """Return why events of a batch are refused, by their numbers."""
        reasons, suspects = dict[int, str](), dict[int, bytes]()
        is_asked = self._subjects or self._spans_of_any
        for number, line in enumerate(encoded.lines if is_asked else ()):
            event = orjson.loads(line)
            subject = event.get("subject") or event.get("item_id")
            erasures = self._subjects.of(subject) if subject else ()
            if not (erasures or self._spans_of_any):
                continue
            time_us = _time_us(event)
            if earlier := [e.key for e in erasures if time_us <= e.time]:
                reason = f"is of a subject that was erased (erasure {earlier[0]}), and from before"
                reasons[number] = reason
                continue
            spans = {self._spans[e.key] for e in erasures if e.key in self._spans}
            if any(low <= time_us <= high for low, high in spans | self._spans_of_any):
                suspects[number] = line
        return reasons | self._known_contents(suspects)

    def _known_contents(self, suspects: dict[int, bytes]) -> dict[int, str]:
        """Return why some lines are refused of which an erasure may know the content."""
        if not suspects:
            return {}
        # As sealing reads them: a content is that of a row.
        frame = Frame.unwritten("", b"\n".join(suspects.values()), len(suspects), 0, 0, 0)
        rows = frame_rows.events(self._connect, [frame])
        is_known = self._refusal.mask(rows, self._store.paths.protection)
        reason = "has the content of one that was erased (`lakelog erase list`)"
        return {number: reason for number, known in zip(suspects, is_known, strict=True) if known}


def _time_us(event: dict[str, str]) -> int:
    # A line has one of them, in the spelling that it came with.
    name = next(name for name in frame_rows.TIMES if name in event)
    return to_micros(parse_time(event[name]))
