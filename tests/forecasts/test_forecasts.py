"""Forecasts: never worse than the day before by its own measure, honest intervals, limits."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import lakelog
from lakelog.cli import cli
from lakelog.errors import InvalidSetting
from lakelog.forecasts import forecast, metric_series, time_to_limit
from lakelog.forecasts.metrics import SPANS_MAX
from tests.conftest import MakeLake

START, HOUR, DAY = 1_780_012_800, 3_600, 86_400


def daily(days: int, seed: int = 1, noise: float = 1.0) -> np.ndarray:
    dice = np.random.default_rng(seed)
    hours = np.arange(24 * days)
    return 20 + 8 * np.sin(hours / 24 * 2 * np.pi) + dice.normal(0, noise, len(hours))


def test_a_noisy_day_is_better_told_by_many_days() -> None:
    series = daily(20)
    result = forecast(series[:-24], 24, 24)
    assert result.error < 0.95 * result.naive_error
    assert (
        np.abs(result.values - series[-24:]).mean() < np.abs(series[-48:-24] - series[-24:]).mean()
    )


def test_without_a_better_model_it_is_the_day_before() -> None:
    series = np.tile(np.random.default_rng(2).normal(size=24), 9)
    result = forecast(series, 24, 30)
    assert result.model == "seasonal naive"
    assert np.allclose(result.values, np.tile(series[:24], 2)[:30])
    assert np.allclose(result.low, result.high)


def test_intervals_hold_nine_in_ten() -> None:
    held = []
    for seed in range(40):
        series = daily(24, seed, noise=2.0)
        result = forecast(series[:-24], 24, 24)
        held.append(((result.low <= series[-24:]) & (series[-24:] <= result.high)).mean())
    assert 0.87 <= np.mean(held) <= 0.95


@pytest.mark.parametrize(
    ("series", "season", "horizon"),
    [
        (np.zeros(10), 24, 24),
        (np.zeros(0), 24, 1),
        (np.full(200, np.nan), 24, 24),
        (np.resize([1.7e308, -1.7e308], 200), 24, 24),
        (np.zeros(200), 24, 0),
    ],
    ids=["short", "none", "no numbers", "too large", "no horizon"],
)
def test_what_cannot_be_told(series: np.ndarray, season: int, horizon: int) -> None:
    with pytest.raises(InvalidSetting):
        forecast(series, season, horizon)


def test_there_are_no_fewer_events_than_none() -> None:
    rare = np.random.default_rng(0).poisson(0.3, 480).astype(float)
    assert forecast(rare, 24, 24).low.min() < 0
    for series in (rare, 300 - np.arange(299.0)):
        result = forecast(series, 24, 24, lower_bound=0)
        assert min(result.values.min(), result.low.min()) == 0


@pytest.mark.parametrize("limit", [math.nan, math.inf, -math.inf])
def test_a_limit_is_a_number(limit: float) -> None:
    with pytest.raises(InvalidSetting, match="a limit is a number"):
        time_to_limit(np.arange(20.0), limit)


def test_constant_series_stay_constant() -> None:
    result = forecast(np.full(240, 7.0), 24, 24)
    assert np.allclose(result.values, 7)
    assert np.allclose(result.high, 7)


def test_when_disks_are_full_is_told_at_half_the_way() -> None:
    """Grown by chance, with days, a jump, noise or nightly cleanups."""
    hits = 0
    for seed in range(50):
        dice = np.random.default_rng(seed)
        count = int(dice.integers(400, 2_000))
        steps = np.arange(count)
        level = np.cumsum(dice.gamma(1, 1, count) * dice.uniform(0.5, 2))
        full = level[-1]
        level = (
            level
            + (
                np.zeros(count),
                full * 0.01 * np.sin(steps / 24 * 2 * np.pi),
                np.where(steps > count * 0.2, full * 0.1, 0),
                dice.normal(0, full * 0.01, count),
                steps % 24 * full * 0.002,
            )[seed % 5]
        )
        left = count - count // 2 - 1
        told = time_to_limit(level[: count // 2], level[-1])
        hits += told.steps is not None and abs(told.steps - left) <= 0.2 * left
    assert hits >= 44


def test_a_limit_that_is_reached_now() -> None:
    """Both ends of the interval say so, too."""
    reached = time_to_limit(np.arange(20.0), 19.0)
    assert (reached.steps, reached.low, reached.high) == (0.0, 0.0, 0.0)


def test_a_limit_that_is_never_reached() -> None:
    falling = np.linspace(100, 50, 200)
    assert time_to_limit(falling, 120).steps is None
    reached = time_to_limit(falling, 0)
    assert reached.steps == pytest.approx(199, rel=0.02)
    assert reached.slope < 0
    assert time_to_limit(np.full(50, 3.0), 9).steps is None
    for odd in (np.zeros(3), np.array([math.inf] * 20)):
        with pytest.raises(InvalidSetting):
            time_to_limit(odd, 1)


def events(days: int) -> list[dict[str, object]]:
    dice = random.Random(4)
    return [
        {
            "type": "metric",
            "time": START + hour * HOUR + n * 60,
            "level": "ERROR" if n == 0 else "INFO",
            "data": {"disk": {"percent": 30 + hour * 0.1}, "load": dice.random()},
        }
        for hour in range(days * 24)
        for n in range(round(4 + 2 * math.sin(hour / 24 * 2 * math.pi)))
    ]


def test_metrics_of_a_lake(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append(events(6))
    series = metric_series(lake, "events", HOUR * 10**6)
    assert len(series.values) == 6 * 24 - 1  # the last hour is not over
    assert series.start_us == START * 10**6
    assert metric_series(lake, "metric", HOUR * 10**6).values.sum() == series.values.sum()
    assert set(metric_series(lake, "errors", HOUR * 10**6).values) == {1.0}
    percent = metric_series(lake, "metric.disk.percent", HOUR * 10**6).values
    assert percent[-1] == pytest.approx(30 + 142 * 0.1)
    lake.append([{"type": "a.b", "time": START + n * HOUR, "data": {"c": 2}} for n in range(9)])
    assert set(metric_series(lake, "a.b.c", HOUR * 10**6).values) == {2.0}
    assert set(metric_series(lake, "a.b", HOUR * 10**6).values) == {1.0}
    for metric in ("nothing", "metric.nothing", "x.y"):
        with pytest.raises(InvalidSetting, match="no events for"):
            metric_series(lake, metric, HOUR * 10**6)


def test_a_clock_that_was_in_1970_once_hides_no_series(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append(events(6))
    usual = metric_series(lake, "events", HOUR * 10**6)
    lake.append([{"type": "metric", "time": second} for second in (-1_800, 1_800)])
    series = metric_series(lake, "events", HOUR * 10**6)
    assert (series.start_us, [*series.values]) == (usual.start_us, [*usual.values])
    assert len(metric_series(lake, "events", 10**6).values) <= SPANS_MAX
    # What is before 1970 is a span of its own.
    early = make_lake("early")
    early.append([{"type": "metric", "time": second} for second in (-1_800, 1_800, 5_400)])
    assert [*metric_series(early, "events", HOUR * 10**6).values] == [1, 1]


def test_numbers_that_cannot_be_added_up_spoil_no_mean(make_lake: MakeLake) -> None:
    """One absurd value leaves the others of its field to be forecast."""
    lake = make_lake()
    for odd in ("NaN", "inf", 1e308, -1.7e308):
        lake.append({"type": "metric", "time": START, "data": {"n": odd}})
    lake.append([{"type": "metric", "time": START + n * HOUR, "data": {"n": n}} for n in range(9)])
    series = metric_series(lake, "metric.n", HOUR * 10**6)
    assert [*series.values] == [*range(8)]


def run(lake: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--lake", str(lake), "forecast", *arguments])


def test_a_field_may_be_in_a_member_and_have_dots(make_lake: MakeLake) -> None:
    lake = make_lake()
    data = {"attributes": {"usage.cost": 2}, "a.b": 3, "c": {"d": 4}}
    lake.append([{"type": "span", "time": n * 3_600, "data": data} for n in range(3)])
    for field, value in (("attributes.usage.cost", 2), ("a.b", 3), ("c.d", 4)):
        series = metric_series(lake, f"span.{field}", 3_600_000_000)
        assert series.values.tolist() == [value] * 2
    lake.append({"type": "span", "data": {"text": "slow"}})
    with pytest.raises(InvalidSetting, match=r"no events for 'span\.text' with a number there: "):
        metric_series(lake, "span.text", 3_600_000_000)
    for metric in ("span.", "span.c.", "span..d", "."):
        with pytest.raises(InvalidSetting, match="no events for"):
            metric_series(lake, metric, 3_600_000_000)


def test_the_verb(home: Path) -> None:
    path = home / "lake"
    with lakelog.open(path) as lake:
        lake.append(events(8))
    rows = [json.loads(line) for line in run(path, "events").stdout.splitlines()]
    assert len(rows) == 24
    assert rows[0]["time"] == "2026-06-05T23:00:00Z"
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    table = run(path, "events", "--format", "table").stdout
    back_test = f"model: {rows[0]['model']}, error {rows[0]['error']:.2f} on earlier days"
    assert back_test in table
    assert rows[0]["error"] <= rows[0]["naive_error"]
    full = json.loads(run(path, "metric.disk.percent", "--full", "60").stdout)
    assert full["time"].startswith("2026-06-1")
    assert full["growth_per_day"] == pytest.approx(2.4)
    words = run(path, "metric.disk.percent", "--full", "60", "--format", "table").stdout
    assert words.startswith("metric.disk.percent reaches 60 on 2026-06-1")
    words = run(path, "metric.disk.percent", "--full", "10", "--format", "table").stdout
    assert "does not reach 10: +2.4 a day, now " in words
    refused = run(path, "metric.disk.percent", "--full", "nan")
    assert (refused.exit_code, refused.stderr) == (
        2,
        "lakelog: error: a limit is a number, not nan\n",
    )
    assert "there are 191" in run(path, "events", "--horizon", "30d").stderr
    assert run(path, "events", "--every", "0s").exit_code == 2
