"""The older event store and log dump under their own names; nothing but the command line uses it.

`EventDatabase` and `EventPersistenceManager` store events, `Lookups` answers for them, `omega` has
their tables in SQL, and `sqlite_import` brings those of a database file. `OMEGALogManager` dumps
logs, of which a `LogEntry` is one line.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.compat import omega as omega
    from lakelog.compat import sqlite_import as sqlite_import
    from lakelog.compat.dump import LogEntry as LogEntry
    from lakelog.compat.dump import OMEGALogManager as OMEGALogManager
    from lakelog.compat.event_store import EventDatabase as EventDatabase
    from lakelog.compat.lookups import Lookups as Lookups
    from lakelog.compat.persistence import EventPersistenceManager as EventPersistenceManager
    from lakelog.compat.persistence import create_event_persistence as create_event_persistence

__getattr__, __all__ = lazy_face(__name__)
