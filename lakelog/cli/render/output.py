"""Where a result is written and in which format: --format, --json, -o, and the terminal.

A table only on a terminal, NDJSON otherwise. `-o FILE` is written atomically.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from lakelog import export, pictures
from lakelog.cli.options import combined, flag, option, output_files
from lakelog.cli.render import terminal
from lakelog.cli.render.tables import ROWS_MAX, names_of, render
from lakelog.errors import ExportRefused
from lakelog.libraries import alt
from lakelog.render import FileEnding, OutputFormat, QueryResult, dumps
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import html

else:
    html = Lazy("html")


RowsOrRecords = QueryResult | Sequence[Mapping[str, object]]


@dataclass(frozen=True)
class OutputTarget:
    """A format, and a file or None for stdout."""

    format: str
    path: str | None = None


class FormatChoice(click.Choice[str]):
    """A format by its name or a synonym."""

    def __init__(self, formats: Iterable[str]) -> None:
        choices = [str(form) for form in formats]
        super().__init__(
            [*choices, *(word for word, name in OutputFormat.synonyms().items() if name in choices)]
        )

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the format that a name or synonym means. Raises BadParameter."""
        name = super().convert(value, param, ctx)
        return OutputFormat.synonyms().get(name, name)


def choose(format: str | None, as_json: bool, output: str | None) -> OutputTarget:
    """Decide how and where to write. Raises UsageError."""
    # `-o -` is stdout in many tools; no file of that name is meant.
    path = None if output == "-" else output
    if as_json and format not in (None, "json"):
        raise click.UsageError(f"--json and --format {format} do not go together")
    if as_json:
        format = "json"
    if format is None and path is not None:
        format = FileEnding.of(path).format
        if format is None:
            raise click.UsageError(f"no format for the extension of {path!r}: add --format")
    is_binary = format in OutputFormat.binary()
    if path is not None and is_binary and (compression := FileEnding.of(path).compression):
        raise click.UsageError(f"{format} is already compressed: leave out {compression}")
    on_terminal = path is None and terminal.is_terminal(sys.stdout)
    format = format or ("table" if on_terminal else "ndjson")
    if is_binary and on_terminal:
        raise click.UsageError(f"{format} is not for a terminal: add -o FILE")
    if path is not None:
        output_files().append(path)
    return OutputTarget(format, path)


OUTPUT = combined(
    choose,
    format=option(
        "--format FORMAT",
        "table, json, ndjson (or jsonl), csv, parquet, arrow, md or html; by default a"
        " table on a terminal, else ndjson.",
        type=FormatChoice(OutputFormat),
    ),
    as_json=flag("--json", "Short for --format json."),
    output=option("-o, --output FILE", "Write to FILE atomically; its extension sets the format."),
)
"""Of which a verb gets its OutputTarget."""


def _drawable(path: str | None) -> str | None:
    if path is not None:
        pictures.require_drawable(path)
        output_files().append(path)
    return path


PLOT = combined(
    _drawable, path=option("--plot FILE", "Draw it, too; FILE ends in .png, .svg or .html.")
)
"""Of which a verb gets the name of a picture that can be drawn, or None."""


def emit_plot(path: str | None, chart: Callable[[], alt.Chart | alt.VConcatChart]) -> None:
    """Write a picture, if there shall be one."""
    if path is not None:
        with open_output(path) as out:
            out.write(pictures.encode(chart(), path))


def emit(
    rows: RowsOrRecords,
    target: OutputTarget,
    table: RowsOrRecords | None = None,
    columns: Sequence[str] = (),
) -> None:
    """Write rows, or records with equal keys, which are `columns` where there may be none; `table`
    replaces them in a table."""
    result = rows if isinstance(rows, QueryResult) else QueryResult.of_records(rows, columns)
    # A verb's own table has fewer columns, of people's words; without columns it is none.
    table_result = table if isinstance(table, QueryResult) else QueryResult.of_records(table or ())
    table_result = table_result if table_result.columns else result
    with open_output(target.path) as out:
        if target.format == "table":
            _emit_table(table_result, out, target)
        elif target.format in OutputFormat.binary():
            ending = os.path.splitext(target.path or "")[1].lower()
            # Arrow's stream format where the name does not ask for a file: it can be written to a
            # pipe.
            result.write_arrow(out, target.format, ending in ("", ".arrows"))
        else:
            # A page is for people, too.
            written = table_result if target.format == "html" else result
            for chunk in written.encode(target.format):
                _write(chunk, out, target)
                # A reader such as `head` may wait for the first rows while the query still runs.
                out.flush()


