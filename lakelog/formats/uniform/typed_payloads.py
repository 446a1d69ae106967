"""How the payloads of one file become structs: learnt from a long chunk of it, and once more where
few of a later chunk do, as programs change what they write."""

from __future__ import annotations

from collections.abc import Callable

from lakelog import typed_columns
from lakelog.database import Connect
from lakelog.formats.uniform.payload_columns import PayloadColumns
from lakelog.formats.uniform.uniform_lines import UniformLines
from lakelog.libraries import np, pa
from lakelog.lines import Source
from lakelog.typed_columns import FieldColumns, Schema

LINES = 16_384
"""Chunks of so many lines tell how payloads become structs: every schema in a lake is one more scan
in its queries, until compaction merges the segments."""
_FULL, _SHORT_LINES = Source.SHORT - (1 << 17), LINES * Source.SHORT // Source.CHUNK
"""A short chunk of so many bytes, of so many lines, stands for a long one."""
_SHARE, _TIMES = 0.5, 3
"""What fewer payloads of a chunk fit is not tried on the next one; so many times it is learnt."""


class TypedPayloads:
    """The columns that payloads of a file become; `known_schemas` returns those of the lake."""

    def __init__(
        self,
        connect: Connect,
        known_schemas: Callable[[], list[Schema]],
        lines_min: int | None = None,
    ) -> None:
        """Chunks of `lines_min` lines are long, by default of LINES."""
        self._connect, self._known = connect, known_schemas
        self._least = LINES if lines_min is None else lines_min
        self._columns: PayloadColumns | None = None
        self._left = _TIMES
        self.fields: FieldColumns | None = None
        """How the structs of the last chunk that had some are stored."""

    def columns(
        self, uniform: UniformLines, data: bytes, starts: np.ndarray
    ) -> PayloadColumns | None:
        """Return the columns for the lines of a chunk, None where payloads stay text."""
        is_long = len(starts) > (self._least if len(data) < _FULL else _SHORT_LINES)
        if self._columns is None and self._left and is_long:
            self._left -= 1
            known_schemas = [*([self.fields.schema] if self.fields else ()), *self._known()]
            self._columns = uniform.learn(
                self._connect(), data, starts, dict.fromkeys(known_schemas)
            )
        self.fields = self._columns.fields if self._columns else self.fields
        return self._columns

    def judge(self, rows: pa.Table) -> None:
        """Forget the columns if few of these rows, which they gave, have a struct."""
        if typed_columns.COLUMN in rows.column_names:
            structs = len(rows) - rows[typed_columns.COLUMN].null_count
            self._columns = self._columns if structs >= _SHARE * len(rows) else None
