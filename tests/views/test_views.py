"""Views that lakelog brings: their answers, at every state, by every way of asking."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import views
from lakelog.errors import InvalidView, QueryFailed
from lakelog.views import catalog
from tests.conftest import MakeLake
from tests.support import viewmodel
from tests.support.view_events import MINUTE, event, iso, rows, some
from tests.support.viewhistory import NOW, START, WIDE


@pytest.mark.matrix
@pytest.mark.parametrize("name", [*viewmodel.MODEL])
def test_a_view_is_what_plain_python_makes_of_the_events(make_lake: MakeLake, name: str) -> None:
    """Every view over segments, compacted ones and a tail equals a plain computation."""
    lake = make_lake()
    for seed in range(4):
        lake.append(some(200, seed))
        if seed < 3:
            lake.settle()
        if seed == 1:
            lake.compact()
        mine = viewmodel.given(name, views.read(lake, name, now=NOW))
        assert sorted(mine, key=str) == sorted(
            viewmodel.MODEL[name](viewmodel.events(lake)), key=str
        )


def test_a_mean_of_finite_numbers_is_finite(make_lake: MakeLake) -> None:
    """Also where their sum is not, in the tail and in segments."""
    lake = make_lake(seal="never")
    for number in (1.5e308, 1.7e308, -1.6e308, -1.7e308, 0.25, 4e-310):
        lake.append({"type": "t", "data": {"duration_ms": number}})
        lake.append({"type": "u", "data": {"duration_ms": abs(number)}})
    for _ in range(2):
        means = {r["type"]: r["mean"] for r in lake.view("percentiles").to_pylist()}
        assert means["t"] == pytest.approx(-0.1e308 / 6)
        assert means["u"] == pytest.approx(1.5e308 / 6 + 1.7e308 / 3 + 1.6e308 / 6)
        lake.settle()


def test_percentiles_and_distinct_counts_keep_their_stated_errors(make_lake: MakeLake) -> None:
    """Percentiles are within 1 % of a value that is there; distinct counts within a few 1.6 %."""
    lake = make_lake()
    pick = random.Random(3)
    values = [pick.lognormvariate(8, 1) * pick.choice((1, -1)) for _ in range(5_000)]
    lake.append(
        [event(n / 100, "COMPLETE", f"s{n}", data={"duration_ms": v}) for n, v in enumerate(values)]
    )
    (answer,) = views.read(lake, "percentiles").to_pylist()
    exact = sorted(values)
    for share in (0.5, 0.9, 0.95, 0.99):
        true = viewmodel.quantile(exact, share)
        assert abs(answer[f"p{share * 100:.0f}"] - true) <= 0.01 * abs(true)
    assert (answer["low"], answer["high"], answer["events"]) == (exact[0], exact[-1], 5_000)
    assert all(abs(n - 5_000) < 5_000 * 0.05 for _, n in rows(lake, "cardinality"))
    assert rows(lake, "cardinality", {"field": "category"}) == [(None, 1), ("COMPLETE", 1)]


def test_late_equal_and_unordered_events_give_what_sorted_ones_do(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events shuffled, in many batches, under a clock that steps back, answer as sorted input."""
    from lakelog.disk import disk

    events = [e for e in some(400, 5) if e.get("subject")]
    seen = set()  # those of one subject and time are in the order they came, so keep one
    events = [e for e in events if (k := (e["time"], e["subject"])) not in seen and not seen.add(k)]
    straight, mixed = make_lake("straight"), make_lake("mixed")
    straight.append(sorted(events, key=lambda e: e["time"]))
    straight.settle()
    now, steps = disk.now_us, iter(random.Random(1).choices(range(-(10**9), 10**9), k=10_000))
    monkeypatch.setattr(disk, "now_us", lambda: now() + next(steps))
    random.Random(2).shuffle(events)
    for start in range(0, len(events), 70):
        mixed.append(events[start : start + 70])
        rows(mixed, "status")
        if start % 140:
            mixed.settle()
    for name in (n for n in catalog.BUILT_IN if n not in ("failures", "items", "stuck")):
        assert rows(mixed, name) == rows(straight, name), name


