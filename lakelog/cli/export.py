"""export: rows as files for other tools; one file, shards, or Hive partitions."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any

import click

from lakelog.bookkeeping import IS_DATA
from lakelog.cli.app import App, complete_ref, complete_table, verb
from lakelog.cli.formats import BINARY, ENDINGS, Result, encode, ending_of, packed
from lakelog.cli.output import FormatChoice, Target, emit_record, opened
from lakelog.cli.pairs import pair_of, value_of
from lakelog.cli.terminal import many, size
from lakelog.cli.vectors import Columns
from lakelog.errors import ExportRefused, QueryFailed
from lakelog.lazy import Lazy

if TYPE_CHECKING:
    import pyarrow as pa

    from lakelog.train import tables
else:
    tables = Lazy("lakelog.train.tables")

FORMATS = ("parquet", "csv", "ndjson", "arrow")
_SHARD_ROWS = 1_000_000
_BATCH = 65_536
_PLAIN_NAME = re.compile(r"\.\d+$")
"""What follows the dot in `out/v1.2` is no ending."""
_EVENTS = re.compile(r'(?:^|[\s."])events"?\s*$', re.I)
_NAME = re.compile(r'\s*(?:(?:\w+|"[^"]+")\.)?(?:\w+|"[^"]+")\s*')


@verb(examples="""
    lakelog export events -o events.parquet
    lakelog export events -o lake-export/ --partition-by date,type
    lakelog export "SELECT * FROM events WHERE level = 'ERROR'" -o errors.csv
    lakelog export '"v1".events' -o v1/ --shard-rows 250000 --format ndjson
""")  # fmt: skip
@click.argument("query", metavar="QUERY|VIEW", shell_complete=complete_table)
@click.option(
    "-o", "--output", "out", required=True, type=click.Path(), metavar="PATH",
    help="A file, or a directory that does not exist yet.",
)  # fmt: skip
@click.option(
    "--format",
    "form",
    type=FormatChoice(FORMATS),
    help="By default set by the extension, or parquet.",
)
@click.option(
    "--partition-by", "by", metavar="COL,...",
    help="Hive directories by these columns; `date` is the day of the column time.",
)  # fmt: skip
@click.option(
    "--shard-rows", type=click.IntRange(1), default=_SHARD_ROWS, metavar="N",
    help="At most so many rows in a file of a directory; 1,000,000 by default.",
)  # fmt: skip
@click.option("--param", "params", multiple=True, metavar="K=V", help="Value of $K in the query.")
@click.option(
    "--at", metavar="REF", shell_complete=complete_ref, help="Of a tag, branch, snapshot or time."
)
@click.option("--json", "as_json", is_flag=True, help="Report what was written, as JSON.")
def export(
    app: App, query: str, out: str, form: str | None, by: str | None, shard_rows: int,
    params: tuple[str, ...], at: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Write the rows of a query, a table or a view to files.

    PATH with an ending (.parquet .csv .jsonl .arrow; .csv.gz and .jsonl.zst
    too) is one file, any other, or one with a / behind it, a directory of
    shards, `part-00000-of-00003.parquet`. Rows stream, so memory stays bounded.
    A file or directory appears whole or not at all. The table `events` is
    written without lakelog's own bookkeeping; a query has what it asks for.
    """
    ending, packing = ending_of(out)
    is_named = out.endswith("/")
    form, columns = _form(form, "" if is_named else ending, packing), _columns(by)
    is_file = bool(ending) and not columns and not is_named and not _PLAIN_NAME.search(out)
    started = time.monotonic()
    values = {k: value_of(v) for k, v in map(pair_of, params)} or None
    with app.open() as lake, app.progress("exporting", "rows") as progress:
        asked = lake.at(at) if at else lake
        text = _with_date(_query(query), columns, asked, values)
        reader = asked.sql(text, values).to_arrow_reader(_BATCH)
        if is_file:
            written = _write_file(reader, out, form, progress)
        else:
            extension = {"ndjson": "jsonl"}.get(form, form)
            opener = tables.OPENERS.get(form) or _text_opener(form)
            written = tables.write(
                reader, out, opener, extension, shard_rows=shard_rows, partition_by=columns,
                progress=progress,
            )  # fmt: skip
    seconds = time.monotonic() - started
    words = (
        f"{many(written.rows, 'row')} in {many(len(written.files), 'file')},"
        f" {size(written.bytes)}, {written.rows / max(seconds, 1e-3):,.0f} rows/s"
    )
    app.say(f"{out}: {words}")
    if as_json:
        record = {"path": out, "rows": written.rows, "files": written.files}
        emit_record(record, Target("json"), lambda: "")


