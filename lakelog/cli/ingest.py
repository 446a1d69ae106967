"""ingest and quarantine: load files, and handle lines that could not be parsed."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import math
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from lakelog import lake as lakes
from lakelog.cli import exits
from lakelog.cli.app import App, verb
from lakelog.cli.input_formats import EXCLUDED, PATTERN, InputFormat, ignore_older
from lakelog.cli.options import argument, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, emit_done
from lakelog.cli.render.tables import Count
from lakelog.cli.render.terminal import arrival, confirm, many
from lakelog.cli.rounds import stop_at_signals
from lakelog.event import BookkeepingEvent
from lakelog.files import Selection
from lakelog.ingest import FileReport, Ingester, IngestReport, Quarantine
from lakelog.render import QueryResult
from lakelog.store import Store

_LIST = "SELECT origin, position, reason{} FROM quarantine ORDER BY ingested_at, origin, position"
_BATCH = 256

_VARYING = re.compile(r"\b(byte|line|column|char|of|over|part) [\d,]+|'.*'")
"""Places, lengths and values, which differ from line to line where the reason is the same."""


@verb()
def ingest(
    app: App,
    paths: tuple[str, ...] = argument("PATH...", required=True, type=click.Path()),
    form: str | None = PATTERN,
    source: str | None = option(
        "--source NAME",
        "Source of events that name none; equal files of two sources are both ingested.",
    ),
    excluded: tuple[str, ...] = EXCLUDED,
    ignore_older: float | None = ignore_older(),
    dry_run: bool = flag("--dry-run", "Read and count, but store nothing."),
    as_json: bool = flag("--json", "Print the result of each file as JSON."),
) -> None:
    """Load files, directories, patterns or stdin (-), each row exactly once.

    The format is detected by content: JSON lines and documents, CSV and TSV, Parquet,
    Arrow, access logs (a LogFormat is --format access:...), syslog, logfmt, Zeek, W3C,
    auditd, Kubernetes, OOS lines, Elasticsearch _bulk and the logs of many programs. Text
    may be compressed (.gz, .zst, .xz, .bz2).

    A file that was ingested before continues where it stopped, even under another name.
    A pipe is stored as its lines come; Ctrl-C keeps what came.
    Lines that cannot be parsed go to quarantine. `lakelog formats test FILE` shows how
    lines are parsed; `lakelog formats add` stores a pattern of your own.
    """
    started = time.monotonic()
    # Before a lake is created: a mistyped path must not leave an empty one behind.
    if not Store.is_lake(app.path) and not any(
        path == "-" or os.path.lexists(path) or glob.glob(path, recursive=True) for path in paths
    ):
        raise click.ClickException(f"nothing to ingest: there is no {' or '.join(paths)}")
    selected = list(paths)
    if excluded or ignore_older is not None:
        oldest = 0.0 if ignore_older is None else time.time() - ignore_older
        expanded = Ingester.expand(selected, selection=Selection(excluded=excluded))
        selected = [path for path in expanded if _mtime(path) >= oldest]
    with (
        _lake_for(app, dry_run) as lake,
        app.progress("ingest", "bytes") as progress,
        _stopping(paths) as stop,
    ):

        def show(bytes_done: int, total: int, events: int) -> None:
            rate = events / max(time.monotonic() - started, 0.001)
            progress(bytes_done, total, f"{events:,} events, {rate:,.0f}/s")

        report = lake.ingest(
            selected, format=form, source=source, dry_run=dry_run, progress=show, stop=stop
        )
    # On stderr and before the records, so that a pipe gets nothing but those.
    _report(app, report, time.monotonic() - started, dry_run)
    if as_json:
        emit([f.record() for f in report.files], OutputTarget("json"))
    # Quarantined lines are safe, but a script has to notice them.
    exits.exit_if(any(f.error for f in report.files) or report.quarantined, exits.FAILED)


@verb()
def quarantine(
    app: App,
    action: str = argument(type=click.Choice(["list", "show", "replay", "drop"])),
    form: str | None = option("--as", "The format to try.", type=InputFormat()),
    type_: str | None = option("--type NAME", "Type of events that name none."),
    dry_run: bool = flag("--dry-run", "Report what would happen."),
    yes: bool = flag("--yes", "Do not ask before dropping."),
    target: OutputTarget = OUTPUT,
) -> None:
    """Show lines that could not be parsed, try them again, or drop them.

    list counts them by file and reason, and show prints them in full. replay parses them
    again, by the lake's own format for their file if there is one, and stores those that
    succeed. drop removes all. Both replay and drop can be undone.
    """
    with app.open() as lake:
        if action in ("list", "show"):
            _list_quarantine(lake, action, target)
            return
        # Both read the published quarantine: pending lines would be left out.
        lake.settle()
        connect = lake.engine
        if action == "replay":
            result = Quarantine(lake.store, lake.branch_name).replay(
                connect, form=form, type_=type_, dry_run=dry_run
            )
            record = dataclasses.asdict(result)
            message = f"{many(result.stored, 'line')} stored"
            message += f", {result.skipped:,} known, {result.left:,} left"
        else:
            count = lake.sql("SELECT count(*) FROM quarantine").fetchall()[0][0]
            question = f"Drop {many(count, 'quarantined line')}?"
            # Asked only if there is something to drop: a nightly job on a clean lake has no
            # terminal.
            if count and not dry_run and not confirm(question, yes):
                return
            dropped = count if dry_run else Quarantine(lake.store, lake.branch_name).drop()
            record, message = {"dropped": dropped}, f"{many(dropped, 'line')} dropped"
    app.say(f"{message}{' (nothing was changed)' if dry_run else ''}")
    emit_done(record, target, f"{message}\n")


def _mtime(path: str) -> float:
    """When a file was last written; what is none is looked at in any case, to say so."""
    with contextlib.suppress(OSError):
        status = os.stat(path)
        # A pipe or a device has no time of its own; what is missing is reported by the ingest
        # itself.
        return status.st_mtime if stat.S_ISREG(status.st_mode) else math.inf
    return math.inf


@contextlib.contextmanager
def _stopping(paths: tuple[str, ...]) -> Iterator[Callable[[], bool]]:
    """Say whether to stop: where pipes are read, Ctrl-C and SIGTERM end them, and what came until
    then is stored; otherwise they end the verb."""
    # A file can be ingested again from where it stopped; what came by a pipe comes only once.
    if not any(path == "-" or (os.path.exists(path) and Path(path).is_fifo()) for path in paths):
        yield lambda: False
        return
    with stop_at_signals() as stop:
        yield stop.is_set


@contextlib.contextmanager
def _lake_for(app: App, dry_run: bool) -> Iterator[lakes.Lake]:
    """Open the lake; a dry run without one uses a temporary lake."""
    if dry_run and app.branch == "main" and not Store.is_lake(app.path):
        # A dry run must not create the lake, but the whole path of an ingest needs one.
        with tempfile.TemporaryDirectory() as scratch, lakes.open(f"{scratch}/lake") as lake:
            yield lake
    else:
        with app.open_or_create() as lake:
            yield lake


def _list_quarantine(lake: Any, action: str, target: OutputTarget) -> None:
    """Show quarantined lines, or count them by file and reason."""
    # Quarantined rows hold the digest of their file's name; the cursors know what it was called.
    source_of = Quarantine(lake.store, lake.branch_name).sources()
    if action == "show":
        # In batches, because a quarantine may hold more lines than memory.
        stream = iter(lake.sql(_LIST.format(", line")).iter_rows(_BATCH))
        batches = iter(
            lambda: [(source_of(o), *columns) for o, *columns in islice(stream, _BATCH)], []
        )
        emit(QueryResult(["file", "offset", "reason", "line"], batches), target)
        return
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for origin, position, reason in lake.sql(_LIST.format("")):
        # Counted without the places and values in it, or each line would have a reason of its own.
        pattern = _VARYING.sub(lambda m: f"{m[1]} N" if m[1] else "'…'", reason)
        key = source_of(origin), pattern
        count, position_of_first = counts.get(key, (0, position))
        counts[key] = count + 1, min(position_of_first, position)
    rows = [
        {"file": f, "reason": r, "lines": Count(count), "first_offset": Count(position_of_first)}
        for (f, r), (count, position_of_first) in counts.items()
    ]
    emit(rows, target, columns=("file", "reason", "lines", "first_offset"))


def _report(app: App, report: IngestReport, seconds: float, dry_run: bool) -> None:
    """Sum up as text, naming each file that needs attention."""
    for file in report.files:
        if file.error:
            app.say(f"{file.path}: {file.error}", fg="red")
        if file.ignored:
            app.say(f"{file.path}: {file.ignored}")
        if file.quarantined:
            app.say(f"{file.path}: {many(file.quarantined, 'bad line')}, first: {file.reason}")
        if file.nuls:
            app.say(f"{file.path}: {many(file.nuls, 'NUL byte')} skipped")
        if file.left:
            message = "left: the last line has no newline yet"
            app.say(f"{file.path}: {many(file.left, 'byte')} {message}")
        if file.same_as:
            message = f"skipped: the same content was ingested from {file.same_as}"
            app.say(f"{file.path}: {message} (`--source NAME` keeps both)")
        if file.repeated:
            app.say(f"{file.path}: {BookkeepingEvent.repeated_words(file.repeated)}", fg="red")
        if file.note:
            app.say(f"{file.path}: {file.note}")
        # Only with --verbose: of a thousand files those without trouble are not worth a line.
        app.detail(_file_words(file))
    rate = report.events / max(seconds, 0.001)
    message = f"{many(report.events, 'new event')} from {many(len(report.files), 'file')}"
    speed = f", {rate:,.0f}/s" if report.events else ""
    message += f" in {seconds:.1f} s{speed}; {report.skipped:,} known"
    if report.arrivals:
        message += f"; {arrival(report.arrivals)}"
    if report.erased:
        message += f"; {report.erased:,} refused, which were erased"
    if report.quarantined:
        message += f"; {report.quarantined:,} quarantined (`lakelog quarantine list`)"
    app.say(f"{message}{' (nothing was stored)' if dry_run else ''}")


def _file_words(file: FileReport) -> str:
    return (
        f"{file.path}: {file.format or 'nothing new'}, {file.events:,} new, {file.skipped:,} known,"
        f" {file.quarantined:,} quarantined"
        + (f", {arrival(file.arrivals)}" if file.arrivals else "")
    )
