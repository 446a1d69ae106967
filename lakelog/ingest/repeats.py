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

from lakelog.database import Connect
from lakelog.entries import SegmentEntry
from lakelog.event import BookkeepingEvent, Event
from lakelog.files import CursorIndex, FileCursor
from lakelog.ingest.batch import Job
from lakelog.segments import rows_sql
from lakelog.store import Store

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


def earlier(index: CursorIndex, later: FileCursor) -> list[FileCursor]:
    """Return the cursors of what had a file's name before it, or is its beginning."""
    excluded = {later.origin, *later.apart}
    namesakes = [
        cursor
        for cursor in index.named(later.name)
        if cursor.label == later.label and cursor.looked <= later.begun and not cursor.is_copy
    ]
    candidates = [
        *index.of_origin(later.shares),
        *sorted(namesakes, key=lambda c: -c.looked)[:EARLIER_MAX],
    ]
    return [cursor for cursor in candidates if cursor.origin not in excluded]


def report(
    job: Job, doubtful_by_origin: dict[str, bool], append: Callable[[Sequence[Event]], object]
) -> list[Repeats]:
    """Return what `find` does, and append an event for each, so that nothing is doubled without a
    word, whoever ingested it."""
    repeats = find(job, doubtful_by_origin)
    if repeats:
        append([_event(repeat) for repeat in repeats])
    return repeats


def _event(repeat: Repeats) -> Event:
    return BookkeepingEvent.of(
        BookkeepingEvent.WATCH,
        repeat.path,
        level="WARN",
        message=BookkeepingEvent.repeated_words(repeat.lines),
        data={"repeated_lines": repeat.lines},
    )


def find(job: Job, doubtful_by_origin: dict[str, bool]) -> list[Repeats]:
    """Return which of the files that were read from their beginnings, by their origins, repeat
    lines; of those that are said to be in doubt, lines that are not distinctive count, too."""
    if not doubtful_by_origin:
        return []
    state, index = job.present()
    file_cursors = [
        cursor for origin in doubtful_by_origin for cursor in index.of_origin(origin)[:1]
    ]
    entries = [e for e in job.store.manifests.segments(state) if e.kind == "events"]
    repeats = compare(job.connect, job.store, entries, index, file_cursors)
    return [f for f in repeats if f.timed or f.is_distinctive or doubtful_by_origin[f.origin]]


def compare(
    connect: Connect,
    store: Store,
    entries: list[SegmentEntry],
    index: CursorIndex,
    files: list[FileCursor],
) -> list[Repeats]:
    """Compare the rows of files with those of earlier ones; return what is repeated, by file.
    Raises DamagedSegment."""
    pairs = [
        (file_cursor.origin, was.origin)
        for file_cursor in files
        for was in earlier(index, file_cursor)
    ]
    if not pairs or not entries:
        return []
    store.verified.require(entries)
    source = rows_sql(store.paths, entries)
    rows = f"SELECT * FROM ({source}) WHERE origin IN (SELECT unnest"
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
        answer = cursor.execute(
            query, [list(origins) for origins in zip(*pairs, strict=True)]
        ).fetchall()
    names = {file_cursor.origin: file_cursor.name for file_cursor in files}
    return [
        Repeats(names[origin], origin, lines, timed, tuple(positions or ()), _are_own(line_texts))
        for origin, lines, timed, positions, line_texts in answer
    ]


def _are_own(lines: list[str]) -> bool:
    """Whether no two files are likely to share these lines."""
    content = "".join(f"{line}\n" for line in lines)
    return FileCursor.is_distinctive(content.encode("utf-8", "replace"))
