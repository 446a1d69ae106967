"""States of a lake as tables that other systems open: Apache Iceberg and Delta.

`publish_iceberg` and `publish_delta` bring a table to a state: what is new is added, what is gone
is taken out, and a publish that is repeated or was killed changes nothing twice.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.open_tables.delta import publish_delta as publish_delta
    from lakelog.open_tables.iceberg import publish_iceberg as publish_iceberg
    from lakelog.open_tables.published_state import PublishResult as PublishResult
    from lakelog.open_tables.published_state import TableSource as TableSource

__getattr__, __all__ = lazy_face(__name__)
