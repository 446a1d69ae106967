"""Rows that another lake has since a state that both had, written for this one.

Where nothing was removed, the rows after a state are those whose seq is not below its `next_seq`,
whatever was compacted since. They get numbers of this lake, so they become segments of its own: a
digest always stands for rows at their seq (F6.15), and views, proofs and repair rely on that.
Left out are rows that are here: by their identity key, or by their origin and position.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lakelog.errors import TransferRefused
from lakelog.maintain.seal import drop_duplicates, open_run
from lakelog.runtime.lazy import Lazy
from lakelog.segments import identity_run, rows, segment, segment_sql, sql
from lakelog.store import disk
from lakelog.store.bootstrap import Store
from lakelog.store.entry import IdRun, SegmentEntry
from lakelog.store.manifest import Manifest
from lakelog.store.verified_files import hash_file

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
else:
    duckdb, np, pa = Lazy("duckdb"), Lazy("numpy"), Lazy("pyarrow")

_BATCH = 65_536
_COUNTED = ("time", "type", "source", "level", "subject", "id")
"""Columns that the statistics of a segment need; the others are freed once encoded."""
_REQUIRED = ("time", "type", "ingested_at")
"""Columns that are never null (F4.1)."""


@dataclass(frozen=True)
class RowSpan:
    """Rows of a state: those of its segments from a seq on."""

    state: Manifest
    entries: tuple[SegmentEntry, ...]
    first: int

    @property
    def count(self) -> int:
        """How many they are, where nothing was removed."""
        return self.state.next_seq - self.first


@dataclass
class ForeignRows:
    """The rows of others that are not here: their segments, if they were written, and number."""

    entries: list[SegmentEntry] = field(default_factory=list)
    keys: list[Any] = field(default_factory=list)
    """The identity keys of the rows, as pairs of sorted arrays."""
    events: int = 0


class ForeignReader:
    """Reads rows that came from a remote, which is not believed, beside those that are here."""

    def __init__(self, store: Store, url: str, connect: Callable[[], Any]) -> None:
        self._store, self._url, self._connect = store, url, connect

    def unknown(self, theirs: RowSpan, ours: Iterable[SegmentEntry]) -> Iterator[pa.Table]:
        """Yield the rows of theirs in the order of seq, with their keys, but those whose origin and
        position our segments have. Raises TransferRefused."""
        if not theirs.count:
            return
        self._verify(theirs.entries)
        found = segment_sql.rows_sql(self._store.paths, theirs.entries)
        source = f"SELECT * FROM ({found}) WHERE seq >= {theirs.first}"
        key = f"CASE WHEN id <> '' THEN {sql.id_key()} END"
        columns = ", ".join(segment.EVENT_COLUMNS)
        query = f"SELECT {columns}, {key} AS key FROM ({source}) theirs"
        if own := list(ours):
            places = (
                f"SELECT origin, position FROM ({segment_sql.rows_sql(self._store.paths, own)})"
            )
            query += f" ANTI JOIN ({places}) ours USING (origin, position)"
        with self._refusing(), contextlib.closing(self._connect().cursor()) as cursor:
            self._prove(cursor, source, theirs)
            for batch in cursor.sql(f"{query} ORDER BY seq").to_arrow_reader(_BATCH):
                yield pa.Table.from_batches([batch])

    def quarantined(
        self, theirs: Iterable[SegmentEntry], ours: Iterable[SegmentEntry], commit: str
    ) -> list[SegmentEntry]:
        """Return the segments of quarantined lines that are not here, written without those that
        are. Raises TransferRefused."""
        self._verify(theirs)
        own = self._places([entry.key for entry in ours])
        written = []
        for entry in theirs:
            with self._refusing():
                table = segment.read(self._store.paths, entry.key)
                table = table.select(segment.QUARANTINE_COLUMNS).cast(segment.schema("quarantine"))
                if table.num_rows != entry.events:
                    raise self._refused(entry)
                places = zip(*(table[n].to_pylist() for n in ("origin", "position")), strict=True)
                is_new = [place not in own for place in places]
            if all(is_new):
                written.append(entry)
            elif any(is_new):
                remaining, kind = table.filter(pa.array(is_new)), "quarantine"
                written.append(
                    segment.write(
                        self._store.paths, remaining, kind=kind, layout="arrival", commit=commit
                    )
                )
        return written

    def _places(self, keys: list[str]) -> set[tuple[str, int]]:
        """The origins and positions of quarantined lines."""
        places: set[tuple[str, int]] = set()
        for key in keys:
            table = segment.read(self._store.paths, key, ["origin", "position"])
            places.update(zip(*(column.to_pylist() for column in table.columns), strict=True))
        return places

    def _verify(self, entries: Iterable[SegmentEntry]) -> None:
        """Refuse segments that are not what their names say.

        Nothing is noted as verified: of what no move names yet that would look like a lost one
        (F14.7).
        """
        for entry in entries:
            path = self._store.paths.object("segments", entry.key)
            if not disk.exists(path) or hash_file(path) != entry.key:
                raise self._refused(entry)

    def _prove(self, cursor: Any, source: str, theirs: RowSpan) -> None:
        """Refuse rows that are not one of each number, or lack what every row has."""
        required = ", ".join(f"count({name})" for name in _REQUIRED)
        query = f"SELECT count(*), count(DISTINCT seq), max(seq), {required} FROM ({source})"
        count, *others = cursor.sql(query).fetchall()[0]
        expected = [theirs.count, theirs.state.next_seq - 1, *[theirs.count] * len(_REQUIRED)]
        if count != theirs.count or others != expected:
            raise TransferRefused(
                f"{self._url}: the rows there are not those that its state counts: refused, nothing"
                " was changed; run `lakelog verify` on it"
            )

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Refuse rows that cannot be read, or have other columns than rows have."""
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise TransferRefused(
                f"{self._url}: its rows cannot be read: refused, nothing was changed; run `lakelog"
                " verify` on it"
            ) from error

    def _refused(self, entry: SegmentEntry) -> TransferRefused:
        return TransferRefused(
            f"{self._url}: segment {entry.key[:12]} of it is not what its name and state say:"
            " refused, nothing was changed"
        )


