"""Loki's API for queries, beside a model of what it gives: lines that are counted in Python."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.http_lake import HttpLake, Reply, serving
from tests.support.live_tail import SocketClient
from tests.support.requirements import need_module
from tests.support.tree import ROOT

START = 1_780_000_000
COUNT = 400
PREFIX = "/loki/api/v1/"


@dataclass(frozen=True)
class PushedLine:
    second: int
    app: str
    line: str

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.line)) if self.line.startswith("{") else {}

    @property
    def logfmt(self) -> dict[str, str]:
        if self.line.startswith("{"):
            return {}
        return dict(re.findall(r'(\w+)=(?:")?([^" ]*)', self.line))


def pushed_line(n: int) -> PushedLine:
    app = "web" if n % 3 else "db"
    if n % 2:
        status, path = (200 if n % 5 else 500), f"/p{n % 4}"
        line = json.dumps({"status": status, "req": {"path": path}, "took": f"{n % 9}ms"})
    else:
        line = f'level={"error" if n % 4 else "info"} msg="hello" took={n % 7}ms n={n}'
    return PushedLine(n, app, line)


LINES = [pushed_line(n) for n in range(COUNT)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpLake]:
    need_module("uvicorn")
    with serving(tmp_path_factory.mktemp("loki") / "lake") as each:
        streams = [
            {
                "stream": {"app": pushed.app, "env": "prod"},
                "values": [[f"{START + pushed.second}000000000", pushed.line]],
            }
            for pushed in LINES
        ]
        reply = each.ask(f"{PREFIX}push", json.dumps({"streams": streams}).encode())
        assert reply.status == 204, reply.body
        event = {"type": "job", "level": "error", "time": START + 5, "data": {"host": "h1", "n": 4}}
        assert each.ask("/ingest/batch", json.dumps(event).encode()).status == 200
        no_number = {**event, "time": START + 6, "data": {"host": "h1", "n": "NaN"}}
        assert each.ask("/ingest/batch", json.dumps(no_number).encode()).status == 200
        yield each


def ask(server: HttpLake, path: str, **parameters: object) -> Reply:
    times = {"start": f"{START}000000000", "end": START + COUNT}
    named = {name.rstrip("_"): value for name, value in {**times, **parameters}.items()}
    return server.ask(f"{PREFIX}{path}?{urlencode(named, doseq=True)}")


def data(reply: Reply) -> Any:
    assert reply.status == 200, reply.body
    assert reply.json["status"] == "success"
    return reply.json["data"]


def lines(server: HttpLake, query: str, **parameters: object) -> list[str]:
    result = data(ask(server, "query_range", query=query, limit=5_000, **parameters))
    assert result["resultType"] == "streams"
    entries = [entry for stream in result["result"] for entry in stream["values"]]
    return [line for _, line in sorted(entries)]


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ('{env="prod"}', lambda p: True),
        ('{app="web"}', lambda p: p.app == "web"),
        ('{app!="web", env="prod"}', lambda p: p.app == "db"),
        ('{app=~"w.*|x", env!="dev"}', lambda p: p.app == "web"),
        ('{app=~"w"}', lambda p: False),
        ('{env="prod"} |= "hello"', lambda p: "hello" in p.line),
        ('{env="prod"} != "hello" |= "500"', lambda p: "hello" not in p.line and "500" in p.line),
        ('{env="prod"} |~ `took=[34]ms`', lambda p: re.search("took=[34]ms", p.line)),
        ('{env="prod"} !~ "took=[34]ms"', lambda p: not re.search("took=[34]ms", p.line)),
        ('{env="prod"} |= "/p1" or "/p3"', lambda p: "/p1" in p.line or "/p3" in p.line),
        ('{env="prod"} | json | status=500', lambda p: p.json.get("status") == 500),
        ('{env="prod"} | json | status!=500', lambda p: p.json.get("status", 500) != 500),
        ('{env="prod"} | json | req_path="/p1"', lambda p: p.json.get("req") == {"path": "/p1"}),
        ('{env="prod"} | json x="req.path" | x="/p3"', lambda p: '"/p3"' in p.line),
        ('{env="prod"} | logfmt | level="error"', lambda p: p.logfmt.get("level") == "error"),
        ('{env="prod"} | logfmt | took > 4ms', lambda p: p.logfmt.get("took", "0ms") > "4ms"),
        (
            '{env="prod"} | logfmt | n >= 100 and n < 110 or n = 4',
            lambda p: p.logfmt and (100 <= p.second < 110 or p.second == 4),
        ),
        (
            '{env="prod"} | regexp "took=(?P<t>[0-9]+)ms" | t="3"',
            lambda p: p.logfmt.get("took") == "3ms",
        ),
        (
            '{env="prod"} | pattern `level=<lvl> msg="<_>" <_>` | lvl="info"',
            lambda p: p.logfmt.get("level") == "info",
        ),
        ('{env="prod"} | label_format x=app | x="db"', lambda p: p.app == "db"),
        ('{env="prod", app="\' OR 1=1 --"}', lambda p: False),
    ],
    ids=range(21),
)  # fmt: skip
def test_lines_are_those_of_the_model(
    server: HttpLake, query: str, holds: Callable[[PushedLine], object]
) -> None:
    assert lines(server, query) == [pushed.line for pushed in LINES if holds(pushed)]


def test_lines_come_as_streams_newest_first(server: HttpLake) -> None:
    result = data(ask(server, "query_range", query='{app="db"}', limit=2))["result"]
    (stream,) = result
    assert stream["stream"] == {"app": "db", "env": "prod", "source": "db", "type": "log"}
    assert [int(time) // 10**9 - START for time, _ in stream["values"]] == [399, 396]
    forward = data(ask(server, "query_range", query='{app="db"}', limit=2, direction="forward"))
    assert [t for t, _ in forward["result"][0]["values"]] == [
        f"{START + n}000000000" for n in (0, 3)
    ]


def test_the_time_range_has_its_start_and_not_its_end(server: HttpLake) -> None:
    assert len(lines(server, '{env="prod"}', start=START + 10, end=START + 20)) == 10
    assert len(lines(server, '{env="prod"}', start=f"{START + 10}.5", end=f"{START + 20}.5")) == 10


def test_pages_end_a_nanosecond_behind_a_line(tmp_path: Path) -> None:
    """As logcli asks for them, so that lines of one time are on both pages, and none on neither."""
    need_module("uvicorn")
    moment = START * 10**6 + 123_457
    events = [{"time": moment, "type": "e", "message": f"line {n}"} for n in range(3)]
    with serving(tmp_path / "lake") as server:
        assert server.ask("/ingest", json.dumps(events).encode()).json["accepted"] == 3
        nanoseconds = moment * 1_000
        for start, end, count in (
            (START, nanoseconds + 1, 3),
            (START, nanoseconds, 0),
            (nanoseconds, START + 1, 3),
            (nanoseconds + 1, START + 1, 0),
            (f"{moment / 1e6:.6f}", START + 1, 3),
            (START, f"{moment / 1e6:.6f}", 0),
        ):
            assert len(lines(server, '{type="e"}', start=start, end=end)) == count, (start, end)


def test_labels_of_a_line_are_in_its_stream(server: HttpLake) -> None:
    query = '{env="prod"} | json | status=500 | line_format "{{.req_path}} in {{.app}}" | drop took'
    result = data(ask(server, "query_range", query=query, limit=1, direction="forward"))["result"]
    (stream,) = result
    assert stream["values"][0][1] == "/p1 in web"
    assert stream["stream"]["req_path"] == "/p1"
    assert "took" not in stream["stream"]


def test_events_of_other_senders_are_found_by_their_columns_and_members(server: HttpLake) -> None:
    result = data(ask(server, "query_range", query='{type="job", host="h1"} | json | n > 3'))[
        "result"
    ]
    (stream,) = result
    labels = {"type": "job", "source": "batch", "level": "ERROR", "host": "h1", "n": "4"}
    assert stream["stream"] == labels
    assert stream["values"] == [[f"{START + 5}000000000", '{"host":"h1","n":4}']]


def series(server: HttpLake, query: str, step: int) -> dict[tuple[Any, ...], dict[int, float]]:
    result = data(ask(server, "query_range", query=query, step=step))
    assert result["resultType"] == "matrix"
    return {
        tuple(sorted(each["metric"].items())): {
            round(time - START): float(value) for time, value in each["values"]
        }
        for each in result["result"]
    }


def counted(span: int, step: int, holds: Callable[[PushedLine], object]) -> dict[int, float]:
    """How many lines each moment has before it, by the definition."""
    counts = {
        t: sum(t - span < p.second <= t for p in LINES if holds(p))
        for t in range(0, COUNT + 1, step)
    }
    return {t: float(count) for t, count in counts.items() if count}


@pytest.mark.parametrize(("span", "step"), [(60, 60), (60, 100), (100, 30), (7, 13), (1, 400)])
def test_counts_are_those_of_the_definition(server: HttpLake, span: int, step: int) -> None:
    query = f'sum by (app) (count_over_time({{env="prod"}}[{span}s]))'
    expected = {
        (("app", app),): counted(span, step, lambda p, app=app: p.app == app)
        for app in ("web", "db")
    }
    assert series(server, query, step) == {key: steps for key, steps in expected.items() if steps}


def test_rates_bytes_and_offsets(server: HttpLake) -> None:
    rate = series(server, 'sum(rate({app="web"}[50s]))', 100)[()]
    assert rate == {t: n / 50 for t, n in counted(50, 100, lambda p: p.app == "web").items()}
    sizes = series(server, 'sum(bytes_over_time({app="web"}[1s]))', 1)[()]
    assert sizes == {p.second: float(len(p.line)) for p in LINES if p.app == "web"}
    moved = series(server, 'sum(count_over_time({app="web"}[50s] offset 100s))', 100)[()]
    counts = counted(50, 100, lambda p: p.app == "web")
    assert moved == {t + 100: n for t, n in counts.items() if t + 100 <= COUNT}


def test_series_of_all_labels(server: HttpLake) -> None:
    result = series(server, 'count_over_time({env="prod"}[400s])', 400)
    labels = (("env", "prod"), ("source", "db"), ("type", "log"))
    assert result[(("app", "db"), *labels)][400] == counted(400, 400, lambda p: p.app == "db")[400]
    without = series(server, 'sum without (app, source) (count_over_time({env="prod"}[400s]))', 400)
    assert without == {(("env", "prod"), ("type", "log")): counted(400, 400, bool)}


def instant(server: HttpLake, query: str) -> dict[str, float]:
    result = data(ask(server, "query", query=query, time=START + COUNT))
    assert result["resultType"] == "vector"
    return {",".join(each["metric"].values()): float(each["value"][1]) for each in result["result"]}


def test_numbers_of_labels(server: HttpLake) -> None:
    took = [int(p.logfmt["took"][:-2]) / 1000 for p in LINES if p.logfmt and p.second]
    numbers = [float(p.logfmt["n"]) for p in LINES if p.logfmt and p.second]
    pipeline = '{env="prod"} | logfmt | unwrap'
    cases = {
        f"sum_over_time({pipeline} n [400s]) by (env)": math.fsum(numbers),
        f"avg_over_time({pipeline} duration(took) [400s]) by (env)": math.fsum(took) / len(took),
        f"max_over_time({pipeline} n [400s]) by (env)": max(numbers),
        f"min_over_time({pipeline} n [400s]) by (env)": min(numbers),
        f"first_over_time({pipeline} n [400s]) by (env)": numbers[0],
        f"last_over_time({pipeline} n [400s]) by (env)": numbers[-1],
        f"quantile_over_time(0.5, {pipeline} n [400s]) by (env)": sorted(numbers)[
            len(numbers) // 2
        ],
    }
    for query, expected in cases.items():
        assert instant(server, query) == {"prod": pytest.approx(expected, rel=0.02)}, query


def test_each_label_that_a_line_shows_finds_the_line(tmp_path: Path) -> None:
    """Whatever its member is called: Loki's labels have letters, digits and _ alone."""
    members = {"http.route": "/a", "http.status_code": "500", "x-request-id": "r", "@ts": "t"}
    members |= {
        "_id": "7",
        "1st": "z",
        "a/b~c": "8",
        'q"k': "9",
        "end_": "e",
        "a__b": "2",
        "é": "u",
    }
    need_module("uvicorn")
    with serving(tmp_path / "lake") as server:
        events = [{"time": START, "type": "e", "message": json.dumps(members)}]
        events.append({"time": START, "type": "e", "message": "1st=z @ts=t x-request-id=r _id=7"})
        assert server.ask("/ingest", json.dumps(events).encode()).json["rejected"] == 0
        for parser in ("json", "logfmt"):
            result = data(ask(server, "query_range", query=f'{{type="e"}} | {parser}'))["result"]
            labels = max((each["stream"] for each in result), key=len)
            assert {"_1st", "_ts", "_id", "x_request_id"} < set(labels)
            for name, value in labels.items():
                found = lines(server, f'{{type="e"}} | {parser} | {name}="{value}"')
                assert len(found) == (2 if name == "type" else 1), name


