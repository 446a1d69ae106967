"""Segments that came from another lake: gc/received/<32 hex>.json, one document for each transfer.

What a fetch or the push of an erasure brought is named by no state once its tag is gone, nor is
what was pushed here with a tag, or by a push that died. Unlike what was sealed or ingested here,
it proves no lost move then (F14.7).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator

from lakelog import document
from lakelog.disk import NotIntact
from lakelog.paths import KEYS
from lakelog.volume import ErasedStates, Volume

_NOTES_MAX, _LONG = 100, 10_000
"""From so many notes on, those of fewer segments are put together in one."""


class ReceivedSegments:
    """The segments of one lake that came from others."""

    def __init__(self, volume: Volume, erased: ErasedStates) -> None:
        self._volume, self._erased = volume, erased

    @staticmethod
    def note(volume: Volume, keys: Collection[str]) -> None:
        """Note segments durably in a lake, before they are there."""
        _write(volume, keys)
        # Where nobody collects garbage, there would be a file for each of all transfers.
        if len(names := volume.names(KEYS.received)) > _NOTES_MAX:
            short = {key: noted for key, noted in _read(volume, names) if len(noted) < _LONG}
            _replace(volume, short, {segment for noted in short.values() for segment in noted})

    def add(self, keys: Collection[str]) -> None:
        """Note segments durably, before they are here."""
        self.note(self._volume, keys)

    def keys(self) -> set[str]:
        """The segments that were noted, and those that erasures put in their place."""
        return self._with_replacements(key for _, keys in self._notes() for key in keys)

    def trim(self, is_old: Callable[[str], bool]) -> None:
        """Put the notes whose transfers are over, by their keys, together in one, without the
        segments that are gone. Raises OSError."""
        notes = [(key, segments) for key, segments in self._notes() if is_old(key)]
        noted = {segment for _, segments in notes for segment in segments}
        keys, exists = self._with_replacements(noted), self._volume.exists
        present = {key for key in keys if exists(KEYS.object("segments", key))}
        if len(notes) > 1 or present != noted:
            _replace(self._volume, (key for key, _ in notes), present)

    def _with_replacements(self, keys: Iterable[str]) -> set[str]:
        noted = set(keys)
        replaced = self._erased.segments() if noted else {}
        return noted | {replaced[key] for key in noted & replaced.keys() if replaced[key]}

    def _notes(self) -> Iterator[tuple[str, list[str]]]:
        return _read(self._volume, self._volume.names(KEYS.received))


def _write(volume: Volume, keys: Collection[str]) -> str:
    """Write a note durably; return its key."""
    data = document.encode({"segments": sorted(keys)})
    key = f"{KEYS.received}/{document.digest(data)[:32]}.json"
    volume.put(key, data)
    return key


def _replace(volume: Volume, notes: Iterable[str], keys: Collection[str]) -> None:
    """Put one note of some segments in the place of others, none where there are no segments."""
    together = _write(volume, keys) if keys else ""
    for obsolete in set(notes) - {together}:
        volume.remove(obsolete)


def _read(volume: Volume, names: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the keys of the notes that are intact, and the segments of each."""
    for name in names:
        key = f"{KEYS.received}/{name}"
        if name.endswith(".json"):
            with contextlib.suppress(FileNotFoundError, NotIntact):
                segments = document.decode(volume.read(key)).get("segments")
                # Of a directory that others write to.
                if isinstance(segments, list) and all(isinstance(s, str) for s in segments):
                    yield key, segments
