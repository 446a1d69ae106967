"""The tables `files` and `origins`: where the rows of events came from.

`files` has which files were ingested. A row of `events` that was read from a file has that file's
`origin`, so the two join by it. Sizes are those of a state; of the present one, files that this
machine can still see are measured again.

`origins` has on which host the events of each origin were stored. Joined by `origin` it gives the
host of any event: of a file or stream the machine that read it last, of a writer its own. It is
computed from the origins that the events of a state have, when a query names it; nothing is kept
for each writer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from lakelog.files import FileCursor, LogName
from lakelog.libraries import duckdb, pa
from lakelog.manifest import Manifest
from lakelog.store import Hosts, Store
from lakelog.wal import PendingFrames

ORIGINS, FILES = "origins", "files"
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".parquet", ".arrow", ".feather")
PRESENT = "SELECT DISTINCT origin FROM events WHERE origin IS NOT NULL"
"""The query for the origins of a state, which `table` gets as a table."""
# Of a stream's key nothing but an incarnation or a part of the position follows in an origin; where
# the name of one stream begins with that of another, the longer one is meant (F19.3).
_QUERY = f"""
    WITH streamed AS (
        SELECT origin, arg_max(host, length(key)) AS host
        FROM (FROM lakelog_present WHERE contains(origin, ':')) JOIN lakelog_streams
        ON origin = key OR starts_with(origin, key || '#') OR starts_with(origin, key || '/')
        GROUP BY origin
    )
    SELECT origin,
        CASE WHEN f.key IS NOT NULL THEN 'file' WHEN s.origin IS NOT NULL THEN 'stream'
            WHEN h.key IS NOT NULL THEN 'writer' END AS kind,
        nullif(CASE WHEN f.key IS NOT NULL THEN f.host WHEN s.origin IS NOT NULL THEN s.host
            ELSE h.host END, '') AS host
    FROM lakelog_present AS o LEFT JOIN lakelog_files AS f ON f.key = o.origin
    LEFT JOIN streamed AS s USING (origin)
    LEFT JOIN lakelog_hosts AS h
    ON length(o.origin) = 32 AND h.key = right(o.origin, {Hosts.DIGITS})
    ORDER BY origin"""


def origins_table(
    cursor: duckdb.DuckDBPyConnection,
    store: Store,
    state: Manifest,
    pending: PendingFrames | None,
    present: pa.Table,
) -> pa.Table:
    """Return the origins that are `present` in the events of a state, and in what is pending."""
    files = FileCursor.of_state(store, state)
    # Of entries that belong to `ingest`, which imports views, this needs one member.
    streams = store.manifests.read_records(
        state, "stream", lambda entry: (entry.key, str(entry.members.get("host", "")))
    )
    writers_hosts = Hosts.of_state(store.manifests, state)
    # What waits is in no segment yet, so that the manifest cannot know its writers.
    if pending is not None:
        headers = (file.header for group in pending.files.values() for file in group if file.header)
        writers_hosts |= Hosts.named_in((header.writer, header.host) for header in headers)
    # Names of this cursor alone: other threads make the table of other states.
    cursor.register("lakelog_present", present)
    cursor.register("lakelog_files", _pairs((file.origin, file.host) for file in files))
    cursor.register("lakelog_streams", _pairs(streams))
    cursor.register("lakelog_hosts", _pairs(writers_hosts.items()))
    return cursor.sql(_QUERY).to_arrow_table()


def _pairs(hosts_by_key: Iterable[tuple[str, str]]) -> pa.Table:
    pairs = list(hosts_by_key)
    columns = {"key": [key for key, _ in pairs], "host": [host for _, host in pairs]}
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def files_table(store: Store, state: Manifest, *, is_present: bool) -> pa.Table:
    """Return the files of a state, by path; `is_present` if it is the newest of its branch."""
    entries = sorted(FileCursor.of_state(store, state), key=lambda c: (c.name, c.origin))
    sizes = [_size(c) if is_present else c.size for c in entries]
    lags = [_behind(c, size) for c, size in zip(entries, sizes, strict=True)]
    # Cursors count in ns, and events in us.
    looked = [c.looked // 1000 if c.looked else None for c in entries]
    columns = {
        "path": pa.array([c.name for c in entries], pa.string()),
        "host": pa.array([c.host or None for c in entries], pa.string()),
        "origin": pa.array([c.origin for c in entries], pa.string()),
        "size": pa.array(sizes, pa.int64()),
        "consumed": pa.array([c.bytes for c in entries], pa.int64()),
        "behind": pa.array(lags, pa.int64()),
        "lines": pa.array([c.lines for c in entries], pa.int64()),
        "read_at": pa.array(looked, pa.timestamp("us", "UTC")),
    }
    return pa.table(columns)


def _size(cursor: FileCursor) -> int:
    """The size of a file now, where this machine has it under its name, else when it was read."""
    try:
        # Names of other hosts are there, too, and of files that are gone.
        status = os.stat(LogName(cursor.name).on_disk)
    except (OSError, ValueError):
        return cursor.size
    # Another file may have the name here by now: only the inode tells.
    is_it = cursor.host == Hosts.own_name() and cursor.identity == (status.st_dev, status.st_ino)
    return status.st_size if is_it else cursor.size


def _behind(cursor: FileCursor, size: int) -> int | None:
    """How many bytes are not consumed yet; None of files that count in other bytes."""
    return None if cursor.name.endswith(_PACKED) else max(size - cursor.bytes, 0)
