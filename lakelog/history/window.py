"""The window of history that gc keeps, and what it has condemned."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from lakelog import document
from lakelog.disk import File, Folder, NotIntact, disk
from lakelog.errors import GcRefused, UnknownRef
from lakelog.history.thinning import HOUR, KEEP_MOVES, window
from lakelog.refs import Move
from lakelog.store import Store


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
            f"{reference!r} names a state outside the kept history, which gc deletes: choose a tag,"
            f" or a state of the last {days} days or {KEEP_MOVES} moves (see `lakelog log`)"
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
    """Yield the moves of a branch whose states are kept now, or were at a time."""
    return window(store.settings, newest_first, now_us or _time_of_window(store))


def read_condemned(store: Store) -> dict[str, int]:
    """Return when each name was first found to be unneeded. Raises GcRefused."""
    try:
        return dict(document.decode(File(store.paths.condemned).read())["names"])
    except FileNotFoundError:
        return {}
    except NotIntact as error:
        raise GcRefused(
            f"{store.paths.condemned}: {error}: nothing was deleted; delete this file and run gc"
            " again"
        ) from None


def _time_of_window(store: Store) -> int:
    """Now, or when gc last judged if that was later: its time is the file system's, and what it
    deleted is no damage to a host whose clock is behind."""
    try:
        judged_us = os.stat(store.paths.condemned).st_mtime_ns // 1000
    except OSError:
        judged_us = 0
    return max(disk.now_us(), judged_us)


def lake_time(store: Store) -> int:
    """Now, as the lake's own file system stamps it."""
    probe = Folder(store.paths.gc).write(b"")  # without a byte: the disk may be full
    try:
        return os.stat(probe).st_mtime_ns // 1000
    finally:
        File(probe).remove()
