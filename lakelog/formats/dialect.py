"""Dialects of JSON lines: one declaration of members gives the SQL and the exact rule.

A dialect says which members go to which column. A member is named by its key, or by keys with
slashes between them where it stands deeper. Of several members of a column the first that has a
value counts. The first one of the time and of the message is moved, so that it is not in `data`
too; all others, levels among them, stay there as they are. An object that lacks the members by
which a dialect is known is read as plain JSON lines are.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from lakelog.errors import InvalidEvent
from lakelog.event import Severity
from lakelog.formats import jsonl, moments, sqltext
from lakelog.formats.format import EventMembers, Format, Traits
from lakelog.formats.sqltext import IN_RANGE, VALID, level_sql, odd_sql, time_sql
from lakelog.runtime.lazy import LazyProperty
from lakelog.runtime.tables import ModuleFiles
from lakelog.values import JsonObject, parse_line

Scale = tuple[tuple[int, str], ...]
"""From which number on a level has which name; the last entry ends the scale."""
SCALES: dict[str, Scale] = {
    name: tuple((number, level) for number, level in scale)
    for name, scale in ModuleFiles(__file__).tables("scales.toml").items()
}
_NUMBER = r"[0-9]{1,3}"
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{\]},]|"')
_TEXTS = ("category", "source", "subject", "message", "id")
_MOST_MIXED = 0.5
"""So much of the objects in a file may be of no dialect."""


@dataclass(frozen=True, eq=False)
class Dialect(Format):
    """One dialect of JSON lines, which is a format itself.

    `about` says what it is, for `lakelog formats list`. `fits` are the members by which it is
    known: `a|b` where either will do, `a=regex` where the value must match; an object that has one
    that the dialect `lacks` is of another. A time, too, may be
    `a=regex`: its first group is the time where all matches. `words` are words for levels that only
    this dialect uses so. The type is that of the first of `types`, else `type`. `failure` is a
    member whose presence makes an event an ERROR, all others are INFO then. `prepared` makes an
    object fit for the exact rule; what it changes SQL must leave to that rule. A dialect that is
    `exact` leaves all to it, which is cheaper where many members would be looked for in large
    objects. One that is `plain` is only a name: its objects are read as JSON lines are.
    """

    NAME: str
    about: str
    fits: tuple[str, ...]
    time: tuple[str, ...]
    level: tuple[str, ...] = ()
    scale: Scale = ()
    words: tuple[tuple[str, str], ...] = ()
    failure: str = ""
    type: str = "log"
    types: tuple[str, ...] = ()
    message: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    subject: tuple[str, ...] = ()
    category: tuple[str, ...] = ()
    id: tuple[str, ...] = ()
    prepared: Callable[[JsonObject], JsonObject] | None = None
    exact: bool = False
    lacks: tuple[str, ...] = ()
    plain: bool = False
    traits = Traits(surest=1.01)

    def sniff(self, lines: list[bytes]) -> float:
        """Return how likely it is (0 to 1) that these are lines of this dialect."""
        members = objects(tuple(lines))
        fits = len(members)
        for candidate in members:  # each file is asked by every dialect: most are ruled out early
            fits -= not self.is_one(candidate)
            if fits < _MOST_MIXED * len(members):
                return 0.0
        if not members:
            return 0.0
        return jsonl.FORM.sniff(lines) * (1 + fits / len(members) / 100)

    def parse(self, line: bytes) -> EventMembers:
        """Return the event of one line. Raises InvalidEvent."""
        return self.event(parse_line(line))

    def is_one(self, members: JsonObject) -> bool:
        """Whether an object has the members by which the dialect is known."""
        for needs in self._needs:
            for need in needs:
                if _is_met(members, need):
                    break
            else:
                return False
        return not any(_is_met(members, lacking) for lacking in self.lacks)

    @LazyProperty
    def needed_names(self) -> tuple[frozenset[str], ...]:
        """Names of members: of each set an object must have one."""
        return tuple(frozenset(_parts(need)[0][0] for need in needs) for needs in self._needs)

    @LazyProperty
    def _needs(self) -> tuple[tuple[str, ...], ...]:
        """Of each tuple one must be met."""
        return tuple(tuple(fit.split("|")) for fit in self.fits)

    def event(self, members: JsonObject) -> EventMembers:
        """Return the event of an object. Raises InvalidEvent."""
        # Lines of other kinds in the same file are read as plain JSON lines, not refused.
        if self.plain or not self.is_one(members):
            return jsonl.FORM.typed(members)
        payload = dict(self.prepared(members) if self.prepared else members)
        event: EventMembers = {}
        moment = next(filter(_is_given, (_moment(payload, m) for m in self.time)), None)
        word, moment = None, moments.unboxed(moment)
        if isinstance(moment, str):
            moment_text, word = moments.respelled(moment)
            moment = moment_text.replace(",", ".")
        if moment is not None:
            event["time"] = moment
        event_type = self._text(payload, self.types)
        event["type"] = self.type if event_type is None else event_type  # 0 is a type, too
        for column in _TEXTS:
            value = self._text(payload, getattr(self, column), empty=column == "message")
            if value is not None:
                event[column] = value
        payload.pop(_member(self.time[0]), None)  # which may be a column of text, too
        moved = payload.get(self.message[0]) if self.message else None
        if self.message and (moved is None or _is_text(moved)):
            payload.pop(self.message[0], None)
        if word is not None:
            payload.setdefault("tz", word)
        level = self.level_of(payload)
        if level:
            event["level"] = level
        return event | {"data": payload} if payload else event

    def _query(self) -> str:
        return self.query("lines")

    def query(self, lines: str) -> str:
        """SQL over a table of lines for those of this dialect."""
        if self.plain:
            return jsonl.query(lines)
        if self.exact:
            return sqltext.none_sql(lines)
        members = self._members()
        # The time and the message leave the payload; a null in a merge patch removes a member.
        moved = [_member(m[0]) for m in (self.time, self.message) if m]
        nulls = "{" + ", ".join(f'"{k}":null' for k in moved if "/" not in k) + "}"
        text_members = {m for column in _TEXTS for m in getattr(self, column)} | set(self.types)
        column = {c: _first_sql(getattr(self, c), empty=c == "message") for c in _TEXTS}
        event_type = (
            f"coalesce({_first_sql(self.types)}, '{self.type}')" if self.types else f"'{self.type}'"
        )
        # What a doubled key means only the exact rule decides.
        twice = " OR ".join(_twice_sql(parent) for parent in _parents(members)) or "false"
        # Materialized: DuckDB 2.0 pushes a filter on a computed column below the computation, and
        # would parse each line twice.
        return f"""
