"""Connections to HTTP servers, Redis and Kafka, and how they are configured."""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.clients.address import Address
    from lakelog.clients.connection import Attempts, ConnectionLost, cut_off, pause
    from lakelog.clients.http_client import Endpoint, HttpConnection, Reply
    from lakelog.clients.kafka_config import KafkaClient, KafkaConfig
    from lakelog.clients.redis_client import RedisClient
    from lakelog.clients.redis_config import RedisConfig

__all__ = [
    "Address",
    "Attempts",
    "ConnectionLost",
    "Endpoint",
    "HttpConnection",
    "KafkaClient",
    "KafkaConfig",
    "RedisClient",
    "RedisConfig",
    "Reply",
    "cut_off",
    "pause",
]

__getattr__ = lazy_face(
    __name__,
    address="Address",
    connection="Attempts ConnectionLost cut_off pause",
    http_client="Endpoint HttpConnection Reply",
    kafka_config="KafkaClient KafkaConfig",
    redis_client="RedisClient",
    redis_config="RedisConfig",
)
