"""The work queue: every item is completed once or ends as a dead letter, in lakes and oos.logs."""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.disk import OpenFile
from lakelog.errors import InvalidEvent, InvalidSetting, ItemRejected
from lakelog.pipeline import Item, WorkQueue, fact_log
from lakelog.pipeline.fact_log import Fact
from tests.support import queue_crews


@pytest.fixture(params=["lake", "file"])
def log(request: pytest.FixtureRequest, home: Path) -> str:
    """The path of a lake, or of an oos.log that is not there yet."""
    if request.param == "lake":
        lakelog.open(home / "lake", settings={"seal": "never"}).close()
    return str(home / ("lake" if request.param == "lake" else "oos.log"))


def add(queue: WorkQueue, count: int) -> None:
    """Add items p-0, p-1, and so on."""
    assert queue.add(Item("photos", f"p-{n}", {"n": n}) for n in range(count)) == count


def test_items_are_completed_once(log: str) -> None:
    """All are processed with what they were added with; results are data; a second run does
    nothing, nor does adding them again."""
    queue = WorkQueue(log, "thumbnails")
    add(queue, 30)
    seen = Counter[str]()

    def process(item: Item) -> dict[str, int]:
        seen[item.id] += 1
        return {"square": item.data["n"] ** 2}

    report = queue.run(process, concurrency=4, batch=10)
    assert (report.completed, report.failed, report.dead) == (30, 0, 0)
    assert seen == {f"p-{n}": 1 for n in range(30)}
    assert queue.counts() == {"waiting": 0, "running": 0, "completed": 30, "dead": 0}
    again = WorkQueue(log, "thumbnails")
    assert again.add([Item("photos", "p-1")]) == 0
    assert again.run(process).completed == 0
    assert sorted(queue_crews.completions(log)) == sorted(seen)
    status = lakelog.get_views(log).podcast_status_view()
    assert status == {"discovered": 0, "processing": 0, "completed": 30, "failed": 0}


def test_failures_are_retried_and_end_as_dead_letters(log: str) -> None:
    """A flaky item is completed at a later attempt, a bad one dead after the last, a rejected one
    at once; each has its reason. Dead letters can be queued again."""
    queue = WorkQueue(log, "thumbnails", attempts=3, backoff=0.001)
    add(queue, 4)
    attempts = Counter[str]()

    def process(item: Item) -> None:
        attempts[item.id] += 1
        if item.id == "p-1" and item.attempt < 3:
            raise OSError("not yet")
        if item.id == "p-2":
            raise ValueError("cannot be read")
        if item.id == "p-3":
            raise ItemRejected("no photo")

    report = queue.run(process)
    assert (report.completed, report.failed, report.dead) == (2, 6, 2)
    assert attempts == {"p-0": 1, "p-1": 3, "p-2": 3, "p-3": 1}
    letters = {letter.item.id: letter for letter in queue.dead_letters()}
    assert (letters["p-2"].error, letters["p-2"].failures) == ("ValueError: cannot be read", 3)
    assert (letters["p-3"].error, letters["p-3"].failures) == ("no photo", 1)
    errors = lakelog.get_views(log).error_analysis_view()["error_types"]
    assert errors == {"ValueError: cannot be read": 3, "OSError: not yet": 2, "no photo": 1}
    assert queue.requeue([letters["p-2"].item]) == 1
    assert [item.id for item in queue.items("waiting")] == ["p-2"]
    assert WorkQueue(log, "thumbnails").run(lambda item: None).completed == 1
    assert [letter.item.id for letter in queue.dead_letters()] == ["p-3"]


def test_progress_counts_what_is_done(log: str) -> None:
    """It grows up to the number of items of the run, also where only some are processed; an item
    that fails for good is done."""
    queue = WorkQueue(log, "thumbnails", attempts=1)
    add(queue, 20)

    def process(item: Item) -> None:
        if item.id == "p-3":
            raise ValueError("no photo")

    told: list[tuple[int, int]] = []
    queue.run(process, max_items=6, progress=lambda *counts: told.append(counts))
    assert {total for _, total in told} == {6}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (6, 6)
    told.clear()
    some = [item for item in queue.items("waiting") if item.data["n"] % 2]
    queue.run(process, concurrency=3, only=some, progress=lambda *counts: told.append(counts))
    assert (told[0], told[-1]) == ((0, len(some)), (len(some), len(some)))


