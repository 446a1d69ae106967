"""How far an erasure is: done only when the lake and every copy that it knows of are clean."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Container, Iterator
from dataclasses import dataclass

from lakelog import frame_rows
from lakelog.database import Connect
from lakelog.disk import File
from lakelog.erased import Refusal, records, sweep
from lakelog.erased.records import Erasure
from lakelog.erasure import derived, key_erasure, outside, recorded, repetition
from lakelog.erasure.erasing import SettleAll
from lakelog.erasure.leftovers import Leftover
from lakelog.erasure.selection import frames_by_file
from lakelog.errors import UnknownRef, Unreachable
from lakelog.keys import SubjectKeys
from lakelog.libraries import pa
from lakelog.store import Store
from lakelog.values import JsonObject
from lakelog.wal import Frame

_WAL = "a writer holds it: it goes on in a new file with its second append from now, or ends"
_YOUNG = "a writer is about to finish it, or was killed: erase again when it is an hour old"
_EXCHANGE = (
    "`lakelog exchange` there, and what `lakelog erase status` says there; if it is gone for good,"
    " say --cleaned"
)
_KEYS = "has destroyed keys, or cannot be opened: `lakelog {verb}` with its master key"
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
    absent: tuple[JsonObject, ...] = ()
    """Copies that count as clean because nothing is at their paths."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is known to be left anywhere."""
        return not self.leftovers and not self.copies and all(s.is_done for s in self.earlier)


def statuses(
    store: Store, connect: Connect, settle: SettleAll, keys: Container[str] | None = None
) -> list[ErasureStatus]:
    """Return how far each erasure of a lake is, or those with some keys, oldest first. `settle`
    seals and trims the tails of the branches. Raises Damaged."""
    records_ = records.listing(store.paths)
    if not records_:
        return []
    settle()
    machines = _machines(store, connect, settle)
    if store.attachment is not None:
        records_ = records.listing(store.paths)  # another machine may have ended one
    directory = _directory(store, connect)
    records_ = recorded.confirmed(store, connect, records_)
    return [
        _status(store, erasure, directory, machines)
        for erasure in records_
        if keys is None or erasure.key in keys
    ]


def confirm_here(store: Store, connect: Connect, settle: SettleAll) -> None:
    """Drop what a directory of a shared lake has of what another machine erased, and say so in the
    bucket once nothing is left, in the copies that it made neither. Raises Unreachable,
    TransferRefused, Damaged, OSError."""
    assert store.attachment is not None
    erasures = store.attachment.erasures

    def is_due(erasure: Erasure) -> bool:
        # Of the copies that this directory made: what lakelog recorded all machines have.
        return not _unclean(store, erasure, erasure.copies)

    if not (due := erasures.unconfirmed(is_due)):
        return
    settle()
    derived.drop_strays(store)
    derived.clean(store)
    directory, confirmed_keys = _directory(store, connect), []
    for erasure in records.listing(store.paths):
        if erasure.key in due and not _leftovers(store, erasure, directory):
            if not erasure.copies:
                copies = (
                    key_erasure.copies(store)
                    if erasure.places
                    else outside.places_of(store, erasure, erasure.tags)
                )
                erasure = dataclasses.replace(erasure, outside=copies)
                erasure.save(store.paths)
                # Only now it is known where its rows went from here.
                if not is_due(erasure):
                    continue
            confirmed_keys.append(erasure.key)
    if confirmed_keys:
        erasures.machines.confirm(confirmed_keys)


def _unclean(store: Store, erasure: Erasure, places: list[JsonObject]) -> list[JsonObject]:
    """Return those of the places of an erasure that are not known to be clean."""
    return [place for place in places if not outside.is_clean(store, place, erasure)]


def _is_this(store: Store, machine: str) -> bool:
    return store.attachment is not None and machine == store.attachment.erasures.machines.name


def _machines(store: Store, connect: Connect, settle: SettleAll) -> dict[str, Container[str]]:
    """The erasures that each machine of a shared lake has confirmed, by its name; those of a bucket
    that is away are not known."""
    if store.attachment is None:
        return {}
    try:
        confirm_here(store, connect, settle)
        return {note.name: note.erased for note in store.attachment.erasures.machines.listing()}
    except Unreachable:
        return {store.attachment.volume.url: ()}


