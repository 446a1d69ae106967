"""The type of JSON payloads that differ: one struct that all of them fit, for typed rows.

Keys that only some have are null elsewhere; numbers widen; what conflicts stays JSON text, and so
does an object of more than `KEYS_MAX` keys, which is a map rather than a record.
"""

from __future__ import annotations

from typing import Any

import orjson

KEYS_MAX = 200
_WIDER = ("UBIGINT", "BIGINT", "HUGEINT", "DOUBLE")


def structure_of(structures: list[str]) -> str | None:
    """Merge results of `json_structure` into one structure for `from_json`."""
    widest: object = None
    # Sorted, because merging order decides the order of the struct's fields, and rebuilds must give
    # equal types.
    for structure in sorted(structures):
        widest = _merge(widest, orjson.loads(structure))
    widest = _bound(widest)
    return orjson.dumps(widest).decode() if isinstance(widest, dict) and widest else None


def _merge(a: object, b: object) -> Any:
    if a is None or a == "NULL" or a == b:
        return b
    if b == "NULL":
        return a
    if isinstance(a, dict) and isinstance(b, dict):
        return {k: _merge(a.get(k), b.get(k, "NULL")) for k in (*a, *(k for k in b if k not in a))}
    if isinstance(a, list) and isinstance(b, list):
        return [_merge(a[0] if a else None, b[0] if b else "NULL")]
    if isinstance(a, str) and isinstance(b, str) and a in _WIDER and b in _WIDER:
        return max(a, b, key=_WIDER.index)
    return "JSON"


def _bound(structure: Any) -> Any:
    """Replace what DuckDB cannot hold in a struct, or what no reader wants, by a plain type."""
    if isinstance(structure, dict):
        # DuckDB compares the names of struct fields without case, so keys that differ only in case
        # cannot be fields of one struct.
        is_ambiguous = len({k.lower() for k in structure}) < len(structure)
        if not structure or len(structure) > KEYS_MAX or is_ambiguous:
            return "JSON"
        return {k: _bound(v) for k, v in structure.items()}
    if isinstance(structure, list):
        return [_bound(structure[0] if structure else "JSON")]
    # A field that is null everywhere needs some type, and every reader knows BIGINT.
    return {"NULL": "VARCHAR", None: "VARCHAR", "UBIGINT": "BIGINT"}.get(structure, structure)
