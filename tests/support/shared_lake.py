"""Threads that share one Lake: each calls any of its methods, and checks what it can of the answer.

Events are only ever added to the lake `steady`, so an answer counts at least what was acknowledged
before the question, and at most what was begun before the answer. `wild`, a second handle on
another lake, is rolled back, thinned and repaired meanwhile: there an answer only has to come.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import lakelog
from lakelog.errors import GcRefused, LakelogError, NothingToUndo, ReentrantAppend, ReentrantQuery

THREADS = 8
PATIENCE = 60
"""Seconds after which a thread that does not end counts as hanging."""
_PAYLOAD = {"item_id": 7, "duration_ms": 5, "error": "none"}


class Crew:
    """Threads on one Lake, and what they know of it."""

    def __init__(self, home: Path, seed: int) -> None:
        self.home, self.seed = home, seed
        settings = {"seal": "never", "rotate_events": 100, "segment_rows": 500}
        self.steady = lakelog.open(home / "steady", settings=settings)
        self.wild = lakelog.open(home / "wild", settings=settings)
        self.wild.append({"type": "first"})
        self.calls: dict[str, int] = {}
        self.failures: list[str] = []
        self.asked: dict[int, str] = {}
        self._begun, self._acknowledged, self._numbers = 0, 0, itertools.count()
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        # Types and fields that queries name are there from the beginning, and a subject, of items.
        for type_, data in (("a", {"n": 1}), ("b", _PAYLOAD)):
            self._begun += 1
            self.steady.append({"type": type_, "subject": "s0", "data": data})
            self._acknowledged += 1

    # --- what is asked of `steady`, and must be right ---------------------------------------------

    def append(self, dice: random.Random) -> None:
        count = dice.choice([1, 1, 1, 5, 20])
        events: list[Any] = [
            {"type": dice.choice("abc"), "subject": f"s{dice.randrange(9)}", "data": _PAYLOAD}
            for _ in range(count)
        ]
        if dice.random() < 0.3:  # some with ids: then rows are made to count them
            events[0]["id"] = f"i{next(self._numbers)}"
        with self._mutex:
            self._begun += count
        self.steady.append(events)
        with self._mutex:
            self._acknowledged += count

    def ingest(self, dice: random.Random) -> None:
        number = next(self._numbers)  # no two files have the same content: they would be one
        path = self.home / f"file{number}.jsonl"
        count = dice.randrange(1, 9)
        lines = [f'{{"type": "a", "data": {{"n": {number}.{n}}}}}\n' for n in range(count)]
        path.write_text("".join(lines))
        with self._mutex:
            self._begun += len(lines)
        self.steady.ingest(path)
        with self._mutex:
            self._acknowledged += len(lines)

    def _number(self, query: str, params: Any = None) -> int:
        number = int(self.steady.sql(query, params).fetchall()[0][0])
        self.asked[threading.get_ident()] = query
        return number

    @contextlib.contextmanager
    def counted(self) -> Iterator[Callable[[int], None]]:
        """Give what takes the count of an answer; it is checked at the end of the block."""
        counts: list[int] = []
        least = self._acknowledged
        yield counts.append
        for count in counts:
            if not least <= count <= self._begun:
                query = self.asked.get(threading.get_ident(), "")
                raise AssertionError(f"{count} events, of {least} to {self._begun}: {query}")

    def count(self, _: random.Random) -> None:
        with self.counted() as take:
            take(self.steady.count())

    def count_by_sql(self, dice: random.Random) -> None:
        text = dice.choice(
            [
                "SELECT count(*) FROM events",
                "SELECT count(time) FROM events",
                "SELECT count(*) FROM events WHERE type IN ('a', 'b', 'c')",
                "SELECT count(data->>'n') + count(data->>'item_id') FROM events",
                "SELECT sum(n)::BIGINT FROM (SELECT subject, count(*) AS n FROM events GROUP BY 1)",
            ]
        )
        with self.counted() as take:
            take(self._number(text))

    def count_with_parameters(self, _: random.Random) -> None:
        with self.counted() as take:
            take(self._number("SELECT count(*) FROM events WHERE type <= ?", ["z"]))

    def count_of_branch(self, _: random.Random) -> None:
        with self.counted() as take:
            take(self._number('SELECT count(*) FROM "main".events'))

    def count_of_types(self, _: random.Random) -> None:
        with self.counted() as take:
            take(self._number("SELECT (SELECT count(*) FROM events) FROM items LIMIT 1"))

    def throughput(self, _: random.Random) -> None:
        with self.counted() as take:
            take(sum(self.steady.view("throughput", {"type": None})["events"].to_pylist()))

    def stats(self, _: random.Random) -> None:
        with self.counted() as take:
            stats = self.steady.stats()
            take(stats.events + stats.pending)

    def snapshot(self, _: random.Random) -> None:
        with self.counted() as take:
            take(self.steady.at(self.steady.snapshot().id).count())

    def export(self, _: random.Random) -> None:
        path = self.home / f"out{next(self._numbers)}.parquet"
        with self.counted() as take:
            take(self.steady.export("SELECT type FROM events", path).rows)
        path.unlink()

    def tail(self, dice: random.Random) -> None:
        wanted = min(dice.randrange(1, 20), self._acknowledged)
        assert len(self.steady.tail(wanted)) == wanted

    def settle(self, _: random.Random) -> None:
        self.steady.settle()

    def compact(self, _: random.Random) -> None:
        self.steady.compact()

    def others(self, dice: random.Random) -> None:
        """What has no count, and whose answer only has to come."""
        lake = self.steady
        ask: Callable[[], object] = dice.choice(
            [
                lambda: lake.schema().num_rows,
                lambda: lake.view(dice.choice(["items", "sessions", "errors", "status"])),
                lambda: lake.view("throughput", since="2020-01-01"),
                lambda: lake.explain("FROM events WHERE type = 'a'"),
                lambda: lake.log(5),
                lambda: lake.tags(),
                lambda: lake.branches(),
                lambda: lake.gc(dry_run=True),
                lambda: lake.sql("SELECT n FROM types.a LIMIT 3").fetchall(),
                lambda: lake.sql("SELECT item_id FROM types.b LIMIT 3").fetchall(),
                lambda: lake.sql("SELECT DISTINCT fields.n FROM events").fetchall(),
                lambda: lake.sql("FROM quarantine").fetchall(),
                lambda: lake.sql("FROM events WHERE id = 'i3'").fetchall(),
                lambda: lake.sql('FROM "main".items').fetchall(),
                lambda: lake.sql("SELECT type, time FROM events ORDER BY time DESC LIMIT 5").df(),
                lambda: lake.retention("30d"),
                lambda: lake.verify(),
                lambda: lake.quarantine([("file", 0, "reason", "line")]),
                lambda: next(lake.follow(timeout=0.0), None),
                lambda: lake.diff("main", "main"),
                lambda: lake.backup(self.home / f"copy{next(self._numbers)}"),
            ]
        )
        with contextlib.suppress(GcRefused):  # two threads collect at once
            ask()

    # --- what is done to `wild` -------------------------------------------------------------------

    def turn(self, dice: random.Random) -> None:
        """Change the history of the other lake, or look at it meanwhile."""
        lake = self.wild
        name = f"t{next(self._numbers)}"
        ask: Callable[[], object] = dice.choice(
            [
                lambda: lake.append({"type": dice.choice("abc"), "data": _PAYLOAD}),
                lambda: lake.tag(name),
                lambda: lake.branch(name).close(),
                lambda: lake.rollback("@1"),
                lambda: lake.undo(force=True),
                lambda: lake.retention("3650d", apply=True),
                lambda: lake.expire(),
                lambda: lake.gc(),
                lambda: lake.compact(smallest=True),
                lambda: lake.repair(),
                lambda: lake.count(),
                lambda: lake.sql("SELECT count(*) FROM events").fetchall(),
                lambda: lake.view("items"),
                lambda: lake.engine().cursor().execute("SELECT 1").fetchall(),
            ]
        )
        # History that another thread takes away meanwhile is said to be gone.
        with contextlib.suppress(NothingToUndo, GcRefused, LakelogError):
            ask()

    # --- the run ----------------------------------------------------------------------------------

    def _work(self, number: int) -> None:
        dice = random.Random(f"{self.seed} {number}")
        actions = [self.append] * 5 + [
            self.ingest, self.count, self.count, self.count_by_sql, self.count_by_sql,
            self.count_with_parameters, self.count_of_branch, self.count_of_types, self.throughput,
            self.stats, self.snapshot, self.export, self.tail, self.settle, self.compact,
            self.others, self.others, self.others, self.turn, self.turn, self.turn,
        ]  # fmt: skip
        try:
            while not self._stop.is_set():
                action = dice.choice(actions)
                action(dice)
                self.calls[action.__name__] = self.calls.get(action.__name__, 0) + 1
        except BaseException:
            self.failures.append(f"thread {number}:\n{traceback.format_exc()}")
            self._stop.set()

    def run(self, seconds: float, beside: Callable[[Crew], None] | None = None) -> None:
        """Let the threads work for so long, while this one does what is to be done beside them;
        raise what one of them found, or where those that hang are."""
        threads = [
            threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until and not self._stop.wait(0.02):
                if beside is not None:
                    beside(self)
        except Exception:
            self.failures.append(f"beside:\n{traceback.format_exc()}")
        self._stop.set()
        end = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        hanging = [t for t in threads if t.is_alive()]
        if hanging:
            frames = sys._current_frames()
            stacks = ["".join(traceback.format_stack(frames[t.ident or 0])[-12:]) for t in hanging]
            raise AssertionError("threads hang:\n" + "\n\n".join(stacks))
        assert not self.failures, "\n".join(self.failures)
        with self.counted() as take:
            take(self.steady.count())
            take(self.steady.sql("SELECT count(*) FROM (FROM events)").fetchall()[0][0])

    def close(self) -> None:
        """Close both lakes."""
        self.steady.close()
        self.wild.close()


def _go_on_in_child(crew: Crew) -> NoReturn:
    """Ask in a forked child, which counts at least what was acknowledged before the fork."""
    try:
        signal.alarm(int(PATIENCE))  # ends a child that waits for a thread which it does not have
        least, lake = crew._acknowledged, crew.steady
        assert lake.count() >= least
        assert lake.sql("SELECT count(*) FROM events WHERE type < 'z'").fetchall()[0][0] >= least
        assert sum(lake.view("throughput", {"type": None})["events"].to_pylist()) >= least
        crew.wild.append({"type": "of a child"})
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def interrupt_and_fork(crew: Crew) -> None:
    """A handler of signals asks the lake in the middle of a call, and a child of a fork does."""

    def ask(*_: object) -> None:
        with contextlib.suppress(ReentrantAppend, ReentrantQuery):
            crew.count(random.Random(1))
            crew.wild.append({"type": "of a handler"})
        # Once more after this one: on a slow machine they would nest without end.
        if not is_over.is_set():
            signal.setitimer(signal.ITIMER_REAL, 0.007)

    is_over = threading.Event()
    before = signal.signal(signal.SIGALRM, ask)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.003)
        for _ in range(3):
            crew.count_by_sql(random.Random(2))
            crew.throughput(random.Random(3))
    finally:
        is_over.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    pid = os.fork()
    if not pid:
        _go_on_in_child(crew)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, "a forked child fails or hangs"
