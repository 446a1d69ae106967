"""connect: SQL, or Python, that opens one state of the lake where there is no lakelog."""

from __future__ import annotations

import shlex
from textwrap import dedent

import click

from lakelog import database, sql
from lakelog.cli.app import App, state_option, verb
from lakelog.cli.options import flag, option
from lakelog.cli.render.tables import cell, clock
from lakelog.cli.render.terminal import many
from lakelog.entries import SegmentEntry
from lakelog.errors import ExportRefused
from lakelog.event import EVENT_COLUMNS
from lakelog.lake import Lake
from lakelog.manifest import Manifest
from lakelog.paths import Paths
from lakelog.render import dumps
from lakelog.segments import QUARANTINE_COLUMNS, SegmentScan

_SNIPPET = """\
import duckdb

lake = duckdb.connect()
lake.execute({sql})

if __name__ == "__main__":
    # .to_arrow_table(), .pl() and .df() of what sql() returns are Arrow, Polars and pandas
    print(lake.sql("SELECT type, count(*) AS n FROM events GROUP BY type ORDER BY n DESC"))
"""


@verb()
def connect(
    app: App,
    printed: bool = flag("--print", "Print the SQL itself."),
    at: str | None = state_option(),
    format: str | None = option(
        "--format FORMAT",
        "Print sql, python, the list of Parquet files, or all as json; by default, an overview.",
        type=click.Choice(("sql", "python", "files", "json", "table")),
    ),
    as_json: bool = flag("--json", "Short for --format json."),
) -> None:
    """Show how to open the lake in DuckDB, Python or any Parquet reader.

    --print gives SQL that makes views of one state in a plain DuckDB; what was acknowledged is
    published first. The views always show that state; a tag keeps gc from removing its files.
    """
    form = "json" if as_json else format or ("sql" if printed else "table")
    with app.open() as lake:
        # Files of an encrypted lake are ciphertext: a view over them would fail in the other
        # engine.
        if lake.store.paths.keys is not None:
            raise ExportRefused(
                f"the lake at {lake.path} is encrypted, and other engines cannot read its files:"
                " see `lakelog export`, or lakelog.connect in Python"
            )
        if form == "table":
            click.echo(guide(lake), nl=False)
            return
        # settle publishes the tail: what a plain DuckDB cannot see is in no Parquet file yet.
        state = lake.store.manifests.load(lake.at(at).id if at else lake.settle().move.snapshot)
        lake.store.verified.require(lake.store.manifests.segments(state))
        sql, paths = script(lake, state, at), files(lake, state)
    if form == "files":
        click.echo("".join(f"{path}\n" for path in paths), nl=False)
    elif form == "json":
        record = {
            "snapshot": state.digest,
            "events": state.totals.events,
            "files": paths,
            "sql": sql,
        }
        click.echo(dumps(record | {"python": snippet(sql)}, indent=True))
    else:
        click.echo(snippet(sql) if form == "python" else sql, nl=False)


def script(lake: Lake, state: Manifest, ref: str | None = None) -> str:
    """Return SQL that makes views of a state, `events` and `quarantine`, in DuckDB since 1.0."""
    entries = lake.store.manifests.segments(state)
    name = f", {ref}" if ref else ""
    views = [
        f"CREATE OR REPLACE VIEW {table} AS\n{view(lake.store.paths, table, entries)};\n"
        for table in ("events", "quarantine")
    ]
    notes = [
        f"The lake {lake.path}{name}: {many(state.totals.events, 'event')},",
        f"snapshot {state.digest}, {clock(state.time)}.",
        "Later events are not in it. After a compaction gc may remove its files; to keep them:",
        f"  lakelog --lake {shlex.quote(lake.path)} tag NAME {state.digest[:12]}",
    ]
    return "".join([*(f"-- {cell(note)}\n" for note in notes), *views])


def files(lake: Lake, state: Manifest) -> list[str]:
    """Return the Parquet files that hold the events of a state, and nothing else."""
    entries = lake.store.manifests.segments(state)
    paths = lake.store.paths
    return [paths.object("segments", e.key) for e in entries if e.kind == "events"]


def view(paths: Paths, table: str, entries: list[SegmentEntry]) -> str:
    """Return the SELECT over a state's segments of one kind; seq is as lakelog gives it."""
    columns = EVENT_COLUMNS if table == "events" else QUARANTINE_COLUMNS
    selects = []
    for scan in SegmentScan.divide(paths, [e for e in entries if e.kind == table]):
        names = [paths.object("segments", e.key) for e in scan.entries]
        seq, options = "", list[str]()
        if table == "events":
            seq = ", seq"
            # Only sorted segments have a column seq; in others it follows from a row's place.
            if scan.layout == "arrival":
                seq, options = _seq(scan.entries), ["filename = true", "file_row_number = true"]
        payload = "data" if scan.schema is None else f"{scan.data_sql()} AS data"
        column_list = ", ".join(payload if name == "data" else name for name in columns)
        files = database.parquet_sql(names, *options, between=",\n    ")
        selects.append(f"  SELECT {column_list}{seq}\n  FROM {files}")
    # A view over no files: read_parquet([]) is an error in DuckDB.
    if not selects:
        names = [*columns, "seq"] if table == "events" else [*columns]
        selects.append(f"  {sql.no_rows(names)}")
    return "\nUNION ALL\n".join(selects)


def snippet(code: str) -> str:
    """Return Python that runs the SQL and shows how to go on."""
    # A path may hold a backslash or quotes; then only repr is safe.
    plain = "\\" not in code and '"""' not in code
    return _SNIPPET.replace("{sql}", f'"""\n{code}"""' if plain else repr(code))


def guide(lake: Lake) -> str:
    """Return the ways to open a lake, as text."""
    path = shlex.quote(lake.path)
    return dedent(f"""\
        DuckDB's own shell:
          lakelog --lake {path} connect --print > lake.sql
          duckdb -init lake.sql

        Python without lakelog:
          lakelog --lake {path} connect --format python > open_lake.py

        Python with lakelog, live events included:
          import lakelog
          with lakelog.connect({lake.path!r}) as connection:      # DB-API 2.0
              cursor = connection.cursor()
              cursor.execute("SELECT count(*) FROM events WHERE type = ?", ["FAIL"])
              print(cursor.fetchone())
          lakelog.open({lake.path!r}).sql("FROM events").pl()     # or .df(), .to_arrow_table()

        Any Parquet reader takes exactly the files of the state, one a line:
          lakelog --lake {path} connect --format files > files.txt
          polars.scan_parquet(open("files.txt").read().split("\\n")[:-1])
          pyarrow.dataset.dataset(open("files.txt").read().split("\\n")[:-1])
        A pattern over all of segments/ would also count rows that were rolled back or compacted.
        """)


def _seq(group: list[SegmentEntry]) -> str:
    """SQL for seq of segments without it: where the file starts, and the row's number in it."""
    # By the name of the file, because read_parquet gives rows of many files and says only that.
    firsts = ", ".join(f"'{e.key}': {e.seq[0]}" for e in group)
    start = f"element_at(MAP {{{firsts}}}, parse_filename(filename, true))[1]"
    return f",\n    {start}\n    + file_row_number AS seq"
