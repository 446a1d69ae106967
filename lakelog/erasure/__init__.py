"""Erasing a subject, or chosen events, from every state of a lake, for good.

`LakeErasure` has the methods of a lake for it; `ErasedLines` refuses what comes again. `adopt` and
`erase_again` erase what another copy of the lake has erased, and `adopt_protection` protects what
it protects. `destroy_recorded` destroys keys that came back with an older file, which
`has_destroyed_keys` notices. `names_set` says whether a training set may have what was erased.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.erasure.derived import clean as clean
    from lakelog.erasure.entrance import ErasedLines as ErasedLines
    from lakelog.erasure.key_erasure import adopt_protection as adopt_protection
    from lakelog.erasure.key_erasure import destroy_recorded as destroy_recorded
    from lakelog.erasure.key_erasure import has_destroyed_keys as has_destroyed_keys
    from lakelog.erasure.on_lake import LakeErasure as LakeErasure
    from lakelog.erasure.outside import names_set as names_set
    from lakelog.erasure.repetition import adopt as adopt
    from lakelog.erasure.repetition import erase_again as erase_again
    from lakelog.erasure.status import ErasureStatus as ErasureStatus
    from lakelog.erasure.status import confirm as confirm
    from lakelog.erasure.touched import ErasurePreview as ErasurePreview

__getattr__, __all__ = lazy_face(__name__)
