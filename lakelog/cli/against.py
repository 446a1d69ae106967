"""replay --against: a challenger's answers beside the recorded ones, as people read it."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace

import click

import lakelog.decisions as decisions
from lakelog.cli.app import App
from lakelog.cli.options import combined, flag, option
from lakelog.cli.render import terminal
from lakelog.cli.render.output import OutputTarget, emit_record
from lakelog.cli.render.tables import render
from lakelog.cli.render.terminal import many
from lakelog.decisions import DecisionComparison, Interval

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


OPTIONS = combined(
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


def compare(app: App, options: AgainstOptions, conditions: tuple[str, ...], ref: str) -> None:
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
        comparison = decisions.compare(lake, challenger, question)
        if options.pairs is not None:
            decisions.export_pairs(lake, comparison, options.pairs)
            app.say(f"{options.pairs}: {many(len(comparison.pairs), 'pair')}")
    target = OutputTarget("json" if options.as_json else "table")
    emit_record(comparison.record(), target, lambda: "".join(_lines(comparison)))


def _lines(comparison: DecisionComparison) -> Iterator[str]:
    overall, total = comparison.overall, comparison.decisions
    yield f"decisions   {total:,}, {comparison.rated:,} with an outcome\n"
    yield f"agreements  {total - comparison.changes:,}, {_percent(comparison.agreements)}\n"
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


def _percent(share: Interval) -> str:
    return f"{100 * share.mean:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _row(gain: decisions.ContextGain) -> tuple[object, ...]:
    facts = gain.estimate
    # NaN, where no rated decision agreed with its challenger, would be printed as a number.
    recorded = None if math.isnan(facts.recorded) else round(facts.recorded, 3)
    ends = (facts.gain.mean, facts.gain.low, facts.gain.high) if facts.gain else ()
    rounded = tuple(round(end, 3) for end in ends) or (None, None, None)
    verdict = "no overlap" if facts.gain is None else facts.verdict
    return (gain.context, gain.decisions, gain.changes, recorded, *rounded, verdict)
