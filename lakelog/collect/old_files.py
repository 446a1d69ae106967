"""Files that were written too long ago to be followed."""

from __future__ import annotations

import time
from collections.abc import Callable, Container

from lakelog.files.cursors import CursorIndex
from lakelog.files.scan import Scan

Identity = tuple[int, int]


class OldFiles:
    """Leaves out files that were last written more than `seconds` ago, unless they are known: what
    was followed before may not be read to its end."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._mtimes: dict[Identity, int] = {}

    def leave_out(
        self, listing: Scan, known: Container[Identity], index: Callable[[], CursorIndex]
    ) -> None:
        """Take them out of a scan; their inodes stay in it."""
        if self._seconds is None:
            return
        oldest = int((time.time() - self._seconds) * 1e9)
        old = [f for f in listing.files.values() if f.mtime_ns < oldest]
        cursors: CursorIndex | None = None
        for file in old:
            if file.identity in known:
                continue
            # Cursors are looked up once for each file, as there may be thousands.
            if self._mtimes.get(file.identity) != file.mtime_ns:
                cursors = cursors or index()
                if cursors.of_inode(file.identity):
                    continue
                self._mtimes[file.identity] = file.mtime_ns
            del listing.files[file.path]
