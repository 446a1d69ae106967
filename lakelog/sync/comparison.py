"""Comparing a table with the lake: by key, and by a digest of each row; and repairing it.

What the table should hold is made again, from the state that its watermark names and the mapping
stored with it. Both sides become pairs of key and digest in the engine, which writes to disk what
does not fit its memory. A repair deletes and writes the rows that differ, in one transaction with a
new watermark, so that a sync beside it waits or finds it moved.

Values as they are compared where a database writes them otherwise than it was given them.

JSON loses blanks and the order of names, of repeated names the last one counts, and numbers are
compared as the doubles or integers that they are. A uuid may have been written in many ways.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from lakelog import sql
from lakelog.clients import ConnectionLost
from lakelog.disk import disk
from lakelog.errors import SyncRefused, Unreachable
from lakelog.lake import Lake
from lakelog.libraries import duckdb, pa, pc
from lakelog.sync import delta
from lakelog.sync.databases.sql_target import SqlTarget
from lakelog.sync.mapping import Mapping, read_mapping
from lakelog.sync.plan import target_of
from lakelog.sync.rows import RowReader, from_quarantine, line_of, python_rows
from lakelog.sync.target import KEY, REPLACE, TableShape, Watermark, WatermarkMoved

_ROWS, _KEYS_MAX = 1_000_000, 10_000
_WANTED, _FOUND, _DIFFERING = "lakelog_wanted", "lakelog_found", "lakelog_differing"
_REFUSED = "lakelog_refused"


@dataclass(frozen=True)
class CheckResult:
    """What differs between a table and the lake: rows that are missing, that nobody synced, and
    that are different; `skipped` are columns that were not compared, as their type changes them.
    """

    target: str
    table: str
    rows: int
    missing: int
    extra: int
    different: int
    is_repaired: bool
    skipped: tuple[str, ...] = ()

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.missing or self.extra or self.different)


def check(
    lake: Lake, target: str, table: str | None = None, *, repair: bool = False
) -> list[CheckResult]:
    """Compare the tables of a target, or one, with the states they were synced to.

    With `repair` what differs is written again. Raises SyncRefused, also for a target that is not
    a SQL database, InvalidSetting, Unreachable, MissingPackage, Damaged.
    """
    sync_target = target_of(target)
    if not isinstance(sync_target, SqlTarget):
        raise SyncRefused(f"{sync_target.address}: only tables of SQL databases can be compared")
    if not sync_target.exists():
        raise SyncRefused(f"{sync_target.address}: it is not there")
    try:
        with contextlib.closing(sync_target):
            sync_target.connect()
            marks = sync_target.watermarks()
            if table is not None and table not in marks:
                raise SyncRefused(f"{sync_target.address}: no sync has written a table {table}")
            names = marks if table is None else (table,)
            # A target may hold tables of several lakes: only our own can be made again.
            ours = lake.store.lake_id, lake.branch_name
            own_tables = [n for n in names if (marks[n].lake_id, marks[n].branch) == ours]
            if table is not None and not own_tables:
                raise SyncRefused(
                    f"{sync_target.address}: table {table} is of another lake or branch"
                )
            return [_checked(lake, sync_target, name, repair=repair) for name in own_tables]
    except (ConnectionLost, WatermarkMoved) as error:
        raise Unreachable(str(error)) from None


def _checked(lake: Lake, target: SqlTarget, table: str, *, repair: bool) -> CheckResult:
    """Compare a table, and write again what differs if that is wanted."""
    with contextlib.closing(lake.engine().cursor()) as cursor:
        # What a sync commits meanwhile would differ from a watermark that was read before.
        with target.snapshot():
            mark = target.watermarks().get(table)
            if mark is None:
                raise SyncRefused(f"{target.address}: no sync has written a table {table}")
            comparison = _Comparison(lake, cursor, target, table, mark)
            comparison.read()
        return comparison.run(repair=repair)


class _Comparison:
    """One table and what it should hold."""

    def __init__(
        self,
        lake: Lake,
        cursor: duckdb.DuckDBPyConnection,
        target: SqlTarget,
        table: str,
        mark: Watermark,
    ) -> None:
        self._lake, self._target, self._table, self._mark = lake, target, table, mark
        self._cursor = cursor
        mapping = read_mapping(self._cursor, mark.mapping, mark.mode)
        self._mapping: Mapping = mapping.typed(mark.columns, target.type_names, target.address)
        self._canonical: dict[str, Canonical] = {}
        self._names, self._skipped = list[str](), tuple[str, ...]()
        self._refused_lines = set[str]()
        # Rows that could not be converted are in the quarantine.
        self._reader = RowReader(lake, self._mapping, target, _ROWS, lambda row: None)

    def read(self) -> None:
        """Read the table."""
        shape = self._target.shape(self._table)
        if shape is None:
            raise SyncRefused(f"{self._target.address}, table {self._table}: the table is gone")
        self._skipped = self._incomparable(shape)
        for name, declared in shape.types.items():
            if canonical := canonical_of(declared):
                self._canonical[name] = canonical
        schema = self._reader.schema()
        self._names = [name for name in schema.names if name not in self._skipped]
        compared = pa.schema([schema.field(name) for name in self._names])
        # In the types in which the mapping gives rows, so that both sides are converted alike.
        rows = self._target.read(self._table, compared, shape.types)
        self._digest(_FOUND, rows)

    def run(self, *, repair: bool) -> CheckResult:
        """Compare, and write again what differs if that is wanted."""
        events = self._events()
        self._digest_wanted(events)
        result = self._compare()
        if result.is_equal:
            return result
        # What this process cannot open is not what differs.
        has_fields = self._reader.opens_fields(self._mark)
        if not repair:
            return result
        self._repair(events, has_fields=has_fields)
        return dataclasses.replace(result, is_repaired=True)

    def _events(self) -> str:
        """SQL for the events of the state that the watermark names. Raises DamagedManifest,
        SyncRefused where the lake does not have it any more."""
        store = self._lake.store
        store.head_since(self._mark.branch, self._mark.move)
        if not store.manifests.is_there(self._mark.snapshot):
            raise SyncRefused(
                f"{self._target.address}, table {self._table}: the state of its last sync is not in"
                " the lake any more, as after gc or a restore: sync first"
            )
        entries = store.manifests.segments(store.manifests.load(self._mark.snapshot), "events")
        step = delta.DeltaStep(delta.parts_of(entries), self._mark.upto)
        condition = f"{KEY} < {self._mark.upto}"
        if refused := self._refused():
            condition += f" AND {KEY} NOT IN ({', '.join(map(str, refused))})"
        return f"SELECT * FROM ({step.rows_sql(store)}) WHERE {condition}"

    def _refused(self) -> list[int]:
        """The keys of rows that the table does not have since it refused them: they are in the
        quarantine, and would be refused again."""
        if not self._mapping.is_keyed:
            return []
        query = f"SELECT DISTINCT position {from_quarantine(self._target.address, self._table)}"
        positions = [int(row[0]) for row in self._lake.sql(query).fetchall()]
        lacking = f"SELECT unnest({positions}::BIGINT[]) AS k EXCEPT SELECT k FROM {_FOUND}"
        return [int(row[0]) for row in self._cursor.execute(f"{lacking} ORDER BY k").fetchall()]

    def _digest_wanted(self, events: str) -> None:
        """Make the digests of the rows that the table should have. Rows without keys that it has
        refused are known by their lines in the quarantine."""
        if not self._mapping.is_keyed:
            query = f"SELECT line {from_quarantine(self._target.address, self._table)}"
            self._refused_lines = {str(row[0]) for row in self._lake.sql(query).fetchall()}
        refused = list[pa.Table]()
        self._digest(_WANTED, self._mapped(events, refused))
        self._digest(_REFUSED, refused)
        # Those that the table has taken since are rows like others.
        query = f"FROM {_REFUSED} WHERE d IN (SELECT d FROM {_FOUND})"
        lines = [line_of(row) for rows in refused for row in python_rows(rows)]
        taken_rows = self._cursor.execute(f"SELECT rowid {query}").fetchall()
        self._refused_lines -= {lines[n] for (n,) in taken_rows}
        self._cursor.execute(f"INSERT INTO {_WANTED} SELECT k, d {query}")

    def _mapped(self, events: str, refused: list[pa.Table]) -> Iterator[pa.Table]:
        """Yield the rows that the table should have; those that it refuses are added to a list."""
        for rows in self._reader.mapped(events):
            if self._refused_lines:
                is_wanted = [line_of(r) not in self._refused_lines for r in python_rows(rows)]
                mask = pa.array(is_wanted)
                refused.append(rows.filter(pc.invert(mask)))
                rows = rows.filter(mask)
            if rows.num_rows:
                yield rows

    def _incomparable(self, shape: TableShape) -> tuple[str, ...]:
        names = (name for name, declared in shape.types.items() if not is_comparable(declared))
        ours = {column.name for column in self._mapping.columns}
        return tuple(sorted(ours.intersection(names)))

    def _digest(self, name: str, batches: Iterable[pa.Table]) -> None:
        """Make a table of keys and digests of rows, equal ones counted."""
        # chr(30) for null and chr(31) between: neither stands in ordinary text.
        values = (f"coalesce({sql.identifier(column)}::VARCHAR, chr(30))" for column in self._names)
        # In the mode append a row is known by its content alone.
        key = KEY if self._mapping.is_keyed else "0"
        row = f"{key} AS k, md5(concat_ws(chr(31), {', '.join(values)})) AS d"
        self._cursor.execute(f"CREATE OR REPLACE TEMP TABLE {name} (k BIGINT, d VARCHAR)")
        for batch in batches:
            self._cursor.register("lakelog_batch", self._comparable(batch))
            self._cursor.execute(f"INSERT INTO {name} SELECT {row} FROM lakelog_batch")
            self._cursor.unregister("lakelog_batch")

    def _comparable(self, rows: pa.Table) -> pa.Table:
        """Rows with each value as all ways to write it."""
        for n, name in enumerate(rows.column_names):
            if canonical := self._canonical.get(name):
                values = [canonical(value) for value in rows[name].to_pylist()]
                rows = rows.set_column(n, name, pa.array(values, pa.string()))
        return rows

    def _compare(self) -> CheckResult:
        """Count what differs, and keep the keys of it."""
        counted = "SELECT k, d, count(*) AS n FROM {0} GROUP BY k, d"
        self._cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE {_DIFFERING} AS SELECT k,"
            " greatest(coalesce(w.n, 0) - coalesce(f.n, 0), 0) AS missing,"
            " greatest(coalesce(f.n, 0) - coalesce(w.n, 0), 0) AS extra"
            f" FROM ({counted.format(_WANTED)}) w FULL JOIN ({counted.format(_FOUND)}) f"
            " USING (k, d) WHERE w.n IS DISTINCT FROM f.n"
        )
        # Equal rows may be there several times, so that they are counted and not joined.
        sums = f"SELECT k, sum(missing) AS m, sum(extra) AS e FROM {_DIFFERING} GROUP BY k"
        # A key that lacks a row and has another one is different; without keys nothing is.
        both = "least(m, e)" if self._mapping.is_keyed else "0"
        counts = f"sum(m - {both}), sum(e - {both}), sum({both})"
        missing, extra, different = self._cursor.execute(
            f"SELECT {counts} FROM ({sums})"
        ).fetchall()[0]
        rows = self._cursor.execute(f"SELECT count(*) FROM {_FOUND}").fetchall()[0][0]
        return CheckResult(
            self._target.address,
            self._table,
            int(rows),
            int(missing or 0),
            int(extra or 0),
            int(different or 0),
            False,
            self._skipped,
        )

    def _repair(self, events: str, *, has_fields: bool) -> None:
        """Write again what differs; without keys, or if that is much, everything."""
        keyed = self._mark.mode not in ("append", REPLACE)
        keys = self._cursor.sql(f"SELECT DISTINCT k AS {KEY} FROM {_DIFFERING}").to_arrow_table()
        # A sync that committed meanwhile has raised the version, and then this repair is void.
        self._target.begin(self._table, self._mark.version)
        try:
            if self._mapping.is_keyed and keys.num_rows <= _KEYS_MAX:
                self._target.delete(self._table, keys)
                key_list = ", ".join(str(key) for key in keys[KEY].to_pylist())
                events = f"SELECT * FROM ({events}) WHERE {KEY} IN ({key_list})"
            else:
                self._target.clear(self._table)
            for batch in self._mapped(events, []):
                self._target.write(self._table, batch, keyed)
            expected = self._cursor.sql(f"SELECT count(*) FROM {_WANTED}").fetchall()[0][0]
            mark = dataclasses.replace(
                self._mark,
                rows=int(expected),
                # A new version: a sync that had planned by the old one finds it moved.
                version=self._mark.version + 1,
                synced_at=disk.now_us(),
                has_fields=has_fields,
            )
            self._target.commit(self._table, mark)
        except BaseException:
            self._target.rollback()
            raise


_INTEGER_MAX = 2**63
_ITEM = re.compile(r"(text|character varying|varchar|uuid|small|int|big|bool|double)")
StoredValue = str | list[object] | None
"""A list where a target has such values."""
Canonical = Callable[[StoredValue], str | None]


def canonical_of(declared: str) -> Canonical | None:
    """Return what makes values of a declared type comparable, None where they are as they are."""
    plain = declared.lower().split("(")[0]
    if plain.endswith("[]"):
        return functools.partial(_array, is_double=plain.startswith("double"))
    return {"json": _json, "jsonb": _json, "uuid": _uuid}.get(plain)


def is_comparable(declared: str) -> bool:
    """Whether values of a declared type can be compared: of arrays, those of simple items."""
    return not declared.endswith("[]") or _ITEM.match(declared.lower()) is not None


def _json(encoded: StoredValue) -> str | None:
    if not isinstance(encoded, str):
        return None
    try:
        # As numbers that compare exactly: 1 and 1.0 are one number in JSON, 2**53 + 1 is another.
        document = json.loads(encoded, parse_int=_number, parse_float=_number)
        return json.dumps(document, sort_keys=True)
    except (ValueError, RecursionError):
        return encoded


def _array(encoded: StoredValue, *, is_double: bool) -> str | None:
    """A list, perhaps in JSON; its items as text, as they are made those of an array."""
    if encoded is None:
        return None
    items: object = encoded
    if isinstance(encoded, str):
        try:
            items = json.loads(encoded, parse_int=_number, parse_float=_number)
        except (ValueError, RecursionError):
            return encoded
    if not isinstance(items, list):
        return json.dumps(items)
    return json.dumps([_item(item, is_double=is_double) for item in items])


def _item(item: object, *, is_double: bool) -> str | None:
    if item is not None and is_double:
        with contextlib.suppress(InvalidOperation):
            item = _number(str(item))
    return item if item is None or isinstance(item, str) else json.dumps(item)


def _uuid(encoded: StoredValue) -> str | None:
    if not isinstance(encoded, str):
        return None
    try:
        return str(uuid.UUID(encoded))
    except ValueError:
        return encoded


def _number(digits: str) -> int | float:
    value = Decimal(digits)
    if value.is_finite() and abs(value) < _INTEGER_MAX and value == value.to_integral_value():
        return int(value)
    return float(value)