def test_of_equal_times_every_reader_finds_the_same_latest_state(make_lake: MakeLake) -> None:
    """Events of one time by two writers: whoever read in between, whoever opens the lake now, and
    whoever asks once they are sealed name the same one."""
    first, second = make_lake(seal="never"), make_lake()
    first.append(event(1, "DISCOVER"))
    second.append(event(1, "PROCESS"))
    for turn in range(4):
        found = [rows(lake, "status") for lake in (first, second, make_lake())]
        assert found[0] == found[1] == found[2], turn
        (first, second)[turn % 2].append(event(1, f"T{turn}"))
    before = rows(first, "status")
    second.settle()
    assert rows(first, "status") == rows(make_lake(), "status") == before


def test_of_equal_times_the_later_arrival_is_the_latest_state(make_lake: MakeLake) -> None:
    """Two events of one item at one time: the one stored later wins, sealed or not."""
    lake = make_lake()
    lake.append(event(1, "PROCESS"))
    lake.append(event(1, "COMPLETE"))
    for act in (lake.count, lake.settle, lake.compact, lambda: lake.append(event(0, "DISCOVER"))):
        act()
        assert rows(lake, "status") == [("podcast", "COMPLETE", 1)]
    lake.append(event(1, "FAIL"))
    assert rows(lake, "status") == [("podcast", "FAIL", 1)]


def test_stuck_lists_what_started_and_waits_longer(make_lake: MakeLake) -> None:
    """Only subjects whose latest state is a start, and is old enough by now, are stuck."""
    lake = make_lake()
    lake.append(
        [
            event(0, "DISCOVER", "old"),
            event(0, "DISCOVER", "done"),
            event(5, "COMPLETE", "done"),
            event(50, "PROCESS", "new"),
        ]
    )
    now = START + 70 * MINUTE

    def stuck(at: int, **params: str) -> list[tuple[str, float]]:
        found = views.read(lake, "stuck", params, now=at).to_pylist()
        return [(r["subject"], r["seconds"]) for r in found]

    assert stuck(now) == [("old", 4200.0)]
    assert stuck(now + 45 * MINUTE) == [("old", 6900.0), ("new", 3900.0)]
    assert stuck(now, longer="15m") == [("old", 4200.0), ("new", 1200.0)]
    assert stuck(now, longer="15m", started="PROCESS") == [("new", 1200.0)]


def test_health_counts_what_is_recent_by_now(make_lake: MakeLake) -> None:
    """Recent activity is counted back from the time of asking, though the state is kept."""
    lake = make_lake()
    lake.append([event(0, "PING"), event(90, "FAIL"), event(100, "PING")])
    first, later = (
        views.read(lake, "health", now=START + m * MINUTE).to_pylist()[0] for m in (101, 159)
    )
    assert (first["events"], first["events_1h"], first["failures_1h"]) == (3, 2, 1)
    assert (later["events_1h"], later["failures_1h"], later["events_24h"]) == (1, 0, 3)
    assert later["quiet_seconds"] == 59 * 60
    # One of a clock that is years ahead, and one of another that is by seconds.
    lake.append([event(10**6, "PING"), {"type": "PING", "time": (START + MINUTE * 160) / 1e6}])
    quiet = [
        views.read(lake, "health", now=START + m * MINUTE - 1).to_pylist()[0]["quiet_seconds"]
        for m in (160, 161, 162)
    ]
    assert quiet == [pytest.approx(seconds) for seconds in (3600, 60, 120)]
    (none,) = views.read(lake, "health", now=START - MINUTE).to_pylist()
    assert (none["events"], none["quiet_seconds"]) == (5, None)


