"""JSON documents: arrays of events, `{"Records": [...]}`, and objects over several lines.

Each element of an array is an event, in the dialect of the first one, else as a JSON line is; so
are the elements of the lists named in LISTS, beside which the other members of their document
stay in `data`. Any other object is one event. An element that can be no event (it is no object,
or its time is none) is kept whole as `data`, so that the others of its document are not lost.

Where a file begins with an array whose elements stand on lines of their own, at one depth, each
element is a record: such a file may be of any size. So is each line of a file of objects that end
with commas. Else a document is a record.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import orjson

from lakelog import arrays
from lakelog.errors import InvalidEvent
from lakelog.event import EncodedBatch
from lakelog.formats import dialects, jsonl, lakelog_json, sqltext
from lakelog.formats.dialect import Dialect, glimpse
from lakelog.formats.format import EventMembers, Format, Heads, Traits
from lakelog.formats.sqltext import VALID
from lakelog.libraries import np, pa, pc
from lakelog.sql import literal
from lakelog.values import JsonObject, parse_line, parse_value

LISTS = ("Records", "records", "logEvents")
"""Members whose elements are events: of CloudTrail and S3, of Azure, of CloudWatch."""
_ANSWER = "events"
"""Such a member in responses of CloudWatch; other documents use the name for other lists."""
_NAMES = "|".join(LISTS)
_OPEN = r"^\s*(?:\[|\{\s*\"(?:" + _NAMES + r")\"\s*:\s*\[)\s*"
_CLOSE = r"\s*(?:,|\](?:\s*\})?)\s*$"
_LISTED = re.compile((r'\s*\{\s*"(?:' + _NAMES + r')"\s*:\s*\[\s*(?:[{\]]|$)').encode())
_ARRAY = re.compile(rb"\s*\[\s*(?:[{\]]|$)")
_CLOUDWATCH = re.compile(
    rb'\s*\{[^{[]*"messageType"\s*:\s*"DATA_MESSAGE"|\s*\{\s*"events"\s*:\s*\[\s*\{'
    rb'[^{[]*"(?:ingestionTime|eventId)"\s*:'
)
_PRETTY = re.compile(rb"\s*\{[^\n]*(?<=[{\[,])[ \t\r]*\n\s*[^{\s]|\s*\{\s*\n\s*\"")
_ELEMENTS = re.compile(rb"\s*\{[^\n]*\},[ \t\r]*\n(?:\s*\{|\s*\Z)")
"""A piece of an array whose bracket is in no line of it: a comma ends each object."""
_FIRST = re.compile(
    rb"\s*(?:\[|\{\s*\"(?:" + _NAMES.encode() + rb")\"\s*:\s*\[)[ \t\r]*\n([ \t]*)\{"
)
_OPENED = rf"^(?:\[|(?:\{{\s*|\s*)\"(?:{_NAMES})\"\s*:\s*\[)\s*$"
_INNER: tuple[Dialect | lakelog_json.LakelogJson, ...] = (lakelog_json.FORM, *dialects.LINES)
_HEAD = 4096
_SHIFT = 32
"""Events of a document are counted in so many bits of a position."""
_TRAITS = Traits(begins=r"^[{\[]", whole=True, many=True, surest=1.05)


@dataclass(frozen=True, eq=False)
class Documents(Format):
    """The format of documents; `inner` says what their elements are.

    `indent` is the white space before each element that is a record of its own.
    """

    about: str
    inner: Dialect | lakelog_json.LakelogJson | None = None
    indent: str | None = None
    traits: Traits = _TRAITS
    NAME = "json"

    def _query(self) -> str:
        names = ", ".join(f"'{name}'" for name in (*LISTS, _ANSWER))
        lists = " ".join(
            f"WHEN keys = ['{name}'] AND json_type(line, '$.{name}') = 'ARRAY'"
            f" THEN json_extract(line, '$.{name}[*]')::VARCHAR[]"
            for name in LISTS
        )
        parts = f"""CASE kind WHEN 'ARRAY' THEN json_extract(line, '$[*]')::VARCHAR[]
          WHEN 'OBJECT' THEN CASE {lists}
            WHEN NOT list_has_any(keys, [{names}]) THEN [line] END END"""
        # A record may be one element of an array, with the brackets and commas around it.
        bare = f"regexp_replace(regexp_replace(line, {literal(_OPEN)}, ''), {literal(_CLOSE)}, '')"
        inner = self.inner.query if self.inner else jsonl.query
        # Elements are numbered within their document by shifting its position; a document of which
        # any element is slow is left as a whole: its events are never split between the two ways.
        return f"""
WITH docs AS MATERIALIZED (
  SELECT line, position, json_type(line) AS kind,
    CASE WHEN json_type(line) = 'OBJECT' THEN json_keys(line) END AS keys
  FROM (SELECT {VALID} AS line, position FROM (
    SELECT CASE WHEN json_valid(line) THEN line ELSE {bare} END AS line, position FROM lines))),
cut AS MATERIALIZED (
  SELECT position, {parts} AS parts FROM docs
  WHERE line IS NOT NULL AND NOT {sqltext.document_sql("line")}),
elements AS MATERIALIZED (
  SELECT unnest(parts) AS line,
    (position << {_SHIFT}) + generate_subscripts(parts, 1) - 1 AS position FROM cut),
decided AS MATERIALIZED ({inner("elements")}),
whole AS MATERIALIZED (
  SELECT position FROM cut JOIN (
    SELECT position >> {_SHIFT} AS position, count(*) AS found, bool_or(slow) AS any_slow
    FROM decided GROUP BY 1) USING (position)
  WHERE found = len(parts) AND NOT any_slow)
