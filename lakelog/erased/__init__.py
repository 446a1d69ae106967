"""What was erased from a lake, what is refused since, and where the rows of the lake went."""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.erased import copies as copies
    from lakelog.erased import records as records
    from lakelog.erased import sweep as sweep
    from lakelog.erased.refusal import Refusal as Refusal
    from lakelog.erased.subject_index import SubjectIndex as SubjectIndex

__getattr__, __all__ = lazy_face(__name__)
