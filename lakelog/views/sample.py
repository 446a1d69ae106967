"""Trying a new view before it is kept: both ways on a sample, with no file within reach.

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
from lakelog.runtime.lazy import Lazy
from lakelog.segments.sql import identifier
from lakelog.views import finalize, guard, params
from lakelog.views.definition import PLAIN, TOTALS, Definition
from lakelog.views.engine import PLACE, shape_of
from lakelog.views.layers import Layer, LayerBuilder, LayerPart, Shape, Table, given, view

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
else:
    duckdb = Lazy("duckdb")

ROWS = 3_000
_SPLITS = (2, 3, 7)
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_NOW = 1_900_000_000_000_000
_LOCKED: dict[str, str | bool | int | float | list[str]] = {
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
    definition: Definition, rows: pa.Table, given: Mapping[str, Any] | None = None
) -> pa.Table:
    """Try a definition on rows of `events` with seq; return its answer.

    `given` are values of parameters without a default. Raises InvalidView: section, line, what.
    """
    values = params.values(definition.name, definition.params, given)
    with duckdb.connect(":memory:", config=_LOCKED) as own:
        own.execute("SET TimeZone = 'UTC'")
        guard.check(definition, own.cursor())
        _fill(own, rows)
        if not definition.is_projection:
            view(own, "events", "SELECT * EXCLUDE (place) FROM sample")
            return _run(own, definition, PLAIN, definition.filled(PLAIN, values, _NOW))
        return _both_ways(own, definition, values)


def _fill(own: duckdb.DuckDBPyConnection, rows: pa.Table) -> None:
    """Make the table `sample`: the rows, and some of them again as others."""
    own.register("given", rows)
    own.execute(
        f"CREATE TABLE sample AS SELECT *, {PLACE} FROM"
        f" ({'SELECT * FROM given' if rows.num_rows else _MADE})"
    )
    own.unregister("given")
    own.execute(
        """
        INSERT INTO sample BY NAME
        SELECT * REPLACE (b.seq + 1000000000 AS seq, b.subject AS subject, b.type AS type,
            a.place + 1000000000 AS place)
        FROM (SELECT *, row_number() OVER (ORDER BY seq) AS n FROM sample LIMIT 400) a
        JOIN (SELECT subject, type, seq, row_number() OVER (ORDER BY seq DESC) AS n FROM sample
            LIMIT 400) b USING (n)""".replace("SELECT * REPLACE", "SELECT * EXCLUDE (n) REPLACE")
    )


def _both_ways(
    own: duckdb.DuckDBPyConnection, definition: Definition, values: params.Values
) -> pa.Table:
    maps, merges = (definition.filled(s, values) for s in ("map", "merge"))
    asked = finalize.asked(definition, values)
    view(own, "segment", "SELECT * FROM sample")
    # Each section is run alone first, so that an error names the section that it is in.
    mapped = _run(own, definition, "map", maps)
    own.register("mapped", mapped)
    try:
        shape = shape_of(own.cursor(), definition, maps, merges)
    except Exception as error:
        raise guard.engine_error(definition.sections["map"], str(error)) from None
    listed = ", ".join(f'"{n}"::{kind} AS "{n}"' for n, kind in shape.columns)
    view(own, "partials", f"SELECT {listed} FROM mapped")
    merged = _run(own, definition, "merge", merges)
    _same_columns(definition, mapped.column_names, merged.column_names)
    view(own, "state", f"SELECT {listed} FROM partials")
    if asked.totals:
        _check_totals(own, definition, asked, f"SELECT {listed} FROM partials")
    _run(own, definition, "finish", params.filled(asked.finish, (), {}, _NOW))
    # With a limit of 0 no state is small: every way of merging that large ones take is tried.
    builder = LayerBuilder(own, 0)
    try:
        whole = _rows(builder, Layer(shape, LayerPart(_mapped(builder, shape, "true"))), asked)
        for how, layer in _ways(builder, shape):
            _compare(definition, how, whole, _rows(builder, layer, asked))
    except InvalidView:
        raise
    except Exception as error:
        raise guard.engine_error(definition.sections["merge"], str(error)) from None
    return finalize.finish(
        builder, Layer(shape, LayerPart(_mapped(builder, shape, "true"))), asked, _NOW
    )


def _check_totals(
    own: duckdb.DuckDBPyConnection, definition: Definition, asked: finalize.FinalQuery, state: str
) -> None:
    """Totals have the columns of `by`; the others can be added and taken away without loss, and
    are twice as much if each row is there twice."""
    section = definition.sections[TOTALS]
    totals = _run(own, definition, TOTALS, asked.totals)
    for name in asked.by:
        if name not in totals.column_names:
            raise guard.wrong(section, f"by names {name}, which is no column of totals")
    if set(totals.column_names) <= {*asked.by}:
        raise guard.wrong(section, "totals have no count or sum beside the columns of by")
    # Sums of doubles depend on the order of addition, and would not come back by subtraction.
    kinds = own.sql(f"SELECT * FROM ({asked.totals}\n) LIMIT 0")
    for name, kind in zip(kinds.columns, map(str, kinds.types), strict=True):
        if name not in asked.by and kind not in _WHOLE:
            raise guard.wrong(
                section, f"{name} is {kind}: only whole numbers add up, whatever their order"
            )
    columns = [identifier(n) for n in totals.column_names]
    same = ", ".join(columns)
    doubled = ", ".join(
        c if n in asked.by else f"2 * {c}"
        for n, c in zip(totals.column_names, columns, strict=True)
    )
    one = f"SELECT {doubled} FROM {given(asked.totals, state=state)}"
    two = f"SELECT {same} FROM {given(asked.totals, state=f'{state} UNION ALL {state}')}"
    if own.sql(f"({one} EXCEPT {two}) UNION ALL ({two} EXCEPT {one})").fetchall():
        raise guard.wrong(
            section, "only counts and sums can be added: twice the rows, twice as much"
        )
    view(own, TOTALS, asked.totals)


def _ways(builder: LayerBuilder, shape: Shape) -> Iterator[tuple[str, Layer]]:
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
        for how, by in (
            ("seq", "seq // 100"),
            ("place", "hash(seq)"),
            ("subject", "hash(subject)"),
        ):
            parts: list[Table] = [
                _mapped(builder, shape, f"coalesce({by}, 0) % {count} = {n}") for n in range(count)
            ]
            random.Random(count).shuffle(parts)
            layer = Layer(shape, LayerPart(parts[0]))
            for part in parts[1:]:
                layer = builder.extend(cursor, layer, [part])
            yield f"split {count} times by {how}", layer
            halves = [
                builder.merged(cursor, shape, [_select(shape, p) for p in half])
                for half in (parts[: count // 2], parts[count // 2 :])
            ]
            twice = builder.merged(cursor, shape, [_select(shape, h) for h in reversed(halves)])
            yield f"split {count} times by {how}, merged twice", Layer(shape, LayerPart(twice))
    empty = _mapped(builder, shape, "false")
    layer = builder.extend(
        cursor, Layer(shape, LayerPart(empty)), [_mapped(builder, shape, "true")]
    )
    yield "after no events", layer


def _mapped(builder: LayerBuilder, shape: Shape, where: str) -> Table:
    return builder.mapped(builder.cursor(), shape, f"SELECT * FROM sample WHERE {where}")


def _select(shape: Shape, table: Table) -> str:
    return f"SELECT {shape.listed} FROM {table.name}"


def _rows(builder: LayerBuilder, layer: Layer, asked: finalize.FinalQuery) -> list[tuple[Any, ...]]:
    """An answer as sorted rows that compare: floats and lists as they read."""
    table = finalize.finish(builder, layer, asked, _NOW)
    return sorted(
        (tuple(row.values()) for row in table.to_pylist()),
        key=lambda row: list(map(_sortable, row)),
    )


def _sortable(value: Any) -> tuple[str, Any]:
    if isinstance(value, float):
        return "float", float(f"{value:.6g}") if math.isfinite(value) else math.inf
    return type(value).__name__, str(value)


def _compare(
    definition: Definition, how: str, whole: list[tuple[Any, ...]], split: list[tuple[Any, ...]]
) -> None:
    left: Any
    right: Any
    for left, right in zip(whole, split, strict=False):
        if not all(map(_alike, left, right)):
            break
    else:
        if len(whole) == len(split):
            return
        left, right = len(whole), len(split)
    raise guard.wrong(
        definition.sections["merge"],
        f"the answer depends on how events are put together ({how}): at once it has"
        f" {_shown(left)}, so it has {_shown(right)}; merge must be associative",
    )


def _shown(row: Any) -> str:
    if isinstance(row, int):
        return f"{row} rows"
    text = ", ".join(map(str, row))
    return text if len(text) <= 120 else f"{text[:117]}..."


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a == b or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (a != a and b != b)
    return bool(a == b)


def _same_columns(definition: Definition, mapped: list[str], merged: list[str]) -> None:
    if sorted(mapped) != sorted(merged):
        raise guard.wrong(
            definition.sections["merge"],
            f"merge gives {', '.join(merged)}, and map {', '.join(mapped)}: they must be the same",
        )


def _run(
    own: duckdb.DuckDBPyConnection, definition: Definition, section: str, sql: str
) -> pa.Table:
    """Run one section alone, so that the engine's line is the section's."""
    try:
        return own.sql(sql).to_arrow_table()
    except duckdb.Error as error:
        words = _placed(own, sql) or str(error)
        raise guard.engine_error(definition.sections[section], words) from None


def _placed(own: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The engine's words with the line that relations leave out, for SQL that does not bind."""
    try:
        own.execute(f"EXPLAIN {sql}").fetchall()
    except duckdb.Error as error:
        return str(error)
    return ""
