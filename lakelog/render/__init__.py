"""Rows as text for people and other programs: terminals, notebooks, files.

A `QueryResult` has rows, which it encodes in an `OutputFormat`; a `FileEnding` is what a name says
of that; `TextLineEncoder` makes lines of batches, of which a `ColumnBatch` is the quick one. A
`DisplayHead` is what notebooks show, `plot` draws a relation. `dumps`, `text`, `micros` and
`payload` spell one value, `visible` what could control a terminal.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.render.display import DisplayHead, visible
    from lakelog.render.formats import FileEnding, OutputFormat, QueryResult, TextLineEncoder
    from lakelog.render.plots import plot
    from lakelog.render.values import dumps, micros, payload, text
    from lakelog.render.vectors import ColumnBatch

__all__ = [
    "ColumnBatch",
    "DisplayHead",
    "FileEnding",
    "OutputFormat",
    "QueryResult",
    "TextLineEncoder",
    "dumps",
    "micros",
    "payload",
    "plot",
    "text",
    "visible",
]

__getattr__ = lazy_face(
    __name__,
    display="DisplayHead visible",
    formats="FileEnding OutputFormat QueryResult TextLineEncoder",
    plots="plot",
    values="dumps micros payload text",
    vectors="ColumnBatch",
)
