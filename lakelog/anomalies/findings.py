"""What was unusual in a lake, each with the query that shows it, and what belongs together."""

from __future__ import annotations

import datetime
import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from lakelog import views
from lakelog.anomalies import baseline
from lakelog.anomalies.alarms import alarms_of
from lakelog.anomalies.limits import (
    DAY_US,
    MINUTE_US,
    Alarm,
    Budget,
    SeriesBaseline,
    counts_of,
    roots_of,
)
from lakelog.anomalies.sequences import overdue
from lakelog.anomalies.series import Series, Spans, asked, gaps_of, series_of
from lakelog.errors import InvalidSetting
from lakelog.event import BookkeepingEvent
from lakelog.lake import Lake
from lakelog.libraries import np
from lakelog.pictures import Curve
from lakelog.pinned import PinnedLake
from lakelog.settings import span_us
from lakelog.sql import literal
from lakelog.values import parse_time, to_micros

EVERY = "5m"
TYPE = "ANOMALY"
"""The type of events that findings are recorded as."""
FALSE_ALARMS = 1.0
"""So many a day may be by chance."""
THRESHOLD_DEVIATIONS = 4.5
"""What stands for the deviations of what is no number."""
_HISTORY_US = 14 * DAY_US
_EARLIEST_US = to_micros(datetime.datetime(1, 1, 1, tzinfo=datetime.UTC))
_SPANS_MAX = 20_000
_TOGETHER = 256
"""Series whose spans are in memory at once."""
_GAP_US = 900_000_000
_PATTERN_COUNT, _ERROR_COUNT, _PATTERN_AGE_US, _PATTERNS_MAX = 10, 3, 3_600_000_000, 200


@dataclass(frozen=True)
class AnomalyFinding:
    """Something unusual: `aspect` is `rate`, `value`, `sequence` (of which the end is missing) or
    `pattern`, `deviations` how far it is off.

    Times are in microseconds: it was known at `raised_us`, from what came before alone. `query` is
    SQL for the events that show it: `observed` is their number, or the geometric mean of the field
    in them, and what was `expected` is of the same time."""

    aspect: str
    series: str
    start_us: int
    end_us: int
    expected: float
    observed: float
    deviations: float
    query: str
    raised_us: int
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
    false_alarms: float = FALSE_ALARMS,
) -> list[Incident]:
    """Return what was unusual in the last day of a lake's events, or since a time, in order.

    `since` and `until` are times, or spans before the newest event such as `2h`; `every` is the
    length of the spans of time in which events are counted. What is usual is learnt from 14 days
    before. `false_alarms` is how many a day may be by chance, from 0.001 to 1,000. Raises
    InvalidSetting for what is out of range, a time or a span that is none, or too many spans.
    """
    if not 1e-3 <= false_alarms <= 1e3:
        raise InvalidSetting(f"false alarms a day: from 0.001 to 1,000, not {false_alarms:g}")
    spans, since_us = _spans(state, since, until, every)
    if spans is None:
        return []
    findings = [
        *_deviating(state, spans, since_us, false_alarms),
        *_unfinished(state, spans, since_us),
        *_new_patterns(state, spans, since_us),
    ]
    # Of those that begin together the one that is off most comes first: it may be the cause.
    return list(_grouped(sorted(findings, key=lambda f: (f.start_us, -abs(f.deviations)))))


def _spans(
    state: Lake | PinnedLake, since: str | None, until: str | None, every: str
) -> tuple[Spans | None, int]:
    length = span_us(every)
    if not 1_000_000 <= length <= DAY_US // 4:
        raise InvalidSetting(f"every: from 1s to 6h, not {every!r}")
    # Neither a clock that was ahead once nor what was recorded of an old log now may make all else
    # the past.
    latest, due = state.sql(
        "SELECT epoch_us(max(time)), epoch_us(max(time) FILTER (time < now() + INTERVAL 1 DAY))"
        f" FROM events WHERE {BookkeepingEvent.IS_OBSERVED}"
    ).fetchone() or (None, None)
    if latest is None:
        return None, 0
    newest = latest if due is None else due
    end = newest if until is None else _moment(until, newest)
    since_us = end - DAY_US if since is None else _moment(since, newest)
    # From the first event of these days on: before it nothing was usual, whatever a clock that was
    # once in 1970 says.
    begin = max(since_us - _HISTORY_US, _EARLIEST_US)
    ((oldest,),) = state.sql(
        "SELECT epoch_us(min(time)) FROM events"
        f" WHERE time >= make_timestamptz({begin}) AND {BookkeepingEvent.IS_OBSERVED}"
    ).fetchall()
    start = (end if oldest is None else oldest) // length * length
    # The last span is not over yet.
    count = (min(end, newest) - start) // length
    if count > _SPANS_MAX:
        raise InvalidSetting(
            f"{count:,} spans of {every}; at most {_SPANS_MAX:,}: --every longer ones"
        )
    # A lake that is younger than what was asked for is looked at from its beginning on.
    return (Spans(start, length, count) if count > 0 else None), max(since_us, start)


