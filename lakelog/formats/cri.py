"""Container logs of Kubernetes (CRI): time, stream, P or F, text.

Text that the runtime cut (P) is joined with what follows on its stream, up to the piece that ends
it (F), also where the two streams take turns; the time is that of its first piece. The level is
the one that the text says. The lines from the first piece to where nothing is open are one record.
One that grows beyond 8 MiB is none: its pieces are events.
"""

from __future__ import annotations

import re

from lakelog import arrays
from lakelog.formats import container_levels, pattern
from lakelog.formats.format import EventMembers, Format, Heads, Traits, open_after
from lakelog.formats.pattern import MESSAGE, Pattern
from lakelog.libraries import np, pa, pc

_STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)"
_HEAD = rf"(?P<stamp>{_STAMP}) (?P<stream>stdout|stderr)"
_TAGS = "(?::[^ ]*)?"


def _pattern(tag: str) -> Pattern:
    return Pattern(rf"{_HEAD} {tag}{_TAGS}(?: {MESSAGE})?", "{stamp}", "log", data=("stream",))


PATTERNS = (_pattern("F"),)
_PIECES = (_pattern("(?P<tag>[FP])"),)
_PIECE = re.compile(rf"{_STAMP} (stdout|stderr) ([FP]){_TAGS}(?: (.*))?", re.ASCII)
_OTHERWISE = "no line of a container (CRI)"


class ContainerLog(Format):
    """The format of container logs of Kubernetes."""

    NAME = "cri"
    traits = Traits(
        begins="^",
        whole=True,
        many=True,
        untrimmed=True,
        prose=True,
        record_max=8 << 20,
        by_line=True,
    )

    def _query(self) -> str:
        return container_levels.with_levels(pattern.query(PATTERNS))

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these are lines of a container."""
        return pattern.timed_share(lines, lambda line: pattern.parse(_PIECES, line, _OTHERWISE))

    def parse(self, line: bytes) -> list[EventMembers]:
        """Return the events of a record, in the order of their first pieces. Raises
        InvalidEvent."""
        return [container_levels.with_level(event) for _, event in _placed(line)]

    def places(self, line: bytes) -> list[int]:
        """Where in a record its events begin: with their first pieces."""
        return [position for position, _ in _placed(line)]

    def heads(self, lines: pa.Array, starts: np.ndarray) -> Heads:
        """A mask of the lines that begin a record, and whether the last record is open."""
        count = len(lines)
        is_partial = arrays.truths(pc.match_substring_regex(lines, "^[^ ]+ std(?:out|err) P"))
        if not is_partial.any():
            return np.ones(count, dtype=bool), False
        # stdout and stderr of a container are interleaved, each with partial lines of its own.
        streams = tuple(
            arrays.truths(pc.match_substring_regex(lines, f"^[^ ]+ {stream} "))
            for stream in ("stdout", "stderr")
        )
        is_open = open_after(is_partial, streams)
        return np.append(True, ~is_open[:-1]), bool(is_open[-1])


FORM = ContainerLog(__doc__)


def _placed(line: bytes) -> list[tuple[int, EventMembers]]:
    pattern.decoded(line)
    if b"\n" not in line.strip():
        return [(0, pattern.parse(_PIECES, line, _OTHERWISE))]
    events: list[tuple[int, EventMembers]] = []
    still: dict[str, EventMembers] = {}
    end = 0
    for fragment in line.split(b"\n"):
        start, end = end, end + len(fragment) + 1
        fragment_text = fragment.decode().removesuffix("\r")
        if not fragment_text.strip(pattern.SPACE):
            continue
        match = _PIECE.fullmatch(fragment_text.lstrip(pattern.SPACE).removeprefix("\ufeff"))
        event = pattern.parse(_PIECES, fragment, _OTHERWISE)
        stream, tag, message = match.groups() if match else ("", "F", event.get("message"))
        # Only the first piece gives the time and the position of the line.
        if stream in still:
            still[stream]["message"] += message or ""
        else:
            still[stream] = {**event, "message": message or ""}
            events.append((start, still[stream]))
        if tag == "F":
            still.pop(stream)
    for _, event in events:
        event["message"] = event["message"].rstrip(pattern.SPACE) or None
    return events
