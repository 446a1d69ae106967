"""JSON lines that are all spelled as lakelog and many loggers spell them: texts, then a payload.

Their envelope is cut out by `LineLayout`, which proves that it holds nothing else. The payload is
proved by the engine: it is JSON that the engine writes byte for byte as it was. Whatever is
otherwise in a line leaves it to the query of `narrow_queries`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from lakelog import arrays, typed_columns
from lakelog.arrays import split_lines
from lakelog.event import Severity
from lakelog.formats import sqltext
from lakelog.formats.sqltext import COLUMN
from lakelog.formats.uniform import payload_columns
from lakelog.formats.uniform.line_layout import LineColumns, LineLayout, layout_of
from lakelog.formats.uniform.payload_columns import PayloadColumns
from lakelog.formats.uniform.payload_layout import LONGEST
from lakelog.libraries import duckdb, np, pa, pc
from lakelog.typed_columns import Schema

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")
_EARLIEST = -62_135_596_800_000_000
"""Microseconds of the year 1, before which no event can be."""
_LEVELS_MAX = 32
_SAMPLE = 2048
"""So many lines tell how payloads are spelled."""
_STRIPE = 32_768
"""Lines that one thread of the engine processes at a time."""
_NO_NUMBER = r"(?:^|[:\[,])-?(?:NaN|Infinity)"
_SPOILT = f"""data = 'null' OR {sqltext.deep_sql("data")}
  OR CASE WHEN contains(data, 'NaN') OR contains(data, 'Infinity')
    THEN regexp_matches(data, '{_NO_NUMBER}') ELSE false END
  OR regexp_matches(data, '{sqltext.LARGE_WRITTEN}')"""
_UNPROVED = f"""SELECT row FROM payloads
  WHERE coalesce(try(json(data))::VARCHAR <> data, true) OR {_SPOILT}"""
"""The rows whose payload is none that the engine writes as it was. It writes what is no number as
NaN and Infinity, and has JSON's null for none."""


