"""Rows as text for people and other programs: terminals, notebooks, files.

A `QueryResult` has rows, which it encodes in an `OutputFormat`; a `FileEnding` is what a name says
of that; `TextLineEncoder` makes lines of batches, of which a `ColumnBatch` is the quick one. A
`DisplayHead` is what notebooks show, `plot` draws a relation. `dumps`, `text`, `micros` and
`payload` spell one value, `visible` what could control a terminal.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.render.display import DisplayHead as DisplayHead
    from lakelog.render.display import visible as visible
    from lakelog.render.formats import FileEnding as FileEnding
    from lakelog.render.formats import OutputFormat as OutputFormat
    from lakelog.render.formats import QueryResult as QueryResult
    from lakelog.render.formats import TextLineEncoder as TextLineEncoder
    from lakelog.render.plots import plot as plot
    from lakelog.render.values import dumps as dumps
    from lakelog.render.values import micros as micros
    from lakelog.render.values import payload as payload
    from lakelog.render.values import text as text
    from lakelog.render.vectors import ColumnBatch as ColumnBatch

__getattr__, __all__ = lazy_face(__name__)
