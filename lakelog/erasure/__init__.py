"""Erasing a subject, or chosen events, from every state of a lake, for good.

`preview` counts what `erase` would touch. `statuses` tells how far each erasure is, and names what
is not clean yet; `receipt` is a document about one for those who asked for it.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.erasure.derived import clean
    from lakelog.erasure.erasing import erase
    from lakelog.erasure.known import adopt, again
    from lakelog.erasure.on_lake import LakeErasure
    from lakelog.erasure.receipts import receipt
    from lakelog.erasure.status import ErasureStatus, confirm, one, statuses
    from lakelog.erasure.touched import ErasurePreview, preview

__all__ = [
    "ErasurePreview",
    "ErasureStatus",
    "LakeErasure",
    "adopt",
    "again",
    "clean",
    "confirm",
    "erase",
    "one",
    "preview",
    "receipt",
    "statuses",
]

__getattr__ = lazy_face(
    __name__,
    derived="clean",
    erasing="erase",
    known="adopt again",
    on_lake="LakeErasure",
    receipts="receipt",
    touched="ErasurePreview preview",
    status="ErasureStatus confirm one statuses",
)
