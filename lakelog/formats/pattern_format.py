"""Formats that patterns describe: one declaration of a line gives its SQL and its exact rule.

Most are declared in tables, see `pattern_tables.py`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from lakelog.errors import InvalidEvent
from lakelog.formats import container_levels, line_starts, pattern
from lakelog.formats.format import EventMembers, Format, FormatWrapper, Traits
from lakelog.formats.line_encoding import COLOUR
from lakelog.formats.pattern import COLOURS, Level, Pattern
from lakelog.runtime.lazy import LazyProperty

UNTIMED_SCORE = 0.9
"""The score of a line without a time, of formats that know their lines by more than a time."""
_FIRST_WORD = r"^(?:[a-z][\w-]*\.)?[\[<]?([A-Za-zÀ-ÿ]{3,13})(?:[\]>]|:|\[\d+\])"
"""`error:`, `[warn]`, `<info>`, `NOTICE[71]` and `app.WARNING:`."""
_COLOUR = re.compile(COLOUR.encode())
_BY_LINE = Traits(by_line=True)
FIRST_LINE = re.compile(rb"(?:\xef\xbb\xbf)?(?:[ \t\r]*\n)*([ \t]*)([^\n]*)")
"""The first line that is not blank, after its indentation."""


@dataclass(frozen=True, eq=False)
class PatternFormat(Format):
    """A format whose lines are those that one of its patterns fits; the first that does decides.

    `otherwise` is the reason why a line is none of them. A line with a time scores 1, one without
    scores `untimed`. If `traits.begins` is set, lines that continue one belong to its message.
    What `unlike` fits speaks for another format, though a pattern fits it by chance. So do lines of
    one of the `rivals`, of which this format reads less, unless it knows even their source. A
    `word_level` is that of the word which begins the message, and stays there; of lines that tell
    their level otherwise that counts. A format that `wraps` has lines of other programs, whose
    level is the one that they say themselves.
    """

    NAME: str
    about: str
    PATTERNS: tuple[Pattern, ...]
    otherwise: str
    traits: Traits = _BY_LINE
    untimed: float = 0.0
    unlike: re.Pattern[bytes] | None = None
    word_level: Level | None = None
    rivals: tuple[PatternFormat, ...] = ()
    wraps: bool = False

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these are lines of this format."""
        # Within colours the parts of a line would not be seen.
        full = [_COLOUR.sub(b"", line) for line in lines if line.strip()]
        candidates = [line for line in full if self._head.match(line.lstrip())]
        candidates = [line for line in candidates if not self.is_unlike(line)]
        return sum(map(self._score, candidates)) / len(full) if candidates else 0.0

    def is_unlike(self, line: bytes) -> bool:
        """Whether a line speaks for another format, though a pattern may fit it by chance, or does
        not begin as those of this one do."""
        if self.traits.head and not self._head.match(line):
            return True
        return self.unlike is not None and self.unlike.match(line.lstrip()) is not None

    def parse(self, line: bytes) -> EventMembers:
        """Return the event of a line and of those that continue it. Raises InvalidEvent."""
        event = pattern.parse(self.PATTERNS, line, self.otherwise, joined=self._joined)
        if self.word_level and "level" not in event:
            word = re.match(_FIRST_WORD, event.get("message") or "")
            level = self.word_level.of(word[1]) if word else None
            if level:
                event["level"] = level
        return container_levels.with_level(event, marked=True) if self.wraps else event

    def specialize(self, head: bytes) -> Format:
        """Return the format for a file whose first line is an indented beginning of a record."""
        # The first line alone decides, so that it stays decided while the file grows.
        line, begins = FIRST_LINE.match(head), self.traits.begins
        if not (line and line[1] and begins):
            return self
        fits = re.match(begins.encode(), line[2], re.ASCII)
        return indented(self, line[1].decode()) if fits else self

    def _query(self) -> str:
        whole = self.traits.whole
        return self._levelled(pattern.query(self.PATTERNS, joined=self._joined, whole=whole))

    def cheaper(self, lines: list[bytes]) -> list[str]:
        """Return the query of those patterns only that these lines show."""
        whole = self.traits.whole
        queries = pattern.narrowed(self.PATTERNS, lines, joined=self._joined, whole=whole)
        return [self._levelled(query) for query in queries]

    def _levelled(self, query: str) -> str:
        if self.word_level is None:
            return query
        level = self.word_level.sql(f"regexp_extract(message, '{_FIRST_WORD}', 1)")
        query = f"SELECT * REPLACE (coalesce(level, {level}) AS level) FROM ({query})"
        return container_levels.with_levels(query, marked=True) if self.wraps else query

    @property
    def _joined(self) -> bool:
        return bool(self.traits.begins) and not self.traits.whole

    @LazyProperty
    def _head(self) -> re.Pattern[bytes]:
        return re.compile(self.traits.head.encode(), re.ASCII)

    def _score(self, line: bytes) -> float:
        timed = pattern.timed_share([line], self._unrivalled)
        return timed or (self.untimed if self.untimed and self.is_event(line) else 0.0)

    def _unrivalled(self, line: bytes) -> EventMembers:
        """The event of a line that no rival reads better. Raises InvalidEvent."""
        event = self.parse(line)
        if "source" in event or not (self.rivals and self._rival_head.match(line)):
            return event
        if any(rival.sniff([line]) for rival in self.rivals):
            raise InvalidEvent(self.otherwise)
        return event

    @LazyProperty
    def _rival_head(self) -> re.Pattern[bytes]:
        # one regex for all: detection asks it of most lines
        heads = "|".join(rival.traits.head for rival in self.rivals)
        return re.compile(heads.encode(), re.ASCII)


class IndentedFormat(FormatWrapper):
    """A format whose records may also begin with some white space; all else is that of `form`."""

    def __init__(self, form: Format, blanks: str) -> None:
        begins = f"^(?:{blanks})?{form.traits.begins.removeprefix('^')}"
        super().__init__(form, form.NAME, replace(form.traits, begins=begins))
        self._blanks = blanks

    def over(self, change: Callable[[Format], Format]) -> Format:
        """Return the format that a change makes of the one below, as much indented."""
        return indented(change(self._form), self._blanks)


@functools.cache
def indented(form: Format, blanks: str) -> Format:
    """One object for each format, since groups of files compare formats by identity."""
    return IndentedFormat(form, blanks)


def program(
    name: str,
    about: str,
    begins: str,
    patterns: tuple[Pattern, ...],
    *,
    is_alone: bool = False,
    is_whole: bool = False,
    word_level: Level | None = None,
    leads: str = "",
) -> PatternFormat:
    """Return the format of the log of one program.

    `begins` is a regex for the beginning of a record that only lines of this program have, so that
    lines of others are ruled out at once. A line that begins otherwise continues the record before
    it, unless it is one of another style; those belong to it too if the program `is_alone`. A line
    after one that `leads` fits continues it in any case. Patterns fit the first line of a record,
    and the others go after its message; if the program `is_whole`, they fit all lines.
    """
    other_styles = "" if is_alone else rf"|\[?{line_starts.DATE}|{line_starts.OTHERS}"
    # A record may begin with colours of a terminal.
    traits = Traits(
        begins=f"^{COLOURS}(?:{begins}{other_styles})",
        leads=leads,
        whole=is_whole,
        head=rf"^[ \t]*{COLOURS}(?:{begins})",
        prose=True,
        by_line=True,
    )
    otherwise = f"no line of {name}"
    return PatternFormat(
        name, about, patterns, otherwise, traits, UNTIMED_SCORE, word_level=word_level
    )