def _form(form: str | None, ending: str, packing: str) -> str:
    """The format that was asked for, else that of the ending. Raises UsageError."""
    told = ENDINGS.get(ending)
    is_unknown = told is None and bool(ending or packing) and not _PLAIN_NAME.search(ending)
    if form is None and is_unknown:
        raise click.UsageError(
            f"no format has the extension {ending}{packing}: use one of .parquet, .arrow, .csv or"
            " .jsonl (.csv.gz, .jsonl.zst), add --format, or end the path of a directory with /"
        )
    form = form or told or "parquet"
    if form not in FORMATS:
        raise click.UsageError(f"export writes {', '.join(FORMATS)}, not {form}")
    if packing and form in BINARY:
        raise click.UsageError(f"{form} is already compressed: leave out {packing}")
    return form


def _columns(by: str | None) -> list[str]:
    return [name.strip() for name in by.split(",") if name.strip()] if by else []


def _query(query: str) -> str:
    """Return SQL for a query, or for the name of a table or view.

    The table of events is meant without what lakelog itself noted in it.
    """
    if not _NAME.fullmatch(query):
        return query
    where = f" WHERE {IS_DATA}" if _EVENTS.search(query) else ""
    return f"SELECT * FROM {query.strip()}{where}"


def _with_date(query: str, columns: list[str], asked: Any, values: Any) -> str:
    """Add the day of the column time, where one wants to partition by it and has none."""
    if "date" not in columns:
        return query
    inner = query.strip().rstrip(";")
    names = asked.sql(f"SELECT * FROM ({inner}) LIMIT 0", values).columns
    if "date" in names:
        return query
    if "time" not in names:
        raise QueryFailed("there is no column date to partition by, and no column time to make one")
    return f"SELECT *, strftime(time, '%Y-%m-%d') AS date FROM ({inner})"


def _write_file(reader: pa.RecordBatchReader, out: str, form: str, progress: Any) -> tables.Written:
    """Write one file that takes its name once it is whole."""
    if os.path.isdir(out):
        raise ExportRefused(f"{out} is a directory: name a file")
    rows = 0
    with opened(out, pack=False) as file:
        file.close()
        part = (tables.OPENERS.get(form) or _text_opener(form, out))(file.name, reader.schema)
        for batch in reader:
            part.write(_as_table(batch))
            rows += batch.num_rows
            progress(rows)
        part.close()
    return tables.Written(rows, {os.path.basename(out): os.path.getsize(out)})


def _as_table(batch: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_batches([batch])


def _text_opener(form: str, name: str = "") -> Any:
    return lambda path, schema: TextPart(path, schema, form, name)


class TextPart:
    """A CSV or NDJSON file, written as `lakelog sql` writes it, and packed as its `name` says."""

    def __init__(self, path: str, schema: pa.Schema, form: str, name: str = "") -> None:
        self._out, self._form = open(path, "wb"), form  # noqa: SIM115
        self._file = packed(self._out, name)
        self._names = list(schema.names)
        self._nested = tuple(i for i, name in enumerate(self._names) if name == "data")
        self._header = form == "csv"

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        rows = [Columns(batch) for batch in table.to_batches()]
        result = Result(self._names, rows, self._nested)
        for place, piece in enumerate(encode(result, self._form)):
            headed = self._form == "csv" and not self._header and place == 0
            self._file.write(piece.split(b"\r\n", 1)[1] if headed else piece)
        self._header = False

    def close(self) -> None:
        """Finish the file."""
        if self._header:
            self._file.write(next(iter(encode(Result(self._names, []), "csv"))))
        self._file.close()
        self._out.close()
