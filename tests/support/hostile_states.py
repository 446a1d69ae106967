"""Indices of saved states that lead out of their directory, or that no save could have made."""

from __future__ import annotations

import os
from typing import Any

import lakelog
from lakelog import document
from lakelog.chunks import state_files
from lakelog.chunks.state_files import StateRecord
from lakelog.disk import disk
from lakelog.moves.publication import Change, publish

Body = dict[str, Any]


def forge(lake: lakelog.Lake, content: bytes, data: bytes | None = None) -> None:
    """Make the state `forged`, whose index has this content, or is this file."""
    digest = document.digest(content)
    disk.put_object(
        lake.store.paths.state_file(digest, ".json.zst"), data or state_files.seal(content)
    )
    record = StateRecord("app", digest, f"{os.path.dirname(lake.path)}/app", 0, 0, 1)
    publish(lake.store, "main", lambda *_: Change("state", entries=(record.entry(),)))
    lake.tag("forged")


def entry(path: Any, kind: str = "file", **more: Any) -> Body:
    return {"path": path, "kind": kind, "mode": 0o644, "uid": 0, "gid": 0, "mtime": 0} | more


def file(path: Any, size: int = 0, **more: Any) -> Body:
    return entry(path, size=size, ctime=0, inode=0, **more)


def link(path: str, target: Any) -> Body:
    return entry(path, "link", target=target)


ROOT_ENTRY = entry("", "dir", mode=0o755)
HOSTILE: dict[str, list[Body]] = {
    "parent": [file("../evil")],
    "parent in the middle": [entry("d", "dir"), file("d/../../evil")],
    "absolute": [file("/tmp/evil")],
    "dot": [file(".")],
    "dots": [entry("..", "dir")],
    "empty name": [entry("d", "dir"), file("d//evil")],
    "NUL": [file("a\0b")],
    "NUL in hex": [file({"hex": "6100"})],
    "through a link": [link("d", "/tmp"), file("d/evil")],
    "through a link in the directory": [link("d", ".."), file("d/evil")],
    "through a file": [file("d"), file("d/evil")],
    "without a parent": [file("d/evil")],
    "twice": [file("a"), file("a")],
    "a link, then a file of its name": [link("a", "/tmp/evil"), file("a")],
    "a directory, then a link of its name": [entry("d", "dir"), link("d", "/tmp"), file("d/evil")],
    "hard link to outside": [entry("a", "hard", target="../evil")],
    "hard link to an absolute path": [entry("a", "hard", target="/etc/passwd")],
    "hard link through a link": [link("l", "/etc"), entry("a", "hard", target="l/passwd")],
    "hard link to a directory": [entry("d", "dir"), entry("a", "hard", target="d")],
    "hard link to a device": [entry("d", "device"), entry("a", "hard", target="d")],
    "through a pipe": [entry("d", "pipe"), file("d/evil")],
    "hard link to itself": [entry("a", "hard", target="a")],
    "device without a mode": [{"path": "a", "kind": "device"}],
    "pipe": [entry("a", "fifo")],
    "no kind": [{"path": "a"}],
    "long name": [file("n" * 256)],
    "long path": [file("n/" * 3000 + "x")],
    "negative size": [file("a", -1)],
    "size of no content": [file("a", 1 << 50)],
    "data outside": [file("a", 10, extents=[[5, 10]])],
    "data of an empty file": [file("a", 0, extents=[[0, 5]])],
    "data that overlaps": [file("a", 10, extents=[[0, 5], [3, 5]])],
    "size that is text": [file("a", "1")],  # type: ignore[arg-type]
    "mode beyond bits": [entry("d", "dir", mode=0o170644)],
    "time beyond all": [entry("d", "dir", mtime=10**30)],
    "link to nothing": [link("l", "")],
    "attributes that are none": [file("a", xattrs=[["user.a", "%"]])],
    "owner that is none": [entry("d", "dir", uid=-1)],
    "entry that is none": ["a"],  # type: ignore[list-item]
}
