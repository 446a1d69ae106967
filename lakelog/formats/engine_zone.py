"""A time zone as the engine knows it, for times that are read one by one.

The tables of zones of the system may be of another year than those of the engine, and governments
decide a few months ahead: then lines of one log would be an hour apart, by how they were read.
"""

from __future__ import annotations

import bisect
import functools
from datetime import datetime, timedelta, tzinfo

from lakelog import sql
from lakelog.engine import core

_YEARS, _LAST = 5, 9999
"""So many years are asked for at a time."""
_HOURS = "generate_series($1::TIMESTAMP, $2::TIMESTAMP, INTERVAL 1 HOUR)"
_OFFSET = "epoch_us(t) - epoch_us(t::TIMESTAMPTZ) AS o"
# By the second within the hours of a change: some were at a minute after midnight.
_CHANGES = f"""
    WITH hours AS (SELECT t, {_OFFSET} FROM {_HOURS} AS series(t)),
    changed AS (SELECT t AS hour FROM hours QUALIFY o <> lag(o) OVER (ORDER BY t)),
    seconds AS (
        SELECT hour, t, {_OFFSET} FROM (SELECT hour, unnest(
            generate_series(hour - INTERVAL 1 HOUR, hour, INTERVAL 1 SECOND)) AS t FROM changed))
    (SELECT t, o FROM hours ORDER BY t LIMIT 1) UNION ALL (
        SELECT t, o FROM seconds QUALIFY o <> lag(o) OVER (PARTITION BY hour ORDER BY t))
    ORDER BY t"""
Offsets = tuple[tuple[datetime, ...], tuple[timedelta, ...]]
"""From which local times on which offsets hold, in order."""


class EngineZone(tzinfo):
    """The zone of a name, such as Europe/Berlin. Of two moments that a local time may mean, and
    where it means none, it is as the engine decides. Raises KeyError for an unknown name."""

    def __init__(self, name: str) -> None:
        with core.connect({"threads": "1"}) as connection:
            query = "SELECT 1 FROM pg_timezone_names() WHERE name = $1"
            if not connection.execute(query, [name]).fetchall():
                raise KeyError(name)
        self._name = name

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        """How far a local time is ahead of UTC."""
        if moment is None:
            return None
        begins, offsets = _offsets(self._name, moment.year // _YEARS * _YEARS)
        return offsets[bisect.bisect_right(begins, moment.replace(tzinfo=None, fold=0)) - 1]

    def tzname(self, moment: datetime | None) -> str:
        """Its name."""
        return self._name

    def dst(self, moment: datetime | None) -> timedelta | None:
        """None: only the whole offset is known."""
        return None


@functools.lru_cache(maxsize=2_000)
def _offsets(name: str, year: int) -> Offsets:
    """The offsets of some years."""
    begin, end = max(year, 1), min(year + _YEARS - 1, _LAST)
    with core.connect({"threads": "1"}) as connection:
        connection.execute(f"SET TimeZone = {sql.literal(name)}")
        rows = connection.execute(_CHANGES, [datetime(begin, 1, 1), datetime(end, 12, 31, 23)])
        begins, offsets = zip(*rows.fetchall(), strict=True)
    return begins, tuple(timedelta(microseconds=offset) for offset in offsets)
