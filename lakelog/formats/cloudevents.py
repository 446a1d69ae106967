"""CloudEvents in JSON, a structured event a line: their members are those of JSON lines.

`id` and `source` are kept as identity, so that an event is stored once however often it is read.
Batches are documents.
"""

from __future__ import annotations

from dataclasses import dataclass

from lakelog.event.types import JsonObject
from lakelog.formats import jsonl
from lakelog.formats.dialect import Dialect
from lakelog.formats.format import EventMembers


@dataclass(frozen=True, eq=False)
class CloudEvents(Dialect):
    """The dialect of CloudEvents: known by its members, read as JSON lines are."""

    def event(self, members: JsonObject) -> EventMembers:
        """Return the event of an object."""
        return jsonl.typed(members)

    def query(self, lines: str) -> str:
        """SQL over a table of lines."""
        return jsonl.query(lines)

    def cheaper(self, lines: list[bytes]) -> list[str]:
        """Return cheaper queries for files whose lines look like these, the cheapest first."""
        return jsonl.FORM.cheaper(lines)


FORM = CloudEvents(
    "cloudevents",
    "CloudEvents 1.0 in JSON, one structured event per line.",
    fits=("specversion=[0-9.]+", "id", "source", "type"),
    time=("time",),
)
