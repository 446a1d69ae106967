"""Programs under docker compose: the name of a service, a bar, and JSON, pairs or another line.

An object is read as a line of JSON of its dialect is, pairs as those of logfmt are if they say when
it was, and lines of other programs beside them as the style is that they have without the service.
`source` is the service; what a line itself calls its source stays in `data`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lakelog.errors import InvalidEvent
from lakelog.event import Severity, merge
from lakelog.formats import container_levels, dialects, leading_times, logfmt, pattern
from lakelog.formats.format import EventMembers, Format, Traits
from lakelog.values import parse_line

_COLOURS = pattern.COLOURS
_LINE = re.compile(
    rf"{_COLOURS}([\w.-]+) *{_COLOURS} *\| *{_COLOURS} *(\{{.*\}}){_COLOURS}", re.ASCII
)
_BAR = re.compile(rf"{_COLOURS}([\w.-]+) *{_COLOURS} *\| *{_COLOURS} *(?=[\w.-]+=)", re.ASCII)
_PREFIX = re.compile(rf"(?:{_COLOURS})([\w.-]+) *{_COLOURS} *\|(?:{_COLOURS}) ".encode(), re.ASCII)
"""The prefix of a line that is no object."""
_OF_DOCKER = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6,9}Z ")
"""The time that docker puts before each line, if it was told to: a style reads those."""
_TIMED, _UNTIMED = 1.0, 0.5
"""What lines of other programs count, by whether they say their time."""


class ComposeJson(Format):
    """The format of objects after the names of services."""

    NAME = "compose-json"
    traits = Traits(by_line=True)

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these are lines after the names of services, some
        of which are objects or begin with a time."""
        scores = [self._score(line) for line in lines if line.strip()]
        return sum(scores) / len(scores) if any(s > _UNTIMED for s in scores) else 0.0

    def _score(self, line: bytes) -> float:
        match = _PREFIX.match(line)
        if self.is_event(line) or match is None or Severity.of(match[1].decode()):
            return float(self.is_event(line))
        inner = line[match.end() :]
        if _OF_DOCKER.match(inner.lstrip()):
            return 0.0
        time = leading_times.find(inner.decode("utf-8", "replace").strip())
        return _TIMED if time and time.alone and time.begins else _UNTIMED

    def parse(self, line: bytes) -> EventMembers:
        """Return the event of one line. Raises InvalidEvent."""
        line_text = pattern.decoded(line)
        match = _LINE.fullmatch(line_text)
        if match is None:
            return self._of_pairs(line_text)
        members = parse_line(match[2].encode())
        event = dialects.event_of(members)
        own_source, event["source"] = event.get("source"), match[1]
        if own_source is not None and members.get("source") == own_source:
            event["data"] = merge(event.get("data"), {"source": own_source})
        return event

    def _of_pairs(self, line_text: str) -> EventMembers:
        match = _BAR.match(line_text)
        if match is None:
            raise InvalidEvent("no service with an object or pairs behind a bar")
        event = logfmt.FORM.parse(line_text[match.end() :].encode())
        if "time" not in event:
            raise InvalidEvent("no time in the pairs behind the bar")
        # the logger, which is the source otherwise, is in the payload already
        event["source"] = match[1]
        return event


FORM = ComposeJson(__doc__)


def of_service(
    line: bytes, event: EventMembers, parse: Callable[[bytes], EventMembers | None]
) -> EventMembers:
    """Return the event of a line that is no object without the service before it, which is the
    source; a source that the line itself names stays in `data`. Others are their `event`."""
    match = _PREFIX.match(line)
    inner = parse(line[match.end() :]) if match else None
    if match is None or inner is None:
        return event
    # Compose knows which container wrote it; the line may only believe it.
    own_source, inner["source"] = inner.get("source"), match[1].decode()
    if own_source is not None:
        inner["data"] = merge(inner.get("data"), {"source": own_source})
    return container_levels.with_level(inner)
