"""However a process ends or forks, what it logged is in the lake, once.

Each program logs numbers without flushing and ends in its own way; the lake is asked afterwards.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import lakelog
from tests.support.processes import environment
from tests.support.requirements import need, need_module

_HEAD = """
import asyncio, atexit, logging, multiprocessing, os, signal, sys, threading, time

at_fork = lambda: None
os.register_at_fork(before=lambda: at_fork())  # before lakelog's, and so called after those
import lakelog

def log_to(lake):
    logger = logging.getLogger("t")
    logger.setLevel(1)
    logger.addHandler(lakelog.LakeHandler(lake))
    return logger

LAKE = sys.argv[1]
"""
_PROGRAMS = {
    "normal exit": (
        """
        log = log_to(LAKE)
        for i in range(500): log.info("m", extra={"n": i})
        """,
        500,
        0,
    ),
    "unhandled exception": (
        """
        log = log_to(LAKE)
        for i in range(500): log.info("m", extra={"n": i})
        raise SystemExit(7)
        """,
        500,
        7,
    ),
    "SIGTERM": (
        """
        log = log_to(LAKE)
        for i in range(500): log.info("m", extra={"n": i})
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
        500,
        -signal.SIGTERM,
    ),
    "SIGTERM with a handler of the application": (
        """
        def stop(number, frame):
            log.info("m", extra={"n": 500})
            sys.exit(3)
        signal.signal(signal.SIGTERM, stop)
        log = log_to(LAKE)
        for i in range(500): log.info("m", extra={"n": i})
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
        501,
        3,
    ),
    "SIGTERM with a handler of the application that calls ours": (
        """
        log = log_to(LAKE)
        ours = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda *given: ours(*given))
        for i in range(500): log.info("m", extra={"n": i})
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
        500,
        -signal.SIGTERM,
    ),
    "SIGTERM while it forks": (
        """
        at_fork = lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(0.001))
        log = log_to(LAKE)
        log.info("m", extra={"n": 500})
        log.handlers[0].flush()
        for i in range(500): log.info("m", extra={"n": i})
        if not os.fork(): os._exit(0)
        time.sleep(30)
        """,
        501,
        -signal.SIGTERM,
    ),
    "SIGTERM while lines are moved to the buffer": (
        """
        from lakelog.loggers.buffer import DiskBuffer
        add = DiskBuffer.add
        def add_and_die(buffer, lines):
            if threading.current_thread() is threading.main_thread():
                signal.raise_signal(signal.SIGTERM)
            return add(buffer, lines)
        DiskBuffer.add = add_and_die
        log = log_to(LAKE)
        for i in range(500): log.info("m", extra={"n": i})
        (queue,) = lakelog.loggers.destination._QUEUES.values()
        queue._move_to_buffer()  # as a call does that finds lines late
        time.sleep(30)
        """,
        500,
        -signal.SIGTERM,
    ),
    "lines are stored while they are moved to the buffer": (
        """
        from lakelog.loggers.buffer import DiskBuffer
        add = DiskBuffer.add
        def add_and_drain(buffer, lines):
            added = add(buffer, lines)
            if threading.current_thread() is threading.main_thread():
                buffer.drain(queue.destination.store)  # as the thread does at any moment
            return added
        DiskBuffer.add = add_and_drain
        log = log_to(LAKE)
        for i in range(500): log.info("m", extra={"n": i})
        (queue,) = lakelog.loggers.destination._QUEUES.values()
        queue._move_to_buffer()
        """,
        500,
        0,
    ),
    "fork": (
        """
        log = log_to(LAKE)
        for i in range(100): log.info("m", extra={"n": i})
        child = os.fork()
        for i in range(100): log.info("m", extra={"n": (200 if child else 100) + i})
        if child: assert os.waitpid(child, 0)[1] == 0
        """,
        300,
        0,
    ),
    "prefork server": (
        """
        log = log_to(LAKE)
        log.info("m", extra={"n": 0})
        children = []
        for worker in range(3):
            child = os.fork()
            if not child:
                try:
                    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
                    for i in range(100): log.info("m", extra={"n": 1 + worker * 100 + i})
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(30)
                finally:
                    pass
            children.append(child)
        for child in children: assert os.waitpid(child, 0)[1] == 0
        """,
        301,
        0,
    ),
    "asyncio": (
        """
        log = log_to(LAKE)
        async def work(k):
            for i in range(100):
                log.info("m", extra={"n": k * 100 + i})
                await asyncio.sleep(0)
        async def main():
            await asyncio.gather(*(work(k) for k in range(5)))
        asyncio.run(main())
        """,
        500,
        0,
    ),
    "exec": (
        """
        log = log_to(LAKE)
        for i in range(100): log.info("m", extra={"n": i})
        try: os.execv("/missing/program", ["program"])
        except OSError: log.info("m", extra={"n": 100})
        if not os.fork(): os.execlp("true", "true")  # whose queue is empty
        os.wait()
        # As servers restart themselves: of exit handlers the last one is called first.
        atexit.register(os.execlp, "false", "false")
        """,
        101,
        1,
    ),
    "exit handlers that log": (
        """
        atexit.register(lambda: log.info("m", extra={"n": 1}))
        log = log_to(LAKE)
        log.info("m", extra={"n": 0})
        atexit.register(lambda: log.info("m", extra={"n": 2}))
        """,
        3,
        0,
    ),
    "first record in an exit handler": (
        """
        log = log_to(LAKE)
        atexit.register(lambda: log.info("m", extra={"n": 0}))
        """,
        1,
        0,
    ),
    "non-daemon thread that outlives the main one": (
        """
        log = log_to(LAKE)
        def work():
            time.sleep(0.3)
            for i in range(100): log.info("m", extra={"n": i})
        threading.Thread(target=work).start()
        """,
        100,
        0,
    ),
}
_PROCESSES = """
def child(lake, k):
    log = logging.getLogger("t")
    log = log if log.handlers else log_to(lake)  # a forked child has that of its parent
    for i in range(100): log.info("m", extra={"n": k * 100 + i})

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    if sys.argv[2] == "fork":
        # A queue that is in use when the children are forked.
        log_to(LAKE).info("m", extra={"n": 300})
    children = [context.Process(target=child, args=(LAKE, k)) for k in range(3)]
    for each in children: each.start()
    for each in children: each.join()
    sys.exit(max(each.exitcode for each in children))
"""


