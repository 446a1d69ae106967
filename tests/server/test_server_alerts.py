"""Alerts of a served lake: the server evaluates, and answers about them whoever may ask."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lakelog
from lakelog.server.tokens import TokenFile, TokenScope
from tests.support.alert_receivers import http_receiver
from tests.support.cli import run
from tests.support.http_lake import HttpLake, lines, serving

JSON = {"content-type": "application/json"}


def post(server: HttpLake, path: str, **body: Any) -> tuple[int, Any]:
    reply = server.ask(path, json.dumps(body).encode(), JSON)
    return reply.status, reply.json


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_server_evaluates_rules_and_answers_about_them(tmp_path: Path) -> None:
    """One that is added over HTTP, beside a run of cron's; what was told is not told again."""
    lake = tmp_path / "lake"
    with http_receiver() as hook, serving(lake) as server:
        rule = {
            "search": "level>=ERROR",
            "above": 1,
            "by": ["source"],
            "every": "1s",
            "sinks": [hook.url],
        }
        status, answer = post(server, "/api/alerts/test", rule=rule)
        assert (status, answer["rows"]) == (200, 0)
        assert post(server, "/api/alerts/add", name="e", rule=rule) == (
            200,
            {"name": "e", "remark": ""},
        )
        assert post(server, "/api/alerts/add", name="e", rule=rule)[0] == 409
        assert post(server, "/api/alerts/add", name="f", rule={"query": "SELEC"})[0] == 400
        server.ask("/ingest", lines(*[{"type": "x", "source": "web", "level": "ERROR"}] * 2))
        wait_for(lambda: hook.received)
        (fired,) = hook.received
        assert fired.body["link"].startswith(f"http://127.0.0.1:{server.port}/#/explore?q=")
        assert "another process evaluates" in run(lake, "alerts", "run", "--once").stderr
        overview = server.ask("/api/alerts").json
        assert overview["evaluated"] is True
        assert [(r["name"], r["state"]) for r in overview["rules"]] == [("e", "firing")]
        assert overview["alerts"][0]["labels"] == {"source": "web"}
        entries = server.ask("/api/alerts/history?name=e").json["entries"]
        assert [entry["event"] for entry in entries][:1] == ["change"]
        silence = post(server, "/api/alerts/silence", matchers=["rule=e"], **{"for": "1h"})[1]
        assert post(server, "/api/alerts/unsilence", id=silence["id"])[0] == 200
        assert post(server, "/api/alerts/remove", name="e") == (200, {"resolved": 1})
        assert post(server, "/api/alerts/remove", name="e")[0] == 404
        wait_for(lambda: len(hook.received) == 2)
        assert hook.received[1].body["reason"] == "the rule was removed"
        assert server.stop() == 0
    assert [one.body["state"] for one in hook.received] == ["firing", "resolved"]


def test_rules_are_read_and_changed_by_those_who_may(tmp_path: Path) -> None:
    """`read` looks, `admin` changes; nobody names a program or a file of the server."""
    lake = tmp_path / "lake"
    lakelog.open(lake).close()
    tokens = TokenFile(str(lake))
    reader = tokens.add("reader", frozenset({TokenScope.READ}))
    admin = tokens.add("admin", frozenset({TokenScope.ADMIN}))
    rule = {"search": "x", "above": 1}
    with serving(lake) as server:
        assert server.ask("/api/alerts").status == 401
        server.sent = {"authorization": f"Bearer {reader}"}
        assert server.ask("/api/alerts").status == 200
        assert post(server, "/api/alerts/add", name="a", rule=rule)[0] == 403
        server.sent = {"authorization": f"Bearer {admin}"}
        assert post(server, "/api/alerts/add", name="a", rule={**rule, "sinks": ["command:x"]}) == (
            400,
            {
                "error": "commands, and secrets of files and variables, are added with"
                " `lakelog alerts add`"
            },
        )
        assert post(server, "/api/alerts/add", name="a", rule=rule)[0] == 200


def test_rules_are_evaluated_once_the_disk_allows_it(tmp_path: Path) -> None:
    """What hinders the evaluation, such as a full disk, ends it for no longer than it lasts."""
    lake = tmp_path / "lake"
    lakelog.open(lake).close()
    (lake / "cache").mkdir(exist_ok=True)
    obstacle = lake / "cache" / "alerts"
    obstacle.write_text("no directory")
    with serving(lake) as server:
        rule = {"search": "x", "above": 1}
        assert post(server, "/api/alerts/add", name="e", rule=rule)[0] == 200
        obstacle.unlink()
        wait_for(lambda: server.ask("/api/alerts").json.get("evaluated"))
        assert server.stop() == 0
