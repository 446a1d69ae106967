"""A server that is killed again and again, under senders that retry and readers that come back.

Every event that was acknowledged is there once, and every reader has seen each once.
LAKELOG_SERVER_KILLS sets how often it is killed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.support.http_lake import HttpLake, lines, serving
from tests.support.live_tail import StreamClient
from tests.support.requirements import need_module

KILLS = int(os.environ.get("LAKELOG_SERVER_KILLS", "3"))
SEED = int(os.environ.get("LAKELOG_SERVER_SEED", "1"))
SENDERS, READERS = 16, 2
LOST = (OSError, http.client.HTTPException)


class Sender(threading.Thread):
    """Sends one request after the other, each until it is answered with 200."""

    def __init__(self, port: int, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.number, self.stop = port, number, stop
        self.acknowledged: list[str] = []
        self.retries = 0

    def run(self) -> None:
        rng, count = random.Random(f"{SEED} {self.number}"), 0
        while not self.stop.is_set():
            names = [f"{self.number}.{count + place}" for place in range(rng.randrange(1, 6))]
            count += len(names)
            # All retry in the end, too: a request that was sent may be stored.
            while not self._is_stored(lines(*({"data": {"n": name}} for name in names))):
                self.retries += 1
                time.sleep(0.02)
            self.acknowledged += names

    def _is_stored(self, body: bytes) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection), contextlib.suppress(*LOST):
            connection.request("POST", "/ingest", body)
            with connection.getresponse() as response:
                return response.status == 200
        return False


class Reader(threading.Thread):
    """Follows the lake, goes away now and then, and comes back with its position alone."""

    def __init__(self, port: int, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.stop = port, stop
        self.random = random.Random(f"{SEED} reader {number}")
        self.numbers: list[str] = []

    def run(self) -> None:
        position = "beginning"
        while not self.stop.is_set():
            try:
                client = StreamClient(self.port, after=position)
            except LOST:
                time.sleep(0.02)
                continue
            with contextlib.closing(client):
                until = time.monotonic() + self.random.random() * 3
                for event in client.events() if client.status == 200 else ():
                    assert event.name in ("", "behind"), event
                    if not event.name:
                        self.numbers.append(event.content["data"]["n"])
                    position = event.position
                    if time.monotonic() > until or self.stop.is_set():
                        break


def test_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    need_module("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rng, stop, read = random.Random(SEED), threading.Event(), threading.Event()
    senders = [Sender(port, number, stop) for number in range(SENDERS)]
    readers = [Reader(port, number, read) for number in range(READERS)]
    for thread in (*senders, *readers):
        thread.start()
    path = tmp_path / "lake"
    for _ in range(KILLS):
        with serving(path, port=port) as server:
            time.sleep(rng.random())
            server.kill()
    with serving(path, port=port) as server:
        stop.set()
        for sender in senders:
            sender.join()
        acknowledged = sorted(name for sender in senders for name in sender.acknowledged)
        stored = sorted(numbers(server))
        assert stored == acknowledged
        # Readers may be far behind: they have a minute for each thousand events, not for all.
        until = time.monotonic() + 60 * (1 + len(stored) // 1_000)
        while any(len(r.numbers) < len(stored) for r in readers) and time.monotonic() < until:
            time.sleep(0.05)
        read.set()
        for reader in readers:
            assert sorted(reader.numbers) == stored
    assert sum(sender.retries for sender in senders) > 0


def numbers(server: HttpLake) -> list[str]:
    return [json.loads(event["data"])["n"] for event in server.events()]


def test_a_signal_while_it_starts_ends_the_server(tmp_path: Path) -> None:
    """One that comes once it is heard, and before there is a server to end."""
    need_module("uvicorn")
    command = [sys.executable, "-m", "lakelog", "--lake", str(tmp_path / "lake"), "serve"]
    with subprocess.Popen([*command, "--port", "0"], stderr=subprocess.DEVNULL) as process:
        status, caught = Path(f"/proc/{process.pid}/status"), 0
        while not caught >> (signal.SIGTERM - 1) & 1:
            caught = int(status.read_text().split("SigCgt:")[1].split()[0], 16)
        process.terminate()
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