def run(program: str, home: Path, *arguments: str, first: str = "") -> tuple[int, list[int]]:
    """Run a program on a new lake, with a statement before all others; return its exit status, and
    the numbers that the lake has."""
    file, lake = home / "program.py", home / "lake"
    file.write_text(first + _HEAD + textwrap.dedent(program))
    done = subprocess.run(
        [sys.executable, file, lake, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert "Traceback" not in done.stderr, done.stderr
    with lakelog.open(lake, create=False) as opened:
        query = "SELECT (data->>'n')::INT FROM events ORDER BY 1"
        numbers = [n for (n,) in opened.sql(query).fetchall()]
        opened.verify().require()
    return done.returncode, numbers


@pytest.mark.matrix
@pytest.mark.parametrize("name", _PROGRAMS)
def test_nothing_is_lost_or_doubled_at_the_end(name: str, home: Path) -> None:
    """Every record is stored exactly once, and the exit status is as without the handler."""
    program, count, status = _PROGRAMS[name]
    assert run(program, home) == (status, list(range(count)))


@pytest.mark.matrix
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_nothing_is_lost_in_processes_of_multiprocessing(method: str, home: Path) -> None:
    """Children that skip `atexit` store what they logged; a forked one nothing of its parent's."""
    status, numbers = run(_PROCESSES, home, method)
    expected = list(range(300)) + [300] * (method == "fork")
    assert (status, [n for n in numbers if n < 300]) == (0, list(range(300)))
    assert len(numbers) == len(expected)


_TERMINATED = """
import ctypes, operator
from functools import partial

log = log_to(LAKE)  # in a spawned process while its main module is loaded

def wait(n):
    if n: log.info("m", extra={"n": n})
    # Within one bytecode: it is about to wait in C when the signal comes.
    libc = ctypes.CDLL(None)
    list(map(operator.call, [partial(libc["raise"], signal.SIGTERM), libc.pause]))

def leave(n):
    def stop(number, frame):
        time.sleep(0.2)
        log.info("m", extra={"n": 10 * n})
        sys.exit(3)
    log.info("m", extra={"n": n})
    signal.signal(signal.SIGTERM, stop)
    log_to(LAKE + "2")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)

if __name__ == "__main__":
    log.info("m", extra={"n": 0})
    context = multiprocessing.get_context(sys.argv[2])
    ended = []
    for work, n in ((wait, 1), (wait, 0), (leave, 2)):
        child = context.Process(target=work, args=(n,))
        child.start()
        child.join(60)
        ended.append(child.exitcode)
        child.kill()
    for _ in range(10):  # at once, often before it can run
        child = context.Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join(60)
        ended.append(child.exitcode)
        child.kill()
    sys.exit(ended != [-signal.SIGTERM] * 2 + [3] + [-signal.SIGTERM] * 10)
"""


@pytest.mark.matrix
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_terminated_process_of_multiprocessing_ends(method: str, home: Path) -> None:
    """Its parent waits for it without end: it dies of SIGTERM wherever it is, and what it logged
    is stored; a handler that the application gave it meanwhile does what it is for."""
    assert run(_TERMINATED, home, method) == (0, [0, 1, 2, 20])


_LEFT_ALONE = """
def handler(_): return signal.getsignal(signal.SIGTERM)

if __name__ == "__main__":
    log = log_to(LAKE)
    log.info("m", extra={"n": 0})
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert set(pool.map(handler, range(8))) == {signal.SIG_DFL}
"""


def test_a_worker_that_logs_nothing_has_no_handler(home: Path) -> None:
    """In a pool of workers that do not log, the signal is what it is without lakelog."""
    assert run(_LEFT_ALONE, home) == (0, [0])


_AT_EVERY_STEP = """
def work(n):
    steps = iter(range(n))
    def step(*_):
        if next(steps, None) == n - 1: signal.raise_signal(number)
    signal.alarm(60)
    if number == signal.SIGINT: os.close(2)  # nobody has to see where it came
    log.info("m", extra={"n": n})
    sys.setprofile(step)
    log.info("m", extra={"n": 1000 + n})
    log.handlers[0].flush()  # then multiprocessing ends the process

if __name__ == "__main__":
    log, number = log_to(LAKE), int(sys.argv[2])
    log.info("m", extra={"n": 0})
    context, ended = multiprocessing.get_context("fork"), []
    for n in range(1, 301, 2):
        child = context.Process(target=work, args=(n,))
        child.start()
        child.join()
        ended.append(child.exitcode)
    # The last ones have fewer steps than that.
    assert -signal.SIGALRM not in ended
    ends = {-signal.SIGTERM} if number == signal.SIGTERM else {0, 1}
    sys.exit(not set(ended[:20]) <= ends or not set(ended) <= ends | {0})
"""


@pytest.mark.matrix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_step_ends_the_process(number: int, home: Path) -> None:
    """In the middle of a call, of a flush, and of the end: what was logged before is stored, once,
    and nothing waits for a lock that the interrupted thread holds."""
    status, numbers = run(_AT_EVERY_STEP, home, str(int(number)))
    assert status == 0
    assert [n for n in numbers if n < 1000] == [0, *range(1, 301, 2)]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("signals", [[], ["SIGTERM"]])
def test_a_daemon_thread_loses_nothing_that_returned(signals: list[str], home: Path) -> None:
    """At the shutdown of the interpreter, or at a signal, a daemon thread is stopped anywhere; each
    call of it that returned before counts."""
    program = """
        log = log_to(LAKE)
        def work():
            i = 0
            while True:
                log.info("m", extra={"n": i})
                os.pwrite(ledger, b"%10d" % i, 0)
                i += 1
        ledger = os.open(sys.argv[2], os.O_CREAT | os.O_RDWR)
        threading.Thread(target=work, daemon=True).start()
        while not os.fstat(ledger).st_size: time.sleep(0.3)
        for name in sys.argv[3:]: os.kill(os.getpid(), signal.Signals[name])
        """
    status, numbers = run(program, home, str(home / "ledger"), *signals)
    assert status == -signal.SIGTERM * len(signals)
    last = int((home / "ledger").read_text())
    assert numbers[: last + 1] == list(range(last + 1))
    assert len(numbers) <= last + 2


def test_a_killed_process_loses_only_the_end(home: Path) -> None:
    """After `kill -9` there is no gap and nothing twice; what was flushed is there."""
    program = """
        log = log_to(LAKE)
        for i in range(300): log.info("m", extra={"n": i})
        log.handlers[0].flush()
        for i in range(300, 20_000): log.info("m", extra={"n": i})
        os.kill(os.getpid(), signal.SIGKILL)
        """
    status, numbers = run(program, home)
    assert status == -signal.SIGKILL
    assert len(numbers) >= 300
    assert numbers == list(range(len(numbers)))


def test_what_killed_workers_left_is_stored_by_later_ones(home: Path) -> None:
    """A worker is killed in its first sync, with its line in its buffer: the next one that the same
    server forks stores it. No process leaves a buffer that is empty."""
    program = """
        from lakelog.disk import disk
        log = log_to(LAKE)
        log.info("m", extra={"n": 0})
        log.handlers[0].flush()
        for n in range(1, 5):
            if os.fork() == 0:
                if n == 1:
                    disk.sync_file = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
                log.info("m", extra={"n": n})
                log.handlers[0].flush()
                sys.exit()
            os.wait()
            print(len(os.listdir(LAKE + "/cache/buffer")), file=open(sys.argv[2], "a"))
        """
    _, numbers = run(program, home, str(home / "files"))
    assert numbers == list(range(5))
    # That of the killed worker, or of the server, which still runs.
    assert (home / "files").read_text().split() == ["2", "1", "1", "1"]
    assert list((home / "lake/cache/buffer").iterdir()) == []


_SERVED = """
import atexit, logging, os, sys, time
import lakelog

log = logging.getLogger("served")
log.setLevel(1)
log.addHandler(lakelog.LakeHandler(os.environ["SERVED_LAKE"]))
log.info("loaded")  # by the master, before it forks: its thread runs there, not in the workers

def application(environ, start_response):
    time.sleep(0.002)  # so that both workers have requests
    log.info("request", extra={"n": int(environ["PATH_INFO"][1:]), "worker": os.getpid()})
    start_response("200 OK", [("Content-Length", "0"), ("Worker", str(os.getpid()))])
    return [b""]
"""


@pytest.mark.parametrize("kind", ["sync", "gevent"])
def test_nothing_is_lost_in_workers_of_gunicorn(kind: str, home: Path) -> None:
    """The real server with an application that is loaded before it forks, and before a worker
    becomes one of gevent: at a graceful stop all requests that were answered are in the lake, once,
    whichever worker answered."""
    need_module("gunicorn")
    if kind == "gevent":
        need_module(kind)
    (home / "served.py").write_text(_SERVED)
    lake = home / "lake"
    options = [
        "--preload",
        "--workers",
        "2",
        "--worker-class",
        kind,
        "--bind",
        "127.0.0.1:0",
        "--chdir",
        str(home),
    ]
    options += ["--timeout", "240", "--graceful-timeout", "240"]
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *options, "served:application"],
        env=environment(SERVED_LAKE=str(lake)),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    try:
        listening = (re.search(r"Listening at: http://[\d.]+:(\d+)", x) for x in server.stderr)
        port = int(next(found for found in listening if found)[1])

        def ask(number: int) -> tuple[int, str | None]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=240)
            with contextlib.closing(connection):
                connection.request("GET", f"/{number}")
                answer = connection.getresponse()
                return answer.status, answer.getheader("Worker")

        asked, answers = 0, set[tuple[int, str | None]]()
        with ThreadPoolExecutor(8) as clients:
            while len(answers) < 2:  # the second worker may start late
                answers.update(clients.map(ask, range(asked, asked + 200)))
                asked += 200
        assert {status for status, _ in answers} == {200}
        server.send_signal(signal.SIGTERM)
        said = server.communicate(timeout=240)[1]
    finally:
        server.kill()
    assert server.returncode == 0, said
    assert "Traceback" not in said, said
    with lakelog.open(lake, create=False) as opened:
        query = "SELECT message, (data->>'n')::INT, data->>'worker' FROM events ORDER BY 2"
        rows = opened.sql(query).fetchall()
        opened.verify().require()
    assert Counter(message for message, *_ in rows) == {"loaded": 1, "request": asked}
    assert [n for _, n, _ in rows if n is not None] == list(range(asked))
    assert len({worker for *_, worker in rows if worker}) == 2


