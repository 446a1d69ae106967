"""events: the older event store's verbs, in their old grammar, on a lake."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from typing import Any

import click

from lakelog.cli import exits
from lakelog.cli.app import App, verb_group
from lakelog.cli.options import argument, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, choose, emit, emit_done, emit_record
from lakelog.cli.render.results import result_of
from lakelog.cli.render.tables import cell, clock
from lakelog.cli.render.terminal import many
from lakelog.compat import Lookups, omega, sqlite_import
from lakelog.render import QueryResult, micros

_TYPES = 12
_EXTENSIONS = ".json .ndjson .jsonl .csv .parquet .arrow .arrows .feather .md".split()
_SEARCHED = ("data", "type", "source", "message", "subject")


@verb_group()
def events(
    app: App,
    db: str | None = option("--db PATH", "The lake; the same as --lake.", type=click.Path()),
) -> None:
    """The older event store: its verbs and columns over a lake.

    In SQL its tables are omega.events, omega.patterns and omega.system_stats.
    """
    app.path = db or app.path


@events.verb()
def stats(app: App, target: OutputTarget = OUTPUT) -> None:
    """Count the events by type, and the bytes of the store."""
    with app.open() as lake:
        counts = Lookups(lake).stats()
    emit_record(counts, target, lambda: _summary(counts))


def _hours(ctx: click.Context, _: click.Parameter, value: float | None) -> float | None:
    """Refuse a value that is not a positive span of hours."""
    if value is not None and (not math.isfinite(value) or value <= 0):
        raise click.BadParameter(f"{value:g} is no number of hours above 0", ctx)
    return value


_of_hours = option("--hours N", "Only the last N hours.", type=float, callback=_hours)


@events.verb(name="list")
def list_events(
    app: App,
    hours: float | None = _of_hours,
    limit: int = option("--limit N", type=click.IntRange(min=1), shown=20),
    target: OutputTarget = OUTPUT,
) -> None:
    """List the newest events, newest first."""
    _write(app, omega.newest_sql(_since(hours), limit), {}, target)


@events.verb()
def search(
    app: App,
    text: str = argument(),
    limit: int = option("--limit N", type=click.IntRange(min=1), shown=20),
    target: OutputTarget = OUTPUT,
) -> None:
    """Find events that hold a text, newest first.

    It may stand in data, type, source, subject or message; case makes no difference.
    """
    # coalesce: a NULL in any of the columns makes the whole OR unknown, where the rest is false.
    condition = " OR ".join(f"contains(lower({name}), lower($text))" for name in _SEARCHED)
    _write(app, omega.newest_sql(f"coalesce({condition}, false)", limit), {"text": text}, target)


@events.verb()
def export(
    app: App, file: str = argument(type=click.Path()), hours: float | None = _of_hours
) -> None:
    """Write events to FILE, oldest first, in its format.

    Its extension names the format: json, jsonl, csv, parquet, arrow or md. FILE - is
    standard output, as JSON.
    """
    has_known_extension = os.path.splitext(file)[1].lower() in _EXTENSIONS
    target = choose(None if has_known_extension else "json", False, file)
    _write(app, f"{omega.rows_sql(where=_since(hours))} ORDER BY timestamp, id", {}, target)
    if target.path is not None:
        app.say(f"wrote {target.path}")


def _since(hours: float | None) -> str:
    """Return SQL for events of the last hours."""
    if hours is None:
        return "true"
    since = time.time() - hours * 3600
    # A span of ages is all there is, and its microseconds would not fit the engine's integers.
    if since < -62_000_000_000:
        return "true"
    return f"time >= make_timestamptz({round(since * 1e6)})"


def _write(app: App, query: str, params: dict[str, object], target: OutputTarget) -> None:
    """Write the rows of a query."""
    with app.open() as lake:
        relation = lake.sql(query, params or None)
        if target.format == "table":
            emit(_table_rows(relation), target)
        else:
            emit(result_of(relation, target.format), target)


def _table_rows(relation: Any) -> QueryResult:
    """Return the rows of a table: time, type, action, source and data."""
    rows = relation.select("timestamp, event_type, action, source, data_json").fetchall()
    names = ("time", "event_type", "action", "source", "data_json")
    return QueryResult.of_records(
        [dict(zip(names, (clock(round(row[0] * 1e6)), *row[1:]), strict=True)) for row in rows],
        names,
    )


def _summary(counts: dict[str, Any]) -> str:
    """Return the counts as text."""
    lines = [f"{many(counts['total_events'], 'event')}, {counts['database_size_mb']:,.1f} MB"]
    if counts["oldest"] is not None:
        oldest, newest = (micros(round(counts[name] * 1e6))[:19] for name in ("oldest", "newest"))
        lines.append(f"{oldest}Z to {newest}Z")
    if counts["processed"]:
        lines.append(f"{counts['processed']:,} marked as processed")
    for name, count in list(counts["event_types"].items())[:_TYPES]:
        lines.append(f"  {cell(name)[:40]:<40}{count:>14,}")
    if len(counts["event_types"]) > _TYPES:
        lines.append(f"  and {len(counts['event_types']) - _TYPES:,} more types; --json has them")
    return "\n".join(lines) + "\n"


@events.verb()
def import_sqlite(
    app: App, file: str = argument(type=click.Path()), target: OutputTarget = OUTPUT
) -> None:
    """Load a database of the older event store, each row once.

    Its events, patterns and statistics become events, also those packed with gzip, and
    its marks are kept. A second run loads what is new. Rows that cannot be events go to
    quarantine. The database is only read, and may be in use.
    """
    # Before a lake is created: a mistyped path must not leave an empty one behind.
    if not os.path.isfile(file):
        raise click.ClickException(f"there is no database {file}")
    with app.open_or_create() as lake, app.progress("import", "rows") as progress:
        result = sqlite_import.load(lake, file, lambda n, total: progress(n, total, f"{n:,} rows"))
    record = {**dataclasses.asdict(result), "damage": result.damage or None}
    messages = [f"{many(result.events, 'new event')}, {result.known:,} rows known"]
    messages += [f"{n:,} {noun}" for n, noun in ((result.patterns, "patterns"),) if n]
    messages += [f"{result.system_stats:,} statistics"] if result.system_stats else []
    messages += [f"{result.processed:,} marked as processed"] if result.processed else []
    messages += [f"{result.quarantined:,} quarantined"] if result.quarantined else []
    app.say("; ".join(messages))
    emit_done(record, target, "; ".join(messages) + "\n")
    if result.damage:
        app.say(result.damage)
    # What was not loaded is safe, but a script has to notice it.
    exits.exit_if(result.damage or result.quarantined, exits.FAILED)
