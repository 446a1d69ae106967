"""Writing chunks to a lake, compressed by several threads; chunks that are there are not written.

A chunk gets its name once its bytes are synced; its directory is synced by `finish`, before a
manifest names it. What a save that died has written is unreferenced, and is gc's.
"""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from lakelog import document
from lakelog.chunks import state_files, state_index
from lakelog.chunks.state_index import StateIndex
from lakelog.disk import File, Folder, NotIntact, disk
from lakelog.errors import StateRefused
from lakelog.paths import CHUNK, INDEX, Paths

_THREADS = 16
"""Most of a thread's time is waiting for the disk, which syncs several files at once."""
PendingChunk = Future[tuple[str, int]]


class ChunkWriter:
    """Writes chunks and indices; `written` are the bytes of new files. Used within a `with`."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._threads = ThreadPoolExecutor(_THREADS, "chunks")
        self._room = threading.Semaphore(2 * _THREADS)  # bounds what waits in memory
        self._mutex = threading.Lock()
        # Listed once: to ask for each chunk would take longer than to write many.
        names = map(os.path.basename, state_files.StateFiles(paths).names())
        self._present = {name for name in names if not name.startswith(disk.TEMPORARY)}
        self._claimed: set[str] = set()
        self._folders: set[str] = set()
        self.written = 0

    def has(self, digest: str) -> bool:
        """Whether a chunk was there when this writer was made."""
        return digest + CHUNK in self._present

    def add(self, content: bytes) -> PendingChunk:
        """Write a chunk in the background; the result is its digest and length."""
        # Reading is faster than writing: what waits is bounded.
        self._room.acquire()
        future = self._threads.submit(self._add, content)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def _add(self, content: bytes) -> tuple[str, int]:
        digest = hashlib.sha256(content).hexdigest()
        self._put(content, digest, CHUNK)
        return digest, len(content)

    def add_index(self, index: StateIndex) -> str:
        """Write an index and return its digest. Raises StateRefused for one that is too long."""
        content = index.encode()
        is_long = len(content) > state_index.INDEX_MAX
        if is_long or len(index.entries) > state_index.ENTRIES_MAX:
            raise StateRefused(
                f"{len(index.entries):,} files are too many for one directory of a state: save its"
                " subdirectories, with --dir for each"
            )
        digest = document.digest(content)
        self._put(content, digest, INDEX)
        return digest

    def _put(self, content: bytes, digest: str, ending: str) -> None:
        path, name = self._paths.state_file(digest, ending), digest + ending
        folder = os.path.dirname(path)
        with self._mutex:
            # Equal chunks of one save are written once.
            is_new = name not in self._claimed
            self._claimed.add(name)
            # Even if it was there: whoever linked it may have died before it synced the directory.
            self._folders.add(folder)
        if not is_new or (name in self._present and self._is_intact(path, name)):
            return
        Folder(folder).make_for_objects()
        data, keys = state_files.seal(content), self._paths.keys
        # Synced under a temporary name: a file with its name is always whole.
        temporary = Folder(folder).write(keys.encrypt(data) if keys else data)
        size = os.stat(temporary).st_size
        # Replaces a damaged file of that name; an intact one has the same content.
        File(temporary).rename(path)
        with self._mutex:
            self.written += size

    def _is_intact(self, path: str, name: str) -> bool:
        """Whether a file can be relied on, so that damage does not reach what is saved now."""
        try:
            state_files.check_content(state_files.read_file(path), name)
        except (FileNotFoundError, NotIntact):
            return False
        return True

    def finish(self) -> None:
        """Make everything durable that was added."""
        # After all writes, each folder once.
        self._threads.shutdown(wait=True)
        for folder in sorted(self._folders):
            Folder(folder).sync()

    def __enter__(self) -> ChunkWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
