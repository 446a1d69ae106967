"""The tables of the older event store have what lakelog learnt, and so have alerts and search."""

from __future__ import annotations

import datetime

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.anomalies import AnomalyFinding, Incident, finding_events
from lakelog.cli import cli
from lakelog.compat import omega
from tests.conftest import MakeLake
from tests.support import log_days
from tests.support.log_days import DAY, SPAN, START, days, during

BEGIN = datetime.datetime(2026, 6, 6, tzinfo=datetime.UTC)


def run(lake: lakelog.Lake, *words: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, ["--lake", lake.path, *words])
    assert result.exit_code == code, result.output
    return result.stdout + result.stderr


@pytest.fixture
def lake(make_lake: MakeLake) -> lakelog.Lake:
    lake = make_lake()
    old, now = BEGIN, BEGIN + datetime.timedelta(days=3)
    lake.append(
        [
            {"type": "log", "source": "db", "time": old, "message": "starting up"},
            *(
                {"type": "log", "source": "web", "time": now, "message": f"took {n} ms"}
                for n in range(4)
            ),
        ]
    )
    return lake


def test_recorded_templates_are_patterns_of_the_older_store(lake: lakelog.Lake) -> None:
    for _ in range(2):
        run(lake, "patterns", "--record", "--json")
    rows = lake.sql(
        "SELECT pattern_type, confidence, embryo_id, pattern_data::JSON->>'$.count'"
        " FROM omega.patterns ORDER BY confidence"
    ).fetchall()
    ids = dict(lake.sql("SELECT template, pattern_id FROM patterns").fetchall())
    assert rows == [
        ("template", 0.0, ids["starting up"], "1"),
        ("template", 0.75, ids["took <*>"], "4"),
    ]
    learning = omega.learning(lake)
    # One template had a message on the last day, and three in four of its messages repeat it.
    assert (learning["active_embryos"], learning["avg_fitness"]) == (1, 0.75)
    counts = lake.sql("SELECT total_events, storage_mb > 0 FROM omega.system_stats").fetchall()
    assert counts[0] == (5, True)


def test_a_clock_that_was_ahead_does_not_date_the_statistics(lake: lakelog.Lake) -> None:
    """Those of a lake with one event of the future are as of the others."""
    query = (
        "SELECT time, (data->>'active_embryos')::INT, (data->>'events_per_second')::DOUBLE * 3600"
        " FROM events WHERE type = 'SYSTEM_STATS' ORDER BY seq"
    )
    run(lake, "patterns", "--record")
    lake.append({"type": "log", "source": "web", "time": "2999-01-01", "message": "took 5 ms"})
    run(lake, "patterns", "--record")
    now = BEGIN + datetime.timedelta(days=3)
    assert lake.sql(query).fetchall() == [(now, 1, 4.0)] * 2


def test_what_was_recorded_is_no_pattern_itself(lake: lakelog.Lake) -> None:
    before = lake.sql("SELECT template, count FROM patterns ORDER BY 1").fetchall()
    run(lake, "patterns", "--record")
    assert lake.sql("SELECT template, count FROM patterns ORDER BY 1").fetchall() == before


def test_an_anomaly_is_a_pattern_of_the_older_store_and_is_searched(lake: lakelog.Lake) -> None:
    start = int(BEGIN.timestamp() * 1e6)
    finding = AnomalyFinding(
        "rate", "errors of web", start, start + 1, 0.1, 9.0, 5.0, "SELECT 1", start
    )
    lake.append(finding_events([Incident((finding,))]))
    ((kind, confidence, data),) = lake.sql(
        "SELECT pattern_type, confidence, pattern_data->>'$.series' FROM omega.patterns"
    ).fetchall()
    assert (kind, data) == ("anomaly", "errors of web")
    assert 0.99999 < confidence < 1
    assert len(lake.search("type:ANOMALY errors")) == 1


@pytest.mark.parametrize("is_younger", [False, True], ids=["a state before", "a younger lake"])
def test_the_state_before_an_incident_is_tagged(make_lake: MakeLake, is_younger: bool) -> None:
    lake = make_lake()
    lake.append({"type": "log", "time": START - 9 * DAY})
    lake.settle()
    # At a whole quarter of an hour: where these days are cut elsewhere, chance may raise one more.
    now = datetime.datetime.now(datetime.UTC).timestamp() // SPAN * SPAN
    shift = -8 * DAY if is_younger else now + 3_600 - START - log_days.BEGIN * SPAN
    events = days(6, during(log_days.BEGIN, {"errors": 6}))
    lake.append([{**event, "time": event["time"] + shift} for event in events])
    for _ in range(2):
        said = run(lake, "anomalies", "--every", "15m", "--tag")
        assert ("the lake is younger" in said) == is_younger
        assert [t.name[:7] for t in lake.tags()] == ([] if is_younger else ["before-"])
