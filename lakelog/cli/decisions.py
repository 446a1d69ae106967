"""decisions: what recorded decisions teach: rates, calibration, recommendations, settings."""

from __future__ import annotations

import math
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click

from lakelog.cli.app import App, state_option, verb_group
from lakelog.cli.arguments import moment, pair_of, time_conditions
from lakelog.cli.options import argument, combined, flag, option
from lakelog.cli.render import terminal
from lakelog.cli.render.output import OUTPUT, PLOT, OutputTarget, emit_plot, emit_record, emit_words
from lakelog.cli.render.tables import cell, render
from lakelog.cli.render.terminal import many
from lakelog.decisions import DecisionHistory, recommendation_event
from lakelog.lake import Lake
from lakelog.libraries import alt
from lakelog.pictures import bars_chart

_ROWS = 20
_WIDTH_MAX = 90
_BARS_MAX = 40
_SHARES = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class HistoryOptions:
    """Which decisions count, and what their outcomes are worth."""

    since: str | None
    until: str | None
    condition: str | None
    ref: str | None
    reward: str | None

    def history(self, lake: Lake, *, keeps_sealed: bool = False) -> DecisionHistory:
        """The decisions of a lake, without protected fields if answers are kept. Raises
        UsageError."""
        conditions = time_conditions(moment("--since", self.since), moment("--until", self.until))
        conditions += [self.condition] if self.condition is not None else []
        reward = {} if self.reward is None else {"reward": self.reward}
        return DecisionHistory(
            lake, self.ref or "", conditions=tuple(conditions), keeps_sealed=keeps_sealed, **reward
        )


HISTORY = combined(
    HistoryOptions,
    since=option("--since TIME", "From TIME on: a time, or 2h for two hours ago."),
    until=option("--until TIME", "Before TIME."),
    condition=option("--where SQL", "Only decisions for whose event this SQL condition holds."),
    ref=state_option("Those of a tag, branch, snapshot or time."),
    reward=option("--reward SQL", "What an outcome is worth, of columns of the view decisions."),
)


@dataclass(frozen=True)
class ContextOptions:
    """Contexts that are asked for, and the members by which they are told apart."""

    context: dict[str, str]
    members: tuple[str, ...]


def _contexts(context: tuple[str, ...], members: tuple[str, ...]) -> ContextOptions:
    return ContextOptions(dict(map(pair_of, context)), members)


CONTEXT = combined(
    _contexts,
    context=option("--context KEY=VALUE", "Only decisions in this context; repeatable."),
    members=option("--by NAME", "Tell contexts apart by this member; repeatable."),
)
_RECORD = flag("--record", "Append the finding, as an event of type RECOMMENDATION.")


@verb_group(invoke_without_command=True)
def decisions(
    app: App,
    history: HistoryOptions = HISTORY,
    count: int = option("-n N", "At most N.", type=click.IntRange(min=1), shown=_ROWS),
    plot: str | None = PLOT,
    target: OutputTarget = OUTPUT,
) -> None:
    """List the points at which is decided, those with most decisions first.

    Decisions and outcomes are events of type decision and outcome, as ai_decision
    writes them. A win is an outcome that is worth more than 0; shares have intervals
    of 95 %.
    """
    with app.open() as lake:
        points, total = history.history(lake).points(count)
    rows = [point.record() for point in points]

    def words() -> Iterator[str]:
        if not rows:
            yield "no decisions: get_ai_logger().ai_decision(...) writes them\n"
            return
        yield _table(
            ("point", "decisions", "rated", "options", "majority", "won", "calibration_error"), rows
        )
        if total > len(rows):
            yield f"{len(rows):,} of {total:,} points; -n {total} shows all\n"

    emit_plot(plot, lambda: _chart(rows, ("point",), "won", "share of decisions that were won"))
    emit_words(rows, target, lambda: "".join(words()))


@decisions.verb()
def show(
    app: App,
    point: str = argument("POINT"),
    context: ContextOptions = CONTEXT,
    history: HistoryOptions = HISTORY,
    plot: str | None = PLOT,
    target: OutputTarget = OUTPUT,
) -> None:
    """Show how each option does, in all and by context.

    Also whether confidences are right, and what the best option of each context would
    have brought more. Without --by, contexts are told apart by up to three members
    that say most of what was chosen or came of it.
    """
    with app.open() as lake:
        report = history.history(lake).report(point, context.context, context.members)
    record = report.record()
    rates = record["contexts"] or record["options"]
    emit_plot(
        plot, lambda: _chart(rates, ("context", "option"), "reward", f"{point}: mean outcome")
    )
    emit_record(record, target, lambda: "".join(_report_lines(record)))


