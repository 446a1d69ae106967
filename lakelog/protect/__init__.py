"""Which fields of events are sealed under the keys of their subjects, and what opens them."""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.protect import sealed_blocks
    from lakelog.protect.protection import PROTECTIONS, Protection
    from lakelog.protect.sealed_payload import MEMBER

__all__ = ["MEMBER", "PROTECTIONS", "Protection", "sealed_blocks"]

__getattr__ = lazy_face(
    __name__, protection="PROTECTIONS Protection", sealed_blocks="", sealed_payload="MEMBER"
)
