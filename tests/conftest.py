"""Lakes for tests. Each is verified, every byte, at the end of its test; `damaged` opts out."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, settings

import lakelog
from lakelog.manifest import manifests
from lakelog.store import sealer_process
from tests.support import effort, lock_order
from tests.support.effort import SECONDS, is_first, is_over, is_played, is_sampled, limit, share
from tests.support.requirements import count_by_cause, need, skip
from tests.support.scratch import memory
from tests.support.tree import ROOT

settings.register_profile(
    "fixed",
    max_examples=share(100),
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("fixed")

MakeLake = Callable[..., lakelog.Lake]


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks that the fixtures here look at; let children be interrupted.

    A shell has its background jobs ignore Ctrl-C, and a child inherits that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    lock_order.watch()
    config.addinivalue_line("markers", "damaged: the test damages its lakes; do not verify them")
    config.addinivalue_line(
        "markers",
        "needs: skips the test where one of these is missing: tests/support/requirements.py",
    )
    config.addinivalue_line(
        "markers", "rounds: repeats itself; a sixteenth of the times unless LAKELOG_MATRIX=all"
    )
    config.addinivalue_line(
        "markers", "matrix: many cases of one kind; a sixteenth of them unless LAKELOG_MATRIX=all"
    )
    config.addinivalue_line(
        "markers",
        "thorough: takes long and finds what others do; a sixteenth of these unless"
        " LAKELOG_MATRIX=all",
    )
    config.addinivalue_line(
        "markers", "slow: of tests/slow.txt; an eighth of these, another one with each commit"
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Search for garbage when all tests are collected and not meanwhile, as all of it stays."""
    gc.disable()
    _import_share(session)
    try:
        return (yield)
    finally:
        gc.enable()


def _import_share(session: pytest.Session) -> None:
    """Let each process of a run of all tests first import a share of the files of its own: what
    one has compiled the others need not, and in a fresh clone this is half of collecting."""
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if count == 1 or session.config.args != session.config.getini("testpaths"):
        return
    own = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    for path in sorted((ROOT / "tests").rglob("test_*.py"))[own::count]:
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))  # as pytest does
        # What fails or skips here does so again where it is told.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(path.stem)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Select what is run, in which order, and limit its time.

    A sixteenth of each matrix is played, always the same, at least one, and of what is thorough,
    and an eighth of what is slow, another one with each commit; `make torture` plays all.
    """
    slow = effort.slow_tests()
    for item in items:
        if item.nodeid.partition("[")[0] in slow:
            item.add_marker(pytest.mark.slow)
        if not item.get_closest_marker("timeout"):
            is_long = bool(item.get_closest_marker("thorough"))
            item.add_marker(pytest.mark.timeout(limit(item.nodeid, is_long=is_long)))
    if any("::" in given for given in config.args):
        return
    is_run_of_all = config.args == config.getini("testpaths")
    played = _played(items) - _postponed(items, effort.slow_part(is_run_of_all=is_run_of_all))
    selected = [item for item in items if is_sampled(item.nodeid) and item.nodeid in played]
    if len(selected) < len(items):
        chosen = set(selected)
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = sorted(selected, key=lambda item: not is_first(item.nodeid))


def _played(items: list[pytest.Item]) -> set[str]:
    """Return the names of the tests that are played; of each matrix at least one."""
    played, first = set[str](), dict[str, str]()
    for item in items:
        if item.get_closest_marker("thorough") and not is_played(item.nodeid):
            continue
        if not item.get_closest_marker("matrix"):
            played.add(item.nodeid)
        elif is_played(item.nodeid):
            played.add(item.nodeid)
            first[_matrix(item)] = item.nodeid
        else:
            first.setdefault(_matrix(item), item.nodeid)
    return played | {*first.values()}


def _postponed(items: list[pytest.Item], part: effort.SlowPart) -> set[str]:
    """Return the names of the slow tests that another commit plays."""
    slow = [item.nodeid for item in items if item.get_closest_marker("slow")]
    return {case for case in slow if not (is_first(case) or part.has(case))}


def _matrix(item: pytest.Item) -> str:
    """Return the name of the test, class or file whose cases are a matrix."""
    for node in item.listchain():
        if any(mark.name == "matrix" for mark in node.own_markers):
            return node.nodeid.partition("[")[0]
    return item.nodeid


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test when the given seconds are over, or when what its marks name is missing."""
    if is_over():
        skip(f"not run: {SECONDS:.0f} seconds are over (make test runs all)")
    for mark in item.iter_markers("needs"):
        need(*mark.args)


def pytest_collection_finish() -> None:
    """Leave what was collected out of each search for garbage: a third of a second."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count skipped tests by what they need; a file that is skipped counts once."""
    skipped = terminalreporter.stats.get("skipped", ())
    lines = count_by_cause(report.longrepr[2] for report in skipped)
    if lines:
        terminalreporter.write_line(f"skipped {len(skipped)}:")
    for line in lines:
        terminalreporter.write_line(f"  {line}")


@pytest.fixture(autouse=True)
def _order_of_locks() -> Iterator[None]:
    """Each thread takes locks in their order; a test in which one did not fails, and no other."""
    with lock_order.breaches() as found:
        yield
    assert not found, "\n".join(found)


@pytest.fixture(autouse=True)
def _no_lower_priority() -> Iterator[None]:
    """A test that lowers the priority of its own process fails: all tests that follow in that
    process, and what they start, would wait for every other program."""
    before = _priority()
    yield
    policy, niceness = after = _priority()
    if after != before:
        with contextlib.suppress(OSError):  # only root raises it again
            os.sched_setscheduler(0, before[0], os.sched_param(0))
            os.nice(before[1] - niceness)
    assert after == before, f"the scheduler is {policy}, and the niceness {niceness}"


def _priority() -> tuple[int, int]:
    """Return the scheduling policy of this process, where there are several, and its niceness."""
    policy = os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else 0
    return policy, os.getpriority(os.PRIO_PROCESS, 0)


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder for lakes, in memory where there is room, gone after the test.

    On a busy disk syncing would be most of a test.
    """
    path = tempfile.mkdtemp(prefix="lakelog-", dir=memory())
    yield Path(path)
    for helper in sealer_process._started:
        helper.wait()  # or it would make files while they are removed
    _remove(path)


def _remove(path: str) -> None:
    """Remove a folder, in which helpers of processes that a test ended may still be at work."""
    until = time.monotonic() + 60
    while os.path.exists(path):
        try:
            shutil.rmtree(path)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


@pytest.fixture
def make_lake(home: Path, request: pytest.FixtureRequest) -> Iterator[MakeLake]:
    """Open lakes by name, with settings as keywords; two of one name are two handles on it."""
    lakes: list[lakelog.Lake] = []

    def make(name: str = "lake", *, branch: str = "main", **given: object) -> lakelog.Lake:
        chosen = {"seal": "never", **given}
        lakes.append(lakelog.open(str(home / name), branch=branch, settings=chosen))
        return lakes[-1]

    yield make
    for lake in lakes:
        lake.close()
    if request.node.get_closest_marker("damaged"):
        return
    for path in sorted({lake.path for lake in lakes}):
        with lakelog.open(path, create=False) as again:
            assert again.verify().problems == ()


@pytest.fixture
def long_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests have files of their own, as those that are too long for their moves have."""
    monkeypatch.setattr(manifests, "CARRIED_MAX", 0)


@pytest.fixture
def lake(make_lake: MakeLake) -> lakelog.Lake:
    """A new, empty lake."""
    return make_lake()


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database for the module, as the lake opens it."""
    with duckdb.connect(":memory:", config={"threads": "1"}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection
