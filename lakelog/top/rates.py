"""Rates of the last minute, by level, source and type, and the newest events. Pure: the times are
given."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

SECONDS = 60
RECENT = 5
"""Seconds of which the rate of now is the mean."""
NEWEST_MAX = 200
COLUMNS = ("level", "source", "type")
ERRORS = ("ERROR", "FATAL")


@dataclass(frozen=True)
class NewestEvent:
    """An event as the list of the newest shows it."""

    time: str
    level: str
    source: str
    type: str
    message: str


@dataclass
class SecondCounts:
    """What came in one look: events in total, and by column and value; "" stands for null."""

    time: float
    events: int = 0
    counts: dict[str, Counter[str]] = field(
        default_factory=lambda: {column: Counter() for column in COLUMNS}
    )

    def add(self, column: str, value: str, events: int = 1) -> None:
        """Count events with a value."""
        self.counts[column][value] += events


@dataclass
class LakeFigures:
    """What a frame shows of the events: totals of the state, counts of the last minute."""

    is_live: bool = True
    events: int = 0
    pending: int = 0
    quarantined: int = 0
    bytes: int = 0
    wal_bytes: int = 0
    index_bytes: int = 0
    segments: int = 0
    bytes_a_day: float = 0.0
    totals: dict[str, Mapping[str, int]] = field(default_factory=dict)
    """Published events by column and value."""
    newest: deque[NewestEvent] = field(default_factory=lambda: deque(maxlen=NEWEST_MAX))
    looks: deque[SecondCounts] = field(default_factory=deque)
    minute: dict[str, Counter[str]] = field(
        default_factory=lambda: {column: Counter() for column in COLUMNS}
    )
    """The sums of all looks but the first, by column and value."""

    def look(self, counts: SecondCounts) -> None:
        """Take over what came, and forget what is older than a minute. What comes with the first
        look was there before it, and counts for nothing."""
        if self.looks:
            for column in COLUMNS:
                self.minute[column].update(counts.counts[column])
        self.looks.append(counts)
        # One older look stays: the span of the minute begins at its time.
        while len(self.looks) > 1 and self.looks[1].time <= counts.time - SECONDS:
            self.looks.popleft()
            expired = self.looks[0]
            for column in COLUMNS:
                # Subtraction drops values that come to nothing.
                self.minute[column] -= expired.counts[column]

    def clear(self) -> None:
        """Forget what came: the branch was taken to another state."""
        self.looks.clear()
        self.newest.clear()
        for counter in self.minute.values():
            counter.clear()

    @property
    def span(self) -> float:
        """Seconds between the first look that counts and the last."""
        return self.looks[-1].time - self.looks[0].time if self.looks else 0.0

    def rate(self) -> tuple[float, float]:
        """Events a second, of now and of the minute."""
        looks, span = self._recent_looks()
        # Over several seconds: a look comes now sooner, now later.
        recent = sum(look.events for look in looks)
        # The first look is of what was there before.
        whole = sum(look.events for look in itertools.islice(self.looks, 1, None))
        return _of(span, recent), _of(self.span, whole)

    def errors(self) -> tuple[float, float]:
        """Errors a second, of now and of the minute."""
        recent, span = self._recent("level")
        return (
            _of(span, sum(recent[level] for level in ERRORS)),
            _of(self.span, sum(self.minute["level"][level] for level in ERRORS)),
        )

    def by(self, column: str) -> dict[str, tuple[float, float, int]]:
        """For each value of a column, the rates of now and of the minute, and the total."""
        recent, span = self._recent(column)
        minute, totals = self.minute[column], self.totals.get(column, {})
        return {
            name: (_of(span, recent[name]), _of(self.span, minute[name]), totals.get(name, 0))
            for name in totals.keys() | minute.keys()
        }

    def seconds(self, count: int) -> list[float]:
        """Events a second in each of the last seconds, the newest behind all."""
        if not self.looks:
            return []
        end, result = self.looks[-1].time, [0.0] * count
        for before, look in itertools.pairwise(self.looks):
            rate = look.events / max(look.time - before.time, 1e-9)
            # A look that comes late is of more than one second.
            for second in range(int(end - look.time), max(int(end - before.time), 1)):
                if second < count:
                    result[count - 1 - second] = rate
        return result

    def _recent_looks(self) -> tuple[list[SecondCounts], float]:
        """The looks of the last seconds, and the time that they are of."""
        looks = list(self.looks)
        if len(looks) < 2:
            return [], 0.0
        start = looks[-1].time - RECENT
        # The look before these begins the span.
        place = max(1, next(i for i, look in enumerate(looks) if look.time > start))
        return looks[place:], looks[-1].time - looks[place - 1].time

    def _recent(self, column: str) -> tuple[Counter[str], float]:
        looks, span = self._recent_looks()
        result = Counter[str]()
        for look in looks:
            result.update(look.counts[column])
        return result, span


def _of(span: float, events: int) -> float:
    return events / span if span > 0 else 0.0
