"""Identity keys of events that are acknowledged and in the WAL: whoever publishes rows with ids
leaves out those that the tail has, and looks again right before the link (F13.5)."""

from __future__ import annotations

from dataclasses import dataclass

from lakelog import frame_rows
from lakelog.database import Connect
from lakelog.errors import DamagedWal
from lakelog.identities import IdentityKeys
from lakelog.store import Store
from lakelog.wal import Frame, PendingFrames, Tail

_PARTS = 16
"""Keys that were read at so many looks are merged."""


@dataclass(frozen=True)
class _Part:
    """The sorted keys of some frames."""

    frames: frozenset[tuple[str, int]]
    keys: IdentityKeys


class TailKeys:
    """The keys of the events of one branch that are not sealed yet; each frame is read once."""

    def __init__(self) -> None:
        self._tail: Tail | None = None
        self._parts: list[_Part] = []

    def look(self, store: Store, branch: str, connect: Connect) -> list[IdentityKeys]:
        """Return the keys of now."""
        self._tail = self._tail or Tail(store.paths, store.refs, branch)
        frames = {
            (frame.writer, frame.sequence): frame
            for pending in _pending(self._tail, store, branch).values()
            for frame in pending
            if frame.flags & Frame.KEYED and not frame.flags & Frame.QUARANTINED
        }
        # Of a part that is sealed, if only partly, nothing counts: a rollback may have taken away
        # what was sealed, and then its ids are free again.
        current_parts = [
            keys_part for keys_part in self._parts if keys_part.frames <= frames.keys()
        ]
        if len(current_parts) >= _PARTS:
            whole = frozenset().union(*(keys_part.frames for keys_part in current_parts))
            keys = IdentityKeys.merged(keys_part.keys for keys_part in current_parts)
            current_parts = [_Part(whole, keys)]
        known_frames = frozenset().union(*(keys_part.frames for keys_part in current_parts))
        if fresh := [frame for place, frame in frames.items() if place not in known_frames]:
            keys = IdentityKeys.of(frame_rows.events(connect, fresh)["key"])
            current_parts.append(_Part(frozenset(frames.keys() - known_frames), keys))
        self._parts = current_parts
        return [keys_part.keys for keys_part in current_parts if len(keys_part.keys)]


def _pending(tail: Tail, store: Store, branch: str) -> dict[str, list[Frame]]:
    try:
        return tail.collect().frames
    except DamagedWal:  # what can be read of it counts; who seals it says what is wrong
        files = tail.scan()
        return PendingFrames.above(store.refs.head(branch), files).frames
