"""dedupe: find duplicate events, and remove all but one of each in one move."""

from __future__ import annotations

import dataclasses

import click

from lakelog.analyze import dedupe as duplicate
from lakelog.analyze import near_duplicates
from lakelog.cli.app import App, verb
from lakelog.cli.options import YES, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, emit_record
from lakelog.cli.render.results import result_of
from lakelog.cli.render.tables import Count
from lakelog.cli.render.terminal import confirm, many
from lakelog.lake import Lake
from lakelog.render import QueryResult

_ONE = {"first": duplicate.first, "last": duplicate.last, "latest": duplicate.latest}
_SIMILAR = ("pattern", "example", "events", "variants", "first", "last", "sources")


@verb()
def dedupe(
    app: App,
    by: tuple[str, ...] = option(
        "--by NAME", "A column, data.FIELD, or content for all of an event; may be repeated."
    ),
    keep: str = option(
        "--keep",
        "Which of the duplicates is kept, by time.",
        type=click.Choice(duplicate.KEEP),
        shown="first",
    ),
    show: str = option(
        "--show",
        "What to list: the keys that occur more than once, the first, last or latest event of"
        " each key, or near-duplicates of a text.",
        type=click.Choice(("duplicates", *_ONE, "similar")),
        default="duplicates",
    ),
    nulls: bool = flag("--nulls", "Compare events with missing values, too: null equals null."),
    limit: int | None = option("-n N", "List at most N.", type=click.IntRange(min=1)),
    dry_run: bool = flag("--dry-run", "List exactly the events that --apply would remove."),
    apply: bool = flag("--apply", "Remove them, after asking."),
    yes: bool = YES,
    target: OutputTarget = OUTPUT,
) -> None:
    """Find duplicate events, and keep one of each.

    Events are duplicates if they agree in everything that --by names. An event that lacks
    one of these is not a duplicate, unless --nulls is given. The removal is one move that
    `lakelog undo` reverts; the other events keep their seq.
    """
    # Refused here: without a key all events would be duplicates of one another.
    if not by:
        raise click.UsageError("nothing to dedupe by: name columns or fields with --by")
    if show != "duplicates" and (dry_run or apply):
        raise click.UsageError(f"--show {show} only lists: leave out --dry-run and --apply")
    with app.open() as lake:
        if apply or dry_run:
            _remove(
                app, lake, duplicate.plan(lake, by, keep, nulls=nulls), dry_run, yes, limit, target
            )
        elif show == "similar":
            _similar(lake, by, limit, target)
        else:
            is_row = show in _ONE
            rows = _ONE[show](lake, by) if is_row else duplicate.duplicates(lake, by, nulls=nulls)
            emit(result_of(rows.limit(limit) if limit else rows, target.format), target)


def _remove(
    app: App,
    lake: Lake,
    plan: duplicate.Plan,
    dry_run: bool,
    yes: bool,
    limit: int | None,
    target: OutputTarget,
) -> None:
    """List the rows of a plan, or remove them from the branch."""
    message = f"{many(len(plan), 'event')} of {many(plan.events, 'event')}"
    message = f"{message} of {app.branch}, duplicates of {many(plan.keys, 'key')}"
    if dry_run:
        emit(result_of(duplicate.rows(lake, plan, limit), target.format), target)
        app.say(f"{message}; --apply removes them")
        return
    # Asked with the plan's own numbers, and what is applied is that plan: events that come
    # meanwhile are not touched.
    # A plan without events asks nobody: there is nothing to lose.
    if len(plan) and not confirm(f"remove {message}?", yes):
        raise click.ClickException("nothing was removed")
    with app.progress("rewriting", "segments") as progress:
        removal = duplicate.apply(lake, plan, progress)
    record: dict[str, object] = {
        "by": list(plan.by),
        "keep": plan.keep,
        "snapshot": plan.snapshot,
        "keys": plan.keys,
        **dataclasses.asdict(removal),
        "left": lake.count(),
    }
    sentence = f"removed {message}; `lakelog undo` reverts it"
    # Nothing to remove is no failure, so a nightly job may run it blindly.
    if not len(plan):
        sentence = f"no event of {app.branch} is there twice by {', '.join(plan.by)}"
    emit_record(record, target, lambda: f"{sentence}\n")


def _similar(lake: Lake, by: tuple[str, ...], limit: int | None, target: OutputTarget) -> None:
    """List near-duplicates of one text."""
    if len(by) > 1:
        raise click.UsageError("--show similar looks at one text: give --by once")
    groups = near_duplicates(lake, by[0], limit=limit or 50)
    table = [
        {"events": Count(g["events"]), "texts": Count(g["variants"]), "example": g["example"]}
        for g in groups
    ]
    emit(groups, target, QueryResult.of_records(table, ("events", "texts", "example")), _SIMILAR)