def test_an_empty_label_is_none(tmp_path: Path) -> None:
    """Both are one stream, also where values of two do not add up."""
    need_module("uvicorn")
    with serving(tmp_path / "lake") as server:
        event = {"time": START, "type": "e"}
        events = [{**event, "n": 1}, {**event, "source": "", "n": 3}]
        events.append({**event, "data": {"n": 2, "labels": {}}})
        assert server.ask("/ingest", json.dumps(events).encode()).json["rejected"] == 0
        for query in (
            'max_over_time({type="e"} | unwrap n [1h]) by (source)',
            'max_over_time({type="e"} | unwrap n [1h])',
        ):
            (series,) = data(ask(server, "query", query=query, time=START))["result"]
            assert series["value"][1] == "3"
        assert data(ask(server, "labels")) == ["type"]


def test_aggregates_and_arithmetic(server: HttpLake) -> None:
    counts = Counter(p.app for p in LINES if p.second)
    by_app = 'sum by (app) (count_over_time({env="prod"}[400s]))'
    assert instant(server, by_app) == counts
    assert instant(server, f"topk(1, {by_app})") == {"web": counts["web"]}
    assert instant(server, f"bottomk(1, {by_app})") == {"db": counts["db"]}
    assert instant(server, f"{by_app} > 200") == {"web": counts["web"]}
    assert instant(server, f"{by_app} > bool 200") == {"web": 1, "db": 0}
    assert instant(server, f"max({by_app}) - min({by_app})") == {"": counts["web"] - counts["db"]}
    assert instant(server, f"{by_app} / {by_app} * 100") == {"web": 100, "db": 100}
    assert instant(server, f"count({by_app})") == {"": 2}
    assert instant(server, f"avg({by_app})") == {"": sum(counts.values()) / 2}
    assert instant(server, f"{by_app} or vector(7)") == {**counts, "": 7}
    replaced = instant(server, f'sum by (x) (label_replace({by_app}, "x", "$1", "app", "(.).*"))')
    assert replaced == {"w": counts["web"], "d": counts["db"]}


