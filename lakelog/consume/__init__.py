"""Streams of messages become events, each message once.

`Consumer` stores the messages of one stream, which `source_of` finds by its URL (Kafka, Redis);
`JournalSource` reads the journal of systemd. `STARTS` are the places at which a new stream may
begin.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.consume.consume import BATCH, STARTS, Consumer, ConsumeResult, source_of
    from lakelog.consume.journal_source import JournalSource

__all__ = ["BATCH", "STARTS", "ConsumeResult", "Consumer", "JournalSource", "source_of"]

__getattr__ = lazy_face(
    __name__,
    consume="BATCH ConsumeResult Consumer STARTS source_of",
    journal_source="JournalSource",
)
