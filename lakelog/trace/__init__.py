"""What one request or run of an agent caused: its events as a tree.

`trace_of` finds the `TraceTree` of an event id, trace id, span id or correlation id; `traces` lists
them in one of `ORDERS`, each as a `TraceSummary`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.trace.links import trace_of
    from lakelog.trace.listing import ORDERS, TraceSummary, traces
    from lakelog.trace.tree import TraceEvent, TraceTree

__all__ = ["ORDERS", "TraceEvent", "TraceSummary", "TraceTree", "trace_of", "traces"]

__getattr__ = lazy_face(
    __name__, links="trace_of", listing="ORDERS TraceSummary traces", tree="TraceEvent TraceTree"
)
