"""Connections of clients: how long the head of a request may take, and one write for an answer.

An answer comes in two writes, of its head and its body: each would be a call of the system and a
packet. What is small is held until the turn of the loop ends, so that both are one.
"""

from __future__ import annotations

import asyncio
from typing import Any

from lakelog.server.bodies import WHOLE_BODY

_HELD_MAX = 1 << 13


def patient_protocol(seconds: float) -> type[asyncio.Protocol]:
    """The protocol of a server that closes connections whose head takes longer than so long."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    deadlines = HeadDeadlines(seconds)

    class PatientProtocol(HttpToolsProtocol):
        """Closes the connection of a client that sends the head of a request too slowly."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]
            deadlines.begin(self.transport)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            deadlines.begin(self.transport)

        def on_headers_complete(self) -> None:
            deadlines.end(self.transport)
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            super().on_message_complete()
            # The application has not begun with it, if its first bytes came together.
            self.scope["extensions"] = {WHOLE_BODY: {}}

        def connection_lost(self, exc: Exception | None) -> None:
            deadlines.end(self.transport)
            super().connection_lost(exc)

    return PatientProtocol


class HeadDeadlines:
    """Connections that wait for the head of a request, by how long they may: one timer for all."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # In the order of their deadlines, as all have equally long.
        self._waiting: dict[Any, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, transport: Any) -> None:
        """Its head has to come from now on."""
        loop = asyncio.get_running_loop()
        self._waiting.pop(transport, None)
        self._waiting[transport] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)

    def end(self, transport: Any) -> None:
        """It has come, or never will."""
        self._waiting.pop(transport, None)

    def _look(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        for transport, deadline in list(self._waiting.items()):
            # The earliest that is left, and so all behind it have time yet: one timer is enough.
            if deadline > loop.time():
                self._timer = loop.call_at(deadline, self._look)
                return
            del self._waiting[transport]
            transport.close()


class JoinedWrites:
    """A transport that writes what is small once in a turn of the loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, soon: what is held is bounded, so that the transport still says when to wait."""
        if not self._held:
            if len(data) > _HELD_MAX:
                self._transport.write(data)
                return
            self._loop.call_soon(self._flush)
        self._held.append(data)
        # A head and a body are two; a third write is of an answer that goes on.
        if len(self._held) > 2 or len(data) > _HELD_MAX:
            self._flush()

    def close(self) -> None:
        """Write what is held, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            data = b"".join(self._held)
            self._held = []
            if not self._transport.is_closing():
                self._transport.write(data)
