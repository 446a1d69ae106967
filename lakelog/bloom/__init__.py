"""Which segments may have an id or a subject? Bloom filters of each segment.

`Filters` are those of a lake, `hashes` what they have of texts. `save` makes that of a segment, of
`LEAST` rows or more when it is written, and `drop` removes what is derived of old segments. `fill`
and `holds` set and test the bits of any filter.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.bloom.filters import LEAST as LEAST
    from lakelog.bloom.filters import Filters as Filters
    from lakelog.bloom.filters import drop as drop
    from lakelog.bloom.filters import fill as fill
    from lakelog.bloom.filters import hashes as hashes
    from lakelog.bloom.filters import holds as holds
    from lakelog.bloom.filters import save as save

__getattr__, __all__ = lazy_face(__name__)
