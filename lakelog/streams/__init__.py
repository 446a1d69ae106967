"""Event streams: the versioned events of a subject, read and appended.

`EventStream` has what is read of one, by `read`; `append` stores its next versions.
`NumberedStreams` are those whose events a program numbers itself.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.streams.event_stream import EventStream, StreamEvent, StreamSource, append, read
    from lakelog.streams.numbered import NumberedStreams

__all__ = ["EventStream", "NumberedStreams", "StreamEvent", "StreamSource", "append", "read"]

__getattr__ = lazy_face(
    __name__,
    event_stream="EventStream StreamEvent StreamSource append read",
    numbered="NumberedStreams",
)
