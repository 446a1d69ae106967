"""Erasing a subject, or chosen events, from every state of a lake, for good.

`preview` counts what `erase` would touch. `statuses` tells how far each erasure is, and names what
is not clean yet; `receipt` is a document about one for those who asked for it.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.erasure.derived import clean as clean
    from lakelog.erasure.erasing import erase as erase
    from lakelog.erasure.on_lake import LakeErasure as LakeErasure
    from lakelog.erasure.receipts import receipt as receipt
    from lakelog.erasure.repetition import adopt as adopt
    from lakelog.erasure.repetition import erase_again as erase_again
    from lakelog.erasure.status import ErasureStatus as ErasureStatus
    from lakelog.erasure.status import confirm as confirm
    from lakelog.erasure.status import one as one
    from lakelog.erasure.status import statuses as statuses
    from lakelog.erasure.touched import ErasurePreview as ErasurePreview
    from lakelog.erasure.touched import preview as preview

__getattr__, __all__ = lazy_face(__name__)
