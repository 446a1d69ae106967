"""Event streams: the versioned events of a subject, read and appended.

`EventStream` has what is read of one, by `read`; `append` stores its next versions.
`NumberedStreams` are those whose events a program numbers itself.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.streams.event_stream import EventStream as EventStream
    from lakelog.streams.event_stream import StreamEvent as StreamEvent
    from lakelog.streams.event_stream import StreamSource as StreamSource
    from lakelog.streams.event_stream import append as append
    from lakelog.streams.event_stream import read as read
    from lakelog.streams.numbered import NumberedStreams as NumberedStreams

__getattr__, __all__ = lazy_face(__name__)
