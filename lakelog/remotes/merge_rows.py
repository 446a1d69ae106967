"""Rows that a lake has beyond a state that it shares with a remote, written after the remote's.

Where nothing was removed, the rows after a state are those whose seq is not below its `next_seq`,
whatever was compacted since. Ours get other numbers, so they become new segments: a digest always
stands for rows at their seq (F6.15), and views, proofs and repair rely on that. Left out are rows
that are there: by their identity key, or by their origin and position.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from lakelog import identities, protect
from lakelog.appends import StreamSubject
from lakelog.database import Connect
from lakelog.disk import File
from lakelog.entries import Removal, SegmentEntry
from lakelog.erased import SubjectIndex
from lakelog.errors import Diverged, TransferRefused
from lakelog.event import EVENT_COLUMNS
from lakelog.identities import IdentityKeys, unique_rows
from lakelog.libraries import duckdb, pa
from lakelog.manifest import Manifest
from lakelog.segments import Segment, SegmentEncoder, put_segment, rows_sql, write_segment
from lakelog.store import Store, VerifiedFiles

_BATCH = 65_536
_COUNTED = ("time", "type", "source", "level", "subject", "id")
"""Columns that the statistics of a segment need; the others are freed once encoded."""
_REQUIRED = ("time", "type", "ingested_at")
"""Columns that are never null (F4.1)."""
Places = set[tuple[str, int]]
"""Origins and positions of quarantined lines."""


@dataclass(frozen=True)
class RowSpan:
    """Rows of a state: those of its segments from a seq on."""

    state: Manifest
    entries: tuple[SegmentEntry, ...]
    start: int

    @property
    def count(self) -> int:
        """How many they are, where nothing was removed."""
        return self.state.next_seq - self.start

    def source(self, store: Store) -> str:
        """SQL for the rows; there have to be some."""
        source = rows_sql(store.paths, self.entries)
        # A compacted segment may begin before the base, where both have the same rows.
        return f"SELECT * FROM ({source}) WHERE seq >= {self.start}"


@dataclass
class OwnRows:
    """Our rows that are not there: their number, their identity keys as pairs of sorted arrays, and
    their segments, if they were written."""

    events: int = 0
    keys: list[Any] = field(default_factory=list)
    entries: list[SegmentEntry] = field(default_factory=list)


@dataclass(frozen=True)
class QuarantineChange:
    """The segments of quarantined lines that a side no more has since a base, and its new ones."""

    removed: list[SegmentEntry]
    added: list[SegmentEntry]


@dataclass(frozen=True)
class JoinedQuarantine:
    """What joins our quarantined lines with theirs: what leaves theirs, our segments as they are,
    and segments that were written for it."""

    removals: list[Removal]
    retained: list[SegmentEntry]
    written: list[SegmentEntry]


class RowSieve:
    """Finds our rows that are not among theirs, which came from the remote at `url`."""

    def __init__(self, store: Store, url: str, connect: Connect) -> None:
        self._store, self._url, self._connect = store, url, connect

    def require_whole(self, theirs: RowSpan) -> None:
        """Refuse rows that are not one of each number, where none was erased, or lack what every
        row has. Raises TransferRefused."""
        # Digests first: SQL runs over files that came from elsewhere.
        self._verify(theirs.entries)
        if not theirs.count:
            return
        required = ", ".join(f"count({name})" for name in _REQUIRED)
        query = f"SELECT count(*), count(DISTINCT seq), max(seq), {required}"
        counts: tuple[Any, ...] = (0, 0, None, 0, 0, 0)
        if theirs.entries:
            with self._refusing(), contextlib.closing(self._connect().cursor()) as cursor:
                rows = cursor.sql(f"{query} FROM ({theirs.source(self._store)})").fetchall()
                counts = rows[0]
        (count, _, newest), end = counts[:3], theirs.state.next_seq
        is_whole = (count, newest) == (theirs.count, end - 1)
        if has_erasures(self._store):
            is_whole = newest is None or newest < end  # nothing tells which numbers are left
        # In each all columns that are never null.
        if counts != (count, count, newest, count, count, count) or not is_whole:
            raise TransferRefused(
                f"{self._url}: the rows there are not those that its state counts: refused, nothing"
                " was changed; run `lakelog verify` on it"
            )

    def require_no_fork(self, ours: RowSpan, theirs: RowSpan) -> None:
        """Refuse where both gave one version of a stream to events of their own. Raises Diverged,
        TransferRefused, Damaged."""
        if not ours.entries or not theirs.entries:
            return
        self._store.verified.require(list(ours.entries))
        columns = "ingested_at, time, type, id, data"
        # A version of a stream is its origin and position: equal places with other content are a
        # fork.
        query = f"""SELECT substr(o.origin, {len(StreamSubject.ORIGIN) + 1}), o.position
            FROM ({ours.source(self._store)}) o JOIN ({theirs.source(self._store)}) t
            ON o.origin = t.origin AND o.position = t.position
            WHERE starts_with(o.origin, '{StreamSubject.ORIGIN}')
            AND ({", ".join(f"o.{name}" for name in columns.split(", "))})
            IS DISTINCT FROM ({", ".join(f"t.{name}" for name in columns.split(", "))})
            ORDER BY ALL LIMIT 1"""
        with self._refusing(), contextlib.closing(self._connect().cursor()) as cursor:
            fork = cursor.execute(query).fetchone()
        if fork:
            raise Diverged(
                f"the stream {StreamSubject(fork[0]).label} has version {fork[1]} here and another"
                f" one at {self._url}: they cannot be merged; see docs/streams.md"
            )

    def unknown(self, ours: RowSpan, theirs: RowSpan, own_rows: OwnRows) -> Iterator[pa.Table]:
        """Yield our rows that are not there in the order of seq, with their keys, and count them.
        Raises TransferRefused, Damaged."""
        if not ours.entries:
            return
        self._store.verified.require(list(ours.entries))
        columns = ", ".join(EVENT_COLUMNS)
        key = identities.id_key(of_streams=True)
        query = f"SELECT {columns}, {key} AS key FROM ({ours.source(self._store)}) ours"
        if theirs.entries:
            places = f"SELECT origin, position FROM ({theirs.source(self._store)})"
            # By origin and position first, in the engine; ids are looked up in their runs below.
            query += f" ANTI JOIN ({places}) theirs USING (origin, position)"
        with self._refusing(), contextlib.closing(self._connect().cursor()) as cursor:
            for batch in cursor.sql(f"{query} ORDER BY seq").to_arrow_reader(_BATCH):
                table = pa.Table.from_batches([batch])
                yield self._without_ids(table, theirs.state, own_rows)

    def _without_ids(self, table: pa.Table, theirs: Manifest, own_rows: OwnRows) -> pa.Table:
        """Leave out rows whose id is there."""
        # Against ids of both: theirs, and those of our rows that came before in this merge.
        table, keys = unique_rows(self._store, table, theirs.ids, own_rows.keys)
        own_rows.events += table.num_rows
        if len(keys):
            own_rows.keys.append(keys)
        return table

    def quarantined(
        self, ours: QuarantineChange, theirs: QuarantineChange, commit: str
    ) -> JoinedQuarantine:
        """Join quarantined lines: all that either side has, but those that the other settled.
        Raises TransferRefused, Damaged."""
        self._store.verified.require(ours.added)
        with self._refusing():
            settled = self._places_before(ours)
            if settled:
                settled -= self._places(ours.added)
            excluded = self._places(theirs.added) | self._places_before(theirs)
        settled_there = {entry.key for entry in theirs.removed}
        removed = [entry for entry in ours.removed if entry.key not in settled_there]
        # A segment may be settled in part on both sides, so that each wrote its lines that stay.
        segments = [self._without(entry, excluded, commit) for entry in ours.added]
        for entry in theirs.added:
            if (remainder := self._without(entry, settled, commit)) is not entry:
                removed.append(entry)
                segments.append(remainder)
        present = {entry.key for entry in ours.added}
        joined = [entry for entry in segments if entry is not None]
        return JoinedQuarantine(
            [entry.tombstone() for entry in removed],
            [entry for entry in joined if entry.key in present],
            [entry for entry in joined if entry.key not in present],
        )

    def _places_before(self, change: QuarantineChange) -> Places:
        """The places of the segments that a side no more has, as far as a `gc` left them: lines of
        others stay in quarantine, where a replay finds that they are events."""
        paths = self._store.paths
        removed = (e for e in change.removed if File(paths.object("segments", e.key)).exists())
        return self._places(removed)

    def _without(self, entry: SegmentEntry, places: Places, commit: str) -> SegmentEntry | None:
        """Return a segment if no line of it is at these places, else one that is written of the
        other lines, if there are any."""
        if not places:
            return entry
        table = Segment(self._store.paths, entry.key).read()
        stays = [place not in places for place in _places(table)]
        if all(stays):
            return entry
        if not any(stays):
            return None
        lines, paths = table.filter(pa.array(stays)), self._store.paths
        return write_segment(paths, lines, kind="quarantine", layout="arrival", commit=commit)

    def _places(self, entries: Iterable[SegmentEntry]) -> Places:
        places: Places = set()
        for entry in entries:
            self._verify([entry])
            table = Segment(self._store.paths, entry.key).read(["origin", "position"])
            places.update(_places(table))
        return places

    def _verify(self, entries: Iterable[SegmentEntry]) -> None:
        """Refuse segments that are not what their names say.

        Nothing is noted as verified: of what no move names yet that would look like a lost one
        (F14.7).
        """
        for entry in entries:
            path = self._store.paths.object("segments", entry.key)
            if not File(path).exists() or VerifiedFiles.hash_file(path) != entry.key:
                raise TransferRefused(
                    f"{self._url}: segment {entry.key[:12]} of it is not what its name says:"
                    " refused, nothing was changed; run it again"
                )

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Refuse rows that cannot be read: ours were verified, theirs may be anything."""
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
            raise TransferRefused(
                f"{self._url}: its rows cannot be read: refused, nothing was changed; run `lakelog"
                " verify` on it"
            ) from error


