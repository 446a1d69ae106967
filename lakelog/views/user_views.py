"""A lake's own views: listed, made, shown and dropped; the acts behind `lakelog view`.

Trying a new view before it is kept: both ways on a sample, with no file within reach.

A projection is true if it does not matter how events were split: the map of all is asked against
maps of parts, merged in several orders and again with what merging gave, as the engine does it. The
sample is taken from the lake, with some rows once more at equal times and under other subjects.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lakelog.errors import InvalidView
from lakelog.libraries import duckdb, pa
from lakelog.sql import identifier
from lakelog.views import catalog, finalize, guard, params
from lakelog.views.definition import PLAIN, TOTALS, ViewDefinition, parse
from lakelog.views.layers import Layer, LayerBuilder, LayerPart, LayerTable, StateShape, given, view
from lakelog.views.mapping import PLACE, shape_of
from lakelog.workers import WorkerPool

if TYPE_CHECKING:
    from lakelog.views.tables import ViewTables


class LakeViews:
    """The views of an open lake; to look at them, a past state of one will do."""

    def __init__(self, lake: Any) -> None:
        self._lake = lake
        self._views: ViewTables = lake._views
        self._state: str | None = getattr(lake, "id", None)

    def listed(self) -> list[tuple[ViewDefinition, bool]]:
        """Every view by name, and whether the lake itself defines it."""
        return self._views.definitions(self._state)

    def definition(self, name: str) -> ViewDefinition:
        """Return one view's definition. Raises InvalidView where there is none."""
        return self._views.definition(name, self._state)

    def create(
        self,
        name: str,
        text: str,
        params: Mapping[str, object] | None = None,
        *,
        replace: bool = False,
    ) -> ViewDefinition:
        """Keep a view in the lake's manifest, once it was tried both ways on a sample of the lake.

        `params` are needed for parameters without a default. Raises InvalidView: section, line,
        what.
        """
        store, branch = self._lake.store, self._lake.branch_name
        definition = parse(text, name)
        catalog.check_free(store, branch, name, replace)
        check(definition, self._views.sample(ROWS), params)
        catalog.create(store, branch, definition, replace=replace)
        return definition

    def build(self, *names: str, workers: str = "local") -> int:
        """Have views computed as far as their events are sealed, all without names: by processes of
        this machine, or at "ray://HOST:PORT". Return how many segments were read, each once for a
        view.

        What is computed is in the cache, where whoever asks finds it. Raises InvalidView for no
        such view, InvalidSetting, MissingPackage, Unreachable, Damaged.
        """
        view_names = names or [definition.name for definition, _ in self.listed()]
        with WorkerPool.at(workers) as pool:
            assert pool is not None
            return sum(self._views.build(name, pool, self._state) for name in view_names)

    def drop(self, name: str) -> None:
        """Take a view off the branch; older states have it still. Raises InvalidView."""
        catalog.drop(self._lake.store, self._lake.branch_name, name)


ROWS = 3_000
_SPLITS = (2, 3, 7)
# Sums of these do not depend on the order of addition.
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
# A fixed time in 2030: equal answers must not differ by when they were asked for.
_NOW = 1_900_000_000_000_000
_LOCKED: dict[str, str | bool | int | float | list[str]] = {
    # The SQL is somebody's text, which no check of ours may let near a file.
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "memory_limit": "512MB",
}
_MADE = """
    SELECT make_timestamptz(1767225600000000 + 1000000 * (i * 37 % 400)) AS time,
        (['DISCOVER', 'PROCESS', 'COMPLETE', 'FAIL'])[1 + i % 4] AS type, 'podcast' AS category,
        's' || i % 5 AS source, 'item' || i * 7 % 60 AS subject, NULL AS level,
        NULL AS message,
        '{"duration_ms":' || i * 13 % 997 || ',"error":"E' || i % 3 || '"}' AS data,
        NULL AS id, make_timestamptz(1767225600000000 + i) AS ingested_at, 'sample' AS origin,
        i::BIGINT AS position, i::BIGINT AS seq
    FROM range(300) t(i)"""


def check(
    definition: ViewDefinition, rows: pa.Table, given: Mapping[str, object] | None = None
) -> pa.Table:
    """Try a definition on rows of `events` with seq; return its answer.

    `given` are values of parameters without a default. Raises InvalidView: section, line, what.
    """
    values = params.values(definition.name, definition.params, given)
    with duckdb.connect(":memory:", config=_LOCKED) as database:
        database.execute("SET TimeZone = 'UTC'")
        # Before anything of it is run.
        guard.check(definition, database.cursor())
        _fill(database, rows)
        if not definition.is_projection:
            # `place` belongs to projections alone.
            view(database, "events", "SELECT * EXCLUDE (place) FROM sample")
            return _run(database, definition, PLAIN, definition.filled(PLAIN, values, _NOW))
        return _both_ways(database, definition, values)


