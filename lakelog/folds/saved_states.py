"""Saved states of folds, in `cache/folds`: derived, and dropped without loss.

A file is of one fold, branch and subject: one line of JSON, then the SHA-256 of that line. It holds
the state after so many events, and the digest of these events by `seq` and time of arrival. It is
used only where the events of the present state begin with exactly these. So after a rollback,
a retention or an undo, or on another branch, it is either right or not used.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from lakelog.disk import File, Folder
from lakelog.paths import Paths

EventMark = tuple[int, int]
"""`seq` and time of arrival, in us."""


@dataclass(frozen=True)
class FoldCheckpoint:
    """The state of a fold after its first `events` events."""

    events: int
    digest: str
    state: object

    def fits(self, marks: Sequence[EventMark]) -> bool:
        """Whether these events begin with those that it is of."""
        # By content: after a rollback other events may have the same numbers.
        return len(marks) >= self.events and digest_of(marks[: self.events]) == self.digest


def digest_of(marks: Sequence[EventMark]) -> str:
    """Return what identifies a sequence of events."""
    return hashlib.sha256(orjson.dumps(marks)).hexdigest()


class SavedStates:
    """The saved state of one fold and subject on one branch."""

    def __init__(self, paths: Paths, *names: str) -> None:
        # By their hash: names of subjects are longer than names of files, and have slashes.
        self._folder = f"{paths.cache}/folds"
        self._path = f"{self._folder}/{digest_of_names(names)}.json"

    def load(self) -> FoldCheckpoint | None:
        """Return the saved state, None if there is none or it is damaged."""
        try:
            line, _, checksum = File(self._path).read().partition(b"\n")
            # A power cut may leave half of a file, since it is not synced.
            if hashlib.sha256(line).hexdigest().encode() != checksum.strip():
                return None
            return FoldCheckpoint(**orjson.loads(line))
        except (OSError, TypeError, orjson.JSONDecodeError):
            return None

    def save(self, checkpoint: FoldCheckpoint) -> None:
        """Write a state; one that JSON does not give back as it is, is not written."""
        try:
            line = orjson.dumps(vars(checkpoint), option=orjson.OPT_PASSTHROUGH_SUBCLASS)
        except TypeError:
            return
        # A tuple becomes a list, an enum its number: such a state would be another one, also where
        # the two are equal.
        if repr(orjson.loads(line)["state"]) != repr(checkpoint.state):
            return
        # A fold is a question: that its answer cannot be saved does not make it fail.
        with contextlib.suppress(OSError):
            Folder(self._folder).make_all()
            checksum = hashlib.sha256(line).hexdigest().encode()
            File(self._path).replace(line + b"\n" + checksum + b"\n", sync=False)

    def remove(self) -> None:
        """Remove the saved state, of which events may have been erased meanwhile."""
        with contextlib.suppress(OSError):
            File(self._path).remove()


def digest_of_names(names: Sequence[str]) -> str:
    """Return a file name for a sequence of names."""
    return hashlib.sha256(orjson.dumps(names)).hexdigest()[:40]
