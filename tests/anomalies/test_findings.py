"""What was unusual in a lake: planted incidents are found, each with its query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lakelog
from lakelog.anomalies import Incident, finding_records, incidents
from lakelog.anomalies.series import SERIES_MAX, Spans, series_of
from lakelog.cli import cli
from lakelog.errors import InvalidSetting
from tests.conftest import MakeLake
from tests.support.log_days import BEGIN, DAY, SPAN, START, days, during


def seen(lake: Any, **options: Any) -> list[Incident]:
    return incidents(lake, every="15m", **options)


@pytest.mark.parametrize(
    ("change", "series", "sign"),
    [
        ({"requests": 150}, "request of web", 1),
        ({"requests": 0}, "request of web", -1),
        ({"ends": False}, "end of batch", -1),
        ({"ms": 300.0}, "ms of request of web", 1),
        ({"errors": 6}, "error of web", 1),
    ],
    ids=["burst", "silence", "missing ends", "slow", "errors"],
)
def test_an_incident_is_found_with_its_query(
    make_lake: MakeLake, change: dict[str, Any], series: str, sign: int
) -> None:
    lake = make_lake()
    lake.append(days(6, during(BEGIN, change)))
    begin = START + BEGIN * SPAN
    (incident,) = (i for i in seen(lake) if abs(i.start_us / 1e6 - begin) <= SPAN)
    finding = next(f for f in incident.findings if f.series == series)
    assert finding.deviations * sign > 4
    assert begin <= finding.start_us / 1e6 <= begin + SPAN
    events = lake.sql(f"SELECT count(*) FROM ({finding.query})").fetchone()
    assert events is not None
    assert (events[0] > 0) is (change not in ({"requests": 0}, {"ends": False}))


def test_quiet_days_have_next_to_no_findings(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append(days(8, seed=3))
    assert len(seen(lake, since="7d")) <= 2


def test_what_is_rare_is_no_finding_when_it_comes(make_lake: MakeLake) -> None:
    """One error in days without any, one odd value among few: chance, not a finding."""
    lake = make_lake()
    lake.append(days(6, during(BEGIN, {"errors": 1}, length=1)))
    rare = [
        {"type": "vote", "time": START + n * 5_000, "data": {"trust": 0.8 + n % 7 / 100}}
        for n in range(100)
    ]
    lake.append([*rare, {"type": "vote", "time": START + 5.5 * DAY, "data": {"trust": 0.1}}])
    series = {f.series for i in seen(lake) for f in i.findings}
    assert not series & {"errors of web", "error of web", "trust of vote of no source"}


def test_a_new_message_is_a_finding(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append(days(6, during(BEGIN, {"errors": 3})))
    patterns = [f for i in seen(lake) for f in i.findings if f.aspect == "pattern"]
    assert [(f.series, f.observed) for f in patterns] == [("refused by <*>", 15)]
    assert lake.sql(f"SELECT count(*) FROM ({patterns[0].query})").fetchone() == (15,)


def test_a_past_state_has_its_own_findings(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append(days(6))
    lake.tag("before")
    quiet = seen(lake)
    lake.append(days(6, during(BEGIN, {"requests": 200}), seed=2)[-3_000:])
    assert seen(lake) != quiet
    assert seen(lake.at("before")) == quiet
    lake.rollback("before")
    assert seen(lake) == quiet


@pytest.mark.parametrize(
    "events",
    [
        [],
        [{"type": "x"}],
        [{"type": "x", "time": START + n, "data": {"v": 7}} for n in range(0, 9 * DAY, 3_000)],
        [{"type": "x", "time": START * (-1) ** n, "source": f"s{n}"} for n in range(300)],
        [{"type": "x", "time": START + n, "data": {"v": "1e999"}} for n in range(100)],
    ],
    ids=["none", "one", "constant", "clocks and sources", "infinite"],
)
def test_odd_lakes_have_no_findings(make_lake: MakeLake, events: list[dict[str, Any]]) -> None:
    lake = make_lake()
    lake.append(events)
    assert incidents(lake, since="3d", every="6h") == []


def test_times_and_spans_that_are_none(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append([{"type": "x", "time": START}, {"type": "x", "time": START + 14 * DAY}])
    with pytest.raises(InvalidSetting, match="at most 20,000: --every longer ones"):
        incidents(lake, since="14d", every="1s")
    for every in ("0s", "12h", "soon"):
        with pytest.raises(InvalidSetting):
            incidents(lake, every=every)


def test_the_verb_lists_and_records_them(home: Path) -> None:
    path = home / "lake"
    with lakelog.open(path) as lake:
        lake.append(days(6, during(BEGIN, {"requests": 150})))
        rows = finding_records(seen(lake))
    options = ["--lake", str(path), "anomalies", "--every", "15m"]
    shown = CliRunner().invoke(cli, [*options, "--format", "table", "--explain"]).stdout
    assert "↑ request of web: " in shown
    assert rows[0]["query"] in shown
    for _ in range(2):
        assert CliRunner().invoke(cli, [*options, "--record"]).exit_code == 0
    with lakelog.open(path) as lake:
        recorded = lake.sql("SELECT count(*) FROM events WHERE type = 'ANOMALY'").fetchone()
        assert recorded == (len(rows),)
        assert finding_records(seen(lake)) == rows
    refused = CliRunner().invoke(cli, [*options, "--record", "--at", "main"])
    assert "--record and --at do not go together" in refused.stderr


def test_a_clock_that_was_ahead_hides_no_incident(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append(days(6, during(BEGIN, {"errors": 6})))
    lake.append({"type": "request", "source": "web", "time": "2999-01-01T00:00:00Z"})
    assert [f.series for i in seen(lake) for f in i.findings][:1] == ["error of web"]


def test_many_sources_cost_no_series_each(make_lake: MakeLake) -> None:
    """Only the frequent ones have a series, and the errors of a rare one are not lost."""
    lake = make_lake()
    lake.append(days(6, during(BEGIN, {"errors": 6})))
    lake.append(
        [
            {"type": "seen", "source": f"s{n}", "time": START + n, "level": "ERROR"}
            for n in range(3_000)
        ]
    )
    spans = Spans(START * 1_000_000, SPAN * 1_000_000, 500)
    assert len([s for s in series_of(lake, spans) if not s.field]) <= SERIES_MAX
    assert "error of web" in [f.series for i in seen(lake) for f in i.findings]