WITH parsed AS MATERIALIZED (
  SELECT line, position, from_json(line, '{_shape(members)}') AS j, json_keys(line) AS keys
  FROM (SELECT {VALID} AS line, position FROM {lines})),
cut AS MATERIALIZED (
  SELECT line, position, j, replace({_moment_sql(self.time)}, ',', '.') AS at_text,
    {_first_sql(self.level)} AS grade, json_merge_patch(line, '{nulls}')::VARCHAR AS rest,
    {_stray_sql(text_members)} OR len(keys) <> list_unique(keys) OR coalesce({twice}, false)
      OR {odd_sql("line", sqltext.unchanged_sql("line"))} AS odd
  FROM parsed WHERE j IS NOT NULL AND json_type(line) = 'OBJECT' AND {self._fits_sql()}),
typed AS (
  SELECT *, {self._level_sql()} AS severity,
    CASE WHEN at_text IS NULL THEN $now::TIMESTAMPTZ ELSE {time_sql("at_text")} END AS time
  FROM cut)
SELECT time, {event_type} AS type, {column["category"]} AS category, {column["source"]} AS source,
  {column["subject"]} AS subject, severity AS level, {column["message"]} AS message,
  nullif(rest, '{{}}') AS data, {column["id"]} AS id, position,
  odd OR time IS NULL OR NOT {IN_RANGE}
    OR (severity IS NULL AND coalesce(regexp_matches(grade, '[^ -~]|[+-][0-9]'), false)) AS slow
