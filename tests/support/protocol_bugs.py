"""What several tests use: planted bugs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from lakelog.appends.writer import Writer
from lakelog.maintain import compact, gc, seal
from lakelog.moves import publication as publish
from lakelog.query import tail_rows
from lakelog.refs import Refs
from lakelog.wal import tail
from lakelog.wal import trimming as trim
from tests.support import seam

Plant = Callable[[pytest.MonkeyPatch], None]


def _links_by_rename(patch: pytest.MonkeyPatch) -> None:
    """Rename overwrites, so two moves of one number are both made."""
    patch.setitem(seam.FUNCTIONS, "link", os.replace)


def _believes_its_watermarks(patch: pytest.MonkeyPatch) -> None:
    """A sealer that lost a race publishes the same segment onto the next head (F9.4)."""
    patch.setattr(seal.Sealer, "_holds", lambda *_: True)


def _ignores_dropped_writers(patch: pytest.MonkeyPatch) -> None:
    """A sealer takes no watermark for not yet sealed, though the writer's files are gone (F9.4)."""
    real = seal.Sealer._holds

    def holds(self: Any, work: Any, head: Any, state: Any) -> bool:
        work.files = dict.fromkeys(work.files, ())
        return real(self, work, head, state)

    patch.setattr(seal.Sealer, "_holds", holds)


def _reads_the_head_first(patch: pytest.MonkeyPatch) -> None:
    """A reader looks for the head and lists the WALs afterwards (F12.2)."""

    def collect(self: Any) -> tail.PendingFrames:
        head = self._refs.head(self._branch)
        files = self.scan()
        picked = {w: tail.pick(fs, head.move.wal.get(w, -1))[0] for w, fs in files.items()}
        return tail.PendingFrames(
            head, {w: frames for w, frames in picked.items() if frames}, files
        )

    patch.setattr(tail.Tail, "_collect", collect)


def _does_not_look_again(patch: pytest.MonkeyPatch) -> None:
    """A reader takes no watermark for not yet sealed, though the file it read is gone (F12.3)."""
    patch.setattr(tail.Tail, "_still_there", lambda *_: True)


def _counts_ids_twice(patch: pytest.MonkeyPatch) -> None:
    """A reader does not drop ids of the tail that it has already (F12.6)."""
    patch.setattr(tail_rows, "unique_rows", lambda store, table, *_, **__: (table, None))


def _drops_watermarks_early(patch: pytest.MonkeyPatch) -> None:
    """A publish leaves out the watermarks of writers it did not seal, files or no files (F9.7)."""
    patch.setattr(publish, "watermarks", lambda store, move, sealed: dict(sealed))


def _believes_the_hint(patch: pytest.MonkeyPatch) -> None:
    """The head is where it was last seen (F11.2)."""
    patch.setattr(Refs, "_newest", lambda self, branch, known: known)
    patch.setattr(publish, "_RETRIES", 20)


def _trims_what_it_did_not_read(patch: pytest.MonkeyPatch) -> None:
    """A file is unlinked without its lock and whatever it has become (F9.6)."""
    remove = seam.FUNCTIONS["unlink"]
    patch.setattr(trim, "_remove", lambda store, file, newest: bool(remove(file.path)) or True)


def _lets_go_of_failed_files(patch: pytest.MonkeyPatch) -> None:
    """After a failed sync the writer looks dead until its next file is there (F9.5)."""
    real = Writer._poison
    patch.setattr(Writer, "_poison", lambda self: (real(self), self._unlock_abandoned())[0])


def _rolls_watermarks_back(patch: pytest.MonkeyPatch) -> None:
    """A rewind forgets how far the WALs were sealed (F9.8)."""
    real = publish.watermarks
    patch.setattr(
        publish, "watermarks", lambda store, move, new: real(store, move, new) if new else {}
    )


def _compacts_what_is_gone(patch: pytest.MonkeyPatch) -> None:
    """A compaction does not look whether its inputs are still there (F9.4)."""

    def swap(store: Any, branch: str, base: Any, group: Any, outputs: Any) -> bool:
        entries = (*(entry.tombstone() for entry in group), *outputs)
        return publish.publish(store, branch, lambda *_: publish.Change("compact", entries=entries))

    patch.setattr(compact, "_swap", swap)


def _collects_without_grace(patch: pytest.MonkeyPatch) -> None:
    """What nothing reaches goes at once (F9.10)."""
    patch.setattr(gc, "_due", lambda store, condemned, now: sorted(condemned))


def _publishes_what_gc_took(patch: pytest.MonkeyPatch) -> None:
    """A publisher that stood still for days does not look at its files again (F9.3)."""
    patch.setattr(publish, "_is_safe", lambda *_: True)


PLANTED: list[tuple[str, Plant]] = [
    ("sealing", _links_by_rename),
    ("sealing", _believes_its_watermarks),
    ("sealing", _counts_ids_twice),
    ("sealing", _drops_watermarks_early),
    ("sealing", _believes_the_hint),
    ("stopping", _ignores_dropped_writers),
    ("reading", _reads_the_head_first),
    ("reading", _does_not_look_again),
    ("trimming", _trims_what_it_did_not_read),
    ("poisoning", _lets_go_of_failed_files),
    ("rewinding", _rolls_watermarks_back),
    ("users", _compacts_what_is_gone),
    ("collecting", _collects_without_grace),
    ("stalling", _publishes_what_gc_took),
]
