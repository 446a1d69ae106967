"""sql: running a query and writing its rows, whatever their number.

A query is first run for its first thousand rows, which for most is all there is and needs no
Arrow. A longer result is run anew and streams: through Arrow where every column's type reads the
same both ways, else row by row out of the engine's memory.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import click

from lakelog.cli import terminal
from lakelog.cli.app import App, complete_ref, verb
from lakelog.cli.formats import BINARY, Result
from lakelog.cli.output import Target, emit, emit_record, with_output
from lakelog.cli.pairs import pair_of, value_of
from lakelog.cli.tables import ROWS_MAX
from lakelog.cli.values import Row

PROBE = 1000
BATCH = 1000
_ARROW_BATCH = 8192
_PLAIN_TYPES = frozenset(
    "boolean tinyint smallint integer bigint utinyint usmallint uinteger ubigint hugeint float"
    " double decimal varchar enum date time timestamp uuid blob null".split()
) | {"timestamp with time zone"}
_NESTED_TYPES = frozenset(("list", "array", "struct"))


@verb(examples="""
    lakelog sql "SELECT type, count(*) FROM events GROUP BY 1 ORDER BY 2 DESC"
    lakelog sql 'SELECT count(*) FROM events WHERE type = $t' --param t=FAIL
    lakelog sql -f report.sql --at v1 -o report.parquet
    lakelog sql 'SELECT count(*) FROM "v1".events' --json
""")  # fmt: skip
@click.argument("query", required=False)
@click.option(
    "-f", "--file", "path", type=click.Path(), metavar="FILE", help="Read the query from FILE."
)
@click.option(
    "--param", "params", multiple=True, metavar="K=V",
    help="Value of $K in the query; V is JSON if it parses, else text.",
)  # fmt: skip
@click.option(
    "--at", metavar="REF", shell_complete=complete_ref, help="Ask a tag, branch, snapshot or time."
)
@click.option(
    "--explain", is_flag=True, help="Say which segments the query opens, and the engine's plan."
)
@with_output
def sql(
    app: App, query: str | None, path: str | None, params: tuple[str, ...], at: str | None,
    explain: bool, target: Target,
) -> None:  # fmt: skip
    """Run SQL over the events, those just appended included.

    Tables: events, quarantine, and "REF".events for every tag and branch. QUERY - or no query
    reads it from stdin. In JSON the column data is the JSON it holds.
    """
    start = time.monotonic()
    text = _query(query, path)
    values = {k: value_of(v) for k, v in map(pair_of, params)}
    with app.open() as lake:
        source = lake.at(at) if at else lake
        relation = source.sql(text, values or None)
        if relation is None:
            raise click.UsageError("the query is empty")
        if explain:
            opened, segments = source.explain(text)
            _explain(opened, segments, relation, target)
        else:
            emit(result_of(relation, target.format), target)
    app.detail(f"{time.monotonic() - start:.2f} s")


def result_of(relation: Any, format: str) -> Result:
    """Return a relation as a result that streams."""
    names = list(relation.limit(0).columns)
    nested = tuple(i for i, kind in enumerate(relation.types) if _is_json(names[i], kind))
    if format in BINARY:
        return Result(names, (), nested, lambda: relation.to_arrow_reader(131_072))
    limit = ROWS_MAX if format == "table" else PROBE
    first = relation.limit(limit + 1).fetchall()
    if len(first) <= limit or format == "table":
        return Result(names, [first], nested)
    return Result(names, _stream(relation), nested)


def _stream(relation: Any) -> Iterator[Sequence[Row]]:
    if all(map(_reads_alike, relation.types)):
        for batch in relation.to_arrow_reader(_ARROW_BATCH):
            yield list(zip(*map(_values, batch.columns), strict=True))
        return
    rows = relation.iter_rows(BATCH)
    while batch := list(islice(rows, BATCH)):
        yield batch


def _values(column: Any) -> list[Any]:
    """Return a column's values; times as text at once, which is three times as fast."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_timestamp(column.type):
        values: list[Any] = column.to_pylist()
        return values
    zone = "Z" if column.type.tz else ""
    naive = column.cast(pa.timestamp(column.type.unit))
    text = pc.strftime(naive, format=f"%Y-%m-%dT%H:%M:%S{zone}")
    short: list[Any] = pc.replace_substring_regex(text, r"\.0+(Z?)$", r"\1").to_pylist()
    return short


def _reads_alike(kind: Any) -> bool:
    """Whether Arrow gives the same Python values as the engine itself."""
    if kind.id in _NESTED_TYPES:
        return all(_reads_alike(child) for _, child in kind.children if hasattr(child, "id"))
    return kind.id in _PLAIN_TYPES


def _is_json(name: str, kind: Any) -> bool:
    return str(kind) == "JSON" or (name == "data" and str(kind) == "VARCHAR")


def _query(query: str | None, path: str | None) -> str:
    """Return the query's text. Raises UsageError where there is none."""
    if query is not None and path is not None:
        raise click.UsageError("give the query or -f FILE, not both")
    if path is not None and path != "-":
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.read()
    if query is not None and query != "-":
        return query
    if query is None and path is None and terminal.is_terminal(sys.stdin):
        raise click.UsageError('a query is needed, such as "SELECT count(*) FROM events"')
    if sys.stdin is None:
        raise click.UsageError("a query is needed, and standard input is closed")
    return sys.stdin.buffer.read().decode("utf-8-sig", "replace")


def _explain(opened: int, segments: int, relation: Any, target: Target) -> None:
    plan = _plan(relation)
    record = {"segments_opened": opened, "segments": segments, "plan": plan}
    words = f"opens {opened:,} of {terminal.many(segments, 'segment')}\n\n{plan}\n"
    emit_record(record, target, lambda: words)


def _plan(relation: Any) -> str:
    return str(relation.explain()).strip()
