"""Fingerprints: whether a tree is still what was looked at, told by its names and attributes.

A restore reads what there is, and exchanges it later; a program may write in between. Of each file
the size, time and inode count, and of a link its target, so that nothing has to be read again. The
ctime is left out: a restore changes it itself, by links and by the exchange; and so is the inode
where there are layers, as a file of a lower one may get another when it is renamed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Container, Iterable

from lakelog.chunks import StateEntry

_KINDS = {
    stat.S_IFDIR: "dir",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
}
NOTHING = "nothing"
"""The fingerprint of a path that is not there."""


def kind_of(mode: int) -> str:
    """Return the kind of an entry, by its mode."""
    return _KINDS.get(stat.S_IFMT(mode), "device")


def top_of(path: bytes, tops: Container[bytes]) -> bytes | None:
    """Return which of some paths, none within another, is a path or holds it."""
    # Up from the path: of a mount, they may be too many to try each.
    while path and path not in tops:
        path = path.rpartition(b"/")[0]
    return path if path in tops else None


def of_entries(
    entries: dict[bytes, StateEntry], tops: Iterable[bytes], *, is_layered: bool
) -> dict[bytes, str]:
    """Return the fingerprints of paths, none within another, each with all below it, as an index
    has them. `is_layered` is whether they are in a file system that is, as `filesystems` says."""
    lines: dict[bytes, list[bytes]] = {top: [] for top in tops}
    for path, entry in entries.items():
        if (top := top_of(path, lines)) is not None:
            # A hard link is a file to whoever looks at the tree.
            source = entries[entry.target] if entry.kind == "hard" else entry
            inode = 0 if is_layered else source.inode
            facts = b"%d %d %d" % (source.size, source.mtime, inode)
            facts = source.target if source.kind == "link" else facts
            name = path[len(top) :].removeprefix(b"/")
            lines[top].append(_line(name, source.kind, source.mode, facts))
    return {top: _digest(inner) for top, inner in lines.items()}


def of_tree(root: bytes, ignored: bytes, *, is_layered: bool) -> str:
    """Return the fingerprint of a path and all below it, but for names that begin so. Raises
    OSError."""
    lines, waiting = [], [b""]
    while waiting:
        name = waiting.pop()
        path = root + b"/" + name if name else root
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            continue  # removed since it was listed
        file_type = kind_of(status.st_mode)
        inode = 0 if is_layered else status.st_ino
        facts = b"%d %d %d" % (status.st_size, status.st_mtime_ns, inode)
        if file_type == "dir":
            # Fresh trees of restores lie beside what they replace, and are no part of it.
            inner = (child for child in os.listdir(path) if not child.startswith(ignored))
            waiting += [name + b"/" + child if name else child for child in inner]
        elif file_type == "link":
            facts = os.readlink(path)
        lines.append(_line(name, file_type, stat.S_IMODE(status.st_mode), facts))
    return _digest(lines)


def _line(name: bytes, file_type: str, mode: int, facts: bytes) -> bytes:
    # Of a directory the names say enough, and the rest has no content.
    facts = facts if file_type in ("file", "link") else b""
    return b"\0".join((name, file_type.encode(), b"%o" % mode, facts))


def _digest(lines: Iterable[bytes]) -> str:
    # Names come in any order from the system.
    ordered = sorted(lines)
    if not ordered:
        return NOTHING
    # No name and no target of a link has these bytes.
    return hashlib.sha256(b"\0\0".join(ordered)).hexdigest()[:32]
