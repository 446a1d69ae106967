"""Random lives of log files, and what a watcher must have stored of them at the end.

A directory of real files is written to and rotated in every way that is seen in the field, with
looks of a watcher, kills and absences in between. Beside the files a ledger is kept: which line
stands where in which inode. A line that stood whole in a file when the watcher looked, or stands
in one at the end, must be stored; no line may be stored more often than it was written. Lines that
nobody could see (written between a copy and the truncation) may be missing.
"""

from __future__ import annotations

import gzip
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zstandard

import lakelog
from lakelog.audit.audit import Audit, audit
from lakelog.collect.watch import Watcher
from lakelog.files import FileCursor
from lakelog.files.scan import FileScan, Selection

HOLES = 0.2
LONG = f" {'and so on ' * 200}."
"""What makes lines long: three are more than is remembered of a file's beginning and end."""
BANNER = "INFO Starting worker"
WAYS = (
    "create",
    "create late",
    "copytruncate",
    "copytruncate slowly",
    "copytruncate meanwhile",
    "copy",
    "dateext",
    "olddir",
    "delete",
    "truncate",
    "own",
)


@dataclass(eq=False)
class Line:
    """One line that was written, and whether a watcher could see it."""

    text: str
    seen: bool = False


@dataclass
class File:
    """What an inode holds: lines with the byte behind each, and bytes of a line begun."""

    lines: list[tuple[int, Line]] = field(default_factory=list)
    size: int = 0
    before: bytes = b""
    """What this inode held at the last look, if it was truncated since, or its number used again.
    Who sees the same bytes again, with or without more behind them, sees what an append leaves:
    nothing tells of the truncation, so those bytes are the lines that were there before."""
    hidden: int = 0
    """So many bytes, of this file or of what it is a copy of, are lines that nobody could see."""
    twin_of: int = 0
    """The inode that it is equal to, until a look has seen both side by side."""


@dataclass
class Log:
    """One log: its name, and the inode that its writer has open."""

    name: str
    fd: int
    way: str
    holes: bool
    pending: bytes = b""
    begun: Line | None = None


