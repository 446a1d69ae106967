"""Pages of a live tail as bytes: made once, and sent to all clients that stand where they begin.

A chunk is what is sent at a time. As server-sent events each event has its position as `id`, so
that a client that is cut off anywhere goes on behind the last one it has; as a message of a
WebSocket, which comes whole or not at all, a chunk has one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from lakelog.libraries import pa
from lakelog.query.newest import NewestEvents
from lakelog.render import ColumnBatch, QueryResult
from lakelog.subscriptions import BranchRewound

CHUNK_BYTES = 1 << 15
_DATA = NewestEvents.COLUMNS.index("data")
RETRY_MS = 2_000


@dataclass(frozen=True)
class TailChunk:
    """Events as JSON with the position behind each, or news that is no event."""

    positions: tuple[str, ...]
    lines: tuple[bytes, ...]
    name: str = ""
    """The type of the event for the client; empty for an event of the lake."""

    @functools.cached_property
    def server_sent(self) -> bytes:
        """The chunk as server-sent events; an `id` without data is remembered and no event."""
        if not self.lines:
            return b":\nid: %b\n\n" % self.positions[0].encode()
        head = f"event: {self.name}\n".encode() if self.name else b""
        return b"".join(
            b"%bid: %b\ndata: %b\n\n" % (head, position.encode(), line)
            for position, line in zip(self.positions, self.lines, strict=True)
        )

    @functools.cached_property
    def message(self) -> str:
        """The chunk as one message of a WebSocket."""
        if not self.lines:
            return f'{{"id":"{self.positions[0]}"}}'
        content = self.lines[0] if self.name else b"[" + b",".join(self.lines) + b"]"
        member = (self.name or "events").encode()
        return (b'{"id":"%b","%b":%b}' % (self.positions[-1].encode(), member, content)).decode()

    @functools.cached_property
    def size(self) -> int:
        """Bytes of its text, roughly."""
        return sum(map(len, self.lines)) + sum(map(len, self.positions))


def chunks_of(events: pa.Table, positions: Sequence[str]) -> Iterator[TailChunk]:
    """Yield what a table of events becomes, with the position behind each."""
    lines, size, start = list[bytes](), 0, 0
    for line, position in zip(_lines(events), positions, strict=True):
        if lines and size + len(line) > CHUNK_BYTES:
            yield TailChunk(tuple(positions[start : start + len(lines)]), tuple(lines))
            start, lines, size = start + len(lines), [], 0
        lines.append(line)
        size += len(line) + len(position)
    if lines:
        yield TailChunk(tuple(positions[start:]), tuple(lines))


def state_chunk(rewound: BranchRewound, position: str) -> TailChunk:
    """What tells that the branch was taken to another state: how, which, and how many events it
    has. What follows came after it."""
    news = {"op": rewound.op, "snapshot": rewound.snapshot, "events": rewound.events}
    return TailChunk((position,), (orjson.dumps(news),), "state")


def behind_chunk(position: str) -> TailChunk:
    """What tells a client that it reads more slowly than events come, and goes on from here."""
    return TailChunk((position,), (b'{"reason":"slow"}',), "behind")


def quiet_chunk(position: str) -> TailChunk:
    """What tells a client where it stands, and that the server is there."""
    return TailChunk((position,), ())


def failure_chunk(position: str, reason: str) -> TailChunk:
    """What tells a client why its stream ends."""
    return TailChunk((position,), (orjson.dumps({"error": reason}),), "failure")


def _lines(events: pa.Table) -> list[bytes]:
    """Each event of a table as JSON in one line."""
    if not events.num_rows:
        return []
    result = QueryResult(
        list(NewestEvents.COLUMNS), map(ColumnBatch, events.to_batches()), (_DATA,)
    )
    return b"".join(result.encode("ndjson")).split(b"\n")[:-1]
