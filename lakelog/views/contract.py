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
from typing import ClassVar

import orjson

from lakelog.disk import disk
from lakelog.entries import Record, Removal
from lakelog.errors import InvalidSetting, UnknownRef
from lakelog.manifest import Manifest
from lakelog.moves import Change, publish
from lakelog.protect import Protection
from lakelog.refs import Head
from lakelog.runtime.closest import did_you_mean
from lakelog.store import Store
from lakelog.views.ledger import PAYLOAD, SEALED, UNREAD, Ledger, LedgerField

BYTES_MAX = 100_000
"""Bytes of a contract's fields as JSON."""
_PART = re.compile(r'\[\]|\.?(?:"(?:[^"\\]|\\.)*"|[^."\[\]]+)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Breach:
    """A field that breaches the contract of its type: NEW, KIND or MISSING, its kind, how many
    events, and when the first of them was (None for what is missing)."""

    NEW: ClassVar = "new field"
    KIND: ClassVar = "other kind"
    MISSING: ClassVar = "missing"
    type: str
    path: str
    breach: str
    kind: str | None
    events: int
    first_seen: object
    on_breach: str


@dataclass(frozen=True)
class Contract:
    """The fields of one type of event: kinds by path, and the paths that every payload has a value
    at. An open contract allows other fields as well. `on_breach` is one of ON_BREACH, `time` when
    it was pinned (us)."""

    ENTRY: ClassVar = "contract"
    """What its entry in a manifest is."""
    WARN: ClassVar = "warn"
    QUARANTINE: ClassVar = "quarantine"
    ON_BREACH: ClassVar = (WARN, QUARANTINE)
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
        return Record(self.ENTRY, self.type, members)

    @classmethod
    def from_entry(cls, record: Record) -> Contract:
        """Return the contract that an entry holds. Raises KeyError, AttributeError or TypeError
        where it is malformed."""
        m = record.members
        fields = {path: tuple(map(str, kinds)) for path, kinds in m["fields"].items()}
        required = tuple(map(str, m["required"]))
        return cls(record.key, fields, required, bool(m["open"]), str(m["on_breach"]), m["time"])

    def breach(self, path: str, value_kind: str) -> str:
        """How a value at a path breaches the contract: Breach.NEW or KIND, "" if it does not."""
        if value_kind in UNREAD or path == SEALED:
            return ""
        kinds = self.fields.get(path)
        if kinds is None:
            # Keys of a map are data: any name is allowed below it.
            is_free = self.is_open or any(path.startswith(start) for start in self._maps)
            return "" if is_free or path == PAYLOAD else Breach.NEW
        # A field that was only ever null says nothing about its values; whole numbers are floats.
        if (
            value_kind in ("null", *kinds)
            or kinds == ("null",)
            or (value_kind == "int" and "float" in kinds)
        ):
            return ""
        return Breach.KIND

    @classmethod
    def of_ledger(
        cls,
        type: str,
        fields: Iterable[LedgerField],
        *,
        is_open: bool = False,
        on_breach: str = WARN,
    ) -> Contract:
        """Return the contract that the events of a type fulfil now. Raises InvalidSetting where it
        would be too large."""
        # Which of its fields are protected may change, and what they are is not to be seen.
        fields_of_type = [f for f in fields if f.type == type and f.path != SEALED]
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
            raise InvalidSetting(
                f"type {type!r} has too many fields for a contract: {len(kinds):,}"
            )
        return cls(type, kinds, required, is_open, on_breach, disk.now_us())

    def breaches(self, ledger: Ledger, protection: Protection | None = None) -> list[Breach]:
        """Return what breaches it in a ledger, by path. Of fields that are protected now it says
        nothing: events that came since have them sealed."""
        payload = ledger.get((self.type, PAYLOAD))
        if payload is None:
            return []
        rows: list[tuple[str, str, str | None, int, object]] = [
            (path, breach, value_kind, events, field.since[value_kind])
            for (owner, path), field in ledger.items()
            if owner == self.type
            for value_kind, events in field.kinds.items()
            if (breach := self.breach(path, value_kind))
        ]
        for path in self.required:
            present = ledger.get((self.type, path))
            missing = payload.kinds.get("object", 0) - (_values(present) if present else 0)
            if missing > 0:
                rows.append((path, Breach.MISSING, None, missing, None))
        if protection is not None:
            rows = [r for r in rows if not protection.covers(self.type, Ledger.member_of(r[0]))]
        rows.sort(key=lambda row: (row[0], row[1], row[2] or ""))
        return [Breach(self.type, *row, self.on_breach) for row in rows]

    @classmethod
    def of_state(cls, store: Store, state: Manifest) -> dict[str, Contract]:
        """Return the contracts of a state by type. Raises DamagedManifest."""
        contracts = store.manifests.read_records(state, cls.ENTRY, cls.from_entry)
        return {contract.type: contract for contract in contracts}

    @staticmethod
    def pin(store: Store, branch: str, contracts: Iterable[Contract]) -> Head:
        """Publish contracts, each in place of the one that its type had."""
        entries = tuple(contract.entry() for contract in contracts)
        message = f"pin {_names([entry.key for entry in entries])}"
        head = publish(store, branch, lambda _, __: Change("schema", message, entries=entries))
        assert head is not None
        return head

    @staticmethod
    def unpin(store: Store, branch: str, type: str | None = None) -> list[str]:
        """Publish that the contract of a type, or each, holds no longer; return their types. Raises
        UnknownRef where there is none."""
        types: list[str] = []

        def plan(_: Head, state: Manifest) -> Change | None:
            pins = sorted(Contract.of_state(store, state))
            if type is not None and type not in pins:
                near = did_you_mean(type, pins) or "see `lakelog schema check`"
                raise UnknownRef(f"type {type!r} has no contract: {near}")
            types[:] = pins if type is None else [type]
            removals = tuple(Removal(Contract.ENTRY, name) for name in types)
            return Change("schema", f"unpin {_names(types)}", entries=removals) if types else None

        publish(store, branch, plan)
        return types

    @functools.cached_property
    def _maps(self) -> list[str]:
        """What paths begin with below which any name is allowed: keys of maps are data."""
        starts = []
        for path in self.fields:
            before, star, _ = _split(path)
            if star:
                starts.append(f"{before}." if before else "")
        return starts


def _names(types: list[str]) -> str:
    return types[0] if len(types) == 1 else f"{len(types)} types"


def _values(field: LedgerField) -> int:
    """Events that have the field and no null there."""
    return field.events - field.kinds.get("null", 0)


def _split(path: str) -> tuple[str, str, str]:
    """What is before the first star of a path, the star if there is one, and the rest."""
    # Names with dots or brackets are quoted in a path, so it cannot be split at dots.
    steps = _PART.findall(path)
    for index, step in enumerate(steps):
        if step in ("*", ".*"):
            return "".join(steps[:index]), step, "".join(steps[index + 1 :])
    return path, "", ""
