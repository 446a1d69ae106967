"""Parameters of a view: what a definition declares, what a reader gives, and how SQL gets it.

A declaration is one line of the header, `-- params: NAME TYPE`, with ` = DEFAULT` where there is
one; `;` stands between several. Types: text, int, float, bool, time, duration (`30m`, `7d`), list
(texts, commas between), and field (a column of `events`, or a path into `data` such as
`system_metrics.cpu_percent`). `null` as a default means none. SQL names them `$NAME`; a value is
put there as a literal, so the engine folds it; `$now` is the time of reading.
"""

from __future__ import annotations

import datetime
import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lakelog.errors import InvalidEvent, InvalidSetting, InvalidView
from lakelog.event import EVENT_COLUMNS
from lakelog.libraries import duckdb
from lakelog.settings import span_us
from lakelog.sql import literal, member_paths
from lakelog.values import parse_time, to_micros

NOW = "now"
_TEXTS = 256
"""So many texts are remembered with the parameters they name: views are asked again and again."""
_DECLARED = re.compile(r"([a-z][a-z0-9_]*)\s+([a-z]+)(?:\s*=\s*(.*?))?\s*$")
Values = dict[str, Any]


@dataclass(frozen=True)
class Param:
    """One declared parameter; `default` is text, or None where a value must be given."""

    name: str
    kind: str
    default: str | None = None

    def __str__(self) -> str:
        tail = "" if self.default is None else f" = {self.default}"
        return f"{self.name} {self.kind}{tail}"


def declared(line: str) -> list[Param]:
    """Read the declarations of one header line. Raises InvalidView."""
    declarations = []
    for declaration in filter(None, map(str.strip, line.split(";"))):
        match = _DECLARED.match(declaration)
        if not match or match[2] not in _KINDS:
            kinds = ", ".join(_KINDS)
            raise InvalidView(
                f"{declaration!r} declares no parameter: write NAME TYPE = DEFAULT, of {kinds}"
            )
        if match[1] == NOW:
            raise InvalidView("$now is always there: choose another name for the parameter")
        param = Param(match[1], match[2], match[3])
        if param.default is not None and param.default != "null":
            # A default that is wrong is the author's mistake, and not that of whoever reads the
            # view.
            _read(param, param.default)
        declarations.append(param)
    return declarations


def values(view: str, params: tuple[Param, ...], arguments: Mapping[str, object] | None) -> Values:
    """Return a value for each parameter. Raises InvalidView: missing, unknown or wrong."""
    arguments = dict(arguments or {})
    names = {p.name for p in params}
    for name in arguments.keys() - names:
        accepted = f"it takes {', '.join(sorted(names))}" if names else "it takes none"
        raise InvalidView(f"view {view} has no parameter {name!r}: {accepted}")
    values_by_name = {}
    for param in params:
        raw = arguments.get(param.name, param.default)
        if param.name not in arguments and param.default is None:
            # null as a default gives a value; without a default one must be given.
            raise InvalidView(
                f"view {view} needs the parameter {param.name} ({param.kind}): "
                f"--param {param.name}=..."
            )
        try:
            values_by_name[param.name] = None if raw is None or raw == "null" else _read(param, raw)
        except InvalidView as error:
            raise InvalidView(f"view {view}: {error}") from None
    return values_by_name


def used(sql: str) -> set[str]:
    """The names of the parameters in a text of SQL."""
    return {name for _, _, name in _places(sql)}


def filled(sql: str, params: tuple[Param, ...], values: Values, moment: int | None = None) -> str:
    """Put literals where a text of SQL names parameters; `$now` stays until it is known (us)."""
    kinds = {p.name: p.kind for p in params}
    # In bytes, as the engine's tokens are placed.
    data, output, end = sql.encode(), [], 0
    for start, stop, name in _places(sql):
        if name == NOW and moment is None:
            # A state must not depend on the time: it is put in once finish is run.
            continue
        literal = time_sql(moment or 0) if name == NOW else _KINDS[kinds[name]][1](values[name])
        output += [data[end:start], literal.encode()]
        end = stop
    return b"".join([*output, data[end:]]).decode()


def time_sql(micros: int) -> str:
    """SQL for a point in time."""
    return f"make_timestamptz({micros}::BIGINT)"


def text_sql(value: str | None) -> str:
    """SQL for a text."""
    return "NULL::VARCHAR" if value is None else literal(value)


