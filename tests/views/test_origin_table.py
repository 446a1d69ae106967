"""The table `origins`: the host of every event, wherever it came from and whatever became of it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.ingest.batch import Job
from lakelog.ingest.message_events import Message
from lakelog.ingest.messages import MessageBatch
from lakelog.ingest.stream_cursor import StreamCursor
from lakelog.remotes import known
from lakelog.views import LakeViews
from tests.support import lakes
from tests.support.effort import share
from tests.support.lakes import on_host
from tests.support.remote_suite import pull, push

HOSTS = ["web-1", "web-2", "x" * 255, "Rechner Ü"]
TIME = 1_800_000_000_000_000
OF_EVENTS = """SELECT message, host FROM {0}events LEFT JOIN {0}origins USING (origin)
    WHERE message IS NOT NULL ORDER BY ALL"""


def consume(lake: lakelog.Lake, key: str, offset: int, value: bytes) -> None:
    """Store a message of a stream."""
    batch = MessageBatch(Job(lake.store, lake.branch_name, lake.engine, label="orders"))
    try:
        batch.move(batch.cursor(key) or StreamCursor(key, "orders/0", "0"))
        batch.add([Message(key, str(offset + 1), offset, value, None, TIME, b"{}", "m", "")], "o")
        batch.publish("orders")
    finally:
        batch.close()


class Machine:
    """A lake, whose events come in by every way on several hosts, and a plain model of it: the host
    of each event that was ever stored, by its message."""

    def __init__(self, home: Path, seed: int) -> None:
        self.home, self.dice = home, random.Random(seed)
        self.path, self.remote = str(home / "lake"), str(home / "remote")
        self.host_of: dict[str, str] = {}
        self.count = 0
        with lakes.opened(self.path) as lake:
            known.add(lake.store, "origin", self.remote)
            lake.tag("start")
        self.branches, self.tags = ["main"], ["start"]

    def event(self, host: str) -> str:
        self.count += 1
        self.host_of[f"e{self.count}"] = host
        return f"e{self.count}"

    def store(self, lake: lakelog.Lake, host: str) -> None:
        """Store an event by one of the ways in."""
        name = self.event(host)
        line = f'{{"type":"A","message":"{name}"}}\n'
        way = self.dice.choice(["append", "content", "ingest", "consume", "bad"])
        if way == "append":
            lake.append({"type": "A", "message": name, "id": name})
        elif way == "content":
            lake.append({"type": "A", "message": name}, dedupe="content")
        elif way == "ingest":
            file = self.home / f"{name}.jsonl"
            file.write_text(line)
            lake.ingest(str(file))
        elif way == "consume":
            # Streams of which one is called as the other one begins.
            key = f"kafka:c1/orders/{HOSTS.index(host)}" + self.dice.choice(["", "0"])
            consume(lake, key, self.count, line.encode())
        else:
            lake.quarantine([("a.log", self.count, "bad", "{")])
            lake.append({"type": "A", "message": name})

    def change(self, lake: lakelog.Lake) -> None:
        """Change the state in which the events are."""
        what = self.dice.choice(["settle", "settle", "compact", "tag", "rollback", "undo", "gc"])
        with contextlib.suppress(lakelog.LakelogError):
            if what == "tag":
                lake.tag(f"t{self.count}")
                self.tags.append(f"t{self.count}")
            elif what == "rollback":
                lake.rollback(self.dice.choice(self.tags))
            else:
                getattr(lake, what)()

    def branch(self, lake: lakelog.Lake) -> None:
        name = f"b{self.count}"
        if name not in self.branches:
            lake.branch(name).close()
            self.branches.append(name)

    def step(self) -> None:
        host, branch = self.dice.choice(HOSTS), self.dice.choice(self.branches)
        with (
            on_host(host),
            lakelog.open(self.path, branch=branch, settings={"seal": "never"}) as lake,
        ):
            for _ in range(self.dice.randint(1, 3)):
                self.store(lake, host)
            if self.dice.random() < 0.7:
                self.change(lake)
            if self.dice.random() < 0.15:
                self.branch(lake)

    def check(self, path: str, ref: str = "", branch: str = "main") -> int:
        """Compare the hosts of all events of a state with the model; return how many there are."""
        with lakelog.open(path, branch=branch, create=False) as lake:
            found = lake.sql(OF_EVENTS.format(ref and f'"{ref}".')).fetchall()
            assert found == [(name, self.host_of[name]) for name, _ in found]
            assert len({name for name, _ in found}) == len(found)
        return len(found)


@pytest.mark.rounds
@pytest.mark.parametrize("seed", range(share(4)))
def test_the_host_of_every_event_over_random_histories(home: Path, seed: int) -> None:
    """Whatever way an event came in, and whether it is pending, sealed, compacted, rolled back and
    brought back, on a branch, pushed, pulled or in a copy, its host is that it was stored on."""
    machine = Machine(home, seed)
    events = 0
    for _ in range(share(25, parts=2)):
        machine.step()
        events += sum(machine.check(machine.path, branch=name) for name in machine.branches)
    assert events > 20
    for tag in machine.tags:
        machine.check(machine.path, tag)
    with lakes.opened(machine.path) as lake:
        lake.append({"type": "A", "message": machine.event(os.uname().nodename)})
        lake.settle()
        copy = str(home / "copy")
        lake.backup(copy)
    here = machine.check(machine.path)
    assert machine.check(copy) == here
    push(machine.path)
    assert machine.check(machine.remote) == here
    with on_host("elsewhere"), lakes.opened(machine.remote) as there:
        there.append({"type": "A", "message": machine.event("elsewhere")})
        there.settle()
    pull(machine.path)
    assert machine.check(machine.path) == here + 1


@pytest.mark.parametrize("copied", [False, True])
def test_hosts_survive_a_repair(home: Path, copied: bool) -> None:
    """A repair keeps the host of what it takes back from segments of lost moves, or of a copy that
    went another way."""
    path, copy = str(home / "lake"), str(home / "copy")
    with on_host("first"), lakes.opened(path) as lake:
        lake.append({"type": "A", "message": "1"})
        lake.settle()
    shutil.copytree(path, copy)
    with on_host("second"), lakes.opened(copy if copied else path) as lake:
        lake.append({"type": "A", "message": "2"})
        lake.settle()
    # What was sealed is in no WAL any more, whose header would tell its host.
    shutil.rmtree(f"{copy if copied else path}/wal/main")
    wanted = [("1", "first"), ("2", "second")]
    if copied:
        with on_host("third"), lakes.opened(path) as lake:
            lake.append({"type": "A", "message": "3"})
            lake.settle()
        wanted.append(("3", "third"))
    else:
        moves = sorted(Path(path, "refs/heads/main").glob("0*.json"))
        moves[-1].unlink()
    with on_host("repairs"), lakes.opened(path) as lake:
        lake.repair(copy if copied else None)
        assert lake.sql(OF_EVENTS.format("")).fetchall() == wanted
        assert lake.verify().problems == ()


def test_columns_and_names(tmp_path: Path) -> None:
    """A row for each origin of events; a lake without events has the table, a tag its own, and a
    view called `origins` hides it."""
    log = tmp_path / "a.jsonl"
    log.write_text('{"type": "A"}\n' * 3)
    with on_host("here"), lakes.opened(str(tmp_path / "lake")) as lake:
        empty = lake.sql("FROM origins")
        assert (empty.columns, empty.fetchall()) == (["origin", "kind", "host"], [])
        assert ("origins",) in lake.sql("SHOW TABLES").fetchall()
        lake.append([{"type": "A"}] * 2)
        lake.tag("v1")
        lake.ingest(str(log))
        consume(lake, "kafka:c1/orders/0", 0, b'{"type":"a"}')
        query = "SELECT kind, host FROM {} ORDER BY 1"
        kinds: list[Any] = [("file", "here"), ("stream", "here"), ("writer", "here")]
        assert lake.sql(query.format("origins")).fetchall() == kinds
        assert lake.sql(query.format('"v1".origins')).fetchall() == kinds[2:]
        assert lake.at("v1").sql(query.format("origins")).fetchall() == kinds[2:]
        LakeViews(lake).create("origins", "SELECT 8 AS n FROM events")
        assert lake.sql("SELECT DISTINCT n FROM origins").fetchall() == [(8,)]
