"""What was unusual in a lake, each with the query that shows it, and what belongs together."""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lakelog import views
from lakelog.anomalies import baseline
from lakelog.anomalies.series import Series, Spans, series_of
from lakelog.errors import InvalidSetting
from lakelog.event.encode import parse_time, to_micros
from lakelog.libraries import np
from lakelog.pictures import Curve
from lakelog.segments.sql import literal
from lakelog.settings import span_us

if TYPE_CHECKING:
    from lakelog.anomalies.baseline import Matrix
    from lakelog.lake import Lake
    from lakelog.pinned import PinnedLake
EVERY = "5m"
TYPE = "ANOMALY"
"""The type of events that findings are recorded as."""
THRESHOLD_DEVIATIONS = 4.5
"""A finding is off by as many standard deviations."""
_DAY_US = 86_400_000_000
_HISTORY_US = 14 * _DAY_US
_SPANS_MAX = 20_000
_RUNS = (1, 3, 6)
_STILL_OFF = 1.5
_DIGITS = 5.0
"""Counts of such an improbability, as -log10, are findings, but where a series is steadier."""
_STEADY, _REGULAR = 0.3, 0.5
_VALUES_MIN = 5
_GAP_US = 900_000_000
_PATTERN_COUNT, _PATTERN_AGE_US = 10, 3_600_000_000


@dataclass(frozen=True)
class AnomalyFinding:
    """Something unusual: `aspect` is `rate`, `value` or `pattern`, `deviations` how far it is off.

    Times are in microseconds. `query` is SQL for the events that show it."""

    aspect: str
    series: str
    start_us: int
    end_us: int
    expected: float
    observed: float
    deviations: float
    query: str
    curve: Curve | None = field(default=None, compare=False, repr=False)
    """The whole series with what was expected; that of a pattern has none."""


@dataclass(frozen=True)
class Incident:
    """Findings that are close in time; the first one may be the cause of the others."""

    findings: tuple[AnomalyFinding, ...]

    @property
    def start_us(self) -> int:
        """When the first finding begins."""
        return self.findings[0].start_us

    @property
    def end_us(self) -> int:
        """When the last finding ends."""
        return max(finding.end_us for finding in self.findings)


def incidents(
    state: Lake | PinnedLake,
    *,
    since: str | None = None,
    until: str | None = None,
    every: str = EVERY,
) -> list[Incident]:
    """Return what was unusual in the last day of a lake's events, or since a time, in order.

    `since` and `until` are times, or spans before the newest event such as `2h`; `every` is the
    length of the spans of time in which events are counted. What is usual is learnt from 14 days
    before. Raises InvalidSetting for a time or a span that is none, or too many spans.
    """
    spans, since_us = _spans(state, since, until, every)
    if spans is None:
        return []
    findings = [*_deviating(state, spans, since_us), *_new_patterns(state, spans, since_us)]
    return list(_grouped(sorted(findings, key=lambda f: (f.start_us, -abs(f.deviations)))))


def _spans(
    state: Lake | PinnedLake, since: str | None, until: str | None, every: str
) -> tuple[Spans | None, int]:
    length = span_us(every)
    if not 1_000_000 <= length <= _DAY_US // 4:
        raise InvalidSetting(f"every: from 1s to 6h, not {every!r}")
    # A clock that was ahead once must not make all else the past.
    oldest, latest, due = state.sql(
        "SELECT epoch_us(min(time)), epoch_us(max(time)),"
        " epoch_us(max(time) FILTER (time < now() + INTERVAL 1 DAY)) FROM events"
    ).fetchone() or (None, None, None)
    if oldest is None:
        return None, 0
    newest = latest if due is None else due
    end = newest if until is None else _moment(until, newest)
    since_us = end - _DAY_US if since is None else _moment(since, newest)
    start = max(oldest, since_us - _HISTORY_US) // length * length
    # The last span is not over yet.
    count = (min(end, newest) - start) // length
    if count > _SPANS_MAX:
        raise InvalidSetting(
            f"{count:,} spans of {every}; at most {_SPANS_MAX:,}: --every longer ones"
        )
    return (Spans(start, length, count) if count > 0 else None), since_us


