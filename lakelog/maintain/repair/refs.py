"""Making the moves of a branch and its newest state readable again."""

from __future__ import annotations

import dataclasses
import itertools

from lakelog import manifest
from lakelog.database import Connect
from lakelog.disk import File, Folder, disk
from lakelog.errors import DamagedRef
from lakelog.maintain.repair import orphans, recover
from lakelog.maintain.repair.outcome import RepairOutcome
from lakelog.maintain.repair.recover import Watermarks
from lakelog.manifest import Manifest
from lakelog.moves import Change, try_move
from lakelog.paths import FileName
from lakelog.refs import Head, Move, Ref, author
from lakelog.segments import Segment
from lakelog.store import Store
from lakelog.volume import MovePack

Moves = dict[int, tuple[Move, bytes]]
_REWINDS = ("rollback", "undo", "repair", "branch")
_NOT_REDONE = tuple("ingest dedupe retention quarantine view format rollback undo merge".split())
"""Moves whose work does not come back when WAL frames are sealed again."""


def mend_moves(
    store: Store, branch: str, outcome: RepairOutcome, *, was_there: bool = False
) -> None:
    """Put a move with op `lost` in the place of each that cannot be read (F14.5); in the place of
    the first, if no move is left of a branch that `was_there`."""
    good, bad, top = recover.moves(store, branch)
    was_there = was_there or bool(Folder(store.paths.wal_dir(branch)).names())
    if not top and (was_there or len(store.refs.all_branches()) == 1):
        top = 1  # it had at least its first
    torn, thinned = _packed(store, branch)
    missing = _missing(good, top, thinned)
    stateless = _stateless(store, branch, good)
    if not missing and not torn and not stateless:
        return
    # In ascending order: each stand-in names the digest of the move before, which may be one too.
    for number in missing:
        good[number] = _stand_in(store, branch, number, good, bad.get(number, b""))
    directory = store.paths.head_dir(branch)
    for path, span in torn.items():
        outcome.set_aside(store, path)
        moves = {n: good[n][1] for n in sorted(good) if n in span}
        File(path).create(MovePack(branch, span[0], span[-1]).encode(moves))
        if span in thinned:
            outcome.lost.append(
                f"branch {branch}: moves {span[0]} to {span[-1]} of its log that"
                " were kept and cannot be read"
            )
    for number in (*missing, *stateless):
        outcome.set_aside(store, store.paths.move(branch, number))
        if not any(number in span for span in torn.values()):
            File(store.paths.move(branch, number)).create(good[number][1])
    Folder(directory).sync()
    store.refs.forget()  # what was read before the repair may be wrong
    if missing:
        outcome.lost.append(f"branch {branch}: {_move_list(missing)} of its log")


def _packed(store: Store, branch: str) -> tuple[dict[str, range], list[range]]:
    """Return the spans of damaged packed files by path, and the spans of files from which moves
    may have been dropped: nobody can tell these from moves that are lost."""
    torn, thinned = dict[str, range](), list[range]()
    for low, high, path in store.refs.packs(branch):
        span = range(low, high + 1)
        try:
            MovePack.read(path)
        except DamagedRef:
            torn[path] = span
            # A name with a flipped bit may claim a span of billions.
            if len(span) <= MovePack.MOVES_MAX and not MovePack.is_thinned(File(path).read()):
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
    numbers = []
    for name in Folder(store.paths.head_dir(branch)).names():
        number = FileName(name).move
        path = f"{store.paths.head_dir(branch)}/{name}"
        if number in good and File(path).read() != good[number][1]:
            numbers.append(number)
    return numbers


def _stand_in(
    store: Store, branch: str, number: int, good: Moves, data: bytes
) -> tuple[Move, bytes]:
    """Make the move that stands for one that cannot be read."""
    previous, following = good.get(number - 1), good.get(number + 1)
    # Moves right before it may have been dropped: then an older one tells what it can, without a
    # digest for `prev`.
    if previous is None and (earlier := [n for n in good if n < number]):
        previous = good[max(earlier)][0], b""
    later = [n for n in good if n > number]
    # The state that its own bytes still name; else that before; else that after, as a lost first
    # move has none before; else an empty one.
    snapshot, carried = recover.find_state(store, data)
    snapshot = snapshot or (previous[0].snapshot if previous else "")
    if not snapshot and later:
        snapshot = good[min(later)][0].snapshot
    if not snapshot:
        empty = manifest.empty(disk.random_hex(), disk.now_us(), author())
        snapshot = store.manifests.write(empty).digest
    # Times ascend (F7.3), so there has to be one left for each number up to the next move.
    time = disk.now_us() if not later else good[min(later)][0].time - (min(later) - number)
    move = Move(
        number=number,
        branch=branch,
        prev=Ref.digest_of(previous[1]) if previous and previous[1] else "",
        commit=disk.random_hex(),
        time=previous[0].time + 1 if previous else time,
        author=author(),
        op="lost",
        message=following[0].prev if following else "",  # so that the chain stays provable
        snapshot=snapshot,
        generation=_generation(
            previous[0] if previous else None, following[0] if following else None, not later
        ),
        wal=_watermarks(store, branch, number, good),
        carried=carried,
    )
    return move, move.encode()


