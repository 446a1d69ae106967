"""A question of the dashboard: of which state, of which time, and its other parameters."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from lakelog.disk import disk
from lakelog.errors import InvalidEvent, InvalidSetting
from lakelog.lake import Lake
from lakelog.pinned import PinnedLake
from lakelog.query import Relation
from lakelog.server.arrivals import RequestRefused
from lakelog.server.gate import Caller
from lakelog.server.limits import is_number
from lakelog.settings import span_us
from lakelog.values import from_micros, parse_time, to_micros

VALUE_MAX = 300
"""Characters of a value in a list; the whole is fetched when a row is opened."""
TEXT_MAX = 65_536
LIMIT_MAX = 1_000
_DIGITS = 19
"""Of a 64-bit number."""


@dataclass(frozen=True)
class DashboardQuestion:
    """A request for `lake`; `query` has its parameters, `body` the members of its JSON."""

    lake: Lake
    query: Mapping[str, str]
    body: Mapping[str, Any]
    caller: Caller
    running: list[Relation] = field(default_factory=list)
    """What the engine evaluates for it, the newest last."""
    cancelled: threading.Event = field(default_factory=threading.Event)

    @functools.cached_property
    def state(self) -> Lake | PinnedLake:
        """The lake as of `at`, a tag, a branch or a time; the living branch without. Raises
        UnknownRef."""
        reference = self.text("at")
        return self.lake.at(reference) if reference else self.lake

    def sql(
        self, query: str, params: Any = None, *, variables: Mapping[str, Any] | None = None
    ) -> Relation:
        """Run SQL over the state, so that `cancel` stops it. Raises QueryFailed, RequestRefused."""
        if self.cancelled.is_set():
            raise RequestRefused(499, "cancelled")
        relation = self.state.sql(query, params, variables=variables)
        self.running.append(relation)
        return relation

    def cancel(self) -> None:
        """Stop what is evaluated, from another thread: there KeyboardInterrupt is raised. An
        interrupt between two steps of the engine is lost, so call it until the question ends."""
        self.cancelled.set()
        if self.running:
            self.running[-1].interrupt()

    @functools.cached_property
    def now(self) -> datetime:
        """The present; of a past state, the time at which that was published."""
        state = self.state
        if isinstance(state, PinnedLake):
            return from_micros(state.snapshot().time)
        return from_micros(disk.now_us())

    @functools.cached_property
    def since(self) -> datetime | None:
        """The beginning of the range of time, None for that of the lake."""
        return self.moment("since")

    @functools.cached_property
    def until(self) -> datetime | None:
        """The end of the range of time, which is not in it."""
        return self.moment("until")

    def text(self, name: str, default: str = "") -> str:
        """A parameter as text. Raises RequestRefused for one that is too long."""
        value = self.query.get(name, default)
        if len(value) > TEXT_MAX:
            raise RequestRefused(400, f"{name!r} is too long: {len(value):,} characters")
        return value

    def number(self, name: str, default: int, highest: int = LIMIT_MAX) -> int:
        """A parameter that is a number from 0 to `highest`. Raises RequestRefused."""
        value = self.text(name)
        if not value:
            return default
        if not is_number(value, _DIGITS):
            raise RequestRefused(400, f"{name!r} is a number, not {value[:40]!r}")
        return min(int(value), highest)

    def moment(self, name: str) -> datetime | None:
        """A parameter that is a time, or a span before the present such as `2h`."""
        value = self.text(name)
        if not value:
            return None
        try:
            return self.now - timedelta(microseconds=span_us(value))
        except (InvalidSetting, OverflowError):
            pass
        try:
            return parse_time(int(value) if is_number(value, _DIGITS) else value)
        except InvalidEvent as error:
            raise RequestRefused(400, f"{name!r} is a time or a span such as 2h: {error}") from None

    def member(self, name: str, default: str = "") -> str:
        """A member of the body that is text. Raises RequestRefused."""
        value = self.body.get(name, default)
        if not isinstance(value, str) or len(value) > TEXT_MAX:
            raise RequestRefused(400, f"{name!r} is a text")
        return value


def milliseconds(moment: datetime | None) -> float | None:
    """A time as JavaScript has it, with its microseconds as a fraction."""
    return None if moment is None else to_micros(moment.astimezone(UTC)) / 1000


def cut(value: object, longest: int = VALUE_MAX) -> object:
    """A value for a list: text that is long without its end."""
    if isinstance(value, str) and len(value) > longest:
        return value[:longest] + "…"
    return value
