"""The older event store and log dump under their own names; nothing but the command line uses it.

`EventDatabase` and `EventPersistenceManager` store events, `Lookups` answers for them, `omega` has
their tables in SQL, and `sqlite_import` brings those of a database file. `OMEGALogManager` dumps
logs, of which a `LogEntry` is one line.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.compat import omega, sqlite_import
    from lakelog.compat.dump import LogEntry, OMEGALogManager
    from lakelog.compat.event_store import EventDatabase
    from lakelog.compat.lookups import Lookups
    from lakelog.compat.persistence import EventPersistenceManager, create_event_persistence

__all__ = [
    "EventDatabase",
    "EventPersistenceManager",
    "LogEntry",
    "Lookups",
    "OMEGALogManager",
    "create_event_persistence",
    "omega",
    "sqlite_import",
]

__getattr__ = lazy_face(
    __name__,
    dump="LogEntry OMEGALogManager",
    event_store="EventDatabase",
    lookups="Lookups",
    omega="",
    persistence="EventPersistenceManager create_event_persistence",
    sqlite_import="",
)
