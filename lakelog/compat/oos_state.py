"""The state of the five OOS views, as arrays that grow with the log.

    items        a 64-bit hash, the newest time and the state of each item: 17 bytes
    times        of every event, and of every completion: 8 bytes each
    sources      [completed, failed] of each; errors: count of each; the newest ten failures

Events may come in any order and in any number of batches: of one item the newest time wins, and of
equal times what was added later. Nothing else of an event is kept. `SmallState` is the same in
plain Python, for small logs: it has answered before numpy and Arrow are loaded.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections import Counter
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
# As many as the older view showed.
FAILURES = 10
HOUR = 3_600_000_000
# Joining at each batch would copy all times each time.
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
        """Return a state that can be extended independently of this one."""
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
        """Add a batch of events."""
        if not len(batch.time):
            return
        codes = pc.index_in(batch.type, _names(batch.type.type))
        kinds = np.nan_to_num(codes.to_numpy(zero_copy_only=False), nan=-1).astype(np.int8)
        low = int(batch.time.min())
        self.first = low if self.first is None else min(low, self.first)
        self.times = _join_chunks([*self.times, batch.time])
        completed, failed = kinds == _COMPLETE, kinds == _FAIL
        if completed.any():
            self.completions = _join_chunks([*self.completions, batch.time[completed]])
        self._count(batch.source, (completed, failed))
        if failed.any():
            self._fail(batch, np.flatnonzero(failed))
        # Also with events that say nothing of an item: they are filtered there, together with the
        # empty names.
        self._advance(batch, kinds)

    def active(self, low: int, high: int) -> int:
        """How many events have a time above `low`, up to `high`."""
        return sum(int(np.count_nonzero((t > low) & (t <= high))) for t in self.times)

    def completed(self, low: int, high: int) -> dict[int, int]:
        """Completions above `low`, up to `high`, by hours since 1970, in their order."""
        none = np.empty(0, np.int64)
        times = np.concatenate([none, *(t[(t > low) & (t <= high)] for t in self.completions)])
        hours, counts = np.unique(times // HOUR, return_counts=True)
        return dict(zip(hours.tolist(), counts.tolist(), strict=True))

    def standing(self) -> dict[str, int]:
        """Return how many items are in each state."""
        counts = (int(np.count_nonzero(self.item_states == n)) for n in range(len(_NAMES)))
        return dict(zip(STATES.values(), counts, strict=True))

    def _count(self, source: pa.Array, outcomes: tuple[np.ndarray, np.ndarray]) -> None:
        """Add the outcomes of each source."""
        encoded = source.dictionary_encode(null_encoding="encode")
        names, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
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
            failure = Failure(
                int(batch.time[at[i]]), int(batch.order[at[i]]), source, item, errors[i]
            )
            self.failures.append(failure)
        # stable: of equal times what was taken in later is newer
        self.failures = sorted(self.failures, key=lambda f: f.time)[-FAILURES:]

    def _advance(self, batch: Batch, kinds: np.ndarray) -> None:
        """Set each item to the state of its newest event."""
        encoded = batch.item.dictionary_encode(null_encoding="encode")
        texts, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
        # Python's hash of each distinct text, 8 bytes instead of the text: items are only counted
        # by state, never named.
        hashes = np.fromiter(map(hash, texts), np.int64, len(texts))
        has_item = kinds >= 0
        # An event without an item says nothing about one.
        for nothing in (None, ""):
            if nothing in texts:
                has_item &= codes != texts.index(nothing)
        keys = hashes[codes[has_item]]
        if not len(keys):
            return
        time, order, state = (
            batch.time[has_item],
            batch.order[has_item],
            kinds[has_item].astype(np.uint8),
        )
        # A log is nearly always in order of time, and a stable sort by key is much faster than one
        # by three columns.
        in_order = bool(np.all(time[1:] >= time[:-1]) and np.all(order[1:] > order[:-1]))
        by = np.argsort(keys, kind="stable") if in_order else np.lexsort((order, time, keys))
        # The last of each run of equal keys is the newest event of that item.
        last = by[np.append(keys[by][1:] != keys[by][:-1], True)]
        keys, time, state = keys[last], time[last], state[last]
        # Items are kept sorted, so a batch is merged without a dict of all items.
        place = np.searchsorted(self.items, keys)
        is_known = place < len(self.items)
        is_known[is_known] = self.items[place[is_known]] == keys[is_known]
        newer = is_known.copy()
        # Also at equal times: what was taken in later wins.
        newer[is_known] = time[is_known] >= self.item_times[place[is_known]]
        if newer.any():
            # Copied before they are changed: another state may share them (see State).
            self.item_times, self.item_states = self.item_times.copy(), self.item_states.copy()
            self.item_times[place[newer]] = time[newer]
            self.item_states[place[newer]] = state[newer]
        # Inserted after the update above, because that moves the places.
        new = ~is_known
        self.items = np.insert(self.items, place[new], keys[new])
        self.item_times = np.insert(self.item_times, place[new], time[new])
        self.item_states = np.insert(self.item_states, place[new], state[new])


Row = tuple[int, str, str, str, str]
"""Time in us, type, source, item and JSON of an event."""


@dataclass
class SmallState:
    """The log so far, as State has it; times are sorted."""

    items: dict[str, tuple[int, str]] = field(default_factory=dict)
    times: list[int] = field(default_factory=list)
    completions: list[int] = field(default_factory=list)
    sources: dict[str, list[int]] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    first: int | None = None

    def copy(self) -> SmallState:
        """Return a state that can be extended independently of this one."""
        return SmallState(
            dict(self.items),
            list(self.times),
            list(self.completions),
            {name: list(n) for name, n in self.sources.items()},
            dict(self.errors),
            list(self.failures),
            self.first,
        )

    def add(self, rows: list[Row]) -> None:
        """Add events, in the order in which they stand in the log."""
        items = self.items
        for time, kind, source, item, text in rows:
            if kind in STATES and item:
                known = items.get(item)
                if known is None or time >= known[0]:
                    items[item] = time, kind
            if kind == "COMPLETE":
                self.completions.append(time)
                self.sources.setdefault(source, [0, 0])[0] += 1
            elif kind == "FAIL":
                error = _error_of(text)
                self.sources.setdefault(source, [0, 0])[1] += 1
                self.errors[error] = self.errors.get(error, 0) + 1
                self.failures.append(Failure(time, len(self.times), source, item, error))
        self.times += [row[0] for row in rows]
        # Nearly in order as a rule: then sorting is one pass, and counting is a search.
        self.times.sort()
        self.completions.sort()
        self.first = self.times[0] if self.times else None
        # stable: of equal times what was taken in later is newer
        self.failures = sorted(self.failures, key=lambda f: f.time)[-FAILURES:]

    def active(self, low: int, high: int) -> int:
        """How many events have a time above `low`, up to `high`."""
        return bisect_right(self.times, high) - bisect_right(self.times, low)

    def completed(self, low: int, high: int) -> dict[int, int]:
        """Completions above `low`, up to `high`, by hours since 1970, in their order."""
        first, last = (bisect_right(self.completions, time) for time in (low, high))
        return dict(Counter(time // HOUR for time in self.completions[first:last]))

    def standing(self) -> dict[str, int]:
        """Return how many items are in each state."""
        counts = Counter(kind for _, kind in self.items.values())
        return {state: counts[kind] for kind, state in STATES.items()}


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


def _join_chunks(chunks: list[np.ndarray]) -> list[np.ndarray]:
    """Join chunks once they are many."""
    return chunks if len(chunks) < _CHUNKS else [np.concatenate(chunks)]