def test_retries_wait_longer_each_time(home: Path) -> None:
    """The pause doubles up to its limit, less up to a half."""
    queue = WorkQueue(Facts(home), "q", backoff=1.0, backoff_max=8.0, attempts=99)
    queue.add([Item("s", "i")])
    for attempt, most in enumerate([1, 2, 4, 8, 8], 1):
        before = time.time()
        fact = queue._failure(Item("s", "i", {}, attempt), "e", dead=False)
        # From when it failed, which was between the two looks at the clock.
        assert before + most / 2 <= fact["data"]["retry_at"] <= time.time() + most
        queue._learn([fact])


def test_a_clock_that_was_ahead_makes_no_item_wait(
    log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item that failed in a year that was none is tried again, and does not wait for it."""
    queue = WorkQueue(log, "thumbnails", backoff=0.01, backoff_max=1.0)
    add(queue, 1)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 31_557_600)
    stop = threading.Event()

    def fail(item: Item) -> None:
        stop.set()
        raise OSError("not yet")

    assert queue.run(fail, stop=stop).failed == 1
    monkeypatch.undo()
    stop.clear()
    timer = threading.Timer(20, stop.set)
    timer.start()
    assert WorkQueue(log, "thumbnails", backoff_max=1.0).run(lambda _: None, stop=stop).completed
    timer.cancel()


class Facts:
    """A log in memory, whose facts come in the reverse of their order."""

    def __init__(self, home: Path) -> None:
        self.home, self.facts = home, list[Fact]()

    def read(self, queue: str) -> tuple[list[Fact], bool]:
        """All of them."""
        return self.facts[::-1], True

    def append(self, facts: list[Fact]) -> None:
        """Keep them."""
        self.facts += facts

    def check(self, fact: Fact) -> None:
        """Anything will do."""

    def restart(self) -> None:
        """Nothing is remembered."""

    def lock_path(self, name: str) -> str:
        """A lock that nobody else has."""
        return str(self.home / f"{abs(hash(name))}.lock")


def test_the_order_of_facts_makes_no_difference(home: Path) -> None:
    """Facts that are read in reverse order say the same of every item."""
    queue = WorkQueue(Facts(home), "q", attempts=2, backoff=0.001)
    add(queue, 3)

    def process(item: Item) -> None:
        if item.id != "p-0":
            raise ValueError(item.id)

    queue.run(process)
    queue.requeue(queue.items("dead")[:1])
    assert queue.counts() == {"waiting": 1, "running": 0, "completed": 1, "dead": 1}
    queue.run(lambda item: None)
    assert queue.counts()["completed"] == 2


def test_what_exceeds_its_time_is_a_failure(log: str) -> None:
    """A hanging attempt does not hold up the others, and its late result is ignored."""
    queue = WorkQueue(log, "thumbnails", attempts=2, timeout=1.0, backoff=0.001)
    add(queue, 3)
    release = threading.Event()

    def process(item: Item) -> str:
        if item.id == "p-1":
            release.wait(240)
        return "late"

    report = queue.run(process)
    release.set()
    assert (report.completed, report.dead) == (2, 1)
    (letter,) = queue.dead_letters()
    assert (letter.item.id, letter.error) == ("p-1", "timed out after 1 s")


def test_a_stop_finishes_what_runs_and_releases_the_rest(log: str) -> None:
    """Items that were claimed and not begun are open to others at once, without a failure."""
    queue = WorkQueue(log, "thumbnails")
    add(queue, 10)
    stop = threading.Event()

    def process(item: Item) -> None:
        stop.set()

    report = queue.run(process, concurrency=1, batch=8, stop=stop)
    assert (report.completed, report.failed) == (1, 0)
    assert queue.counts() == {"waiting": 9, "running": 0, "completed": 1, "dead": 0}
    assert WorkQueue(log, "thumbnails", attempts=1).run(lambda item: None).completed == 9


def test_limits(log: str) -> None:
    """No more items run at once than `concurrency`, nor are more taken than `max_items`."""
    queue = WorkQueue(log, "thumbnails")
    add(queue, 12)
    running, most, mutex = 0, 0, threading.Lock()

    def process(item: Item) -> None:
        nonlocal running, most
        with mutex:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with mutex:
            running -= 1

    assert queue.run(process, concurrency=3, batch=5, max_items=7).completed == 7
    assert 1 <= most <= 3
    assert queue.counts()["waiting"] == 5


def test_concurrent_workers_share_the_items(log: str) -> None:
    """Each item is processed by one of several workers."""
    add(WorkQueue(log, "thumbnails"), 40)
    seen = Counter[str]()

    def process(item: Item) -> None:
        seen[item.id] += 1

    def work() -> None:
        WorkQueue(log, "thumbnails").run(process, concurrency=2)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {f"p-{n}": 1 for n in range(40)}


def test_the_log_of_an_older_program_is_resumed(home: Path) -> None:
    """What an older program completed is not processed again; what it began or failed is."""
    lines = [
        "2025-09-29T02:00:00Z|DISCOVER|podcast|Tech|Tech_1|{}",
        '2025-09-29T02:00:01Z|COMPLETE|podcast|Tech|Tech_1|{"words":5}',
        "2025-09-29T02:00:02Z|PROCESS|podcast|Tech|Tech_2|{}",
        '2025-09-29T02:00:03Z|FAIL|podcast|Tech|Tech_3|{"error":"HTTP 503"}',
        "2025-09-29T02:00:04Z|DISCOVER|podcast|Tech|Tech_4|{}",
        "2025-09-29T02:00:04Z|DISCOVER|video|Tech|Tech_5|{}",
        "not a line of it",
        "2025-09-29T02:00:05Z|COMPLETE|podcast|Tech|Tech_4|{",
    ]
    (home / "oos.log").write_text("\n".join(lines))
    queue = WorkQueue(home / "oos.log", "podcast")
    seen: list[str] = []
    queue.run(lambda item: seen.append(item.id))
    assert sorted(seen) == ["Tech_2", "Tech_3", "Tech_4"]
    assert queue.counts()["completed"] == 4
    text = (home / "oos.log").read_text()
    assert text.startswith("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("fact", "data"),
    [
        ("PROCESS", {"attempt": 1, "lease_until": "soon"}),
        ("DISCOVER", {"released": [1]}),
        ("DISCOVER", {"requeued": "all"}),
        ("FAIL", {"attempt": 1, "retry_at": {}}),
    ],
)
def test_what_only_looks_like_a_fact_stops_no_queue(
    lake: lakelog.Lake, fact: str, data: dict[str, Any]
) -> None:
    """Whoever may append to the lake may write members of other kinds."""
    names = {"category": "thumbnails", "source": "photos", "subject": "p-0"}
    lake.append({"type": fact, **names, "data": data})
    queue = WorkQueue(lake, "thumbnails", backoff=0.001)
    queue.add([Item("photos", "p-0"), Item("photos", "p-1")])
    assert queue.run(lambda item: {}).completed == 2


def test_a_rollback_takes_the_queue_with_it(lake: lakelog.Lake) -> None:
    """After a rollback items are in the state that the branch had."""
    queue = WorkQueue(lake, "thumbnails")
    add(queue, 2)
    lake.tag("before")
    queue.run(lambda item: None)
    assert queue.counts()["completed"] == 2
    lake.rollback("before")
    assert queue.counts()["waiting"] == 2


@pytest.mark.parametrize("way", ["erasure", "retention"])
def test_an_item_whose_facts_were_removed_is_new(lake: lakelog.Lake, way: str) -> None:
    """It is stored, and completed once, like one that was never there: the lake keeps the ids of
    the facts that it had."""
    queue = WorkQueue(lake, "thumbnails")
    add(queue, 2)
    assert queue.run(lambda item: None).completed == 2
    if way == "erasure":
        lake.erase(subject="p-1", why="request 17")
    else:
        lake.settle()
        lake.retention("0s", apply=True)
    item, failures = Item("photos", "p-1", {"n": 7}), iter([True, True])

    def process(item: Item) -> None:
        assert not next(failures, False)

    for is_new in (True, False):
        queue = WorkQueue(lake, "thumbnails", attempts=2, backoff=0.01)
        assert queue.add([item, item]) == is_new
        assert queue.run(process).dead == is_new
        assert queue.requeue() == is_new
        assert queue.run(process).completed == is_new
        lake.settle()
    query = "SELECT count(*) FROM events WHERE subject = 'p-1' AND type = 'COMPLETE'"
    assert lake.sql(query).fetchall() == [(1,)]


@pytest.mark.parametrize("way", ["erasure", "retention"])
def test_an_open_queue_forgets_what_was_removed(lake: lakelog.Lake, way: str) -> None:
    """What it knew of the items, and those that it had claimed for its next threads."""
    queue = WorkQueue(lake, "thumbnails")
    queue.add([Item("photos", f"p-{number}", {"owner": "Ada"}) for number in range(3)])
    processed = []

    def process(item: Item) -> None:
        processed.append(item.id)
        if way == "erasure":
            lake.erase(subject="p-2", why="request 17")
        else:
            lake.settle()
            lake.retention("0s", apply=True)

    queue.run(process, batch=3, max_items=3)
    remaining = ["p-0", "p-1"] if way == "erasure" else []  # retention took what was running, too
    assert processed == (remaining or ["p-0"])
    assert [item.id for item in queue.items()] == remaining
    assert queue.add([Item("photos", "p-2")]) == 1
    assert WorkQueue(lake, "thumbnails").items("waiting") == queue.items("waiting")


def test_a_failed_write_loses_no_item(log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If outcomes cannot be stored the run ends with the error; a later one does the rest."""
    queue = WorkQueue(log, "thumbnails")
    add(queue, 3)
    limit = 2
    kind = fact_log.FileLog if log.endswith(".log") else fact_log.LakeLog
    append = kind.append

    def failing(self: Any, facts: list[Fact]) -> None:
        nonlocal limit
        limit -= 1
        if limit < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, facts)

    monkeypatch.setattr(kind, "append", failing)
    with pytest.raises(OSError, match="No space left"):
        queue.run(lambda item: None)
    monkeypatch.undo()
    assert queue.counts()["completed"] < 3
    queue.run(lambda item: None)
    assert queue.counts()["completed"] == 3
    assert Counter(queue_crews.completions(log)) == {"p-0": 1, "p-1": 1, "p-2": 1}


