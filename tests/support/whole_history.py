"""Random histories of one lake through all entrances and operations of the product at once, each
compared with a plain model after every step.

    python -m tests.support.whole_history FIRST COUNT

A history appends by dictionaries, Arrow, a logger, expected versions, the command line, ingested
and watched files, forked children and threads, some of which die within a change of the disk. In
between it seals, compacts, collects, tags, branches, rolls back, undoes, removes old events,
erases, indexes, copies, pushes, clones and rotates keys; clocks jump, the time zone of process and
session changes, what is kept of answers (`whole_outputs`) is brought up to date, streams and HTTP
bring and take events (`whole_streams`), other machines append (`whole_machines`), backups are
restored, settings change and logs rotate (`whole_upkeep`), and events are given out again
(`whole_edges`). Each question is asked in one of many ways, and all have to give what the model
holds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import logging
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lakelog
from lakelog import LakeHandler, remotes
from lakelog.collect.watch import Watcher
from lakelog.disk import disk
from lakelog.errors import Diverged, NothingToUndo, UnknownRef, WouldDropEvents, WrongVersion
from lakelog.history import window as history_window
from lakelog.maintain import indexing
from lakelog.settings import Settings
from tests.support import cli, encrypted, seam
from tests.support.whole_edges import Edges
from tests.support.whole_machines import Machines
from tests.support.whole_model import IDS, READERS, SOURCES, SUBJECTS, TYPES, Event, State, same
from tests.support.whole_outputs import Outputs
from tests.support.whole_streams import Streams
from tests.support.whole_upkeep import Upkeep

ZONES = ["UTC", "Asia/Kolkata", "America/New_York", "Pacific/Apia"]
SETTINGS = {"seal": "never", "rotate_events": 9, "gc_grace_hours": 0}
OLD = 1_000_000_000
"""Seconds of the epoch at which old events happened."""
NOW = 1_780_000_000
SESSIONS = [
    "SET TimeZone = 'ZONE'; ",
    "SET threads = 2; ",
    "SET preserve_insertion_order = false; ",
    "SET default_null_order = 'nulls_first'; ",
    "SET default_order = 'desc'; ",
    "SET ieee_floating_point_ops = false; ",
    "SET integer_division = true; ",
    "SET default_collation = 'nocase'; ",
]


def _in_thread(ident: int, fault: seam.Fault, name: str, real: Any, *args: Any, **more: Any) -> Any:
    """Break what one thread does at the disk, not what other lakes do meanwhile."""
    return (
        fault(name, real, *args, **more) if threading.get_ident() == ident else real(*args, **more)
    )


class History(Outputs, Edges, Machines, Upkeep, Streams):
    """One history: open lakes on one directory, and what its branches and tags hold."""

    def __init__(self, home: Path, seed: int, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.home, self.dice, self.patch = home, random.Random(seed), patch
        self.path = str(home / "lake")
        self.clock, self.number, self.log = 0, 0, list[str]()
        self.branches: dict[str, State] = {"main": State()}
        self.deleted: dict[str, State] = {}
        self.tags: dict[str, State] = {}
        self.moves: dict[str, list[tuple[State, State]]] = {"main": []}
        self.erased = set[str | int]()
        """Subjects, and numbers of events."""
        self.retained = set[Event]()
        """What retentions have removed, at which no reader has to read anew."""
        self.written: dict[str, list[Event | str]] = {}
        """The lines of each file: events, and what is none."""
        patch.setattr(disk, "now_us", self._now)
        patch.setattr(history_window, "lake_time", lambda store: self._now())
        self.setting = ""
        self.hidden: list[str] = [[], ["secret", *(f"{t.lower()}ing" for t in TYPES)], ["secret"]][
            seed % 3
        ]
        """What no byte of the lake may say."""
        if seed % 4 == 3:
            self._share(patch, SETTINGS, encrypted.KEY if seed % 3 == 1 else "")
        elif seed % 3 == 1:
            encrypted.create(home / "lake", patch, Settings(**SETTINGS))
        self.lake = lakelog.open(self.path, settings=SETTINGS)
        if seed % 3 == 2:
            patch.setenv("LAKELOG_KEY", encrypted.KEY)
            patch.setenv("LAKELOG_SUBJECT_KEYS", str(home / "subject-keys"))
            self.lake.protect(["word"])

    def _now(self) -> int:
        self.clock += 1
        return NOW * 1_000_000 + self.clock

    @property
    def state(self) -> State:
        """What the branch of the open lake holds."""
        return self.branches[self.lake.branch_name]

    @state.setter
    def state(self, state: State) -> None:
        self.branches[self.lake.branch_name] = state

    def _moved(self, target: State) -> None:
        self.moves[self.lake.branch_name].append((self.state, target))
        self.state = target

    def run(self, steps: int) -> None:
        """Take random steps; ask one question after each, and all at the end."""
        names = [name for name in dir(self) if name.startswith("do_")]
        entrances = [name for name in names if getattr(self, name).__doc__.startswith("Append")]
        questions = [name for name in dir(self) if name.startswith("ask_")]
        for _ in range(steps):
            name = self.dice.choice(entrances if self.dice.random() < 0.4 else names)
            self.log.append(name)
            getattr(self, name)()
            question = self.dice.choice(questions)
            self.log.append(question)
            getattr(self, question)()
        for question in questions:
            self.log.append(question)
            getattr(self, question)()
        for name, state in self.tags.items():
            self._compare(self.lake.at(name), state, name)
        problems = [
            problem
            for problem in self.lake.verify().problems
            # Half of an index, of which `do_forget_caches` took the rest, is named.
            if "after the last good" not in problem.reason and "cache/ranks" not in problem.path
        ]
        same(problems, [], "verify")
        self.lake.close()
        if self.sealed_from:
            self.hidden += [f"secret{n:05}" for n in range(self.sealed_from, self.number + 1)]
        for place in (self.path, self.bucket.removeprefix("file://")):
            same(encrypted.found(Path(place), self.hidden) if place else [], [], place)

    # --- events ---

    def events(self, most: int = 4) -> list[Event]:
        """New events, some of which have the id of an older one, or happened long ago."""
        return [self.event() for _ in range(self.dice.randint(1, most))]

    def event(self, **fixed: Any) -> Event:
        """One new event."""
        dice = self.dice
        self.number += 1
        when = NOW + self.number if dice.random() < 0.8 else OLD + self.number
        chosen: dict[str, Any] = {"type": dice.choice(TYPES), "source": dice.choice(SOURCES)}
        chosen["subject"] = dice.choice([s for s in (*SUBJECTS, None) if s not in self.erased])
        chosen["id"] = dice.choice(IDS) if dice.random() < 0.3 else None
        chosen["time"] = when * 1_000_000 + dice.choice([0, 1, 999_999])
        chosen |= fixed
        chosen["message"] = f"{chosen['type'].lower()}ing tok{self.number}x"
        return Event(number=self.number, **chosen)

    def do_append(self) -> None:
        """Append dictionaries."""
        events = self.events()
        self.lake.append([event.record for event in events])
        self.state = self.state.add(*events)

    def do_append_arrow(self) -> None:
        """Append an Arrow table."""
        events = self.events(40)
        table = pa.Table.from_pylist(
            [event.record | {"data": json.dumps(event.payload)} for event in events],
            pa.schema(
                [(n, pa.string()) for n in "type time message source subject id data".split()]
            ),
        )
        self.lake.append(table)
        self.state = self.state.add(*events)

    def do_append_by_logger(self) -> None:
        """Append records of a logger that ends."""
        handler = LakeHandler(self.path)
        logger = logging.Logger("whole")
        logger.addHandler(handler)
        events = [self.event(subject=None, id=None, type="note", source="whole") for _ in range(3)]
        if self.lake.branch_name != "main":
            handler.close()
            return
        for event in events:
            logger.info(event.message, extra=event.payload)
        handler.close()
        for event in events:
            query = "SELECT epoch_us(time), type, id FROM events WHERE message = ?"
            [(stamp, kind, id)] = self.lake.sql(query, [event.message]).fetchall()
            self.state = self.state.add(dataclasses.replace(event, time=stamp, type=kind, id=id))

    def do_append_expected(self) -> None:
        """Append to a stream by its version, now and then a wrong one."""
        subject = self.dice.choice([s for s in SUBJECTS[:-1] if s not in self.erased])
        streams = dict(self.state.streams)
        held = streams.get(subject, ())
        events = [self.event(subject=subject, id=None) for _ in range(2)]
        wrong = self.dice.random() < 0.2
        records, expected = [event.record for event in events], {subject: len(held) + wrong}
        if wrong:
            with pytest.raises(WrongVersion) as refused:
                self.lake.append(records, expect=expected)
            same(refused.value.actual, len(held), subject)
            return
        self.lake.append(records, expect=expected)
        streams[subject] = (*held, *(event.number for event in events))
        self.state = dataclasses.replace(
            self.state.add(*events), streams=tuple(sorted(streams.items()))
        )

    def do_append_lines(self) -> None:
        """Append JSON lines by the command line."""
        events = self.events()
        text = "".join(json.dumps(event.record) + "\n" for event in events)
        cli.run(self.path, "--branch", self.lake.branch_name, "append", input=text)
        self.state = self.state.add(*events)

    def do_append_file(self) -> None:
        """Append what was written to a file since it was last ingested."""
        self._ingest(f"in{self.dice.randrange(2)}.jsonl", lambda path: self.lake.ingest(path))

    def do_append_watched(self) -> None:
        """Append what a watcher finds in its directory."""

        def look(path: Path) -> None:
            watcher = Watcher(self.lake, [str(path.parent)])
            watcher.round(final=True)
            watcher.close()

        self._ingest("watched/app.jsonl", look)

    def _ingest(self, name: str, take: Any) -> None:
        path = self.home / name
        path.parent.mkdir(exist_ok=True)
        events = [dataclasses.replace(e, source=e.source or name) for e in self.events()]
        new = [*events, self.bad()] if self.dice.random() < 0.2 else events
        written = self.written.setdefault(name, [])
        with open(path, "a") as file:
            for line in new:
                file.write((line if isinstance(line, str) else json.dumps(line.record)) + "\n")
        written += new
        take(path)
        lines = dict(self.state.lines)
        due = written[lines.get(name, 0) :]
        came = [e for e in due if isinstance(e, Event) and not e.is_one_of(self.erased)]
        state = self.state.add(*came).refuse(*(line for line in due if isinstance(line, str)))
        lines[name] = len(written)
        self.state = dataclasses.replace(state, lines=tuple(sorted(lines.items())))

    def do_append_in_child(self) -> None:
        """Append in a forked child, through the lake that its parent has open."""
        events = self.events()
        child = os.fork()
        if not child:
            code = 1
            try:
                self.lake.append([event.record for event in events])
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        self.state = self.state.add(*events)

    def do_append_in_threads(self) -> None:
        """Append in two threads."""
        batches = [[dataclasses.replace(e, id=None) for e in self.events()] for _ in range(2)]
        threads = [
            threading.Thread(target=self.lake.append, args=([e.record for e in batch],))
            for batch in batches
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for batch in batches:
            self.state = self.state.add(*batch)

    def do_append_and_die(self) -> None:
        """Append in a process that dies at some change of the disk."""
        events = [dataclasses.replace(event, id=None) for event in self.events()]
        acked = self._dies(lambda lake: lake.append([event.record for event in events]), 8)
        here = {event for event in events if event.number in self._numbers()}
        assert acked is False or here == set(events)
        assert here in (set(), set(events)) or not acked
        self.state = self.state.add(*here)

    def _dies(self, play: Any, most: int) -> bool:
        """Whether a process that may die at a change of the disk came to its end."""
        fault = seam.Fault(self.dice.randint(1, most), seam.Killed())
        lake = lakelog.open(self.path, create=False, branch=self.lake.branch_name)
        with pytest.MonkeyPatch.context() as patch:
            seam.install(patch, functools.partial(_in_thread, threading.get_ident(), fault))
            patch.setattr(disk, "now_us", self._now)
            try:
                play(lake)
            except seam.Killed:
                return False
            finally:
                fault.release()
        lake.close()
        return True

    def _numbers(self) -> set[int]:
        return {row[0] for row in self.lake.sql(READERS.format(table="events")).fetchall()}

    # --- upkeep ---

    def do_settle(self) -> None:
        """Publish what is pending."""
        self.lake.settle()

    def do_settle_and_die(self) -> None:
        """Publish or compact in a process that dies."""
        verb = self.dice.choice([lakelog.Lake.settle, lakelog.Lake.compact, lakelog.Lake.gc])
        self._dies(verb, 12)

    def do_compact(self) -> None:
        """Merge segments."""
        self.lake.compact()

    def do_index(self) -> None:
        """Index the words of segments."""
        indexing.build_missing(self.lake.store, self.lake.branch_name)

    def do_collect(self) -> None:
        """Collect garbage."""
        self.lake.gc()

    def do_repair(self) -> None:
        """Repair what is not broken."""
        self.lake.repair()

    def do_forget_caches(self) -> None:
        """Delete all that can be made again, while the lake is open."""
        for folder, _, names in os.walk(f"{self.path}/cache"):
            for name in names:
                if self.dice.random() < 0.5 and not name.endswith(".lock"):
                    os.unlink(f"{folder}/{name}")

    def do_reopen(self) -> None:
        """Close the lake and open it, perhaps on another branch."""
        self.lake.close()
        branch = self.dice.choice(sorted(self.branches))
        self.lake = lakelog.open(self.path, create=False, branch=branch)

    def do_jump(self) -> None:
        """Let the clock jump, back or on."""
        self.clock += self.dice.choice([-3, -1, 1, 5, 50]) * 3_600_000_000

    def do_travel(self) -> None:
        """Take the process to another time zone."""
        self.patch.setenv("TZ", self.dice.choice(ZONES))
        time.tzset()

    def do_set(self) -> None:
        """Ask the next questions with a setting of the session."""
        self.setting = self.dice.choice(["", "", *SESSIONS])

    def _sql(self, query: str, params: Any = None) -> list[tuple[Any, ...]]:
        """Ask with the setting; return the rows."""
        setting = self.setting.replace("ZONE", self.dice.choice(ZONES))
        rows: list[tuple[Any, ...]] = self.lake.sql(setting + query, params).fetchall()
        return rows

    # --- names and moves ---

    def do_tag(self) -> None:
        """Name the present state."""
        name = f"t{len(self.tags)}"
        self.lake.tag(name)
        self.tags[name] = self.state

    def do_branch(self) -> None:
        """Start a branch, and work on it."""
        if len(self.branches) < 3:
            name = next(f"b{n}" for n in range(9) if f"b{n}" not in self.branches)
            self.branches[name] = self.state
            self.moves[name] = []
            other = self.lake.branch(name)
            self.lake.close()
            self.lake = other

    def do_rollback(self) -> None:
        """Go back to a tag."""
        if self.tags:
            name = self.dice.choice(sorted(self.tags))
            self.lake.rollback(name)
            self._moved(self.tags[name])

    def do_undo(self) -> None:
        """Take back the last move of a user."""
        moves = self.moves[self.lake.branch_name]
        # A bucket has for a while what was given up, and until then an undo may bring it back.
        if not moves and self.bucket and "do_expire" in self.log:
            return
        is_forced = self.dice.random() < 0.5
        try:
            self.lake.undo(force=is_forced)
        except (NothingToUndo, UnknownRef):
            assert not moves
        except WouldDropEvents:
            assert not is_forced
        else:
            before, _ = moves[-1]
            self._moved(before)

    def do_retain(self) -> None:
        """Remove what happened long ago."""
        hours = self.dice.choice([2, 24, 365 * 24])
        line = NOW * 1_000_000 + self.clock - hours * 3_600_000_000
        gone = frozenset(event for event in self.state.events if event.time < line)
        query = "SELECT line FROM quarantine WHERE epoch_us(ingested_at) < ?"
        old = {line.strip() for (line,) in self.lake.sql(query, [line]).fetchall()}
        if self.lake.retention(f"{hours}h", apply=True).applied:
            self.retained |= gone
            target = self.state.without(gone)
            self._moved(dataclasses.replace(target, bad=target.bad - old))

    def do_erase(self) -> None:
        """Erase a subject or two: they are gone from every state, and what they did before is
        refused."""
        subjects = self.dice.sample(SUBJECTS[:-1], self.dice.choice([1, 1, 2]))
        before = self.erased.intersection(SUBJECTS)
        if self.dice.random() < 0.7 or before.intersection(subjects) or len(before) > 1:
            return
        self._erase(subjects, subject=subjects, rows=True)

    def _erase(self, chosen: Collection[str | int], **condition: Any) -> None:
        """Erase subjects, or events by their numbers."""
        others = [
            lakelog.open(self.path, create=False, branch=name)
            for name in self.branches
            if name != self.lake.branch_name
        ]
        for other in others:
            other.settle()
            other.close()
        self.lake.erase(why="asked", **condition)
        self._exchange_all()
        self.erased.update(chosen)
        # What an undo brings back may be in no branch and no tag.
        undone = (state for moves in self.moves.values() for pair in moves for state in pair)
        gone = frozenset(
            event
            for state in (
                *self.branches.values(),
                *self.deleted.values(),
                *self.tags.values(),
                *undone,
            )
            for event in state.events
            if event.is_one_of(chosen)
        )
        self.branches = {name: state.without(gone) for name, state in self.branches.items()}
        self.deleted = {name: state.without(gone) for name, state in self.deleted.items()}
        self.tags = {name: state.without(gone) for name, state in self.tags.items()}
        self.moves = {
            name: [(before.without(gone), after.without(gone)) for before, after in moves]
            for name, moves in self.moves.items()
        }
        # The queue of a logger, which logs to main alone, keeps its file until the second append.
        for _ in range(2):
            if any(place.startswith("wal/main/") for place in self._leftovers()):
                self.do_append_by_logger()
        kept = "wal/main/" if self.lake.branch_name != "main" else "wal/main/.tmp-"
        places = [place for place in self._leftovers() if not place.startswith(kept)]
        assert all("/.tmp-" in place for place in places), places

    def _leftovers(self) -> list[str]:
        return [left.place for status in self.lake.erasures() for left in status.leftovers]

    # --- subscribers and copies ---

    def do_subscribe(self) -> None:
        """Hand out the events that were not handed out in this state."""
        numbers = list[int]()

        def handle(event: Any) -> None:
            payload = json.loads(event["data"])
            if "n" in payload:
                numbers.append(payload["n"])

        with self.lake.subscribe("whole") as subscription:
            subscription.run(handle, once=True)
        due = self.state.events - self.state.handled
        assert Counter(numbers) == Counter(event.number for event in due)
        self.state = dataclasses.replace(self.state, handled=self.state.handled | self.state.events)

    def do_copy(self) -> None:
        """Back the lake up, and open the copy."""
        copy = str(self.home / f"copy{self.number}-{len(self.log)}")
        self.lake.backup(copy)
        with lakelog.open(copy, create=False, branch=self.lake.branch_name) as other:
            self._compare(other, self.state, "copy")

    def do_push(self) -> None:
        """Push the branch, and clone what was pushed."""
        url = str(self.home / "remote")
        if not (self.home / "remote").exists():
            remotes.add_tested(self.lake.store, "origin", url)
        branch = self.lake.branch_name
        with contextlib.suppress(Diverged):
            remotes.push(self.lake, "origin", branches=[branch])
        remotes.push(self.lake, "origin", branches=[branch], force=True)
        clone = str(self.home / f"clone{len(self.log)}")
        remotes.clone(url, clone)
        with lakelog.open(clone, create=False, branch=branch) as other:
            self._compare(other, self.state, "clone")

    # --- questions ---

    def _compare(self, lake: Any, state: State, where: str) -> None:
        rows = Counter(lake.sql(READERS.format(table="events")).fetchall())
        wanted = Counter(event.row for event in state.events)
        same(rows, wanted, where)

    def ask_all(self) -> None:
        """Read all rows."""
        rows = self._sql(READERS.format(table="events"))
        same(Counter(rows), Counter(event.row for event in self.state.events), self.setting)
        self._compare(self.lake, self.state, self.lake.branch_name)

    def ask_count(self) -> None:
        """Count, whole and by columns."""
        events = self.state.events
        query = "SELECT count(*) FROM events WHERE data->>'n' IS NOT NULL"
        same(self._sql(query), [(len(events),)], self.setting)
        for column in ("type", "source", "subject"):
            value = getattr(self.event(), column)
            wanted = sum(getattr(event, column) == value for event in events)
            test = f"{column} IS NOT DISTINCT FROM ?"
            found = self._sql(f"{query} AND {test}", [value])
            same(found, [(wanted,)], (self.setting, column, value))
        ident = self.dice.choice(IDS)
        found = self._sql("SELECT (data->>'n')::INT FROM events WHERE id = ?", [ident])
        wanted = Counter((event.number,) for event in events if event.id == ident)
        same(Counter(found), wanted, (self.setting, ident))

    def ask_payloads(self) -> None:
        """Read the payloads, of which a lake may protect a field."""
        wanted = Counter((event.number, event.payload["word"]) for event in self.state.events)
        query = "SELECT (data->>'n')::INT, data->>'word' FROM events WHERE data->>'n' IS NOT NULL"
        same(Counter(self._sql(query)), wanted, self.setting)

    def ask_span(self) -> None:
        """Count what happened in a span of time that is written in some zone."""
        number = self.dice.randint(0, self.number)
        zone = datetime.timezone(datetime.timedelta(hours=self.dice.choice([0, 5.5, -11])))
        start = datetime.datetime.fromtimestamp(NOW + number, zone)
        wanted = {event.row for event in self.state.events if event.time >= start.timestamp() * 1e6}
        query = READERS.format(table="events") + " AND time >= "
        quoted = self._sql(f"{query} TIMESTAMPTZ '{start.isoformat()}'")
        bound = self._sql(f"{query} ?", [start])
        same(set(quoted), wanted, self.setting)
        same(set(bound), wanted, self.setting)

    def ask_words(self) -> None:
        """Search for a word of one event, and for one of many."""
        events = sorted(self.state.events, key=lambda event: event.number)
        if events:
            event = self.dice.choice(events)
            found = self.lake.search(f"tok{event.number}x").fetchall()
            same(len(found), 1, event)
        kind = self.dice.choice(TYPES)
        wanted = sum(event.message.startswith(kind.lower()) for event in events)
        same(len(self.lake.search(f"{kind.lower()}ing").fetchall()), wanted, kind)

    def ask_newest(self) -> None:
        """Take the newest few, by SQL and by `tail`."""
        newest = sorted((event.time for event in self.state.events), reverse=True)[:3]
        query = "SELECT epoch_us(time) FROM events WHERE data->>'n' IS NOT NULL ORDER BY time DESC"
        same([time for (time,) in self._sql(f"{query} LIMIT 3")], newest, self.setting)
        found = self.lake.tail(10_000, where="data->>'n' IS NOT NULL")
        same(len(found), len(self.state.events), "tail")

    def ask_stream(self) -> None:
        """Read the stream of a subject."""
        streams = dict(self.state.streams)
        for subject in SUBJECTS[:-1]:
            stream = self.lake.stream(subject)
            held = {event.number for event in self.state.events}
            wanted = [number for number in streams.get(subject, ()) if number in held]
            same(stream.version, len(streams.get(subject, ())), subject)
            same([json.loads(event["data"])["n"] for event in stream], wanted, subject)

    def ask_views(self) -> None:
        """Ask for success by source, and for templates of messages."""
        wanted = {}
        for event in self.state.events:
            if event.type in ("COMPLETE", "FAIL"):
                done, failed = wanted.get(event.source, (0, 0))
                is_done = event.type == "COMPLETE"
                wanted[event.source] = (done + is_done, failed + (not is_done))
        rows = self.lake.view("reliability").to_pylist()
        same({row["source"]: (row["completed"], row["failed"]) for row in rows}, wanted)

    def ask_engines(self) -> None:
        """Read by Polars, and from a file of Parquet."""
        wanted = Counter(event.message for event in self.state.events)
        if self.lake.store.paths.keys is None:  # engines cannot read the files of the others
            frame = self.lake.to_polars().select("message").collect()
            same(Counter(m for m in frame["message"] if m and " tok" in m), wanted)
        file = self.home / "out.parquet"
        file.unlink(missing_ok=True)
        self.lake.export("SELECT message FROM events", file)
        exported = pq.read_table(file)["message"].to_pylist()
        same(Counter(m for m in exported if m and " tok" in m), wanted)

    def ask_others(self) -> None:
        """Read a tag or another branch by its name."""
        states = {**self.branches, **self.tags}
        name = self.dice.choice(sorted(states))
        if name in self.tags:
            self._compare(self.lake.at(name), states[name], name)
        rows = self._sql(READERS.format(table=f'"{name}".events'))
        same(Counter(rows), Counter(event.row for event in states[name].events), self.setting)


def check(home: Path, seed: int, patch: pytest.MonkeyPatch, steps: int = 40) -> list[str]:
    """Play one history; return the names of its steps."""
    history = History(home, seed, patch)
    try:
        history.run(steps)
    except BaseException:
        print(f"seed {seed}: {' '.join(history.log[-14:])}", file=sys.stderr)
        raise
    return history.log


if __name__ == "__main__":
    import tempfile
    import traceback

    first, count = map(int, sys.argv[1:3])
    wrong = 0
    for seed in range(first, first + count):
        with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
            try:
                check(Path(directory), seed, patch)
            except Exception:
                wrong += 1
                traceback.print_exc()
    print(count, "histories,", wrong, "wrong")
