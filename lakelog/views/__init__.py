"""Views that keep themselves up to date: named SQL over a lake, at any of its states.

from lakelog import views
views.read(lake, "status")                       # an Arrow table
views.read(lake.at("v1"), "throughput", {"bucket": "30m"})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lakelog.libraries import pa
from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.views.catalog import BUILT_IN, stored_views
    from lakelog.views.contract import Breach, Contract
    from lakelog.views.definition import ViewDefinition
    from lakelog.views.ledger import Ledger
    from lakelog.views.lineage import Lineage, SegmentRead
    from lakelog.views.pattern_tables import patterns
    from lakelog.views.tables import ViewTables
    from lakelog.views.user_views import LakeViews

__all__ = [
    "BUILT_IN",
    "Breach",
    "Contract",
    "LakeViews",
    "Ledger",
    "Lineage",
    "SegmentRead",
    "ViewDefinition",
    "ViewTables",
    "patterns",
    "read",
    "stored_views",
]

__getattr__ = lazy_face(
    __name__,
    catalog="BUILT_IN stored_views",
    contract="Breach Contract",
    definition="ViewDefinition",
    ledger="Ledger",
    lineage="Lineage SegmentRead",
    pattern_tables="patterns",
    tables="ViewTables",
    user_views="LakeViews",
)


def read(
    lake: Any,
    name: str,
    params: Mapping[str, object] | None = None,
    *,
    since: object = None,
    until: object = None,
    now: object = None,
) -> pa.Table:
    """Answer a view over an open Lake, its live tail included, or over a View of a past state.

    `params` are the view's, as text or as values. `since` and `until` (text, datetime, or
    microseconds) cut the events to [since, until). `now` stands for the present. Raises InvalidView
    for no such view or a parameter that is missing or wrong, QueryFailed, SnapshotGone, Damaged.
    """
    table: pa.Table = lake._views.view(
        name, params, getattr(lake, "id", None), since=since, until=until, now=now
    )
    return table
