"""Events of security products: CEF (ArcSight) and LEEF (QRadar), with or without a syslog header.

CEF:0|vendor|product|version|class|name|severity|key=value key=value …
LEEF:2.0|vendor|product|version|class|^|key=value^key=value …, LEEF 1.0 with tabs.

`source` is the product, `message` what `msg` says, else the name; the class is the `category`. All
pairs stay in `data` as text, the header's host too. The time is the first one that the pairs hold,
else that of the syslog header, else that of ingest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lakelog.errors import InvalidEvent
from lakelog.formats import pattern
from lakelog.formats.format import EventMembers, Format, Traits, share
from lakelog.formats.pattern import CLOCK, MONTH, Pattern
from lakelog.formats.zones import TZ
from lakelog.values import parse_time

_FIELD = r"((?:[^|\\]|\\.)*)\|"
_CEF = re.compile(rf"(?:([^|]*?)CEF: ?)?([01])\|{_FIELD * 6}(.*)", re.DOTALL)
_LEEF = re.compile(rf"([^|]*?)LEEF: ?([12](?:\.\d)?)\|{_FIELD * 4}(.*)", re.DOTALL)
_MARKED = re.compile(rb"CEF:|LEEF:|[01]\||.*EF:", re.DOTALL)
"""Beginnings of lines that may be such events; a relay may have cut off the name."""
_DELIMITER = re.compile(r"(?:(0?x[0-9A-Fa-f]{1,4})|([^|]?))\|")
_KEY = re.compile(r"(?:^|(?<=\s))([\w.\[\]-]+)=")
_ESCAPED = re.compile(r"\\([\\|=nr])")
_NAMES = ("vendor", "product", "version", "class", "name", "severity")
_TIMES = ("rt", "devTime", "UNIFIutcTime", "start", "end", "deviceReceiptTime")
_EPOCH = r"\d{10}(?:\.\d{1,9})?|\d{13}|\d{16}|\d{19}|\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*"
_HEADERS = tuple(
    Pattern(rf"(?:<\d{{1,3}}>)?(?:1 )?{regex}(?: .*)?", time, "", message="")
    for regex, time in (
        (rf"{MONTH} +(?P<day>\d{{1,2}}) {CLOCK}(?: (?P<host>[^ ]+))?", "?-{mon}-{day}T{clock}"),
        (
            rf"{MONTH} +(?P<day>\d{{1,2}}) (?P<year>\d{{4}}) {CLOCK}(?: (?P<host>[^ ]+))?",
            "{year}-{mon}-{day}T{clock}",
        ),
        (r"(?P<stamp>\d{4}-\d\d-\d\dT[^ ]+)(?: (?P<host>[^ ]+))?", "{stamp}"),
        (r"(?P<host>[^ :]+)", "-"),
    )
)
_WRITTEN = (
    Pattern(
        rf"{MONTH} +(?P<day>\d{{1,2}}) (?P<year>\d{{4}}) {CLOCK}(?: {TZ})?",
        "{year}-{mon}-{day}T{clock}{tz}",
        "",
        message="",
    ),
    Pattern(rf"{MONTH} +(?P<day>\d{{1,2}}) {CLOCK}", "?-{mon}-{day}T{clock}", "", message=""),
)
_SCALE = ("INFO",) * 4 + ("WARN",) * 3 + ("ERROR",) * 2 + ("FATAL",) * 2
"""Severities from 0 to 10: low, medium, high and very high."""
_WORDS = {"unknown": "INFO", "low": "INFO", "medium": "WARN", "high": "ERROR", "very-high": "FATAL"}


@dataclass(frozen=True, eq=False)
class Envelope(Format):
    """One of the two formats."""

    NAME: str
    about: str
    traits = Traits(prose=True, by_line=True)

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these are such events."""
        return share(lines, lambda line: _MARKED.match(line) and self.is_event(line))

    def parse(self, line: bytes) -> EventMembers:
        """Return the event of one line. Raises InvalidEvent."""
        record = pattern.decoded(line)
        match = (_CEF if self.NAME == "cef" else _LEEF).fullmatch(record)
        if not match:
            raise InvalidEvent(f"no event in {self.NAME.upper()}")
        head, _, *fields, extension = match.groups()
        pairs = _spaced(extension) if self.NAME == "cef" else _delimited(match[2], extension)
        data: dict[str, str] = dict(zip(_NAMES, map(_unescaped, fields), strict=False))
        host, moment = _header(head or "")
        if host:
            data["host"] = host
        for key, value in pairs:
            # The same key may come again, and no value may be lost.
            while key in data:
                key += "_"
            data[key] = value
        return _event(self.NAME, data, moment)


