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
from lakelog.patterns import Template, beginning_sql, shape_sql, templates_of
from lakelog.workers import WorkerPool

PATTERNS, EVENT_PATTERNS = "patterns", "event_patterns"
NAMES = (PATTERNS, EVENT_PATTERNS)
SHAPES_MAX = 20_000
"""Shapes of which templates are made, the most frequent first. Rarer ones are told apart by their
first word alone."""
_EXAMPLE = 300
SHAPES, TEMPLATES = "lakelog_shapes", "lakelog_templates"
PATTERNS_QUERY = f"""
    SELECT pattern_id, template,
        CASE WHEN min(source) = max(source) AND count(source) = count(*) THEN min(source) END
            AS source, sum(events)::BIGINT AS count, min(first_seen) AS first_seen,
        max(last_seen) AS last_seen, sum(events) / sum(sum(events)) OVER () AS share,
        count(DISTINCT source) AS sources, arg_min(example, first_place) AS example
    FROM {SHAPES} JOIN {TEMPLATES} USING (shape_id)
    GROUP BY pattern_id, template ORDER BY count DESC, template"""
"""A row for each template, the most frequent first; `source` is NULL where messages of several
sources, or of none, have it. Over counted shapes and their templates."""


def _id_sql(shape: str) -> str:
    # What is held of a million shapes is not their text.
    return f"unhex(md5({shape}))"


@functools.cache
def shapes_view(finish: str = "") -> str:
    """The definition of the view that counts shapes by source and type; a shape is a digest in its
    answer."""
    rows = f"SELECT * EXCLUDE (shape), {_id_sql('shape')} AS shape_id FROM state"
    return f"""-- name: message_shapes
-- version: 4
-- about: Messages counted by source, type and shape.
-- key: source, type, shape
-- merged: yes
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
{finish or rows}
"""


@functools.cache
def ranks_view() -> str:
    """The definition of the view of all shapes by their digests: how often each is, and its text,
    of a rare one only the beginning. It has the state of the view above."""
    # Ranked by digests: to sort texts would hold all of them. Of equal counts the same ones, in
    # whatever order segments gave them.
    return shapes_view(f"""WITH counted AS MATERIALIZED (
        SELECT {_id_sql("shape")} AS shape_id, sum(events) AS events FROM state GROUP BY ALL),
    ranked AS MATERIALIZED (SELECT *, row_number() OVER (ORDER BY events DESC, shape_id)
        > {SHAPES_MAX} AS is_rare FROM counted),
    shapes AS (SELECT {_id_sql("shape")} AS shape_id, shape FROM state)
SELECT shape_id, any_value(events)::BIGINT AS events, any_value(is_rare) AS is_rare,
    any_value(CASE WHEN is_rare THEN {beginning_sql("shapes.shape")} ELSE shapes.shape END) AS shape
FROM shapes JOIN ranked USING (shape_id) GROUP BY shape_id""")


def templates(ranking: pa.Table) -> pa.Table:
    """Return columns `shape_id`, `pattern_id` and `template`, for the answer of the view of ranks,
    in its order."""
    columns = (ranking[name].to_pylist() for name in ("shape", "events", "is_rare"))
    ranks = list(zip(*columns, strict=True))
    # Of all frequent shapes together: a template depends on what else is said.
    frequent = templates_of({shape: count for shape, count, is_rare in ranks if not is_rare})
    rare = {shape: Template.of_shape(shape) for shape in {r[0] for r in ranks if r[2]}}
    in_order = [(rare if is_rare else frequent)[shape] for shape, _, is_rare in ranks]
    return pa.table(
        {
            "shape_id": ranking["shape_id"],
            "pattern_id": pa.array([template.id for template in in_order], pa.string()),
            "template": pa.array([template.pattern for template in in_order], pa.string()),
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
        FROM (SELECT seq, {_id_sql(shape_sql("message"))} AS shape_id FROM events
            WHERE message IS NOT NULL AND {BookkeepingEvent.IS_OBSERVED})
        JOIN {mapping} USING (shape_id)"""


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
        counts_now = _counts(_ranking(lake))
        return _table(
            absent_since,
            _selected(_shapes(absent_since, since, until), source, type),
            lambda shape_id, count: counts_now.get(shape_id, 0) <= count,
        )
    shapes = _selected(_shapes(lake, since, until), source, type)
    if new is None:
        return _table(lake, shapes)
    earlier_counts = _counts(_ranking(new))
    return _table(lake, shapes, lambda shape_id, _: shape_id not in earlier_counts)


def _table(
    state: Any, shapes: pa.Table, is_wanted: Callable[[bytes, int], bool] | None = None
) -> pa.Table:
    """The table of counted shapes; only templates of which all shapes of a state are wanted."""
    # Templates are those of the whole state: a window must not give messages other ones.
    ranking = _ranking(state)
    mapping = templates(ranking)
    if is_wanted is not None:
        ids = mapping["pattern_id"].to_pylist()
        # A template is new only if none of its shapes was there.
        refused = {
            pattern
            for pattern, (shape_id, count) in zip(ids, _counts(ranking).items(), strict=True)
            if not is_wanted(shape_id, count)
        }
        mapping = mapping.filter(pa.array([pattern not in refused for pattern in ids], pa.bool_()))
    tables = {SHAPES: shapes, TEMPLATES: mapping}
    table: pa.Table = state.sql(PATTERNS_QUERY, variables=tables).to_arrow_table()
    return table


def _shapes(
    state: Any,
    since: TimeBound | None = None,
    until: TimeBound | None = None,
    view: Callable[[], str] = shapes_view,
) -> pa.Table:
    answer: pa.Table = state._views.view(
        view(), None, getattr(state, "id", None), since=since, until=until
    )
    return answer


def _ranking(state: Any) -> pa.Table:
    return _shapes(state, view=ranks_view)


def _counts(ranking: pa.Table) -> dict[bytes, int]:
    columns = (ranking[name].to_pylist() for name in ("shape_id", "events"))
    return dict(zip(*columns, strict=True))


def _selected(shapes: pa.Table, source: str | None, type: str | None) -> pa.Table:
    for column, value in (("source", source), ("type", type)):
        if value is not None:
            # Its own error says what is no valid Unicode; given a text it does not know the type.
            wanted = pa.scalar(value, pa.string())
            shapes = shapes.filter(pc.equal(shapes[column], wanted))
    return shapes
