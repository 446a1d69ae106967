"""Events of a shared lake whose id another machine has published first, with other content (F22.7).

Who sends an event again to another machine says the same again: that is no news.
"""

from __future__ import annotations

import contextlib

from lakelog.libraries import duckdb, pa, pc
from lakelog.segments import bloom, segment_sql
from lakelog.store.bootstrap import Store
from lakelog.store.manifest import Manifest

_NEWEST = 256
"""Segments in which the published event is looked for, the newest of a state."""
_LINES = """
SELECT DISTINCT ON (d.origin, d.position) d.ingested_at, d.origin, d.position,
    'another event with its id was published first, by another machine' AS reason,
    CAST(json_object('id', d.id, 'type', d.type, 'source', d.source, 'subject', d.subject,
        'time', d.time, 'data', CAST(d.data AS JSON)) AS VARCHAR) AS line, d.writer, d.sequence
FROM dropped_rows AS d JOIN ({rows}) AS e
ON e.id = d.id AND e.source IS NOT DISTINCT FROM d.source AND e.origin <> d.origin
WHERE (e.type, e.subject, CAST(e.data AS VARCHAR))
    IS DISTINCT FROM (d.type, d.subject, CAST(d.data AS VARCHAR))
ORDER BY d.origin, d.position"""


def lines(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    state: Manifest,
    sealed: pa.Table,
    unique: pa.Table,
) -> pa.Table | None:
    """Return the quarantined lines of what was `sealed` and is not `unique`; None of no event.
    Raises Damaged, Unreachable."""
    if unique.num_rows == sealed.num_rows or store.attachment is None:
        return None
    names = ["origin", "position"]
    dropped_rows = sealed.join(unique.select(names), names, join_type="left anti")
    ids = pc.unique(dropped_rows["id"].drop_null())
    newest = sorted(store.manifests.segments(state, "events"), key=lambda e: e.seq)[-_NEWEST:]
    files = [(entry.key, store.paths.object("segments", entry.key)) for entry in newest]
    if not len(ids) or not files:
        return None
    store.verified.obtain(files)
    hashed = [int(value) for value in bloom.hashes(ids)]
    keys = bloom.Filters(store.paths).containing([key for key, _ in files], "id", hashed)
    entries = [entry for entry in newest if entry.key in keys]
    if not entries:
        return None
    cursor = connection.cursor()
    with contextlib.closing(cursor):
        cursor.register("dropped_rows", dropped_rows)
        query = _LINES.format(rows=segment_sql.rows_sql(store.paths, entries))
        found: pa.Table = cursor.sql(query).to_arrow_table()
    return found if found.num_rows else None
