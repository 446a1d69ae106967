"""A lake that is served over HTTP in this process, without a socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lakelog.lake import Lake
from lakelog.server.app import LakeServer
from lakelog.server.gate import Gate
from lakelog.server.limits import ServerLimits
from lakelog.server.tokens import TokenFile

SECONDS = 120


@dataclass
class Reply:
    """What a request was answered."""

    status: int
    body: bytes


@contextlib.asynccontextmanager
async def serving(lake: Lake) -> AsyncIterator[Callable[..., Awaitable[Reply]]]:
    """Serve a lake; yield what sends a request: method, target, body, headers. With `until` the
    client leaves once the answer holds these bytes."""
    server = LakeServer(lake, Gate(TokenFile(lake.path), is_local=True), ServerLimits())
    server.intake.load()
    application = server.application()

    async def ask(
        method: str,
        target: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        until: bytes = b"",
    ) -> Reply:
        path, _, query = target.partition("?")
        named = {"host": "127.0.0.1", "content-length": str(len(body)), **(headers or {})}
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "scheme": "http",
            "extensions": {},
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 7717),
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        }
        reply, requests, is_over = Reply(0, b""), [body], asyncio.Event()

        async def receive() -> dict[str, Any]:
            if requests:
                return {"type": "http.request", "body": requests.pop(), "more_body": False}
            await is_over.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            reply.status = message.get("status", reply.status)
            reply.body += message.get("body", b"")
            # Behind the end of a block, so that the position of what was found is whole.
            if until and b"\n\n" in reply.body.partition(until)[2]:
                is_over.set()

        await asyncio.wait_for(application(scope, receive, send), SECONDS)
        return reply

    try:
        yield ask
    finally:
        server.tails.end()
        server.workers.stop()
        server.dashboard.workers.stop()
        await server.close()