SELECT * REPLACE (position >> {_SHIFT} AS position), position & {(1 << _SHIFT) - 1} AS nth
FROM decided WHERE (position >> {_SHIFT}) IN (SELECT position FROM whole)"""

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that this is a document and not JSON lines."""
        head = b"\n".join(lines)[:_HEAD]
        if _LISTED.match(head) or _CLOUDWATCH.match(head):
            return self.traits.surest
        if _ARRAY.match(head):
            return 1.02
        # Only a line that is here whole is known to end with a comma.
        whole = head if len(head) == _HEAD else head + b"\n"
        return 1.02 if _PRETTY.match(head) or _ELEMENTS.match(whole) else 0.0

    def specialize(self, head: bytes) -> Documents:
        """Return the form for a file by its first element."""
        head = head[:_HEAD]
        document = _FIRST.match(head)
        indent = document[1].decode() if document else None
        begins = rf"^(?:[{{\[]|{indent}\{{)" if indent else self.traits.begins
        element = _first_element(head)
        inner = next((d for d in _INNER if element and d.is_one(element)), None)
        return replace(self, inner=inner, indent=indent, traits=replace(self.traits, begins=begins))

    def heads(self, lines: pa.Array, starts: np.ndarray) -> Heads:
        """A mask of the lines that begin a record; an opening bracket is part of the first one."""
        begins = arrays.truths(pc.match_substring_regex(lines, self.traits.begins))
        if self.indent is not None:
            starts_document = arrays.truths(pc.match_substring_regex(lines, _OPENED))
            begins[1:] &= ~starts_document[:-1]
        return begins, None

    def complete(self, record: bytes) -> bool:
        """Whether a record that nothing follows yet has its end."""
        final_byte = record.rstrip()[-1:]
        # The cheap test first: an open record would be parsed again whenever something is appended.
        if final_byte not in (b"}", b"]", b",") or (final_byte == b"," and self._goes_on(record)):
            return False
        try:
            orjson.loads(record)
        except orjson.JSONDecodeError:
            return _value(record) is not None
        return True

    def parse(self, record: bytes) -> list[EventMembers]:
        """Return the events of a document. Raises InvalidEvent."""
        try:
            value = parse_value(record)
        except InvalidEvent:
            elements = _value(record)
            if elements is None:
                raise
            value = elements[0] if elements else []
        return self.events_of(value)

    def events_of(self, document: Any) -> list[EventMembers]:
        """Return the events of a document that was parsed already. Raises InvalidEvent."""
        return [self._event(element, siblings) for element, siblings in _elements(document)]

    def _goes_on(self, record: bytes) -> bool:
        """Whether an array was opened whose elements are no records of their own."""
        return self.indent is None and re.match(_OPEN.encode(), record) is not None

    def _event(self, element: Any, siblings: JsonObject) -> EventMembers:
        try:
            members = _as_object(element)
            members = {**siblings, **members} if siblings else members
            event = self.inner.event(members) if self.inner else jsonl.FORM.typed(dict(members))
            # Refused here, an element is kept as data; later it would spoil its whole document.
            EncodedBatch.of([event])
            return event
        except InvalidEvent:
            payload = {**siblings, "data": element} if siblings else element
            return {"type": sqltext.DEFAULT_TYPE, "data": payload}


FORM = Documents(__doc__)


def _elements(value: Any) -> list[tuple[Any, JsonObject]]:
    """The events of a document, each with the other members of the object around their list."""
    if isinstance(value, list):
        return [(element, {}) for element in value]
    # An answer of a search has its hits in an object; elsewhere that name means nothing.
    lists = (*LISTS, _ANSWER) if _is_answer(value) else LISTS
    name = next(
        (n for n in lists if isinstance(value, dict) and isinstance(value.get(n), list)), ""
    )
    if not name:
        return [(value, {})]
    siblings = {k: v for k, v in value.items() if k != name}
    return [(element, siblings) for element in value[name]]


def _is_answer(value: object) -> bool:
    """Whether a document is what CloudWatch answers."""
    events = value.get(_ANSWER) if isinstance(value, dict) else None
    event = events[0] if isinstance(events, list) and events else None
    return isinstance(event, dict) and dialects.NAMED["cloudwatch"].is_one(event)


def _as_object(element: object) -> JsonObject:
    """An element as a line of its own would be read. Raises InvalidEvent."""
    if isinstance(element, dict):
        return element
    return parse_line(orjson.dumps(element))


def _value(record: bytes) -> list[Any] | None:
    """The element in a piece of an array, without the brackets and the comma around it.

    Returns an empty list where there is no element, None for text that is no piece of an array.
    """
    opening = re.match(_OPEN.encode(), record)
    inner = record[opening.end() if opening else 0 :].rstrip()
    before = inner[:-1].rstrip()
    # The end of an object around the array: `]}`.
    if inner.endswith(b"}") and before.endswith(b"]"):
        inner = before
    inner = inner[:-1].strip() if inner[-1:] in (b",", b"]") else inner
    try:
        return [parse_value(inner)] if inner else []
    except InvalidEvent:
        return None


def _first_element(head: bytes) -> JsonObject | None:
    """The first object that is an event, as far as it can be seen."""
    element_found = next((element for element, _ in _elements(glimpse(head))), None)
    return element_found if isinstance(element_found, dict) else None
