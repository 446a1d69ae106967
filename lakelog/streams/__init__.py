"""Event streams: the versioned events of a subject, read and appended.

`EventStream` has what is read of one, by `read`; `append` stores its next versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.streams.appending import append
    from lakelog.streams.reading import EventStream, StreamEvent, StreamSource, read

__all__ = ["EventStream", "StreamEvent", "StreamSource", "append", "read"]

__getattr__ = lazy_face(
    __name__, {"appending": "append", "reading": "EventStream StreamEvent StreamSource read"}
)
