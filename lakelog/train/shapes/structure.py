"""The type of JSON payloads that differ: one struct that all of them fit, for typed rows.

Keys that only some have are null elsewhere; numbers widen; what conflicts stays JSON text, and so
does an object of more than `KEYS_MAX` keys, which is a map rather than a record.
"""

from __future__ import annotations

from typing import Any

import orjson

KEYS_MAX = 200
_WIDER = ("UBIGINT", "BIGINT", "HUGEINT", "DOUBLE")


def structure_of(texts: list[str]) -> str | None:
    """Return the structure that `from_json` takes, of many that `json_structure` gave."""
    merged: Any = None
    for text in sorted(texts):
        merged = _merged(merged, orjson.loads(text))
    merged = _bounded(merged)
    return orjson.dumps(merged).decode() if isinstance(merged, dict) and merged else None


def _merged(a: Any, b: Any) -> Any:
    if a is None or a == "NULL" or a == b:
        return b
    if b == "NULL":
        return a
    if isinstance(a, dict) and isinstance(b, dict):
        return {k: _merged(a.get(k), b.get(k, "NULL")) for k in (*a, *(k for k in b if k not in a))}
    if isinstance(a, list) and isinstance(b, list):
        return [_merged(a[0] if a else None, b[0] if b else "NULL")]
    if isinstance(a, str) and isinstance(b, str) and a in _WIDER and b in _WIDER:
        pair = {a, b}
        return "HUGEINT" if pair == {"UBIGINT", "HUGEINT"} else max(pair, key=_WIDER.index)
    return "JSON"


def _bounded(made: Any) -> Any:
    if isinstance(made, dict):
        if not made or len(made) > KEYS_MAX or len({k.lower() for k in made}) < len(made):
            return "JSON"
        return {k: _bounded(v) for k, v in made.items()}
    if isinstance(made, list):
        return [_bounded(made[0] if made else "JSON")]
    return "VARCHAR" if made in ("NULL", None) else "BIGINT" if made == "UBIGINT" else made
