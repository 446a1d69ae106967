"""What all clients of servers share: losing a connection, and waiting before the next attempt."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator

from lakelog.errors import LakelogError, Unreachable

_SHORTEST, _LONGEST = 0.05, 2.0


class ConnectionLost(LakelogError):
    """Raised when the connection to a server broke or could not be made: try again."""


def pause(attempt: int) -> float:
    """Return the seconds to wait after the nth attempt in a row that failed, from 1 on.

    They double from 0.05 to 2, each shortened by chance to half of it at most, so that clients that
    lost one server do not come back at once.
    """
    return min(_LONGEST, _SHORTEST * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1)


@contextlib.contextmanager
def cut_off(seconds: float, sock_of: Callable[[], socket.socket | None]) -> Iterator[None]:
    """Cut a connection after so many seconds: a server that gives a byte now and then would else
    not end, as a time-out is of each step. Raises TimeoutError if it did."""
    finished, late = threading.Event(), threading.Event()

    def watch() -> None:
        if finished.wait(seconds):
            return
        late.set()
        if (sock := sock_of()) is not None:
            with contextlib.suppress(OSError):
                # Both directions: a thread that waits in a read gets its end.
                sock.shutdown(socket.SHUT_RDWR)

    watcher = threading.Thread(target=watch, name="lakelog-cut-off", daemon=True)
    watcher.start()
    try:
        yield
    # Whatever the cut connection raised: late, it was the time that ended it.
    except Exception:
        if late.is_set():
            raise TimeoutError("timed out") from None
        raise
    finally:
        finished.set()
        watcher.join()


class Attempts:
    """The attempts in a row to do something that a lost connection cuts off."""

    def __init__(self, limit: int, say: Callable[[str], None]) -> None:
        """`limit` is how many may be made again; `say` is called with each problem."""
        self.limit, self._say = limit, say
        self.count = self._commits = 0

    def fail(self, commits: int) -> None:
        """Count a failure after so many commits of the whole job."""
        # Whoever gets on has not failed so many times in a row.
        self.count = 1 if commits > self._commits else self.count + 1
        self._commits = commits

    def wait(self, problem: str, stop: threading.Event) -> None:
        """Wait before the next attempt. Raises Unreachable after the last one, or if told to
        stop."""
        if self.count > self.limit or stop.is_set():
            raise Unreachable(f"{problem} (tried {self.count} times)") from None
        self._say(f"{problem}; trying again")
        time.sleep(pause(self.count))
