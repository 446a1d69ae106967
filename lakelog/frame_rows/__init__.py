"""How do frames of WALs become rows? By the SQL engine, with no Python for each event.

`events` and `quarantined` are the rows of frames; `scan_sql` reads columns among `SCANNED` of them
without making rows. TIMES are the members of a line that may have its time.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.frame_rows.frame_sql import SCANNED as SCANNED
    from lakelog.frame_rows.frame_sql import TIMES as TIMES
    from lakelog.frame_rows.frame_sql import scan_sql as scan_sql
    from lakelog.frame_rows.rows import events as events
    from lakelog.frame_rows.rows import quarantined as quarantined

__getattr__, __all__ = lazy_face(__name__)
