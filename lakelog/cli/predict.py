"""predict: train outcome models, list and show them, and apply one to open decisions."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator

import click

from lakelog import outcomes, pictures
from lakelog.cli import exits
from lakelog.cli.app import App, complete_type, completing, state_option, verb_group
from lakelog.cli.options import argument, flag, option
from lakelog.cli.render import terminal
from lakelog.cli.render.output import OUTPUT, PLOT, OutputTarget, emit_plot, emit_record, emit_words
from lakelog.cli.render.tables import cell, fit
from lakelog.cli.render.terminal import many, paint
from lakelog.outcomes import BaselineGain, OutcomeModel, Predictions
from lakelog.values import JsonObject

_ROWS = 20
_FEATURES, _BARS = 8, 30
_AT = state_option("Of a tag, branch, snapshot or time.")
complete_model = completing(lambda lake: [model.name for model in outcomes.models(lake)])


@verb_group(fallback="apply", subcommand_metavar="MODEL | VERB ...")
def predict() -> None:
    """Predict failures and other outcomes by models that were trained on the lake.

    `lakelog predict MODEL` is short for `lakelog predict apply MODEL`: it lists the
    decisions without an outcome, each with the probability of one.
    """


@predict.verb()
def train(
    app: App,
    recipe: str = argument("RECIPE.toml", type=click.Path()),
    name: str | None = option("--name NAME", "The model's name; the recipe's by default."),
    outcome: str | None = option(
        "--outcome TYPE",
        "The outcome to predict; by default the rarer one of two.",
        shell_complete=complete_type,
    ),
    as_json: bool = flag("--json", "Print the model's figures as JSON."),
) -> None:
    """Train a model of outcomes, test it, and save it.

    The recipe is that of a training set: `lakelog train init decision` writes one. It
    needs [split] before, the time from which rows are only tested on. A set that leaks
    makes no model.
    """
    with app.open() as lake:
        model = outcomes.train_model(lake, recipe, name, outcome)
    target = OutputTarget("json" if as_json else "table")
    emit_record(_record(model), target, lambda: "".join(_described(model)))


@predict.verb()
def apply(
    app: App,
    model: str = argument("MODEL", shell_complete=complete_model),
    ref: str | None = state_option("Model and decisions of a tag, branch, snapshot or time."),
    count: int | None = option("-n N", "At most N.", type=click.IntRange(min=1)),
    record: bool = flag("--record", "Append each once, as an event of type PREDICTION."),
    despite_drift: bool = flag("--despite-drift", "Also where features have drifted."),
    target: OutputTarget = OUTPUT,
) -> None:
    """List open decisions, the likeliest to have the outcome first.

    Exits with 3, and lists none, where features are not as they were in training.
    """
    if record and ref:
        raise click.UsageError("--record and --at do not go together")
    with app.open() as lake:
        known = outcomes.find_model(lake, model, ref)
        answer = outcomes.predict(lake, known, ref, despite_drift=despite_drift)
        # Appended before anything is printed: a reader that closes the pipe must not prevent it.
        if record and answer.rows:
            lake.append(outcomes.prediction_events(known, answer.rows))
    for drift in answer.drifted:
        app.say(f"drifted: {cell(drift.feature)}, PSI {drift.psi:.2f}")
    # After drift the probabilities are of another world: silence is better than a wrong number.
    if answer.drifted and not despite_drift:
        app.say("nothing predicted: train the model again, or say --despite-drift")
        exits.exit_if(True, exits.WRONG)
    if not known.evaluation.is_better:
        app.say(
            f"{model} is not shown to be better than simpler ways: lakelog predict show {model}"
        )
    rows = [
        {
            "subject": row.subject,
            "time": row.time,
            "seq": row.seq,
            "chosen": row.choice,
            "outcome": known.outcome,
            "probability": row.probability,
        }
        for row in answer.rows[:count]
    ]
    emit_words(rows, target, lambda: "".join(_lines(known, answer, count or _ROWS)))


@predict.verb()
def list_(app: App, ref: str | None = _AT, target: OutputTarget = OUTPUT) -> None:
    """List the models of the lake."""
    with app.open() as lake:
        saved = outcomes.models(lake, ref)
    rows = [
        {
            "model": model.name,
            "outcome": model.outcome,
            "trained": _time(model.time),
            "rows": model.rows.get("train", 0),
            "brier": model.evaluation.brier,
            "majority": model.evaluation.majority.brier,
            "rule": model.evaluation.rule.brier,
            "better": model.evaluation.is_better,
        }
        for model in saved
    ]
    emit_words(rows, target, lambda: "".join(_listed(saved)))


@predict.verb()
def show(
    app: App,
    model: str = argument("MODEL", shell_complete=complete_model),
    ref: str | None = _AT,
    plot: str | None = PLOT,
    recipe: bool = flag("--recipe", "Print the recipe that it was trained by."),
    as_json: bool = flag("--json", "Print it as JSON."),
) -> None:
    """Show how good a model is, and what it goes by."""
    with app.open() as lake:
        known = outcomes.find_model(lake, model, ref)
    if recipe:
        click.echo(known.recipe, nl=False)
        return
    title = f"{known.name}: {known.outcome}, Brier score {known.evaluation.brier:.4f}"
    axis = "growth of the Brier score without the feature"
    emit_plot(plot, lambda: pictures.bars_chart(known.explained()[:_BARS], title, axis))
    target = OutputTarget("json" if as_json else "table")
    emit_record(_record(known), target, lambda: "".join(_described(known)))


def _record(model: OutcomeModel) -> JsonObject:
    evaluation = model.evaluation
    compared = {
        name: {n: getattr(gain, n) for n in ("name", "brier", "gain", "low", "high", "verdict")}
        for name, gain in (("majority", evaluation.majority), ("rule", evaluation.rule))
    }
    return {
        "model": model.name,
        "id": model.id,
        "outcome": model.outcome,
        "form": model.form,
        "trained": _time(model.time).isoformat(),
        "snapshot": model.snapshot,
        "training_set": model.training_set,
        "clean": model.certificate.get("clean"),
        "rows": model.rows,
        "tested": evaluation.rows,
        "with_outcome": evaluation.positives,
        "brier": evaluation.brier,
        "auc": evaluation.auc,
        **compared,
        "better": evaluation.is_better,
        "importance": dict(model.explained()),
    }


def _described(model: OutcomeModel) -> Iterator[str]:
    evaluation = model.evaluation
    rows = ", ".join(f"{split} {count:,}" for split, count in model.rows.items())
    yield paint(
        f"{cell(model.name)}: {cell(model.outcome)}, by {model.form}\n", sys.stdout, bold=True
    )
    yield f"rows: {rows}; {evaluation.positives:,} of test with {cell(model.outcome)}\n"
    area = "" if evaluation.auc is None else f", AUC {evaluation.auc:.2f}"
    yield f"Brier score {evaluation.brier:.4f}{area}\n"
    for comparison in (evaluation.majority, evaluation.rule):
        yield f"  {_compared(comparison)}\n"
    goes_by = (f"{cell(name)} {growth:.4f}" for name, growth in model.explained()[:_FEATURES])
    yield f"goes by: {', '.join(goes_by) or 'nothing'}\n"
    clean = "no leak found" if model.certificate.get("clean") else "with leaks"
    yield f"trained {_time(model.time):%Y-%m-%d %H:%M} on {model.snapshot[:12]}, {clean}\n"


def _compared(comparison: BaselineGain) -> str:
    verdict = {"better": "better", "worse": "worse", "not shown": "not shown to be better"}[
        comparison.verdict
    ]
    interval = f"by {comparison.gain:.4f} ({comparison.low:.4f} to {comparison.high:.4f})"
    return f"{verdict} than {cell(comparison.name)}, {comparison.brier:.4f}: {interval}"


def _listed(saved: list[OutcomeModel]) -> Iterator[str]:
    if not saved:
        yield "no models; train one with `lakelog predict train`\n"
        return
    width = max(len(cell(model.name)) for model in saved)
    for model in saved:
        verdict = "better" if model.evaluation.is_better else "not shown to be better"
        yield (
            f"{cell(model.name):<{width}}  {cell(model.outcome)}  Brier"
            f" {model.evaluation.brier:.4f}, {verdict} than simpler ways"
            f"  {_time(model.time):%Y-%m-%d %H:%M}\n"
        )


def _lines(model: OutcomeModel, answer: Predictions, count: int) -> Iterator[str]:
    if not answer.rows:
        yield "no decisions without an outcome\n"
        return
    width = terminal.width()
    yield paint(f"{cell(model.outcome):>8}  {'time':<16}  subject\n", sys.stdout, dim=True)
    for row in answer.rows[:count]:
        line = f"{row.probability:>8.1%}  {row.time:%Y-%m-%d %H:%M}  {cell(row.subject)}"
        yield fit(line, width) + "\n"
    if len(answer.rows) > count:
        total = len(answer.rows)
        yield paint(f"{count:,} of {total:,}; -n {total} shows all\n", sys.stdout, dim=True)
    if not answer.is_judged:
        yield f"{many(len(answer.rows), 'decision')}: too few to see drift\n"


def _time(moment_us: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(moment_us / 1e6, datetime.UTC)
