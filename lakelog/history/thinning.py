"""Thinning: which states and moves of a branch are kept (F10.1, F7.12), and packing of old moves.

States that a user made, or went back to, are kept for the days of history, others the more densely
the younger they are (`window`). Moves before the newest hundred are packed, whatever their age. A
packed move whose state is not kept is dropped if it was automatic and nothing else depends on it;
one that stays does not carry its state any more. Packed files are merged as they shrink, so there
are few of them however long a branch has lived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lakelog import document
from lakelog.disk import DOCUMENT_MAX, File, Folder
from lakelog.errors import DamagedRef
from lakelog.moves import AUTOMATIC_OPS
from lakelog.paths import FileNames
from lakelog.refs import Move
from lakelog.settings import Settings
from lakelog.store import Store
from lakelog.volume import MovePack

KEEP_MOVES = 100
"""This many newest moves of a branch are kept with their states, whatever their age."""
UNPACKED = KEEP_MOVES
"""This many of them have files of their own; older ones are packed once there are as many."""
PACKED_BYTES = 1 << 22
"""Bytes of moves in one packed file, but for a single longer move."""
EXPIRE = "expire"
"""The operation of a move that ends the kept history of its branch."""
_DROPPING = 2
"""The first format whose lakes may drop moves."""
MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000


def window(settings: Settings, newest_first: Iterable[Move], now_us: int) -> Iterator[Move]:
    """Yield the moves whose states are kept (F10.1), back to the last `expire`: the newest hundred,
    unless the branch was deleted since, or its retention ran before the days of history; within
    these days those of users, and the moves before these, which undo goes back to; and the others
    the more densely the younger they are.

    Of a minute, an hour or a day one stays: the newest compaction, whose state needs fewest files,
    or else the newest. A span ages as a whole and longer spans consist of shorter ones, so what is
    kept later was kept before.
    """
    limit = now_us - settings.history_days * DAY
    if settings.history_days:  # a day goes as a whole, else another state would stand for it
        limit -= limit % DAY
    required, spare = KEEP_MOVES, dict[tuple[int, int], Move]()
    follower, time = "", now_us
    for age, move in enumerate(newest_first):
        time = min(time, move.time)  # no move is younger than those after it, whatever it says
        if move.op == "delete":
            required = 0
        recent = age < required
        # Retention removed events to free their space: in a branch that rarely moves the newest
        # hundred states before it would keep it for good.
        if move.op == "retention" and time < limit:
            required = 0
        if not recent and time < limit:
            break
        span = _span(settings, time, now_us)
        if recent or not span or {move.op, follower} - AUTOMATIC_OPS - {""}:
            yield move
        else:
            yield from _thin_span(spare, move, span, time)
        if move.op == EXPIRE:
            break
        follower = move.op
    yield from spare.values()


def _thin_span(
    spare: dict[tuple[int, int], Move], move: Move, span: int, time: int
) -> Iterator[Move]:
    """Set aside the newest move of each span, or its newest compaction; yield it when its span
    ends, going back in time."""
    bucket = span, time // span
    for ended in [key for key in spare if key != bucket]:
        yield spare.pop(ended)
    candidate = spare.get(bucket)
    if candidate is None or (move.op == "compact" != candidate.op):
        spare[bucket] = move


def _span(settings: Settings, time: int, now_us: int) -> int:
    """The length of the span of which one state is kept at this age; 0 where all are kept."""
    for span, age in ((DAY, 7 * DAY), (HOUR, DAY), (MINUTE, 0)):
        # By the end of the span, so that all moves of it become old together.
        ended = time // span * span + span
        if ended <= now_us - max(age, settings.history_dense_hours * HOUR):
            return span
    return 0


def pack(store: Store, branch: str, retained: set[int], tagged: set[str]) -> Iterator[int]:
    """Pack moves before the newest hundred, and in a lake of this format drop from packed files
    what is not `retained`; yield the numbers of the moves that were packed. Raises Damaged."""
    yield from _pack(store, branch, retained)
    # A version that knows only format 1 would take a dropped move for a lost one.
    if store.format >= _DROPPING:
        _thin(store, branch, retained, tagged)


def _pack(store: Store, branch: str, retained: set[int]) -> Iterator[int]:
    """Pack moves before the newest hundred into files of at most MOVES_MAX; yield their numbers."""
    paths = store.paths
    numbers = sorted(FileNames(Folder(paths.head_dir(branch)).names()).moves)
    # A run before this one may have died before it unlinked; and a process that slept through a
    # hundred moves links one that is packed already. The packed ones count.
    packs = store.refs.packs(branch)
    packed_up_to = max((high for _, high, _ in packs), default=0)
    old = numbers[:-UNPACKED]
    repeated, old = [n for n in old if n <= packed_up_to], [n for n in old if n > packed_up_to]
    for low, high, path in packs:
        if any(low <= n <= high for n in repeated):
            MovePack.read(path)  # raises if it is damaged, while the moves still have their files
    _unlink_moves(store, branch, repeated)
    yield from repeated
    # Fewer are packed as soon as the state of one is not kept: in its own file it would carry it
    # on.
    while len(old) >= UNPACKED or (store.format >= _DROPPING and not retained.issuperset(old)):
        moves = _read_fitting(store, branch, old)
        old = old[len(moves) :]
        low, high = min(moves), max(moves)
        if high - low + 1 != len(moves):
            missing = min(set(range(low, high)) - moves.keys())
            raise DamagedRef(paths.move(branch, missing), "the move is missing")
        path = paths.packed(branch, low, high)
        File(path).create(MovePack(branch, low, high).encode(moves))
        Folder(paths.head_dir(branch)).sync()
        MovePack.read(path)  # what was written is read back before the only other copy is removed
        _unlink_moves(store, branch, list(moves))
        yield from moves


def _read_fitting(store: Store, branch: str, numbers: list[int]) -> dict[int, bytes]:
    """Read the first of these moves, as many as one packed file takes."""
    moves, size = dict[int, bytes](), 0
    for number in numbers[: MovePack.MOVES_MAX]:
        data = File(store.paths.move(branch, number)).read(DOCUMENT_MAX)
        if moves and size + len(data) > PACKED_BYTES:
            break
        store.refs.decode(branch, number, data)
        moves[number], size = data, size + len(data)
    return moves


@dataclass(frozen=True)
class _Pack:
    """A packed file, and the moves that stay in it, each with whether it keeps its state."""

    first: int
    last: int
    path: str
    stays: dict[int, bool]
    bytes: int
    is_whole: bool


def _thin(store: Store, branch: str, retained: set[int], tagged: set[str]) -> None:
    """Rewrite packed files without what is not kept, merging neighbours that fit into one."""
    files = store.refs.packs(branch)
    if not files:
        return
    follower = store.refs.read(branch, max(high for _, high, _ in files) + 1)
    packs: list[_Pack] = []
    # From the newest on, as what stays depends on the move that follows.
    for low, high, path in reversed(files):
        pack, follower = _judge(store, branch, (low, high, path), follower, retained, tagged)
        packs.insert(0, pack)
    group: list[_Pack] = []
    for pack in packs:
        together = [*group, pack]
        fits = sum(len(p.stays) for p in together) <= MovePack.MOVES_MAX
        fits = fits and sum(p.bytes for p in together) <= PACKED_BYTES
        # Two files over the same numbers were left by a run that died: they become one.
        if group and not fits and pack.first > max(p.last for p in group):
            _rewrite(store, branch, group)
            together = [pack]
        group = together
    _rewrite(store, branch, group)


def _judge(
    store: Store,
    branch: str,
    file: tuple[int, int, str],
    follower: Move,
    retained: set[int],
    tagged: set[str],
) -> tuple[_Pack, Move]:
    """Decide which moves of a packed file stay, given the move after them; return its oldest move,
    too."""
    low, high, path = file
    moves = MovePack.read(path)
    stays: dict[int, bool] = {}
    size = 0
    for number, data in reversed(moves.items()):
        if number >= follower.number:  # in two files, as a run died
            continue
        move = store.refs.decode(branch, number, data)
        carries = number in retained or move.snapshot in tagged
        # What a user did stays, and the move before it. So does the last one with a watermark of a
        # writer, as repair asks all moves how far each was sealed, and the last move of the file,
        # as the next one names its digest.
        is_named = number == high or not {move.op, follower.op} <= AUTOMATIC_OPS
        if carries or is_named or not move.wal.keys() <= follower.wal.keys():
            stays[number] = carries
            size += len(data if carries else document.split(data)[0])
        follower = move
    is_whole = len(stays) == len(moves) and size == sum(map(len, moves.values()))
    return _Pack(low, high, path, stays, size, is_whole), follower


def _rewrite(store: Store, branch: str, group: list[_Pack]) -> None:
    """Replace consecutive packed files by one with the moves that stay."""
    if len(group) == 1 and group[0].is_whole:
        return
    low, high = min(p.first for p in group), max(p.last for p in group)
    all_moves: dict[int, bytes] = {}
    for pack in group:
        moves = MovePack.read(pack.path)
        for number in sorted(pack.stays):
            all_moves[number] = (
                moves[number] if pack.stays[number] else document.split(moves[number])[0]
            )
    data = MovePack(branch, low, high).encode(all_moves)
    MovePack(branch, low, high).decode(data)  # before it replaces anything
    path, directory = store.paths.packed(branch, low, high), store.paths.head_dir(branch)
    # A file of the same span is replaced in one step: both are right, the new one has less.
    File(path).replace(data)
    MovePack.read(path)
    for pack in group:
        if pack.path != path:
            File(pack.path).remove()
    Folder(directory).sync()


def _unlink_moves(store: Store, branch: str, numbers: list[int]) -> None:
    """Remove the files of packed moves, oldest first, so that the rest stays contiguous."""
    for number in numbers:
        File(store.paths.move(branch, number)).remove()
    if numbers:
        Folder(store.paths.head_dir(branch)).sync()
