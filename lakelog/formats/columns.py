"""Lines of cells under named columns: one declaration gives their SQL and their exact rule.

What a file's header says of its columns is a `Table`. A cell becomes JSON by the kind of its
column: `text`, `cell` (a number where its text is the one that the number has, else text),
`bool` (T and F), `payload` (JSON where it is JSON, else text; an object takes the other columns of
`data` in), or `[` and the kind of what a list holds. A cell that is empty or unset is null.
A line with more or fewer cells than columns is no event.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from lakelog.errors import InvalidEvent
from lakelog.event import Severity
from lakelog.formats import pattern, sqltext
from lakelog.formats.format import EventMembers
from lakelog.formats.pattern import STATUS
from lakelog.sql import literal
from lakelog.values import JsonObject, parse_time, parse_value

DATA, NOWHERE = "data", ""
_WHOLE = r"-?[1-9]\d{0,17}|0"
_DECIMAL = r"-?(?:0|[1-9]\d{0,15})\.\d{1,17}"
_ODD = r'["\\\x00-\x08\x0a-\x1f]'
"""Characters that JSON escapes; so is a tab, where it is not the delimiter."""
_TEXTS = ("category", "source", "subject", "message", "id")
_QUOTED = "chr(31)"


@dataclass(frozen=True)
class Column:
    """A column of a file: what its cells hold, and where they go: DATA, a column of an event, or
    NOWHERE."""

    name: str
    kind: str = "cell"
    place: str = DATA


@dataclass(frozen=True)
class LineTable:
    """How the lines of a file are read.

    `split` gives the cells of a line, `split_sql` the same over `text`, or null where it is not
    sure. `moment` is made of texts and numbers of cells; without it the time is that of ingest.
    `respelled` gives the ISO text of a time that is written otherwise, for the exact rule.
    `status` is the number of a cell that holds an HTTP status. `between` divides what lists hold.
    With `tabs` no cell holds one. With `nulls` a cell in quotes that holds nothing is an empty
    text.
    """

    columns: tuple[Column, ...]
    split: Callable[[str], list[Any]]
    split_sql: str
    type: str
    moment: tuple[str | int, ...] = ()
    status: int | None = None
    unset: str = ""
    empty: str = ""
    between: str = ","
    tabs: bool = False
    nulls: bool = False
    respelled: Callable[[str], str] = str

    def event(self, line: str) -> EventMembers:
        """Return the event of a line. Raises InvalidEvent."""
        cells = self.split(line)
        if len(cells) != len(self.columns):
            raise InvalidEvent(f"{len(cells)} fields, but the header has {len(self.columns)}")
        # In an own export an empty cell in quotes is text; elsewhere nobody can tell it from null.
        none = (None,) if self.nulls else ("", self.unset)
        values = [None if cell in none else cell for cell in cells]
        event: EventMembers = {"type": self.type}
        data = {}
        for column, value in zip(self.columns, values, strict=True):
            if column.kind == "payload":
                event |= {} if value is None else {"data": _payload(value)}
            elif column.place == DATA:
                data[column.name] = None if value is None else self._value(value, column.kind)
            elif column.place not in ("time", NOWHERE) and value is not None:
                event[column.place] = value
        moment_cells = [values[p] if isinstance(p, int) else p for p in self.moment]
        if any(isinstance(p, int) and values[p] is not None for p in self.moment):
            event["time"] = "".join(p or "" for p in moment_cells)
            try:
                parse_time(event["time"])
            except InvalidEvent:
                event["time"] = self.respelled(event["time"])
                # Refused here, with the reason of the time, and not later as a row.
                parse_time(event["time"])
        has_word = "level" in event
        if self.status is not None and values[self.status]:
            event["level"] = STATUS.of(str(values[self.status]))
        event = _with_data(event, data)
        return Severity.with_word(event, event["level"]) if has_word else event

    def _value(self, cell: str, cell_type: str) -> Any:
        if cell_type.startswith("["):
            elements = [] if cell == self.empty else cell.split(self.between)
            return [self._value(element, cell_type[1:]) for element in elements]
        if self.empty and cell == self.empty:
            return ""
        if cell_type == "bool" and cell in ("T", "F"):
            return cell == "T"
        return number(cell) if cell_type == "cell" else cell

    def query(self, plain: str = "true") -> str:
        """SQL over `lines` for lines that are `plain` (SQL over `text`) and split for sure."""
        column_at = {c.place: f"c{i}" for i, c in enumerate(self.columns) if c.place != DATA}
        # Numbered names: columns of a file may be called anything.
        cells = ", ".join(
            f"nullif({_nullif(f'c[{i + 1}]', self.unset)}, '') AS c{i}"
            for i in range(len(self.columns))
        )
        members = ", ',', ".join(
            f"{literal(_member(c.name))}, {self._json(f'c{i}', c.kind)}"
            for i, c in enumerate(self.columns)
            if c.place == DATA and c.kind != "payload"
        )
        payload = next((f"c{i}" for i, c in enumerate(self.columns) if c.kind == "payload"), "")
        moment = [f"c{p}" if isinstance(p, int) else literal(p) for p in self.moment]
        has_moment = " OR ".join(f"{p} IS NOT NULL" for p in moment if p.startswith("c")) or "false"
        level = _nulls(column_at.get("level"))
        severity = sqltext.level_sql(level) if "level" in column_at else level
        if self.status is not None:
            status = f"c{self.status}"
            severity = f"CASE WHEN {status} IS NOT NULL THEN {STATUS.sql(status)} END"
        column = {name: f"{_nulls(column_at.get(name))} AS {name}" for name in _TEXTS}
        body, unsure = _data_sql(members, payload, payload and self._json(payload, "text"))
        data = sqltext.with_word_sql("body", level, "severity") if "level" in column_at else "body"
        # Most lines need no JSON escaping, so to_json is called only for those that do.
        odd = f"regexp_matches(text, '{_ODD}')" + (
            "" if self.tabs else " OR contains(text, chr(9))"
        )
        strange = f"{level} IS NOT NULL AND severity IS NULL" if "level" in column_at else "false"
        event_type = literal(self.type)
        if "type" in column_at:
            event_type = f"coalesce({column_at['type']}, '{self.type}')"
        # Splitting loses the quotes, so SQL cannot tell an empty text from null: left to the exact
        # rule.
        if self.nulls:
            plain = f"({plain}) AND NOT regexp_matches(text, '(^|,)\"\"(,|$)')"
        # Lines of another number of cells give no row and are left: the exact rule says what is
        # wrong.
        return f"""