_GREEN = """
import subprocess

def stop(*_):
    log.info("m", extra={"n": 500})
    sys.exit(3)

if sys.argv[2] == "gevent.signal_handler":
    import gevent
    gevent.signal_handler(signal.SIGTERM, stop)
elif sys.argv[2] == "signal.signal":
    signal.signal(signal.SIGTERM, stop)
log = log_to(LAKE)
for i in range(500): log.info("m", extra={"n": i})
if sys.argv[2] == "at once": os.kill(os.getpid(), signal.SIGTERM)
# From outside, while the program waits in the loop.
subprocess.Popen(["sh", "-c", f"sleep 0.2; kill {os.getpid()}"])
time.sleep(60)
"""


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("handler", "ends"),
    [
        ("none", (-signal.SIGTERM, 500)),
        ("at once", (-signal.SIGTERM, 500)),
        ("signal.signal", (3, 501)),
        ("gevent.signal_handler", (3, 501)),
    ],
)
def test_sigterm_in_a_program_of_gevent(handler: str, ends: tuple[int, int], home: Path) -> None:
    """The signal comes in the event loop, which must not wait: all is stored, and the program's own
    handler is called, also one that only the loop knows of."""
    need("gevent")
    status, numbers = run(
        _GREEN, home, handler, first="from gevent import monkey\nmonkey.patch_all()"
    )
    assert (status, numbers) == (ends[0], list(range(ends[1])))


