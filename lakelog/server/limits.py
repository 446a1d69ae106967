"""How much a server takes at once: each limit has an answer of its own, and none is silent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerLimits:
    """Sizes in bytes, times in seconds."""

    body_bytes: int = 32 << 20
    """A body as it was sent; a larger one is refused with 413."""
    text_bytes: int = 32 << 20
    """The same after decompression."""
    document_bytes: int = 8 << 20
    """A body that has to be parsed as a whole: in memory it takes up to thirty times as much."""
    document_records: int = 500_000
    """Records in such a body, and lines of JSON lines that are no events."""
    header_seconds: float = 20.0
    """How long a client may take to send the head of a request; then its connection is closed."""
    waiting_bytes: int = 64 << 20
    """Bodies that are read or wait to be stored; one more is refused with 429."""
    body_seconds: float = 60.0
    """How long a client may take to send a body; then it is answered with 408."""
    connections: int = 2_000
    """Connections at once; one more is answered with 503."""
    remembered_seconds: float = 600.0
    """How long the same request is known again."""
    tail_clients: int = 1_500
    """Clients of live tails; one more is answered with 503."""
    tail_conditions: int = 32
    """Different conditions of live tails at once; one more is answered with 503."""
    tail_bytes: int = 4 << 20
    """What is kept of each condition for clients that read slowly; then they catch up."""


def is_number(value: str, digits: int) -> bool:
    """Whether a text of a request is a number of so many digits at most. Python reads more of them
    slowly, or not at all."""
    return value.isascii() and value.isdigit() and len(value) <= digits