def _watermarks(store: Store, branch: str, number: int, good: Moves) -> Watermarks:
    """The watermarks of a lost move: those before it, and those of writers that had finished, which
    the next one omits. What the next state has of them tells."""
    marks = dict(good[max(earlier)][0].wal) if (earlier := [n for n in good if n < number]) else {}
    later = [n for n in good if n > number]
    if later:
        keys = recover.segments_of(store, [good[min(later)][0]])
        highest = recover.highest(move.wal for move, _ in good.values())
        for writer, mark in recover.marks_of(store, branch, keys).items():
            if mark > highest.get(writer, -1):
                marks[writer] = mark
    return marks


def _generation(previous: Move | None, following: Move | None, is_newest: bool) -> int:
    """The generation of a lost move, as far as its neighbours tell; of the newest one more, as it
    may have been a rewind."""
    minimum = previous.generation + is_newest if previous else 0
    return max(minimum, following.generation - (following.op in _REWINDS)) if following else minimum


def _move(store: Store, base: Head, state: Manifest, change: Change) -> None:
    # Not `publish`, which would load the state of the head: that is what does not open.
    head = try_move(store, base, state, change, disk.random_hex())
    if head is None:
        path = store.paths.head_dir(base.move.branch)
        raise DamagedRef(path, "the branch moved while it was repaired: repair it again")
    store.refs.note(head)


def restore_state(store: Store, branch: str, connect: Connect, outcome: RepairOutcome) -> bool:
    """If the head's move was lost or its state does not open, go to the newest kept state that
    opens, with the segments that were provably sealed since; return whether it did."""
    head = store.refs.head(branch)
    if head.move.op != "lost" and (
        recover.opens(store, head.move.snapshot) or _rebuild_page(store, head, outcome)
    ):
        return False
    # Three questions decide what comes back: which state is the newest that opens, how far each
    # writer was sealed when it was made, and which segments on disk follow on that.
    moves = [move for move, _ in recover.moves(store, branch)[0].values()]
    base = _newest_open(store, moves)
    state = store.manifests.of(base)
    segment_branches = recover.named_segments(store)
    sealed, elsewhere = _sealed_before(store, moves, base, segment_branches)
    is_doubtful = _is_doubtful(moves, base)
    batches, watermarks = orphans.adopt(store, connect, base, segment_branches, sealed, is_doubtful)
    entries = tuple(Segment(store.paths, key).describe() for b in batches for key in b.segments)
    runs = tuple(orphans.identity_runs(store, connect, batches))
    # Frames that are nowhere any more: without raised watermarks every reader would wait for them.
    lost_numbers, watermarks = _lost_commits(store, branch, moves, watermarks)
    number, events = head.move.number, sum(e.events for e in entries)
    origin = "its own state" if base.number == number else f"the state of move {base.number}"
    origin = origin if base.number else "an empty state"
    change = Change(
        "repair",
        f"past damaged move {number}, on {origin}",
        entries=(*entries, *orphans.host_records(store, state, batches)),
        ids_add=runs,
        rewind=True,  # what consumers have read after the state may be gone
        watermarks=watermarks,
    )
    _move(store, head, state, change)
    outcome.done.append(
        f"branch {branch}: moved past damaged move {number}, onto {origin};"
        f" {events} later events taken back from segments"
    )
    if not base.number:
        outcome.lost.append(f"branch {branch}: every state of it, and what none of its WALs sealed")
    outcome.lost.extend(_list_undone(store, branch, base.number))
    outcome.lost.extend([*lost_numbers, *elsewhere])
    return True


def _rebuild_page(store: Store, head: Head, outcome: RepairOutcome) -> bool:
    """Rebuild a page of the head's state from the states before it, if the totals prove it."""
    if not recover.is_intact(store, "manifests", head.move.snapshot):
        return False
    replayed = recover.replay(store, store.manifests.of(head.move))
    if replayed is None:
        return False
    base, entries = replayed
    changed = recover.changes(store, base, entries)
    _move(store, head, base, Change("repair", "a damaged page rebuilt", entries=changed))
    outcome.done.append(f"branch {head.move.branch}: a damaged page rebuilt, nothing lost")
    return True


def _is_doubtful(moves: list[Move], base: Move) -> bool:
    """Whether a lost move up to a state may have sealed rows that a later one up to it removed."""
    lost_numbers = [
        move.number for move in moves if move.op == "lost" and move.number <= base.number
    ]
    takes = (*_REWINDS, "retention", "dedupe", "lost")
    return any(
        m.op in takes and min(lost_numbers, default=m.number) < m.number <= base.number
        for m in moves
    )


