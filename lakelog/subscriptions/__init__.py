"""Programs that handle each event of a branch once: first those that are there, then live ones.

A `Subscription` hands out events by `run` or `batches`, and keeps how far it came in the state of
the branch. `listed` says how far each is behind, `reset` and `remove`
change them, `dead_letters` are the events that a subscriber gave up, which
`retry` hands out once more. A `CommandHandler` is a program as handler. `LivePages` are for
clients that keep their positions themselves, and want events before they are published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.subscriptions.administration import dead_letters, listed, remove, reset, retry
    from lakelog.subscriptions.branch_access import BranchAccess
    from lakelog.subscriptions.delivery import CommandHandler
    from lakelog.subscriptions.follower import GAP, Follower
    from lakelog.subscriptions.live_pages import BranchRewound, LivePages
    from lakelog.subscriptions.subscription import Subscription

__all__ = [
    "GAP",
    "BranchAccess",
    "BranchRewound",
    "CommandHandler",
    "Follower",
    "LivePages",
    "Subscription",
    "dead_letters",
    "listed",
    "remove",
    "reset",
    "retry",
]

__getattr__ = lazy_face(
    __name__,
    administration="dead_letters listed remove reset retry",
    branch_access="BranchAccess",
    delivery="CommandHandler",
    follower="GAP Follower",
    live_pages="BranchRewound LivePages",
    subscription="Subscription",
)