def count_unknown(
    store: Store,
    tables: Iterable[pa.Table],
    runs: tuple[IdRun, ...],
    pending: list[Any],
    found: ForeignRows,
) -> Iterator[pa.Table]:
    """Yield tables without the rows whose key is in a run, is `pending`, or came before, and count
    what is left."""
    for table in tables:
        table = drop_duplicates(store, table, runs, [*pending, *found.keys])
        found.events += table.num_rows
        keys = rows.key_arrays(table["key"].drop_null())
        if len(keys[0]):
            found.keys.append(identity_run.sort_keys(*keys))
        yield table


def write_rows(
    store: Store, tables: Iterable[pa.Table], commit: str, target: int
) -> list[SegmentEntry]:
    """Write rows durably as segments of about `target` rows; return their entries."""
    entries, encoder, counted = list[SegmentEntry](), None, list[pa.Table]()

    def put(encoder: segment.SegmentEncoder) -> None:
        statistics = pa.concat_tables(counted)
        entries.append(segment.put(store.paths, encoder.finish(), statistics, "events", "arrival"))

    for table in tables:
        if not table.num_rows:
            continue
        encoder = encoder or segment.SegmentEncoder("events", "arrival", commit)
        encoder.add(table)
        counted.append(table.select(_COUNTED))
        if sum(len(part) for part in counted) >= target:
            put(encoder)
            encoder, counted = None, []
    if encoder:
        put(encoder)
    return entries


def new_keys(
    store: Store,
    theirs: Manifest,
    base: Manifest,
    ours: Manifest,
    pending: list[Any],
    written: list[Any],
) -> Any:
    """Return the identity keys of the others and of what was `written`, in the order of a run, that
    neither our state nor a pending event has. Raises DamagedIds."""
    passed = {run.digest for run in (*base.ids, *ours.ids)}
    fresh = [open_run(store, run) for run in theirs.ids if run.digest not in passed]
    high, low = _distinct([*fresh, *written])
    for keys in (*(open_run(store, run) for run in ours.ids), *pending):
        is_new = ~identity_run.contains(keys, high, low)
        high, low = high[is_new], low[is_new]
    return high, low


def _distinct(runs: list[Any]) -> Any:
    """Return the keys of runs in order, each once."""
    if not runs:
        return np.zeros(0, "<u8"), np.zeros(0, "<u4")
    high, low = identity_run.merge(runs)
    order = np.lexsort((low, high))
    high, low = high[order], low[order]
    is_first = np.ones(len(high), dtype=bool)
    is_first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return high[is_first], low[is_first]
