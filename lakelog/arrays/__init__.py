"""Arrow arrays from NumPy and back, by their buffers.

`integers`, `times`, `mask`, `texts`, `spread` and `split_lines` make Arrow's; `numbers`, `truths`,
`ends` and `characters` give NumPy's. `arrived` says which events have the time of their ingest,
and `records` are rows as dicts.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.arrays.buffers import (
        arrived,
        characters,
        ends,
        integers,
        mask,
        numbers,
        records,
        split_lines,
        spread,
        texts,
        times,
        truths,
    )

__all__ = [
    "arrived",
    "characters",
    "ends",
    "integers",
    "mask",
    "numbers",
    "records",
    "split_lines",
    "spread",
    "texts",
    "times",
    "truths",
]

__getattr__ = lazy_face(__name__, buffers=" ".join(__all__))
