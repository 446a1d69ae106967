"""sync: keep tables of databases, indices and measurements up to date with the events."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import click

import lakelog.sync as syncing
from lakelog.cli import exits
from lakelog.cli.app import App, verb
from lakelog.cli.options import argument, combined, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, emit_record
from lakelog.cli.render.terminal import many
from lakelog.cli.rounds import EVERY, stop_at_signals, unit
from lakelog.cli.signals import ended_by_second_interrupt
from lakelog.render import micros
from lakelog.sync import Runner, SyncPlan, SyncResult

_SECRETS = """# The password is a line {variable}=... of this file, which root alone may read.
EnvironmentFile=-/etc/lakelog/sync.env
"""


def complete_target(ctx: click.Context, _: click.Parameter, prefix: str) -> list[str]:
    """The words `status` and `check`, and the beginnings of targets."""
    candidates = ["postgresql://", "mysql://", "sqlite:", "duckdb:", "elasticsearch://"]
    candidates += ["opensearch://", "influxdb://", "kafka://"]
    if not ctx.params.get("arguments"):
        candidates[:0] = ["status", "check"]
    return [word for word in candidates if word.startswith(prefix)]


def _plan(columns: tuple[str, ...], **fields: Any) -> SyncPlan:
    types = {}
    for column in columns:
        # From the right: a column's name may hold "=", but no type does.
        name, _, type_name = map(str.strip, column.rpartition("="))
        if not name or not type_name:
            raise click.UsageError(f"--column {column}: write NAME=TYPE, such as data=jsonb")
        types[name] = type_name
    return SyncPlan("", columns=types, **fields)


_PLAN = combined(
    _plan,
    table=option("--table NAME", "The table; by default what TARGET names, or events."),
    query=option("--query SQL", "Which rows: SQL over `events`; all columns by default."),
    columns=option(
        "--column NAME=TYPE", "The type of a column, such as data=jsonb; may be repeated."
    ),
    mode=option(
        "--mode",
        "upsert has `seq` as primary key; append needs no key; replace computes all rows again.",
        type=click.Choice(syncing.Syncer.MODES),
        shown="upsert",
    ),
    on_rewind=option(
        "--on-rewind",
        "If events left the lake: remove their rows, or stop.",
        type=click.Choice(syncing.Syncer.ON_REWIND),
        shown="propagate",
    ),
    on_error=option(
        "--on-error",
        "If TARGET refuses a row: stop, or put it into the quarantine.",
        type=click.Choice(syncing.Syncer.ON_ERROR),
        shown="stop",
    ),
    every=EVERY,
    batch_rows=option(
        "--batch-rows N",
        "Rows of a transaction, about; by default as many as the target likes.",
        type=click.IntRange(1),
    ),
)
"""The options of which a verb gets a plan whose target is still to be set."""


@verb()
@ended_by_second_interrupt()
def sync(
    app: App,
    arguments: tuple[str, ...] = argument("[status|check] TARGET", shell_complete=complete_target),
    plan: SyncPlan = _PLAN,
    once: bool = flag("--once", "Bring the table up to date, then exit."),
    config: str | None = option("--config FILE", "Targets: tables of TOML."),
    metrics: str | None = option("--metrics FILE", "Write figures for Prometheus."),
    print_unit: bool = flag("--print-unit", "Print a systemd unit that does the same."),
    repair: bool = flag("--repair", "With check: write again what differs."),
    target: OutputTarget = OUTPUT,
) -> None:
    """Keep a table of a database up to date with the events.

    TARGET is postgresql://USER@HOST:PORT/DATABASE, or the same with mysql,
    sqlite:PATH, duckdb:PATH, elasticsearch://HOST:9200/INDEX (or opensearch),
    influxdb://HOST:8086/BUCKET?org=ORG or kafka://HOST:PORT/TOPIC. Passwords come
    from PGPASSWORD or ~/.pgpass, MYSQL_PWD, ELASTICSEARCH_API_KEY, INFLUX_TOKEN
    and KAFKA_SASL_PASSWORD. What is new is written in batches that also record how
    far the table is, so that each event is there once, whatever interrupts it. It
    runs until Ctrl-C or SIGTERM, with --once until the table is up to date.
    `status` lists the tables of a target, and how far behind they are; `check`
    compares each row of them with the lake.
    """
    # No command of its own: a group could not have targets as its arguments.
    if arguments[:1] == ("status",) and len(arguments) == 2:
        _show_status(app, arguments[1], target)
        return
    if arguments[:1] == ("check",) and len(arguments) == 2:
        _check(app, arguments[1], plan.table, target, repair=repair)
        return
    if repair:
        raise click.UsageError("--repair belongs to `lakelog sync check TARGET`")
    if len(arguments) != (config is None) or arguments[:1] in (("status",), ("check",)):
        raise click.UsageError("one target is needed, such as sqlite:events.db, or --config FILE")
    plan = dataclasses.replace(plan, target=arguments[0] if arguments else "")
    if print_unit:
        click.echo(_unit(app, plan, config), nl=False)
        return
    plans = [plan] if config is None else SyncPlan.read_all(config)
    with app.open() as lake, app.progress("syncing", "rows") as progress:
        report = functools.partial(_report, app)
        runner = Runner(
            lake, plans, once=once, say=app.say, report=report, metrics=metrics, progress=progress
        )
        with contextlib.closing(runner), stop_at_signals() as stop:
            results = [dataclasses.asdict(result) for result in runner.run(stop)]
    # The one record of one target; with --config there is a row for each, also without --json.
    if target.format == "json" and config is None:
        emit_record(results[0], target, lambda: "")
    elif target.format == "json":
        emit(results, target)
    exits.exit_if(once and runner.has_failed, exits.FAILED)


def _unit(app: App, plan: SyncPlan, config: str | None) -> str:
    """A unit with what was asked for on the command line, but for passwords."""
    plans = [plan] if config is None else SyncPlan.read_all(config)
    targets, variables = zip(*(entry.public_target() for entry in plans), strict=True)
    command = ["sync"] if config else ["sync", *targets]
    variable = ", ".join(sorted({*variables} - {""}))
    secrets = _SECRETS.format(variable=variable) if variable else ""
    return unit(app, command, f"syncs to {', '.join(targets)}", secrets=secrets)


def _report(app: App, result: SyncResult, seconds: float) -> None:
    message = f"{many(result.written, 'row')} written, {result.deleted:,} deleted"
    message += f"; {result.total:,} in all, {result.written / max(seconds, 1e-3):,.0f} rows/s"
    if result.quarantined:
        message += f"; {result.quarantined:,} refused (`lakelog quarantine list`)"
    if result.is_rebuilt:
        message += "; the table was rebuilt"
    app.say(f"{result.target} {result.table}: {message}")


def _show_status(app: App, url: str, target: OutputTarget) -> None:
    with app.open() as lake:
        tables = syncing.status(lake, url)
    records = [
        {
            "table": table.table,
            "mode": table.mode,
            "rows": table.rows,
            "synced_at": micros(table.synced_at),
            "events_behind": table.events_behind,
            "seconds_behind": None
            if table.seconds_behind is None
            else round(table.seconds_behind, 3),
            "note": table.note,
        }
        for table in tables
    ]
    _emit_tables(records, target)


def _emit_tables(records: Sequence[Mapping[str, object]], target: OutputTarget) -> None:
    """Show a record of each table of a target; that there is none is a mistake."""
    if not records:
        raise click.ClickException("no table of this target was synced yet")
    emit(records, target)


def _check(app: App, url: str, table: str | None, target: OutputTarget, *, repair: bool) -> None:
    with app.open() as lake:
        tables = syncing.check(lake, url, table, repair=repair)
    records = [
        {
            "table": compared.table,
            "rows": compared.rows,
            "missing": compared.missing,
            "extra": compared.extra,
            "different": compared.different,
            "repaired": compared.is_repaired,
            "not_compared": ", ".join(compared.skipped),
        }
        for compared in tables
    ]
    _emit_tables(records, target)
    exits.exit_if(
        not all(compared.is_equal or compared.is_repaired for compared in tables), exits.WRONG
    )
