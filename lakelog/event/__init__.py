"""What an event is: its columns, its levels, and its line in a WAL.

An `EncodedBatch` is events as such lines; `gather` knows the spellings of columns, `merge` adds to
a payload. `as_list` takes what `append` takes (`Events`), rows with `assigned_columns` come back
from a lake. A `BookkeepingEvent` is one that lakelog itself appends.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.event.arrow_rows import as_list as as_list
    from lakelog.event.bookkeeping import BookkeepingEvent as BookkeepingEvent
    from lakelog.event.encode import EncodedBatch as EncodedBatch
    from lakelog.event.encode import gather as gather
    from lakelog.event.encode import identity_key as identity_key
    from lakelog.event.encode import merge as merge
    from lakelog.event.encode import payload_of as payload_of
    from lakelog.event.exported import EVENT_COLUMNS as EVENT_COLUMNS
    from lakelog.event.exported import assigned_columns as assigned_columns
    from lakelog.event.levels import Severity as Severity
    from lakelog.event.types import Event as Event
    from lakelog.event.types import Events as Events

__getattr__, __all__ = lazy_face(__name__)