def _places(table: pa.Table) -> Iterator[tuple[str, int]]:
    columns = (table[name].to_pylist() for name in ("origin", "position"))
    return zip(*columns, strict=True)


def has_erasures(store: Store) -> bool:
    """Whether something was ever erased, so that rows of either side may be gone without a trace in
    its log."""
    return bool(SubjectIndex.of_lake(store.paths).keys)


def write_rows(
    store: Store,
    tables: Iterable[pa.Table],
    commit: str,
    target: int,
    sources: Sequence[SegmentEntry] = (),
) -> list[SegmentEntry]:
    """Write rows of segments, the `sources`, durably as segments of about `target` rows; return
    their entries."""
    entries, encoder, counted = list[SegmentEntry](), None, list[pa.Table]()
    source_keys = [entry.key for entry in sources]

    def put(encoder: SegmentEncoder) -> None:
        statistics = pa.concat_tables(counted)
        entries.append(put_segment(store.paths, encoder.finish(), statistics, "events", "arrival"))

    for table in tables:
        if not table.num_rows:
            continue
        encoder = encoder or SegmentEncoder("events", "arrival", commit)
        if store.paths.protection is not None:
            # Sealed fields of several segments come in blocks, which move to the new segment with
            # them.
            table, blocks = protect.sealed_blocks.packed(store.paths, table, source_keys)
            encoder.blocks |= blocks
        encoder.add(table)
        counted.append(table.select(_COUNTED))
        # By rows, as the sealer cuts them: statistics of smaller segments prune better.
        if sum(len(rows) for rows in counted) >= target:
            put(encoder)
            encoder, counted = None, []
    if encoder:
        put(encoder)
    return entries


def own_keys(store: Store, ours: Manifest, base: Manifest, theirs: Manifest) -> IdentityKeys:
    """Return our identity keys that theirs lacks. Raises DamagedIds."""
    passed = {run.digest for run in (*base.ids, *theirs.ids)}
    fresh = [run for run in ours.ids if run.digest not in passed]
    keys = IdentityKeys.merged(IdentityKeys.read(store, run) for run in fresh)
    # Run by run: ids of a large lake are never in memory together.
    for run in theirs.ids if len(keys) else ():
        keys = keys.where(~IdentityKeys.read(store, run).contains(keys))
    return keys
