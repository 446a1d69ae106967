"""Anomalies: what `lakelog anomalies --record` found in a range, as spans to mark in a chart."""

from __future__ import annotations

from datetime import UTC, datetime

from lakelog.server.api.counts import between, range_of, span_of
from lakelog.server.api.question import DashboardQuestion, cut, milliseconds
from lakelog.values import to_micros

_LIMIT = 200
_LONGEST = 86_400_000_000
"""A finding that began as long (us) before a range may reach into it."""
_EARLIEST = to_micros(datetime.min.replace(tzinfo=UTC))


def anomalies(question: DashboardQuestion) -> dict[str, object]:
    """The recorded findings of a range of time, the newest first, `limit` of them: [begin (ms), end
    (ms), what was unusual, how many standard deviations, seq]."""
    span = range_of(question, span_of(question))
    limit = question.number("limit", _LIMIT)
    # A finding has the time of its begin, which may be before the range that it reaches into.
    since = max(span.since - _LONGEST, _EARLIEST)
    rows = question.sql(
        "SELECT time, coalesce(try_cast(data->>'until' AS TIMESTAMPTZ), time) AS until, message,"
        " try_cast(data->>'deviations' AS DOUBLE), seq FROM events WHERE type = 'ANOMALY'"
        f" AND {between(since, span.until)} ORDER BY time DESC LIMIT {limit}"
    ).fetchall()
    return {
        "anomalies": [
            [milliseconds(time), milliseconds(until), cut(message), deviations, seq]
            for time, until, message, deviations, seq in rows
            if to_micros(until.astimezone(UTC)) > span.since
        ]
    }
