"""Values of a result as text: JSON that loses nothing, and plain text for CSV, Markdown, tables.

Times are ISO 8601, UTC with Z. Integers and decimals of any length stay JSON numbers, NaN and
infinities are the texts "NaN", "Infinity" and "-Infinity", an interval is an ISO 8601 duration,
bytes are text with backslash escapes.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import orjson

from lakelog.values import JsonObject, spell_numbers

_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
ValueRow = Sequence[Any]


def dumps(value: object, indent: bool = False) -> bytes:
    """Return any value of a result as JSON."""
    options = _OPTIONS | orjson.OPT_INDENT_2 if indent else _OPTIONS
    try:
        encoded = orjson.dumps(value, default=_other, option=options)
        # A cheap test, because real nulls are found by the slow path just as well.
        if b"null" not in encoded:  # which is what orjson makes of NaN
            return encoded
        return orjson.dumps(spell_numbers(value), default=_other, option=options)
    except TypeError:
        return orjson.dumps(_exact(value), default=_other, option=options)


def text(value: Any) -> str:
    """Return a value as plain text; null is empty."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(spell_numbers(value))
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime.datetime):
        return iso(value)
    if isinstance(value, datetime.timedelta):
        return duration(value)
    if _is_arrow_interval(value):
        # As the engine itself has them where it makes one of Python: a month is 30 days.
        days = value.months * 30 + value.days
        return duration(datetime.timedelta(days, microseconds=value.nanoseconds // 1_000))
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, (dict, list, tuple, orjson.Fragment)):
        return dumps(value).decode()
    return str(value)


def iso(moment: datetime.datetime) -> str:
    """Return a time as ISO 8601; one with a zone in UTC with Z."""
    stamp = moment.isoformat()
    if moment.tzinfo is not None and not stamp.endswith("+00:00"):
        # Any zone becomes UTC, so that times compare as texts.
        stamp = moment.astimezone(datetime.UTC).isoformat()
    return stamp.removesuffix("+00:00") + ("Z" if moment.tzinfo is not None else "")


def micros(time_us: int) -> str:
    """Return microseconds since 1970 as ISO 8601 in UTC."""
    return iso(_EPOCH + datetime.timedelta(microseconds=time_us))


def duration(span: datetime.timedelta) -> str:
    """Return an ISO 8601 duration: P1DT2H, PT0.5S, -PT3S."""
    # timedelta keeps days negative and the rest positive: the sign comes first.
    sign, span = ("-", -span) if span < datetime.timedelta(0) else ("", span)
    hours, seconds = divmod(span.seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    exact = f"{seconds}.{span.microseconds:06d}".rstrip("0").rstrip(".")
    clock = "".join(f"{n}{unit}" for n, unit in ((hours, "H"), (minutes, "M")) if n)
    clock += f"{exact}S" if exact != "0" else ""
    day = f"{span.days}D" if span.days else ""
    return f"{sign}P{day}{'T' + clock if clock else ''}" if day or clock else "PT0S"


def payload(value: object) -> Any:
    """Return JSON text as the JSON it is; any other text unchanged."""
    if not isinstance(value, str):
        return value
    try:
        orjson.loads(value)
    # orjson refuses some JSON that the standard library takes.
    except orjson.JSONDecodeError:
        try:  # half a surrogate pair is JSON all the same, and so are thousands of digits
            json.loads(value, parse_constant=_refuse, parse_int=str)
        except (ValueError, RecursionError):
            return value
    return orjson.Fragment(one_line(value))


def one_line(json_text: str) -> str:
    """Return JSON text without line ends, which stand only between its tokens: they would end a
    line of NDJSON."""
    return json_text.replace("\n", " ").replace("\r", " ")


def records(columns: list[str], nested: Iterable[int]) -> Callable[[ValueRow], JsonObject]:
    """Return a function from a row to a JSON object; `nested` columns hold JSON text."""
    places = tuple(nested)

    def record(row: ValueRow) -> JsonObject:
        fields = dict(zip(columns, row, strict=True))
        for place in places:
            fields[columns[place]] = payload(row[place])
        return fields

    return record


def _is_arrow_interval(value: object) -> bool:
    """Whether it is a MonthDayNano, without loading Arrow, which may not be here."""
    return isinstance(value, tuple) and hasattr(value, "nanoseconds")


def _other(value: object) -> object:
    """Encode a type that orjson does not know."""
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    if isinstance(value, (datetime.timedelta, bytes, bytearray)) or _is_arrow_interval(value):
        return text(value)
    return str(value)


def _exact(value: object) -> object:
    """Rebuild a value that orjson refuses: long integers, odd keys, text that is not Unicode."""
    if isinstance(value, dict):
        return {_key(k): _exact(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_exact(v) for v in value]
    # orjson knows 64 bits only.
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return orjson.Fragment(str(value))
    if isinstance(value, str):
        # Half a surrogate pair has no UTF-8: it is shown by its number.
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, datetime.time):
        return value.isoformat()
    return spell_numbers(value)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _key(key: object) -> str:
    # Keys of any type, as maps of the engine have them.
    return text(key).encode("utf-8", "backslashreplace").decode()
