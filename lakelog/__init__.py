"""lakelog, the flight recorder for data and AI systems.

import lakelog
lake = lakelog.open("lake")
lake.append({"type": "COMPLETE", "source": "TechPodcast", "data": {"ms": 12}})
lake.sql("SELECT type, count(*) FROM events GROUP BY 1")
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lakelog.errors import Damaged, LakelogError
from lakelog.query import EXTRA_SCHEMAS
from lakelog.runtime.lazy import Lazy
from lakelog.store import AttachmentRegistry

if TYPE_CHECKING:
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from lakelog import views
    from lakelog.analyze import dedupe
    from lakelog.appends import Receipt
    from lakelog.compat import EventDatabase as EventDatabase
    from lakelog.compat import EventPersistenceManager as EventPersistenceManager
    from lakelog.compat import LogEntry as LogEntry
    from lakelog.compat import OMEGALogManager as OMEGALogManager
    from lakelog.compat import create_event_persistence as create_event_persistence
    from lakelog.dbapi import connect
    from lakelog.event import Event
    from lakelog.history import Diff, Snapshot
    from lakelog.lake import Lake, open
    from lakelog.loggers import LakeHandler as LakeHandler
    from lakelog.loggers import LakeLogExporter as LakeLogExporter
    from lakelog.loggers import LakeSpanExporter as LakeSpanExporter
    from lakelog.loggers import LoguruSink as LoguruSink
    from lakelog.loggers import StructlogProcessor as StructlogProcessor
    from lakelog.loggers import get_ai_logger as get_ai_logger
    from lakelog.loggers import get_logger as get_logger
    from lakelog.loggers import instrument_anthropic as instrument_anthropic
    from lakelog.loggers import instrument_openai as instrument_openai
    from lakelog.loggers import span as span
    from lakelog.notebook.live import live as live
    from lakelog.oos import BatchDatabaseSync as BatchDatabaseSync
    from lakelog.oos import PodcastProcessor as PodcastProcessor
    from lakelog.oos import SimpleLogProcessor as SimpleLogProcessor
    from lakelog.oos import log_system_start as log_system_start
    from lakelog.oos import measure_operation as measure_operation
    from lakelog.pinned import PinnedLake
    from lakelog.query import Relation
    from lakelog.settings import Settings
else:
    Loader = object

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

_NAMES_OF = {
    # The store itself, which a program that logs to a file never loads.
    "dbapi": "connect",
    "event.types": "Event",
    "lake": "Lake open",
    "pinned": "PinnedLake",
    "query.relation": "Relation",
    "settings": "Settings",
    "history.branch_history": "Diff Snapshot",
    "appends": "Receipt",
    # Names of older systems, and where they live now.
    "clients.redis_config": "RedisConfig",
    "compat": "EventDatabase EventPersistenceManager LogEntry OMEGALogManager"
    " create_event_persistence",
    "oos": "BatchDatabaseSync PodcastProcessor RedisManager SimpleLogProcessor get_views"
    " log_system_start measure_operation",
    # What an application logs with.
    "loggers": "LakeHandler LakeLogExporter LakeSpanExporter LoguruSink StructlogProcessor"
    " get_ai_logger get_logger instrument_anthropic instrument_openai span",
    "notebook.live": "live",
}
"""The public names of each module; it loads when one of them is asked for."""


class _FormerModules(Loader):
    """Finds modules by the names that pages showed before they moved; on `sys.meta_path`.

    It stands last there, so that no other import is slower for it. A name without a module stands
    for a package that only held such modules.
    """

    def __init__(self, modules: dict[str, str]) -> None:
        self._modules = modules

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return how a module is loaded, or None for a name that is none of these."""
        if name not in self._modules:
            return None
        from importlib.machinery import ModuleSpec as Spec  # seldom needed

        return Spec(name, self, is_package=not self._modules[name])

    def create_module(self, spec: object) -> None:
        """Let Python make an empty module, which `exec_module` replaces."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the module that has moved in the place of the empty one."""
        if moved := self._modules[module.__name__]:
            sys.modules[module.__name__] = import_module(moved)


sys.meta_path.append(
    _FormerModules(
        {
            "lakelog.store.history": "lakelog.history.branch_history",
            "lakelog.store.receipt": "lakelog.appends.receipt",
            "lakelog.sync.consume": "lakelog.consume.consume",
            "lakelog.sync.redis_recent": "lakelog.recent.redis_recent",
            "lakelog.transfer": "",
            "lakelog.transfer.restore": "lakelog.state.restore",
            "lakelog.transfer.rollback": "lakelog.rollback.rollback",
            "lakelog.transfer.state": "lakelog.state.state",
            "lakelog.compat.container_snapshots": "lakelog.containers.container_snapshots",
            **{
                f"lakelog.compat.{name}": f"lakelog.oos.{name}"
                for name in (
                    "oos_feed oos_views oos_demo podcasts download database_sync redis"
                ).split()
            },
        }
    )
)
EXTRA_SCHEMAS["omega"] = Lazy("lakelog.compat.omega")
AttachmentRegistry.OPENERS.append(Lazy("lakelog.remotes.shared"))


def load_ipython_extension(shell: object) -> None:
    """What `%load_ext lakelog` calls: register the magics, the completion and the display."""
    Lazy("lakelog.notebook").load(shell)


_MODULES = {"dedupe": "lakelog.analyze.dedupe", "train": "lakelog.train", "views": "lakelog.views"}
_NAMES = {name: f"lakelog.{home}" for home, names in _NAMES_OF.items() for name in names.split()}


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
