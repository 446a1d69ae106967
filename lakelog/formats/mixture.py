"""Files of several styles: a line that is not of its file's format is read by the style it fits.

Lines of any other style are events of that style; all other text is the message of an event of
type `log`. In plain text styles are tried on lines that begin as one does, whichever way they are
read. Lines without a time have that of the line before, so that they sort in place. What is
damage and not text stays what it is: bytes that are no text, broken JSON among JSON lines, broken
OOS lines among those.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from dataclasses import replace

import orjson

from lakelog.errors import InvalidEvent
from lakelog.formats import (
    access,
    auditd,
    compose,
    cri,
    dialects,
    docker,
    jsonl,
    leading_times,
    line_starts,
    local_time,
    logfmt,
    oos,
    pattern,
    plain,
    styles,
)
from lakelog.formats.dialect import Dialect
from lakelog.formats.format import EventMembers, Format, FormatWrapper
from lakelog.formats.pattern_format import IndentedFormat
from lakelog.sql import literal
from lakelog.values import parse_line, parse_time

CARRIED = object()
"""The time of an event that has the one of the line before."""
ARRIVAL = object()
"""The time of an event whose line has one that cannot be read: that of its ingest."""
PROGRAMS = styles.PROGRAMS
"""Formats of single programs."""
STYLES: tuple[Format, ...] = (
    auditd.FORM,
    compose.FORM,
    *PROGRAMS,
    access.FORM,
    styles.SYSLOG,
    styles.TRAFFIC,
    styles.RUNTIME,
    logfmt.FORM,
    styles.APPLOG,
    leading_times.FORM,
    plain.FORM,
)
"""The styles of lines, besides JSON; the first that fits decides."""
_UNTIMED = (styles.RUNTIME, logfmt.FORM, plain.FORM, compose.FORM, *PROGRAMS)
"""Formats whose own lines get the time of the line before if they have none."""
_STYLED = "|".join((line_starts.STYLED, *(form.traits.head for form in PROGRAMS)))
"""Lines of text on which styles are tried, whichever way they are read: all others are text."""
_ALWAYS = (cri.FORM, *STYLES)
_OBJECT = re.compile(rb"\s*(?:\{|\[\s*(?:[\[{\"]|\]?\s*$))")
_BAR = r"\d{4}-\d\d-\d\d[T ][^|]*\|"
_OF_SERVICE = r"[\w.-]+ *\| *\{"
_VALUE = r"\s*(?:[{\[\"]|-?[\d.eE+-]+\s*$|true|false|null|nan|NaN|-?[Ii]nf)"
_BY_STYLE = r"^\s*\{|\x1b"
"""Lines of JSON, and those with colours of a terminal, which the patterns of queries do not see
through: as text without a style they would lose time and level."""


class _Text(FormatWrapper):
    """Plain text as the engine finds it among other lines: nothing that looks like a style, which
    the exact rule may read though no query did."""

    def _query(self) -> str:
        unstyled = (
            f"(SELECT * FROM lines WHERE NOT regexp_matches(line, {literal(_STYLED)})) AS lines"
        )
        return self._form.QUERY.replace("FROM lines", f"FROM {unstyled}", 1)


_TEXT = _Text(plain.FORM, plain.FORM.NAME, plain.FORM.traits)


class MixtureFormat(FormatWrapper):
    """A format whose other lines are read by the style they have; all else is that of `form`.

    Styles are tried on what the format leaves; where there are candidates, lines like them are
    tried by the styles first.
    """

    def __init__(self, form: Format) -> None:
        left_out = f"^{_VALUE}" if _is_json(form) else _BY_STYLE
        # Lines that the form is sure to read itself.
        surely = {oos.FORM: f"|^{_BAR}", compose.FORM: f"|^{_OF_SERVICE}"}.get(form, "")
        traits = replace(
            form.traits,
            styles=tuple(_TEXT if s is plain.FORM else s for s in STYLES if s is not form),
            left_out=left_out + surely,
            candidates=_STYLED if form is plain.FORM else "",
            carries=form in _UNTIMED,
        )
        super().__init__(form, form.NAME, traits)
        if form.places is not None:
            self.places = functools.partial(_places, form.places)

    def parse(self, line: bytes) -> list[EventMembers]:
        """Return the events of a line; their time is CARRIED where it is that of the line before.
        Raises InvalidEvent."""
        # Plain text fits everything, so other styles come first.
        if self._form is plain.FORM:
            parse = _by_style if _styled().match(line) else _stamped
            event = self._other(line, parse)
            return [event or _timed(plain.FORM.parse(line), line)]
        try:
            events = self._form.events(line)
            # A style whose time is none may fit by chance; another one may read the line.
            if self._form in STYLES:
                _check_time(events[0])
        except InvalidEvent:
            event = self._other(line) if self._is_text(line) else None
            if event is not None and self._form is compose.FORM:
                event = compose.of_service(line, event, lambda text: self._other(text))
            if event is None:
                raise
            events = [event]
        return [_timed(event, line) for event in events] if self.traits.carries else events

    def _is_text(self, line: bytes) -> bool:
        """Whether a line that is not of the format may be text, and is not damaged."""
        line = line.strip()
        if self._form is oos.FORM:
            return not re.match(_BAR.encode(), line)
        if not _is_json(self._form):
            return True
        try:
            orjson.loads(line)
        except orjson.JSONDecodeError:
            return not _OBJECT.match(line)
        return False

    def _other(
        self, line: bytes, parse: Callable[[bytes], EventMembers | None] | None = None
    ) -> EventMembers | None:
        """The event of a line by the first style that fits; lines after it go to its message."""
        # A style is told by the first line: a trace below it fits nothing.
        head, _, continuation = line.partition(b"\n")
        event = (parse or _by_style)(head.rstrip(b"\r"))
        if event is not None and continuation.strip():
            try:
                following = pattern.decoded(b"." + continuation)[1:]
            except InvalidEvent:
                return None
            event["message"] = "\n".join(filter(None, (event.get("message"), following)))
        return event

    def uncarry(self, events: list[EventMembers]) -> bool:
        """Remove the times CARRIED and ARRIVAL from events; return whether one was CARRIED."""
        is_carried = False
        for event in events:
            time = event.get("time")
            if time is CARRIED or time is ARRIVAL:
                is_carried = is_carried or time is CARRIED
                del event["time"]
        return is_carried


def tolerant(form: Format, *, forced: bool = False) -> Format:
    """Return a format that also accepts lines of other styles, if it is a format of lines.

    Where a `forced` format says that a file holds JSON or OOS lines, all of its lines are those.
    """
    if isinstance(form, (local_time.LocalTimeFormat, IndentedFormat)):
        return form.over(lambda inner: tolerant(inner, forced=forced))
    takes = form in _ALWAYS or (not forced and (form is oos.FORM or _is_json(form)))
    return _mixed(form) if takes else form


@functools.cache
def _mixed(form: Format) -> MixtureFormat:
    """One object for each format, since groups of files compare formats by identity."""
    return MixtureFormat(form)


def _places(places: Callable[[bytes], list[int]], line: bytes) -> list[int]:
    """Where in a record its events begin; a line of another style is one event."""
    try:
        return places(line)
    except InvalidEvent:
        return [0]


def _is_json(form: Format) -> bool:
    return form in (jsonl.FORM, docker.FORM) or isinstance(form, Dialect)


def _by_style(line: bytes) -> EventMembers | None:
    # JSON before styles: a message in an object may look like a line of one.
    if line.lstrip()[:1] == b"{":
        with contextlib.suppress(InvalidEvent):
            return dialects.event_of(parse_line(line))
    for style in STYLES:
        if style.is_unlike(line):
            continue
        with contextlib.suppress(InvalidEvent):
            (event,) = style.events(line)
            _check_time(event)
            return _timed(event, line)
    return None


def _stamped(line: bytes) -> EventMembers | None:
    with contextlib.suppress(InvalidEvent):
        return leading_times.FORM.parse(line)
    return None


@functools.cache
def _styled() -> re.Pattern[bytes]:
    return re.compile(_STYLED.encode(), re.ASCII)


def _check_time(event: EventMembers) -> None:
    """Raise InvalidEvent where a time is none."""
    if "time" in event:
        parse_time(event["time"])


def _timed(event: EventMembers, line: bytes) -> EventMembers:
    """An event with a time: what its format read, else that at the beginning of its line, else that
    of the line before."""
    if "time" not in event:
        moment = leading_times.find(pattern.decoded(line))
        if moment is None:
            event["time"] = CARRIED
        else:
            event["time"] = ARRIVAL if moment is leading_times.UNREAD else moment.iso
    return event
