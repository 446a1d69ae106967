"""One member at work: it catches up, follows what comes, and commits several times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from lakelog import arrays
from lakelog.errors import UnknownRef
from lakelog.libraries import pa, pc
from lakelog.manifest import Manifest
from lakelog.refs import Head, only_grew
from lakelog.subscriptions import catch_up, registry
from lakelog.subscriptions.branch_access import BranchAccess
from lakelog.subscriptions.commit import CommitRequest, PositionMoved, commit
from lakelog.subscriptions.delivery import Delivery
from lakelog.subscriptions.follower import Follower
from lakelog.subscriptions.live_pages import BranchRewound
from lakelog.subscriptions.members import Membership
from lakelog.subscriptions.position import Position
from lakelog.subscriptions.record import SubscriptionRecord, find

COMMIT_EVERY = 1.0
"""Seconds between two commits, each of which is a move, and adds a segment or two."""
_PENDING_MAX = 50_000
"""Events that are handled, or passed over by the condition, without a commit."""
_LOOK_EVERY = 10.0
"""Seconds after which it is seen how many events were passed over."""
_STEP = 1.0
"""Seconds after which `stop` is looked at where nothing happens."""


class GroupRunner:
    """Handles the partitions of one member, round by round.

    `_committed` is where the state has each partition, `_reached` how far its events were handled.
    """

    def __init__(
        self,
        access: BranchAccess,
        name: str,
        condition: str | None,
        start: str,
        members: Membership,
        delivery: Delivery,
        *,
        stop: threading.Event,
        commit_every: float,
        size: int,
    ) -> None:
        self._access, self._name, self._start = access, name, start
        self._condition_sql = condition
        self._members = members
        self._delivery, self._stop = delivery, stop
        self._commit_every, self._size = commit_every, size
        self._committed: dict[int, Position] = {}
        self._reached: dict[int, Position] = {}
        self._record: SubscriptionRecord | None = None
        self._head: Head | None = None
        self._committed_at = self._looked_at = 0.0
        self.handled = 0

    def round(self, *, once: bool) -> bool:
        """Take partitions and handle their events until others are wanted, or with `once` none is
        left; whether it ended because none is left.

        Raises SubscriptionGone, Damaged, OSError.
        """
        # What was handled without a commit is handled again, and must not be counted twice.
        self._delivery.handled.clear()
        # Before it says what it holds: two that take the same at once are sorted out by the commit.
        partitions = self._members.free(self._members.wanted())
        self._looked_at = time.monotonic()
        self._members.hold(partitions)
        if not partitions:
            # Others have all partitions for now; one that dies is noticed in the next look.
            self._stop.wait(min(_STEP, self._members.look_every))
            return once and not self._members.wanted()
        try:
            head = self._access.settle()
            state = self._load(head, partitions)
            return self._catch_up(state) and self._live(head, once=once)
        except PositionMoved:  # another member was faster, or the branch was rewound
            return False

    def _load(self, head: Head, partitions: frozenset[int]) -> Manifest:
        state = self._access.state(head)
        earlier, self._head = self._head, head
        is_rewound = not only_grew(self._access.store.refs, head, earlier)
        if is_rewound and find(self._access.store, state, self._name) is None:
            # The branch went back to where the subscription was not yet: nothing of that state was
            # handled by it. One that was removed ends instead.
            registry.register(self._access, self._name, self._condition_sql, self._start)
            raise PositionMoved
        self._record = registry.require(self._access, state, self._name)
        self._committed_at = time.monotonic()
        self._committed = {number: self._record.positions[number] for number in partitions}
        self._reached = dict(self._committed)
        return state

    # Partitions of the record as it is read now: others may have moved theirs.
    def _condition(self, partitions: frozenset[int]) -> str:
        assert self._record is not None
        return registry.condition_of(self._record.condition, partitions)

    def _catch_up(self, state: Manifest) -> bool:
        """Bring all partitions to the end of a state; False if it was stopped."""
        # Partitions that stand together are read together: each reading goes over all segments.
        groups: dict[Position, list[int]] = {}
        for number, place in self._committed.items():
            groups.setdefault(place, []).append(number)
        # From the lowest on, so that they come together on the way.
        for place, numbers in sorted(groups.items(), key=lambda group: group[0].seq):
            batches = catch_up.read(
                self._access.store,
                self._access.connect,
                state,
                self._condition(frozenset(numbers)),
                place,
                self._size,
            )
            for batch in batches:
                before = self._delivery.handled.count
                events = arrays.records(batch.events)
                is_whole = not self._stop.is_set() and self._delivery.give(events)
                # A batch that was handed out in part is committed as far as it was handled, event
                # by event.
                count = self._delivery.handled.count - before
                if is_whole or count:
                    reached = batch.position if is_whole else batch.behind(count)
                    self._reached.update(dict.fromkeys(numbers, reached))
                if not is_whole:
                    self._commit()
                    return False
                if self._is_due():
                    self._commit()
        return True

    def _live(self, head: Head, *, once: bool) -> bool:
        """Follow the branch from the end of a state; whether it ended as nothing was left."""
        follower = Follower(self._access, self._condition(frozenset(self._committed)))
        follower.start(head)
        # The sealer is started while nothing waits for it.
        if not once:
            self._access.prepare()
        for news in follower.looks(self._stop, self._pause):
            if not self._take(news):
                return False
            # Also without news: what was passed over counts after a while.
            if once or self._is_due():
                if not self._commit_live(follower):
                    return False
                if once:
                    return True
            if self._is_unbalanced():
                self._commit_live(follower)
                return False
        self._commit_live(follower)
        return False

    def _take(self, tables: Iterable[pa.Table | BranchRewound]) -> bool:
        """Hand out what a follower has; False if it was stopped. Raises PositionMoved."""
        news: list[pa.Table] = []
        for table in tables:
            if isinstance(table, BranchRewound):
                # What was handled is of the state that was left: it is loaded anew.
                raise PositionMoved
            news.append(table)
        if not news:
            return True
        events = pa.concat_tables(news)
        if len(news) > 1:
            # What was ingested in bulk is published at once, before what was appended before it.
            events = events.take(pc.sort_indices(events["ingested_at"]))
        for start in range(0, events.num_rows, self._size):
            if not self._delivery.give(arrays.records(events.slice(start, self._size))):
                return False
        return True

    def _commit_live(self, follower: Follower) -> bool:
        """Seal what was handed out, hand out what was sealed beside it, and commit the end of that;
        False if it was stopped in between, so that nothing is committed."""
        # So many events may be passed over by the condition: the position would fall far behind.
        passed = self._access.state(self._access.head()).next_seq
        lowest = min(place.seq for place in self._committed.values())
        if not self._delivery.handled.count and passed - lowest < _PENDING_MAX:
            self._committed_at = time.monotonic()
            return True
        try:
            head = self._access.settle()
        except UnknownRef:  # the branch was deleted
            # Deleted for good, or for a moment: the next round tells.
            raise PositionMoved from None
        if not only_grew(self._access.store.refs, head, self._head):
            raise PositionMoved
        if not self._take(follower.published(head)):
            return False
        # Behind all of the state: what was sealed beside ours was handed out just now.
        end = Position(self._access.state(head).next_seq)
        self._reached = dict.fromkeys(self._committed, end)
        self._commit()
        return True

    def _commit(self) -> None:
        """Commit how far events were handled. Raises PositionMoved."""
        handled = self._delivery.handled
        if self._reached == self._committed and not handled.count:
            return
        assert self._record is not None
        assert self._head is not None
        request = CommitRequest(
            self._record, self._head, self._committed, dict(self._reached), handled
        )
        commit(self._access, request)
        self.handled += handled.count
        handled.clear()
        self._committed, self._committed_at = dict(self._reached), time.monotonic()

    def _is_due(self) -> bool:
        handled = self._delivery.handled
        if max(handled.count, len(handled.outputs)) >= _PENDING_MAX:
            return True
        # A commit is a move: without handled events it only has to keep up.
        pause = self._commit_every if handled.count else max(self._commit_every, _LOOK_EVERY)
        return time.monotonic() - self._committed_at >= pause

    def _pause(self) -> float:
        """Seconds for which nothing has to be done unless something happens."""
        clock = time.monotonic()
        due = self._looked_at + self._members.look_every - clock
        if self._delivery.handled.count:
            due = min(due, self._committed_at + self._commit_every - clock)
        # A handler of signals sets `stop` and wakes nobody who waits for the branch.
        return min(max(due, 0.001), _STEP)

    def _is_unbalanced(self) -> bool:
        """Whether other partitions are to be handled than those that are."""
        if time.monotonic() - self._looked_at < self._members.look_every:
            return False
        self._looked_at = time.monotonic()
        return self._members.free(self._members.wanted()) != self._members.holds
