"""The receipt of an erasure, for those who asked for it: never the data, nor who it was."""

from __future__ import annotations

from lakelog import proofs
from lakelog.disk import disk
from lakelog.erasure.status import ErasureStatus
from lakelog.render import micros
from lakelog.store import Store
from lakelog.values import JsonObject


def receipt(store: Store, status: ErasureStatus, key: proofs.PrivateKey | None) -> bytes:
    """Return the receipt of an erasure as it is now, signed if there is a key."""
    erasure = status.erasure
    public = erasure.public

    def counts(by_name: dict[str, int]) -> JsonObject:
        return {public(name): count for name, count in by_name.items()}

    copies = [
        {name: public(str(place[name])) for name in ("place", "name", "command")}
        | {"clean": place not in status.copies}
        | ({"gone": True} if place in status.absent else {})
        for place in erasure.outside
    ]
    return proofs.ErasureReceipt.issue(
        {
            "key": erasure.key,
            "lake": store.lake_id,
            "erased": erasure.chosen_by,
            "digest": erasure.digest,
            **({"keys": list(erasure.subjects)} if erasure.subjects else {}),
            "salt": erasure.salt,
            "events": erasure.events,
            "lines": erasure.lines,
            "segments": erasure.segments,
            "by": erasure.author,
            "why": erasure.why,
            "time": micros(erasure.time),
            "issued": micros(disk.now_us()),
            "state": "done" if status.is_done else "pending",
            "branches": counts(erasure.branches),
            "tags": counts(erasure.tags),
            "copies": copies,
            "leftovers": [
                {"place": public(left.place), "advice": left.advice} for left in status.leftovers
            ],
        },
        key,
    )
