"""publish: tables of other systems that have the events of a state."""

from __future__ import annotations

import dataclasses

import click

import lakelog.open_tables as tables
from lakelog.cli.app import App, state_option, verb_group
from lakelog.cli.arguments import pair_of
from lakelog.cli.options import argument, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit_record
from lakelog.cli.render.terminal import many, size


@verb_group()
def publish() -> None:
    """Keep open tables up to date with the events.

    The first publish makes the table. Later ones add what is new and take out
    what is gone; one that is repeated, or was killed, changes nothing twice.
    """


_TYPE = "The events of a type, with fields as columns."
_QUERY = "The rows of a query."
_AT = "Publish a tag, branch, snapshot or time."


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
    type: str | None = option("--type TYPE", _TYPE),
    query: str | None = option("--query SQL", _QUERY),
    at: str | None = state_option(_AT),
    target_output: OutputTarget = OUTPUT,
) -> None:
    """Bring an Apache Iceberg table to a state of the lake.

    The branch is compacted first. Compacted segments are the table's files: they
    stay in the lake and are not copied, and a tag keeps them. Rows of --type and
    --query are copied. Tags of the state become tags of the table.
    """
    options = {name: value for name, value in (("uri", uri), ("warehouse", warehouse)) if value}
    options |= dict(map(pair_of, properties))
    source = _source(at, type, query)
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
    type: str | None = option("--type TYPE", _TYPE),
    query: str | None = option("--query SQL", _QUERY),
    at: str | None = state_option(_AT),
    target_output: OutputTarget = OUTPUT,
) -> None:
    """Bring a Delta table to a state of the lake.

    The branch is compacted first. Compacted segments get a second name in the
    table's directory, which costs no space on the same file system; elsewhere,
    and in buckets, they are copied. Rows of --type and --query are copied.
    """
    source = _source(at, type, query)
    with app.open() as lake:
        result = tables.publish_delta(lake, target, source, options=dict(map(pair_of, options)))
    emit_record(dataclasses.asdict(result), target_output, lambda: _words(result))


def _source(at: str | None, type: str | None, query: str | None) -> tables.TableSource:
    if type and query:
        raise click.UsageError("--type and --query exclude each other")
    return tables.TableSource(at, type, query)


def _words(result: tables.PublishResult) -> str:
    if not result.is_new:
        return f"{result.table} has state {result.state[:12]} already"
    copied = f", {many(result.copied, 'file')} copied" if result.copied else ""
    size_note = f" ({size(result.copied_bytes)})" if result.copied_bytes else ""
    return (
        f"{result.table} has state {result.state[:12]}: {many(result.events, 'event')},"
        f" {many(result.added, 'file')} added, {result.removed:,} taken out{copied}{size_note}"
    )
