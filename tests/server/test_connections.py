"""Connections: who sends the head of a request too slowly, and how answers are written."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.support.requirements import need_module

Application = Callable[[Any, Any, Any], Awaitable[None]]
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
START = {"type": "http.response.start", "status": 200, "headers": [(b"x-y", b"z")]}


@contextlib.contextmanager
def served(application: Application, seconds: float = 20.0) -> Iterator[int]:
    """Serve an application in a thread, with so much patience for heads; yield its port."""
    need_module("uvicorn")
    import uvicorn

    from lakelog.server.run import patient_protocol

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application, http=patient_protocol(seconds), log_config=None, lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        listener.close()


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        yield connection


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    await send({"type": "http.response.body", "body": b"hello"})


def test_a_head_that_comes_too_slowly_ends_its_connection_alone() -> None:
    """Byte by byte, not at all, or in the second request: each is closed, and the others live."""
    with served(hello, 0.5) as port, contextlib.ExitStack() as stack:
        slow, silent, second, idle = (stack.enter_context(connected(port)) for _ in range(4))
        for connection in (second, idle):
            connection.sendall(HEAD + b"\r\n")
            assert b"hello" in read_until(connection, b"hello")
        second.sendall(HEAD)
        ended = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                for byte in HEAD * 1_000:
                    slow.sendall(bytes([byte]))
                    if ended.wait(0.05):
                        break

        thread = threading.Thread(target=trickle)
        thread.start()
        assert is_closed(slow)
        ended.set()
        thread.join()
        assert is_closed(silent)
        assert is_closed(second)
        idle.sendall(HEAD + b"\r\n")
        assert b"hello" in read_until(idle, b"hello")


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"GET /", b"a"),
        (HEAD + b"X: ", b"a"),
        (HEAD, b"a: b\r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
    ],
    ids=["target", "value", "headers", "trailers"],
)
def test_a_head_without_an_end_ends_its_connection_early(begin: bytes, piece: bytes) -> None:
    """Each piece of it would be joined with all before, while everybody else waits."""
    sent = 0
    with served(hello) as port, connected(port) as connection:
        connection.sendall(begin)
        with contextlib.suppress(ConnectionError):
            while sent < 1 << 24:
                connection.sendall(piece * 10_000)
                sent += len(piece) * 10_000
    assert sent < 1 << 24


def test_a_long_head_and_its_long_body_are_read() -> None:
    """However they come in pieces, and as often as one connection sends them."""
    with served(hello) as port, connected(port) as connection:
        for _ in range(8):
            connection.sendall(HEAD + b"X: " + b"a" * 60_000)
            connection.sendall(b"\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000))
            assert b"hello" in read_until(connection, b"\r\n0\r\n\r\n")


def test_what_follows_a_body_is_no_part_of_the_head() -> None:
    """A trailer that came with it at once would else name a token, or an encoding."""

    async def told(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        names = b" ".join(name for name, _ in scope["headers"])
        await send({"type": "http.response.body", "body": b"<" + names + b">"})

    body = b"2\r\nab\r\n0\r\nAuthorization: Bearer x\r\n\r\n"
    with served(told) as port, connected(port) as connection:
        for _ in range(2):
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body)
            answer = read_until(connection, b"\r\n0\r\n\r\n")
            assert b"<host transfer-encoding>" in answer


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def read_until(connection: socket.socket, end: bytes) -> bytes:
    content = b""
    while end not in content and (chunk := connection.recv(1 << 16)):
        content += chunk
    return content


def test_a_head_comes_before_a_body_that_takes_long() -> None:
    may_end = threading.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await asyncio.get_running_loop().run_in_executor(None, may_end.wait)
        for body in (b"one", b"", b"two" * 10_000, b"three"):
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    with served(slow) as port, connected(port) as connection:
        connection.sendall(HEAD + b"Connection: close\r\n\r\n")
        head = read_until(connection, b"\r\n\r\n")
        assert b"x-y: z" in head
        may_end.set()
        content = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert content == b"3\r\none\r\n7530\r\n%b\r\n5\r\nthree\r\n0\r\n\r\n" % (b"two" * 10_000)


@pytest.mark.parametrize("size", [4_000, 40_000])
def test_a_client_that_does_not_read_stops_who_writes(size: int) -> None:
    """What is written for it is bounded, in small pieces and in large ones."""
    sent = [0]

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        while sent[0] < 1 << 28:
            await send({"type": "http.response.body", "body": bytes(size), "more_body": True})
            sent[0] += size

    with served(endless) as port, connected(port) as connection:
        connection.sendall(HEAD + b"\r\n")
        read_until(connection, b"\r\n\r\n")
        before = -1
        while sent[0] != before:
            before = sent[0]
            threading.Event().wait(0.5)
        assert 0 < sent[0] < 1 << 26


@pytest.mark.parametrize("name", ["Upgrade", "upgrade"])
@pytest.mark.parametrize("is_split", [False, True], ids=["whole", "split"])
def test_a_client_that_would_have_http_2_is_answered_all_the_same(
    name: str, is_split: bool
) -> None:
    """Java's HttpClient and `curl --http2` ask for it with their first request, body included."""

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        body, goes_on = b"", True
        while goes_on:
            message = await receive()
            body, goes_on = body + message["body"], message.get("more_body", False)
        await send(START)
        await send({"type": "http.response.body", "body": b"<" + body + b">"})

    # A body that looks like a head stays as it is.
    body = b"a\r\nUpgrade: h2c\r\n\r\nb"
    head = (
        f"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n{name}: h2c\r\n"
        f"HTTP2-Settings: AAMAAABk\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with served(echo) as port, connected(port) as connection:
        for _ in range(2):
            chunks = (head, body) if is_split else (head + body,)
            for chunk in chunks:
                connection.sendall(chunk)
                time.sleep(0.05)
            answer = b""
            while not answer.endswith(b"\r\n0\r\n\r\n"):
                received = connection.recv(1 << 16)
                assert received, answer
                answer += received
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"<" + body + b">" in answer
