"""How names, texts and paths into JSON are written in SQL, and a query that has no rows."""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.sql.quoting import identifier, json_path, literal, no_rows

__all__ = ["identifier", "json_path", "literal", "no_rows"]

__getattr__ = lazy_face(__name__, quoting="identifier json_path literal no_rows")
