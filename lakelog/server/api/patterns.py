"""Patterns: what messages have in common, how often each comes, and what is new."""

from __future__ import annotations

from lakelog import views
from lakelog.server.api.question import DashboardQuestion, cut, milliseconds

_MEMBERS = ("pattern_id", "template", "source", "count", "share", "sources", "example")


def patterns(question: DashboardQuestion) -> dict[str, object]:
    """The templates of messages of a range of time, the most frequent first; with `new` only those
    that no message had in that state, which is a tag or a time."""
    since, until, before = question.since, question.until, question.text("new")
    table = views.patterns(
        question.state,
        source=question.text("source") or None,
        since=since.isoformat() if since else None,
        until=until.isoformat() if until else None,
        new=question.lake.at(before) if before else None,
    )
    limit = question.number("limit", 200)
    return {
        "total": table.num_rows,
        "patterns": [
            {name: cut(row[name]) for name in _MEMBERS}
            | {"first": milliseconds(row["first_seen"]), "last": milliseconds(row["last_seen"])}
            for row in table.slice(0, limit).to_pylist()
        ],
    }
