"""The newest entries of each list of a lake's recent entries, chosen by the engine.

Of what is new the newest rows of each list are chosen seq by seq in columns that are small, then
their texts are read, and both wait in temporary tables of a cursor for the ranges that are written.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from lakelog.files import FileCursor
from lakelog.libraries import duckdb, np
from lakelog.manifest import Manifest
from lakelog.recent.redis_recent import ENTRY, SOURCE, key_of, names_table
from lakelog.store import Store
from lakelog.sync import DeltaStep

_PICKS = """CREATE OR REPLACE TEMPORARY TABLE recent_picks AS
    SELECT source, level, grouping(source) + 2 * grouping(level) AS kind, max(arrived) AS arrived,
        unnest(max(seq, {keep})) AS seq
    FROM (SELECT seq, {source} AS source, upper(nullif(level, '')) AS level,
            epoch_ms(ingested_at) AS arrived
        FROM (FROM recent_rows LEFT JOIN recent_names USING (origin)))
    GROUP BY GROUPING SETS ((), (source), (level), (source, level))"""
# One look at the texts, whatever the ranges; what does not fit in the engine's memory is on disk.
_TEXTS = """CREATE OR REPLACE TEMPORARY TABLE recent_texts AS
    SELECT seq, {entry} AS entry FROM (
        FROM (FROM recent_rows WHERE seq IN (SELECT seq FROM recent_picks))
        LEFT JOIN recent_names USING (origin))
    ORDER BY seq"""
_EDGES = """SELECT seq FROM (SELECT seq, row_number() OVER (ORDER BY seq) AS place
    FROM recent_picks) WHERE place % {chunk} = 0"""
_RANGE = """SELECT kind, source, level, max(arrived) AS arrived,
        encode(string_agg(entry, chr(10) ORDER BY seq)) AS entries, count(*) AS count
    FROM (FROM recent_picks WHERE seq > $1 AND seq <= $2)
    JOIN (FROM recent_texts WHERE seq > $1 AND seq <= $2) USING (seq)
    GROUP BY ALL"""
_CLEAN = "DROP TABLE IF EXISTS recent_picks; DROP TABLE IF EXISTS recent_texts"


class Addition(NamedTuple):
    """Entries of a list from the oldest on, as lines of JSON; the last arrived at `arrived` ms."""

    key: str
    arrived: int
    entries: bytes
    size: int


class NewestEntries:
    """Chooses the newest entries of states of one lake; the names of files are kept between."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._names: dict[str, str] = {}

    def pick(
        self,
        cursor: duckdb.DuckDBPyConnection,
        state: Manifest,
        step: DeltaStep,
        keep: int,
        chunk: int,
    ) -> list[int]:
        """Choose the newest rows of each list; return where to divide them by seq."""
        self._view(cursor, step)
        self._register_names(cursor, state)
        # By columns that are small: texts are read for what stays alone.
        cursor.execute(_PICKS.format(keep=keep, source=SOURCE))
        # A level that is none has no list; the two sets without it hold the same rows.
        cursor.execute("DELETE FROM recent_picks WHERE level IS NULL AND kind < 2")
        if not step.removed:
            # Of many new segments most have only rows that newer ones displace.
            seqs = cursor.execute("SELECT DISTINCT seq FROM recent_picks ORDER BY seq")
            self._view(cursor, _with_any(step, seqs.fetchnumpy()["seq"]))
        cursor.execute(_TEXTS.format(entry=ENTRY))
        edges = cursor.execute(_EDGES.format(chunk=chunk)).fetchall()
        return sorted({int(row[0]) for row in edges} - {step.upto - 1})

    def _view(self, cursor: duckdb.DuckDBPyConnection, step: DeltaStep) -> None:
        rows = step.rows_sql(self._store)
        cursor.execute(f"CREATE OR REPLACE TEMPORARY VIEW recent_rows AS {rows}")

    def _register_names(self, cursor: duckdb.DuckDBPyConnection, state: Manifest) -> None:
        """Let the engine know the names of files, read again where rows are of an unknown one."""
        origins = cursor.execute(
            "SELECT DISTINCT origin::VARCHAR FROM recent_rows WHERE origin <> ''"
        ).fetchall()
        # Names are read anew only for files that came since.
        if any(origin not in self._names for (origin,) in origins):
            all_cursors = FileCursor.of_state(self._store, state)
            self._names = {cursor.origin: cursor.name for cursor in all_cursors}
        names = {origin: self._names[origin] for (origin,) in origins if origin in self._names}
        # Registered for this cursor: rounds of several lakes may run at once.
        cursor.register("recent_names", names_table(names))

    def additions(self, cursor: duckdb.DuckDBPyConnection, low: int, high: int) -> list[Addition]:
        """Return what a range adds to each list."""
        rows = cursor.execute(_RANGE, [low, high]).fetchall()
        return [
            Addition(
                key_of(None if grouping & 1 else source, None if grouping & 2 else level),
                arrived,
                entries,
                count,
            )
            for grouping, source, level, arrived, entries, count in rows
        ]

    def forget(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Drop what was chosen last."""
        cursor.execute(_CLEAN)


def _with_any(step: DeltaStep, seqs: np.ndarray) -> DeltaStep:
    """Return a step with those segments alone that may have one of these rows, given in order."""
    if not len(seqs):
        return step
    firsts, lasts = zip(*(segment_part.entry.seq for segment_part in step.added), strict=True)
    counts = np.searchsorted(seqs, lasts, "right") - np.searchsorted(seqs, firsts)
    added = [segment_part for segment_part, count in zip(step.added, counts, strict=True) if count]
    return dataclasses.replace(step, added=tuple(added))


def batches_of(lists: list[Addition], limit: int) -> list[list[Addition]]:
    """Divide additions into parts of about so many entries; there is at least one part."""
    batches, count = [list[Addition]()], 0
    for addition in lists:
        if count >= limit:
            batches.append([])
            count = 0
        batches[-1].append(addition)
        count += addition.size
    return batches
