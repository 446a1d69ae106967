"""SQL over HTTP: one SELECT at any state, in four formats, with an error for all else."""

from __future__ import annotations

import csv
import http.client
import io
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import lakelog
from tests.support.http_lake import HttpLake, Reply, serving
from tests.support.requirements import need_module

EVENTS = [
    {"type": "a", "source": f"s{n % 3}", "data": {"n": n, "text": f"hello {n}"}} for n in range(200)
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpLake]:
    need_module("uvicorn")
    path = tmp_path_factory.mktemp("asked") / "lake"
    with lakelog.open(path) as lake:
        lake.append(EVENTS)
        lake.tag("v1")
        lake.append([{"type": "b", "source": "live", "data": {"n": 7}}])
    with serving(path, "--query-seconds", "3", "--query-memory", "700") as each:
        yield each


def ask(
    server: HttpLake, body: dict[str, Any] | str, path: str = "/sql", accept: str = ""
) -> Reply:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return server.ask(path, content, {"accept": accept} if accept else {})


def rows(reply: Reply) -> list[list[Any]]:
    assert reply.status == 200, reply.body
    return list(reply.json["rows"])


def code(reply: Reply) -> str:
    error = reply.json["error"]
    assert set(error) == {"code", "message", "hint"}
    assert "\n" not in error["message"] + error["hint"]
    return str(error["code"])


def test_a_query_is_answered_with_the_live_tail(server: HttpLake) -> None:
    reply = ask(server, {"sql": "SELECT type, count(*) AS n FROM events GROUP BY 1 ORDER BY 1"})
    assert reply.json == {
        "columns": [{"name": "type", "type": "VARCHAR"}, {"name": "n", "type": "BIGINT"}],
        "rows": [["a", 200], ["b", 1]],
        "row_count": 2,
        "truncated": False,
    }


@pytest.mark.parametrize(
    ("params", "condition"), [(["live"], "source = $1"), ({"s": "live"}, "source = $s")]
)
def test_values_are_bound(server: HttpLake, params: Any, condition: str) -> None:
    body = {"sql": f"SELECT type FROM events WHERE {condition}", "params": params}
    assert rows(ask(server, body)) == [["b"]]


def test_a_bound_value_is_no_sql(server: HttpLake) -> None:
    body = {"sql": "SELECT count(*) FROM events WHERE source = $1", "params": ["' OR true --"]}
    assert rows(ask(server, body)) == [[0]]


@pytest.mark.parametrize("at", ["v1", "main"])
def test_a_past_state_is_read(server: HttpLake, at: str) -> None:
    reply = ask(server, {"sql": "SELECT count(*) FROM events", "at": at})
    assert rows(reply) == [[200]]
    assert len(reply.headers["x-lakelog-snapshot"]) == 64


@pytest.mark.parametrize(
    "query",
    [
        'SELECT count(*) FROM "v1".events',
        "SELECT count(*) FROM types.a WHERE text LIKE 'hello%'",
        "SELECT count(*) FROM events WHERE search('hello')",
        "WITH t AS (SELECT * FROM events WHERE type = 'a') SELECT count(*) FROM t",
        "SELECT max(events) FROM schema",
        "SELECT count(*) FROM range(200)",
    ],
)
def test_the_tables_of_the_lake_are_there(server: HttpLake, query: str) -> None:
    assert rows(ask(server, query)) == [[200]]


def test_payloads_are_nested(server: HttpLake) -> None:
    reply = ask(server, "SELECT data FROM events WHERE source = 'live'")
    assert rows(reply) == [[{"n": 7}]]