WITH bare AS (SELECT rtrim(line, chr(10) || chr(13)) AS text, position FROM lines),
split AS (SELECT position, {odd} AS odd, {self.split_sql} AS c FROM bare
  WHERE {pattern.PLAIN} AND trim(text, {_BLANK}) <> '' AND {plain}),
cells AS (SELECT position, odd, {cells} FROM split WHERE len(c) = {len(self.columns)}),
timed AS (SELECT *, {severity} AS severity, CASE WHEN NOT ({has_moment}) THEN {pattern.NOW}
            ELSE {sqltext.time_sql(f"concat({', '.join(moment)})") if moment else pattern.NOW} END
            AS time FROM cells),
written AS (SELECT *, {body} AS body FROM timed)
SELECT time, {event_type} AS type, {column["category"]}, {column["source"]},
  {column["subject"]}, severity AS level, {column["message"]}, {data} AS data,
  {column["id"]}, position,
  NOT coalesce({sqltext.IN_RANGE}, false) OR ({strange}) OR ({unsure}) AS slow
FROM written"""

    def _json(self, value: str, cell_type: str) -> str:
        """SQL for the JSON of a cell."""
        if cell_type.startswith("["):
            elements = f"string_split({value}, {literal(self.between)})"
            inner = f"list_transform({elements}, lambda e: {self._json('e', cell_type[1:])})"
            none = f"WHEN {value} = {literal(self.empty)} THEN '[]' " if self.empty else ""
            return (
                f"CASE WHEN {value} IS NULL THEN 'null' {none}"
                f"ELSE concat('[', array_to_string({inner}, ','), ']') END"
            )
        arms = [f"WHEN {value} IS NULL THEN 'null'"]
        if self.empty:
            arms.append(f"WHEN {value} = {literal(self.empty)} THEN '\"\"'")
        if cell_type == "bool":
            arms.append(f"WHEN {value} = 'T' THEN 'true' WHEN {value} = 'F' THEN 'false'")
        if cell_type == "cell":
            arms.append(f"WHEN {is_number_sql(value)} THEN {value}")
        # to_json escapes, and costs as much as all else: only rows with an odd character pay for
        # it.
        arms.append(f"WHEN odd THEN to_json({value})::VARCHAR ELSE concat('\"', {value}, '\"')")
        return f"CASE {' '.join(arms)} END"


def distinct(names: list[str]) -> list[str]:
    """Names of columns, the nameless and those that are there twice made different."""
    result: list[str] = []
    for number, name in enumerate(names, 1):
        name = name or f"column_{number}"
        result.append(f"{name}_{number}" if name in result else name)
    return result


def quoted_sql(delimiter: str) -> str:
    """SQL for the cells of `text`, which may stand in quotes with two quotes for one; null where
    a quote stands anywhere else."""
    segments, mark = "string_split(text, '\"')", literal(delimiter)
    final = f"len({segments})"
    # parts of odd number stand outside of quotes; an empty one inside a cell was two quotes
    outside = (
        f"i % 2 = 1 AND x <> '' AND NOT ((i = 1 OR starts_with(x, {mark}))"
        f" AND (i = {final} OR ends_with(x, {mark})))"
    )
    stray = f"len(list_filter({segments}, lambda x, i: {outside})) > 0"
    joined = (
        f"array_to_string(list_transform({segments}, lambda x, i: CASE WHEN i % 2 = 0 THEN x"
        f" WHEN x = '' AND i > 1 AND i < {final} THEN '\"' ELSE replace(x, {mark}, {_QUOTED}) END),"
        " '')"
    )
    return (
        f"CASE WHEN NOT contains(text, '\"') THEN string_split(text, {mark})"
        f" WHEN {final} % 2 = 0 OR contains(text, {_QUOTED}) OR {stray} THEN NULL"
        f" ELSE string_split({joined}, {_QUOTED}) END"
    )


def quoted(delimiter: str, nulls: bool = False) -> Callable[[str], list[Any]]:
    """A function that splits lines whose cells may be quoted. It raises InvalidEvent.

    With `nulls` a cell that is empty and not in quotes is None.
    """
    d = re.escape(delimiter)
    cell = re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|((?:[^"{d}][^{d}]*)?))(?:({d})|\Z)')

    def split(text: str) -> list[str]:
        cells: list[Any] = []
        start, is_open = 0, True
        while is_open:
            match = cell.match(text, start)
            if not match:
                raise InvalidEvent(f"an unclosed quote, or text after a closing quote, at {start}")
            inside, bare, mark = match.groups()
            bare = bare or None if nulls else bare
            cells.append(bare if inside is None else inside.replace('""', '"'))
            start, is_open = match.end(), mark is not None
        return cells

    return split


def _payload(cell: str) -> Any:
    """The JSON that a cell holds, else its text."""
    try:
        # Only to see whether it is JSON: the text itself is written, digit for digit.
        parse_value(cell.encode())
    except InvalidEvent:
        return cell
    return orjson.Fragment(cell.replace("\n", " ").replace("\r", " "))


def _with_data(event: EventMembers, data: JsonObject) -> EventMembers:
    """An event with the columns that go into `data`, beside what a payload holds or around it."""
    payload = event.get("data")
    if not data:
        return event
    if payload is None:
        return event | {"data": data}
    # A fragment cannot be merged with other members.
    if isinstance(payload, orjson.Fragment):
        payload = parse_value(orjson.dumps(payload))
    # Members that would overwrite each other are kept apart.
    collides = not isinstance(payload, dict) or payload.keys() & data.keys()
    return event | {"data": {"data": payload, **data} if collides else {**payload, **data}}


def _data_sql(members: str, payload: str, payload_json: str) -> tuple[str, str]:
    """SQL for the JSON of `data`, and for the lines whose payload the exact rule has to look at."""
    if not payload:
        return f"concat('{{', {members}, '}}')" if members else "NULL::VARCHAR", "false"
    boxed = f"regexp_matches({payload}, '^[{{\\[]')"
    if not members:
        sure = f"{boxed} AND json_valid({payload}) AND NOT {sqltext.odd_sql(payload, 'true')}"
        # A payload of several lines is spelled on one line by the exact rule.
        one_line = f"NOT regexp_matches({payload}, '[\\n\\r]')"
        return payload, f"{payload} IS NOT NULL AND NOT ({sure} AND {one_line})"
    payload_member = (
        f"CASE WHEN {payload} IS NULL THEN '' ELSE concat('\"data\":', {payload_json}, ',') END"
    )
    body = f"concat('{{', {payload_member}, {members}, '}}')"
    return body, f"{payload} IS NOT NULL AND ({boxed} OR json_valid({payload}))"


def is_number_sql(value: str) -> str:
    """SQL that says whether a text is what the number that it means is written as."""
    return (
        f"ascii({value}) BETWEEN 45 AND 57 AND (regexp_full_match({value}, '{_WHOLE}') OR"
        f" (regexp_full_match({value}, '{_DECIMAL}')"
        f" AND try_cast({value} AS DOUBLE)::VARCHAR = {value}))"
    )


def number(cell: str) -> Any:
    """Return the number that a text means, if that is written so; else the text."""
    if re.fullmatch(_WHOLE, cell, re.ASCII):
        return int(cell)
    if re.fullmatch(_DECIMAL, cell, re.ASCII) and repr(float(cell)) == cell:
        return float(cell)
    return cell


def _member(name: str) -> str:
    return json.dumps(name, ensure_ascii=False) + ":"


def _nulls(value: str | None) -> str:
    return value or "NULL::VARCHAR"


def _nullif(value: str, null: str) -> str:
    return f"nullif({value}, {literal(null)})" if null else value


_BLANK = " || ".join(f"chr({ord(c)})" for c in pattern.SPACE)
