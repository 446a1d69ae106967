"""What several tests use: watching."""

from __future__ import annotations

import gzip
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import zstandard

import lakelog
from lakelog.collect.watch import Watcher


class Place:
    """A directory of log files, and every line that was ever written to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.written: list[str] = []
        root.mkdir()

    def write(self, name: str, count: int = 3, mode: str = "ab", end: str = "\n") -> None:
        """Write lines that are like no others; the last one ends with `end`."""
        with open(self.root / name, mode) as file:
            for n in range(count):
                self.written.append(f"e{len(self.written)}")
                file.write(b'{"type":"T","subject":"%s"}' % self.written[-1].encode())
                file.write(b"\n" if n < count - 1 else end.encode())

    def end(self, name: str, data: bytes) -> None:
        """End a line."""
        with open(self.root / name, "ab") as file:
            file.write(data)

    def banner(self, name: str, mode: str = "ab") -> None:
        """Write a long beginning that many files share."""
        with open(self.root / name, mode) as file:
            file.write(b'{"type":"BANNER","data":"%s"}\n' % (b"x" * 5000))

    def move(self, old: str, new: str) -> None:
        """Rename a file."""
        os.rename(self.root / old, self.root / new)

    def pack(self, name: str, how: str = "gz") -> None:
        """Put a packed file in the place of a plain one, as logrotate does."""
        path = self.root / name
        data = path.read_bytes()
        packed = gzip.compress(data) if how == "gz" else zstandard.compress(data)
        hidden = self.root / f".{name}"
        hidden.write_bytes(packed)
        os.rename(hidden, self.root / f"{name}.{how}")
        path.unlink()

    def copy_truncate(self, name: str, copy: str) -> None:
        """Copy a file and cut the original to nothing."""
        shutil.copy(self.root / name, self.root / copy)
        os.truncate(self.root / name, 0)

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self.root / name).unlink()

    def point(self, name: str, target: str) -> None:
        """Let a link name another file, in one step."""
        made = self.root / ".link"
        made.symlink_to(target)
        os.rename(made, self.root / name)


Step = Callable[[Place], None]
SCENARIOS: dict[str, list[Step]] = {
    "growth": [lambda p: p.write("a.log")] * 6,
    "rename": [
        lambda p: p.write("a.log"),
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log", "a.log.1"),
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log.1", "a.log.2"),
        lambda p: p.move("a.log", "a.log.1"),
        lambda p: p.write("a.log"),
    ],
    "written after rename": [
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log", "a.log.1"),
        lambda p: p.write("a.log.1"),
        lambda p: p.write("a.log"),
        lambda p: p.write("a.log.1"),
    ],
    "copytruncate": [
        lambda p: p.write("a.log", 5),
        lambda p: p.copy_truncate("a.log", "a.log.1"),
        lambda p: p.write("a.log", 2),
        lambda p: p.write("a.log", 9),
        lambda p: p.copy_truncate("a.log", "a.log.2"),
        lambda p: p.write("a.log", 30),
    ],
    "gzip after rename": [
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log", "a.log.1"),
        lambda p: p.write("a.log"),
        lambda p: p.pack("a.log.1"),
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log.1.gz", "a.log.2.gz"),
        lambda p: p.write("a.log"),
    ],
    "zstd after rename": [
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log", "a.log.1"),
        lambda p: p.pack("a.log.1", "zst"),
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log", "a.log.1"),
        lambda p: p.pack("a.log.1", "zst"),
    ],
    "truncate and rewrite": [
        lambda p: p.write("a.log"),
        lambda p: p.write("a.log"),
        lambda p: p.copy_truncate("a.log", "k"),
        lambda p: p.write("a.log", 8),
        lambda p: p.copy_truncate("a.log", "l"),
        lambda p: p.write("a.log", 1),
    ],
    "moved away and written anew": [
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log", "old"),
        lambda p: p.write("a.log", mode="wb"),
        lambda p: p.write("b.log"),
        lambda p: p.move("b.log", "a.log.1"),
        lambda p: p.write("a.log"),
    ],
    "equal headers": [
        lambda p: p.banner("a.log"),
        lambda p: p.write("a.log"),
        lambda p: p.banner("b.log"),
        lambda p: p.write("b.log"),
        lambda p: p.move("a.log", "a.log.1"),
        lambda p: p.banner("a.log"),
        lambda p: p.write("a.log"),
        lambda p: p.write("b.log"),
    ],
    "empty files": [
        lambda p: (p.root / "a.log").touch(),
        lambda p: (p.root / "b.log").touch(),
        lambda p: p.write("b.log"),
        lambda p: p.write("a.log"),
        lambda p: p.move("a.log", "c.log"),
        lambda p: (p.root / "a.log").touch(),
    ],
    "partial last line": [
        lambda p: p.write("a.log", 2, end=""),
        lambda p: p.end("a.log", b"\n"),
        lambda p: p.write("a.log", 1, end=""),
        lambda p: p.end("a.log", b"\r\n"),
        lambda p: p.write("a.log", 2),
        lambda p: p.move("a.log", "a.log.1"),
    ],
    "symlink switch": [
        lambda p: p.write("x1"),
        lambda p: p.point("current", "x1"),
        lambda p: p.write("x1"),
        lambda p: p.write("x2"),
        lambda p: p.point("current", "x2"),
        lambda p: p.write("x2"),
        lambda p: p.remove("current"),
    ],
    "growing past its fingerprint": [lambda p: p.write("a.log", 40)] * 6,
    "inode reuse": [
        lambda p: p.write("a.log"),
        lambda p: p.pack("a.log"),
        lambda p: p.write("b.log"),
        lambda p: p.pack("b.log"),
        lambda p: p.write("a.log"),
        lambda p: p.write("a.log"),
    ],
    "directories": [
        lambda p: (p.root / "d").mkdir(),
        lambda p: p.write("d/a.log"),
        lambda p: p.write("d/a.log"),
        lambda p: p.move("d", "e"),
        lambda p: p.write("e/a.log"),
        lambda p: (p.root / "d").mkdir(),
        lambda p: p.write("d/a.log"),
    ],
}
PLAYS = [
    (name, way, at)
    for name, steps in SCENARIOS.items()
    for way in ("restart", "down", "kill")
    for at in range(len(steps))
] + [(name, "alive", 0) for name in SCENARIOS]


def stored(lake: lakelog.Lake) -> Counter[str]:
    """How often each line is there."""
    query = "SELECT subject FROM events WHERE type = 'T'"
    return Counter(subject for (subject,) in lake.sql(query).fetchall())


def die_at(place: int) -> Callable[..., None]:
    """A publish that never comes back, the `place`-th time."""
    calls = [0]

    def tell(*_: object, **__: object) -> None:
        calls[0] += 1
        if calls[0] > place:
            raise KeyboardInterrupt

    return tell


class Watched(Watcher):
    """A watcher of one place that lets go of its files at the end."""

    def __init__(self, lake: lakelog.Lake, place: Place) -> None:
        super().__init__(lake, [str(place.root)])

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
