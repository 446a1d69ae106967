"""The events of a subject, folded into what they add up to.

A `Fold` says how; `Upcaster` brings the payload of older events to the present version first. A
class becomes a fold by `aggregate`, with methods that `on` names the types of.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.folds.aggregates import aggregate, on
    from lakelog.folds.fold import Fold, FoldResult
    from lakelog.folds.upcasting import Upcaster

__all__ = ["Fold", "FoldResult", "Upcaster", "aggregate", "on"]

__getattr__ = lazy_face(
    __name__, aggregates="aggregate on", fold="Fold FoldResult", upcasting="Upcaster"
)
