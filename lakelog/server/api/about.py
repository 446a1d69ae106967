"""The lake itself: what the top bar shows, its settings, and the names that SQL may use."""

from __future__ import annotations

import dataclasses
import os

from lakelog.disk import disk
from lakelog.server.api.counts import FINE, SECOND, CountTable, TimeSpan, between, span_of
from lakelog.server.api.question import DashboardQuestion, milliseconds
from lakelog.server.tokens import TokenFile, TokenScope
from lakelog.settings import DEFAULTS, NAMES, VERSION
from lakelog.values import to_micros
from lakelog.views import LakeViews

_TAGS_MAX = 200
_MOVES_MAX = 300
_NAMES_MAX, _NAME_LENGTH = 500, 100
_NEWEST = 500
_DAY = 86_400 * SECOND


def about(question: DashboardQuestion) -> dict[str, object]:
    """The lake, its branch, the time of its events, and the states that As of may name."""
    lake = question.lake
    span = span_of(question)
    reference = question.text("at")
    tags = sorted(lake.tags(), key=lambda tag: -tag.time)[:_TAGS_MAX]
    moves = [entry.move for entry in lake.log(_MOVES_MAX)]
    return {
        "name": os.path.basename(os.path.abspath(lake.path)),
        "path": lake.path,
        "branch": lake.branch_name,
        "version": VERSION,
        "branches": lake.branches(),
        "tags": [{"name": tag.name, "time": tag.time / 1000} for tag in tags],
        "moves": [{"number": m.number, "time": m.time / 1000, "op": m.op} for m in moves],
        "events": span.events,
        "first": span.since / 1000 if span.events else None,
        "last": span.until / 1000 if span.events else None,
        "is_in_use": _is_in_use(question, span),
        "may_change": TokenScope.ADMIN in question.caller.scopes,
        "now": disk.now_us() / 1000,
        "as_of": {"ref": reference, "time": milliseconds(question.now)} if reference else None,
    }


def _is_in_use(question: DashboardQuestion, span: TimeSpan) -> bool:
    """Whether the last day of a long lake has a tenth of what its days have on average."""
    length, begin = span.until - span.since, to_micros(question.now) - _DAY
    if length <= 7 * _DAY or span.until <= begin:
        return False
    # One event alone, as of a training set made of old logs, would open the page on nothing.
    query = f"SELECT count(*) FROM events WHERE {between(begin, span.until)}"
    [(events,)] = question.sql(query).fetchall()
    return bool(10 * events * length >= span.events * _DAY)


def settings(question: DashboardQuestion) -> dict[str, object]:
    """Settings with their defaults, statistics, and tokens by name."""
    lake = question.lake
    stats = question.state.stats()
    return {
        "settings": [
            {
                "name": name,
                "value": getattr(lake.store.settings, name),
                "default": getattr(DEFAULTS, name),
            }
            for name in NAMES
        ],
        "stats": dataclasses.asdict(stats) | {"types": {}, "sources": {}, "levels": {}},
        "tokens": [
            {
                "name": entry.name,
                "scopes": sorted(scope.value for scope in entry.scopes),
                "made_at": entry.made_at / 1000,
            }
            for entry in TokenFile(lake.path).entries()
        ],
    }


def names(question: DashboardQuestion) -> dict[str, object]:
    """What a query or search may name: tables, columns, views, values, and members of payloads as
    the newest events have them."""
    state = question.state
    columns = state.sql("SELECT * FROM events LIMIT 0").columns
    views = [definition.name for definition, _ in LakeViews(state).listed()]
    rows = CountTable(question, span_of(question), FINE).rows
    # Of this form, with no query around it, so that only the newest are read.
    payloads = question.sql(
        "SELECT CASE WHEN json_type(data) = 'OBJECT' THEN json_keys(data) END FROM events"
        f" ORDER BY time DESC, seq DESC LIMIT {_NEWEST}"
    ).fetchall()
    members = {name for (own,) in payloads for name in own or ()}
    return {
        "tables": ["events", "quarantine", "files", "origins", *views],
        "columns": columns,
        "members": sorted(name for name in members if len(name) <= _NAME_LENGTH)[:_NAMES_MAX],
        "tags": [tag.name for tag in question.lake.tags()][:_TAGS_MAX],
        **{
            f"{noun}s": sorted(
                value
                for value in rows.column(noun).unique().to_pylist()
                if value and len(value) <= _NAME_LENGTH
            )[:_NAMES_MAX]
            for noun in ("type", "source")
        },
    }
