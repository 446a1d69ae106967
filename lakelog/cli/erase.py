"""erase: remove a subject from every state of the lake, and say what is not clean yet."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator

import click

from lakelog import erasure as erasures
from lakelog import export
from lakelog.cli import exits
from lakelog.cli.app import App, complete_subject, verb
from lakelog.cli.options import YES, argument, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, emit_record
from lakelog.cli.render.tables import cell, clock
from lakelog.cli.render.terminal import confirm, many
from lakelog.erasure import ErasurePreview, ErasureStatus

_LISTED_MAX = 20


@verb()
def erase(
    app: App,
    action: str | None = argument(
        "[status|list|receipt]", required=False, type=click.Choice(["status", "list", "receipt"])
    ),
    key: str | None = argument("[KEY]", required=False),
    subject: tuple[str, ...] = option(
        "--subject TEXT",
        "Erase the events of this subject, or its key; repeatable.",
        shell_complete=complete_subject,
    ),
    predicate: str | None = option("--where SQL", "Erase the events for which this holds."),
    why: str = option("--why TEXT", "The reason, which is kept.", default=""),
    cleaned: str | None = option("--cleaned PLACE", "With status: you cleaned this place."),
    sign: str | None = option("--sign KEY", "With receipt: sign it with this private key."),
    rows: bool = flag("--rows", "Where fields are protected: erase the events, too."),
    dry_run: bool = flag("--dry-run", "Only show what would be erased."),
    yes: bool = YES,
    target: OutputTarget = OUTPUT,
) -> None:
    """Erase events from every state of every branch and tag, for good.

    Their bytes leave the disk now, and they are refused when they come again. Nothing else
    changes: tags, counts of others, chains, signatures and proofs hold. `lakelog erase status`
    names what is not clean yet, and exits with 3 until nothing is; `list` shows all erasures.
    `receipt` writes a document about one, without the data, that `check-proof` checks.
    """
    if action is None:
        if key or cleaned or sign:
            raise click.UsageError("a key, --cleaned and --sign go with `status` or `receipt`")
        _erase(app, subject, predicate, why, rows, dry_run, yes, target)
        return
    if subject or predicate or why or dry_run:
        raise click.UsageError(f"`lakelog erase {action}` takes no --subject, --where or --why")
    if action == "receipt":
        _receipt(app, key or "", sign, target)
        return
    with app.open(notes_outputs=False) as lake:
        # A person's word, for nobody but them can look into a place outside of the lake.
        if cleaned:
            erasures.confirm(lake.store, key or "", cleaned)
        # By the beginning of a key, as for snapshots; none given means all erasures.
        statuses = [s for s in lake.erasures() if s.erasure.key.startswith(key or "")]
    if action == "list":
        emit([_summary(status) for status in statuses], target)
        return
    record = {"erasures": [_record(status) for status in statuses]}
    emit_record(record, target, lambda: "".join(f"{x}\n" for s in statuses for x in _lines(s)))
    # So that a nightly job can wait until nothing is left.
    exits.exit_if(not all(status.is_done for status in statuses), exits.WRONG)


def _receipt(app: App, key: str, sign: str | None, target: OutputTarget) -> None:
    with app.open(notes_outputs=False) as lake:
        data = lake.erasure_receipt(key, sign)
    if target.path is None:
        # Bytes as they were signed: text mode could translate line ends, and break the signature.
        sys.stdout.buffer.write(data)
    else:
        with export.atomic_file(target.path) as file:
            file.write(data)
        app.say(f"wrote {target.path}")
    if not sign:
        app.say("the receipt is not signed: --sign KEY signs it, see `lakelog key generate`")


def _erase(
    app: App,
    subject: tuple[str, ...],
    predicate: str | None,
    why: str,
    rows: bool,
    dry_run: bool,
    yes: bool,
    target: OutputTarget,
) -> None:
    if bool(subject) == bool(predicate):
        # Both would mean their union to one reader and their intersection to the next.
        raise click.UsageError("say what to erase: --subject TEXT or --where SQL")
    if not dry_run and not why:
        raise click.UsageError("say why with --why TEXT, or look first with --dry-run")
    with app.open(notes_outputs=False) as lake:
        with app.progress("searching", "segments") as progress:
            touched = lake.preview_erasure(
                subject=subject, where=predicate, rows=rows, progress=progress
            )
        if dry_run:
            record = dataclasses.asdict(touched)
            emit_record(record, target, lambda: "".join(f"{x}\n" for x in _preview_lines(touched)))
            return
        # On stderr, so that the question below is asked with all that it means in sight.
        for line in _preview_lines(touched):
            app.say(line)
        question = f"erase {many(touched.events, 'event')} from every state, for good?"
        if touched.keys:
            question = f"destroy {many(touched.keys, 'key')}, for good?"
        if not confirm(question, yes):
            raise click.ClickException("nothing was erased")
        with app.progress("erasing", "segments") as progress:
            status = lake.erase(
                subject=subject, where=predicate, why=why, rows=rows, progress=progress
            )
    record = _record(status)
    if status.earlier:
        record["earlier"] = [_record(earlier) for earlier in status.earlier]
    all_of_them = (*status.earlier, status)
    emit_record(record, target, lambda: "".join(f"{x}\n" for s in all_of_them for x in _lines(s)))


def _preview_lines(touched: ErasurePreview) -> Iterator[str]:
    if touched.keys:
        yield f"destroys {many(touched.keys, 'key')}: the protected fields are NULL in every copy"
    else:
        yield from _counted_lines(touched)
    for leftover in touched.leftovers[:_LISTED_MAX]:
        yield f"stays: {cell(leftover.place)}: {leftover.advice}"
    for place in touched.outside:
        yield f"may be at: {place['place']} {cell(str(place['name']))}: {place['command']}"


def _counted_lines(touched: ErasurePreview) -> Iterator[str]:
    yield (
        f"{many(touched.events, 'event')} and {many(touched.lines, 'quarantined line')}, in"
        f" {many(touched.segments, 'segment')} of {many(touched.states, 'state')}"
    )
    for title, counts in (("branch", touched.branches), ("tag", touched.tags)):
        for name, count in list(counts.items())[:_LISTED_MAX]:
            yield f"  {title} {cell(name)}: {many(count, 'event')}"
        if len(counts) > _LISTED_MAX:
            yield f"  and {many(len(counts) - _LISTED_MAX, title)} more"
    if touched.mentions:
        yield f"stays: {many(touched.mentions, 'event')} of others that have the text: use --where"


def _summary(status: ErasureStatus) -> dict[str, object]:
    erasure = status.erasure
    return {
        "key": erasure.key,
        "time": clock(erasure.time),
        "events": erasure.events,
        "keys": len(erasure.subjects),
        "state": "done" if status.is_done else "pending",
        "by": erasure.author,
        "why": erasure.why,
    }


def _record(status: ErasureStatus) -> dict[str, object]:
    return {
        **_summary(status),
        "lines": status.erasure.lines,
        "branches": status.erasure.branches,
        "tags": status.erasure.tags,
        "leftovers": [vars(leftover) for leftover in status.leftovers],
        "copies": list(status.copies),
        "gone": [place["name"] for place in status.absent],
    }


def _lines(status: ErasureStatus) -> Iterator[str]:
    erasure = status.erasure
    counts_text = f"{many(erasure.events, 'event')} and {many(erasure.lines, 'quarantined line')}"
    if erasure.subjects:
        counts_text = f"{many(len(erasure.subjects), 'key')} destroyed"
    state = "done" if status.is_done else "pending"
    yield f"erasure {erasure.key}: {counts_text}, {state} ({cell(erasure.why)})"
    for leftover in status.leftovers:
        yield f"  left in {cell(leftover.place)}: {leftover.advice}"
    for place in status.copies:
        yield f"  may be at {place['place']} {cell(str(place['name']))}: {place['command']}"
    for place in status.absent:
        advice = "clean it where it is, if it was moved or its disk is not mounted"
        yield f"  gone: {place['place']} {cell(str(place['name']))}: {advice}"
