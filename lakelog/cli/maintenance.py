"""verify, repair, backup, compact, gc, retention, expire: keep a lake intact and small."""

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

from lakelog import erasure as erasures
from lakelog.cli import exits
from lakelog.cli.app import App, complete_ref, verb
from lakelog.cli.options import ON, YES, argument, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit_record
from lakelog.cli.render.tables import cell, clock
from lakelog.cli.render.terminal import confirm, many, size, width
from lakelog.cli.signatures import UNSIGNED, with_signatures
from lakelog.maintain import LakeCheck, RepairOutcome, Report
from lakelog.proofs import PublicKey
from lakelog.render import micros
from lakelog.settings import span_us
from lakelog.store import SealerProcess, Store

_LISTED_MAX = 50


@verb()
def verify(
    app: App,
    ref: str | None = argument(shell_complete=complete_ref),
    with_repair: bool = flag("--repair", "Repair what is damaged, after asking."),
    signed_by: tuple[str, ...] = option(
        "--signed-by KEY",
        "REF, or each tag, must be signed by this public key (or another one that is given).",
    ),
    signed_in: tuple[str, ...] = option(
        "--signed-in ID",
        "Accept signatures made in the lake with this id, as those of a clone are.",
    ),
    yes: bool = YES,
    target: OutputTarget = OUTPUT,
) -> None:
    """Read every byte again and name each damaged file.

    With REF, only the files of that state are read. Exits with 3 if anything is damaged. With
    --signed-by, what has no valid signature of an accepted key is a problem, too.
    """
    if with_repair and (ref or signed_by):
        raise click.UsageError("--repair takes the whole lake, no REF and no --signed-by")
    if signed_in and not signed_by:
        raise click.UsageError("--signed-in goes with --signed-by KEY")
    public = [PublicKey.load(key_text) for key_text in signed_by]
    # Opened by hand: a lake that cannot be opened is what there is to check.
    check = LakeCheck(app.path)
    report = verify_with_progress(app, check, ref)
    if public:
        report = with_signatures(app, check.store, report, ref, public, signed_in)
    _emit_report(check.store, report, target)
    # The report comes first: the question is answered by who has read it.
    if with_repair and report.problems:
        report = _confirm_and_repair(check, report, None, yes).after or report
    exits.exit_if(not report.intact, exits.WRONG)


@verb()
def repair(
    app: App,
    copy: str | None = option(
        "--from, --copy LAKE",
        "Fetch damaged files from this copy where they are intact.",
        type=click.Path(),
    ),
    dry_run: bool = flag("--dry-run", "Only report what is damaged."),
    yes: bool = YES,
    target: OutputTarget = OUTPUT,
) -> None:
    """Make a damaged lake work again, and list what is lost.

    Damaged files are fetched from a copy or moved to cache/damaged; nothing is deleted. What
    the copy has and the lake lacks is fetched, too: moves, WALs, tags, events. An intact lake is
    left as it is; in an older file of the keys of its subjects, those that were destroyed are
    destroyed again.
    """
    _refuse_no_lake(copy)
    check = LakeCheck(app.path)
    store = check.store
    if store.attachment is not None and not dry_run:
        # Also where nothing is damaged here: the bucket may be.
        _emit_outcome(store, check.repair(copy), copy, target)
        return
    report = verify_with_progress(app, check)
    if copy is not None:
        compared = check.compared(report, copy)
        if compared is None:
            app.say(f"{copy} is no copy of this lake: only damaged files are sought in it")
        report = compared or report
    # An intact lake is left as it is, and nothing is asked.
    if dry_run or not report.problems:
        if not dry_run:
            _destroy_again(app, store)
        _emit_report(store, report, target)
        exits.exit_if(not report.intact, exits.WRONG)
        return
    for line in _problem_lines(store, report):
        # On stderr, so that the damage is read before the question.
        app.say(_wrap(line))
    outcome = _confirm_and_repair(check, report, copy, yes)
    after = outcome.after or report
    if copy is not None and after.intact:
        with app.open() as lake:
            for erasure in erasures.erase_again(lake):
                app.say(f"erasure {erasure.key}: what came with the copy is erased again")
    if after.intact:
        _destroy_again(app, store)
    outcome.after = after
    _emit_outcome(store, outcome, copy, target)


def _destroy_again(app: App, store: Store) -> None:
    """Bring an older file of the keys of subjects up to date."""
    if line := erasures.destroy_recorded(store):
        app.say(line)


