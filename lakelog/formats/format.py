"""What every input format is: how its records are cut, how it is recognised, and how it is read.

A format reads in two ways: SQL over a whole chunk, and an exact rule for one record. What SQL can
not decide without loss it flags as `slow`, or gives no row for it, and the exact rule decides, so
both ways give the same events. Formats of text are made of patterns (`pattern_format.py`), those of
JSON lines of members (`dialect.py`): one declaration gives both ways.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from lakelog.errors import InvalidEvent
from lakelog.formats import sqltext
from lakelog.libraries import np, pa
from lakelog.runtime.lazy import LazyProperty

if TYPE_CHECKING:
    from lakelog.formats.uniform.uniform_lines import UniformLines

EventMembers: TypeAlias = dict[str, Any]
"""The members of one event, as `lakelog.event` encodes them."""
Heads: TypeAlias = "tuple[np.ndarray, bool | None]"
"""Which lines begin a record, and whether the last record is open; None if no line says so yet."""
SPACE = " \t\n\v\f\r"


def utf8(record: bytes) -> str:
    """Return a record as text. Raises InvalidEvent if it is none."""
    try:
        return record.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"not UTF-8 at byte {error.start}") from None


def share(lines: list[bytes], fits: Callable[[bytes], object]) -> float:
    """Return the share of the lines that are not blank that fit."""
    full = [line for line in lines if line.strip()]
    return sum(bool(fits(line)) for line in full) / len(full) if full else 0.0


def open_after(is_piece: np.ndarray, streams: Sequence[np.ndarray]) -> np.ndarray:
    """Return a mask of the lines after which a stream is open: its last line so far is a piece.

    Masks over the same lines; `streams` has one mask for each stream.
    """
    mask = np.zeros(len(is_piece), dtype=bool)
    for stream in streams:
        previous = np.maximum.accumulate(np.where(stream, np.arange(len(is_piece)), -1))
        mask |= (previous >= 0) & is_piece[previous]
    return mask


@dataclass(frozen=True)
class Traits:
    """What the rest of ingest has to know of a format; the defaults are those of a format whose
    lines are events, each for itself."""

    begins: str = ""
    """A regex for how a record of several lines begins: other lines continue the one before them.
    Empty where each line is a record."""
    continues: str = ""
    """A regex for lines that continue a record although `begins` fits them."""
    leads: str = ""
    """A regex for lines that the next one continues, although `begins` fits it."""
    whole: bool = False
    """SQL gets records whole; else their first line as `line`, and those after it as `more`."""
    many: bool = False
    """A record gives a list of events, all of them or none; SQL counts them in a column `nth`."""
    pairs: bool = False
    """Lines are actions, each of which belongs to the document in the line after it."""
    untrimmed: bool = False
    """The exact rule gets records with the white space around them."""
    binary: bool = False
    """Runs of NULs in a record are data."""
    prose: bool = False
    """A line ends in free text, so its last character does not say whether it is complete."""
    record_max: int = 0
    """Bytes of a record, at most; 0 is what `records.py` allows."""
    surest: float = 1.0
    """The highest score that `sniff` returns."""
    by_line: bool = False
    """`sniff` returns the mean of what it would return of each line that is not blank."""
    head: str = ""
    """A regex that fits the first line of every record; empty if there is none."""
    zone: str = ""
    """The time zone of times that name none, as the engine calls it; empty for UTC."""
    encoding: str = ""
    """The encoding of lines, by Python's name; empty for UTF-8, and Windows-1252 elsewhere."""
    styles: tuple[Format, ...] = ()
    """The formats that read lines of other styles: see `mixture.py` for this and the next three."""
    left_out: str = ""
    """A regex for lines on which styles are not tried."""
    candidates: str = ""
    """A regex for lines on which styles are tried before the format itself."""
    carries: bool = False
    """Lines without a time get that of the line before."""


