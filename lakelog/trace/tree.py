"""The tree of a trace. An event stands below

    the event that its `causation` names by id; else
    the span that its `parentSpanId` names; else, within a span, the event of that span.

An event whose parent is not there is an orphan, and stands at the top. Where events cause each
other in a cycle, the earliest of them stands at the top.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime


@dataclass(frozen=True)
class LinkedEvent:
    """An event with what links it to others."""

    seq: int
    id: str | None
    time: datetime
    type: str
    level: str | None
    source: str | None
    message: str | None
    trace_id: str | None
    span_id: str | None
    parent_id: str | None
    correlation_id: str | None
    causation_id: str | None
    duration_ms: float | None

    @property
    def opens_span(self) -> bool:
        """Whether it is the event of its span, and not one that was logged within it."""
        return self.type == "span" or self.parent_id is not None or self.duration_ms is not None


@dataclass(frozen=True)
class TraceEvent:
    """An event in its tree: how deep, and how many ms after the first event of the trace."""

    depth: int
    offset_ms: float
    event: LinkedEvent
    is_orphan: bool = False
    is_cycle: bool = False

    def record(self) -> dict[str, object]:
        """The event as JSON has it."""
        return {
            "depth": self.depth,
            "offset_ms": self.offset_ms,
            "orphan": self.is_orphan,
            "cycle": self.is_cycle,
            **asdict(self.event),
        }


@dataclass(frozen=True)
class TraceTree:
    """Everything that belongs together, each event behind its parent; siblings by time."""

    id: str
    events: tuple[TraceEvent, ...]

    def __len__(self) -> int:
        return len(self.events)


def tree_of(id: str, events: Iterable[LinkedEvent]) -> TraceTree:
    """Return the tree of events."""
    # By time, and of equal times by the order of arrival.
    ordered = sorted(events, key=lambda event: (event.time, event.seq))
    parents = _parents(ordered)
    children: dict[int | None, list[int]] = defaultdict(list)
    for place, parent in enumerate(parents):
        children[parent].append(place)
    start = ordered[0].time if ordered else None
    placed: list[TraceEvent] = []
    is_placed = [False] * len(ordered)

    def place_below(top: int, *, is_cycle: bool) -> None:
        # Without recursion: a chain of causes is as long as it likes.
        pending = [(top, 0)]
        while pending:
            place, depth = pending.pop()
            if is_placed[place]:
                continue
            is_placed[place] = True
            event = ordered[place]
            offset = (event.time - start).total_seconds() * 1000 if start else 0.0
            is_top = depth == 0
            # An event that names a parent which is not in the trace.
            has_parent = event.causation_id is not None or event.parent_id is not None
            is_orphan = is_top and not is_cycle and has_parent
            placed.append(TraceEvent(depth, offset, event, is_orphan, is_top and is_cycle))
            # Reversed, as the last one is taken first: siblings stay in order.
            pending += [(child, depth + 1) for child in reversed(children[place])]

    for top in children[None]:
        place_below(top, is_cycle=False)
    # What no top leads to is in a cycle, or hangs on one.
    for place in range(len(ordered)):
        if not is_placed[place]:
            place_below(place, is_cycle=True)
    return TraceTree(id, tuple(placed))


def _parents(events: Sequence[LinkedEvent]) -> list[int | None]:
    by_id: dict[str, int] = {}
    by_span: dict[tuple[str | None, str], int] = {}
    for place, event in enumerate(events):
        if event.id is not None:
            # The first of an id counts.
            by_id.setdefault(event.id, place)
        # Others were only logged within the span.
        if event.span_id is not None and event.opens_span:
            by_span.setdefault((event.trace_id, event.span_id), place)
    parents: list[int | None] = []
    for place, event in enumerate(events):
        parent = by_id.get(event.causation_id) if event.causation_id is not None else None
        if parent is None and event.parent_id is not None:
            parent = by_span.get((event.trace_id, event.parent_id))
            # Other systems name the parent by the id of its event.
            parent = by_id.get(event.parent_id) if parent is None else parent
        elif parent is None and event.span_id is not None:
            parent = by_span.get((event.trace_id, event.span_id))
        # An event that is its own span hangs on nothing; one that says it caused itself is a cycle.
        parents.append(None if parent == place and event.causation_id is None else parent)
    return parents
