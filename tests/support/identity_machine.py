"""Ids on every entrance at once, against a plain model: the first that was acknowledged stays.

A history is drawn from its seed. Each of its operations brings events whose ids others have, too:
appended, in a file, in a watched file, in messages, or as quarantined lines that are tried again.
In the middle of one, before some change of the disk, other operations come, of another process; or
it is killed there. After each, what a reader sees of an id is what any reader saw before.

The moment between the look at the tail and the link is left out: an append that begins and ends
there is concurrent with the publish, and the publish is the first of both (F13.5).
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.collect.watch import Watcher
from lakelog.ingest.batch import CursorMoved, Job
from lakelog.ingest.message_events import Message
from lakelog.ingest.messages import MessageBatch
from lakelog.ingest.quarantine import Quarantine
from lakelog.ingest.stream_cursor import StreamCursor
from lakelog.runtime import locks
from tests.support import seam
from tests.support.seam import CHANGES, Killed, bury

IDS = 12
STEPS = 12
_SEEN = "SELECT id, (data->>'v')::BIGINT FROM events WHERE id <> '' ORDER BY id"


class History:
    """One history; `play` raises AssertionError where an acknowledged event was replaced."""

    def __init__(self, home: Path, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.home, self.dice = home, random.Random(f"ids {seed}")
        self.watched = home / "watched"
        self.watched.mkdir()
        self.settings = {"seal": "never", "segment_rows": self.dice.choice([3, 100])}
        self.handles: list[lakelog.Lake | None] = [None, None]
        self.watches: list[Watcher | None] = [None, None]
        self.seen: dict[str, int] = {}
        """What a reader saw of each id."""
        self.values = self.files = self.messages = 0
        self.log: list[str] = []
        self._left, self._then = 0, self._nothing
        self._outer: list[int] = []
        self._is_dead, self._created = False, set[int]()
        seam.install(patch, self._hook)

    def play(self) -> None:
        """Play all steps, then look once more when all is sealed."""
        self.lake(0)
        for _ in range(STEPS):
            self._step(self.dice.randrange(2), depth=0)
        for change in (lambda: None, self.lake(0).settle, self.lake(0).compact):
            change()
            self.look(0)
        assert self.lake(1).verify().problems == ()
        self.close()

    def lake(self, which: int) -> lakelog.Lake:
        """The lake as one of two processes has it open."""
        lake = self.handles[which]
        if lake is None:
            lake = lakelog.open(self.home / "lake", settings=self.settings)
            self.handles[which] = lake
        return lake

    def close(self) -> None:
        """Close all."""
        for watch, lake in zip(self.watches, self.handles, strict=True):
            if watch is not None:
                watch.close()
            if lake is not None:
                lake.close()

    def look(self, which: int) -> None:
        """Read all ids; each is there once, as it was seen before."""
        rows = self.lake(which).sql(_SEEN).fetchall()
        now = dict(rows)
        assert len(rows) == len(now), f"an id twice: {rows}"
        assert self.lake(which).count() == len(rows)
        changed = {i: (v, now.get(i)) for i, v in self.seen.items() if now.get(i) != v}
        assert not changed, f"seen before, and now: {changed}"
        self.seen = now

    # --- operations -------------------------------------------------------------------------------

    def _events(self, depth: int) -> list[dict[str, Any]]:
        """Some events; what comes in the middle of others mostly has their ids."""
        numbers = self.dice.sample(range(IDS), self.dice.randrange(1, 4))
        if depth and self.dice.random() < 0.8:
            numbers = self._outer
        self._outer, events = numbers, []
        for number in numbers:
            self.values += 1
            event = {"type": "A", "source": "s", "id": f"i{number}", "data": {"v": self.values}}
            events.append(event)
        return events

    def _lines(self, events: list[dict[str, Any]]) -> str:
        return "".join(json.dumps(event) + "\n" for event in events)

    def append(self, which: int, events: list[dict[str, Any]]) -> None:
        self.lake(which).append(events)

    def ingest(self, which: int, events: list[dict[str, Any]]) -> None:
        self.files += 1
        paths = []
        for nth, some in enumerate((events[:1], events[1:])):
            path = self.home / f"file {self.files} {nth}.jsonl"
            path.write_text(self._lines(some))
            paths.append(path)
        self.lake(which).ingest(paths[: self.dice.randrange(1, 3)] if len(events) < 2 else paths)

    def watch(self, which: int, events: list[dict[str, Any]]) -> None:
        with (self.watched / f"log {self.dice.randrange(2)}.jsonl").open("a") as file:
            file.write(self._lines(events))
        # Two watchers of one file are two processes, of which either may be the faster.
        watch = self.watches[which] or Watcher(self.lake(which), [str(self.watched)])
        self.watches[which] = watch
        watch.round(final=True)

    def consume(self, which: int, events: list[dict[str, Any]]) -> None:
        stream = f"stream {which}"
        first = self.messages
        self.messages += len(events)
        while True:
            lake = self.lake(which)
            batch = MessageBatch(Job(lake.store, "main", lake.engine, None, "s"))
            messages = [
                Message(stream, str(n + 1), n, json.dumps(e).encode(), None, None, b"{}", "of")
                for n, e in enumerate(events, first)
            ]
            try:
                batch.move(batch.cursors.get(stream) or StreamCursor(stream, stream))
                batch.add(messages, stream)
                batch.publish(stream)
                return
            except CursorMoved:
                continue
            finally:
                batch.close()

    def replay(self, which: int, events: list[dict[str, Any]]) -> None:
        lake = self.lake(which)
        self.put_aside(lake, events)
        Quarantine(lake.store, "main").replay(lake.engine)

    def put_aside(self, lake: lakelog.Lake, events: list[dict[str, Any]]) -> None:
        """Have events quarantined as lines."""
        self.files += 1
        lines = self._lines(events).splitlines()
        lake.quarantine([(f"bad {self.files}", n, "bad", line) for n, line in enumerate(lines)])
        lake.settle()

    def rollback(self, which: int) -> None:
        """Take some events away: their ids are free again."""
        lake = self.lake(which)
        lake.tag(f"t{self.values}")
        moves = [entry.move.number for entry in lake.log(4)]
        target = f"@{self.dice.choice(moves)}"
        self.seen = dict(lake.at(target).sql(_SEEN).fetchall())
        lake.rollback(target)

    def _step(self, which: int, depth: int) -> None:
        """One operation, with others in the middle of it, or killed there."""
        lake = self.lake(which)
        events = self._events(depth)
        entrances: list[Callable[[], object]] = [
            lambda: self.append(which, events),
            lambda: self.ingest(which, events),
            lambda: self.watch(which, events),
            lambda: self.consume(which, events),
            lambda: self.replay(which, events),
        ]
        others: list[Callable[[], object]] = [lake.settle, lake.compact]
        if not depth:  # within another operation it may take away what that one works on
            others.append(lambda: self.rollback(which))
        chosen = self.dice.choice([*entrances * 2, *others])
        nth = (entrances + others).index(chosen)
        name = (*"append ingest watch consume replay settle compact rollback".split(),)[nth]
        self.log.append(f"{'  ' * depth}{which} {name} {[e['id'] for e in events]}")
        is_killed = False
        if depth == 0:
            fate = self.dice.random()
            self._left = self.dice.randrange(1, 25) if fate < 0.8 else 0
            # Two appends are in the order of their stamps, whichever is durable first (F12.6).
            if name == "rollback":
                self._left = 0
            elif fate < 0.6 and name != "append":
                self._then = lambda: self._others(1 - which)
            else:
                self._then = self._die
        try:
            chosen()
        except Killed:
            is_killed = True
        if depth == 0:
            self._left, self._then = 0, self._nothing
        if is_killed:
            self._bury(which)
        self.look(which)
        if not is_killed and nth < len(entrances):
            lost = {e["id"] for e in events} - self.seen.keys()
            assert not lost, f"acknowledged and not there: {lost}"

    def _others(self, which: int) -> None:
        self.look(which)
        for _ in range(self.dice.randrange(1, 3)):
            self._step(which, depth=1)

    # --- the seam ---------------------------------------------------------------------------------

    def _nothing(self) -> None:
        pass

    def _die(self) -> None:
        self._is_dead = True
        raise Killed

    def _bury(self, which: int) -> None:
        """What a process that was killed had open is closed; another one goes on."""
        self.log.append("    killed")
        self._is_dead = False
        lake, self.handles[which], self.watches[which] = self.handles[which], None, None
        writer = lake._writer if lake else None
        if writer is not None:
            self._created |= {fd for fd in (writer._fd, *writer._abandoned) if fd >= 0}
        bury(self._created)

    def _hook(self, name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._is_dead and name in CHANGES:
            raise Killed
        is_link = name == "link" and "/refs/" in str(args[1])
        is_main = threading.current_thread() is threading.main_thread()
        if name in CHANGES and not is_link and is_main and self._left:
            self._left -= 1
            # In the middle of a call that holds a lock nothing else of this process can run.
            if not self._left and not any(lock.is_held() for lock in locks._LOCKS):
                then, self._then = self._then, self._nothing
                then()
        result = real(*args, **kwargs)
        if name == "create":
            self._created.add(result)
        elif name == "close":
            self._created.discard(args[0])
        return result
