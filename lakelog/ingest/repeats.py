"""Lines that are stored twice, as a file was read from its beginning though another one that had
its name or its inode held them before.

An editor, `sed -i`, `tail x > y; mv y x` and whoever trims a log in place leave a file that holds
old lines and is none that was read. In doubt its lines are stored again, and this module counts
them, by comparing the rows of both: all but the time, which of lines without one is their arrival.
Rows that are equal with their times were the same lines; without, that is said only of lines that
no two files are likely to share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from lakelog.event import bookkeeping
from lakelog.event.types import Event
from lakelog.files.content import is_distinctive
from lakelog.files.cursors import Cursor, CursorIndex
from lakelog.ingest.batch import Job
from lakelog.segments import segment_sql
from lakelog.store.entry import SegmentEntry
from lakelog.store.paths import Paths

EARLIER_MAX = 3
"""Files of one name that are compared, those that were read last."""
_SAMPLE = 1000
_TEXT = "concat_ws(' ', type, subject, message, data)"
_ROW = "hash((type, subject, level, message, data::VARCHAR)) AS line"


@dataclass(frozen=True)
class Repeats:
    """Lines of a file that are those of an earlier one: all, and those with times of their own."""

    path: str
    origin: str
    lines: int = 0
    timed: int = 0
    positions: tuple[int, ...] = ()
    """Where the first of the timed ones stand."""
    is_distinctive: bool = False
    """Whether no two files are likely to share these lines."""


def earlier(index: CursorIndex, own: Cursor) -> list[Cursor]:
    """Return the cursors of what had a file's name before it, or is its beginning."""
    apart = {own.origin, *own.apart}
    named = [
        cursor
        for cursor in index.named(own.name)
        if cursor.label == own.label and cursor.looked <= own.begun and not cursor.is_copy
    ]
    found = [*index.of_origin(own.shares), *sorted(named, key=lambda c: -c.looked)[:EARLIER_MAX]]
    return [cursor for cursor in found if cursor.origin not in apart]


def report(
    job: Job, begun: dict[str, bool], append: Callable[[Sequence[Event]], object]
) -> list[Repeats]:
    """Return what `find` does, and append an event for each, so that nothing is doubled without a
    word, whoever ingested it."""
    found = find(job, begun)
    if found:
        append([_event(each) for each in found])
    return found


def _event(found: Repeats) -> Event:
    return bookkeeping.event(
        bookkeeping.WATCH,
        found.path,
        level="WARN",
        message=bookkeeping.repeated_words(found.lines),
        data={"repeated_lines": found.lines},
    )


def find(job: Job, begun: dict[str, bool]) -> list[Repeats]:
    """Return which of the files that were read from their beginnings, by their origins, repeat
    lines; of those that are said to be in doubt, lines that are not distinctive count, too."""
    if not begun:
        return []
    state, index = job.present()
    own = [cursor for origin in begun for cursor in index.of_origin(origin)[:1]]
    entries = [e for e in job.store.manifests.segments(state) if e.kind == "events"]
    found = compare(job.connect, job.store.paths, entries, index, own)
    return [f for f in found if f.timed or f.is_distinctive or begun[f.origin]]


def compare(
    connect: Callable[[], Any],
    paths: Paths,
    entries: list[SegmentEntry],
    index: CursorIndex,
    files: list[Cursor],
) -> list[Repeats]:
    """Compare the rows of files with those of earlier ones; return what is repeated, by file."""
    pairs = [(own.origin, was.origin) for own in files for was in earlier(index, own)]
    if not pairs or not entries:
        return []
    rows = f"SELECT * FROM ({segment_sql.rows_sql(paths, entries)}) WHERE origin IN (SELECT unnest"
    query = f"""
        WITH pairs AS (SELECT unnest($1) AS origin, unnest($2) AS earlier),
        now AS (SELECT origin, position, time, {_ROW}, {_TEXT} AS text FROM ({rows}($1)))),
        was AS (SELECT origin AS earlier, time, {_ROW} FROM ({rows}($2)))),
        twice AS (SELECT origin, position, any_value(text) AS text,
            bool_or(was.time = now.time) AS is_timed
            FROM now JOIN pairs USING (origin) JOIN was USING (earlier, line)
            GROUP BY origin, position)
        SELECT origin, count(*), count(*) FILTER (is_timed),
            list(position ORDER BY position) FILTER (is_timed)[:{_SAMPLE}],
            list(text ORDER BY position)[:{_SAMPLE}]
        FROM twice GROUP BY origin"""
    with closing(connect().cursor()) as cursor:
        answer = cursor.execute(query, [list(side) for side in zip(*pairs, strict=True)]).fetchall()
    names = {own.origin: own.name for own in files}
    return [
        Repeats(names[origin], origin, lines, timed, tuple(positions or ()), _are_own(texts))
        for origin, lines, timed, positions, texts in answer
    ]


def _are_own(texts: list[str]) -> bool:
    """Whether no two files are likely to share these lines."""
    return is_distinctive("".join(f"{text}\n" for text in texts).encode("utf-8", "replace"))
