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
            deaf = threading.Event()
            answers = threading.Thread(target=_copy, args=(server, client, deaf), daemon=True)
            answers.start()
            while data := client.recv(_PIECE):
                if _REQUEST.match(data) and (lost := self._lost()):
                    if lost == "before":
                        break
                    deaf.set()  # from here on an answer ends both connections
                server.sendall(data)
            for end in (client, server):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            answers.join(5)

    def _lost(self) -> str:
        """Count a request; whether it is lost `before` or `after` the server gets it."""
        with self._lock:
            self.requests += 1
            is_first = self.requests == self._at
            if not is_first and (self._once or self.requests < self._at):
                return ""
            self.lost += 1
            return "after" if is_first and self._after else "before"


def _copy(source: socket.socket, to: socket.socket, deaf: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while (data := source.recv(_PIECE)) and not deaf.is_set():
            to.sendall(data)
    if deaf.is_set():
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxied(target: str) -> Iterator[CuttingProxy]:
    """Start a proxy before HOST:PORT."""
    proxy = CuttingProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
