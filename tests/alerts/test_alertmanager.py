"""With the real Alertmanager: it takes our alerts, and a lake stores what it sends; promtool has no
remark on the figures of a server."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeLake
from tests.support.alert_lake import MINUTE, watched
from tests.support.http_lake import HttpLake, lines, serving
from tests.support.redis_server import free_port

CONFIGURATION = """
route: {receiver: lake, group_by: [alertname], group_wait: 10ms, group_interval: 100ms}
receivers:
- name: lake
  webhook_configs: [{url: "http://127.0.0.1:%d/ingest/alertmanager", send_resolved: true}]
"""


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HttpLake]:
    with serving(tmp_path / "served") as each:
        yield each


@pytest.mark.needs("prometheus-alertmanager", "amtool")
def test_alertmanager_takes_alerts_and_a_lake_what_it_sends(
    make_lake: MakeLake, server: HttpLake, tmp_path: Path
) -> None:
    """Firing and resolved, both ways; `amtool` shows an alert as long as it fires, also after a
    restart, over which Alertmanager forgets it."""
    port = free_port()
    config = tmp_path / "alertmanager.yml"
    config.write_text(CONFIGURATION % server.port)
    command = ["prometheus-alertmanager", f"--config.file={config}"]
    command += [f"--storage.path={tmp_path / 'alertmanager'}", "--cluster.listen-address="]
    command += [f"--web.listen-address=127.0.0.1:{port}"]

    def active() -> list[Any]:
        query = ["amtool", f"--alertmanager.url=http://127.0.0.1:{port}", "alert", "-o", "json"]
        answer = subprocess.run(query, capture_output=True, text=True)
        return list(json.loads(answer.stdout)) if answer.returncode == 0 else ["not started"]

    def stored() -> list[str]:
        return [json.loads(event["data"])["status"] for event in server.events()]

    with contextlib.ExitStack() as stack:

        def started() -> subprocess.Popen[bytes]:
            process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            stack.callback(process.kill)
            return process

        process = started()
        wait_for(lambda: active() == [])
        with watched(make_lake()) as alerts:
            alerts.time -= 60 * MINUTE  # what ends in the future has not ended
            alerts.add(sinks=(f"alertmanager+http://127.0.0.1:{port}",), labels={"team": "a"})
            alerts.errors(2)
            alerts.round()
            (alert,) = active()
            labels = {"alertname": "r", "severity": "warning", "source": "web", "team": "a"}
            assert alert["labels"] == labels
            assert alert["annotations"]["summary"] == "value 2 > 0"
            wait_for(lambda: stored() == ["firing"])
            process.kill()
            process.wait()
            started()
            wait_for(lambda: active() == [])
            alerts.round(MINUTE)
            assert [each["startsAt"] for each in active()] == [alert["startsAt"]]
            alerts.round(20 * MINUTE)
            assert active() == []
            wait_for(lambda: stored() == ["firing", "resolved"])
    assert {event["source"] for event in server.events()} == {"alertmanager"}


@pytest.mark.needs("promtool")
def test_figures_of_a_server_are_as_prometheus_wants_them(server: HttpLake) -> None:
    """Names, units and help; `promtool` has no remark."""
    server.ask("/ingest", lines({"type": "a"}) + b"oops\n")
    figures = server.ask("/metrics").body
    assert b"lakelog_alert_rules 0.0\n" in figures
    check = subprocess.run(["promtool", "check", "metrics"], input=figures, capture_output=True)
    assert (check.returncode, check.stdout, check.stderr) == (0, b"", b"")
