"""A lease: one machine at a time does some upkeep of a shared lake, and any takes over (F22.9).

    gc/lease-<work>-<number>.json   a document {holder, ended}, replaced as long as the work lasts

Its age is by the clock of the bucket. Who slept through its end finds a higher number, here or as
a watermark of the branch, and gives up.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from lakelog import document
from lakelog.disk import NotIntact, disk
from lakelog.errors import StaleFiles, Unreachable
from lakelog.refs import Move
from lakelog.remotes import remote as remotes
from lakelog.remotes.remote_volume import RemoteVolume
from lakelog.remotes.shared.bucket import Bucket

SECONDS = 600.0
"""After so long without a sign of life another machine takes over."""
_NAME = re.compile(r"lease-([a-z]+)-(\d{12})\.json")


@dataclass
class Lease:
    """The right to do some work, which a number stands for."""

    remote: Bucket
    work: str
    number: int
    holder: str = field(default_factory=disk.random_hex)
    _renewed_at: tuple[float, float] = field(default_factory=remotes.clocks)
    _asked_again_at: float = 0.0

    @property
    def key(self) -> str:
        """The key of its file."""
        return f"gc/lease-{self.work}-{self.number:012d}.json"

    @property
    def mark(self) -> dict[str, int]:
        """The watermark by which a move under it keeps away moves under earlier ones."""
        return {document.digest(self.work.encode())[:32]: self.number}

    def encode(self, *, ended: bool) -> bytes:
        """Return the bytes of its file."""
        return document.encode({"holder": self.holder, "ended": ended})

    def require(self, move: Move) -> None:
        """Keep it for longer, if no later one was used before the next move. Raises StaleFiles."""
        if any(move.wal.get(name, 0) > number for name, number in self.mark.items()):
            raise StaleFiles(f"{self.remote.url}: another machine has taken over: try again")
        if self._age > SECONDS / 4:
            self._renew()

    def is_kept(self) -> bool:
        """Keep it for longer; whether no other machine has it for certain. Makes a request only
        where a quarter of its time is over, and soon none again where the bucket is away."""
        if self._age > SECONDS / 4 and time.monotonic() >= self._asked_again_at:
            try:
                if _newest(RemoteVolume(self.remote), self.work) != self.number:
                    return False
                self._renew()
            except Unreachable:
                self._asked_again_at = time.monotonic() + SECONDS / 20
        # Another one takes over at its end, and what this one does may last as long as the rest.
        return self._age < SECONDS * 3 / 4

    @property
    def _age(self) -> float:
        return remotes.seconds_since(self._renewed_at)

    def _renew(self) -> None:
        clocks = remotes.clocks()
        self._replace(ended=False)
        self._renewed_at = clocks

    def end(self) -> None:
        """Let another machine have the next one at once."""
        self._replace(ended=True)

    def _replace(self, *, ended: bool) -> None:
        data = self.encode(ended=ended)
        remotes.retrying(lambda: self.remote.replace(self.key, data))


@contextlib.contextmanager
def hold(remote: Bucket, work: str, holder: str = "") -> Iterator[Lease | None]:
    """Hold the lease of some work; None if another machine has it. One that had the same `holder`
    is over: it is of a process of ours that died. Raises Unreachable."""
    volume = RemoteVolume(remote)
    number = _newest(volume, work)
    lease = Lease(remote, work, number, holder or disk.random_hex())
    if number and not _is_over(volume, lease):
        yield None
        return
    previous_key, lease.number = lease.key, number + 1
    if not remotes.put_new(remote, lease.key, lease.encode(ended=False)):
        yield None
        return
    volume.remove(previous_key)
    try:
        yield lease
    finally:
        lease.end()


def is_held(remote: Bucket, work: str) -> bool:
    """Whether a machine has the lease of some work. Raises Unreachable."""
    volume = RemoteVolume(remote)
    number = _newest(volume, work)
    return number > 0 and not _is_over(volume, Lease(remote, work, number))


def _newest(volume: RemoteVolume, work: str) -> int:
    """The number of the newest lease, 0 for none."""
    matches = [match for name in volume.names("gc") if (match := _NAME.fullmatch(name))]
    return max((int(match[2]) for match in matches if match[1] == work), default=0)


def _is_over(volume: RemoteVolume, lease: Lease) -> bool:
    """Whether a lease that another machine holds has ended, or was not renewed for long."""
    remote = lease.remote
    try:
        body = document.decode(volume.read(lease.key))
        if body.get("ended") or body.get("holder") == lease.holder:
            return True
    except (FileNotFoundError, NotIntact):
        pass  # it was just taken over, or says nothing: then its age decides
    stamp = remotes.retrying(lambda: remote.stamp(lease.key))
    return stamp is not None and remotes.retrying(remote.now) - stamp > SECONDS
