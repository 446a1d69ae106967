"""Contracts: the fields that payloads of a type shall have, pinned in the manifest.

A contract is an entry of kind `contract` (F6.18), so every state has those that held then. What
breaches one is found in the schema ledger, which costs nothing where events are appended: an event
that was acknowledged is never refused. Lines of files can be kept in quarantine instead.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from lakelog.errors import InvalidSetting, UnknownRef
from lakelog.runtime.closest import did_you_mean
from lakelog.store import disk
from lakelog.store.bootstrap import Store
from lakelog.store.entry import Entry, Record, Removal
from lakelog.store.manifest import Manifest
from lakelog.store.publish import Change, publish
from lakelog.store.ref import Head
from lakelog.views.ledger import PAYLOAD, UNREAD, Ledger, LedgerField

WHAT = "contract"
WARN, QUARANTINE = "warn", "quarantine"
ON_BREACH = (WARN, QUARANTINE)
BYTES_MAX = 100_000
"""Bytes of a contract's fields as JSON."""
NEW, KIND, MISSING = "new field", "other kind", "missing"
_PART = re.compile(r'\[\]|\.?(?:"(?:[^"\\]|\\.)*"|[^."\[\]]+)', re.DOTALL)


@dataclass(frozen=True)
class Contract:
    """The fields of one type of event: kinds by path, and the paths that every payload has a value
    at. An open contract allows other fields as well. `on_breach` is one of ON_BREACH, `time` when
    it was pinned (us)."""

    type: str
    fields: Mapping[str, tuple[str, ...]]
    required: tuple[str, ...] = ()
    is_open: bool = False
    on_breach: str = WARN
    time: int = 0

    def entry(self) -> Record:
        """The manifest entry of the contract (F6.18)."""
        members = {
            "fields": {path: list(kinds) for path, kinds in self.fields.items()},
            "required": list(self.required),
            "open": self.is_open,
            "on_breach": self.on_breach,
            "time": self.time,
        }
        return Record(WHAT, self.type, members)

    @classmethod
    def from_entry(cls, record: Record) -> Contract:
        """Return the contract that an entry holds. Raises KeyError, AttributeError or TypeError
        where it is malformed."""
        m = record.members
        fields = {path: tuple(map(str, kinds)) for path, kinds in m["fields"].items()}
        required = tuple(map(str, m["required"]))
        return cls(record.key, fields, required, bool(m["open"]), str(m["on_breach"]), m["time"])

    def breach(self, path: str, value_kind: str) -> str:
        """How a value at a path breaches the contract: NEW or KIND, "" if it does not."""
        if value_kind in UNREAD:
            return ""
        kinds = self.fields.get(path)
        if kinds is None:
            is_free = self.is_open or any(path.startswith(start) for start in self._maps)
            return "" if is_free or path == PAYLOAD else NEW
        # A field that was only ever null says nothing about its values; whole numbers are floats.
        if (
            value_kind in ("null", *kinds)
            or kinds == ("null",)
            or (value_kind == "int" and "float" in kinds)
        ):
            return ""
        return KIND

    @functools.cached_property
    def _maps(self) -> list[str]:
        """What paths begin with below which any name is allowed: keys of maps are data."""
        starts = []
        for path in self.fields:
            before, star, _ = _split(path)
            if star:
                starts.append(f"{before}." if before else "")
        return starts


@dataclass(frozen=True, slots=True)
class Breach:
    """A field that breaches the contract of its type: NEW, KIND or MISSING, its kind, how many
    events, and when the first of them was (None for what is missing)."""

    type: str
    path: str
    breach: str
    kind: str | None
    events: int
    first_seen: object
    on_breach: str


