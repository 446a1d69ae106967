"""The cursors of subscriptions in a manifest (FORMAT.md F6.20).

A cursor is an entry of the state like that of a file: it is published together with the events that
a subscriber appends, a rollback takes it back, and a branch has its own from where it began.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lakelog.entries import Record
from lakelog.manifest import Manifest
from lakelog.store import Store
from lakelog.subscriptions.position import PARTITIONS, Position

WHAT = "subscription"


@dataclass(frozen=True)
class SubscriptionRecord:
    """One subscription: which events it wants, and where each partition stands.

    `handled` counts the events that were handled, `appended` those that its subscribers appended,
    and `dead` those that they gave up. `id` tells it from one of that name that was removed.
    """

    name: str
    id: str
    condition: str | None
    created: int
    positions: tuple[Position, ...]
    handled: int = 0
    appended: int = 0
    dead: int = 0

    @property
    def origin(self) -> str:
        """What the events have as origin that its subscribers append."""
        return f"subscription:{self.name}#{self.id}"

    @property
    def lowest(self) -> int:
        """All events below this number were handled."""
        return min(self.numbers)

    @property
    def numbers(self) -> list[int]:
        """The number at which each partition stands, one for all where they stand together."""
        position = self.positions[0]
        # The usual case, as all begin together and end together.
        if self.positions.count(position) == PARTITIONS:
            return [position.seq]
        return [position.seq for position in self.positions]

    def stands_at(self, positions: Mapping[int, Position]) -> bool:
        """Whether partitions are where a member believes them to be."""
        return all(self.positions[number] == place for number, place in positions.items())

    def moved(
        self, positions: Mapping[int, Position], handled: int, dead: int
    ) -> SubscriptionRecord:
        """The record once partitions have come further."""
        places = list(self.positions)
        for number, place in positions.items():
            places[number] = place
        return replace(
            self, positions=tuple(places), handled=self.handled + handled, dead=self.dead + dead
        )

    @classmethod
    def from_entry(cls, entry: Record) -> SubscriptionRecord:
        """Read an entry. Raises LookupError, TypeError, ValueError where it is malformed."""
        members = entry.members
        places = [Position()] * PARTITIONS
        for group in members["positions"]:
            place = Position.of(group)
            # One position without partitions is that of all.
            for number in group.get("partitions", range(PARTITIONS)):
                places[number] = place
        counts = {name: int(members.get(name, 0)) for name in _COUNTS}
        condition = members.get("where")
        if not isinstance(condition, str | None):
            raise TypeError("the condition is no text")
        return cls(
            entry.key,
            str(members["id"]),
            condition,
            int(members["created"]),
            tuple(places),
            **counts,
        )

    def entry(self) -> Record:
        """The entry of the manifest; partitions that stand together share a position."""
        groups: dict[Position, list[int]] = {}
        for number, place in enumerate(self.positions):
            groups.setdefault(place, []).append(number)
        positions = [
            {**place.members(), **({"partitions": numbers} if len(groups) > 1 else {})}
            for place, numbers in groups.items()
        ]
        members = {"id": self.id, "created": self.created, "positions": positions}
        if self.condition is not None:
            members["where"] = self.condition
        # Only what is not zero: a manifest of many subscriptions stays short.
        members |= {name: getattr(self, name) for name in _COUNTS if getattr(self, name)}
        return Record(WHAT, self.name, members)


_COUNTS = ("handled", "appended", "dead")


def of_state(store: Store, state: Manifest) -> dict[str, SubscriptionRecord]:
    """The subscriptions of a state by name. Raises DamagedManifest."""
    records = store.manifests.read_records(state, WHAT, SubscriptionRecord.from_entry)
    return {record.name: record for record in records}


def find(store: Store, state: Manifest, name: str) -> SubscriptionRecord | None:
    """One subscription of a state, None where there is none. Raises DamagedManifest."""
    entry = store.manifests.find(state, WHAT, name)
    with store.manifests.refusing_malformed(state.digest):
        return None if entry is None else SubscriptionRecord.from_entry(entry)
