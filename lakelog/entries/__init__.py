"""What a state holds: the entries of its manifest and pages, as values.

`parse` reads a `SegmentEntry`, a `Record` or a `Removal` from JSON, or finds a `MalformedEntry`;
`changes` has what they come to for gc. `assign_seq` numbers the rows of new segments. A
state also names its `IdRun`s, and its last retention in a `RetentionEntry`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.entries.entry import MANY as MANY
    from lakelog.entries.entry import Counts as Counts
    from lakelog.entries.entry import Entry as Entry
    from lakelog.entries.entry import IdRun as IdRun
    from lakelog.entries.entry import MalformedEntry as MalformedEntry
    from lakelog.entries.entry import Record as Record
    from lakelog.entries.entry import Removal as Removal
    from lakelog.entries.entry import RetentionEntry as RetentionEntry
    from lakelog.entries.entry import SegmentEntry as SegmentEntry
    from lakelog.entries.entry import assign_seq as assign_seq
    from lakelog.entries.entry import changes as changes
    from lakelog.entries.entry import parse as parse

__getattr__, __all__ = lazy_face(__name__)
