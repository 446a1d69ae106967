"""Chunks of lines to rows: by SQL for what SQL decides without loss, else by the exact rule.

A chunk's bytes become an Arrow string column without a copy (the offsets are those of its
newlines). The format's query gives the rows; lines that it flags or leaves out are parsed one by
one and become rows, or quarantined lines with the reason.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lakelog.errors import InvalidEvent
from lakelog.event import encode
from lakelog.ingest import stripes
from lakelog.ingest.formats import bulk, mixture, pattern, sqltext
from lakelog.ingest.holes import visible
from lakelog.ingest.records import BOM, Records, joins, records, without_cut_line
from lakelog.ingest.source import Chunk
from lakelog.ingest.time_carry import TimeCarry
from lakelog.lazy import Lazy
from lakelog.store import rows, sql, wal

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pc = Lazy("pyarrow.compute")
    np = Lazy("numpy")
    pa = Lazy("pyarrow")
    duckdb = Lazy("duckdb")

SAMPLE, SAMPLE_LINES = 1 << 18, 50
"""How much of a file's beginning tells what its lines look like."""
FEW = 500
"""So many lines are sooner decided one by one than a query is planned; four times so many of
those that a query left, which are mostly bad."""
_FEW_BYTES = 1 << 20
"""So much of documents is decided by a query, however few they are."""
_KEY = f"CASE WHEN id <> '' THEN {sql.id_key()} END"
_ORDER = (
    "time",
    "type",
    "category",
    "source",
    "subject",
    "level",
    "message",
    "data",
    "id",
    "position",
    "key",
    "ingested_at",
    "origin",
)


@dataclass
class RejectedLine:
    """One line that is no event."""

    position: int
    reason: str
    line: str
    origin: str = ""


@dataclass
class ChunkResult:
    """What came of one chunk: rows in the file's order, bad lines, and how far it was taken.

    `taken` is less than the chunk when its last line is not finished, or is an action whose
    document is still to come. Rows and bad lines are complete after `finish`.
    """

    table: Any = None
    bad: list[RejectedLine] = field(default_factory=list)
    lines: int = 0
    taken: int = 0
    rest: Callable[[], Any] | None = None

    def finish(self) -> ChunkResult:
        """Decide what is left to decide line by line."""
        rest, self.rest = self.rest, None
        if rest is not None:
            self.table = rest()
        return self