def _emit_report(store: Store, report: Report, target: OutputTarget) -> None:
    record = report_record(store, report)
    emit_record(record, target, lambda: "\n".join(_report_lines(store, report)) + "\n")


def _emit_outcome(
    store: Store, outcome: RepairOutcome, copy: str | None, target: OutputTarget
) -> None:
    after = outcome.after
    assert after is not None
    lists = {k: getattr(outcome, k) for k in ("fetched", "aside", "done", "lost", "kept")}
    record = {**lists, "after": report_record(store, after)}
    emit_record(record, target, lambda: "\n".join(_repair_lines(store, outcome, copy)) + "\n")
    exits.exit_if(not after.intact, exits.WRONG)


@verb()
def backup(
    app: App,
    paths: tuple[str, ...] = argument("[LAKE] TO", required=True, type=click.Path()),
    target: OutputTarget = OUTPUT,
) -> None:
    """Copy a lake while it is in use; later runs copy only what is new.

    LAKE is that of --lake by default. TO is a lake as well: query it with --lake TO, verify it,
    copy it back to restore. Do not write to it. `lakelog repair --copy TO` fetches damaged files
    from it.
    """
    if len(paths) > 2:
        raise click.UsageError("backup takes LAKE and TO, or TO alone")
    *sources, to = paths
    source = sources[0] if sources else app.path
    with App(source).open() as lake, app.progress("copying", "files") as progress:
        result = lake.backup(to, progress)
    were = many(result.kept, "was there", "were there")
    line = f"copied {many(result.files, 'file')}, {size(result.bytes)}; {were}\n"
    emit_record(dataclasses.asdict(result), target, lambda: line)


@verb()
def compact(
    app: App,
    smallest: bool = flag("--smallest", "Compress harder: a tenth smaller, but slow."),
    watch: bool = flag("--watch", "Repeat until Ctrl-C."),
    every: str = option("--every SPAN", "How often with --watch.", shown="60s"),
    workers: str | None = ON,
    target: OutputTarget = OUTPUT,
) -> None:
    """Publish what is pending, then merge small segments and sort them.

    Queries get faster and the lake gets smaller. No event changes, and no other process
    waits. With --watch, compaction yields to other processes of this machine. --smallest also
    compresses again what is merged already; do that once, with a lake that is kept.
    """
    pause = span_us(every) / 1e6
    # By itself, as the sealer's process does: it must not slow down those who write or ask.
    if watch:
        os.nice(10)
        SealerProcess.give_way()
    with app.open() as lake:
        while True:
            # One line for each round: a single one would say `done` of a round that is long over.
            with app.progress("compacting", "groups") as progress:
                result = lake.compact(progress, smallest=smallest, workers=workers)
            # A round of --watch that found nothing is no news.
            if result.removed or not watch:
                record = dataclasses.asdict(result)
                emit_record(record, target, functools.partial(_compaction_line, record))
            if not watch:
                return
            time.sleep(pause)


def _compaction_line(record: dict[str, Any]) -> str:
    if not record["removed"]:
        return "nothing to merge\n"
    into = f"{many(record['removed'], 'segment')} into {record['added']:,}"
    return f"{into}, {size(record['bytes_before'])} -> {size(record['bytes_after'])}\n"


@verb()
def gc(
    app: App,
    dry_run: bool = flag("--dry-run", "Only report what would be deleted now."),
    yes: bool = flag("--yes", "Accepted for scripts: gc never asks."),
    target: OutputTarget = OUTPUT,
) -> None:
    """Delete files that no tag, branch or kept move refers to.

    A file is deleted once it has been unreferenced for gc_grace_hours, counted from the
    first run that found it so. gc never asks, because nothing refers to what it deletes.
    """
    with app.open() as lake, app.progress("deleting", "files") as progress:
        result = lake.gc(dry_run=dry_run, progress=progress)
        grace = lake.store.settings.gc_grace_hours
    lines = ["nothing to delete"]
    if result.deleted:
        would = "would delete" if dry_run else "deleted"
        lines = [f"{would} {many(result.deleted, 'file')}, {size(result.bytes)}"]
    # A dry run has deleted nothing, so that it counts with the others what it would delete.
    if waiting := result.condemned - (result.deleted if dry_run else 0):
        lines.append(
            f"{many(waiting, 'more file')} can be deleted after the grace of {many(grace, 'hour')}"
        )
    if result.packed:
        lines.append(f"{many(result.packed, 'old move')} packed into one file")
    if dry_run:
        lines += [f"  {name}" for name in result.names[:_LISTED_MAX]]
    emit_record(dataclasses.asdict(result), target, lambda: "\n".join(lines) + "\n")


