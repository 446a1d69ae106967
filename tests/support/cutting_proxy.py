"""A TCP proxy that cuts the connections of HTTP clients at a request, counted over all of them."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator

_REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|PATCH|DELETE) /")
_PIECE = 1 << 16


class CuttingProxy:
    """Passes requests to a server; from number `at` on none, or with `once` that one alone is lost.

    With `after` the server still gets the first request that is lost, and its answer is not passed.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.pass_all()
        threading.Thread(target=self._accept, daemon=True).start()

    def pass_all(self) -> None:
        """Cut nothing, and count from 0."""
        self.cut(10**9)

    def cut(self, at: int, *, after: bool = False, once: bool = False) -> None:
        """Cut from a request on, counted from now."""
        with self._lock:
            self.requests, self.lost = 0, 0
            self._at, self._after, self._once = at, after, once

    def close(self) -> None:
        """Accept no more."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._target) as server:
            answers = threading.Thread(target=_copy, args=(server, client), daemon=True)
            answers.start()
            while data := client.recv(_PIECE):
                if _REQUEST.match(data) and self._is_lost():
                    if self._after and self.requests == self._at:
                        _deliver(client, server, data)
                    break
                server.sendall(data)
            for end in (client, server):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            answers.join(5)

    def _is_lost(self) -> bool:
        with self._lock:
            self.requests += 1
            lost = self.requests == self._at or (self.requests > self._at and not self._once)
            self.lost += lost
            return lost


def _deliver(client: socket.socket, server: socket.socket, data: bytes) -> None:
    """Pass a whole request, and wait until the server has worked on it."""
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_WR)  # no answer reaches it
    client.settimeout(0.05)
    with contextlib.suppress(OSError):
        while data:
            server.sendall(data)
            data = client.recv(_PIECE)


def _copy(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_PIECE):
            to.sendall(data)


@contextlib.contextmanager
def proxied(target: str) -> Iterator[CuttingProxy]:
    """Start a proxy before HOST:PORT."""
    proxy = CuttingProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
