"""The process beside a load: it turns splits of the file, ranges of whole lines, into segments.

The segments that it writes are in no state until the process that loads the file has published
them.
"""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from lakelog import arrays, database, typed_columns
from lakelog.disk import disk
from lakelog.erased import Refusal
from lakelog.formats import FORMATS, TypedPayloads
from lakelog.ingest import splits
from lakelog.ingest.event_segments import EventSegments
from lakelog.ingest.splits import Loaded, SplitRefused, Splits
from lakelog.ingest.transform import Transformer
from lakelog.lines import Chunk
from lakelog.runtime import interpreter
from lakelog.store import Store
from lakelog.workers import WorkerPool


@dataclass(frozen=True)
class SplitLoad:
    """What a worker is told of a load: the file, by a path that stays valid when it is renamed, the
    lake, and how rows become its segments."""

    file: str
    root: str
    rows: int
    origin: str
    earlier_origins: tuple[str, ...]
    source: str | None
    schemas: tuple[str, ...]

    def loaded(self, base: int, size: int) -> Loaded:
        """Load a split in a worker. Raises SplitRefused, OSError."""
        return _worker(self).load(base, size)

    def prepare(self) -> None:
        """Start what loads splits in a worker, which takes as long as to load a part of one."""
        _worker(self)


class _Worker:
    """Loads splits of one file."""

    def __init__(self, load: SplitLoad) -> None:
        self._descriptor, self._rows = os.open(load.file, os.O_RDONLY | os.O_CLOEXEC), load.rows
        self._origins = load.origin, load.earlier_origins
        store = Store.load(load.root)
        self._paths = store.paths
        engine = database.connect(store.paths, store.settings)
        engine.execute("SET threads = 1")  # the others are for other processes
        # What the process beside learnt of a long chunk is proved on a shorter one.
        schemas = [typed_columns.Schema.from_json(schema_json) for schema_json in load.schemas]
        payloads = TypedPayloads(lambda: engine, lambda: schemas, lines_min=0) if schemas else None
        self._transformer = Transformer(
            lambda: engine, FORMATS.JSON_LINES, load.origin, source=load.source, payloads=payloads
        )

    def load(self, base: int, size: int) -> Loaded:
        """Write the events of the lines from `base` on as segments; return what is to be published.
        Raises SplitRefused, OSError."""
        events = arrivals = crc = 0
        refusal = Refusal(self._paths)
        refusal.note_earlier(*self._origins)
        with closing(EventSegments(self._paths, disk.random_hex(), self._rows)) as segments:
            for chunk in self._chunks(base, base + size):
                crc = zlib.crc32(chunk.data, crc)
                result = self._transformer.uniform(chunk)
                # Rows that were erased are counted by the process that publishes.
                if result is None or (
                    refusal.without(result.table, self._paths.protection) is not result.table
                ):
                    raise SplitRefused
                segments.add(result.table, result.fields)
                events += result.lines
                arrivals += int(arrays.arrived(result.table).sum())
            return Loaded(tuple(segments.write()), events, arrivals, crc)

    def _chunks(self, base: int, end: int) -> Iterator[Chunk]:
        """Read whole lines, in parts of about the same size."""
        step = splits.part(end - base)
        while base < end:
            data = os.pread(self._descriptor, min(step, end - base), base)
            length = data.rfind(b"\n") + 1
            if not length:  # a long line, or the file was truncated
                raise SplitRefused
            yield Chunk(data[:length], base)
            base += length


_worker = functools.cache(_Worker)


def begin(load: SplitLoad, line: float, span: tuple[int, int], threads: int) -> Splits | None:
    """Return workers for a span of a plain file, its begin and end; None if that is too short, or
    if there is no processor for another process, or no way to start one.

    `line` are the bytes of a line, `threads` the setting.
    """
    size, (after, end) = int(load.rows * splits.PART * line), span
    is_long = end - after >= splits.LEAST and size <= splits.LONGEST
    processors = len(os.sched_getaffinity(0))
    count = min(threads or splits.PROCESSES, processors if threads else processors - 1) - 1
    if not (is_long and count > 0):
        return None
    try:
        interpreter.environment()
    except OSError:
        return None
    pool = WorkerPool.local(count)
    for _ in range(count):
        pool.submit(load.prepare, ())
    return Splits(size, after, pool, load.loaded)
