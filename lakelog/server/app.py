"""The routes of a server: each request passes the gate, and every error is one line of JSON."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import shutil
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from lakelog.alerts import evaluate_when_free
from lakelog.errors import LakelogError
from lakelog.lake import Lake
from lakelog.runtime.lazy import Lazy
from lakelog.server import loki_tail, openapi, pages
from lakelog.server.api.routes import DashboardApi
from lakelog.server.arrivals import RequestRefused
from lakelog.server.gate import Caller, Gate
from lakelog.server.ingest_endpoint import LATER, SECURITY, IngestEndpoint, PathSwitch
from lakelog.server.intake import EventIntake
from lakelog.server.limits import ServerLimits
from lakelog.server.logql.endpoint import BUILD, PREFIX, LokiQueries
from lakelog.server.mcp.endpoint import McpEndpoint
from lakelog.server.metrics import ServerMetrics
from lakelog.server.protocols.collectd import CollectdWrite
from lakelog.server.protocols.elastic import ABOUT, IGNORED, PROBES, PRODUCT, ElasticBulk
from lakelog.server.protocols.journal_upload import JournalUpload
from lakelog.server.protocols.json_lines import JsonIngest
from lakelog.server.protocols.loki import LokiPush
from lakelog.server.protocols.otlp import OtlpHttp
from lakelog.server.protocols.protocol import Answer, IngestProtocol
from lakelog.server.sql.confinement import landlock_version
from lakelog.server.sql.endpoint import SqlEndpoint, StreamedAnswer
from lakelog.server.sql.query_limits import QueryLimits
from lakelog.server.sql.workers import QueryWorkers
from lakelog.server.syslog import SyslogServer
from lakelog.server.tail import TailEndpoint
from lakelog.server.tail_hub import TailHub
from lakelog.server.tokens import TokenScope
from lakelog.settings import VERSION
from lakelog.values import JsonObject

if TYPE_CHECKING:
    from starlette import applications, responses, routing
    from starlette.requests import Request
    from starlette.responses import Response
else:
    applications = Lazy("starlette.applications")
    responses = Lazy("starlette.responses")
    routing = Lazy("starlette.routing")

_STOP_SECONDS = 12.0
"""A delivery that was begun ends within ten: without its outcome it would be sent twice."""
_FREE_MIN = 1 << 20
"""Bytes of a disk below which the next request may not be stored."""
_ALERT_LOG = logging.getLogger("lakelog.alerts")


class AlertThread:
    """Evaluates the rules of a lake from `start` on, unless another process does."""

    def __init__(self, lake: Lake) -> None:
        self._lake, self._stop = lake, threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, site: str) -> None:
        """Begin; `site` is the server's address, for links."""
        self._thread = threading.Thread(target=self._run, args=(site,), name="lakelog-alerts")
        self._thread.start()

    def close(self) -> None:
        """End it, and wait until what was begun is recorded."""
        self._stop.set()
        # Without a bound a receiver that does not answer would keep the server from ending.
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)

    def _run(self, site: str) -> None:
        try:
            evaluate_when_free(self._lake, _ALERT_LOG.warning, self._stop, site=site)
        except Exception:  # a fault of ours: the server has other work, too
            _ALERT_LOG.exception("alerts are not evaluated any more")


PROTOCOLS: tuple[IngestProtocol, ...] = (
    *(ElasticBulk(), OtlpHttp(), LokiPush(), JsonIngest(), CollectdWrite(), JournalUpload()),
)
_LOG = logging.getLogger("lakelog.server")
Handler = Callable[["Request", Caller], Awaitable[Answer | StreamedAnswer]]