def _fill(database: duckdb.DuckDBPyConnection, rows: pa.Table) -> None:
    """Make the table `sample`: the rows, and some of them again as others."""
    database.register("given", rows)
    # A lake without events is tried on made ones: an empty sample proves nothing.
    database.execute(
        f"CREATE TABLE sample AS SELECT *, {PLACE} FROM"
        f" ({'SELECT * FROM given' if rows.num_rows else _MADE})"
    )
    database.unregister("given")
    database.execute(
        """
        INSERT INTO sample BY NAME
        SELECT * REPLACE (b.seq + 1000000000 AS seq, b.subject AS subject, b.type AS type,
            a.place + 1000000000 AS place)
        FROM (SELECT *, row_number() OVER (ORDER BY seq) AS n FROM sample LIMIT 400) a
        JOIN (SELECT subject, type, seq, row_number() OVER (ORDER BY seq DESC) AS n FROM sample
            LIMIT 400) b USING (n)""".replace("SELECT * REPLACE", "SELECT * EXCLUDE (n) REPLACE")
    )


def _both_ways(
    database: duckdb.DuckDBPyConnection, definition: ViewDefinition, values: params.Values
) -> pa.Table:
    maps, merges = (definition.filled(s, values) for s in ("map", "merge"))
    final = finalize.asked(definition, values)
    view(database, "segment", "SELECT * FROM sample")
    # Each section is run alone first, so that an error names the section that it is in.
    mapped = _run(database, definition, "map", maps)
    database.register("mapped", mapped)
    try:
        shape = shape_of(database.cursor(), definition, values)
    except Exception as error:
        raise guard.engine_error(definition.sections["map"], str(error)) from None
    columns = ", ".join(f'"{n}"::{type_} AS "{n}"' for n, type_ in shape.columns)
    view(database, "partials", f"SELECT {columns} FROM mapped")
    merge_columns = _run(database, definition, "merge", merges)
    _same_columns(definition, mapped.column_names, merge_columns.column_names)
    view(database, "state", f"SELECT {columns} FROM partials")
    if final.totals:
        _check_totals(database, definition, final, f"SELECT {columns} FROM partials")
    _run(database, definition, "finish", params.filled(final.finish, (), {}, _NOW))
    # With a limit of 0 no state is small: every way of merging that large ones take is tried.
    builder = LayerBuilder(database, 0)
    try:
        whole = _rows(builder, Layer(shape, LayerPart(_mapped(builder, shape, "true"))), final)
        for how, layer in _ways(builder, shape):
            _compare(definition, how, whole, _rows(builder, layer, final))
    except InvalidView:
        raise
    except Exception as error:
        raise guard.engine_error(definition.sections["merge"], str(error)) from None
    return finalize.finish(
        builder, Layer(shape, LayerPart(_mapped(builder, shape, "true"))), final, _NOW
    )


def _check_totals(
    database: duckdb.DuckDBPyConnection,
    definition: ViewDefinition,
    final: finalize.FinalQuery,
    state: str,
) -> None:
    """Totals have the columns of `by`; the others can be added and taken away without loss, and
    are twice as much if each row is there twice."""
    section = definition.sections[TOTALS]
    totals = _run(database, definition, TOTALS, final.totals)
    for name in final.by:
        if name not in totals.column_names:
            raise guard.wrong(section, f"by names {name}, which is no column of totals")
    if set(totals.column_names) <= {*final.by}:
        raise guard.wrong(section, "totals have no count or sum beside the columns of by")
    # Sums of doubles depend on the order of addition, and would not come back by subtraction.
    kinds = database.sql(f"SELECT * FROM ({final.totals}\n) LIMIT 0")
    for name, type_ in zip(kinds.columns, map(str, kinds.types), strict=True):
        if name not in final.by and type_ not in _WHOLE:
            raise guard.wrong(
                section, f"{name} is {type_}: only whole numbers add up, whatever their order"
            )
    columns = [identifier(n) for n in totals.column_names]
    same = ", ".join(columns)
    doubled = ", ".join(
        c if n in final.by else f"2 * {c}"
        for n, c in zip(totals.column_names, columns, strict=True)
    )
    doubled_query = f"SELECT {doubled} FROM {given(final.totals, state=state)}"
    two = f"SELECT {same} FROM {given(final.totals, state=f'{state} UNION ALL {state}')}"
    if database.sql(
        f"({doubled_query} EXCEPT {two}) UNION ALL ({two} EXCEPT {doubled_query})"
    ).fetchall():
        raise guard.wrong(
            section, "only counts and sums can be added: twice the rows, twice as much"
        )
    view(database, TOTALS, final.totals)


