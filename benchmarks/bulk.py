"""A million events through the whole life of a lake: append, settle, compact, query."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import lakelog
from benchmarks import lakes
from benchmarks.measure import Scale, child, directory, seconds
from benchmarks.open import QUERY
from benchmarks.report import Row

BY_TYPE = "SELECT type, count(*) FROM events GROUP BY type"
GROUPED = "SELECT type, count(*), min(time), max(time) FROM events GROUP BY type ORDER BY 2 DESC"
DAILY = (
    "SELECT time_bucket(INTERVAL 1 hour, time) AS hour, source, count(*),"
    " avg((data->>'duration_ms')::BIGINT) FROM events WHERE type = 'COMPLETE' GROUP BY ALL"
)
TWICE = """
import lakelog
lake = lakelog.open(sys.argv[1], create=False)
result = []
for query in (*sys.argv[2:], *sys.argv[2:]):
    start = time.perf_counter()
    lake.sql(query).fetchall()
    result.append(time.perf_counter() - start)
"""


def life(scale: Scale) -> list[Row]:
    """Time each step once on one lake, and say how large it is after each."""
    count, rows = scale.bulk, []
    with directory() as root:
        path = root / "lake"
        lakes.new(path, lakes.QUIET)
        with lakelog.open(str(path)) as lake:
            rows.append(Row("append by 1,000: rate", "ev/s", [count / _append(lake, count)]))
            rows.append(_size("WAL", path, "wal", count))
            rows.append(_query("first query on the tail", lake, GROUPED))
            rows.append(_query("second query on the tail", lake, GROUPED))
            rows.append(_step("settle: rate", count, lake.settle))
            rows.append(_size("sealed", path, "segments", count))
            rows += _queries("sealed", path)
            rows.append(_step("compact: rate", count, lake.compact))
            live = lake.stats().bytes
            rows.append(Row("compacted", "B/ev", [live / count]))
            rows += _queries("compacted", path)
    return rows


def _append(lake: lakelog.Lake, count: int) -> float:
    """Append by a thousand; events are made between, outside the time."""
    taken = 0.0
    for part in lakes.batches(count, 1_000):
        began = time.perf_counter()
        lake.append(part)
        taken += time.perf_counter() - began
    return taken


def _step(what: str, count: int, run: Callable[[], object]) -> Row:
    os.sync()
    return Row(what, "ev/s", [count / seconds(run)])


def _query(what: str, lake: lakelog.Lake, query: str) -> Row:
    return Row(what, "s", [seconds(lambda: lake.sql(query).fetchall())])


def _queries(state: str, path: Path) -> list[Row]:
    """Time both queries in a new process, each for the first time and again."""
    first, bucket, again, bucket_again = child(TWICE, str(path), GROUPED, DAILY).result
    return [
        Row(f"{state}: first query, by type", "s", [first]),
        Row(f"{state}: by type again", "s", [again]),
        Row(f"{state}: hour x source", "s", [bucket]),
        Row(f"{state}: hour x source again", "s", [bucket_again]),
        Row(f"{state}: process, by type", "s", [child(QUERY, str(path), BY_TYPE).whole]),
    ]


def _size(what: str, path: Path, folder: str, count: int) -> Row:
    return Row(what, "B/ev", [lakes.size_of(path, folder) / count])
