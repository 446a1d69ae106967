"""Streams of messages become events, each message once.

`Consumer` stores the messages of one stream, which `source_of` finds by its URL (Kafka, Redis);
`JournalSource` reads the journal of systemd. `STARTS` are the places at which a new stream may
begin.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.consume.consume import BATCH as BATCH
    from lakelog.consume.consume import STARTS as STARTS
    from lakelog.consume.consume import Consumer as Consumer
    from lakelog.consume.consume import ConsumeResult as ConsumeResult
    from lakelog.consume.consume import source_of as source_of
    from lakelog.consume.journal_source import JournalSource as JournalSource

__getattr__, __all__ = lazy_face(__name__)
