"""Chunks of lines to rows: by SQL for what SQL decides without loss, else by the exact rule.

A chunk's bytes become an Arrow string column without a copy (the offsets are those of its
newlines). The format's query gives the rows; lines that it flags or leaves out are parsed one by
one and become rows, or quarantined lines with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lakelog.errors import InvalidEvent
from lakelog.event import encode
from lakelog.ingest.formats import bulk
from lakelog.ingest.source import KEPT, Chunk
from lakelog.store import rows, wal

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

SAMPLE, SAMPLE_LINES = 1 << 18, 50
"""How much of a file's beginning tells what its lines look like."""
_KEY = "CASE WHEN id IS NOT NULL THEN sha256(coalesce(source, '') || chr(0) || id)[1:24] END"


@dataclass
class Bad:
    """One line that is no event."""

    position: int
    reason: str
    line: str


@dataclass
class Batch:
    """Rows made from chunks, with the columns of an event and `key`; and the bad lines."""

    tables: list[Any] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    lines: int = 0

    @property
    def rows(self) -> int:
        """Rows so far."""
        return sum(t.num_rows for t in self.tables)


class Transformer:
    """Turns chunks of one file into rows by one format."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        form: Any,
        origin: str,
        defaults: dict[str, str],
    ) -> None:
        self._connection, self._form = connection, form
        self._origin, self._defaults = origin, defaults
        self._action: Any = None
        self._narrow: str | None = None

    def run(self, chunk: Chunk, batch: Batch) -> int:
        """Add a chunk to a batch; return how many of its bytes were taken in.

        Fewer than all when its last line has no newline and does not parse, or is an action
        whose document is still to come.
        """
        if self._form.NAME == bulk.NAME:
            return self._run_pairs(chunk, batch)
        array, starts = rows.split_lines(chunk.data)
        batch.lines += len(array)
        now = datetime.now(UTC)
        tables, left = self._by_sql(self._valid_text(array), starts, chunk, now)
        taken = len(chunk.data)
        if len(left):
            exact, taken = self._exact(chunk, starts, left, batch)
            tables += [exact] if exact is not None else []
        tables = [t for t in tables if t.num_rows]
        if tables:
            batch.tables.append(_in_order(tables))
        return taken

    def _by_sql(
        self, array: pa.Array, starts: Any, chunk: Chunk, now: datetime
    ) -> tuple[list[pa.Table], Any]:
        """Decide what SQL can: first lines like the file's first ones, then all others.

        Returns their rows and the indexes of the lines that are left.
        """
        import numpy as np

        if self._narrow is None:
            sample = chunk.data[:SAMPLE].split(b"\n")[:-1][:SAMPLE_LINES]
            self._narrow = self._form.narrow(sample) or ""
        tables = []
        left = np.arange(len(array), dtype=np.int64)
        for query in filter(None, (self._narrow, self._form.QUERY)):
            if len(left):
                table, left = self._run(query, array, left, starts + chunk.base, now)
                tables.append(table)
            if query == self._narrow and len(left) > len(array) / 2:
                self._narrow = ""
        return tables, left

    def _run(
        self, query: str, array: pa.Array, index: Any, places: Any, now: datetime
    ) -> tuple[pa.Table, Any]:
        """Run a query over some lines; return the rows it decided and the lines it did not."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        lines = array if len(index) == len(array) else array.take(pa.array(index))
        cursor = self._connection.cursor()
        try:
            cursor.register("lines", pa.table({"line": lines, "position": index}))
            named: dict[str, Any] = {"now": now} if "$now" in query else {}
            label = self._defaults.get("source")
            if label is not None:
                query = f"SELECT * REPLACE (coalesce(source, $label) AS source) FROM ({query})"
                named["label"] = label
            query = f"SELECT *, {_KEY} AS key FROM ({query})"
            found = cursor.sql(query, params=named or None).to_arrow_table()
        finally:
            cursor.close()
        flagged = found["slow"].fill_null(True)
        decided = found.filter(pc.invert(flagged)) if pc.any(flagged).as_py() else found
        at = np.asarray(decided["position"])
        seen = np.zeros(len(array), dtype=bool)
        seen[at] = True
        column = decided.schema.get_field_index("position")
        decided = decided.set_column(column, "position", pa.array(places[at]))
        rows_ = self._finish(decided.drop_columns(["slow"]), now).select(_ORDER)
        return rows_, index[~seen[index]]

    def _finish(self, table: pa.Table, now: datetime) -> pa.Table:
        """Add what every row of this run shares."""
        import pyarrow as pa

        count = table.num_rows
        stamp = pa.repeat(pa.scalar(now, pa.timestamp("us", "UTC")), count)
        origin = pa.repeat(pa.scalar(self._origin, pa.string()), count)
        return table.append_column("ingested_at", stamp).append_column("origin", origin)

    def _exact(
        self, chunk: Chunk, starts: Any, slow: Any, batch: Batch
    ) -> tuple[pa.Table | None, int]:
        """Decide lines one by one; return their rows and how many bytes were taken."""
        good: list[dict[str, Any]] = []
        places: list[int] = []
        for index in slow.tolist():
            start, stop = int(starts[index]), int(starts[index + 1])
            line = chunk.data[start:stop]
            text = line.strip()
            if not text or text == b"\xef\xbb\xbf":
                continue
            try:
                event = self._form.parse(text.removeprefix(b"\xef\xbb\xbf"))
                good.append({**self._defaults, **event})
                encode(good[-1:])
                places.append(chunk.base + start)
            except InvalidEvent as error:
                good[len(places) :] = []
                if chunk.open_end and stop == len(chunk.data):
                    return self.rows_of(good, places), start
                batch.bad.append(Bad(chunk.base + start, error.reason, readable(line)))
        return self.rows_of(good, places), len(chunk.data)

    def rows_of(self, events: list[dict[str, Any]], places: list[int]) -> pa.Table | None:
        """Turn exactly parsed events into rows, by way of WAL lines."""
        if not events:
            return None
        import pyarrow as pa

        encoded = encode(events)
        now = datetime.now(UTC)
        frame = _frame(encoded.lines, self._origin)
        table = rows.events(self._connection, [frame])
        table = table.drop_columns(["ingested_at", "origin", "writer", "sequence", "position"])
        table = table.append_column("position", pa.array(places, pa.int64()))
        return self._finish(table, now).select(_ORDER)

    def _run_pairs(self, chunk: Chunk, batch: Batch) -> int:
        """Pair actions with documents, then make rows of them."""
        good: list[dict[str, Any]] = []
        places: list[int] = []
        at = 0
        for line in chunk.data.splitlines(keepends=True):
            start, at = at, at + len(line)
            batch.lines += 1
            text = line.strip()
            if not text:
                continue
            action = bulk.action_of(text) if self._action is None else None
            if action:
                self._action = None if action[0] == "delete" else action
                continue
            try:
                if self._action is None:
                    raise InvalidEvent("a line without an action before it")
                good.append(bulk.joined(self._action, text))
                encode(good[-1:])
                places.append(chunk.base + start)
            except InvalidEvent as error:
                good[len(places) :] = []
                batch.bad.append(Bad(chunk.base + start, error.reason, readable(line)))
            self._action = None
        table = self.rows_of(good, places)
        if table is not None:
            batch.tables.append(table)
        return len(chunk.data)

    def _valid_text(self, array: pa.Array) -> pa.Array:
        """Blank the lines that are not UTF-8; the exact rule says so of each."""
        import pyarrow as pa

        try:
            array.validate(full=True)
            return array
        except pa.ArrowInvalid:
            raw = (
                array.cast(pa.binary()) if pa.types.is_binary(array.type) else array.view("binary")
            )
            texts = [t if _is_text(t) else b"" for t in raw.to_pylist()]
            return pa.array(texts, pa.binary()).cast(pa.string())


_ORDER = (
    "time", "type", "category", "source", "subject", "level", "message", "data", "id",
    "position", "key", "ingested_at", "origin",
)  # fmt: skip


def _in_order(tables: list[pa.Table]) -> pa.Table:
    """Put rows that were decided in different ways back in the file's order."""
    import pyarrow as pa

    return tables[0] if len(tables) == 1 else pa.concat_tables(tables).sort_by("position")


def readable(line: bytes) -> str:
    """A bad line as text, cut to a sensible length; bytes that are no text are escaped."""
    return line[:KEPT].rstrip(b"\r\n").decode("utf-8", "backslashreplace")


def _frame(lines: list[bytes], origin: str) -> wal.Frame:
    import zstandard

    text = b"\n".join(lines) + b"\n"
    payload = zstandard.ZstdCompressor(level=1).compress(text)
    return wal.Frame(origin, 0, len(lines), wal.KEYED, 0, 0, len(text), payload)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
