"""A proxy before librdkafka's mock cluster that gives it what it lacks: a controller and topic ids.

Only answers to Metadata are changed (https://kafka.apache.org/protocol.html#The_Messages_Metadata):
the port of the one broker, so that clients stay here, the controller, and the ids of topics.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

_METADATA, _WITH_IDS = 3, 10
"""A request, and the version from which on its answer has ids of topics."""


class KafkaProxy:
    """Passes requests to a cluster of one broker; `topic_id` is that of every topic."""

    def __init__(self, hosts: str) -> None:
        self._port = int(hosts.rpartition(":")[2])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.hosts = f"127.0.0.1:{self.port}"
        self.topic_id = bytes(16)
        self.has_controller = True
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        for connection in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with self._listener, contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [client, server]
                asked = set[int]()
                for source, sink, is_answer in ((client, server, False), (server, client, True)):
                    arguments = (source, sink, is_answer, asked)
                    thread = threading.Thread(target=self._pass, args=arguments)
                    self._threads.append(thread)
                    thread.start()

    def _pass(
        self, source: socket.socket, sink: socket.socket, is_answer: bool, asked: set[int]
    ) -> None:
        with source, contextlib.suppress(OSError, struct.error), source.makefile("rb") as stream:
            while length := stream.read(4):
                message = stream.read(*struct.unpack(">i", length))
                if is_answer:
                    (number,) = struct.unpack_from(">i", message)
                    if number in asked:
                        message = self._changed(message)
                else:
                    api, version, number = struct.unpack_from(">hhi", message)
                    if api == _METADATA and version >= _WITH_IDS:
                        asked.add(number)
                sink.sendall(struct.pack(">i", len(message)) + message)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def _changed(self, message: bytes) -> bytes:
        changed = bytearray(message)
        place, node = 4 + 1 + 4, 0  # after number, tags and throttle time
        for _ in range(changed[place] - 1):
            (node,) = struct.unpack_from(">i", changed, place + 1)
            place += 1 + 4
            place += changed[place]  # the host, whose length is one less
            struct.pack_into(">i", changed, place, self.port)
            place += 4
            place += max(1, changed[place])  # the rack; its tags are an empty byte, as is the next
        place += 1
        place += max(1, changed[place])  # the cluster's id
        if self.has_controller:
            struct.pack_into(">i", changed, place, node)
        place += 4
        if changed[place] == 2:  # one topic
            place += 1 + 2
            place += changed[place]
            changed[place : place + 16] = self.topic_id
        return bytes(changed)


@contextlib.contextmanager
def kafka_proxy(hosts: str) -> Iterator[KafkaProxy]:
    """A proxy for the time of a block."""
    proxy = KafkaProxy(hosts)
    try:
        yield proxy
    finally:
        proxy.close()
