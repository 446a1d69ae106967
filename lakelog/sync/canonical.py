"""Values as they are compared where a database writes them otherwise than it was given them.

JSON loses blanks and the order of names, of repeated names the last one counts, and numbers are
compared as the doubles or integers that they are. A uuid may have been written in many ways.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import uuid
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

_INTEGER_MAX = 2**63
_ITEM = re.compile(r"(text|character varying|varchar|uuid|small|int|big|bool|double)")
StoredValue = str | list[object] | None
"""A list where a target has such values."""
Canonical = Callable[[StoredValue], str | None]


def canonical_of(declared: str) -> Canonical | None:
    """Return what makes values of a declared type comparable, None where they are as they are."""
    plain = declared.lower().split("(")[0]
    if plain.endswith("[]"):
        return functools.partial(_array, is_double=plain.startswith("double"))
    return {"json": _json, "jsonb": _json, "uuid": _uuid}.get(plain)


def is_comparable(declared: str) -> bool:
    """Whether values of a declared type can be compared: of arrays, those of simple items."""
    return not declared.endswith("[]") or _ITEM.match(declared.lower()) is not None


def _json(encoded: StoredValue) -> str | None:
    if not isinstance(encoded, str):
        return None
    try:
        document = json.loads(encoded, parse_int=_number, parse_float=_number)
        return json.dumps(document, sort_keys=True)
    except (ValueError, RecursionError):
        return encoded


def _array(encoded: StoredValue, *, is_double: bool) -> str | None:
    """A list, perhaps in JSON; its items as text, as they are made those of an array."""
    if encoded is None:
        return None
    items: object = encoded
    if isinstance(encoded, str):
        try:
            items = json.loads(encoded, parse_int=_number, parse_float=_number)
        except (ValueError, RecursionError):
            return encoded
    if not isinstance(items, list):
        return json.dumps(items)
    return json.dumps([_item(item, is_double=is_double) for item in items])


def _item(item: object, *, is_double: bool) -> str | None:
    if item is not None and is_double:
        with contextlib.suppress(InvalidOperation):
            item = _number(str(item))
    return item if item is None or isinstance(item, str) else json.dumps(item)


def _uuid(encoded: StoredValue) -> str | None:
    if not isinstance(encoded, str):
        return None
    try:
        return str(uuid.UUID(encoded))
    except ValueError:
        return encoded


def _number(digits: str) -> int | float:
    value = Decimal(digits)
    if value.is_finite() and abs(value) < _INTEGER_MAX and value == value.to_integral_value():
        return int(value)
    return float(value)
