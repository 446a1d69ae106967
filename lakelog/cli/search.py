"""search: events by words, with their neighbours; how many, when, and what values they have."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import click

import lakelog.search as searches
from lakelog.cli import tail as lines
from lakelog.cli.app import App, state_option, verb
from lakelog.cli.arguments import require_times
from lakelog.cli.options import argument, combined, flag, option
from lakelog.cli.render import terminal
from lakelog.cli.render.output import (
    FormatChoice,
    OutputTarget,
    choose,
    emit,
    emit_words,
    write_text,
)
from lakelog.cli.render.results import result_of
from lakelog.cli.render.tables import cell
from lakelog.cli.render.terminal import paint
from lakelog.lake import Lake
from lakelog.pinned import PinnedLake
from lakelog.query import Relation
from lakelog.render import OutputFormat, QueryResult
from lakelog.search import Search
from lakelog.subscriptions import Follower

_COUNT = 100
_BAR = 40
_LOOK_BACK = 10
_LINES_TOGETHER = 1_000
_LIVE = (None, "lines", "ndjson")


def _around(context: int | None, before: int | None, after: int | None) -> tuple[int, int] | None:
    """How many events of the same source are shown before and behind each that is found."""
    if context is before is after is None:
        return None
    # -C is both, and -A or -B beside it says otherwise of its own side, as in grep.
    context = context or 0
    return context if before is None else before, context if after is None else after


_NEIGHBOURS = combined(
    _around,
    context=option("-C, --context N", "With N events around each.", type=click.IntRange(min=0)),
    before=option("-B, --before N", "With N before each.", type=click.IntRange(min=0)),
    after=option("-A, --after N", "With N after each.", type=click.IntRange(min=0)),
)


@verb()
def search(
    app: App,
    query: tuple[str, ...] = argument(required=True),
    count: int | None = option("-n N", "At most N; 100 by default.", type=click.IntRange(min=1)),
    is_all: bool = flag("--all", "All of them, however many."),
    since: str | None = option("--since TIME", "Since TIME: a time, or 2h for two hours ago."),
    until: str | None = option("--until TIME", "Before TIME."),
    follow: bool = flag("-f, --follow", "In order of arrival, then live, until Ctrl-C."),
    oldest: bool = flag("--oldest", "The oldest first."),
    is_count: bool = flag("--count", "Only how many there are."),
    histogram: bool = flag("--histogram", "How many there are in each span of time."),
    is_fields: bool = flag("--fields", "The most frequent values of their fields."),
    rank: bool = flag("--rank", "The best matches first, by BM25."),
    names: tuple[str, ...] = option("--field NAME", "The same of this field alone."),
    around: tuple[int, int] | None = _NEIGHBOURS,
    at: str | None = state_option("Search a tag, branch, snapshot or time."),
    format: str | None = option(
        "--format FORMAT",
        "lines, table, json, ndjson, csv, parquet, arrow, md or html; by default lines on a"
        " terminal, else ndjson.",
        type=FormatChoice(("lines", *OutputFormat)),
    ),
    as_json: bool = flag("--json", "Short for --format json."),
    output: str | None = option("-o, --output FILE", "Write to FILE atomically."),
) -> None:
    """Find events by words in their message, their names or their payload.

    Words and "phrases" are found whole, whatever their case; word* also longer ones,
    and *part* anywhere. FIELD:word looks into one column or member of the payload, and
    FIELD>=100 compares. All have to match: -word excludes, OR and ( ) combine,
    /regex/ is a regular expression. Quote the search, for the shell.
    """
    if sum(modes := [is_count, histogram, is_fields or bool(names)]) > 1:
        raise click.UsageError("--count, --histogram and --fields are one at a time")
    if any(modes) and (around or oldest or count):
        raise click.UsageError("--count, --histogram and --fields take no -n, --oldest, -A, -B, -C")
    if follow and (any(modes) or oldest or around or at or output or format not in _LIVE):
        raise click.UsageError("-f goes with -n, --since, --until, --json and --format lines alone")
    if rank and (any(modes) or oldest or around or follow or is_all):
        raise click.UsageError("--rank goes with -n, --since, --until, --at and formats alone")
    if (is_lines := format == "lines") and (as_json or output):
        raise click.UsageError("--format lines goes with neither --json nor -o")
    if is_all and count:
        raise click.UsageError("--all and -n do not go together")
    target = choose(None if is_lines else format, as_json, output)
    # On a terminal a search reads like a log.
    is_lines = is_lines or (target.format == "table" and format is None and output is None)
    text = " ".join(query)
    query_plan = _plan(text, since, until)
    with app.open() as lake:
        state = lake if at is None else lake.at(at)
        if follow:
            _follow(app, lake, query_plan, count or _LOOK_BACK, "lines" if is_lines else "ndjson")
        elif is_count:
            (number,) = state.sql(query_plan.count()).fetchone() or (0,)
            emit_words([{"count": number}], target, lambda: f"{number:,}\n")
        elif histogram:
            _emit_histogram(state, query_plan, target)
        elif modes[2]:
            _emit_fields(state, query_plan, names, target)
        else:
            limit = None if is_all else count or _COUNT
            if rank:
                relation = state.search(text, since=since, until=until, limit=limit, rank=True)
            else:
                relation = state.sql(_statement(query_plan, limit, around, oldest=oldest))
            if is_lines:
                _write_lines(app, relation, query_plan, is_grouped=around is not None)
            else:
                emit(result_of(relation, target.format), target)


def _plan(text: str, since: str | None, until: str | None) -> Search:
    # The language of searches knows only `time`, and not by which option it was given.
    require_times(since, until)
    return searches.Search.of(text, since, until)


def _statement(
    query_plan: Search, limit: int | None, around: tuple[int, int] | None, *, oldest: bool
) -> str:
    if around is None:
        return query_plan.events(limit, oldest=oldest)
    return query_plan.neighbours(limit, *around, oldest=oldest)


def _follow(app: App, lake: Lake, query_plan: Search, count: int, format: str) -> None:
    matches = searches.search_condition(query_plan.node)
    follower = Follower(lake.subscriptions(), matches)
    lines.show(app, follower, count, format, is_following=True)


def _write_lines(app: App, relation: Relation, query_plan: Search, *, is_grouped: bool) -> None:
    """Write events as `lakelog tail` does, with what they were found by reversed; groups of
    neighbours with a line between them."""
    width, colour = terminal.width(), terminal.has_colour(sys.stdout)
    pattern = searches.highlighter(query_plan.node)
    names, day, group, number = relation.columns, "", None, 0
    output_lines = list[str]()
    for row in relation.iter_rows():
        event = dict(zip(names, row, strict=True))
        # A line of dashes stands between groups that do not touch, as in grep.
        if is_grouped and group not in (None, event["hit"]):
            output_lines.append("--")
        if day != f"{event['time']:%Y-%m-%d}":
            day = f"{event['time']:%Y-%m-%d}"
            output_lines.append(lines.day_heading(day, is_coloured=colour))
        line = lines.line(event, width, colour)
        if is_grouped and not event["found"]:
            output_lines.append(line)
        else:
            output_lines += _found(line, event, width, pattern, is_coloured=colour)
        group, number = event.get("hit"), number + 1
        # Written in parts, so that the first lines of many appear at once.
        if number % _LINES_TOGETHER == 0:
            _write(output_lines)
            output_lines = []
    _write(output_lines)
    if not number:
        app.say("no events", dim=True)


def _write(output_lines: list[str]) -> None:
    if output_lines:
        write_text("\n".join(output_lines) + "\n", sys.stdout.buffer, OutputTarget("table"))


def _found(
    line: str,
    event: dict[str, object],
    width: int,
    pattern: re.Pattern[str] | None,
    *,
    is_coloured: bool,
) -> list[str]:
    """Return an event's line with what was found in it reversed; where that was cut off, with a
    second line of what is around it."""
    if pattern is None:
        return [line]
    shown_lines = [line]
    # The line was cut to the width, so that what was found may be behind its end.
    if not pattern.search(click.unstyle(line)):
        columns = (cell(str(event[name] or "")) for name in ("subject", "id", "message", "data"))
        match, content = next(((m, c) for c in columns if (m := pattern.search(c))), (None, ""))
        if match:
            start = max(match.start() - width // 3, 0)
            shown_lines.append("    " + ("…" if start else "") + content[start : start + width - 6])
    if not is_coloured:
        return shown_lines
    # Reversed, and not coloured: a line has colours already, which would end at the first reset.
    return [pattern.sub(lambda match: f"\x1b[7m{match[0]}\x1b[27m", shown) for shown in shown_lines]


def _emit_histogram(state: Lake | PinnedLake, query_plan: Search, target: OutputTarget) -> None:
    bars = state.sql(query_plan.histogram()).fetchall()
    result = QueryResult(["time", "count"], [bars])
    emit_words(result, target, lambda: "".join(_bars(bars)) or "no events\n")


def _bars(bars: list[tuple[Any, ...]]) -> Iterator[str]:
    highest = max((count for _, count in bars), default=0)
    for time, count in bars:
        # A bar of one eighth at least: one event in a span is not none.
        eighths = max(round(count / highest * _BAR * 8), 1)
        bar = "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
        yield f"{time:%Y-%m-%d %H:%M:%S}  {bar:{_BAR}}  {count:>9,}\n"


def _emit_fields(
    state: Lake | PinnedLake, query_plan: Search, names: Sequence[str], target: OutputTarget
) -> None:
    """Write values of fields: those that are named, or the columns and members of payloads."""
    nothing = f"no events with {' or '.join(names)}\n" if names else "no events\n"
    if not names:
        # FACETS are columns, which every event has; members of payloads follow.
        members = [name for (name,) in state.sql(query_plan.names()).fetchall()]
        names = [*searches.FACETS, *members]
    rows = state.sql(query_plan.fields([*dict.fromkeys(names)])).fetchall()
    result = QueryResult.of_records(
        [dict(zip(("field", "value", "count"), r, strict=True)) for r in rows]
    )
    emit_words(result, target, lambda: "".join(_facets(rows)) or nothing)


def _facets(rows: Iterable[tuple[object, ...]]) -> Iterator[str]:
    room = terminal.width() - 14
    for field, values in groupby(rows, key=lambda row: row[0]):
        yield paint(f"{cell(field)}\n", sys.stdout, bold=True)
        for _, value, count in values:
            yield f"{count:>11,}  {cell(str(value))[:room]}\n"
