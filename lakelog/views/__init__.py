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
    from lakelog.views.catalog import BUILT_IN as BUILT_IN
    from lakelog.views.catalog import stored_views as stored_views
    from lakelog.views.contract import Breach as Breach
    from lakelog.views.contract import Contract as Contract
    from lakelog.views.definition import ViewDefinition as ViewDefinition
    from lakelog.views.ledger import Ledger as Ledger
    from lakelog.views.lineage import Lineage as Lineage
    from lakelog.views.lineage import SegmentRead as SegmentRead
    from lakelog.views.pattern_tables import patterns as patterns
    from lakelog.views.tables import ViewTables as ViewTables
    from lakelog.views.user_views import LakeViews as LakeViews

__getattr__, __all__ = lazy_face(__name__)
__all__ += ["read"]


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
