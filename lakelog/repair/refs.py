"""Making a branch's moves and its newest state readable again, with what is found of them."""

from __future__ import annotations

import dataclasses
import itertools

from lakelog.errors import DamagedRef
from lakelog.repair import orphans, recover
from lakelog.repair.orphans import Connect
from lakelog.repair.outcome import RepairOutcome, set_aside
from lakelog.store import disk, manifest
from lakelog.store.bootstrap import Store
from lakelog.store.manifest import Manifest
from lakelog.store.move_pack import PACKED, encode_packed, is_thinned, read_packed
from lakelog.store.paths import parse_move
from lakelog.store.publish import Change, try_move
from lakelog.store.refs import Head, Move, author, digest_of, encode_move

Watermarks = dict[str, int]
Moves = dict[int, tuple[Move, bytes]]
_REWINDS = ("rollback", "undo", "repair", "branch")
_DONE_ONCE = ("ingest", "dedupe", "retention", "quarantine", "view", "format", "rollback", "undo")
"""Moves that made more of a state than sealing does."""


def mend_moves(store: Store, branch: str, outcome: RepairOutcome) -> None:
    """Put a move with op `lost` in the place of each that cannot be read; if the newest is one,
    make a move on top with the state that is found for it."""
    good, bad, top = recover.moves(store, branch)
    if not top and (disk.listing(store.paths.wal_dir(branch)) or _is_only(store)):
        top = 1  # it had at least its first
    torn, thinned = _packed(store, branch)
    missing = _missing(good, top, thinned)
    stateless = _stateless(store, branch, good)
    if not missing and not torn and not stateless:
        return
    for number in missing:
        good[number] = _stand_in(store, branch, number, good, bad.get(number, b""))
    directory = store.paths.head_dir(branch)
    for path, span in torn.items():
        set_aside(store, path, outcome)
        held = {n: good[n][1] for n in sorted(good) if n in span}
        disk.create_whole(path, encode_packed(branch, span[0], span[-1], held))
        if span in thinned:
            outcome.lost.append(
                f"branch {branch}: moves {span[0]} to {span[-1]} of its log that"
                " were kept and cannot be read"
            )
    for number in (*missing, *stateless):
        set_aside(store, store.paths.move(branch, number), outcome)
        if not any(number in span for span in torn.values()):
            disk.create_whole(store.paths.move(branch, number), good[number][1])
    disk.sync_dir(directory)
    store.refs.forget()
    if missing:
        outcome.lost.append(f"branch {branch}: {_listed(missing)} of its log")


def _is_only(store: Store) -> bool:
    return len(store.refs.all_branches()) == 1


def _packed(store: Store, branch: str) -> tuple[dict[str, range], list[range]]:
    """Return the spans of damaged packed files by path, and the spans of files from which moves
    may have been dropped: nobody can tell these from moves that are lost."""
    torn, thinned = dict[str, range](), list[range]()
    for first, last, path in store.refs.packs(branch):
        span = range(first, last + 1)
        try:
            read_packed(path)
        except DamagedRef:
            torn[path] = span
            if len(span) <= PACKED and not is_thinned(disk.read(path)):
                continue
        thinned.append(span)
    return torn, thinned


def _missing(good: Moves, top: int, thinned: list[range]) -> list[int]:
    """Return the numbers up to the highest that are in no readable file, nor dropped."""
    missing, following = list[int](), 1
    for number in [*sorted(good), top + 1]:
        gap = range(following, number)
        if not any(gap.start in span and gap[-1] in span for span in thinned if gap):
            missing += [n for n in gap if not any(n in span for span in thinned)]
        following = number + 1
    return missing


def _stateless(store: Store, branch: str, good: Moves) -> list[int]:
    """Return the numbers of moves that can be read but for the manifest that they carry."""
    found = []
    for name in disk.listing(store.paths.head_dir(branch)):
        number = parse_move(name)
        path = f"{store.paths.head_dir(branch)}/{name}"
        if number in good and disk.read(path) != good[number][1]:
            found.append(number)
    return found


