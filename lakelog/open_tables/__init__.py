"""States of a lake as tables that other systems open: Apache Iceberg and Delta.

`publish_iceberg` and `publish_delta` bring a table to a state: what is new is added, what is gone
is taken out, and a publish that is repeated or was killed changes nothing twice.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.open_tables.delta import publish_delta
    from lakelog.open_tables.iceberg import publish_iceberg
    from lakelog.open_tables.published_state import PublishResult, TableSource

__all__ = ["PublishResult", "TableSource", "publish_delta", "publish_iceberg"]

__getattr__ = lazy_face(
    __name__,
    delta="publish_delta",
    iceberg="publish_iceberg",
    published_state="PublishResult TableSource",
)
