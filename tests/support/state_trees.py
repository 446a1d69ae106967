"""What tests of saved states use: random trees, and all that a restore has to keep of one."""

from __future__ import annotations

import contextlib
import os
import random
import stat
from pathlib import Path
from typing import Any

NAMES = ["a", "b.txt", "data", "\u00fc", "x y", "\n", "-f", "...", os.fsdecode(b"\xff\xfe")]


def grow(root: Path, seed: int, entries: int = 25) -> None:
    """Make a random tree: files of all sizes, holes, links, pipes, modes, times, attributes."""
    dice = random.Random(seed)
    root.mkdir()
    folders, files, names = [root], list[Path](), list[Path]()
    for _ in range(dice.randrange(entries)):
        path = dice.choice(folders) / (dice.choice(NAMES) + str(dice.randrange(100)))
        if os.path.lexists(path):
            continue
        kind = dice.choice(["dir", "file", "file", "file", "holes", "link", "hard", "pipe"])
        if kind == "dir":
            path.mkdir()
            folders.append(path)
        elif kind == "link":
            path.symlink_to(dice.choice(["nowhere", "../..", "/etc/passwd", "a"]))
            names.append(path)
        elif kind == "pipe":
            os.mknod(path, 0o600 | dice.choice([stat.S_IFIFO, stat.S_IFSOCK]))
            os.utime(path, ns=(1, dice.randrange(1 << 60)))
            names.append(path)
        elif kind == "hard" and names:
            os.link(dice.choice(names), path, follow_symlinks=False)
        else:
            _fill(path, dice, kind)
            files.append(path)
            names.append(path)
    for path in [*files, *reversed(folders)]:
        _dress(path, dice)


def _fill(path: Path, dice: random.Random, kind: str) -> None:
    size = dice.choice([0, 1, 100, 4096, 70_000, 200_000, 1_500_000])
    with open(path, "wb") as file:
        if kind == "holes":
            file.truncate(size + (1 << 20))
            file.seek(dice.randrange(size + 1))
            size = min(size, 4096)
        file.write(dice.choice([dice.randbytes, bytes])(size))


def _dress(path: Path, dice: random.Random) -> None:
    if dice.random() < 0.3:
        with contextlib.suppress(OSError):
            os.setxattr(path, f"user.n{dice.randrange(9)}", dice.randbytes(dice.randrange(50)))
    if os.geteuid() == 0 and dice.random() < 0.2:
        os.chown(path, dice.randrange(70_000), dice.randrange(70_000))
    bits = 0o700 if path.is_dir() else 0o400
    os.chmod(path, dice.choice([0o755, 0o640, 0o700, 0o4755, 0o1777, 0o600]) | bits)
    time = dice.choice([0, -5, 1_700_000_000_123_456_789, 4_000_000_000_000_000_001])
    os.utime(path, ns=(time, time))


def change(root: Path, seed: int) -> None:
    """Change a tree a little: edit, add, remove, rename."""
    dice = random.Random(seed)
    found = [p for p in sorted(root.rglob("*")) if p.is_file() and not p.is_symlink()]
    for path in found:
        action = dice.choice(["keep", "keep", "keep", "edit", "remove", "rename"])
        if action == "edit":
            with open(path, "r+b") as file:
                file.seek(dice.randrange(os.path.getsize(path) + 1))
                file.write(dice.randbytes(dice.randrange(1, 5000)))
        elif action == "remove":
            path.unlink()
        elif action == "rename":
            path.rename(path.with_name("renamed" + str(dice.randrange(1000))))
    (root / "new").write_bytes(dice.randbytes(300_000))


def facts(root: Path | str) -> dict[str, Any]:
    """Return all that a restore has to keep, by relative path."""
    known: dict[str, Any] = {}
    first: dict[int, str] = {}
    top = os.fspath(root)
    for folder, folders, names in os.walk(top):
        folders.sort()
        for path in [folder, *(f"{folder}/{name}" for name in sorted(folders + names))]:
            status = os.lstat(path)
            name = os.path.relpath(path, top)
            mode = stat.S_IMODE(status.st_mode)
            fact: list[Any] = [stat.S_IFMT(status.st_mode), mode, status.st_uid, status.st_gid]
            fact.append(status.st_mtime_ns)
            if not stat.S_ISDIR(status.st_mode):
                fact.append(first.setdefault(status.st_ino, name))
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    fact += [file.read(), status.st_nlink]
                fact.append(_holes(path))
            if stat.S_ISLNK(status.st_mode):
                fact.append(os.readlink(path))
            attributes = os.listxattr(path, follow_symlinks=False)
            fact += [(n, os.getxattr(path, n, follow_symlinks=False)) for n in sorted(attributes)]
            known[name] = fact
    return known


def _holes(path: str) -> bool:
    """Whether a file has a hole of half its size or more, of those that are large."""
    status = os.stat(path)
    return status.st_size > 1 << 20 and status.st_blocks * 512 < status.st_size // 2