def test_since_and_until_cut_the_events(make_lake: MakeLake) -> None:
    """A view of some times is that of a lake with only those events."""
    lake, part = make_lake(), make_lake("part")
    lake.append([event(n, "COMPLETE", f"i{n % 7}") for n in range(100)])
    lake.settle()
    lake.append([event(n, "FAIL", f"i{n % 7}") for n in range(50, 150)])
    part.append([event(n, "COMPLETE", f"i{n % 7}") for n in range(30, 80)])
    part.append([event(n, "FAIL", f"i{n % 7}") for n in range(50, 80)])
    cut = {"since": iso(START + 30 * MINUTE), "until": START + 80 * MINUTE}
    for name in catalog.BUILT_IN:
        if name != "percentiles":
            assert rows(lake, name, **cut) == rows(part, name), name


def test_a_past_state_answers_as_it_did(make_lake: MakeLake) -> None:
    """Views of a tag, after rollback and on a branch are those of that state's events."""
    lake = make_lake()
    lake.append(some(100, 1))
    lake.tag("v1")
    before = {name: rows(lake, name) for name in catalog.BUILT_IN}
    lake.append(some(100, 2))
    after = {name: rows(lake, name) for name in catalog.BUILT_IN}
    assert before != after
    assert {name: rows(lake.at("v1"), name) for name in catalog.BUILT_IN} == before
    branch = lake.branch("side", "v1")
    assert {name: rows(branch, name) for name in catalog.BUILT_IN} == before
    branch.close()
    lake.rollback("v1")
    assert {name: rows(lake, name) for name in catalog.BUILT_IN} == before
    lake.undo()
    assert {name: rows(lake, name) for name in catalog.BUILT_IN} == after


@pytest.mark.damaged
def test_incremental_views_read_no_segment_twice(make_lake: MakeLake, home: Path) -> None:
    """After a restart, a compaction, a rollback and on a branch no old segment is opened."""
    lake = make_lake()
    lake.append(some(100, 1))
    lake.tag("v1")
    first = rows(lake, "status"), rows(lake, "rates")
    lake.append(some(100, 2))
    lake.settle()
    second = rows(lake, "status"), rows(lake, "rates")
    lake.compact()
    lake.branch("side", "v1").close()
    lake.close()
    shutil.rmtree(home / "lake" / "segments")
    for name, answers in (("main", second), ("side", first)):
        with lakelog.open(str(home / "lake"), create=False, branch=name) as again:
            assert (rows(again, "status"), rows(again, "rates")) == answers


def test_every_view_is_a_table_in_sql(make_lake: MakeLake) -> None:
    """A view can be queried, joined with events and with another view, at any state."""
    lake = make_lake()
    lake.append([event(0, "DISCOVER", "a"), event(1, "COMPLETE", "b")])
    lake.tag("v1")
    lake.append(event(2, "COMPLETE", "a"))
    query = "SELECT status, items FROM status ORDER BY 1"
    assert lake.sql(query).fetchall() == [("COMPLETE", 2)]
    assert lake.at("v1").sql(query).fetchall() == [("COMPLETE", 1), ("DISCOVER", 1)]
    joined = "SELECT count(*) FROM events JOIN items USING (subject), health"
    assert lake.sql(joined).fetchall() == [(3,)]
    for name in catalog.BUILT_IN:
        if name != "percentiles":
            lake.sql(f"SELECT * FROM {name}").fetchall()


