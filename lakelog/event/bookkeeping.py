"""Bookkeeping events: what lakelog itself appends to a lake, and how they are told from data.

A bookkeeping event has the source `lakelog` and a type that begins with `lakelog.`; both, so that
an application of the same name loses nothing. They are events like all others in SQL, views and
`tail`; exports of a whole table, training sets and the comparison of behaviour leave them out.
"""

from __future__ import annotations

from lakelog import arrays
from lakelog.event.types import Event
from lakelog.libraries import pa, pc


class BookkeepingEvent:
    """Makes them, and tells them from data."""

    SOURCE = "lakelog"
    WATCH, BACKUP, TRAIN = "lakelog.watch", "lakelog.backup", "lakelog.train"
    EARLIER_TRAIN = "train.export"
    """The type of TRAIN in lakes of earlier builds."""

    IS_DATA = (
        f"(source IS DISTINCT FROM '{SOURCE}'"
        f" OR NOT (starts_with(type, 'lakelog.') OR type = '{EARLIER_TRAIN}'))"
    )
    """SQL that holds for every event but bookkeeping ones."""
    IS_OBSERVED = f"{IS_DATA} AND NOT starts_with(coalesce(source, ''), 'lakelog ')"
    """SQL for events that are neither bookkeeping nor what analyses recorded: findings must not be
    found again."""

    @classmethod
    def without(cls, events: pa.RecordBatch) -> pa.RecordBatch:
        """Return the events for which IS_DATA holds."""
        is_own = pc.equal(events["source"], arrays.texts([cls.SOURCE])[0])
        if not pc.any(is_own).as_py():  # nearly every batch
            return events
        types = events["type"]
        kinds = pc.or_(pc.starts_with(types, "lakelog."), pc.equal(types, cls.EARLIER_TRAIN))
        return events.filter(pc.invert(pc.fill_null(pc.and_(is_own, kinds), False)))

    @classmethod
    def of(
        cls,
        event_type: str,
        subject: str,
        *,
        level: str | None = None,
        message: str | None = None,
        data: object = None,
    ) -> Event:
        """Return a bookkeeping event of one of the types above, to be appended."""
        return {
            "type": event_type,
            "source": cls.SOURCE,
            "subject": subject,
            "level": level,
            "message": message,
            "data": data,
        }

    @staticmethod
    def repeated_words(lines: int) -> str:
        """Return what is said of lines that came once more: nothing proves that they are the
        same."""
        count = f"{lines:,} line{'s' if lines > 1 else ''}"
        return f"{count} may be stored twice: what had this name before held them, too"
