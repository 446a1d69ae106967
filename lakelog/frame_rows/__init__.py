"""How do frames of WALs become rows? By the SQL engine, with no Python for each event.

`events` and `quarantined` are the rows of frames; `scan_sql` reads columns among `SCANNED` of them
without making rows.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.frame_rows.frame_sql import SCANNED, scan_sql
    from lakelog.frame_rows.rows import events, quarantined

__all__ = ["SCANNED", "events", "quarantined", "scan_sql"]

__getattr__ = lazy_face(__name__, frame_sql="SCANNED scan_sql", rows="events quarantined")
