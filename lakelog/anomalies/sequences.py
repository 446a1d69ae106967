"""What begins and ends: which message or type ends what another one of its source began, and what
did not end in time.

Two keys of a source, types or templates, are a pair where nearly each event of the one was followed
by one of the other before it came again, of the same subject if they have some. That is learnt up
to each moment; an end is overdue once the longest time that it ever took is over, and half of that
again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lakelog.anomalies.series import IS_LOOKED_AT, asked, of_type
from lakelog.libraries import np

if TYPE_CHECKING:
    import numpy.typing as npt

    from lakelog.anomalies.series import Spans
    from lakelog.lake import Lake
    from lakelog.pinned import PinnedLake

    Times = npt.NDArray[np.int64]
COMPLETE_MIN = 40
"""Pairs that teach how long it takes."""
_MISSES = 0.02
_PATIENCE = 1.5
_EPISODES = 4
"""What breaks off so often in a week is unusual; more often, it is no pair."""
_HOUR_US, _WEEK_US = 3_600_000_000, 604_800_000_000
_KEYS_MAX, _EVENTS_MAX, _MESSAGES_MAX = 200, 20_000, 1_000_000
"""Keys that are compared, and events of each; beyond so many messages types alone are keys."""
_STEPS = f"""
    SELECT source, type, $pattern AS pattern, coalesce(subject, '') AS subject,
        epoch_us(time) AS moment FROM events $join
    WHERE time >= $start AND time < $end AND {IS_LOOKED_AT}
    QUALIFY count(*) OVER (PARTITION BY source, type, pattern)
        BETWEEN {COMPLETE_MIN} AND {_EVENTS_MAX}
    ORDER BY time, seq"""


@dataclass(frozen=True)
class Overdue:
    """What began at `start_us` and has no end: known at `raised_us`, so for the last time at
    `end_us`; at the latest it used to take `usual_us`. Times are in microseconds."""

    name: str
    condition: str
    start_us: int
    raised_us: int
    end_us: int
    usual_us: int


Key = tuple[str | None, str, str | None]
"""A source, a type, and the id of a template where messages are few enough."""


def overdue(state: Lake | PinnedLake, spans: Spans, since_us: int) -> Iterator[Overdue]:
    """Yield what should have ended in the spans, since a time."""
    steps: dict[Key, tuple[list[int], list[str]]] = {}
    for source, type_, pattern, subject, moment in _steps(state, spans):
        times, subjects = steps.setdefault((source, type_, pattern), ([], []))
        times.append(moment)
        subjects.append(subject)
    keys = sorted(steps, key=lambda key: (-len(steps[key][0]), str(key)))[:_KEYS_MAX]
    for _, of_source in itertools.groupby(sorted(keys, key=_source_of), _source_of):
        for begin, end in itertools.permutations(list(of_source), 2):
            begins, ends = np.array(steps[begin][0]), np.array(steps[end][0])
            if abs(len(begins) - len(ends)) <= 3 + len(begins) // 20:
                moments = _ends_of(begins, steps[begin][1], ends, steps[end][1])
                yield from _late(begin, begins, moments, spans.end_us, since_us)


def _source_of(key: Key) -> str:
    return key[0] or ""


def _steps(
    state: Lake | PinnedLake, spans: Spans
) -> list[tuple[str | None, str, str | None, str, int]]:
    messages = asked(
        state, spans, "SELECT count(message) FROM events WHERE time >= $start AND time < $end"
    )
    has_few = messages[0][0] <= _MESSAGES_MAX
    query = _STEPS.replace("$join", "LEFT JOIN event_patterns USING (seq)" if has_few else "")
    return asked(state, spans, query.replace("$pattern", "pattern_id" if has_few else "NULL"))


def _ends_of(
    begins: Times, begin_subjects: list[str], ends: Times, end_subjects: list[str]
) -> Times:
    """When each event was followed by one of the other key, before it came again; else -1."""
    if any(begin_subjects) and any(end_subjects):
        end_of = dict(zip(reversed(end_subjects), reversed(ends.tolist()), strict=True))
        moments = np.array([end_of.get(subject, -1) for subject in begin_subjects])
        return np.where(moments >= begins, moments, -1)
    never = np.iinfo(np.int64).max
    following = np.append(ends, never)[np.searchsorted(ends, begins)]
    return np.where(
        (following <= np.append(begins[1:], never)) & (following < never), following, -1
    )


def _late(key: Key, begins: Times, moments: Times, end_us: int, since_us: int) -> Iterator[Overdue]:
    """Events that nothing followed in time; those of one hour after another are one."""
    has_end = moments >= 0
    delays = np.where(has_end, moments - begins, 0)
    # What takes most of the time until the next one is no end, but what comes next.
    if has_end.sum() < COMPLETE_MIN or 2 * np.median(delays[has_end]) > np.median(np.diff(begins)):
        return
    longest, complete = np.maximum.accumulate(delays), np.cumsum(has_end)
    latest: Overdue | None = None
    episodes: list[int] = []
    misses = earlier_misses = missed_us = 0
    for index in np.flatnonzero(~has_end).tolist():
        begin = int(begins[index])
        if begin - missed_us > _HOUR_US:
            episodes.append(begin)
            earlier_misses = misses
        misses, missed_us = misses + 1, begin
        late_us = begin + int(longest[index] * _PATIENCE)
        is_pair = complete[index] >= COMPLETE_MIN and earlier_misses <= _MISSES * complete[index]
        is_rare = sum(begin - episode < _WEEK_US for episode in episodes) <= _EPISODES
        if not (is_pair and is_rare and since_us <= late_us <= end_us):
            continue
        if latest and episodes[-1] <= latest.start_us:
            latest = replace(latest, end_us=late_us)
            continue
        if latest:
            yield latest
        latest = _overdue(key, begin, late_us, int(longest[index]))
    if latest:
        yield latest


def _overdue(key: Key, begin: int, late_us: int, usual_us: int) -> Overdue:
    source, type_, pattern = key
    condition = of_type(source, type_)
    if pattern is not None:
        condition += f" AND seq IN (SELECT seq FROM event_patterns WHERE pattern_id = '{pattern}')"
    name = f"end after {type_} of {source or 'no source'}"
    return Overdue(name, condition, begin, late_us, late_us, usual_us)
