"""The first queries over a tail: the engine reads a few columns from the WAL's frames themselves.

To make rows of a tail takes numpy, Arrow and all its columns, and pays when it is queried again.
A process that asks once, as after a crash, wants the columns of one query. So a SELECT that gives
nothing but envelope columns of `events` reads them from copies of the frames in memory, which do
not change and which no trim removes. Anything else about its answer makes the tables whole, and so
does an error: the engine parses payloads, and may fail where they are unusual.
"""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from lakelog import frame_rows
from lakelog.disk import OpenFile
from lakelog.engine.syntax import Node, nodes
from lakelog.entries import SegmentEntry
from lakelog.libraries import duckdb
from lakelog.manifest import Manifest
from lakelog.query.lake_tables import LakeTables
from lakelog.query.providers import Pinned
from lakelog.query.sql import table_sql
from lakelog.query.sql.analysis import Query
from lakelog.query.sql.table_sql import View, columns
from lakelog.query.sql.tree import tree_of
from lakelog.query.stream import Stream
from lakelog.wal import Frame, PendingFrames

_TIMES = 3
"""So many queries together take about as long as making the rows of the tail once."""
_VECTOR = 1024
"""So many pieces one call writes at most."""
_FILE_BYTES, _FILES = 1 << 23, 32
"""JSON of the frames of one file, each of which one thread of the engine reads, as long as there
are not more than so many files."""
_DESCRIPTORS = "/proc/self/fd"
_NAME = "lakelog_query"
_TABLES = ("BASE_TABLE", "SUBQUERY", "JOIN", "EMPTY")
_JOINS = ("REGULAR", "CROSS")


