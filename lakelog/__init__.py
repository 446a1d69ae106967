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
from lakelog.runtime.lazy import Lazy, lazy_face
from lakelog.settings import VERSION as __version__
from lakelog.store import AttachmentRegistry

if TYPE_CHECKING:
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    # The names that load when they are asked for.
    from lakelog import train as train
    from lakelog import views as views
    from lakelog.analyze import dedupe as dedupe
    from lakelog.appends import Receipt as Receipt
    from lakelog.clients import RedisConfig as RedisConfig
    from lakelog.compat import EventDatabase as EventDatabase
    from lakelog.compat import EventPersistenceManager as EventPersistenceManager
    from lakelog.compat import LogEntry as LogEntry
    from lakelog.compat import OMEGALogManager as OMEGALogManager
    from lakelog.compat import create_event_persistence as create_event_persistence
    from lakelog.dbapi import connect as connect
    from lakelog.event import Event as Event
    from lakelog.history import Diff as Diff
    from lakelog.history import Snapshot as Snapshot
    from lakelog.lake import Lake as Lake
    from lakelog.lake import open as open
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
    from lakelog.oos import RedisManager as RedisManager
    from lakelog.oos import SimpleLogProcessor as SimpleLogProcessor
    from lakelog.oos import get_views as get_views
    from lakelog.oos import log_system_start as log_system_start
    from lakelog.oos import measure_operation as measure_operation
    from lakelog.pinned import PinnedLake as PinnedLake
    from lakelog.query import Relation as Relation
    from lakelog.settings import Settings as Settings
else:
    Loader = object

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
            "lakelog.store.history": "lakelog.history",
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


_load, _NAMES = lazy_face(__name__)


def __getattr__(name: str) -> Any:
    """Load a name when it is first asked for: importing lakelog alone costs next to nothing."""
    return globals().setdefault(name, _load(name))


def __dir__() -> list[str]:
    """All public names, those that load when asked for too."""
    return sorted({*__all__, *_NAMES, "errors"})
