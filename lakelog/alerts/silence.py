"""Silences: alerts of which nobody is told until a time.

A silence is an entry of kind `silence` in the manifest (FORMAT.md F6.22). Its matchers are compared
with the labels of an alert, among them `rule` and `severity`; all have to hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lakelog.disk import disk
from lakelog.entries import Record, Removal
from lakelog.errors import InvalidSetting, UnknownRef
from lakelog.libraries import pa, pc
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.refs import Head
from lakelog.store import Clock, Store

ENTRY = "silence"
OP = "alert"
_MATCHER = re.compile(r"([A-Za-z_][\w.-]*)(=~|!~|!=|=)(.*)", re.DOTALL)
_MOST_US = 36_525 * 86_400_000_000
"""A hundred years: an end that no calendar has could not be shown, nor any other silence."""
_KEPT_US = 7 * 86_400_000_000
"""How long an ended silence stays, for whoever asks why nobody was told."""


@dataclass(frozen=True)
class Matcher:
    """One comparison of a label: `=`, `!=`, and with a whole regular expression `=~`, `!~`."""

    label: str
    operator: str
    value: str

    @classmethod
    def parse(cls, matcher: str) -> Matcher:
        """Read `LABEL=VALUE`. Raises InvalidSetting."""
        match = _MATCHER.fullmatch(matcher)
        if match is None:
            raise InvalidSetting(
                f"{matcher[:80]!r} is no matcher: write rule=NAME, LABEL=VALUE, !=, =~ or !~"
            )
        comparison = cls(match[1], match[2], match[3])
        # Tried now, and not when an alert fires.
        if comparison.operator.endswith("~"):
            try:
                comparison.holds({})
            except pa.ArrowInvalid:
                raise InvalidSetting(
                    f"{matcher[:80]!r}: {comparison.value[:80]!r} is no regular expression of RE2"
                ) from None
        return comparison

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether it holds for the labels of an alert; a label that is not there is empty."""
        value = labels.get(self.label, "")
        if self.operator.endswith("~"):
            # The whole value, as Alertmanager's matchers do, and by RE2 as there: no pattern takes
            # exponential time, in which nobody would be told of anything.
            pattern, values = f"^(?s:{self.value})$", pa.array([value], pa.string())
            is_fit = pc.match_substring_regex(values, pattern)[0].as_py()
            return bool(is_fit) == (self.operator == "=~")
        return (value == self.value) == (self.operator == "=")

    def __str__(self) -> str:
        return f"{self.label}{self.operator}{self.value}"


@dataclass(frozen=True)
class Silence:
    """A silence from `start` to `end` (us): why, and by whom."""

    id: str
    matchers: tuple[Matcher, ...]
    start: int
    end: int
    comment: str = ""
    author: str = ""

    def is_active(self, time_us: int) -> bool:
        """Whether it holds at a time, by whatever clock."""
        # It begins when it is published: whoever evaluates may have a clock that is behind the one
        # that it was made by, or that was set back since.
        return self.start - Clock.AHEAD <= time_us < self.end

    def covers(self, labels: Mapping[str, str], time_us: int) -> bool:
        """Whether nobody is told of an alert with these labels at a time."""
        return self.is_active(time_us) and all(m.holds(labels) for m in self.matchers)

    def entry(self) -> Record:
        """The entry of the manifest."""
        members = {
            "matchers": [str(matcher) for matcher in self.matchers],
            "start": self.start,
            "end": self.end,
            "comment": self.comment,
            "author": self.author,
        }
        return Record(ENTRY, self.id, members)

    @classmethod
    def from_entry(cls, entry: Record) -> Silence:
        """Read an entry. Raises KeyError, TypeError, ValueError where it is malformed."""
        m = entry.members
        matchers = tuple(map(Matcher.parse, m["matchers"]))
        return cls(entry.key, matchers, m["start"], m["end"], m["comment"], m["author"])


def of_state(store: Store, state: Manifest) -> list[Silence]:
    """The silences of a state, those that end soonest before others. Raises DamagedManifest."""
    silences = store.manifests.read_records(state, ENTRY, Silence.from_entry)
    return sorted(silences, key=lambda silence: (silence.end, silence.id))


def add(
    store: Store, branch: str, matchers: list[str], span: int, comment: str, author: str
) -> Silence:
    """Publish a silence that begins now, for a span (us); ended ones are removed after a week.
    Raises InvalidSetting."""
    if not matchers or not 0 < span <= _MOST_US:
        raise InvalidSetting(
            "a silence has at least one matcher, such as rule=NAME, and ends within 100 years"
        )
    start = disk.now_us()
    parsed = tuple(map(Matcher.parse, matchers))
    silence = Silence(disk.random_hex(4), parsed, start, start + span, comment, author)

    def plan(_: Head, state: Manifest) -> Change:
        # Ended ones go with a new one: nothing runs only for that.
        old = (s for s in of_state(store, state) if s.end < start - _KEPT_US)
        removals = tuple(Removal(ENTRY, s.id) for s in old)
        message = f"silence {', '.join(map(str, parsed))}"
        # For the log, which shows a line of it, however many matchers there are.
        return Change(OP, message[:200], entries=(*removals, silence.entry()))

    publish(store, branch, plan)
    return silence


def end(store: Store, branch: str, id: str) -> None:
    """Publish that a silence is over. Raises UnknownRef."""

    def plan(_: Head, state: Manifest) -> Change:
        if id not in (silence.id for silence in of_state(store, state)):
            raise UnknownRef(f"there is no silence {id!r}: see `lakelog alerts list`")
        return Change(OP, f"end silence {id}", entries=(Removal(ENTRY, id),))

    publish(store, branch, plan)
