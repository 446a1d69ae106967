"""Consuming messages: each is stored exactly once, whatever stops, repeats or competes.

One round looks at what the server has and reads up to there. Each batch of messages becomes rows
and quarantined lines, which one move publishes together with the cursors of their streams; the
cursors are read from the state that the move grows from. So a consumer that was killed reads on
where the lake is, of two consumers of one stream one publishes a message and the other reads
again, and after a rollback the messages come again, as far as the server still has them. What it
has not is counted in the cursor and reported.

A server of streams may lose its newest messages in a crash or a fail-over, and a stream may be
deleted and created again: then other messages have positions that were read. The cursor therefore
has marks, some messages that were read. Where the newest of them is gone and not just trimmed,
reading begins again after the last one that is still there, and what the lake has is not stored
again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from lakelog.clients import Attempts, ConnectionLost, RedisConfig
from lakelog.consume.kafka_source import KafkaTopic
from lakelog.consume.redis_stream import RedisStream
from lakelog.consume.source import MessageSource, StreamLag, StreamState
from lakelog.disk import disk
from lakelog.errors import InvalidSetting, SyncRefused, Unreachable
from lakelog.ingest import Job, Message, MessageBatch, StreamCursor
from lakelog.lake import Lake
from lakelog.runtime.closest import did_you_mean

SOURCES = "kafka://HOST:PORT/TOPIC or redis://HOST:PORT/DB/STREAM"
STARTS = ("beginning", "end")
BATCH = 50_000
RETRIES = 6
_MAINTAIN_EVERY = 32
"""Publishes between two rounds of maintenance: merging the entries that each adds."""


@dataclass(frozen=True)
class ConsumeResult:
    """What a round did: messages read, events stored, lines quarantined, events that were known.

    `missing` counts messages that the server removed before they were read.
    """

    source: str
    messages: int
    events: int
    quarantined: int
    known: int
    missing: int
    commits: int


def consume(
    lake: Lake,
    source: str | MessageSource,
    *,
    form: str | None = None,
    start: str = "beginning",
    batch: int = BATCH,
    config: str | None = None,
) -> ConsumeResult:
    """Store the messages that a topic or stream has now, and return what that took.

    `source` is `kafka://HOST:PORT/TOPIC` or `redis://HOST:PORT/DB/STREAM`, `config` a file with
    settings of Kafka; `form` is the format of the messages, detected by
    default; `start` says where a stream begins that was not consumed before. Raises
    InvalidSetting, SyncRefused, Unreachable, MissingPackage.
    """
    with closing(
        Consumer(lake, source, form=form, start=start, batch=batch, config=config)
    ) as consumer:
        return consumer.run()


def source_of(url: str, config: str | None = None) -> MessageSource:
    """Return the source of a URL, not connected. Raises InvalidSetting, without the URL."""
    scheme = url.partition(":")[0].lower()
    if "://" in url and scheme in RedisConfig.SCHEMES:
        if config is not None:
            raise InvalidSetting("settings of Redis are variables such as REDIS_PASSWORD")
        return RedisStream(url)
    if "://" in url and scheme == "kafka":
        return KafkaTopic(url, config)
    hint = did_you_mean(scheme, ["kafka", *RedisConfig.SCHEMES]) if ":" in url else ""
    raise InvalidSetting(f"a source is {SOURCES}{f'; {hint}' if hint else ''}")


class Consumer:
    """Stores the messages of one source, round by round. One thread uses it."""

    def __init__(
        self,
        lake: Lake,
        source: str | MessageSource,
        *,
        form: str | None = None,
        start: str = "beginning",
        batch: int = BATCH,
        config: str | None = None,
        retries: int = RETRIES,
        progress: Callable[[int], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Check what was asked; connects later. Raises InvalidSetting.

        `progress` is called with the messages read so far, `say` with each retry and whatever is
        missing.
        """
        if start not in STARTS:
            raise InvalidSetting(f"{start!r} is not one of {', '.join(STARTS)}")
        if batch < 1:
            raise InvalidSetting("a batch has at least one message")
        self._lake, self._start, self._limit = lake, start, batch
        self._source = source_of(source, config) if isinstance(source, str) else source
        self._retries = retries
        self._progress, self._say = progress or (lambda count: None), say or (lambda message: None)
        store, branch = lake.store, lake.branch_name
        self._job = Job(store, branch, lake.engine, form, self._source.name)
        # The group is only for others to see; it is the same for all consumers of a branch.
        self._group = f"lakelog-{store.lake_id[:8]}-{branch}"
        self._is_connected = False
        self._published = 0
        self._result = ConsumeResult(self._source.address, 0, 0, 0, 0, 0, 0)

    def run(self, stop: threading.Event | None = None) -> ConsumeResult:
        """Store what the server has now; ends between two batches if `stop` is set.

        Raises SyncRefused, Unreachable, MissingPackage, Damaged.
        """
        self._result = ConsumeResult(self._source.address, 0, 0, 0, 0, 0, 0)
        stop, attempts = stop or threading.Event(), Attempts(self._retries, self._say)
        while True:
            try:
                self._round(stop)
                break
            except ConnectionLost as error:
                self._disconnect()
                attempts.fail(self._result.commits)
                attempts.wait(str(error), stop)
        if self._result.commits:
            self._lake.sealer().maintain()
        return self._result

    def lags(self) -> list[StreamLag]:
        """How far the lake is behind each stream. Raises as `run` does."""
        try:
            self._connect()
            states = self._source.states()
        except ConnectionLost as error:
            raise Unreachable(str(error)) from None
        store = self._lake.store
        cursors = StreamCursor.of_state(store, store.state(self._lake.branch_name))
        return [self._lag(state, cursors.get(state.key)) for state in states]

    def close(self) -> None:
        """Disconnect."""
        self._disconnect()

    def _connect(self) -> None:
        if not self._is_connected:
            self._source.connect(self._group)
            self._is_connected = True

    def _disconnect(self) -> None:
        self._source.close()
        self._is_connected = False

    def _round(self, stop: threading.Event) -> None:
        """Read up to where the streams end now. Raises ConnectionLost, SyncRefused."""
        self._connect()
        states = {state.key: state for state in self._source.states()}
        is_end = False
        while not is_end and not stop.is_set():
            with closing(MessageBatch(self._job)) as batch:
                if not states and not self._is_known(batch):
                    raise SyncRefused(self._source.absence)
                if self._lies_beyond(batch, states):
                    # Perhaps only since these states were asked for, by another consumer.
                    states = {state.key: state for state in self._source.states()}
                try:
                    is_end = self._step(batch, states)
                except MessageBatch.Moved:
                    # Another consumer was faster, or the branch was rewound: the cursors of now
                    # say what is left.
                    continue

    def _is_known(self, batch: MessageBatch) -> bool:
        """Whether the source was consumed before: then it is gone, and nothing is left of it."""
        name = self._source.name
        return any(c.name in (name, f"{name}/0") for c in batch.cursors.values())

    def _step(self, batch: MessageBatch, states: dict[str, StreamState]) -> bool:
        """Read and publish one batch; return whether that was all. Raises MessageBatch.Moved."""
        missing = 0
        for state in states.values():
            cursor = self._resume(batch.cursors.get(state.key), state)
            missing += cursor.missing - _missing(batch, state.key)
            batch.move(cursor)
        positions = {key: _cursor(batch, key).position for key in states}
        ends = {key: state.end for key, state in states.items()}
        if not states:
            return True
        messages, is_end = self._source.read(positions, ends, self._limit)
        self._add(batch, messages)
        if is_end:
            for state in states.values():
                # Only at its end is it known what a stream has lost: what was added and not read.
                before = _cursor(batch, state.key)
                after = _counted(before, state)
                missing += after.missing - before.missing
                batch.move(after)
        head = batch.publish(self._source.name)
        if head is None:
            return is_end
        # Behind the publish: what the lake has is told to the server, and never what it may lose.
        self._source.acknowledge([_cursor(batch, key) for key in states])
        self._count(batch, len(messages), missing)
        return is_end

    def _resume(self, cursor: StreamCursor | None, state: StreamState) -> StreamCursor:
        """The cursor from which a stream is read: that of the lake, unless the server has lost
        what follows it."""
        order = self._source.order
        if cursor is None:
            is_first = self._start == "beginning"
            skipped = 0 if state.added is None else state.added - (state.present if is_first else 0)
            position = state.start if is_first else state.end
            marks = self._source.find([position]) if self._source.may_rewind else []
            return StreamCursor(
                state.key,
                state.name,
                position,
                skipped=skipped,
                marks=tuple(m.mark(0) for m in marks),
                identity=state.identity,
            )
        if self._source.may_rewind or self._is_cut(cursor, state):
            return self._rejoined(cursor, state)
        if self._is_recreated(cursor, state):
            # Positions of another stream: with an origin of its own, its rows are not taken for
            # those of the one that had the name.
            self._say(
                f"{self._source.address}: {state.name} is another one than was read up to"
                f" {cursor.position}: it was created again, and is read from its beginning"
            )
            recreated = StreamCursor(
                state.key, state.name, state.start, disk.random_hex()[:8], identity=state.identity
            )
            skipped = 0 if state.added is None else state.added - state.present
            return replace(recreated, skipped=skipped, missing=cursor.missing)
        cursor = replace(cursor, identity=state.identity or cursor.identity)
        gap = order(state.start) - order(cursor.position) if state.added is None else 0
        if gap <= 0:
            return cursor
        return replace(cursor, position=state.start, missing=cursor.missing + gap)

    def _is_recreated(self, cursor: StreamCursor, state: StreamState) -> bool:
        """Whether a stream is another one than was read: by its identity, or as it is shorter."""
        is_other = bool(cursor.identity and state.identity) and cursor.identity != state.identity
        is_beyond = self._source.is_beyond(cursor.position, state.end)
        return is_other or (is_beyond and not self._is_cut(cursor, state))

    def _is_cut(self, cursor: StreamCursor, state: StreamState) -> bool:
        """Whether a stream is the one that was read, and the server lost the newest of it."""
        is_same = bool(state.identity) and cursor.identity == state.identity
        return is_same and self._source.is_beyond(cursor.position, state.end)

    def _rejoined(self, cursor: StreamCursor, state: StreamState) -> StreamCursor:
        """The cursor; of a stream that is not what was read, one at the last mark that it has."""
        order, marks = self._source.order, cursor.marks
        is_shorter = order(cursor.position) > order(state.end)
        if not is_shorter and (not marks or self._is_intact(cursor, state)):
            return cursor
        fingerprints = {
            m.position: m.fingerprint() for m in self._source.find([m.position for m in marks])
        }
        present_marks = [
            mark for mark in marks if fingerprints.get(mark.position) == mark.fingerprint
        ]
        place = present_marks[-1].position if present_marks else state.start
        if not present_marks and marks and marks[0].number == 0:
            # Consuming began at the end of then: what is older was not asked for.
            place = min(state.end, marks[0].position, key=order)
        cause = "is another stream than the one that was read, or it was created again"
        if present_marks or state.identity:
            cause = "no longer has all that was read"
            cause += f" after {place}" * bool(present_marks) + ", as after a crash or a fail-over"
        explanation = (
            "what is new since then is read"
            if present_marks
            else f"it is read from {'its beginning' if place == state.start else place}, and what"
            " the lake has of it is not stored again"
        )
        # One that was taken out of the middle is looked into as well, but is no news.
        if is_shorter or not state.deleted or order(marks[-1].position) > order(state.deleted):
            self._say(f"{self._source.address}: {state.name} {cause}: {explanation}")
        return replace(
            cursor,
            position=place,
            # What came since may stand where other rows do: it gets an origin of its own.
            incarnation=disk.random_hex()[:8],
            marks=tuple(present_marks),
            seen=max(cursor.position, cursor.seen or cursor.position, key=order),
        )

    def _is_intact(self, cursor: StreamCursor, state: StreamState) -> bool:
        """Whether the last message that was read is there, or all up to it was trimmed."""
        order, newest_mark = self._source.order, cursor.marks[-1]
        if not state.oldest or order(state.oldest) > order(cursor.position):
            return True
        return [m.fingerprint() for m in self._source.find([newest_mark.position])] == [
            newest_mark.fingerprint
        ]

    def _add(self, batch: MessageBatch, messages: list[Message]) -> None:
        """Add messages to a batch: those of a stream of which the lake may have some by themselves,
        as they are compared with it."""
        streams = dict.fromkeys(message.stream for message in messages)
        repeating = [s for s in streams if self._source.may_rewind or _cursor(batch, s).seen]
        others = [m for m in messages if m.stream not in repeating] if repeating else messages
        batch.add(others, self._source.name)
        for stream in repeating:
            self._add_again(batch, [m for m in messages if m.stream == stream])

    def _add_again(self, batch: MessageBatch, messages: list[Message]) -> None:
        """Add messages of one stream that may be in the lake, with marks where they are of use."""
        order, key = self._source.order, messages[0].stream
        # After a server has lost messages, those up to the newest that was ever read may be in the
        # lake already; those behind it are new.
        newest_seen = order(_cursor(batch, key).seen or messages[0].position)
        repeat_count = (
            sum(order(m.position) <= newest_seen for m in messages)
            if _cursor(batch, key).seen
            else 0
        )
        for chunk, is_again in ((messages[:repeat_count], True), (messages[repeat_count:], False)):
            if not chunk:
                continue
            batch.add(chunk, self._source.name, is_retry=is_again)
            cursor = _cursor(batch, key)
            if self._source.may_rewind:
                cursor = _marked(cursor, chunk)
            is_past = order(cursor.position) >= newest_seen
            batch.move(replace(cursor, seen="" if is_past else cursor.seen))

    def _lies_beyond(self, batch: MessageBatch, states: dict[str, StreamState]) -> bool:
        """Whether the lake was read further than these states go."""
        order, cursors = self._source.order, batch.cursors
        consumed = [(cursors[key], state) for key, state in states.items() if key in cursors]
        return any(order(cursor.position) > order(state.end) for cursor, state in consumed)

    def _count(self, batch: MessageBatch, messages: int, missing: int) -> None:
        was = self._result
        self._result = replace(
            was,
            messages=was.messages + messages,
            events=was.events + batch.rows,
            quarantined=was.quarantined + len(batch.bad),
            known=was.known + batch.known,
            missing=was.missing + missing,
            commits=was.commits + 1,
        )
        if missing > 0:
            self._say(
                f"{self._source.address}: {missing:,} messages were removed by the server before"
                " they were read"
            )
        self._progress(self._result.messages)
        self._published += 1
        if self._published % _MAINTAIN_EVERY == 0:
            self._lake.sealer().maintain()

    def _lag(self, state: StreamState, cursor: StreamCursor | None) -> StreamLag:
        current = cursor or StreamCursor(state.key, state.name, state.start)
        if state.added is not None:
            # Below 0 until the next round where the server has lost what was read.
            lag = max(0, state.added - _total(current)) if cursor else state.present
        else:
            order = self._source.order
            start, end, position = map(order, (state.start, state.end, current.position))
            is_other = self._is_recreated(current, state)
            lag = max(0, end - (start if is_other else max(start, position)))
        return StreamLag(
            state.name, current.position, state.end, current.messages, current.missing, lag
        )


