"""How does a branch change? By one move, which is published whole or not at all.

`publish` plans a `Change` against the head and links the move; a `Follow` is made right after
another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.moves.publication import (
        AUTOMATIC_OPS,
        USER_OPS,
        Change,
        Follow,
        SettleWith,
        grow,
        link_move,
        note,
        publish,
        run_maintenance,
        try_move,
        with_reason,
    )

__all__ = [
    "AUTOMATIC_OPS",
    "USER_OPS",
    "Change",
    "Follow",
    "SettleWith",
    "grow",
    "link_move",
    "note",
    "publish",
    "run_maintenance",
    "try_move",
    "with_reason",
]

__getattr__ = lazy_face(__name__, publication=" ".join(__all__))
