"""What is read in the place of states and segments of which rows were erased.

    erasures/states.json      of each state and segment that was rewritten, what is read instead

A state that named erased rows keeps its name: moves, tags, signatures and the state after it go on
naming it. What is read under that name is another manifest, which names the rewritten segments.
Its text is in no move and no tag any more, and comes back from none (F23.2).
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from lakelog.errors import DamagedRef
from lakelog.store import document
from lakelog.store.move_pack import decode_packed, encode_packed
from lakelog.store.paths import KEYS, decode_name, parse_move, parse_packed
from lakelog.store.volume import TICK_NS, Volume

FOLDER = "erasures"


_STATES = "states.json"
_SNAPSHOT = re.compile(rb'"snapshot":"([0-9a-f]{64})"')


@dataclass(frozen=True)
class Replacements:
    """What is read in the place of states, and of segments ("" for one of which nothing stayed), by
    digest."""

    states: dict[str, str] = field(default_factory=dict)
    segments: dict[str, str] = field(default_factory=dict)


class ErasedStates:
    """The replacements of the states of one lake, read again when they changed."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._stamp = self.generation = 0
        self._read_at = TICK_NS + 1
        self._replacements = Replacements()

    def refresh(self) -> int:
        """Read again what something was erased since; return how often that was so. Costs one look
        at a folder."""
        stamp = self._volume.change_time(FOLDER)
        # What was read within the same tick as the last change may have changed again unnoticed.
        if stamp != self._stamp or self._read_at <= stamp + TICK_NS:
            self._stamp, self._read_at = stamp, time.time_ns()
            replacements = self._read()
            if replacements != self._replacements:
                self._replacements = replacements
                self.generation += 1
        return self.generation

    def of(self, digest: str) -> str:
        """Return the digest of the manifest that is read as the state `digest`."""
        return self._replacements.states.get(digest, digest)

    def holds(self, digest: str) -> bool:
        """Whether another manifest is read in the place of a state."""
        return digest in self._replacements.states

    def segments(self) -> dict[str, str]:
        """The segments that were rewritten, and what stands in their place ("" for nothing)."""
        return self._replacements.segments

    def add(self, states: dict[str, str], segments: dict[str, str]) -> None:
        """Add to what stands in the place of states and segments, durably. What an earlier erasure
        put there and this one rewrote again is forgotten."""
        before = self._read()
        states = {d: states.get(d, n) for d, n in before.states.items()} | states
        segments = {d: segments.get(n, n) for d, n in before.segments.items()} | segments
        self._volume.make_folder(FOLDER)
        body = {"states": states, "segments": segments}
        self._volume.replace(f"{FOLDER}/{_STATES}", document.encode(body))

    def refs(self) -> Iterator[str]:
        """Yield the keys of all moves, packed moves and tags."""
        for name in self._volume.folders(KEYS.heads):
            for file in sorted(self._volume.names(f"{KEYS.heads}/{name}")):
                if parse_move(file) is not None or parse_packed(file):
                    yield f"{KEYS.heads}/{name}/{file}"
        for file in sorted(self._volume.names(KEYS.tags)):
            if file.endswith(".json") and not file.startswith("."):
                yield f"{KEYS.tags}/{file}"

    def stripped(self, key: str) -> bytes | None:
        """Return the file of a move, of packed moves or of a tag without the texts of states in
        whose place others are read, None where it has none of them."""
        with contextlib.suppress(FileNotFoundError, document.NotIntact):
            data = self._volume.read(key)
            folder, _, name = key.rpartition("/")
            span = parse_packed(name)
            if span is None:
                line = self._line(data)
                return line if line != data else None
            branch = decode_name(folder.rpartition("/")[2])
            moves = decode_packed(data, branch, *span)
            lines = {number: self._line(move) for number, move in moves.items()}
            return encode_packed(branch, *span, lines) if lines != moves else None
        return None

    def _line(self, data: bytes) -> bytes:
        """The document of a move or tag alone if its state was replaced, else all of it."""
        line, carried = document.split(data)
        snapshot = _SNAPSHOT.search(line)
        is_replaced = carried and snapshot and self.holds(snapshot[1].decode())
        return line if is_replaced else data

    def _read(self) -> Replacements:
        key = f"{FOLDER}/{_STATES}"
        try:
            body = document.decode(self._volume.read(key))
            return Replacements(body["states"], body["segments"])
        except FileNotFoundError:
            return Replacements()
        except (document.NotIntact, KeyError) as error:
            raise DamagedRef(self._volume.location(key), f"it is damaged: {error}") from None
