"""Whoever reads events finds them all, each once: searches in every state, members of a
subscription that are killed, and a tail, a subscription and a search beside each other."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import lakelog
from lakelog.collect.watch import Watcher
from tests.support import lakes
from tests.support.search_model import random_query, random_word
from tests.support.search_states import STATES, require_right_answer, shrink_indexes, states
from tests.support.subscription_history import History
from tests.torture.case import Case, Row

_SEARCHES, _KILLS = 500, 25
_FORK = multiprocessing.get_context("fork")


def searches(case: Case) -> None:
    """Ask random searches of a lake in each of its states."""
    dice = case.dice
    shrink_indexes(case.patch, is_counted=bool(case.number % 4))
    for lake, events in states(case.place, dice, is_ascii=case.number % 2 == 0):
        for _ in range(case.some(_SEARCHES // STATES)):
            require_right_answer(lake, events, dice.choice([random_query, random_word])(dice))
            case.verified()


def members(case: Case) -> None:
    """Kill members of a group, and require one reaction to each event of each state."""
    history = History(case.place, case.start)
    try:
        history.run(case.some(_KILLS))
    finally:
        history.end()
        history.lake.close()
    case.verified(history.kills, history.kills)


def observers(case: Case) -> None:
    """Kill those who write and who react, and require that all who read saw the same."""
    scene = _Scene(case.place, case.dice)
    try:
        scene.play(case.some(_KILLS))
    finally:
        scene.end()
    case.verified(scene.kills, scene.kills)


class _Scene:
    """A lake with writers, a rotated log that is watched, and members of a subscription."""

    def __init__(self, place: Path, dice: random.Random) -> None:
        self.place, self.dice, self.kills, self.lines = place, dice, 0, 0
        self.path, self.logs = str(place / "lake"), place / "logs"
        self.logs.mkdir(parents=True)
        self.lake = lakes.opened(self.path)
        self.processes: dict[str, BaseProcess] = {}
        self.followed: list[str] = []
        self.writers = 0

    def play(self, kills: int) -> None:
        """Let all work until so many were killed, then compare what was seen."""
        events = self.lake.follow(where="type = 'IN'", timeout=3.0, pause=0.01)
        thread = threading.Thread(target=self._follow, args=(events,))
        thread.start()
        for name in ("writer 0", "writer 1", "watcher", "member 0", "member 1"):
            self._start(name)
        acts: list[Callable[[], None]] = [self._kill, self._kill, self._log, self._log]
        acts += [self._rotate, lambda: self.lake.settle() and None, self._compact]
        while self.kills < kills:
            self.dice.choice(acts)()
            time.sleep(self.dice.choice([0, 0.02, 0.1]))
        self.end()
        with closing(Watcher(self.lake, [str(self.logs)])) as watcher:
            watcher.round(final=True)
        _react(self.path, is_once=True)
        thread.join()
        self._compare()

    def end(self) -> None:
        """Kill all."""
        for process in self.processes.values():
            process.kill()
            process.join()
        self.processes = {}

    def _follow(self, events: Any) -> None:
        self.followed += (event["message"] for event in events)

    def _start(self, name: str) -> None:
        work, _, _ = name.partition(" ")
        target, args = {
            "writer": (_write, (self.path, str(self.place / "acknowledged"), self.writers)),
            "watcher": (_watch, (self.path, str(self.logs))),
            "member": (_react, (self.path,)),
        }[work]
        self.writers += work == "writer"
        process = _FORK.Process(target=target, args=args)
        process.start()
        self.processes[name] = process

    def _kill(self) -> None:
        name = self.dice.choice(sorted(self.processes))
        self.processes[name].kill()
        self.processes[name].join()
        self.kills += 1
        self._start(name)

    def _log(self) -> None:
        with open(self.logs / "app.log", "a") as file:
            for _ in range(self.dice.randint(2, 20)):
                event = {"type": "IN", "subject": "log", "message": f"observed l{self.lines}"}
                file.write(json.dumps(event) + "\n")
                self.lines += 1

    def _rotate(self) -> None:
        if (self.logs / "app.log").exists():
            (self.logs / "app.log").rename(self.logs / f"app.log.{self.lines}")

    def _compact(self) -> None:
        self.lake.compact()

    def _compare(self) -> None:
        acknowledged = (self.place / "acknowledged").read_text().splitlines()
        wanted = {f"observed {name}" for name in acknowledged}
        wanted |= {f"observed l{number}" for number in range(self.lines)}
        query = "SELECT message FROM events WHERE type = '{}'"
        stored = Counter(m for (m,) in self.lake.sql(query.format("IN")).fetchall())
        doubled = [message for message, count in stored.items() if count > 1]
        assert not doubled, f"stored twice: {doubled[:5]}"
        assert wanted <= stored.keys(), f"lost: {sorted(wanted - stored.keys())[:5]}"
        reactions = Counter(m for (m,) in self.lake.sql(query.format("OUT")).fetchall())
        found = Counter(
            self.lake.search("observed type:=IN").to_arrow_table()["message"].to_pylist()
        )
        for name, seen in (
            ("tail", Counter(self.followed)),
            ("subscription", reactions),
            ("search", found),
        ):
            assert seen == stored, (
                f"{name}: lacks {list(stored - seen)[:5]}, has twice {list(seen - stored)[:5]}"
            )
        for message in self.dice.sample(sorted(stored), min(len(stored), 20)):
            search = message.removeprefix("observed ") + " type:=IN"
            assert len(self.lake.search(search).fetchall()) == 1, message


def _write(path: str, acknowledged: str, number: int) -> None:
    with lakelog.open(path) as lake, open(acknowledged, "a", buffering=1) as file:
        for turn in range(1_000_000):
            names = [f"w{number}x{turn}x{n}" for n in range(turn % 4 + 1)]
            lake.append(
                [
                    {"type": "IN", "subject": f"s{turn % 5}", "message": f"observed {n}"}
                    for n in names
                ]
            )
            os.write(file.fileno(), "".join(f"{name}\n" for name in names).encode())
            time.sleep(0.005)


def _watch(path: str, logs: str) -> None:
    with lakelog.open(path) as lake, closing(Watcher(lake, [logs])) as watcher:
        while True:
            watcher.round()
            time.sleep(0.02)


def _react(path: str, *, is_once: bool = False) -> None:
    with lakelog.open(path) as lake, lake.subscribe("seen", where="type = 'IN'") as subscription:
        subscription._lease = 2.0
        subscription.run(
            lambda event: {"type": "OUT", "subject": event["subject"], "message": event["message"]},
            once=is_once,
            commit_every=0.05,
        )


ROWS = [
    Row("searches", "searches in each state", 5_000, 50_000, 30, searches),
    Row("members", "kills of subscribers", 300, 3_000, 45, members, patience=400),
    Row("observers", "kills beside observers", 200, 2_000, 45, observers, patience=400),
]
