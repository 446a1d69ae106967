"""A format whose lines are in an encoding that somebody named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lakelog.formats.format import EventMembers, Format, FormatWrapper
from lakelog.formats.line_encoding import LineEncoding


class EncodedFormat(FormatWrapper):
    """A format whose lines are in an encoding; all else is that of `form`, also its query: it is of
    lines that were decoded before, as the engine reads UTF-8 alone."""

    def __init__(self, form: Format, encoding: str, name: str) -> None:
        super().__init__(form, name, replace(form.traits, encoding=LineEncoding.codec_of(encoding)))
        self._encoding = self.traits.encoding

    def parse(self, line: bytes) -> EventMembers | list[EventMembers]:
        """Return the events of a record. Raises InvalidEvent."""
        return self._form.parse(LineEncoding.decoded(line, self._encoding))

    def parse_own(self, line: bytes) -> EventMembers | list[EventMembers]:
        """Return the events of a record of the format itself. Raises InvalidEvent."""
        return self._form.parse_own(LineEncoding.decoded(line, self._encoding))

    def specialize(self, head: bytes) -> EncodedFormat:
        """Return the format as a file's first bytes define it, in the same encoding."""
        return self.over(lambda form: form.specialize(LineEncoding.decoded(head, self._encoding)))

    def over(self, change: Callable[[Format], Format]) -> EncodedFormat:
        """Return the format that a change makes of the one below, in the same encoding."""
        return EncodedFormat(change(self._form), self._encoding, self.NAME)

    def cheaper(self, lines: list[bytes]) -> list[str]:
        """Return the queries of the format for lines that look like these, once decoded."""
        return self._form.cheaper([LineEncoding.decoded(line, self._encoding) for line in lines])

    def uniform(self, lines: list[bytes]) -> None:
        """None: lines are cut out of the bytes of the file."""
