"""Clients of a live tail: server-sent events and messages of a WebSocket, over plain sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import wsproto
from wsproto import events as ws


@dataclass(frozen=True)
class TailEvent:
    """One event of a stream: its type, "" for an event of the lake, its position, its content."""

    name: str
    position: str
    content: Any


class StreamClient:
    """Reads server-sent events as the standard says, from `after` on."""

    def __init__(self, port: int, headers: dict[str, str] | None = None, **query: str) -> None:
        self.position, self.status = "", 0
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        sent = {"Host": f"127.0.0.1:{port}", "Accept": "text/event-stream", **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        self._socket.sendall(f"GET /tail?{urlencode(query)} HTTP/1.1\r\n{head}\r\n".encode())
        self._file = self._socket.makefile("rb")
        try:
            self.status = int(self._file.readline().split()[1])
            while self._file.readline().strip():
                pass
        except (OSError, IndexError):
            self.close()
            raise ConnectionError("the server ended the connection") from None

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def events(self) -> Iterator[TailEvent]:
        """Yield events until the stream ends, as it should or not."""
        name, data, position = "", list[str](), self.position
        for line in self._lines():
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                self.position = position
                if data:
                    yield TailEvent(name, position, json.loads("\n".join(data)))
                name, data = "", []
            elif field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif field == "id":
                position = value

    def numbers(self, count: int) -> list[int]:
        """The numbers of the next events of the lake."""
        numbers: list[int] = []
        for event in self.events():
            if not event.name:
                numbers.append(event.content["data"]["n"])
            if len(numbers) == count:
                break
        return numbers

    def _lines(self) -> Iterator[str]:
        """The lines of a body in chunks; what is not whole when the connection ends is none."""
        text = b""
        while True:
            try:
                size = int(self._file.readline() or b"0", 16)
                content = self._file.read(size)
                self._file.readline()
            except (OSError, ValueError):
                return
            if not content or len(content) < size:
                return
            *lines, text = (text + content).split(b"\n")
            yield from (line.decode() for line in lines)


class SocketClient:
    """Reads the messages of a WebSocket."""

    path = "/ws"

    def __init__(self, port: int, headers: dict[str, str] | None = None, **query: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        extra = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        target = f"{self.path}?{urlencode(query)}"
        request = ws.Request(f"127.0.0.1:{port}", target, extra_headers=extra)
        self._socket.sendall(self._connection.send(request))
        self.status, self._messages = 0, self._read()
        first = next(self._messages)
        self.status = first["status"]

    def close(self) -> None:
        self._socket.close()

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield messages until the server closes."""
        return self._messages

    def _read(self) -> Iterator[dict[str, Any]]:
        text = ""
        while content := self._socket.recv(1 << 16):
            self._connection.receive_data(content)
            for event in self._connection.events():
                if isinstance(event, ws.AcceptConnection):
                    yield {"status": 101}
                elif isinstance(event, ws.RejectConnection):
                    yield {"status": event.status_code}
                elif isinstance(event, ws.TextMessage):
                    text += event.data
                    if event.message_finished:
                        yield json.loads(text)
                        text = ""
                elif isinstance(event, ws.CloseConnection):
                    return
