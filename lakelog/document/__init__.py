"""JSON documents that notice every flipped bit.

A document is made by `encode`, and its body given back by `decode`, unless it is `NotIntact`.
A file may have more behind it, where `split` divides it.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.document.checksum import (
        TAIL,
        check,
        decode,
        digest,
        encode,
        ending,
        require_known,
        split,
    )

__all__ = ["TAIL", "check", "decode", "digest", "encode", "ending", "require_known", "split"]

__getattr__ = lazy_face(__name__, checksum=" ".join(__all__))
