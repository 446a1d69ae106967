"""What one request or run of an agent caused: its events as a tree.

`trace_of` finds the `TraceTree` of an event id, trace id, span id or correlation id; `traces` lists
them in one of `ORDERS`, each as a `TraceSummary`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.trace.links import trace_of as trace_of
    from lakelog.trace.listing import ORDERS as ORDERS
    from lakelog.trace.listing import TraceSummary as TraceSummary
    from lakelog.trace.listing import traces as traces
    from lakelog.trace.tree import TraceEvent as TraceEvent
    from lakelog.trace.tree import TraceTree as TraceTree

__getattr__, __all__ = lazy_face(__name__)