class FrameFiles:
    """Frames in files in memory, which are closed once nothing refers to this."""

    def __init__(self, frames: list[Frame]) -> None:
        """Raises OSError, AttributeError where there are no such files."""
        self._fds: list[int] = []
        # The files are closed by whoever is left, also by a reader that was never read to its end.
        weakref.finalize(self, _close, self._fds).atexit = False
        # As few files as threads can read: each one costs a descriptor.
        enough = max(_FILE_BYTES, sum(f.raw for f in frames) // _FILES)
        payloads, size = list[bytes | memoryview](), 0
        for nth, frame in enumerate(frames, 1):
            payloads.append(frame.payload)
            size += frame.raw
            if size >= enough or nth == len(frames):
                self._fds.append(_memory_file(payloads))
                payloads, size = [], 0

    @property
    def paths(self) -> list[str]:
        """Names by which this process can open them."""
        return [f"{_DESCRIPTORS}/{fd}" for fd in self._fds]


def _memory_file(buffers: Sequence[bytes | memoryview]) -> int:
    """Return the descriptor of a file without a name, in memory, that holds `buffers`.

    Raises AttributeError where the system has no such files, OSError.
    """
    fd = os.memfd_create("lakelog")
    try:
        for start in range(0, len(buffers), _VECTOR):
            OpenFile(fd).write(b"".join(buffers[start : start + _VECTOR]))
    except BaseException:
        os.close(fd)
        raise
    return fd


class FrameScan(NamedTuple):
    """`events` as a view of frames, with no more columns than a query names."""

    view: str
    """SQL that makes it."""
    files: FrameFiles
    """To be kept as long as it is read."""
    complete: Callable[[duckdb.DuckDBPyConnection], None]
    """Gives a cursor that has it all columns of the same rows."""


class FrameScans:
    """Answers the first queries of a session over a tail."""

    def __init__(self, tables: LakeTables) -> None:
        self._tables = tables
        self.left = _TIMES
        """How many more queries are answered so."""

    def stream(
        self, cursor: duckdb.DuckDBPyConnection, query: Query, pinned: Pinned
    ) -> Stream | None:
        """Return a SELECT over `events` with a cursor that has them, None if it needs their rows.

        Raises SnapshotGone, DamagedSegment.
        """
        scan = self._scan(cursor, query, pinned)
        if scan is None:
            return None
        stream = Stream(cursor, query.sql, None, is_one=True)
        stream.prepared = f"EXECUTE {_NAME}"
        stream.complete = functools.partial(scan.complete, cursor)
        stream.held = scan.files
        return stream

    def make(
        self, cursor: duckdb.DuckDBPyConnection, query: Query, pinned: Pinned
    ) -> FrameScan | None:
        """Make `events` on the cursor of a SELECT over it, None if that needs the tail's rows.

        Raises SnapshotGone, DamagedSegment.
        """
        # On another cursor first: an error would end the transaction that a user has begun on this.
        scan_cursor = self._tables.connect().cursor()
        scan = self._scan(scan_cursor, query, pinned)
        if scan is not None:
            cursor.execute(scan.view)
        return scan

    def _scan(
        self, cursor: duckdb.DuckDBPyConnection, query: Query, pinned: Pinned
    ) -> FrameScan | None:
        """Make `events` on a cursor and prepare the query there; None if it needs more."""
        state, pending = pinned
        # No sandbox allows /proc, where files in memory have their names.
        if self._tables.sandbox:
            return None
        if not self.left or pending is None or not pending.events or pending.has_keys:
            return None
        if query.needles:  # others keep the rows of what is asked for again
            return None
        wanted = columns_read(nodes(tree_of(cursor, query.sql)["statements"]))
        if wanted is None or not wanted <= frame_rows.SCANNED or not os.path.isdir(_DESCRIPTORS):
            return None
        frames = [
            f for fs in pending.frames.values() for f in fs if not f.flags & Frame.QUARANTINED
        ]
        try:
            files = FrameFiles(frames)
        except (OSError, AttributeError):  # too many descriptors, or none of this kind
            return None
        # Without a column there is no row to count.
        names = sorted(wanted or {"type"})
        # The longest line of JSON that the reader has to expect.
        longest = max(frame.raw for frame in frames)
        sources = [frame_rows.scan_sql(files.paths, longest, names)]
        chosen = self._tables.choose(state, query)
        if chosen.entries:
            sources.insert(0, self._tables.rows_sql(chosen.entries, ranges=chosen.ranges))
        union = " UNION ALL ".join(
            f"SELECT {', '.join(names)} FROM ({source})" for source in sources
        )
        if not _is_bound(cursor, union, query.sql):
            return None
        self.left -= 1
        view = f"CREATE OR REPLACE TEMP VIEW events AS {union}"
        return FrameScan(
            view, files, functools.partial(self._make_whole, chosen.entries, state, pending)
        )

    def _make_whole(
        self,
        entries: list[SegmentEntry],
        state: Manifest,
        pending: PendingFrames,
        cursor: duckdb.DuckDBPyConnection,
    ) -> None:
        """Give a cursor all columns of the rows that it has."""
        # From now on rows are made: what was asked for more than once pays for that.
        tables, self.left = self._tables, 0
        # A table of Arrow, as a tail without segments is, does not replace a view.
        cursor.execute("DROP VIEW IF EXISTS events")
        with tables.mutex.hold():
            tail = tables.rows_of(pending.head.move.branch).numbered(pending, state)
            tables.make(cursor, [View("events", entries, tail, opens=tables.opens_fields)])


def _is_bound(cursor: duckdb.DuckDBPyConnection, rows: str, query: str) -> bool:
    """Prepare a query with rows in the place of `events`; whether it needs no more columns."""
    if table_sql.has_names(query):
        cursor.execute(f"CREATE OR REPLACE TEMP VIEW events AS {rows}")
    else:  # a view would be bound twice
        query = table_sql.inlined(query, "events", rows)
    try:
        cursor.execute(f"PREPARE {_NAME} AS {query}")
    except duckdb.Error:
        return False  # if the query itself is wrong, others tell
    return True


def columns_read(tree: Iterable[Node]) -> set[str] | None:
    """Return the columns of `events` that the nodes of a query name, None if it may read others."""
    node_list = list(tree)
    tables = {node["alias"].lower() for node in node_list if node.get("type") == "BASE_TABLE"}
    names = set[str]()
    for node in node_list:
        node_type = node.get("type")
        if node_type in ("STAR", "POSITIONAL_REFERENCE") or node.get("column_name_alias"):
            return None
        if "sample" in node and "alias" in node and node_type not in _TABLES:
            return None  # a table function, PIVOT, SUMMARIZE and the like
        if node_type == "JOIN" and (node["ref_type"] not in _JOINS or node["using_columns"]):
            return None
        if node.get("class") == "COLUMN_REF":
            *path, name = map(str.lower, node["column_names"])
            if name in tables or name == "events":
                return None  # a whole row
            names.update((*path, name))
    return names & {*columns("events")}


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
