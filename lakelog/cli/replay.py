"""replay: recorded events once more, in their order and with their pauses."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import click

from lakelog.cli.app import App, complete_ref, verb
from lakelog.cli.arguments import moment
from lakelog.cli.render.terminal import many
from lakelog.errors import LakelogError
from lakelog.replay import pace as paces
from lakelog.replay import replay as replays
from lakelog.replay import targets
from lakelog.replay.targets import ReplayTarget


@verb(
    examples="""
    lakelog replay --speed 10x
    lakelog replay --since 2h --where "source = 'web'" --speed max --to-command './handler'
    lakelog replay --to-http http://127.0.0.1:8080/events --rate 500/s --cursor replay.json
    lakelog replay --at v1 --speed max | lakelog --lake copy append
"""
)
@click.option("--since", metavar="TIME", help="From TIME on: a time, or 2h for two hours ago.")
@click.option("--until", metavar="TIME", help="Before TIME.")
@click.option("--where", metavar="SQL", help="Only events for which this SQL condition holds.")
@click.option(
    "--at",
    metavar="REF",
    shell_complete=complete_ref,
    help="Events of a tag, branch, snapshot or time.",
)
@click.option(
    "--speed",
    default="1x",
    show_default=True,
    metavar="FACTOR",
    help="How much faster than they were recorded, such as 10x; max for no pauses.",
)
@click.option("--rate", metavar="N/s", help="At most so many events a second.")
@click.option("--to-command", metavar="COMMAND", help="Write JSON lines to the input of COMMAND.")
@click.option("--to-http", metavar="URL", help="POST JSON lines to URL.")
@click.option(
    "--to-stdout", is_flag=True, help="Write JSON lines to standard output (the default)."
)
@click.option(
    "--cursor", type=click.Path(), metavar="FILE", help="Keep in FILE how far it came; go on there."
)
def replay(
    app: App,
    since: str | None,
    until: str | None,
    where: str | None,
    at: str | None,
    speed: str,
    rate: str | None,
    to_command: str | None,
    to_http: str | None,
    to_stdout: bool,
    cursor: str | None,
) -> None:
    """Give out recorded events again, in the order of their times.

    Each event is one JSON line, as `lakelog append` takes it. Pauses are those of the
    recording, divided by --speed. SIGUSR1 pauses and goes on; Ctrl-Z and fg do, too.
    With --cursor a replay that was stopped goes on behind the last event that was
    delivered, in the same state.
    """
    if sum(map(bool, (to_command, to_http, to_stdout))) > 1:
        raise click.UsageError("--to-command, --to-http and --to-stdout are one at a time")
    start, end = moment("--since", since), moment("--until", until)
    conditions = [f"time >= make_timestamptz({start})"] if start is not None else []
    conditions += [f"time < make_timestamptz({end})"] if end is not None else []
    conditions += [where] if where is not None else []
    stop = threading.Event()
    pace = paces.ReplayPace(
        paces.parse_speed(speed), paces.parse_rate(rate) if rate else None, stop
    )
    selection = replays.ReplaySelection(tuple(conditions), at or "")
    with app.open() as lake, app.progress("replaying", "events") as progress, _pausing(pace):
        target = _target(to_command, to_http)
        try:
            job = replays.Replay(lake, selection, pace, target, cursor=cursor, progress=progress)
            replayed = job.run()
        except BaseException:
            with contextlib.suppress(LakelogError, OSError):
                target.close()
            raise
        target.close()
    app.say(f"replayed {many(replayed.events, 'event')}")


def _target(command: str | None, url: str | None) -> ReplayTarget:
    if command is not None:
        return targets.CommandTarget(command)
    if url is not None:
        return targets.HttpTarget(url)
    if sys.stdout is None:
        raise click.UsageError("standard output is closed")
    return targets.StreamTarget(sys.stdout.buffer)


@contextlib.contextmanager
def _pausing(pace: paces.ReplayPace) -> Iterator[None]:
    """Let SIGUSR1 pause a replay and let it go on."""

    def toggle(*_: Any) -> None:
        pace.toggle()

    before = signal.signal(signal.SIGUSR1, toggle)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