class Transformer:
    """Turns chunks of one file into rows by one format; `source` is given to events without."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        form: Any,
        origin: str,
        source: str | None = None,
        mode: str = "once",
        before: bytes = b"",
        files: dict[int, bytes] | None = None,
    ) -> None:
        """`before` are the bytes in front of the first chunk; of a chunk of many `files` those of
        each, by where it begins."""
        self._connection, self._form = connection, form
        self._beside = connection.cursor()
        self._origin, self._source, self._mode = origin, source, mode
        self._queries: list[str] | None = None
        self._styles: tuple[Any, ...] = getattr(form, "STYLES", ())
        self._carry = TimeCarry(form, before, files)

    def run(self, chunk: Chunk, *, final: bool = False) -> ChunkResult:
        """Return what a chunk holds."""
        return self.start(chunk, final=final).finish()

    def start(self, chunk: Chunk, *, final: bool = False) -> ChunkResult:
        """Decide what SQL can of a chunk; `finish` may run beside the start of the next one.

        After a `final` chunk nothing follows, so that a record at its end is whole.
        """
        if getattr(self._form, "BINARY", False) and chunk.holes is not None:
            chunk = replace(chunk, binary=True)
        if self._form.NAME == bulk.NAME:
            whole = without_cut_line(chunk, self._form, self._mode) if chunk.open_end else chunk
            made = ChunkResult(taken=len(whole.data))
            made.table = self._pairs(whole, made)
            return made
        found = records(chunk, self._form, self._mode, final=final)
        made = ChunkResult(taken=found.taken, lines=len(found.lines))
        now = datetime.now(UTC)
        untimed: list[Any] = []
        older: set[int] = set()
        tables, left = self._by_sql(found, chunk, now, untimed, older)

        def rest() -> pa.Table | None:
            exact = self._exact(chunk, found.starts, left, made, untimed, older)
            table = stripes.in_order([*tables, exact])
            table = stripes.marked(table, older) if table and older else table
            return self._carry.fill(table, untimed) if table and self._styles else table

        made.rest = rest
        return made

    def rows_of(self, events: list[dict[str, Any]], places: list[int]) -> pa.Table | None:
        """Turn parsed events into rows. Raises InvalidEvent."""
        return self._rows(encode(events).lines, places)

    def _by_sql(
        self, found: Records, chunk: Chunk, now: datetime, untimed: list[Any], older: set[int]
    ) -> tuple[list[pa.Table | None], Any]:
        """Decide what SQL can: first lines like the file's first ones, then all others, then those
        of other styles.

        Returns their rows and the indexes of the records that are left; adds to `untimed` the
        places of rows that tell no time, to `older` those of records in an older encoding.
        """
        if self._queries is None:
            sample = visible(chunk.data[:SAMPLE]).split(b"\n")[:-1][:SAMPLE_LINES]
            cheaper = getattr(self._form, "cheaper", None)
            self._queries = [*(cheaper(sample) if cheaper else ()), self._form.QUERY]
        tables: list[pa.Table | None] = []
        count = len(found.lines)
        left = np.arange(count, dtype=np.int64)
        many = getattr(self._form, "MANY", False)
        few = 0 if many and found.taken > _FEW_BYTES else FEW
        if count <= few:
            return tables, left
        lines, more, recoded = stripes.valid_text(found, blank=many)
        table = pa.table({"line": lines, "position": stripes.integers(left)})
        if joins(self._form) or self._styles:
            table = table.append_column(
                "more", pa.nulls(count, pa.string()) if more is None else more
            )
        places = found.starts + chunk.base
        older |= {int(places[index]) for index in recoded}
        # in plain text, lines of a known style are no text, which would take them all
        likely = getattr(self._form, "CANDIDATES", "")
        styled = stripes.fitting(lines, likely) if likely else left[:0]
        if len(styled):
            left = np.setdiff1d(left, styled, assume_unique=True)
            made, styled = self._by_styles(table, styled, places, now, untimed)
            tables += made
        for query in list(self._queries):
            if len(left) <= (4 * FEW if tables else few):
                break
            before = len(left)
            rows_, left = self._guarded(query, table, left, places, now)
            tables.append(rows_)
            if getattr(self._form, "CARRIES", False):
                untimed.append(stripes.untimed(rows_, now))
            if len(left) > before / 2 and query in self._queries[:-1]:
                self._queries.remove(query)
        if self._styles and not likely and len(left) > 4 * FEW:
            made, left = self._by_styles(table, left, places, now, untimed)
            tables += made
        return tables, np.union1d(left, styled) if len(styled) else left

    def _by_styles(
        self, table: pa.Table, left: Any, places: Any, now: datetime, untimed: list[Any]
    ) -> tuple[list[pa.Table], Any]:
        """Decide lines of other styles; return their rows and the indexes of what is left.

        Records of many lines and what styles must not take are left to the exact rule.
        """
        lines = table if len(left) == table.num_rows else table.take(stripes.integers(left))
        pick = pc.fill_null(pc.equal(pc.binary_length(lines["more"]), 0), True)
        pick = pc.and_not(pick, pc.match_substring_regex(lines["line"], self._form.LEFT_OUT))
        mask = np.asarray(pick)
        rest, tables = left[mask], []
        for style in self._styles:
            if len(rest) <= 4 * FEW:
                break
            # of most programs there is no line, which is sooner seen than a query is planned
            head = getattr(style, "HEAD", "")
            if head and not len(stripes.fitting(table["line"].take(stripes.integers(rest)), head)):
                continue
            rows_, rest = self._run(style.QUERY, table, rest, places, now)
            tables.append(rows_)
            untimed.append(stripes.untimed(rows_, now))
        return tables, np.sort(np.concatenate([left[~mask], rest]))

    def _guarded(
        self, query: str, lines: pa.Table, index: Any, places: Any, now: datetime
    ) -> tuple[pa.Table, Any]:
        """Run a query; once it stops at a line that is no JSON, look at every line before."""
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
        count = lines.num_rows
        table = lines if len(index) == count else lines.take(stripes.integers(index))
        cursor = self._connection.cursor()
        try:
            if zone := getattr(self._form, "ZONE", ""):
                cursor.execute(f"SET TimeZone = {sql.literal(zone)}")  # of this cursor alone
            parts = table.to_batches(max_chunksize=stripes.stripe(table))
            cursor.register("lines", pa.Table.from_batches(parts, table.schema))
            named: dict[str, Any] = {"now": now} if "$now" in query else {}
            if self._source is not None:
                query = f"SELECT * REPLACE (coalesce(source, $label) AS source) FROM ({query})"
                named["label"] = self._source
            query = f"""WITH decided AS MATERIALIZED ({query})
                SELECT * EXCLUDE (slow), {_KEY} AS key FROM decided WHERE NOT slow"""
            found = _without_nul_ids(cursor.sql(query, params=named or None).to_arrow_table())
        finally:
            cursor.close()
        at = np.asarray(found["position"])
        seen = np.zeros(count, dtype=bool)
        seen[at] = True
        where = places[at]
        if "nth" in found.column_names:
            where = where + np.asarray(found["nth"])
        column = found.schema.get_field_index("position")
        found = found.set_column(column, "position", stripes.integers(where))
        if "nth" in found.column_names and (np.diff(where) < 0).any():
            found = found.sort_by("position")
        return self._finish(found, now), index[~seen[index]]

    def _finish(self, table: pa.Table, now: datetime) -> pa.Table:
        """Add what every row of this run shares."""
        count = table.num_rows
        stamp = pa.repeat(pa.scalar(now, pa.timestamp("us", "UTC")), count)
        origin = pa.repeat(pa.scalar(self._origin, pa.string()), count)
        table = table.append_column("ingested_at", stamp).append_column("origin", origin)
        place = table.schema.get_field_index("time")  # the engine may call UTC another name
        return table.set_column(place, "time", table["time"].cast(stamp.type)).select(_ORDER)

    def _exact(
        self,
        chunk: Chunk,
        starts: Any,
        slow: Any,
        made: ChunkResult,
        untimed: list[Any],
        older: set[int],
    ) -> pa.Table | None:
        """Decide lines one by one; return the rows of the good ones."""
        carried: list[int] = []
        good: list[bytes] = []
        places: list[int] = []
        untrimmed = getattr(self._form, "UNTRIMMED", False)
        placed = hasattr(self._form, "places")
        for index in slow.tolist():
            start, stop = int(starts[index]), int(starts[index + 1])
            line = chunk.text[start:stop]
            text = line.strip().removeprefix(BOM)
            if text:
                try:
                    events, is_older = self._events(line if untrimmed else text)
                    older |= {chunk.base + start} if is_older else set()
                    if mixture.uncarry(events):
                        carried.append(chunk.base + start)
                    good += encode(list(map(self._labelled, events))).lines
                    many = self._form.places(line) if placed else range(len(events))
                    places += [chunk.base + start + offset for offset in many]
                except InvalidEvent as error:
                    made.bad.append(self._bad(chunk, start, error.reason, line))
        untimed += [carried] if carried else []
        return self._rows(good, places)

    def _events(self, line: bytes) -> tuple[list[dict[str, Any]], bool]:
        """The events of a record, and whether it is text of an older encoding. A record is that
        only if at most one event begins with it: in a lake of before, its quarantined line has
        that place.
        Raises InvalidEvent."""
        try:
            found = self._form.parse(line)
        except InvalidEvent:
            text = pattern.recoded(line)
            places = getattr(self._form, "places", lambda _: [0])
            if text is None or places(line) != [0]:
                raise
            with contextlib.suppress(InvalidEvent):
                found = self._form.parse(text)
                if not isinstance(found, list) or len(found) < 2:
                    return found if isinstance(found, list) else [found], True
            raise
        return found if isinstance(found, list) else [found], False

    def _rows(self, lines: list[bytes], places: list[int]) -> pa.Table | None:
        """Make rows of events as WAL lines."""
        if not lines:
            return None
        now = datetime.now(UTC)
        table = rows.events(self._beside, [_frame(lines, self._origin)])
        table = table.drop_columns(["ingested_at", "origin", "writer", "sequence", "position"])
        table = table.append_column("position", pa.array(places, pa.int64()))
        return self._finish(table, now)

    def _bad(self, chunk: Chunk, start: int, reason: str, line: bytes) -> RejectedLine:
        return RejectedLine(chunk.base + start, reason, readable(line), self._origin)

    def _labelled(self, event: dict[str, Any]) -> dict[str, Any]:
        if self._source is not None and event.get("source") is None:
            event["source"] = self._source
        return event

    def _pairs(self, chunk: Chunk, made: ChunkResult) -> pa.Table | None:
        """Pair actions with documents and make rows of them."""
        good: list[bytes] = []
        places: list[int] = []
        action: bulk.Action | None = None
        at = made.taken = 0
        for number, line in enumerate(io.BytesIO(chunk.text)):
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
    """A bad line as text, the whole of it; bytes that are no text are escaped."""
    return line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")


def _frame(lines: list[bytes], origin: str) -> wal.Frame:
    import zstandard

    text = b"\n".join(lines) + b"\n"
    payload = zstandard.ZstdCompressor(level=1).compress(text)
    return wal.Frame(origin, 0, len(lines), wal.KEYED, 0, 0, len(text), payload)


def _without_nul_ids(rows: pa.Table) -> pa.Table:
    """Leave out every row of a line that has an id with a NUL, which the exact rule refuses."""
    refused = pc.fill_null(pc.match_substring(rows["id"], "\0"), False)
    if not pc.any(refused).as_py():
        return rows
    lines = rows["position"].filter(refused)
    return rows.filter(pc.invert(pc.is_in(rows["position"], lines.combine_chunks())))
