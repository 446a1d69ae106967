"""Making a branch's moves and its newest state readable again, with what is found of them."""

from __future__ import annotations

import dataclasses

from lakelog.errors import DamagedRef
from lakelog.store import disk, document, manifest, salvage
from lakelog.store.aside import Repaired, set_aside
from lakelog.store.layout import parse_packed
from lakelog.store.manifest import Manifest
from lakelog.store.opening import Store
from lakelog.store.publish import Change, try_move
from lakelog.store.refs import Head, Move, author, encode_move, encode_packed, read_packed

Moves = dict[int, tuple[Move, bytes]]
_DONE_ONCE = (
    "ingest", "dedupe", "retention", "quarantine", "view", "format", "rollback", "undo",
)  # fmt: skip
"""Moves that made more of a state than sealing does."""


def mend_moves(store: Store, branch: str, outcome: Repaired) -> None:
    """Put a move with op `lost` in the place of each that cannot be read; if the newest is one,
    make a move on top with the state that is found for it."""
    good, bad, top = salvage.moves(store, branch)
    torn = _damaged_packed(store, branch)
    missing = [n for n in range(1, top + 1) if n not in good]
    if not missing and not torn:
        return
    last = good[max(good)][0] if good else None
    for number in missing:
        good[number] = _stand_in(store, branch, number, good, bad.get(number, b""))
    directory = store.layout.head_dir(branch)
    for name, (first, final) in torn.items():
        set_aside(store, f"{directory}/{name}", outcome)
        data = encode_packed([good[n][1] for n in range(first, final + 1)])
        disk.create_whole(f"{directory}/{name}", data)
    spans = [range(first, final + 1) for first, final in torn.values()]
    for number in missing:
        set_aside(store, store.layout.move(branch, number), outcome)
        if not any(number in span for span in spans):
            disk.create_whole(store.layout.move(branch, number), good[number][1])
    disk.sync_dir(directory)
    store.refs.forget()
    if missing:
        outcome.lost.append(f"branch {branch}: {_listed(missing)} of its log")
    if top in missing:
        base = Head(good[top][0], document.digest(good[top][1]))
        _make_head(store, last, base, bool(salvage.snapshot_in(store, bad.get(top, b""))), outcome)


def _damaged_packed(store: Store, branch: str) -> dict[str, tuple[int, int]]:
    directory = store.layout.head_dir(branch)
    found = {}
    for name in disk.listing(directory):
        if span := parse_packed(name):
            try:
                read_packed(f"{directory}/{name}")
            except DamagedRef:
                found[name] = span
    return found


def _stand_in(
    store: Store, branch: str, number: int, good: Moves, data: bytes
) -> tuple[Move, bytes]:
    """Make the move that stands for one that cannot be read."""
    before, after = good.get(number - 1), good.get(number + 1)
    at = [n for n in good if n > number]
    snapshot = salvage.snapshot_in(store, data) or (before[0].snapshot if before else "")
    if not snapshot and at:
        snapshot = good[min(at)][0].snapshot
    if not snapshot:
        empty = manifest.empty(disk.random_hex(), disk.now_us(), author())
        snapshot = store.manifests.write(empty).digest
    when = disk.now_us() if not at else good[min(at)][0].time - (min(at) - number)
    move = Move(
        number=number, branch=branch, prev=document.digest(before[1]) if before else "",
        commit=disk.random_hex(), time=before[0].time + 1 if before else when, author=author(),
        op="lost", message=after[0].prev if after else "", snapshot=snapshot,
        generation=before[0].generation + (not at) if before else 0,
        wal=before[0].wal if before else {},
    )  # fmt: skip
    return move, encode_move(move)


