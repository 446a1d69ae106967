"""The protocol over HTTP, at /mcp: each request by itself, answered with JSON.

The SDK is loaded by the first request, as it takes a second and fifty megabytes.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lakelog.errors import MissingPackage
from lakelog.lake import Lake
from lakelog.runtime.lazy import Lazy
from lakelog.server.arrivals import RequestRefused
from lakelog.server.bodies import AsgiDict, Receive, Send
from lakelog.server.gate import Gate
from lakelog.server.mcp.protocol_server import protocol_server, require_package
from lakelog.server.mcp.tools import LakeTools
from lakelog.server.sql.workers import QueryWorkers
from lakelog.server.tokens import TokenScope

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from starlette import datastructures, responses
else:
    datastructures, responses = Lazy("starlette.datastructures"), Lazy("starlette.responses")

_BODY_MAX = 4 << 20


class McpEndpoint:
    """An application of ASGI that a route can have."""

    def __init__(
        self, lake: Lake, workers: QueryWorkers, gate: Gate, count: Callable[[str, int], None]
    ) -> None:
        self._tools, self._gate, self._count = LakeTools(lake, workers), gate, count
        self._starting: asyncio.Future[StreamableHTTPSessionManager] | None = None
        self._running: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    @property
    def is_reading(self) -> bool:
        """Whether a thread still reads for a tool, which cannot be ended."""
        return self._tools.is_reading

    async def __call__(self, scope: AsgiDict, receive: Receive, send: Send) -> None:
        """Answer a request."""
        try:
            headers = datastructures.Headers(scope=scope)
            self._gate.admit(headers, str(scope["scheme"])).require(TokenScope.READ)
            manager = await self._started()
        except (RequestRefused, MissingPackage) as error:
            is_refused = isinstance(error, RequestRefused)
            status = error.status if isinstance(error, RequestRefused) else 501
            self._count(scope["method"], status)
            more = error.headers if isinstance(error, RequestRefused) and is_refused else None
            response = responses.JSONResponse({"error": str(error)}, status, more)
            await response(scope, receive, send)
            return

        async def counted(message: AsgiDict) -> None:
            if message["type"] == "http.response.start":
                self._count(scope["method"], message["status"])
            await send(message)

        await manager.handle_request(scope, receive, counted)

    async def close(self) -> None:
        """End what was started."""
        self._stop.set()
        if self._running is not None:
            await self._running

    async def _started(self) -> StreamableHTTPSessionManager:
        """Return what answers requests, which the first of them starts. Raises MissingPackage."""
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_future()
            # A task of its own, as the group of tasks has to be left by the one that entered it.
            self._running = asyncio.ensure_future(self._run(self._starting))
        return await asyncio.shield(self._starting)

    async def _run(self, starting: asyncio.Future[StreamableHTTPSessionManager]) -> None:
        try:
            await asyncio.to_thread(require_package)
            module: Any = importlib.import_module("mcp.server.streamable_http_manager")
            manager = module.StreamableHTTPSessionManager(
                protocol_server(self._tools),
                json_response=True,
                stateless=True,
                max_request_body_size=_BODY_MAX,
            )
        except MissingPackage as error:
            self._starting = None  # it may be installed before the next request
            starting.set_exception(error)
            return
        async with manager.run():
            starting.set_result(manager)
            await self._stop.wait()