def of_ledger(
    type: str, fields: Iterable[LedgerField], *, is_open: bool = False, on_breach: str = WARN
) -> Contract:
    """Return the contract that the events of a type fulfil now. Raises InvalidSetting where it
    would be too large."""
    fields_of_type = [field for field in fields if field.type == type]
    objects = sum(f.kinds.get("object", 0) for f in fields_of_type if f.path == PAYLOAD)
    kinds = {f.path: tuple(sorted(f.kinds.keys() - UNREAD)) for f in fields_of_type}
    required = tuple(
        sorted(
            f.path
            for f in fields_of_type
            if f.path != PAYLOAD and not _split(f.path)[1] and _values(f) == objects
        )
    )
    if len(orjson.dumps(kinds)) > BYTES_MAX:
        raise InvalidSetting(f"type {type!r} has too many fields for a contract: {len(kinds):,}")
    return Contract(type, kinds, required, is_open, on_breach, disk.now_us())


def breaches(contracts: Mapping[str, Contract], ledger: Ledger) -> list[Breach]:
    """Return what breaches the contracts of types, by type and path; the fields are of a ledger."""
    result: list[Breach] = []
    for type, contract in sorted(contracts.items()):
        payload = ledger.get((type, PAYLOAD))
        if payload is None:
            continue
        objects = payload.kinds.get("object", 0)
        for (event_type, path), field in ledger.items():
            if event_type != type:
                continue
            for value_kind, events in field.kinds.items():
                if message := contract.breach(path, value_kind):
                    first_seen = field.since[value_kind]
                    result.append(
                        Breach(
                            type, path, message, value_kind, events, first_seen, contract.on_breach
                        )
                    )
        for path in contract.required:
            present = ledger.get((type, path))
            missing = objects - (_values(present) if present else 0)
            if missing > 0:
                result.append(Breach(type, path, MISSING, None, missing, None, contract.on_breach))
    return sorted(result, key=lambda b: (b.type, b.path, b.breach, b.kind or ""))


def of_state(store: Store, state: Manifest) -> dict[str, Contract]:
    """Return the contracts of a state by type. Raises DamagedManifest."""
    contracts = store.manifests.read_records(state, WHAT, Contract.from_entry)
    return {contract.type: contract for contract in contracts}


def pin(store: Store, branch: str, contracts: Iterable[Contract]) -> Head:
    """Publish contracts, each in place of the one that its type had."""
    entries = tuple(contract.entry() for contract in contracts)
    return _publish(store, branch, "pin", entries)


def unpin(store: Store, branch: str, type: str | None = None) -> list[str]:
    """Publish that the contract of a type, or each, holds no longer; return their types. Raises
    UnknownRef where there is none."""
    types: list[str] = []

    def plan(_: Head, state: Manifest) -> Change | None:
        pins = sorted(of_state(store, state))
        if type is not None and type not in pins:
            near = did_you_mean(type, pins) or "see `lakelog schema check`"
            raise UnknownRef(f"type {type!r} has no contract: {near}")
        types[:] = pins if type is None else [type]
        removals = tuple(Removal(WHAT, name) for name in types)
        return Change("schema", f"unpin {_names(types)}", entries=removals) if types else None

    publish(store, branch, plan)
    return types


def _publish(store: Store, branch: str, verb: str, entries: tuple[Entry, ...]) -> Head:
    message = f"{verb} {_names([entry.key for entry in entries])}"
    head = publish(store, branch, lambda _, __: Change("schema", message, entries=entries))
    assert head is not None
    return head


def _names(types: list[str]) -> str:
    return types[0] if len(types) == 1 else f"{len(types)} types"


def _values(field: LedgerField) -> int:
    """Events that have the field and no null there."""
    return field.events - field.kinds.get("null", 0)


def _split(path: str) -> tuple[str, str, str]:
    """What is before the first star of a path, the star if there is one, and the rest."""
    steps = _PART.findall(path)
    for index, step in enumerate(steps):
        if step in ("*", ".*"):
            return "".join(steps[:index]), step, "".join(steps[index + 1 :])
    return path, "", ""
