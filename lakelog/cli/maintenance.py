"""verify, repair, backup, compact, gc, retention: keeping a lake sound and small."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import click

from lakelog.cli import exits
from lakelog.cli.app import App, complete_ref, verb
from lakelog.cli.render.output import Target, emit_record, with_output
from lakelog.cli.render.tables import cell
from lakelog.cli.render.terminal import confirm, many, size, width
from lakelog.errors import Damaged
from lakelog.export.values import clock, micros
from lakelog.repair.outcome import RepairOutcome
from lakelog.repair.repair import repair as repair_store
from lakelog.repair.verify import Problem, Report, open_for_check, verify_snapshot
from lakelog.repair.verify import verify as verify_store
from lakelog.settings import span_us
from lakelog.store import connection, hotcopy
from lakelog.store.bootstrap import Store, load
from lakelog.store.compact import Compaction
from lakelog.store.gc import GcResult
from lakelog.store.resolve import resolve
from lakelog.store.retention import RetentionResult

_LISTED_MAX = 50


@verb(
    examples="""
    lakelog verify
    lakelog verify v1
    lakelog verify --repair --yes
"""
)
@click.argument("ref", required=False, shell_complete=complete_ref)
@click.option("--repair", "mend", is_flag=True, help="Repair what is damaged, after asking.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_output
def verify(app: App, ref: str | None, mend: bool, yes: bool, target: Target) -> None:
    """Read every byte again and name each damaged file.

    With REF, only the files of that state are read. Exits with 3 if anything is damaged.
    """
    if ref and mend:
        raise click.UsageError("--repair takes the whole lake, not a REF")
    store, first = open_for_check(app.path)
    report = checked(app, store, first, ref)
    record = report_record(store, report)
    emit_record(record, target, lambda: "\n".join(_report_lines(store, report)) + "\n")
    if mend and report.problems:
        report = _repaired(store, first, report, None, yes).after or report
    if not report.intact:
        click.get_current_context().exit(exits.WRONG)


@verb(
    examples="""
    lakelog repair --dry-run
    lakelog repair --from /backup/lake --yes
"""
)
@click.option(
    "--from",
    "--copy",
    "copy",
    type=click.Path(),
    metavar="LAKE",
    help="Fetch damaged files from this copy where they are intact.",
)
@click.option("--dry-run", is_flag=True, help="Only report what is damaged.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_output
def repair(app: App, copy: str | None, dry_run: bool, yes: bool, target: Target) -> None:
    """Make a damaged lake work again, and list what is lost.

    Damaged files are fetched from a copy or moved to cache/damaged; nothing is deleted. An intact
    lake is left as it is.
    """
    store, first = open_for_check(app.path)
    report = checked(app, store, first)
    if dry_run or not report.problems:
        record = report_record(store, report)
        emit_record(record, target, lambda: "\n".join(_report_lines(store, report)) + "\n")
        if not report.intact:
            click.get_current_context().exit(exits.WRONG)
        return
    for problem in report.problems[:_LISTED_MAX]:
        app.say(_wrapped(_problem_line(store, problem)))
    outcome = _repaired(store, first, report, copy, yes)
    after = outcome.after or report
    lists = {k: getattr(outcome, k) for k in ("fetched", "aside", "done", "lost", "kept")}
    record = {**lists, "after": report_record(store, after)}
    emit_record(record, target, lambda: "\n".join(_repair_lines(store, outcome, copy)) + "\n")
    if not after.intact:
        click.get_current_context().exit(exits.WRONG)


@verb(
    examples="""
    lakelog backup ./lake /backup/lake
    lakelog repair --copy /backup/lake
"""
)
@click.argument("source", metavar="LAKE", type=click.Path())
@click.argument("to", type=click.Path())
@with_output
def backup(app: App, source: str, to: str, target: Target) -> None:
    """Copy a lake while it is in use; later runs copy only what is new.

    TO is a lake as well: query it with --lake TO, verify it, copy it back to restore. Do not write
    to it. `lakelog repair --copy TO` fetches damaged files from it.
    """
    with app.progress("copying", "files") as progress:
        done = hotcopy.copy(load(source), to, progress)
    line = f"copied {many(done.files, 'file')}, {size(done.bytes)}; {done.kept:,} were there\n"
    emit_record(dataclasses.asdict(done), target, lambda: line)


@verb(
    examples="""
    lakelog compact
    lakelog compact --watch --every 5m
