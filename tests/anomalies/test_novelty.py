"""Scores of a series: unusual values stand out, each is scored by what came before it alone."""

from __future__ import annotations

import csv
import datetime
import math
import random
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lakelog.anomalies import THRESHOLD, NoveltyDetector
from lakelog.anomalies.novelty import LEADERS_MAX
from lakelog.cli import cli
from tests.support.tree import SHARED

MINUTE = 60_000_000


def scores(values: list[float], step: int = 5 * MINUTE) -> list[float]:
    detector = NoveltyDetector()
    return [detector.score(n * step, value) for n, value in enumerate(values)]


def daily(days: int, noise: float = 0.05) -> list[float]:
    """A series by five minutes that goes up and down each day."""
    dice = random.Random(3)
    return [10 + math.sin(n / 288 * 2 * math.pi) + dice.gauss(0, noise) for n in range(288 * days)]


def test_a_value_that_never_was_stands_out() -> None:
    values = daily(10)
    values[2_000] = 20.0
    found = scores(values)
    assert found[2_000] == max(found[300:]) >= THRESHOLD
    assert sum(score >= THRESHOLD for score in found[300:2_000]) <= 2


def test_a_usual_value_at_an_unusual_time_stands_out() -> None:
    values = daily(10)
    values[2_376:2_382] = [9.1] * 6  # in the hours of the highest values
    found = scores(values)
    assert max(found[2_376:2_382]) == max(found[864:]) > 0.7


def test_a_score_depends_on_what_came_before_it_alone() -> None:
    values = daily(4)
    whole = scores(values)
    for end in (1, 50, 700):
        assert scores(values[:end]) == whole[:end]


@pytest.mark.parametrize(
    "values",
    [[], [1.0], [7.0] * 500, [math.nan, 1.0, math.inf, -math.inf], [1e308, -1e308, 0.0, 1e-320]],
    ids=["none", "one", "constant", "no number", "extreme"],
)
def test_odd_series(values: list[float]) -> None:
    found = scores(values)
    assert len(found) == len(values)
    assert all(0 <= score <= 1 for score in found)
    assert sum(score > 0 for score in found[2:]) <= 1


def test_clocks_that_jump_and_ever_new_values_are_bounded() -> None:
    detector = NoveltyDetector()
    for n in range(LEADERS_MAX + 200):
        assert 0 <= detector.score((-1) ** n * n * 10**12, 2.0 ** (n % 1000)) <= 1
    assert detector._values._size <= LEADERS_MAX


def run(*arguments: str, text: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["anomalies", "score", *arguments], input=text)


def test_a_file_gets_a_column(tmp_path: Path) -> None:
    start = datetime.datetime(2026, 11, 1)
    rows = [
        f"{start + datetime.timedelta(minutes=5 * n)},{value},x{n}\n"
        for n, value in enumerate([*daily(3), 40.0])
    ]
    series, out = tmp_path / "in.csv", tmp_path / "out.csv"
    series.write_text("timestamp,value,note\n" + "".join(rows))
    done = run(str(series), "-o", str(out))
    assert done.exit_code == 0
    assert "scored 865 rows" in done.stderr
    with out.open() as file:
        scored = list(csv.DictReader(file))
    assert list(scored[0]) == ["timestamp", "value", "note", "anomaly_score"]
    assert [row["note"] for row in scored] == [f"x{n}" for n in range(865)]
    assert float(scored[-1]["anomaly_score"]) >= THRESHOLD
    assert run("-", text=series.read_text()).stdout == out.read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no column timestamp: it has none"),
        ("time,value\n", "has no column timestamp: it has time, value"),
        ("timestamp,value\n2026-01-01,x\n", "line 2: could not convert string to float: 'x'"),
        ("timestamp,value\nyesterday?,1\n", "line 2: "),
        ("timestamp,value\n\n2026-01-01,1\n2026-01-02,x\n", "line 4: could not convert"),
        ("timestamp,value\n2026-01-01,1,5\n", "line 2: more cells than columns"),
        (b"timestamp,value\n2026-01-01,\xff\n", "- is no CSV in UTF-8: invalid start byte"),
        ("timestamp,value\n2026-01-01," + "1" * 200_000, "- is no CSV in UTF-8: field larger"),
    ],
    ids=(
        *("empty", "no such column", "no number", "no time"),
        *("blank line", "more cells", "other encoding", "huge cell"),
    ),
)
def test_a_series_that_cannot_be_read(tmp_path: Path, text: str | bytes, said: str) -> None:
    out = tmp_path / "out.csv"
    done = run("-", "-o", str(out), text=text)
    assert done.exit_code != 0
    assert done.stderr.startswith("lakelog: error: ")
    assert said in done.stderr
    assert "LAKELOG_DEBUG" not in done.stderr
    assert not out.exists()


def test_a_scored_series_is_scored_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scores are replaced; `-` is the standard output, and no file of this name."""
    monkeypatch.chdir(tmp_path)
    text = "timestamp,value,anomaly_score\n2026-01-01,1,0.9\n2026-01-02,,0.9\n"
    done = run("-", "-o", "-", text=text)
    assert done.stdout.split() == [
        "timestamp,value,anomaly_score",
        "2026-01-01,1,0",
        "2026-01-02,,0",
    ]
    assert not list(tmp_path.iterdir())


def test_a_missing_value_is_no_finding() -> None:
    text = "timestamp,value\n2026-01-01,1\n2026-01-02,\n2026-01-03,nan\n2026-01-04,1\n"
    assert [line.split(",")[-1] for line in run("-", text=text).stdout.split()[2:]] == ["0"] * 3


@pytest.mark.needs("../shared")
def test_known_anomalies_of_real_series_are_found() -> None:
    """Of machines whose failures are known, by the threshold that is told to users."""
    with Path(SHARED, "nab/realKnownCause/ec2_request_latency_system_failure.csv").open() as file:
        rows = list(csv.DictReader(file))
    detector = NoveltyDetector()
    found = [
        row["timestamp"][:10]
        for row in rows
        if detector.score(
            int(datetime.datetime.fromisoformat(row["timestamp"]).timestamp()) * 10**6,
            float(row["value"]),
        )
        >= THRESHOLD
    ]
    assert {"2014-03-14", "2014-03-18", "2014-03-21"} & set(found), found
    assert len(found) <= 8