def _make_head(
    store: Store, last: Move | None, base: Head, own: bool, outcome: Repaired
) -> None:  # fmt: skip
    """Make a move on top of a lost newest one: with its own state, if its bytes still name it,
    else with the last state before it and what was sealed since."""
    branch, marks = base.move.branch, last.wal if last else {}
    snapshot = base.move.snapshot
    state = store.manifests.load(snapshot)
    if own:
        since = _keys(store, last.snapshot) if last else set()
        held = _keys(store, snapshot)
        way = [s for s in salvage.sealings(store, since) if held.issuperset(s.segments)]
        change = Change("repair", "past a damaged move, on its own state", snapshot=snapshot)
    else:
        way = salvage.later(store, branch, state, marks, None)
        change = _taking_back(store, way, "past a damaged move")
    change = dataclasses.replace(change, rewind=True, watermarks=salvage.raised(marks, way))
    _move(store, base, state, change)
    events = sum(e["events"] for e in change.entries)
    outcome.done.append(
        f"branch {branch}: moved past damaged move {base.move.number}"
        + (", onto its own state" if own else f"; {events} events taken back")
    )


def _keys(store: Store, digest: str) -> set[str]:
    return {e["key"] for e in store.manifests.entries(store.manifests.load(digest))}


def _taking_back(store: Store, way: list[salvage.Sealed], message: str) -> Change:
    entries = tuple(salvage.entry(store, key) for step in way for key in step.segments)
    runs = tuple(run for step in way for run in step.runs)
    return Change("repair", message, entries=entries, ids_add=runs)


def _move(store: Store, base: Head, state: Manifest, change: Change) -> None:
    done = try_move(store, base, state, change, disk.random_hex())
    if done is None:
        path = store.layout.head_dir(base.move.branch)
        raise DamagedRef(path, "the branch moved while it was repaired: repair it again")
    store.refs.note(done)


def restore_state(store: Store, branch: str, outcome: Repaired) -> None:
    """If the head's state does not open, find it again, or go to the newest one that does."""
    head = store.refs.head(branch)
    if salvage.opens(store, head.move.snapshot):
        return
    again = None
    if salvage.intact(store, "manifests", head.move.snapshot):
        again = salvage.replayed(store, store.manifests.load(head.move.snapshot))
    if again is not None:
        base, entries = again
        changed = salvage.changes(store, base, entries)
        _move(store, head, base, Change("repair", "a damaged page rebuilt", entries=changed))
        outcome.done.append(f"branch {branch}: a damaged page rebuilt, nothing lost")
        return
    move = _newest_open(store, branch)
    state = store.manifests.load(move.snapshot)
    way = salvage.later(store, branch, state, move.wal, head.move.wal)
    message = f"manifest of move {head.move.number} is damaged; on move {move.number}"
    change = dataclasses.replace(_taking_back(store, way, message), rewind=True)
    _move(store, head, state, change)
    found = salvage.raised(move.wal, way)
    events = sum(e["events"] for e in change.entries)
    outcome.done.append(
        f"branch {branch}: state of move {move.number} taken, with {events} later events taken"
        " back from segments"
    )
    outcome.lost.extend(_undone(store, branch, move.number))
    for writer, mark in head.move.wal.items():
        if writer in found and found[writer] < mark:
            outcome.lost.append(
                f"branch {branch}: group commits {found[writer] + 1} to {mark} of writer"
                f" {writer[:12]}, unless all of them were duplicates"
            )


def _undone(store: Store, branch: str, number: int) -> list[str]:
    """Name the moves after a number whose work does not come back from WAL frames."""
    later = [m for n, (m, _) in sorted(salvage.moves(store, branch)[0].items()) if n > number]
    return [
        f"branch {branch}: what move {m.number} did ({m.op} {m.message}".rstrip() + "): do it again"
        for m in later
        if m.op in _DONE_ONCE
    ]


def _newest_open(store: Store, branch: str) -> Move:
    for number in reversed(store.refs.numbers(branch)):
        move = store.refs.read(branch, number)
        if salvage.opens(store, move.snapshot):
            return move
    empty = manifest.empty(disk.random_hex(), disk.now_us(), author())
    first = store.refs.read(branch, min(store.refs.numbers(branch)))
    return dataclasses.replace(first, snapshot=store.manifests.write(empty).digest, wal={})


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:10])) + (" and more" if len(numbers) > 10 else "")
    return f"move{'s' if len(numbers) > 1 else ''} {shown}"
