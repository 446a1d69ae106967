"""librdkafka's mock cluster in a process of its own, so that tests can stop and kill it.

It speaks Kafka's protocol over TCP and trims partitions beyond 5 MB. It has no persistence, no
authentication, no admin requests, and ignores what read_committed and fencing ask for.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from tests.support.requirements import need_module

PARTITIONS = 4
"""Partitions of each topic; the first message creates it."""
_CLUSTER = """
import sys, confluent_kafka
from tests.support.requirements import need_module
owner = confluent_kafka.Producer(
    {"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0}
)
brokers = owner.list_topics(timeout=240).brokers.values()
print(",".join(f"{b.host}:{b.port}" for b in brokers), flush=True)
sys.stdin.read()
"""


class KafkaServer:
    """A running cluster of one broker."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", _CLUSTER]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout is not None
        self.hosts = self.process.stdout.readline().decode().strip()
        assert self.hosts

    def client(self, kind: str, **settings: Any) -> Any:
        """A client of its own, apart from lakelog's."""
        import confluent_kafka

        settings = {"bootstrap.servers": self.hosts, "log_level": 0, **settings}
        return getattr(confluent_kafka, kind)(settings)

    def stop(self) -> None:
        """Kill it: nothing is said to its clients."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@contextlib.contextmanager
def kafka_server() -> Iterator[KafkaServer]:
    """A cluster for the time of a block."""
    need_module("confluent_kafka")
    server = KafkaServer()
    try:
        yield server
    finally:
        if server.process.returncode is None:
            server.stop()
