"""Values as they are compared where a database writes them otherwise than it was given them.

JSON loses blanks and the order of names, of repeated names the last one counts, and numbers are
compared as the doubles or integers that they are. A uuid may have been written in many ways.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Callable
from typing import Any

_INTEGER_MAX = 2**53
_ITEM = re.compile(r"(text|character varying|varchar|uuid|small|int|big|bool|double)")
Canonical = Callable[[Any], str | None]


def canonical_of(declared: str) -> Canonical | None:
    """Return what makes values of a declared type comparable, None where they are as they are."""
    plain = declared.lower().split("(")[0]
    if plain.endswith("[]"):
        return _array
    return {"json": _json, "jsonb": _json, "uuid": _uuid}.get(plain)


def is_comparable(declared: str) -> bool:
    """Whether values of a declared type can be compared: of arrays, those of simple items."""
    return not declared.endswith("[]") or _ITEM.match(declared.lower()) is not None


def _json(encoded: str | None) -> str | None:
    if encoded is None:
        return None
    try:
        document = json.loads(encoded, parse_int=_number, parse_float=_number)
        return json.dumps(document, sort_keys=True)
    except (ValueError, RecursionError):
        return encoded


def _array(encoded: Any) -> str | None:
    """A list, perhaps in JSON; its items as text, as they are made those of an array."""
    if encoded is None:
        return None
    try:
        is_json = isinstance(encoded, str)
        items = json.loads(encoded, parse_int=_number, parse_float=_number) if is_json else encoded
    except (ValueError, RecursionError):
        return str(encoded)
    plain = [item if item is None or isinstance(item, str) else json.dumps(item) for item in items]
    return json.dumps(plain)


def _uuid(encoded: str | None) -> str | None:
    try:
        return None if encoded is None else str(uuid.UUID(encoded))
    except ValueError:
        return encoded


def _number(digits: str) -> int | float:
    value = float(digits)
    if math.isfinite(value) and value.is_integer() and abs(value) < _INTEGER_MAX:
        return int(value)
    return value
