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
    from lakelog.subscriptions.administration import dead_letters as dead_letters
    from lakelog.subscriptions.administration import listed as listed
    from lakelog.subscriptions.administration import remove as remove
    from lakelog.subscriptions.administration import reset as reset
    from lakelog.subscriptions.administration import retry as retry
    from lakelog.subscriptions.branch_access import BranchAccess as BranchAccess
    from lakelog.subscriptions.delivery import CommandHandler as CommandHandler
    from lakelog.subscriptions.follower import GAP as GAP
    from lakelog.subscriptions.follower import Follower as Follower
    from lakelog.subscriptions.live_pages import BranchRewound as BranchRewound
    from lakelog.subscriptions.live_pages import LivePages as LivePages
    from lakelog.subscriptions.subscription import Subscription as Subscription

__getattr__, __all__ = lazy_face(__name__)
