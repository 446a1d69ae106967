"""The columns of `types.NAME`: the fields that the ledger lists for events of a type.

The ledger is the same however events are stored, so compaction changes no column. Names of nested
fields are joined by `_`; a name that events have a column of gets `data_` before it, and of two
fields whose names are the same but for case, the later one in order of path a number after it.
Fields that hold lists, maps, or anything that is not told apart are columns of JSON, objects whose
members are told apart are those members, and kinds that contradict each other make text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lakelog.query.sql.extractions import Extraction, FieldColumn
from lakelog.segments.segment import EVENT_COLUMNS
from lakelog.views.ledger import PAYLOAD, REST, UNREAD

if TYPE_CHECKING:
    from lakelog.views.ledger import Ledger

_PART = re.compile(r'\[\]|"(?:[^"\\]|\\.)*"|[^."\[\]]+', re.S)
_ESCAPED = re.compile(r"\\(.)", re.S)
FieldPath = tuple[str, ...]


def columns(ledger: Ledger, type_: str) -> tuple[FieldColumn, ...]:
    """Return the columns of the fields of a type, in order of path."""
    kinds: dict[FieldPath, frozenset[str]] = {}
    for (owner, spelled), field in ledger.items():
        path = parsed(spelled) if owner == type_ and spelled != PAYLOAD else None
        if path is not None:
            kinds[path] = frozenset(field.kinds.keys() - {"null"} - UNREAD)
    inner = {path[:depth] for path in kinds for depth in range(1, len(path))}
    names = {name.lower() for name in (*EVENT_COLUMNS, "seq")}
    result = []
    for path in sorted(kinds):
        if path in inner and kinds[path] <= {"object"}:
            continue
        name = _free("_".join(path), names)
        names.add(name.lower())
        result.append(FieldColumn(name, Extraction(path, "fields").with_kinds(kinds[path])))
    return tuple(result)


def kinds_of(ledger: Ledger, path: tuple[str | int, ...]) -> frozenset[str]:
    """Return the kinds of values that a field has in events of all types; that of a member of a map
    are those of all its members. Events of types that are not told apart may have text."""
    kinds: set[str] = set()
    for (owner, spelled), field in ledger.items():
        if owner is None:
            kinds.add("text")
        elif _is_of(spelled, path):
            kinds |= field.kinds.keys()
    return frozenset(kinds - {"null"} - UNREAD)


def _is_of(spelled: str, path: tuple[str | int, ...]) -> bool:
    """Whether a path of the ledger is that of a field, or stands for it among others."""
    if not spelled.endswith(REST):
        return spelled != PAYLOAD and parsed(spelled) == path
    parent = spelled.removesuffix(REST).removesuffix(".")
    owner = parsed(parent) if parent else ()
    return owner is not None and len(owner) < len(path) and path[: len(owner)] == owner


def parsed(spelled: str) -> FieldPath | None:
    """Return the names on a path of the ledger; None for what is no field by itself: elements of
    lists, what is not told apart, and names that the engine's paths cannot say."""
    steps = _PART.findall(spelled)
    if "[]" in steps or steps[-1] == REST:
        return None
    path = tuple(_ESCAPED.sub(r"\1", p[1:-1]) if p[0] == '"' else p for p in steps)
    return path if all(step not in ("", REST) and "\0" not in step for step in path) else None


def _free(name: str, names: set[str]) -> str:
    """Return a name for a column that no other has."""
    if not name or name.lower() in (column.lower() for column in (*EVENT_COLUMNS, "seq")):
        name = f"data_{name}"
    number, free = 1, name
    while free.lower() in names:
        number += 1
        free = f"{name}_{number}"
    return free