def test_what_grafana_asks_to_see_that_it_works(server: HttpLake) -> None:
    assert instant(server, "vector(1)+vector(1)") == {"": 2}
    volume = 'sum by (level, detected_level) (count_over_time({env="prod"} | drop __error__[400s]))'
    assert instant(server, volume) == {"": COUNT - 1}


def test_labels_values_and_series(server: HttpLake) -> None:
    names = ["app", "env", "level", "service_name", "source", "type"]
    assert data(ask(server, "labels")) == names
    assert data(ask(server, "labels", start=START - 100, end=START - 50)) == []
    assert data(ask(server, "label/app/values")) == ["db", "web"]
    assert data(ask(server, "label/app/values", query='{app="web"}')) == ["web"]
    assert data(ask(server, "label/source/values")) == ["batch", "db", "web"]
    selectors = {"match[]": ['{app="web"}', '{type="job"}']}
    found = data(ask(server, "series", **selectors))
    assert sorted(labels.get("app", "") for labels in found) == ["", "web"]
    statistics = ask(server, "index/stats", query='{app="web"}').json
    assert statistics["entries"] == sum(p.app == "web" for p in LINES)
    assert statistics["bytes"] == sum(len(p.line) for p in LINES if p.app == "web")


def test_the_dashboard_of_the_documents_is_answered(server: HttpLake) -> None:
    """Each query of it, with the values that Grafana puts in the place of its variables."""
    dashboard = json.loads((ROOT / "docs/grafana/lakelog.json").read_text())
    for panel in dashboard["panels"]:
        query = panel["targets"][0]["expr"].replace("$__auto", "1m")
        query = query.replace("$type", ".*").replace("$source", ".*")
        assert data(ask(server, "query_range", query=query, step=60))["result"], query


