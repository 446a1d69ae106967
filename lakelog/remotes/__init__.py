"""Lakes elsewhere: push, pull, fetch and clone, by directory, SSH, S3 and registry.

`add_tested`, `load` and `remove` keep the addresses of a lake's remotes. `push`, `fetch`, `pull`
and `clone` move states between them and the lake, and return a `Transfer`; `check` and `prune` look
after what a remote has.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.remotes import shared as shared
    from lakelog.remotes.carry import Transfer as Transfer
    from lakelog.remotes.fetches import clone as clone
    from lakelog.remotes.fetches import fetch as fetch
    from lakelog.remotes.fetches import pull as pull
    from lakelog.remotes.known import add_tested as add_tested
    from lakelog.remotes.known import checked_url as checked_url
    from lakelog.remotes.known import load as load
    from lakelog.remotes.known import remove as remove
    from lakelog.remotes.prunes import check as check
    from lakelog.remotes.prunes import prune as prune
    from lakelog.remotes.pushes import push as push

__getattr__, __all__ = lazy_face(__name__)
