"""The routes of the dashboard's API, and how a question is answered: in threads of its own, so
that events are stored while queries run."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from lakelog.errors import (
    AlreadyExists,
    Damaged,
    InvalidName,
    InvalidSearch,
    InvalidSetting,
    InvalidView,
    LakelogError,
    NotAllowed,
    NothingToUndo,
    QueryFailed,
    RollbackRefused,
    SnapshotGone,
    UnknownRef,
    WouldDropEvents,
)
from lakelog.lake import Lake
from lakelog.server.api import (
    about,
    alerts,
    anomalies,
    counts,
    events,
    history,
    overview,
    patterns,
    sources,
    traces,
)
from lakelog.server.api.question import DashboardQuestion
from lakelog.server.arrivals import RequestRefused
from lakelog.server.bodies import departure, read_body
from lakelog.server.gate import Caller
from lakelog.server.limits import ServerLimits
from lakelog.server.protocols.protocol import Answer
from lakelog.server.tokens import TokenScope

if TYPE_CHECKING:
    from starlette.requests import Request

Answerer = Callable[[DashboardQuestion], dict[str, object]]
READ: dict[str, Answerer] = {
    "about": about.about,
    "names": about.names,
    "settings": about.settings,
    "overview": overview.overview,
    "storage": overview.storage,
    "counts": counts.counts,
    "events": events.events,
    "event": events.event,
    "values": events.values,
    "traces": traces.traces,
    "trace": traces.trace,
    "moves": history.moves,
    "diff": history.diff,
    "preflight": history.preflight,
    "sources": sources.sources,
    "files": sources.files,
    "quarantine": sources.quarantine,
    "alerts": alerts.alerts,
    "alerts/history": alerts.history,
    "patterns": patterns.patterns,
    "anomalies": anomalies.anomalies,
}
CHANGE: dict[str, Answerer] = {
    "tag": history.tag,
    "rollback": history.rollback,
    "undo": history.undo,
    "alerts/add": alerts.add,
    "alerts/remove": alerts.remove,
    "alerts/test": alerts.trial,
    "alerts/silence": alerts.silence,
    "alerts/unsilence": alerts.end_silence,
}
_STATUS: dict[type[LakelogError], int] = {
    UnknownRef: 404,
    SnapshotGone: 410,
    AlreadyExists: 409,
    WouldDropEvents: 409,
    NothingToUndo: 409,
    RollbackRefused: 409,
    NotAllowed: 403,
    InvalidName: 400,
    InvalidSearch: 400,
    InvalidSetting: 400,
    InvalidView: 400,
    QueryFailed: 400,
    Damaged: 500,
}
_THREADS = 4
SECONDS = 30
"""How long a question may take."""
_AGAIN = 0.1


@dataclass(frozen=True)
class ApiRoute:
    """A path with its methods, and the scope that a caller needs."""

    path: str
    handler: Callable[[Request, Caller], Awaitable[Answer]]
    scope: TokenScope
    methods: tuple[str, ...]


class DashboardApi:
    """Answers the dashboard of one lake."""

    def __init__(self, lake: Lake, limits: ServerLimits, version: str) -> None:
        self._lake, self._limits, self._version = lake, limits, version
        self._threads = ThreadPoolExecutor(_THREADS, "lakelog-api")

    def routes(self) -> list[ApiRoute]:
        """Every path under /api: questions need the scope `read`, changes `admin`."""
        questions = [
            ApiRoute(
                f"/api/{name}", functools.partial(self._ask, answerer), TokenScope.READ, ("GET",)
            )
            for name, answerer in READ.items()
        ]
        return questions + [
            ApiRoute(
                f"/api/{name}",
                functools.partial(self._change, answerer),
                TokenScope.ADMIN,
                ("POST",),
            )
            for name, answerer in CHANGE.items()
        ]

    @staticmethod
    def answerers() -> dict[tuple[str, str], Answerer]:
        """What answers each method and path."""
        questions = {("GET", f"/api/{name}"): answerer for name, answerer in READ.items()}
        changes = {("POST", f"/api/{name}"): answerer for name, answerer in CHANGE.items()}
        return questions | changes

    def close(self) -> None:
        """Answer nothing any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, answerer: Answerer, request: Request, caller: Caller) -> Answer:
        question = self._question(request.query_params, {}, caller)
        return await self._answer(answerer, request, question)

    async def _change(self, answerer: Answerer, request: Request, caller: Caller) -> Answer:
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
        work = asyncio.get_running_loop().run_in_executor(
            self._threads, _answered, answerer, self._question({}, body, caller)
        )
        return await self._worded(work)

    def _question(
        self, query: Mapping[str, str], body: Mapping[str, object], caller: Caller
    ) -> DashboardQuestion:
        return DashboardQuestion(self._lake, query, body, caller, self._version)

    async def _answer(
        self, answerer: Answerer, request: Request, question: DashboardQuestion
    ) -> Answer:
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, _answered, answerer, question)
        return await self._worded(_while_connected(request, question, work))

    async def _worded(self, work: Awaitable[Answer]) -> Answer:
        try:
            return await work
        except LakelogError as error:
            status = next((s for t, s in _STATUS.items() if isinstance(error, t)), None)
            if status is None:
                raise
            return Answer(status, {"error": str(error)})


async def _while_connected(
    request: Request, question: DashboardQuestion, work: asyncio.Future[Answer]
) -> Answer:
    """Wait for an answer; stop the question if its client goes away, or it takes too long."""
    leaving = asyncio.ensure_future(departure(request.receive))
    try:
        both: set[asyncio.Future[Any]] = {work, leaving}
        await asyncio.wait(both, timeout=SECONDS, return_when="FIRST_COMPLETED")
        is_late = not work.done() and not leaving.done()
        while not work.done():
            question.cancel()
            await asyncio.wait({work}, timeout=_AGAIN)
    finally:
        leaving.cancel()
    if is_late:
        return Answer(
            400, {"error": f"it took more than {SECONDS} s: choose a shorter range of time"}
        )
    return work.result()


def _answered(answerer: Answerer, question: DashboardQuestion) -> Answer:
    # Encoded here: a list of many rows would hold up the loop.
    try:
        content = orjson.dumps(answerer(question), default=str, option=orjson.OPT_NON_STR_KEYS)
    except KeyboardInterrupt:  # so the engine ends where it is cancelled
        return Answer(499, {"error": "cancelled"})
    return Answer(200, content)
