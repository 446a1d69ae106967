"""How does a branch change? By one move, which is published whole or not at all.

`publish` plans a `Change` against the head and links the move; a `Follow` is made right after
another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.moves.publication import AUTOMATIC_OPS as AUTOMATIC_OPS
    from lakelog.moves.publication import USER_OPS as USER_OPS
    from lakelog.moves.publication import Change as Change
    from lakelog.moves.publication import Follow as Follow
    from lakelog.moves.publication import SettleWith as SettleWith
    from lakelog.moves.publication import grow as grow
    from lakelog.moves.publication import link_move as link_move
    from lakelog.moves.publication import note as note
    from lakelog.moves.publication import publish as publish
    from lakelog.moves.publication import run_maintenance as run_maintenance
    from lakelog.moves.publication import try_move as try_move
    from lakelog.moves.publication import with_reason as with_reason

__getattr__, __all__ = lazy_face(__name__)
