"""Exporting a query as one file, as a directory of shards, or as Hive partitions.

The path decides: one that ends in `.parquet .csv .jsonl .arrow` (also `.csv.gz`, `.jsonl.zst`) is a
file, any other one, or one with a trailing `/`, a directory. Rows stream in bounded memory.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lakelog.errors import ExportRefused, QueryFailed
from lakelog.event import BookkeepingEvent
from lakelog.export import folder, tables
from lakelog.export.tables import SHARD_ROWS, ExportResult, Opener
from lakelog.libraries import pa
from lakelog.render import ColumnBatch, FileEnding, OutputFormat, TextLineEncoder

Ask = Callable[[str, Any], Any]
"""Runs SQL with its parameters, and returns a relation."""
FORMATS = ("parquet", "csv", "ndjson", "arrow")
_BATCH = 65_536
_PLAIN_NAME = re.compile(r"\.\d+$")
"""What follows the dot in `out/v1.2` is no ending."""
# The bare table name asks for a user's data; a query that names columns or joins is taken
# literally.
_EVENTS = re.compile(r'(?:^|[\s."])events"?\s*$', re.I)
_NAME = re.compile(r'\s*(?:(?:\w+|"[^"]+")\.)?(?:\w+|"[^"]+")\s*')


@dataclass(frozen=True)
class ExportDestination:
    """Where rows go: path, format, one file or a directory, and the partition columns."""

    path: str
    format: str
    is_file: bool
    partition_by: tuple[str, ...]

    @property
    def extension(self) -> str:
        """The extension of the files in a directory."""
        return {"ndjson": "jsonl"}.get(self.format, self.format)


def destination(
    out: str | os.PathLike[str], format: str | None = None, partition_by: Sequence[str] = ()
) -> ExportDestination:
    """Derive the output from the path. Raises ExportRefused for an unknown extension."""
    path = os.fspath(out)
    ending, is_named = FileEnding.of(path), path.endswith("/")
    form = _format(format, FileEnding("", None, ending.compression) if is_named else ending)
    # A name such as `v1.2` is that of a directory, and has no extension.
    is_file = (
        bool(ending.extension)
        and not partition_by
        and not is_named
        and not _PLAIN_NAME.search(path)
    )
    return ExportDestination(path, form, is_file, tuple(partition_by))


def export(
    ask: Ask,
    query: str,
    goal: ExportDestination,
    *,
    params: object = None,
    shard_rows: int = SHARD_ROWS,
    progress: Callable[[int], None] | None = None,
) -> ExportResult:
    """Write the rows of a query, a table or a view; files appear complete or not at all.

    `ask` runs SQL with parameters, `progress` receives the number of rows written so far. Raises
    ExportRefused, QueryFailed, OSError.
    """
    if shard_rows < 1:
        raise ExportRefused(f"shard_rows is the most rows of a file, at least 1, not {shard_rows}")
    # The reader is opened before the destination is touched: a query that fails leaves nothing
    # behind.
    statement = f"SELECT * FROM {query.strip()}" if _NAME.fullmatch(query) else query
    query_text = _with_date(statement, goal.partition_by, ask, params)
    relation = ask(query_text, params)
    # As `lakelog sql` names them: of two columns of one name JSON lines would have the last one.
    names = relation.limit(0).columns
    nested = [
        n for n, t in zip(names, relation.types, strict=True) if n == "data" or str(t) == "JSON"
    ]
    reader = _named(relation.to_arrow_reader(_BATCH), names)
    is_events = _is_events(query, reader.schema.names)
    if is_events:
        # What lakelog itself noted is left out here; the engine would take longer for it.
        data = map(BookkeepingEvent.without, reader)
        reader = pa.RecordBatchReader.from_batches(reader.schema, data)
    try:
        # One file needs no sharding and no partitions, and may be a pipe or a device.
        if goal.is_file:
            return _write_file(reader, goal, nested, is_events, progress)
        return tables.write(
            reader,
            goal.path,
            _opener(goal.format, "", nested, is_events),
            goal.extension,
            shard_rows=shard_rows,
            partition_by=goal.partition_by,
            progress=progress,
        )
    except pa.ArrowNotImplementedError as error:
        raise ExportRefused(
            f"a column is of a type that {goal.format} or a name of a directory cannot hold: cast"
            f" it, as in CAST(x AS VARCHAR) ({error})"
        ) from None


def _named(reader: pa.RecordBatchReader, names: Sequence[str]) -> pa.RecordBatchReader:
    """Give the columns of a stream these names."""
    if reader.schema.names == list(names):
        return reader
    fields = (field.with_name(name) for field, name in zip(reader.schema, names, strict=True))
    batches = (batch.rename_columns(names) for batch in reader)
    return pa.RecordBatchReader.from_batches(pa.schema(fields), batches)


def _format(form: str | None, ending: FileEnding) -> str:
    """The format that was asked for, else that of the ending."""
    extension, packing = ending.extension, ending.compression
    # `out/v1.2` is a directory whose name contains a dot.
    is_odd = bool(extension or packing) and not _PLAIN_NAME.search(extension)
    if form is None and ending.format is None and is_odd:
        raise ExportRefused(
            f"no format has the extension {extension}{packing}: use one of .parquet, .arrow, .csv"
            " or .jsonl (.csv.gz, .jsonl.zst), give a format, or end the path of a directory with /"
        )
    form = OutputFormat.synonyms().get(form or "", form) or ending.format or "parquet"
    if form not in FORMATS:
        raise ExportRefused(f"export writes {', '.join(FORMATS)}, not {form}")
    if packing and form in OutputFormat.binary():
        raise ExportRefused(f"{form} is already compressed: leave out {packing}")
    return form


def _is_events(query: str, columns: Sequence[str]) -> bool:
    """Whether a query is the name of the events of a branch or tag. The table of events is meant
    without what lakelog itself noted in it."""
    is_name = bool(_NAME.fullmatch(query) and _EVENTS.search(query))
    return is_name and {"source", "type", "data"}.issubset(columns)


def _with_date(query: str, columns: Sequence[str], ask: Ask, params: object) -> str:
    """Add a column `date`, the day of `time`, if it is a partition column and missing."""
    if "date" not in columns:
        return query
    inner = query.strip().rstrip(";")
    names = ask(f"SELECT * FROM ({inner}) LIMIT 0", params).columns
    if "date" in names:
        return query
    if "time" not in names:
        raise QueryFailed("there is no column date to partition by, and no column time to make one")
    return f"SELECT *, strftime(time, '%Y-%m-%d') AS date FROM ({inner})"


def _write_file(
    reader: pa.RecordBatchReader,
    goal: ExportDestination,
    nested: Sequence[str],
    is_json: bool,
    progress: Callable[[int], None] | None,
) -> ExportResult:
    """Write one file that appears once it is complete."""
    if os.path.isdir(goal.path):
        raise ExportRefused(f"{goal.path} is a directory: name a file")
    rows = 0
    # Parts open their file by its name. It stays open here meanwhile: whoever reads a pipe would
    # take it for the end if nobody had it open for a moment.
    with folder.atomic_file(goal.path) as file:
        # What is no file cannot be asked for its place, as Arrow does of one that it opens.
        destination_file: Any = (
            file if goal.format in OutputFormat.binary() and not file.seekable() else file.name
        )
        writer = _opener(goal.format, goal.path, nested, is_json)(destination_file, reader.schema)
        for batch in reader:
            writer.write(pa.Table.from_batches([batch]))
            rows += batch.num_rows
            if progress:
                progress(rows)
        writer.close()
    # A pipe or a device has no size: 0 would say that nothing was written.
    is_kept = os.path.isfile(goal.path)
    sizes = {os.path.basename(goal.path): os.path.getsize(goal.path)} if is_kept else {}
    return ExportResult(goal.path, rows, sizes)


def _opener(form: str, name: str, nested: Sequence[str], is_json: bool) -> Opener:
    """Return the opener of a format; `name` gives the compression, `.arrows` a stream, `nested`
    columns may hold JSON, with `is_json` nothing else."""
    if name.lower().endswith(".arrows"):
        return functools.partial(tables.ArrowPart, is_stream=True)
    return tables.OPENERS.get(form) or functools.partial(
        TextPart, form=form, name=name, nested=nested, is_json=is_json
    )


class TextPart:
    """A CSV or NDJSON file, written as `lakelog sql` writes it, compressed according to `name`."""

    def __init__(
        self,
        path: str,
        schema: pa.Schema,
        *,
        form: str,
        nested: Sequence[str],
        name: str = "",
        is_json: bool = False,
    ) -> None:
        self._out = folder.output_file(path)
        self._file = FileEnding.of(name).compressed(self._out)
        names = list(schema.names)
        places = tuple(i for i, name in enumerate(names) if name in nested)
        self._lines = TextLineEncoder(form, names, places, is_json)
        self._file.write(self._lines.header())

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        for batch in table.to_batches():
            for chunk in self._lines.add(ColumnBatch(batch)):
                self._file.write(chunk)

    def close(self) -> None:
        """Finish the file."""
        for chunk in self._lines.rest():
            self._file.write(chunk)
        self._file.close()
        self._out.close()
