"""What several tests use: watching files that look alike."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import zstandard

import lakelog
from lakelog.collect.watch import Watcher

BANNER = "INFO Starting worker"
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": zstandard.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
}


class Workers:
    """A hundred logs that begin alike, and how often each line was written to any of them."""

    def __init__(self, root: Path, lake: lakelog.Lake) -> None:
        self.root, self._lake, self.written = root, lake, Counter[str]()
        self._watcher = Watcher(lake, [str(root)])
        self._serial = 0
        root.mkdir()

    def write(self, name: str, *lines: str) -> None:
        """Append lines; without any, one that no other file has."""
        self._serial += 1
        for line in lines or (f"INFO did job {self._serial}",):
            self.written[line] += 1
            with open(self.root / name, "a") as file:
                file.write(f"{line}\n")

    def rename(self, old: str, new: str) -> None:
        """Give a file another name."""
        os.rename(self.root / old, self.root / new)

    def pack(self, name: str, ending: str) -> None:
        """Put a packed file in the place of a plain one, with its times, as packers do."""
        packed, status = PACKERS[ending]((self.root / name).read_bytes()), os.stat(self.root / name)
        (self.root / f".{name}").write_bytes(packed)
        unit = 10**9 if ending == "bz2" else 1  # bzip2 keeps whole seconds
        times = (status.st_atime_ns, status.st_mtime_ns // unit * unit)
        os.utime(self.root / f".{name}", ns=times)
        os.rename(self.root / f".{name}", self.root / f"{name}.{ending}")
        (self.root / name).unlink()

    def look(self, *, restarts: bool = False) -> None:
        """Take in what is new, and require every line as often as it was written."""
        if restarts:
            self.close()
            self._watcher = Watcher(self._lake, [str(self.root)])
        self._watcher.round(final=True)
        query = "SELECT message FROM events WHERE source IS DISTINCT FROM 'lakelog'"
        rows = self._lake.sql(query).fetchall()
        stored = Counter(text for (text,) in rows)
        lost, doubled = self.written - stored, stored - self.written
        assert not lost, f"lost {lost.total()}: {list(lost.items())[:5]}"
        assert not doubled, f"doubled {doubled.total()}: {list(doubled.items())[:5]}"

    def close(self) -> None:
        """Let go of the files."""
        self._watcher.close()


def play(workers: Workers, chance: random.Random, files: int, turns: int) -> None:
    """Let files stay equal for a while, grow, be renamed, begun anew and packed by chance."""
    plain, old = [f"w{n}.log" for n in range(files)], list[str]()
    for name in plain:
        workers.write(name, BANNER, *["INFO Ready"] * chance.randint(0, 2))
    for turn in range(turns):
        for name in chance.sample(plain, files * 2 // 5):
            kind = chance.choice(["grow", "same", "rotate", "rotate"])
            if kind == "rotate":
                workers.rename(name, f"{name}.{turn}")
                old.append(f"{name}.{turn}")
                workers.write(name, BANNER)
            else:
                workers.write(name, *["INFO Idle"] * (kind == "same"))
        for name in chance.sample(old, len(old) // 4):
            old.remove(name)
            workers.pack(name, chance.choice(list(PACKERS)))
        workers.look(restarts=chance.random() < 0.4)
