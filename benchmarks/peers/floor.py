"""The floor: JSON lines appended to one file, synced after each commit; nothing can be asked."""

from __future__ import annotations

import os
import shutil

import orjson

from benchmarks.peers import files


class Peer:
    """A file."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._file = os.open(f"{root}/events.jsonl", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def load(self, path: str) -> None:
        """Copy a file and sync the copy."""
        shutil.copyfile(path, f"{self.root}/copy.jsonl")
        files.sync(self.root)

    def commit(self, events: list[files.Event]) -> None:
        """Write lines, sync."""
        os.write(self._file, b"".join(orjson.dumps(event) + b"\n" for event in events))
        os.fdatasync(self._file)

    def size(self) -> int:
        """Bytes of the lines."""
        return files.size(self.root)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
