"""Bookkeeping events: what lakelog itself appends to a lake, and how they are told from data.

A bookkeeping event has the source `lakelog` and a type that begins with `lakelog.`; both, so that
an application of the same name loses nothing. They are events like all others in SQL, views and
`tail`; exports of a whole table, training sets and the comparison of behaviour leave them out.
"""

from __future__ import annotations

from typing import Any

from lakelog.fields import Event

SOURCE = "lakelog"
WATCH, BACKUP, TRAIN = "lakelog.watch", "lakelog.backup", "lakelog.train"
EARLIER_TRAIN = "train.export"
"""The type of TRAIN in lakes of earlier builds."""

IS_DATA = (
    f"(source IS DISTINCT FROM '{SOURCE}'"
    f" OR NOT (starts_with(type, 'lakelog.') OR type = '{EARLIER_TRAIN}'))"
)
"""SQL that holds for every event but bookkeeping ones."""


def event(
    kind: str,
    subject: str,
    *,
    level: str | None = None,
    message: str | None = None,
    data: Any = None,
) -> Event:
    """Return a bookkeeping event of one of the types above, to be appended."""
    return {
        "type": kind,
        "source": SOURCE,
        "subject": subject,
        "level": level,
        "message": message,
        "data": data,
    }
