"""Connections to HTTP servers, Redis and Kafka, and how they are configured."""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.clients.address import Address as Address
    from lakelog.clients.connection import Attempts as Attempts
    from lakelog.clients.connection import ConnectionLost as ConnectionLost
    from lakelog.clients.connection import cut_off as cut_off
    from lakelog.clients.connection import pause as pause
    from lakelog.clients.http_client import Endpoint as Endpoint
    from lakelog.clients.http_client import HttpConnection as HttpConnection
    from lakelog.clients.http_client import Reply as Reply
    from lakelog.clients.kafka_config import KafkaClient as KafkaClient
    from lakelog.clients.kafka_config import KafkaConfig as KafkaConfig
    from lakelog.clients.redis_client import RedisClient as RedisClient
    from lakelog.clients.redis_config import RedisConfig as RedisConfig

__getattr__, __all__ = lazy_face(__name__)
