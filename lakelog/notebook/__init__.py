"""lakelog in Jupyter: `%load_ext lakelog` calls `load`; `live` follows a lake in a table."""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.notebook import live as live
    from lakelog.notebook.magics import load as load

__getattr__, __all__ = lazy_face(__name__)
