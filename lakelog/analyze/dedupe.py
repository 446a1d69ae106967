"""Duplicates by key: list them, query the first or last event of each key, remove the others.

    duplicates(lake, by)             each repeated key, its count and its sources
    first(lake, by)  last(lake, by)  the earliest and the latest event of each key, by its time
    latest(lake, by)                 the event of each key that was stored last
    plan(lake, by, keep) -> Plan     the rows to remove so that one event per key remains
    rows(lake, plan)                 exactly those rows
    apply(lake, plan)                a move that removes them; `lake.undo()` reverts it

`by` names columns, fields of data or `content` (query/sql/keys.py); an event without one
of them is nobody's duplicate, unless `nulls` are compared too. Of events of one key and equal
times the first is the one that stands first in the branch, so a plan never depends on chance.
Queries take a lake or one of its views and return DuckDB relations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lakelog.appends import StreamSubject
from lakelog.disk import disk
from lakelog.errors import InvalidSetting
from lakelog.lake import Lake
from lakelog.libraries import np, pa
from lakelog.maintain import DedupeNote, RowRemoval
from lakelog.pinned import PinnedLake
from lakelog.query import EventKey, Relation
from lakelog.runtime.progress import ProgressCallback
from lakelog.sql import identifier

By = str | Sequence[str]
KEEP = ("first", "last")
_SENDERS = "coalesce(list_sort(list(DISTINCT sender) FILTER (sender IS NOT NULL))[1:5], [])"
_ORDER = "time, seq NULLS LAST, ingested_at, origin, position"
_BACK = "time DESC, seq DESC NULLS FIRST, ingested_at DESC, origin DESC, position DESC"
_STORED = "seq DESC NULLS FIRST, ingested_at DESC, origin DESC, position DESC"


@dataclass(frozen=True)
class Plan:
    """Rows to remove from a branch: sorted seqs, chosen on one state (`snapshot`, of `events`)."""

    by: tuple[str, ...]
    keep: str
    snapshot: str
    generation: int
    events: int
    keys: int
    """Keys with more than one event."""
    seqs: np.ndarray
    nulls: bool = False
    """Whether nulls of the key were compared."""

    def __len__(self) -> int:
        return len(self.seqs)


def duplicates(lake: Lake | PinnedLake, by: By, *, nulls: bool = False) -> Relation:
    """Return each key with more than one event: its values, `events`, `first` and `last`
    time, some of its `sources`, and from how many `origins` (files, writers) it came."""
    key = EventKey.of(by, nulls)
    columns = ", ".join(
        f"{field} AS {identifier(name)}" for name, field in zip(key.names, key.parts, strict=True)
    )
    groups = ", ".join(identifier(name) for name in key.names)
    # Hashes first: most keys are unique, and only the events of repeated hashes are grouped by
    # their values.
    return lake.sql(f"""WITH repeated AS MATERIALIZED ({_repeated_hashes(key)}),
        matches AS (SELECT {columns}, time AS moment, source AS sender, origin AS sender_origin
            FROM events WHERE {key.given} AND {key.hash} IN (SELECT h FROM repeated))
        SELECT {groups}, count(*) AS events, min(moment) AS first, max(moment) AS last,
            {_SENDERS} AS sources,
            count(DISTINCT sender_origin) AS origins
        FROM matches GROUP BY {groups} HAVING count(*) > 1
        ORDER BY events DESC, first, {groups}""")


def first(lake: Lake | PinnedLake, key_names: By) -> Relation:
    """Return the earliest event of each key."""
    return _row_per_key(lake, key_names, _ORDER)


def last(lake: Lake | PinnedLake, key_names: By) -> Relation:
    """Return the event with the latest time of each key."""
    return _row_per_key(lake, key_names, _BACK)


def latest(lake: Lake | PinnedLake, key_names: By) -> Relation:
    """Return the event of each key that was stored last, whatever time it names."""
    return _row_per_key(lake, key_names, _STORED)


def plan(lake: Lake, by: By, keep: str = "first", *, nulls: bool = False) -> Plan:
    """Settle, and choose the rows to remove so that one event per key remains.

    `keep` says which: first or last, by time. Raises InvalidSetting for an unknown name, or where
    no event has a key.
    """
    if keep not in KEEP:
        raise InvalidSetting(f"keep is {' or '.join(KEEP)}, not {keep!r}")
    key = EventKey.of(by, nulls)
    # Events in a WAL have no seq yet, and a plan names rows by seq.
    move = lake.settle().move
    view = lake.at(move.snapshot)
    # An empty lake is no mistake; a lake where no event has the key is, most likely in the name.
    if view.count() and not view.sql(f"SELECT 1 FROM events WHERE {key.given} LIMIT 1").fetchall():
        mark = " and " if key.needed else " or "
        raise InvalidSetting(f"nothing to dedupe by: no event has {mark.join(key.names)}")
    # k0, k1, ...: the columns of a key may have any name, `place` and `seq` included.
    columns = ", ".join(f"{column} AS k{i}" for i, column in enumerate(key.parts))
    groups = ", ".join(f"k{i}" for i in range(len(key.parts)))
    best = "min" if keep == "first" else "max"
    # `place` is time and seq as one number, so that min and max choose a row in one aggregate, and
    # equal times are decided by seq. HUGEINT, because both have 64 bits. An event of a stream stays
    # in any case: its version would be missing.
    table = view.sql(f"""WITH repeated AS MATERIALIZED ({_repeated_hashes(key)}),
        matches AS MATERIALIZED (
            SELECT {columns}, seq, epoch_us(time)::HUGEINT * {2**63}::HUGEINT + seq AS place,
                coalesce(starts_with(origin, '{StreamSubject.ORIGIN}'), false) AS is_versioned
            FROM events WHERE {key.given} AND {key.hash} IN (SELECT h FROM repeated)),
        keepers AS MATERIALIZED (
            SELECT {best}(place) AS place, count(*) AS n FROM matches GROUP BY {groups})
        SELECT seq, (SELECT count(*) FROM keepers WHERE n > 1) AS keys
        FROM matches ANTI JOIN keepers USING (place) WHERE NOT is_versioned
        ORDER BY seq""").to_arrow_table()
    keys = table["keys"][0].as_py() if table.num_rows else 0
    return Plan(
        key.names,
        keep,
        move.snapshot,
        move.generation,
        view.count(),
        keys,
        table["seq"].to_numpy(),
        nulls,
    )


def rows(lake: Lake, removal: Plan, limit: int | None = None) -> Relation:
    """Return the rows of a plan, by seq. Raises Damaged."""
    seqs = pa.table({"seq": pa.array(removal.seqs[:limit])})
    query = "SELECT * FROM events WHERE seq IN (SELECT seq FROM lakelog_seqs) ORDER BY seq"
    return lake.at(removal.snapshot).sql(query, variables={"lakelog_seqs": seqs})


def apply(lake: Lake, removal: Plan, progress: ProgressCallback | None = None) -> RowRemoval:
    """Remove exactly the rows of a plan from the branch; events appended since are kept.

    Raises StalePlan if the branch was rewound, or some of the rows are gone, since it was planned.
    """
    # Nothing to remove is no move, and no entry in the history.
    if not len(removal):
        return RowRemoval(0, 0, 0)
    # The note tells an audit which key and rule removed the rows.
    note = DedupeNote(removal.by, removal.keep, disk.now_us(), len(removal), removal.nulls)
    store, seqs = lake.store, removal.seqs
    return note.apply(store, lake.branch_name, seqs, removal.generation, lake.engine, progress)


def _repeated_hashes(key: EventKey) -> str:
    """SQL of the hashes that more than one event has, a cheap first filter."""
    return f"SELECT {key.hash} AS h FROM events WHERE {key.given} GROUP BY 1 HAVING count(*) > 1"


def _row_per_key(lake: Lake | PinnedLake, key_names: By, order: str) -> Relation:
    key = EventKey.of(key_names)
    return lake.sql(
        f"SELECT * FROM events WHERE {key.given}"
        f" QUALIFY row_number() OVER (PARTITION BY {', '.join(key.parts)} ORDER BY {order}) = 1"
    )
