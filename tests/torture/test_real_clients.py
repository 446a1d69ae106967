"""Clients of others, each killed once and its server once: what was answered with 2xx is stored.

Played only where it is asked for, as it takes half a minute a client: LAKELOG_CLIENTS names them,
separated by commas, or is `all`. See tests/support/real_clients.py for what they need.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.answer_proxy import AnswerProxy
from tests.support.http_lake import HttpLake, serving
from tests.support.real_clients import JAVASCRIPT, MAY_LOSE, PYTHON, Client, is_there
from tests.support.real_daemons import DAEMONS
from tests.support.requirements import give_up, need_module

ASKED = os.environ.get("LAKELOG_CLIENTS", "")
NAMES = [*PYTHON, *JAVASCRIPT, *DAEMONS]
MARK = re.compile(rb"mark-(\d{6})")
PATIENCE = 60 * float(os.environ.get("LAKELOG_TEST_PATIENCE", "1"))


@pytest.mark.parametrize("name", NAMES)
def test_a_client_and_its_server_are_killed(tmp_path: Path, name: str) -> None:
    if ASKED != "all" and name not in ASKED.split(","):
        give_up("LAKELOG_CLIENTS, such as all")
    if not is_there(name):
        give_up(f"{name}, in LAKELOG_CLIENTS_PYTHON or LAKELOG_CLIENTS_NODE")
    need_module("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = tmp_path / "lake"
    with AnswerProxy(port) as proxy:
        client = Client(name, proxy.port, tmp_path)
        with contextlib.closing(client):
            with serving(path, port=port) as server:
                proxy.wait(5, PATIENCE)
                server.kill()
            time.sleep(1)
            away = set(client.sent())
            with serving(path, port=port) as server:
                proxy.wait(5, PATIENCE)
                deadline = time.monotonic() + PATIENCE
                while name not in MAY_LOSE and away - marks_in(proxy.answered):
                    assert time.monotonic() < deadline, away - marks_in(proxy.answered)
                    time.sleep(0.1)
                client.kill()
                proxy.wait(0, PATIENCE)
                # What was in its memory is lost with it.
                unsent = set(client.sent()) - marks_in(proxy.answered)
                client.start()
                proxy.wait(5, PATIENCE)
                client.finish()
                proxy.wait(0, PATIENCE)
                stored = Counter(marks_of(server))
    answered = marks_in(proxy.answered)
    assert len(answered) > 10
    assert not answered - stored.keys()
    # A body that comes again is stored once; a client may put a message into another body.
    bodies = Counter(m for body in set(proxy.bodies) for m in set(MARK.findall(body)))
    assert not {mark: n for mark, n in stored.items() if n > max(bodies[mark], 1)}
    lost = away - stored.keys()
    print(f"{name}: {len(stored)} stored as {stored.total()} events, {len(lost)} lost while away")
    assert not lost or name in MAY_LOSE
    assert not set(client.sent()) - stored.keys() - unsent - lost


def marks_in(bodies: list[bytes]) -> set[bytes]:
    return {mark for body in bodies for mark in MARK.findall(body)}


def marks_of(server: HttpLake) -> Iterator[bytes]:
    """The mark of each event."""
    query = "SELECT coalesce(message, '') || coalesce(data::VARCHAR, '') AS text FROM events"
    for event in server.events(query):
        if mark := MARK.search(event["text"].encode()):
            yield mark[1]