@dataclass(frozen=True)
class UniformLines:
    """Lines of a layout, and the column of each of its members."""

    layout: LineLayout
    column_of: dict[str, str]

    def rows(
        self,
        connection: duckdb.DuckDBPyConnection,
        data: bytes,
        starts: np.ndarray,
        payloads: PayloadColumns | None = None,
    ) -> tuple[pa.Table, np.ndarray] | None:
        """Return columns of events, and the indexes of their lines; None if there are none.

        `starts` is where each line begins, and where the last one ends. With `payloads` there are
        also columns `fields`, of structs, whose rows have no `data`, and `typed.TEXT_BYTES`.
        """
        layouts = payloads.layouts if payloads else ()
        values = self.layout.cut(data, starts[:-1], starts[1:], layouts)
        if not len(values.rows):
            return None
        # Arrow and numpy let another thread work.
        with ThreadPoolExecutor(1, "payloads") as pool:
            pending = pool.submit(_payloads, values, payloads) if self.layout.has_payload else None
            columns = self._envelope(values)
        if columns is None:
            return None
        is_good = arrays.numbers(pc.binary_length(columns["type"]).cast(pa.int64())) > 0
        if pending is not None:
            columns |= pending.result()
            text_rows = np.flatnonzero(arrays.truths(columns["data"].is_valid()))
            if len(text_rows):
                payload_texts = (
                    columns["data"].take(arrays.integers(text_rows))
                    if payloads
                    else columns["data"]
                )
                is_good[text_rows[_unproved(connection, payload_texts)]] = False
        table, rows = pa.table(columns), values.rows
        if not is_good.all():
            table, rows = table.filter(arrays.mask(is_good)), rows[is_good]
        return table, rows

    def _envelope(self, values: LineColumns) -> dict[str, Any] | None:
        """Return the columns of events but for the payload; None if some value is none."""
        names = {name: column for name, column in self.column_of.items() if column != "data"}
        columns = {column: values.column(name) for name, column in names.items()}
        # Of a payload the engine says so, and of a time the cast.
        if any(map(_has_control, (columns[name] for name in columns.keys() - {"time"}))):
            return None
        try:
            # Only digits where they should be; who reads other times is asked otherwise.
            columns["time"] = columns["time"].cast(pa.timestamp("us", "UTC"))
        except pa.ArrowInvalid:
            return None
        is_known = arrays.numbers(columns["time"]).min() >= _EARLIEST and _are_levels(columns)
        return columns if is_known else None

    def learn(
        self,
        connection: duckdb.DuckDBPyConnection,
        data: bytes,
        starts: np.ndarray,
        known_schemas: Iterable[Schema],
    ) -> PayloadColumns | None:
        """Return how the payloads of lines become structs, by some of the lines; None if too few
        would. Schemas that are known come first."""
        if not self.layout.has_payload:
            return None
        step = max(1, (len(starts) - 1) // _SAMPLE)
        ends = zip(starts[:-1:step].tolist(), starts[1::step].tolist(), strict=True)
        lines = [data[start:stop] for start, stop in ends]
        sample = b"".join(line for line in lines if len(line) <= LONGEST)
        _, places = split_lines(sample)
        with connection.cursor() as cursor:
            return payload_columns.learn(
                cursor,
                lambda layouts: self.layout.cut(sample, places[:-1], places[1:], [*layouts]),
                known_schemas,
            )


def _payloads(values: LineColumns, payloads: PayloadColumns | None) -> dict[str, Any]:
    """The columns of payloads: texts, or structs and what is none."""
    if payloads is None:
        return {"data": values.column("data")}
    structs, is_struct = payloads.structs(values)
    lengths = np.where(is_struct, values.bounds[:, -1] - values.bounds[:, -2], 0)
    return {
        "data": values.column("data", is_struct),
        typed_columns.COLUMN: structs,
        typed_columns.TEXT_BYTES: arrays.integers(lengths),
    }


def uniform_lines(lines: list[bytes]) -> UniformLines | None:
    """Return how lines are spelled, by the first of them; None if it is otherwise."""
    layout = layout_of(lines[0] + b"\n") if lines else None
    if layout is None:
        return None
    column_of = {name: COLUMN.get(name, "") for name in layout.members}
    columns = list(column_of.values())
    # An id makes a key, which the queries know.
    is_known = len(set(columns)) == len(columns) and "" not in columns and "id" not in columns
    moment = columns[0] == "time" and _TIME.fullmatch(_first_value(lines[0], layout.names[0]))
    if not (is_known and moment and "type" in columns) or "data" in map(COLUMN.get, layout.names):
        return None
    return UniformLines(layout, column_of)


def _first_value(line: bytes, name: str) -> str:
    return line[len(name) + 5 :].split(b'"', 1)[0].decode("utf-8", "replace")


def _has_control(strings: pa.Array) -> bool:
    """Whether a control character stands in a text, which JSON has only escaped."""
    return int(arrays.characters(strings).min(initial=32)) < 32


def _are_levels(columns: dict[str, object]) -> bool:
    """Whether all levels are severities, spelled as lakelog spells them."""
    if "level" not in columns:
        return True
    names = pc.unique(columns["level"])
    return len(names) <= _LEVELS_MAX and all(Severity.of(n) == n for n in names.to_pylist())


def _unproved(connection: duckdb.DuckDBPyConnection, payloads: pa.Array) -> list[int]:
    """The rows whose payload is not proved to be what the engine reads."""
    table = pa.table({"data": payloads, "row": arrays.integers(np.arange(len(payloads)))})
    with connection.cursor() as cursor:
        batches = table.to_batches(max_chunksize=_STRIPE)
        cursor.register("payloads", pa.Table.from_batches(batches, table.schema))
        return [row for (row,) in cursor.execute(_UNPROVED).fetchall()]
