"""The verb `consume`: once, continuously, its status, and what is wrong in a word."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.errors import LakeNotFound
from tests.support.cli import answer, run
from tests.support.kafka_server import kafka_server
from tests.support.redis_server import RedisServer, free_port, running


@pytest.fixture
def server(home: Path) -> Iterator[RedisServer]:
    with running(RedisServer(home / "redis")) as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    import redis

    client = redis.Redis(port=server.port)
    yield client
    client.close()


def send(client: Any, count: int) -> None:
    for n in range(count):
        client.xadd("st", {"event": json.dumps({"type": "t", "n": n})})


def count(path: Path) -> int:
    try:
        with lakelog.open(str(path), create=False) as lake:
            return lake.count()
    except LakeNotFound:
        return 0


def test_once_and_status(home: Path, server: RedisServer, client: Any) -> None:
    url, lake = f"redis://127.0.0.1:{server.port}/0/st", home / "lake"
    send(client, 20)
    found = answer(lake, "consume", url, "--once")
    assert (found["messages"], found["events"], found["commits"]) == (20, 20, 1)
    assert answer(lake, "consume", url, "--once")["commits"] == 0
    send(client, 3)
    (lag,) = answer(lake, "consume", "status", url)
    assert (lag["stream"], lag["messages"], lag["behind"]) == ("st", 20, 3)


def test_quarantined_messages_fail_once(home: Path, server: RedisServer, client: Any) -> None:
    client.xadd("st", {"event": '{"broken'})
    url = f"redis://127.0.0.1:{server.port}/0/st"
    said = run(home / "lake", "consume", url, "--once", code=1)
    assert "1 quarantined (lakelog quarantine list)" in said.stderr
    assert run(home / "lake", "consume", url, "--once").stdout == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_continuous_until_a_signal(
    home: Path, server: RedisServer, client: Any, number: signal.Signals
) -> None:
    lake, url = home / "lake", f"redis://127.0.0.1:{server.port}/0/st"
    send(client, 20)
    command = [sys.executable, "-m", "lakelog", "--lake", str(lake), "consume", url]
    with subprocess.Popen([*command, "--every", "50ms"], stderr=subprocess.PIPE) as process:
        for wanted in (20, 25):
            until = time.monotonic() + 240
            while count(lake) != wanted:
                assert time.monotonic() < until
                time.sleep(0.05)
            if wanted == 20:
                send(client, 5)
        process.send_signal(number)
        assert process.wait(240) == 0
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def test_kafka(home: Path) -> None:
    with kafka_server() as server:
        producer = server.client("Producer")
        for n in range(10):
            producer.produce("st", json.dumps({"type": "t", "n": n}))
        assert producer.flush(240) == 0
        found = answer(home / "lake", "consume", f"kafka://{server.hosts}/st", "--once")
        assert found["events"] == 10
        lags = answer(home / "lake", "consume", "status", f"kafka://{server.hosts}/st")
        assert sum(lag["behind"] for lag in lags) == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["redis://localhost/st"], 2, "redis://HOST:PORT/DB/STREAM"),
        (["rabbit://localhost/st"], 2, "a source is kafka://"),
        (["a", "b"], 2, "one source is needed"),
        (["status"], 2, "one source is needed"),
        (["kafka://user:secret@localhost/t"], 2, "see --config"),
        (["kafka://localhost/t", "--config", "none.conf"], 2, "No such file"),
        (["redis://localhost/0/st", "--config", "none.conf"], 2, "REDIS_PASSWORD"),
        (["redis://localhost/0/st", "--batch", "0"], 2, "0 is not in the range"),
    ],
)
def test_a_mistake_is_one_line(home: Path, words: list[str], code: int, said: str) -> None:
    result = run(home / "lake", "consume", *words, code=code)
    assert said in result.stderr
    assert "secret" not in result.stderr
    assert not (home / "lake").exists()


def test_server_that_is_away(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0/st"
    result = run(home / "lake", "consume", url, "--once", code=1)
    assert "is the server running" in result.stderr
