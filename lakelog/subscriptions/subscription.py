"""A subscription: the events of a branch, first those that are there and then live ones, each once.

`run` calls a handler. Live events reach it as soon as they are acknowledged; several times a second
they are sealed, and one move takes the position behind them and appends what the handler returned.
A handler that was cut off handles again what was not committed, and nothing else of it is stored.

`batches` hands out published events with the position behind them, for a program that stores it in
a transaction of its own.

Every process that subscribes by one name is a member of a group: each has a share of the
partitions, which are the events of some subjects (members.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from lakelog import arrays
from lakelog.errors import InvalidSetting, SubscriptionRewound
from lakelog.libraries import pa
from lakelog.refs import Head, only_grew
from lakelog.subscriptions import catch_up, registry
from lakelog.subscriptions.branch_access import BranchAccess
from lakelog.subscriptions.commit import CommitRequest, PositionMoved, commit
from lakelog.subscriptions.delivery import (
    ATTEMPTS,
    BatchHandler,
    Delivery,
    EventBatch,
    EventHandler,
    Handled,
    as_events,
    one_by_one,
)
from lakelog.subscriptions.follower import Follower
from lakelog.subscriptions.group_runner import COMMIT_EVERY, GroupRunner
from lakelog.subscriptions.members import LEASE, Membership
from lakelog.subscriptions.position import PARTITIONS, Position
from lakelog.subscriptions.record import SubscriptionRecord

BATCH = 1_000
_WAIT = 0.5
"""Seconds after which `stop` is looked at where nothing happens."""
_ALL = frozenset(range(PARTITIONS))


class Subscription:
    """Hands out the events of one branch. One thread uses it; close it when done."""

    def __init__(
        self,
        access: BranchAccess,
        name: str | None,
        condition: str | None = None,
        start: str = "beginning",
        *,
        lease: float = LEASE,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Subscribe under a name, which keeps the position in the lake, or without one.

        `start` is `beginning`, `end`, or without a name what `position` of a batch was; it counts
        for a new subscription alone. Raises InvalidSetting, QueryFailed, SubscriptionRewound.
        """
        self._access, self.name, self._lease, self._begin = access, name, lease, start
        self._say = say or (lambda message: None)
        self._members: Membership | None = None
        # A condition that is wrong is refused now, and not when events come.
        if condition is not None:
            Follower(access, condition)  # which tries it
        if name is None:
            self._condition_sql = condition
            self._external = registry.external_start(access, start)
        else:
            self._condition_sql = registry.register(access, name, condition, start).condition

    def run(
        self,
        handler: EventHandler,
        *,
        stop: threading.Event | None = None,
        once: bool = False,
        attempts: int = ATTEMPTS,
        commit_every: float = COMMIT_EVERY,
    ) -> int:
        """Call `handler` with each event until `stop` is set, or with `once` until none is left;
        return how many were handled.

        What it returns, an event or several, is appended in the move that takes the position behind
        the event. An event for which it raises `attempts` times becomes a dead letter. Raises
        SubscriptionGone, Damaged, OSError.
        """
        return self.run_batches(
            one_by_one(handler), stop=stop, once=once, attempts=attempts, commit_every=commit_every
        )

    def run_batches(
        self,
        handler: BatchHandler,
        *,
        stop: threading.Event | None = None,
        once: bool = False,
        attempts: int = ATTEMPTS,
        commit_every: float = COMMIT_EVERY,
        size: int = BATCH,
    ) -> int:
        """Like `run`, with a handler of up to `size` events, which is called with single ones again
        where it fails."""
        stop = stop or threading.Event()
        if self.name is None:
            raise InvalidSetting("a subscription without a name has no position here: use batches")
        if attempts < 1:
            raise InvalidSetting(f"attempts are 1 or more, not {attempts}")
        delivery = Delivery(self.name, handler, attempts=attempts, stop=stop, say=self._say)
        membership = self._join()
        runner = GroupRunner(
            self._access,
            self.name,
            self._condition_sql,
            self._begin,
            membership,
            delivery,
            stop=stop,
            commit_every=commit_every,
            size=size,
        )
        try:
            # Rounds end when partitions change hands, and begin with new ones.
            while not stop.is_set():
                if runner.round(once=once) and once:
                    break
        finally:
            # Others need not wait for the lease.
            membership.hold(frozenset())
        return runner.handled

    def batches(
        self,
        *,
        size: int = BATCH,
        stop: threading.Event | None = None,
        timeout: float | None = None,
    ) -> Iterator[EventBatch]:
        """Yield published events, up to `size` together, until `stop` is set or for `timeout`
        seconds none came. The subscription goes on with the next batch whether or not one was
        committed; who subscribes again begins where the last commit was.

        Raises SubscriptionRewound where the branch was rewound behind a batch that was handed out.
        """
        stop, access = stop or threading.Event(), self._access
        record, head = self._start()
        place = record.positions[0] if record else self._external
        committed = dict.fromkeys(_ALL, place)
        generation, since = head.move.generation, time.monotonic()

        def seconds() -> float:
            return _WAIT if timeout is None else min(since + timeout - time.monotonic(), _WAIT)

        for is_due in access.signal.looks(stop, seconds):
            if not is_due:
                if seconds() <= 0:
                    return
                continue
            # Only published events have positions that can be stored.
            earlier, head = head, access.settle()
            if head.move.generation != generation:
                raise registry.rewound(access, generation, place, head)
            if not only_grew(access.store.refs, head, earlier):
                raise registry.rewound(access, None, place, head)
            state = access.state(head)
            condition = registry.condition_of(self._condition_sql, _ALL)
            for table in catch_up.read(access.store, access.connect, state, condition, place, size):
                place = table.position
                if stop.is_set():
                    # The position of the last batch is kept: nothing was lost.
                    return
                if table.events.num_rows:
                    yield self._batch(table.events, place, record, head, committed)
                    since = time.monotonic()

    def close(self) -> None:
        """Leave the group: other members take over at once."""
        members, self._members = self._members, None
        if members is not None:
            members.close()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _join(self) -> Membership:
        if self._members is None:
            assert self.name is not None
            self._members = Membership(
                self._access.store, self._access.branch, self.name, self._lease
            )
        return self._members

    def _start(self) -> tuple[SubscriptionRecord | None, Head]:
        head = self._access.head()
        if self.name is None:
            return None, head
        record = registry.require(self._access, self._access.state(head), self.name)
        # One position is what a program stores.
        if len(set(record.positions)) > 1:
            raise InvalidSetting(
                f"{self.name!r} has partitions at different places: `run` brings them together"
            )
        return record, head

    def _batch(
        self,
        table: pa.Table,
        place: Position,
        record: SubscriptionRecord | None,
        head: Head,
        committed: dict[int, Position],
    ) -> EventBatch:
        access, events = self._access, arrays.records(table)
        position = registry.position_text(access, head.move, place)

        def commit_batch(outputs: object = None) -> None:
            if record is None:
                raise InvalidSetting("a subscription without a name keeps no position here")
            handled = Handled(len(events), 0, as_events(outputs))
            after = dict.fromkeys(_ALL, place)
            try:
                commit(access, CommitRequest(record, head, dict(committed), after, handled))
            except PositionMoved:
                raise SubscriptionRewound(
                    f"{record.name!r} was moved by another member or a rollback: subscribe again"
                ) from None
            # The next commit has to find what this one left, or somebody else was there.
            committed.update(after)

        return EventBatch(events, position, commit_batch)
