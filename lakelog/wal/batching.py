"""Which frames of a tail one segment takes, in the order in which they are sealed (F12.5)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from lakelog.wal.frames import Frame

RAW_MAX = 256_000_000
"""JSON bytes of one seal at most: they are in memory at once. More is sealed in several."""
Frames = dict[str, list[Frame]]


def batches(pending: Frames, starts: dict[str, int], rows_max: int) -> Iterator[Frames]:
    """Yield what each of the next segments would take if nothing else arrived.

    `pending` has by writer the frames above its watermark, `starts` when the writer began (us).
    What does not fit into a segment is cut by arrival, so that of two events with one id the first
    is sealed first and readers go on seeing the event they saw. Writers are in the order of their
    start.
    """
    remaining = {w: frames for w, frames in pending.items() if frames}
    while remaining:
        batch = _first_batch(remaining, starts, rows_max)
        yield batch
        remaining = {w: fs[len(batch.get(w, ())) :] for w, fs in remaining.items()}
        remaining = {w: fs for w, fs in remaining.items() if fs}


def _first_batch(pending: Frames, starts: dict[str, int], rows_max: int) -> Frames:
    arrivals = []
    for writer, frames in pending.items():
        # The highest stamp so far, not its own: if a clock was set back, sorting by the stamp alone
        # would take a later frame of the writer before an earlier one.
        stamps = itertools.accumulate((f.ingested_at for f in frames), max)
        arrivals += [
            (arrival, writer, f.sequence, f) for arrival, f in zip(stamps, frames, strict=True)
        ]
    batch: Frames = {}
    events = size = 0
    for _, writer, _, frame in sorted(arrivals, key=lambda a: a[:3]):
        events, size = events + frame.events, size + frame.raw
        # One frame is always taken, however large, else sealing would not get past it.
        if batch and (events > rows_max or size > RAW_MAX):
            break
        batch.setdefault(writer, []).append(frame)
    return {w: batch[w] for w in sorted(batch, key=lambda w: (starts[w], w))}