def field_sql(field: str | None) -> str:
    """SQL for the text of a field: a column as it is, else what stands at a path in `data`."""
    if field is None:
        return "NULL::VARCHAR"
    if field in (*EVENT_COLUMNS, "seq"):
        return f'"{field}"::VARCHAR'
    members = [f"data ->> {path}" for path in member_paths(field.removeprefix("data."))]
    return f"({members[0]})" if len(members) == 1 else f"coalesce({', '.join(members)})"


@functools.lru_cache(_TEXTS)
def _places(sql: str) -> tuple[tuple[int, int, str], ...]:
    """(start, stop, name) of each `$name`, in bytes; not inside strings or comments."""
    data, places = sql.encode(), []
    for start, token_type in duckdb.tokenize(sql):
        match = re.match(rb"\$([A-Za-z_]\w*)", data[start:])
        # In strings and comments the engine has no operator there.
        if match and token_type == duckdb.token_type.operator:
            places.append((start, start + match.end(), match[1].decode().lower()))
    return tuple(places)


def _read(param: Param, raw: object) -> Any:
    try:
        return _KINDS[param.kind][0](raw)
    except (ValueError, InvalidSetting, InvalidEvent, TypeError):
        description = _SHOWN.get(param.kind, param.kind)
        raise InvalidView(f"parameter {param.name} is {description}, not {raw!r}") from None


def _text(raw: object) -> str:
    if not isinstance(raw, str) or "\0" in raw:
        raise ValueError(raw)
    # A lone surrogate has no UTF-8: the encoding raises ValueError.
    raw.encode()
    return raw


def _int(raw: object) -> int:
    # A bool is an int to Python; 18 digits are what BIGINT always holds.
    if isinstance(raw, bool) or not re.fullmatch(r"[+-]?\d{1,18}", str(raw)):
        raise ValueError(raw)
    return int(str(raw))


def _float(raw: Any) -> float:
    # SQL has no literal for infinity that all casts accept.
    if isinstance(raw, bool) or not math.isfinite(number := float(raw)):
        raise ValueError(raw)
    return number


def _bool(raw: object) -> bool:
    try:
        return {"true": True, "false": False, "1": True, "0": False}[str(raw).lower()]
    except KeyError:
        raise ValueError(raw) from None


def _duration(raw: object) -> int:
    if isinstance(raw, datetime.timedelta):
        micros = raw // datetime.timedelta(microseconds=1)
    else:
        micros = span_us(_text(raw))
    # Doubles, in which views compute with durations, hold integers up to 2**53.
    if micros <= 0 or micros > 2**53:
        raise ValueError(raw)
    return micros


def _list(raw: Any) -> list[str]:
    texts_of_list = [item.strip() for item in raw.split(",")] if isinstance(raw, str) else list(raw)
    if not texts_of_list or not all(map(_text, texts_of_list)):
        raise ValueError(raw)
    return texts_of_list


def _field(raw: object) -> str:
    # It becomes a path of JSON, where quotes and backslashes would need escapes.
    if not re.fullmatch(r"[^\"\\.\x00-\x1f]+(\.[^\"\\.\x00-\x1f]+)*", _text(raw)):
        raise ValueError(raw)
    return str(raw)


def _or_null(type_: str, convert: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda value: f"NULL::{type_}" if value is None else convert(value)


_KINDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], str]]] = {
    "text": (_text, text_sql),
    "int": (_int, _or_null("BIGINT", lambda v: f"({v})::BIGINT")),
    "float": (_float, _or_null("DOUBLE", lambda v: f"({v!r})::DOUBLE")),
    "bool": (_bool, _or_null("BOOLEAN", lambda v: str(v).lower())),
    "time": (lambda raw: to_micros(parse_time(raw)), _or_null("TIMESTAMPTZ", time_sql)),
    "duration": (_duration, _or_null("INTERVAL", lambda v: f"to_microseconds({v}::BIGINT)")),
    "list": (
        _list,
        _or_null("VARCHAR[]", lambda v: f"([{', '.join(map(text_sql, v))}]::VARCHAR[])"),
    ),
    "field": (_field, field_sql),
}
_SHOWN = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "time": "a time such as 2026-11-20T08:00",
    "duration": "a duration such as 30m, 1h or 7d",
    "list": "a list such as A,B,C",
    "field": "a column, or a path into data such as a.b",
    "text": "a text",
}
