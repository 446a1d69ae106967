"""A fold: how the events of a subject, in the order of their storage, add up to a state."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import CodeType, FunctionType, ModuleType
from typing import Generic, TypeVar

import orjson

from lakelog.appends import KnownKeys, StreamSubject
from lakelog.errors import InvalidSetting, QueryFailed
from lakelog.folds.saved_states import EventMark, FoldCheckpoint, SavedStates, digest_of
from lakelog.folds.upcasting import FoldEvent, Json, Upcaster, Upcasting
from lakelog.lake import Lake
from lakelog.pinned import PinnedLake

StateT = TypeVar("StateT")
Apply = Callable[[StateT, FoldEvent], StateT]
EVERY = 100
"""Events after which a state is saved."""
# A version comes behind those before it, also where the clock was set back in between.
_QUERY = """
WITH arrivals AS (
    SELECT seq, epoch_us(ingested_at) AS arrival, id, time, type, data,
        CASE WHEN origin = 'stream:' || subject THEN position END AS version
    FROM events WHERE subject = $subject
), reached AS (
    SELECT *, CASE WHEN version IS NULL THEN arrival
        ELSE max(arrival) OVER (PARTITION BY version IS NULL ORDER BY version) END AS place
    FROM arrivals
), stream AS (
    SELECT *, row_number() OVER (ORDER BY place, version NULLS FIRST, seq) AS number FROM reached
)
SELECT seq, arrival, max(version) OVER () AS version,
    CASE WHEN number > $skipped
        THEN {'id': id, 'time': time, 'type': type, 'data': data::VARCHAR} END
