"""serve, mcp and token: the lake for other programs, and who may use it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys

import click

from lakelog.cli.app import App, completing, verb, verb_group
from lakelog.cli.options import argument, combined, flag, option
from lakelog.cli.rounds import stop_at_signals, unit
from lakelog.errors import UnknownRef
from lakelog.render import micros
from lakelog.server import (
    PORT,
    QueryLimits,
    ServerPlan,
    SyslogPlan,
    TokenFile,
    TokenScope,
    serve_stdio,
)
from lakelog.server import serve as run_server

_PLAN = combined(
    ServerPlan,
    host=option("--host ADDRESS", "Address to listen on.", shown="127.0.0.1"),
    port=option(
        "--port NUMBER", "Port; 0 for any that is free.", shown=PORT, type=click.IntRange(0, 65535)
    ),
    host_names=option("--host-name NAME", "A name under which clients reach it."),
    certificate=option(
        "--tls-certificate FILE", "Certificate for https.", type=click.Path(exists=True)
    ),
    key=option("--tls-key FILE", "Its private key.", type=click.Path(exists=True)),
)


def _query_limits(workers: int, seconds: float, megabytes: int) -> QueryLimits:
    return QueryLimits(workers=workers, seconds=seconds, memory=megabytes << 20)


_QUERIES = combined(
    _query_limits,
    workers=option("--query-workers N", "Queries at a time.", shown=2, type=click.IntRange(1, 256)),
    seconds=option(
        "--query-seconds N", "How long one may take.", shown=30, type=click.FloatRange(0.1, 86_400)
    ),
    megabytes=option(
        "--query-memory MB", "What one may use.", shown=2048, type=click.IntRange(256, 1 << 20)
    ),
)


_SYSLOG = combined(
    SyslogPlan,
    syslog_port=option(
        "--syslog PORT", "Receive syslog too, by TCP and UDP.", type=click.IntRange(0, 65535)
    ),
    networks=option("--syslog-from NETWORK", "Who else may send it, such as 10.0.0.0/8."),
    authority=option(
        "--syslog-ca FILE", "Only over TLS, with its certificates.", type=click.Path(exists=True)
    ),
)


@verb()
def serve(
    app: App,
    plan: ServerPlan = _PLAN,
    queries: QueryLimits = _QUERIES,
    syslog: SyslogPlan = _SYSLOG,
    print_url: bool = flag("--print-url", "Print the address once it answers."),
    print_unit: bool = flag("--print-unit", "Print a systemd unit that does the same."),
) -> None:
    """Store events that are sent over HTTP, and answer queries, until Ctrl-C.

    JSON lines and CloudEvents at /ingest, OpenTelemetry at /v1/logs, /v1/traces and
    /v1/metrics, Elasticsearch's /_bulk, and Loki's push; SQL at /sql. An answer of 2xx means that
    the events are on disk. Alert rules are evaluated, too. Without tokens only this
    machine is answered; `lakelog token` makes them.
    """

    if print_unit:
        # Sooner than others: clients wait for a server, and it has less to end.
        subject = f"serves {os.path.abspath(app.path)}"
        click.echo(unit(app, ["serve"], subject, restart=2, stop=30), nl=False)
        return

    def started(url: str) -> None:
        if print_url:
            click.echo(url)
        app.say(f"serving {app.path} at {url}; Ctrl-C ends it")
        if stop.is_set():  # a signal of before the server had handlers: now it has
            signal.raise_signal(signal.SIGTERM)

    # Their handlers are called once more when the server has stopped: the lake is closed then.
    with stop_at_signals() as stop, app.open_or_create() as lake:
        whole = dataclasses.replace(plan, queries=queries, syslog=syslog)
        is_all = run_server(lake, whole, started)
    app.say("stopped")
    if not is_all:
        sys.stdout.flush()
        os._exit(0)  # all is on disk; what is left would keep the process for minutes


@verb()
def mcp(app: App, queries: QueryLimits = _QUERIES) -> None:
    """Let an agent read the lake: a server of the Model Context Protocol on stdin and stdout.

    The client of the agent starts it and ends it. Tools: sql, search, schema, snapshots,
    diff, audit; tags are resources. Nothing can be changed. `lakelog serve` has the same at
    /mcp.
    """
    # The SDK waits for a line in a thread that nothing interrupts, and Python for the thread.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with app.open() as lake:
        is_all = asyncio.run(serve_stdio(lake, queries))
    if not is_all:
        os._exit(0)  # nobody is there for what is left


@verb_group()
def token() -> None:
    """Make, list and revoke the tokens with which clients use `lakelog serve`.

    A token is shown once, when it is made. `read` allows queries, `ingest` storing events,
    `admin` changes of the lake. A server that runs notices a change at once.
    """


@token.verb()
def add(
    app: App,
    name: str = argument("NAME"),
    scopes: tuple[str, ...] = option(
        "--scope SCOPE",
        "What it allows: read, ingest or admin.",
        required=True,
        type=click.Choice([scope.value for scope in TokenScope]),
    ),
) -> None:
    """Make a token and print it: it cannot be shown again."""
    with app.open() as lake:
        click.echo(TokenFile(lake.path).add(name, frozenset(map(TokenScope, scopes))))


@token.verb(name="list")
def list_(app: App) -> None:
    """List the tokens by name, without their text."""
    with app.open() as lake:
        for entry in TokenFile(lake.path).entries():
            scopes = ",".join(sorted(scope.value for scope in entry.scopes))
            click.echo(f"{entry.name}  {scopes}  {micros(entry.made_at)}")


complete_token = completing(lambda lake: [entry.name for entry in TokenFile(lake.path).entries()])


@token.verb()
def revoke(app: App, name: str = argument("NAME", shell_complete=complete_token)) -> None:
    """Revoke a token: what uses it is refused from now on."""
    with app.open() as lake:
        if not TokenFile(lake.path).revoke(name):
            raise UnknownRef(f"there is no token {name!r}: lakelog token list shows them")
    app.say(f"revoked {name}")
