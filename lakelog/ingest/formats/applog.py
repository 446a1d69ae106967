"""Lines as programs log them: a time, a level, perhaps a logger and a thread, then a message.

The default styles of Python's logging, log4j and logback, Kafka, Zookeeper, HDFS, Spark and
Monolog, and the error logs of Apache and nginx. `source` is the logger, class or module. Lines
that do not begin with a time (those of a stack trace) belong to the message before them.
"""

from __future__ import annotations

from typing import Any

from lakelog.ingest.formats import pattern
from lakelog.ingest.formats.pattern import CLOCK, MONTH, REST, WORD, Pattern

NAME = "applog"
PROSE = True
"""A line ends in free text, so its last character does not tell whether it goes on."""
_WORDS = (
    "trace debug info notice warn warning error err severe fatal critical crit alert",
    "emergency emerg",
)
_NAMES = "|".join(f"{w.upper()}|{w}|{w.title()}" for w in " ".join(_WORDS).split())
_LEVEL = rf"(?P<level>{_NAMES})"
_STAMP = (
    r"(?P<stamp>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:\d\d|[+-]\d{4})?)"
)
_CLASS = r"[A-Za-z_][\w$-]*(?:[./][\w$-]+)+"
_THREAD = r"\[(?P<thread>[^\]]*)\]"
_SHORT = r"(?P<yy>\d\d)/?(?P<month>\d\d)/?(?P<day>\d\d)"
_SLASHED = r"(?P<year>\d{4})/(?P<month>\d\d)/(?P<day>\d\d)"


def _style(regex: str, *data: str, time: str = "{stamp}", source: str = "source") -> Pattern:
    return Pattern(regex, time, "log", WORD, source=source, data=data)


BEGINS = (
    r"^(?:\[?\d{4}[-/]\d\d[-/]\d\d[T :]|\[[A-Z][a-z][a-z] [A-Z][a-z][a-z] +\d"
    r"|\d\d/?\d\d/?\d\d \d\d:?\d\d:?\d\d)"
)
"""How a record begins: with a time."""
PATTERNS = (
    _style(rf"{_STAMP} - (?P<source>[^ ]+) - {_LEVEL} -{REST}"),
    _style(rf"\[{_STAMP}\] (?P<source>[\w-]+)\.{_LEVEL}:{REST}"),
    _style(rf"\[{_STAMP}\] {_LEVEL}(?: +(?P<message>.*?)(?: \((?P<source>[\w.$-]+)\))?)?"),
    _style(
        rf"{_STAMP} - {_LEVEL} +\[(?P<thread>.*):(?P<source>[\w.$]+)@(?P<line>\d+)\] -{REST}",
        "thread", "line",
    ),
    _style(rf"{_STAMP} +{_LEVEL} +{_THREAD} +(?P<source>[\w.$/-]+) *:{REST}", "thread"),
    _style(rf"{_STAMP} +{_THREAD} +{_LEVEL} +(?P<source>[\w.$/-]+) +-{REST}", "thread"),
    _style(rf"{_STAMP}[ :]{_LEVEL}:(?P<source>[A-Za-z_][\w.-]*):(?P<message>(?:[^/].*)?)"),
    _style(
        rf"{_STAMP}(?: +|:|::)\[?{_LEVEL}\]?"
        rf"(?:(?: +|: *)(?:(?P<source>{_CLASS}): )?(?P<message>.*))?"
    ),
    _style(
        rf"{_SHORT} (?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d) (?P<pid>\d+) {_LEVEL}"
        rf" (?P<source>[^ :]+):{REST}",
        "pid", time="20{yy}-{month}-{day}T{hour}:{minute}:{second}",
    ),
    _style(
        rf"{_SHORT} {CLOCK} {_LEVEL} (?P<source>[^ :]+):{REST}",
        time="20{yy}-{month}-{day}T{clock}",
    ),
    _style(
        rf"\[[A-Z][a-z][a-z] {MONTH} +(?P<day>\d{{1,2}}) {CLOCK} (?P<year>\d{{4}})\]"
        rf" \[(?:(?P<source>[\w-]*):)?{_LEVEL}\](?: \[pid (?P<pid>\d+)(?::tid (?P<tid>\d+))?\])?"
        rf"{REST}",
        "pid", "tid", time="{year}-{mon}-{day}T{clock}",
    ),
    _style(
        rf"{_SLASHED} {CLOCK} \[{_LEVEL}\] (?P<pid>\d+)#(?P<tid>\d+):{REST}",
        "pid", "tid", time="{year}-{month}-{day}T{clock}", source="",
    ),
)  # fmt: skip
QUERY = pattern.query(PATTERNS, joined=True)


def sniff(lines: list[bytes]) -> float:
    """Say how sure it is that these are lines of a program's log."""
    return pattern.share(lines, parse)


def parse(line: bytes) -> dict[str, Any]:
    """Return the event of one line. Raises InvalidEvent."""
    return pattern.parse(PATTERNS, line, "a line that continues another", joined=True)


def cheaper(lines: list[bytes]) -> list[str]:
    """Return the query of those styles only that these lines show."""
    return pattern.narrowed(PATTERNS, lines, joined=True)
