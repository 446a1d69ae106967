"""What several tests use: the lake against a list."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections import Counter
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import lakelog
from lakelog.disk import disk
from lakelog.errors import AlreadyExists, NothingToUndo, UnknownRef, WouldDropEvents
from tests.support.scratch import memory

OLD = "2001-02-03T04:05:06Z"
Row = tuple[str, str | None, int]


@dataclasses.dataclass(frozen=True)
class State:
    """What a snapshot holds; `old` are rows that retention would take."""

    rows: tuple[Row, ...] = ()
    old: tuple[Row, ...] = ()
    keys: frozenset[Any] = frozenset()
    next_seq: int = 0
    bad: int = 0

    def add(self, row: Row, old: bool, key: Any) -> State:
        """Return the state with one event more, unless its identity is known."""
        if key is not None and key in self.keys:
            return self
        keys = self.keys if key is None else self.keys | {key}
        rows, aged = (self.rows, (*self.old, row)) if old else ((*self.rows, row), self.old)
        return dataclasses.replace(self, rows=rows, old=aged, keys=keys, next_seq=self.next_seq + 1)

    @property
    def all(self) -> Counter[Row]:
        """All rows, as a multiset."""
        return Counter(self.rows + self.old)


@dataclasses.dataclass
class Branch:
    """A branch: its present state and the user's moves, each with the states before and after."""

    now: State
    moves: list[tuple[str, State, State]] = dataclasses.field(default_factory=list)
    final: int = 0
    """So many of the moves cannot be undone any more, as gc took the states before them."""

    def move(self, op: str, target: State) -> None:
        """Go to a state by a move of the user's."""
        self.moves.append((op, self.now, target))
        self.now = target


HANDLES = st.integers(0, 11)
EVENTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.none() | st.sampled_from("xyzw"), st.booleans()),
    min_size=1,
    max_size=4,
)
MODES = st.sampled_from(["plain", "plain", "force", "branch"])