_UNSEEN = """
import ctypes
log, lake = log_to(LAKE), lakelog.open(LAKE, create=False)
log.info("m", extra={"n": 0})
log.handlers[0].flush()
lake.append({"type": "A", "data": {"n": 1}})
assert lake.count() == 2
# Holding the interpreter, and without its hooks: as a server in C forks.
child = ctypes.PyDLL(None).fork()
if child == 0:
    lake.append({"type": "A", "data": {"n": 2}})
    for n in range(3, 100): log.info("m", extra={"n": n})
    assert lake.count() >= 3
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
log.info("m", extra={"n": 100})
lake.append({"type": "A", "data": {"n": 101}})
"""


def test_a_child_that_python_does_not_know_of(home: Path) -> None:
    """uWSGI forks its workers so, with its default settings: they neither wait for threads of
    their parent nor write to its files."""
    assert run(_UNSEEN, home) == (0, list(range(102)))


_CELERY = """
import logging, os, sys
import lakelog
from celery import Celery, signals

app = Celery("t", broker="memory://")
log = logging.getLogger("t")
log.setLevel(1)
log.propagate = False
log.addHandler(lakelog.LakeHandler(sys.argv[1]))

@app.task
def work(n):
    log.info("task", extra={"n": n})

@signals.worker_process_init.connect
def begin(**_): log.info("begin", extra={"n": os.getpid()})

@signals.worker_process_shutdown.connect
def end(**_): log.info("end", extra={"n": os.getpid()})

for n in range(6): work.delay(n)
options = {"pool": "prefork", "concurrency": 2, "max_tasks_per_child": 1, "quiet": True}
for name in ("gossip", "mingle", "heartbeat"): options["without_" + name] = True
app.Worker(loglevel="CRITICAL", **options).start()
"""