"""
)
@click.option("--watch", is_flag=True, help="Repeat until Ctrl-C.")
@click.option(
    "--every", default="60s", show_default=True, metavar="SPAN", help="How often with --watch."
)
@with_output
def compact(app: App, watch: bool, every: str, target: Target) -> None:
    """Publish what is pending, then merge small segments and sort them.

    Queries get faster and the lake gets smaller. No event changes, and no other process
    waits. With --watch, compaction yields to other processes of this machine.
    """
    pause = span_us(every) / 1e6
    if watch:
        os.nice(10)
    with app.open() as lake:
        while True:
            with app.progress("compacting", "groups") as progress:
                done = lake.compact(progress)
            if done.removed or not watch:
                _emit_compaction(done, target)
            if not watch:
                return
            time.sleep(pause)


@verb(
    examples="""
    lakelog gc --dry-run
    lakelog gc
"""
)
@click.option("--dry-run", is_flag=True, help="Only report what would be deleted now.")
@click.option("--yes", is_flag=True, help="Accepted for scripts: gc never asks.")
@with_output
def gc(app: App, dry_run: bool, yes: bool, target: Target) -> None:
    """Delete files that no tag, branch or kept move refers to.

    A file is deleted once it has been unreferenced for gc_grace_hours, counted from the
    first run that found it so. gc never asks, because nothing refers to what it deletes.
    """
    with app.open() as lake, app.progress("deleting", "files") as progress:
        done = lake.gc(dry_run=dry_run, progress=progress)
        grace = lake.store.settings.gc_grace_hours
    lines = _collected(done, grace)
    emit_record(dataclasses.asdict(done), target, lambda: "\n".join(lines) + "\n")


@verb(
    examples="""
    lakelog retention --older-than 30d
    lakelog retention --older-than 30d --apply --yes
