"""replay: recorded events once more, in their order and with their pauses."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

import click

import lakelog.replay as replays
from lakelog.cli import against as comparing
from lakelog.cli.against import AgainstOptions
from lakelog.cli.app import App, state_option, verb
from lakelog.cli.arguments import moment, time_conditions
from lakelog.cli.options import flag, option
from lakelog.cli.render.terminal import many
from lakelog.erased import copies
from lakelog.errors import LakelogError
from lakelog.replay import ReplayTarget


@verb()
def replay(
    app: App,
    since: str | None = option("--since TIME", "From TIME on: a time, or 2h for two hours ago."),
    until: str | None = option("--until TIME", "Before TIME."),
    where: str | None = option("--where SQL", "Only events for which this SQL condition holds."),
    at: str | None = state_option("Events of a tag, branch, snapshot or time."),
    speed: str = option(
        "--speed FACTOR",
        "How much faster than they were recorded, such as 10x; max for no pauses.",
        shown="1x",
    ),
    rate: str | None = option("--rate N/s", "At most so many events a second."),
    to_command: str | None = option(
        "--to-command COMMAND", "Write JSON lines to the input of COMMAND."
    ),
    to_http: str | None = option("--to-http URL", "POST JSON lines to URL."),
    to_stdout: bool = flag("--to-stdout", "Write JSON lines to standard output (the default)."),
    cursor: str | None = option("--cursor FILE", "Keep in FILE how far it came; go on there."),
    against: AgainstOptions = comparing.OPTIONS,
) -> None:
    """Give out recorded events again, in the order of their times.

    Each event is one JSON line, as `lakelog append` takes it. Pauses are those of the
    recording, divided by --speed. SIGUSR1 pauses and goes on; Ctrl-Z and fg do, too.
    With --cursor a replay that was stopped goes on behind the last event that was
    delivered, in the same state.

    With --against nothing is given out: COMMAND reads the inputs of recorded decisions
    as JSON lines and writes an answer to each, a line of JSON. They are compared with
    what was decided and with the outcomes that came of it.
    """
    if sum(map(bool, (to_command, to_http, to_stdout))) > 1:
        raise click.UsageError("--to-command, --to-http and --to-stdout are one at a time")
    conditions = time_conditions(moment("--since", since), moment("--until", until))
    conditions += [where] if where is not None else []
    if against.command is not None:
        if to_command or to_http or to_stdout or rate or cursor:
            raise click.UsageError("--against gives no events out: leave the other targets away")
        comparing.compare(app, against, tuple(conditions), at or "")
        return
    against.require_command()
    stop = threading.Event()
    pace = replays.ReplayPace(
        replays.parse_speed(speed), replays.parse_rate(rate) if rate else None, stop
    )
    selection = replays.ReplaySelection(tuple(conditions), at or "")
    with app.open() as lake, app.progress("replaying", "events") as progress, _pausing(pace):
        target = _target(to_command, to_http)
        if target.name:
            copies.note(lake.store.paths, "replay", target.name)
        try:
            job = replays.Replay(lake, selection, pace, target, cursor=cursor, progress=progress)
            replayed = job.run()
        # The target's own end may fail as well: the first error says what went wrong.
        except BaseException:
            with contextlib.suppress(LakelogError, OSError):
                target.close()
            raise
        target.close()
    app.say(f"replayed {many(replayed.events, 'event')}")


def _target(command: str | None, url: str | None) -> ReplayTarget:
    if command is not None:
        return replays.CommandTarget(command)
    if url is not None:
        return replays.HttpTarget(url)
    if sys.stdout is None:
        raise click.UsageError("standard output is closed")
    return replays.StreamTarget(sys.stdout.buffer)


@contextlib.contextmanager
def _pausing(pace: replays.ReplayPace) -> Iterator[None]:
    """Let SIGUSR1 pause a replay and let it go on."""
    # A signal and not a key: standard input may be the command's, or no terminal.

    def toggle(*_: object) -> None:
        pace.toggle()

    before = signal.signal(signal.SIGUSR1, toggle)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