class LakeMachine(RuleBasedStateMachine):
    """Handles on the branches of one lake, and the model of it."""

    @initialize(rows=st.sampled_from([3, 1_000_000]))
    def start(self, rows: int) -> None:
        """Make a lake that gives no grace, so that gc deletes whatever it may."""
        self.home = tempfile.mkdtemp(prefix="lakelog-", dir=memory())
        self.given = {"seal": "never", "gc_grace_hours": 0, "history_days": 0, "rotate_events": 5}
        self.given["segment_rows"] = rows
        self.branches = {"main": Branch(State())}
        self.tags: dict[str, State] = {}
        self.known: dict[str, State] = {}
        self.handles: list[lakelog.Lake] = []
        self.counter, self.aged = 0, False
        self.acting = self.open("main")

    def open(self, branch: str) -> lakelog.Lake:
        """Open one more handle."""
        lake = lakelog.open(f"{self.home}/lake", branch=branch, settings=self.given)
        self.handles.append(lake)
        return lake

    def take(self, index: int) -> tuple[lakelog.Lake, Branch]:
        """Let one of the handles act."""
        self.acting = self.handles[index % len(self.handles)]
        return self.acting, self.branches[self.acting.branch_name]

    def remember(self) -> None:
        """Note which snapshot the present state has; the branch was just settled."""
        branch = self.acting.branch_name
        head = self.acting.store.refs.head(branch).move
        self.known[head.snapshot] = self.branches[branch].now

    # --- events ---

    @rule(index=HANDLES, events=EVENTS)
    def append(self, index: int, events: list[tuple[str, str | None, bool]]) -> None:
        """Append a batch, some events with ids that were seen before, some long past."""
        lake, branch = self.take(index)
        batch = []
        for kind, ident, old in events:
            self.counter += 1
            event: dict[str, Any] = {"type": kind, "data": self.counter, "source": "s"}
            event |= {"id": ident} if ident else {}
            batch.append(event | ({"time": OLD} if old else {}))
            key = ("id", ident) if ident else None
            branch.now = branch.now.add((kind, ident, self.counter), old, key)
        receipt = lake.append(batch)
        assert receipt.count == len(batch) == len(receipt.ids)

    @rule(index=HANDLES, kind=st.sampled_from("abc"), number=st.integers(-3, -1))
    def append_content(self, index: int, kind: str, number: int) -> None:
        """Append an event that counts once for its content."""
        lake, branch = self.take(index)
        lake.append({"type": kind, "data": number, "time": OLD}, dedupe="content")
        branch.now = branch.now.add((kind, None, number), True, ("content", kind, number))

    @rule(index=HANDLES)
    def quarantine(self, index: int) -> None:
        """Put a bad line aside."""
        lake, branch = self.take(index)
        lake.quarantine([("a.log", self.counter, "bad", "{")])
        branch.now = dataclasses.replace(branch.now, bad=branch.now.bad + 1)

    @rule(index=HANDLES, at=st.integers(0, 20))
    def read_by_name(self, index: int, at: int) -> None:
        """Read a tag or a branch by its name, from wherever, and a tag as a view."""
        lake, _ = self.take(index)
        states = {name: branch.now for name, branch in self.branches.items()} | self.tags
        name = list(states)[at % len(states)]
        rows = lake.sql(f'SELECT type, id, data::INT FROM "{name}".events').fetchall()
        assert Counter(rows) == states[name].all
        if name in self.tags:
            rows = lake.at(name).sql("SELECT type, id, data::INT FROM events").fetchall()
            assert Counter(rows) == states[name].all

    # --- upkeep ---

    @rule(index=HANDLES)
    def settle(self, index: int) -> None:
        """Publish what is pending: then every event has its own place in the order."""
        lake, branch = self.take(index)
        head = lake.settle()
        state = lake.store.manifests.load(head.move.snapshot)
        assert state.next_seq == branch.now.next_seq
        seqs = [s for (s,) in lake.sql("SELECT seq FROM events ORDER BY seq").fetchall()]
        assert len(set(seqs)) == len(seqs)
        if not any(op == "retention" for b in self.branches.values() for op, _, _ in b.moves):
            assert seqs == list(range(branch.now.next_seq))
        self.remember()

    @rule(index=HANDLES)
    def compact(self, index: int) -> None:
        """Merge segments."""
        self.take(index)[0].compact()
        self.remember()

    @rule(index=HANDLES)
    def gc(self, index: int) -> None:
        """Collect garbage: nothing may go that a tag, a branch or one of its last moves names; what
        was before a retention is no history any more, as the lake keeps no days of it."""
        lake, _ = self.take(index)
        lake.gc()
        kept = {tag.snapshot for tag in lake.store.refs.tags()}
        for name in self.branches:
            for number in reversed(lake.store.refs.numbers(name)[-100:]):
                move = lake.store.refs.read(name, number)
                kept.add(move.snapshot)
                if move.op == "retention":
                    break
        for branch in self.branches.values():
            ops = [op for op, _, _ in branch.moves]
            if "retention" in ops:
                branch.final = len(ops) - ops[::-1].index("retention")
        self.known = {digest: state for digest, state in self.known.items() if digest in kept}
        for name, state in self.tags.items():
            rows = lake.at(name).sql("SELECT type, id, data::INT FROM events").fetchall()
            assert Counter(rows) == state.all

    @precondition(lambda self: self.tags and not self.aged)
    @rule(index=HANDLES)
    def age(self, index: int) -> None:
        """Push everything a branch had out of its window by a hundred moves, once."""
        lake, branch = self.take(index)
        self.aged = True
        for number in range(100):
            lake.snapshot(str(number))
            branch.move("snapshot", branch.now)
        self.remember()
        # What only tags keep must outlive the next collection.
        self.gc(index)

    @rule(index=HANDLES)
    def retention(self, index: int) -> None:
        """Take away all events long past."""
        lake, branch = self.take(index)
        done = lake.retention("365d", apply=True)
        assert done.events == len(branch.now.old)
        if done.applied:
            branch.move("retention", dataclasses.replace(branch.now, old=()))
        self.remember()

    # --- names and moves ---

    @rule(index=HANDLES)
    def tag(self, index: int) -> None:
        """Name the present state."""
        lake, branch = self.take(index)
        name = f"t{len(self.tags)}"
        lake.tag(name)
        self.tags[name] = branch.now
        with pytest.raises(AlreadyExists):
            lake.tag(name)
        self.remember()

    @rule(index=HANDLES)
    def snapshot(self, index: int) -> None:
        """Record a message."""
        lake, branch = self.take(index)
        assert lake.snapshot("here").events == sum(branch.now.all.values())
        branch.move("snapshot", branch.now)
        self.remember()

    @precondition(lambda self: len(self.branches) < 4)
    @rule(index=HANDLES, at=st.none() | st.integers(0, 20))
    def branch(self, index: int, at: int | None) -> None:
        """Start a branch here, or at a tag, and open it."""
        lake, branch = self.take(index)
        name = f"b{len(self.branches)}"
        if at is None or not self.tags:
            lake.branch(name).close()
            self.branches[name] = Branch(branch.now)
        else:
            tag = f"t{at % len(self.tags)}"
            lake.branch(name, tag).close()
            self.branches[name] = Branch(self.tags[tag])
        self.acting = self.open(name)

    @precondition(lambda self: self.tags or self.known)
    @rule(index=HANDLES, at=st.integers(0, 30), by_tag=st.booleans())
    def rollback(self, index: int, at: int, by_tag: bool) -> None:
        """Go back to a tag, or to any state a branch ever had."""
        lake, branch = self.take(index)
        if (by_tag or not self.known) and self.tags:
            ref = f"t{at % len(self.tags)}"
            target = self.tags[ref]
        else:
            ref = list(self.known)[at % len(self.known)]
            target = self.known[ref]
        assert lake.rollback(ref).events == sum(target.all.values())
        branch.move("rollback", target)
        self.remember()

    @rule(index=HANDLES, mode=MODES)
    def undo(self, index: int, mode: str) -> None:
        """Undo the last move of a user, unless later events would leave unasked."""
        lake, branch = self.take(index)
        if not branch.moves:
            with pytest.raises(NothingToUndo):
                lake.undo(force=True)
            return
        op, before, after = branch.moves[-1]
        later = max(branch.now.next_seq - after.next_seq, 0)
        if len(branch.moves) <= branch.final and mode == "plain" and later:
            with pytest.raises((UnknownRef, WouldDropEvents)):
                lake.undo()
            return
        if mode == "plain" and later:
            with pytest.raises(WouldDropEvents, match=f"^{later} events? came after the {op}"):
                lake.undo()
        else:
            name = f"b{len(self.branches)}" if mode == "branch" else None
            try:
                lake.undo(force=mode == "force", to_branch=name)
            except UnknownRef:
                assert len(branch.moves) <= branch.final
                return
            if name:
                self.branches[name] = Branch(branch.now)
                self.open(name)
            branch.move("undo", before)
        self.remember()

    # --- processes ---

    @precondition(lambda self: len(self.handles) < 6)
    @rule(index=HANDLES)
    def another(self, index: int) -> None:
        """Open a second handle on a branch, as another process would."""
        self.acting = self.open(self.take(index)[0].branch_name)

    @rule(index=HANDLES)
    def reopen(self, index: int) -> None:
        """Close a handle and open it again."""
        lake, _ = self.take(index)
        lake.close()
        self.handles.remove(lake)
        self.acting = self.open(lake.branch_name)

    @rule(index=HANDLES)
    def kill(self, index: int) -> None:
        """Let a process die: its file has no END, its lock is gone, nobody says goodbye."""
        lake, _ = self.take(index)
        writer = lake.writer()
        if writer._fd >= 0:
            disk.close(writer._fd)
            writer._fd = -1
        self.handles.remove(lake)
        self.acting = self.open(lake.branch_name)

    # --- comparison ---

    @invariant()
    def the_acting_handle_sees_the_model(self) -> None:
        """Rows, counts and bad lines are the model's; tags answer what they always did."""
        lake, branch = self.acting, self.branches[self.acting.branch_name]
        rows = lake.sql("SELECT type, id, data::INT FROM events").fetchall()
        assert Counter(rows) == branch.now.all
        [(bad,)] = lake.sql("SELECT count(*) FROM quarantine").fetchall()
        assert bad == branch.now.bad
        for name, state in self.tags.items():
            assert lake.at(name).count() == sum(state.all.values())
        assert [e.move.op for e in lake.log() if e.move.op in MOVES][::-1] == [
            op for op, _, _ in branch.moves
        ]

    @invariant()
    def every_handle_counts_alike(self) -> None:
        """All handles of a branch agree on it, whoever did what."""
        for lake in self.handles:
            assert lake.count() == sum(self.branches[lake.branch_name].now.all.values())

    def teardown(self) -> None:
        """Read everything by its name once more, then check every byte."""
        if not hasattr(self, "home"):
            return
        try:
            states = {name: branch.now for name, branch in self.branches.items()} | self.tags
            for name, state in states.items():
                rows = self.acting.sql(f'SELECT type, id, data::INT FROM "{name}".events')
                assert Counter(rows.fetchall()) == state.all
            for digest, state in list(self.known.items())[-3:]:
                rows = self.acting.at(digest).sql("SELECT type, id, data::INT FROM events")
                assert Counter(rows.fetchall()) == state.all
            assert self.acting.verify().problems == ()
        finally:
            for lake in self.handles:
                lake.close()
            shutil.rmtree(self.home)


MOVES = ("rollback", "undo", "snapshot", "retention")