"""
)
@click.option("--older-than", required=True, metavar="SPAN", help="30d, 12h, 90m or 4w.")
@click.option("--apply", is_flag=True, help="Remove them, after asking; without it, only report.")
@click.option("--dry-run", is_flag=True, help="Only report what would be removed; the default.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_output
def retention(
    app: App, older_than: str, apply: bool, dry_run: bool, yes: bool, target: Target
) -> None:
    """Remove events older than a time span from the branch.

    The removal is one move that `lakelog undo` reverts. gc deletes the files once no kept
    state refers to them.
    """
    if apply and dry_run:
        raise click.UsageError("--apply and --dry-run do not go together")
    with app.open() as lake:
        done = lake.retention(older_than)
        if apply and done.events:
            question = f"remove {_up_to(done)} older than {clock(done.before)} from {app.branch}?"
            if not confirm(question, yes):
                raise click.ClickException("nothing was removed")
            done = lake.retention(older_than, apply=True)
    record = {**dataclasses.asdict(done), "before": micros(done.before)}
    emit_record(record, target, lambda: f"{_retained(app, done, apply)}\n")


def checked(app: App, store: Store, first: Problem | None, ref: str | None = None) -> Report:
    """Verify a lake or a state of it with progress; a ref that cannot be read is a problem."""
    with app.progress("verifying", "bytes") as progress:
        if ref is None:
            return verify_store(store, progress, first)
        try:
            return verify_snapshot(store, resolve(store, app.branch, ref), progress)
        except Damaged as error:
            return Report((Problem(error.path, error.reason, "damage", error.offset),), 0, 0)


def report_record(store: Store, report: Report) -> dict[str, Any]:
    """Return a report as an object; paths relative to the lake."""
    return {
        "intact": report.intact,
        "files": report.files,
        "bytes": report.bytes,
        "problems": [
            {"path": _inside(store, p.path), "kind": p.kind, "offset": p.offset, "reason": p.reason}
            for p in report.problems
        ],
        "cut": list(report.cut),
    }


def _repaired(
    store: Store, first: Problem | None, report: Report, copy: str | None, yes: bool
) -> RepairOutcome:
    if copy is not None and not os.path.isfile(os.path.join(copy, "lakelog.json")):
        raise click.UsageError(f"{copy} is not a lake")
    files = many(len({p.path for p in report.problems}), "file")
    source = f"fetch {files} from {copy}, or set them aside" if copy else f"set {files} aside"
    if not confirm(f"{source}; events in them may be lost?", yes):
        raise click.ClickException("nothing was changed")
    connect = functools.partial(connection.connect, store.paths, store.settings)
    return repair_store(store, connect, copy, first)


def _report_lines(store: Store, report: Report) -> Iterator[str]:
    read = f"{many(report.files, 'file')}, {size(report.bytes)} read"
    damaged = [p for p in report.problems if p.kind != "derived"]
    yield f"intact: {read}" if not damaged else f"{many(len(damaged), 'problem')}: {read}"
    for problem in report.problems[:_LISTED_MAX]:
        line = f"  {_problem_line(store, problem)}"
        yield line if len(line) <= width() else line.replace(": ", ":\n      ", 1)
    if len(report.problems) > _LISTED_MAX:
        yield f"  and {len(report.problems) - _LISTED_MAX:,} more; --json has them"
    if report.cut:
        yield f"{many(len(report.cut), 'torn frame')} of dead writers, saved in cache/cut"
    if damaged:
        yield "`lakelog repair` sets these files aside, or fetches them with --from COPY"


def _problem_line(store: Store, problem: Problem) -> str:
    where = cell(_inside(store, problem.path))
    at = "" if problem.offset is None else f" at byte {problem.offset:,}"
    note = {"torn": " (torn)", "derived": " (derived, no loss)"}.get(problem.kind, "")
    return f"{where}{at}: {cell(problem.reason)}{note}"


def _repair_lines(store: Store, outcome: RepairOutcome, copy: str | None) -> Iterator[str]:
    """What an operator reads: the verdict first, what to do next last."""
    after = outcome.after
    if after is not None and not after.intact:
        yield "NOT INTACT YET: see below"
    elif not outcome.lost:
        yield "intact again, nothing is lost"
    else:
        yield f"intact again, but {many(len(outcome.lost), 'loss', 'losses')}: see LOST"
    for title, lines in (
        ("FETCHED from the copy", [_inside(store, p) for p in outcome.fetched]),
        ("SET ASIDE, nothing is deleted", outcome.aside),
        ("DONE", outcome.done),
        ("LOST", outcome.lost),
        ("KEPT", outcome.kept),
        ("NEXT", list(_next_steps(outcome, copy))),
    ):
        if lines:
            yield f"\n{title}"
            yield from (_wrapped(cell(line)) for line in lines)
    if after is not None and not after.intact:
        yield ""
        yield from _report_lines(store, after)


def _next_steps(outcome: RepairOutcome, copy: str | None) -> Iterator[str]:
    if outcome.after is not None and not outcome.after.intact:
        yield "close the writers of the files named below, then run `lakelog repair` again"
    lost = "\n".join(outcome.lost)
    if "do it again" in lost:
        yield "do again what LOST says; `lakelog log` shows what was done when"
    if re.search("events|lines|group commits|sealed|do it again|jsonl", lost):
        yield "append or ingest lost events again: ids that are still there stay as they are"
    if outcome.aside:
        yield "keep cache/damaged until you need none of it, then delete it"
    if copy is None and outcome.lost:
        yield "run `lakelog backup LAKE TO` often: `repair --from TO` then loses less"


def _wrapped(line: str) -> str:
    """A line of a list, broken at spaces where the terminal is narrower."""
    return textwrap.fill(
        line,
        width(),
        initial_indent="  ",
        subsequent_indent="      ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _inside(store: Store, path: str) -> str:
    root = store.paths.root
    return os.path.relpath(path, root) if path.startswith(f"{root}/") else path


def _compacted(done: Compaction) -> str:
    if not done.removed:
        return "nothing to merge"
    into = f"{many(done.removed, 'segment')} into {done.added:,}"
    return f"{into}, {size(done.bytes_before)} -> {size(done.bytes_after)}"


def _emit_compaction(done: Compaction, target: Target) -> None:
    emit_record(dataclasses.asdict(done), target, lambda: f"{_compacted(done)}\n")


def _collected(done: GcResult, grace: int) -> list[str]:
    would = "would delete" if done.dry_run else "deleted"
    lines = [f"{would} {many(done.deleted, 'file')}, {size(done.bytes)}"]
    if not done.deleted:
        lines = ["nothing to delete"]
    waiting = done.condemned - (done.deleted if done.dry_run else 0)
    if waiting:
        lines.append(
            f"{many(waiting, 'more file')} can be deleted after the grace of {many(grace, 'hour')}"
        )
    if done.packed:
        lines.append(f"{many(done.packed, 'old move')} packed into one file")
    names = [f"  {name}" for name in done.names] if done.dry_run else []
    return lines + names[:_LISTED_MAX]


def _retained(app: App, done: RetentionResult, apply: bool) -> str:
    line = clock(done.before)
    if not done.events:
        return f"no event of {app.branch} is older than {line}"
    if done.applied:
        return f"removed {many(done.events, 'event')} before {line}; `lakelog undo` reverts it"
    again = "" if apply else "; --apply removes them"
    return f"{_up_to(done)} of {app.branch} before {line}{again}"


def _up_to(done: RetentionResult) -> str:
    return f"{'' if done.exact else 'up to '}{many(done.events, 'event')}"
