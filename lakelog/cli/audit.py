"""audit: is each line of the ingested files stored exactly once?"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import click

from lakelog.audit import FileAudit
from lakelog.audit import audit as auditing
from lakelog.backup import BackupDirectory, backup_directories, copies_of
from lakelog.cli import exits
from lakelog.cli.app import App, verb
from lakelog.cli.input_formats import InputFormat
from lakelog.cli.options import argument, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit
from lakelog.cli.render.tables import Count, cell
from lakelog.cli.render.terminal import arrival, many, size
from lakelog.event import BookkeepingEvent
from lakelog.lake import Lake

_FAULTS = ("missing", "doubled", "foreign")
_COLUMNS = (
    *"source label format state bytes waiting lines stored quarantined".split(),
    *"arrival known let_go".split(),
    *_FAULTS,
    *(f"{fault}_at" for fault in _FAULTS),
    *"gone error backup copy_of".split(),
)
_REPORTED = f"""
    SELECT count(DISTINCT subject) FILTER (data->>'lost_bytes' IS NOT NULL),
        sum(TRY_CAST(data->>'lost_bytes' AS DOUBLE)),
        sum(TRY_CAST(data->>'repeated_lines' AS DOUBLE))
    FROM events WHERE type = '{BookkeepingEvent.WATCH}'"""
# The columns of counts need the rest of 80 columns.
_NAME_MAX = 20


@verb()
def audit(
    app: App,
    sources: tuple[str, ...] = argument("[SOURCE]...", type=click.Path()),
    label: str | None = option("--source NAME", "The --source they were ingested with."),
    form: str | None = option("--as", "The --format they were ingested with.", type=InputFormat()),
    folders: tuple[str, ...] = option(
        "--backup-dir DIR", "Where backups of removed files are, if the lake does not know it."
    ),
    target: OutputTarget = OUTPUT,
) -> None:
    """Prove that each line of ingested files is stored exactly once.

    Reads files, directories and patterns again (by default, every file that was ingested)
    as far as they were ingested, and looks up each line in the lake. Files are recognized
    by content, under any name; for a file that was removed, an intact backup is read. Exits
    with 3 if a line is missing or stored more than once, and with 1 if a file is gone or
    cannot be read, because nothing is proven for its lines then.
    """
    with app.open() as lake, app.progress("auditing", "files") as progress:
        # Directories that the user names are searched before those that the lake remembers.
        places = [*map(BackupDirectory, folders), *backup_directories(lake)]
        result = auditing.audit(
            lake.store,
            lake.branch_name,
            # Loaded from the lake each time: watchers record where they copy to, wherever they ran.
            lake.engine,
            list(sources),
            label=label,
            form=form,
            progress=progress,
            backups=functools.partial(copies_of, places),
        )
        reported = _reported(lake)
    # Files without anything to compare are left out of the table, not of the records.
    table = [_table_row(f) for f in result.files if f.seen or f.wrong]
    emit([record(f) for f in result.files], target, table, _COLUMNS)
    for message in problems(result):
        # On stderr: the records on stdout stay one format, whatever is found.
        app.say(message, fg="red")
    app.say(summary(result))
    for message in reported:
        app.say(message)
    # A missing line outweighs a file that could not be read: the code says the worst.
    if result.wrong or result.failed or result.gone:
        click.get_current_context().exit(exits.WRONG if result.wrong else exits.FAILED)


def record(file: FileAudit) -> dict[str, object]:
    """Return the findings about a file as an object."""
    # The worst first: a file that is wrong and gone as well is reported as wrong.
    state = "wrong" if file.wrong else "unread" if file.error else "gone" if file.gone else "sound"
    places = {f"{fault}_at": file.first.get(fault, []) for fault in _FAULTS}
    values = {**vars(file), **places, "state": state, "bytes": file.seen}
    return {name: values[name] for name in _COLUMNS}


def problems(result: auditing.Audit) -> Iterator[str]:
    """Yield one line for each problem, then one for each file that could not be read."""
    for file in result.files:
        name = cell(file.source)
        for fault in _FAULTS:
            count, offsets = getattr(file, fault), file.first.get(fault, [])
            if count:
                listing = ", ".join(f"{place:,}" for place in offsets)
                ellipsis = ", ..." if offsets and count > len(offsets) else ""
                place_note = f": at byte {listing}{ellipsis}" if offsets else ""
                yield f"{name}: {_fault_words(fault, count)}{place_note}"
        # Without the file nothing is proven about its lines, only that what is stored fits
        # together.
        if file.error or file.gone:
            bad = f" and {many(file.quarantined, 'quarantined line')}" if file.quarantined else ""
            stored = f"{many(file.stored, 'event')}{bad} in the lake"
            remainder = f"; checked without it: {stored}" if file.gone else ""
            yield f"{name}: {cell(file.error or file.gone)}{remainder}"


def summary(result: auditing.Audit) -> str:
    """Return what is proven, in one line."""
    # A copy has the lines of its original: to count both would prove them twice.
    files_read = [f for f in result.files if f.seen and not (f.gone or f.copy_of)]
    lines, bytes_read = sum(f.lines for f in files_read), sum(f.seen for f in files_read)
    scope = (
        f"{many(lines, 'line')} of {many(len(files_read), 'file')} read again ({size(bytes_read)})"
    )
    faults = sum(f.wrong for f in result.files)
    if faults:
        return f"{many(faults, 'fault')} in {many(len(result.wrong), 'file')}; {scope}"
    # Said apart, because "0 lines are stored exactly once" would read as a proof.
    if not files_read:
        proven = not (result.failed or result.gone)
        return "nothing to read again" if proven else f"nothing was proven{_unproven_note(result)}"
    message = f"{scope}: each is stored exactly once"
    known_ids, let_go = sum(f.known for f in files_read), sum(f.let_go for f in files_read)
    message += f", {known_ids:,} by ids known before" if known_ids else ""
    arrived = sum(f.arrival for f in files_read)
    message += f"; {arrival(arrived)}" if arrived else ""
    message += f"; {let_go:,} removed by retention, dedupe or erasure" if let_go else ""
    from_backups = sum(bool(f.backup) for f in result.files)
    message += f"; {from_backups:,} read from their backups" if from_backups else ""
    copies = sum(bool(f.copy_of) for f in result.files)
    message += f"; {many(copies, 'file')} copied from others" if copies else ""
    return message + _unproven_note(result)


def _reported(lake: Lake) -> list[str]:
    """Return what watchers reported that no file can show any more."""
    files, unread, repeated = lake.sql(_REPORTED).fetchall()[0]
    reported = []
    if files:
        unread_note = (
            f"{unread:,.0f} bytes of {many(files, 'file')} that went before they were read"
        )
        reported.append(f"watchers reported {unread_note}")
    if repeated:
        reported.append(f"{many(int(repeated), 'line')} reported as perhaps stored twice")
    return [f"{message} (events of the type lakelog.watch)" for message in reported]


def _unproven_note(result: auditing.Audit) -> str:
    """Return for how many files nothing is proven, because they are gone."""
    if not result.gone:
        return ""
    count = f"{len(result.gone):,} of {len(result.files):,}"
    return f"; not proven: {count} files no longer exist, of those only the lake was checked"


def _fault_words(fault: str, count: int) -> str:
    """Return a fault as a phrase."""
    if fault == "missing":
        return f"{many(count, 'line')} missing"
    if fault == "doubled":
        return f"{many(count, 'line')} stored more than once"
    return f"{many(count, 'row')} at positions where no line was ingested"


def _table_row(file: FileAudit) -> dict[str, object]:
    """Return a row of the table; a long name is cut at its start."""
    name = cell(file.source)
    # The end of a path tells files apart; their beginning is mostly the same.
    name = name if len(name) <= _NAME_MAX else f"…{name[1 - _NAME_MAX :]}"
    counts = {
        "lines": file.lines,
        "stored": file.stored,
        "bad": file.quarantined,
        "known": file.known,
        **{fault: getattr(file, fault) for fault in _FAULTS},
    }
    return {"source": name, **{column: Count(count) for column, count in counts.items()}}
