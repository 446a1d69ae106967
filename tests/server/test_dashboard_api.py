"""The dashboard's API: the same numbers as SQL, of the state that is asked, by whoever may."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.anomalies import AnomalyFinding, Incident, finding_events
from lakelog.collect import status_path
from lakelog.errors import InvalidSearch, UnknownRef
from lakelog.lake import Lake
from lakelog.search import Search
from lakelog.server.api.answers import READ
from lakelog.server.api.question import DashboardQuestion
from lakelog.server.arrivals import RequestRefused
from lakelog.server.gate import Caller
from lakelog.server.pages import POLICY
from lakelog.server.tokens import TokenFile, TokenScope
from tests.conftest import MakeLake
from tests.support.dashboard_day import children
from tests.support.http_lake import JSON_LINES, HttpLake, lines, serving
from tests.support.requirements import need_module

START = datetime(2026, 11, 20, tzinfo=UTC)
LEVELS = [None, "INFO", "WARN", "ERROR"]
TRACE = "0af7651916cd43dd8448eb211c80319c"


def sample_event(number: int) -> dict[str, Any]:
    return {
        "time": (START + timedelta(seconds=977 * number, microseconds=number)).isoformat(),
        "type": ["log", "FAIL", "span"][number % 3],
        "source": f"s{number % 5}",
        "category": "web" if number % 2 else None,
        "level": LEVELS[number % 4],
        "message": f"event {number}" + (" refused" if number % 7 == 0 else ""),
        "data": {"n": number, "traceId": TRACE, "spanId": f"{number % 40:016x}"},
    }


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """300 events of three days sealed and tagged v1, 40 more sealed, 20 in the tail."""
    path = tmp_path_factory.mktemp("dashboard") / "lake"
    with lakelog.open(path) as each:
        each.append([sample_event(number) for number in range(300)])
        each.tag("v1")
        each.append([sample_event(number) for number in range(300, 340)])
        each.settle()
        each.append([sample_event(number) for number in range(340, 360)])
        each.quarantine([("f.log", 7, "not JSON", "oops <b>x</b>")])
        yield each


def ask(lake: Lake, name: str, **query: str) -> dict[str, Any]:
    answer = READ[name]()(DashboardQuestion(lake, query, {}, Caller("", frozenset(TokenScope))))
    result: dict[str, Any] = json.loads(json.dumps(answer, default=str))
    return result


def moment(number: int) -> str:
    return (START + timedelta(seconds=977 * number)).isoformat()


SEARCHES = [
    "",
    "level>=WARN",
    "type:fail",
    "-source:=s1 level:=INFO",
    "refused",
    "n>=100",
    "-level:*",
]
RANGES = [
    *[("", ""), (moment(13), moment(207)), (moment(100), moment(101)), (moment(350), "")],
    # None of these has a moment: they end at the first event, before it, and where they begin.
    *[("", moment(0)), ("", moment(-5)), (moment(12), moment(12)), (moment(12), moment(3))],
]


@pytest.mark.parametrize("at", ["", "v1"])
@pytest.mark.parametrize("search", SEARCHES)
def test_counts_are_those_of_sql(lake: Lake, search: str, at: str) -> None:
    """Whether the views answer or the events are read, and at the edges of a range."""
    state = lake.at(at) if at else lake
    for since, until in RANGES:
        answer = ask(lake, "counts", q=search, since=since, until=until, at=at)
        found = Search.of(search or "*", since or None, until or None)
        rows = state.sql(found.events()).to_arrow_table().to_pylist()
        assert answer["total"] == len(rows)
        times = {"since": since, "until": until}
        listed = ask(lake, "events", q=search, at=at, limit="1000", **times)["rows"]
        assert len(listed) == len(rows)
        assert answer["next"] is None
        for field, values in answer["facets"].items():
            expected = Counter(row[field] for row in rows)
            assert dict(values) == dict(expected)
        width = answer["width"]
        bars = Counter(
            (row["time"].timestamp() * 1000 // width * width, row["level"]) for row in rows
        )
        assert {(time, level): n for time, level, n in answer["bars"]} == dict(bars)


def test_slices_add_up_to_the_whole(lake: Lake) -> None:
    whole = ask(lake, "counts", q="event")
    total, before, rounds = 0, "", 0
    while True:
        answer = ask(lake, "counts", q="event", slice="50", before=before)
        total, rounds = total + answer["total"], rounds + 1
        if answer["next"] is None:
            break
        before = str(int(answer["next"]))
    assert (total, rounds > 3) == (whole["total"], True)
    assert total == 360


def test_pages_of_events_have_each_once(lake: Lake) -> None:
    numbers, after = [], ""
    while True:
        answer = ask(lake, "events", limit="47", after=after, q="event")
        numbers += [row[0] for row in answer["rows"]]
        if answer["after"] is None:
            break
        after = answer["after"]
    assert sorted(numbers) == list(range(360))
    times = [row[1] for row in ask(lake, "events", limit="360")["rows"]]
    assert times == sorted(times, reverse=True)


def test_the_ends_of_the_calendar_are_times_as_others(tmp_path: Path) -> None:
    """9999-12-31 is what many programs write for never."""
    times = ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999Z"]
    with lakelog.open(tmp_path / "lake") as each:
        each.append([{"type": "log", "source": "s", "time": time} for time in times])
        for name in ("overview", "sources"):
            assert ask(each, name)["sources"][0]["events"] == 3
        for query in ({}, {"q": "type:log"}, {"q": "s"}, {"since": times[0]}):
            assert ask(each, "counts", **query)["total"] == 3, query
        assert ask(each, "values", field="source")["values"] == [["s", 3]]
        rows = list[list[Any]]()
        after: str | None = ""
        while after is not None:
            answer = ask(each, "events", limit="1", after=after)
            rows += answer["rows"]
            after = answer["after"]
        assert [row[0] for row in rows] == [2, 1, 0]


def test_values_in_lists_are_cut_and_fetched_whole(tmp_path: Path) -> None:
    with lakelog.open(tmp_path / "lake") as lake:
        long = "x" * 1_000_000
        lake.append({"type": "t", "message": long, "data": {"long": long, "n": 5}})
        [row] = ask(lake, "events", columns="n,long")["rows"]
        assert all(len(str(value)) <= 301 for value in row)
        assert row[10] == "5"
        cut = ask(lake, "event", seq=str(row[0]), time=repr(row[1]))
        assert (cut["whole"], len(cut["data"]) < 300_000) == (False, True)
        whole = ask(lake, "event", seq=str(row[0]), time=repr(row[1]), whole="1")
        assert json.loads(whole["data"])["long"] == long


def test_an_event_has_its_provenance(lake: Lake) -> None:
    newest, oldest = (ask(lake, "events", limit="360")["rows"][place] for place in (0, -1))
    sealed = ask(lake, "event", seq=str(oldest[0]), time=repr(oldest[1]))
    assert sealed["event"]["message"] == "event 0 refused"
    assert sealed["from"]["segment"]
    assert sealed["from"]["snapshot"]
    live = ask(lake, "event", seq=str(newest[0]), time=repr(newest[1]))
    assert live["event"]["message"] == "event 359"
    assert live["from"]["segment"] is None
    with pytest.raises(UnknownRef, match="rolled back"):
        ask(lake, "event", seq=str(newest[0]), time=repr(newest[1]), at="v1")


@pytest.mark.parametrize("name", sorted({*READ} - {"undo"}))  # there is nothing to undo
def test_every_answer_is_of_the_state_that_is_asked(lake: Lake, name: str) -> None:
    query = {"trace": {"id": TRACE}, "diff": {"a": "v1", "b": "main"}, "event": {"seq": "0"}}
    needed = {**query, "preflight": {"to": "v1"}, "values": {"field": "n"}}.get(name, {})
    past = ask(lake, name, at="v1", **needed)
    if "events" in past and isinstance(past["events"], int) and name != "diff":
        assert past["events"] == 300
    if name == "settings":
        assert past["stats"]["events"] == 300
    of_branch = ("moves", "diff", "preflight", "alerts", "alerts/history", "machine")
    if name not in of_branch:  # of the branch or the server, whatever is shown
        with pytest.raises(UnknownRef):
            ask(lake, name, at="nowhere", **needed)


def test_relative_times_are_before_the_state(lake: Lake) -> None:
    """`2h` of a past state is before that state was published, not before now."""
    answer = ask(lake, "counts", since="2h", at="v1")
    published = lake.at("v1").snapshot().time / 1000
    assert answer["since"] == pytest.approx(published - 7_200_000, abs=1)


def test_overview_counts_errors_types_and_silence(tmp_path: Path) -> None:
    with lakelog.open(tmp_path / "lake") as lake:
        now = datetime.now(UTC)
        hours = {"a": range(49), "gone": range(30, 48)}
        lake.append(
            [
                {"type": "log", "source": name, "time": now - timedelta(hours=hour, minutes=5)}
                for name, each in hours.items()
                for hour in each
            ]
        )
        lake.append({"type": "x", "level": "ERROR", "source": "a", "time": now})
        answer = ask(lake, "overview", since="24h")
        assert answer["errors"] == {"now": 1, "before": 0}
        assert answer["types"][0] == {"value": "log", "events": 24, "before": 42}
        assert [row["source"] for row in answer["silent"]] == ["gone"]


def test_a_clock_that_was_ahead_makes_no_source_silent(tmp_path: Path) -> None:
    with lakelog.open(tmp_path / "lake") as lake:
        now = datetime.now(UTC)
        days = {"steady": range(15), "gone": range(7, 15), "ahead": range(-300, -299)}
        lake.append(
            {"type": "log", "source": name, "time": now - timedelta(days=day)}
            for name, each in days.items()
            for day in each
        )
        assert [row["source"] for row in ask(lake, "overview")["silent"]] == ["gone"]


@pytest.mark.parametrize(("age", "is_running"), [(5, True), (3600, False), (-3600, False)])
def test_a_watcher_runs_whose_last_round_is_of_now(
    tmp_path: Path, age: int, is_running: bool
) -> None:
    """One that was killed while the clock was ahead does not run until the clock is there again."""
    with lakelog.open(tmp_path / "lake") as lake:
        Path(status_path(lake)).write_text(json.dumps({"last_round": time.time() - age}))
        (watcher,) = ask(lake, "storage")["watchers"]
        assert watcher["running"] is is_running


def test_a_lake_of_the_future_has_silent_sources(tmp_path: Path) -> None:
    with lakelog.open(tmp_path / "lake") as lake:
        begin = datetime.now(UTC) + timedelta(days=500)
        lake.append(
            {"type": "log", "source": name, "time": begin + timedelta(hours=hour)}
            for name, hours in {"a": range(49), "gone": range(19)}.items()
            for hour in hours
        )
        assert [row["source"] for row in ask(lake, "overview")["silent"]] == ["gone"]


def test_a_lake_is_in_use_if_its_last_day_has_events_as_others_have(tmp_path: Path) -> None:
    """The page begins with the last day of such a lake; one event there would be all it shows."""
    with lakelog.open(tmp_path / "lake") as lake:
        now = datetime.now(UTC)
        lake.append(
            {"type": "log", "time": now - timedelta(minutes=n)} for n in range(30000, 43000)
        )
        assert not ask(lake, "about")["is_in_use"]
        lake.append({"type": "lakelog.train"})
        assert not ask(lake, "about")["is_in_use"]
        lake.append({"type": "log", "time": now - timedelta(minutes=n)} for n in range(99))
        assert ask(lake, "about")["is_in_use"]


def test_traces_are_listed_and_shown(lake: Lake) -> None:
    [row] = ask(lake, "traces")["traces"]
    assert (row["id"], row["events"]) == (TRACE, 360)
    spans = ask(lake, "trace", id=row["id"])["spans"]
    assert len(spans) == 360
    assert {span["kind"] for span in spans} == {"other"}


def test_a_span_tells_tokens_model_and_prompt(tmp_path: Path) -> None:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m1",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.cost": 0.5,
        "gen_ai.input.messages": [{"role": "user", "content": "why?"}],
    }
    data = {"traceId": TRACE, "spanId": "b7ad6b7169203331", "attributes": attributes}
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append({"type": "span", "data": {**data, "status": {"code": 2, "message": "no"}}})
        [span] = ask(lake, "trace", id=TRACE)["spans"]
        assert (span["kind"], span["model"], span["input_tokens"]) == ("model", "m1", 7)
        assert (span["error"], span["says"], span["cost"]) == (True, "no", 0.5)
        assert "why?" in span["texts"][0][1]
        assert ask(lake, "traces")["traces"][0]["errors"] == 1


def test_sources_files_and_quarantine(lake: Lake) -> None:
    rows = ask(lake, "sources")["sources"]
    assert sum(row["events"] for row in rows) == 360
    assert all(sum(row["bars"]) == row["events"] for row in rows)
    [line] = ask(lake, "quarantine")["lines"]
    assert (line["reason"], line["line"], line["position"]) == ("not JSON", "oops <b>x</b>", 7)


def test_lines_in_quarantine_are_of_a_file_or_a_channel(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("no line\n")
    with lakelog.open(tmp_path / "lake") as lake:
        lake.ingest(str(tmp_path / "bad.jsonl"))
        lake.quarantine([("http:" + "0a" * 16, 0, "not JSON", "oops")])
        files = {line["line"]: line["file"] for line in ask(lake, "quarantine")["lines"]}
        assert files == {"no line": str(tmp_path / "bad.jsonl"), "oops": "http"}


def test_statistics_of_a_field(lake: Lake) -> None:
    statistics = ask(lake, "values", field="n")["statistics"]
    assert (statistics["present"], statistics["min"], statistics["max"]) == (360, 0, 359)


def test_texts_that_are_no_numbers_do_not_spoil_statistics(home: Path) -> None:
    with lakelog.open(home / "numbers") as lake:
        lake.append([{"type": "t", "data": {"n": n}} for n in (1, 3, "NaN", "Infinity", "none")])
        statistics = ask(lake, "values", field="n")["statistics"]
    assert [statistics[name] for name in ("present", "numbers", "max", "mean")] == [5, 2, 3, 2]


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("events", {"q": "source:"}),
        ("counts", {"since": "yesterday-ish"}),
        ("events", {"limit": "-1"}),
        ("counts", {"since": "9" * 5_000}),
        ("counts", {"since": "\N{SUPERSCRIPT TWO}"}),
        ("events", {"after": "x"}),
        ("events", {"after": f"{'9' * 20}:1"}),
        ("events", {"after": f"{-(2**63)}:1"}),
        ("event", {"seq": "1", "time": "soon"}),
        ("events", {"q": "x" * 70_000}),
    ],
)
def test_what_cannot_be_read_is_refused(lake: Lake, name: str, query: dict[str, str]) -> None:
    with pytest.raises((InvalidSearch, RequestRefused)):
        ask(lake, name, **query)


def test_a_question_for_nothing_is_answered(lake: Lake) -> None:
    assert ask(lake, "events", limit="0")["rows"] == []
    assert ask(lake, "anomalies", since="0001-01-01")["anomalies"] == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpLake]:
    need_module("uvicorn")
    path = tmp_path_factory.mktemp("served-dashboard") / "lake"
    with lakelog.open(path) as each:
        each.append([sample_event(number) for number in range(20)])
        each.tag("v1")
        each.append([sample_event(number) for number in range(20, 30)])
        each.settle()
    with serving(path) as served:
        yield served


def post(server: HttpLake, name: str, body: object, **headers: str) -> Any:
    sent = {"content-type": "application/json", **headers}
    return server.ask(f"/api/{name}", json.dumps(body).encode(), sent)


def test_browsers_get_the_dashboard_and_clients_of_elasticsearch_theirs(server: HttpLake) -> None:
    page = server.ask("/", headers={"accept": "text/html,*/*"})
    assert b"<title>lakelog</title>" in page.body
    assert page.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert server.ask("/").json["tagline"]
    script = server.ask("/dashboard/main.js")
    assert script.headers["content-type"].startswith("text/javascript")
    again = server.ask("/dashboard/main.js", headers={"if-none-match": script.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    for path in ("/dashboard/../tokens.py", "/dashboard/%2e%2e/app.py", "/dashboard/nothing.js"):
        assert server.ask(path).status == 404


def test_no_file_of_the_dashboard_makes_html_of_text() -> None:
    """Nor does one load what another server has."""
    folder = Path(lakelog.__file__).parent / "server" / "dashboard"
    files = [path for path in folder.rglob("*") if path.suffix in (".js", ".css", ".html", ".svg")]
    assert len(files) > 20
    for path in files:
        content = path.read_text()
        forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
        assert not re.search(forbidden, content), path
        if "vendor" not in path.parts:
            foreign = re.findall(
                r"https?://(?!www\.w3\.org/|[\w.]*example\.org/)[^\s\"'`)]+", content
            )
            assert foreign == [], path
            assert not re.search(r"<[^>]+\s(style|on\w+)=", content), path


def test_a_rollback_is_shown_before_it_is_made_and_can_be_undone(server: HttpLake) -> None:
    assert post(server, "tag", {"name": "v2", "message": "<img>"}).status == 200
    assert post(server, "tag", {"name": "v2"}).status == 409
    plan = server.ask("/api/preflight?to=v1").json
    assert plan["problems"] == []
    assert any(finding["part"] == "data" for finding in plan["findings"])
    back = post(server, "rollback", {"to": plan["target"], "name": "v1", "why": "test"})
    assert (back.status, back.json["events"]) == (200, 20)
    about = server.ask("/api/about").json
    assert (about["events"], about["version"]) == (20, lakelog.__version__)
    assert post(server, "undo", {}).json["events"] == 30
    ops = [move["op"] for move in server.ask("/api/moves").json["moves"]]
    assert ops[:2] == ["undo", "rollback"]


def test_an_undo_says_before_what_came_since(tmp_path: Path) -> None:
    """What is refused is known before it is asked for, with the way on."""
    need_module("uvicorn")
    with serving(tmp_path / "lake") as server:
        assert server.ask("/api/undo").status == 409
        server.ask("/ingest", b'{"n":1}')
        assert post(server, "tag", {"name": "v1"}).status == 200
        server.ask("/ingest", b'{"n":2}')
        target = server.ask("/api/preflight?to=v1").json["target"]
        assert post(server, "rollback", {"to": target, "name": "v1"}).json["events"] == 1
        plan = server.ask("/api/undo").json
        assert (plan["op"], plan["later"]) == ("rollback", 0)
        server.ask("/ingest", b'{"n":3}\n{"n":4}')
        assert server.ask("/api/undo").json == {**plan, "later": 2}
        assert post(server, "undo", {}).status == 409
        assert post(server, "undo", {"to_branch": "since"}).json["events"] == 2
        query = server.ask("/sql?at=since", b"SELECT data->>'n' AS n FROM events ORDER BY 1")
        assert [row for (row,) in query.json["rows"]] == ["1", "3", "4"]


def test_a_change_is_json_from_the_dashboard_itself(server: HttpLake) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert server.ask("/api/undo", b"{}", form).status == 415
    assert post(server, "undo", [1]).status == 400
    assert post(server, "rollback", {}).status == 400
    assert post(server, "tag", {"name": "v9"}, origin="http://evil.example").status == 403


def answer_processes(server: HttpLake) -> list[int]:
    return [
        pid
        for pid in children(server.process.pid)
        if "answer_process" in Path(f"/proc/{pid}/cmdline").read_text()
    ]


def test_pages_are_answered_beside_the_process_that_stores(tmp_path: Path) -> None:
    """Events are stored while a page hangs, and a process that is killed costs its question."""
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append([sample_event(number) for number in range(300)])
        lake.tag("v1")
    with serving(tmp_path / "lake") as server:
        assert server.ask("/ingest", lines({"type": "late"}), JSON_LINES).status == 200
        assert server.ask("/api/overview").json["events"] == 301
        difference = server.ask("/api/diff?a=v1&b=main").json
        new = difference["behaviour"]["types"][0]
        assert (difference["events"], new["name"], new["shift"]) == (1, "late", "in 1 event")
        with ThreadPoolExecutor(1) as threads:
            for pid in answer_processes(server):
                os.kill(pid, signal.SIGSTOP)
            hanging = threads.submit(server.ask, "/api/counts")
            assert server.ask("/ingest", lines({"type": "later"}), JSON_LINES).status == 200
            for pid in answer_processes(server):
                os.kill(pid, signal.SIGKILL)
            assert hanging.result().status in (200, 400)
        assert server.ask("/api/overview").json["events"] == 302


def test_errors_say_what_is_wrong(server: HttpLake) -> None:
    assert server.ask("/api/events?at=nowhere").status == 404
    wrong = server.ask("/api/events?q=source:%20")
    assert (wrong.status, "missing" in wrong.json["error"]) == (400, True)


def test_scopes_decide_who_reads_and_who_changes(tmp_path: Path) -> None:
    need_module("uvicorn")
    with lakelog.open(tmp_path / "lake") as each:
        each.append(sample_event(1))
    reader = TokenFile(str(tmp_path / "lake")).add("reader", frozenset([TokenScope.READ]))
    with serving(tmp_path / "lake") as server:
        assert server.ask("/", headers={"accept": "text/html"}).status == 200
        assert server.ask("/api/about").status == 401
        bearer = {"authorization": f"Bearer {reader}"}
        about = server.ask("/api/about", headers=bearer)
        assert (about.status, about.json["may_change"]) == (200, False)
        assert post(server, "undo", {}, **bearer).status == 403


def test_links_of_other_programs_lead_to_the_page(server: HttpLake) -> None:
    link = server.ask("/explore?q=level%3A%3DERROR&since=2026-11-20T08:00Z")
    assert (link.status, link.headers["location"]) == (
        302,
        "/#/explore?q=level%3A%3DERROR&since=2026-11-20T08:00Z",
    )


def test_patterns_are_counted_and_new_ones_told(lake: Lake) -> None:
    answer = ask(lake, "patterns")
    assert sum(row["count"] for row in answer["patterns"]) == 360
    assert ask(lake, "patterns", new="v1")["patterns"] == []


def test_anomalies_of_others_have_any_end(make_lake: MakeLake) -> None:
    """One that never ends, ends before it begins, or says no time, fails no page."""
    lake, begin = make_lake(), "2026-11-20T08:00:00Z"
    ends = ("infinity", "9999-12-31T23:59:59-14:00", "-infinity", "today", 5)
    lake.append([{"type": "ANOMALY", "time": begin, "data": {"until": end}} for end in ends])
    spans = ask(lake, "anomalies", since="2026-11-19", until="2026-11-21")["anomalies"]
    assert len(spans) == len(ends)
    assert sum(end > since for since, end, *_ in spans) == 2


def test_recorded_anomalies_are_spans_of_a_range(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append({"type": "log", "time": "2026-11-20T12:00:00Z"})
    begin = 1_780_012_800_000_000
    end = begin + 900_000_000
    finding = AnomalyFinding("rate", "errors", begin, end, 0.1, 9.0, 5.0, "SELECT", end)
    lake.append(finding_events([Incident((finding,))]))
    spans = ask(lake, "anomalies")["anomalies"]
    assert [span[:4] for span in spans] == [
        [begin // 1000, begin // 1000 + 900_000, "errors: 9, expected 0.1", 5.0]
    ]
    # One that began before the range and reaches into it is marked as well.
    inside, after = ("2026-05-29T00:05:00Z", "2026-05-29T00:20:00Z")
    assert ask(lake, "anomalies", since=inside)["anomalies"] == spans
    assert ask(lake, "anomalies", since=after)["anomalies"] == []


def test_a_live_event_is_found_once_it_is_sealed(tmp_path: Path) -> None:
    """Its number may be another one then; its time is not."""
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append(sample_event(5))
        [row] = ask(lake, "events")["rows"]
        lake.settle()
        found = ask(lake, "event", seq=str(row[0] + 7), time=repr(row[1]))
        assert found["event"]["message"] == "event 5"


def test_standing_counts_items_once_and_what_was_learnt(tmp_path: Path) -> None:
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append({"type": "log", "message": "no item"})
        assert ask(lake, "standing") == {"items": None, "learnt": [], "newest": []}
        lake.append([{"type": kind, "subject": "a"} for kind in ("DISCOVER", "COMPLETE")])
        lake.append({"type": "FAIL", "subject": "b", "source": "s", "data": {"error": "gone"}})
        lake.append([{"type": "ANOMALY", "message": f"unusual {number}"} for number in range(2)])
        answer = ask(lake, "standing")
    assert answer["items"]["status"] == {
        "discovered": 0,
        "processing": 0,
        "completed": 1,
        "failed": 1,
    }
    assert (answer["items"]["errors"], answer["items"]["failures"]) == ([["gone", 1]], 1)
    assert answer["learnt"] == [["ANOMALY", 2, "anomalies"]]
    assert [row[3] for row in answer["newest"]] == ["unusual 1", "unusual 0"]


def test_names_are_those_that_a_search_may_go_on_with(lake: Lake) -> None:
    names = ask(lake, "names")
    assert (names["sources"], names["types"]) == (
        [f"s{n}" for n in range(5)],
        ["FAIL", "log", "span"],
    )
    assert names["members"] == ["n", "spanId", "traceId"]


def test_a_question_that_is_cancelled_ends(lake: Lake) -> None:
    question = DashboardQuestion(lake, {}, {}, Caller("", frozenset()))
    relation = question.sql("SELECT sum(a.range) FROM range(10000000) a, range(100000) b")
    outcome: list[type[BaseException]] = []

    def evaluate() -> None:
        try:
            relation.fetchall()
        except BaseException as error:
            outcome.append(type(error))

    thread = threading.Thread(target=evaluate)
    thread.start()
    while thread.is_alive():
        question.cancel()
        thread.join(0.1)
    assert outcome == [KeyboardInterrupt]
    with pytest.raises(RequestRefused, match="cancelled"):
        question.sql("SELECT 1")


def test_rows_without_a_message_show_their_payload(tmp_path: Path) -> None:
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append([{"type": "a", "data": {"n": 1}}, {"type": "b", "message": "m", "data": {}}])
        lake.settle()
        lake.append({"type": "c", "data": {"n": "x" * 1000}})
        rows = {row[3]: row[7:10] for row in ask(lake, "events")["rows"]}
        assert rows["a"] == [None, '{"n":1}', 7]
        assert rows["b"] == ["m", None, None]
        assert rows["c"][1].startswith('{"n":"xxx')
        assert (len(rows["c"][1]), rows["c"][2]) == (301, 1008)
