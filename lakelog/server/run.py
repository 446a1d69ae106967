"""Running a server: one process, one lake, until a signal.

A stop first refuses new requests, then finishes those that are under way, and at last closes the
lake, which seals what its writer has. Streams to clients end at once, as nothing else would end
them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import importlib
import logging
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from lakelog.errors import InvalidSetting, MissingPackage
from lakelog.lake import Lake
from lakelog.runtime.lazy import Lazy
from lakelog.server.app import LakeServer
from lakelog.server.bodies import WHOLE_BODY
from lakelog.server.gate import Gate, is_loopback
from lakelog.server.limits import ServerLimits
from lakelog.server.sql.query_limits import QueryLimits
from lakelog.server.syslog import SyslogPlan, SyslogServer
from lakelog.server.tokens import TokenFile

if TYPE_CHECKING:
    import uvicorn
else:
    uvicorn = Lazy("uvicorn")

_LOG = logging.getLogger("lakelog.server")
_LOG_SECONDS = 60.0
_HEAD_MAX = 1 << 17
"""Bytes in a row of which no head and no body comes; positions of tails make long heads."""
_UPGRADE = re.compile(rb"\r\nupgrade:(?![ \t]*websocket)", re.IGNORECASE)


def patient_protocol(seconds: float) -> type[asyncio.Protocol]:
    """The protocol of a server that closes connections whose head takes longer than so long, or
    has no end."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    deadlines = HeadDeadlines(seconds)

    class PatientProtocol(HttpToolsProtocol):
        """Closes the connection of a client that sends the head of a request too slowly, or more
        than a head may have."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            deadlines.begin(self.transport)
            self.is_head, self.unfinished = True, 0

        def data_received(self, data: bytes) -> None:
            # Asked for another protocol, as Java's and curl's HTTP/2 is, the parser would leave out
            # the body. A server may stay with its own (RFC 9110, 7.8).
            if self.is_head and b"pgrade:" in data:
                head, end, body = data.partition(b"\r\n\r\n")
                data = _UPGRADE.sub(b"\r\nX-Upgrade:", head) + end + body
            self.unfinished += len(data)
            super().data_received(data)
            # Nobody reads it before it ends: the parser would join it again with each piece, for a
            # head or a trailer without an end until there is no memory left.
            if self.unfinished > _HEAD_MAX and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")

        def on_body(self, body: bytes) -> None:
            self.unfinished = 0
            super().on_body(body)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            deadlines.begin(self.transport)

        def on_header(self, name: bytes, value: bytes) -> None:
            # Behind a body it would be taken for one of the head (RFC 9110, 6.5.1), once a proxy
            # has looked at that.
            if self.is_head:
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            deadlines.end(self.transport)
            self.is_head, self.unfinished = False, 0
            # Who is asked would depend on who looks (RFC 9112, 3.2): a fault is answered with 400.
            if sum([name == b"host" for name, _ in self.headers]) > 1:
                raise ValueError("a request names one host")
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self.is_head, self.unfinished = True, 0
            super().on_message_complete()
            # The application has not begun with it, if its first bytes came together.
            self.scope["extensions"] = {WHOLE_BODY: {}}

        def connection_lost(self, exc: Exception | None) -> None:
            deadlines.end(self.transport)
            super().connection_lost(exc)

    return PatientProtocol


class HeadDeadlines:
    """Connections that wait for the head of a request, by how long they may: one timer for all."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # In the order of their deadlines, as all have equally long.
        self._waiting: dict[Any, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, transport: Any) -> None:
        """Its head has to come from now on."""
        loop = asyncio.get_running_loop()
        self._waiting.pop(transport, None)
        self._waiting[transport] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)

    def end(self, transport: Any) -> None:
        """It has come, or never will."""
        self._waiting.pop(transport, None)

    def _look(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        for transport, deadline in list(self._waiting.items()):
            # The earliest that is left, and so all behind it have time yet: one timer is enough.
            if deadline > loop.time():
                self._timer = loop.call_at(deadline, self._look)
                return
            del self._waiting[transport]
            transport.close()


class ServerHandshake(ssl.SSLObject):
    """A handshake of TLS whose failure is logged, once a minute for each reason: the loop says
    nothing of it, and what a sender of syslog with a wrong certificate sends is lost."""

    _log_times: ClassVar[dict[str, float]] = {}

    def do_handshake(self) -> None:
        """Shake hands. Raises SSLError."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            reason, now = error.reason or type(error).__name__, time.monotonic()
            if now >= self._log_times.get(reason, -_LOG_SECONDS) + _LOG_SECONDS:
                self._log_times[reason] = now
                _LOG.warning("a client was refused by TLS: %s", reason.lower().replace("_", " "))
            raise


PORT = 7717
STOP_SECONDS = 4
_UNREAD_SECONDS = 3.0
"""Seconds that a client has to read what was sent to it, once the server stops."""
_PREPARE_SECONDS = 1.0
_LOOK = 0.01
_LOOK_STOP = 0.1
_MESSAGE_MAX = 1 << 16
_COLLECTED_MIN = 50_000
"""Objects that are new, and may hold each other, before a collection looks at them."""


@dataclass(frozen=True)
class ServerPlan:
    """Where a server listens, and whom it answers. `host_names` are names beside its address."""

    host: str = "127.0.0.1"
    port: int = PORT
    host_names: tuple[str, ...] = ()
    certificate: str | None = None
    key: str | None = None
    limits: ServerLimits = field(default_factory=ServerLimits)
    syslog: SyslogPlan = field(default_factory=SyslogPlan)
    queries: QueryLimits = field(default_factory=QueryLimits)


def serve(lake: Lake, plan: ServerPlan, started: Callable[[str], None]) -> bool:
    """Serve a lake until SIGINT or SIGTERM; `started` gets the URL once it answers. Return whether
    nothing of it is left: what tries a condition of a live tail, or reads much for an agent, cannot
    be ended, and the process would wait for it.

    Raises InvalidSetting where it would be open to others, MissingPackage, OSError.
    """
    require_packages()
    with contextlib.closing(_listener(plan)) as listener:
        host, port = listener.getsockname()[:2]
        tokens = TokenFile(lake.path)
        is_local = is_loopback(host)
        if not is_local:
            _require_closed(plan, tokens)
        gate = Gate(tokens, is_local=is_local, hosts=(url_host(host), *plan.host_names))
        context = _tls_context(plan)
        server = LakeServer(lake, gate, plan.limits, plan.queries)
        # Before the port answers: a request that comes again must not be stored twice.
        server.intake.load()
        scheme = "https" if plan.certificate else "http"
        url = f"{scheme}://{url_host(host)}:{port}"
        name = plan.host_names[0] if plan.host_names else url_host(host)
        site = f"{scheme}://{name}:{port}"

        # Only a server that answers evaluates rules, for their notifications have links to it.
        def serving() -> None:
            server.alerts.start(site)
            started(url)

        _run(server, plan, context, listener, serving)
        return not (server.tails.has_readers or server.agents.is_reading)


def url_host(host: str) -> str:
    """An address as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def require_packages() -> None:
    """Raise MissingPackage where a server could not run."""
    with MissingPackage.unless("server", "a server needs packages of its own"):
        for package in ("uvicorn", "httptools", "starlette", "wsproto", "prometheus_client"):
            importlib.import_module(package)


def _require_closed(plan: ServerPlan, tokens: TokenFile) -> None:
    """Beyond this machine a token and TLS are needed. Raises InvalidSetting."""
    if plan.certificate is None:
        raise InvalidSetting(
            f"{plan.host} is reached by other machines: give --tls-certificate and --tls-key, or"
            " listen on 127.0.0.1"
        )
    if not tokens.entries():
        raise InvalidSetting(
            f"{plan.host} is reached by other machines, and the lake has no token: make one with"
            " lakelog token add NAME --scope ingest"
        )


def _tls_context(plan: ServerPlan, authority: str | None = None) -> ssl.SSLContext | None:
    """What a server with a certificate shows its clients; with an `authority`, a file, they need
    one of their own. Raises InvalidSetting."""
    if plan.certificate is None:
        if plan.key is None and authority is None:
            return None
        option = "--tls-key" if authority is None else "--syslog-ca"
        raise InvalidSetting(f"{option} is for TLS: give --tls-certificate and --tls-key")

    def refuse_password() -> str:
        name = plan.key or plan.certificate
        raise InvalidSetting(f"the key in {name} has a password: name a file without one")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = ServerHandshake
    names = " and ".join(filter(None, (plan.certificate, plan.key)))
    content = "certificate with its private key"
    try:
        # Without a function for it, a terminal would be asked for the password of a key.
        context.load_cert_chain(plan.certificate, plan.key, refuse_password)
        if authority is not None:
            names, content = authority, "certificate of an authority"
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(authority)
    except OSError as error:
        # What OpenSSL says of a file is where in its code it stood.
        reason = "" if isinstance(error, ssl.SSLError) else f": {error.strerror}"
        raise InvalidSetting(f"there is no {content} (PEM) in {names}{reason}") from None
    return context


def _listener(plan: ServerPlan) -> socket.socket:
    family = socket.AF_INET6 if ":" in plan.host else socket.AF_INET
    # With its protocol, or asyncio leaves Nagle's delay on for each connection.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # For a restart: connections of the server before may still be in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((plan.host, plan.port))
    except OSError as error:
        listener.close()
        # A name that is not known has a number of its own, which is none of the system.
        reason = error.strerror or str(error)
        option = "port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "host"
        raise InvalidSetting(
            f"cannot listen on {plan.host}:{plan.port}: {reason}: choose another --{option}"
        ) from None
    # Handed to a child that takes over from this process without closing the port.
    listener.set_inheritable(True)
    return listener


def _run(
    server: LakeServer,
    plan: ServerPlan,
    context: ssl.SSLContext | None,
    listener: socket.socket,
    started: Callable[[], None],
) -> None:
    config = uvicorn.Config(
        server.application(),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        # uvicorn's lifespan would run in its own task; start and end are in `_serving`.
        lifespan="off",
        # Only the peer's address counts: a header could claim that a stranger is this machine.
        proxy_headers=False,
        ws="wsproto",
        ws_max_size=_MESSAGE_MAX,
        limit_concurrency=plan.limits.connections,
        timeout_graceful_shutdown=STOP_SECONDS,
        http=patient_protocol(plan.limits.header_seconds),
    )
    # Made before: of files uvicorn would say which fails in words of OpenSSL, without their names.
    config.load()
    config.ssl = context
    # asyncio.Runner and not uvicorn's own: syslog and streams share its loop.
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serving(uvicorn.Server(config), server, plan, listener, started))


