"""How names, texts and paths into JSON are written in SQL, and a query that has no rows."""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.sql.quoting import identifier as identifier
    from lakelog.sql.quoting import json_path as json_path
    from lakelog.sql.quoting import literal as literal
    from lakelog.sql.quoting import member_paths as member_paths
    from lakelog.sql.quoting import no_rows as no_rows

__getattr__, __all__ = lazy_face(__name__)
