"""The samples of formats: texts, and the events that each of them must give.

`lakelog/formats/samples` has a table for each sample, under the name of its format:

- `text` is a record, or a file of several; `file` is the name of the file, where that matters.
- `detected` is the format that the text alone is taken for, if it is another one.
- `reason` is why the text is no event of the format.
- `by_rule` says that no query decides it, though the format has one.
- The columns of the event, and `data` as JSON text, stand beside the text; of several events in the
  tables `events`. The type is `log` unless said otherwise. A time is in UTC; it begins with a
  question mark where the text does not say the year, and is missing where it says no time.
"""

from __future__ import annotations

import functools
import json
import tomllib
from dataclasses import dataclass
from typing import Any

from tests.support.tree import ROOT
from tests.support.two_ways import parsed

Event = dict[str, Any]
COLUMNS = ("time", "type", "category", "level", "source", "subject", "message", "id", "data")
FILE = "some.log"


@dataclass(frozen=True)
class Sample:
    """A text and what it says; `number` counts those of a format."""

    name: str
    number: int
    text: str
    events: tuple[Event, ...]
    file: str = FILE
    detected: str = ""
    reason: str = ""
    by_rule: bool = False

    @property
    def label(self) -> str:
        """What a test calls it."""
        return f"{self.name}-{self.number}"

    @property
    def content(self) -> bytes:
        """The bytes of its file."""
        return self.text.encode() if self.text.endswith("\n") else f"{self.text}\n".encode()

    @property
    def is_line(self) -> bool:
        """Whether it is one line of a file of any name."""
        return "\n" not in self.text and self.file == FILE


def _sample(name: str, number: int, table: dict[str, Any]) -> Sample:
    text, reason = table["text"], table.get("reason", "")
    options = {key: table[key] for key in ("file", "by_rule") if key in table}
    events = table.get("events") or ([] if reason else [table])
    described = tuple(
        {"type": "log", **{key: event[key] for key in COLUMNS if key in event}} for event in events
    )
    detected = table.get("detected", name)
    return Sample(name, number, text, described, detected=detected, reason=reason, **options)


@functools.cache
def all_samples() -> tuple[Sample, ...]:
    """All samples in the order of their files."""
    return tuple(
        _sample(name, number, table)
        for path in sorted((ROOT / "lakelog/formats/samples").glob("*.toml"))
        for name, tables in tomllib.loads(path.read_text()).items()
        for number, table in enumerate(tables)
    )


def samples_of(name: str) -> list[Sample]:
    """The samples of a format."""
    return [sample for sample in all_samples() if sample.name == name]


def lines_of(name: str) -> list[str]:
    """The samples of a format that are single lines."""
    return [sample.text for sample in samples_of(name) if sample.is_line]


def objects_of(name: str) -> list[dict[str, Any]]:
    """The samples of a dialect of JSON lines."""
    return [json.loads(line) for line in lines_of(name)]


def assert_events(found: list[Event], expected: tuple[Event, ...]) -> None:
    """Check rows against the events of a sample; `time` is None where it is that of the ingest."""
    assert [_shown(row) for row in found] == [
        {**event, "data": parsed(event.get("data"))} | _time_of(event, row)
        for event, row in zip(expected, [*found, *expected[len(found) :]], strict=False)
    ]


def _shown(row: Event) -> Event:
    columns = {name: row[name] for name in COLUMNS if row.get(name) is not None}
    return {**columns, "data": parsed(row["data"])}


def _time_of(event: Event, row: Event) -> Event:
    """The time that is expected, of the year that was found where the text does not say it."""
    time = event.get("time")
    if time is None:
        return {}
    return {"time": time.replace("?", str(row["time"])[:4])}
