"""What is read in the place of states and segments of which rows were erased.

    erasures/states.json      of each state and segment that was rewritten, what is read instead

A state that named erased rows keeps its name: moves, tags, signatures and the state after it go on
naming it. What is read under that name is another manifest, which names the rewritten segments.
Its text is in no move and no tag any more, and comes back from none (F23.2).
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from lakelog import document
from lakelog.disk import NotIntact
from lakelog.errors import DamagedRef
from lakelog.keys import VAULT
from lakelog.paths import KEYS, FileName
from lakelog.values import JsonObject
from lakelog.volume.move_pack import MovePack
from lakelog.volume.volume import TICK_NS, Volume

FOLDER = "erasures"


_KEY_OF_STATES = f"{FOLDER}/states.json"
_SEARCHES_MAX = 4
_SNAPSHOT = re.compile(rb'"snapshot":"([0-9a-f]{64})"')
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Replacements:
    """What is read in the place of states, and of segments ("" for one of which nothing stayed), by
    digest."""

    states: dict[str, str] = field(default_factory=dict)
    segments: dict[str, str] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()
    """The erasures that did so, as far as a bucket has them: a listing there may lack new names."""


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

    def __init__(self, volume: Volume, encrypt: Callable[[bytes], bytes] | None = None) -> None:
        """`encrypt` is for a volume that does not encrypt by itself."""
        self._volume, self._encrypt = volume, encrypt or (lambda data: data)
        self._stamp = self.generation = 0
        self._read_at = TICK_NS + 1
        self._data = b""
        self._replacements: Replacements | None = Replacements()
        self._searches = 0

    def refresh(self) -> int:
        """Read again what something was erased since; return how often that was so. Costs one look
        at a folder."""
        stamp = self._volume.change_time(FOLDER)
        # What was read within the same tick as the last change may have changed again unnoticed.
        if stamp != self._stamp or self._read_at <= stamp + TICK_NS:
            self._stamp, self._read_at = stamp, time.time_ns()
            data = self._intact()
            if data != self._data:
                self._data, self._replacements, self._searches = data, None, 0
                self.generation += 1
        return self.generation

    def looked(self) -> tuple[int, int]:
        """Refresh; return what is another pair when anything may have been noted since, of erasures
        and of protected fields, and begins with 0 where nothing ever was."""
        self.refresh()
        return self._stamp, self._read_at

    def of(self, digest: str) -> str:
        """Return the digest of the manifest that is read as the state `digest`."""
        return self._current().states[digest] if self.holds(digest) else digest

    def holds(self, digest: str) -> bool:
        """Whether another manifest is read in the place of a state."""
        # The file grows with each state that is kept: who asks for the newest alone, as most do,
        # has it searched in less than half of the time that it takes to parse.
        if self._replacements is None and self._searches < _SEARCHES_MAX:
            self._searches += 1
            if digest.encode() not in self._data:
                return False
        return digest in self._current().states

    def segments(self) -> dict[str, str]:
        """The segments that were rewritten, and what stands in their place ("" for nothing)."""
        return self._current().segments

    def keys(self) -> frozenset[str]:
        """The keys of erasures that a bucket says it has."""
        return self._current().keys

    def add(self, states: dict[str, str], segments: dict[str, str]) -> None:
        """Add to what stands in the place of states and segments, durably. What an earlier erasure
        put there and this one rewrote again is forgotten."""
        self._write(self._joined(states, segments))

    def _joined(self, states: dict[str, str], segments: dict[str, str]) -> Replacements:
        before = self._read()
        states = {d: states.get(n, n) for d, n in before.states.items()} | states
        segments = {d: segments.get(n, n) for d, n in before.segments.items()} | segments
        return Replacements(states, segments, before.keys)

    def forget(self, digests: Iterable[str]) -> None:
        """Forget, durably, what stands in the place of states that nothing names any more, and of
        segments that came back."""
        before, forgotten = self._read(), set(digests)
        self._write(
            Replacements(
                {d: n for d, n in before.states.items() if d not in forgotten},
                {d: n for d, n in before.segments.items() if d not in forgotten},
                before.keys,
            )
        )

    def adopt(self, other: ErasedStates, key: str = "") -> None:
        """Add what stands in the place of states and segments in another copy of the lake, as it
        was read last, and the `key` of an erasure. Raises DamagedRef for what no lake would have
        written."""
        states, segments = other._current().states, other._current().segments
        digests = {*states, *states.values(), *segments, *segments.values()} - {""}
        if not all(map(_DIGEST.fullmatch, digests)):
            raise DamagedRef(other._volume.location(_KEY_OF_STATES), "it is malformed")
        joined = self._joined(states, segments)
        if key:
            joined = dataclasses.replace(joined, keys=joined.keys | {key})
        if joined != self._read():
            self._write(joined)

    def _write(self, replacements: Replacements) -> None:
        self._volume.make_folder(FOLDER)
        body: JsonObject = {"states": replacements.states, "segments": replacements.segments}
        if replacements.keys:
            body["erasures"] = sorted(replacements.keys)
        self._volume.replace(_KEY_OF_STATES, self._encrypt(document.encode(body)))

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

    def _current(self) -> Replacements:
        """What was read last."""
        if self._replacements is None:
            self._replacements = self._parsed(self._data)
        return self._replacements

    def _read(self) -> Replacements:
        return self._parsed(self._intact())

    def _parsed(self, data: bytes) -> Replacements:
        if not data:
            return Replacements()
        try:
            body = document.decode(data)
            keys = frozenset(filter(_KEY.fullmatch, body.get("erasures", ())))
            return Replacements(body["states"], body["segments"], keys)
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(error) from None

    def _intact(self) -> bytes:
        """The file as it was written, b"" where there is none."""
        try:
            data = VAULT.decrypt(self._volume.read(_KEY_OF_STATES))
            document.check(data)
            return data
        except FileNotFoundError:
            return b""
        except ValueError as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> DamagedRef:
        return DamagedRef(self._volume.location(_KEY_OF_STATES), f"it is damaged: {error}")


def _place(key: str) -> tuple[str, tuple[int, int] | None]:
    """The branch of a file of moves, and the numbers of packed ones."""
    folder, _, name = key.rpartition("/")
    return FileName.of(folder).ref, FileName(name).packed
