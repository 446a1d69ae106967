"""JSON documents that notice every flipped bit.

A document is made by `encode`, and its body given back by `decode`, unless it is `NotIntact`.
A file may have more behind it, where `split` divides it.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.document.checksum import TAIL as TAIL
    from lakelog.document.checksum import check as check
    from lakelog.document.checksum import decode as decode
    from lakelog.document.checksum import digest as digest
    from lakelog.document.checksum import encode as encode
    from lakelog.document.checksum import ending as ending
    from lakelog.document.checksum import require_known as require_known
    from lakelog.document.checksum import split as split

__getattr__, __all__ = lazy_face(__name__)
