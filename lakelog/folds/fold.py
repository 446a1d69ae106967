"""A fold: how the events of a subject, in the order of their storage, add up to a state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Generic, TypeVar

import orjson

from lakelog.errors import InvalidSetting, QueryFailed
from lakelog.folds.saved_states import EventMark, FoldCheckpoint, SavedStates, digest_of
from lakelog.folds.upcasting import FoldEvent, Json, Upcaster, Upcasting
from lakelog.lake import Lake

StateT = TypeVar("StateT")
Apply = Callable[[StateT, FoldEvent], StateT]
EVERY = 100
"""Events after which a state is saved."""
_QUERY = """
WITH stream AS (
    SELECT seq, epoch_us(ingested_at) AS arrival, id, time, type, data,
        row_number() OVER (ORDER BY ingested_at, seq) AS number,
        max(position) FILTER (origin = 'stream:' || subject) OVER () AS version
    FROM events WHERE subject = $subject
)
SELECT seq, arrival, version,
    CASE WHEN number > $skipped
        THEN {'id': id, 'time': time, 'type': type, 'data': data::VARCHAR} END
FROM stream ORDER BY number"""
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
            *self._handlers.values(),
            *(u.upcast for u in upcasters),
            dump,
            load,
        ]
        # Sorted, as the order in which handlers are given changes nothing.
        names = [*sorted(self._handlers), *(f"{u.type} {u.version}" for u in upcasters)]
        self._code = _fingerprint(functions, f"{revision} {names}")

    def of(self, lake: Lake, subject: str) -> FoldResult[StateT]:
        """Return the state of a subject. Raises QueryFailed."""
        saved_states = SavedStates(
            lake.store.paths, self.name, self._code, lake.branch_name, subject
        )
        # A saved state would have what its handlers took of protected fields.
        every = 0 if lake.store.paths.protection else self._every
        checkpoint = saved_states.load() if every else None
        marks, events, version = _read(lake, subject, checkpoint.events if checkpoint else 0)
        # The events that it is of are not there, or others: all are applied.
        if checkpoint is not None and not checkpoint.fits(marks):
            checkpoint = None
            marks, events, version = _read(lake, subject, 0)
        state = self._initial() if checkpoint is None else self._load(checkpoint.state)
        for event in events:
            state = self._next(state, self._upcasting.apply(event))
        if every and len(events) >= every:
            saved_states.save(FoldCheckpoint(len(marks), digest_of(marks), self._dump(state)))
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


def _read(lake: Lake, subject: str, skipped: int) -> tuple[list[EventMark], list[FoldEvent], int]:
    """Read a subject's events in one query, so that all are of one state: marks of all, the events
    behind those that a saved state has, and the version of its stream."""
    marks, events, version = [], [], 0
    # NULL where no event of the subject is of a stream.
    rows = lake.sql(_QUERY, {"subject": subject, "skipped": skipped})
    for seq, arrival, stream_version, content in rows.iter_rows():
        version = stream_version or 0
        marks.append((seq, arrival))
        if content is not None:
            payload = orjson.loads(content["data"]) if content["data"] else {}
            payload = payload if isinstance(payload, dict) else {"data": payload}
            names = content["id"], content["time"], content["type"]
            events.append(FoldEvent(seq, *names, subject, payload))
    return marks, events, version


def _fingerprint(functions: list[Callable[..., object]], names: str) -> str:
    digest = hashlib.sha256(names.encode())
    for function in functions:
        for fact in _facts(getattr(function, "__code__", None), function):
            digest.update(fact)
    return digest.hexdigest()


def _facts(code: CodeType | None, function: object) -> Iterator[bytes]:
    # Functions in C have no code that could be compared.
    if code is None:
        yield getattr(function, "__qualname__", type(function).__qualname__).encode()
        return
    # Names and constants as well: the byte code alone says only which of them.
    yield code.co_code
    yield repr(code.co_names).encode()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _facts(constant, function)
        else:
            yield repr(constant).encode()
