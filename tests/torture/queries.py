"""SQL of others, sent to a server by every way in: none gets out of a query, none stops others."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlencode

import lakelog
from tests.support.http_lake import HttpLake, serving
from tests.support.requirements import lacking
from tests.support.sql_escapes import ESCAPES, HOGS
from tests.torture.case import Case, Row

SECRET = "a-secret-that-no-query-may-read"
_ESCAPES, _HOGS = 20, 4
"""How many are in a case."""
_SECONDS, _SLACK = 2, 8
"""The limit of a query, and what a busy machine may add to it."""


def escapes(case: Case) -> None:
    """Send escapes as SQL, in JSON, to an agent's tool, as condition of a tail, and as texts
    in LogQL; nothing is read or written, and the lake is whole."""
    chosen = ESCAPES[case.number * _ESCAPES :][: case.some(_ESCAPES)]
    path = _lake(case)
    with serving(path, "--query-seconds", "5", "--query-memory", "700") as server:
        assert _count(server) == 100
        files = set(case.place.rglob("*"))  # the server has made the folders that it needs
        for escape in chosen:
            text = _spelled(escape, path)
            for how, answer in _answers(server, text):
                assert SECRET not in answer, f"{how}: {text!r} gave the secret"
                case.verified()
        assert _count(server) == 100
        assert server.stop() == 0
    made = {file for file in set(case.place.rglob("*")) - files if "cache" not in file.parts}
    assert not [file for file in made if "wal" not in file.parts], made
    with lakelog.open(path, create=False) as lake:
        lake.verify().require()
        assert lake.count() == 100


def hogs(case: Case) -> None:
    """Send queries that would take all there is: each ends within its limit, others go on."""
    path = _lake(case)
    limits = ("--query-seconds", str(_SECONDS), "--query-memory", "700", "--query-workers", "2")
    with serving(path, *limits) as server:
        _count(server)
        for hog in HOGS[case.number * _HOGS :][: case.some(_HOGS)]:
            answered = list[tuple[int, bytes, float]]()
            thread = threading.Thread(target=_send, args=(server, hog, answered))
            thread.start()
            while thread.is_alive():
                started_at = time.monotonic()
                assert _count(server) == 100
                assert time.monotonic() - started_at < _SLACK, f"{hog}: others waited"
                thread.join(0.05)
            ((status, body, seconds),) = answered
            assert seconds < _SECONDS + _SLACK, f"{hog}: {seconds:.1f} s"
            assert status in (0, 200, 400), f"{hog}: {status} {body[:200]!r}"
            if status == 200:  # it was cheaper than it looks, and whole
                json.loads(body)
            case.verified(status != 200)
        assert server.stop() == 0
    assert not [*(path / "cache").glob("spill-*")]


def described(case: Case) -> None:
    """Send what schemathesis makes of the document of the server: nothing is a fault of it."""
    path = _lake(case)
    with serving(path, "--query-seconds", "5", "--query-memory", "700") as server:
        url = f"http://127.0.0.1:{server.port}/openapi.json"
        options = ["--exclude-path", "/tail", "--exclude-path", "/mcp", "--no-color"]
        options += ["--checks", "not_a_server_error", "--seed", str(case.start)]
        options += ["--max-examples", str(case.some(20))]
        process = subprocess.run(["st", "run", url, *options], capture_output=True, text=True)
        passed = re.search(r"(\d+) generated, (\d+) passed", process.stdout)
        assert passed is not None, process.stdout[-2_000:]
        assert passed[1] == passed[2], process.stdout[-4_000:]
        assert _count(server) >= 100
    case.verified(int(passed[1]), int(passed[1]))


def _lake(case: Case) -> Path:
    path = case.place / "lake"
    with lakelog.open(path) as lake:
        lake.append([{"type": "a", "source": "s", "data": {"n": n}} for n in range(100)])
        lake.settle()
    (case.place / "secret.csv").write_text(f"{SECRET}\n")
    return path


def _spelled(statement: str, path: Path) -> str:
    segment = next((path / "segments").rglob("*.parquet"))
    names = {"secret": path.parent / "secret.csv", "out": path.parent / "out", "lake": path}
    for name, value in {**names, "segment": segment}.items():
        statement = statement.replace(f"{{{name}}}", str(value))
    return statement


def _answers(server: HttpLake, text: str) -> Iterator[tuple[str, str]]:
    """Yield each way in with what it answers; SQL and conditions have to be refused."""
    sent = {
        "text": server.ask("/sql?format=csv", text.encode("utf-8", "replace")),
        "JSON": server.ask("/sql", json.dumps({"sql": text}).encode()),
        "subquery": server.ask("/sql", f"SELECT * FROM ({text}) AS t".encode()),
    }
    for way, reply in sent.items():
        assert reply.status == 400, f"{way}: {text!r} is answered with {reply.status}"
        yield way, _without_query(reply.body, text)
    if find_spec("mcp"):
        call = {"name": "sql", "arguments": {"query": text}}
        request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
        headers = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": "2025-06-18",
        }
        reply = server.ask("/mcp", json.dumps(request).encode(), headers)
        assert reply.json["result"]["isError"], f"an agent: {text!r} is answered"
        yield "agent", _without_query(reply.body, text)
    reply = server.ask("/tail?" + urlencode({"where": text, "after": "beginning"}))
    assert reply.status == 400, f"a tail: {text!r} is answered with {reply.status}"
    yield "tail", _without_query(reply.body, text)
    quoted = json.dumps(text)
    for query in (
        f"{{app={quoted}}}",
        f'{{source="s"}} |= {quoted}',
        f'{{source="s"}} | json x={quoted}',
        f'{{source="s"}} | line_format {quoted}',
        f'sum by (x) (count_over_time({{source="s"}} | label_format x={quoted} [1h]))',
        f"{{source=~{quoted}}} !~ {quoted}",
    ):
        reply = server.ask(f"/loki/api/v1/query_range?{urlencode({'query': query})}")
        assert reply.status in (200, 400), f"{query!r} is answered with {reply.status}"
        yield "LogQL", _without_query(reply.body, text)
    label = urlencode({"x": text})[2:].replace("+", "%20").replace("%2F", "_")
    reply = server.ask(f"/loki/api/v1/label/{label}/values")
    assert reply.status in (200, 400, 404), f"label {text!r} is answered with {reply.status}"
    yield "label", _without_query(reply.body, text)


def _without_query(body: bytes, text: str) -> str:
    """An answer without what was asked, which has the path of the secret and not the secret."""
    return body.decode("utf-8", "replace").replace(text, "")


def _count(server: HttpLake) -> int:
    reply = server.ask("/sql", b"SELECT count(*) FROM events")
    assert reply.status == 200, reply.body
    return int(reply.json["rows"][0][0])


def _send(server: HttpLake, hog: str, answered: list[tuple[int, bytes, float]]) -> None:
    started_at = time.monotonic()
    try:
        reply = server.ask("/sql?limit=10", hog.encode(), timeout=60)
        status, body = reply.status, reply.body
    except http.client.HTTPException as error:  # broken off, so that nobody takes it for whole
        status, body = 0, str(error).encode()
    answered.append((status, body, time.monotonic() - started_at))


def _missing() -> str:
    return "" if find_spec("uvicorn") else "it needs the extra server"


def _missing_client() -> str:
    return _missing() or lacking("schemathesis")


ROWS = [
    Row("escapes", "SQL that would escape", 1_000, 1_000, 60, escapes,
        cases=-(-len(ESCAPES) // _ESCAPES), missing=_missing),
    Row("hogs", "queries without end", len(HOGS) // 2, len(HOGS) // 2, 90, hogs,
        cases=-(-len(HOGS) // _HOGS), missing=_missing),
    Row("openapi", "calls by OpenAPI", 1_000, 5_000, 60, described,
        missing=_missing_client),
]  # fmt: skip
