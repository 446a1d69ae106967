"""Which encoding of Parquet suits a column? The one in which a `sample` of it is smallest.

`choose` tries some on a sample; `DICTIONARY` stands for pages of the values that there are.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.column_encodings.trials import DICTIONARY as DICTIONARY
    from lakelog.column_encodings.trials import choose as choose
    from lakelog.column_encodings.trials import sample as sample

__getattr__, __all__ = lazy_face(__name__)