class LakeServer:
    """What the routes of one lake share."""

    def __init__(
        self, lake: Lake, gate: Gate, limits: ServerLimits, queries: QueryLimits | None = None
    ) -> None:
        self.lake, self.gate, self.limits = lake, gate, limits
        queries = queries or QueryLimits()
        self.workers = QueryWorkers(lake.path, lake.branch_name, queries)
        self.intake: EventIntake[Answer] = EventIntake(lake, limits)
        self.tails = TailHub(lake, limits)
        self.syslog: SyslogServer | None = None
        self.metrics = ServerMetrics(lake, self.intake, self.workers, self.tails)
        self.dashboard = DashboardApi(lake, limits, queries)
        self.alerts = AlertThread(lake)
        self.agents = McpEndpoint(lake, self.workers, gate, self.metrics.count)

    async def close(self) -> None:
        """End what the server has started."""
        # The intake last: its writer seals what it has, and nothing may wait to be stored then.
        # What reads the lake goes before, as it would hold up the end.
        await self.dashboard.close()
        await self.agents.close()
        await self.workers.close()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.tails.join)
        await loop.run_in_executor(None, self.alerts.close)
        await loop.run_in_executor(None, self.intake.close)

    def application(self) -> PathSwitch:
        """Return the ASGI application."""
        routes: list[routing.BaseRoute] = [
            self._route("/healthz", self._health, None),
            self._route("/readyz", self._ready, None),
            self._route("/metrics", self._metrics, TokenScope.READ),
            self._route("/", self._front, None, ["GET", "HEAD"]),
            *(self._route(f"/{name}", self._moved, None) for name in pages.PAGES),
            self._route(f"{pages.FOLDER}{{name:path}}", self._page, None, ["GET", "HEAD"]),
            self._route("/openapi.json", self._described, TokenScope.READ),
            *(
                self._route(path, self._probed(probe), TokenScope.INGEST, ["GET", "PUT"])
                for path, probe in PROBES.items()
            ),
            *(
                self._route(f"/{name}/health", self._cluster, TokenScope.INGEST)
                for name in ("_cluster", "_cat")
            ),
            *(
                self._route(path, self._webhook, TokenScope.INGEST, ["OPTIONS"])
                for path in JsonIngest.routes
            ),
            self._route("/ready", self._ready, None),
            self._route(f"{PREFIX}/status/buildinfo", self._build, TokenScope.READ),
            self._route(
                "/sql", SqlEndpoint(self.workers, self.limits).answer, TokenScope.READ, ["POST"]
            ),
        ]
        tail = TailEndpoint(self.tails, self.gate, self.metrics.count)
        routes += [
            routing.Route("/tail", tail, methods=["GET"]),
            routing.WebSocketRoute("/ws", tail),
        ]
        # Without the middleware of an application, which each event would pass for each client.
        direct: dict[tuple[str, str], IngestEndpoint | TailEndpoint] = {("GET", "/tail"): tail}
        tail = TailEndpoint(self.tails, self.gate, self.metrics.count, loki_tail.WORDING)
        routes.append(routing.WebSocketRoute(loki_tail.PATH, tail))
        routes.append(routing.Route("/mcp", self.agents, methods=["POST"]))
        routes += [
            self._route(path, handler, scope, [method])
            for path, handler, scope, method in self.dashboard.routes()
        ]
        for path, handler in LokiQueries(self.workers, self.limits).routes().items():
            routes.append(self._route(path, handler, TokenScope.READ, ["GET", "POST"]))
        for protocol in PROTOCOLS:
            count = self.metrics.count
            endpoint = IngestEndpoint(protocol, self.gate, self.intake, self.limits, count)
            methods = list(protocol.methods)
            routes += [routing.Route(path, endpoint, methods=methods) for path in protocol.routes]
            direct |= {(m, path): endpoint for m in methods for path in protocol.routes}
        index = self._route("/{index}", self._index, TokenScope.INGEST, ["HEAD"])

        async def missing(request: Request, error: Exception) -> Response:
            # A route for every path would be found where another one has other methods.
            if request.method == "HEAD" and re.fullmatch("/[^_/][^/]*", request.url.path):
                return await index.endpoint(request)  # type: ignore[no-any-return]
            return responses.JSONResponse({"error": "there is nothing at that path"}, 404, SECURITY)

        handlers = {404: missing, 405: _wrong}
        return PathSwitch(
            direct, applications.Starlette(routes=routes, exception_handlers=handlers)
        )

    def _route(
        self,
        path: str,
        handler: Handler,
        scope: TokenScope | None,
        methods: Sequence[str] = ("GET",),
    ) -> routing.Route:
        """A route whose caller needs a scope; None lets anybody ask who names this host."""

        async def endpoint(request: Request) -> Response | StreamedAnswer:
            answer: Answer | StreamedAnswer
            try:
                caller = self._admitted(request, scope)
                answer = await handler(request, caller)
            except RequestRefused as error:
                answer = Answer(error.status, {"error": error.reason}, error.headers)
            # Whatever it is: the caller gets an answer, and the log says more.
            except Exception as error:
                answer = _failed(error, request)
            self.metrics.count(request.method, answer.status)
            headers = {**SECURITY, **answer.headers}
            if isinstance(answer, StreamedAnswer):
                answer.headers = headers
                return answer
            return responses.Response(answer.body(), answer.status, headers, answer.media_type)

        return routing.Route(path, endpoint, methods=list(methods))

    def _admitted(self, request: Request, scope: TokenScope | None) -> Caller:
        if scope is None:
            return Caller("", frozenset())
        caller = self.gate.admit(request.headers, request.url.scheme)
        caller.require(scope)
        return caller

    async def _health(self, request: Request, caller: Caller) -> Answer:
        return Answer(200, {"status": "ok", "version": VERSION})

    async def _ready(self, request: Request, caller: Caller) -> Answer:
        """Whether the lake can be read and written."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, self.intake.require_lake)
            await loop.run_in_executor(None, self.lake.count)
            if (free := shutil.disk_usage(self.lake.path).free) < _FREE_MIN:
                raise OSError(errno.ENOSPC, f"{free:,} bytes are free", self.lake.path)
        except (LakelogError, OSError) as error:
            _LOG.error("not ready: %s", error)
            return Answer(503, {"status": "not ready"})
        confinement = "landlock" if landlock_version() else "engine"
        return Answer(200, {"status": "ready", "queries_confined_by": confinement})

    async def _metrics(self, request: Request, caller: Caller) -> Answer:
        loop = asyncio.get_running_loop()
        figures = await loop.run_in_executor(None, self.metrics.text)
        return Answer(200, figures, media_type=self.metrics.media_type)

    async def _front(self, request: Request, caller: Caller) -> Answer:
        """The dashboard for browsers; what Elasticsearch's clients look for, for all else."""
        if "text/html" in request.headers.get("accept", ""):
            self.dashboard.prepare()
            return pages.page("index.html", request.headers)
        self._admitted(request, TokenScope.INGEST)
        return Answer(200, ABOUT, PRODUCT)

    async def _moved(self, request: Request, caller: Caller) -> Answer:
        return pages.moved(request.url.path.strip("/"), request.url.query)

    async def _page(self, request: Request, caller: Caller) -> Answer:
        return pages.page(request.path_params["name"], request.headers)

    async def _described(self, request: Request, caller: Caller) -> Answer:
        loop = asyncio.get_running_loop()
        handlers = await loop.run_in_executor(None, self.dashboard.answerers)
        return Answer(200, openapi.document(handlers))

    @staticmethod
    def _probed(probe: Callable[[str], JsonObject]) -> Handler:
        async def answer(request: Request, caller: Caller) -> Answer:
            name = request.path_params.get("name", "")
            return Answer(200, IGNORED if request.method == "PUT" else probe(name), PRODUCT)

        return answer

    async def _cluster(self, request: Request, caller: Caller) -> Answer:
        """The state of a cluster of one node."""
        status = (await self._ready(request, caller)).status
        colour = "green" if status == 200 else "red"
        health = {"cluster_name": "lakelog", "status": colour, "number_of_nodes": 1}
        return Answer(status, {**health, "number_of_data_nodes": 1, "timed_out": False}, PRODUCT)

    async def _index(self, request: Request, caller: Caller) -> Answer:
        """That an index is there: one may send to each."""
        return Answer(200, None, PRODUCT)

    async def _webhook(self, request: Request, caller: Caller) -> Answer:
        """The consent that senders of CloudEvents ask for (WebHooks for Event Delivery, 4)."""
        origin = request.headers.get("webhook-request-origin", "*")
        consent = {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*"}
        return Answer(200, None, {"Allow": "POST", **consent})

    async def _build(self, request: Request, caller: Caller) -> Answer:
        return Answer(200, BUILD)


def _failed(error: Exception, request: Request) -> Answer:
    """The answer to a fault of ours, or of the lake: what it is stands in the log."""
    if isinstance(error, (LakelogError, OSError)):
        _LOG.error("%s: %s", request.url.path, error)
        return Answer(503, {"error": str(error)}, LATER)
    _LOG.exception("%s %s", request.method, request.url.path)
    return Answer(500, {"error": "a fault of the server: its log says more"})


async def _wrong(request: Request, error: Exception) -> Response:
    # Starlette's error has the methods of one route, and a path may have several.
    fitting = (r for r in request.app.routes if r.matches(request.scope)[0] != routing.Match.NONE)
    methods = {method for route in fitting for method in route.methods}
    headers = {**SECURITY, "Allow": ", ".join(sorted(methods))}
    return responses.JSONResponse({"error": "that path has other methods"}, 405, headers)
