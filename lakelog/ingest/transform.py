"""Chunks of lines to rows: by SQL where that is lossless, else by the exact rule in Python.

A chunk's bytes become an Arrow string column without a copy (its newlines give the offsets). The
format's query gives the rows; lines that it flags or omits are parsed one by one and become rows,
or quarantined lines with the reason.
"""

from __future__ import annotations

import contextlib
import io
from codecs import BOM_UTF8
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lakelog import arrays, frame_rows, identities, sql, typed_columns
from lakelog.database import Connect
from lakelog.errors import InvalidEvent
from lakelog.event import EVENT_COLUMNS, EncodedBatch
from lakelog.formats import BulkAction, Format, LineEncoding, TypedPayloads, UniformLines
from lakelog.ingest import stripes
from lakelog.ingest.chunk_result import ChunkResult, RejectedLine
from lakelog.ingest.conformance import Conformance
from lakelog.ingest.records import Records, is_left, joins, records, simple, without_cut_line
from lakelog.ingest.time_carry import TimeCarry, Untimed
from lakelog.libraries import duckdb, np, pa, pc
from lakelog.lines import Chunk, Source, visible
from lakelog.runtime.lazy import LazyProperty
from lakelog.values import to_micros

SAMPLE, SAMPLE_LINES = 1 << 18, 50
"""Bytes and lines of a file's beginning that are the sample for cheaper queries."""
FEW = 500
"""Up to so many lines, parsing one by one is faster than planning a query; up to four times as many
of those that a query left, which are mostly bad."""
_FEW_BYTES = 1 << 20
"""Bytes of documents from which on a query is used, however few they are."""
_KEY = f"CASE WHEN id <> '' THEN {identities.id_key()} END"
_ORDER = (*EVENT_COLUMNS[:9], "position", "key", "ingested_at", "origin")


