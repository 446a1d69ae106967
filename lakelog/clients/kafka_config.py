"""How to reach Kafka: `kafka://HOST:PORT[,HOST2:PORT]/TOPIC`, and settings by librdkafka's names.

They come from a properties file (`--config FILE`, or the one that KAFKA_CONFIG names) and from
variables such as KAFKA_SASL_PASSWORD for `sasl.password`. Nothing of them is in an address or a
message.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from lakelog.clients.address import Address
from lakelog.clients.connection import ConnectionLost
from lakelog.errors import InvalidSetting, LakelogError, MissingPackage, SyncRefused, Unreachable
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    from confluent_kafka import KafkaError
    from confluent_kafka.admin import AdminClient

kafka = Lazy("confluent_kafka")
admin = Lazy("confluent_kafka.admin")
_VARIABLES = """security.protocol sasl.mechanism sasl.username sasl.password ssl.ca.location
    ssl.certificate.location ssl.key.location ssl.key.password""".split()
_SECRET = re.compile("password|secret|passphrase|key.pem|jaas")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d{1,5})?")
_TOPIC = re.compile(r"[\w.-]{1,249}")
_REFUSED = ("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "_SSL", "ILLEGAL_SASL_STATE")


@dataclass(frozen=True)
class KafkaConfig:
    """Where a topic is, and the settings of clients."""

    hosts: str
    topic: str
    settings: Mapping[str, str] = field(repr=False)
    TIMEOUT: ClassVar = 10.0
    """Seconds that a server may take for an answer."""

    @classmethod
    def read(cls, url: str, file: str | None = None) -> KafkaConfig:
        """Return the configuration. Raises InvalidSetting, which does not repeat the URL."""
        # Not by `Address`: several hosts, each with a port, and no user.
        hosts, slash, topic = url.partition("://")[2].partition("/")
        if not slash or not all(map(_HOST.fullmatch, hosts.split(","))):
            raise InvalidSetting(
                "a topic of Kafka is kafka://HOST:PORT/TOPIC or kafka://HOST:PORT,HOST2:PORT/TOPIC;"
                " user and password stand in a file: see --config"
            )
        if not _TOPIC.fullmatch(topic):
            raise InvalidSetting("the name of a topic has letters, digits, dots, _ and - alone")
        settings = _properties(file or os.environ.get("KAFKA_CONFIG", ""))
        for name in _VARIABLES:
            if value := os.environ.get("KAFKA_" + name.replace(".", "_").upper()):
                # The file was named on purpose, so that it comes before the environment.
                settings.setdefault(name, value)
        return cls(hosts, topic, settings)

    @property
    def address(self) -> str:
        """Hosts and topic, for messages."""
        return f"kafka://{self.hosts}/{self.topic}"

    def client(self, role: str, **settings: object) -> KafkaClient:
        """Return a client of a class of confluent_kafka. Raises MissingPackage, InvalidSetting."""
        return KafkaClient(self, role, settings)

    def administrator(self) -> AdminClient:
        """Return a client of confluent_kafka that asks a cluster for what no consumer does."""
        settings = {"bootstrap.servers": self.hosts, "log_level": 0}
        client: AdminClient = admin.AdminClient({**self.settings, **settings})
        return client

    def hide(self, message: str) -> str:
        """Return words without any secret of the settings, on one line."""
        secrets = [value for name, value in self.settings.items() if _SECRET.search(name)]
        return " ".join(Address.without_secrets(message, secrets).split())


class KafkaClient:
    """A consumer or producer, and what its threads report of the connection."""

    def __init__(self, config: KafkaConfig, role: str, settings: Mapping[str, object]) -> None:
        self._config = config
        self._fault: KafkaError | None = None
        self._mutex = threading.Lock()
        with MissingPackage.unless("kafka", "Kafka is reached by confluent-kafka"):
            make = getattr(kafka, role)
        # Its own lines on stderr would say what the error says again.
        properties = {"log_level": 0, "client.id": "lakelog", **config.settings}
        try:
            self.raw: Any = make(
                {
                    **properties,
                    **settings,
                    "bootstrap.servers": config.hosts,
                    # Reported by threads: what a call raises is often only that it timed out.
                    "error_cb": self._note,
                }
            )
        except kafka.KafkaException as error:
            reason = config.hide(error.args[0].str())
            raise InvalidSetting(f"the settings of Kafka: {reason}") from None

    def metadata(self, topic: str) -> tuple[Any, Any]:
        """What the cluster says of itself, and of a topic: None where there is no such topic.
        Raises ConnectionLost, Unreachable, SyncRefused."""
        try:
            cluster = self.raw.list_topics(topic, timeout=KafkaConfig.TIMEOUT / 2)
        except kafka.KafkaException as error:
            # What its threads reported is delivered here. A message that comes instead is of no
            # matter: this client is given up.
            with contextlib.suppress(kafka.KafkaException, RuntimeError):
                self.raw.poll(0)
            raise self.failure(error.args[0]) from None
        described = cluster.topics.get(topic)
        fault = described.error if described is not None else None
        # UNKNOWN_TOPIC_OR_PART of a broker, or _UNKNOWN_TOPIC of the client.
        if fault and "UNKNOWN_TOPIC" not in fault.name():
            raise self.failure(fault)
        return cluster, None if fault else described

    def close(self) -> None:
        """End the client's threads now; never raises."""
        # Closed or half made, the client raises its own errors.
        raw, self.raw = self.raw, None
        with contextlib.suppress(kafka.KafkaException, RuntimeError, AttributeError):
            raw.close()

    def check(self) -> None:
        """Raise what a thread of the client has reported since: see `failure`."""
        with self._mutex:
            # Told once: what comes next may be another fault.
            fault, self._fault = self._fault, None
        if fault is not None:
            raise self.failure(fault)

    def failure(self, error: KafkaError) -> LakelogError:
        """The error that says in one line what is wrong: Unreachable where user, password or
        certificate is refused, ConnectionLost where another attempt may help, else SyncRefused."""
        address, hidden = self._config.address, self._config.hide
        with self._mutex:
            # The reason was reported by a thread before the call that it kept waiting ended.
            error = self._fault if self._fault is not None else error
        if _is_refusal(error):
            return Unreachable(
                f"{address} refuses us: {hidden(error.str())};"
                " see security.protocol, sasl.* and ssl.* in --config"
            )
        is_down = error.retriable() or error.name() in (
            "_TRANSPORT",
            "_TIMED_OUT",
            "_ALL_BROKERS_DOWN",
            "_RESOLVE",
            "_AUTO_OFFSET_RESET",
        )
        if is_down:
            return ConnectionLost(
                f"{address} does not answer: {hidden(error.str())}; is the server running?"
            )
        return SyncRefused(f"{address}: {hidden(error.str())}")

    def _note(self, error: KafkaError) -> None:
        """Keep what a thread reports; a refusal explains what comes after it."""
        # Other reports are of single brokers, and pass.
        if _is_refusal(error) or error.name() == "_ALL_BROKERS_DOWN":
            with self._mutex:
                # A refusal stays, as what follows is only its consequence.
                if self._fault is None or not _is_refusal(self._fault):
                    self._fault = error


def _is_refusal(error: KafkaError) -> bool:
    """Whether another attempt cannot help: user, password or certificate is refused."""
    # librdkafka has no code of its own for a failed handshake.
    return error.name() in _REFUSED or "SSL handshake" in error.str()


def _properties(path: str) -> dict[str, str]:
    """The settings in a file of lines NAME=VALUE. Raises InvalidSetting."""
    if not path:
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise InvalidSetting(f"the settings of Kafka, {path}: {reason}") from None
    settings = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip()[0] in "#!":
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise InvalidSetting(f"{path}, line {number}: expected NAME=VALUE")
        settings[name.strip()] = value.strip()
    return settings