@verb()
def retention(
    app: App,
    older_than: str = option("--older-than SPAN", "30d, 12h, 90m or 4w.", required=True),
    apply: bool = flag("--apply", "Remove them, after asking; without it, only report."),
    dry_run: bool = flag("--dry-run", "Only report what would be removed; the default."),
    yes: bool = YES,
    target: OutputTarget = OUTPUT,
) -> None:
    """Remove events older than a time span from the branch.

    The removal is one move that `lakelog undo` reverts. gc deletes the files once no kept
    state refers to them; `lakelog expire` deletes them now.
    """
    if apply and dry_run:
        raise click.UsageError("--apply and --dry-run do not go together")
    with app.open() as lake:
        # A dry run first, so that the question names what will be removed; old events that are not
        # published yet among them.
        if apply:
            lake.settle()
        result = lake.retention(older_than)
        events = f"{'' if result.exact else 'up to '}{many(result.events, 'event')}"
        if apply and result.events:
            older = f"{events} older than {clock(result.before)}"
            if not confirm(f"remove {older} from {app.branch}?", yes):
                raise click.ClickException("nothing was removed")
            result = lake.retention(older_than, apply=True)
    advice = "" if apply else "; --apply removes them"
    line = f"{events} of {app.branch} before {clock(result.before)}{advice}"
    if not result.events:
        line = f"no event of {app.branch} is older than {clock(result.before)}"
    elif result.applied:
        removed = f"removed {many(result.events, 'event')} before {clock(result.before)}"
        line = f"{removed}; `lakelog undo` reverts it"
    record = {**dataclasses.asdict(result), "before": micros(result.before)}
    emit_record(record, target, lambda: f"{line}\n")


@verb()
def expire(
    app: App,
    message: str = option("-m, --message TEXT", "Why, for the log."),
    dry_run: bool = flag("--dry-run", "Only report what would be deleted."),
    yes: bool = YES,
    target: OutputTarget = OUTPUT,
) -> None:
    """Give up all earlier states of the branch, and delete their files now.

    What retention, dedupe or a rollback removed is then gone for good, and its space is free.
    No event of the branch changes. Tags and other branches keep what they name.
    """
    with app.open() as lake:
        # First without deleting, so that the question says how much it is about.
        result = lake.expire(dry_run=True)
        if not dry_run:
            files = f"{many(result.deleted, 'file')}, {size(result.bytes)}"
            if not confirm(f"give up the earlier states of {app.branch} ({files}) for good?", yes):
                raise click.ClickException("nothing was deleted")
            with app.progress("deleting", "files") as progress:
                result = lake.expire(message, progress=progress)
        tags = [tag.name for tag in lake.store.refs.tags()]
    would = "would delete" if dry_run else "deleted"
    lines = [f"{would} {many(result.deleted, 'file')}, {size(result.bytes)}"]
    if result.condemned:
        files = many(result.condemned, "more file")
        lines.append(f"{files} wait for a push: run it again later")
    if tags:
        names = ", ".join(tags[:5]) + (" and more" if len(tags) > 5 else "")
        lines.append(f"{many(len(tags), 'tag')} kept with what they name: {cell(names)}")
    emit_record(dataclasses.asdict(result), target, lambda: "\n".join(lines) + "\n")


def verify_with_progress(app: App, check: LakeCheck, ref: str | None = None) -> Report:
    """Verify a lake or a state of it with progress; a state that cannot be read is a problem."""
    with app.progress("verifying", "bytes") as progress:
        return check.verify_ref(app.branch, ref, progress) if ref else check.verify(progress)


def report_record(store: Store, report: Report) -> dict[str, object]:
    """Return a report as an object; paths relative to the lake."""
    return {
        "intact": report.intact,
        "files": report.files,
        "bytes": report.bytes,
        "problems": [
            {
                "path": _relative_path(store, p.path),
                "kind": p.kind,
                "offset": p.offset,
                "reason": p.reason,
            }
            for p in report.problems
        ],
        "cut": list(report.cut),
    }


def _confirm_and_repair(
    check: LakeCheck, report: Report, copy: str | None, yes: bool
) -> RepairOutcome:
    files = many(len({p.path for p in report.problems}), "file")
    source = f"fetch {files} from {copy}, or set them aside" if copy else f"set {files} aside"
    if not confirm(f"{source}; events in them may be lost?", yes):
        raise click.ClickException("nothing was changed")
    return check.repair(copy)