def _ways(builder: LayerBuilder, shape: StateShape) -> Iterator[tuple[str, Layer]]:
    """Layers of the same rows, put together in other ways."""
    cursor = builder.cursor()
    if shape.merged:
        once = _mapped(builder, shape, "true")
        yield (
            "merged though `merged: yes`",
            Layer(shape, LayerPart(builder.merged(cursor, shape, [_select(shape, once)]))),
        )
    # Events reach a view in parts that sealing, compaction and rollback decide: by seq as they are
    # sealed, anywhere as segments are compacted, by subject as a worst case for merging.
    for count in _SPLITS:
        for how, sources in (
            ("seq", "seq // 100"),
            ("place", "hash(seq)"),
            ("subject", "hash(subject)"),
        ):
            partials: list[LayerTable] = [
                _mapped(builder, shape, f"coalesce({sources}, 0) % {count} = {n}")
                for n in range(count)
            ]
            # Partials come in any order in the engine as well; the seed keeps a failure repeatable.
            random.Random(count).shuffle(partials)
            layer = Layer(shape, LayerPart(partials[0]))
            for partial in partials[1:]:
                layer = builder.extend(cursor, layer, [partial])
            yield f"split {count} times by {how}", layer
            halves = [
                builder.merged(cursor, shape, [_select(shape, p) for p in half])
                for half in (partials[: count // 2], partials[count // 2 :])
            ]
            twice = builder.merged(cursor, shape, [_select(shape, h) for h in reversed(halves)])
            yield f"split {count} times by {how}, merged twice", Layer(shape, LayerPart(twice))
    empty = _mapped(builder, shape, "false")
    layer = builder.extend(
        cursor, Layer(shape, LayerPart(empty)), [_mapped(builder, shape, "true")]
    )
    yield "after no events", layer


def _mapped(builder: LayerBuilder, shape: StateShape, condition: str) -> LayerTable:
    return builder.mapped(builder.cursor(), shape, f"SELECT * FROM sample WHERE {condition}")


def _select(shape: StateShape, table: LayerTable) -> str:
    return f"SELECT {shape.listed} FROM {table.name}"


def _rows(
    builder: LayerBuilder, layer: Layer, final: finalize.FinalQuery
) -> list[tuple[object, ...]]:
    """An answer as sorted rows that compare: floats and lists as they read."""
    table = finalize.finish(builder, layer, final, _NOW)
    # Answers without ORDER BY have no order that means something.
    return sorted(
        (tuple(row.values()) for row in table.to_pylist()),
        key=lambda row: list(map(_sortable, row)),
    )


def _sortable(value: object) -> tuple[str, float | str]:
    if isinstance(value, float):
        # Six digits for sorting only; values are compared by `_alike`.
        return "float", float(f"{value:.6g}") if math.isfinite(value) else math.inf
    return type(value).__name__, str(value)


def _compare(
    definition: ViewDefinition,
    how: str,
    whole: list[tuple[object, ...]],
    split: list[tuple[object, ...]],
) -> None:
    expected: object
    right: object
    for expected, right in zip(whole, split, strict=False):
        if not all(map(_alike, expected, right)):
            break
    else:
        if len(whole) == len(split):
            return
        expected, right = len(whole), len(split)
    raise guard.wrong(
        definition.sections["merge"],
        f"the answer depends on how events are put together ({how}): at once it has"
        f" {_shown(expected)}, so it has {_shown(right)}; merge must be associative",
    )


def _shown(row: Any) -> str:
    if isinstance(row, int):
        return f"{row} rows"
    line = ", ".join(map(str, row))
    return line if len(line) <= 120 else f"{line[:117]}..."


def _alike(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        # Sums of doubles depend on their order: nobody asks for their last digits. NaN equals NaN
        # here.
        return a == b or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (a != a and b != b)
    return bool(a == b)


def _same_columns(definition: ViewDefinition, mapped: list[str], merge_columns: list[str]) -> None:
    if sorted(mapped) != sorted(merge_columns):
        raise guard.wrong(
            definition.sections["merge"],
            f"merge gives {', '.join(merge_columns)}, and map {', '.join(mapped)}: they must be"
            " the same",
        )


def _run(
    database: duckdb.DuckDBPyConnection, definition: ViewDefinition, section: str, sql: str
) -> pa.Table:
    """Run one section alone, so that the engine's line is the section's."""
    try:
        return database.sql(sql).to_arrow_table()
    except duckdb.Error as error:
        # A relation's error has no line, and EXPLAIN's has.
        message = _placed(database, sql) or str(error)
        raise guard.engine_error(definition.sections[section], message) from None


def _placed(database: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The engine's words with the line that relations leave out, for SQL that does not bind."""
    try:
        database.execute(f"EXPLAIN {sql}").fetchall()
    except duckdb.Error as error:
        return str(error)
    return ""
