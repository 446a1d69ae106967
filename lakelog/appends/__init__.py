"""When is an event stored for good? Group commit, and versions of streams under their lock.

A `Writer` appends frames of one process and answers with a `Receipt`. A `VersionedBatch` of a
`StreamSubject` gets its versions under the `StreamLock` of its branch.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.appends.arrival_signal import ArrivalSignal, signal_of
    from lakelog.appends.async_append import AsyncAppends
    from lakelog.appends.known_keys import KnownKeys
    from lakelog.appends.receipt import Receipt
    from lakelog.appends.stream_lock import StreamLock
    from lakelog.appends.stream_versions import EVENTS_MAX, VersionedBatch
    from lakelog.appends.versioned import StreamSubject
    from lakelog.appends.writer import Writer

__all__ = [
    "EVENTS_MAX",
    "ArrivalSignal",
    "AsyncAppends",
    "KnownKeys",
    "Receipt",
    "StreamLock",
    "StreamSubject",
    "VersionedBatch",
    "Writer",
    "signal_of",
]

__getattr__ = lazy_face(
    __name__,
    arrival_signal="ArrivalSignal signal_of",
    async_append="AsyncAppends",
    known_keys="KnownKeys",
    receipt="Receipt",
    stream_lock="StreamLock",
    stream_versions="EVENTS_MAX VersionedBatch",
    versioned="StreamSubject",
    writer="Writer",
)
