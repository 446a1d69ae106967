"""systemd-journal-upload: entries of a journal in its export format, as long as there are any.

The body of a request has no length and may be larger than memory, so its entries are stored while
it comes. An entry's cursor is the id of its event: after a failure the client begins again where it
was told of success last, and no entry is stored twice (systemd-journal-upload(8), and the journal
export format at systemd.io/JOURNAL_EXPORT_FORMATS).
"""

from __future__ import annotations

from lakelog.formats import FORMATS, EventMembers, JournalExport
from lakelog.server.arrivals import Arrivals, RecordReader
from lakelog.server.protocols.protocol import Answer, IngestProtocol, IngestRequest

_CURSOR = "__CURSOR"


class JournalUpload(IngestProtocol):
    """The protocol, at /upload; its bodies are stored while they come, as they may never end."""

    is_whole = False
    routes = ("/upload",)

    def cut(self, text: bytes, *, is_end: bool) -> tuple[list[bytes], bytes]:
        """Return the whole entries of a text, and what is left of it; nothing at the end."""
        return JournalExport.split(text, is_end=is_end)

    def events_of(self, records: list[bytes]) -> Arrivals:
        """Return the events of entries."""
        reader = RecordReader()
        for number, record in enumerate(records):
            reader.read(number, record, _event)
        return reader.arrivals()

    def summary(self, stored: int, rejected: int) -> Answer:
        """202, as systemd's own receiver answers."""
        counts = f"{stored} entries stored, {rejected} refused\n"
        return Answer(202, counts.encode(), {}, "text/plain")

    def receive(self, request: IngestRequest, body: bytes) -> Arrivals:
        """Return the entries of a whole body."""
        return self.events_of(self.cut(body, is_end=True)[0])

    def answer(self, request: IngestRequest, arrivals: Arrivals) -> Answer:
        """Return the answer to a whole body."""
        return self.summary(arrivals.stored, len(arrivals.rejects))


def _event(record: bytes) -> EventMembers:
    """Return the event of an entry. Raises InvalidEvent."""
    event = FORMATS.by_name("journald-export").parse(record)
    assert isinstance(event, dict)
    cursor = event["data"].get(_CURSOR)
    return event | {"id": cursor} if isinstance(cursor, str) else event
