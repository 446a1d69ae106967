"""Settings of a lake: text a user may write, kept in lakelog.json, at most a dozen; and the version
of the package."""

from __future__ import annotations

import dataclasses
import re

from lakelog.errors import InvalidSetting
from lakelog.runtime.closest import did_you_mean

VERSION = "0.1.0"
"""Of the package, for all that tell it."""
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "k": 10**3, "m": 10**6}
_SPANS = {"us": 1, "ms": 10**3, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}
_SPANS["w"] = 7 * _SPANS["d"]
# Zero means a share of the memory, one thread per core, and no span of time at all.
_ZERO = ("memory_bytes", "threads", "gc_grace_hours", "history_days", "history_dense_hours")
_TASK_MEMORY, _MEMORY_MIN = 1_000_000_000, 8_000_000
SEAL_CHOICES = ("auto", "inline", "never")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How one lake rotates, seals, compacts and collects. All sizes in bytes."""

    rotate_bytes: int = 16_000_000
    """A WAL file is rotated once it holds this much JSON."""
    rotate_events: int = 100_000
    """A WAL file is rotated once it holds this many events."""
    rotate_seconds: int = 60
    """A WAL file is rotated this long after its first frame."""
    seal: str = "auto"
    """auto: a helper process seals rotated files; inline: the writer does; never: others do."""
    segment_rows: int = 1_000_000
    """Compaction aims at segments of at most this many rows."""
    segment_bytes: int = 128_000_000
    """Compaction aims at segments of at most this size."""
    memory_bytes: int = 0
    """Memory the SQL engine may take in each process; 0 is a quarter of that of the machine or
    container for queries, and 1 GB for compaction and caches."""
    threads: int = 0
    """Threads the SQL engine may use; 0 is one per core."""
    gc_grace_hours: int = 24
    """How long a file stays after it was first seen unreferenced."""
    history_days: int = 30
    """How long moves are kept reachable for rollback and time travel."""
    history_dense_hours: int = 1
    """How long every state is kept; older ones that no user made thin out to one a minute, after a
    day to one an hour, after a week to one a day."""

    @property
    def task_memory(self) -> int:
        """Bytes for work that is not a query: compaction, and what is kept between queries."""
        return self.memory_bytes or _TASK_MEMORY

    def unlike(self, other: Settings | None = None) -> dict[str, object]:
        """Return the settings that differ from those of another lake, or of another time; without
        one from the defaults, so that later defaults reach old lakes."""
        pairs = ((name, getattr(self, name)) for name in NAMES)
        return {n: value for n, value in pairs if value != getattr(other or DEFAULTS, n)}

    def over(self, present: dict[str, object], before: Settings) -> dict[str, object]:
        """Return the settings that a lake has at present with those changed that differ from
        `before`: somebody else may have changed others. Raises InvalidSetting."""
        return parse(self.unlike(before), parse(present)).unlike()

    def require_memory(self) -> None:
        """Raise InvalidSetting where the SQL engine could answer nothing, as with 8 for 8GB."""
        # Not where a lake is opened: one that has less must open, so that it can be changed.
        if 0 < self.memory_bytes < _MEMORY_MIN:
            raise InvalidSetting("setting memory_bytes must be 8MB or more, or 0 for a share")


DEFAULTS = Settings()
NAMES = tuple(f.name for f in dataclasses.fields(Settings))


def parse(pairs: dict[str, object], base: Settings = DEFAULTS) -> Settings:
    """Return `base` with `pairs` laid over it; values may be text such as `16MB`.

    Raises InvalidSetting for an unknown name or a value of the wrong kind.
    """
    changes: dict[str, object] = {}
    for name, value in pairs.items():
        if name not in NAMES:
            raise unknown_setting(name)
        changes[name] = _choice(name, value) if name == "seal" else _number(name, value)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def unknown_setting(name: str) -> InvalidSetting:
    """Return the error for a setting that does not exist."""
    hint = did_you_mean(name, NAMES) or f"choose from {', '.join(NAMES)}"
    return InvalidSetting(f"no setting {name!r}: {hint}")


def span_us(span: str) -> int:
    """Parse a duration such as `30d`, `12h`, `15m`, `90s` into microseconds."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d|w)\s*", span)
    if not match:
        raise InvalidSetting(f"{span!r} is not a duration: write it as 30d, 12h, 15m or 90s")
    # 146,000 years are as good as more: no event is older, and 64 bits hold that time.
    return int(min(float(match[1]) * _SPANS[match[2]], 1 << 62))


def _choice(name: str, value: object) -> str:
    if value not in SEAL_CHOICES:
        raise InvalidSetting(f"setting {name} is one of {', '.join(SEAL_CHOICES)}, not {value!r}")
    return str(value)


def _number(name: str, value: object) -> int:
    match = re.fullmatch(r"\s*(\d+)\s*([a-zA-Z]*)\s*", str(value))
    unit = match[2].lower() if match else "?"
    counted = name.endswith(("_seconds", "_hours", "_days", "threads"))  # 1m is no minute there
    if not match or unit not in (("",) if counted else _UNITS) or isinstance(value, bool):
        raise InvalidSetting(f"setting {name} is a whole number such as 60 or 16MB, not {value!r}")
    number = int(match[1]) * _UNITS[unit]
    if number == 0 and name not in _ZERO:
        raise InvalidSetting(f"setting {name} must be above 0")
    # A bound, so that it stays an integer of 64 bits on disk.
    if number > 2**62:
        raise InvalidSetting(f"setting {name} is too large")
    return number
