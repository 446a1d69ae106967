"""SQL over a snapshot and the live tail; reads only, the store never imports it.

A `Session` answers with a `Relation`; `NewestEvents` and `TailRows` read without SQL of a user. A
`Query` is what such SQL asks for, a `SegmentMap` what that of a view does, with an `Extraction` for
each member of payloads; a `TypeTable` has the events of a type, an `EventKey` says which are the
same, and `Behaviour` how two states differ. Packages above add to `EXTRA_SCHEMAS`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.query.behaviour import Behaviour as Behaviour
    from lakelog.query.behaviour import Finding as Finding
    from lakelog.query.newest import NewestEvents as NewestEvents
    from lakelog.query.providers import EXTRA_SCHEMAS as EXTRA_SCHEMAS
    from lakelog.query.relation import Relation as Relation
    from lakelog.query.session import Session as Session
    from lakelog.query.sql.analysis import Query as Query
    from lakelog.query.sql.extractions import Extraction as Extraction
    from lakelog.query.sql.extractions import TypeTable as TypeTable
    from lakelog.query.sql.keys import EventKey as EventKey
    from lakelog.query.sql.segment_map import SegmentMap as SegmentMap
    from lakelog.query.tail_rows import TailRows as TailRows

__getattr__, __all__ = lazy_face(__name__)
