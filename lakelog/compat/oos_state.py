"""The state of the five OOS views, as arrays that grow with the log.

    items        a 64-bit hash, the newest time and the state of each item: 17 bytes
    times        of every event, and of every completion: 8 bytes each
    sources      [completed, failed] of each; errors: count of each; the newest ten failures

Events may come in any order and in any number of batches: of one item the newest time wins, and of
equal times what was added later. Nothing else of an event is kept. Batches are added up each by
itself, as threads may do, and many of them are merged into a state at once. `SmallState` is the
same in plain Python, for small logs: it has answered before numpy and Arrow are loaded.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from lakelog.compat import oos_hashes
from lakelog.lazy import Lazy
from lakelog.store import arrays

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
UNKNOWN = "unknown"
"""What the error of a payload is called that names none."""
# Joining at each batch would copy all times each time.
_CHUNKS = 32
_NAMES = tuple(STATES)
_COMPLETE, _FAIL = _NAMES.index("COMPLETE"), _NAMES.index("FAIL")


@dataclass
class Batch:
    """Events: `time` in us, `order` for those of equal times, and texts, which may be dictionaries;
    `errors` are the texts of some rows."""

    time: np.ndarray
    order: np.ndarray
    type: pa.Array
    source: pa.Array
    item: pa.Array
    errors: Callable[[np.ndarray], pa.Array]


@dataclass
class Failure:
    """One failure, sorted by when it was."""

    time: int
    order: int
    source: str | None
    item: str | None
    error: str


@dataclass
class Sums:
    """What a batch adds to a state. Items come with the time and state of each of their events, in
    the order of these."""

    times: np.ndarray
    completions: np.ndarray
    sources: dict[str, list[int]]
    errors: dict[str, int]
    failures: list[Failure]
    items: np.ndarray
    item_times: np.ndarray
    item_states: np.ndarray


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

    def merge(self, parts: list[Sums]) -> None:
        """Add batches that were added up, each of events that arrived after those before."""
        parts = [part for part in parts if len(part.times)]
        if not parts:
            return
        low = min(int(part.times.min()) for part in parts)
        self.first = low if self.first is None else min(low, self.first)
        self.times = _join_chunks([*self.times, *(part.times for part in parts)])
        completions = [part.completions for part in parts if len(part.completions)]
        self.completions = _join_chunks([*self.completions, *completions])
        for part in parts:
            for name, more in part.sources.items():
                counts = self.sources.setdefault(name, [0, 0])
                counts[:] = (counts[0] + more[0], counts[1] + more[1])
            for error, count in part.errors.items():
                self.errors[error] = self.errors.get(error, 0) + count
            self.failures += part.failures
        # stable: of equal times what was taken in later is newer
        self.failures = sorted(self.failures, key=lambda f: f.time)[-FAILURES:]
        self._advance(*_newest(parts))

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

    def _advance(self, keys: np.ndarray, time: np.ndarray, state: np.ndarray) -> None:
        """Set items, each once and in the order of their hashes, to their newest state."""
        if not len(self.items):
            self.items, self.item_times, self.item_states = keys, time, state
            return
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


def add_up(batch: Batch) -> Sums:
    """Return what a batch adds to a state."""
    kinds = _kinds(batch.type)
    failed = np.flatnonzero(kinds == _FAIL)
    errors, failures = _failed(batch, failed) if len(failed) else ({}, [])
    items, times, states = _item_events(batch, kinds)
    return Sums(
        batch.time,
        batch.time[kinds == _COMPLETE],
        _outcomes(batch.source, kinds),
        errors,
        failures,
        items,
        times,
        states,
    )


def errors_of(texts: pa.Array) -> pa.Array:
    """Return what each payload calls the error, or UNKNOWN."""
    # One by one: taking texts apart as a column takes twice as long as parsing them.
    return arrays.texts(list(map(error_of, texts.to_pylist())))


def error_of(text: str | None) -> str:
    """Return what a payload calls the error, or UNKNOWN."""
    try:
        data = orjson.loads(text) if text else None
    except orjson.JSONDecodeError:
        data = None
    error = data.get("error") if isinstance(data, dict) else None
    if error is None or error == "":
        return UNKNOWN
    return error if isinstance(error, str) else orjson.dumps(error).decode()


def _kinds(types: pa.Array) -> np.ndarray:
    """Return the place in STATES of each type, -1 for others."""
    names, codes = encoded(types)
    places = [_NAMES.index(name) if name in STATES else -1 for name in names]
    return np.take(np.array(places, np.int8), codes)


def encoded(column: pa.Array) -> tuple[list[str | None], np.ndarray]:
    """Return the distinct texts of a column, None at their end, and the place of each row's."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    names, codes = column.dictionary.to_pylist(), arrays.numbers(column.indices.cast(pa.int64()))
    if column.null_count:
        codes = np.where(arrays.truths(column.is_valid()), codes, len(names))
    return [*names, None], codes


