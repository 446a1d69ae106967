"""Which fields of events are sealed under the keys of their subjects, and what opens them."""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.protect import sealed_blocks as sealed_blocks
    from lakelog.protect.protection import PROTECTIONS as PROTECTIONS
    from lakelog.protect.protection import Protection as Protection
    from lakelog.protect.sealed_payload import MEMBER as MEMBER

__getattr__, __all__ = lazy_face(__name__)