class History:
    """One life of a directory, decided by its dice, which also choose how each log is rotated if
    no `way` is given. `directory` must be empty."""

    def __init__(
        self, lake: lakelog.Lake, directory: Path, dice: random.Random, way: str = ""
    ) -> None:
        self.lake, self.root, self.dice = lake, directory, dice
        self.old = directory / "old"
        self.away = directory.parent / f"{directory.name}-away"
        for folder in (directory, self.old, self.away):
            folder.mkdir()
        self.files: dict[int, File] = {}
        self.written: list[Line] = []
        self.doubts: Counter[str] = Counter()
        self.steps: list[str] = []
        self.contents: dict[int, bytes] = {}
        self.earlier: dict[int, bytes] = {}
        self._looking = False
        self._serial, self._way = itertools.count(), way
        self._watcher: Watcher | None = None
        self._meanwhile: list[Callable[[], None]] = []
        self.logs = [self._new_log(n) for n in range(dice.randrange(1, 5))]

    def play(self, steps: int) -> None:
        """Live for so many steps, then let the watcher look until nothing is new."""
        kinds = ("write", "rotate", "look", "pack", "kill", "away", "twin", "arrive")
        for _ in range(steps):
            kind = self.dice.choices(kinds, (8, 4, 9, 2, 1, 1, 1, 1))[0]
            self.steps.append(kind)
            getattr(self, f"_{kind}")()
        self._look()
        self.close_writers()
        for _ in range(3):
            self._look()
        self._end_watcher()

    def interrupt(self, patch: pytest.MonkeyPatch) -> None:
        """Let rotators work while a watcher looks, too: right behind its scans."""
        for owner, name in ((Selection, "scan"), (FileScan, "look_again")):
            patch.setattr(owner, name, self._interrupted(getattr(owner, name)))

    def _interrupted(self, scan: Callable[..., Any]) -> Callable[..., Any]:
        def scanned(*args: Any) -> Any:
            result = scan(*args)
            if self._meanwhile and self._chance(0.6):
                self._meanwhile.pop(0)()
            return result

        return scanned

    def close_writers(self) -> None:
        """End every writer; what it began stays as it is."""
        for log in self.logs:
            self._finish_line(log)
            os.close(log.fd)

    # --- what has to be ---

    def faults(self) -> list[str]:
        """What is stored otherwise than written, in words."""
        stored = self._stored()
        bad = self.lake.sql("SELECT line, reason FROM quarantine").fetchall()
        most = Counter(line.text for line in self.written)
        least = Counter(line.text for line in self.written if line.seen)
        found = [f"quarantined: {line!r} ({reason})" for line, reason in bad]
        for text in sorted({*most, *stored}):
            if stored[text] < least[text]:
                found.append(f"lost: {text!r} {stored[text]} of {least[text]}")
            if stored[text] > most[text] + self.doubts[text]:
                found.append(f"doubled: {text!r} {stored[text]} of {most[text]}")
        return found

    def repeated(self) -> int:
        """How many lines are stored again, of those that may be since nothing tells files apart."""
        return (self._stored() - Counter(line.text for line in self.written)).total()

    def _stored(self) -> Counter[str]:
        query = "SELECT message, count(*) FROM events WHERE type <> 'lakelog.watch' GROUP BY 1"
        return Counter(dict(self.lake.sql(query).fetchall()))

    def audit(self) -> Audit:
        """What the audit of the directory says."""
        return audit(self.lake.store, self.lake.branch_name, self.lake.engine, [str(self.root)])

    # --- the watcher ---

    def _look(self) -> None:
        self._mark_seen()
        if self._watcher is None:
            self._watcher = Watcher(self.lake, [str(self.root)])
        self._looking = True
        self._watcher.round()
        self._watcher.round()
        self._looking = False

    def _kill(self) -> None:
        self._end_watcher()

    def _away(self) -> None:
        """The watcher is down while things happen."""
        self._end_watcher()
        for _ in range(self.dice.randrange(1, 5)):
            kind = self.dice.choice(("write", "write", "rotate", "pack", "twin"))
            self.steps.append(f"  {kind}")
            getattr(self, f"_{kind}")()

    def _end_watcher(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
        self._watcher = None

    def _mark_seen(self) -> None:
        """Note which lines stand whole in a file that the watcher can see."""
        there = {os.stat(path).st_ino: path for path in self._visible()}
        for inode, path in there.items():
            file = self.files[inode]
            if file.twin_of in there:
                file.twin_of = 0
            if file.twin_of:
                continue
            if file.before:
                now = _content(path)
                unseen = now.startswith(file.before) or file.before.startswith(now)
                file.hidden, file.before = len(file.before) if unseen else 0, b""
            for end, line in file.lines:
                line.seen |= file.hidden < end <= file.size
        self.earlier = self.contents
        self.contents = {
            inode: Path(path).read_bytes()
            for inode, path in there.items()
            if not path.endswith((".gz", ".zst"))
        }

    def _visible(self) -> list[str]:
        return [str(p) for f in (self.root, self.old) for p in sorted(f.iterdir()) if p.is_file()]

    # --- writers ---

    def _new_log(self, number: int) -> Log:
        name = f"worker-{number}.log" if self.dice.random() < 0.7 else f"app{number}.log"
        way = self._way or self.dice.choice(WAYS)
        return self._opened(Log(name, -1, way, way.startswith("copytr") and self._chance(HOLES)))

    def _opened(self, log: Log) -> Log:
        """Open, or open anew, and begin with a banner that all logs share."""
        flags = os.O_WRONLY | os.O_CREAT | (0 if log.holes else os.O_APPEND)
        log.fd = os.open(self.root / log.name, flags, 0o644)
        inode = os.fstat(log.fd).st_ino
        if inode not in self.files:
            self._keep(inode, File())
        if self._chance(0.8):
            self._write_lines(log, [BANNER])
        elif self._chance(0.3) and not log.holes:
            self._begin_line(log, BANNER)
        return log

    def _write(self) -> None:
        log = self.dice.choice(self.logs)
        self._finish_line(log)
        count, rest = self.dice.choice(((1, ""), (1, ""), (2, ""), (5, ""), (50, ""), (3, LONG)))
        lines = [f"INFO line {next(self._serial)} of {log.name}{rest}" for _ in range(count)]
        if self._chance(0.15):
            lines = ["INFO done"] * min(count, 3)
        self._write_lines(log, lines)
        if self._chance(0.2) and not log.holes:
            self._begin_line(log)

    def _write_lines(self, log: Log, texts: list[str]) -> None:
        file = self._file(log)
        at = os.lseek(log.fd, 0, os.SEEK_CUR) if log.holes else file.size
        data = b""
        for text in texts:
            data += text.encode() + b"\n"
            line = Line(text)
            self.written.append(line)
            file.lines.append((at + len(data), line))
        os.write(log.fd, data)
        file.size = max(file.size, at + len(data))

    def _begin_line(self, log: Log, text: str = "") -> None:
        """Write a part of a line, as a block-buffered writer does."""
        text = text or f"INFO buffered {next(self._serial)} of {log.name}"
        cut = self.dice.randrange(1, len(text))
        log.pending, log.begun = text[cut:].encode() + b"\n", Line(text)
        self.written.append(log.begun)
        os.write(log.fd, text[:cut].encode())
        self._file(log).size += cut

    def _keep(self, inode: int, file: File) -> None:
        """Enter a new file, whose inode may have the number of one that was removed."""
        file.before = file.before or self.contents.get(inode, b"")
        self.files[inode] = file

    def _finish_line(self, log: Log) -> None:
        """Write the rest, wherever the file went meanwhile."""
        if log.begun is None:
            return
        os.write(log.fd, log.pending)
        file = self._file(log)
        file.size += len(log.pending)
        file.lines.append((file.size, log.begun))
        log.pending, log.begun = b"", None

    def _file(self, log: Log) -> File:
        return self.files[os.fstat(log.fd).st_ino]

    # --- rotation ---

    def _rotate(self) -> None:
        log = self.dice.choice(self.logs)
        self.steps[-1] += f" {log.name} {log.way}"
        if log.way.startswith("copy") or log.way in ("truncate", "delete", "own"):
            self._finish_line(log)  # else its halves are torn by who rotates, not by who reads
        getattr(self, f"_{log.way.replace(' ', '_')}")(log)

    def _create(self, log: Log, *, late: bool = False, to: str = "") -> None:
        self._shift(log.name)
        self._rename(self.root / log.name, to or f"{log.name}.1")
        if late:
            self._maybe_look()
            self._finish_line(log)
            self._write_lines(log, [f"INFO late {next(self._serial)}"])
        self._finish_line(log)
        os.close(log.fd)
        self._opened(log)

    def _create_late(self, log: Log) -> None:
        self._create(log, late=True)

    def _dateext(self, log: Log) -> None:
        self._create(log, to=f"{log.name}-20260{next(self._serial) % 1000:03}11")

    def _olddir(self, log: Log) -> None:
        self._create(log, to=f"old/{log.name}.{next(self._serial) % 900 + 1}")

    def _own(self, log: Log) -> None:
        """As Python's handlers do: close, shift, open."""
        os.close(log.fd)
        self._shift(log.name)
        self._rename(self.root / log.name, f"{log.name}.1")
        self._maybe_look()
        self._opened(log)

    def _delete(self, log: Log) -> None:
        os.close(log.fd)
        with suppress(FileNotFoundError):
            self._unlink(self.root / log.name)
        self._maybe_look()
        self._opened(log)

    def _truncate(self, log: Log) -> None:
        self._doubt(log.fd)
        os.truncate(log.fd, 0)
        inode = os.fstat(log.fd).st_ino
        self._forget_twins(inode)
        old = self.files[inode]
        self.files[inode] = File(before=self.contents.get(inode, b"") or old.before)
        if self._chance(0.5):
            self._write_lines(log, [BANNER])

    def _copytruncate(self, log: Log) -> None:
        self._shift(log.name)
        self._copy_of(log, self.root / f"{log.name}.1")
        self._truncate(log)

    def _copytruncate_slowly(self, log: Log) -> None:
        """The watcher looks while the copy is made, and lines come in between."""
        self._shift(log.name)
        hidden = self._chance(0.3)
        place = self.away / "c" if hidden else self.root / f"{log.name}.1"
        self._copy_of(log, place, slowly=True)
        if self._chance(0.6):
            self._write_lines(log, [f"INFO between {next(self._serial)}"])
            self._maybe_look()
        if hidden:
            os.rename(place, self.root / f"{log.name}.1")
            self._maybe_look()
        self._truncate(log)

    def _copytruncate_meanwhile(self, log: Log) -> None:
        """While the watcher looks: between a scan and the reading, and between two scans."""
        self._shift(log.name)
        self._write_lines(log, [f"INFO before {next(self._serial)}"])
        self._meanwhile = [
            lambda: self._copy_of(log, self.root / f"{log.name}.1"),
            lambda: self._write_lines(log, [f"INFO between {next(self._serial)}"]),
            lambda: self._truncate(log),
        ]
        self._look()
        while self._meanwhile:
            self._meanwhile.pop(0)()

    def _copy(self, log: Log) -> None:
        self._shift(log.name)
        self._copy_of(log, self.root / f"{log.name}.1", slowly=self._chance(0.3))

    def _copy_of(self, log: Log, to: Path, *, slowly: bool = False) -> None:
        """Copy a log, with what its lines are; slowly also what is written to it meanwhile."""
        time.sleep(0.012)  # the times of files are no finer than that
        file, original = self._file(log), self.root / log.name
        data = original.read_bytes()
        half = self.dice.randrange(len(data) + 1) if slowly else len(data)
        with open(to, "wb", buffering=0) as target:
            inode = os.fstat(target.fileno()).st_ino
            target.write(data[:half])
            self._keep(inode, File(list(file.lines), half, file.before, file.hidden))
            if slowly:
                self._maybe_look()
                if self._chance(0.4):
                    self._write_lines(log, [f"INFO while {next(self._serial)}"])
                data = original.read_bytes()
                target.write(data[half:])
                copied = File(list(file.lines), len(data), file.before, file.hidden)
                self.files[inode] = copied
        shown = (data[:half], data)
        if any(part.endswith(b"\n") and not FileCursor.is_distinctive(part) for part in shown):
            # It cannot be told from a log that was begun anew with the same words, until it is
            # written on: such lines may be stored again.
            self.doubts.update(line.text for _, line in file.lines)

    def _shift(self, name: str) -> None:
        """app.log.1 becomes app.log.2; the fourth goes."""
        for number in (4, 3, 2, 1):
            for ending in ("", ".gz", ".zst"):
                path = self.root / f"{name}.{number}{ending}"
                if path.exists() and number == 4:
                    self._unlink(path)
                elif path.exists():
                    self._rename(path, f"{name}.{number + 1}{ending}")

    def _pack(self) -> None:
        """Pack a rotated file, in steps that a watcher may see."""
        names = [p for p in self._visible() if p[-1].isdigit() and not self._is_open(p)]
        if not names:
            return
        path = Path(self.dice.choice(names))
        ending = self.dice.choice((".gz", ".zst"))
        data = path.read_bytes()
        packed = gzip.compress(data) if ending == ".gz" else zstandard.compress(data)
        target = path.with_name(path.name + ending)
        with open(target, "wb", buffering=0) as file:
            inode = os.fstat(file.fileno()).st_ino
            self._keep(inode, File())
            half = len(packed) // 2
            file.write(packed[:half])
            if self._chance(0.3):
                self._maybe_look()
            file.write(packed[half:])
            old = self.files[os.stat(path).st_ino]
            self.files[inode] = File(list(old.lines), old.size, old.before, old.hidden)
        os.utime(target, ns=(os.stat(path).st_atime_ns, os.stat(path).st_mtime_ns))
        if self._content_seen(path) != data:
            self._doubt(path)
        if self._chance(0.3):
            self._maybe_look()
        self._unlink(path)

    def _twin(self) -> None:
        """A file equal to another one appears beside it, and is a file of its own."""
        log = self.dice.choice(self.logs)
        self._finish_line(log)
        file = self._file(log)
        if log.holes or file.size > 4000:
            return
        path = self.root / f"twin{next(self._serial)}.log"
        path.write_bytes((self.root / log.name).read_bytes())
        lines = [(end, Line(line.text)) for end, line in file.lines]
        self.written += [line for _, line in lines]
        inode = os.fstat(log.fd).st_ino
        self._keep(os.stat(path).st_ino, File(lines, file.size, twin_of=inode))

    def _arrive(self) -> None:
        """A finished file of another place is put here."""
        path = self.away / "new"
        lines, data = [], b""
        for text in (BANNER, *(f"INFO far {next(self._serial)}" for _ in range(3))):
            data += text.encode() + b"\n"
            lines.append((len(data), Line(text)))
        path.write_bytes(data)
        self.written += [line for _, line in lines]
        self._keep(os.stat(path).st_ino, File(lines, len(data)))
        os.rename(path, self.root / f"far{next(self._serial)}.log")

    # --- small things ---

    def _rename(self, path: Path, to: str) -> None:
        with suppress(FileNotFoundError):
            os.rename(path, self.root / to if "/" in to or path.parent == self.root else to)

    def _unlink(self, path: Path) -> None:
        """Remove a file; its inode's number may be used again."""
        inode, links = os.stat(path).st_ino, self._is_open(str(path))
        self._forget_twins(inode)
        os.unlink(path)
        if not links:
            self.files.pop(inode, None)

    def _content_seen(self, path: Path | int) -> bytes:
        """What a file held at the last look."""
        return self.contents.get(os.stat(path).st_ino, b"")

    def _doubt(self, path: Path | int) -> None:
        """Let lines be stored again that a file shows to have been read of one that is gone, where
        its words say nothing and its times do not either: it may as well be a log that was begun
        anew with the same words, whose lines nobody has read. While a watcher looks, it may have
        read any part of what came since the look before."""
        inode = os.stat(path).st_ino
        data, lines = self.contents.get(inode, b""), self.files[inode].lines
        known = self.earlier.get(inode, b"") if self._looking else data
        # What was truncated since the look before tells nothing of what is there now.
        least = len(known) if data.startswith(known) else 0
        # A line begun then is not read before its end comes.
        whole = max((end for end, _ in lines if end <= least), default=0)
        ends = [whole, least, *(end for end, _ in lines if least <= end <= len(data))]
        read = max((end for end in ends if not FileCursor.is_distinctive(data[:end])), default=0)
        self.doubts.update(line.text for end, line in lines if end <= read)

    def _forget_twins(self, inode: int) -> None:
        """Files equal to one that goes before a look has seen both are taken for that one."""
        for file in self.files.values():
            if file.twin_of == inode:
                file.twin_of = -1

    def _is_open(self, path: str) -> bool:
        inode = os.stat(path).st_ino
        return any(log.fd >= 0 and _inode(log.fd) == inode for log in self.logs)

    def _maybe_look(self) -> None:
        if self._watcher is not None and self._chance(0.6):
            self.steps.append("  look")
            self._look()

    def _chance(self, share: float) -> bool:
        return self.dice.random() < share


def _content(path: str) -> bytes:
    """What a file holds, unpacked."""
    data = Path(path).read_bytes()
    if path.endswith(".gz"):
        return gzip.decompress(data)
    return zstandard.decompress(data) if path.endswith(".zst") else data


def _inode(fd: int) -> int:
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return -1
