"""lakelog in Jupyter: `%load_ext lakelog` calls `load`; `live` follows a lake in a table."""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.notebook import live
    from lakelog.notebook.magics import load

__all__ = ["live", "load"]

__getattr__ = lazy_face(__name__, live="", magics="load")
