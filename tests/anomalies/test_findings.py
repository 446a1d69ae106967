"""What was unusual in a lake: planted incidents are found, each with its query."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

import lakelog
from lakelog.anomalies import AnomalyFinding, Incident, finding_records, incidents
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
    assert begin - 120 <= finding.start_us / 1e6 <= begin + SPAN
    events = lake.sql(f"SELECT count(*) FROM ({finding.query})").fetchone()
    assert events is not None
    assert (events[0] > 0) is (change not in ({"requests": 0}, {"ends": False}))
    assert finding.observed == pytest.approx(_shown(lake, finding))


def _shown(lake: Any, finding: AnomalyFinding) -> float:
    """What the events that the query of a finding shows come to."""
    number = "count(*)"
    if finding.aspect == "value":
        number = f"exp(avg(ln((data->>'{finding.series.split()[0]}')::DOUBLE)))"
    ((answer,),) = lake.sql(f"SELECT {number} FROM ({finding.query})").fetchall()
    return float(answer)


def test_the_figures_of_a_finding_are_those_of_its_query(make_lake: MakeLake) -> None:
    """Also where it goes on for hours, and what was expected is of as long."""
    lake = make_lake()
    lake.append(days(6, during(BEGIN, {"requests": 150, "ms": 300.0}, length=8)))
    findings = [f for i in seen(lake) for f in i.findings if f.aspect in ("rate", "value")]
    assert {f.aspect for f in findings} == {"rate", "value"}
    assert max(f.end_us - f.start_us for f in findings) >= 3_600_000_000
    for finding in findings:
        assert finding.observed == pytest.approx(_shown(lake, finding)), finding
        if finding.deviations > 0 and finding.aspect == "rate":
            # Four times as many as usual, which differs by time of day.
            assert 1.5 < finding.observed / finding.expected < 12, finding


@pytest.mark.parametrize("since", ["30d", "999999999d", "1990-01-01"])
def test_a_lake_that_is_younger_is_looked_at_from_its_beginning(
    make_lake: MakeLake, since: str
) -> None:
    lake = make_lake()
    lake.append(days(6, during(BEGIN, {"requests": 150})))
    begin = datetime.datetime.fromtimestamp(START, datetime.UTC).isoformat()
    found = seen(lake, since=since)
    assert found == seen(lake, since=begin)
    assert any(
        f.start_us >= (START + BEGIN * SPAN - 120) * 10**6 for i in found for f in i.findings
    )


def test_measures_of_which_none_comes_twice_are_looked_at(make_lake: MakeLake) -> None:
    """Seconds as a clock gives them are all different, as numbers of requests are."""
    lake, dice = make_lake(), random.Random(4)
    lake.append(
        {
            "type": "call",
            "time": START + n * 60,
            "data": {"s": dice.gauss(1, 0.05) * (1 + 2 * (n > 8_000)), "number": 10_000_000 + n},
        }
        for n in range(8_100)
    )
    found = {f.series for i in incidents(lake) for f in i.findings}
    assert found == {"s of call of no source"}


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
    misspelt = CliRunner().invoke(cli, [*options, "--until", "yesterday"])
    assert "--until is a time such as" in misspelt.stderr
    refused = CliRunner().invoke(cli, [*options, "--record", "--at", "main"])
    assert "--record and --at do not go together" in refused.stderr


def test_a_clock_that_was_ahead_hides_no_incident(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append(days(6, during(BEGIN, {"errors": 6})))
    lake.append({"type": "request", "source": "web", "time": "2999-01-01T00:00:00Z"})
    assert [f.series for i in seen(lake) for f in i.findings][:1] == ["error of web"]


def test_a_clock_that_was_in_1970_hides_no_incident(make_lake: MakeLake) -> None:
    """Before the first event of the days that teach nothing was usual, and not none at all."""
    events, lakes = days(6, during(BEGIN, {"requests": 0})), (make_lake("a"), make_lake("b"))
    for lake in lakes:
        lake.append(events)
    lakes[1].append({"type": "request", "source": "web", "time": "1970-01-01T00:00:00Z"})
    assert finding_records(seen(lakes[0]))
    assert finding_records(seen(lakes[1])) == finding_records(seen(lakes[0]))


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


def test_a_steady_source_is_not_silent_beside_many_busier_ones(make_lake: MakeLake) -> None:
    """More new sources than there are series: its minutes are counted all the same."""
    half_minutes = np.arange(5 * 2880, dtype=np.int64)
    times = START * 1_000_000 + half_minutes * 30_000_000
    newest = times[-1600:]  # in less than a day more than a minute each of it
    names = [f"new{n}" for n in range(SERIES_MAX + 5)]
    lake = make_lake()
    for source, moments in (("steady", times[::2]), *((name, newest) for name in names)):
        size = len(moments)
        columns = {"type": ["beat"] * size, "source": [source] * size, "time": pa.array(moments)}
        lake.append(pa.table(columns))
    found = [f.series for incident in incidents(lake) for f in incident.findings]
    assert [name for name in found if "steady" in name] == []


def known(found: list[Incident]) -> set[tuple[str, int, int]]:
    return {(f.series, f.start_us, f.raised_us) for i in found for f in i.findings}


def test_nothing_is_known_before_it_is_raised(make_lake: MakeLake) -> None:
    """What a look at an earlier time finds is what was raised until then, and stays so."""
    lake = make_lake()
    lake.append(days(6, during(BEGIN, {"requests": 150, "ms": 90.0, "errors": 6})))
    later = known(seen(lake))
    assert {series for series, _, _ in later} >= {"request of web", "ms of request of web"}
    for quarters in (1, 2, 4):
        until = (START + (BEGIN + quarters) * SPAN) * 1_000_000
        moment = datetime.datetime.fromtimestamp(until / 1e6, datetime.UTC).isoformat()
        earlier = known(seen(lake, until=moment, since="2026-06-02T12:00:00Z"))
        rates = {e for e in later if e[2] <= until and not e[0].startswith("error")}
        assert rates <= earlier
        # Only what the name of a series is depends on the others that there are.
        names = {series for series, _, _ in later} | {"errors of web"}
        assert {series for series, _, _ in earlier} <= names


def hours_of(count: int, is_on: Callable[[int], bool], every: int = 60) -> list[dict[str, Any]]:
    """A beat each so many seconds, in the hours in which there is one."""
    return [
        {"type": "beat", "source": "shop", "time": START + n, "message": "open"}
        for n in range(0, count * 3_600, every)
        if is_on(n // 3_600)
    ]


def test_a_source_that_is_silent_each_night_is_known_for_it(make_lake: MakeLake) -> None:
    lake = make_lake()
    by_day = hours_of(7 * 24, lambda hour: 8 <= hour % 24 < 20)
    lake.append([*by_day, {"type": "clock", "time": START + 7 * DAY}])
    assert incidents(lake, since="3d") == []
    silent = make_lake("silent")
    noon = 6 * 24 + 12
    lost = hours_of(7 * 24, lambda hour: 8 <= hour % 24 < 20 and hour != noon)
    silent.append([*lost, {"type": "clock", "time": START + 7 * DAY}])
    (incident,) = incidents(silent, since="3d")
    finding = incident.findings[0]
    assert finding.series == "beat of shop"
    assert 0 <= finding.raised_us / 1e6 - (START + noon * 3_600) <= 600


def by_chance(a_minute: float, until: float) -> list[dict[str, Any]]:
    """Events that come by chance, as many a minute."""
    dice, events, moment = random.Random(4), [], float(START)
    while moment < until:
        events.append({"type": "call", "source": "shop", "time": moment})
        moment += dice.expovariate(a_minute / 60)
    return events


def test_a_silence_is_known_from_the_last_event_on(make_lake: MakeLake) -> None:
    """Ten events are missing after as many minutes: no whole span of time has to pass."""
    lake = make_lake()
    lake.append([*by_chance(1.0, START + 4.6 * DAY), {"type": "clock", "time": START + 5 * DAY}])
    last = lake.sql("SELECT epoch_us(max(time)) FROM events WHERE type = 'call'").fetchone()
    assert last is not None
    found = [f for i in incidents(lake, since="12h", false_alarms=0.1) for f in i.findings]
    assert [f.series for f in found] == ["call of shop"]
    assert found[0].start_us == last[0] + 1
    assert 540 <= (found[0].raised_us - last[0]) / 1e6 <= 750


def test_a_source_that_often_is_silent_may_be_so(make_lake: MakeLake) -> None:
    """Half an hour without an event, some times a day: not what chance would leave out."""
    lake, dice = make_lake(), random.Random(5)
    gaps = [START + dice.uniform(0, 6) * DAY for _ in range(40)]
    lake.append(
        [
            event
            for event in by_chance(2.0, START + 6 * DAY)
            if not any(gap <= event["time"] < gap + 1_800 for gap in gaps)
        ]
    )
    assert len(incidents(lake, since="2d")) <= 1


def jobs(count: int, lost: range) -> list[dict[str, Any]]:
    """Jobs that take from one to four minutes, but for those that never end."""
    dice, events = random.Random(2), []
    for number in range(count):
        begin = START + number * 600
        ids = {"source": "jobs", "subject": f"job{number}"}
        events.append({"type": "begin", "time": begin, **ids})
        if number not in lost:
            events.append({"type": "done", "time": begin + dice.uniform(60, 240), **ids})
    return events


def test_a_job_that_does_not_end_is_missed_when_it_is_late(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append([*jobs(300, range(200, 201)), {"type": "clock", "time": START + 2.09 * DAY}])
    (finding,) = (f for i in incidents(lake, since="2d") for f in i.findings)
    begin = START + 200 * 600
    assert (finding.aspect, finding.series) == ("sequence", "end after begin of jobs")
    assert 240 <= finding.raised_us / 1e6 - begin <= 360
    assert lake.sql(f"SELECT subject FROM ({finding.query})").fetchall() == [("job200",)]


def test_what_ends_seldom_is_no_pair(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append([*jobs(300, range(0, 300, 9)), {"type": "clock", "time": START + 2.09 * DAY}])
    assert [f for i in incidents(lake, since="2d") for f in i.findings] == []


def test_a_slow_creep_is_found_on_its_way(make_lake: MakeLake) -> None:
    """Two hours up to three times: known before it has doubled."""
    lake = make_lake()

    def creeping(quarter: int) -> dict[str, Any]:
        return {"ms": 30.0 * (1 + max(0, min(quarter - BEGIN, 8)) / 4)}

    lake.append(days(6, creeping))
    raised = [
        f.raised_us / 1e6 - (START + BEGIN * SPAN)
        for i in seen(lake)
        for f in i.findings
        if f.series == "ms of request of web"
    ]
    assert raised
    assert 0 < min(raised) <= 4 * SPAN


def test_false_alarms_are_settable(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append(days(6, during(BEGIN, {"requests": 42})))
    counts = [len(seen(lake, since="4d", false_alarms=n)) for n in (0.01, 1.0, 100.0)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    for odd in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidSetting, match="false alarms a day"):
            seen(lake, false_alarms=odd)


def test_names_may_have_any_sign_and_fields_be_members(make_lake: MakeLake) -> None:
    """As in spans of OpenTelemetry, and where words of SQL, paths and our own queries are names."""
    lake, dice = make_lake(), random.Random(6)
    names = ["", "\0", "$ref", "/x", 'q"q', "\\", "*", "a[0]", "$data", "'"]
    lake.append(
        {
            "type": "$data",
            "source": "'$start",
            "time": START + n * 60,
            "message": f"no $data at '$end' {n}" if n < 8_000 else f"new $failing of $data {n}",
            "data": {
                "attributes": {"gen_ai.usage.cost": round(dice.gauss(1, 0.05), 3) * (1 + n // 8e3)},
                **dict.fromkeys(names, n),
            },
        }
        for n in range(8_100)
    )
    begin_us = (START + 8_000 * 60) * 10**6
    found = [f for i in incidents(lake) for f in i.findings if f.start_us >= begin_us]
    assert [(f.aspect, f.series) for f in found] == [
        ("value", "attributes.gen_ai.usage.cost of $data of '$start"),
        ("pattern", "new $failing of $data <*>"),
    ]
    for finding in found:
        assert lake.sql(f"SELECT count(*) FROM ({finding.query})").fetchone() in [(95,), (100,)]
