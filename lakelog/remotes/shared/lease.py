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
from lakelog.errors import StaleFiles
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
    _renewed_at: float = field(default_factory=time.monotonic)

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
        if time.monotonic() - self._renewed_at > SECONDS / 4:
            self._replace(ended=False)
            self._renewed_at = time.monotonic()

    def end(self) -> None:
        """Let another machine have the next one at once."""
        self._replace(ended=True)

    def _replace(self, *, ended: bool) -> None:
        data = self.encode(ended=ended)
        remotes.retrying(lambda: self.remote.replace(self.key, data))


@contextlib.contextmanager
def hold(remote: Bucket, work: str) -> Iterator[Lease | None]:
    """Hold the lease of some work; None if another machine has it. Raises Unreachable."""
    volume = RemoteVolume(remote)
    matches = [match for name in volume.names("gc") if (match := _NAME.fullmatch(name))]
    number = max((int(match[2]) for match in matches if match[1] == work), default=0)
    lease = Lease(remote, work, number)
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


def _is_over(volume: RemoteVolume, lease: Lease) -> bool:
    """Whether a lease that another machine holds has ended, or was not renewed for long."""
    remote = lease.remote
    try:
        if document.decode(volume.read(lease.key)).get("ended"):
            return True
    except (FileNotFoundError, NotIntact):
        pass  # it was just taken over, or says nothing: then its age decides
    stamp = remotes.retrying(lambda: remote.stamp(lease.key))
    return stamp is not None and remotes.retrying(remote.now) - stamp > SECONDS
