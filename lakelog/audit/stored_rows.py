"""The lake's side of an audit: which positions of which files its rows name, and which ids it has.

One scan of the segments of a state gathers the (origin, position) pairs that are wanted in a
table of the engine, sorted, so that a range of one file is found without scanning the others. Lines
that should be known by their id are gathered in a second table and resolved by one more scan; lines
that a dedupe may have removed in a third, by the hash of the key that it used, because rows equal
to them must still exist. All may spill to disk.
"""

from __future__ import annotations

from collections.abc import Iterator

from lakelog import database, identities, sql
from lakelog.database import Connect
from lakelog.entries import SegmentEntry
from lakelog.libraries import np, pa
from lakelog.maintain import DedupeNote
from lakelog.manifest import Manifest
from lakelog.query import EventKey
from lakelog.segments import rows_sql
from lakelog.store import Store

# Rows fetched at a time, so that a damaged lake with millions of faults does not fill the memory.
_ANSWERS = 100_000


class StoredRows:
    """Rows of one state by origin and position, of the `origins` loaded. Close it when done."""

    def __init__(self, store: Store, state: Manifest, connect: Connect) -> None:
        self._store, self._ids = store, state.ids
        segments = store.manifests.segments(state)
        self.events = [e for e in segments if e.kind == "events"]
        self._bad = [e for e in segments if e.kind == "quarantine"]
        self.deduped = [
            EventKey.of(note.by, note.nulls) for note in DedupeNote.all_of(store, state)
        ]
        self.origins: dict[str, int] = {}
        self._checked = False
        self._cursor = connect().cursor()
        self._cursor.execute("CREATE TEMP TABLE asked (file INT, position BIGINT, key VARCHAR)")
        self._cursor.execute(
            "CREATE TEMP TABLE alike (file INT, position BIGINT, sure BOOL, rule INT, h UBIGINT)"
        )

    def load(self, origins: set[str]) -> None:
        """Load the positions of these origins. Raises DamagedSegment."""
        self.origins = {origin: number for number, origin in enumerate(sorted(origins))}
        # Origins become numbers: comparing integers is cheaper than strings in every
        # lookup.
        origins_table = pa.table(
            {
                "origin": pa.array(list(self.origins), pa.string()),
                "number": pa.array(range(len(origins)), pa.int32()),
            }
        )
        self._cursor.register("wanted", origins_table)
        self._cursor.execute(
            "CREATE TEMP TABLE places AS SELECT number, position, bad, arrived"
            f" FROM ({self._places()}) JOIN wanted USING (origin)"
            # Sorted, so that the minimum and maximum of each row group let a range lookup skip the
            # rest.
            " ORDER BY number, position"
        )

    def within(self, origin: str, low: int, high: int) -> np.ndarray:
        """The positions from `low` up to `high` that rows name, in order, as often as named."""
        return self._positions(origin, f"position >= {low} AND position < {high}")

    def outside(self, origin: str, high: int) -> np.ndarray:
        """The positions below 0 or from `high` on that rows name."""
        return self._positions(origin, f"(position < 0 OR position >= {high})")

    def arrivals(self, origin: str, positions: list[int]) -> dict[int, tuple[int, bool]]:
        """When the first row of each position was ingested (us), and whether it is quarantined."""
        if not positions:
            return {}
        query = f"""SELECT position, min(epoch_us(ingested_at)), bool_and(bad)
            FROM ({self._all("origin, position, ingested_at")})
            WHERE origin = $1 AND position IN (SELECT unnest($2)) GROUP BY position"""
        rows_ = self._cursor.execute(query, [origin, positions]).fetchall()
        return {position: (came, bad) for position, came, bad in rows_}

    def counts(self, origin: str) -> tuple[int, int, int]:
        """The rows of a file: events, quarantined lines, events with the time of their ingest."""
        query = f"""SELECT count(*) FILTER (NOT bad), count(*) FILTER (bad),
            count(*) FILTER (arrived) FROM places WHERE number = {self.origins.get(origin, -1)}"""
        (counts,) = self._cursor.execute(query).fetchall()
        return counts[0], counts[1], counts[2]

    def others(self, pattern: str) -> list[tuple[str, int, int]]:
        """(origin, events, quarantined lines) of the origins like `pattern` not asked for."""
        query = f"""SELECT origin, count(*) FILTER (NOT bad), count(*) FILTER (bad)
            FROM ({self._all("origin")}) WHERE origin NOT IN (SELECT origin FROM wanted)
            AND regexp_full_match(origin, $1) GROUP BY origin ORDER BY origin"""
        counts: list[tuple[str, int, int]] = self._cursor.execute(query, [pattern]).fetchall()
        return counts

    def ask(self, file: int, positions: np.ndarray, keys: pa.ChunkedArray) -> np.ndarray:
        """A mask of the keys that are in the identity runs; those are looked up in rows later."""
        is_known = identities.stored_keys(self._store, self._ids, keys)
        if is_known.any():
            count = int(is_known.sum())
            questions = pa.table(
                {
                    "file": pa.array(np.full(count, file, np.int32)),
                    "position": pa.array(positions[is_known]),
                    "key": keys.filter(pa.array(is_known)),
                }
            )
            self._cursor.register("asking", questions)
            self._cursor.execute("INSERT INTO asked SELECT * FROM asking")
            # A registered table stays alive until it is unregistered; one is registered for each
            # chunk.
            self._cursor.unregister("asking")
        return is_known

    def compare(self, file: int, positions: np.ndarray, table: pa.Table, sure: bool) -> None:
        """Remember lines that a dedupe may have removed; those not `sure` count only if no row has
        their id."""
        number = pa.array(positions)
        self._cursor.register("comparing", table.append_column("place", number))
        for rule, key in enumerate(self.deduped):
            self._cursor.execute(
                f"INSERT INTO alike SELECT {file}, place, {sure}, {rule},"
                f" CASE WHEN {key.given} THEN {key.hash} END FROM comparing"
            )
        self._cursor.unregister("comparing")

    def unanswered(self) -> Iterator[tuple[int, int]]:
        """Yield (file, position) of the lines asked for whose id no row has."""
        events = self._part(self.events, "source, id", False)
        keys = f"SELECT {identities.id_key()} AS key FROM ({events})"
        # The semi join keeps the build side as small as the questions, not as large as the lake.
        query = f"""CREATE TEMP TABLE lost AS SELECT file, position FROM asked ANTI JOIN
            (SELECT key FROM ({keys} WHERE id <> '') SEMI JOIN asked USING (key)) USING (key)"""
        # Nothing was asked, so no segment is scanned; the empty table is still needed by
        # unequalled().
        if not self._cursor.execute("SELECT count(*) FROM asked").fetchall()[0][0]:
            query = "CREATE TEMP TABLE lost AS SELECT file, position FROM asked"
        self._cursor.execute(query)
        yield from self._answers("SELECT file, position FROM lost")

    def unequalled(self) -> Iterator[tuple[int, int]]:
        """Yield (file, position) of the lines compared that no row is equal to, by any of the
        keys that the lake was deduped by."""
        if not self._cursor.execute("SELECT count(*) FROM alike").fetchall()[0][0]:
            return
        # Hashes are enough: a false match among 2^64 would hide one missing line, a full comparison
        # would need every column of every row.
        self._cursor.execute("CREATE TEMP TABLE found (rule INT, h UBIGINT)")
        for rule, key in enumerate(self.deduped):
            columns = dict.fromkeys(name.partition(".")[0] for name in key.names)
            source = self._part(self.events, ", ".join(columns), False)
            self._cursor.execute(
                f"INSERT INTO found SELECT DISTINCT {rule}, h FROM"
                f" (SELECT {key.hash} AS h FROM ({source}) WHERE {key.given})"
                f" SEMI JOIN (SELECT h FROM alike WHERE rule = {rule}) USING (h)"
            )
        yield from self._answers("""SELECT DISTINCT file, position FROM alike
            WHERE (sure OR (file, position) IN (SELECT (file, position) FROM lost))
            AND (file, position) NOT IN
                (SELECT (file, position) FROM alike SEMI JOIN found USING (rule, h))""")

    def _answers(self, query: str) -> Iterator[tuple[int, int]]:
        self._cursor.execute(f"{query} ORDER BY file, position")
        while answers := self._cursor.fetchmany(_ANSWERS):
            yield from answers

    def close(self) -> None:
        """Drop the tables."""
        self._cursor.close()

    def _positions(self, origin: str, condition: str) -> np.ndarray:
        number = self.origins.get(origin, -1)
        query = (
            f"SELECT position FROM places WHERE number = {number} AND {condition} ORDER BY position"
        )
        positions: np.ndarray = self._cursor.execute(query).fetchnumpy()["position"]
        return positions

    def _places(self) -> str:
        """SQL for the positions of the rows of both kinds, and whether they have the time of their
        ingest."""
        events = self._part(self.events, "origin, position, time, ingested_at", False)
        bad = self._part(self._bad, "origin, position", True)
        return (
            f"SELECT origin, position, bad, time = ingested_at AS arrived FROM ({events})"
            f" UNION ALL SELECT origin, position, bad, false FROM ({bad})"
        )

    def _all(self, columns: str) -> str:
        """SQL for the rows of both kinds, with `bad`."""
        tables = [self._part(self.events, columns, False), self._part(self._bad, columns, True)]
        return " UNION ALL ".join(tables)

    def _part(self, entries: list[SegmentEntry], columns: str, bad: bool) -> str:
        """SQL for the rows of some segments, each verified once. Raises DamagedSegment."""
        if not self._checked:
            # A segment that is damaged would make lines look missing; it is reported as damage
            # instead, and before any count is made.
            self._store.verified.require([*self.events, *self._bad])
            self._checked = True
        # read_parquet takes no empty list, and the union needs both sides.
        if not entries:
            return f"SELECT *, {bad} AS bad FROM ({sql.no_rows(columns.split(', '))})"
        paths = self._store.paths
        if not bad:
            return f"SELECT {columns}, false AS bad FROM ({rows_sql(paths, entries)})"
        files = database.parquet_sql(paths.object("segments", e.key) for e in entries)
        return f"SELECT {columns}, true AS bad FROM {files}"