@pytest.mark.parametrize(
    ("path", "accept"),
    [("/sql?format=csv", ""), ("/sql", "text/csv"), ("/sql", "text/html, text/csv;q=0.9, */*")],
)
def test_csv_by_name_or_accept(server: HttpLake, path: str, accept: str) -> None:
    query = "SELECT type, (data->>'n')::INTEGER AS n FROM events ORDER BY seq"
    reply = ask(server, query, path, accept)
    assert reply.headers["content-type"].startswith("text/csv")
    table = list(csv.reader(io.StringIO(reply.body.decode())))
    assert table[0] == ["type", "n"]
    assert table[1:] == [["a", str(n)] for n in range(200)] + [["b", "7"]]


def test_ndjson_and_arrow(server: HttpLake) -> None:
    query = "SELECT time, type, seq FROM events ORDER BY seq"
    lines = ask(server, query, "/sql?format=ndjson").body.splitlines()
    reply = ask(server, query, accept="application/vnd.apache.arrow.stream")
    table = pa.ipc.open_stream(reply.body).read_all()
    assert table.num_rows == 201
    assert [json.loads(line)["seq"] for line in lines] == table["seq"].to_pylist()
    assert pa.types.is_timestamp(table.schema.field("time").type)


def test_columns_of_one_name_are_all_there(server: HttpLake) -> None:
    """A join has them, and an object one value of a name: a second one has a number."""
    query = "SELECT 1 AS a, 2 AS a"
    assert rows(ask(server, query)) == [[1, 2]]
    assert ask(server, query, "/sql?format=csv").body == b"a,a\r\n1,2\r\n"
    assert ask(server, query, "/sql?format=ndjson").json == {"a": 1, "a_1": 2}


def test_an_answer_without_rows_has_columns(server: HttpLake) -> None:
    query = "SELECT type FROM events WHERE false"
    assert ask(server, query).json["rows"] == []
    assert ask(server, query, "/sql?format=csv").body == b"type\r\n"
    arrow = ask(server, query, "/sql?format=arrow").body
    assert pa.ipc.open_stream(arrow).read_all().column_names == ["type"]


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
def test_intervals_are_durations(server: HttpLake, form: str) -> None:
    query = "SELECT INTERVAL '1 day 2 hours 0.5 seconds' AS a, [INTERVAL '-1 hour'] AS b"
    body = server.ask(f"/sql?format={form}", query.encode()).body
    assert b"P1DT2H0.5S" in body
    assert b"-PT1H" in body


def test_a_limit_cuts_and_says_so(server: HttpLake) -> None:
    reply = ask(server, {"sql": "SELECT seq FROM events ORDER BY seq", "limit": 3})
    assert (rows(reply), reply.json["truncated"]) == ([[0], [1], [2]], True)
    exact = ask(server, {"sql": "SELECT seq FROM events", "limit": 201})
    assert (exact.json["row_count"], exact.json["truncated"]) == (201, False)
    assert (
        ask(server, "SELECT seq FROM events", "/sql?format=ndjson&limit=2").body.count(b"\n") == 2
    )


def test_an_answer_that_fails_on_the_way_is_broken_off(server: HttpLake) -> None:
    value = "CASE WHEN range = 400000 THEN error('no') ELSE repeat('x', 90) END"
    query = f"SELECT {value} FROM range(500000)"
    with pytest.raises(http.client.IncompleteRead):
        ask(server, query, "/sql?format=csv")


