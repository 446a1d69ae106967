"""The publish of a batch together with the cursors of the files that it was read from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from lakelog.entries import Record, Removal
from lakelog.files import CursorIndex, FileCursor, Start
from lakelog.ingest.batch import Batch, Job
from lakelog.manifest import Manifest
from lakelog.moves import Change
from lakelog.refs import Head


def commit(
    job: Job, batch: Batch, moves: Sequence[tuple[Start, FileCursor]], index: CursorIndex
) -> Head:
    """Publish a batch with the cursors of its files, each from its Start, as decided over the
    cursors of the batch's base, to its place now; return the move. `index` holds those cursors and
    is brought to the new state. Raises CursorMoved."""
    store = job.store
    entries = batch.write()
    steps: list[Record | Removal] = []
    # What is released goes first: its key may be that of a file which takes it over.
    for start, _ in moves:
        for old in start.released:
            steps.append(old.removal() if old.is_copy else old.released().entry())
    for start, cursor in moves:
        if start.replaced is not None and start.replaced.key != cursor.key:
            steps.append(start.replaced.removal())
        steps.append(
            replace(
                cursor, tail_key=batch.unfinished_keys.get(cursor.origin, cursor.tail_key)
            ).entry()
        )
    ended = {start.ended for start, _ in moves if start.ended}

    def stand(state: Manifest) -> bool:
        base_index, head_index = (
            CursorIndex(FileCursor.of_state(store, some)) for some in (batch.state, state)
        )
        return all(head_index.still_holds(start, base_index, job.label) for start, _ in moves)

    def change(state: Manifest) -> Change:
        name = os.path.basename(moves[0][1].name)
        name = name if len(moves) == 1 else f"{name} and {len(moves) - 1} more"
        # Lines that were unfinished last time are read again with their ends.
        live = store.manifests.segments(state) if ended else []
        tombstones = [entry.tombstone() for entry in live if entry.key in ended]
        return Change("ingest", name, (*tombstones, *entries, *steps))

    head_now = batch.publish(change, stand)
    store.verified.add_written("segments", (e.key for e in entries))
    _apply(index, steps)
    # With a move of another writer in between, the index lacks what that one changed.
    if head_now.move.prev == batch.base.digest:
        job.cache.keep(head_now.move.snapshot, index)
    return head_now


def _apply(index: CursorIndex, steps: list[Record | Removal]) -> None:
    """Apply manifest entries to an index as they apply to a state."""
    for step in steps:
        if isinstance(step, Removal):
            index.remove(step.key)
        else:
            index.add(FileCursor.from_entry(step))
