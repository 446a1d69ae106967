"""subscriptions: run one with a program; list, reset and remove them, and retry dead letters."""

from __future__ import annotations

import dataclasses

import click

import lakelog.subscriptions as subs
from lakelog.cli.app import App, completing, verb_group
from lakelog.cli.options import argument, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit
from lakelog.cli.render.terminal import many
from lakelog.cli.rounds import stop_at_signals
from lakelog.cli.signals import ended_by_second_interrupt
from lakelog.erased import copies

NAME = argument(
    shell_complete=completing(
        lambda lake: [status.name for status in subs.listed(lake.subscriptions())]
    )
)


@verb_group()
def subscriptions() -> None:
    """Hand each event to a program once, those that are there and then live ones.

    A subscription keeps its position in the branch, where a rollback takes it back. All
    processes that run one of a name share its events, those of a subject in order.
    """


@subscriptions.verb(name="run")
@ended_by_second_interrupt()
def run_subscription(
    app: App,
    name: str = NAME,
    command: str = option(
        "--to-command COMMAND",
        "Write events as JSON lines to the input of COMMAND, started for each batch.",
        required=True,
    ),
    where: str | None = option("--where SQL", "Only events for which this SQL condition holds."),
    start: str = option(
        "--from PLACE",
        "Where a new one begins: beginning, end, or the seq of an event.",
        shown="beginning",
    ),
    append: bool = flag("--append", "Append the JSON lines that COMMAND writes."),
    batch: int = option(
        "--batch N", "At most so many events together.", type=click.IntRange(1), shown="1000"
    ),
    attempts: int = option(
        "--attempts N", "Failures after which one is given up.", type=click.IntRange(1), shown="5"
    ),
    once: bool = flag("--once", "Handle what is there now, then exit."),
) -> None:
    """Hand the events of NAME to a program.

    It is created if it is not there.

    COMMAND has handled a batch when it exits with 0. Otherwise it is started again with
    single events; one that fails --attempts times becomes a dead letter. With --append
    what it wrote is published in one move with the position, so exactly once.
    """
    handler = subs.CommandHandler(command, appends=append)
    # The lake first: a signal ends the run in order, and then the lake is closed.
    with app.open() as lake, stop_at_signals() as stop:
        subscription = subs.Subscription(lake.subscriptions(), name, where, start, say=app.say)
        # Before any event is handed out: an erasure has to name whoever may have some.
        copies.note(lake.store.paths, "subscription", name)
        with subscription:
            count = subscription.run_batches(
                handler, stop=stop, once=once, attempts=attempts, size=batch
            )
    app.say(f"{name}: handled {many(count, 'event')}")


@subscriptions.verb(name="list")
def list_subscriptions(app: App, target: OutputTarget = OUTPUT) -> None:
    """List subscriptions, and how far each is behind."""
    with app.open() as lake:
        statuses = subs.listed(lake.subscriptions())
    emit([dataclasses.asdict(status) for status in statuses], target)


@subscriptions.verb(name="reset")
def reset_subscription(
    app: App,
    name: str = NAME,
    start: str = option(
        "--from PLACE", "beginning, end, or the seq of an event.", shown="beginning"
    ),
) -> None:
    """Let subscription NAME go on elsewhere."""
    with app.open() as lake:
        subs.reset(lake.subscriptions(), name, start)
    app.say(f"{name} goes on from {start}")


@subscriptions.verb(name="remove")
def remove_subscription(app: App, name: str = NAME) -> None:
    """Remove NAME; processes that run it end."""
    with app.open() as lake:
        subs.remove(lake.subscriptions(), name)
    app.say(f"{name} removed")


@subscriptions.verb(name="dead")
def show_dead(
    app: App,
    name: str = NAME,
    command: str | None = option("--retry COMMAND", "Hand each to COMMAND once more."),
    target: OutputTarget = OUTPUT,
) -> None:
    """List events that NAME gave up, or retry them."""
    with app.open() as lake:
        access = lake.subscriptions()
        if command is None:
            letters = [dataclasses.asdict(letter) for letter in subs.dead_letters(access, name)]
            names = ("seq", "attempts", "error", "event")
            emit(letters, target, columns=names)
            return
        handler = subs.CommandHandler(command)
        # One by one, so that a letter that fails does not hold up the others.
        handled, remaining = subs.retry(access, name, lambda e: handler([e]), app.say)
    app.say(f"{name}: handled {many(handled, 'dead letter')}, {remaining:,} left")
