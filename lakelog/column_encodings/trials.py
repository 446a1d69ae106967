"""Which encoding of Parquet suits a column, by trial.

What zstd makes of a column differs by half between encodings, and nothing but zstd tells which is
best: a dictionary of agents is smaller than their texts until every one differs, lengths apart
from their texts are smaller where the texts are alike. So a sample is written in each.
"""

from __future__ import annotations

from lakelog import arrays
from lakelog.libraries import np, pa, pq

DICTIONARY = ""
"""Dictionary pages."""
_PLAIN, _LENGTHS, _DELTAS = "PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BINARY_PACKED"
_FEW = 256
"""A column of fewer values, by its sample, gets dictionary pages without a trial."""
_MOST = 0.8
"""From this part of distinct values on, a dictionary would hold the column once more."""
_RUN = 64
_LEVEL = 3
"""Of zstd in trials: it orders encodings as higher levels do, in a quarter of the time."""


def choose(values: pa.Array, scale: float = 1) -> str:
    """Return the encoding for a column of which these are a sample without nulls.

    The column is `scale` times as long as the sample.
    """
    if pa.types.is_boolean(values.type):
        return _PLAIN
    if _are_few(values):
        return DICTIONARY
    repeats = len(values.unique()) < _MOST * len(values)
    if pa.types.is_floating(values.type):
        # Numbers that were rounded come again: even a long dictionary is shorter than they are.
        return DICTIONARY if repeats else _PLAIN
    tried = [_DELTAS] if pa.types.is_integer(values.type) else [_LENGTHS, _PLAIN]
    tried += [DICTIONARY] if repeats else []
    if len(tried) == 1:
        return tried[0]
    return min(tried, key=lambda encoding: _estimate(values, encoding, scale))


def _are_few(values: pa.Array) -> bool:
    """Whether a column has few different values, by a sample of it."""
    return len(values.unique()) < min(_FEW, len(values) / 4)


def sample(length: int, rows_max: int) -> pa.Array:
    """Return the numbers of about `rows_max` rows of `length`, evenly, in runs of neighbours: what
    compresses well is often alike in rows that follow each other."""
    runs = max(1, rows_max // _RUN)
    if length <= runs * _RUN:
        return arrays.integers(np.arange(length))
    starts = (np.arange(runs) * (length / runs)).astype(np.int64)
    return arrays.integers((starts[:, None] + np.arange(_RUN)).ravel())


def _estimate(values: pa.Array, encoding: str, scale: float) -> float:
    """Return the bytes of the whole column: what a second half adds counts for all after it, as
    few of its values are new to a dictionary."""
    half, whole = (_size(values[:n], encoding) for n in (len(values) // 2, len(values)))
    return whole + 2 * (scale - 1) * (whole - half)


def _size(values: pa.Array, encoding: str) -> int:
    """Return the bytes of a column in one encoding."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"column": values}),
        sink,
        compression="zstd",
        compression_level=_LEVEL,
        write_statistics=False,
        store_schema=False,
        use_dictionary=encoding == DICTIONARY,
        column_encoding={"column": encoding} if encoding else None,
    )
    return int(sink.tell())
