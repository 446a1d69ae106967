"""Findings are events: alerts, search, SQL and training sets have them, and analyses do not."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import lakelog
from lakelog import train
from lakelog.anomalies import incidents
from lakelog.cli import cli
from lakelog.forecasts import metric_series
from tests.support import lakes, protected
from tests.support.log_days import BEGIN, days, during


def recorded_findings(path: str) -> None:
    with lakelog.open(path, settings={"seal": "never"}) as lake:
        lake.append(days(4, during(BEGIN - 2 * 96, {"requests": 150, "errors": 6})))
    for verb in (["anomalies", "--every", "15m"], ["patterns"]):
        assert run(Path(path), *verb, "--record") is not None


@pytest.fixture
def path(home: Path) -> Path:
    return Path(lakes.copied(recorded_findings, home))


def run(path: Path, *arguments: str) -> str:
    answer = CliRunner().invoke(cli, ["--lake", str(path), *arguments])
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def test_alerts_search_sql_and_training_sets_have_them(path: Path) -> None:
    question = "SELECT data->>'series' AS series, count(*) AS value FROM events"
    run(path, "alerts", "add", "odd", f"{question} WHERE type = 'ANOMALY' GROUP BY ALL")
    run(path, "alerts", "run", "--once")
    (rule,) = json.loads(run(path, "alerts", "list", "--json"))
    with lakelog.open(path) as lake:
        series = "SELECT count(DISTINCT data->>'series') FROM events WHERE type = 'ANOMALY'"
        assert (rule["firing"],) == lake.sql(series).fetchone() >= (2,)
        by_words = lake.search('"request of web"', limit=1).fetchall()
        assert "request of web" in str(by_words)
        found = lake.search("type:ANOMALY").fetchall()
        recorded = lake.sql("SELECT count(*) FROM events WHERE type = 'ANOMALY'").fetchone()
        assert (len(found),) == recorded
        (templates,) = lake.sql(
            "SELECT count(*) FROM events WHERE type = 'PATTERN_DETECTED'"
        ).fetchall()[0]
        assert templates == lake.sql("SELECT count(*) FROM patterns").fetchall()[0][0]
        recipe = {
            "name": "findings",
            "select": {"sql": "SELECT * FROM events WHERE type IN ('ANOMALY', 'PATTERN_DETECTED')"},
            "shape": {"kind": "events"},
            "split": {"train": 1.0, "validation": 0.0, "test": 0.0},
        }
        exported = train.export(lake, recipe, str(path.parent / "set"))
        assert sum(exported.rows.values()) == templates + len(found)


def test_findings_are_not_forecast(path: Path) -> None:
    """The number of events is that of what was observed, unless a type of findings is asked for."""
    with lakelog.open(path) as lake:
        events = metric_series(lake, "events", 3_600_000_000)
        # The last span is not over, and has no place.
        ((observed,),) = lake.sql(
            "SELECT count(*) FROM events WHERE NOT starts_with(source, 'lakelog ')"
            f" AND epoch_us(time) < {events.end_us}"
        ).fetchall()
        assert events.values.sum() == observed
        assert metric_series(lake, "PATTERN_DETECTED", 3_600_000_000).values.sum() > 0


def test_what_is_recorded_now_hides_nothing_of_an_old_log(path: Path) -> None:
    """Times before the newest event are those before the newest that was observed."""
    late = "2026-10-01T00:00:00Z"
    with lakelog.open(path) as lake:
        lake.append({"type": "PATTERN_DETECTED", "source": "lakelog patterns", "time": late})
        found = incidents(lake, every="15m")
    assert "request of web" in {f.series for incident in found for f in incident.findings}


def test_findings_that_are_kept_are_without_protected_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their figures, and the messages of their tags, stay when keys are destroyed."""
    begin = datetime.datetime(2026, 9, 1, tzinfo=datetime.UTC)
    with protected.create(tmp_path / "lake", monkeypatch) as lake:
        lake.protect(["salary"])
        lake.append(
            {
                "type": "PAID",
                "subject": f"s{n}",
                "time": begin + n * datetime.timedelta(minutes=2),
                "data": {"salary": (900 if n > 2_950 else 10) + n % 25},
            }
            for n in range(3_000)
        )
    assert "salary of PAID" in run(tmp_path / "lake", "anomalies")
    for option in ("--record", "--tag"):
        assert "salary" not in run(tmp_path / "lake", "anomalies", option)
    with lakelog.open(tmp_path / "lake") as lake:
        assert lake.sql("FROM events WHERE type = 'ANOMALY'").fetchall() == []
        assert lake.tags() == []


def test_templates_are_recorded_as_they_are_in_the_lake(tmp_path: Path) -> None:
    """Whatever messages are listed: each is recorded once, and so are the statistics of a state."""
    with lakelog.open(tmp_path / "lake") as lake:
        boot = {"type": "log", "source": "a", "message": "boot done"}
        lake.append([boot, {**boot, "source": "b"}, {**boot, "message": "disk full"}])
    words = ["--lake", str(tmp_path / "lake"), "patterns", "--source", "b", "--record"]
    assert CliRunner().invoke(cli, words).exit_code == 0
    with lakelog.open(tmp_path / "lake") as lake:
        query = "SELECT data FROM events WHERE source = 'lakelog patterns' ORDER BY type"
        template, statistics = (json.loads(data) for (data,) in lake.sql(query).fetchall())
    assert (template["pattern"], template["pattern_data"]["count"]) == ("boot done", 2)
    assert (statistics["active_embryos"], statistics["total_events"]) == (2, 3)