def _wait_until_idle(pids: list[int]) -> None:
    """Return once the processes, as far as they are there, have not used the processor for a
    while."""

    def used() -> list[list[str]]:
        stats = list[str]()
        for pid in pids:
            with contextlib.suppress(OSError):
                stats.append(Path(f"/proc/{pid}/stat").read_text())
        # User and system time, behind a name that may have spaces.
        return [stat.rpartition(")")[2].split()[11:13] for stat in stats]

    before: list[list[str]] | None = None
    while before != (before := used()):
        time.sleep(0.5)


def test_nothing_is_lost_in_workers_of_celery(home: Path) -> None:
    """Each child that is replaced after a task stores what it logged to its end, which its parent
    hastens by SIGTERM; so do those that a warm shutdown ends."""
    need("celery")
    program, lake = home / "tasks.py", home / "lake"
    program.write_text(_CELERY)
    lakelog.open(lake).close()
    server = subprocess.Popen(
        [sys.executable, program, lake],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with lakelog.open(lake) as opened:
            begun = "SELECT (data->>'n')::INT FROM events WHERE message = 'begin'"
            for _ in opened.follow(where="message = 'begin'", timeout=240):
                if len(children := opened.sql(begun).fetchall()) == 8:  # six were replaced
                    break
        # The last two wait for a task: a child that is still starting is ended without its signal.
        _wait_until_idle([pid for (pid,) in children])
        server.send_signal(signal.SIGTERM)
        said = server.communicate(timeout=240)[1]
    finally:
        server.kill()
    assert server.returncode == 0, said
    with lakelog.open(lake, create=False) as opened:
        rows = opened.sql("SELECT message, (data->>'n')::INT FROM events").fetchall()
        opened.verify().require()
    numbers = {
        name: sorted(n for message, n in rows if message == name)
        for name in ("task", "begin", "end")
    }
    assert numbers["task"] == list(range(6))
    assert numbers["end"] == numbers["begin"]
    assert len(numbers["begin"]) == 8