FROM stream ORDER BY number"""
_PARTS = "__code__ __defaults__ __kwdefaults__ __func__ __self__ func args keywords".split()
"""Of functions, methods and partial calls."""
_CALL = "__call__"
"""Of the type of an object that is called like a function."""
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_LONG_INTEGER = re.compile(r"\d{19}")
_HANDLED = Mapping[str, Apply[StateT]]


@dataclass(frozen=True)
class FoldResult(Generic[StateT]):
    """The state of a subject after `events` events, of which the last `applied` were applied now
    and the others taken from a saved state; `version` is that of its stream, 0 for none."""

    subject: str
    state: StateT
    events: int
    applied: int
    version: int


class Fold(Generic[StateT]):
    """How events add up to a state, which is what JSON can hold, or is turned into it by `dump` and
    back by `load`."""

    def __init__(
        self,
        name: str,
        initial: Callable[[], StateT],
        handlers: _HANDLED[StateT],
        *,
        upcasters: tuple[Upcaster, ...] = (),
        revision: int = 1,
        every: int = EVERY,
        dump: Callable[[StateT], Json] = lambda state: state,
        load: Callable[[Json], StateT] = lambda content: content,
    ) -> None:
        """`handlers` are by type of event: each returns the next state. Other types change nothing.

        A state is saved when `every` events were applied since the last one, 0 for never. Saved
        states of other code are not used: `revision` is raised where functions that handlers call
        change.
        """
        if every < 0:
            raise InvalidSetting("a state is saved every so many events, 0 for never")
        self.name, self._initial, self._handlers = name, initial, dict(handlers)
        self._upcasting, self._every = Upcasting(upcasters), every
        self._dump, self._load = dump, load
        # Compiled code tells whether a saved state is of these very functions.
        functions: list[Callable[..., object]] = [
            initial,
            # Sorted, as the order in which handlers are given changes nothing.
            *(self._handlers[name] for name in sorted(self._handlers)),
            *(u.upcast for u in upcasters),
            dump,
            load,
        ]
        names = [*sorted(self._handlers), *(f"{u.type} {u.version}" for u in upcasters)]
        self._code = _fingerprint(functions, f"{revision} {names}")

    def of(self, lake: Lake | PinnedLake, subject: str) -> FoldResult[StateT]:
        """Return the state of a subject, now or in a past state of the lake. Raises InvalidEvent
        for a subject that no event can have, QueryFailed, SnapshotGone."""
        StreamSubject.checked(subject)
        session, is_past = lake._session, lake._digest is not None
        store, branch = session.store, session.tables.branch
        saved_states = SavedStates(store.paths, self.name, self._code, branch, subject)
        # A saved state would have what its handlers took of protected fields.
        every = 0 if store.paths.protection else self._every
        erased = store.erased.refresh() if every else 0
        checkpoint = saved_states.load() if every else None
        marks, events, version = _read(lake, subject, checkpoint.events if checkpoint else 0)
        # The events that it is of are not there, or others: all are applied.
        if checkpoint is not None and not checkpoint.fits(marks):
            checkpoint = None
            marks, events, version = _read(lake, subject, 0)
        state = self._initial() if checkpoint is None else self._load(checkpoint.state)
        for event in events:
            state = self._next(state, self._upcasting.apply(event))
        # That of the present is worth more than one of a past state.
        if every and len(events) >= every and not is_past:
            saved_states.save(FoldCheckpoint(len(marks), digest_of(marks), self._dump(state)))
            # Once the file is there: an erasure that is noted later removes it itself.
            if store.erased.refresh() != erased:
                saved_states.remove()
        return FoldResult(subject, state, len(marks), len(events), version)

    def _next(self, state: StateT, event: FoldEvent) -> StateT:
        handler = self._handlers.get(event.type)
        if handler is None:
            return state
        try:
            return handler(state, event)
        except Exception as error:
            raise QueryFailed(
                f"{event.label}: the fold {self.name} failed: {type(error).__name__}: {error}"
            ) from error


def _read(
    lake: Lake | PinnedLake, subject: str, skipped: int
) -> tuple[list[EventMark], list[FoldEvent], int]:
    """Read a subject's events in one query, so that all are of one state: marks of all, the events
    behind those that a saved state has, and the version of its stream."""
    marks, events, version = [], [], 0
    # Before the rows, so that these are of no older state.
    session, digest = lake._session, lake._digest
    store = session.store
    state = store.manifests.load(digest) if digest else store.state(session.tables.branch)
    published = KnownKeys(store).of(state.ids)
    # NULL where no event of the subject is of a stream.
    rows = lake.sql(_QUERY, {"subject": subject, "skipped": skipped})
    for seq, arrival, stream_version, content in rows.iter_rows():
        version = stream_version or 0
        marks.append((seq, arrival))
        if content is not None:
            names = content["id"], content["time"], content["type"]
            event = FoldEvent(seq, *names, subject, {})
            payload = _payload(content["data"], event) if content["data"] else {}
            payload = payload if isinstance(payload, dict) else {"data": payload}
            events.append(replace(event, data=payload))
    # A version stays where retention or an erasure removed its event.
    return marks, events, max(version, published.last_version(StreamSubject(subject), version))


def _payload(text: str, event: FoldEvent) -> Json:
    # Of an integer beyond 64 bits orjson makes a float or nothing, and of 1e400 an error.
    try:
        if not _LONG_INTEGER.search(text):
            with contextlib.suppress(ValueError):
                return orjson.loads(text)
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise QueryFailed(f"{event.label}: its payload cannot be read: {error}") from None


def _fingerprint(functions: list[Callable[..., object]], names: str) -> str:
    digest, memo = hashlib.sha256(names.encode()), dict[int, tuple[int, object]]()
    for function in functions:
        for fact in _facts(function, memo):
            # With its length, as 1 and 23 are not 12 and 3.
            digest.update(b"%d %b" % (len(fact), fact))
    return digest.hexdigest()


def _facts(element: object, memo: dict[int, tuple[int, object]]) -> Iterator[bytes]:
    """What tells code from other code, each part once."""
    if element is None or isinstance(element, (int, float, str, bytes)):
        yield repr(element).encode()
    elif isinstance(element, (set, frozenset)):  # in another order in each process
        yield repr(sorted(map(repr, element))).encode()
    elif isinstance(element, CodeType):
        # Names and constants as well: the byte code alone says only which of them.
        yield element.co_code
        yield repr(element.co_names).encode()
        for constant in element.co_consts:
            yield from _facts(constant, memo)
    elif id(element) in memo:
        yield b"part %d" % memo[id(element)][0]
    else:
        memo[id(element)] = len(memo), element
        yield _name(element).encode()
        for inner in _parts(element):
            yield from _facts(inner, memo)
        yield b"end"


def _name(element: object) -> str:
    if isinstance(element, (tuple, list, dict)):
        return type(element).__qualname__
    # Functions in C have no code that could be compared. A value that is no function says what it
    # is; where it is in memory is another place in each process.
    return getattr(element, "__qualname__", None) or _ADDRESS.sub("", repr(element))


def _parts(element: object) -> Iterator[object]:
    """What a function or class is made of, with what it takes from where it was made."""
    if isinstance(element, (tuple, list)):
        yield from element
    elif isinstance(element, dict):
        yield from itertools.chain(*element.items())
    elif isinstance(element, type):
        for name, value in vars(element).items():
            if not name.startswith("__") or isinstance(value, FunctionType):
                yield value
        yield from element.__bases__
    else:
        yield from (getattr(element, name, None) for name in _PARTS)
        yield getattr(type(element), _CALL, None)
        for cell in getattr(element, "__closure__", None) or ():
            with contextlib.suppress(ValueError):  # nothing is in it yet
                yield cell.cell_contents
        if isinstance(element, FunctionType):
            yield from _constants(element.__code__, element.__globals__)


def _constants(code: CodeType, module: dict[str, object]) -> Iterator[object]:
    """The values of its module that code names; functions and classes are programs of their own."""
    for value in map(module.get, code.co_names):
        if not callable(value) and not isinstance(value, ModuleType):
            yield value
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _constants(constant, module)