def _cursor(batch: MessageBatch, key: str) -> StreamCursor:
    cursor = batch.cursor(key)
    assert cursor is not None
    return cursor


def _marked(cursor: StreamCursor, chunk: list[Message]) -> StreamCursor:
    """A cursor with marks of some of the messages that were read just now."""
    # At distances of 1, 2, 4, ... from the end: what a server loses is mostly its newest.
    places = [len(chunk) - (1 << n) for n in range(len(chunk).bit_length())]
    fresh = [
        m.mark(cursor.messages - (len(chunk) - 1 - index))
        for index, m in ((index, chunk[index]) for index in sorted({0, *places}))
    ]
    return replace(cursor, marks=StreamCursor.thinned([*cursor.marks, *fresh]))


def _missing(batch: MessageBatch, key: str) -> int:
    cursor = batch.cursors.get(key)
    return cursor.missing if cursor else 0


def _total(cursor: StreamCursor) -> int:
    """The messages that a stream had up to a cursor."""
    return cursor.skipped + cursor.messages + cursor.missing


def _counted(cursor: StreamCursor, state: StreamState) -> StreamCursor:
    """A cursor at the end of its stream, with what was removed before it was read."""
    if state.added is None or state.added == _total(cursor):
        return cursor
    if state.added < _total(cursor):
        # The server counts fewer since it lost some: from here on both count alike.
        return replace(cursor, skipped=state.added - cursor.messages - cursor.missing)
    missing = cursor.missing + state.added - _total(cursor)
    return replace(cursor, position=state.end, missing=missing)
