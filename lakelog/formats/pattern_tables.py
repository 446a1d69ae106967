"""Formats of text that tables declare: the logs of single programs, and the styles of many.

`programs.toml` and `styles.toml` hold a table for each format:

- `about` says what it is, and `begins` how its records begin; `leads`, `is_alone`, `is_whole` and
  `word_levels` are the options of `program`. A style says `otherwise` why a line is none of it, and
  may have the other options of `PatternFormat`, such as `wraps`; it `is_untimed` if it knows lines
  without a time.
- `lines` are its patterns, of which the first that fits decides. Groups go to the column of their
  name (`time` out of `stamp`); `message`, `source` and `subject` name other groups, and an empty
  text none. Groups that no column takes are the payload, unless `data` lists it. `each` is what
  all lines have that do not say otherwise; names of groups that a line lacks do not count there.
- `levels` are the words of a program for levels, of all its lines or of one; without them levels
  have their common names. `level` names the group that holds the level: `status` of HTTP, `pri` or
  `severity` of syslog, or a group of words; `other_level` is that of all other words. A line may
  name one of the format's `scales`, `word` for common names, or `own` where others stay as they
  are.
- `unread` is how lines begin whose half of the day or zone the patterns would leave in the message:
  they are left to the style of leading times.
- `fragments` are parts of regexes that others use as `%{name}`.
"""

from __future__ import annotations

import re
from string import Formatter
from typing import Any

from lakelog.event import Severity
from lakelog.formats import sqltext
from lakelog.formats.format import Traits
from lakelog.formats.line_starts import DATE, OTHERS, SLOW_QUERY
from lakelog.formats.pattern import (
    CLOCK,
    COLOURS,
    MESSAGE,
    MONTH,
    PRI,
    REQUEST,
    REST,
    SEVERITY,
    STATUS,
    WORD,
    Level,
    Pattern,
    graded,
)
from lakelog.formats.pattern_format import UNTIMED_SCORE, PatternFormat, program
from lakelog.formats.zones import ANY_ZONE, NUMERIC, ODD_ZONE, TZ
from lakelog.runtime.tables import ModuleFiles

_FRAGMENTS = {
    "any_zone": ANY_ZONE,
    "clock": CLOCK,
    "colours": COLOURS,
    "date_start": DATE,
    "message": MESSAGE,
    "month": MONTH,
    "numeric": NUMERIC,
    "odd_zone": ODD_ZONE,
    "others": OTHERS,
    "pri": PRI,
    "request": REQUEST,
    "rest": REST,
    "slow_query": SLOW_QUERY,
    "tz": TZ,
}
_NUMBERS = {
    "status": STATUS,
    "pri": SEVERITY,
    "severity": Level("severity", SEVERITY.sql, SEVERITY.of),
}
"""Levels by the numbers that a group of this name holds."""
_SCALES = {
    "any": Level("level", sqltext.level_sql, Severity.of),
    "own": Level("level", lambda text: f"coalesce({sqltext.level_sql(text)}, {text})", str),
    "word": WORD,
}
"""Levels by their common names: any of them; or one of the program's own, as Asterisk's SECURITY;
all words, which are levels only if they are names."""
_REFERENCE = re.compile(r"%\{(\w+)\}")
_GROUP = re.compile(r"\(\?P<(\w+)>")
_RANGE = re.compile(r"(.*?)(\d+)\.\.(\d+)")
"""A word with a number, as `debug 0..99`."""
_LISTS = ("numbers", "dashes", "quoted", "doubled")


def read_table(name: str) -> tuple[PatternFormat, ...]:
    """Return the formats that a table declares."""
    tables = ModuleFiles(__file__).tables(name)
    fragments = with_fragments(_FRAGMENTS, tables.pop("fragments", {}))
    return tuple(_format(name, table, fragments) for name, table in tables.items())


