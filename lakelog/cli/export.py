"""export, publish: rows as files for other tools, and tables of other systems that have them."""

from __future__ import annotations

import dataclasses
import os
import time

import click

import lakelog.export as exports
import lakelog.open_tables as tables
from lakelog.cli.app import App, complete_table, complete_type, state_option, verb, verb_group
from lakelog.cli.arguments import pair_of, value_of
from lakelog.cli.options import argument, combined, flag, option
from lakelog.cli.render.output import OUTPUT, FormatChoice, OutputTarget, emit_record
from lakelog.cli.render.terminal import many, size
from lakelog.erased import copies
from lakelog.errors import ExportRefused
from lakelog.export import FORMATS, SHARD_ROWS, destination


@verb()
def export(
    app: App,
    query: str = argument("QUERY|VIEW", shell_complete=complete_table),
    out: str = option(
        "-o, --output PATH",
        "A file, or a directory that does not exist yet.",
        required=True,
        type=click.Path(),
    ),
    form: str | None = option(
        "--format", "By default that of the extension, or parquet.", type=FormatChoice(FORMATS)
    ),
    by: str | None = option(
        "--partition-by COL,...",
        "Hive directories by these columns; `date` is the day of the column time.",
    ),
    shard_rows: int = option(
        "--shard-rows N",
        "Maximum number of rows in a file of a directory; 1,000,000 by default.",
        type=click.IntRange(1),
        default=SHARD_ROWS,
    ),
    params: tuple[str, ...] = option("--param K=V", "Value of $K in the query."),
    at: str | None = state_option("Export a tag, branch, snapshot or time."),
    as_json: bool = flag("--json", "Report what was written, as JSON."),
) -> None:
    """Write the rows of a query, a table or a view to files.

    A PATH that ends in .parquet, .csv, .jsonl or .arrow (or .csv.gz, .jsonl.zst)
    is one file; any other, or one that ends in /, is a directory of shards such
    as `part-00000-of-00003.parquet`. Rows are streamed in bounded memory, and a file or
    directory appears complete or not at all. The table `events` is written without the
    events that lakelog itself appends; a query may select them.
    """
    columns = [name.strip() for name in by.split(",") if name.strip()] if by else []
    # An export is atomic and has a size; a pipe has neither.
    if out == "-":
        raise click.UsageError("export writes files: lakelog sql QUERY --format csv prints them")
    try:
        # What cannot be written is refused before the lake is opened; here it is a mistake in the
        # options.
        goal = destination(out, form, columns)
    except ExportRefused as error:
        raise click.UsageError(str(error)) from None
    started = time.monotonic()
    values = {k: value_of(v) for k, v in map(pair_of, params)} or None
    with app.open() as lake, app.progress("exporting", "rows") as progress:
        # A pinned lake answers as the lake does, so the export knows nothing of states.
        ask = (lake.at(at) if at else lake).sql
        # Recorded for erasure: it names the copies that it cannot reach itself.
        copies.note(lake.store.paths, "export", os.path.abspath(out))
        result = exports.export(
            ask, query, goal, params=values, shard_rows=shard_rows, progress=progress
        )
    seconds = time.monotonic() - started
    # A pipe or a device is no file, and has no size.
    size_note = (
        f" in {many(len(result.files), 'file')}, {size(result.bytes)}" if result.files else ""
    )
    message = (
        f"{many(result.rows, 'row')}{size_note}, {result.rows / max(seconds, 1e-3):,.0f} rows/s"
    )
    # On stderr, also with --json: stdout stays free for the record.
    app.say(f"{out}: {message}")
    if as_json:
        record = {"path": out, "rows": result.rows, "files": result.files}
        emit_record(record, OutputTarget("json"), lambda: "")


@verb_group()
def publish() -> None:
    """Keep open tables up to date with the events.

    The first publish makes the table. Later ones add what is new and take out
    what is gone; one that is repeated, or was killed, changes nothing twice.
    """


def _source(type: str | None, query: str | None, at: str | None) -> tables.TableSource:
    if type and query:
        raise click.UsageError("--type and --query exclude each other")
    return tables.TableSource(at, type, query)


_SOURCE = combined(
    _source,
    type=option(
        "--type TYPE", "The events of a type, with fields as columns.", shell_complete=complete_type
    ),
    query=option("--query SQL", "The rows of a query."),
    at=state_option("Publish a tag, branch, snapshot or time."),
)


@publish.verb()
def iceberg(
    app: App,
    target: str = argument("NAMESPACE.TABLE"),
    catalog: str = option(
        "--catalog NAME", "A catalog of .pyiceberg.yaml.", default="default", shown="default"
    ),
    uri: str | None = option("--uri URI", "Where the catalog is, such as sqlite:///tables.db."),
    warehouse: str | None = option("--warehouse URI", "Where its tables are."),
    properties: tuple[str, ...] = option(
        "--set K=V", "Any other property of the catalog.", multiple=True
    ),
    source: tables.TableSource = _SOURCE,
    target_output: OutputTarget = OUTPUT,
) -> None:
    """Bring an Apache Iceberg table to a state of the lake.

    The branch is compacted first. Compacted segments are the table's files: they
    stay in the lake and are not copied, and a tag keeps them. Rows of --type and
    --query are copied. Tags of the state become tags of the table.
    """
    options = {name: value for name, value in (("uri", uri), ("warehouse", warehouse)) if value}
    options |= dict(map(pair_of, properties))
    with app.open() as lake:
        result = tables.publish_iceberg(lake, target, source, catalog=catalog, properties=options)
    emit_record(dataclasses.asdict(result), target_output, lambda: _words(result))


@publish.verb()
def delta(
    app: App,
    target: str = argument("PATH|URI"),
    options: tuple[str, ...] = option(
        "--set K=V", "An option of the storage, such as AWS_REGION=eu-west-1.", multiple=True
    ),
    source: tables.TableSource = _SOURCE,
    target_output: OutputTarget = OUTPUT,
) -> None:
    """Bring a Delta table to a state of the lake.

    The branch is compacted first. Compacted segments get a second name in the
    table's directory, which costs no space on the same file system; elsewhere,
    and in buckets, they are copied. Rows of --type and --query are copied.
    """
    with app.open() as lake:
        result = tables.publish_delta(lake, target, source, options=dict(map(pair_of, options)))
    emit_record(dataclasses.asdict(result), target_output, lambda: _words(result))


def _words(result: tables.PublishResult) -> str:
    if not result.is_new:
        return f"{result.table} has state {result.state[:12]} already"
    copied = f", {many(result.copied, 'file')} copied" if result.copied else ""
    size_note = f" ({size(result.copied_bytes)})" if result.copied_bytes else ""
    return (
        f"{result.table} has state {result.state[:12]}: {many(result.events, 'event')},"
        f" {many(result.added, 'file')} added, {result.removed:,} taken out{copied}{size_note}"
    )