def test_a_failed_write_takes_back_nothing_of_another_queue(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a queue adds to a file stays, although another fails to write to it meanwhile."""
    log = str(home / "oos.log")
    queue, other = WorkQueue(log, "albums"), WorkQueue(log, "thumbnails")
    write = OpenFile.write
    adding = threading.Thread(target=add, args=(other, 1))

    def failing(self: OpenFile, data: bytes) -> None:
        if b"|albums|" not in data:
            write(self, data)
            return
        adding.start()
        adding.join(0.2)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(OpenFile, "write", failing)
    with pytest.raises(OSError, match="No space left"):
        add(queue, 1)
    adding.join()
    assert WorkQueue(log, "thumbnails").counts()["waiting"] == 1


def test_another_log_of_that_name_is_read_from_its_beginning(home: Path) -> None:
    """As after a rotation: also where it is longer than the one before."""
    log = home / "oos.log"
    queue = WorkQueue(str(log), "thumbnails")
    add(queue, 3)
    assert queue.counts()["waiting"] == 3
    log.rename(home / "oos.log.1")
    other = WorkQueue(str(log), "thumbnails")
    assert other.add(Item("scans", f"s-{n}") for n in range(30)) == 30
    assert queue.counts()["waiting"] == 30
    assert {item.source for item in queue.items()} == {"scans"}


def test_queues_and_items_may_have_slashes_in_their_names(log: str) -> None:
    """A queue below another stores its own items, although the other's have the same path."""
    places = [("a", "b/c"), ("a/b", "c"), ("a%2Fb", "c"), ("a%", "2Fb/c")]
    for name, item in places:
        assert WorkQueue(log, name).add([Item("photos", item)]) == 1
    for name, item in places:
        queue = WorkQueue(log, name)
        assert [waiting.id for waiting in queue.items("waiting")] == [item]
        assert queue.run(lambda item: None).completed == 1
        assert WorkQueue(log, name).counts()["completed"] == 1


def test_results_and_items_that_cannot_be_stored(log: str) -> None:
    """A result that is no JSON is a dead letter with that reason; such an item is refused."""
    queue = WorkQueue(log, "thumbnails")
    with pytest.raises(InvalidEvent):
        queue.add([Item("photos", "p-1"), Item("photos", "p-2", {"x": object()})])
    if log.endswith(".log"):
        with pytest.raises(InvalidEvent, match="holds a bar"):
            queue.add([Item("a|b", "p-1")])
    assert queue.counts()["waiting"] == 0
    add(queue, 1)
    queue.run(lambda item: {"x": object()})
    assert "result cannot be stored" in queue.dead_letters()[0].error
    with pytest.raises(InvalidSetting, match="attempts is a number above 0, not 0"):
        WorkQueue(log, "q", attempts=0)
    with pytest.raises(InvalidSetting, match="at least 1"):
        queue.run(lambda item: None, concurrency=0)


@pytest.mark.matrix
def test_crash_recovery_completes_each_item_once(log: str, home: Path) -> None:
    """Workers are killed in the middle; each item is completed exactly once, or dead with its
    reason. `python -m tests.support.queue_crews` does it with 1,000 items and 30 kills."""
    queue = queue_crews.play(log, home, items=60, kills=3, seed=1)
    assert queue_crews.faults(queue, log, 60) == []
