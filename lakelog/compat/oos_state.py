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

import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from lakelog.compat import oos_hashes
from lakelog.runtime.lazy import Lazy
from lakelog.segments import arrays

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
_MERGED = 1 << 16
"""About so many items are merged at a time."""
_NAMES = tuple(STATES)
_COMPLETE, _FAIL = _NAMES.index("COMPLETE"), _NAMES.index("FAIL")


@dataclass
class Batch:
    """Events: `time` in us and texts, which may be dictionaries. Of some rows, `errors` are texts,
    null where there is none, and `order` is that of arrival, where it is not that of the rows."""

    time: np.ndarray
    type: pa.Array
    source: pa.Array
    item: pa.Array
    errors: Callable[[np.ndarray], pa.Array]
    order: Callable[[np.ndarray], np.ndarray] | None = None


@dataclass
class Failure:
    """One failure, sorted by when it was."""

    time: int
    source: str | None
    item: str | None
    error: str


@dataclass
class Sums:
    """What a batch adds to a state. Items are in the order of their hashes, each once, with the
    time and state of the newest of their events; `span` are the first and the last time of these.
    """

    times: np.ndarray
    completions: np.ndarray
    sources: dict[str, list[int]]
    errors: dict[str, int]
    failures: list[Failure]
    items: np.ndarray
    item_times: np.ndarray
    item_states: np.ndarray
    span: tuple[int, int]


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
        if with_items := [part for part in parts if len(part.items)]:
            self._advance(*_newest(with_items))

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
    return Sums(
        batch.time,
        batch.time[kinds == _COMPLETE],
        _outcomes(batch.source, kinds),
        errors,
        failures,
        *_items(batch, kinds),
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
    ended = np.flatnonzero((kinds == _COMPLETE) | (kinds == _FAIL))
    counts = np.bincount(2 * codes[ended] + (kinds[ended] == _FAIL), minlength=2 * len(names))
    sources: dict[str, list[int]] = {}
    for name, more in zip(names, counts.reshape(-1, 2).tolist(), strict=True):
        if any(more):
            known = sources.setdefault(name or "", [0, 0])
            known[:] = (known[0] + more[0], known[1] + more[1])
    return sources


def _failed(batch: Batch, at: np.ndarray) -> tuple[dict[str, int], list[Failure]]:
    """Return the errors of rows, counted, and the newest failures of them."""
    names, codes = encoded(batch.errors(at))
    errors = [name or UNKNOWN for name in names]
    counts: dict[str, int] = {}
    for error, count in zip(errors, np.bincount(codes, minlength=len(names)).tolist(), strict=True):
        if count:
            counts[error] = counts.get(error, 0) + count
    newest = _by_time(batch, at)[-FAILURES:]
    rows, times = arrays.integers(newest), batch.time[newest].tolist()
    sources, items = (column.take(rows).to_pylist() for column in (batch.source, batch.item))
    texts = [errors[code] for code in codes[np.searchsorted(at, newest)].tolist()]
    return counts, list(map(Failure, times, sources, items, texts))


def _by_time(batch: Batch, rows: np.ndarray) -> np.ndarray:
    """Return some rows, which ascend, in the order of their times, those of one by arrival."""
    time = batch.time[rows]
    # A log is nearly always in the order of time.
    if (time[1:] > time[:-1]).all():
        return rows
    by = np.argsort(time, kind="stable")
    rows, time = rows[by], time[by]
    is_tied = time[1:] == time[:-1]
    if batch.order is not None and is_tied.any():
        # Only these are sorted by two columns, which takes longer.
        tied = np.flatnonzero(np.append(False, is_tied) | np.append(is_tied, False))
        rows[tied] = rows[tied][np.lexsort((batch.order(rows[tied]), time[tied]))]
    return rows


def _items(
    batch: Batch, kinds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
    """Return items, item_times, item_states and span of the batch's Sums."""
    # An event without an item says nothing about one.
    has_item = (arrays.numbers(pc.binary_length(batch.item).cast(pa.int64())) > 0) & (kinds >= 0)
    if batch.item.null_count:
        has_item &= arrays.truths(batch.item.is_valid())
    # 8 bytes instead of the text: items are only counted by state, never named.
    hashes, time, states = oos_hashes.hashes(batch.item), batch.time, kinds.view(np.uint8)
    rows = np.flatnonzero(has_item)
    if not len(rows):
        return hashes[rows], time[rows], states[rows], (0, 0)
    if len(rows) < len(time):
        hashes, time, states = hashes[rows], time[rows], states[rows]

    def by_time(at: np.ndarray) -> np.ndarray:
        return np.searchsorted(rows, _by_time(batch, rows[at]))

    last = _last_of_each(hashes, by_time)
    return hashes[last], time[last], states[last], (int(time.min()), int(time.max()))


def _last_of_each(
    keys: np.ndarray, by_time: Callable[[np.ndarray], np.ndarray] | None = None
) -> np.ndarray:
    """Return the place of the last of each of some keys, of which there are any, in the order of
    the keys. `by_time` sorts places, which ascend; without it they are in the order of time."""
    # To sort numbers that end with their place is several times as fast as to sort places by them.
    low = np.uint64((1 << len(keys).bit_length()) - 1)
    packed = (keys & ~low) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    at = (packed & low).view(np.int64)
    ordered = keys[at]
    if (ordered[1:] < ordered[:-1]).any():  # there are keys that differ in their last bits alone
        at = np.argsort(keys, kind="stable")
        ordered = keys[at]
    is_same = ordered[1:] == ordered[:-1]
    if by_time is not None and is_same.any():
        # Most keys of a batch are there once; only others have to be sorted by time.
        shared = np.flatnonzero(np.append(False, is_same) | np.append(is_same, False))
        places = by_time(np.sort(at[shared]))
        at[shared] = places[np.argsort(keys[places], kind="stable")]
    last: np.ndarray = at[np.append(~is_same, True)]
    return last


def _newest(parts: list[Sums]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hash, time and state of each item's newest event, in the order of the hashes."""
    in_order = all(one.span[1] <= two.span[0] for one, two in itertools.pairwise(parts))
    # Those whose hashes begin alike are merged together: so few stay in the processor's cache.
    count = sum(len(part.items) for part in parts) // _MERGED + 1
    bounds = np.array([n * 2**64 // count for n in range(1, count)], np.uint64)
    cuts = [[0, *np.searchsorted(part.items, bounds).tolist(), len(part.items)] for part in parts]
    merged = [_merged(parts, [cut[n : n + 2] for cut in cuts], in_order) for n in range(count)]
    keys, time, state = (np.concatenate(columns) for columns in zip(*merged, strict=True))
    return keys, time, state


def _merged(
    parts: list[Sums], spans: list[list[int]], in_order: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge spans of the items of parts, which follow each other in time if they are `in_order`."""
    keys, time, state = (
        np.concatenate(
            [getattr(part, name)[a:b] for part, (a, b) in zip(parts, spans, strict=True)]
        )
        for name in ("items", "item_times", "item_states")
    )
    if not in_order:
        by = np.argsort(time, kind="stable")  # of equal times what arrived later is newer
        keys, time, state = keys[by], time[by], state[by]
    last = _last_of_each(keys) if len(keys) else np.empty(0, np.int64)
    return keys[last], time[last], state[last]


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
                self.failures.append(Failure(time, source, item, error))
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