def test_a_table_or_with_of_the_same_name_hides_a_view(make_lake: MakeLake) -> None:
    """What a user calls status is the user's, in a query and in the process's database."""
    lake = make_lake()
    lake.append(event(0, "DISCOVER"))
    assert lake.sql("WITH status AS (SELECT 7 AS x) SELECT x FROM status").fetchall() == [(7,)]
    lake.engine().cursor().execute("CREATE TABLE health AS SELECT 8 AS x")
    assert lake.sql("SELECT x FROM health").fetchall() == [(8,)]
    with pytest.raises(QueryFailed, match="nothere"):
        lake.sql("SELECT * FROM nothere")


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("nosuch", {}, "no view 'nosuch'"),
        ("status", {"x": "1"}, "status has no parameter 'x': it takes category"),
        ("rates", {"bucket": "soon"}, "parameter bucket is a duration such as 30m, 1h or 7d"),
        ("items", {"limit": "many"}, "parameter limit is a whole number"),
        ("items", {"limit": True}, "parameter limit is a whole number"),
        ("status", {"category": 5}, "parameter category is a text"),
        ("percentiles", {"field": 'a"b'}, "parameter field is a column, or a path"),
        ("percentiles", {"field": "nosuch"}, "no event has the field 'nosuch'; data has duration"),
        ("cardinality", {"field": "data.no.such"}, "no event has the field 'data.no.such'"),
    ],
)
def test_a_wrong_parameter_is_named(
    make_lake: MakeLake, name: str, params: dict[str, Any], words: str
) -> None:
    """A parameter that is unknown, of the wrong type, or names no field is a clear error."""
    lake = make_lake()
    lake.append(event(0, "COMPLETE", data={"duration": 4}))
    with pytest.raises(InvalidView, match=words):
        views.read(lake, name, params)


def test_a_field_that_no_compacted_event_has_is_named(make_lake: MakeLake) -> None:
    """Payloads stored as columns are looked through like any other."""
    lake = make_lake()
    lake.append([event(n, "COMPLETE", data={"duration": n}) for n in range(500)])
    lake.compact()
    with pytest.raises(InvalidView, match="no event has the field 'nosuch'; data has duration"):
        views.read(lake, "percentiles", {"field": "nosuch"})


def test_parameters_are_values_not_sql(make_lake: MakeLake) -> None:
    """Quotes in a parameter are part of the text."""
    lake = make_lake()
    odd = "it's'; DROP -- $now"
    lake.append([event(0, odd), event(1, "PING")])
    assert rows(lake, "throughput", {"type": odd})[0][1] == 1
    assert rows(lake, "items", {"status": odd}) == []
    assert rows(lake, "funnel", {"steps": [odd, "PING"]})[1][:3] == (2, "PING", 1)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6])
def test_a_funnel_of_any_length(make_lake: MakeLake, count: int) -> None:
    """Steps are reached in their order, wherever their events lie and however often they come."""
    lake, dice = make_lake(), random.Random(count)
    steps = tuple("ABCDEF"[:count])
    for _ in range(4):
        lake.append(
            [
                event(dice.randrange(9), dice.choice("ABCDEFX"), subject=f"s{dice.randrange(60)}")
                for _ in range(90)
            ]
        )
        lake.settle()
    expected = viewmodel.funnel(viewmodel.events(lake), steps)
    assert [row[0:3:2] for row in rows(lake, "funnel", {"steps": list(steps)})] == expected


@pytest.mark.parametrize("steps", ["A,A,B", "A,B,A", ",".join(f"S{n}" for n in range(16))])
def test_a_funnel_of_steps_that_it_cannot_count_is_refused(make_lake: MakeLake, steps: str) -> None:
    """A type that stands twice, and more than fifteen: no figure would be right."""
    with pytest.raises(QueryFailed, match="steps are up to 15 types, each once"):
        rows(make_lake(), "funnel", {"steps": steps})


def test_an_empty_lake_has_views_too(make_lake: MakeLake) -> None:
    """Without events no view fails, by itself and by all times."""
    lake = make_lake()
    for name in catalog.BUILT_IN:
        assert rows(lake, name) == rows(lake, name, **WIDE)


def test_the_definitions_come_with_the_package() -> None:
    """Every view has its file in the package; those that share a state say the same."""
    found = catalog.built_in()
    folder = Path(views.__file__).parent / "sql"
    assert {p.stem for p in folder.glob("*.sql")} == found.keys()
    assert all(d.about and d.version and d.is_projection for d in found.values())
    states = {
        found[n].state({p.name: None for p in found[n].params}, "")
        for n in ("status", "items", "stuck")
    }
    assert len(states) == 1
