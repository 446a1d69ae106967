"""oos: the verbs of the OOS log stream, with their old grammar."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import click
import orjson

from lakelog import oos as streams
from lakelog.cli import exits
from lakelog.cli.app import DEFAULT_LAKE, App, verb_group
from lakelog.cli.options import argument, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit_record
from lakelog.cli.render.tables import cell
from lakelog.cli.render.terminal import many
from lakelog.cli.rounds import stop_at_signals
from lakelog.disk import File
from lakelog.oos import DEFAULT_LOG, get_views
from lakelog.store import Store

RESULTS = "demo_results.json"
_SHOWN = 12
_FEEDS = "feeds.toml"


@verb_group()
def oos() -> None:
    """The OOS log stream: views over an oos.log or a lake, episodes, a demonstration."""


@oos.verb()
def views(
    app: App,
    path: str | None = argument(type=click.Path()),
    db: str | None = option("--db PATH", "The same as PATH.", type=click.Path()),
    view: str | None = option(
        "--view",
        "One view only.",
        type=click.Choice(("status", "throughput", "errors", "sources", "health")),
    ),
    window: str = option("--window SPAN", "Time window of the throughput view.", shown="24h"),
    now: str | None = option("--now TIME", "End windows at TIME instead of now."),
    target: OutputTarget = OUTPUT,
) -> None:
    """Show the views: states, throughput, errors, sources, health.

    PATH is an oos.log or a lake; without it ./oos.log, else the lake.
    """
    if path is not None and db is not None and path != db:
        raise click.UsageError("PATH and --db name the same thing: give one of them")
    # One that is named by --lake or LAKELOG_LAKE is meant, whatever else lies in this directory.
    has_lake = not os.path.exists(DEFAULT_LOG) and Store.is_lake(app.path)
    default = app.path if app.path != DEFAULT_LAKE or has_lake else DEFAULT_LOG
    oos_views = get_views(path or db or default, branch=app.branch, now=now)
    # Functions and not values: --view asks only one of them, and each reads the log.
    queries: dict[str, Callable[[], dict[str, Any]]] = {
        "status": oos_views.podcast_status_view,
        "throughput": lambda: oos_views.throughput_view(window),
        "errors": oos_views.error_analysis_view,
        "sources": oos_views.source_reliability_view,
        "health": oos_views.system_health_view,
    }
    record = {name: ask() for name, ask in queries.items() if view in (None, name)}
    result = record[view] if view is not None else record
    emit_record(result, target, lambda: "\n".join(_lines(record, window)) + "\n")
    if oos_views.skipped:
        app.say(f"{many(oos_views.skipped, 'line')} of other forms left out")


def _lines(record: dict[str, dict[str, Any]], window: str) -> Iterator[str]:
    """Yield the views as text."""
    if status := record.get("status"):
        yield "items     " + ", ".join(f"{n:,} {name}" for name, n in status.items())
    if throughput := record.get("throughput"):
        average = f"{throughput['average_per_hour']:,.1f} an hour"
        yield f"completed {throughput['total_completed']:,} in {window}, {average}"
        for hour, count in list(throughput["hourly_breakdown"].items())[-_SHOWN:]:
            yield f"          {hour}  {count:>9,}"
    if errors := record.get("errors"):
        yield f"failures  {errors['total_failures']:,}"
        for name, count in list(errors["error_types"].items())[:_SHOWN]:
            yield f"          {count:>9,}  {cell(name)[:58]}"
    if "sources" in record:
        ranked = sorted(record["sources"].items(), key=lambda pair: pair[1]["success_rate"])
        yield f"sources   {len(ranked):,}, the least reliable first"
        for name, outcome in ranked[:_SHOWN]:
            share = f"{outcome['success_rate']:>8.1%} of {outcome['total_processed']:>7,}"
            yield f"          {share}  {cell(name)[:42]}"
    if health := record.get("health"):
        recent = f"{health['recent_activity_1h']:,} events in the last hour"
        yield f"health    {recent}, up {health['system_uptime']}"


@oos.verb()
def process(
    app: App,
    feeds: str = option("--feeds", "Tables [[feed]].", shown=_FEEDS, type=click.Path()),
    log: str = option(
        "--log PATH",
        "An oos.log, or a lake: all the state there is.",
        shown=DEFAULT_LOG,
        type=click.Path(),
    ),
    processor: str | None = option(
        "--processor COMMAND",
        "Called with url, podcast and id; without it, episodes are downloaded.",
    ),
    batch_size: int = option("--batch-size N", shown=5, type=click.IntRange(1)),
    max_batches: int | None = option(
        "--max-batches N",
        "End after so many, or when nothing is left; without it, at Ctrl-C.",
        type=click.IntRange(1),
    ),
    database: str | None = option("--database DB", "Bring this database up to date at the end."),
    target: OutputTarget = OUTPUT,
) -> None:
    """Find the new episodes of feeds and process them, each once.

    After a kill it goes on where it was. Ends with the views.
    """
    with app.progress("processing", "episodes") as progress, stop_at_signals() as stop:
        run = streams.SimpleLogProcessor(
            # Only a file that was named has to be there.
            feeds if feeds != _FEEDS or os.path.exists(feeds) else None,
            log,
            shlex.split(processor) if processor else None,
            database=database,
            stop=stop,
            progress=progress,
        )
        # Said now: without --max-batches the problems at the end may never be seen.
        if not run.feeds:
            app.say(f"no feed is read: write [[feed]] tables to {feeds}", fg="yellow")
        summary = run.run_continuous_processing(batch_size, max_batches)
    for place, problem in run.problems.items():
        app.say(f"{place}: {problem}", fg="yellow")
    names = {"podcast_status": "status", "source_reliability": "sources", "system_health": "health"}
    record = {names.get(name, name): value for name, value in summary.items()}
    emit_record(summary, target, lambda: "\n".join(_lines(record, "24h")) + "\n")


@oos.verb()
def demo(
    app: App,
    results: str = option(
        "--results FILE", "Where the results are written, as JSON.", shown=RESULTS
    ),
) -> None:
    """Use every component once, in a temporary directory.

    It needs no network and touches no lake of yours.
    """
    answers: dict[str, object] = {}
    checks = _play(app, answers)
    failed = [check for check in checks if check.fault]
    record = {"passed": not failed, "checks": list(map(asdict, checks)), "answers": answers}
    File(os.path.abspath(results)).replace(orjson.dumps(record, option=orjson.OPT_INDENT_2))
    app.say(f"wrote {results}")
    exits.exit_if(failed, exits.FAILED)


@oos.verb()
def validate(app: App, target: OutputTarget = OUTPUT) -> None:
    """Check every component; exit code 3 if one does not hold.

    Loggers, processing, views, and a lake are used in a temporary directory.
    """
    checks = _play(app, {})
    failed = sum(bool(check.fault) for check in checks)
    record = {"passed": not failed, "checks": list(map(asdict, checks))}
    message = f"{len(checks) - failed} of {many(len(checks), 'component')} work"
    emit_record(record, target, lambda: f"{message}\n")
    exits.exit_if(failed, exits.WRONG)


def _play(app: App, answers: dict[str, object]) -> list[streams.DemoCheck]:
    """Use the components, and say of each whether it works."""
    checks = []
    with (
        tempfile.TemporaryDirectory(prefix="lakelog-oos-") as directory,
        app.progress("processing", "episodes") as progress,
    ):
        for check, answer in streams.play(directory, progress):
            progress.wipe()
            outcome = check.fault or "works"
            app.say(f"{check.component:<12}{check.ms:>9,.1f} ms  {outcome}")
            answers[check.component] = answer
            checks.append(check)
    return checks
