"""stream: the versioned events of a subject, in order."""

from __future__ import annotations

import click

from lakelog.cli.app import App, complete_subject, state_option, verb
from lakelog.cli.options import argument, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit
from lakelog.cli.render.terminal import many
from lakelog.values import parse_value


@verb()
def stream(
    app: App,
    subject: str = argument("SUBJECT", shell_complete=complete_subject),
    after: int = option(
        "--after N", "Only versions above N.", type=click.IntRange(min=0), default=0, shown="0"
    ),
    count: int | None = option("-n N", "So many events at most.", type=click.IntRange(min=0)),
    state: str | None = state_option("As of a tag, branch, snapshot or time."),
    target: OutputTarget = OUTPUT,
) -> None:
    """Show the events of a stream in the order of their versions, from 1 on.

    A stream is the events of a subject that were appended with an expected version; other
    events of the subject have no version, and are not shown.
    """
    with app.open() as lake:
        events = (lake if state is None else lake.at(state)).stream(
            subject, after=after, limit=count
        )
    records = [
        # The payload as JSON and not as a string of JSON, as in all other output.
        {**event, "data": parse_value(event["data"].encode()) if event["data"] else None}
        for event in events
    ]
    emit(records, target)
    app.say(f"{many(len(events), 'event')}; the stream is at version {events.version}", dim=True)
