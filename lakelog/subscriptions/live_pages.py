"""Pages of a branch behind a position: published events, then those of the tail, as they arrive.

Nothing is sealed for it, and nothing kept between two pages that matters: whoever sends the
position of an event gets what follows it, from this process or the next one. So many clients can
stand at many places, and those at one place share what is read. A rewind is a page of its own:
events that were published before it come first, then what the branch was taken back to.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from lakelog import arrays, sql
from lakelog.errors import InvalidSetting, LakelogError
from lakelog.event import BookkeepingEvent
from lakelog.libraries import duckdb, np, pa, pc
from lakelog.manifest import Manifest
from lakelog.protect import sealed_blocks
from lakelog.query import NewestEvents, TailRows
from lakelog.refs import Head, MergeNote, Move
from lakelog.search import expanded
from lakelog.subscriptions import catch_up
from lakelog.subscriptions.branch_access import BranchAccess
from lakelog.subscriptions.delivery import NOT_DEAD
from lakelog.subscriptions.position import (
    LivePosition,
    Position,
    branch_digest,
    is_of_stream,
    marks_text,
    writer_mark,
    writer_mark_sql,
)
from lakelog.subscriptions.registry import start_position
from lakelog.subscriptions.tail_memory import TailMemory, marks_behind
from lakelog.wal import PendingFrames

# Without writer and sequence, which events of segments do not have.
_COLUMNS = ", ".join(NewestEvents.COLUMNS)
_NO_ROWS = sql.no_rows((*NewestEvents.COLUMNS, "writer", "sequence", TailRows.ORDER))
_TAIL_EVENTS, _SEALED_SOON = 10_000, 5_000
"""Events of the tail that a page looks at, if it may return fewer; so many more than were given
that it is cheaper to wait until they are sealed, where their files are finished."""


@dataclass(frozen=True)
class BranchRewound:
    """The branch was taken to another state: by which operation, to which snapshot."""

    op: str
    snapshot: str
    events: int


@dataclass(frozen=True)
class LivePage:
    """Events, the place behind them, and whether that is the end of what there is, or is left until
    it is sealed. A page of a rewind has no events. The positions behind each event are made when
    they are asked for: many clients need the last one alone."""

    events: pa.Table
    place: LivePosition
    places: Callable[[], list[str]] = field(default=list)
    is_end: bool = False
    rewound: BranchRewound | None = None
    awaits_seal: bool = False

    @functools.cached_property
    def position(self) -> str:
        """The place as text."""
        return self.place.text()

    @functools.cached_property
    def positions(self) -> list[str]:
        """The places behind each event as text."""
        return self.places()


class LivePages:
    """Reads pages of one branch, of events where a condition holds. One thread uses it."""

    def __init__(self, access: BranchAccess, condition: str | None) -> None:
        self._access, self._rows = access, access.rows
        self._digest = branch_digest(access.store.lake_id, access.branch)
        self._where = None if condition is None else expanded(condition)
        # Its own cursor: an interrupt must not stop anybody else's query.
        self._cursor: duckdb.DuckDBPyConnection = access.connect().cursor()
        # Without parentheses: one that closes ours would choose other events than it says.
        if self._where is not None:
            NewestEvents.require_condition(self._cursor, self._where)
        # Which tries the condition, before anything is waited for.
        no_rows = self._matching(NewestEvents.rows_of(self._cursor, _NO_ROWS), 0)
        self._none = no_rows.select(NewestEvents.COLUMNS)
        self._ended: tuple[LivePosition, pa.Table] | None = None
        self._memory = TailMemory()
        self.newest = NewestEvents(access.store, access.connect, self._cursor, self._where)

    def pending(self) -> PendingFrames:
        """The branch and its tail as they are now. Raises Damaged, UnknownRef."""
        return self._access.pending()

    def page(
        self, after: str, pending: PendingFrames, limit: int, *, is_patient: bool = False
    ) -> LivePage:
        """Return what follows a position, at most `limit` events.

        `after` is `end`, `beginning`, the number of an event, or the position of one. Who
        `is_patient` leaves much that is sealed in a moment until it is. Raises InvalidSetting,
        QueryFailed, Damaged.
        """
        position, pending = self._start(after, pending)
        return self.page_behind(position, pending, limit, is_patient=is_patient)

    def _start(self, token: str, pending: PendingFrames) -> tuple[LivePosition, PendingFrames]:
        """Where a page begins, and the branch as it is then: another machine may have given the
        position, behind moves that are not here yet."""
        if token == "end":
            # What is in the tail counts as given, so that its ids are known.
            self._hold(pending)
            return self._end(pending), pending
        if token == "beginning" or token.isdecimal():
            place = start_position(token, self._access.state(pending.head))
            return replace(self.end_of(pending.head), place=place), pending
        position = LivePosition.parse(token)
        if position.branch != self._digest:
            raise InvalidSetting(
                "this position is of another lake or branch: begin with `end` or `beginning`"
            )
        if position.move > pending.head.move.number:
            self._access.head_since(position.move)
            pending = self.pending()
        # Digits of a number that the branch does not have yet would be a valid position later on.
        move = pending.head.move
        reach = position.place.reach
        is_later = position.generation == move.generation and (
            reach > self._access.state(pending.head).next_seq
        )
        is_of_copy = not self._access.store.refs.was_at(
            pending.head, position.move, position.commit
        )
        if is_of_copy or position.generation > move.generation or is_later:
            raise InvalidSetting(
                f"this position is behind event {reach} of move {position.move}, which"
                " the lake does not have: it is of a newer copy of the lake; begin with `end` or"
                " `beginning`"
            )
        return position, pending

    def page_behind(
        self,
        position: LivePosition,
        pending: PendingFrames,
        limit: int,
        *,
        is_patient: bool = False,
    ) -> LivePage:
        """Return what follows a position, at most `limit` events: published ones, or those of the
        tail where none is left, never both on one page. Of an older generation what it still had,
        then the rewind that ended it. Raises QueryFailed, Damaged."""
        self._hold(pending)
        head = pending.head
        if position.generation != head.move.generation:
            return self._older(position, head, limit)
        state = self._access.state(head)
        # Published events first; the tail follows behind the last of them.
        if position.is_before(state.next_seq):
            page = self._published(position.after(head.move), state, limit)
            # An empty page is no end: the tail may have some.
            if page.events.num_rows:
                return page
            position = page.place
        if is_patient and _awaits_seal(position, pending):
            return LivePage(self._none, position, awaits_seal=True)
        return self._of_tail(position, pending, state, limit)

    def interrupt(self) -> None:
        """Stop the running query; any thread may ask for it."""
        self._cursor.interrupt()

    def _end(self, pending: PendingFrames) -> LivePosition:
        """The position behind all that there is."""
        marks = {writer_mark(w): frames[-1].end for w, frames in pending.frames.items() if frames}
        marks |= self._memory.stream_marks if pending.has_versions else {}
        return replace(self.end_of(pending.head), marks=marks)

    def end_of(self, head: Head) -> LivePosition:
        """The position behind the published events of a head, and before its tail."""
        move, place = head.move, Position(self._access.state(head).next_seq)
        return LivePosition(self._digest, move.generation, move.number, place).after(move)

    def _older(self, position: LivePosition, head: Head, limit: int) -> LivePage:
        """What the generation of a position still had, or the rewind that ended it."""
        # Clients that were away for long may come from several generations before.
        before, rewind = self._rewind_after(position)
        if rewind is None:  # the log does not reach back so far
            rewind = head.move
        elif before and (earlier := self._state(before)) and position.is_before(earlier.next_seq):
            page = self._published(position.after(before), earlier, limit)
            if page.events.num_rows:
                return page
            # Nothing more was published in that generation: it ends here.
            position = page.place
        state = self._access.store.manifests.of(rewind)
        place = Position(state.next_seq)
        note, beyond = MergeNote.of(rewind), 0
        if note is not None:
            # What was given is there, with other numbers behind those that came.
            place, beyond = Position(note.first, note.first + note.count), place.seq
        after_rewind = replace(
            position.after(rewind), generation=rewind.generation, place=place, beyond=beyond
        )
        if note is not None:
            return LivePage(self._none, after_rewind)
        # Versions are given again.
        marks = {name: n for name, n in position.marks.items() if not is_of_stream(name)}
        rewound = BranchRewound(rewind.op, rewind.snapshot, state.totals.events)
        return LivePage(self._none, replace(after_rewind, marks=marks), rewound=rewound)

    def _rewind_after(self, position: LivePosition) -> tuple[Move | None, Move | None]:
        """The move that ended the generation of a position, and the one before it."""
        moves: tuple[Move | None, Move | None] = None, None
        for later, earlier in itertools.pairwise(
            self._access.store.refs.newest_first(self._access.branch)
        ):
            if later.generation != earlier.generation:
                moves = earlier, later
            if earlier.generation <= position.generation:
                break
        # Of the oldest move that is known, where the log was thinned.
        return moves

    def _state(self, move: Move) -> Manifest | None:
        """The state after a move, None where it was thinned."""
        try:
            return self._access.store.manifests.of(move)
        except LakelogError:
            return None

    def _published(self, position: LivePosition, state: Manifest, limit: int) -> LivePage:
        """Events of a state, up to the end of the window where one is set by a merge."""
        # `beyond` bounds the window of a merge: what is behind it was given before.
        access, place = self._access, position.place
        bound = place.upto if position.beyond else state.next_seq
        condition = _and(self._where, _not_given(position.marks))
        for table in catch_up.read(
            access.store, access.connect, state, condition, place, limit, limit
        ):
            place = table.position
            if table.events.num_rows and (page := self._page_of(position, table.events, place)):
                return page
            if place.seq >= bound:
                break
        if not position.beyond:
            return LivePage(self._none, replace(position, place=place))
        # What was published since the merge: what was given before it ends there.
        behind = replace(position, place=Position(position.beyond), beyond=0)
        return self._published(behind, state, limit)

    def _page_of(
        self, position: LivePosition, events: pa.Table, place: Position
    ) -> LivePage | None:
        """A page of published events, None where all of them were given from the tail."""
        is_new = self._memory.is_new(events, position)
        if not is_new.all():
            events = events.filter(arrays.mask(is_new))

        def positions() -> list[str]:
            times, numbers = arrays.numbers(events["ingested_at"]), arrays.numbers(events["seq"])
            marks = marks_text(position.marks)
            places = (
                Position(place.seq, place.upto, time, number)
                for time, number in zip(times.tolist(), numbers.tolist(), strict=True)
            )
            return [replace(position, place=event_place).stem() + marks for event_place in places]

        if not events.num_rows:
            return None
        return LivePage(events, replace(position, place=place), positions)

    def _of_tail(
        self, position: LivePosition, pending: PendingFrames, state: Manifest, limit: int
    ) -> LivePage:
        end = self._end(pending)
        position = position.after(pending.head.move)
        count = limit + 1 if self._where is None else max(limit, _TAIL_EVENTS)
        ends = {w: position.marks.get(writer_mark(w), 0) for w in pending.frames}
        tail_slice = self._rows.behind(pending, state, ends, count)
        if tail_slice is None:
            if not pending.frames:
                self._memory.forget_ids()
            return LivePage(self._none, end, is_end=True)
        table = tail_slice.rows
        fresh = self._fresh(position, table)
        if fields := sealed_blocks.of_lake(self._access.store.paths):
            fresh = fields.events(fresh)
        if self._wants_all(fresh) and _is_in_order(fresh):
            events = fresh  # as the most are, and the engine would take as long as all the others
        else:
            events = self._matching(fresh, limit + 1)
        # One more than is wanted was asked for: then there is more.
        is_whole = events.num_rows <= limit
        events = events.slice(0, limit)

        def positions() -> list[str]:
            stem = position.stem()
            return [stem + mark for _, mark in marks_behind(position, events)]

        rows = events.select(NewestEvents.COLUMNS)
        if is_whole and tail_slice.is_end:
            self._ended = end, table
            return LivePage(rows, end, positions, is_end=True)
        if is_whole:
            ends = {writer_mark(w): end for w, end in tail_slice.ends.items()}
            marks = {**position.marks, **ends}
        else:
            *_, (marks, _) = marks_behind(position, events)
        return LivePage(rows, replace(position, marks=marks), positions)

    def _fresh(self, position: LivePosition, table: pa.Table) -> pa.Table:
        """The rows of the tail that a position does not have."""
        marks = dict(position.marks)
        if self._ended is not None:
            end, before = self._ended
            # The tail grew, and the client stands where the last look ended.
            if marks == end.marks and TailRows.begins_with(table, before):
                return table.slice(before.num_rows)
        numbers, is_given = TailRows.ordinals(table), np.zeros(table.num_rows, bool)
        # By writer: numbers of one writer tell which of its events came first.
        for writer in pc.unique(table["writer"]).to_pylist():
            if number := marks.get(writer_mark(writer)):
                name = arrays.texts((writer,))[0]  # a text of Python would load pandas
                is_of_writer = arrays.truths(pc.equal(table["writer"], name))
                is_given |= is_of_writer & (numbers < number)
        return table.filter(arrays.mask(~is_given))

    def _wants_all(self, rows: pa.Table) -> bool:
        """Whether the condition holds for all of some rows, as far as can be told without the
        engine, which takes longer than all else for a few of them."""
        if self._where != NOT_DEAD:
            return self._where is None
        is_own = pc.equal(rows["source"], arrays.texts((BookkeepingEvent.SOURCE,))[0])
        return not pc.any(is_own).as_py()

    def _matching(self, rows: pa.Table, limit: int) -> pa.Table:
        """Rows where the condition holds, in the order of arrival."""
        condition = f"WHERE (\n{self._where}\n)" if self._where is not None else ""
        # Registered under a name of its own cursor.
        self._cursor.register("fresh", rows)
        matches = NewestEvents.rows_of(
            self._cursor,
            f"""WITH events AS (SELECT {_COLUMNS}, writer, {TailRows.ORDER} FROM fresh)
            SELECT {_COLUMNS}, writer, {TailRows.ORDER} FROM events {condition}
            ORDER BY ingested_at, writer, {TailRows.ORDER} LIMIT {limit}""",
        )
        self._cursor.unregister("fresh")
        return matches

    def _hold(self, pending: PendingFrames) -> None:
        if not pending.has_keys and not pending.has_versions:
            return
        table = self._rows.events(pending, self._access.state(pending.head).ids)
        if table is not None:
            self._memory.hold(table, self._ended[1] if self._ended else None, pending)


def _awaits_seal(position: LivePosition, pending: PendingFrames) -> bool:
    """Whether much of the tail follows a position, and is in files that are sealed next."""
    is_finished = any(
        file.ended and file.last > pending.watermark(writer)
        for writer, files in pending.files.items()
        for file in files
    )
    unread = sum(
        frames[-1].end - max(position.marks.get(writer_mark(writer), 0), frames[0].position)
        for writer, frames in pending.frames.items()
    )
    return is_finished and unread > _SEALED_SOON


def _is_in_order(rows: pa.Table) -> bool:
    """Whether rows of the tail stand in the order of arrival, and are those of one writer."""
    if not rows.num_rows:
        return True
    times, writers = arrays.numbers(rows["ingested_at"]), rows["writer"]
    # Several writers are merged by time, which the order of the tail does not do.
    is_of_one = pc.all(pc.equal(writers, writers[0])).as_py()
    return bool(is_of_one and (times[1:] >= times[:-1]).all())


def _and(*conditions: str | None) -> str | None:
    present = [f"(\n{condition}\n)" for condition in conditions if condition is not None]
    return " AND ".join(present) or None


def _not_given(marks: Mapping[str, int]) -> str | None:
    """SQL for the published events that were not given from the tail before they were sealed."""
    writers = [mark for mark in marks if not is_of_stream(mark)]
    if not writers:
        return None
    # Names of writers are hexadecimal, so that they need no quoting.
    cases = " ".join(f"WHEN '{writer}' THEN position < {marks[writer]}" for writer in writers)
    return f"NOT coalesce(CASE {writer_mark_sql('origin')} {cases} END, false)"
