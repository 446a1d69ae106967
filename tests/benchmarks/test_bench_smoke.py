"""The benchmarks run: the cheapest ones once, with tiny sizes. Nothing here asserts a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import (
    append,
    claims,
    dedupe,
    history,
    ingest,
    loggers,
    measure,
    older,
    report,
    seal,
    streams,
    views,
)
from benchmarks.report import Row, Target


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the benchmarks keep their lakes in the test's own directory."""
    monkeypatch.setattr(measure, "WORK", tmp_path / "work")
    return tmp_path


@pytest.mark.matrix
@pytest.mark.parametrize(
    "benchmark",
    [
        append.batched,
        append.single,
        streams.expected,
        streams.recorders,
        history.rewinds,
        ingest.rate,
        seal.identities,
        dedupe.rows,
        older.lookups,
        older.memory,
    ],
)
def test_a_benchmark_gives_rows_with_figures(benchmark: object) -> None:
    """Each row of a tiny run has figures above zero, and the table of them fits 80 columns."""
    rows = benchmark(measure.TINY)
    assert all(min(row.ours) > 0 for row in rows)
    assert max(map(len, report.plain(rows).splitlines())) <= 80


def test_every_benchmark_is_listed_by_name() -> None:
    """`make bench` starts: nothing that any of the benchmarks imports has moved away."""
    command = [sys.executable, "-m", "benchmarks", "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(name in printed for name in ("recorders", "redis", "sync"))


@pytest.mark.thorough
def test_the_benchmarks_of_loggers_run() -> None:
    """Handlers and loggers are timed, and the lake has each line that was logged."""
    rows = [*loggers.handlers(measure.TINY), *loggers.logger(measure.TINY)]
    assert all(row.ours for row in rows)
    assert max(map(len, report.plain(rows).splitlines())) <= 80


@pytest.mark.thorough
def test_the_table_of_claims_runs() -> None:
    """Each claim has what was seen beside it, and events that are not stored are no figure."""
    rows = claims.claims(measure.TINY)
    assert all(row.ours for row in rows)
    assert sum(row.target is not None for row in rows) >= 15
    assert max(map(len, report.plain(rows).splitlines())) <= 80


@pytest.mark.thorough
def test_the_benchmarks_of_views_run(work: Path) -> None:
    """Views are timed and compared, and readers beside writers count no event wrong."""
    rows = [*views.speed(measure.TINY, ["status", "rates"]), *views.beside(measure.TINY)]
    assert [row.ours for row in rows if row.what.endswith("wrong")] == [[0]]
    assert max(map(len, report.plain(rows).splitlines())) <= 80


def test_a_target_is_judged_on_what_it_names() -> None:
    """A limit holds for the ratio, the figure or the excess over the peer, as the row says."""
    assert Row("rate", "ev/s", [30.0], [10.0], Target(">=", 3)).holds
    assert not Row("time", "ms", [30.0], [10.0], Target("<=", 10, "figure")).holds
    assert Row("start", "ms", [30.0], [10.0], Target("<=", 20, "excess")).holds
    assert Row("no peer", "ms", [30.0]).holds is None


def test_rounds_are_kept_as_json(tmp_path: Path) -> None:
    """The file holds every round of every row and the machine."""
    report.save([Row("rate", "ev/s", [1.0, 2.0, 3.0], [1.0, 1.0, 1.0])], tmp_path / "r.json")
    saved = json.loads((tmp_path / "r.json").read_text())
    assert saved["rows"][0]["lakelog"] == [1.0, 2.0, 3.0]
    assert saved["rows"][0]["ratio"] == 2.0
    assert saved["machine"]["cores"] >= 1
