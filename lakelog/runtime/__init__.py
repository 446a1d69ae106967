"""How the process behaves: imports, locks, its interpreter.

`Lazy`, `LazyProperty` and `lazy_face` load what is first used then; `forks` forgets in a child what
is its parent's; `OrderedLock` has a `Rank`; `Living` keeps nothing alive; `environment` is that of
a child process; `tables_beside` reads data beside a module; a `ProgressCallback` hears how far a
long job is; `did_you_mean` suggests a name.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.runtime import closest, forks, interpreter, lazy, living, locks, progress, tables

__all__ = ["closest", "forks", "interpreter", "lazy", "living", "locks", "progress", "tables"]

__getattr__ = lazy_face(
    __name__, closest="", forks="", interpreter="", living="", locks="", progress="", tables=""
)
