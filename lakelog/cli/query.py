"""sql: run statements and write their rows, however many; or open the shell."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from lakelog.cli.app import App, state_option, verb
from lakelog.cli.arguments import pair_of, value_of
from lakelog.cli.options import argument, flag, option
from lakelog.cli.render import terminal
from lakelog.cli.render.monitor import QueryMonitor
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, emit_record
from lakelog.cli.shell.statements import ShellStatement, StatementRunner
from lakelog.render import OutputFormat
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    from lakelog.cli.shell import shell
else:
    shell = Lazy("lakelog.cli.shell.shell")


@verb()
def sql(
    app: App,
    query: str | None = argument(),
    path: str | None = option("-f, --file FILE", "Read the query from FILE."),
    params: tuple[str, ...] = option(
        "--param K=V", "Value of $K in the query; V is JSON if it parses as such, else text."
    ),
    at: str | None = state_option("Query a tag, branch, snapshot or time."),
    explain: bool = flag(
        "--explain", "Show which segments the query opens, and the engine's plan."
    ),
    target: OutputTarget = OUTPUT,
) -> None:
    """Run SQL over the events, including those just appended.

    Tables: events, quarantine, every view, and "REF".events for each tag and branch.
    Without QUERY, a shell opens on a terminal; otherwise, and if QUERY is -, the query is
    read from stdin. Several statements run in order, and -o writes the rows of the last. In
    JSON output, data is nested as JSON.
    """
    start = time.monotonic()
    values = {k: value_of(v) for k, v in map(pair_of, params)}
    # Before anything is read from stdin, which on a terminal would wait for Ctrl-D.
    on_terminal = terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stdout)
    if query is None and path is None and on_terminal:
        if explain or target.path is not None:
            raise click.UsageError("--explain and -o need a query")
        shell.start(app, at, values, target.format)
        return
    query_text = _query(query, path)
    with app.open() as lake, StatementRunner(lake.store, lake.branch_name) as runner:
        # A ref is resolved once, so that all statements see the same state though the branch moves.
        digest = lake.at(at).id if at else None
        statements = runner.statements(query_text)
        # All of them before the first runs: a mistake in the last must not leave half an output.
        _check_statements(statements, values, explain)
        if explain:
            opened_segments, segments = runner.session.plan(query_text, values or None, digest)
            plan = str(runner.sql(query_text, values or None, digest).explain()).strip()
            record = {"segments_opened": opened_segments, "segments": segments, "plan": plan}
            opens = f"opens {opened_segments:,} of {terminal.many(segments, 'segment')}"
            emit_record(record, target, lambda: f"{opens}\n\n{plan}\n")
        else:
            _answer(app, runner, statements, values, digest, target)
    app.detail(f"{time.monotonic() - start:.2f} s")


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
    # CPython sets it to None where descriptor 0 is closed, as some schedulers do.
    if sys.stdin is None:
        raise click.UsageError("a query is needed, and standard input is closed")
    return sys.stdin.buffer.read().decode("utf-8-sig", "replace")


def _check_statements(
    statements: list[ShellStatement], values: dict[str, object], explain: bool
) -> None:
    """Raise UsageError for options and statements that do not fit together."""
    if not statements:
        raise click.UsageError("the query is empty")
    # Without this the command would succeed, and the table be gone with the connection.
    if statements[-1].changes:
        raise click.UsageError(
            f"SQL only reads a lake: nothing would remain of this {statements[-1].kind}, since"
            " tables created here end with the command. `lakelog append` and `ingest` store events,"
            " `lakelog view create` keeps a query; in the shell, `lakelog sql` on a terminal,"
            " scratch tables last until you leave"
        )
    if len(statements) > 1:
        if explain:
            raise click.UsageError("--explain takes one statement")
        for name in values.keys() - {name for s in statements for name in s.params}:
            raise click.UsageError(f"no statement names ${name}")


def _answer(
    app: App,
    runner: StatementRunner,
    statements: list[ShellStatement],
    values: dict[str, object],
    digest: str | None,
    target: OutputTarget,
) -> None:
    """Run the statements in turn; write the rows of each, or of the last where only one table
    fits."""
    is_single = len(statements) == 1
    # A Parquet or Arrow stream holds one table; text formats may follow one another.
    holds_one = target.path is not None or target.format in OutputFormat.binary()
    for statement in statements:
        is_last = statement is statements[-1]
        # The engine refuses parameters that a statement does not name. Of a single one that is
        # right: it is a mistyped name.
        params = values if is_single else {k: values[k] for k in values.keys() & statement.params}
        # DuckDB runs in C, where Python's own handler of Ctrl-C would wait for the end of the
        # query.
        with QueryMonitor(runner.interrupt, app.progress("running", "s")) as monitor:
            relation = runner.sql(statement.text, params or None, digest)
            if is_last if holds_one else (is_single or statement.gives_rows(relation)):
                result = runner.result(relation, statement.text, target.format)
                # Counting seconds ends with the first row, or they would be written between the
                # rows.
                emit(replace(result, batches=monitor.over(result.batches)), target)