def _stand_in(
    store: Store, branch: str, number: int, good: Moves, data: bytes
) -> tuple[Move, bytes]:
    """Make the move that stands for one that cannot be read."""
    before, after = good.get(number - 1), good.get(number + 1)
    if before is None and (earlier := [n for n in good if n < number]):
        before = good[max(earlier)][0], b""
    at = [n for n in good if n > number]
    snapshot, text = recover.state_in(store, data)
    snapshot = snapshot or (before[0].snapshot if before else "")
    if not snapshot and at:
        snapshot = good[min(at)][0].snapshot
    if not snapshot:
        empty = manifest.empty(disk.random_hex(), disk.now_us(), author())
        snapshot = store.manifests.write(empty).digest
    when = disk.now_us() if not at else good[min(at)][0].time - (min(at) - number)
    move = Move(
        number=number,
        branch=branch,
        prev=digest_of(before[1]) if before and before[1] else "",
        commit=disk.random_hex(),
        time=before[0].time + 1 if before else when,
        author=author(),
        op="lost",
        message=after[0].prev if after else "",
        snapshot=snapshot,
        generation=_generation(before[0] if before else None, after[0] if after else None, not at),
        wal=before[0].wal if before else {},
        carried=text,
    )
    return move, encode_move(move)


def _generation(before: Move | None, after: Move | None, is_newest: bool) -> int:
    """The generation that a lost move had, as far as its neighbours tell; of the newest one more,
    as it may have been a rewind."""
    least = before.generation + is_newest if before else 0
    return max(least, after.generation - (after.op in _REWINDS)) if after else least


def _move(store: Store, base: Head, state: Manifest, change: Change) -> None:
    done = try_move(store, base, state, change, disk.random_hex())
    if done is None:
        path = store.paths.head_dir(base.move.branch)
        raise DamagedRef(path, "the branch moved while it was repaired: repair it again")
    store.refs.note(done)


def restore_state(store: Store, branch: str, connect: Connect, outcome: RepairOutcome) -> None:
    """If the head's move was lost or its state does not open, go to the newest kept state that
    does, with what can be proved to have been sealed since."""
    head = store.refs.head(branch)
    if head.move.op != "lost" and (
        recover.opens(store, head.move.snapshot) or _rebuild_page(store, head, outcome)
    ):
        return
    moves = [move for move, _ in recover.moves(store, branch)[0].values()]
    base = _newest_open(store, moves)
    state = store.manifests.load(base.snapshot)
    known = recover.named(store)
    sealed, elsewhere = _sealed_before(store, moves, base, known)
    is_doubtful = _is_doubtful(moves, base)
    way, watermarks = orphans.adopt(store, connect, base, known, sealed, is_doubtful)
    entries = tuple(recover.entry(store, key) for step in way for key in step.segments)
    runs = tuple(orphans.with_runs(store, connect, way))
    lost, watermarks = _lost_commits(store, branch, moves, watermarks)
    number, events = head.move.number, sum(e["events"] for e in entries)
    where = "its own state" if base.number == number else f"the state of move {base.number}"
    where = where if base.number else "an empty state"
    change = Change(
        "repair",
        f"past damaged move {number}, on {where}",
        entries=entries,
        ids_add=runs,
        rewind=True,
        watermarks=watermarks,
    )
    _move(store, head, state, change)
    outcome.done.append(
        f"branch {branch}: moved past damaged move {number}, onto {where};"
        f" {events} later events taken back from segments"
    )
    if not base.number:
        outcome.lost.append(f"branch {branch}: every state of it, and what none of its WALs sealed")
    outcome.lost.extend(_undone(store, branch, base.number))
    outcome.lost.extend([*lost, *elsewhere])


def _rebuild_page(store: Store, head: Head, outcome: RepairOutcome) -> bool:
    """Rebuild a page of the head's state from the states before it, if the totals prove it."""
    if not recover.intact(store, "manifests", head.move.snapshot):
        return False
    again = recover.replayed(store, store.manifests.load(head.move.snapshot))
    if again is None:
        return False
    base, entries = again
    changed = recover.changes(store, base, entries)
    _move(store, head, base, Change("repair", "a damaged page rebuilt", entries=changed))
    outcome.done.append(f"branch {head.move.branch}: a damaged page rebuilt, nothing lost")
    return True