@decisions.verb()
def recommend(
    app: App,
    point: str = argument("POINT"),
    context: ContextOptions = CONTEXT,
    history: HistoryOptions = HISTORY,
    record: bool = _RECORD,
    plot: str | None = PLOT,
    target: OutputTarget = OUTPUT,
) -> None:
    """Recommend an option, if there is evidence enough.

    An option is recommended if it is better than the one that is chosen most for
    certain (99 %), in the later decisions too. Else there is not enough evidence.
    """
    with _recording(app, history, record=record) as lake:
        past = history.history(lake, keeps_sealed=record)
        finding = past.recommend(point, context.context, context.members)
        if record and finding.option is not None:
            lake.append([recommendation_event(finding)])
    fields = finding.record()
    title = f"{point}: what options are worth"
    emit_plot(plot, lambda: _chart(fields["options"], ("option",), "value", title))
    emit_record(fields, target, lambda: "".join(_recommendation_lines(fields)))


@decisions.verb()
def estimate(
    app: App,
    point: str = argument("POINT"),
    policy: str = option(
        "--policy POLICY",
        "An option, majority, uniform, best, or SQL for an option over context, options, subject,"
        " source and time.",
        required=True,
    ),
    context: ContextOptions = CONTEXT,
    history: HistoryOptions = HISTORY,
    plot: str | None = PLOT,
    target: OutputTarget = OUTPUT,
) -> None:
    """Estimate what another policy would have been worth.

    By inverse propensities (IPS), normalised ones (SNIPS), and doubly robust (DR), with
    intervals of 95 %. Below 30 effective samples there is not enough overlap.
    """
    with app.open() as lake:
        answer = history.history(lake).estimate(point, policy, context.context, context.members)
    record = answer.record()
    title = f"{point}: what {policy} is worth"
    emit_plot(plot, lambda: _chart(record["methods"], ("method",), "value", title))
    emit_record(record, target, lambda: "".join(_estimate_lines(record)))


@decisions.verb()
def explore(
    app: App,
    point: str = argument("POINT"),
    context: ContextOptions = CONTEXT,
    history: HistoryOptions = HISTORY,
    plot: str | None = PLOT,
    target: OutputTarget = OUTPUT,
) -> None:
    """List options that are worth another try.

    Their intervals still reach above the best option of the context: try these first.
    """
    with app.open() as lake:
        report = history.history(lake).report(point, context.context, context.members)
    rows = report.record()["explore"]
    title = f"{point}: what another try may bring"
    emit_plot(plot, lambda: _chart(rows, ("context", "option"), "hope", title))
    emit_words(rows, target, lambda: _explore_table(rows))


@decisions.verb()
def tune(
    app: App,
    point: str = argument("POINT"),
    setting: str = option("--setting NAME", "A numeric member of decisions.", required=True),
    context: ContextOptions = CONTEXT,
    history: HistoryOptions = HISTORY,
    record: bool = _RECORD,
    plot: str | None = PLOT,
    target: OutputTarget = OUTPUT,
) -> None:
    """Propose a better value for a numeric setting.

    A value is proposed if it is better than the present one for certain (99 %), in the
    later decisions too. Nothing is changed; the setting chosen is the chosen option.
    """
    with _recording(app, history, record=record) as lake:
        past = history.history(lake, keeps_sealed=record)
        finding = past.tune(point, setting, context.context, context.members)
        if record and finding.proposed is not None:
            lake.append([recommendation_event(finding)])
    fields = finding.record()
    title = f"{point}: mean outcome by {setting}"
    emit_plot(plot, lambda: _chart(fields["values"], ("value",), "curve", title))
    emit_record(fields, target, lambda: "".join(_proposal_lines(fields)))


def _chart(
    rows: Sequence[dict[str, Any]], labels: Sequence[str], name: str, title: str
) -> alt.Chart:
    """A bar for each row that has a value; its label also says the interval."""
    bars = []
    for row in rows[:_BARS_MAX]:
        if row[name] is not None:
            labelled = [_context(row[n]) if n == "context" else str(row[n]) for n in labels]
            label = ", ".join(filter(None, labelled))
            bars.append((f"{label}: {_value(row, name)}", float(row[name])))
    return bars_chart(bars, title, name)


def _recording(app: App, history: HistoryOptions, *, record: bool) -> Lake:
    # What is found in an earlier state would stand in the present one as if it held now.
    if record and history.ref:
        raise click.UsageError("--record and --at do not go together")
    return app.open()


