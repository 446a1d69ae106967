"""Templates of log messages: what messages have in common once their values are taken out.

`shape_sql` is SQL for a message without what is a value by its form; `templates_of` merges shapes
that differ only where values stand. `pattern_events` and `statistics_event` are what was learnt,
as events.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.patterns.findings import pattern_events, statistics_event
    from lakelog.patterns.masks import beginning_sql, shape_sql
    from lakelog.patterns.mining import Template, templates_of

__all__ = [
    "Template",
    "beginning_sql",
    "pattern_events",
    "shape_sql",
    "statistics_event",
    "templates_of",
]

__getattr__ = lazy_face(
    __name__,
    findings="pattern_events statistics_event",
    masks="beginning_sql shape_sql",
    mining="Template templates_of",
)
