"""The events of a subject, folded into what they add up to.

A `Fold` says how; `Upcaster` brings the payload of older events to the present version first. A
class becomes a fold by `aggregate`, with methods that `on` names the types of.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.folds.aggregates import aggregate as aggregate
    from lakelog.folds.aggregates import on as on
    from lakelog.folds.fold import Fold as Fold
    from lakelog.folds.fold import FoldResult as FoldResult
    from lakelog.folds.upcasting import Upcaster as Upcaster

__getattr__, __all__ = lazy_face(__name__)
