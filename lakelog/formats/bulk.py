"""Elasticsearch _bulk: an action line, then its document, paired line by line.

`_index` is the category, and the source where the document names none; what Elastic's schema has
under `log.level` is the level. `index` and `create` carry a document whose id is `_id`, so that it
is stored only once; `update` carries one under `doc` for the subject `_id`, and each update is an
event of its own; `delete` has no document and is no event.
"""

from __future__ import annotations

from typing import NamedTuple

from lakelog.errors import InvalidEvent
from lakelog.formats import jsonl
from lakelog.formats.dialects import NAMED
from lakelog.formats.format import EventMembers, Format, Traits
from lakelog.values import JsonObject, parse_line

ACTIONS = ("index", "create", "update", "delete")
_ECS, _FLUENT_BIT = NAMED["ecs"], NAMED["fluent-bit-document"]


class BulkAction(NamedTuple):
    """An action line of a _bulk request: what is done, and with what."""

    name: str
    properties: JsonObject

    @classmethod
    def of(cls, line: bytes) -> BulkAction | None:
        """Return the action of a line, None if it is no action line."""
        # The first bytes rule out nearly all documents without parsing them.
        start = line[:80].translate(None, b" \t\r\n")
        if not start.startswith((b'{"index"', b'{"create"', b'{"update"', b'{"delete"')):
            return None
        try:
            value = parse_line(line)
        except InvalidEvent:
            return None
        if len(value) != 1:
            return None
        name, properties = next(iter(value.items()))
        return cls(name, properties) if name in ACTIONS and isinstance(properties, dict) else None

    def event(self, line: bytes) -> EventMembers:
        """Return the event of the document under it. Raises InvalidEvent."""
        name, properties = self
        document = parse_line(line)
        if name == "update":
            if not isinstance(document.get("doc"), dict):
                raise InvalidEvent("an update without a doc object")
            document = document["doc"]
        level = _ECS.level_of(document) if _ECS.is_one(document) else None
        event = _FLUENT_BIT.event(document)  # any other is a plain line
        if level is not None and event.get("level") in (None, ""):
            event["level"] = level
        own_id, index = properties.get("_id"), properties.get("_index")
        # An index has one document of an _id, which updates change: for these it names what they
        # are about, and would hide all but the first as an event's id.
        column, spellings = (
            ("subject", ("subject", "item_id")) if name == "update" else ("id", ("id",))
        )
        if own_id is not None and all(event.get(k) is None for k in spellings):
            event[column] = own_id
        if index is not None and all(event.get(k) is None for k in ("category", "content_type")):
            event["category"] = index
        # Beats name their index for the program, so it is the best source there is.
        if index is not None and event.get("source") is None:
            event["source"] = index
        return event


class BulkRequest(Format):
    """The format of _bulk requests; lines are paired by the Transformer."""

    NAME = "bulk"
    traits = Traits(pairs=True, surest=1.1)

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these are pairs of a _bulk request."""
        full = [line for line in lines if line.strip()]
        if full and full[0].split(b" ")[0] in (b"POST", b"PUT"):
            # The request line of a saved request.
            full = full[1:]
        return self.traits.surest if full and BulkAction.of(full[0]) else 0.0

    def parse(self, line: bytes) -> EventMembers:
        """Return the event of one document. Raises InvalidEvent."""
        return jsonl.FORM.parse(line)


FORM = BulkRequest(__doc__)
