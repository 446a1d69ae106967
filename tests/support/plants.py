"""Faults to plant in a lake: rows lost, doubled or moved, a cursor at another place.

Each of PLANTS takes a lake with one file taken in, the file, and the places of its events and of
its quarantined lines; it returns how many are missing, doubled and foreign then.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import lakelog
from lakelog.disk import disk
from lakelog.entries.entry import Entry, SegmentEntry
from lakelog.files.file_cursor import FileCursor
from lakelog.ingest.quarantine import Quarantine
from lakelog.moves.publication import Change, publish
from lakelog.segments import segment


def entries(lake: lakelog.Lake) -> list[SegmentEntry]:
    """The live segments of the branch."""
    return lake.store.manifests.segments(lake.store.state(lake.branch_name))


def published(lake: lakelog.Lake) -> list[FileCursor]:
    """The cursors of the branch."""
    return FileCursor.of_state(lake.store, lake.store.state(lake.branch_name))


def change_cursor(lake: lakelog.Lake, **fields: Any) -> None:
    """Publish other values for the only cursor."""
    (cursor,) = published(lake)
    change(lake, replace(cursor, **fields).entry())


def change(lake: lakelog.Lake, *steps: Entry) -> None:
    """Publish entries as they are."""
    publish(lake.store, lake.branch_name, lambda *_: Change("compact", entries=steps))


def rewrite(lake: lakelog.Lake, kind: str, alter: Callable[[pa.Table], pa.Table]) -> None:
    """Write the segments of a kind anew with other rows."""
    steps: list[Entry] = []
    for entry in entries(lake):
        if entry.kind == kind:
            old = segment.Segment(lake.store.paths, entry.key).read()
            new = alter(old)
            if new.equals(old):
                continue
            steps.append(entry.tombstone())
            if new.num_rows:
                steps.append(written(lake, new, kind, entry))
    assert steps
    change(lake, *steps)


def written(lake: lakelog.Lake, table: pa.Table, kind: str, like: SegmentEntry) -> SegmentEntry:
    """Write a segment with the layout of another."""
    layout, commit = like.layout, disk.random_hex()
    made = segment.write_segment(lake.store.paths, table, kind=kind, layout=layout, commit=commit)
    return replace(made, seq=like.seq) if layout == "sorted" else made


def places(lake: lakelog.Lake, table: str = "events") -> list[int]:
    """The positions of all rows that came from files, in order."""
    query = f"SELECT position FROM {table} WHERE len(origin) > 34 ORDER BY position"
    return [at for (at,) in lake.sql(query).fetchall()]


def drop_rows(lake: lakelog.Lake, gone: list[int], kind: str = "events") -> None:
    """Take rows out of their segments."""
    rewrite(lake, kind, lambda t: t.filter(pc.invert(pc.is_in(t["position"], pa.array(gone)))))


def double_rows(lake: lakelog.Lake, twice: list[int], kind: str = "events") -> None:
    """Add a segment with copies of rows."""
    steps = []
    for entry in entries(lake):
        if entry.kind == kind:
            table = segment.Segment(lake.store.paths, entry.key).read()
            table = table.filter(pc.is_in(table["position"], pa.array(twice)))
            if table.num_rows:
                steps.append(written(lake, table, kind, entry))
    change(lake, *steps)


def move_row(lake: lakelog.Lake, old: int, new: int) -> None:
    """Give a row another position."""

    def alter(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index("position")
        moved = [new if p == old else p for p in table["position"].to_pylist()]
        return table.set_column(at, "position", pa.array(moved, pa.int64()))

    rewrite(lake, "events", alter)


def move_cursor(lake: lakelog.Lake, data: bytes, to: int) -> None:
    """Say that a file was taken in up to another place."""
    crc = zlib.crc32(data[:to])
    change_cursor(lake, bytes=to, tail=FileCursor.digest(data[:to]), crc=crc)


Plant = Callable[[lakelog.Lake, bytes, list[int], list[int]], tuple[int, int, int]]


def lost_first(lake: lakelog.Lake, data: bytes, at: list[int], bad: list[int]) -> Any:
    """The first row is not there."""
    drop_rows(lake, at[:1])
    return 1, 0, 0


def lost_last(lake: lakelog.Lake, data: bytes, at: list[int], bad: list[int]) -> Any:
    """The last row is not there."""
    drop_rows(lake, at[-1:])
    return 1, 0, 0


def lost_range(lake: lakelog.Lake, data: bytes, at: list[int], bad: list[int]) -> Any:
    """Several rows are not there."""
    drop_rows(lake, at[2:8])
    return len(at[2:8]), 0, 0


def lost_all(lake: lakelog.Lake, data: bytes, at: list[int], bad: list[int]) -> Any:
    """No event is there."""
    drop_rows(lake, at)
    return len(at), 0, 0


def lost_bad(lake: lakelog.Lake, data: bytes, at: list[int], bad: list[int]) -> Any:
    """One quarantined line is not there."""
    drop_rows(lake, bad[:1], "quarantine")
    return 1, 0, 0


def dropped(lake: lakelog.Lake, data: bytes, at: list[int], bad: list[int]) -> Any:
    """`lakelog quarantine drop` took all bad lines: they are missing."""
    Quarantine(lake.store, "main").drop()
    return len(bad), 0, 0


def twice(lake: lakelog.Lake, data: bytes, at: list[int], bad: list[int]) -> Any:
    """A range was taken in twice."""
    double_rows(lake, at[1:6])
    return 0, len(at[1:6]), 0


def three_times(lake: lakelog.Lake, data: bytes, at: list[int], bad: list[int]) -> Any:
    """One row is there three times."""
    double_rows(lake, at[-1:])
    double_rows(lake, at[-1:])
    return 0, 1, 0


def bad_twice(lake: lakelog.Lake, data: bytes, at: list[int], bad: list[int]) -> Any:
    """A quarantined line is there twice."""
    double_rows(lake, bad[-1:], "quarantine")
    return 0, 1, 0


def within_a_line(lake: lakelog.Lake, data: bytes, at: list[int], bad: list[int]) -> Any:
    """A row stands at a place within its line."""
    move_row(lake, at[1], at[1] + 5)
    return 1, 0, 1


def on_another(lake: lakelog.Lake, data: bytes, at: list[int], bad: list[int]) -> Any:
    """A row stands at the place of another."""
    move_row(lake, at[0], at[1])
    return 1, 1, 0


def beyond(lake: lakelog.Lake, data: bytes, at: list[int], bad: list[int]) -> Any:
    """A row stands beyond the end of the file."""
    move_row(lake, at[-1], len(data) + 7)
    return 1, 0, 1


def negative(lake: lakelog.Lake, data: bytes, at: list[int], bad: list[int]) -> Any:
    """A row stands before the file."""
    move_row(lake, at[3], -1)
    return 1, 0, 1


def on_a_blank_line(lake: lakelog.Lake, data: bytes, at: list[int], bad: list[int]) -> Any:
    """A row stands where no line is: at a blank one, an action, or the end of one."""
    lines = data.splitlines(keepends=True)
    starts = [sum(map(len, lines[:n])) for n in range(len(lines))]
    free = [n for n in starts if n not in at and n not in bad]
    move_row(lake, at[0], free[0] if free else len(data) - 1)
    return 1, 0, 1


def cursor_back(lake: lakelog.Lake, data: bytes, at: list[int], bad: list[int]) -> Any:
    """The cursor stands where it stood before the last rows came."""
    move_cursor(lake, data, at[-3])
    return 0, 0, sum(p >= at[-3] for p in at + bad)


def two_faults(lake: lakelog.Lake, data: bytes, at: list[int], bad: list[int]) -> Any:
    """One row is lost and another there twice, so that the numbers of rows and lines agree."""
    drop_rows(lake, at[1:2])
    double_rows(lake, at[2:3])
    return 1, 1, 0


PLANTS: tuple[Plant, ...] = (
    lost_first,
    lost_last,
    lost_range,
    lost_all,
    lost_bad,
    dropped,
    twice,
    three_times,
    bad_twice,
    within_a_line,
    on_another,
    beyond,
    negative,
    on_a_blank_line,
    cursor_back,
    two_faults,
)
