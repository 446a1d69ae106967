"""How far an erasure is: done only when the lake and every copy that it knows of are clean."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass

from lakelog.erased import Refusal, records, sweep
from lakelog.erased.records import Erasure
from lakelog.erasure import derived, outside
from lakelog.erasure.erasing import SettleBranch
from lakelog.erasure.leftovers import Leftover
from lakelog.erasure.selection import frames_by_file
from lakelog.errors import UnknownRef
from lakelog.event.types import JsonObject
from lakelog.libraries import pa
from lakelog.segments import rows
from lakelog.segments.connection import Connect
from lakelog.store import disk, wal
from lakelog.store.bootstrap import Store

_WAL = "a writer holds it: it goes on in a new file with its second append from now, or ends"
_YOUNG = "a writer is about to finish it, or was killed: erase again when it is an hour old"
_AGAIN = "run the same `lakelog erase` again: it goes on where it was"


@dataclass(frozen=True)
class ErasureStatus:
    """An erasure, what in the lake may still have bytes of it, and which copies are not known to be
    clean."""

    erasure: Erasure
    leftovers: tuple[Leftover, ...]
    copies: tuple[JsonObject, ...]
    earlier: tuple[ErasureStatus, ...] = ()
    """Of a call that erased several subjects, those of the others."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is known to be left anywhere."""
        return not self.leftovers and not self.copies and all(s.is_done for s in self.earlier)


def statuses(store: Store, connect: Connect, settle: SettleBranch) -> list[ErasureStatus]:
    """Return how far each erasure of a lake is, oldest first. `settle` seals and trims the tail of
    a branch. Raises Damaged."""
    records_ = records.listing(store.paths)
    if not records_:
        return []
    for branch in store.refs.branches():
        settle(branch)
    unfinished = [Leftover(key, _AGAIN) for key in sweep.unfinished(store)]
    temporary = (os.path.relpath(p, store.paths.root) for p in derived.temporary_files(store))
    unfinished += [Leftover(place, _YOUNG) for place in temporary]
    wals = list(_frames(store, connect))
    return [_status(store, erasure, unfinished, wals) for erasure in records_]


def confirm(store: Store, key: str, name: str) -> Erasure:
    """Note that somebody cleaned a place outside the lake. Raises UnknownRef for no such one."""
    erasure = one(store, key)
    if all(place["name"] != name for place in erasure.outside):
        names = ", ".join(str(place["name"]) for place in erasure.outside) or "none"
        raise UnknownRef(f"erasure {erasure.key} knows no place {name!r}: it has {names}")
    places = [p | {"done": True} if p["name"] == name else p for p in erasure.outside]
    confirmed = dataclasses.replace(erasure, outside=places)
    confirmed.save(store.paths)
    return confirmed


def one(store: Store, key: str) -> Erasure:
    """Return the erasure whose key begins with some digits. Raises UnknownRef."""
    matching = [e for e in records.listing(store.paths) if key and e.key.startswith(key)]
    if len(matching) != 1:
        raise UnknownRef(f"no single erasure {key!r}: `lakelog erase list` shows them")
    return matching[0]


def _frames(store: Store, connect: Connect) -> Iterator[tuple[str, list[pa.Table]]]:
    """Yield each WAL file with its rows, events and quarantined lines apart."""
    for path, frames in frames_by_file(store):
        tables = []
        for is_quarantined in (0, wal.QUARANTINED):
            frames_of_kind = [f for f in frames if f.flags & wal.QUARANTINED == is_quarantined]
            if frames_of_kind:
                decode = rows.quarantined if is_quarantined else rows.events
                tables.append(decode(connect(), frames_of_kind))
        yield path, tables


def _status(
    store: Store,
    erasure: Erasure,
    unfinished: list[Leftover],
    wals: list[tuple[str, list[pa.Table]]],
) -> ErasureStatus:
    root = store.paths.root
    leftover_list = [] if erasure.is_swept else [Leftover("the lake", _AGAIN)]
    leftover_list += unfinished
    refusal = Refusal(store.paths, erasure.key)
    for path, tables in wals:
        if any(refusal.mask(table).any() for table in tables):
            leftover_list.append(Leftover(os.path.relpath(path, root), _WAL))
    for entry in erasure.leftovers:
        place = str(entry["place"])
        # Of what is no file nobody can tell without the subject: `erase` again looks once more.
        if "/" not in place or " " in place or disk.exists(f"{root}/{place}"):
            leftover_list.append(Leftover(place, str(entry["advice"])))
    copies = [
        place
        for place in erasure.outside
        if not outside.is_clean(store, place, erasure.key, erasure.time)
    ]
    return ErasureStatus(erasure, tuple(leftover_list), tuple(copies))
