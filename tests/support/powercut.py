"""Power cuts: what may be on the disk if the power fails between two changes.

A journal records every change of a scheduled run with its bytes. An image is the lake as a legal
file system may leave it: synced bytes and entries are there; of the rest, each name has seen any
first few of its changes, and each file holds any part of its unsynced bytes: cut, zeroed, or of
what was overwritten some sectors old and some new.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import lakelog
from tests.support.scheduler import Actor
from tests.support.world import World

CASTS = ["sealing", "stopping", "collecting", "failing"]
MOODS = ["least", "most", "any", "any", "any"]

FOLDER = -1
SECTOR = 512
"""Bytes that a disk writes as one."""
Skip = Callable[[str, str, str], bool]


@dataclass
class Inode:
    """The bytes of one file, as processes see them and as they were last synced."""

    data: bytes = b""
    synced: bytes = b""

    def write(self, data: bytes, at: int) -> None:
        """Write at a byte, over what is there."""
        start = self.data[:at].ljust(at, b"\0")
        self.data = start + data + self.data[at + len(data) :]

    def torn(self, stop: int, sectors: Callable[[int], bool]) -> bytes:
        """The file cut at byte `stop`, and `sectors` says which of them are new."""
        old = self.synced.ljust(stop, b"\0")
        new = self.data.ljust(stop, b"\0")
        parts = [
            (new if sectors(at // SECTOR) else old)[at : at + SECTOR]
            for at in range(0, stop, SECTOR)
        ]
        return b"".join(parts)[:stop]


@dataclass
class Disk:
    """A directory tree: entries that last, and changes of names that may not."""

    entries: dict[str, int] = field(default_factory=dict)
    pending: list[tuple[str, int | None]] = field(default_factory=list)
    inodes: dict[int, Inode] = field(default_factory=dict)

    def sync_dir(self, folder: str) -> None:
        """Make the changes of one folder last."""
        for name, inode in self.pending:
            if os.path.dirname(name) == folder:
                self._set(self.entries, name, inode)
        self.pending = [p for p in self.pending if os.path.dirname(p[0]) != folder]

    def live(self) -> dict[str, int]:
        """The entries as running processes see them."""
        return self._after(self.pending)

    def survivors(self, dice: random.Random, mood: str) -> dict[str, int]:
        """Entries after a cut: of each name's changes any first few."""
        changes: dict[str, list[int | None]] = {}
        for name, inode in self.pending:
            changes.setdefault(name, []).append(inode)
        kept: list[tuple[str, int | None]] = []
        for name, inodes in changes.items():
            count = {"least": 0, "most": len(inodes)}.get(mood, dice.randint(0, len(inodes)))
            kept += [(name, inode) for inode in inodes[:count]]
        return self._after(kept)

    def bytes_of(self, inode: int, dice: random.Random, mood: str) -> bytes:
        """What a file holds after a cut."""
        file = self.inodes[inode]
        if mood == "least" or file.data == file.synced:
            return file.synced
        if mood == "most":
            return file.data
        lengths = len(file.synced), len(file.data)
        stop = dice.choice([*lengths, dice.randint(min(lengths), max(lengths))])
        upto, share = dice.randint(0, stop // SECTOR + 1), dice.choice([0.0, 0.5, 1.0])
        return file.torn(stop, lambda nth: dice.random() < share or (share == 0 and nth < upto))

    def _after(self, changes: list[tuple[str, int | None]]) -> dict[str, int]:
        entries = dict(self.entries)
        for name, inode in changes:
            self._set(entries, name, inode)
        return entries

    @staticmethod
    def _set(entries: dict[str, int], name: str, inode: int | None) -> None:
        if inode is None:
            entries.pop(name, None)
        else:
            entries[name] = inode


class Journal:
    """Records what one world does to its lake, and what it was promised meanwhile."""

    def __init__(self, world: World, skips: Skip = lambda *_: False) -> None:
        self.world, self._skips = world, skips
        self._base = whole_tree(world.root)
        self.log: list[tuple[Any, ...]] = []
        self._inodes: dict[int, int] = {}
        self._after = world.scheduler.on_change
        world.scheduler.on_change = self._record
        world.on_promise = lambda kind, names: self.log.append(("promise", kind, names))

    def _record(self, actor: Actor, name: str, args: tuple[Any, ...], result: Any) -> None:
        # What a query hands to the engine in memory is on no disk, and has the descriptor of a file
        # of before.
        is_on_disk = name not in ("create", "lock") and not is_in_memory(name, args)
        if name == "create":
            self._inodes[result] = len(self.log)
            self.log.append((name, args[0], len(self.log)))
        elif is_on_disk and name in ("write_all", "truncate", "sync_file"):
            args = placed(name, self._inodes[args[0]], *args)
        if is_on_disk and not self._skipped(name, args):
            self.log.append((name, *args))
        if self._after is not None:
            self._after(actor, name, args, result)

    def _skipped(self, name: str, args: tuple[Any, ...]) -> bool:
        if not name.startswith("sync"):
            return False
        frame, callers = sys._getframe(2), []
        while frame is not None and len(callers) < 12:
            callers.append(frame.f_code.co_name)
            frame = frame.f_back  # type: ignore[assignment]
        return self._skips(name, str(args[0]), " ".join(callers))

    def at(self, step: int) -> tuple[Disk, dict[str, set[str]]]:
        """The disk before change `step`, and what was promised by then, by kind."""
        disk, promised = started(self._base), dict[str, set[str]]()
        for entry in self.log[:step]:
            if entry[0] == "promise":
                promised.setdefault(entry[1], set()).update(entry[2])
            else:
                apply(disk, *entry)
        return disk, promised

    def image(self, step: int, dice: random.Random, mood: str, root: str) -> dict[str, set[str]]:
        """Write the lake as a cut before change `step` may leave it; return what was promised."""
        disk, promised = self.at(step)
        survivors = sorted(disk.survivors(dice, mood).items())
        write_image(
            {
                root + name.removeprefix(self.world.root): (
                    None if inode == FOLDER else disk.bytes_of(inode, dice, mood)
                )
                for name, inode in survivors
            }
        )
        return promised


def is_in_memory(name: str, args: tuple[Any, ...]) -> bool:
    """Whether a change is of a file that is on no disk."""
    return name == "write_all" and os.readlink(f"/proc/self/fd/{args[0]}").startswith("/memfd:")


def placed(name: str, inode: int, fd: int, *args: Any) -> tuple[Any, ...]:
    """What is recorded of a change of a file that is done: with the byte where a write began."""
    if name != "write_all":
        return (inode, *args)
    return inode, args[0], os.lseek(fd, 0, os.SEEK_CUR) - len(args[0])


def started(tree: list[tuple[str, bytes | None]]) -> Disk:
    """A disk that holds a tree for good."""
    disk = Disk()
    for number, (name, data) in enumerate(tree, start=1 << 40):
        disk.entries[name] = FOLDER if data is None else number
        disk.inodes[number] = Inode(data or b"", data or b"")
    return disk


def apply(disk: Disk, name: str, *args: Any) -> None:
    """Do one recorded change."""
    if name == "create":
        disk.inodes[args[1]] = Inode()
        disk.pending.append((args[0], args[1]))
    elif name == "write_all":
        disk.inodes[args[0]].write(args[1], args[2])
    elif name == "truncate":
        disk.inodes[args[0]].data = disk.inodes[args[0]].data[: args[1]]
    elif name == "sync_file":
        disk.inodes[args[0]].synced = disk.inodes[args[0]].data
    elif name == "sync_dir":
        disk.sync_dir(args[0])
    elif name == "link":
        disk.pending.append((args[1], disk.live()[args[0]]))
    elif name == "rename":
        disk.pending += [(args[1], disk.live()[args[0]]), (args[0], None)]
    elif name in ("unlink", "remove_dir"):
        disk.pending.append((args[0], None))
    elif name == "make_dir":
        disk.pending.append((args[0], FOLDER))
    elif name == "append_line":
        inode = disk.live().get(args[0])
        if inode is None:
            inode = -2 - len(disk.inodes)
            disk.inodes[inode] = Inode()
            disk.pending.append((args[0], inode))
        disk.inodes[inode].data += args[1]


def write_image(tree: dict[str, bytes | None]) -> None:
    """Write folders (None) and files; what has no folder is left out."""
    for name, data in sorted(tree.items()):
        if not os.path.isdir(os.path.dirname(name)):
            continue
        if data is None:
            os.mkdir(name)
            continue
        with open(name, "wb") as file:
            file.write(data)


def whole_tree(root: str) -> list[tuple[str, bytes | None]]:
    """Every folder (None) and file (its bytes) below a root, the root first."""
    found: list[tuple[str, bytes | None]] = []
    for folder, _, files in os.walk(root):
        found.append((folder, None))
        for name in files:
            with open(f"{folder}/{name}", "rb") as file:
                found.append((f"{folder}/{name}", file.read()))
    return found


def recover(world: World, root: str, promised: dict[str, set[str]]) -> None:
    """Open an image with the real code; require every promise, twice over."""
    with lakelog.open(root, create=False) as lake:
        first = _look(world, lake, promised)
        lake.settle()
        moves = len(lake.log())
    with lakelog.open(root, create=False) as lake:
        again = _look(world, lake, promised)
        lake.settle()
        assert len(lake.log()) == moves, "a second recovery moved the branch"
    if not world.shared_ids:
        assert first == again, f"settling made {sorted(first)} into {sorted(again)}"


def _look(world: World, lake: lakelog.Lake, promised: dict[str, set[str]]) -> set[str]:
    names = [name for (name,) in lake.sql("SELECT subject FROM events").fetchall()]
    keys = [world.key_of(name) for name in names]
    assert len(set(keys)) == len(keys), f"doubled in {sorted(names)}"
    free = world.taken_off()
    lost = {world.key_of(n) for n in promised.get("append", ()) if n not in free} - set(keys)
    assert not lost, f"acknowledged {sorted(lost)} not there"
    assert lake.count() == len(names), f"{lake.count()} counted, {len(names)} there"
    for kind in ("tag", "branch"):
        for name in promised.get(kind, ()):
            lake.at(name).count()
    damage = [p for p in lake.verify().problems if p.kind == "damage"]
    assert damage == [], f"damage: {damage}"
    return set(names)
