"""ingest and quarantine: taking files in, and what to do with lines that were no events."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import click

from lakelog import lake as lakes
from lakelog.cli import exits
from lakelog.cli.app import App, verb
from lakelog.cli.formats import of_records
from lakelog.cli.inputs import InputFormat
from lakelog.cli.output import Target, emit, emit_record, with_output
from lakelog.cli.tables import Count
from lakelog.cli.terminal import confirm, many
from lakelog.ingest import quarantine as lines
from lakelog.ingest.batch import FileReport
from lakelog.ingest.ingest import IngestReport
from lakelog.store import opening

_LIST = (
    "SELECT ingested_at, origin, position, reason, line FROM quarantine"
    " ORDER BY ingested_at, origin, position"
)

_VARYING = re.compile(r"\b(byte|line|column|char|of) [\d,]+|'.*'")
"""Places, lengths and values, which differ from line to line where the reason is the same."""


@verb(examples="""
    lakelog ingest logs/*.jsonl backup/2026.jsonl.zst
    lakelog ingest /var/log/app --dry-run
    zcat old.gz | lakelog ingest - --source app
    lakelog ingest a.log --format 'access:%h %l %u %t "%r" %>s %b %D'
""")  # fmt: skip
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
@click.option("--format", "form", type=InputFormat(), help="Force the input format.")
@click.option(
    "--source", metavar="NAME", help="Who says so, where events do not; keeps equal files apart."
)
@click.option("--dry-run", is_flag=True, help="Read and count, store nothing.")
@click.option("--json", "as_json", is_flag=True, help="The outcome of each file as JSON.")
def ingest(
    app: App, paths: tuple[str, ...], form: str | None, source: str | None, dry_run: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Take files, directories, patterns or stdin (-) in, each row once.

    JSON lines, OOS lines, Elasticsearch _bulk, access logs (of a LogFormat by
    --format access:...), syslog, logfmt, CSV, Zeek, W3C, auditd, Kubernetes
    and the log lines of programs, plain, .gz or .zst, told by content. A file
    that was taken in before goes on where it stopped, whatever its name is
    now. Lines that are no events go to quarantine.
    """
    started = time.monotonic()
    with _lake_for(app, dry_run) as lake, app.progress("ingest", "bytes") as progress:

        def show(done: int, total: int, events: int) -> None:
            rate = events / max(time.monotonic() - started, 0.001)
            progress(done, total, f"{events:,} events, {rate:,.0f}/s")

        report = lake.ingest(
            list(paths), format=form, source=source, dry_run=dry_run, progress=show
        )  # fmt: skip
    _say(app, report, time.monotonic() - started, dry_run)
    if as_json:
        emit(of_records([dataclasses.asdict(f) for f in report.files]), Target("json"))
    if any(f.error for f in report.files) or report.quarantined:
        click.get_current_context().exit(exits.FAILED)


@verb(examples="""
    lakelog quarantine list
    lakelog quarantine replay --as oos
    lakelog quarantine drop --yes
""")  # fmt: skip
@click.argument("action", type=click.Choice(["list", "show", "replay", "drop"]))
@click.option("--as", "form", type=InputFormat(), help="The format to try.")
@click.option("--type", "type_", metavar="NAME", help="The type of events that have none.")
@click.option("--dry-run", is_flag=True, help="Say what would happen.")
@click.option("--yes", is_flag=True, help="Do not ask before dropping.")
@with_output
def quarantine(
    app: App, action: str, form: str | None, type_: str | None, dry_run: bool, yes: bool,
    target: Target,
) -> None:  # fmt: skip
    """Look at lines that were no events, try them again, or drop them.

    list counts them by file and reason, show gives them whole, replay stores
    those that parse now, drop removes all. Both can be undone.
    """
    with app.open() as lake:
        if action in ("list", "show"):
            _look(lake, action, target)
            return
        lake.settle()
        connect = lake.engine
        if action == "replay":
            done = lines.replay(
                lake.store, lake.branch_name, connect, form=form, type_=type_, dry_run=dry_run
            )
            record = dataclasses.asdict(done)
            words = (
                f"{many(done.stored, 'line')} stored, {done.skipped:,} known, {done.left:,} left"
            )
        else:
            count = lake.sql("SELECT count(*) FROM quarantine").fetchall()[0][0]
            question = f"Drop {many(count, 'quarantined line')}?"
            if count and not dry_run and not confirm(question, yes):
                return
            gone = count if dry_run else lines.drop(lake.store, lake.branch_name)
            record, words = {"dropped": gone}, f"{many(gone, 'line')} dropped"
    app.say(f"{words}{' (nothing was changed)' if dry_run else ''}")
    if target.format != "table" or target.path:
        emit_record(record, target, lambda: f"{words}\n")


@contextlib.contextmanager
def _lake_for(app: App, dry_run: bool) -> Iterator[lakes.Lake]:
    """The lake; where there is none a dry run makes one that is gone again."""
    if dry_run and app.branch == "main" and not opening.is_lake(app.path):
        with tempfile.TemporaryDirectory() as scratch, lakes.open(f"{scratch}/lake") as lake:
            yield lake
    else:
        with app.open_or_create() as lake:
            yield lake


def _look(lake: Any, action: str, target: Target) -> None:
    """Show quarantined lines, or count them by file and reason."""
    rows = lake.sql(_LIST).fetchall()
    files = lines.names(lake.store, lake.branch_name)
    shown: list[dict[str, Any]]
    if action == "show":
        shown = [
            {"file": files.get(o, o), "offset": p, "reason": r, "line": t} for _, o, p, r, t in rows
        ]
        emit(of_records(shown, ("file", "offset", "reason", "line")), target)
        return
    counts: dict[tuple[str, str], list[int]] = {}
    for _, origin, position, reason, _ in rows:
        kind = _VARYING.sub(lambda m: f"{m[1]} N" if m[1] else "'…'", reason)
        counts.setdefault((files.get(origin, origin), kind), []).append(position)
    shown = [
        {"file": f, "reason": r, "lines": Count(len(at)), "first_offset": Count(min(at))}
        for (f, r), at in counts.items()
    ]
    emit(of_records(shown, ("file", "reason", "lines", "first_offset")), target)


def _say(app: App, report: IngestReport, seconds: float, dry_run: bool) -> None:
    """Sum up in words, naming each file with something to look at."""
    for file in report.files:
        if file.error:
            app.say(f"{file.path}: {file.error}", fg="red")
        if file.quarantined:
            app.say(f"{file.path}: {many(file.quarantined, 'bad line')}, first: {file.reason}")
        if file.left:
            words = "of a last line without newline left until it is finished"
            app.say(f"{file.path}: {many(file.left, 'byte')} {words}")
        app.detail(_file_words(file))
    rate = report.events / max(seconds, 0.001)
    words = f"{many(report.events, 'new event')} from {many(len(report.files), 'file')}"
    speed = f", {rate:,.0f}/s" if report.events else ""
    words += f" in {seconds:.1f} s{speed}; {report.skipped:,} known"
    if report.quarantined:
        words += f"; {report.quarantined:,} quarantined (`lakelog quarantine list`)"
    app.say(f"{words}{' (nothing was stored)' if dry_run else ''}")


def _file_words(file: FileReport) -> str:
    return (
        f"{file.path}: {file.format or 'nothing new'}, {file.events:,} new, {file.skipped:,} known,"
        f" {file.quarantined:,} quarantined"
    )
