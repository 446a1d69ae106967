"""replay: recorded events once more, in their order and with their pauses; with --against a
challenger's answers beside the recorded ones."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import click

import lakelog.decisions as decisions
import lakelog.replay as replays
from lakelog.cli.app import App, state_option, verb
from lakelog.cli.arguments import moment, require_times, time_conditions
from lakelog.cli.options import combined, flag, option
from lakelog.cli.render import terminal
from lakelog.cli.render.output import OutputTarget, emit_record
from lakelog.cli.render.tables import render
from lakelog.cli.render.terminal import many
from lakelog.decisions import DecisionComparison
from lakelog.disk import disk
from lakelog.erased import copies
from lakelog.errors import LakelogError
from lakelog.replay import ReplayTarget

_CONTEXTS = 20
_WIDTH_MAX = 80
_COLUMNS = "context decisions changes recorded gain from to verdict".split()


@dataclass(frozen=True)
class AgainstOptions:
    """What belongs to --against."""

    command: str | None
    are_calls: bool
    by: tuple[str, ...]
    reward: str | None
    pairs: str | None
    patience: float | None
    as_json: bool

    def require_command(self) -> None:
        """Refuse options without --against. Raises UsageError."""
        if any((self.are_calls, self.by, self.reward, self.pairs, self.patience, self.as_json)):
            raise click.UsageError(
                "--calls, --by, --reward, --pairs, --timeout and --json go with --against"
            )


_AGAINST = combined(
    AgainstOptions,
    command=option("--against COMMAND", "Compare COMMAND's answers with the recorded ones."),
    are_calls=flag("--calls", "With --against: calls of models, not decisions."),
    by=option("--by NAME", "With --against: match contexts by this member; repeatable."),
    reward=option("--reward SQL", "With --against: what an outcome is worth, in SQL."),
    pairs=option("--pairs FILE", "With --against: write preference pairs to FILE."),
    patience=option(
        "--timeout SECONDS",
        "With --against: how long an answer may take.",
        type=click.FloatRange(min=0, min_open=True),
    ),
    as_json=flag("--json", "With --against: print the comparison as JSON."),
)


def _compare(app: App, options: AgainstOptions, conditions: tuple[str, ...], ref: str) -> None:
    """Run the command over what is selected, and print how it compares."""
    # The caller comes here only with --against; mypy cannot see that.
    assert options.command is not None
    question = decisions.Question(
        decisions.Recorded.CALLS if options.are_calls else decisions.Recorded.DECISIONS,
        conditions,
        ref,
        by=options.by,
    )
    if options.reward is not None:
        question = replace(question, reward=options.reward)
    challenger = decisions.CommandChallenger(options.command, options.patience or 60.0)
    with app.open() as lake:
        copies.note(lake.store.paths, "replay", challenger.name)
        comparison = decisions.compare(lake, challenger, question)
        if options.pairs is not None:
            decisions.export_pairs(lake, comparison, options.pairs)
            app.say(f"{options.pairs}: {many(len(comparison.pairs), 'pair')}")
    target = OutputTarget("json" if options.as_json else "table")
    emit_record(comparison.record(), target, lambda: "".join(_lines(comparison)))


def _lines(comparison: DecisionComparison) -> Iterator[str]:
    overall, total = comparison.overall, comparison.decisions
    yield f"decisions   {total:,}, {comparison.rated:,} with an outcome\n"
    low, high = 100 * comparison.agreements.low, 100 * comparison.agreements.high
    yield f"agreements  {total - comparison.changes:,}, {100 * comparison.agreements.mean:.1f} %"
    yield f" ({low:.1f} to {high:.1f})\n"
    yield (
        f"changes     {comparison.changes:,}: {comparison.wins:,} win, {comparison.losses:,} lose,"
        f" {comparison.changes - comparison.wins - comparison.losses:,} undecided\n"
    )
    if overall.gain is None:
        yield (
            f"gain        not enough overlap: {overall.effective:.0f} effective samples, and it"
            f" takes {decisions.EFFECTIVE_MIN}\n"
        )
    else:
        yield (
            f"gain        {overall.gain.mean:+.3f} ({overall.gain.low:+.3f} to"
            f" {overall.gain.high:+.3f}) a decision, from {overall.recorded:.3f}:"
            f" {overall.verdict}\n"
        )
    if overall.left_out:
        yield f"left out    {many(overall.left_out, 'decision')} without a known outcome like it\n"
    yield "\n"
    width = min(terminal.width(), _WIDTH_MAX)
    if not comparison.rated:
        yield "No outcome is known: --reward says what one is worth.\n"
    else:
        rows = [_row(gain) for gain in comparison.contexts[:_CONTEXTS]]
        table, _ = render(_COLUMNS, rows, width, terminal.has_colour(sys.stdout), main=_COLUMNS)
        yield table
        if (hidden := len(comparison.contexts) - _CONTEXTS) > 0:
            yield f"and {many(hidden, 'more context')}: --by names fewer, --json lists all\n"
    yield "\n" + textwrap.fill(comparison.assumption, width) + "\n"


def _row(gain: decisions.ContextGain) -> tuple[object, ...]:
    facts = gain.estimate
    # NaN, where no rated decision agreed with its challenger, would be printed as a number.
    recorded = None if math.isnan(facts.recorded) else round(facts.recorded, 3)
    ends = (facts.gain.mean, facts.gain.low, facts.gain.high) if facts.gain else ()
    rounded = tuple(round(end, 3) for end in ends) or (None, None, None)
    verdict = "no overlap" if facts.gain is None else facts.verdict
    return (gain.context, gain.decisions, gain.changes, recorded, *rounded, verdict)


@verb()
def replay(
    app: App,
    since: str | None = option("--since TIME", "From TIME on: a time, or 2h for two hours ago."),
    until: str | None = option("--until TIME", "Before TIME."),
    where: str | None = option("--where SQL", "Only events for which this SQL condition holds."),
    at: str | None = state_option("Events of a tag, branch, snapshot or time."),
    speed: str | None = option(
        "--speed FACTOR",
        "How much faster than they were recorded, such as 10x; 1x by default; max for no pauses.",
    ),
    rate: str | None = option("--rate N/s", "At most so many events a second."),
    to_command: str | None = option(
        "--to-command COMMAND", "Write JSON lines to the input of COMMAND."
    ),
    to_http: str | None = option("--to-http URL", "POST JSON lines to URL."),
    to_stdout: bool = flag("--to-stdout", "Write JSON lines to standard output (the default)."),
    cursor: str | None = option("--cursor FILE", "Keep in FILE how far it came; go on there."),
    against: AgainstOptions = _AGAINST,
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
    require_times(since, until)

    def conditions(asked_us: int) -> tuple[str, ...]:
        times = moment("--since", since, asked_us), moment("--until", until, asked_us)
        return (*time_conditions(*times), *([where] if where is not None else []))

    if against.command is not None:
        if any((to_command, to_http, to_stdout, speed, rate, cursor)):
            raise click.UsageError(
                "--against gives no events out: leave out other targets, --speed, --rate, --cursor"
            )
        _compare(app, against, conditions(disk.now_us()), at or "")
        return
    against.require_command()
    stop = threading.Event()
    pace = replays.ReplayPace(
        replays.parse_speed(speed or "1x"), replays.parse_rate(rate) if rate else None, stop
    )
    with app.open() as lake, app.progress("replaying", "events") as progress, _pausing(pace):
        target = _target(to_command, to_http)
        if target.name:
            copies.note(lake.store.paths, "replay", target.name)
        try:
            # Where it goes on, spans are those of its beginning: later ones would skip events.
            asked_us = replays.asked_us(cursor, lake)
            selection = replays.ReplaySelection(conditions(asked_us), at or "", asked_us)
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
