"""The rows of a query in the format that was asked for, piece by piece."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import orjson

from lakelog.libraries import pa
from lakelog.query.sql import analysis
from lakelog.render import ColumnBatch, TextLineEncoder, dumps, payload
from lakelog.server.sql.query_limits import QueryFormat, QueryRefused

if TYPE_CHECKING:
    from lakelog.query.relation import Relation
    from lakelog.query.session import Session
_BATCH = 16_384


class AnswerWriter:
    """Reads a relation and writes its rows; `rows` counts them, `is_cut` if there are more."""

    def __init__(
        self, relation: Relation, format: QueryFormat, rows_max: int, limit: int | None
    ) -> None:
        """Of more than `limit` rows the others are left out; more than `rows_max` are refused."""
        self._relation, self._format = relation, format
        self._rows_max, self._limit = rows_max, limit
        self.names = list(relation.columns)
        self.types = [str(column_type) for column_type in relation.types]
        self.rows, self.is_cut = 0, False

    def columns(self) -> list[dict[str, str]]:
        """The names and types of the columns."""
        return [{"name": n, "type": t} for n, t in zip(self.names, self.types, strict=True)]

    def pieces(self, nested: tuple[int, ...]) -> Iterator[bytes | memoryview]:
        """Yield the answer; `nested` columns hold JSON. Raises QueryFailed, QueryRefused."""
        if self._format is QueryFormat.ARROW:
            yield from self._arrow()
        elif self._format is QueryFormat.JSON:
            yield from self._json(nested)
        else:
            yield from self._lines(nested)

    def _batches(self, reader: Any) -> Iterator[pa.RecordBatch]:
        row_bound = self._rows_max if self._limit is None else min(self._limit, self._rows_max)
        for batch in reader:
            if self.rows + batch.num_rows > row_bound:
                batch = batch.slice(0, row_bound - self.rows)
                self.is_cut = True
            self.rows += batch.num_rows
            if batch.num_rows:
                yield batch
            if self.is_cut:
                break
        # JSON says that there are more, and whoever gave a limit knows it; lines could not tell.
        is_told = self._format is QueryFormat.JSON or row_bound == self._limit
        if self.is_cut and not is_told:
            raise QueryRefused(
                "row_limit",
                f"there are more than {row_bound:,} rows",
                "aggregate, add LIMIT, or send limit",
            )

    def _reader(self) -> Any:
        row_bound = self._rows_max if self._limit is None else self._limit
        # One row more than are allowed says that there are others.
        return self._relation.to_arrow_reader(max(min(row_bound + 1, _BATCH), 1))

    def _arrow(self) -> Iterator[bytes]:
        reader, sink = self._reader(), io.BytesIO()
        with pa.ipc.new_stream(sink, reader.schema) as stream:
            for batch in self._batches(reader):
                stream.write_batch(batch)
                yield sink.getvalue()
                # The sink is used again: an answer of gigabytes passes through one batch of memory.
                sink.seek(0)
                sink.truncate()
        yield sink.getvalue()

    def _lines(self, nested: tuple[int, ...]) -> Iterator[bytes | memoryview]:
        lines = TextLineEncoder(self._format.value, self.names, nested)
        yield lines.header()
        try:
            for batch in self._batches(self._reader()):
                yield from lines.add(ColumnBatch(batch))
            yield from lines.rest()
        finally:
            lines.cancel()

    def _json(self, nested: tuple[int, ...]) -> Iterator[bytes]:
        """Rows are lists, for two columns may have one name."""
        yield b'{"columns":' + orjson.dumps(self.columns()) + b',"rows":['
        mark = b"\n"
        for batch in self._batches(self._reader()):
            rows = []
            for row in ColumnBatch(batch):
                cells = list(row)
                for place in nested:
                    cells[place] = payload(cells[place])
                rows.append(dumps(cells))
            yield mark + b",\n".join(rows)
            mark = b",\n"
        ending = {"row_count": self.rows, "truncated": self.is_cut}
        yield b"\n]," + orjson.dumps(ending)[1:] + b"\n"


def nested_columns(session: Session, query: str, writer: AnswerWriter) -> tuple[int, ...]:
    """The columns that hold JSON: those of that type, and the payloads of events."""
    has_payload = analysis.gives_payload(session.tables.engine().cursor(), query)
    return tuple(
        place
        for place, (name, column_type) in enumerate(zip(writer.names, writer.types, strict=True))
        if column_type == "JSON" or (has_payload and name == "data" and column_type == "VARCHAR")
    )
