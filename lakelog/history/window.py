"""The window of history that gc keeps, what it has let go, and what it has condemned."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator

from lakelog import document
from lakelog.disk import File, Folder, NotIntact, disk
from lakelog.errors import GcRefused, UnknownRef
from lakelog.history import thinning
from lakelog.history.thinning import HOUR, KEEP_MOVES, window
from lakelog.refs import Move
from lakelog.store import Store

LetGo = dict[str, list[list[int]]]
"""Of each branch from which to which moves, newest first, the states are not kept any more."""


def require_kept(store: Store, digest: str, reference: str) -> None:
    """Refuse a state that gc deleted or may delete any moment. Raises UnknownRef.

    One that was condemned lately is accepted: the caller makes its move long before the grace is
    over, and gc reads the refs again before it deletes.
    """
    half = store.settings.gc_grace_hours * HOUR // 2
    since = read_condemned(store).get(f"manifests/{store.manifests.stored_as(digest)}")
    is_gone = not store.manifests.is_there(digest)
    late = since is not None and lake_time(store) - since > half
    # What the window keeps and is gone nevertheless is damage, which the caller reports as such.
    if (is_gone or late) and not _is_in_window(store, digest):
        days = store.settings.history_days
        raise UnknownRef(
            f"{reference!r} names a state outside the kept history, which gc or `lakelog expire`"
            f" gave up: choose a tag, or a state since the last `expire` of the last {days} days"
            f" or {KEEP_MOVES} moves (see `lakelog log`)"
        )


def _is_in_window(store: Store, digest: str) -> bool:
    """Whether a tag or a move within the window names a state, so that it has to be there."""
    if any(tag.snapshot == digest for tag in store.refs.tags()):
        return True
    branches = store.refs.all_branches()
    windows = (kept_moves(store, store.refs.newest_first(name)) for name in branches)
    return any(move.snapshot == digest for moves in windows for move in moves)


def kept_moves(
    store: Store, newest_first: Iterable[Move], now_us: int | None = None
) -> Iterator[Move]:
    """Yield the moves of a branch whose states are kept now, or were at a time. What gc let go is
    not kept again, neither by longer settings nor by a clock that went back."""
    runs: LetGo = {}
    with contextlib.suppress(NotIntact):  # `verify` reports it
        runs = _let_go(store)
    return _without(runs, window(store.settings, newest_first, now_us or disk.now_us()))


def _without(runs: LetGo, moves: Iterable[Move]) -> Iterator[Move]:
    for move in moves:
        if not any(low <= move.number <= high for low, high in runs.get(move.branch, ())):
            yield move


def pack(store: Store, now_us: int) -> Iterator[int]:
    """Note durably which moves lose their states at a time, then pack those of each branch; yield
    the numbers of packed moves. Raises Damaged, GcRefused, OSError."""
    try:
        before = _let_go(store)
    except NotIntact as error:
        raise GcRefused(_refusal(store.paths.let_go, error)) from None
    branches = store.refs.all_branches()
    judged = {branch: _judged(store, branch, now_us, before) for branch in branches}
    runs: LetGo = {}
    for branch, (numbers, retained) in judged.items():
        for stays, neighbours in itertools.groupby(numbers, retained.__contains__):
            if not stays:
                run = list(neighbours)
                runs.setdefault(branch, []).append([run[-1], run[0]])
    if runs != before:
        File(store.paths.let_go).replace(document.encode({"moves": runs}))
    tagged = {tag.snapshot for tag in store.refs.tags()}
    for branch, (_, retained) in judged.items():
        yield from thinning.pack(store, branch, retained, tagged)


def _judged(store: Store, branch: str, now_us: int, before: LetGo) -> tuple[list[int], set[int]]:
    """The numbers of the moves of a branch, newest first, and of those that are kept; `before` are
    those that were let go."""
    newest_first, numbers = store.refs.newest_first(branch), list[int]()

    # One after the other: thousands carry the texts of their states.
    def listed() -> Iterator[Move]:
        for move in newest_first:
            numbers.append(move.number)
            yield move

    in_window = window(store.settings, listed(), now_us)
    retained = {move.number for move in _without(before, in_window)}
    numbers += (move.number for move in newest_first)
    return numbers, retained


def read_condemned(store: Store) -> dict[str, int]:
    """Return when each name was first found to be unneeded. Raises GcRefused."""
    try:
        return dict(document.decode(File(store.paths.condemned).read())["names"])
    except FileNotFoundError:
        return {}
    except NotIntact as error:
        raise GcRefused(_refusal(store.paths.condemned, error)) from None


def _refusal(path: str, error: NotIntact) -> str:
    return f"{path}: {error}: nothing was deleted; delete this file and run gc again"


def _let_go(store: Store) -> LetGo:
    """What `pack` noted last. Raises NotIntact."""
    try:
        runs: LetGo = document.decode(File(store.paths.let_go).read())["moves"]
        return runs
    except FileNotFoundError:
        return {}


def lake_time(store: Store) -> int:
    """Now, as the lake's own file system stamps it."""
    probe = Folder(store.paths.gc).write(b"")  # without a byte: the disk may be full
    try:
        return os.stat(probe).st_mtime_ns // 1000
    finally:
        File(probe).remove()
