"""What an item of a queue is, as it follows from the set of its facts, in whatever order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lakelog.pipeline.fact_log import COMPLETE, DISCOVER, FAIL, PROCESS, Fact

ItemKey = tuple[str, str]


@dataclass(frozen=True)
class Item:
    """One item: its source, its id within it, what it was discovered with, and which attempt."""

    source: str
    id: str
    data: Mapping[str, object] = field(default_factory=dict, hash=False)
    attempt: int = 0


@dataclass(frozen=True)
class DeadLetter:
    """An item that is not tried again, after so many failures, the last one with this reason."""

    item: Item
    failures: int
    error: str


@dataclass
class Standing:
    """The facts of one item."""

    data: Mapping[str, object] = field(default_factory=dict)
    attempt: int = 0
    worker: str = ""
    until: float = 0.0
    failed: dict[int, Fact] = field(default_factory=dict)
    released: set[int] = field(default_factory=set)
    reset: int = -1
    is_done: bool = False
    life: str = ""
    """What its ids end with, where it was added again after its facts had been removed."""

    def add(self, fact: Fact) -> None:
        """Add a fact; adding one again, or in another order, makes no difference."""
        data = fact["data"] if isinstance(fact.get("data"), dict) else {}
        # Facts of other programs have no attempt.
        attempt_number = data.get("attempt")
        attempt = attempt_number if isinstance(attempt_number, int) else 0
        # Each fact says it: retention may have removed the one with which it was added.
        life = str(fact.get("id") or "").rpartition("/")[2].partition("~")[2]
        self.life = max(self.life, life)
        if fact["type"] == COMPLETE:
            self.is_done = True
        elif fact["type"] == FAIL:
            self.failed[attempt] = data
            self.attempt = max(self.attempt, attempt)
        elif fact["type"] == PROCESS and attempt >= self.attempt:
            self.attempt, self.worker = attempt, str(data.get("worker") or "")
            self.until = _number(data.get("lease_until"))
        elif fact["type"] == DISCOVER and isinstance(data.get("released"), int):
            self.released.add(data["released"])
        elif fact["type"] == DISCOVER and isinstance(data.get("requeued"), int):
            self.reset = max(self.reset, data["requeued"])
        elif fact["type"] == DISCOVER:
            self.data = data

    @property
    def failures(self) -> int:
        """How often it failed since it was queued. Attempts of other programs have no number."""
        return sum(attempt > max(self.reset, 0) for attempt in self.failed)

    @property
    def is_dead(self) -> bool:
        """Whether it is a dead letter."""
        dead = (n > self.reset and f.get("dead") is True for n, f in self.failed.items())
        return not self.is_done and any(dead)

    @property
    def is_claimed(self) -> bool:
        """Whether an attempt is going on."""
        over = self.attempt in self.failed or self.attempt in self.released
        return not self.is_done and self.attempt > 0 and not over

    @property
    def retry_at(self) -> float:
        """When it may be tried again, in seconds since 1970."""
        failure = self.failed.get(self.attempt, {}) if self.attempt > self.reset else {}
        return _number(failure.get("retry_at"))

    def is_due(self, clock: float, longest: float) -> bool:
        """Whether it may be tried again now, where an item waits so many seconds at most."""
        # A clock that was ahead when it failed must not make it wait for as long.
        return not 0 < self.retry_at - clock <= longest


def key_of(fact: Fact) -> ItemKey:
    """Return source and id of the item that a fact is about."""
    return str(fact.get("source") or ""), str(fact.get("subject") or "")


def state_of(standing: Standing) -> str:
    """Return completed, dead, running or waiting."""
    if standing.is_done:
        return "completed"
    if standing.is_dead:
        return "dead"
    return "running" if standing.is_claimed else "waiting"


def _number(value: object) -> float:
    # Whoever may append to the log may append what only looks like a fact: it must stop no queue.
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0
