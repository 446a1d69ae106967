"""consume: store the messages of Kafka topics and Redis Streams, each exactly once."""

from __future__ import annotations

import contextlib
import dataclasses
import functools

import click

import lakelog.consume as streams
from lakelog.cli import exits
from lakelog.cli.app import App, verb
from lakelog.cli.input_formats import InputFormat
from lakelog.cli.options import argument, flag, option
from lakelog.cli.render.output import OutputTarget, emit, emit_record
from lakelog.cli.render.terminal import many
from lakelog.cli.rounds import EVERY, repeat
from lakelog.cli.signals import ended_by_second_interrupt
from lakelog.clients import RedisConfig
from lakelog.consume import Consumer, ConsumeResult


def complete_source(ctx: click.Context, _: click.Parameter, prefix: str) -> list[str]:
    """The word `status`, and the beginnings of sources."""
    candidates = ["kafka://", *(f"{scheme}://" for scheme in RedisConfig.SCHEMES)]
    if not ctx.params.get("arguments"):
        candidates.insert(0, "status")
    return [word for word in candidates if word.startswith(prefix)]


@verb()
@ended_by_second_interrupt()
def consume(
    app: App,
    arguments: tuple[str, ...] = argument(
        "[status] SOURCE", required=True, shell_complete=complete_source
    ),
    form: str | None = option(
        "--format", "The format of messages; detected by default.", type=InputFormat()
    ),
    start: str = option(
        "--from",
        "Where to start a stream that was never consumed.",
        type=click.Choice(streams.STARTS),
        shown="beginning",
    ),
    config: str | None = option(
        "--config FILE", "Settings of Kafka, NAME=VALUE by librdkafka's names."
    ),
    once: bool = flag("--once", "Store what is there now, then exit."),
    every: float = EVERY,
    batch: int = option(
        "--batch N",
        "Messages that are published together; 50,000 by default.",
        type=click.IntRange(1),
        default=streams.BATCH,
    ),
    as_json: bool = flag("--json", "Print the result as JSON."),
) -> None:
    """Store the messages of a Kafka topic or a Redis Stream, each exactly once.

    SOURCE is kafka://HOST:PORT[,HOST2:PORT]/TOPIC, redis://HOST:PORT/DB/STREAM or,
    with TLS, rediss://. How far it was consumed is published with the events, so that
    it holds whatever interrupts it. What does not parse goes to quarantine. It runs
    until Ctrl-C or SIGTERM, with --once until nothing is left. `status` shows how far
    behind the lake is. Passwords come from --config FILE or variables such as
    KAFKA_SASL_PASSWORD and REDIS_PASSWORD.
    """
    is_status = arguments[0] == "status" and len(arguments) == 2
    if not is_status and (len(arguments) != 1 or arguments[0] == "status"):
        raise click.UsageError("one source is needed, such as redis://localhost:6379/0/events")
    source = streams.source_of(arguments[-1], config)
    target = OutputTarget("json") if as_json else OutputTarget("table")
    # A lake is created only once the source is known to be one.
    # `status` must not create a lake: it only asks, and a mistyped --lake would go unnoticed.
    opening = app.open() if is_status else app.open_or_create()
    with opening as lake, app.progress("consuming", "messages") as progress:
        consumer = Consumer(
            lake, source, form=form, start=start, batch=batch, progress=progress, say=app.say
        )
        with contextlib.closing(consumer):
            if is_status:
                records = [dataclasses.asdict(lag) for lag in consumer.lags()]
                emit(records, target)
                return
            report = functools.partial(report_consumed, app)
            result = repeat(consumer.run, report, None if once else every)
    if as_json:
        emit_record(dataclasses.asdict(result), target, lambda: "")
    # Quarantined lines are safe, but a script has to notice them.
    exits.exit_if(once and result.quarantined, exits.FAILED)


def report_consumed(app: App, result: ConsumeResult, seconds: float) -> None:
    """Say what a round stored."""
    message = f"{many(result.messages, 'message')}, {many(result.events, 'event')}"
    if result.known:
        message += f", {result.known:,} known by id"
    if result.quarantined:
        message += f", {result.quarantined:,} quarantined (lakelog quarantine list)"
    app.say(f"{result.source}: {message}; {result.messages / max(seconds, 1e-3):,.0f} messages/s")