class Transformer:
    """Turns chunks of one file into rows by one format; `source` is given to events without."""

    is_left = staticmethod(is_left)
    joins = staticmethod(joins)
    simple = staticmethod(simple)

    def __init__(
        self,
        connect: Connect,
        form: Format,
        origin: str,
        source: str | None = None,
        mode: str = "once",
        before: bytes = b"",
        files: dict[int, bytes] | None = None,
        conformance: Conformance | None = None,
        payloads: TypedPayloads | None = None,
        heads: dict[int, bytes] | None = None,
    ) -> None:
        """`before` are the bytes in front of the first chunk; of a chunk of many `files` those of
        each, by where it begins, as are the first bytes of a file in `heads`. Lines that lack
        `conformance` are bad, which is checked of payloads as text; without it `payloads` says
        which become structs."""
        self._connect, self._form = connect, form
        self._origin, self._source, self._mode = origin, source, mode
        self._queries: list[str] | None = None
        self._uniform: UniformLines | None = None
        self._traits = form.traits
        self._carry = TimeCarry(form, before, files, heads)
        self._conformance = conformance
        self._payloads = None if conformance else payloads

    @LazyProperty
    def _beside(self) -> duckdb.DuckDBPyConnection:
        """A cursor of the database, which a few lines need not, for what is no query of lines."""
        return self._connect().cursor()

    @property
    def chunk(self) -> int:
        """Bytes of the chunks that cost least; lines that are cut need not be planned for."""
        return Source.SHORT if self._uniform else Source.CHUNK

    def run(self, chunk: Chunk, *, final: bool = False) -> ChunkResult:
        """Return the result of a chunk."""
        return self.start(chunk, final=final).finish()

    def start(self, chunk: Chunk, *, final: bool = False) -> ChunkResult:
        """Parse by SQL what it can of a chunk; `finish` may run in parallel with the next `start`.

        After a `final` chunk nothing follows, so that a record at its end is complete.
        """
        if self._traits.binary and chunk.holes is not None:
            # Holes would be blanked, and in a binary record NULs are data.
            chunk = replace(chunk, binary=True)
        # An action belongs to the line after it, so lines cannot be parsed independently.
        if self._traits.pairs:
            whole = without_cut_line(chunk, self._form, self._mode) if chunk.open_end else chunk
            result = ChunkResult(length=len(whole.data))
            result.table = self._pairs(whole, result)
            return result
        chunk_records = records(chunk, self._form, self._mode, final=final)
        result = ChunkResult(length=chunk_records.length, lines=len(chunk_records.lines))
        # One time of ingest for the chunk: rows that get it are recognised by being equal to it.
        untimed = Untimed(datetime.now(UTC))
        older: set[int] = set()
        tables, remaining = self._by_sql(chunk_records, chunk, untimed, older)
        if self._payloads and any(t and typed_columns.COLUMN in t.column_names for t in tables):
            result.fields = self._payloads.fields

        def rest() -> pa.Table | None:
            # The exact rule is pure Python and may take long: the caller runs it in another thread.
            exact = self._exact(chunk, chunk_records.starts, remaining, result, untimed, older)
            # In file order first: a time is carried from the row before.
            table = stripes.in_order([*tables, exact])
            table = stripes.mark_encoding(table, older) if table and older else table
            if table and self._traits.styles:
                table = self._carry.fill(table, untimed.positions)
            return self._conforming(table, chunk, chunk_records.starts, result)

        result.rest = rest
        return result

    def uniform(self, chunk: Chunk) -> ChunkResult | None:
        """Return the result of a chunk whose lines are all spelled alike, of any other None."""
        self._plan(chunk)
        lines, starts = chunk.lines
        chunk_records = Records(lines, None, starts, len(chunk.data))
        if self._uniform is None or stripes.valid_text(chunk_records, blank=False)[0] is not lines:
            return None
        tables, unread = self._by_layout(chunk, chunk_records, datetime.now(UTC))
        fields = self._payloads.fields if self._payloads else None
        if len(unread):
            return None
        return ChunkResult(tables[0], lines=len(lines), length=chunk_records.length, fields=fields)

    def rows_of(self, events: list[dict[str, Any]], places: list[int]) -> pa.Table | None:
        """Turn parsed events into rows. Raises InvalidEvent."""
        return self._rows(EncodedBatch.of(events).lines, places, datetime.now(UTC))

    def _by_sql(
        self, chunk_records: Records, chunk: Chunk, untimed: Untimed, older: set[int]
    ) -> tuple[list[pa.Table | None], np.ndarray]:
        """Parse by SQL: first lines like the file's first ones, then all others, then those of
        other styles.

        Returns their rows and the indexes of the remaining records; adds to `untimed` the rows
        without a time, to `older` the positions of records in an older encoding.
        """
        queries, ingest_time = self._plan(chunk), untimed.now
        tables: list[pa.Table | None] = []
        count = len(chunk_records.lines)
        remaining = np.arange(count, dtype=np.int64)
        has_many = self._traits.many
        few_lines = 0 if has_many and chunk_records.length > _FEW_BYTES else FEW
        if count <= few_lines:
            return tables, remaining
        # Text that is not UTF-8 would fail the query for all lines of the chunk.
        encoding = self._traits.encoding
        lines, continued, recoded = stripes.valid_text(
            chunk_records, blank=has_many, encoding=encoding
        )
        if self._uniform is not None and lines is chunk_records.lines:
            tables, remaining = self._by_layout(chunk, chunk_records, ingest_time)
            if len(remaining) <= few_lines:
                return tables, remaining
        table = pa.table({"line": lines, "position": arrays.integers(np.arange(count))})
        if joins(self._form) or self._traits.styles:
            table = table.append_column(
                "more", pa.nulls(count, pa.string()) if continued is None else continued
            )
        places = chunk_records.starts + chunk.base
        older |= {int(places[index]) for index in recoded}
        # in plain text, lines of a known style are no text, which would take them all
        likely = self._traits.candidates
        styled = stripes.matching(lines, likely) if likely else remaining[:0]
        if len(styled):
            remaining = np.setdiff1d(remaining, styled, assume_unique=True)
            styled_rows, styled = self._by_styles(table, styled, places, untimed)
            tables += styled_rows
        for query in list(queries):
            if len(remaining) <= (4 * FEW if tables else few_lines):
                break
            before = len(remaining)
            rows_, remaining = self._run(query, table, remaining, places, ingest_time)
            if self._traits.carries:
                rows_ = untimed.take(rows_, lines, places)
            tables.append(rows_)
            # It left most lines of this chunk, and would of the next: it costs more than it saves.
            if len(remaining) > before / 2 and query in queries[:-1]:
                queries.remove(query)
        if self._traits.styles and not likely and len(remaining) > 4 * FEW:
            styled_rows, remaining = self._by_styles(table, remaining, places, untimed)
            tables += styled_rows
        unparsed = [indexes for indexes in (styled, *untimed.timed) if len(indexes)]
        return tables, np.sort(np.concatenate([remaining, *unparsed])) if unparsed else remaining

    def _plan(self, chunk: Chunk) -> list[str]:
        """Return the queries for lines like those of the first chunk, the cheapest first: lines of
        a file rarely change their layout."""
        if self._queries is None:
            sample = visible(chunk.data[:SAMPLE]).split(b"\n")[:-1][:SAMPLE_LINES]
            self._queries = [*self._form.cheaper(sample), self._form.QUERY]
            self._uniform = self._form.uniform(sample)
        return self._queries

    def _by_layout(
        self, chunk: Chunk, chunk_records: Records, ingest_time: datetime
    ) -> tuple[list[pa.Table | None], np.ndarray]:
        """Cut lines that are spelled alike; return their rows and the indexes of the others."""
        assert self._uniform is not None
        starts, remaining = chunk_records.starts, np.arange(len(chunk_records.lines))
        content = chunk.text[: chunk_records.length]
        columns_of = (
            self._payloads.columns(self._uniform, content, starts) if self._payloads else None
        )
        cut_rows = self._uniform.rows(self._beside, content, starts, columns_of)
        if cut_rows is None:
            return [], remaining
        columns, index = cut_rows
        if self._payloads:
            self._payloads.judge(columns)
        # As with queries: what leaves most lines costs more than it saves.
        if len(index) < len(remaining) / 2:
            self._uniform = None
        count = columns.num_rows
        for name in _ORDER[1:11]:
            if name not in columns.column_names and name != "position":
                columns = columns.append_column(name, pa.nulls(count, pa.string()))
        if self._source is not None and columns["source"].null_count:
            source = columns.schema.get_field_index("source")
            columns = columns.set_column(
                source, "source", pa.repeat(arrays.texts((self._source,))[0], count)
            )
        places = arrays.integers(starts[index] + chunk.base)
        unread = np.setdiff1d(remaining, index, assume_unique=True)
        return [self._finish(columns.append_column("position", places), ingest_time)], unread

    def _by_styles(
        self, table: pa.Table, remaining: np.ndarray, places: np.ndarray, untimed: Untimed
    ) -> tuple[list[pa.Table], np.ndarray]:
        """Parse lines of other styles; return their rows and the indexes of the remaining lines.

        Records of many lines, and lines that styles must not match, are left to the exact rule.
        """
        lines = (
            table if len(remaining) == table.num_rows else table.take(arrays.integers(remaining))
        )
        # Styles are of single lines; a record with more of them is put together by the exact rule.
        pick = pc.fill_null(pc.equal(pc.binary_length(lines["more"]), 0), True)
        pick = pc.and_not(pick, pc.match_substring_regex(lines["line"], self._traits.left_out))
        mask = np.asarray(pick)
        unread, tables = remaining[mask], []
        for style in self._traits.styles:
            if len(unread) <= 4 * FEW:
                break
            # of most programs there is no line, which is sooner seen than a query is planned
            head = style.traits.head
            if head and not len(
                stripes.matching(table["line"].take(arrays.integers(unread)), head)
            ):
                continue
            rows_, unread = self._run(style.QUERY, table, unread, places, untimed.now)
            tables.append(untimed.take(rows_, table["line"], places))
        return tables, np.sort(np.concatenate([remaining[~mask], unread]))

    def _run(
        self,
        query: str,
        lines: pa.Table,
        index: np.ndarray,
        places: np.ndarray,
        ingest_time: datetime,
    ) -> tuple[pa.Table, np.ndarray]:
        """Run a query over some lines; return the rows it gave and the lines it left.

        A query whose lines hold many events counts them from 0 in a column `nth`.
        """
        count = lines.num_rows
        table = lines if len(index) == count else lines.take(arrays.integers(index))
        # A cursor of its own: this thread and the one that parses exactly share a connection.
        with self._connect().cursor() as cursor:
            if zone := self._traits.zone:
                cursor.execute(f"SET TimeZone = {sql.literal(zone)}")  # of this cursor alone
            # DuckDB scans one Arrow batch per thread: one large batch would use one core.
            batches = table.to_batches(max_chunksize=stripes.stripe(table))
            cursor.register("lines", pa.Table.from_batches(batches, table.schema))
            parameters: dict[str, Any] = {"now": ingest_time} if "$now" in query else {}
            if self._source is not None:
                query = f"SELECT * REPLACE (coalesce(source, $label) AS source) FROM ({query})"
                parameters["label"] = self._source
            query = f"SELECT *, {_KEY} AS key FROM ({query})"
            decided = cursor.sql(query, params=parameters or None).to_arrow_table()
        # Here and not in the query: DuckDB 2.0 pushes a filter on `slow` below the computation, and
        # would evaluate its expressions twice; to materialize them takes longer than this.
        slow = decided["slow"]
        if pc.any(slow).as_py():
            decided = decided.filter(pc.invert(slow))
        decided = stripes.without_nul_ids(decided.drop_columns(["slow"]))
        line_numbers = arrays.numbers(decided["position"])
        is_decided = np.zeros(count, dtype=bool)
        is_decided[line_numbers] = True
        positions = places[line_numbers]
        if "nth" in decided.column_names:
            positions = positions + arrays.numbers(decided["nth"])
        column = decided.schema.get_field_index("position")
        decided = decided.set_column(column, "position", arrays.integers(positions))
        # Events of a document are numbered in order, but the engine returns them in any.
        if "nth" in decided.column_names and (np.diff(positions) < 0).any():
            decided = decided.sort_by("position")
        return self._finish(decided, ingest_time), index[~is_decided[index]]

    def _finish(self, table: pa.Table, ingest_time: datetime) -> pa.Table:
        """Add the columns that every row of this run shares."""
        count = table.num_rows
        stamp = arrays.times(np.full(count, to_micros(ingest_time)))
        table = table.append_column("ingested_at", stamp)
        table = table.append_column("origin", pa.repeat(arrays.texts((self._origin,))[0], count))
        place = table.schema.get_field_index("time")  # the engine may call UTC another name
        return table.set_column(place, "time", table["time"].cast(stamp.type)).select(
            [
                *_ORDER,
                *(
                    name
                    for name in (typed_columns.COLUMN, typed_columns.TEXT_BYTES)
                    if name in table.column_names
                ),
            ]
        )

    def _exact(
        self,
        chunk: Chunk,
        starts: np.ndarray,
        slow: np.ndarray,
        result: ChunkResult,
        untimed: Untimed,
        older: set[int],
    ) -> pa.Table | None:
        """Parse lines one by one; return the rows of the good ones."""
        carried: list[int] = []
        good: list[bytes] = []
        places: list[int] = []
        untrimmed, places_of = self._traits.untrimmed, self._form.places
        # Blank lines are in here as well: no query gives a row for them.
        with contextlib.closing(self._carry.in_files(chunk, starts, slow)) as indexes:
            for index in indexes:
                start, stop = int(starts[index]), int(starts[index + 1])
                line = chunk.text[start:stop]
                stripped = line.strip().removeprefix(BOM_UTF8)
                if stripped:
                    try:
                        events, is_older = self._events(line if untrimmed else stripped)
                        older |= {chunk.base + start} if is_older else set()
                        # Before encoding: the markers of times are no values of an event.
                        if self._form.uncarry(events):
                            carried.append(chunk.base + start)
                        labelled = [self._labelled(event, untimed.now) for event in events]
                        good += EncodedBatch.of(labelled).lines
                        # Positions must be unique within a file, and stable: events are counted
                        # from the start of their line.
                        offsets = places_of(line) if places_of else range(len(events))
                        places += [chunk.base + start + offset for offset in offsets]
                    except InvalidEvent as error:
                        result.bad.append(self._bad(chunk, start, error.reason, line))
        untimed.positions += [carried] if carried else []
        return self._rows(good, places, untimed.now)

    def _conforming(
        self, table: pa.Table | None, chunk: Chunk, starts: np.ndarray, result: ChunkResult
    ) -> pa.Table | None:
        """Make lines whose event breaches a contract bad lines; return the other rows."""
        if not self._conformance or table is None or not table.num_rows:
            return table
        reasons = self._conformance.reasons(self._beside, table)
        if not reasons:
            return table
        places = arrays.numbers(table["position"]) - chunk.base
        index = np.searchsorted(starts, places, "right") - 1
        counts = np.bincount(index)
        stays = np.ones(len(places), dtype=bool)
        for row, reason in sorted(reasons.items()):
            line_number = int(index[row])
            # A line is ingested completely or not at all: one of several events stays.
            if counts[line_number] == 1:
                line = chunk.text[int(starts[line_number]) : int(starts[line_number + 1])]
                # At the place of its event, where an audit and a replay look for it.
                result.bad.append(self._bad(chunk, int(places[row]), reason, line))
                stays[row] = False
        return table.filter(pa.array(stays))

    def _events(self, line: bytes) -> tuple[list[dict[str, Any]], bool]:
        """The events of a record, and whether it is text of an older encoding. Only a record of at
        most one event is recoded: where an earlier version quarantined it, that line has the same
        position. Raises InvalidEvent."""
        try:
            return self._form.events(line), False
        except InvalidEvent:
            recoded = None if self._traits.encoding else LineEncoding.recoded(line)
            places = self._form.places
            if recoded is None or (places is not None and places(line) != [0]):
                raise
            with contextlib.suppress(InvalidEvent):
                events = self._form.events(recoded)
                if len(events) < 2:
                    return events, True
            raise

    def _rows(
        self, lines: list[bytes], places: list[int], ingest_time: datetime
    ) -> pa.Table | None:
        """Make rows of events as WAL lines."""
        if not lines:
            return None
        table = frame_rows.events(lambda: self._beside, [stripes.frame(lines, self._origin)])
        table = table.drop_columns(["ingested_at", "origin", "writer", "sequence", "position"])
        table = table.append_column("position", arrays.integers(np.array(places, np.int64)))
        return self._finish(table, ingest_time)

    def _bad(self, chunk: Chunk, start: int, reason: str, line: bytes) -> RejectedLine:
        line = LineEncoding.decoded(line.rstrip(b"\r\n"), self._traits.encoding)
        text = readable(line)
        # What had to be escaped is not what the file held: no replay makes an event of it.
        if text.encode() != line and not reason.startswith("not UTF-8"):
            reason = f"not UTF-8: {reason}"
        return RejectedLine(chunk.base + start, reason, text, self._origin)

    def _labelled(self, event: dict[str, Any], ingest_time: datetime) -> dict[str, Any]:
        """An event with the source of the file, and the time of ingest, where it has none."""
        if all(event.get(key) is None for key in Format.TIMES):
            event["time"] = ingest_time
        if self._source is not None and event.get("source") is None:
            event["source"] = self._source
        return event

    def _pairs(self, chunk: Chunk, result: ChunkResult) -> pa.Table | None:
        """Pair actions with documents and make rows of them."""
        good: list[bytes] = []
        places: list[int] = []
        action: BulkAction | None = None
        ingest_time = datetime.now(UTC)
        position = result.length = 0
        for number, line in enumerate(io.BytesIO(chunk.text)):
            start, position = position, position + len(line)
            stripped = LineEncoding.decoded(line.strip(), self._traits.encoding)
            stripped = stripped.removeprefix(BOM_UTF8)
            if stripped and action is None:
                action = BulkAction.of(stripped)
                if action is not None:
                    # A delete has no document after it.
                    action = None if action.name == "delete" else action
                else:
                    reason = "a line without an action before it"
                    result.bad.append(self._bad(chunk, start, reason, line))
            elif stripped and action is not None:
                try:
                    good += EncodedBatch.of(
                        [self._labelled(action.event(stripped), ingest_time)]
                    ).lines
                    places.append(chunk.base + start)
                except InvalidEvent as error:
                    result.bad.append(self._bad(chunk, start, error.reason, line))
                action = None
            # Up to here actions have their documents: one at the end waits for the next chunk.
            if action is None:
                result.length, result.lines = position, number + 1
        return self._rows(good, places, ingest_time)


def readable(line: bytes) -> str:
    """A bad line as text, the whole of it; bytes that are no text are escaped."""
    return line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
