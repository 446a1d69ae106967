"""Events that lakelog exported as JSON: objects with all the columns of the table `events`.

An object that has exactly these members is an event of another lake. What a lake
assigns to an event (when and from which file it was ingested, its `seq`) is left out, so that the
event is the same as before; any other object is read as JSON lines are.
"""

from __future__ import annotations

from lakelog.event import EVENT_COLUMNS, assigned_columns
from lakelog.formats import jsonl, sqltext
from lakelog.formats.dialect import objects
from lakelog.formats.format import EventMembers, Format, Traits
from lakelog.formats.jsonl import JsonLines
from lakelog.sql import literal
from lakelog.values import JsonObject, parse_line

_OWN = (
    r',"ingested_at":"[^"]*","origin":(?:"[^"\\]*"|null),"position":(?:[0-9]+|null)'
    r'(?:,"seq":(?:[0-9]+|null))?\}\s*$'
)


class LakelogJson(Format):
    """The format of exported events, and the dialect of such elements of documents."""

    NAME = "lakelog"
    traits = Traits(surest=1.03)

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these lines were exported."""
        members = objects(tuple(lines))
        fits = sum(map(self.is_one, members))
        if not fits or 2 * fits < len(members):
            return 0.0
        return self.traits.surest * jsonl.FORM.sniff(lines)

    def is_one(self, members: JsonObject) -> bool:
        """Whether an object has the members of an exported event and no others."""
        return bool(assigned_columns(members))

    def parse(self, line: bytes) -> EventMembers:
        """Return the event of one line. Raises InvalidEvent."""
        return self.event(parse_line(line))

    def event(self, members: JsonObject) -> EventMembers:
        """Return the event of an object. Raises InvalidEvent."""
        own_columns = assigned_columns(members)
        return jsonl.FORM.typed({k: v for k, v in members.items() if k not in own_columns})

    def _query(self) -> str:
        return self.query("lines")

    def query(self, lines: str) -> str:
        """SQL over a table of lines for those that are as lakelog writes them."""
        keys = [f"'{name}'" for name in EVENT_COLUMNS]
        bare, full = f"[{', '.join(keys)}]", f"[{', '.join([*keys, chr(39) + 'seq' + chr(39)])}]"
        pattern = literal(_OWN)
        stripped = f"""(SELECT regexp_replace(line, {pattern}, '}}') AS line, position
          FROM (SELECT {sqltext.VALID} AS line, position FROM {lines})
          WHERE regexp_matches(line, {pattern}) AND json_keys(line) IN ({bare}, {full}))"""
        return jsonl.query(stripped)


FORM = LakelogJson(__doc__)


class ColumnarRows(JsonLines):
    """The name of a columnar container, whose rows come as lines of JSON: see columnar.py."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Files of {name.capitalize()}, whose columns are mapped by name.")
        self.NAME = name

    def sniff(self, lines: list[bytes]) -> float:
        """Its lines look like JSON lines, which are what they are without its name."""
        return 0.0
