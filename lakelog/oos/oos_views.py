"""The five views of an OOS log, under their old names and in their old shapes.

    views = lakelog.get_views("oos.log")      # or a lake's directory, or an open lake
    views.podcast_status_view()               # {'discovered': 3, 'processing': 1, ...}

A view reads only what was written since the last one was asked for. Windows end now, or at `now`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime

from lakelog import lake as lakes
from lakelog.errors import InvalidSetting, LakeNotFound
from lakelog.lake import Lake
from lakelog.oos.log_state import HOUR
from lakelog.oos.oos_feed import FileFeed, LakeFeed, OosFeed
from lakelog.settings import span_us
from lakelog.store import Store
from lakelog.values import JsonObject, from_micros, parse_time, to_micros

DEFAULT_LOG = "oos.log"
_DAY = 24 * HOUR
Now = datetime | str | float | None


def get_views(
    path: str | os.PathLike[str] | Lake = DEFAULT_LOG, *, branch: str = "main", now: Now = None
) -> OOSViews:
    """Return the views of an oos.log, a lake's directory or an open lake.

    `now` fixes the end of all windows. Raises FileNotFoundError, LakeNotFound for a directory that
    is no lake, UnknownRef, InvalidEvent for a `now` that is no time.
    """
    if isinstance(path, Lake):
        return OOSViews(LakeFeed(path), now)
    name = os.fspath(path)
    # Before the directory: a lake is one.
    if Store.is_lake(name):
        # Never created: a misspelt path would give empty answers.
        return OOSViews(LakeFeed(lakes.open(name, create=False, branch=branch)), now)
    if os.path.isdir(name):
        raise LakeNotFound(f"{name} is a directory, but not a lake: name an oos.log or a lake")
    if not os.path.exists(name):
        raise FileNotFoundError(2, "no such oos.log or lake", name)
    return OOSViews(FileFeed(name), now)


class OOSViews:
    """Views of one log. Every answer holds all that was written before it was asked for."""

    def __init__(self, feed: OosFeed, now: Now = None) -> None:
        self._feed = feed
        fixed = None if now is None else to_micros(parse_time(now))
        # Fixed once, so that all windows of an answer end at one time.
        self._now: Callable[[], int] = lambda: time.time_ns() // 1000 if fixed is None else fixed

    @property
    def skipped(self) -> int:
        """How many lines of the file were no OOS lines."""
        return self._feed.skipped

    def podcast_status_view(self) -> dict[str, int]:
        """Return {'discovered', 'processing', 'completed', 'failed'}: items by latest state."""
        return self._feed.state().standing()

    def throughput_view(self, window: str = "1h") -> JsonObject:
        """Return completions of a window such as `30m`, `1h` or `7d`, in all, by hour, on average.

        {'total_completed', 'hourly_breakdown': {hour: completions}, 'average_per_hour'}; hours are
        ISO 8601 in UTC. Raises InvalidSetting.
        """
        span, end = _window(window), self._now()
        counts = self._feed.state().completed(end - span, end)
        total = sum(counts.values())
        return {
            "total_completed": total,
            "hourly_breakdown": {
                f"{from_micros(hour * HOUR):%Y-%m-%dT%H:%M:%SZ}": count
                for hour, count in counts.items()
            },
            "average_per_hour": total / (span / HOUR),
        }

    def error_analysis_view(self) -> JsonObject:
        """Return {'total_failures', 'error_types': {error: count}, 'recent_failures': [...]}.

        An error is `error` of the data, or 'unknown'; the newest ten failures, newest first, have
        timestamp, source, item_id and error.
        """
        state = self._feed.state()
        # The most frequent first, and equal ones by name, so that answers compare.
        ranked = sorted(state.errors.items(), key=lambda error: (-error[1], error[0]))
        return {
            "total_failures": sum(count for _, count in ranked),
            "error_types": dict(ranked),
            "recent_failures": [
                {
                    "timestamp": _timestamp(failure.time),
                    "source": failure.source or "",
                    "item_id": failure.item or "",
                    "error": failure.error,
                }
                for failure in reversed(state.failures)
            ],
        }

    def source_reliability_view(self) -> dict[str, JsonObject]:
        """Return {source: {'success_rate', 'total_processed'}} of completed and failed events."""
        counts = sorted(self._feed.state().sources.items())
        return {
            source: {
                "success_rate": completed / (completed + failed),
                "total_processed": completed + failed,
            }
            for source, (completed, failed) in counts
        }

    def system_health_view(self) -> JsonObject:
        """Return {'recent_activity_1h', 'podcast_status', 'system_uptime'}: events of the last
        hour, items by state, and the time since the first event as `2d 5h 30m`."""
        state, end = self._feed.state(), self._now()
        start = state.first
        return {
            "recent_activity_1h": state.active(end - HOUR, end),
            "podcast_status": state.standing(),
            "system_uptime": _uptime(0 if start is None else max(end - start, 0)),
        }


def _window(duration: str) -> int:
    span = span_us(duration)
    if not span:
        raise InvalidSetting(f"{duration!r} is not a window: write it as 30m, 1h or 7d")
    return span


def _uptime(span: int) -> str:
    days, remainder = divmod(span, _DAY)
    return f"{days}d {remainder // HOUR}h {remainder % HOUR // 60_000_000}m"


def _timestamp(micros: int) -> str:
    """ISO 8601 with milliseconds, or microseconds where there are any."""
    precision = "microseconds" if micros % 1000 else "milliseconds"
    return from_micros(micros).isoformat(timespec=precision).replace("+00:00", "Z")
