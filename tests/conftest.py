"""Lakes for tests. Each is verified, every byte, at the end of its test; `damaged` opts out."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, settings

import lakelog
from lakelog.store import manifest, sealer_process
from tests.support.effort import SECONDS, is_first, is_over, is_played, is_sampled, limit, share
from tests.support.requirements import count_by_cause, need, skip
from tests.support.scratch import memory

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
    config.addinivalue_line("markers", "damaged: the test damages its lakes; do not verify them")
    config.addinivalue_line(
        "markers",
        "needs: skips the test where one of these is missing: tests/support/requirements.py",
    )
    config.addinivalue_line(
        "markers", "rounds: repeats itself; a fifth of the times unless LAKELOG_MATRIX=all"
    )
    config.addinivalue_line(
        "markers", "matrix: many cases of one kind; a fifth of them unless LAKELOG_MATRIX=all"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Select what is run, in which order, and limit its time.

    A fifth of each matrix is played, always the same: `make torture` plays all of it.
    """
    for item in items:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(limit(item.nodeid)))
    if any("::" in given for given in config.args):
        return
    selected = [item for item in items if is_sampled(item.nodeid) and _is_played(item)]
    if len(selected) < len(items):
        chosen = set(selected)
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = sorted(selected, key=lambda item: not is_first(item.nodeid))


def _is_played(item: pytest.Item) -> bool:
    return not item.get_closest_marker("matrix") or is_played(item.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test when the given seconds are over, or when what its marks name is missing."""
    if is_over():
        skip(f"not run: {SECONDS:.0f} seconds are over (make test runs all)")
    for mark in item.iter_markers("needs"):
        need(*mark.args)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count skipped tests by what they need; a file that is skipped counts once."""
    skipped = terminalreporter.stats.get("skipped", ())
    lines = count_by_cause(report.longrepr[2] for report in skipped)
    if lines:
        terminalreporter.write_line(f"skipped {len(skipped)}:")
    for line in lines:
        terminalreporter.write_line(f"  {line}")


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
    monkeypatch.setattr(manifest, "CARRIED_MAX", 0)


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
