"""Lakes elsewhere: push, pull, fetch and clone, by directory, SSH, S3 and registry.

`add_tested`, `load` and `remove` keep the addresses of a lake's remotes. `push`, `fetch`, `pull`
and `clone` move states between them and the lake, and return a `Transfer`; `check` and `prune` look
after what a remote has.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.remotes import shared
    from lakelog.remotes.carry import Transfer
    from lakelog.remotes.fetches import clone, fetch, pull
    from lakelog.remotes.known import add_tested, checked_url, load, remove
    from lakelog.remotes.prunes import check, prune
    from lakelog.remotes.pushes import push

__all__ = [
    "Transfer",
    "add_tested",
    "check",
    "checked_url",
    "clone",
    "fetch",
    "load",
    "prune",
    "pull",
    "push",
    "remove",
    "shared",
]

__getattr__ = lazy_face(
    __name__,
    carry="Transfer",
    fetches="clone fetch pull",
    known="add_tested checked_url load remove",
    prunes="check prune",
    pushes="push",
    shared="",
)
