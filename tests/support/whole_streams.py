"""What the random histories of all entrances do with streams: messages are consumed, subscribers
and readers of the live tail are handed what is new, and requests of HTTP store and ask."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import lakelog
from lakelog import subscriptions
from lakelog.clients import ConnectionLost
from lakelog.consume.consume import Consumer
from lakelog.errors import SubscriptionRewound
from lakelog.server.limits import ServerLimits
from tests.support import asgi_lake
from tests.support.message_list import MessageList
from tests.support.whole_model import READERS, Event, State, same

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from random import Random


def numbers_of(events: Iterable[Mapping[str, Any]]) -> list[int]:
    """The numbers of those events that have one, in their order."""
    payloads = [event["data"] or {} for event in events]
    payloads = [json.loads(data) if isinstance(data, str) else data for data in payloads]
    return [data["n"] for data in payloads if "n" in data]


@dataclasses.dataclass(frozen=True)
class Bookmark:
    """How far a reader came: its position, the state, and how often the branch had moved."""

    position: str
    state: State
    moves: int


@dataclasses.dataclass(frozen=True)
class Post:
    """A request that stores events and a line that is none, under a name."""

    name: str
    events: list[Event]
    bad: str
    time: int

    @property
    def body(self) -> bytes:
        """JSON lines."""
        lines = [json.dumps(event.record) for event in self.events]
        return "".join(f"{line}\n" for line in (*lines, self.bad)).encode()


class Streams:
    """Steps and questions of a history (`whole_history`), which has what is named here."""

    if TYPE_CHECKING:
        home: Path
        path: str
        dice: Random
        lake: Any
        clock: int
        number: int
        state: State
        tags: dict[str, State]
        moves: dict[str, list[tuple[State, State]]]
        erased: set[str | int]

        def event(self, **fixed: Any) -> Event:
            """One new event."""

        def events(self, most: int = 4) -> list[Event]:
            """New events."""

    def __init__(self) -> None:
        self.topics: dict[str, list[Event | str]] = {}
        self.posts = list[Post]()
        self.repeats = set[str]()
        """Lines of requests that came again when nobody knew them any more."""
        self.bookmarks: dict[tuple[str, str], Bookmark] = {}
        self.merged_away = set[int]()
        """Events that were stored, and of which a remote had the key."""

    def bad(self) -> str:
        """A line that is no event."""
        self.number += 1
        return f'{{"oops": {self.number}'

    def _bookmark(self, reader: str) -> Bookmark:
        """Where a reader of the branch stood, unless the branch has moved since."""
        moves = len(self.moves[self.lake.branch_name])
        bookmark = self.bookmarks.get((reader, self.lake.branch_name))
        if bookmark is None or bookmark.moves != moves:
            return Bookmark("beginning", State(), moves)
        return bookmark

    def _check_new(self, reader: str, found: list[int], position: str) -> None:
        """A reader has been handed what came since it was last asked, each once."""
        before = self._bookmark(reader)
        new = self.state.events - before.state.events
        same(Counter(found), Counter(event.number for event in new), reader)
        bookmark = dataclasses.replace(before, position=position, state=self.state)
        self.bookmarks[reader, self.lake.branch_name] = bookmark

    # --- steps ---

    def do_append_consumed(self) -> None:
        """Append what a topic has, of which one kind may lose its newest message."""
        name = self.dice.choice(["topic", "stream"])
        topic = self.topics.setdefault(name, [])
        if name == "stream" and len(topic) > 3 and self.dice.random() < 0.3:
            topic.pop()
        topic += [dataclasses.replace(e, source=e.source or name) for e in self.events()]
        topic += [self.bad()] if self.dice.random() < 0.3 else []
        values = [m if isinstance(m, str) else json.dumps(m.record) for m in topic]
        source = MessageList(name, [value.encode() for value in values], name == "stream")
        if self.dice.random() < 0.3:
            source.faults.append(ConnectionLost("the connection broke"))
        consumer = Consumer(self.lake, source, form="jsonl", batch=self.dice.choice([1, 3, 100]))
        with contextlib.closing(consumer):
            consumer.run()
        due = [message for message in topic if message not in self.state.consumed]
        events = [e for e in due if isinstance(e, Event) and not e.is_one_of(self.erased)]
        state = self.state.add(*events).refuse(*(m for m in due if isinstance(m, str)))
        self.state = dataclasses.replace(state, consumed=state.consumed | set(due))

    def do_append_reactions(self) -> None:
        """Append what a subscriber answers to failures, of which it may give some up."""
        # One whose handler fails is called again, alone: the last answer counts.
        answers = dict[int, Event | None]()
        gives_up, again = self.dice.random() < 0.3, self.dice.random() < 0.3

        def react(event: Any) -> Any:
            [number] = numbers_of([event])
            assert gives_up or number not in answers
            answers[number] = None
            if gives_up and number % 2:
                raise ValueError("this one is odd")
            answer = self.event(type="note", subject=event["subject"], id=None)
            answers[number] = answer
            return answer.record

        with self.lake.subscribe("react", where="type = 'FAIL'") as subscription:
            subscription.run(react, once=True, attempts=1)
        state = self.state
        due = {event for event in state.events if event.type == "FAIL"} - state.reacted
        same(set(answers), {event.number for event in due}, "subscription")
        dead = state.dead | {event for event in due if gives_up and event.number % 2}
        if again:
            gives_up, letters, handled = False, dead & state.events, dict(answers)
            answers.clear()
            subscriptions.retry(self.lake.subscriptions(), "react", react)
            same(set(answers), {event.number for event in letters}, "dead letters")
            dead -= letters
            answers = {**handled, **answers}
        state = state.add(*(answer for answer in answers.values() if answer is not None))
        self.state = dataclasses.replace(state, reacted=state.reacted | due, dead=frozenset(dead))

    def do_append_posted(self) -> None:
        """Append by a request of HTTP, which is sent twice, perhaps an old one."""
        if not self.posts or self.dice.random() < 0.7:
            events = [dataclasses.replace(e, source=e.source or "posted") for e in self.events()]
            self.posts.append(Post(f"post{len(self.posts)}", events, self.bad(), self.clock))
        post = self.dice.choice(self.posts[-3:])
        if abs(self.clock - post.time) > ServerLimits.remembered_seconds * 1_000_000:
            self.repeats.add(post.bad)
        for _ in range(2):
            with lakelog.open(self.path, create=False, branch=self.lake.branch_name) as lake:
                status = asyncio.run(self._posted(lake, post))
            same(status, 200, post)
        if post.name not in self.state.posts:
            due = [event for event in post.events if not event.is_one_of(self.erased)]
            state = self.state.add(*due).refuse(post.bad)
            self.state = dataclasses.replace(state, posts=state.posts | {post.name})

    async def _posted(self, lake: Any, post: Post) -> int:
        async with asgi_lake.serving(lake) as ask:
            headers = {"idempotency-key": post.name}
            return (await ask("POST", "/ingest/posted", post.body, headers)).status

    def do_append_in_children(self) -> None:
        """Append in two children at once and in their parent, through one open lake."""
        batches = [[dataclasses.replace(e, id=None) for e in self.events()] for _ in range(3)]
        children = [os.fork() or self._child(batch) for batch in batches[1:]]
        self.lake.append([event.record for event in batches[0]])
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        for batch in batches:
            self.state = self.state.add(*batch)

    def _child(self, batch: list[Event]) -> int:
        """Append and seal in a child, which ends."""
        try:
            self.lake.append([event.record for event in batch])
            self.lake.settle()
        except BaseException:
            os._exit(1)
        os._exit(0)

    # --- questions ---

    def ask_child(self) -> None:
        """Read all rows in a child, through the lake that its parent has open."""
        child = os.fork()
        if not child:
            code = 1
            try:
                rows = self.lake.sql(READERS.format(table="events")).fetchall()
                code = int(set(rows) != {event.row for event in self.state.events})
            finally:
                os._exit(code)
        same(os.waitpid(child, 0)[1], 0, "child")

    def ask_quarantine(self) -> None:
        """Read the lines that are no events."""
        query = "SELECT line FROM quarantine WHERE line LIKE '%oops%'"
        found = Counter(line.strip() for (line,) in self.lake.sql(query).fetchall())
        # One that was sent again once its request was forgotten is there again, perhaps alone.
        more = {line: found[line] - (line in self.state.bad) for line in self.repeats}
        found -= Counter({line: max(count, 0) for line, count in more.items()})
        same(found, Counter(self.state.bad), "quarantine")

    def ask_batches(self) -> None:
        """Take batches from a position that the reader stores itself."""
        bookmark = self._bookmark("batches")
        position, found = bookmark.position, list[int]()
        try:
            with self.lake.subscribe(None, from_=position) as subscription:
                for batch in subscription.batches(size=self.dice.choice([1, 7, 1000]), timeout=0):
                    found += numbers_of(batch.events)
                    position = batch.position
        except SubscriptionRewound:
            raise AssertionError("rewound") from None
        self._check_new("batches", found, position)

    def ask_followed(self) -> None:
        """Follow what some entrance appends, and an event that comes last."""
        before, feed = self.state, self.lake.follow(timeout=60)
        names = [n for n in dir(self) if n.startswith("do_append") and n != "do_append_elsewhere"]
        getattr(self, self.dice.choice(names))()
        self._append_last()
        new, found = self.state.events - before.events, list[int]()
        # Of writers whose clocks differ the last one need not come last; and what a merge took
        # away, as the remote has its key, had arrived.
        for event in feed:
            found += (number for number in numbers_of([event]) if number not in self.merged_away)
            if len(found) >= len(new):
                break
        same(Counter(found), Counter(event.number for event in new), "follow")

    def _append_last(self) -> Event:
        event = self.event(id=None)
        self.lake.append(event.record)
        self.state = self.state.add(event)
        return event

    def ask_tail(self) -> None:
        """Go on with the live tail of a server, behind what the last one has given."""
        if self.dice.random() < 0.5:
            return
        last, bookmark = self._append_last(), self._bookmark("tail")
        with lakelog.open(self.path, create=False, branch=self.lake.branch_name) as lake:
            found, position = asyncio.run(self._tailed(lake, bookmark.position, last))
        self._check_new("tail", found, position)

    async def _tailed(self, lake: Any, after: str, last: Event) -> tuple[list[int], str]:
        async with asgi_lake.serving(lake) as ask:
            mark = f"tok{last.number}x".encode()
            text = (await ask("GET", f"/tail?after={after}", until=mark)).body.decode()
        blocks = [
            dict(line.partition(": ")[::2] for line in b.split("\n")) for b in text.split("\n\n")
        ]
        events = [json.loads(block["data"]) for block in blocks if "data" in block]
        return numbers_of(events), [block["id"] for block in blocks if "id" in block][-1]

    def ask_query(self) -> None:
        """Ask a server, perhaps for a tag."""
        if self.dice.random() < 0.5:
            return
        name = self.dice.choice(["", *self.tags])
        state = self.tags[name] if name else self.state
        question = {"sql": READERS.format(table="events"), **({"at": name} if name else {})}
        with lakelog.open(self.path, create=False, branch=self.lake.branch_name) as lake:
            rows = asyncio.run(self._queried(lake, json.dumps(question).encode()))
        same(Counter(map(tuple, rows)), Counter(event.row for event in state.events), name)

    async def _queried(self, lake: Any, body: bytes) -> list[list[Any]]:
        async with asgi_lake.serving(lake) as ask:
            reply = await ask("POST", "/sql", body, {"content-type": "application/json"})
        assert reply.status == 200, reply
        rows: list[list[Any]] = json.loads(reply.body)["rows"]
        return rows
