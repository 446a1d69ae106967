"""Templates of messages: what a lake's programs say, how often, what is new and what is gone."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from lakelog.libraries import pa, pc
from lakelog.views import pattern_tables

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
) -> pa.Table:
    """Return the templates of messages of an open Lake or of a past state, the most frequent first:
    pattern_id, template, source, count, first_seen, last_seen, share, sources, example, as the
    table `patterns` has them.

    Counted are events of a source, of a type, and of times (text, datetime or microseconds). `new`
    is an earlier state: only templates that no message had there. `absent_since` is one, too: only
    its templates that no message has had since, with their counts there. Raises InvalidView,
    SnapshotGone, Damaged.
    """
    if absent_since is not None:
        counts_now = pattern_tables.counts(_shapes(lake))
        return _table(
            absent_since,
            _selected(_shapes(absent_since, since, until), source, type),
            lambda shape, count: counts_now.get(shape, 0) <= count,
        )
    shapes = _selected(_shapes(lake, since, until), source, type)
    if new is None:
        return _table(lake, shapes)
    earlier_counts = pattern_tables.counts(_shapes(new))
    return _table(lake, shapes, lambda shape, _: shape not in earlier_counts)


def _table(
    state: Any, shapes: pa.Table, is_wanted: Callable[[str, int], bool] | None = None
) -> pa.Table:
    """The table of counted shapes; only templates of which all shapes of a state are wanted."""
    counts = pattern_tables.counts(_shapes(state))
    mapping = pattern_tables.templates(counts)
    if is_wanted is not None:
        ids = mapping["pattern_id"].to_pylist()
        refused = {
            pattern
            for pattern, (shape, count) in zip(ids, counts.items(), strict=True)
            if not is_wanted(shape, count)
        }
        mapping = mapping.filter(pa.array([pattern not in refused for pattern in ids], pa.bool_()))
    tables = {pattern_tables.SHAPES: shapes, pattern_tables.TEMPLATES: mapping}
    table: pa.Table = state.sql(pattern_tables.PATTERNS_QUERY, variables=tables).to_arrow_table()
    return table


def _shapes(state: Any, since: TimeBound | None = None, until: TimeBound | None = None) -> pa.Table:
    view: pa.Table = state._views.view(
        pattern_tables.shapes_view(), None, getattr(state, "id", None), since=since, until=until
    )
    return view


def _selected(shapes: pa.Table, source: str | None, type: str | None) -> pa.Table:
    for column, value in (("source", source), ("type", type)):
        if value is not None:
            shapes = shapes.filter(pc.equal(shapes[column], value))
    return shapes
