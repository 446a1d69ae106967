"""What was erased from a lake, what is refused since, and where the rows of the lake went."""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.erased import copies, records, sweep
    from lakelog.erased.refusal import Refusal

__all__ = ["Refusal", "copies", "records", "sweep"]

__getattr__ = lazy_face(__name__, copies="", records="", refusal="Refusal", sweep="")
