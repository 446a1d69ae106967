"""The pool of connections to a Redis server: by TCP, TLS or a socket, or to what Sentinels name.

A Sentinel is asked whenever a connection is made, so that after a fail-over the next one leads to
the new primary. A connection has the name `lakelog` in CLIENT LIST, where the user may set one.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Any

from lakelog.clients.redis_config import RedisConfig, RedisLogin
from lakelog.errors import MissingPackage
from lakelog.runtime.lazy import Lazy

redis = Lazy("redis")
NAME = "lakelog"
ServerAddress = tuple[str, int]


def require_package() -> None:
    """Import redis-py. Raises MissingPackage."""
    try:
        _ = redis.Redis
    except ModuleNotFoundError:
        problem = "Redis is reached by redis-py: pip install 'lakelog[redis]'"
        raise MissingPackage(problem) from None


def pool_of(config: RedisConfig, credentials: RedisLogin, size: int = 0) -> Any:
    """Return a pool of redis-py, not connected. Raises MissingPackage."""
    require_package()
    connection_class, options = redis.Connection, _shared(config)
    if config.socket:
        connection_class = redis.UnixDomainSocketConnection
        options["path"] = config.socket
    else:
        options |= {"host": config.host, "port": config.port, "socket_keepalive": True}
        options["socket_connect_timeout"] = config.timeout
    if config.use_tls and not config.socket:
        connection_class = redis.SSLConnection
        options |= _tls(config)
    username, password = credentials
    return redis.BlockingConnectionPool(
        connection_class=_connection_class(connection_class, _discovery(config)),
        max_connections=size or config.pool_size,
        timeout=config.timeout,
        db=config.db,
        username=username or None,
        password=password or None,
        health_check_interval=30,
        decode_responses=True,
        # Bytes that are no text survive a round trip.
        encoding_errors="surrogateescape",
        **options,
    )


def disconnect_idle(pool: Any) -> None:
    """End the connections that run no command; others end what they do."""
    # redis-py has an option for it from version 7 on.
    for connection in list(pool.pool.queue):
        if connection is not None:
            connection.disconnect()


def _shared(config: RedisConfig) -> dict[str, object]:
    """Options of connections to servers and to Sentinels."""
    # redis-py must not retry by itself: it does not know what can be repeated.
    retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    return {"socket_timeout": config.timeout, "retry": retry}


def _tls(config: RedisConfig) -> dict[str, object]:
    options: dict[str, object] = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    options["ssl_min_version"] = ssl.TLSVersion.TLSv1_2
    if config.cert:
        is_text = config.cert.lstrip().startswith("-----BEGIN")
        options["ssl_ca_data" if is_text else "ssl_ca_certs"] = config.cert
    if config.client_cert:
        options["ssl_certfile"] = config.client_cert
        options["ssl_keyfile"] = config.client_key or None
    return options


def _discovery(config: RedisConfig) -> Callable[[], ServerAddress] | None:
    """What asks the Sentinels for the primary, where there are some."""
    if not config.sentinels:
        return None
    options = _shared(config) | {"socket_connect_timeout": config.timeout}
    if config.use_tls:
        options |= {"ssl": True, **_tls(config)}
    options |= {"username": config.sentinel_username or None}
    options |= {"password": config.sentinel_password or None}
    finder = redis.sentinel.Sentinel(list(config.sentinels), sentinel_kwargs=options)

    def discover() -> ServerAddress:
        try:
            place: ServerAddress = finder.discover_master(config.master)
        finally:
            # Asked seldom: no connection waits for the next time.
            for sentinel in finder.sentinels:
                sentinel.connection_pool.disconnect()
        return place

    return discover


def _connection_class(base_class: Any, discover: Callable[[], ServerAddress] | None) -> Any:
    class Connection(base_class):  # type: ignore[misc]
        """A connection that introduces itself, and looks for the primary first."""

        def __init__(self, **options: object) -> None:
            super().__init__(**options)
            self.register_connect_callback(self._introduce)

        def connect(self) -> None:
            """Connect, if it is not connected."""
            if discover is not None and self._sock is None:
                self.host, self.port = discover()
            super().connect()

        def _introduce(self, _: object) -> None:
            # Only for others to see: users of few rights have none to CLIENT SETNAME.
            with contextlib.suppress(redis.ResponseError):
                self.send_command("CLIENT", "SETNAME", NAME, check_health=False)
                self.read_response()

    return Connection
