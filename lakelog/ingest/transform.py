"""Chunks of lines to rows: by SQL for what SQL decides without loss, else by the exact rule.

A chunk's bytes become an Arrow string column without a copy (the offsets are those of its
newlines). The format's query gives the rows; lines that it flags or leaves out are parsed one by
one and become rows, or quarantined lines with the reason.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lakelog.errors import InvalidEvent
from lakelog.event import encode
from lakelog.ingest.formats import bulk, sqltext
from lakelog.ingest.records import BOM, Records, joins, records, without_cut_line
from lakelog.ingest.source import KEPT, Chunk
from lakelog.store import rows, wal

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

SAMPLE, SAMPLE_LINES = 1 << 18, 50
"""How much of a file's beginning tells what its lines look like."""
FEW = 500
"""So many lines are sooner decided one by one than a query is planned; four times so many of
those that a query left, which are mostly bad."""
_FEW_BYTES = 1 << 20
"""So much of documents is decided by a query, however few they are."""
_STRIPE, _STRIPE_BYTES = 8192, 4 << 20
"""Lines in what one thread of the engine takes at a time, and how many bytes of documents."""
_KEY = "CASE WHEN id <> '' THEN sha256(coalesce(source, '') || chr(0) || id)[1:24] END"
_ORDER = (
    "time", "type", "category", "source", "subject", "level", "message", "data", "id",
    "position", "key", "ingested_at", "origin",
)  # fmt: skip


@dataclass
class Bad:
    """One line that is no event."""

    position: int
    reason: str
    line: str
    origin: str = ""


@dataclass
class Made:
    """What came of one chunk: rows in the file's order, bad lines, and how far it was taken.

    `taken` is less than the chunk when its last line is not finished, or is an action whose
    document is still to come. Rows and bad lines are complete after `finish`.
    """

    table: Any = None
    bad: list[Bad] = field(default_factory=list)
    lines: int = 0
    taken: int = 0
    rest: Callable[[], Any] | None = None

    def finish(self) -> Made:
        """Decide what is left to decide line by line."""
        rest, self.rest = self.rest, None
        if rest is not None:
            self.table = rest()
        return self


