"""CPU and memory of the machine, sampled once a second by a thread off the hot path."""

from __future__ import annotations

import contextlib
import threading

import orjson

from lakelog.runtime import forks

_EVERY = 1.0


class Sampler:
    """The last sample, as JSON text that loggers put into their lines."""

    def __init__(self) -> None:
        self.text = orjson.Fragment(b'{"cpu_percent":null,"memory_percent":null}')
        self._busy = self._total = 0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Sample now, and from now on; nothing if it does."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self.sample()
                self._thread = threading.Thread(
                    target=self._run, name="lakelog-sampler", daemon=True
                )
                with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
                    self._thread.start()

    def sample(self) -> None:
        """Measure; the use of the processors is that since the last sample, first since boot."""
        sample = {"cpu_percent": self._cpu(), "memory_percent": _memory()}
        self.text = orjson.Fragment(orjson.dumps(sample))

    def after_fork(self) -> None:
        """In a child: the thread is the parent's."""
        self._thread, self._lock = None, threading.Lock()

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(_EVERY):
            self.sample()

    def _cpu(self) -> float | None:
        try:
            with open("/proc/stat", "rb") as file:
                times = [int(field) for field in file.readline().split()[1:9]]
        except (OSError, ValueError):
            return None
        total, busy = sum(times), sum(times) - times[3] - times[4]  # without idle and iowait
        share = (busy - self._busy) / max(total - self._total, 1)
        self._busy, self._total = busy, total
        return round(100 * min(max(share, 0.0), 1.0), 1)


def _memory() -> float | None:
    try:
        with open("/proc/meminfo", "rb") as file:
            sizes = dict(line.split()[:2] for line in file)
        return round(100 * (1 - int(sizes[b"MemAvailable:"]) / int(sizes[b"MemTotal:"])), 1)
    except (OSError, ValueError, KeyError):
        return None


SAMPLER = Sampler()
forks.after_in_child(SAMPLER.after_fork)
