"""Cursors at the ends of files, for who wants only what is written from now on.

What was skipped counts as shared with no file (`shared` without `shares`, FORMAT.md F18.5), so that
an audit expects no rows of it. Of a plain file nothing is read but its beginning and its end.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace

from lakelog.files import CursorIndex, FileCursor, FileState, Start, printable
from lakelog.ingest.batch import Batch, CursorMoved, Job
from lakelog.ingest.cursor_commit import commit
from lakelog.lines import Source

_NEAR = 1 << 16
"""Bytes before the end among which the last newline is looked for."""
_PIECE = 1 << 20


def skip_to_ends(job: Job, files: Sequence[FileState], roots: list[str]) -> None:
    """Publish cursors at the ends of files, unless some of these directories were read before:
    then reading goes on where it was."""
    for _ in range(10):
        with closing(Batch(job)) as batch:
            resolver = job.resolver(batch.state)
            if _is_known(resolver.index, job.label, roots):
                job.cache.keep(batch.state.digest, resolver.index)
                return
            moves = list[tuple[Start, FileCursor]]()
            for file in files:
                # One that cannot be read is reported by who reads it next.
                with suppress(OSError), closing(Source(file.path)) as source:
                    start = resolver.resolve(source)
                    if isinstance(start, Start) and start.replaced is None:
                        cursor = _at_end(source, start)
                        resolver.apply(start, cursor)
                        moves.append((start, cursor))
            # Another process was faster: what is known now is looked up again.
            with suppress(CursorMoved):
                if moves:
                    commit(job, batch, moves, resolver.index)
                return


def _is_known(index: CursorIndex, label: str | None, roots: list[str]) -> bool:
    """Whether a file of these directories was read under this label."""
    names = [printable(root).rstrip("/") for root in roots]
    return any(
        cursor.label == label and (cursor.name == name or cursor.name.startswith(f"{name}/"))
        for cursor in index
        for name in names
    )


def _at_end(source: Source, start: Start) -> FileCursor:
    """The cursor behind the last whole line of a file; of a packed one behind all of it."""
    source.limit = None
    source.seek(0)
    place, crc = 0, None
    if source.compression:
        crc = 0
        while block := source.read(_PIECE):
            crc, place = zlib.crc32(block, crc), place + len(block)
    else:
        near = max(source.size - _NEAR, 0)
        source.seek(near)
        place = near + source.read(source.size - near).rfind(b"\n") + 1
    tail = FileCursor.digest(source.before(place))
    return replace(start.cursor, bytes=place, shared=place, tail=tail, crc=crc)
