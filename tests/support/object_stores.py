"""Stores of objects that do not keep their word: a proxy before a good one, request by request."""

from __future__ import annotations

import contextlib
import http.client
import logging
import multiprocessing
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import boto3
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer


@contextlib.contextmanager
def moto_store() -> Iterator[str]:
    """Run a good store with the bucket `lakes`; yield its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    # It looks and then stores: of two requests at once both would get a name.
    create = S3Response.put_object
    S3Response.put_object = _one_by_one(create)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    # All servers of a process have one memory, in which an earlier test left its lakes.
    urllib.request.urlopen(urllib.request.Request(f"{address}/moto-api/reset", method="POST"))
    client_of(address).create_bucket(Bucket="lakes")
    yield address
    server.stop()
    S3Response.put_object = create


def client_of(address: str) -> Any:
    """A client of boto3 for a store."""
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)


def download(address: str, folder: Path) -> list[str]:
    """Write all objects of a store to a folder; return their keys."""
    client = client_of(address)
    listing = client.list_objects_v2(Bucket="lakes")
    keys = [item["Key"] for item in listing["Contents"]]
    assert not listing["IsTruncated"]
    for key in keys:
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        client.download_file("lakes", key, str(folder / key))
    return keys


@contextlib.contextmanager
def moto_process() -> Iterator[str]:
    """Run a good store in a process of its own; yield its address."""
    # Not a fork of this process: what its libraries hold may not be freed in one.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    store = context.Process(target=_serve, args=(sender,), daemon=True)
    store.start()
    sender.close()
    try:
        yield receiver.recv()
    finally:
        store.terminate()
        store.join()


def _serve(sender: Connection) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with moto_store() as address:
        sender.send(address)
        threading.Event().wait()


def _one_by_one(method: Callable[..., Any]) -> Callable[..., Any]:
    lock = threading.Lock()

    def run(*words: Any, **more: Any) -> Any:
        with lock:
            return method(*words, **more)

    return run


@dataclass
class Faults:
    """What a store does wrong from now on; `seen` are methods and paths of all requests."""

    forgets_conditions: bool = False
    """`If-None-Match` has no effect."""
    gives_twice: int = 0
    """So many names are given once more to the next one that asks, and to nobody after that."""
    shortens: str = ""
    """Of what is stored below a path with this in it, half is kept, and all is acknowledged."""
    refuses: tuple[int, str] = (0, "")
    """What is answered to everything that is to be stored, with a status; 0 for nothing."""
    reads: tuple[int, str] = (0, "")
    """What is answered to everything that is read, with a status; 0 for nothing."""
    fails_late: int = 0
    """So many uploads in parts are completed, and answered by 200 with an error, as S3 does."""
    hides: bool = False
    """Whether listings have no names."""
    drags: float = 0.0
    """Seconds after which a body that is sent has arrived, as over a slow line."""
    stumbles: bool = False
    """Whether each request is answered by 503 when it is made for the first time."""
    seen: list[tuple[str, str]] = field(default_factory=list)
    _given: set[str] = field(default_factory=set)
    _asked: set[tuple[str, str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def gives_again(self, path: str) -> bool:
        """Whether a name that is taken is given by this request."""
        with self._lock:
            if not self.gives_twice or path in self._given:
                return False
            self._given.add(path)
            self.gives_twice -= 1
            return True

    def stumbles_over(self, method: str, path: str) -> bool:
        """Note a request as it arrives; whether it is the first of its kind, and fails."""
        with self._lock:
            self.seen.append((method, path))
            is_new = (method, path) not in self._asked
            self._asked.add((method, path))
        time.sleep(self.drags if method == "PUT" else 0)
        return self.stumbles and is_new


@contextlib.contextmanager
def unfaithful(target: str) -> Iterator[tuple[str, Faults]]:
    """Run a proxy before the store at an address; yield its address, and what it does wrong."""
    faults, host = Faults(), target.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = dict(self.headers.items())
            if faults.stumbles_over(self.command, self.path):
                return self._say(503, b"<Error><Code>SlowDown</Code></Error>")
            if faults.forgets_conditions:
                headers = {n: v for n, v in headers.items() if n.lower() != "if-none-match"}
            if self.command == "PUT" and faults.shortens and faults.shortens in self.path:
                # The store is told the digest of what it gets, as one that checks nothing.
                headers = {n: v for n, v in headers.items() if "checksum" not in n.lower()}
                body = body[: len(body) // 2]
                headers["Content-Length"] = str(len(body))
            if self.command == "PUT" and faults.refuses[0]:
                return self._say(faults.refuses[0], faults.refuses[1].encode())
            if self.command == "GET" and faults.reads[0]:
                return self._say(faults.reads[0], faults.reads[1].encode())
            if faults.hides and "list-type=2" in self.path:
                return self._say(200, b"<ListBucketResult></ListBucketResult>")
            link = http.client.HTTPConnection(host, timeout=60)
            link.request(self.command, self.path, body, headers)
            answer = link.getresponse()
            data = answer.read()
            if answer.status == 412 and faults.gives_again(self.path):
                headers = {n: v for n, v in headers.items() if n.lower() != "if-none-match"}
                link.request(self.command, self.path, body, headers)
                answer = link.getresponse()
                data = answer.read()
            if self.command == "POST" and "uploadId=" in self.path and faults.fails_late:
                faults.fails_late -= 1
                return self._say(200, b"<Error><Code>InternalError</Code></Error>")
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            is_head = self.command == "HEAD"
            length = answer.getheader("Content-Length") if is_head else None
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            link.close()

        def _say(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Last-Modified", "Fri, 27 Nov 2026 12:00:00 GMT")
            self.send_header("ETag", '"0"')
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", faults
        server.shutdown()
