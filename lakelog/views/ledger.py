"""The schema ledger: which fields the payloads of a state have, and how two states differ in them.

The ledger is the built-in view `schema`, which is kept per set of segments: it is right at every
tag, branch and rollback, and costs nothing where events are appended. Drift is recorded in it, and
is no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from lakelog.libraries import pa

VIEW = "schema"
PAYLOAD = "$"
"""The path of the whole payload."""
REST = "*"
"""The last part of a path that stands for fields that are not told apart."""
UNREAD = frozenset(("large", "deep"))
"""Kinds of payloads that are not looked into: over 64 KiB, or nested beyond 128 levels."""
CHANGES = ("conflict", "widened", "added", "removed", "narrowed")


class Views(Protocol):
    """What answers the views of a lake."""

    def view(
        self, name: str, arguments: Mapping[str, object] | None = None, digest: str | None = None
    ) -> pa.Table:
        """Return the answer of a view with these parameters, of the state of a digest."""


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


Ledger = dict[tuple[str | None, str], LedgerField]


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field that two states have not alike. `change` is one of CHANGES; `before` and `after` are
    its kinds, None where it is missing."""

    change: str
    type: str | None
    path: str
    before: str | None
    after: str | None


def table(views: Views, type: str | None = None, digest: str | None = None) -> pa.Table:
    """Return the ledger of a state as an Arrow table, of one type if it is given."""
    return views.view(VIEW, {"type": type} if type is not None else None, digest)


def read(views: Views, type: str | None = None, digest: str | None = None) -> Ledger:
    """Return the ledger of a state by type and path."""
    return fields_of(table(views, type, digest))


def fields_of(answer: pa.Table) -> Ledger:
    """Return the rows of a ledger by type and path."""
    names = ("type", "path", "kind", "drift", "events", "first_seen", "kinds")
    ledger: Ledger = {}
    for row in answer.select(names).to_pylist():
        kinds = row.pop("kinds")
        counts = {count["kind"]: count["events"] for count in kinds}
        since = {count["kind"]: count["first_seen"] for count in kinds}
        ledger[row["type"], row["path"]] = LedgerField(**row, kinds=counts, since=since)
    return ledger


def diff(old: Ledger, new: Ledger) -> list[FieldChange]:
    """Compare two ledgers; return what changed, by type and path."""
    changes = []
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        change = _change(before, after)
        if change is not None:
            kinds = (before.kind if before else None), (after.kind if after else None)
            changes.append(FieldChange(change, *key, *kinds))
    return sorted(changes, key=lambda c: (c.type is None, c.type or "", c.path != PAYLOAD, c.path))


def _change(before: LedgerField | None, after: LedgerField | None) -> str | None:
    if before is None:
        return "added"
    if after is None:
        return "removed"
    if before.kind == after.kind:
        return None
    # Nulls are left out: a field that is sometimes null has the kind of its values.
    old, new = (field.kinds.keys() - {"null"} for field in (before, after))
    if new <= old:
        return "narrowed"
    values = (old | new) - UNREAD
    return "widened" if len(values) <= 1 or values <= {"int", "float"} else "conflict"