def _moment(value: str, newest: int) -> int:
    try:
        return newest - span_us(value)
    except InvalidSetting:
        return to_micros(parse_time(value))


def _deviating(state: Lake | PinnedLake, spans: Spans, since_us: int) -> Iterator[AnomalyFinding]:
    """Rates and values that are off, a finding for each run of spans."""
    period = max(_DAY_US // spans.length_us, 1)
    counts, fields = list[Series](), list[Series]()
    for series in series_of(state, spans):
        (fields if series.field else counts).append(series)
    for group, least_variance in (
        (counts, baseline.COUNT_VARIANCE),
        (fields, baseline.VALUE_VARIANCE),
    ):
        if not group:
            continue
        values = np.stack([series.values for series in group])
        scaled = values if group is fields else 2 * np.sqrt(values + 0.375)
        weights = np.stack([series.weights for series in group])
        off, expected = baseline.deviations(scaled, weights, period, least_variance)
        for series, row, means in zip(group, off, expected, strict=True):
            deviating = _unlikely(series, row, means)
            findings = list(_runs(series, spans, deviating, means, since_us))
            curve = _curve(series, spans, means) if findings else None
            yield from (replace(finding, curve=curve) for finding in findings)


def _curve(series: Series, spans: Spans, expected: Matrix) -> Curve:
    """A series and what was expected, as they were counted."""
    values = np.exp(series.values) if series.field else series.values
    usual = np.exp(expected) if series.field else _counts_of(expected)
    return Curve(series.name, spans.start_us, spans.length_us, values.tolist(), usual.tolist())


def _unlikely(series: Series, off: Matrix, expected: Matrix) -> Matrix:
    """How far a series is off where that is a finding, else 0: in one span, or several together."""
    deviating = np.zeros(len(off))
    sums = np.concatenate([[0.0], np.cumsum(off)])
    for run in _RUNS:
        together = (sums[run:] - sums[:-run]) / np.sqrt(run)
        for index in np.flatnonzero(np.abs(together) >= THRESHOLD_DEVIATIONS).tolist():
            end, strength = index + run, float(together[index])
            is_over = off[end - 1] * strength <= 0 or abs(off[end - 1]) < _STILL_OFF
            if is_over or abs(strength) <= abs(deviating[end - 1]):
                continue
            if series.field:
                is_finding = _value_count(series, index, end) >= _VALUES_MIN
            else:
                is_finding = _is_improbable(series.values, expected, index, end)
            if is_finding:
                deviating[end - 1] = strength
    return deviating


def _value_count(series: Series, start: int, end: int) -> float:
    """How many values the means of some spans are of."""
    present = ~np.isnan(series.values[start:end])
    return float(series.weights[start:end][present].sum())


def _is_improbable(counts: Matrix, expected: Matrix, start: int, end: int) -> bool:
    mean = max(float(_counts_of(expected[start:end]).sum()), 0.02)
    earlier = counts[:start]
    # A series that comes by the clock is no matter of chance.
    if len(earlier) and earlier.mean() >= _REGULAR and earlier.var() <= _STEADY * earlier.mean():
        return True
    return baseline.poisson_digits(float(counts[start:end].sum()), mean) >= _DIGITS


def _counts_of(roots: Matrix) -> Matrix:
    return np.maximum((roots / 2) ** 2 - 0.375, 0.0)


def _runs(
    series: Series, spans: Spans, deviating: Matrix, expected: Matrix, since_us: int
) -> Iterator[AnomalyFinding]:
    """Findings of one series that follow one another to the same side are one."""
    finding: AnomalyFinding | None = None
    for index in np.flatnonzero(deviating):
        start = spans.begin_us(int(index))
        end = start + spans.length_us
        strength = float(deviating[index])
        if start < since_us:
            continue
        if (
            finding
            and start - finding.end_us <= spans.length_us
            and finding.deviations * strength > 0
        ):
            stronger = max(finding.deviations, strength, key=abs)
            finding = replace(finding, end_us=end, deviations=stronger)
            continue
        if finding:
            yield _with_query(series, finding)
        usual, observed = float(expected[index]), float(series.values[index])
        usual, observed = (
            (float(np.exp(usual)), float(np.exp(observed)))
            if series.field
            else (float(_counts_of(np.array(usual))), observed)
        )
        aspect = "value" if series.field else "rate"
        finding = AnomalyFinding(aspect, series.name, start, end, usual, observed, strength, "")
    if finding:
        yield _with_query(series, finding)


def _with_query(series: Series, finding: AnomalyFinding) -> AnomalyFinding:
    return replace(finding, query=_events_sql(series.condition, finding.start_us, finding.end_us))


def _events_sql(condition: str, start_us: int, end_us: int) -> str:
    start, end = (literal(_iso(moment)) for moment in (start_us, end_us))
    return f"SELECT * FROM events WHERE time >= {start} AND time < {end} AND {condition}"


def _new_patterns(
    state: Lake | PinnedLake, spans: Spans, since_us: int
) -> Iterator[AnomalyFinding]:
    """Templates of messages that came for the first time, and often."""
    if since_us - spans.start_us < _PATTERN_AGE_US:
        return
    table = views.patterns(state)
    for row in table.to_pylist():
        start_us = to_micros(row["first_seen"])
        if start_us < since_us or start_us >= spans.end_us or row["count"] < _PATTERN_COUNT:
            continue
        condition = (
            f"e.time >= {literal(_iso(start_us))} AND pattern_id = {literal(row['pattern_id'])}"
        )
        yield AnomalyFinding(
            *(
                "pattern",
                row["template"],
                start_us,
                start_us + spans.length_us,
                0.0,
                float(row["count"]),
            ),
            THRESHOLD_DEVIATIONS,
            f"SELECT e.* FROM events e JOIN event_patterns USING (seq) WHERE {condition}",
        )


def _grouped(findings: Iterable[AnomalyFinding]) -> Iterator[Incident]:
    """Findings with no more than a quarter of an hour between them are an incident."""
    together: list[AnomalyFinding] = []
    for finding in findings:
        if together and finding.start_us - max(f.end_us for f in together) > _GAP_US:
            yield Incident(tuple(together))
            together = []
        together.append(finding)
    if together:
        yield Incident(tuple(together))


def _iso(moment_us: int) -> str:
    moment = datetime.datetime.fromtimestamp(moment_us / 1e6, datetime.UTC)
    return moment.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")


def finding_records(of_incidents: Iterable[Incident]) -> list[dict[str, Any]]:
    """Return findings as rows of a table, each with the number of its incident."""
    return [
        {
            "incident": number,
            "time": datetime.datetime.fromtimestamp(finding.start_us / 1e6, datetime.UTC),
            "until": datetime.datetime.fromtimestamp(finding.end_us / 1e6, datetime.UTC),
            "kind": finding.aspect,
            "series": finding.series,
            "expected": finding.expected,
            "observed": finding.observed,
            "deviations": finding.deviations,
            "query": finding.query,
        }
        for number, incident in enumerate(of_incidents, 1)
        for finding in incident.findings
    ]


def finding_events(of_incidents: Iterable[Incident]) -> list[dict[str, Any]]:
    """Return findings as events of type ANOMALY. Their ids are the same however often they are
    found, so that each is stored once."""
    events = []
    for row in finding_records(of_incidents):
        name = f"{row['kind']} {row['series']} {row['time'].isoformat()}"
        row["incident"] = str(row["incident"])
        message = f"{row['series']}: {row['observed']:.4g}, expected {row['expected']:.4g}"
        events.append(
            {
                "type": TYPE,
                "source": "lakelog anomalies",
                "id": hashlib.blake2b(name.encode(), digest_size=12).hexdigest(),
                "time": row.pop("time"),
                "level": "WARN",
                "message": message,
                "data": {
                    **row,
                    "until": row["until"].isoformat(),
                    # That chance alone would have stayed closer to what was expected.
                    "confidence": math.erf(abs(row["deviations"]) / math.sqrt(2)),
                    "pattern_type": "anomaly",
                },
            }
        )
    return events