def _sealed_before(
    store: Store, moves: list[Move], base: Move, segment_branches: dict[str, set[str]]
) -> tuple[Watermarks, list[str]]:
    """Return how far each writer was sealed when a state was made, for all writers there ever were,
    and describe what was sealed later and is not taken back.

    A writer that is missing in a move may be finished, and its watermark omitted: so the highest of
    all moves counts, and so do the segments that kept states name, whose frames were sealed. A
    rewind after the state removed some of what had been sealed before it: none of it comes back.
    """
    ordered = sorted(moves, key=lambda move: move.number)
    # A move that rewinds and the one before it are never dropped (F7.12), so both are here.
    generations = [0, *(move.generation for move in ordered)]
    rewinds = [
        m.number
        for m, generation in zip(ordered, generations, strict=False)
        if m.generation > generation and not (m.op == "lost" and m is ordered[-1])
    ]
    limit = max([base.number, *rewinds])
    watermarks = recover.highest(m.wal for m in moves if m.number <= limit)
    batches = [
        s
        for s in recover.sealed_batches(store, ())
        if s.branch == base.branch and not segment_branches.keys().isdisjoint(s.segments)
    ]
    span = f"moves {base.number + 1} to {limit}"
    rewound = [f"branch {base.branch}: what {span} sealed, as move {limit} took some of it off"]
    elsewhere = [
        f"branch {base.branch}: events of segment {key[:12]}, which branch {name} still has"
        for s in batches
        if recover.raise_watermarks(watermarks, [s]) != watermarks
        for key in s.segments
        if base.branch not in segment_branches.get(key, ())
        for name in sorted(segment_branches.get(key, ()))[:1]
    ]
    return recover.raise_watermarks(watermarks, batches), [
        *elsewhere,
        *(rewound if limit > base.number else ()),
    ]


def _lost_commits(
    store: Store, branch: str, moves: list[Move], watermarks: Watermarks
) -> tuple[list[str], Watermarks]:
    """List group commits that some move says were sealed, and that are in no state, segment or
    WAL any more; return them, and watermarks that pass over them."""
    in_wals = recover.wal_sequences(store, branch)
    marks, lost_numbers = dict(watermarks), []
    # As far as any move says, unless a WAL still has some of the frames: those will be sealed
    # again.
    for move in moves:
        for writer, mark in move.wal.items():
            low = marks.get(writer, -1)
            if mark > low and in_wals.get(writer, set()).isdisjoint(range(low + 1, mark + 1)):
                marks[writer] = mark
    for writer, mark in sorted(marks.items()):
        if mark > (low := watermarks.get(writer, -1)):
            lost_numbers.append(
                f"branch {branch}: group commits {low + 1} to {mark} of writer {writer[:12]},"
                " unless all of them were duplicates"
            )
    return lost_numbers, marks


def watermarks_of_all(store: Store, branch: str) -> Watermarks:
    """Return how far each writer that there ever was is sealed: a finished one has no watermark in
    the newest move."""
    return recover.highest(move.wal for move, _ in recover.moves(store, branch)[0].values())


def _list_undone(store: Store, branch: str, number: int) -> list[str]:
    """Describe the moves after a number whose work does not come back from WAL frames."""
    later = [m for n, (m, _) in sorted(recover.moves(store, branch)[0].items()) if n > number]
    return [
        f"branch {branch}: what move {m.number} did ({m.op} {m.message}".rstrip() + "): do it again"
        for m in later
        if m.op in _NOT_REDONE
    ]


def _newest_open(store: Store, moves: list[Move]) -> Move:
    """The newest move whose state opens; one of number 0 on an empty state if there is none."""
    ordered = sorted(moves, key=lambda move: -move.number)
    for move, previous in itertools.zip_longest(ordered, ordered[1:]):
        if recover.opens(store, move.snapshot):
            # A stand-in whose own state is not known names the state before it, or an empty one:
            # then the older move is the base, and what the lost one did is reported.
            guess = previous.snapshot if previous else ""
            is_empty = not previous and not store.manifests.of(move).parent
            if move.op != "lost" or not (move.snapshot == guess or is_empty):
                return move
    empty = manifest.empty(disk.random_hex(), disk.now_us(), author())
    snapshot = store.manifests.write(empty).digest
    return dataclasses.replace(ordered[-1], number=0, snapshot=snapshot, wal={}, time=0)


def _move_list(numbers: list[int]) -> str:
    listing = ", ".join(map(str, numbers[:10])) + (" and more" if len(numbers) > 10 else "")
    return f"move{'s' if len(numbers) > 1 else ''} {listing}"
