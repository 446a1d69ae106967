"""SQL over a snapshot and the live tail; reads only, the store never imports it.

A `Session` answers with a `Relation`; `NewestEvents` and `TailRows` read without SQL of a user. A
`Query` is what such SQL asks for, a `SegmentMap` what that of a view does, with an `Extraction` for
each member of payloads; a `TypeTable` has the events of a type, an `EventKey` says which are the
same, and `Behaviour` how two states differ. Packages above add to `EXTRA_SCHEMAS`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.query.behaviour import Behaviour, Finding
    from lakelog.query.newest import NewestEvents
    from lakelog.query.providers import EXTRA_SCHEMAS
    from lakelog.query.relation import Relation
    from lakelog.query.session import Session
    from lakelog.query.sql.analysis import Query
    from lakelog.query.sql.extractions import Extraction, TypeTable
    from lakelog.query.sql.keys import EventKey
    from lakelog.query.sql.segment_map import SegmentMap
    from lakelog.query.tail_rows import TailRows

__all__ = [
    "EXTRA_SCHEMAS",
    "Behaviour",
    "EventKey",
    "Extraction",
    "Finding",
    "NewestEvents",
    "Query",
    "Relation",
    "SegmentMap",
    "Session",
    "TailRows",
    "TypeTable",
]

__getattr__ = lazy_face(
    __name__,
    behaviour="Behaviour Finding",
    newest="NewestEvents",
    providers="EXTRA_SCHEMAS",
    relation="Relation",
    session="Session",
    tail_rows="TailRows",
    **{
        "sql.analysis": "Query",
        "sql.extractions": "Extraction TypeTable",
        "sql.keys": "EventKey",
        "sql.segment_map": "SegmentMap",
    },
)
