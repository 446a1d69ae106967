"""Templates of log messages: what messages have in common once their values are taken out.

`shape_sql` is SQL for a message without what is a value by its form; `templates_of` merges shapes
that differ only where values stand. `pattern_events` and `statistics_event` are what was learnt,
as events.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.patterns.findings import pattern_events as pattern_events
    from lakelog.patterns.findings import statistics_event as statistics_event
    from lakelog.patterns.masks import beginning_sql as beginning_sql
    from lakelog.patterns.masks import shape_sql as shape_sql
    from lakelog.patterns.mining import Template as Template
    from lakelog.patterns.mining import templates_of as templates_of

__getattr__, __all__ = lazy_face(__name__)
