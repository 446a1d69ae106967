"""A lake that is served over HTTP, by the program itself in a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lakelog
from tests.support.peak_memory import peak

JSON_LINES = {"content-type": "application/x-ndjson"}


@dataclass
class Reply:
    """What a request was answered; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class HttpLake:
    """A server and its lake."""

    path: str
    process: subprocess.Popen[str]
    port: int
    context: ssl.SSLContext | None = None
    """What its TLS is trusted by; without it requests are not encrypted."""
    sent: dict[str, str] = field(default_factory=dict)

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "",
        timeout: float = 30,
    ) -> Reply:
        """Send a request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        if self.context is not None:
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=timeout, context=self.context
            )
        with contextlib.closing(connection):
            method = method or ("GET" if body is None else "POST")
            connection.request(method, path, body, {**self.sent, **(headers or {})})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, names, response.read())

    def events(self, query: str = "SELECT * FROM events ORDER BY seq") -> list[dict[str, Any]]:
        """Rows of the lake, read beside the server."""
        with lakelog.open(self.path, create=False) as lake:
            rows: list[dict[str, Any]] = lake.sql(query).to_arrow_table().to_pylist()
            return rows

    def peak(self) -> int:
        """The most memory that the server's own process has had."""
        return peak(self.process.pid)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """End it as a service manager does; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def serving(path: Path | str, *arguments: str, port: int = 0) -> Iterator[HttpLake]:
    """Serve a lake, which is made if there is none, on a free port of loopback."""
    command = [sys.executable, "-m", "lakelog", "--lake", str(path), "serve", "--print-url"]
    process = subprocess.Popen(
        [*command, "--port", str(port), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        url = process.stdout.readline().strip()
        assert url, process.stderr.read()
        yield HttpLake(str(path), process, int(url.rpartition(":")[2]))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def certified(directory: Path) -> tuple[list[str], ssl.SSLContext]:
    """Options of `serve` for TLS with a certificate of this machine, and who trusts it."""
    certificate, key = directory / "cert.pem", directory / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
        f" -keyout {key} -out {certificate}"
    )
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    options = ["--tls-certificate", str(certificate), "--tls-key", str(key)]
    return options, ssl.create_default_context(cafile=str(certificate))


def lines(*events: Mapping[str, Any]) -> bytes:
    """Events as JSON lines."""
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)
