"""A random history of a subscription, its members, dead letters and lake, beside a plain model."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import lakelog
from lakelog import subscriptions
from lakelog.errors import SubscriptionGone
from tests.support import lakes

SUBJECTS, MEMBERS, RETRIERS, BRANCHES, LEASE = 7, 4, 2, 3, 2.0
FORK = multiprocessing.get_context("fork")
NEVER, PERHAPS = 3, 7
"""Which of eleven events a member never handles, and which it fails to handle half of the time."""
FATES = """WITH fates AS (
        SELECT seq, type, data->>'n' AS n FROM events WHERE type IN ('IN', 'OUT', 'RETRIED')
        UNION ALL SELECT letter.seq, 'DEAD', event.data->>'n' FROM events AS letter
        JOIN events AS event ON event.type = 'IN' AND event.origin = letter.data->>'origin'
            AND event.position = (letter.data->>'position')::BIGINT
        WHERE letter.type = 'lakelog.dead_letter')
    SELECT type, n::INT FROM fates ORDER BY seq"""


def react(event: dict[str, Any], kind: str = "OUT") -> dict[str, Any]:
    """The reaction to an event, with its number."""
    number = json.loads(event["data"])["n"]
    fate = number % 11 if kind == "OUT" else PERHAPS
    if fate == NEVER or (fate == PERHAPS and random.random() < 0.5):
        raise ValueError(f"no {number}")
    return {"type": kind, "subject": event["subject"], "data": {"n": number}}


def work(path: str, branch: str, *, once: bool) -> int:
    """Be a member, for ever or until nothing is left."""
    random.seed()
    with (
        lakelog.open(path, branch=branch) as lake,
        lake.subscribe("react", where="type = 'IN'") as subscription,
    ):
        subscription._lease = LEASE
        return subscription.run(react, once=once, attempts=2, commit_every=0.05)


def retry(path: str) -> None:
    """Handle dead letters for ever."""
    random.seed()
    with lakelog.open(path) as lake:
        while True:
            # The branch may be back where the subscription was not yet.
            with contextlib.suppress(SubscriptionGone):
                subscriptions.retry(lake.subscriptions(), "react", lambda e: react(e, "RETRIED"))
            time.sleep(0.05)


class History:
    """One random history of a lake."""

    def __init__(self, root: Path, seed: int) -> None:
        self.random, self.root, self.seed = random.Random(seed), root, seed
        self.path = str(root / "lake")
        self.lake = lakes.opened(self.path)
        self.number, self.kills = 0, 0
        self.expected: dict[str, list[int]] = {"main": []}
        self.tags: dict[str, list[int]] = {}
        self.before_rollback: list[int] | None = None
        self.members: list[BaseProcess] = []
        self.retriers: list[BaseProcess] = []
        self.stopped: list[BaseProcess] = []

    def event(self) -> dict[str, Any]:
        self.number += 1
        subject = f"s{self.number % SUBJECTS}" if self.number % SUBJECTS else None
        event = {"type": "IN", "subject": subject, "data": {"n": self.number}}
        if self.random.random() < 0.3:
            event["id"] = f"id{self.number}"
        self.expected["main"].append(self.number)
        return event

    def append(self) -> None:
        for _ in range(self.random.choice([1, 3, 10])):
            self.lake.append([self.event() for _ in range(self.random.choice([1, 5, 50]))])

    def append_again(self) -> None:
        """Events whose ids are known, which change nothing."""
        self.lake.append({"type": "IN", "id": "id-again", "data": {"n": 0}, "subject": "again"})
        if 0 not in self.expected["main"]:
            self.expected["main"].append(0)

    def ingest(self) -> None:
        events = [self.event() for _ in range(20)]
        file = self.root / f"{self.number}.jsonl"
        file.write_text("".join(json.dumps(event) + "\n" for event in events))
        self.lake.ingest(str(file))

    def kill(self) -> None:
        """Kill or stop a member, and start another."""
        if len(self.members) < MEMBERS:
            self.start()
        victim = self.members.pop(self.random.randrange(len(self.members)))
        assert victim.exitcode is None
        if self.random.random() < 0.3:
            os.kill(victim.pid or 0, signal.SIGSTOP)
            self.stopped.append(victim)
        else:
            victim.kill()
            victim.join()
        self.kills += 1
        self.start()

    def kill_retrier(self) -> None:
        """Kill one who handles dead letters, and start another."""
        if len(self.retriers) == RETRIERS:
            victim = self.retriers.pop(0)
            assert victim.exitcode is None
            victim.kill()
            victim.join()
            self.kills += 1
        process = FORK.Process(target=retry, args=(self.path,))
        process.start()
        self.retriers.append(process)

    def start(self) -> None:
        process = FORK.Process(target=work, args=(self.path, "main"), kwargs={"once": False})
        process.start()
        self.members.append(process)

    def wake(self) -> None:
        """Let members that were stopped go on."""
        for process in self.stopped:
            os.kill(process.pid or 0, signal.SIGCONT)
            self.members.append(process)
        self.stopped = []
        for process in self.members[:-MEMBERS]:
            process.kill()
            process.join()
        self.members = self.members[-MEMBERS:]

    def tag(self) -> None:
        name = f"t{self.number}-{len(self.tags)}"
        self.lake.tag(name)
        self.tags[name] = list(self.expected["main"])

    def rollback(self) -> None:
        if self.tags:
            name = self.random.choice(sorted(self.tags))
            self.lake.rollback(name)
            self.before_rollback = self.expected["main"]
            self.expected["main"] = list(self.tags[name])

    def undo(self) -> None:
        """Take the last rollback back, or the last undo."""
        if self.before_rollback is not None:
            self.lake.undo(force=True)
            before, self.before_rollback = self.before_rollback, self.expected["main"]
            self.expected["main"] = list(before)

    def branch(self) -> None:
        """Start a branch; its events are handled there, too."""
        if len(self.expected) > BRANCHES:
            return
        name = f"b{len(self.expected)}"
        self.lake.branch(name).close()
        self.expected[name] = list(self.expected["main"])

    def check(self, branch: str) -> None:
        """Let one member handle what is left, and compare."""
        work(self.path, branch, once=True)
        numbers: dict[str, list[int]] = {kind: [] for kind in ("IN", "OUT", "DEAD", "RETRIED")}
        order: list[int] = []
        with lakelog.open(self.path, branch=branch) as lake:
            for kind, number in lake.sql(FATES).fetchall():
                numbers[kind].append(number)
                order += [number] if kind in ("OUT", "DEAD") else []
            access = lake.subscriptions()
            (status,) = subscriptions.listed(access)
            letters = subscriptions.dead_letters(access, "react")
        left = [json.loads(letter.event["data"])["n"] for letter in letters]
        wanted = sorted(self.expected[branch])
        assert sorted(numbers["IN"]) == wanted, self.seed
        assert sorted(order) == wanted, self.seed
        assert all(number in numbers["DEAD"] for number in wanted if number % 11 == NEVER)
        assert sorted(left + numbers["RETRIED"]) == sorted(numbers["DEAD"]), self.seed
        assert (status.handled, status.dead) == (len(wanted), len(left)), self.seed
        for subject in range(SUBJECTS):
            of_subject = [n for n in order if n % SUBJECTS == subject and n]
            assert of_subject == sorted(of_subject), (self.seed, subject)

    def run(self, kills: int) -> None:
        """Play until so many members were killed; look at every branch now and then."""
        acts = [self.append] * 6 + [self.ingest, self.append_again, self.tag] + [self.kill] * 4
        acts += [self.rollback, self.undo, self.wake, self.branch, self.kill_retrier]
        acts += [self.lake.settle, self.lake.compact]
        while self.kills < kills:
            self.random.choice(acts)()  # type: ignore[operator]
            time.sleep(self.random.choice([0, 0.02, 0.1]))
        self.end()
        for branch in self.expected:
            self.check(branch)
        # States that were left have what was handled there, and no more.
        for name in self.random.sample(sorted(self.tags), min(len(self.tags), 3)):
            self.lake.rollback(name)
            self.expected["main"] = list(self.tags[name])
            self.check("main")
        assert self.lake.verify().problems == ()

    def end(self) -> None:
        for process in (*self.members, *self.retriers, *self.stopped):
            process.kill()
            process.join()
        self.members, self.retriers, self.stopped = [], [], []