class Format(ABC):
    """An input format. A subclass defines `sniff` and `parse`, and what else is not the default."""

    NAME: str
    """The name that users write and cursors store; it never changes."""
    about: str
    """What it is: `lakelog formats list` shows the first paragraph."""
    traits = Traits()
    TIMES = sqltext.TIMES
    """The members of an event that are its time, the envelope's own first."""
    DEFAULT_TYPE = sqltext.DEFAULT_TYPE
    """The type of events that name none."""
    has_time: bool = True
    """Whether events may have a time of their own; else it is that of ingest."""
    groups: Sequence[tuple[str, str]] = ()
    """Where each group of a pattern goes: pairs of its name and of a column, or data.NAME."""
    heads: Callable[[pa.Array, np.ndarray], Heads] | None = None
    """heads(lines, starts): which lines of one file begin a record; `starts` are the byte offsets
    of the lines, and the end. Only asked where `begins` is set, which without it is matched."""
    complete: Callable[[bytes], bool] | None = None
    """complete(record): whether a record that nothing follows yet has its end; without it, a record
    is held back until the next one begins."""
    places: Callable[[bytes], list[int]] | None = None
    """places(record): the offsets at which its events begin; without it they are numbered from 0.
    Raises InvalidEvent."""

    def __init__(self, about: str) -> None:
        self.about = about

    @property
    def label(self) -> str:
        """What users see as its name."""
        return self.NAME

    @abstractmethod
    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these first lines of a file are of this format."""

    @abstractmethod
    def parse(self, line: bytes) -> EventMembers | list[EventMembers]:
        """Return the event of a record, or the list of its events. Raises InvalidEvent."""

    def events(self, line: bytes) -> list[EventMembers]:
        """Return the events of a record as a list. Raises InvalidEvent."""
        events = self.parse(line)
        return events if isinstance(events, list) else [events]

    def is_unlike(self, line: bytes) -> bool:
        """Whether a line speaks for another format, though it may be read as one of this."""
        return False

    def is_event(self, line: bytes) -> bool:
        """Return whether a record gives events, which may be none."""
        try:
            self.parse(line)
        except InvalidEvent:
            return False
        return True

    def parse_own(self, line: bytes) -> EventMembers | list[EventMembers]:
        """As `parse`, but refuse lines of other styles."""
        return self.parse(line)

    def reach(self, line: bytes) -> tuple[str, str]:
        """Return how much of a line the longest part of a pattern fits that any does, and the part
        of the pattern that comes next; for somebody who looks for what is wrong with it."""
        return "", ""

    def uncarry(self, events: list[EventMembers]) -> bool:
        """Take the marks of times that come from elsewhere out of events; return whether one has
        that of the line before."""
        return False

    @LazyProperty
    def QUERY(self) -> str:
        """SQL over `lines(line, position)`, which yields the columns of an event (time, type,
        category, source, subject, level, message, data, id), position and slow. It is made when it
        is first used: most formats never are."""
        return self._query()

    def _query(self) -> str:
        """The text of QUERY; by default it leaves all lines to the exact rule."""
        return sqltext.none_sql("lines")

    def cheaper(self, lines: list[bytes]) -> list[str]:
        """Return queries to try before QUERY on files whose lines look like these, the cheapest
        first."""
        return []

    def uniform(self, lines: list[bytes]) -> UniformLines | None:
        """Return how to cut lines that look like these, before any query; None if in no way."""
        return None

    def specialize(self, head: bytes) -> Format:
        """Return the format as a file's first bytes define it."""
        return self


class FormatWrapper(Format):
    """A format that is another one but for its traits, and for what a subclass overrides."""

    def __init__(self, form: Format, name: str, traits: Traits) -> None:
        super().__init__(form.about)
        self._form, self.NAME, self.traits = form, name, traits
        self.heads, self.complete, self.places = form.heads, form.complete, form.places

    def sniff(self, lines: list[bytes]) -> float:
        """Return the score of the format."""
        return self._form.sniff(lines)

    def parse(self, line: bytes) -> EventMembers | list[EventMembers]:
        """Return the events of a record. Raises InvalidEvent."""
        return self._form.parse(line)

    def parse_own(self, line: bytes) -> EventMembers | list[EventMembers]:
        """Return the events of a record of the format itself. Raises InvalidEvent."""
        return self._form.parse_own(line)

    def uncarry(self, events: list[EventMembers]) -> bool:
        """Take the marks of times out of events; return whether one has that of the line before."""
        return self._form.uncarry(events)

    def _query(self) -> str:
        return self._form.QUERY

    def cheaper(self, lines: list[bytes]) -> list[str]:
        """Return the cheaper queries of the format."""
        return self._form.cheaper(lines)

    def uniform(self, lines: list[bytes]) -> UniformLines | None:
        """Return how the format cuts lines that look like these."""
        return self._form.uniform(lines)
