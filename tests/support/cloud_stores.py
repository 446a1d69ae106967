"""Stores of Azure and of Google for tests: azurite, and a proxy that makes a store that speaks S3
understand Google's condition."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import hmac
import http.client
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from tests.support.requirements import find, give_up

ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
_VERSION = "2021-08-06"


@contextlib.contextmanager
def azurite() -> Iterator[str]:
    """Run azurite with the container `lakes`; yield its address. Skips the test without it."""
    program = find("azurite-blob")
    if program is None:
        give_up("azurite-blob (npm package azurite) in PATH")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [
        program,
        "--silent",
        "--inMemoryPersistence",
        "--skipApiVersionCheck",
        "--disableTelemetry",
    ]
    process = subprocess.Popen([*command, "--blobPort", str(port)], stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                _create_container(port)
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/{ACCOUNT}"
    finally:
        process.terminate()
        process.wait()


def _create_container(port: int) -> None:
    date = datetime.datetime.now(datetime.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    resource = f"/{ACCOUNT}/{ACCOUNT}/lakes\nrestype:container"
    text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{_VERSION}\n{resource}"
    mac = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": _VERSION,
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(mac).decode()}",
        "Content-Length": "0",
    }
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("PUT", f"/{ACCOUNT}/lakes?restype=container", headers=headers)
    status = connection.getresponse().status
    connection.close()
    assert status == 201, status


@contextlib.contextmanager
def google_store(target: str, folder: Path, *, is_faithful: bool = True) -> Iterator[str]:
    """Run a proxy before a store that speaks S3; yield the path of the file of a service account
    that names it. It ignores the condition unless it `is_faithful`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {n: v for n, v in self.headers.items() if n.lower() not in _OWN}
            headers["Authorization"] = _SIGNED
            if self.headers.get("x-goog-if-generation-match") == "0" and is_faithful:
                headers["If-None-Match"] = "*"
            path, _, query = self.path.partition("?")
            connection = http.client.HTTPConnection(target.partition("://")[2])
            connection.request(self.command, f"{unquote(path)}?{query}", body, headers)
            answer = connection.getresponse()
            data = answer.read()
            connection.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    account = folder / "account.json"
    keys = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    address = f"http://127.0.0.1:{server.server_port}"
    account.write_text(json.dumps({**keys, "gcs_base_url": address, "disable_oauth": True}))
    try:
        yield str(account)
    finally:
        server.shutdown()
        server.server_close()


_SIGNED = (
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host,"
    " Signature=none"
)
_OWN = ("host", "content-length", "connection", "x-goog-if-generation-match", "authorization")
