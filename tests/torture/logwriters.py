"""Programs that write logs as real ones do: `python -m tests.torture.logwriters SPEC`.

SPEC is JSON: what `Spec` holds. Each line carries its serial number twice, so that a torn one is
known; when lines were handed to the file or the program behind it is appended to `progress`, as
records of (time, lines, banners). A writer ends on SIGTERM or once its seconds are over.
Only the standard library is imported: a writer must start fast.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import random
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

LOGS = 10**8
"""Serials of one log; the first of the nine digits says which log it is."""
BANNER = "INFO Starting worker"
RECORD = struct.Struct("<dqq")
_TICK = 0.02


@dataclass(frozen=True)
class Spec:
    """What to write: which lines, where, how fast and for how long."""

    kind: str
    path: str
    progress: str
    first: int = 0
    rate: int = 5000
    seconds: float = 6.0
    port: int = 0
    seed: int = 0

    @property
    def words(self) -> list[str]:
        """The command that runs this writer."""
        return [sys.executable, "-m", "tests.torture.logwriters", json.dumps(asdict(self))]


def token(serial: int) -> str:
    """The part of a line that no other line has, of a length that its serial decides."""
    return f"k{serial:09d}-{'x' * (serial * 7919 % 97)}-q{serial:09d}"


def line(form: str, serial: int) -> str:
    """One line in a form that a writer's lines have, without its newline."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    micros = int(now % 1 * 1e6)
    if form == "json":
        shape = f'{{"time":"{stamp}.{micros:06d}Z","level":"INFO","message":"%s"}}'
    elif form == "app":
        shape = f"{stamp.replace('T', ' ')},{micros // 1000:03d} INFO app: %s"
    elif form == "syslog":
        shape = f"{stamp}.{micros:06d}+00:00 localhost app: %s"
    elif form == "access":
        moment = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now))
        shape = f'127.0.0.1 - - [{moment}] "GET /%s HTTP/1.1" 204 0 "-" "-"'
    else:
        shape = "INFO did %s ok"
    return shape % token(serial)


