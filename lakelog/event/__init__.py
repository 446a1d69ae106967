"""What an event is: its columns, its levels, and its line in a WAL.

An `EncodedBatch` is events as such lines; `gather` knows the spellings of columns, `merge` adds to
a payload. `as_list` takes what `append` takes (`Events`), rows with `assigned_columns` come back
from a lake. A `BookkeepingEvent` is one that lakelog itself appends.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.event.arrow_rows import as_list
    from lakelog.event.bookkeeping import BookkeepingEvent
    from lakelog.event.encode import EncodedBatch, gather, identity_key, merge, payload_of
    from lakelog.event.exported import EVENT_COLUMNS, assigned_columns
    from lakelog.event.levels import Severity
    from lakelog.event.types import Event, Events

__all__ = [
    "EVENT_COLUMNS",
    "BookkeepingEvent",
    "EncodedBatch",
    "Event",
    "Events",
    "Severity",
    "as_list",
    "assigned_columns",
    "gather",
    "identity_key",
    "merge",
    "payload_of",
]

__getattr__ = lazy_face(
    __name__,
    arrow_rows="as_list",
    bookkeeping="BookkeepingEvent",
    encode="EncodedBatch gather identity_key merge payload_of",
    exported="EVENT_COLUMNS assigned_columns",
    levels="Severity",
    types="Event Events",
)
