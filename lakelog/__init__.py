"""lakelog, the flight recorder for data and AI systems.

import lakelog
lake = lakelog.open("lake")
lake.append({"type": "COMPLETE", "source": "TechPodcast", "data": {"ms": 12}})
lake.sql("SELECT type, count(*) FROM events GROUP BY 1")
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from lakelog.errors import Damaged, LakelogError
from lakelog.query import providers
from lakelog.runtime.lazy import FormerModules, Lazy
from lakelog.store.attachment import AttachmentRegistry

if TYPE_CHECKING:
    from lakelog import views
    from lakelog.analyze import dedupe
    from lakelog.compat.database_sync import BatchDatabaseSync as BatchDatabaseSync
    from lakelog.compat.dump import LogEntry as LogEntry
    from lakelog.compat.dump import OMEGALogManager as OMEGALogManager
    from lakelog.compat.event_store import EventDatabase as EventDatabase
    from lakelog.compat.persistence import EventPersistenceManager as EventPersistenceManager
    from lakelog.compat.persistence import create_event_persistence as create_event_persistence
    from lakelog.compat.podcasts import PodcastProcessor as PodcastProcessor
    from lakelog.compat.podcasts import SimpleLogProcessor as SimpleLogProcessor
    from lakelog.dbapi import connect
    from lakelog.event.types import Event
    from lakelog.lake import Lake, open
    from lakelog.loggers.adapters import LoguruSink as LoguruSink
    from lakelog.loggers.adapters import StructlogProcessor as StructlogProcessor
    from lakelog.loggers.ai import get_ai_logger as get_ai_logger
    from lakelog.loggers.ai import log_system_start as log_system_start
    from lakelog.loggers.ai import measure_operation as measure_operation
    from lakelog.loggers.genai import instrument_anthropic as instrument_anthropic
    from lakelog.loggers.genai import instrument_openai as instrument_openai
    from lakelog.loggers.handler import LakeHandler as LakeHandler
    from lakelog.loggers.oos import get_logger as get_logger
    from lakelog.loggers.otel import LakeLogExporter as LakeLogExporter
    from lakelog.loggers.otel import LakeSpanExporter as LakeSpanExporter
    from lakelog.loggers.spans import span as span
    from lakelog.notebook.live import live as live
    from lakelog.pinned import PinnedLake
    from lakelog.query.relation import Relation
    from lakelog.settings import Settings
    from lakelog.store.history import Diff, Snapshot
    from lakelog.store.receipt import Receipt

__version__ = "0.1.0"
__all__ = [
    "Damaged",
    "Diff",
    "Event",
    "Lake",
    "LakelogError",
    "PinnedLake",
    "Receipt",
    "Relation",
    "Settings",
    "Snapshot",
    "__version__",
    "connect",
    "dedupe",
    "open",
    "views",
]

_STORE = {
    "Diff": "lakelog.store.history",
    "Event": "lakelog.event.types",
    "Lake": "lakelog.lake",
    "PinnedLake": "lakelog.pinned",
    "Receipt": "lakelog.store.writer",
    "Relation": "lakelog.query.relation",
    "Settings": "lakelog.settings",
    "Snapshot": "lakelog.store.history",
    "connect": "lakelog.dbapi",
    "open": "lakelog.lake",
}
"""The store itself, which a program that logs to a file never loads."""
_OLD_NAMES = {
    "BatchDatabaseSync": "lakelog.compat.database_sync",
    "EventDatabase": "lakelog.compat.event_store",
    "EventPersistenceManager": "lakelog.compat.persistence",
    "LogEntry": "lakelog.compat.dump",
    "OMEGALogManager": "lakelog.compat.dump",
    "RedisConfig": "lakelog.clients.redis_config",
    "RedisManager": "lakelog.compat.redis",
    "PodcastProcessor": "lakelog.compat.podcasts",
    "SimpleLogProcessor": "lakelog.compat.podcasts",
    "create_event_persistence": "lakelog.compat.persistence",
    "get_views": "lakelog.compat.oos_views",
}
"""Public names of older systems, and where they live now; they load when asked for."""
_LOGGERS = {
    "LakeHandler": "lakelog.loggers.handler",
    "LakeLogExporter": "lakelog.loggers.otel",
    "LakeSpanExporter": "lakelog.loggers.otel",
    "LoguruSink": "lakelog.loggers.adapters",
    "StructlogProcessor": "lakelog.loggers.adapters",
    "get_ai_logger": "lakelog.loggers.ai",
    "get_logger": "lakelog.loggers.oos",
    "instrument_anthropic": "lakelog.loggers.genai",
    "instrument_openai": "lakelog.loggers.genai",
    "log_system_start": "lakelog.loggers.ai",
    "measure_operation": "lakelog.loggers.ai",
    "span": "lakelog.loggers.spans",
}
"""What an application logs with."""
sys.meta_path.append(
    FormerModules(
        {
            "lakelog.sync.consume": "lakelog.consume.consume",
            "lakelog.sync.redis_recent": "lakelog.recent.redis_recent",
            "lakelog.transfer": "",
            "lakelog.transfer.restore": "lakelog.state.restore",
            "lakelog.transfer.rollback": "lakelog.rollback.rollback",
            "lakelog.transfer.state": "lakelog.state.state",
        }
    )
)
providers.REGISTERED["omega"] = Lazy("lakelog.compat.omega")
AttachmentRegistry.OPENERS.append(Lazy("lakelog.remotes.shared"))


def load_ipython_extension(shell: object) -> None:
    """What `%load_ext lakelog` calls: register the magics, the completion and the display."""
    Lazy("lakelog.notebook").load(shell)


_MODULES = {"dedupe": "lakelog.analyze.dedupe", "train": "lakelog.train", "views": "lakelog.views"}
_NAMES = {**_STORE, **_OLD_NAMES, **_LOGGERS, "live": "lakelog.notebook.live"}


def __getattr__(name: str) -> Any:
    """Load a name when it is first asked for: importing lakelog alone costs next to nothing."""
    if module := _NAMES.get(name):
        value = getattr(Lazy(module), name)
    elif name in _MODULES:
        value = Lazy(_MODULES[name])
    else:
        raise AttributeError(f"module 'lakelog' has no attribute {name!r}")
    return globals().setdefault(name, value)


def __dir__() -> list[str]:
    """All public names, those that load when asked for too."""
    return sorted({*__all__, *_NAMES, *_MODULES, "errors"})
