"""patterns: templates of messages, how often each comes, and what is new or gone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from lakelog import pictures, views
from lakelog.cli.app import (
    App,
    complete_ref,
    complete_source,
    complete_type,
    state_option,
    verb_group,
)
from lakelog.cli.arguments import moment
from lakelog.cli.options import ON, argument, flag, option
from lakelog.cli.render import terminal
from lakelog.cli.render.output import OUTPUT, PLOT, OutputTarget, emit, emit_plot, emit_words
from lakelog.cli.render.results import result_of
from lakelog.cli.render.tables import cell, fit
from lakelog.cli.render.terminal import many, paint
from lakelog.errors import UnknownRef
from lakelog.lake import Lake
from lakelog.patterns import pattern_events, statistics_event
from lakelog.query import Relation

_EXAMPLES = 5
_WIDE = 110
_AT = state_option("Those of a tag, branch, snapshot or time.")
_TAKE = 20
_METER = 8
_SECONDS = "%Y-%m-%d %H:%M:%S"


@verb_group(invoke_without_command=True)
def patterns(
    app: App,
    source: str | None = option(
        "--source S", "Only messages of this source.", shell_complete=complete_source
    ),
    type_: str | None = option(
        "--type T", "Only messages of events of this type.", shell_complete=complete_type
    ),
    since: str | None = option("--since TIME", "Since TIME: a time, or 2h for two hours ago."),
    until: str | None = option("--until TIME", "Before TIME."),
    new: str | None = option(
        "--new REF", "Only those that no message had at REF.", shell_complete=complete_ref
    ),
    absent_since: str | None = option(
        "--gone REF", "Only those of REF that no message had since.", shell_complete=complete_ref
    ),
    ref: str | None = _AT,
    count: int = option("-n N", "At most N.", type=click.IntRange(min=1), shown=_TAKE),
    record: bool = flag("--record", "Append each once, as an event of type PATTERN_DETECTED."),
    plot: str | None = PLOT,
    workers: str | None = ON,
    target: OutputTarget = OUTPUT,
) -> None:
    """List what messages have in common, the most frequent first.

    A template is a message with <*> for each value. The tables patterns and
    event_patterns have all of them in SQL.
    """
    if new and absent_since:
        raise click.UsageError("--new and --gone do not go together")
    if record and any((since, until, absent_since, ref)):
        raise click.UsageError("--record is for the present state: without times, --gone and --at")
    with app.open() as lake:
        answer = views.patterns(
            lake.at(ref) if ref else lake,
            source=source,
            type=type_,
            since=moment("--since", since),
            until=moment("--until", until),
            new=lake.at(new) if new else None,
            absent_since=lake.at(absent_since) if absent_since else None,
            workers=workers,
        )
        if record:
            _record(lake, set(answer["pattern_id"].to_pylist()))
        # Cut after the query, which has to rank all of them: the total is known for nothing.
        listed_rows = answer.slice(0, count)
        result = result_of(lake.engine().cursor().from_arrow(listed_rows), target.format)
        rows, total = listed_rows.to_pylist(), answer.num_rows
        title = f"{len(rows):,} of {total:,} templates" if total > len(rows) else "templates"
        bars = [(row["template"], row["count"]) for row in rows]
        emit_plot(plot, lambda: pictures.bars_chart(bars, title, "messages"))
        emit_words(result, target, lambda: "".join(_lines(rows, total)))


@patterns.verb()
def show(
    app: App, id: str = argument("ID"), ref: str | None = _AT, target: OutputTarget = OUTPUT
) -> None:
    """Show one, with its newest messages."""
    with app.open() as lake:
        state = lake if ref is None else lake.at(ref)
        rows = views.patterns(state).to_pylist()
        template = next((row for row in rows if row["pattern_id"] == id), None)
        if template is None:
            # An id is the hash of a template: no part of it means anything, so nothing is
            # suggested.
            raise UnknownRef(f"no pattern {id!r}: `lakelog patterns` lists them")
        events = state.sql(
            "SELECT time, level, source, message FROM events JOIN event_patterns USING (seq)"
            f" WHERE pattern_id = $id ORDER BY time DESC, seq DESC LIMIT {_EXAMPLES}",
            {"id": id},
        )
        if target.format != "table":
            emit(result_of(events, target.format), target)
            return
        emit_words(
            result_of(events, "table"), target, lambda: "".join(_described(template, events))
        )


def _lines(rows: list[dict[str, Any]], total: int) -> Iterator[str]:
    """The table for a terminal: count, share, id, template; the last time if wide."""
    if not rows:
        yield "no templates\n"
        return
    width = terminal.width()
    is_wide = width >= _WIDE
    heading = f"{'count':>10} {'share':>6}  {'':<{_METER}}  {'id':<12}  "
    most = max(row["count"] for row in rows)
    heading += f"{'last':<16}  " if is_wide else ""
    yield paint(heading + "template\n", sys.stdout, dim=True)
    for row in rows:
        when_last = f"{row['last_seen']:%Y-%m-%d %H:%M}  " if is_wide else ""
        bar = pictures.meter(row["count"] / most, _METER)
        line = f"{row['count']:>10,} {row['share']:>6.1%}  {bar}  {row['pattern_id']}  {when_last}"
        line += cell(row["template"])
        yield fit(line, width) + "\n"
    if total > len(rows):
        yield paint(
            f"{len(rows):,} of {total:,} templates; -n {total} shows all\n", sys.stdout, dim=True
        )


def _record(lake: Lake, ids: set[str]) -> None:
    """Append templates that are not recorded yet, and what the older event store says of all."""
    # Each is recorded once: as it is in the lake, whatever messages were listed.
    rows = views.patterns(lake).to_pylist()
    # Measured from the newest event and not the clock: logs of last year have a last hour, too. A
    # clock that was ahead once must not make all else the past.
    ((total, recent, newest),) = lake.sql(
        "WITH own AS ("
        "SELECT time FROM events WHERE NOT starts_with(coalesce(source, ''), 'lakelog ')"
        "), newest AS (SELECT coalesce(max(time) FILTER (time < now() + INTERVAL 1 DAY), max(time))"
        " AS due FROM own) SELECT count(*), count(*) FILTER (time > due - INTERVAL 1 HOUR"
        " AND time <= due), max(due) FROM own, newest"
    ).fetchall()
    stats = lake.stats()
    statistics = statistics_event(rows, total, recent, stats.bytes + stats.wal_bytes, newest)
    templates = (row for row in rows if row["pattern_id"] in ids)
    lake.append([*pattern_events(templates), *([statistics] if statistics else [])])


def _described(template: dict[str, Any], events: Relation) -> Iterator[str]:
    source = template["source"] or many(template["sources"], "source")
    yield f"{cell(template['template'])}\n"
    yield f"{many(template['count'], 'message')}, {template['share']:.1%} of all; {source}\n"
    begin, end = (f"{template[f'{name}_seen']:{_SECONDS}}" for name in ("first", "last"))
    yield f"from {begin} to {end}\n\n"
    for time, level, name, message in events.fetchall():
        line = " ".join(filter(None, (f"{time:{_SECONDS}}", level, name, message)))
        yield cell(line)[: terminal.width()] + "\n"
