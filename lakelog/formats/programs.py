"""The logs of single programs that no common style covers, each declared by its lines.

`programs.toml` holds a table for each format:

- `about` says what it is, and `begins` how its records begin; `leads`, `is_alone` and `word_levels`
  are the options of `program`.
- `lines` are its patterns, of which the first that fits decides. Groups go to the column of their
  name (`time` out of `stamp`); `message`, `source` and `subject` name other groups, and an empty
  text none. Groups that no column takes are the payload, unless `data` lists it.
- `levels` are the words of a program for levels, of all its lines or of one; without them levels
  have their common names. `level` names the group that holds the level: `status` of HTTP, `pri` of
  syslog, or a group of words; `other_level` is that of all other words.
- `fragments` are parts of regexes that others use as `%{name}`.
"""

from __future__ import annotations

import re
from string import Formatter
from typing import Any

from lakelog.formats.line_starts import SLOW_QUERY
from lakelog.formats.pattern import (
    CLOCK,
    COLOURS,
    MESSAGE,
    MONTH,
    PRI,
    REST,
    SEVERITY,
    STATUS,
    WORD,
    Level,
    Pattern,
    graded,
)
from lakelog.formats.pattern_format import PatternFormat, program
from lakelog.formats.tables import path_beside, read_tables
from lakelog.formats.zones import TZ

_FRAGMENTS = {
    "clock": CLOCK,
    "colours": COLOURS,
    "message": MESSAGE,
    "month": MONTH,
    "pri": PRI,
    "rest": REST,
    "slow_query": SLOW_QUERY,
    "tz": TZ,
}
_SCALES = {"status": STATUS, "pri": SEVERITY}
"""Levels by the numbers that a group of this name holds."""
_REFERENCE = re.compile(r"%\{(\w+)\}")
_GROUP = re.compile(r"\(\?P<(\w+)>")
_RANGE = re.compile(r"(.*?)(\d+)\.\.(\d+)")
"""A word with a number, as `debug 0..99`."""
_LISTS = ("numbers", "dashes", "doubled")


def read_table(path: str) -> tuple[PatternFormat, ...]:
    """Return the formats that a table declares."""
    tables = read_tables(path)
    fragments = _with_fragments(_FRAGMENTS, tables.pop("fragments"))
    return tuple(_format(name, table, fragments) for name, table in tables.items())


def _format(name: str, table: dict[str, Any], fragments: dict[str, str]) -> PatternFormat:
    fragments = _with_fragments(fragments, table.get("fragments", {}))
    levels = _graded(table["levels"]) if "levels" in table else WORD
    return program(
        name,
        table["about"],
        _expanded(table["begins"], fragments),
        tuple(_pattern(line, levels, fragments) for line in table["lines"]),
        is_alone=table.get("is_alone", False),
        word_level=_graded(table["word_levels"]) if "word_levels" in table else None,
        leads=table.get("leads", ""),
    )


def _pattern(line: dict[str, Any], levels: Level, fragments: dict[str, str]) -> Pattern:
    regex = _expanded(line["regex"], fragments)
    groups = _GROUP.findall(regex)
    time = line.get("time", "{stamp}")
    message = line.get("message", "message")
    source = line.get("source", "source" if "source" in groups else "")
    level = _level(line, levels, groups)
    taken = {name for _, name, _, _ in Formatter().parse(time)} | {message, source, "half"}
    if level and level.group == "level":
        taken.add("level")  # the word goes into the payload by a rule of its own
    return Pattern(
        regex,
        time,
        line.get("type", "log"),
        level,
        message=message,
        source=source,
        subject=line.get("subject", ""),
        data=tuple(line.get("data", (group for group in groups if group not in taken))),
        **{name: tuple(line[name]) for name in _LISTS if name in line},
    )


def _level(line: dict[str, Any], levels: Level, groups: list[str]) -> Level | None:
    """How a line gives the level; None if it does not."""
    group = line.get("level", "level" if "level" in groups else "")
    words = line.get("levels")
    if not group:
        return None
    if words is None:
        return _SCALES.get(group, levels)
    return WORD if words == "word" else _graded(words, group, line.get("other_level", ""))


def _graded(table: dict[str, list[str]], group: str = "level", otherwise: str = "") -> Level:
    """A level by the words that a table lists for each."""
    levels = {word: level for level, words in table.items() for word in _words(words)}
    return graded(levels, group, otherwise)


def _words(words: list[str]) -> list[str]:
    ranges = [(word, _RANGE.fullmatch(word)) for word in words]
    return [
        text
        for word, span in ranges
        for text in (
            (f"{span[1]}{number}" for number in range(int(span[2]), int(span[3]) + 1))
            if span
            else (word,)
        )
    ]


def _with_fragments(known: dict[str, str], table: dict[str, Any]) -> dict[str, str]:
    """Return fragments with those of a table, each of which may use the ones before it."""
    fragments = dict(known)
    for name, pieces in table.items():
        fragments[name] = _expanded(pieces, fragments)
    return fragments


def _expanded(pieces: str | list[str], fragments: dict[str, str]) -> str:
    """A regex with its fragments; a long one is written in pieces."""
    regex = pieces if isinstance(pieces, str) else "".join(pieces)
    return _REFERENCE.sub(lambda reference: fragments[reference[1]], regex)


PROGRAMS = read_table(path_beside(__file__, "programs.toml"))
"""All of them; no two are sure of the same line."""