def _format(name: str, table: dict[str, Any], fragments: dict[str, str]) -> PatternFormat:
    fragments = with_fragments(fragments, table.get("fragments", {}))
    scales = {
        **_SCALES,
        **{k: _graded(words_of_level) for k, words_of_level in table.get("scales", {}).items()},
    }
    levels = _graded(table["levels"]) if "levels" in table else WORD
    defaults = {"levels": levels, **table.get("each", {})}
    patterns = tuple(_pattern(line, defaults, scales, fragments) for line in table["lines"])
    if unread := expanded(table.get("unread", ""), fragments):
        # Its time is none, which makes a mixture ask the other styles.
        patterns = (Pattern(f"(?P<line>{unread}.*)", "{line}", "log", message=""), *patterns)
    begins = expanded(table.get("begins", ""), fragments)
    word_levels = table.get("word_levels")
    word_level = _graded(word_levels) if isinstance(word_levels, dict) else scales.get(word_levels)
    if "otherwise" not in table:
        return program(
            name,
            table["about"],
            begins,
            patterns,
            is_alone=table.get("is_alone", False),
            is_whole=table.get("is_whole", False),
            word_level=word_level,
            leads=table.get("leads", ""),
        )
    unlike = expanded(table.get("unlike", ""), fragments)
    return PatternFormat(
        name,
        table["about"],
        patterns,
        table["otherwise"],
        Traits(
            begins=begins,
            continues=expanded(table.get("continues", ""), fragments),
            leads=table.get("leads", ""),
            prose=table.get("is_prose", False),
            by_line=True,
        ),
        untimed=UNTIMED_SCORE if table.get("is_untimed") else 0.0,
        unlike=re.compile(unlike.encode()) if unlike else None,
        word_level=word_level,
        wraps=table.get("wraps", False),
    )


def _pattern(
    line: dict[str, Any],
    defaults: dict[str, Any],
    scales: dict[str, Level],
    fragments: dict[str, str],
) -> Pattern:
    regex = expanded(line["regex"], fragments)
    groups = _GROUP.findall(regex)
    shared = {k: v for k, v in defaults.items() if k not in ("level", "source") or v in groups}
    line = {**shared, **({"level": "level"} if "level" in groups else {}), **line}
    message, source = line.get("message", "message"), line.get("source", "source")
    source = source if source in groups else ""
    time, subject = line.get("time", "{stamp}"), line.get("subject", "")
    level = _level(line, scales)
    columns = {name for _, name, _, _ in Formatter().parse(time)} | {message, source, "half"}
    if level and level.group == "level":
        columns.add("level")  # the word goes into the payload by a rule of its own
    data = tuple(line.get("data", (group for group in groups if group not in columns)))
    lists = {name: line.get(name, ()) for name in _LISTS}
    if lists["dashes"] == "all":
        lists["dashes"] = (*data, message, subject)
    return Pattern(
        regex,
        time,
        line.get("type", "log"),
        level,
        message=message,
        source=source,
        subject=subject,
        data=data,
        **{name: tuple(g for g in names if g in groups) for name, names in lists.items()},
    )


def _level(line: dict[str, Any], scales: dict[str, Level]) -> Level | None:
    """How a line gives the level; None if it does not."""
    group, levels = line.get("level", ""), line["levels"]
    if not group:
        return None
    if isinstance(levels, dict):
        return _graded(levels, group, line.get("other_level", ""))
    return _NUMBERS.get(group) or (scales[levels] if isinstance(levels, str) else levels)


def _graded(table: dict[str, list[str]], group: str = "level", otherwise: str = "") -> Level:
    """A level by the words that a table lists for each."""
    levels = {word: level for level, listing in table.items() for word in _words(listing)}
    return graded(levels, group, otherwise)


def _words(listing: list[str]) -> list[str]:
    ranges = [(word, _RANGE.fullmatch(word)) for word in listing]
    return [
        word_text
        for word, span in ranges
        for word_text in (
            (f"{span[1]}{number}" for number in range(int(span[2]), int(span[3]) + 1))
            if span
            else (word,)
        )
    ]


def with_fragments(fragments_so_far: dict[str, str], table: dict[str, Any]) -> dict[str, str]:
    """Return fragments with those of a table, each of which may use the ones before it."""
    fragments = dict(fragments_so_far)
    for name, definition in table.items():
        fragments[name] = expanded(definition, fragments)
    return fragments


def expanded(lines: str | list[str], fragments: dict[str, str]) -> str:
    """A regex with its fragments; a long one is written in pieces."""
    regex = lines if isinstance(lines, str) else "".join(lines)
    return _REFERENCE.sub(lambda reference: fragments[reference[1]], regex)
