"""What lakelog needs of DuckDB that its documentation does not promise, each in one place.

    core        the engine without the package that wraps it
    messages    what its errors say: one line, the place, names that are missing, an interrupt
    syntax      SQL as a tree of the engine's parser, and back; the statements of a text
    volatility  which functions depend on more than their arguments, and which aggregate
    catalog     its tables of tables, columns, functions and keywords

`tests/engine` states what is expected of it, and holds at the lowest and the highest version that
pyproject.toml allows; `tests/test_dependencies.py` keeps such things out of the other packages.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.engine import catalog as catalog
    from lakelog.engine import core as core
    from lakelog.engine import messages as messages
    from lakelog.engine import syntax as syntax
    from lakelog.engine import volatility as volatility

__getattr__, __all__ = lazy_face(__name__)