async def _start_syslog(server: LakeServer, plan: ServerPlan) -> None:
    """Receive syslog, where a port is given for it. Raises InvalidSetting."""
    if plan.syslog.syslog_port is None:
        if plan.syslog.networks or plan.syslog.authority:
            raise InvalidSetting("--syslog-from and --syslog-ca are for syslog: give --syslog PORT")
        return
    server.syslog = SyslogServer(plan.syslog, plan.host, server.intake)
    authority = plan.syslog.authority
    try:
        await server.syslog.start(_tls_context(plan, authority) if authority else None)
    except OSError as error:
        raise InvalidSetting(
            f"cannot receive syslog on {plan.host}:{plan.syslog.syslog_port}: {error}"
        ) from None
    server.intake.syslog_lost = lambda: server.syslog.lost if server.syslog else 0


async def _serving(
    http: uvicorn.Server,
    server: LakeServer,
    plan: ServerPlan,
    listener: socket.socket,
    started: Callable[[], None],
) -> None:
    task = asyncio.ensure_future(http.serve(sockets=[listener]))
    try:
        # uvicorn has no event for it, only a flag.
        while not (http.started or task.done()):
            await asyncio.sleep(_LOOK)
        if http.started:
            try:
                await _start_syslog(server, plan)
            except InvalidSetting:
                http.should_exit = True
                await task
                raise
            started()
            # What is there now lives as long as the process: a collection that looked at all of it
            # would stop every thread for 40 ms, each time some fifty bodies have been parsed.
            gc.freeze()
            # Nor at each third of a body, whose objects have no cycles, and are soon gone.
            gc.set_threshold(_COLLECTED_MIN)
            # A moment later, so that senders who waited for the server come first.
            asyncio.get_running_loop().call_later(_PREPARE_SECONDS, server.dashboard.prepare)
        # It waits for the clients of streams, who wait for it.
        while not (http.should_exit or task.done()):
            await asyncio.wait([task], timeout=_LOOK_STOP)
        server.tails.end()
        server.workers.stop()
        server.dashboard.workers.stop()
        asyncio.get_running_loop().call_later(_UNREAD_SECONDS, _let_go, http)
        await task
    finally:
        # Again, where the try was left early; all of them may be called twice.
        server.tails.end()
        if server.syslog is not None:
            await server.syslog.stop()
        await server.close()


def _let_go(http: uvicorn.Server) -> None:
    """Let go of clients that do not read: their tasks, which wait for them, would be ended as
    faults."""
    for connection in list(http.server_state.connections):
        if connection.transport.get_write_buffer_size():
            connection.transport.abort()
            # After its loss: uvicorn 0.36 lets a WebSocket wait for it to be writable again.
            asyncio.get_running_loop().call_soon(connection.resume_writing)
