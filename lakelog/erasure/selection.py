"""Which rows are erased: those of subjects, or of a condition, that had arrived when it began.

A subject's lines in quarantine are those in which it stands as a word, and those of messages that
have it as key; and of all chosen events the rows that a synced table refused. What a writer has
appended and nobody sealed yet is sealed before rows are chosen, so that all are in segments.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import orjson

from lakelog import bloom, database, frame_rows, sql
from lakelog.database import Connect
from lakelog.entries import SegmentEntry
from lakelog.erased import Refusal
from lakelog.errors import QueryFailed
from lakelog.libraries import duckdb, pa, pc
from lakelog.protect import sealed_blocks
from lakelog.segments import Segment, rows_sql, segment_schema
from lakelog.store import Store, VerifiedFiles
from lakelog.wal import Frame, Tail

_PAYLOAD = re.compile(r"\b(data|fields)\b", re.I)
_IN_WORD = r"\p{L}\p{M}\p{N}_"
_BEFORE = rf"(^|[^{_IN_WORD}]|\\[bfnrt]|\\u00[0-7][0-9A-Fa-f])"
_AFTER = rf"($|[^{_IN_WORD}\\]|\\($|[^u])|\\u00[0-7]|\\u[0-9A-Fa-f]{{0,3}}($|[^0-9A-Fa-f]))"
"""What may stand beside a word in text and in JSON, where a letter may be written as its number."""
_ESCAPE = re.compile(r"(\\u)([0-9a-f]{4})")
_OF_MESSAGE = r'; \{"\w+":\{"[^"]*":"[^"]*",.*[:,\[]'
"""What stands in a reason before a key, a header or a field of a message, whose place is first."""
EVER = 1 << 62
"""A time after any (us)."""


def spellings(subject: str) -> list[str]:
    """A subject as it may be written: as it is, and in JSON."""
    # What is not printable may be half of a pair, which has no other form.
    escaped = orjson.dumps(subject)[1:-1].decode() if subject.isprintable() else subject
    ascii_only = json.dumps(subject)[1:-1]
    in_capitals = _ESCAPE.sub(lambda match: match[1] + match[2].upper(), ascii_only)
    return list(dict.fromkeys((subject, escaped, ascii_only, in_capitals)))


@dataclass(frozen=True)
class Selector:
    """Rows of `subjects`, or else for which the SQL `predicate` holds, if they had arrived by
    `until` (us)."""

    subjects: tuple[str, ...]
    predicate: str = ""
    until: int = EVER

    def events_sql(self) -> str:
        """The condition over the columns of an event; never NULL."""
        arrived = f"epoch_us(ingested_at) <= {self.until}"
        if not self.subjects:
            return f"coalesce(({self.predicate}\n) AND {arrived}, false)"
        # What is refused since then is erased, too, where it arrived before a clone knew that.
        is_old = f"({arrived} OR epoch_us(time) <= {self.until})"
        subjects = ", ".join(map(sql.literal, self.subjects))
        return f"coalesce(subject IN ({subjects}) AND {is_old}, false)"

    def lines_sql(self) -> str:
        """The condition over the columns of a quarantined line; never NULL."""
        if not self.subjects:
            return "false"
        spelled = (word for subject in self.subjects for word in spellings(subject))
        escaped = (f"regexp_escape({sql.literal(word)})" for word in spelled)
        words = " || '|' || ".join(escaped)
        pattern = f"'{_BEFORE}(' || {words} || '){_AFTER}'"
        arrived = f"epoch_us(ingested_at) <= {self.until}"
        matching = f"regexp_matches(line, {pattern})"
        of_message = f"""'{_OF_MESSAGE}"(' || {words} || ')"[,}}\\]]'"""
        matching = f"({matching} OR regexp_matches(reason, {of_message}))"
        return f"coalesce({matching} AND {arrived}, false)"

    def condition(self, row_kind: str) -> str:
        """The condition over the columns of segments of a kind."""
        return self.events_sql() if row_kind == "events" else self.lines_sql()


def with_refused(cursor: duckdb.DuckDBPyConnection, condition: str, numbers: pa.Table) -> str:
    """A condition that chooses quarantined lines, and also those that are rows of events with some
    seq which a synced table refused, or may be, as they say no seq: the next sync, which fills the
    table again, puts others there again."""
    if not len(numbers):
        return condition
    cursor.register("chosen_numbers", numbers)
    is_refused = f"starts_with(origin, {sql.literal(Refusal.ROWS_OF_TABLES)})"
    is_chosen = "position IN (FROM chosen_numbers) OR NOT contains(line, '\"seq\":')"
    return f"({condition}) OR coalesce({is_refused} AND ({is_chosen}), false)"


class Chooser:
    """Finds the rows of selectors in segments and frames, those of all subjects at once."""

    def __init__(self, store: Store, connect: Connect, selectors: Sequence[Selector]) -> None:
        self._store, self._connect, self.selectors = store, connect, selectors
        self.subjects = [subject for selector in selectors for subject in selector.subjects]
        self.predicate = "".join(selector.predicate for selector in selectors)
        by_time: dict[int, tuple[str, ...]] = {}
        for selector in selectors:
            before = by_time.get(selector.until, ())
            by_time[selector.until] = before + selector.subjects
        self._joint = [Selector(names, self.predicate, until) for until, names in by_time.items()]
        self._filters = bloom.Filters(store.paths)

    def condition(self, row_kind: str) -> str:
        """The condition over the columns of segments of a kind that chooses a row of any of the
        selectors."""
        return " OR ".join(selector.condition(row_kind) for selector in self._joint)

    def check(self) -> None:
        """Refuse a condition that is none over the columns of an event, and one over payloads where
        the keys of protected fields are missing. Raises QueryFailed, InvalidKey."""
        protection = self._store.paths.protection
        if protection is not None and _PAYLOAD.search(self.predicate):
            protection.require_ciphers()
        empty = segment_schema("events", "sorted").empty_table()
        cursor = self._connect().cursor()
        with contextlib.closing(cursor):
            cursor.register("events_of_none", empty)
            try:
                query = f"SELECT * FROM events_of_none WHERE {self.condition('events')}"
                cursor.execute(query).fetchall()
            except duckdb.Error as error:
                raise QueryFailed(f"the condition cannot be used: {error}") from None

    def candidates(self, entries: Iterable[SegmentEntry]) -> list[SegmentEntry]:
        """Return the segments that may have chosen rows, by their filters."""
        segments = list(entries)
        if not self.subjects:
            return segments
        hashed = self._filters.hashes_of(self.subjects)
        events = [e.key for e in segments if e.kind == "events"]
        if self._store.attachment is not None:
            events = self._obtained(events)
        matching = self._filters.containing(events, "subject", hashed)
        return [e for e in segments if e.kind != "events" or e.key in matching]

    def possible(self, digests: set[str]) -> set[str]:
        """Return the segments that may have chosen rows, by the filters that are here: of a stray
        nothing else is known before it is read."""
        if not self.subjects:
            return digests
        missing = self._filters.missing(digests)
        hashed = self._filters.hashes_of(self.subjects)
        return missing | self._filters.containing(digests - missing, "subject", hashed)

    def _obtained(self, events: list[str]) -> list[str]:
        """Return those of the segments of a shared lake that may have a subject, of which the
        filters are here, or the files of which they are made."""
        attachment = self._store.attachment
        missing = self._filters.missing(events)
        if attachment is None or not missing:
            return events
        without = attachment.erasures.without
        missing -= set.intersection(*(without(subject, missing) for subject in self.subjects))
        self._obtain(missing)
        return [key for key in events if key in missing or not self._filters.missing([key])]

    def _obtain(self, digests: Iterable[str]) -> None:
        path = self._store.paths.object
        self._store.verified.obtain([(digest, path("segments", digest)) for digest in digests])

    def rows_of(self, entry: SegmentEntry, numbers: pa.Table) -> pa.Table:
        """Return the chosen rows of a segment as they are stored, those of events with seq: a
        predicate is over opened fields. Of quarantined lines also those of events with `numbers`.
        Raises DamagedSegment, InvalidKey."""
        self._obtain([entry.key])
        condition = self.condition(entry.kind)
        if entry.kind == "events":
            source = rows_sql(self._store.paths, [entry])
            if self.predicate and self._store.paths.protection is not None:
                plain_rows = sealed_blocks.opened_sql(self._store.paths, source, [entry.key])
                condition = f"seq IN (SELECT seq FROM ({plain_rows}) WHERE {condition})"
        else:
            path = self._store.paths.object("segments", entry.key)
            source = f"SELECT * FROM {database.parquet_sql([path])}"
            source = sealed_blocks.opened_lines_sql(self._store.paths, source)
        cursor = self._connect().cursor()
        with contextlib.closing(cursor):
            if entry.kind != "events":
                condition = with_refused(cursor, condition, numbers)
            query = f"SELECT * FROM ({source}) WHERE {condition}"
            table: pa.Table = cursor.sql(query).to_arrow_table()
            return table

    def shares(
        self, entry: SegmentEntry, rows: pa.Table, numbers: Sequence[pa.Table]
    ) -> list[pa.Table]:
        """Which of the chosen rows of a segment each of the selectors chooses, which has chosen
        events with some `numbers`."""
        if entry.kind == "events":
            column = rows["subject"].cast(pa.string())
            present = set(pc.unique(column).to_pylist())
            return [
                rows.filter(pc.is_in(column, pa.array(s.subjects, pa.string())))
                if present.intersection(s.subjects)
                else rows.slice(0, 0)
                for s in self.selectors
            ]
        with contextlib.closing(self._connect().cursor()) as cursor:
            cursor.register("chosen_lines", rows)
            query = "SELECT * FROM chosen_lines WHERE "
            return [
                cursor.sql(query + with_refused(cursor, s.lines_sql(), own)).to_arrow_table()
                for s, own in zip(self.selectors, numbers, strict=True)
            ]

    def in_frames(self, frames: list[Frame]) -> int:
        """Return how many rows of frames are chosen."""
        count, connection = 0, self._connect()
        protected_fields = sealed_blocks.of_lake(self._store.paths)
        cursor = connection.cursor()
        with contextlib.closing(cursor):
            for row_kind, is_quarantined in (("events", 0), ("quarantine", Frame.QUARANTINED)):
                condition_sql = [f for f in frames if f.flags & Frame.QUARANTINED == is_quarantined]
                if not condition_sql:
                    continue
                decode = frame_rows.quarantined if is_quarantined else frame_rows.events
                table = decode(self._connect, condition_sql)
                if protected_fields:
                    open_fields = (
                        protected_fields.quarantined if is_quarantined else protected_fields.events
                    )
                    table = open_fields(table)
                cursor.register("frame_rows", table)
                condition = self.condition(row_kind)
                query = f"SELECT count(*) FROM frame_rows WHERE {condition}"
                count += cursor.execute(query).fetchall()[0][0]
        return count


def frames_by_file(store: Store) -> Iterator[tuple[str, list[Frame]]]:
    """Yield the path and the good frames of each WAL file, sealed or not, of deleted branches
    too."""
    for branch in store.refs.all_branches():
        for group in Tail(store.paths, store.refs, branch).scan().values():
            for file in group:
                yield file.path, file.frames


def entry_of_file(store: Store, digest: str) -> SegmentEntry | None:
    """Return an entry for a segment that no state names, numbered from 0; None where it cannot be
    read: then it is gone, or damaged, which `verify` reports."""
    path = store.paths.object("segments", digest)
    with contextlib.suppress(FileNotFoundError):
        if VerifiedFiles.hash_file(path) != digest:
            return None
        entry = Segment(store.paths, digest).describe()
        seq = (0, max(entry.events - 1, 0)) if entry.kind == "events" else entry.seq
        return dataclasses.replace(entry, seq=seq)
    return None