def _refuse_no_lake(copy: str | None) -> None:
    """Before the question: an answer to it must not end in a mistyped path."""
    # Every lake has this file, and nothing else does; opening it would already create caches.
    if copy is not None and not os.path.isfile(os.path.join(copy, "lakelog.json")):
        raise click.ClickException(f"{copy} is not a lake")
    if copy is not None:
        Store.load(copy)  # it has the data keys of the lake, if both are encrypted


def _report_lines(store: Store, report: Report) -> Iterator[str]:
    volume = f"{many(report.files, 'file')}, {size(report.bytes)} read"
    # Derived files are rebuilt when they are needed, so their damage is no loss.
    damaged = [p for p in report.problems if p.kind != "derived"]
    yield f"intact: {volume}" if not damaged else f"{many(len(damaged), 'problem')}: {volume}"
    for problem_line in _problem_lines(store, report):
        line = f"  {problem_line}"
        # The reason on a line of its own, where both do not fit: a cut path would be of no use.
        yield line if len(line) <= width() else line.replace(": ", ":\n      ", 1)
    if len(report.problems) > _LISTED_MAX:
        yield f"  and {len(report.problems) - _LISTED_MAX:,} more; --json has them"
    if report.cut:
        yield f"{many(len(report.cut), 'torn frame')} of dead writers, saved in cache/cut"
    if any(p.kind != UNSIGNED for p in damaged):
        yield "`lakelog repair` sets these files aside, or fetches them with --from COPY"


def _problem_lines(store: Store, report: Report) -> Iterator[str]:
    for problem in report.problems[:_LISTED_MAX]:
        path = cell(_relative_path(store, problem.path))
        offset_note = "" if problem.offset is None else f" at byte {problem.offset:,}"
        note = {"torn": " (torn)", "derived": " (derived, no loss)"}.get(problem.kind, "")
        yield f"{path}{offset_note}: {cell(problem.reason)}{note}"


def _repair_lines(store: Store, outcome: RepairOutcome, copy: str | None) -> Iterator[str]:
    """Return the report for an operator: the verdict first, the next steps last."""
    after = outcome.after
    if after is not None and not after.intact:
        yield "NOT INTACT YET: see below"
    elif not outcome.lost:
        yield "intact again, nothing is lost"
    else:
        yield f"intact again, but {many(len(outcome.lost), 'loss', 'losses')}: see LOST"
    for title, lines in (
        ("FETCHED from the copy", [_relative_path(store, p) for p in outcome.fetched]),
        ("SET ASIDE, nothing is deleted", outcome.aside),
        ("DONE", outcome.done),
        ("LOST", outcome.lost),
        ("KEPT", outcome.kept),
        ("NEXT", list(_next_steps(outcome, copy))),
    ):
        if lines:
            yield f"\n{title}"
            yield from (_wrap(cell(line)) for line in lines)
    # The damage that is left, below all else: the next step names these files.
    if after is not None and not after.intact:
        yield ""
        yield from _report_lines(store, after)


def _next_steps(outcome: RepairOutcome, copy: str | None) -> Iterator[str]:
    if outcome.after is not None and not outcome.after.intact:
        yield "close the writers of the files named below, then run `lakelog repair` again"
    lost_lines = "\n".join(outcome.lost)
    if "do it again" in lost_lines:
        yield "do again what LOST says; `lakelog log` shows what was done when"
    # The words with which repair names a loss that another append or ingest brings back.
    if re.search("events|lines|group commits|sealed|do it again|jsonl", lost_lines):
        yield "append or ingest lost events again: ids that are still there stay as they are"
    if outcome.aside:
        yield "keep cache/damaged until you need none of it, then delete it"
    if copy is None and outcome.lost:
        yield "run `lakelog backup LAKE TO` often: `repair --from TO` then loses less"


def _wrap(line: str) -> str:
    """Return a line of a list, wrapped at spaces to the terminal's width."""
    return textwrap.fill(
        line,
        width(),
        initial_indent="  ",
        subsequent_indent="      ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _relative_path(store: Store, path: str) -> str:
    # A file of a copy or a remote is outside of the lake, and keeps its whole path.
    root = store.paths.root
    return os.path.relpath(path, root) if path.startswith(f"{root}/") else path
