"""What a state holds: the entries of its manifest and pages, as values.

`parse` reads a `SegmentEntry`, a `Record` or a `Removal` from JSON, or finds a `MalformedEntry`;
`changes` has what they come to for gc. `assign_seq` numbers the rows of new segments. A
state also names its `IdRun`s, and its last retention in a `RetentionEntry`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.entries.entry import (
        MANY,
        Counts,
        Entry,
        IdRun,
        MalformedEntry,
        Record,
        Removal,
        RetentionEntry,
        SegmentEntry,
        assign_seq,
        changes,
        parse,
    )

__all__ = [
    "MANY",
    "Counts",
    "Entry",
    "IdRun",
    "MalformedEntry",
    "Record",
    "Removal",
    "RetentionEntry",
    "SegmentEntry",
    "assign_seq",
    "changes",
    "parse",
]

__getattr__ = lazy_face(__name__, entry=" ".join(__all__))