def _outcomes(source: pa.Array, kinds: np.ndarray) -> dict[str, list[int]]:
    """Return how many events of each source completed and failed."""
    names, codes = encoded(source)
    sources: dict[str, list[int]] = {}
    sums = (np.bincount(codes[kinds == k], minlength=len(names)) for k in (_COMPLETE, _FAIL))
    for name, *more in zip(names, *(each.tolist() for each in sums), strict=True):
        if any(more):
            counts = sources.setdefault(name or "", [0, 0])
            counts[:] = (counts[0] + more[0], counts[1] + more[1])
    return sources


def _failed(batch: Batch, at: np.ndarray) -> tuple[dict[str, int], list[Failure]]:
    """Return the errors of rows, counted, and the newest failures of them."""
    errors = batch.errors(at)
    counts = {row["values"]: row["counts"] for row in pc.value_counts(errors).to_pylist()}
    newest = np.lexsort((batch.order[at], batch.time[at]))[-FAILURES:]
    rows = arrays.integers(at[newest])
    sources, items = (column.take(rows).to_pylist() for column in (batch.source, batch.item))
    texts, times = errors.take(arrays.integers(newest)).to_pylist(), batch.time[at[newest]].tolist()
    orders = batch.order[at[newest]].tolist()
    return counts, list(map(Failure, times, orders, sources, items, texts))


def _item_events(batch: Batch, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hash, time and state of each event that says how an item stands, the newest last."""
    # An event without an item says nothing about one.
    has_item = (arrays.numbers(pc.binary_length(batch.item).cast(pa.int64())) > 0) & (kinds >= 0)
    if batch.item.null_count:
        has_item &= arrays.truths(batch.item.is_valid())
    time, order = batch.time[has_item], batch.order[has_item]
    # A log is nearly always in the order of time, and sorting by one column faster than by two.
    by = np.argsort(time, kind="stable")
    ascending, following = time[by], order[by]
    if ((ascending[1:] == ascending[:-1]) & (following[1:] < following[:-1])).any():
        by = np.lexsort((order, time))
    # 8 bytes instead of the text: items are only counted by state, never named.
    items = oos_hashes.hashes(batch.item)[has_item][by]
    return items, time[by], kinds[has_item][by].astype(np.uint8)


def _newest(parts: list[Sums]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hash, time and state of each item's newest event, in the order of the hashes."""
    keys, time, state = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("items", "item_times", "item_states")
    )
    if (time[1:] < time[:-1]).any():
        by = np.argsort(time, kind="stable")  # of equal times what arrived later is newer
        keys, time, state = keys[by], time[by], state[by]
    # Sorting in no stable way is several times as fast; the last place is the newest event's.
    by = np.argsort(keys)
    ordered = keys[by]
    starts = np.flatnonzero(np.append(np.ones(1, bool), ordered[1:] != ordered[:-1]))
    if not len(keys):
        return keys, time, state
    last = np.maximum.reduceat(by, starts)
    return ordered[starts], time[last], state[last]


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
                error = error_of(text)
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
    return State(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.uint8))


def _join_chunks(chunks: list[np.ndarray]) -> list[np.ndarray]:
    """Join chunks once they are many."""
    return chunks if len(chunks) < _CHUNKS else [np.concatenate(chunks)]
