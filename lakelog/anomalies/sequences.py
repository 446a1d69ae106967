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

from lakelog.anomalies.series import Spans, asked, of_type
from lakelog.lake import Lake
from lakelog.libraries import Integers, np
from lakelog.pinned import PinnedLake

COMPLETE_MIN = 40
"""Pairs that teach how long it takes."""
_MISSES = 0.02
_PATIENCE = 1.5
_EPISODES = 4
"""What breaks off so often in a week is unusual; more often, it is no pair."""
_HOUR_US, _WEEK_US = 3_600_000_000, 604_800_000_000
_KEYS_MAX, _EVENTS_MAX, _MESSAGES_MAX = 200, 20_000, 1_000_000
"""Keys that are compared, and events of each; beyond so many messages types alone are keys."""
# The keys are chosen before their events are read: there may be millions of others. Subjects are
# only compared, and their hashes take a tenth of the memory.
_STEPS = f"""
    WITH $named steps AS NOT MATERIALIZED (
        SELECT source, type, $pattern AS pattern, seq, epoch_us(time) AS moment,
            CASE WHEN coalesce(subject, '') = '' THEN 0 ELSE hash(subject) END AS subject
        FROM events $join
        WHERE time >= $start AND time < $end AND $data
    ), keys AS MATERIALIZED (
        SELECT source, type, pattern FROM steps GROUP BY ALL
        HAVING count(*) BETWEEN {COMPLETE_MIN} AND {_EVENTS_MAX}
        ORDER BY count(*) DESC, source, type, pattern LIMIT {_KEYS_MAX}
    )
    SELECT k.source, k.type, k.pattern, list(moment) AS moments, list(subject) AS subjects,
        list(seq) AS numbers
    FROM steps s JOIN keys k ON s.type = k.type AND s.source IS NOT DISTINCT FROM k.source
        AND s.pattern IS NOT DISTINCT FROM k.pattern
    GROUP BY ALL ORDER BY k.source, k.type, k.pattern"""

_BY_PATTERN = (
    "pattern_id",
    "named AS MATERIALIZED (SELECT seq, pattern_id FROM event_patterns SEMI JOIN"
    " (SELECT seq FROM events WHERE time >= $start AND time < $end) USING (seq)),",
    "LEFT JOIN named USING (seq)",
)
"""What stands for `$pattern`, `$named` and `$join` where templates are keys."""


@dataclass(frozen=True)
class Overdue:
    """What began at `start_us` and has no end: known at `raised_us`, so for the last time at
    `end_us`. Times are in microseconds."""

    name: str
    condition: str
    start_us: int
    raised_us: int
    end_us: int


Key = tuple[str | None, str, str | None]
"""A source, a type, and the id of a template where messages are few enough."""
Steps = tuple[Key, "Integers", "np.ndarray"]
"""The times of the events of a key, and a number of the subject of each, 0 without one."""


def overdue(state: Lake | PinnedLake, spans: Spans, since_us: int) -> Iterator[Overdue]:
    """Yield what should have ended in the spans, since a time."""
    for _, of_source in itertools.groupby(_steps(state, spans), lambda steps: steps[0][0]):
        for begins, ends in itertools.permutations(list(of_source), 2):
            key, times, _ = begins
            # What begins and what ends are about as many. This spares most of the permutations,
            # which are 39,800 of the 200 keys of one source.
            if abs(len(times) - len(ends[1])) <= 3 + len(times) // 20:
                yield from _late(key, times, _ends_of(begins, ends), spans.end_us, since_us)


def _steps(state: Lake | PinnedLake, spans: Spans) -> Iterator[Steps]:
    """The steps of each key that is compared, those of a source one after another."""
    counting = "SELECT count(message) FROM events WHERE time >= $start AND time < $end"
    has_few = asked(state, spans, counting).fetchall()[0][0] <= _MESSAGES_MAX
    # Of more messages there is no join, not even one with no rows: it would keep all events.
    pattern, named, join = _BY_PATTERN if has_few else ("NULL::VARCHAR", "", "")
    answer = asked(state, spans, _STEPS, pattern=pattern, named=named, join=join)
    # One row at a time: each has the lists of up to `_EVENTS_MAX` events.
    for batch in answer.to_arrow_reader(1):
        for place in range(len(batch)):
            moments, subjects, numbers = (
                batch[name][place].values.to_numpy(zero_copy_only=False)
                for name in ("moments", "subjects", "numbers")
            )
            # list() has no order of its own. Events of the same microsecond stand as they were
            # stored.
            order = np.lexsort((numbers, moments))
            key = tuple(batch[name][place].as_py() for name in ("source", "type", "pattern"))
            yield key, moments[order], subjects[order]


def _ends_of(begins: Steps, ends: Steps) -> Integers:
    """When each event was followed by one of the other key, before it came again; else -1."""
    (_, times, subjects), (_, end_times, end_subjects) = begins, ends
    if subjects.any() and end_subjects.any():
        # The first end of each subject, as steps are in the order of time.
        ended, places = np.unique(end_subjects, return_index=True)
        found = np.minimum(np.searchsorted(ended, subjects), len(ended) - 1)
        moments = np.where(ended[found] == subjects, end_times[places[found]], -1)
        return np.where(moments >= times, moments, -1)
    never = np.iinfo(np.int64).max
    following = np.append(end_times, never)[np.searchsorted(end_times, times)]
    return np.where((following <= np.append(times[1:], never)) & (following < never), following, -1)


def _late(
    key: Key, begins: Integers, moments: Integers, end_us: int, since_us: int
) -> Iterator[Overdue]:
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
        # The misses of this episode are what is to be found: they must not count against the pair.
        is_pair = complete[index] >= COMPLETE_MIN and earlier_misses <= _MISSES * complete[index]
        is_rare = sum(begin - episode < _WEEK_US for episode in episodes) <= _EPISODES
        if not (is_pair and is_rare and since_us <= late_us <= end_us):
            continue
        if latest and episodes[-1] <= latest.start_us:
            # The same episode: its begin and the time when it was known stay, as an earlier run
            # reported them.
            latest = replace(latest, end_us=late_us)
            continue
        if latest:
            yield latest
        latest = _overdue(key, begin, late_us)
    if latest:
        yield latest


def _overdue(key: Key, begin: int, late_us: int) -> Overdue:
    source, type_, pattern = key
    condition = of_type(source, type_)
    if pattern is not None:
        condition += f" AND seq IN (SELECT seq FROM event_patterns WHERE pattern_id = '{pattern}')"
    name = f"end after {type_} of {source or 'no source'}"
    return Overdue(name, condition, begin, late_us, late_us)
