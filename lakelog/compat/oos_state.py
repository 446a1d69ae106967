"""What the five OOS views need to know of a log, kept as arrays that grow with it.

    items        a 64-bit hash, the newest time and the state of each item: 17 bytes
    times        of every event, and of every completion: 8 bytes each
    sources      [completed, failed] of each; errors: how often each; the newest ten failures

Events may come in any order and any number of batches: of one item the newest time wins, and of
equal times what came later. Nothing of an event is kept but that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from lakelog.lazy import Lazy

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    np = Lazy("numpy")
    pa = Lazy("pyarrow")
    pc = Lazy("pyarrow.compute")

STATES = {"DISCOVER": "discovered", "PROCESS": "processing", "COMPLETE": "completed"} | {
    "FAIL": "failed"
}
"""Event types that say how an item stands."""
FAILURES = 10
_CHUNKS = 32
_NAMES = tuple(STATES)
_COMPLETE, _FAIL = _NAMES.index("COMPLETE"), _NAMES.index("FAIL")


@dataclass
class Batch:
    """Events: `time` in us, `order` for those of equal times, and texts; `data` of some rows."""

    time: np.ndarray
    order: np.ndarray
    type: pa.Array
    source: pa.Array
    item: pa.Array
    data: Callable[[np.ndarray], list[str | None]]


@dataclass
class Failure:
    """One failure, sorted by when it was."""

    time: int
    order: int
    source: str | None
    item: str | None
    error: str


@dataclass
class State:
    """The log so far. Arrays are replaced, never changed, so a copy shares them."""

    items: np.ndarray
    item_times: np.ndarray
    item_states: np.ndarray
    times: list[np.ndarray] = field(default_factory=list)
    completions: list[np.ndarray] = field(default_factory=list)
    sources: dict[str, list[int]] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    first: int | None = None

    def copy(self) -> State:
        """Return a state that can go on apart from this one."""
        return State(
            self.items,
            self.item_times,
            self.item_states,
            list(self.times),
            list(self.completions),
            {name: list(n) for name, n in self.sources.items()},
            dict(self.errors),
            list(self.failures),
            self.first,
        )

    def add(self, batch: Batch) -> None:
        """Take events in."""
        if not len(batch.time):
            return
        found = pc.index_in(batch.type, _names(batch.type.type))
        kinds = np.nan_to_num(found.to_numpy(zero_copy_only=False), nan=-1).astype(np.int8)
        low = int(batch.time.min())
        self.first = low if self.first is None else min(low, self.first)
        self.times = _joined([*self.times, batch.time])
        done, failed = kinds == _COMPLETE, kinds == _FAIL
        if done.any():
            self.completions = _joined([*self.completions, batch.time[done]])
        self._count(batch.source, (done, failed))
        if failed.any():
            self._fail(batch, np.flatnonzero(failed))
        self._advance(batch, kinds)

    def active(self, low: int, high: int) -> int:
        """How many events have a time above `low`, up to `high`."""
        return sum(int(np.count_nonzero((t > low) & (t <= high))) for t in self.times)

    def completed(self, low: int, high: int) -> np.ndarray:
        """The times of completions above `low`, up to `high`."""
        none = np.empty(0, np.int64)
        return np.concatenate([none, *(t[(t > low) & (t <= high)] for t in self.completions)])

    def standing(self) -> dict[str, int]:
        """How many items stand in each state."""
        counts = (int(np.count_nonzero(self.item_states == n)) for n in range(len(_NAMES)))
        return dict(zip(STATES.values(), counts, strict=True))

    def _count(self, source: pa.Array, outcomes: tuple[np.ndarray, np.ndarray]) -> None:
        """Add the outcomes of each source."""
        coded = source.dictionary_encode(null_encoding="encode")
        names, codes = coded.dictionary.to_pylist(), coded.indices.to_numpy()
        sums = [np.bincount(codes[mask], minlength=len(names)).tolist() for mask in outcomes]
        for name, *more in zip(names, *sums, strict=True):
            if any(more):
                counts = self.sources.setdefault(name or "", [0, 0])
                counts[:] = (counts[0] + more[0], counts[1] + more[1])

    def _fail(self, batch: Batch, at: np.ndarray) -> None:
        """Count errors, and keep the newest failures."""
        errors = [_error_of(text) for text in batch.data(at)]
        for error in errors:
            self.errors[error] = self.errors.get(error, 0) + 1
        newest = np.lexsort((batch.order[at], batch.time[at]))[-FAILURES:]
        sources, items = (
            column.take(at[newest]).to_pylist() for column in (batch.source, batch.item)
        )
        for i, source, item in zip(newest.tolist(), sources, items, strict=True):
            made = Failure(int(batch.time[at[i]]), int(batch.order[at[i]]), source, item, errors[i])
            self.failures.append(made)
        # stable: of equal times what was taken in later is newer
        self.failures = sorted(self.failures, key=lambda f: f.time)[-FAILURES:]

    def _advance(self, batch: Batch, kinds: np.ndarray) -> None:
        """Let the newest event of each item say how it stands."""
        coded = batch.item.dictionary_encode(null_encoding="encode")
        texts, codes = coded.dictionary.to_pylist(), coded.indices.to_numpy()
        hashes = np.fromiter(map(hash, texts), np.int64, len(texts))
        named = kinds >= 0
        for nothing in (None, ""):
            if nothing in texts:
                named &= codes != texts.index(nothing)
        keys = hashes[codes[named]]
        if not len(keys):
            return
        time, order, state = batch.time[named], batch.order[named], kinds[named].astype(np.uint8)
        settled = bool(np.all(time[1:] >= time[:-1]) and np.all(order[1:] > order[:-1]))
        by = np.argsort(keys, kind="stable") if settled else np.lexsort((order, time, keys))
        last = by[np.append(keys[by][1:] != keys[by][:-1], True)]
        keys, time, state = keys[last], time[last], state[last]
        place = np.searchsorted(self.items, keys)
        known = place < len(self.items)
        known[known] = self.items[place[known]] == keys[known]
        newer = known.copy()
        newer[known] = time[known] >= self.item_times[place[known]]
        if newer.any():
            self.item_times, self.item_states = self.item_times.copy(), self.item_states.copy()
            self.item_times[place[newer]] = time[newer]
            self.item_states[place[newer]] = state[newer]
        new = ~known
        self.items = np.insert(self.items, place[new], keys[new])
        self.item_times = np.insert(self.item_times, place[new], time[new])
        self.item_states = np.insert(self.item_states, place[new], state[new])


def empty() -> State:
    """Return the state of an empty log."""
    return State(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8))


@functools.cache
def _names(kind: pa.DataType) -> pa.Array:
    """The names of STATES in a type of text."""
    return pa.array(_NAMES, kind)


def _error_of(text: str | None) -> str:
    """What `data` calls the error, or unknown."""
    try:
        data = orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        data = None
    error = data.get("error") if isinstance(data, dict) else None
    if error is None or error == "":
        return "unknown"
    return error if isinstance(error, str) else orjson.dumps(error).decode()


def _joined(chunks: list[np.ndarray]) -> list[np.ndarray]:
    """Join chunks once they are many."""
    return chunks if len(chunks) < _CHUNKS else [np.concatenate(chunks)]