class LokiSocketClient(SocketClient):
    path = f"{PREFIX}tail"


def test_lines_come_live(server: HttpLake) -> None:
    query = '{app="live"} |= "b" | level!="DEBUG"'
    with contextlib.closing(LokiSocketClient(server.port, query=query)) as client:
        assert client.status == 101
        values = [
            [f"{START + 5_000 + n}000000000", text] for n, text in enumerate(("ab", "c", "b!"))
        ]
        stream = {"stream": {"app": "live"}, "values": values}
        body = json.dumps({"streams": [stream]}).encode()
        assert server.ask(f"{PREFIX}push", body).status == 204
        message = next(client.messages())
    labels = {"app": "live", "source": "live", "type": "log"}
    assert message == {"streams": [{"stream": labels, "values": [values[0], values[2]]}]}


@pytest.mark.parametrize("query", ["", "{", 'rate({a="b"}[1m])', '{a="b"} | line_format "x"'])
def test_what_cannot_be_followed_is_refused(server: HttpLake, query: str) -> None:
    with contextlib.closing(LokiSocketClient(server.port, query=query)) as client:
        assert client.status == 400


def test_a_form_is_read(server: HttpLake) -> None:
    form = urlencode({"query": "1+1"}).encode()
    reply = server.ask(
        f"{PREFIX}query", form, {"content-type": "application/x-www-form-urlencoded"}
    )
    assert data(reply)["result"][1] == "2"


