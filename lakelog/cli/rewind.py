"""rollback, undo: return to a state of the lake, with directories and deployment if asked."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from lakelog.cli.app import App, complete_branch, complete_ref, verb
from lakelog.cli.history import snapshot_record
from lakelog.cli.options import WHY, YES, argument, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, emit_done, emit_record
from lakelog.cli.render.tables import cell, fit
from lakelog.cli.render.terminal import confirm, many, width
from lakelog.errors import StateRefused
from lakelog.lake import Lake
from lakelog.rollback import PARTS, Preflight
from lakelog.rollback import rollback as rollbacks
from lakelog.state import StateSwitch

_COLUMNS = ("part", "name", "now", "then", "problem")
_LINE = "  {part:<11}{name:<17}{now:<19}{then:<19}{word}"
_TIMEOUT = option(
    "--timeout SECONDS",
    "How long to wait for the pods of a deployment.",
    type=click.IntRange(min=1),
    shown=300,
)


def _complete_parts(_: click.Context, __: click.Parameter, prefix: str) -> list[CompletionItem]:
    """Parts that are not in the list yet."""
    names = prefix.split(",")
    before = "".join(f"{name}," for name in names[:-1])
    candidates = [name for name in PARTS if name.startswith(names[-1]) and name not in names[:-1]]
    return [CompletionItem(before + name) for name in candidates]


def _parse_parts(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    return rollbacks.check_parts(filter(None, map(str.strip, value.split(","))))


@verb()
def rollback(
    app: App,
    ref: str | None = argument(shell_complete=complete_ref),
    parts: tuple[str, ...] = option(
        "--with PARTS",
        f"What goes back: {', '.join(PARTS)}.",
        shown=",".join(rollbacks.DEFAULT),
        multiple=False,
        callback=_parse_parts,
        shell_complete=_complete_parts,
    ),
    keep_cursors: bool = flag("--keep-cursors", "Keep the read positions of ingested files."),
    verify: bool = flag("--verify", "Read every byte of that state first."),
    dry_run: bool = flag("--dry-run", "Say what would change and what is missing."),
    going_on: bool = flag("--continue", "Finish one that was interrupted."),
    undoing: bool = flag("--undo", "Undo the last one, as `lakelog undo` does."),
    context: str = option("--context NAME", "The cluster, as kubectl names it."),
    timeout: int = _TIMEOUT,
    why: str = WHY,
    yes: bool = YES,
    target: OutputTarget = OUTPUT,
) -> None:
    """Return to a state. Nothing is deleted, and `lakelog undo` reverts it.

    Pending events are published first, so that they stay in the log. The read positions of
    ingested files go back as well, so that the files can be ingested again. With `state`, the
    saved directories go back, with `deployment` the revision in which they were saved: all parts
    or none. A tag names the state before. Refused if a piece is missing or damaged.
    """
    if (ref is not None) + going_on + undoing != 1:
        raise click.UsageError("name a state, or give --continue or --undo alone")
    if going_on:
        _finish(app)
        return
    if undoing:
        _undo(app, False, None, timeout, why, yes, dry_run, target)
        return
    selection = tuple(name for name in parts if name != "cursors" or not keep_cursors)
    with app.open() as lake:
        if message := rollbacks.pending(lake):
            _finish_first(app, lake, message, dry_run)
        # Before the rollback: afterwards only the events of the state are counted.
        was = lake.count()
        snapshot = str(ref)
        if dry_run or not set(selection) <= set(rollbacks.DEFAULT):
            plan = rollbacks.preview(lake, str(ref), selection, context=context)
            if dry_run:
                _show_plan(plan, target)
                return
            _ask(app, plan, f"return to {ref}?", yes)
            # What was shown: events that came meanwhile are one more step for `main~1`.
            snapshot = plan.target
        with app.progress("restoring", "bytes") as progress:
            result = rollbacks.rollback(
                lake,
                snapshot,
                selection,
                name=str(ref) if ref != snapshot else "",
                verify=verify,
                context=context,
                why=why,
                seconds=timeout,
                progress=progress,
            )
    outcome = f"{', '.join(selection)} of {ref} again; {app.branch} stays as it is"
    if "data" in selection:
        events = many(result.snapshot.events, "event")
        outcome = f"{app.branch} is at {ref} again: {events} (was {was:,})"
    advice = f"`lakelog undo` reverts it; the state before is tagged {result.safety}"
    _report_move(app, result, target, f"{outcome}\n{advice}")


@verb()
def undo(
    app: App,
    force: bool = flag("--force", "Drop later events from the branch; the log still has them."),
    to_branch: str | None = option(
        "--to-branch NAME",
        "Keep the present state, later events included, on a new branch.",
        shell_complete=complete_branch,
    ),
    dry_run: bool = flag("--dry-run", "Say what would change and what is missing."),
    timeout: int = _TIMEOUT,
    why: str = WHY,
    yes: bool = YES,
    target: OutputTarget = OUTPUT,
) -> None:
    """Undo the last rollback, undo, snapshot, retention, dedupe, repair or pull.

    If events were published since, --force or --to-branch has to say what happens to them. What a
    rollback moved with the branch comes back with it: directories, deployment.
    """
    _undo(app, force, to_branch, timeout, why, yes, dry_run, target)


def _finish_first(app: App, lake: Lake, message: str, dry_run: bool) -> None:
    if dry_run:
        app.say(f"interrupted, and finished before the next rollback: {message}")
    else:
        app.say(f"finished first, as it was interrupted: {rollbacks.finish(lake, app.say)}")


def _finish(app: App) -> None:
    with app.open() as lake:
        outcome = rollbacks.finish(lake, app.say)
    app.say(f"finished: {outcome}" if outcome else "nothing was interrupted")


def _undo(
    app: App,
    force: bool,
    to_branch: str | None,
    timeout: int,
    why: str,
    yes: bool,
    dry_run: bool,
    target: OutputTarget,
) -> None:
    with app.open() as lake:
        # How far it got is not known before it is finished or taken back, so there is no plan.
        if message := rollbacks.pending(lake):
            if dry_run:
                app.say(f"the interrupted {message} would be undone, as far as it got")
                return
            if not confirm(f"undo the interrupted {message}?", yes):
                raise click.ClickException("nothing was changed")
            plan = None
        else:
            plan = rollbacks.preview_undo(lake, always=dry_run)
        if plan is not None and dry_run:
            _show_plan(plan, target)
            return
        if plan is not None:
            _ask(app, plan, "undo the rollback?", yes)
        with app.progress("restoring", "bytes") as progress:
            result = rollbacks.undo(
                lake, force=force, to_branch=to_branch, why=why, seconds=timeout, progress=progress
            )
    message = f"undone: {result.message.removeprefix('of ')}"
    _report_move(app, result, target, f"{message}; {many(result.snapshot.events, 'event')} now")


def _ask(app: App, plan: Preflight, question: str, yes: bool) -> None:
    """Show a plan, and ask if it overwrites a directory or changes a deployment."""
    for line in _lines(plan):
        app.say(line)
    plan.require()
    if plan.copied and not StateSwitch.RESTORE.is_on:
        raise StateRefused("nothing was changed: RESTORE_ENABLED is off")
    if (plan.copied or plan.cluster) and not confirm(question, yes):
        raise click.ClickException("nothing was changed")


def _show_plan(plan: Preflight, target: OutputTarget) -> None:
    """Print a plan as the result; one that would be refused ends with an error."""
    rows = [{name: getattr(finding, name) for name in _COLUMNS} for finding in plan.findings]
    if target.format == "table":
        emit_record({}, target, lambda: "\n".join(_lines(plan)) + "\n")
    else:
        emit(rows, target, columns=_COLUMNS)
    plan.require()


def _lines(plan: Preflight) -> list[str]:
    """A table of what a rollback changes, which directories it writes, then what is missing."""
    head = dict(zip(_COLUMNS, _COLUMNS, strict=True))
    lines = [_LINE.format(**head, word="")]
    for finding in plan.findings:
        fields = {
            n: fit(cell(getattr(finding, n)), w) for n, w in zip(_COLUMNS, _WIDTHS, strict=True)
        }
        lines.append(_LINE.format(**fields, word="missing" if finding.problem else "ok"))
    lines = [line.rstrip()[: width()] for line in lines]
    # Where a state came from a remote, the remote has named the directory.
    copied = [record for record in plan.records if record.label in plan.copied]
    lines += [f"  {cell(record.label)}: writes {cell(record.path)}" for record in copied]
    # The refusal itself names it; with several the refusal only counts them.
    problems = plan.problems if len(plan.problems) > 1 else []
    return lines + [f"missing: {cell(problem)}" for problem in problems]


_WIDTHS = (10, 16, 18, 18, 0)


def _report_move(
    app: App, result: rollbacks.RolledBack, target: OutputTarget, message: str
) -> None:
    """Say where a branch is now; for programs, the state itself is the result."""
    for note in result.notes:
        app.say(cell(note), fg="yellow")
    app.say(message)
    emit_done(snapshot_record(result.snapshot), target, f"{message}\n")
