"""export: rows as files for other tools; one file, shards, or Hive partitions."""

from __future__ import annotations

import os
import time

import click

import lakelog.export as exports
from lakelog.cli.app import App, complete_table, state_option, verb
from lakelog.cli.arguments import pair_of, value_of
from lakelog.cli.options import argument, flag, option
from lakelog.cli.render.output import FormatChoice, OutputTarget, emit_record
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
        result = exports.export(
            ask, query, goal, params=values, shard_rows=shard_rows, progress=progress
        )
        # Recorded for erasure: it names the copies that it cannot reach itself.
        copies.note(lake.store.paths, "export", os.path.abspath(out))
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