@pytest.mark.parametrize(
    ("path", "parameters", "reason"),
    [
        ("query_range", {"query": '{app="web"'}, "line 1, col"),
        ("query_range", {}, "query is missing"),
        ("query_range", {"query": '{a="b"} | unpack'}, "not supported"),
        ("query_range", {"query": 'rate({a="b"}[1m])', "step": 0.001}, "points"),
        ("query_range", {"query": 'rate({a="b"} | json [1m])'}, "say by which labels"),
        ("query_range", {"query": '{a="b"}', "limit": 0}, "limit"),
        ("query_range", {"query": '{a="b"}', "start": "soon"}, "start"),
        ("query_range", {"query": '{a="b"}', "start": START + 9, "end": START}, "before start"),
        ("query_range", {"query": '{a=~"("}'}, "("),
        ("query", {"query": '{a="b"} | line_format "{{ .x | ToUpper }}"'}, "template"),
        ("series", {"match[]": "1+1"}, "selector"),
        ("labels", {"start": "9" * 5_000}, "start"),
        ("labels", {"end": "1e400"}, "end"),
        ("query_range", {"query": '{a="b"}', "limit": "000000001" + "9" * 5_000}, "limit"),
    ],
    ids=range(14),
)
def test_what_is_wrong_is_400_with_a_reason(
    server: HttpLake, path: str, parameters: dict[str, object], reason: str
) -> None:
    reply = ask(server, path, **parameters)
    assert reply.status == 400
    assert reason in reply.body.decode()