FROM typed"""

    def cheaper(self, lines: list[bytes]) -> list[str]:
        """Return cheaper queries for files whose lines look like these, the cheapest first."""
        return jsonl.FORM.cheaper(lines) if self.plain else []

    def _text(self, values: JsonObject, members: tuple[str, ...], empty: bool = False) -> Any:
        """The first of some members that a column of text can hold."""
        for member in members:
            value = _at(values, member)
            if value is not None and _is_text(value) and (empty or value != ""):
                return value
        return None

    def level_of(self, members: JsonObject) -> str | None:
        """Return the level that members say, None for none."""
        if self.failure:
            return "INFO" if _at(members, self.failure) in (None, "") else "ERROR"
        grade = next(filter(_is_given, (_at(members, m) for m in self.level)), None)
        # Numbers and their spellings mean the same on a scale; true is no number of one.
        if isinstance(grade, int) and not isinstance(grade, bool):
            grade = str(grade)
        if not isinstance(grade, str):
            return None
        if grade in dict(self.words):
            return dict(self.words)[grade]
        if self.scale and re.fullmatch(_NUMBER, grade):
            return next(
                (name for minimum, name in reversed(self.scale) if int(grade) >= minimum), None
            )
        return Severity.of(Severity.without_offset(grade))

    def _level_sql(self) -> str:
        if self.failure:
            return f"CASE WHEN {_field(self.failure)} <> '' THEN 'ERROR' ELSE 'INFO' END"
        if not self.level:
            return "NULL::VARCHAR"
        number = "grade::INT"
        arms = " ".join(
            f"WHEN {number} >= {minimum} THEN {_quoted(name)}" for minimum, name in self.scale[::-1]
        )
        word = level_sql("grade")
        if self.words:
            own_words = " ".join(f"WHEN '{word}' THEN '{level}'" for word, level in self.words)
            word = f"CASE grade {own_words} ELSE {word} END"
        if not arms:
            return word
        return (
            f"CASE WHEN regexp_full_match(grade, '{_NUMBER}') THEN CASE {arms} END ELSE {word} END"
        )

    def _members(self) -> list[str]:
        members = [_member(m) for f in (*self.fits, *self.lacks) for m in f.split("|")]
        columns = ("time", "level", "types", *_TEXTS)
        members += [_member(m) for c in columns for m in getattr(self, c)]
        members += [self.failure] if self.failure else []
        return list(dict.fromkeys(members))

    def _fits_sql(self) -> str:
        inner = _parents(self._members())
        needs = [
            "(" + " OR ".join(_met_sql(m, m in inner) for m in f.split("|")) + ")"
            for f in self.fits
        ]
        return " AND ".join((*needs, *(f"NOT {_met_sql(m, m in inner)}" for m in self.lacks)))


@functools.lru_cache(maxsize=2)
def objects(lines: tuple[bytes, ...]) -> list[JsonObject]:
    """The JSON objects among some lines."""
    result = []
    for line in lines:
        if line.lstrip()[:1] not in (b"{", b"\xef"):  # no object, perhaps after a byte order mark
            continue
        try:
            result.append(parse_line(line))
        except InvalidEvent:
            continue
    if lines and not result:
        # One line may be longer than the sample.
        partial = glimpse(lines[-1])
        result += [partial] if isinstance(partial, dict) else []
    return result


def glimpse(data: bytes) -> Any:
    """The first JSON value of some text as far as it can be seen, None if there is none."""
    decoded = data.decode("utf-8", "ignore").removeprefix("\ufeff")
    stack: list[str] = []
    whole = ""
    for token in _TOKEN.finditer(decoded):
        sign = token[0]
        if sign in ("[", "{"):
            stack.append("]" if sign == "[" else "}")
        elif sign in ("]", "}") and stack:
            stack.pop()
            # Closed where it was complete last: a beginning that is cut off within a value has the
            # members before it.
            whole = decoded[: token.end()] + "".join(reversed(stack))
        elif sign == ",":
            whole = decoded[: token.start()] + "".join(reversed(stack))
        if not stack or sign == '"':
            break
    try:
        return orjson.loads(whole)
    except orjson.JSONDecodeError:
        return None


def _is_given(value: object) -> bool:
    return value is not None and value != ""


def _is_text(value: object) -> bool:
    """Whether a column of text can hold a value; numbers are stored as they are written."""
    if isinstance(value, orjson.Fragment):
        return orjson.dumps(value)[:1] not in b'{["'
    return not isinstance(value, (dict, list))


@functools.cache
def _parts(need: str) -> tuple[tuple[str, ...], str]:
    """The keys that lead to a member, and what its value must match."""
    member, _, regex = need.partition("=")
    return tuple(member.split("/")), regex


def _is_met(members: JsonObject, need: str) -> bool:
    keys, regex = _parts(need)
    value: object = members
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if not regex:
        return value is not None
    if isinstance(value, (int, float)):
        value = str(value).lower()  # true is matched as it is written
    elif isinstance(value, orjson.Fragment):
        value = orjson.dumps(value).decode()
    return isinstance(value, str) and re.fullmatch(regex, value, re.ASCII) is not None


def _at(value: object, member: str) -> Any:
    for key in member.split("/"):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _member(need: str) -> str:
    return need.partition("=")[0]


def _moment(members: JsonObject, need: str) -> Any:
    """The value that a member has, or the part of it that is the time."""
    member, _, regex = need.partition("=")
    value = _at(members, member)
    if not regex:
        return value
    value_text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    match = re.fullmatch(regex, value_text, re.ASCII) if isinstance(value_text, str) else None
    return match[1] if match else None


def _moment_sql(members: tuple[str, ...]) -> str:
    """SQL for the text of the first member that holds a time."""
    fields = []
    for member, _, regex in (m.partition("=") for m in members):
        field = _field(member)
        fields.append(
            f"nullif({field}, '')"
            if not regex
            else f"nullif(regexp_extract({field}, '^(?:{regex})$', 1), '')"
        )
    return f"coalesce({', '.join(fields)})"


def _met_sql(need: str, inner: bool) -> str:
    member, _, regex = need.partition("=")
    if inner:
        return f"coalesce(json_type(line, '{_path(member)}') <> 'NULL', false)"
    if not regex:
        return f"{_field(member)} IS NOT NULL"
    return f"coalesce(regexp_full_match({_field(member)}, '{regex}'), false)"


def _field(member: str) -> str:
    return "j." + ".".join(f'"{key}"' for key in member.split("/"))


def _path(member: str) -> str:
    return "$." + ".".join(f'"{key}"' for key in member.split("/"))


def _quoted(name: str) -> str:
    return f"'{name}'" if name else "NULL"


def _first_sql(members: tuple[str, ...], empty: bool = False) -> str:
    fields = [_field(m) if empty else f"nullif({_field(m)}, '')" for m in members]
    return f"coalesce({', '.join(fields)})" if fields else "NULL::VARCHAR"


def _shape(members: list[str]) -> str:
    tree: JsonObject = {}
    inner = _parents(members)
    for member in members:
        if member in inner:
            continue
        # Only what is named is parsed by the engine; members within members become nested objects.
        *parents, key = member.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[key] = "VARCHAR"
    return orjson.dumps(tree).decode()


def _parents(members: list[str]) -> list[str]:
    return sorted({m[:index] for m in members for index in range(len(m)) if m[index] == "/"})


def _twice_sql(parent: str) -> str:
    keys = f"json_keys(line, '{_path(parent)}')"
    return f"len({keys}) <> list_unique({keys})"


def _stray_sql(members: set[str]) -> str:
    """SQL that says whether a text was none and may not be what it was."""
    return (
        " OR ".join(
            f"CASE WHEN regexp_matches({_field(m)}, '{sqltext.STRAY}')"
            f" THEN coalesce(json_type(line, '{_path(m)}') <> 'VARCHAR', true) ELSE false END"
            for m in sorted(members)
        )
        or "false"
    )
