"""Events of Windows as XML, and as evtx_dump writes them with a line before each.

wevtutil, Get-WinEvent and Event Viewer write XML, an event a line, all in one line under <Events>,
or over many lines; evtx_dump writes `Record 1` and a declaration, or JSON, before each. XML means
what evtx_dump's JSON of it means, as which it is read; numbers of <System> are numbers.

Document types and entities are refused, and so is nesting deeper than DEPTH_MAX.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lakelog.errors import InvalidEvent
from lakelog.formats.dialects import NAMED
from lakelog.formats.format import EventMembers, Format, Traits, utf8
from lakelog.runtime.lazy import Lazy
from lakelog.values import JsonObject, parse_line

if TYPE_CHECKING:
    from xml.parsers import expat
else:
    expat = Lazy("xml.parsers.expat")


DEPTH_MAX = 64
_HEAD = 4096
_BETWEEN = r"(?:\s|Record \d+|<\?xml[^>]*\?>|</?Events[^>]*>)*"
_XML = re.compile(rf"{_BETWEEN}<Event[ >]".encode())
_DUMP = re.compile(rb'\s*Record \d+\s*\{\s*"Event"\s*:')
_EVENT = re.compile(r"<Event[ >].*?</Event>", re.DOTALL)
_RECORD = re.compile(r"\s*Record \d+\s*(?=\{)")
_OWN = (b"schemas.microsoft.com/win/", b"<System>")
_NUMBERS = (
    "EventID",
    "Version",
    "Level",
    "Task",
    "Opcode",
    "EventRecordID",
    "ProcessID",
    "ThreadID",
    "Qualifiers",
)


class WindowsEvents(Format):
    """The format; events are read one by one."""

    NAME = "winevent"
    traits = Traits(begins=r"^\s*<Event[ >]|^\{", whole=True, many=True)

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these are events of Windows."""
        head = b"\n".join(lines)[:_HEAD]
        if _XML.match(head) and any(mark in head for mark in _OWN):
            return 1.0
        return 1.0 if _DUMP.match(head) else 0.0

    def complete(self, record: bytes) -> bool:
        """Whether a record that nothing follows yet has its end."""
        return record.rstrip().endswith((b"</Event>", b"</Events>", b"\n}"))

    def parse(self, record: bytes) -> list[EventMembers]:
        """Return the events of a record. Raises InvalidEvent."""
        decoded = utf8(record).removeprefix("\ufeff")
        bare = re.sub(r"\s*Record \d+\s*$", "", _RECORD.sub("", decoded, count=1))
        if bare.lstrip()[:1] == "{":
            return [NAMED["evtx"].event(parse_line(bare.encode()))]
        if not re.fullmatch(_BETWEEN, _EVENT.sub("", decoded)):
            raise InvalidEvent("not a Windows event: text outside of <Event>, or one without end")
        elements = _EVENT.findall(decoded)
        return [_event(element, alone=len(elements) == 1) for element in elements]


FORM = WindowsEvents(__doc__)


@dataclass
class _Node:
    """An element of XML as far as it is read."""

    name: str
    attributes: dict[str, str]
    children: list[_Node] = field(default_factory=list)
    text: str = ""


def _event(element: str, *, alone: bool) -> EventMembers:
    """The event of an element; a damaged one among others of its record is kept as text."""
    try:
        members = {"Event": _value(_tree(element))}
        if not NAMED["evtx"].is_one(members):
            raise InvalidEvent("not a Windows event: no EventID or no TimeCreated in <System>")
        return NAMED["evtx"].event(members)
    except InvalidEvent:
        if alone:
            raise
        return {"type": NAMED["evtx"].type, "message": element}


def _tree(element: str) -> _Node:
    """The element that a text is. Raises InvalidEvent."""
    root = _Node("", {})
    stack = [root]

    def start(name: str, attributes: dict[str, str]) -> None:
        # _value() recurses: without a limit a deep document would exhaust the stack.
        if len(stack) > DEPTH_MAX:
            raise InvalidEvent(f"XML is nested deeper than {DEPTH_MAX} levels")
        node = _Node(name, attributes)
        stack[-1].children.append(node)
        stack.append(node)

    def refuse(*_: object) -> None:
        raise InvalidEvent("XML with a document type or entities of its own is not read")

    def add(data: str) -> None:
        stack[-1].text += data

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.CharacterDataHandler = start, add
    parser.EndElementHandler = lambda _: stack.pop()
    # Entities that refer to each other may expand to gigabytes.
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(element, True)
    except expat.ExpatError as error:
        raise InvalidEvent(f"not XML: {error}") from None
    return root.children[0]


def _value(node: _Node) -> Any:
    """The JSON value of an element: its text, or attributes, text and children by name."""
    content = node.text.strip() if node.children else node.text
    plain = _number(node.name, content) if content.strip() else None
    if not node.attributes and not node.children:
        return plain
    value: JsonObject = {}
    if node.attributes:
        value["#attributes"] = {k: _number(k, v) for k, v in node.attributes.items()}
    if plain is not None:
        value["#text"] = plain
    return value | _members(node)


def _members(node: _Node) -> JsonObject:
    """The children by their names, <Data> by the names they are given; a list of several."""
    several: dict[str, list[object]] = {}
    for child in node.children:
        name, value = child.name, _value(child)
        if name == "Data" and "Name" in child.attributes:
            name, value = child.attributes["Name"], child.text or None
        several.setdefault(name, []).append(value)
    members = {name: values if len(values) > 1 else values[0] for name, values in several.items()}
    if isinstance(members.get("Data"), list):
        members["Data"] = {"#text": members["Data"]}
    return members


def _number(name: str, content: str) -> int | str:
    return (
        int(content) if name in _NUMBERS and re.fullmatch(r"0|[1-9]\d{0,17}", content) else content
    )
