"""Segments that came from another lake: gc/received/<32 hex>.json, one document for each transfer.

What a fetch or the push of an erasure brought is named by no state once its tag is gone, nor is
what was pushed here with a tag, or by a push that died. Unlike what was sealed or ingested here,
it proves no lost move then (F14.7).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator

from lakelog import document
from lakelog.disk import DOCUMENT_MAX, File, Folder, NotIntact
from lakelog.paths import Paths
from lakelog.volume import ErasedStates


class ReceivedSegments:
    """The segments of one lake that came from others."""

    def __init__(self, paths: Paths, erased: ErasedStates) -> None:
        self._paths, self._erased = paths, erased

    @staticmethod
    def note(keys: Collection[str]) -> tuple[str, bytes]:
        """Return the name of a note of segments, and its bytes."""
        data = document.encode({"segments": sorted(keys)})
        return f"{document.digest(data)[:32]}.json", data

    def add(self, keys: Collection[str]) -> str:
        """Note segments durably, before they are here; return the path of the note."""
        name, data = self.note(keys)
        path = f"{self._paths.received}/{name}"
        File(path).put(data)
        return path

    def keys(self) -> set[str]:
        """The segments that were noted, and those that erasures put in their place."""
        return self._with_replacements(key for _, keys in self._notes() for key in keys)

    def trim(self, is_old: Callable[[str], bool]) -> None:
        """Put the notes whose downloads are over, by their paths, together in one, without the
        segments that are gone. Raises OSError."""
        notes = [(path, keys) for path, keys in self._notes() if is_old(path)]
        noted = {key for _, keys in notes for key in keys}
        present = set(filter(self._is_here, self._with_replacements(noted)))
        if len(notes) < 2 and present == noted:
            return
        path = self.add(present) if present else ""
        for obsolete in {path for path, _ in notes} - {path}:
            File(obsolete).remove()

    def _with_replacements(self, keys: Iterable[str]) -> set[str]:
        noted = set(keys)
        replaced = self._erased.segments() if noted else {}
        return noted | {replaced[key] for key in noted & replaced.keys() if replaced[key]}

    def _is_here(self, key: str) -> bool:
        return File(self._paths.object("segments", key)).exists()

    def _notes(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the paths of the notes that are intact, and the segments of each."""
        for name in Folder(self._paths.received).names():
            path = f"{self._paths.received}/{name}"
            if name.endswith(".json"):
                with contextlib.suppress(FileNotFoundError, NotIntact):
                    yield path, document.decode(File(path).read(DOCUMENT_MAX))["segments"]
