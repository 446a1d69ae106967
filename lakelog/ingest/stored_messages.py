"""What the lake has of messages that their server sends once more.

A row is the same if it stands at the same place of its stream, in whatever incarnation, and has the
same content. Times are not compared: of messages without one they are those of the arrival.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

from lakelog.ingest.batch import Job
from lakelog.ingest.chunk_result import ChunkResult
from lakelog.libraries import pa
from lakelog.maintain import compact
from lakelog.segments import segment_sql, sql
from lakelog.store.manifest import Manifest

_TEXTS = ("type", "category", "source", "subject", "level", "message", "data", "id")
_EVENT = "hash((" + ", ".join(f"coalesce({name}::VARCHAR, '')" for name in _TEXTS) + "))"


def drop_stored(job: Job, state: Manifest, stream: str, result: ChunkResult) -> int:
    """Take rows and bad lines of a stream that a state has out of a result; return how many.

    Raises DamagedSegment.
    """
    segments = [
        e for e in job.store.manifests.segments(state) if e.kind in ("events", "quarantine")
    ]
    compact.check(job.store, segments)
    paths, before = job.store.paths, 0
    with closing(job.connect().cursor()) as cursor:
        events = [e for e in segments if e.kind == "events"]
        if result.table is not None and events:
            before += result.table.num_rows
            rows = f"SELECT * FROM ({segment_sql.rows_sql(paths, events)})"
            stays = _places(cursor, stream, rows, result.table, _EVENT)
            result.table = result.table.take(pa.array(stays, pa.int64()))
            before -= result.table.num_rows
        lines = [e for e in segments if e.kind == "quarantine"]
        if result.bad and lines:
            before += len(result.bad)
            rows = f"SELECT * FROM {sql.parquet(paths.object('segments', e.key) for e in lines)}"
            names = ("origin", "position", "line")
            table = pa.table({name: [getattr(bad, name) for bad in result.bad] for name in names})
            stays = _places(cursor, stream, rows, table, "hash(line)")
            result.bad = [result.bad[number] for number in stays]
            before -= len(result.bad)
    return before


def _places(cursor: Any, stream: str, rows: str, table: pa.Table, content: str) -> list[int]:
    """The places of rows that are not among the stored `rows`, by their `content` as SQL."""
    # What follows the stream's key and the incarnation: see F19.3.
    place = f"regexp_replace(substr(origin, {len(stream) + 1}), '^#[0-9a-f]+', '')"
    cursor.register("read_again", table.append_column("nth", pa.array(range(table.num_rows))))
    low, high = (f"(SELECT {name}(position) FROM read_again)" for name in ("min", "max"))
    matches = cursor.execute(
        f"""WITH stored AS (SELECT {place} AS place, position, {content} AS content
            FROM ({rows}) WHERE starts_with(origin, $1) AND position BETWEEN {low} AND {high})
        SELECT nth FROM (SELECT nth, {place} AS place, position, {content} AS content
            FROM read_again) ANTI JOIN stored USING (place, position, content) ORDER BY nth""",
        [stream],
    ).fetchall()
    cursor.unregister("read_again")
    return [nth for (nth,) in matches]