def emit_record(
    record: Mapping[str, object], target: OutputTarget, people: Callable[[], str]
) -> None:
    """Write one object: as it is in JSON, as text in a table, else as one row."""
    if target.format == "json":
        with open_output(target.path) as out:
            _write(dumps(record, indent=True) + b"\n", out, target)
    else:
        emit_words([record], target, people)


def emit_done(record: Mapping[str, object], target: OutputTarget, text: str) -> None:
    """Write what a verb did, as `emit_record` does. People were told on stderr already, so that a
    table is only written to a file."""
    if target.format != "table" or target.path:
        emit_record(record, target, lambda: text)


def emit_words(rows: RowsOrRecords, target: OutputTarget, people: Callable[[], str]) -> None:
    """Write rows; text instead of a table."""
    if target.format == "table":
        with open_output(target.path) as out:
            write_text(people(), out, target)
    elif target.format == "html":
        with open_output(target.path) as out:
            write_text(f"<pre>{html.escape(people())}</pre>\n", out, target)
    else:
        emit(rows, target)


def write_text(content: str, out: BinaryIO, target: OutputTarget) -> None:
    """Write text in the terminal's encoding."""
    # A file is always UTF-8, a terminal may not be: what it cannot show becomes a question mark.
    encoding = (getattr(sys.stdout, "encoding", None) if target.path is None else None) or "utf-8"
    out.write(content.encode(encoding, "replace"))
    out.flush()


@contextlib.contextmanager
def open_output(path: str | None) -> Iterator[BinaryIO]:
    """Open stdout, also as `-`, or a file that is compressed by its extension and appears once it
    is complete."""
    if path is None or path == "-":
        if sys.stdout is None:
            raise click.UsageError("standard output is closed: add -o FILE")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with export.atomic_file(path) as file:
        stream = FileEnding.of(path).compressed(file)
        yield stream
        # The end of what is compressed has to be written before atomic_file publishes the name.
        if stream is not file:
            stream.close()


def write_new(path: str, content: str, advice: str) -> None:
    """Write a file that people go on to edit. Raises ExportRefused, with the advice, if there is
    one, also one that appears at this moment."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(content)
    except FileExistsError:
        raise ExportRefused(f"{path} exists: {advice}") from None


def _write(chunk: bytes | memoryview, out: BinaryIO, target: OutputTarget) -> None:
    """Write a piece of a text format: to a file or program as it is, to a terminal without what
    would control it."""
    if target.path is None and terminal.is_terminal(sys.stdout):
        chunk = OutputFormat(target.format).on_terminal(chunk)
    out.write(chunk)


def _emit_table(result: QueryResult, out: BinaryIO, target: OutputTarget) -> None:
    rows: list[Any] = []
    for batch in result.batches:
        rows += batch
        # No further: one row more than is shown says that there are others.
        if len(rows) > ROWS_MAX:
            break
    colour = target.path is None and terminal.has_colour(sys.stdout)
    drawn, left_out = render(
        result.columns, rows[:ROWS_MAX], terminal.width(), colour, main=result.main
    )
    write_text(drawn, out, target)
    if not rows:
        terminal.say("no rows", dim=True)
    elif left_out:
        terminal.say(
            f"{len(result.columns) - len(left_out)} of {len(result.columns)} columns shown, not"
            f" {names_of(left_out)}; -o or --format csv gives all",
            dim=True,
        )
    if len(rows) > ROWS_MAX:
        terminal.say(f"the first {ROWS_MAX} rows shown; -o or --format csv gives all", dim=True)
