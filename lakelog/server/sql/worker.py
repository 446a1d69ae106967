"""A process that answers queries of others, one after another: python -m lakelog.server.sql.worker

It binds itself before the first of them, so that a query which gets past the guard still reads
nothing but the lake, and can be ended at any time: nothing of it is needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import os
import time
from collections.abc import Iterator
from typing import Any

import orjson

from lakelog.database import SPILL
from lakelog.disk import Folder, disk
from lakelog.errors import (
    InvalidSearch,
    InvalidView,
    LakelogError,
    QueryFailed,
    SnapshotGone,
    UnknownRef,
)
from lakelog.history import resolve
from lakelog.libraries import pa
from lakelog.query import Query, Relation, Session
from lakelog.render import ColumnBatch, TextLineEncoder, dumps, payload
from lakelog.search import expanded
from lakelog.server.sql import query_limits as wire
from lakelog.server.sql.bucket_relay import BucketNeeds
from lakelog.server.sql.confinement import allow_processor, confine
from lakelog.server.sql.query_limits import QueryFormat, QueryLimits, QueryRefused, QueryRequest
from lakelog.server.sql.request_loop import FrameOutput, answer_requests, begin, resident_bytes
from lakelog.server.sql.statement_guard import require_readable
from lakelog.store import Store
from lakelog.views import ViewTables

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
        # An object would keep one of the columns that have a name: numbered, as `lakelog sql` has
        # them, where it is not unique.
        is_object = self._format is QueryFormat.NDJSON
        names = list(self._relation.limit(0).columns) if is_object else self.names
        lines = TextLineEncoder(self._format.value, names, nested)
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
    has_payload = Query.gives_payload(session.tables.engine().cursor(), query)
    return tuple(
        place
        for place, (name, column_type) in enumerate(zip(writer.names, writer.types, strict=True))
        if column_type == "JSON" or (has_payload and name == "data" and column_type == "VARCHAR")
    )


_TOO_MUCH = "aggregate, ask for a shorter time, or select fewer columns"


class QueryProcess:
    """Answers the requests of one server."""

    def __init__(self, session: Session, limits: QueryLimits, output: FrameOutput) -> None:
        self._session, self._limits, self._output = session, limits, output
        self._views = ViewTables(session)
        self.number = 0
        self._relation: Relation | None = None

    def answer(self, content: bytes) -> None:
        """Answer one request; whatever goes wrong is part of the answer."""
        request = QueryRequest.decode(content)
        self.number = request.number
        allow_processor(self._limits.seconds)
        ending: dict[str, object]
        try:
            ending = self._answered(request)
        except (LakelogError, KeyboardInterrupt, MemoryError) as error:
            ending = refusal(error).ending()
        except Exception as error:
            # What libraries raise for want of memory has many names.
            ending = {**refusal(error).ending(), "retire": True}
        # Dropped at once: a relation keeps the rows and the memory of its query.
        self._relation = None
        self.number = 0
        # What the engine has allocated is hardly ever returned: a new process starts small.
        ending.setdefault("retire", resident_bytes() > self._limits.memory // 2)
        self._output.send(wire.END, orjson.dumps(ending))

    def _answered(self, request: QueryRequest) -> dict[str, object]:
        session, started_at = self._session, time.monotonic()
        store = session.store
        # Resolved once: the guard and the query speak of the same state, though the branch moves.
        digest = request.ref and resolve(store, session.tables.branch, request.ref)
        query = expanded(request.sql)
        if not request.is_trusted:
            self._require_allowed(query, digest)
        relation = session.ask(query, request.params, digest)
        if relation is None:
            raise QueryRefused("not_a_select", "the statement gives no rows")
        self._relation = relation
        writer = AnswerWriter(relation, request.format, self._limits.rows, request.limit)
        self._output.send(wire.HEAD, orjson.dumps({"snapshot": digest}))
        # Counted on the way, because nobody knows the size of an answer before its last row.
        size = 0
        for chunk in writer.pieces(nested_columns(session, query, writer)):
            size += len(chunk)
            if size > self._limits.result:
                raise QueryRefused(
                    "size_limit",
                    f"the answer has more than {self._limits.result:,} bytes",
                    _TOO_MUCH,
                )
            self._output.send_chunks(chunk)
        return {
            "rows": writer.rows,
            "truncated": writer.is_cut,
            "seconds": round(time.monotonic() - started_at, 6),
        }

    def _require_allowed(self, query: str, digest: str | None) -> None:
        store, tables = self._session.store, self._session.tables
        state, _ = tables.state(digest)
        schemas = {"main", *store.refs.tag_names(), *store.refs.branches()}
        require_readable(
            tables.engine().cursor(),
            query,
            {"events", "quarantine", *(name.lower() for name in self._views.names(state))},
            {schema.lower() for schema in schemas},
        )

    def interrupt(self) -> None:
        """Stop the query that runs, from another thread."""
        if (relation := self._relation) is not None:
            relation.interrupt()


def refusal(error: BaseException) -> QueryRefused:
    """What an error is to who asked."""
    if isinstance(error, QueryRefused):
        return error
    if isinstance(error, KeyboardInterrupt):
        return QueryRefused("cancelled", "the query was cancelled", status=499)
    message = str(error)
    if isinstance(error, MemoryError) or "Out of Memory" in message:
        return QueryRefused(
            "memory_limit", "the query needs more memory than it may take", _TOO_MUCH
        )
    if isinstance(error, (QueryFailed, InvalidSearch, InvalidView)):
        return QueryRefused("query_failed", message)
    if isinstance(error, UnknownRef):
        return QueryRefused("unknown_ref", message, "at is a tag, branch, snapshot or time", 404)
    if isinstance(error, SnapshotGone):
        return QueryRefused("snapshot_gone", message, "send it again", 503)
    if isinstance(error, (LakelogError, OSError)):
        return QueryRefused("unavailable", message, "the log of the server says more", 503)
    return QueryRefused("query_failed", message or type(error).__name__)


def _session(root: str, branch: str, limits: QueryLimits) -> tuple[Session, bool, str]:
    """Open the lake, bind the process, and return what answers queries, whether the kernel bounds
    it, and where it spills to."""
    store = Store.load(root)
    # It never seals: it may write nothing of the lake. Half of the memory is left to Arrow and
    # Python.
    settings = dataclasses.replace(store.settings, seal="never", memory_bytes=limits.memory // 2)
    store.settings = settings
    spill = f"{store.paths.cache}/{SPILL}{os.getpid()}-{disk.random_hex(8)}"
    with contextlib.suppress(OSError):  # a lake that cannot be written is read all the same
        Folder(spill).make()
        # What comes to be later stays closed to it, and the first erasure may come any time.
        Folder(store.paths.erasures).make()
    is_confined = confine(store.paths, spill, limits.memory, limits.spill)
    return Session(store, branch, sandbox=(spill, limits.spill)), is_confined, spill


def main() -> None:
    """Answer requests until the input ends."""
    plan, output = begin()
    limits = QueryLimits(**plan["limits"])
    session, is_confined, spill = _session(plan["root"], plan["branch"], limits)
    needs = BucketNeeds(output)
    needs.relay(session.store)
    # The engine is started, so that the first query does not wait for it.
    session.connect().cursor().execute("SELECT 1").fetchall()
    output.send(wire.HEAD, orjson.dumps({"confined": is_confined, "spill": spill}))
    # What is there now lives as long as the process: later collections need not look at it.
    gc.freeze()
    answer_requests(QueryProcess(session, limits, output), needs)


if __name__ == "__main__":
    main()