def _moment(value: str, newest: int) -> int:
    try:
        return newest - span_us(value)
    except InvalidSetting:
        return to_micros(parse_time(value))


def _deviating(
    state: Lake | PinnedLake, spans: Spans, since_us: int, false_alarms: float
) -> Iterator[AnomalyFinding]:
    """Rates and values that are off, a finding for each run of spans."""
    of_series = list(series_of(state, spans))
    minutes = _minutes(state, spans, since_us, of_series)
    gaps = gaps_of(state, spans, since_us)
    budget = Budget.of(false_alarms, len(of_series), spans)
    # Apart, as a matrix has one scale and one least variance: roots of counts, logarithms of
    # fields.
    for is_field in (False, True):
        group = [series for series in of_series if bool(series.field) is is_field]
        for begin in range(0, len(group), _TOGETHER):
            for usual in _baselines(group[begin : begin + _TOGETHER], spans):
                by_minute = minutes(usual.series)
                of_gaps = None if is_field else gaps.get(usual.series.condition)
                alarms = alarms_of(usual, by_minute, of_gaps, spans, since_us, budget)
                curve = _curve(usual, spans) if alarms else None
                yield from (_finding(state, usual.series, alarm, curve) for alarm in alarms)


def _baselines(group: list[Series], spans: Spans) -> Iterator[SeriesBaseline]:
    """What was expected of series that are all counts, or all fields."""
    values = np.stack([series.values for series in group])
    is_field = bool(group[0].field)
    deviations = baseline.deviations(
        values if is_field else roots_of(values),
        np.stack([series.weights for series in group]),
        max(DAY_US // spans.length_us, 1),
        baseline.VALUE_VARIANCE if is_field else baseline.COUNT_VARIANCE,
    )
    for row, series in enumerate(group):
        of_series = {name: getattr(deviations, name)[row] for name in baseline.ROWS}
        yield SeriesBaseline(series=series, **of_series)


def _minutes(
    state: Lake | PinnedLake, spans: Spans, since_us: int, selection: list[Series]
) -> Callable[[Series], Series | None]:
    """Return what gives the numbers of a selected series by the minute, where these are shorter
    spans."""
    first_us = since_us // MINUTE_US * MINUTE_US
    count = (spans.end_us - first_us) // MINUTE_US
    if spans.length_us % MINUTE_US or spans.length_us == MINUTE_US or not 0 < count <= _SPANS_MAX:
        return lambda _: None
    within = Spans(first_us, MINUTE_US, count)
    by_key = {(s.field, s.condition): s for s in series_of(state, within, selection)}

    def by_minute(series: Series) -> Series | None:
        if series.field:
            return by_key.get((series.field, series.condition))
        # A count that is not among them had no event in any of the minutes, which is what has to
        # show. A field without values has nothing to be compared.
        silent = replace(series, values=np.zeros(count), weights=np.ones(count))
        return by_key.get(("", series.condition), silent)

    return by_minute


def _curve(usual: SeriesBaseline, spans: Spans) -> Curve:
    """A series and what was expected, as they were counted."""
    series = usual.series
    values = np.exp(series.values) if series.field else series.values
    expected = np.exp(usual.expected) if series.field else counts_of(usual.expected)
    return Curve(series.name, spans.start_us, spans.length_us, values.tolist(), expected.tolist())


def _finding(
    state: Lake | PinnedLake, series: Series, alarm: Alarm, curve: Curve | None
) -> AnomalyFinding:
    query = _events_sql(series.condition, alarm.start_us, alarm.end_us)
    # An alarm knows what it was raised by. What was seen is what the query shows: of all the time
    # that the finding goes on.
    number = "count(*)::DOUBLE"
    if series.field:
        value = series.field
        number = f"exp(avg(ln({value})) FILTER ({value} > 0 AND isfinite({value})))"
    ((observed,),) = state.sql(f"SELECT {number} FROM ({query})").fetchall()
    return AnomalyFinding(
        *("value" if series.field else "rate", series.name, alarm.start_us, alarm.end_us),
        *(alarm.expected, alarm.observed if observed is None else observed, alarm.strength),
        query,
        alarm.raised_us,
        curve,
    )


def _unfinished(state: Lake | PinnedLake, spans: Spans, since_us: int) -> Iterator[AnomalyFinding]:
    """What began, and did not end in the time in which it always did."""
    for late in overdue(state, spans, since_us):
        yield AnomalyFinding(
            *("sequence", late.name, late.start_us, late.end_us, 1.0, 0.0),
            -THRESHOLD_DEVIATIONS,
            _events_sql(late.condition, late.start_us, late.end_us),
            late.raised_us,
        )


def _events_sql(condition: str, start_us: int, end_us: int) -> str:
    start, end = (literal(_iso(moment)) for moment in (start_us, end_us))
    return f"SELECT * FROM events WHERE time >= {start} AND time < {end} AND {condition}"


def _new_patterns(
    state: Lake | PinnedLake, spans: Spans, since_us: int
) -> Iterator[AnomalyFinding]:
    """Templates of messages that came for the first time, and often, or as errors."""
    # Of a lake that has just begun, every template is new.
    if since_us - spans.start_us < _PATTERN_AGE_US:
        return
    rows = views.patterns(state).to_pylist()
    new = [row for row in rows if since_us <= to_micros(row["first_seen"]) < spans.end_us]
    for row in [row for row in new if row["count"] >= _ERROR_COUNT][:_PATTERNS_MAX]:
        start_us = to_micros(row["first_seen"])
        condition = f"message LIKE {literal(_like(row['template']))} ESCAPE '\\'"
        # Known when the third error or the tenth message came: later looks must say the same.
        errors, messages = asked(
            state,
            spans,
            f"""SELECT [epoch_us(t) FOR t IN list(time ORDER BY time)
                    FILTER (level IN ('ERROR', 'FATAL'))][{_ERROR_COUNT}],
                [epoch_us(t) FOR t IN list(time ORDER BY time)][{_PATTERN_COUNT}]
            FROM events WHERE time >= make_timestamptz({start_us}) AND time < $end
                AND {condition} AND $data""",
        ).fetchall()[0]
        known_us = min((moment for moment in (errors, messages) if moment), default=0)
        # LIKE is looser than a template: `<*>` stands for any text in it, so that messages of other
        # templates may be among those above. The view's count is of this one alone.
        if not known_us or row["count"] < (_ERROR_COUNT if errors else _PATTERN_COUNT):
            continue
        of_pattern = f"e.time >= {literal(_iso(start_us))} AND pattern_id = "
        yield AnomalyFinding(
            # It ends when it was known, not with its last message: a later run must find the same
            # one.
            *("pattern", row["template"], start_us, max(known_us, start_us + MINUTE_US), 0.0),
            *(float(row["count"]), THRESHOLD_DEVIATIONS),
            "SELECT e.* FROM events e JOIN event_patterns USING (seq)"
            f" WHERE {of_pattern}{literal(row['pattern_id'])}",
            known_us,
        )


def _like(template: str) -> str:
    """The pattern of LIKE that messages of a template have."""
    escaped = re.sub(r"([\\%_])", r"\\\1", template.strip())
    return f"%{escaped.replace('<*>', '%')}%"


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
    return moment.isoformat(sep=" ").replace("+00:00", "Z")


def finding_records(of_incidents: Iterable[Incident]) -> list[dict[str, Any]]:
    """Return findings as rows of a table, each with the number of its incident."""
    return [
        {
            "incident": number,
            "time": datetime.datetime.fromtimestamp(finding.start_us / 1e6, datetime.UTC),
            "until": datetime.datetime.fromtimestamp(finding.end_us / 1e6, datetime.UTC),
            "raised": datetime.datetime.fromtimestamp(finding.raised_us / 1e6, datetime.UTC),
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
        # Of what stays the same while an anomaly goes on: its end and its deviations grow from run
        # to run, and would make another event of it each time.
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
                    "raised": row["raised"].isoformat(),
                    # That chance alone would have stayed closer to what was expected.
                    "confidence": math.erf(abs(row["deviations"]) / math.sqrt(2)),
                    "pattern_type": "anomaly",
                },
            }
        )
    return events
