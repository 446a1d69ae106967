"""The process beside a load: it turns splits of the file, ranges of whole lines, into segments.

`splits` starts it, and says in the first line on its standard input what is loaded; each other line
is a split, and has its answer in one on standard output. It ends when its input does. The segments
that it writes are in no state until the process that loads the file has published them.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import orjson

from lakelog import arrays, database, typed_columns
from lakelog.disk import disk
from lakelog.erased import Refusal
from lakelog.formats import FORMATS, TypedPayloads
from lakelog.ingest import splits
from lakelog.ingest.event_segments import EventSegments
from lakelog.ingest.transform import Transformer
from lakelog.lines import Chunk
from lakelog.store import Store


class Refused(Exception):
    """A split that is not for this process: not all of its lines are spelled alike."""


class Worker:
    """Loads splits of one file, which is open as `descriptor`."""

    def __init__(self, descriptor: int, load: dict[str, Any]) -> None:
        self._descriptor, self._rows = descriptor, load["rows"]
        store = Store.load(load["root"])
        self._paths = store.paths
        engine = database.connect(store.paths, store.settings)
        engine.execute("SET threads = 1")  # the others are for other processes
        # What the process beside learnt of a long chunk is proved on a shorter one.
        schemas = [typed_columns.Schema.from_json(schema_json) for schema_json in load["schemas"]]
        payloads = TypedPayloads(engine, lambda: schemas, lines_min=0) if schemas else None
        self._transformer = Transformer(
            engine, FORMATS.JSON_LINES, load["origin"], source=load["source"], payloads=payloads
        )

    def load(self, base: int, size: int) -> dict[str, Any]:
        """Write the events of the lines from `base` on as segments; return what is to be published.
        Raises Refused, OSError."""
        events = arrivals = crc = 0
        refusal = Refusal(self._paths)
        with closing(EventSegments(self._paths, disk.random_hex(), self._rows)) as segments:
            for chunk in self._chunks(base, base + size):
                crc = zlib.crc32(chunk.data, crc)
                result = self._transformer.uniform(chunk)
                # Rows that were erased are counted by the process that publishes.
                if result is None or (
                    refusal.without(result.table, self._paths.protection) is not result.table
                ):
                    raise Refused
                segments.add(result.table, result.fields)
                events += result.lines
                arrivals += int(arrays.arrived(result.table).sum())
            entries = [segment_entry.to_json() for segment_entry in segments.write()]
        return {"entries": entries, "events": events, "arrivals": arrivals, "crc": crc}

    def _chunks(self, base: int, end: int) -> Iterator[Chunk]:
        """Read whole lines, in parts of about the same size."""
        step = splits.part(end - base)
        while base < end:
            data = os.pread(self._descriptor, min(step, end - base), base)
            length = data.rfind(b"\n") + 1
            if not length:  # a long line, or the file was truncated
                raise Refused
            yield Chunk(data[:length], base)
            base += length


def main() -> None:
    """Answer until the input ends; the argument is the descriptor of the file."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    worker = Worker(int(sys.argv[1]), orjson.loads(requests.readline()))
    # A child of the process beside may hold this pipe open: so its end is said, too.
    while split := orjson.loads(requests.readline() or b"null"):
        try:
            answer = worker.load(*split)
        except Refused:
            answer = {}
        answers.write(orjson.dumps(answer) + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
