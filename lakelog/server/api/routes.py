"""The routes of the dashboard's API: questions go to processes of their own, so that events are
stored while they are answered; changes are made here."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import orjson

from lakelog.lake import Lake
from lakelog.server.api.answer_process import MODULE, AnswerRequest
from lakelog.server.api.answers import (
    CHANGE,
    OF_SERVER,
    PINNED,
    QUESTIONS,
    READ,
    Answerer,
    AnswererLoader,
    answered,
)
from lakelog.server.api.question import DashboardQuestion
from lakelog.server.arrivals import RequestRefused
from lakelog.server.bodies import read_body
from lakelog.server.gate import Caller
from lakelog.server.limits import ServerLimits
from lakelog.server.protocols.protocol import Answer
from lakelog.server.sql.endpoint import ClientLeft, refused, while_connected
from lakelog.server.sql.query_limits import QueryLimits, QueryRefused
from lakelog.server.sql.workers import QueryWorkers
from lakelog.server.tokens import TokenScope

if TYPE_CHECKING:
    from starlette.requests import Request

_THREADS = 2
ApiHandler = Callable[["Request", Caller], Awaitable[Answer]]


class DashboardApi:
    """Answers the dashboard of one lake."""

    def __init__(self, lake: Lake, limits: ServerLimits, queries: QueryLimits) -> None:
        self._lake, self._limits = lake, limits
        self.workers = QueryWorkers(lake.path, lake.branch_name, queries, MODULE)
        self._preparing: asyncio.Task[None] | None = None
        self._threads = ThreadPoolExecutor(_THREADS, "lakelog-api")

    def routes(self) -> Iterator[tuple[str, ApiHandler, TokenScope, str]]:
        """Every path under /api with its handler, the scope that a caller needs, and its method:
        questions need `read`, changes `admin`."""
        for name in QUESTIONS:
            handler = functools.partial(self._ask, name)
            yield f"/api/{name}", handler, TokenScope.READ, "GET"
        for name, load in OF_SERVER.items():
            handler = functools.partial(self._look, load)
            yield f"/api/{name}", handler, TokenScope.READ, "GET"
        for name, load in CHANGE.items():
            handler = functools.partial(self._change, load)
            yield f"/api/{name}", handler, TokenScope.ADMIN, "POST"

    @staticmethod
    def answerers() -> dict[tuple[str, str], Answerer]:
        """What answers each method and path. All of it is loaded."""
        questions = {("GET", f"/api/{name}"): load() for name, load in READ.items()}
        changes = {("POST", f"/api/{name}"): load() for name, load in CHANGE.items()}
        return questions | changes

    def prepare(self) -> None:
        """Start a process beside what goes on, so that the first page need not wait for it."""
        if self._preparing is None:
            self._preparing = asyncio.create_task(self._prepared())

    async def _prepared(self) -> None:
        with contextlib.suppress(QueryRefused):  # the first question says so
            await self.workers.prepare()

    async def close(self) -> None:
        """Answer nothing any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self.workers.close()

    async def _ask(self, name: str, request: Request, caller: Caller) -> Answer:
        query = dict(request.query_params)
        if name in PINNED:
            pinned = await self._here(PINNED[name], self._question(query, {}, caller))
            if pinned.status != 200:
                return pinned
            query = orjson.loads(pinned.body())
        scopes = sorted(scope.value for scope in caller.scopes)
        answer_request = AnswerRequest(self.workers.next_number(), name, query, caller.name, scopes)
        try:
            return await while_connected(request, self._answered(answer_request))
        except QueryRefused as error:
            return refused(error)
        except ClientLeft:
            return Answer(499)

    async def _answered(self, answer_request: AnswerRequest) -> Answer:
        frames = self.workers.frames(answer_request)
        head = orjson.loads(await anext(frames))
        content = b"".join([chunk async for chunk in frames])
        return Answer(head["status"], content, head["headers"])

    async def _look(self, load: AnswererLoader, request: Request, caller: Caller) -> Answer:
        return await self._here(load, self._question(request.query_params, {}, caller))

    async def _change(self, load: AnswererLoader, request: Request, caller: Caller) -> Answer:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip()
        # A form of another page cannot send this type without being asked for by name.
        if media_type.lower() != "application/json":
            raise RequestRefused(415, "a change is sent as application/json")
        try:
            body = orjson.loads(await read_body(request, self._limits))
        except orjson.JSONDecodeError as error:
            raise RequestRefused(400, f"not JSON: {error}") from None
        if not isinstance(body, dict):
            raise RequestRefused(400, "a change is a JSON object")
        # Whether or not its client stays, a change is made whole.
        return await self._here(load, self._question({}, body, caller))

    async def _here(self, load: AnswererLoader, question: DashboardQuestion) -> Answer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, answered, load, question)

    def _question(
        self, query: Mapping[str, str], body: Mapping[str, object], caller: Caller
    ) -> DashboardQuestion:
        return DashboardQuestion(self._lake, query, body, caller)
