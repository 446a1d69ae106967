"""Requests that store events, answered without a framework: a small one costs little but its sync.

The paths of protocols that have no names in them are looked up here, before the routes of all else.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

from lakelog.errors import LakelogError
from lakelog.server.arrivals import RequestRefused
from lakelog.server.bodies import (
    WHOLE_BODY,
    AsgiDict,
    Receive,
    Send,
    body_of,
    drain,
    require_parsable,
    texts_of,
)
from lakelog.server.gate import Gate
from lakelog.server.intake import EventIntake
from lakelog.server.limits import ServerLimits
from lakelog.server.protocols.journal_upload import JournalEntries, JournalUpload
from lakelog.server.protocols.protocol import Answer, IngestProtocol, IngestRequest
from lakelog.server.tokens import TokenScope

LATER = {"Retry-After": "5"}
SECURITY = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
_LOG = logging.getLogger("lakelog.server")
_ROOM = 1 << 16
"""Reserved for a body of unknown length, before it comes."""
_STREAMED = 1 << 20
"""Bytes of a body without an end that are stored together."""
_FAULT = {"error": "a fault of the server: its log says more"}
_SECURITY_RAW = [(name.lower().encode(), value.encode()) for name, value in SECURITY.items()]


class IngestEndpoint:
    """One protocol, as an application of ASGI."""

    def __init__(
        self,
        protocol: IngestProtocol,
        gate: Gate,
        intake: EventIntake[Answer],
        limits: ServerLimits,
        count: Callable[[str, int], None],
    ) -> None:
        self._protocol, self._gate, self._intake = protocol, gate, intake
        self._limits, self._count = limits, count

    async def __call__(self, scope: AsgiDict, receive: Receive, send: Send) -> None:
        """Store what a request brings, and answer it."""
        # By their names in small letters; of equal ones the first.
        pairs = reversed(scope["headers"])
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}
        request = IngestRequest(scope.get("path_params", {}), headers)
        try:
            answer = await self._answer(scope, request, receive)
        except RequestRefused as error:
            answer = Answer(error.status, {"error": error.reason}, error.headers)
        except Exception:
            _LOG.exception("%s %s", scope["method"], scope["path"])
            answer = Answer(500, _FAULT)
        self._count(scope["method"], answer.status)
        content = answer.body()
        answered = [
            *_SECURITY_RAW,
            (b"content-length", b"%d" % len(content)),
            *((name.lower().encode(), value.encode()) for name, value in answer.headers.items()),
        ]
        # An answer without a body has no type of one.
        if content or answer.status != 204:
            answered.append((b"content-type", answer.media_type.encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": answered})
        # Closed while it still sends, a client would find its connection reset, and no answer.
        is_cut = answer.status == 413
        await send({"type": "http.response.body", "body": content, "more_body": is_cut})
        if is_cut:
            await drain(receive)
            await send({"type": "http.response.body", "body": b""})

    async def _answer(self, scope: AsgiDict, request: IngestRequest, receive: Receive) -> Answer:
        """Store a body. Raises RequestRefused for who may not send."""
        caller = self._gate.admit(request.headers, scope["scheme"])
        caller.require(TokenScope.INGEST)
        protocol, declared = self._protocol, request.headers.get("content-length", "")
        try:
            if isinstance(protocol, JournalUpload):
                uploader = caller.name, scope["path"]
                return await self._streamed(protocol, request, receive, uploader)
            with self._intake.room(int(declared) if declared.isdigit() else _ROOM) as reserve:
                is_there = WHOLE_BODY in scope.get("extensions", ())
                body = await body_of(
                    request.headers, receive, self._limits, is_there=is_there, reserve=reserve
                )
                if protocol.is_whole:
                    require_parsable(body, self._limits)
                identity = (
                    caller.name,
                    scope["path"],
                    scope["query_string"].decode("latin-1"),
                    request.media_type,
                    # In binary mode two CloudEvents may differ in these alone.
                    *(f"{name}:{value}" for name, value in sorted(request.attributes.items())),
                )
                # What was compressed may take more than was reserved for it.
                is_packed = "content-encoding" in request.headers
                with self._intake.room(len(body)) if is_packed else nullcontext():
                    return await self._intake.once(
                        identity,
                        request.headers.get("idempotency-key", ""),
                        body,
                        lambda: protocol.receive(request, body),
                        lambda arrivals: protocol.answer(request, arrivals),
                    )
        except RequestRefused as error:
            answer = protocol.failure(request, error.status, error.reason)
            return dataclasses.replace(answer, headers={**answer.headers, **error.headers})
        except (LakelogError, OSError) as error:
            _LOG.error("%s: %s", scope["path"], error)
            # 503: whoever sent it may send it again.
            answer = protocol.failure(request, 503, str(error))
            return dataclasses.replace(answer, headers={**answer.headers, **LATER})

    async def _streamed(
        self,
        protocol: JournalUpload,
        request: IngestRequest,
        receive: Receive,
        uploader: tuple[str, ...],
    ) -> Answer:
        """Store a body while it comes. Raises RequestRefused, LakelogError, OSError."""
        loop, entries = asyncio.get_running_loop(), JournalEntries(self._limits.document_bytes)
        buffer, stored, rejected = b"", 0, 0

        async def store(*, is_end: bool) -> None:
            nonlocal buffer, stored, rejected
            cut = partial(entries.arrivals, buffer, is_end=is_end)
            arrivals, buffer = await loop.run_in_executor(None, cut), b""
            if arrivals.stored or arrivals.rejects:
                await self._intake.keep(arrivals, uploader)
            stored, rejected = stored + arrivals.stored, rejected + len(arrivals.rejects)

        # Once for all of it: a piece is stored before the next one is read.
        with self._intake.room(_STREAMED):
            async for text in texts_of(request.headers, receive, self._limits):
                buffer += text
                if len(buffer) > _STREAMED:
                    await store(is_end=False)
            await store(is_end=True)
        return protocol.summary(stored, rejected)


class PathSwitch:
    """An application that gives some paths to applications of their own, by method and path."""

    def __init__(self, paths: Mapping[tuple[str, str], Any], others: Any) -> None:
        self._paths, self._others = paths, others

    async def __call__(self, scope: AsgiDict, receive: Receive, send: Send) -> None:
        """Answer a request, or whatever else a server asks."""
        endpoint = None
        if scope["type"] == "http":
            endpoint = self._paths.get((scope["method"], scope["path"]))
        await (endpoint or self._others)(scope, receive, send)