def test_a_long_answer_is_streamed_whole(server: HttpLake) -> None:
    reply = ask(server, "SELECT range AS n FROM range(300000)", "/sql?format=csv")
    assert reply.body.count(b"\n") == 300_001
    assert reply.body.endswith(b"299999\r\n")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", "bad_request"),
        ("{", "bad_request"),
        ('{"query": "SELECT 1"}', "bad_request"),
        ('{"sql": 1}', "bad_request"),
        ('{"sql": "SELECT 1", "params": "x"}', "bad_request"),
        ('{"sql": "SELECT 1", "limit": -1}', "bad_request"),
        (f'{{"sql": "SELECT 1", "limit": "{"9" * 5_000}"}}', "bad_request"),
        ('{"sql": "SELECT 1", "format": "xml"}', "bad_request"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "syntax"),
        ("SELEC 1", "syntax"),
        ("SELECT nothing FROM events", "query_failed"),
        ("SELECT * FROM nothing", "query_failed"),
        ("SELECT $1", "query_failed"),
        ("SELECT 'x'::INTEGER", "query_failed"),
        ("SELECT 1; SELECT 2", "not_a_select"),
        ("DROP TABLE events", "not_a_select"),
        ("SELECT * FROM read_text('/etc/passwd')", "not_allowed"),
        ("SELECT 1 --" + "x" * 300_000, "too_long"),
        ("SELECT search()", "query_failed"),
    ],
    ids=range(19),
)
def test_what_is_wrong_is_said(server: HttpLake, body: str, expected: str) -> None:
    reply = ask(server, body)
    assert reply.status == 400
    assert code(reply) == expected


def test_an_unknown_state_is_404(server: HttpLake) -> None:
    reply = ask(server, {"sql": "SELECT 1", "at": "nowhere"})
    assert (reply.status, code(reply)) == (404, "unknown_ref")


def test_a_query_is_ended_and_others_go_on(server: HttpLake) -> None:
    endless = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    endless.request("POST", "/sql", b"SELECT count(*) FROM range(1000000000000000)")
    assert rows(ask(server, "SELECT count(*) FROM events")) == [[201]]
    response = endless.getresponse()
    assert (response.status, json.loads(response.read())["error"]["code"]) == (400, "time_limit")
    assert rows(ask(server, "SELECT count(*) FROM events")) == [[201]]
    endless.close()


def test_a_client_that_leaves_ends_its_query(server: HttpLake) -> None:
    """Both processes would be busy until their time is over."""
    for _ in range(6):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("POST", "/sql", b"SELECT count(*) FROM range(1000000000000000)")
        connection.close()
    deadline = time.monotonic() + 30
    while b"\nlakelog_queries_running 0.0" not in server.ask("/metrics").body:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_memory_is_bounded(server: HttpLake) -> None:
    reply = ask(server, "SELECT max(repeat('x', 900000000) || range) FROM range(9)")
    assert reply.status == 400
    assert code(reply) in ("memory_limit", "process_ended")
    assert rows(ask(server, "SELECT 1")) == [[1]]


def test_readyz_says_what_confines_queries(server: HttpLake) -> None:
    assert server.ask("/readyz").json["queries_confined_by"] in ("landlock", "engine")


def test_a_server_that_stops_ends_its_queries_with_503(tmp_path: Path) -> None:
    need_module("uvicorn")
    with serving(tmp_path / "lake") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("POST", "/sql", b"SELECT count(*) FROM range(1000000000000000)")
        while b"\nlakelog_queries_running 1.0" not in server.ask("/metrics").body:
            time.sleep(0.05)
        assert server.stop() == 0
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["error"]["code"]) == (
            503,
            "unavailable",
        )
        connection.close()
    assert not [*(tmp_path / "lake/cache").glob("spill-*")]


def test_a_copy_that_is_put_in_its_place_is_asked_by_new_processes(tmp_path: Path) -> None:
    """Those that run are confined to the files of the lake that is gone: whoever asks one of them
    is told to send it again, and not that the query is wrong."""
    need_module("uvicorn")
    path, query = tmp_path / "lake", "SELECT count(*) FROM events"
    with lakelog.open(path) as lake:
        lake.append(EVENTS)
    with serving(path, "--query-workers", "1") as server:
        assert rows(ask(server, query)) == [[200]]
        assert server.ask("/api/counts").json["total"] == 200
        shutil.copytree(path, tmp_path / "copy")
        shutil.rmtree(path)
        (tmp_path / "copy").rename(path)
        for name, body in (("/sql", query.encode()), ("/api/counts", None)):
            assert server.ask(name, body).status in (200, 503)
            assert server.ask(name, body).status == 200
