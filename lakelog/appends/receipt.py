"""The receipt of an append: how many events are durable, and what their ids are."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence


class Receipt:
    """What an append stored: `count` events, and their `ids` (given, or `origin:position`)."""

    __slots__ = ("_given", "count", "origin", "places", "versions")

    def __init__(
        self,
        ids: list[str | None],
        origin: str,
        places: Sequence[Sequence[int]],
        versions: Mapping[str, int] | None = None,
    ) -> None:
        self.count, self._given, self.origin, self.places = len(ids), ids, origin, places
        self.versions = dict(versions or {})
        """The version that each stream of an append with expected versions has now."""

    @property
    def ids(self) -> list[str]:
        """One id per event, in order."""
        places = itertools.chain.from_iterable(self.places)
        return [
            own_id if own_id is not None else f"{self.origin}:{place}"
            for own_id, place in zip(self._given, places, strict=True)
        ]

    def __repr__(self) -> str:
        return f"Receipt(count={self.count})"