def _is_doubtful(moves: list[Move], base: Move) -> bool:
    """Whether a lost move up to a state may have sealed what a later one, up to it, took off."""
    lost = [move.number for move in moves if move.op == "lost" and move.number <= base.number]
    takes = (*_REWINDS, "retention", "dedupe", "lost")
    return any(
        m.op in takes and min(lost, default=m.number) < m.number <= base.number for m in moves
    )


def _sealed_before(
    store: Store, moves: list[Move], base: Move, known: dict[str, set[str]]
) -> tuple[Watermarks, list[str]]:
    """Return how far each writer was sealed when a state was made, for all writers there ever were,
    and name what was sealed later and is not taken back.

    A writer that is missing in a move may be finished, and its watermark left out: so the highest
    of all moves counts, and so do the segments that kept states name, whose frames were sealed. A
    rewind after the state took off some of what had been sealed before it: none of it comes back.
    """
    watermarks: Watermarks = {}
    ordered = sorted(moves, key=lambda move: move.number)
    # A move that rewinds and the one before it are never dropped, so that one is at hand.
    before = [0, *(move.generation for move in ordered)]
    rewinds = [
        m.number
        for m, generation in zip(ordered, before, strict=False)
        if m.generation > generation and not (m.op == "lost" and m is ordered[-1])
    ]
    limit = max([base.number, *rewinds])
    for move in (m for m in moves if m.number <= limit):
        for writer, mark in move.wal.items():
            watermarks[writer] = max(mark, watermarks.get(writer, -1))
    found = [
        s
        for s in recover.sealings(store, ())
        if s.branch == base.branch and not known.keys().isdisjoint(s.segments)
    ]
    span = f"moves {base.number + 1} to {limit}"
    off = [f"branch {base.branch}: what {span} sealed, as move {limit} took some of it off"]
    elsewhere = [
        f"branch {base.branch}: events of segment {key[:12]}, which branch {name} still has"
        for s in found
        if recover.raised(watermarks, [s]) != watermarks
        for key in s.segments
        if base.branch not in known.get(key, ())
        for name in sorted(known.get(key, ()))[:1]
    ]
    return recover.raised(watermarks, found), [*elsewhere, *(off if limit > base.number else ())]


def _lost_commits(
    store: Store, branch: str, moves: list[Move], watermarks: Watermarks
) -> tuple[list[str], Watermarks]:
    """List group commits that some move says were sealed, and that are in no state, segment or
    WAL any more; return them, and watermarks that pass over them."""
    held = orphans.in_wals(store, branch)
    raised, lost = dict(watermarks), []
    for move in moves:
        for writer, mark in move.wal.items():
            low = raised.get(writer, -1)
            if mark > low and held.get(writer, set()).isdisjoint(range(low + 1, mark + 1)):
                raised[writer] = mark
    for writer, mark in sorted(raised.items()):
        if mark > (low := watermarks.get(writer, -1)):
            lost.append(
                f"branch {branch}: group commits {low + 1} to {mark} of writer {writer[:12]},"
                " unless all of them were duplicates"
            )
    return lost, raised


def _undone(store: Store, branch: str, number: int) -> list[str]:
    """Name the moves after a number whose work does not come back from WAL frames."""
    later = [m for n, (m, _) in sorted(recover.moves(store, branch)[0].items()) if n > number]
    return [
        f"branch {branch}: what move {m.number} did ({m.op} {m.message}".rstrip() + "): do it again"
        for m in later
        if m.op in _DONE_ONCE
    ]


def _newest_open(store: Store, moves: list[Move]) -> Move:
    """The newest move whose state opens; one of number 0 on an empty state if there is none."""
    ordered = sorted(moves, key=lambda move: -move.number)
    for move, before in itertools.zip_longest(ordered, ordered[1:]):
        if recover.opens(store, move.snapshot):
            guess = before.snapshot if before else ""
            is_empty = not before and not store.manifests.load(move.snapshot).parent
            if move.op != "lost" or not (move.snapshot == guess or is_empty):
                return move
    empty = manifest.empty(disk.random_hex(), disk.now_us(), author())
    snapshot = store.manifests.write(empty).digest
    return dataclasses.replace(ordered[-1], number=0, snapshot=snapshot, wal={}, time=0)


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:10])) + (" and more" if len(numbers) > 10 else "")
    return f"move{'s' if len(numbers) > 1 else ''} {shown}"
