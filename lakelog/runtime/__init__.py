"""How the process behaves: imports, locks, its interpreter.

`Lazy`, `LazyProperty` and `lazy_face` load what is first used then; `forks` forgets in a child what
is its parent's; `OrderedLock` has a `Rank`; `Living` keeps nothing alive; `environment` is that of
a child process; `ModuleFiles` are data beside a module; a `ProgressCallback` hears how far a long
job is; `did_you_mean` suggests a name.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.runtime import closest as closest
    from lakelog.runtime import forks as forks
    from lakelog.runtime import interpreter as interpreter
    from lakelog.runtime import lazy as lazy
    from lakelog.runtime import living as living
    from lakelog.runtime import locks as locks
    from lakelog.runtime import progress as progress
    from lakelog.runtime import tables as tables

__getattr__, __all__ = lazy_face(__name__)
