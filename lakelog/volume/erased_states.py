"""What is read in the place of states and segments of which rows were erased.

A state that named erased rows keeps its name: moves, tags, signatures and the state after it go on
naming it. What is read under that name is another manifest, which names the rewritten segments.
Its text is in no move and no tag any more, and comes back from none (F23.2). Where that is written
is in replacements.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from lakelog import document
from lakelog.disk import NotIntact
from lakelog.errors import DamagedRef
from lakelog.paths import KEYS, FileName
from lakelog.volume.move_pack import MovePack
from lakelog.volume.replacements import (
    DIGEST,
    FOLDER,
    INDEX,
    ReplacementFile,
    ReplacementIndex,
    Replacements,
)
from lakelog.volume.volume import TICK_NS, Volume

T = TypeVar("T")
_SNAPSHOT = re.compile(rb'"snapshot":"([0-9a-f]{64})"')


class SweptLake(Protocol):
    """A lake, or what is known of one elsewhere."""

    @property
    def volume(self) -> Volume:
        """Where its files are."""

    @property
    def erased(self) -> ErasedStates:
        """What is read there in the place of which states."""


class ErasedStates:
    """The replacements of the states of one lake, read again when they changed."""

    def __init__(
        self,
        volume: Volume,
        encrypt: Callable[[bytes], bytes] | None = None,
        *,
        on_change: Callable[[], object] = lambda: None,
    ) -> None:
        """`encrypt` is for a volume that does not encrypt by itself. `on_change` is called when
        anything may have been noted, of erasures and of protected fields."""
        self._volume, self._file = volume, ReplacementFile(volume, encrypt)
        self._stamp = self.generation = 0
        self._read_at = TICK_NS + 1
        self._index, self._on_change = ReplacementIndex(self._file, b""), on_change

    def refresh(self) -> int:
        """Read again what something was erased since; return how often that was so. Costs one look
        at a folder."""
        stamp = self._volume.change_time(FOLDER)
        # What was read within the same tick as the last change may have changed again unnoticed.
        if stamp != self._stamp or self._read_at <= stamp + TICK_NS:
            self._stamp, self._read_at = stamp, time.time_ns()
            self._on_change()
            self._renew()
        return self.generation

    def _renew(self) -> bool:
        content = self._file.content()
        if is_new := content != self._index.content:
            self._index = ReplacementIndex(self._file, content)
            self.generation += 1
        return is_new

    def _find(self, search: Callable[[ReplacementIndex], T]) -> T:
        """What a search finds, in the file that is there now where shards of the one that was read
        were removed. Raises DamagedRef."""
        while True:
            try:
                return search(self._index)
            except FileNotFoundError as error:
                if not self._renew():
                    raise DamagedRef(
                        error.filename or self._volume.location(INDEX), "it is missing"
                    ) from None

    def looked(self) -> tuple[int, int]:
        """Refresh; return what is another pair when anything may have been noted since, of erasures
        and of protected fields, and begins with 0 where nothing ever was."""
        self.refresh()
        return self._stamp, self._read_at

    def of(self, digest: str) -> str:
        """Return the digest of the manifest that is read as the state `digest`."""
        return self._find(lambda index: index.shard(digest).of(digest)) or digest

    def holds(self, digest: str) -> bool:
        """Whether another manifest is read in the place of a state."""
        return self._find(lambda index: index.shard(digest).of(digest)) is not None

    def segments(self) -> dict[str, str]:
        """The segments that were rewritten, and what stands in their place ("" for nothing)."""
        return self._find(ReplacementIndex.whole).segments

    def keys(self) -> frozenset[str]:
        """The keys of erasures that a bucket says it has."""
        return self._find(ReplacementIndex.whole).keys

    def add(self, states: dict[str, str], segments: dict[str, str]) -> None:
        """Add to what stands in the place of states and segments, durably. What an earlier erasure
        put there and this one rewrote again is forgotten."""
        with self._file.locked():
            self._file.write(_joined(self._read(), states, segments))

    def forget(self, digests: Iterable[str]) -> None:
        """Forget, durably, what stands in the place of states that nothing names any more, and of
        segments that came back."""
        forgotten = set(digests)
        with self._file.locked():
            before = self._read()
            states = {d: n for d, n in before.states.items() if d not in forgotten}
            segments = {d: n for d, n in before.segments.items() if d not in forgotten}
            self._file.write(Replacements(states, segments, before.keys))

    def adopt(self, other: ErasedStates, key: str = "") -> None:
        """Add what stands in the place of states and segments in another copy of the lake, as it
        was read last, and the `key` of an erasure. Raises DamagedRef for what no lake would have
        written."""
        replacements = other._find(ReplacementIndex.whole)
        states, segments = replacements.states, replacements.segments
        digests = {*states, *states.values(), *segments, *segments.values()} - {""}
        if not all(map(DIGEST.fullmatch, digests)):
            raise DamagedRef(other._volume.location(INDEX), "it is malformed")
        with self._file.locked():
            before = self._read()
            joined = _joined(before, states, segments)
            if key:
                joined = dataclasses.replace(joined, keys=joined.keys | {key})
            if joined != before:
                self._file.write(joined)

    def legible(self) -> tuple[Replacements, dict[str, DamagedRef]]:
        """What the disk says now, and what is wrong with the rest, by the digits that the digests
        there begin with: "" for all of them."""
        return self._file.legible()

    def strewn(self) -> Replacements:
        """What the shards on the disk say, whatever the index names."""
        return self._file.strewn()

    def rewrite(self, replacements: Replacements) -> None:
        """Note this and nothing else, durably."""
        with self._file.locked():
            self._file.write(replacements)

    def copy_to(self, other: ErasedStates) -> None:
        """Put what stands in the place of which states now into a copy of the lake, whatever it
        had."""
        current = self._read()
        if current != Replacements():
            other.rewrite(current)

    def refs(self) -> Iterator[str]:
        """Yield the keys of all moves, packed moves and tags."""
        for name in self._volume.folders(KEYS.heads):
            for file in sorted(self._volume.names(f"{KEYS.heads}/{name}")):
                if FileName(file).move is not None or FileName(file).packed:
                    yield f"{KEYS.heads}/{name}/{file}"
        for file in sorted(self._volume.names(KEYS.tags)):
            if file.endswith(".json") and not file.startswith("."):
                yield f"{KEYS.tags}/{file}"

    def replaced_refs(self) -> Iterator[str]:
        """Yield the keys of moves, packed ones as if they had files of their own, and of tags in
        the place of whose states others are read."""
        for key in self.refs():
            branch, span = _place(key)
            for number, data in self._files(key).items():
                snapshot = _SNAPSHOT.search(document.split(data)[0])
                if snapshot and self.holds(snapshot[1].decode()):
                    yield KEYS.move(branch, number) if span else key

    def stripped(self, key: str) -> bytes | None:
        """Return the file of a move, of packed moves or of a tag without the texts of states in
        whose place others are read, None where it has none of them."""
        files = self._files(key)
        lines = {number: self.without_text(data) for number, data in files.items()}
        if lines == files:
            return None
        branch, span = _place(key)
        return MovePack(branch, *span).encode(lines) if span else lines[0]

    def named(self, key: str) -> Iterator[tuple[str, bytes]]:
        """Yield the state that each move or tag of such a file names, and the text that it carries
        for it."""
        for data in self._files(key).values():
            line, carried = document.split(data)
            if snapshot := _SNAPSHOT.search(line):
                yield snapshot[1].decode(), carried

    def _files(self, key: str) -> dict[int, bytes]:
        """The files of packed moves by number, or the one of a move or tag; none that is damaged or
        gone."""
        with contextlib.suppress(FileNotFoundError, NotIntact):
            data = self._volume.read(key)
            branch, span = _place(key)
            return MovePack(branch, *span).decode(data) if span else {0: data}
        return {}

    def without_text(self, data: bytes) -> bytes:
        """The document of a move or tag alone if its state was replaced, else all of it."""
        line, carried = document.split(data)
        snapshot = _SNAPSHOT.search(line)
        is_replaced = carried and snapshot and self.holds(snapshot[1].decode())
        return line if is_replaced else data

    def _read(self) -> Replacements:
        self._renew()
        return self._find(ReplacementIndex.whole)


def _joined(before: Replacements, states: dict[str, str], segments: dict[str, str]) -> Replacements:
    # Where a copy only lacks a segment, another knows what stands in its place.
    rewritten = {d: n for d, n in segments.items() if d != n or d not in before.segments}
    joined_states, joined_segments = before.states | states, before.segments | rewritten
    return Replacements(_followed(joined_states), _followed(joined_segments), before.keys)


def _followed(mapping: dict[str, str]) -> dict[str, str]:
    """The same, with what stands at last in the place of each: what an earlier erasure put there, a
    later one may have replaced, and a copy that did not hear of that says the earlier."""
    ends = dict[str, str]()
    for digest, replacement in mapping.items():
        passed = {digest}
        while replacement not in passed and replacement in mapping:
            passed.add(replacement)
            replacement = mapping[replacement]
        # One that leads back to itself, such as a lost segment, is taken at its word.
        ends[digest] = mapping[digest] if replacement == digest else replacement
    return ends


def _place(key: str) -> tuple[str, tuple[int, int] | None]:
    """The branch of a file of moves, and the numbers of packed ones."""
    folder, _, name = key.rpartition("/")
    return FileName.of(folder).ref, FileName(name).packed
