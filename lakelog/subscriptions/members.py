"""Which partitions of a subscription a process handles, among all that subscribe to it here.

    cache/subscriptions/<branch>/<digest of the name>/<id>.lock    locked while the member lives
    cache/subscriptions/<branch>/<digest of the name>/<id>.json    what it holds, and a count that
                                                                   it raises

The kernel drops the lock of a process that is killed, so its partitions are taken over at once. One
that is stopped keeps its lock; it is passed over once its count has not changed for the lease, by
the clock of whoever looks, so that clocks are never compared. All of this only saves work: whether
a commit holds is decided by the positions in the state (commit.py).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass

import orjson

from lakelog import document
from lakelog.disk import File, Folder, LockFile, OpenFile, disk
from lakelog.store import Store
from lakelog.subscriptions.position import PARTITIONS

LEASE = 10.0
"""Seconds for which a member that shows no sign of life keeps its partitions."""
# Several signs in a lease: one that is late does not count as death.
_BEATS, _LOOKS = 4, 5
"""Signs of life in one lease, and looks for those of others."""


@dataclass
class _Peer:
    """Another member as it was seen last: its count, when that changed, and what it holds."""

    beat: int = -1
    seen_at: float = 0.0
    holds: frozenset[int] = frozenset()


class Membership:
    """This process among the members of one subscription. Close it when done."""

    def __init__(self, store: Store, branch: str, name: str, lease: float) -> None:
        """Join; the lock is held until `close` or the end of the process."""
        # The branch's name as the file system has it.
        branch_name = os.path.basename(store.paths.head_dir(branch))
        # That of the subscription may be longer than those of files, or not that of a branch.
        digest = document.digest(name.encode())
        self._directory = f"{store.paths.cache}/subscriptions/{branch_name}/{digest}"
        # Ids begin with the time, so that a member that joins does not move those that are there.
        self._id = f"{disk.now_us():016x}-{disk.random_hex(4)}"
        self._lease = lease
        self._seen, self._peers = dict[str, _Peer](), dict[str, _Peer]()
        self.holds: frozenset[int] = frozenset()
        self._beat, self._mutex, self._stop = 0, threading.Lock(), threading.Event()
        Folder(self._directory).make_all()
        self._write()
        # Locked before it has its name: else another member could take it for one that died.
        temporary = Folder(self._directory).temporary_path()
        self._fd = File(temporary).open_new()
        OpenFile(self._fd).lock(wait=True)
        File(temporary).rename(f"{self._directory}/{self._id}.lock")
        # Of its own thread: a handler may take longer than a lease.
        self._thread = threading.Thread(target=self._beat_on, name="lakelog-lease", daemon=True)
        self._thread.start()

    @property
    def look_every(self) -> float:
        """Seconds after which to look who else lives."""
        return self._lease / _LOOKS

    def wanted(self) -> frozenset[int]:
        """The partitions that this member shall handle: its share of all, among those that live."""
        self._look()
        # In the order of joining, since ids begin with the time.
        members = sorted([self._id, *self._peers])
        place = members.index(self._id)
        # Every n-th partition: shares differ by one at most.
        return frozenset(range(place, PARTITIONS, len(members)))

    def free(self, partitions: frozenset[int]) -> frozenset[int]:
        """Those of some partitions that no other living member holds."""
        return partitions.difference(*(peer.holds for peer in self._peers.values()))

    def hold(self, partitions: frozenset[int]) -> None:
        """Say which partitions this member handles from now on."""
        if partitions != self.holds:
            self.holds = partitions
            self._write()

    def close(self) -> None:
        """Leave: others take over at once."""
        self._stop.set()
        # Before its files go: a sign of life would create one again.
        self._thread.join()
        for ending in ("json", "lock"):
            with contextlib.suppress(OSError):
                File(f"{self._directory}/{self._id}.{ending}").remove()
        os.close(self._fd)

    def _beat_on(self) -> None:
        while not self._stop.wait(self._lease / _BEATS):
            # A full disk must not end the member: others merely take over its partitions.
            with contextlib.suppress(OSError):
                # Alone, a process writes nothing.
                if self._has_company():
                    self._write()

    def _has_company(self) -> bool:
        """Whether somebody may look for signs of life; whoever joins waits for a whole lease."""
        own = f"{self._id}.lock"
        return any(e.endswith(".lock") and e != own for e in Folder(self._directory).names())

    def _write(self) -> None:
        with self._mutex:
            self._beat += 1
            content = orjson.dumps({"beat": self._beat, "holds": sorted(self.holds)})
            # Not synced: after a power cut no member is alive.
            File(f"{self._directory}/{self._id}.json").replace(content, sync=False)

    def _look(self) -> None:
        """See who else lives."""
        clock, peers = time.monotonic(), dict[str, _Peer]()
        for entry in Folder(self._directory).names():
            member, ending = os.path.splitext(entry)
            # Other files are those of members, which are found by their lock.
            if ending != ".lock" or member == self._id:
                continue
            if LockFile(f"{self._directory}/{entry}").is_held():
                # One that is seen for the first time counts as alive for a lease.
                peers[member] = self._read(member, self._seen.get(member, _Peer()), clock)
            else:
                self._bury(member)
        # Silent ones stay among those seen: their count has to change before they are back.
        self._seen = peers
        self._peers = {m: p for m, p in peers.items() if clock - p.seen_at <= self._lease}

    def _read(self, member: str, before: _Peer, clock: float) -> _Peer:
        try:
            content = orjson.loads(File(f"{self._directory}/{member}.json").read())
            beat, holds = int(content["beat"]), frozenset(map(int, content["holds"]))
        # Half written or gone: what was known of it holds.
        except (OSError, ValueError, KeyError, TypeError):
            beat, holds = before.beat, before.holds
        is_new = before.beat < 0 or beat != before.beat
        return _Peer(beat, clock if is_new else before.seen_at, holds)

    def _bury(self, member: str) -> None:
        """Remove the files of a member that died."""
        for ending in ("json", "lock"):
            with contextlib.suppress(OSError):
                File(f"{self._directory}/{member}.{ending}").remove()