class Clock:
    """Says which serials are due, and notes which were written."""

    def __init__(self, spec: Spec) -> None:
        self._spec, self.next = spec, spec.first
        self.banners, self._ended = 0, False
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Whoever opens its path later than this needs no word to open it again.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        # Last: that the file is there says that no signal of logrotate ends the writer.
        self._progress = os.open(spec.progress, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def due(self) -> Iterator[range]:
        """Yield the serials that are due, tick by tick, until the time is over."""
        spec, began = self._spec, time.time()
        while not self._ended and (spent := time.time() - began) < spec.seconds:
            until = spec.first + int(spent * spec.rate)
            if until > self.next:
                yield range(self.next, until)
                self.next = until
            time.sleep(_TICK)

    def note(self, end: int) -> None:
        """All lines before the serial `end` were written."""
        os.write(self._progress, RECORD.pack(time.time(), end % LOGS, self.banners))

    def _end(self, *_: object) -> None:
        self._ended = True


def _handler(spec: Spec) -> logging.Handler:
    if spec.kind == "watched":
        return logging.handlers.WatchedFileHandler(spec.path)
    if spec.kind == "sized":
        most = 120 * max(spec.rate, 10)  # about a second of lines
        return logging.handlers.RotatingFileHandler(spec.path, maxBytes=most, backupCount=200)
    if spec.kind == "timed":
        return logging.handlers.TimedRotatingFileHandler(spec.path, when="S", interval=2)
    return logging.FileHandler(spec.path)


def _log(spec: Spec, clock: Clock) -> None:
    """Write with a handler of Python's logging."""
    handler = _handler(spec)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s app: %(message)s"))
    logger = logging.getLogger("app")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    for serials in clock.due():
        for serial in serials:
            logger.info(token(serial))
        clock.note(serials.stop)
    handler.close()


class Blocks:
    """A log behind a buffer that is written when it is full, as by C's stdio: lines are cut where
    a block ends. SIGUSR1 flushes it to the old file and opens the path again."""

    def __init__(self, spec: Spec, clock: Clock) -> None:
        self._spec, self._clock, self._chance = spec, clock, random.Random(spec.seed)
        self._buffer, self._size, self._again = bytearray(), self._block(), False
        signal.signal(signal.SIGUSR1, self._reopen)
        self._open()

    def write(self, data: bytes) -> None:
        """Add lines; write what is whole blocks."""
        self._buffer += data
        while len(self._buffer) >= self._size:
            self._put(self._size)
            self._size = self._block()
        if self._again:
            self._again = False
            self.flush()
            os.close(self._fd)
            self._open()

    def flush(self) -> None:
        """Write what is left."""
        self._put(len(self._buffer))

    @property
    def waiting(self) -> int:
        """How many lines are not written to their end."""
        return self._buffer.count(b"\n")

    def _put(self, size: int) -> None:
        while size:
            done = os.write(self._fd, self._buffer[:size])
            del self._buffer[:done]
            size -= done

    def _block(self) -> int:
        return self._chance.choice([4096, 8192, 16384, 65536])

    def _reopen(self, *_: object) -> None:
        self._again = True

    def _open(self) -> None:
        self._fd = os.open(self._spec.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        if self._spec.kind == "textblocks":
            self._buffer += BANNER.encode() + b"\n"
            self._clock.banners += 1


def _blocks(spec: Spec, clock: Clock) -> None:
    """Write blocks of 4 to 64 KiB."""
    form = "json" if spec.kind == "blocks" else "text"
    blocks = Blocks(spec, clock)
    serial = spec.first
    for serials in clock.due():
        serial = serials.stop
        blocks.write("".join(line(form, n) + "\n" for n in serials).encode())
        clock.note(max(serial - blocks.waiting, spec.first))
    blocks.flush()
    clock.note(serial)


def _offset(spec: Spec, clock: Clock) -> None:
    """Write without O_APPEND, as `program > file` does: at an offset of one's own."""
    fd = os.open(spec.path, os.O_CREAT | os.O_WRONLY, 0o644)
    os.lseek(fd, 0, os.SEEK_END)
    for serials in clock.due():
        os.write(fd, "".join(line("text", n) + "\n" for n in serials).encode())
        clock.note(serials.stop)
    os.close(fd)


def _send(spec: Spec, clock: Clock) -> None:
    """Send lines to rsyslog by TCP, one message each."""
    with socket.create_connection(("127.0.0.1", spec.port), timeout=20) as connection:
        for serials in clock.due():
            connection.sendall(
                "".join(f"<14>{_stamp()} localhost app: {token(n)}\n" for n in serials).encode()
            )
            clock.note(serials.stop)


def _stamp() -> str:
    return time.strftime("%b %e %H:%M:%S")


def _request(spec: Spec, clock: Clock) -> None:
    """Ask nginx, many requests at once on one connection; each answer is waited for."""
    with socket.create_connection(("127.0.0.1", spec.port), timeout=20) as connection:
        answers = connection.makefile("rb")
        for serials in clock.due():
            for at in range(serials.start, serials.stop, 100):
                part = range(at, min(at + 100, serials.stop))
                connection.sendall(
                    "".join(f"GET /{token(n)} HTTP/1.1\r\nHost: l\r\n\r\n" for n in part).encode()
                )
                for _ in part:
                    _answer(answers)
            clock.note(serials.stop)


def _answer(answers: Any) -> None:
    head = answers.readline()
    if b" 204 " not in head:
        raise OSError(f"nginx answered {head!r}")
    while answers.readline() not in (b"\r\n", b""):
        pass


PROGRAMS: dict[str, Callable[[Spec, Clock], None]] = {
    "watched": _log,
    "plain": _log,
    "sized": _log,
    "timed": _log,
    "blocks": _blocks,
    "textblocks": _blocks,
    "offset": _offset,
    "rsyslog": _send,
    "nginx": _request,
    "bufnginx": _request,
}
FORMS = {
    "watched": "app",
    "plain": "app",
    "sized": "app",
    "timed": "app",
    "blocks": "json",
    "textblocks": "text",
    "offset": "text",
    "rsyslog": "syslog",
    "nginx": "access",
    "bufnginx": "access",
}


def main() -> None:
    """Write what the first argument says."""
    spec = Spec(**json.loads(sys.argv[1]))
    clock = Clock(spec)
    clock.note(spec.first)
    PROGRAMS[spec.kind](spec, clock)


if __name__ == "__main__":
    main()