CEF, LEEF = Envelope("cef", __doc__), Envelope("leef", __doc__)


def _event(name: str, data: dict[str, str], moment: str) -> EventMembers:
    """The event of what an envelope holds, its header's time being `moment`."""
    event: EventMembers = {"type": name, "source": data["product"], "category": data["class"]}
    # The event's own time is better than that of the relay which wrote the header.
    moment = next(filter(None, (_time(data.get(key, "")) for key in _TIMES)), moment)
    if moment:
        event["time"] = moment
    message = data.get("msg") or data.get("name")
    if message:
        event["message"] = message
    severity = data.get("severity") or data.get("sev") or ""
    level = _WORDS.get(severity.lower(), "")
    if severity.isascii() and severity.isdigit() and int(severity[:3]) < len(_SCALE):
        level = _SCALE[int(severity)]
    if level:
        event["level"] = level
    return event | {"data": data}


def _header(header_text: str) -> tuple[str, str]:
    """The host and the time of a syslog header, empty where it has none."""
    for header in _HEADERS:
        values = header.groups(header_text.strip())
        if values is not None:
            moment = header.event(values).get("time", "")
            return values["host"] or "", _time(moment) if moment else ""
    return "", ""


def _time(moment: str) -> str:
    """A time as all formats read it, empty for text that is none."""
    for pattern_ in _WRITTEN:
        values = pattern_.groups(moment)
        if values is not None:
            moment = str(pattern_.event(values)["time"])
    try:
        return moment if re.fullmatch(_EPOCH, moment, re.ASCII) and parse_time(moment) else ""
    except InvalidEvent:
        return ""


def _spaced(extension: str) -> Iterator[tuple[str, str]]:
    """The pairs of CEF: a value ends at the next key."""
    keys = list(_KEY.finditer(extension))
    before = extension[: keys[0].start()] if keys else extension
    if before.strip():
        yield "extension", before.strip()
    # Values hold spaces unquoted, so only the next key says where one ends.
    ends = [*(key.start() for key in keys[1:]), len(extension)]
    for key, end in zip(keys, ends, strict=False):
        yield key[1], _unescaped(extension[key.end() : end].rstrip())


def _delimited(version: str, extension: str) -> Iterator[tuple[str, str]]:
    """The pairs of LEEF; what has no key goes with the pair before it."""
    delimiter = "\t"
    # LEEF 2 may declare its delimiter, as a character or in hex (IBM, LEEF 2.0).
    declared = _DELIMITER.match(extension) if version.startswith("2") else None
    if declared:
        extension = extension[declared.end() :]
        digits, sign = declared.groups()
        delimiter = chr(int(digits.rpartition("x")[2], 16)) if digits else sign or delimiter
    pairs: list[list[str]] = []
    for pair in extension.split(delimiter):
        key, sign, value = pair.partition("=")
        if sign and key.strip():
            pairs.append([key.strip(), value])
        elif pairs and pair:
            # Values are not escaped, and may hold the delimiter.
            pairs[-1][1] += delimiter + pair
        elif pair.strip():
            pairs.append(["extension", pair])
    yield from ((key, value) for key, value in pairs)


def _unescaped(value: str) -> str:
    signs = {"n": "\n", "r": "\r"}
    return _ESCAPED.sub(lambda m: signs.get(m[1], m[1]), value) if "\\" in value else value
