"""Arrow arrays from NumPy and back, by their buffers.

`integers`, `times`, `mask`, `texts`, `spread` and `split_lines` make Arrow's; `numbers`, `truths`,
`ends` and `characters` give NumPy's. `arrived` says which events have the time of their ingest,
and `records` are rows as dicts.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.arrays.buffers import arrived as arrived
    from lakelog.arrays.buffers import characters as characters
    from lakelog.arrays.buffers import ends as ends
    from lakelog.arrays.buffers import integers as integers
    from lakelog.arrays.buffers import mask as mask
    from lakelog.arrays.buffers import numbers as numbers
    from lakelog.arrays.buffers import records as records
    from lakelog.arrays.buffers import split_lines as split_lines
    from lakelog.arrays.buffers import spread as spread
    from lakelog.arrays.buffers import texts as texts
    from lakelog.arrays.buffers import times as times
    from lakelog.arrays.buffers import truths as truths

__getattr__, __all__ = lazy_face(__name__)
