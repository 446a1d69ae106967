"""The tables `patterns` and `event_patterns`: templates of messages, and which event has which.

Messages are counted by shape in a view of its own, so that only new events are read. Templates are
made of the counted shapes when a query names a table; they depend on the events of the state alone.
"""

from __future__ import annotations

import functools

from lakelog.event import bookkeeping
from lakelog.libraries import duckdb, pa
from lakelog.patterns import shape_sql, templates_of

PATTERNS, EVENT_PATTERNS = "patterns", "event_patterns"
NAMES = (PATTERNS, EVENT_PATTERNS)
_EXAMPLE = 300
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
-- version: 1
-- about: Messages counted by source, type and shape.
-- key: source, type, shape
-- map
SELECT source, type, {shape_sql("message")} AS shape, count(*) AS events, min(time) AS first_seen,
    max(time) AS last_seen, min(place) AS first_place,
    arg_min(left(message, {_EXAMPLE}), place) AS example
FROM segment WHERE message IS NOT NULL AND {bookkeeping.IS_DATA} GROUP BY ALL
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
    sums = shapes.select(["shape", "events"]).group_by("shape").aggregate([("events", "sum")])
    return dict(
        zip(sums["shape"].to_pylist(), map(int, sums["events_sum"].to_pylist()), strict=True)
    )


def templates(shape_counts: dict[str, int]) -> pa.Table:
    """Return columns `shape`, `pattern_id` and `template`, in the order of the shapes."""
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


def patterns(cursor: duckdb.DuckDBPyConnection, shapes: pa.Table, mapping: pa.Table) -> pa.Table:
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
            WHERE message IS NOT NULL AND {bookkeeping.IS_DATA})
        JOIN {mapping} USING (shape)"""
