"""The tables `patterns` and `event_patterns`: templates of messages, and which event has which.

Messages are counted by shape in a view of its own, so that only new events are read. Templates are
made of the counted shapes when a query names a table; they depend on the events of the state alone.

Templates of messages: what a lake's programs say, how often, what is new and what is gone.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable
from typing import Any

from lakelog.event import BookkeepingEvent
from lakelog.libraries import duckdb, pa, pc
from lakelog.patterns import shape_sql, templates_of
from lakelog.workers import WorkerPool

PATTERNS, EVENT_PATTERNS = "patterns", "event_patterns"
NAMES = (PATTERNS, EVENT_PATTERNS)
_EXAMPLE = 300
_BATCH = 10_000
SHAPES, TEMPLATES = "lakelog_shapes", "lakelog_templates"
PATTERNS_QUERY = f"""
    SELECT pattern_id, template,
        CASE WHEN min(source) = max(source) AND count(source) = count(*) THEN min(source) END
            AS source, sum(events)::BIGINT AS count, min(first_seen) AS first_seen,
        max(last_seen) AS last_seen, sum(events) / sum(sum(events)) OVER () AS share,
        count(DISTINCT source) AS sources, arg_min(example, first_place) AS example
    FROM {SHAPES} JOIN {TEMPLATES} USING (shape)
    GROUP BY pattern_id, template ORDER BY count DESC, template"""
"""A row for each template, the most frequent first; `source` is NULL where messages of several
sources, or of none, have it. Over counted shapes and their templates."""


@functools.cache
def shapes_view() -> str:
    """The definition of the view that counts shapes by source and type."""
    return f"""-- name: message_shapes
-- version: 3
-- about: Messages counted by source, type and shape.
-- key: source, type, shape
-- map
SELECT source, type, {shape_sql("message")} AS shape, count(*) AS events, min(time) AS first_seen,
    max(time) AS last_seen, min(place) AS first_place,
    arg_min(left(message, {_EXAMPLE}), place) AS example
FROM segment WHERE message IS NOT NULL AND {BookkeepingEvent.IS_OBSERVED} GROUP BY ALL
-- merge
SELECT source, type, shape, sum(events) AS events, min(first_seen) AS first_seen,
    max(last_seen) AS last_seen, min(first_place) AS first_place,
    arg_min(example, first_place) AS example
FROM partials GROUP BY ALL
-- finish
SELECT source, type, shape, events, first_seen, last_seen, first_place, example FROM state
"""


def counts(shapes: pa.Table) -> dict[str, int]:
    """Return how many messages have each shape, for the answer of the view of shapes."""
    # Several sources and types have the same shape. Batch by batch: Arrow's sums by texts hold each
    # text three times.
    sums: dict[str, int] = {}
    for batch in shapes.select(["shape", "events"]).to_batches(_BATCH):
        for shape, count in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            sums[shape] = sums.get(shape, 0) + int(count)
    return sums


def templates(shape_counts: dict[str, int]) -> pa.Table:
    """Return columns `shape`, `pattern_id` and `template`, in the order of the shapes."""
    # Of all shapes together: a template depends on what else is said.
    template_of = templates_of(shape_counts)
    return pa.table(
        {
            "shape": pa.array(template_of, pa.string()),
            "pattern_id": pa.array([template.id for template in template_of.values()], pa.string()),
            "template": pa.array(
                [template.pattern for template in template_of.values()], pa.string()
            ),
        }
    )


def patterns_table(
    cursor: duckdb.DuckDBPyConnection, shapes: pa.Table, mapping: pa.Table
) -> pa.Table:
    """Return the table `patterns`, for counted shapes and their templates."""
    cursor.register(SHAPES, shapes)
    cursor.register(TEMPLATES, mapping)
    return cursor.sql(PATTERNS_QUERY).to_arrow_table()


def event_patterns_sql(mapping: str) -> str:
    """Return SQL for the table `event_patterns` over `events` and a table of templates: the seq of
    each event that has a message, and the id of its pattern."""
    return f"""
        SELECT seq, pattern_id
        FROM (SELECT seq, {shape_sql("message")} AS shape FROM events
            WHERE message IS NOT NULL AND {BookkeepingEvent.IS_OBSERVED})
        JOIN {mapping} USING (shape)"""


TimeBound = str | datetime.datetime | int
"""A time as text, as a datetime, or in microseconds."""


def patterns(
    lake: Any,
    *,
    source: str | None = None,
    type: str | None = None,
    since: TimeBound | None = None,
    until: TimeBound | None = None,
    new: Any = None,
    absent_since: Any = None,
    workers: str | None = None,
) -> pa.Table:
    """Return the templates of messages of an open Lake or of a past state, the most frequent first:
    pattern_id, template, source, count, first_seen, last_seen, share, sources, example, as the
    table `patterns` has them.

    Counted are events of a source, of a type, and of times (text, datetime or microseconds). `new`
    is an earlier state: only templates that no message had there. `absent_since` is one, too: only
    its templates that no message has had since, with their counts there. `workers` is where what
    nobody has asked for yet is read: by "local" processes, or at "ray://HOST:PORT". Raises
    InvalidView, SnapshotGone, Damaged, and what `WorkerPool.at` raises.
    """
    with WorkerPool.at(workers) as pool:
        for state in (lake, new, absent_since) if pool else ():
            if state is not None:
                state._views.build(shapes_view(), pool, getattr(state, "id", None))
    if absent_since is not None:
        # All of now, whatever the times asked for: what came later is no longer absent.
        counts_now = counts(_shapes(lake))
        return _table(
            absent_since,
            _selected(_shapes(absent_since, since, until), source, type),
            lambda shape, count: counts_now.get(shape, 0) <= count,
        )
    shapes = _selected(_shapes(lake, since, until), source, type)
    if new is None:
        return _table(lake, shapes)
    earlier_counts = counts(_shapes(new))
    return _table(lake, shapes, lambda shape, _: shape not in earlier_counts)


def _table(
    state: Any, shapes: pa.Table, is_wanted: Callable[[str, int], bool] | None = None
) -> pa.Table:
    """The table of counted shapes; only templates of which all shapes of a state are wanted."""
    # Templates are those of the whole state: a window must not give messages other ones.
    shape_counts = counts(_shapes(state))
    mapping = templates(shape_counts)
    if is_wanted is not None:
        ids = mapping["pattern_id"].to_pylist()
        # A template is new only if none of its shapes was there.
        refused = {
            pattern
            for pattern, (shape, count) in zip(ids, shape_counts.items(), strict=True)
            if not is_wanted(shape, count)
        }
        mapping = mapping.filter(pa.array([pattern not in refused for pattern in ids], pa.bool_()))
    tables = {SHAPES: shapes, TEMPLATES: mapping}
    table: pa.Table = state.sql(PATTERNS_QUERY, variables=tables).to_arrow_table()
    return table


def _shapes(state: Any, since: TimeBound | None = None, until: TimeBound | None = None) -> pa.Table:
    view: pa.Table = state._views.view(
        shapes_view(), None, getattr(state, "id", None), since=since, until=until
    )
    return view


def _selected(shapes: pa.Table, source: str | None, type: str | None) -> pa.Table:
    for column, value in (("source", source), ("type", type)):
        if value is not None:
            # Its own error says what is no valid Unicode; given a text it does not know the type.
            wanted = pa.scalar(value, pa.string())
            shapes = shapes.filter(pc.equal(shapes[column], wanted))
    return shapes
