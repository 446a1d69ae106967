"""Container logs of Docker's json-file driver: log, stream and time.

A line of a program that Docker cut into pieces (they lack the newline at their end) is put
together again, also where pieces of the other stream stand between. The stream is the category, the
level the one that the line of the program says; attributes that Docker was configured to add stay
in `data`.
"""

from __future__ import annotations

from lakelog import arrays
from lakelog.errors import InvalidEvent
from lakelog.formats import container_levels
from lakelog.formats.dialect import Dialect
from lakelog.formats.format import EventMembers, Format, Heads, Traits, open_after
from lakelog.libraries import np, pa, pc
from lakelog.values import JsonObject, parse_line

_LINE = r'^\s*\{"log":"(?:[^"\\]|\\.)*"'
_ENDED = r'^\s*\{"log":"(?:[^"\\]|\\.)*\\n"'
_DIALECT = Dialect(
    "docker",
    "Container logs of Docker's json-file driver.",
    fits=("log", "stream=stdout|stream=stderr", "time"),
    time=("time",),
    category=("stream",),
    message=("log",),
)
_LONE = "(SELECT line, position FROM lines WHERE coalesce(more, '') = '')"


class DockerLog(Format):
    """The format of the json-file driver."""

    NAME = _DIALECT.NAME
    traits = Traits(begins="^", many=True, surest=1.01)

    def _query(self) -> str:
        return container_levels.with_levels(f"""
SELECT * REPLACE (CASE WHEN ends_with(message, chr(10)) THEN message[:-2] ELSE message END
  AS message) FROM ({_DIALECT.query(_LONE)})""")

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these are lines of the json-file driver."""
        return _DIALECT.sniff(lines)

    def heads(self, lines: pa.Array, starts: np.ndarray) -> Heads:
        """A mask of the lines that begin a record: those before which no line is incomplete."""
        open_ = arrays.truths(pc.match_substring_regex(lines, _LINE))
        open_ &= ~arrays.truths(pc.match_substring_regex(lines, _ENDED))
        if not open_.any():
            return np.ones(len(open_), dtype=bool), None
        errors = arrays.truths(pc.match_substring(lines, '"stream":"stderr"'))
        return np.append(True, ~open_after(open_, (errors, ~errors))[:-1]), None

    def complete(self, record: bytes) -> bool:
        """Whether every line of a program in a record has its end."""
        try:
            pieces_of_record = [parse_line(line) for line in record.split(b"\n") if line.strip()]
        except InvalidEvent:
            return False
        return not _is_open(pieces_of_record)

    def parse(self, record: bytes) -> list[EventMembers]:
        """Return the events of a record. Raises InvalidEvent."""
        entries = [parse_line(line) for line in record.split(b"\n") if line.strip()]
        lines: list[JsonObject] = []
        open_: dict[str, JsonObject] = {}
        for entry in entries:
            if not _is_piece(entry):
                lines.append(_DIALECT.event(entry))
                continue
            # The streams are joined separately: their pieces may alternate.
            head = open_.setdefault(entry["stream"], entry)
            if head is entry:
                lines.append(entry)
            else:
                head["log"] += entry["log"]
            if entry["log"].endswith("\n"):
                del open_[entry["stream"]]
        return [_finished(event) for event in lines]


FORM = DockerLog(__doc__)


def _is_piece(entry: JsonObject) -> bool:
    return _DIALECT.is_one(entry) and isinstance(entry["log"], str)


def _finished(line: JsonObject) -> JsonObject:
    """The event of a joined line; others are events already."""
    event = _DIALECT.event(line) if _is_piece(line) else line
    if isinstance(event.get("message"), str):
        event["message"] = event["message"].removesuffix("\n")
    return container_levels.with_level(event)


def _is_open(entries: list[JsonObject]) -> bool:
    endings = {entry["stream"]: entry["log"] for entry in entries if _is_piece(entry)}
    return any(not log.endswith("\n") for log in endings.values())
