"""When is an event stored for good? Group commit, and versions of streams under their lock.

A `Writer` appends frames of one process and answers with a `Receipt`. A `VersionedBatch` of a
`StreamSubject` gets its versions under the `StreamLock` of its branch.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.appends.arrival_signal import ArrivalSignal as ArrivalSignal
    from lakelog.appends.arrival_signal import signal_of as signal_of
    from lakelog.appends.async_append import AsyncAppends as AsyncAppends
    from lakelog.appends.known_keys import KnownKeys as KnownKeys
    from lakelog.appends.receipt import Receipt as Receipt
    from lakelog.appends.stream_lock import StreamLock as StreamLock
    from lakelog.appends.stream_versions import EVENTS_MAX as EVENTS_MAX
    from lakelog.appends.stream_versions import VersionedBatch as VersionedBatch
    from lakelog.appends.versioned import StreamSubject as StreamSubject
    from lakelog.appends.writer import Writer as Writer

__getattr__, __all__ = lazy_face(__name__)
