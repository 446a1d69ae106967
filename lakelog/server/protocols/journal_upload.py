"""systemd-journal-upload: entries of a journal in its export format, as long as there are any.

The body of a request has no length and may be larger than memory, so its entries are stored while
it comes. An entry's cursor is the id of its event: after a failure the client begins again where it
was told of success last, and no entry is stored twice (systemd-journal-upload(8), and the journal
export format at systemd.io/JOURNAL_EXPORT_FORMATS).
"""

from __future__ import annotations

from lakelog import formats
from lakelog.formats import EventMembers
from lakelog.server.arrivals import LINE_MAX, Arrivals, RecordReader
from lakelog.server.protocols.protocol import Answer, IngestProtocol, IngestRequest

_CURSOR = "__CURSOR"


class JournalUpload(IngestProtocol):
    """The protocol, at /upload; its bodies are stored while they come, as they may never end."""

    is_whole = False
    routes = ("/upload",)

    def summary(self, stored: int, rejected: int) -> Answer:
        """202, as systemd's own receiver answers."""
        counts = f"{stored} entries stored, {rejected} refused\n"
        return Answer(202, counts.encode(), {}, "text/plain")

    def receive(self, request: IngestRequest, body: bytes) -> Arrivals:
        """Return the entries of a whole body."""
        return JournalEntries(len(body)).arrivals(body, is_end=True)

    def answer(self, request: IngestRequest, arrivals: Arrivals) -> Answer:
        """Return the answer to a whole body."""
        return self.summary(arrivals.stored, len(arrivals.rejects))


class JournalEntries:
    """The entries of one body, as its text comes; of one of more than `longest` bytes the beginning
    is quarantined, and the others go on: refused, it would come again for ever."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._buffer, self._beginning, self._left_out = b"", b"", 0

    def arrivals(self, text: bytes, *, is_end: bool) -> Arrivals:
        """Return the events of the entries that end in a text."""
        reader, left_out = RecordReader(), min(self._left_out, len(text))
        self._left_out -= left_out
        records, self._buffer = formats.JournalExport.split(
            self._buffer + text[left_out:], is_end=is_end
        )
        for number, record in enumerate(records):
            # Also where its last part came with so much before it that it was never cut.
            is_long = len(record) > self._longest
            if beginning := self._beginning or (record[:LINE_MAX] if is_long else b""):
                reason = f"an entry of more than {self._longest:,} bytes: its beginning is kept"
                reader.refuse(number, reason, beginning)
                self._beginning = b""
            else:
                reader.read(number, record, _event)
        if len(self._buffer) > self._longest:
            self._beginning = self._beginning or self._buffer[:LINE_MAX]
            self._buffer, self._left_out = formats.JournalExport.stub(self._buffer)
        return reader.arrivals()


def _event(record: bytes) -> EventMembers:
    """Return the event of an entry. Raises InvalidEvent."""
    event = formats.FORMATS.by_name("journald-export").parse(record)
    assert isinstance(event, dict)
    cursor = event["data"].get(_CURSOR)
    return event | {"id": cursor} if isinstance(cursor, str) else event
