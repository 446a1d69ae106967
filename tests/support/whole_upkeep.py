"""What the random histories of all entrances do to a lake as its operator: settings change, copies
are restored and repaired from, fields are protected, history is given up, branches are deleted and
merged, and logs rotate under those that read them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import lakelog
from lakelog import remotes
from lakelog.collect import watch
from lakelog.collect.watch import Watcher
from lakelog.errors import AlreadyExists, InvalidSetting, SubscriptionRewound
from tests.support import cli, encrypted
from tests.support.whole_model import Event, State, same
from tests.support.whole_streams import numbers_of

if TYPE_CHECKING:
    from random import Random

    import pytest

    from tests.support.whole_streams import Bookmark, Post

SETTINGS = [
    "rotate_events=2",
    "rotate_events=100000",
    "rotate_bytes=1KB",
    "segment_rows=5",
    "segment_rows=1000000",
    "segment_bytes=20KB",
    "memory_bytes=100MB",
    "threads=1",
    "seal=inline",
    "seal=never",
    "history_dense_hours=0",
]
ZONES = ["UTC", "Asia/Kolkata", "America/New_York", "Pacific/Apia", "Australia/Lord_Howe"]
SECONDS = 60


@dataclasses.dataclass(frozen=True)
class Copy:
    """A backup of the lake, and what it should hold."""

    path: str
    branches: dict[str, State]
    tags: dict[str, State]
    moves: dict[str, list[tuple[State, State]]]
    erased: frozenset[str | int]
    sealed: tuple[bool, bool]
    """Whether the lake protected fields then, and was encrypted."""


class Upkeep:
    """Steps and questions of a history (`whole_history`), which has what is named here."""

    if TYPE_CHECKING:
        home: Path
        path: str
        bucket: str
        dice: Random
        patch: pytest.MonkeyPatch
        lake: Any
        log: list[str]
        number: int
        state: State
        branches: dict[str, State]
        deleted: dict[str, State]
        tags: dict[str, State]
        moves: dict[str, list[tuple[State, State]]]
        erased: set[str | int]
        retained: set[Event]
        posts: list[Post]
        repeats: set[str]
        merged_away: set[int]
        hidden: list[str]
        written: dict[str, list[Event | str]]
        bookmarks: dict[tuple[str, str], Bookmark]

        def event(self, **fixed: Any) -> Event:
            """One new event."""

        def events(self, most: int = 4) -> list[Event]:
            """New events."""

        def bad(self) -> str: ...

        def push_from_clone(self) -> list[Event]:
            """Push events that a clone of the branch has appended, and return them."""

        def do_append(self) -> None:
            """Append dictionaries."""

        def _moved(self, target: State) -> None: ...

        def _compare(self, lake: Any, state: State, where: str) -> None: ...

        def _append_last(self) -> Event: ...

    def __init__(self) -> None:
        super().__init__()
        self.copies = list[Copy]()
        self.sealed_from = 0
        """The first event of which a field was sealed in the middle of the history, if one was."""

    def _open(self, branch: str = "") -> None:
        """Close the lake, and open it on a branch, or on that which it was on."""
        branch = branch or self.lake.branch_name
        self.lake.close()
        self.lake = lakelog.open(self.path, create=False, branch=branch)

    def _entrances(self) -> list[str]:
        """The steps that append, and move no branch."""
        names = [name for name in dir(self) if name.startswith("do_append")]
        # Nor is a subscription asked, whose events a merge could not give other numbers.
        others = ("do_append_elsewhere", "do_append_merged", "do_append_reactions")
        return [name for name in names if name not in others]

    # --- steps ---

    def do_configure(self) -> None:
        """Change a setting, and open the lake with it."""
        cli.run(self.path, "config", "set", self.dice.choice(SETTINGS))
        self._open()

    def do_protect(self) -> None:
        """Seal a field of what comes from now on, or encrypt all of it."""
        if self.bucket or self.dice.random() < 0.5:
            return
        paths = self.lake.store.paths
        if self.dice.random() < 0.5 and paths.protection is None:
            self.patch.setenv("LAKELOG_KEY", encrypted.KEY)
            self.patch.setenv("LAKELOG_SUBJECT_KEYS", str(self.home / "subject-keys"))
            self.lake.protect(["word"])
        elif paths.keys is None and not (self.home / "remote").exists():
            self.patch.setenv("LAKELOG_KEY", encrypted.KEY)
            cli.run(self.path, "config", "encrypt")
        else:
            return
        self.sealed_from = self.sealed_from or self.number + 1
        self._open()

    def do_expire(self) -> None:
        """Give up earlier states of the branch."""
        self.lake.expire()
        branch = self.lake.branch_name
        # Readers do not notice, if the branch has not moved since they read.
        for key, mark in list(self.bookmarks.items()):
            if key[1] == branch and mark.moves == len(self.moves[branch]):
                self.bookmarks[key] = dataclasses.replace(mark, moves=0)
            elif key[1] == branch:
                del self.bookmarks[key]
        self.moves[branch] = []

    def do_delete_branch(self) -> None:
        """Delete another branch, whose name a later one may have."""
        others = [name for name in self.branches if name not in ("main", self.lake.branch_name)]
        if others:
            name = self.dice.choice(others)
            words = ("branch", "--delete", name)
            cli.run(self.path, *words)
            self.deleted[name] = self.branches[name]
            del self.branches[name], self.moves[name]
            self.bookmarks = {key: mark for key, mark in self.bookmarks.items() if key[1] != name}

    def do_revive_branch(self) -> None:
        """Bring a deleted branch back."""
        if names := sorted(self.deleted.keys() - self.branches.keys()):
            name = self.dice.choice(names)
            number = self.lake.store.refs.head_number(name)
            cli.run(self.path, "branch", name, f"{name}@{number}")
            self.branches[name], self.moves[name] = self.deleted[name], []

    def do_copy_for_later(self) -> None:
        """Back the lake up, for another day."""
        self._back_up(f"{self.home}/backup{self.dice.randrange(2)}")

    def _back_up(self, path: str) -> None:
        self.copies = [copy for copy in self.copies if copy.path != path]
        try:
            self.lake.backup(path)
        except AlreadyExists:  # it is of what a restored copy lacks
            shutil.rmtree(path)
            self.lake.backup(path)
        paths = self.lake.store.paths
        moves = {name: list(moves) for name, moves in self.moves.items()}
        sealed = paths.protection is not None, paths.keys is not None
        erased = frozenset(self.erased)
        self.copies.append(Copy(path, dict(self.branches), dict(self.tags), moves, erased, sealed))

    def do_restore(self) -> None:
        """Put a backup in the place of the lake."""
        paths = self.lake.store.paths
        sealed = paths.protection is not None, paths.keys is not None
        copies = [copy for copy in self.copies if copy.erased == self.erased]
        copies = [copy for copy in copies if copy.sealed == sealed]
        if not copies or self.bucket or self.dice.random() < 0.3:
            return
        copy = self.dice.choice(copies)
        self.lake.close()
        shutil.rmtree(self.path)
        shutil.copytree(copy.path, self.path)
        # A server does not know in a copy which requests it has answered.
        self.repeats |= {post.bad for post in self.posts}
        marks, self.bookmarks = self.bookmarks, {}
        self.branches, self.tags = dict(copy.branches), dict(copy.tags)
        self.deleted = {}
        self.moves = {name: list(moves) for name, moves in copy.moves.items()}
        self.lake = lakelog.open(self.path, create=False)
        for (reader, branch), mark in marks.items():
            if reader == "batches" and branch in self.branches:
                self._go_on(branch, mark)
        if (self.home / "remote").exists() and not self.lake.store.remote_names():
            remotes.add_tested(self.lake.store, "origin", str(self.home / "remote"))

    def _go_on(self, branch: str, mark: Bookmark) -> None:
        """Read on from a position of a lake that an older copy replaced: it is refused where that
        does not have what was read."""
        found, events = list[int](), self.branches[branch].events
        with lakelog.open(self.path, create=False, branch=branch) as lake:
            try:
                with lake.subscribe(None, from_=mark.position) as subscription:
                    for batch in subscription.batches(timeout=0):
                        found += numbers_of(batch.events)
            except (InvalidSetting, SubscriptionRewound):
                return
        assert mark.state.events - self.retained <= events, (branch, mark.position, "not refused")
        same(Counter(found), Counter(e.number for e in events - mark.state.events), branch)

    def do_repair_from_copy(self) -> None:
        """Repair the lake from a backup, perhaps an old one, after a file was lost."""
        if not self.copies or self.bucket:
            return
        copy = self.dice.choice(self.copies)
        if self.dice.random() < 0.5:
            self._back_up(copy.path)
            self._lose_file()
        self.lake.repair(copy.path)
        self._open()

    def _lose_file(self) -> None:
        """Damage a file of the lake, of which there is a copy."""
        self.lake.close()
        folders = ("segments", "moves", "refs", "manifests", "objects")
        files = [
            path
            for folder in folders
            for path in sorted(Path(self.path, folder).rglob("*"))
            if path.is_file()
        ]
        if files:
            file = self.dice.choice(files)
            self.log.append(str(file.relative_to(self.path)))
            if self.dice.random() < 0.5:
                file.unlink()
            else:
                data = bytearray(file.read_bytes())
                data[self.dice.randrange(len(data))] ^= 1 << self.dice.randrange(8)
                file.chmod(0o600)
                file.write_bytes(data)
        branch = self.lake.branch_name
        self.lake = lakelog.open(self.path, create=False, branch=branch)

    def do_append_merged(self) -> None:
        """Append here and in a clone, and merge what that has pushed."""
        if self.bucket:
            return
        events, base = self.push_from_clone(), self.state
        for _ in range(self.dice.randint(0, 2)):
            name = self.dice.choice([*self._entrances(), "do_settle", "do_compact"])
            self.log.append(f"({name})")
            getattr(self, name)()
        before = self.state
        remotes.pull(self.lake, "origin", merge=True)
        theirs = base.add(*events)
        merged = theirs.add(*(before.events - base.events))
        self.merged_away |= {event.number for event in before.events - merged.events}
        self._moved(dataclasses.replace(before, events=merged.events, ids=merged.ids | before.ids))

    def do_append_rotated(self) -> None:
        """Append lines of a log that rotates, ingested or watched."""
        folder = self.home / "rotated"
        folder.mkdir(exist_ok=True)
        written = self.written.setdefault("rotated", [])
        for _ in range(self.dice.randint(1, 3)):
            new = [
                dataclasses.replace(e, source=e.source or "rotated", id=None) for e in self.events()
            ]
            with open(folder / "app.log", "a") as file:
                for event in new:
                    file.write(json.dumps(event.record) + "\n")
            written += new
            self._look(folder)
            lines = dict(self.state.lines)
            due = written[lines.get("rotated", 0) :]
            came = [e for e in due if isinstance(e, Event) and not e.is_one_of(self.erased)]
            lines["rotated"] = len(written)
            state = self.state.add(*came)
            self.state = dataclasses.replace(state, lines=tuple(sorted(lines.items())))
            if self.dice.random() < 0.6:
                self._rotate(folder / "app.log")

    def _look(self, folder: Path) -> None:
        """Let one of those who read logs look at all files of a directory."""
        way = self.dice.choice(["ingest", "watch", "command"])
        self.log.append(f"({way})")
        if way == "ingest":
            self.lake.ingest(folder)
        elif way == "watch":
            with contextlib.closing(Watcher(self.lake, [str(folder)])) as watcher:
                watcher.round(final=True)
        else:
            words = ("watch", str(folder), "--once")
            cli.run(self.path, "--branch", self.lake.branch_name, *words)

    def _rotate(self, log: Path) -> None:
        """Rename a log, or copy and truncate it, and compress older ones."""
        count = sum(1 for _ in log.parent.iterdir())
        older = log.with_name(f"app.log.{count}")
        way = self.dice.choice(["rename", "copy", "compress"])
        self.log.append(f"({way})")
        if way == "copy":
            shutil.copyfile(log, older)
            os.truncate(log, 0)
            return
        log.rename(older)
        if way == "compress":
            with gzip.open(f"{older}.gz", "wb") as file:
                file.write(older.read_bytes())
            # One that changed just now may be on its way still, and is read later.
            age = time.time() - 2 * watch.STABLE
            os.utime(f"{older}.gz", (age, age))
            older.unlink()

    # --- questions ---

    def ask_days(self) -> None:
        """Count by days of time zones, in two sessions."""
        zones = self.dice.sample(ZONES, 2)
        with lakelog.open(self.path, create=False, branch=self.lake.branch_name) as other:
            for lake, zone in zip((self.lake, other, self.lake), [*zones, zones[1]], strict=True):
                rows = lake.sql(
                    f"SET TimeZone = '{zone}'; SELECT date_trunc('day', time)::DATE::VARCHAR,"
                    " extract('hour' FROM time), count(*) FROM events"
                    " WHERE data->>'n' IS NOT NULL GROUP BY 1, 2"
                ).fetchall()
                times = [
                    datetime.datetime.fromtimestamp(event.time // 1_000_000, ZoneInfo(zone))
                    for event in self.state.events
                ]
                wanted = Counter((f"{t:%Y-%m-%d}", t.hour) for t in times)
                same(Counter({(day, hour): count for day, hour, count in rows}), wanted, zone)

    def ask_tail_process(self) -> None:
        """Follow the branch by a process that is killed and started again."""
        if self.dice.random() < 0.6:
            return
        for _ in range(2):
            words = ("tail", "-f", "-n", "1000000", "--where", "data->>'n' IS NOT NULL", "--json")
            command = [sys.executable, "-m", "lakelog", "--lake", self.path]
            command += ["--branch", self.lake.branch_name, *words]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                lines = list[str]()

                def read(stream: Any = process.stdout, lines: list[str] = lines) -> None:
                    lines.extend(stream)

                reader = threading.Thread(target=read)
                reader.start()
                try:
                    self._wait_for_last(lines)
                    # What comes from now on it does not find, but is given.
                    for _ in range(self.dice.randint(1, 3)):
                        name = self.dice.choice([*self._entrances(), "do_settle", "do_compact"])
                        self.log.append(f"({name})")
                        getattr(self, name)()
                    self._wait_for_last(lines)
                finally:
                    # Else one that has not all would be waited for.
                    process.kill()
                    reader.join()
            found = Counter(numbers_of(json.loads(line) for line in lines))
            same(found, Counter(event.number for event in self.state.events), "tail process")

    def _wait_for_last(self, lines: list[str]) -> None:
        """Append an event, and wait until it is among the lines of a process."""
        last, end = f"tok{self._append_last().number}x", time.monotonic() + SECONDS
        while not any(last in line for line in tuple(lines)):
            assert time.monotonic() < end, last
            time.sleep(0.02)
