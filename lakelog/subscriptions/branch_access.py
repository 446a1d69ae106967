"""What a subscription needs of an open lake: one branch, its tail, its engine, and to publish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lakelog.appends import ArrivalSignal, signal_of
from lakelog.database import Connect
from lakelog.maintain import Sealer
from lakelog.manifest import Manifest
from lakelog.query import TailRows
from lakelog.refs import Head
from lakelog.store import Store
from lakelog.wal import PendingFrames, Tail


@dataclass(frozen=True)
class BranchAccess:
    """One branch of a lake: `connect` gives its engine, `settle` publishes what is pending, and
    `rows` makes rows of the tail, which `pending` reads, for all who read it."""

    store: Store
    branch: str
    tail: Tail
    pending: Callable[[], PendingFrames]
    rows: TailRows
    connect: Connect
    settle: Callable[[], Head]

    @property
    def signal(self) -> ArrivalSignal:
        """Tells that there may be something new."""
        return signal_of(self.store.paths, self.branch)

    def head(self) -> Head:
        """The newest move. Raises UnknownRef where the branch is gone."""
        return self.store.refs.head(self.branch)

    def head_since(self, number: int) -> Head:
        """The newest move, of which a position names this one. Raises UnknownRef, Unreachable."""
        return self.store.head_since(self.branch, number)

    def state(self, head: Head) -> Manifest:
        """The state after a move."""
        return self.store.manifests.of(head.move)

    def prepare(self) -> None:
        """Have the first `settle` take no longer than the next ones."""
        Sealer(self.store, self.branch, self.tail, self.connect).prepare()