@dataclass(frozen=True)
class _Directory:
    """What a directory has that may be of any erasure: unfinished files, and rows of WAL files."""

    unfinished: list[Leftover]
    wals: list[tuple[str, list[pa.Table]]]


def _directory(store: Store, connect: Connect) -> _Directory:
    copy = store.attachment.erasures.local if store.attachment else store
    unfinished = [Leftover(key, _AGAIN) for key in sweep.unfinished(copy)]
    temporary = (os.path.relpath(p, store.paths.root) for p in derived.temporary_files(store))
    unfinished += [Leftover(place, _YOUNG) for place in temporary]
    return _Directory(unfinished, list(_frames(store, connect)))


def confirm(store: Store, key: str, name: str, advice: str = "") -> Erasure:
    """Note that somebody cleaned a place outside the lake, or what is to be done there, with the
    `{name}` of the place. Raises UnknownRef for no such one."""
    erasure = one(store, key)
    if store.attachment is not None and store.attachment.erasures.machines.forget(name):
        return erasure  # it is gone for good, with all that it had
    if all(place["name"] != name for place in erasure.outside):
        names = ", ".join(str(place["name"]) for place in erasure.outside) or "none"
        raise UnknownRef(f"erasure {erasure.key} knows no place {name!r}: it has {names}")
    news: JsonObject = {"command": advice.format(name=shlex.quote(name))}
    if not advice:
        news = {"done": True}
        if (public_name := erasure.public(name)) != name:
            # Nobody has to find it any more.
            news |= {"name": public_name, "command": public_name, "path_bytes": ""}
    places = [p | news if p["name"] == name else p for p in erasure.outside]
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
        for is_quarantined in (0, Frame.QUARANTINED):
            frames_of_kind = [f for f in frames if f.flags & Frame.QUARANTINED == is_quarantined]
            if frames_of_kind:
                decode = frame_rows.quarantined if is_quarantined else frame_rows.events
                tables.append(decode(connect, frames_of_kind))
        yield path, tables


def _leftovers(store: Store, erasure: Erasure, directory: _Directory) -> list[Leftover]:
    root = store.paths.root
    leftover_list = [] if erasure.is_swept else [Leftover("the lake", _AGAIN)]
    leftover_list += directory.unfinished
    protection = store.paths.protection
    if protection and erasure.places and SubjectKeys.has_some(protection.id, erasure.places):
        verb = "repair" if store.attachment is None else "exchange"
        leftover_list.append(Leftover(protection.path, _KEYS.format(verb=verb)))
    refusal = Refusal(store.paths, erasure.key, by_arrival=store.attachment is not None)
    for path, tables in directory.wals:
        if any(refusal.mask(table).any() for table in tables):
            leftover_list.append(Leftover(os.path.relpath(path, root), _WAL))
    for entry in erasure.leftovers:
        place = str(entry["place"])
        # Of what is no file nobody can tell without the subject: `erase` again looks once more.
        if "/" not in place or " " in place or File(f"{root}/{place}").exists():
            leftover_list.append(Leftover(place, str(entry["advice"])))
    if store.attachment is not None:
        noted = {leftover.place for leftover in leftover_list}
        leftover_list += [x for x in repetition.mentions(store, erasure) if x.place not in noted]
    return leftover_list


def _status(
    store: Store, erasure: Erasure, directory: _Directory, machines: dict[str, Container[str]]
) -> ErasureStatus:
    leftovers = tuple(_leftovers(store, erasure, directory))
    copies = _unclean(store, erasure, erasure.outside)
    has_named = bool(leftovers or copies)
    copies += [
        {"place": "machine", "name": name, "command": _EXCHANGE, "done": False}
        for name, confirmed in machines.items()
        # Of this one it is said what is left.
        if erasure.key not in confirmed and not (has_named and _is_this(store, name))
    ]
    absent = tuple(place for place in erasure.outside if outside.is_gone(place))
    return ErasureStatus(erasure, leftovers, tuple(copies), absent=absent)
