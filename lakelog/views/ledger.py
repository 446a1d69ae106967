"""The schema ledger: which fields the payloads of a state have, and how two states differ in them.

The ledger is the built-in view `schema`, which is kept per set of segments: it is right at every
tag, branch and rollback, and costs nothing where events are appended. Drift is recorded in it, and
is no error.

The columns of `types.NAME` are the fields that the ledger lists for events of a type. The ledger is
the same however events are stored, so compaction changes no column. Names of nested fields are
joined by `_`; a name that events have a column of gets `data_` before it, and of two fields whose
names are the same but for case, the later one in order of path a number after it. Fields that hold
lists, maps, or anything that is not told apart are columns of JSON, objects whose members are told
apart are those members, and kinds that contradict each other make text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from lakelog.event import EVENT_COLUMNS
from lakelog.libraries import pa
from lakelog.protect import MEMBER
from lakelog.query import Extraction
from lakelog.views import catalog
from lakelog.views.definition import ViewDefinition

VIEW = "schema"
PAYLOAD = "$"
"""The path of the whole payload."""
REST = "*"
"""The last part of a path that stands for fields that are not told apart."""
SEALED = f'"{MEMBER}"'
"""The path of what stands for the protected fields of a payload."""
UNREAD = frozenset(("large", "deep"))
"""Kinds of payloads that are not looked into: over 64 KiB, or nested beyond 128 levels."""
CHANGES = ("conflict", "widened", "added", "removed", "narrowed")


@dataclass(frozen=True, slots=True)
class LedgerField:
    """A field of the payloads of one type; `kinds` are its kinds of JSON values, each with the
    number of events that have it; `since` is when each was first seen. `type` is None for types
    that are not told apart."""

    type: str | None
    path: str
    kind: str
    drift: str | None
    events: int
    first_seen: object
    kinds: Mapping[str, int]
    since: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field that two states have not alike. `change` is one of CHANGES; `before` and `after` are
    its kinds, None where it is missing."""

    change: str
    type: str | None
    path: str
    before: str | None
    after: str | None


class Ledger(dict[tuple[str | None, str], LedgerField]):
    """The fields of a state by type and path."""

    @classmethod
    def of_table(cls, answer: pa.Table) -> Self:
        """Return the rows of the answer of VIEW."""
        names = ("type", "path", "kind", "drift", "events", "first_seen", "kinds")
        ledger = cls()
        for row in answer.select(names).to_pylist():
            kinds = row.pop("kinds")
            counts = {count["kind"]: count["events"] for count in kinds}
            since = {count["kind"]: count["first_seen"] for count in kinds}
            ledger[row["type"], row["path"]] = LedgerField(**row, kinds=counts, since=since)
        return ledger

    def changes(self, later: Ledger) -> list[FieldChange]:
        """Compare this with a later ledger; return what changed, by type and path."""
        changes = []
        for key in self.keys() | later.keys():
            before, after = self.get(key), later.get(key)
            change = _change(before, after)
            if change is not None:
                kinds = (before.kind if before else None), (after.kind if after else None)
                changes.append(FieldChange(change, *key, *kinds))
        return sorted(
            changes, key=lambda c: (c.type is None, c.type or "", c.path != PAYLOAD, c.path)
        )

    @staticmethod
    def is_view(definition: ViewDefinition) -> bool:
        """Whether a definition is that of VIEW, and not another one of its name."""
        return definition == catalog.built_in()[VIEW]

    @staticmethod
    def member_of(spelled: str) -> str:
        """The member of payloads that a path of the ledger is in."""
        return _name(_PART.findall(spelled)[0])

    @staticmethod
    def map_sql() -> str:
        """SQL that lists the fields of the payloads of `segment`: type, path, kind."""
        return catalog.built_in()[VIEW].sections["map"].sql


def _change(before: LedgerField | None, after: LedgerField | None) -> str | None:
    if before is None:
        return "added"
    if after is None:
        return "removed"
    # By kinds and not by counts: more events of the same shape are no change.
    if before.kind == after.kind:
        return None
    # Nulls are left out: a field that is sometimes null has the kind of its values.
    old, new = (field.kinds.keys() - {"null"} for field in (before, after))
    # Only kinds went: whoever reads the field can still do so.
    if new <= old:
        return "narrowed"
    values = (old | new) - UNREAD
    # Whole numbers may be read as floats; any other two kinds contradict each other.
    return "widened" if len(values) <= 1 or values <= {"int", "float"} else "conflict"


_PART = re.compile(r'\[\]|"(?:[^"\\]|\\.)*"|[^."\[\]]+', re.S)
_ESCAPED = re.compile(r"\\(.)", re.S)
FieldPath = tuple[str, ...]


def columns(
    ledger: Ledger, type_: str, protected_fields: Sequence[str] = ()
) -> tuple[tuple[str, Extraction], ...]:
    """Return the columns of the fields of a type, in order of path. Protected fields, of which the
    ledger knows that some are sealed, are text."""
    kinds: dict[FieldPath, frozenset[str]] = {}
    for (owner, spelled), field in ledger.items():
        path = parsed(spelled) if owner == type_ and spelled != PAYLOAD else None
        if path is not None:
            kinds[path] = frozenset(field.kinds.keys() - {"null"} - UNREAD)
    if protected_fields and (MEMBER,) in kinds:
        del kinds[MEMBER,]
        kinds = {(name,): frozenset[str]() for name in protected_fields} | kinds
    inner = {path[:depth] for path in kinds for depth in range(1, len(path))}
    # The engine does not tell names apart by case.
    names = {name.lower() for name in (*EVENT_COLUMNS, "seq")}
    result = []
    for path in sorted(kinds):
        if path in inner and kinds[path] <= {"object"}:
            continue
        name = _free("_".join(path), names)
        names.add(name.lower())
        result.append((name, Extraction(path, "fields").with_kinds(kinds[path])))
    return tuple(result)


def kinds_of(ledger: Ledger, path: tuple[str | int, ...]) -> frozenset[str]:
    """Return the kinds of values that a field has in events of all types; that of a member of a map
    are those of all its members. Events of types that are not told apart may have text."""
    kinds: set[str] = set()
    for (owner, spelled), field in ledger.items():
        if owner is None:
            # Text is what any value can be read as.
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
    # `*` stands for names below its owner, and not for the owner itself.
    return owner is not None and len(owner) < len(path) and path[: len(owner)] == owner


def parsed(spelled: str) -> FieldPath | None:
    """Return the names on a path of the ledger; None for what is no field by itself: elements of
    lists, what is not told apart, and names that the engine's paths cannot say."""
    steps = _PART.findall(spelled)
    if "[]" in steps or steps[-1] == REST:
        return None
    path = tuple(map(_name, steps))
    # The engine ends a path at a NUL, and takes `*` for all members.
    return path if all(step not in ("", REST) and "\0" not in step for step in path) else None


def _name(step: str) -> str:
    return _ESCAPED.sub(r"\1", step[1:-1]) if step[0] == '"' else step


def _free(name: str, names: set[str]) -> str:
    """Return a name for a column that no other has."""
    if not name or name.lower() in (column.lower() for column in (*EVENT_COLUMNS, "seq")):
        name = f"data_{name}"
    number, free = 1, name
    while free.lower() in names:
        number += 1
        free = f"{name}_{number}"
    return free
