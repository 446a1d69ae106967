"""Rules: questions that are asked of a branch again and again, and what an answer means.

A rule is an entry of kind `alert` in the manifest (FORMAT.md F6.21), as a view is, so every state
has the rules that held then. Removing a rule of which somebody was told leaves an entry without a
question, until the last receiver knows that it is over.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lakelog.disk import disk
from lakelog.entries import Record, Removal
from lakelog.errors import AlreadyExists, InvalidSetting, UnknownRef
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.refs import Head
from lakelog.runtime.closest import did_you_mean
from lakelog.search import expanded
from lakelog.settings import span_us
from lakelog.sql import identifier, literal
from lakelog.store import Store
from lakelog.values import JsonObject

ENTRY = "alert"
OP = "alert"
SEVERITIES = ("info", "warning", "critical")
CLOCKS = ("wall", "log")
NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_LEAST_US = 1_000_000
# A year and a day, so that a question about the year before is possible.
_MOST_US = 366 * 86_400_000_000
_TEXT_MAX = 100_000


@dataclass(frozen=True)
class AlertRule:
    """A rule: `query` is its SQL, or `search` words to count, or `view` the name of a view.

    Rows are firing, or with `above` or `below` those whose `value` column is. `labels_by` names the
    columns that tell alerts apart. Times are in us: it is asked `every` so often, its `window` ends
    now, and a row fires after it stood `wait` long. `sinks` are as `sinks.parse` takes them.
    """

    name: str
    query: str = ""
    search: str = ""
    view: str = ""
    value: str = ""
    above: float | None = None
    below: float | None = None
    labels_by: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    every: int = 60_000_000
    window: int = 300_000_000
    wait: int = 0
    timeout: int = 10_000_000
    severity: str = "warning"
    message: str = ""
    sinks: tuple[str, ...] = ("log",)
    samples: str = ""
    clock: str = "wall"
    time: int = 0
    is_removed: bool = False

    def checked(self) -> AlertRule:
        """Return it if its members are right, whatever its question. Raises InvalidSetting."""
        if not NAME.fullmatch(self.name):
            raise InvalidSetting(
                f"{self.name[:80]!r} is no name of a rule: use up to 100 letters, digits, - _ ."
            )
        if sum(map(bool, (self.query, self.search, self.view))) != 1:
            raise InvalidSetting(
                f"{self.name}: a rule has SQL, or --search, or --view, one of them"
            )
        if self.above is not None and self.below is not None:
            raise InvalidSetting(f"{self.name}: --above or --below, not both: make two rules")
        if not self.query and self.above is None and self.below is None:
            raise InvalidSetting(f"{self.name}: say from which value on it fires: --above N")
        # As JSON each of them would be null, which is no threshold: every row would fire.
        if not all(map(math.isfinite, (self.above or 0, self.below or 0))):
            raise InvalidSetting(f"{self.name}: --above and --below are finite numbers")
        if self.severity not in SEVERITIES:
            raise InvalidSetting(f"{self.name}: a severity is one of {', '.join(SEVERITIES)}")
        if self.clock not in CLOCKS:
            raise InvalidSetting(f"{self.name}: a clock is one of {', '.join(CLOCKS)}")
        for option, span in (("every", self.every), ("window", self.window)):
            if not _LEAST_US <= span <= _MOST_US:
                raise InvalidSetting(f"{self.name}: {option} is a span from 1s to 366d")
        if not 0 <= self.wait <= _MOST_US or not 10_000 <= self.timeout <= 3_600_000_000:
            raise InvalidSetting(f"{self.name}: for is a span up to 366d, timeout one up to 1h")
        if sum(map(len, (self.query, self.search, self.message, self.samples))) > _TEXT_MAX:
            raise InvalidSetting(f"{self.name}: its texts have more than {_TEXT_MAX:,} characters")
        return self

    @property
    def threshold(self) -> str:
        """What its value has to be, as people write it; empty where each row is firing."""
        if self.above is not None:
            return f"> {self.above:g}"
        return f"< {self.below:g}" if self.below is not None else ""

    def exceeds(self, value: float | None) -> bool:
        """Whether a value is firing. NULL and NaN are not."""
        if value is None:
            return False
        if self.above is not None:
            return value > self.above
        return self.below is not None and value < self.below

    def sql(self) -> str:
        """The question as SQL with `$since` and `$now`; searches are counted."""
        if self.view:
            return f"SELECT * FROM {identifier(self.view)}"
        if not self.search:
            return self.query.strip().rstrip(";")
        # The labels of a search are columns that the user names.
        columns = "".join(f"{identifier(name)}, " for name in self.labels_by)
        grouped = " GROUP BY ALL" if columns else ""
        return (
            f"SELECT {columns}count(*) AS value FROM events"
            f" WHERE {self.condition()} AND time >= $since AND time < $now{grouped}"
        )

    def condition(self) -> str:
        """The condition of the events that a search counts."""
        return expanded(f"search({literal(self.search)})")

    def entry(self) -> Record:
        """The entry of the manifest: members that are not as by default."""
        # Defaults are those of the version that reads it: an entry stays short, and follows them.
        usual = AlertRule(self.name).members()
        members = {name: v for name, v in self.members().items() if v != usual[name]}
        return Record(ENTRY, self.name, {**members, "time": self.time})

    def members(self) -> JsonObject:
        """All but the name, as an entry spells it."""
        spelled = {_SPELLED[n]: v for n, v in vars(self).items() if n in _SPELLED}
        lists = {n: list(v) for n, v in spelled.items() if isinstance(v, tuple)}
        return {**spelled, **lists, "labels": dict(self.labels)}

    @classmethod
    def from_entry(cls, entry: Record) -> AlertRule:
        """Read an entry. Raises KeyError, TypeError, ValueError where it is malformed."""
        return cls.from_members(entry.key, entry.members)

    @classmethod
    def from_members(cls, name: str, members: Mapping[str, object]) -> AlertRule:
        """Read members as the entry and the API have them. Raises TypeError, ValueError."""
        values: dict[str, object] = {}
        for column in dataclasses.fields(cls):
            # Members that are unknown are left out, as a newer version may have more.
            value = members.get(_SPELLED.get(column.name, ""))
            if value is not None:
                values[column.name] = _READ[str(column.type).partition("[")[0]](value)
        return cls(name=name, **values)  # type: ignore[arg-type]


def sink_id(spelled: str) -> str:
    """Return what stands for a sink in events."""
    # Of the whole text: a rule's receivers may differ in their options alone.
    return hashlib.sha256(spelled.encode()).hexdigest()[:12]


_SPELLED = {
    column: {"labels_by": "by", "wait": "for", "is_removed": "removed"}.get(column, column)
    for column in (field.name for field in dataclasses.fields(AlertRule))
    if column != "name"
}
"""The names of members in an entry, by those of the fields."""


def _span(value: object) -> int:
    if isinstance(value, str):
        return span_us(value)
    if not isinstance(value, int):
        raise TypeError("a span such as 5m is needed, or one in microseconds")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError("a number is needed")
    return float(value)


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise TypeError("a list of texts is needed")
    return tuple(map(str, value))


def _mapping(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TypeError("an object of texts is needed")
    return {str(name): str(label) for name, label in value.items()}


_READ: dict[str, Callable[[object], object]] = {
    "str": str,
    "float | None": _number,
    "tuple": _names,
    "Mapping": _mapping,
    "int": _span,
    "bool": bool,
}


def of_state(store: Store, state: Manifest) -> dict[str, AlertRule]:
    """The rules of a state by name. Raises DamagedManifest."""
    rules = store.manifests.read_records(state, ENTRY, AlertRule.from_entry)
    return {rule.name: rule for rule in rules}


def find(store: Store, branch: str, name: str) -> AlertRule:
    """The rule of that name. Raises UnknownRef."""
    # Removed rules stand until their receivers know, and for everybody else are gone.
    rules = {r.name: r for r in of_state(store, store.state(branch)).values() if not r.is_removed}
    if name not in rules:
        near = did_you_mean(name, rules) or "see `lakelog alerts list`"
        raise UnknownRef(f"there is no alert rule {name!r}: {near}")
    return rules[name]


def add(store: Store, branch: str, rule: AlertRule, *, replace: bool = False) -> Head:
    """Publish a rule whose question was tried, and return the head that has it. Raises
    InvalidSetting for members that are wrong, AlreadyExists for a name that is taken without
    `replace`."""
    # With the time of this change: a rule that is replaced counts as new.
    dated = dataclasses.replace(rule.checked(), time=disk.now_us())

    def plan(_: Head, state: Manifest) -> Change:
        present = of_state(store, state).get(rule.name)
        if present is not None and not present.is_removed and not replace:
            raise AlreadyExists(f"there is an alert rule {rule.name!r}: change it with --replace")
        return Change(OP, f"add {rule.name}", entries=(dated.entry(),))

    head = publish(store, branch, plan)
    assert head is not None
    return head


def remove(store: Store, branch: str, name: str, *, is_told: bool) -> None:
    """Publish that a rule is no more; `is_told` if a receiver may still have to know. Raises
    UnknownRef."""
    rule = find(store, branch, name)
    tombstone = dataclasses.replace(rule, is_removed=True)
    entry = tombstone.entry() if is_told else Removal(ENTRY, name)
    publish(store, branch, lambda _, __: Change(OP, f"remove {name}", entries=(entry,)))


def bury(store: Store, branch: str, name: str) -> None:
    """Publish that nobody has to know of a removed rule any more."""

    def plan(_: Head, state: Manifest) -> Change | None:
        rule = of_state(store, state).get(name)
        # It was added again meanwhile, or another process was faster.
        if rule is None or not rule.is_removed:
            return None
        return Change(OP, f"remove {name}", entries=(Removal(ENTRY, name),))

    publish(store, branch, plan)