class Transformer:
    """Turns chunks of one file into rows by one format; `source` is given to events without."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, form: Any, origin: str,
        source: str | None = None, mode: str = "once",
    ) -> None:  # fmt: skip
        self._connection, self._form = connection, form
        self._beside = connection.cursor()
        self._origin, self._source, self._mode = origin, source, mode
        self._queries: list[str] | None = None

    def run(self, chunk: Chunk, *, final: bool = False) -> Made:
        """Return what a chunk holds."""
        return self.start(chunk, final=final).finish()

    def start(self, chunk: Chunk, *, final: bool = False) -> Made:
        """Decide what SQL can of a chunk; `finish` may run beside the start of the next one.

        After a `final` chunk nothing follows, so that a record at its end is whole.
        """
        if self._form.NAME == bulk.NAME:
            whole = without_cut_line(chunk, self._form, self._mode) if chunk.open_end else chunk
            made = Made(taken=len(whole.data))
            made.table = self._pairs(whole, made)
            return made
        found = records(chunk, self._form, self._mode, final=final)
        made = Made(taken=found.taken, lines=len(found.lines))
        now = datetime.now(UTC)
        tables, left = self._by_sql(found, chunk, now)

        def rest() -> pa.Table | None:
            return _in_order([*tables, self._exact(chunk, found.starts, left, made)])

        made.rest = rest
        return made

    def rows_of(self, events: list[dict[str, Any]], places: list[int]) -> pa.Table | None:
        """Turn parsed events into rows. Raises InvalidEvent."""
        return self._rows(encode(events).lines, places)

    def _by_sql(
        self, found: Records, chunk: Chunk, now: datetime
    ) -> tuple[list[pa.Table | None], Any]:
        """Decide what SQL can: first lines like the file's first ones, then all others.

        Returns their rows and the indexes of the records that are left.
        """
        import numpy as np
        import pyarrow as pa

        if self._queries is None:
            sample = chunk.data[:SAMPLE].split(b"\n")[:-1][:SAMPLE_LINES]
            cheaper = getattr(self._form, "cheaper", None)
            self._queries = [*(cheaper(sample) if cheaper else ()), self._form.QUERY]
        tables: list[pa.Table | None] = []
        count = len(found.lines)
        left = np.arange(count, dtype=np.int64)
        many = getattr(self._form, "MANY", False)
        few = 0 if many and found.taken > _FEW_BYTES else FEW
        if count <= few:
            return tables, left
        lines, more = _valid_text(found)
        table = pa.table({"line": lines, "position": left})
        if joins(self._form):
            table = table.append_column(
                "more", pa.nulls(count, pa.string()) if more is None else more
            )
        for query in list(self._queries):
            if len(left) <= (4 * FEW if tables else few):
                break
            before = len(left)
            made, left = self._guarded(query, table, left, found.starts + chunk.base, now)
            tables.append(made)
            if len(left) > before / 2 and query in self._queries[:-1]:
                self._queries.remove(query)
        return tables, left

    def _guarded(
        self, query: str, lines: pa.Table, index: Any, places: Any, now: datetime
    ) -> tuple[pa.Table, Any]:
        """Run a query; once it stops at a line that is no JSON, look at every line before."""
        import duckdb

        assert self._queries is not None
        try:
            return self._run(query, lines, index, places, now)
        except duckdb.InvalidInputException:
            valid = f"(SELECT * REPLACE ({sqltext.VALID} AS line) FROM lines)"
            safe = query.replace("FROM lines", f"FROM {valid}", 1)
            self._queries[self._queries.index(query)] = safe
            return self._run(safe, lines, index, places, now)

    def _run(
        self, query: str, lines: pa.Table, index: Any, places: Any, now: datetime
    ) -> tuple[pa.Table, Any]:
        """Run a query over some lines; return the rows it decided and the lines it did not.

        A query whose lines hold many events counts them from 0 in a column `nth`.
        """
        import numpy as np
        import pyarrow as pa

        count = lines.num_rows
        table = lines if len(index) == count else lines.take(pa.array(index))
        cursor = self._connection.cursor()
        try:
            stripes = table.to_batches(max_chunksize=_stripe(table))
            cursor.register("lines", pa.Table.from_batches(stripes, table.schema))
            named: dict[str, Any] = {"now": now} if "$now" in query else {}
            if self._source is not None:
                query = f"SELECT * REPLACE (coalesce(source, $label) AS source) FROM ({query})"
                named["label"] = self._source
            query = f"""WITH decided AS MATERIALIZED ({query})
                SELECT * EXCLUDE (slow), {_KEY} AS key FROM decided WHERE NOT slow"""
            found = cursor.sql(query, params=named or None).to_arrow_table()
        finally:
            cursor.close()
        at = np.asarray(found["position"])
        seen = np.zeros(count, dtype=bool)
        seen[at] = True
        where = places[at]
        if "nth" in found.column_names:
            where = where + np.asarray(found["nth"])
        column = found.schema.get_field_index("position")
        found = found.set_column(column, "position", pa.array(where))
        if "nth" in found.column_names and (np.diff(where) < 0).any():
            found = found.sort_by("position")
        return self._finish(found, now), index[~seen[index]]

    def _finish(self, table: pa.Table, now: datetime) -> pa.Table:
        """Add what every row of this run shares."""
        import pyarrow as pa

        count = table.num_rows
        stamp = pa.repeat(pa.scalar(now, pa.timestamp("us", "UTC")), count)
        origin = pa.repeat(pa.scalar(self._origin, pa.string()), count)
        table = table.append_column("ingested_at", stamp).append_column("origin", origin)
        place = table.schema.get_field_index("time")  # the engine may call UTC another name
        return table.set_column(place, "time", table["time"].cast(stamp.type)).select(_ORDER)

    def _exact(self, chunk: Chunk, starts: Any, slow: Any, made: Made) -> pa.Table | None:
        """Decide lines one by one; return the rows of the good ones."""
        good: list[bytes] = []
        places: list[int] = []
        untrimmed = getattr(self._form, "UNTRIMMED", False)
        placed = hasattr(self._form, "places")
        for index in slow.tolist():
            start, stop = int(starts[index]), int(starts[index + 1])
            line = chunk.data[start:stop]
            text = line.strip().removeprefix(BOM)
            if text:
                try:
                    found = self._form.parse(line if untrimmed else text)
                    events = found if isinstance(found, list) else [found]
                    good += encode(list(map(self._labelled, events))).lines
                    many = self._form.places(line) if placed else range(len(events))
                    places += [chunk.base + start + offset for offset in many]
                except InvalidEvent as error:
                    made.bad.append(self._bad(chunk, start, error.reason, line))
        return self._rows(good, places)

    def _rows(self, lines: list[bytes], places: list[int]) -> pa.Table | None:
        """Make rows of events as WAL lines."""
        import pyarrow as pa

        if not lines:
            return None
        now = datetime.now(UTC)
        table = rows.events(self._beside, [_frame(lines, self._origin)])
        table = table.drop_columns(["ingested_at", "origin", "writer", "sequence", "position"])
        table = table.append_column("position", pa.array(places, pa.int64()))
        return self._finish(table, now)

    def _bad(self, chunk: Chunk, start: int, reason: str, line: bytes) -> Bad:
        return Bad(chunk.base + start, reason, readable(line), self._origin)

    def _labelled(self, event: dict[str, Any]) -> dict[str, Any]:
        if self._source is not None and event.get("source") is None:
            event["source"] = self._source
        return event

    def _pairs(self, chunk: Chunk, made: Made) -> pa.Table | None:
        """Pair actions with documents and make rows of them."""
        good: list[bytes] = []
        places: list[int] = []
        action: bulk.Action | None = None
        at = made.taken = 0
        for number, line in enumerate(io.BytesIO(chunk.data)):
            start, at = at, at + len(line)
            text = line.strip().removeprefix(BOM)
            if text and action is None:
                action = bulk.action_of(text)
                if action is not None:
                    action = None if action[0] == "delete" else action
                else:
                    reason = "a line without an action before it"
                    made.bad.append(self._bad(chunk, start, reason, line))
            elif text and action is not None:
                try:
                    good += encode([self._labelled(bulk.joined(action, text))]).lines
                    places.append(chunk.base + start)
                except InvalidEvent as error:
                    made.bad.append(self._bad(chunk, start, error.reason, line))
                action = None
            if action is None:
                made.taken, made.lines = at, number + 1
        return self._rows(good, places)


def readable(line: bytes) -> str:
    """A bad line as text, cut to a sensible length; bytes that are no text are escaped."""
    return line[:KEPT].rstrip(b"\r\n").decode("utf-8", "backslashreplace")


def _stripe(lines: pa.Table) -> int:
    """How many lines one thread of the engine takes at a time."""
    most = int(_STRIPE_BYTES * lines.num_rows // max(lines.nbytes, 1))
    return max(1, min(_STRIPE, most))


def _in_order(tables: list[pa.Table | None]) -> pa.Table | None:
    """Put rows that were decided in different ways back in the file's order."""
    import pyarrow as pa

    full = [t for t in tables if t is not None and t.num_rows]
    if len(full) < 2:
        return full[0] if full else None
    return pa.concat_tables(full).sort_by("position")


def _valid_text(found: Records) -> tuple[pa.Array, pa.Array | None]:
    """Blank the records that are not UTF-8; the exact rule says so of each."""
    import pyarrow as pa

    parts = [found.lines] if found.more is None else [found.lines, found.more]
    try:
        for part in parts:
            part.validate(full=True)
    except pa.ArrowInvalid:
        raw = [part.view(pa.large_binary()).to_pylist() for part in parts]
        good = [all(map(_is_whole, texts)) for texts in zip(*raw, strict=True)]
        parts = [
            pa.array([t if g else b"" for t, g in zip(texts, good, strict=True)], pa.large_binary())
            .view(pa.large_string())
            for texts in raw
        ]  # fmt: skip
    return parts[0], parts[1] if len(parts) > 1 else None


def _is_whole(data: bytes) -> bool:
    """Whether bytes are UTF-8 to the end, which `records.is_text` does not ask: at a character
    cut off the engine fails for good."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _frame(lines: list[bytes], origin: str) -> wal.Frame:
    import zstandard

    text = b"\n".join(lines) + b"\n"
    payload = zstandard.ZstdCompressor(level=1).compress(text)
    return wal.Frame(origin, 0, len(lines), wal.KEYED, 0, 0, len(text), payload)
