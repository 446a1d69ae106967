"""What shippers ask before they send: as they are started, and what they need to begin."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import lakelog
from tests.support.http_lake import HttpLake, serving
from tests.support.requirements import MOUNTS, need_module

PRODUCT = "x-elastic-product"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpLake]:
    need_module("uvicorn")
    with serving(tmp_path_factory.mktemp("probes") / "lake") as each:
        yield each


BEATS = """HEAD /
GET /_license
GET /_ilm/policy/filebeat
HEAD /_index_template/filebeat-8.17.0
GET /_data_stream/filebeat-8.17.0
GET /_ingest/pipeline/filebeat-8.17.0-system-syslog-pipeline"""
LOGSTASH = """HEAD /
GET /
GET /_license
HEAD /_index_template/ecs-logstash
HEAD /_template/logstash
HEAD /logstash
HEAD /_ilm/policy/logstash-policy"""
VECTOR = """GET /_cluster/health
GET /ready"""
RSYSLOG = "HEAD /_cat/health"
GRAFANA = "GET /loki/api/v1/status/buildinfo"


@pytest.mark.parametrize("asked", [BEATS, LOGSTASH, VECTOR, RSYSLOG, GRAFANA])
def test_shippers_find_what_they_look_for(server: HttpLake, asked: str) -> None:
    for line in asked.splitlines():
        method, path = line.split()
        reply = server.ask(path, method=method)
        assert reply.status == 200, line
        assert not reply.body or reply.json, line
        assert PRODUCT in reply.headers or "/_" not in path, line


def test_what_is_put_is_not_said_to_be_kept(server: HttpLake) -> None:
    """On one connection, with a body that nobody reads: what is sent next is read as a request."""
    template = json.dumps({"mappings": {"properties": {f"f{n}": {} for n in range(90_000)}}})
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        for path in ("/_index_template/a", "/_template/a", "/_ilm/policy/a", "/_ingest/pipeline/a"):
            connection.request("PUT", path, template)
            reply = connection.getresponse()
            assert (reply.status, json.loads(reply.read())) == (200, {"acknowledged": False})
        connection.request("GET", "/_ilm/policy/a")
        assert json.loads(connection.getresponse().read())["a"]["policy"] == {"phases": {}}


@pytest.mark.parametrize("path", ["/_xpack", "/_nodes/http", "/_unknown/x", "/a/b"])
def test_what_is_not_there_is_not_found(server: HttpLake, path: str) -> None:
    assert server.ask(path).status == server.ask(path, method="HEAD").status == 404


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [("GET /ingest", "OPTIONS, POST"), ("DELETE /a/_bulk", "POST, PUT"), ("POST /", "GET, HEAD")],
)
def test_a_path_says_which_methods_it_has(server: HttpLake, asked: str, allowed: str) -> None:
    method, path = asked.split()
    reply = server.ask(path, method=method)
    assert (reply.status, reply.headers["allow"]) == (405, allowed)


def test_a_sender_of_cloud_events_is_given_consent(server: HttpLake) -> None:
    """As the specification of webhooks has it, before the first event."""
    asked = {"WebHook-Request-Origin": "eventemitter.example.com", "WebHook-Request-Rate": "120"}
    for path in ("/ingest", "/ingest/azure"):
        reply = server.ask(path, None, asked, method="OPTIONS")
        assert (reply.status, reply.headers["allow"]) == (200, "POST")
        assert reply.headers["webhook-allowed-origin"] == "eventemitter.example.com"
        assert reply.headers["webhook-allowed-rate"] == "*"
        # Pages of other origins learn nothing that would let them send.
        foreign = {"origin": "http://evil.example", "access-control-request-method": "POST"}
        assert server.ask(path, None, foreign, method="OPTIONS").status == 403
    assert server.ask("/ingest", None, method="OPTIONS").headers["webhook-allowed-origin"] == "*"


@pytest.mark.needs(MOUNTS)
def test_a_server_whose_disk_is_full_is_not_ready(tmp_path: Path) -> None:
    """Nor healthy, in the words of others; it is again once there is room."""
    need_module("uvicorn")
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(tmp_path)]
    subprocess.run(mount, check=True)
    try:
        with serving(tmp_path / "lake") as server:

            def asked() -> list[int]:
                return [server.ask(path).status for path in ("/readyz", "/_cluster/health")]

            assert asked() == [200, 200]
            filler = tmp_path / "filler"
            with contextlib.suppress(OSError):
                filler.write_bytes(bytes(16 << 20))
            assert asked() == [503, 503]
            assert server.ask("/_cluster/health").json["status"] == "red"
            filler.unlink()
            assert asked() == [200, 200]
            assert server.stop() == 0
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_server_whose_lake_was_replaced_is_not_ready(tmp_path: Path) -> None:
    """A backup was put in its place while it runs: it says so, and that it has to be restarted."""
    need_module("uvicorn")
    with serving(tmp_path / "lake") as server:
        assert server.ask("/ingest", b'{"type":"before"}').status == 200
        with lakelog.open(tmp_path / "lake") as lake:
            lake.backup(tmp_path / "copy")
        (tmp_path / "lake").rename(tmp_path / "old")
        (tmp_path / "copy").rename(tmp_path / "lake")
        answer = server.ask("/ingest", b'{"type":"after"}')
        assert (answer.status, "open it again" in answer.json["error"]) == (503, True)
        assert server.ask("/readyz").status == 503
