"""Receivers of notifications on loopback: servers of HTTP and SMTP that note what they get, and
fail, wait, redirect or drip when a test says so."""

from __future__ import annotations

import contextlib
import email
import email.policy
import http.server
import json
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast


@dataclass
class Received:
    """A notification: its id, its form, and whether it was answered with yes."""

    id: str
    body: Any
    headers: dict[str, str]
    is_answered: bool = True


@dataclass
class Receiver:
    """What a server got. `mode` is how it answers: a status, or slow, drip, echo, redirect; `hook`
    is called before and after each answer, and each has `headers`."""

    port: int = 0
    mode: str = "200"
    received: list[Received] = field(default_factory=list)
    hook: Callable[[str], None] = lambda _: None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook/secret-path"

    def once(self) -> list[Received]:
        """What was received, each id once, in the order in which it came first."""
        return list({one.id: one for one in reversed(self.received)}.values())[::-1]


class _HttpHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        receiver = cast(Any, self.server).receiver
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        receiver.hook("before")
        is_yes = receiver.mode == "200"
        receiver.received.append(
            Received(headers["lakelog-notification"], body, headers | {"path": self.path}, is_yes)
        )
        if receiver.mode == "slow":
            time.sleep(2)
            return
        if receiver.mode == "drip":
            with contextlib.suppress(OSError):
                for _ in range(40):
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n"[:1])
                    time.sleep(0.05)
            return
        if receiver.mode == "echo":
            self.wfile.write(f"{self.requestline}\r\n\r\n".encode())
            self.close_connection = True
            return
        self.send_response(302 if receiver.mode == "redirect" else int(receiver.mode))
        if receiver.mode == "redirect":
            self.send_header("Location", receiver.url + "/elsewhere")
        for name, value in {**receiver.headers, "Content-Length": "2"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"ok")
        receiver.hook("after")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


class _MailHandler(socketserver.StreamRequestHandler):
    """As much of SMTP as a client needs that sends a letter."""

    def handle(self) -> None:
        server = cast(Any, self.server)
        receiver: Receiver = server.receiver
        self._say("220 test")
        is_secure = False
        while line := self.rfile.readline():
            verb = line.split()[0].upper() if line.split() else b""
            if verb == b"EHLO":
                offers = ["test", "STARTTLS" if server.context and not is_secure else "8BITMIME"]
                offers += ["AUTH PLAIN"] if is_secure else []
                self._say(*(f"250-{offer}" for offer in offers), "250 SIZE 1000000")
            elif verb == b"STARTTLS":
                self._say("220 go ahead")
                self.connection = server.context.wrap_socket(self.connection, server_side=True)
                self.secured.append(self.connection)
                self.rfile = self.connection.makefile("rb")
                self.wfile = self.connection.makefile("wb", buffering=0)
                is_secure = True
            elif verb == b"AUTH":
                receiver.hook("auth")
                self._say("235 yes" if receiver.mode != "535" else "535 wrong pa55word")
            elif verb == b"DATA":
                self._say("354 go on")
                self._letter(receiver)
            elif verb == b"QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 yes")

    def setup(self) -> None:
        super().setup()
        self.secured: list[ssl.SSLSocket] = []

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        for connection in self.secured:
            connection.close()

    def _letter(self, receiver: Receiver) -> None:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line[1:] if line.startswith(b"..") else line)
        letter = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
        receiver.hook("before")
        is_yes = receiver.mode == "200"
        headers = {name.lower(): str(value) for name, value in letter.items()}
        body = cast(EmailMessage, letter).get_content()
        receiver.received.append(
            Received(str(letter["Lakelog-Notification"]), body, headers, is_yes)
        )
        self._say("250 taken" if is_yes else f"{receiver.mode} no")
        receiver.hook("after")

    def _say(self, *lines: str) -> None:
        with contextlib.suppress(OSError):
            self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    context: ssl.SSLContext | None = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what tests do."""


@contextlib.contextmanager
def http_receiver() -> Iterator[Receiver]:
    """An HTTP server."""
    with _running(_HttpHandler, None) as receiver:
        yield receiver


@contextlib.contextmanager
def mail_receiver(certificate: tuple[Path, Path] | None = None) -> Iterator[Receiver]:
    """An SMTP server; with a certificate and key it offers STARTTLS."""
    with _running(_MailHandler, certificate) as receiver:
        yield receiver


@contextlib.contextmanager
def _running(
    handler: type[socketserver.BaseRequestHandler], certificate: tuple[Path, Path] | None
) -> Iterator[Receiver]:
    with _Server(("127.0.0.1", 0), handler) as server:
        receiver = Receiver(server.server_address[1])
        cast(Any, server).receiver = receiver
        if certificate is not None:
            server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.context.load_cert_chain(*certificate)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