def _report_lines(record: dict[str, Any]) -> Iterator[str]:
    yield f"{cell(record['point'])}: {many(record['decisions'], 'decision')},"
    yield f" {record['rated']:,} with an outcome\n\n"
    # Rewards of 0 and 1 have the shares for their means.
    are_shares = all(row["won"] == row["reward"] for row in record["options"])
    columns = ("option", "decisions", "rated", "won", *(() if are_shares else ("reward",)))
    yield _table(columns, record["options"][:_ROWS])
    if record["contexts"]:
        contexts = [{**row, "context": _context(row["context"])} for row in record["contexts"]]
        sizes = Counter[str]()
        for row in contexts:
            sizes[row["context"]] += row["decisions"]
        # Contexts with most decisions first, and the options of one context together.
        contexts.sort(key=lambda row: (-sizes[row["context"]], row["context"], row["option"]))
        yield "\n" + _table(("context", *columns), contexts[:_ROWS])
        if len(contexts) > _ROWS:
            yield f"and {many(len(contexts) - _ROWS, 'more row')}: --json has all\n"
    yield "\n"
    if calibrated := record["calibration"]:
        yield f"confidence  {_bars(calibrated['bins'])}  share won, by confidence from 0 to 1\n"
        yield (
            f"            off by {calibrated['error']:.3f}"
            f" ({calibrated['error_by_chance']:.3f} by chance), Brier {calibrated['brier']:.3f}\n"
        )
    if record["regret"] is None:
        yield "regret      not enough overlap\n"
    else:
        yield f"regret      {_interval(record, 'regret')} a decision\n"
    if record["explore"]:
        yield "\nworth a try\n" + _explore_table(record["explore"][:5])
    yield from _notes(record)


def _recommendation_lines(record: dict[str, Any]) -> Iterator[str]:
    context = _context(record["context"]) or "all contexts"
    headline = record["verdict"]
    if record["option"] is not None:
        headline = f"choose {record['option']}"
    yield f"{cell(record['point'])}, {cell(context)}: {cell(headline)}\n"
    yield f"{cell(record['reason'])}; chosen most: {cell(record['majority'])}\n"
    if record["gain"] is not None:
        yield f"{cell(record['best'])}: {_interval(record, 'gain')} more, 99 %\n"
    if (test := record["backtest"]) and test["gain"] is not None:
        yield f"later: {cell(test['option'])} {_interval(test, 'gain')} more\n"
    yield "\n" + _table(("option", "decisions", "rated", "effective", "value"), record["options"])
    yield from _notes(record)


def _estimate_lines(record: dict[str, Any]) -> Iterator[str]:
    recorded = record["recorded"]
    yield f"{cell(record['point'])}, policy {cell(record['policy'])}: {record['verdict']}\n"
    yield f"{many(record['decisions'], 'decision')}, {record['effective']:,} effective"
    yield "" if recorded is None else f"; recorded {recorded:.4g}"
    yield f", {record['left_out']:,} left out\n\n" if record["left_out"] else "\n\n"
    yield _table(("method", "value", "gain"), record["methods"])
    yield "\n" + _filled(record["assumption"])
    yield from _notes(record)


def _proposal_lines(record: dict[str, Any]) -> Iterator[str]:
    headline = record["verdict"]
    if record["proposed"] is not None:
        headline = f"set {record['proposed']:g}"
    context = f"{_context(record['context'])}, " if record["context"] else ""
    yield f"{cell(record['point'])}, {cell(context + record['setting'])}: {headline}\n"
    yield f"{record['reason']}"
    yield "\n" if record["current"] is None else f"; now {record['current']:g}\n"
    if record["gain"] is not None:
        yield f"gain {_interval(record, 'gain')}, 99 %\n"
    if record["values"]:
        yield "\n" + _table(("value", "rated", "reward", "curve"), record["values"])
    yield from _notes(record)


def _explore_table(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "no option may be better than the best one of its context\n"
    columns = ("context", "option", "rated", "reward", "reward_high", "best", "best_reward")
    return _table(columns, [{**row, "context": _context(row["context"])} for row in rows])


def _notes(record: dict[str, Any]) -> Iterator[str]:
    for sentence in record["notes"]:
        yield "\n" + _filled(f"note: {sentence}")


def _filled(sentence: str) -> str:
    return textwrap.fill(cell(sentence), min(terminal.width(), _WIDTH_MAX)) + "\n"


def _context(context: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in context.items())


def _table(columns: Sequence[str], records: Iterable[dict[str, Any]]) -> str:
    """A table in which an interval is one column."""
    rows = [tuple(_value(record, name) for name in columns) for record in records]
    width, colour = terminal.width(), terminal.has_colour(sys.stdout)
    headings = [name.replace("_", " ") for name in columns]
    return render(headings, rows, width, colour, main=headings)[0]


def _value(record: dict[str, Any], name: str) -> object:
    if f"{name}_low" in record and record[name] is not None:
        return _interval(record, name)
    value = record[name]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _interval(record: dict[str, Any], name: str) -> str:
    low, high = record[f"{name}_low"], record[f"{name}_high"]
    if low is None:
        return f"{record[name]:.3g}"
    return f"{record[name]:.3g} ({low:.3g} to {high:.3g})"


def _bars(bins: Sequence[dict[str, Any]]) -> str:
    """A bar for each bin of confidences; a space where there is none."""
    # Bins without decisions are left out of the record, while a bar stands for each tenth.
    shares = [math.nan] * 10
    for entry in bins:
        shares[round(entry["low"] * 10)] = entry["won"]
    return "".join(
        " " if math.isnan(share) else _SHARES[round(share * (len(_SHARES) - 1))] for share in shares
    )
