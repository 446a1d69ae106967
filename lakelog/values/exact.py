"""JSON without loss: values that Python's numbers and dicts cannot represent keep their text.

Integers beyond 64 bits, decimals beyond a double, repeated keys and text that is not valid
Unicode become orjson Fragments: pieces of JSON text that are written out as they are. Half of a
surrogate pair, which DuckDB refuses, is replaced in the end, and the original text added (F3.13).
"""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from lakelog.errors import InvalidEvent
from lakelog.values.types import JsonObject

_LONG_NUMBER = re.compile(rb"[0-9](?:[0-9.]{15}[0-9.eE][0-9.eE+-]*|[eE][+-]?[0-9]{3,})")
"""Numbers that a double or an integer of 64 bits may not hold, and text that looks like them."""
_KEY_END, _SPACED = re.compile(rb'"[ \t\r\n]*:'), re.compile(rb"[ \t\r\n]:")
_ESCAPES = re.compile(
    rb"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
"""Escaped backslashes and surrogate pairs, to be skipped; the group is half of a pair alone."""
EXACT = "lakelog_exact"
"""Member of a payload with its original text, where that is not valid Unicode."""
_COLUMNS = frozenset("time type data category source subject level message id".split())
"""Columns of an event."""
_INTEGER_DIGITS = 20  # no integer of 64 bits is longer, its sign included
_OPTIONS = orjson.OPT_UTC_Z


def parse_line(line: bytes) -> JsonObject:
    """Parse one JSON object, keeping the text of numbers and keys Python could not give back.

    A column of events that is repeated keeps its last value, any other key keeps all. Raises
    InvalidEvent with the reason when the line is not a JSON object.
    """
    value, exact = _parse(line, b"}")
    if not exact and isinstance(value, _Pairs):
        value = _settle_top(value)
    if not isinstance(value, dict):
        raise InvalidEvent(f"expected a JSON object, not {kind(value)}")
    return value


def parse_lines(lines: list[bytes]) -> list[JsonObject | InvalidEvent | None]:
    """Parse many lines as `parse_line` does: each is an object, its error, or None if blank.

    What makes a line need the exact parser is looked for in all of them at once, so that most
    batches cost a quarter of what their lines would cost one by one.
    """
    try:
        values = [orjson.loads(line) if line.strip() else None for line in lines]
        # Of values that are none, some may be written as null.
        is_blank = (
            not line.strip() for line, value in zip(lines, values, strict=True) if value is None
        )
        if all(value is None or type(value) is dict for value in values) and all(is_blank):
            spelled, text = orjson.dumps(values), b",".join(lines)
            # Most programs write what orjson writes: then nothing was lost.
            if spelled[1:-1] == text:
                return values
            if b"\\u00" not in text and _keeps(text, spelled):
                return values
    except (orjson.JSONDecodeError, TypeError):
        pass
    return [_object_or_error(line) for line in lines]


def _object_or_error(line: bytes) -> JsonObject | InvalidEvent | None:
    if not line.strip():
        return None
    try:
        return parse_line(line)
    except InvalidEvent as error:
        # Without the frames that it was raised in, of which each takes a kilobyte.
        return InvalidEvent(error.reason)


def parse_value(encoded: bytes) -> Any:
    """Parse any JSON value without loss. Raises InvalidEvent with the reason."""
    value, exact = _parse(encoded)
    try:
        return value if exact else _settle(value)
    except RecursionError:
        raise InvalidEvent("nested too deeply") from None


def to_json(value: object) -> object:
    """Rebuild a value from what JSON can express, keeping digits. Raises InvalidEvent where it
    cannot."""
    if value is None or isinstance(value, (bool, orjson.Fragment)):
        return value
    # `float` makes a plain number of a subclass such as numpy's; only finite numbers give 0 here.
    if isinstance(value, float):
        return float(value) if value - value == 0 else _spell(float(value))
    if isinstance(value, datetime):
        return value if type(value) is datetime else _plain_moment(value)
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else _long_integer(value)
    if isinstance(value, str):
        return _plain_text(value)
    if hasattr(value, "keys") and hasattr(value, "__getitem__"):
        return _plain_object([(k, value[k]) for k in value.keys()])  # noqa: SIM118
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(v) for v in value]
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value)) if value.is_finite() else _spell(float(value))
    if hasattr(value, "tolist"):  # numpy's numbers and arrays
        # Those of Python have no dtype, and that of tensors says no kind.
        kind_code = getattr(getattr(value, "dtype", None), "kind", None)
        return _numpy_times(value) if kind_code in ("m", "M") else to_json(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    try:
        orjson.dumps(value)
    except TypeError:
        raise InvalidEvent(f"data holds {kind(value)}, which JSON cannot") from None
    return value


def _plain_moment(value: datetime) -> object:
    """A moment of a class of its own, as pandas has: null for none, and text where it has
    nanoseconds."""
    if value != value:
        return None
    spelled = value.isoformat()
    if getattr(value, "nanosecond", 0):
        return spelled.replace("+00:00", "Z")
    return datetime.fromisoformat(spelled)


def _numpy_times(value: Any) -> object:
    """Times of numpy, which makes integers of nanoseconds and of years that Python has none of.
    Raises InvalidEvent for durations."""
    if value.dtype.kind == "m":
        raise InvalidEvent("data holds a duration, which JSON cannot")
    if value.ndim:
        return [to_json(item) for item in value]
    plain, moment = value.tolist(), value.astype("M8[us]")
    if isinstance(plain, int) and moment.astype(value.dtype) == value:
        plain = moment.tolist()
    return str(value) if isinstance(plain, int) else plain


def _spell(number: float) -> str:
    """Return NaN or an infinity as the text that SQL casts to it: JSON has no number for them."""
    return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"


def spell_numbers(value: object) -> object:
    """Return a value with NaN and infinities spelled; the same object where there are none."""
    if isinstance(value, float):
        return value if value - value == 0 else _spell(value)
    if isinstance(value, dict):
        pairs = {k: spell_numbers(v) for k, v in value.items()}
        return pairs if any(pairs[k] is not v for k, v in value.items()) else value
    if isinstance(value, (list, tuple)):
        items = [spell_numbers(v) for v in value]
        return items if any(a is not b for a, b in zip(items, value, strict=True)) else value
    return value


def replace_surrogates(encoded: bytes) -> bytes:
    """Return a JSON text with U+FFFD for every half of a surrogate pair that stands alone.

    Only then, the text itself is added as the string `lakelog_exact`: a member of an object, or
    one beside `data` where the text is no object.
    """
    replaced = _ESCAPES.sub(lambda match: rb"\ufffd" if match[1] else match[0], encoded)
    if replaced == encoded:
        return encoded
    # As text of a text, the escapes are characters and break nothing.
    original = orjson.dumps({EXACT: encoded.decode()})[1:]
    if not replaced.startswith(b"{"):
        replaced = b'{"data":' + replaced + b"}"
    return replaced[:-1] + (b"," if len(replaced) > 2 else b"") + original


def kind(value: object) -> str:
    """Name the kind of a value in the words of JSON."""
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    names.update({int: "a number", float: "a number"})
    return names.get(type(value), f"a {type(value).__name__}")


def text_of(value: object) -> str | None:
    """Return the text that JSON has for a value: of a text, a UUID, a date, or an enumeration's
    member that has one; None where JSON has no text for it."""
    if type(value) is str:
        return value
    try:
        encoded = orjson.dumps(value)
        return str(orjson.loads(encoded)) if encoded[:1] == b'"' else None
    except (TypeError, ValueError):  # half of a surrogate pair; what JSON has nothing for
        return str.__str__(value) if isinstance(value, str) else None


def _long_integer(value: int) -> orjson.Fragment:
    try:
        return orjson.Fragment(str(value))
    except ValueError:
        raise InvalidEvent("data holds a number of more digits than Python writes") from None


def _plain_text(value: str) -> object:
    try:
        value.encode()
    except UnicodeEncodeError:
        return orjson.Fragment(json.dumps(value))
    return value


def _plain_object(pairs: list[tuple[object, object]]) -> object:
    """Return a dict, or its text where a key repeats or is not valid Unicode."""
    members = {str(k): to_json(v) for k, v in pairs}
    plain_keys = all(isinstance(_plain_text(k), str) for k in members)
    if len(members) == len(pairs) and plain_keys:
        return members
    body = b",".join(
        json.dumps(str(k)).encode() + b":" + orjson.dumps(to_json(v), option=_OPTIONS)
        for k, v in pairs
    )
    return orjson.Fragment(b"{" + body + b"}")


def _parse(encoded: bytes, end: bytes = b"") -> tuple[object, bool]:
    """Return a JSON value, and whether it is exact; if not, its objects are _Pairs.

    Text that is not JSON and does not end with `end` is not parsed a second time.
    """
    # orjson is much faster than the exact parser, and right for nearly every line: these checks
    # find the lines for which it is not.
    try:
        value = orjson.loads(encoded)
        if b"\\u00" not in encoded and _keeps(encoded, orjson.dumps(value)):
            return value, True
    except orjson.JSONDecodeError as error:
        is_cut = not encoded.rstrip().endswith(end) and "depth" not in str(error)
        if is_cut and _is_text(encoded):
            raise _not_json(error) from None
    except TypeError:  # what orjson read and cannot write: an integer beyond 64 bits
        pass
    return _parse_exact(encoded), False


def _is_text(encoded: bytes) -> bool:
    try:
        encoded.decode()
    except UnicodeDecodeError:
        return False
    return True


def _keeps(encoded: bytes, spelled: bytes) -> bool:
    """Whether what was written has the keys and the long numbers that were read."""
    numbers = _LONG_NUMBER.findall(encoded)
    if numbers and numbers != _LONG_NUMBER.findall(spelled):
        return False
    # Of a repeated key only one is written.
    if _SPACED.search(encoded):
        return len(_KEY_END.findall(encoded)) == len(_KEY_END.findall(spelled))
    return encoded.count(b'":') == spelled.count(b'":')


def _parse_exact(line: bytes) -> Any:
    try:
        return json.loads(
            line.decode("utf-8"),
            object_pairs_hook=_Pairs,
            parse_float=_exact_float,
            parse_int=_exact_int,
            parse_constant=_no,
        )
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise InvalidEvent("nested too deeply") from None
    except ValueError as error:
        raise _not_json(error) from None


def _not_json(error: ValueError) -> InvalidEvent:
    """Return the error of a line, with its place given once, by its column."""
    if not isinstance(error, json.JSONDecodeError):
        return InvalidEvent(f"not JSON: {error}")
    line = f"line {error.lineno}, " if error.lineno > 1 else ""
    # Some versions guess what was meant: that a line of words should have been `null`.
    reason = error.msg.partition(", expected")[0].removesuffix(" at")
    reason = reason[:1].lower() + reason[1:]
    return InvalidEvent(f"not JSON: {reason} at {line}column {error.colno}")


def _settle_top(pairs: _Pairs) -> JsonObject:
    """Return an event; a repeated column keeps its last value, all others keep every value."""
    try:
        top: dict[str, object] = {k: v if isinstance(v, str) else _settle(v) for k, v in pairs}
    except RecursionError:
        raise InvalidEvent("nested too deeply") from None
    twice = {k for k, _ in pairs if sum(k == second_key for second_key, _ in pairs) > 1} - _COLUMNS
    for key in twice:
        top[key] = [_settle(v) for k, v in pairs if k == key]
    return top


class _Pairs(list):  # type: ignore[type-arg]
    """The members of a JSON object in order, repeated keys included."""


def _settle(value: object) -> object:
    if isinstance(value, _Pairs):
        return _plain_object([(k, _settle(v)) for k, v in value])
    if isinstance(value, list):
        return [_settle(v) for v in value]
    return to_json(value)


def _exact_float(digits: str) -> object:
    value = float(digits)
    try:
        same = value not in (float("inf"), float("-inf")) and Decimal(digits) == Decimal(
            repr(value)
        )
    except InvalidOperation:  # an exponent of more digits than a Decimal has
        same = False
    return value if same else orjson.Fragment(digits)


def _exact_int(digits: str) -> object:
    return int(digits) if len(digits) <= _INTEGER_DIGITS else orjson.Fragment(digits)


def _no(constant: str) -> object:
    raise ValueError(f"{constant} is not a JSON number")
