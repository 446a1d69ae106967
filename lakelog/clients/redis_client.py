"""A connection pool to one Redis server: retries with back-off, TLS, and credentials that rotate.

what happens                          what a call does
nothing answers, a connection breaks  again after 0.05, 0.1, 0.2 … 2 s, each shortened by chance;
                                      after `retries` of them it raises Unreachable
a command that is no repeatable one   is not sent again once it may have arrived
user or password refused              credentials are read again, and tried if they changed
the certificate is not valid for the  raises Unreachable at once: another attempt cannot help
host, or of an unknown authority
the server is loading, or a replica   as if nothing answered
"""

from __future__ import annotations

import contextlib
import re
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from lakelog.clients import backoff
from lakelog.clients.address import without_secrets
from lakelog.clients.redis_config import Credentials, RedisConfig
from lakelog.errors import MissingPackage, Unreachable
from lakelog.runtime.lazy import Lazy

redis = Lazy("redis")
_CERTIFICATE = re.compile(r"certificate verify failed: (.*?)(?:\s*\(_ssl|\.?\s*$)", re.DOTALL)
Value = TypeVar("Value")
Watch = Callable[[str, float, Exception | None], None]
"""Is told each attempt: command, seconds, and how it failed."""


class RedisClient:
    """Calls commands of redis-py on a pool of connections; safe for threads and forks."""

    def __init__(
        self,
        config: RedisConfig,
        credentials: Callable[[], Credentials] | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Connect. Raises Unreachable, MissingPackage, InvalidSetting.

        `credentials` returns user and password, and is asked again when they are refused; as a rule
        they are those of the configuration.
        """
        self.config = config
        self._source = credentials or config.credentials
        self._credentials = self._rotated = self._source()
        self._watch = watch
        self._mutex = threading.Lock()
        self.pool = self._pool(self._credentials)
        self.client: Any = redis.Redis(connection_pool=self.pool)
        try:
            self.call("PING", lambda client: client.ping())
        except BaseException:
            self.close()
            raise

    def call(self, command: str, run: Callable[[Any], Value], *, repeatable: bool = True) -> Value:
        """Return what `run` returns of a `redis.Redis`, retried as the table above says.

        Raises Unreachable, and redis.ResponseError for what the server says of the command.
        """
        attempt, refused = 0, set[Credentials]()
        while True:
            began, credentials = time.perf_counter(), self._credentials
            try:
                value = run(self.client)
            except (
                redis.ConnectionError,
                redis.TimeoutError,
                redis.ReadOnlyError,  # the primary became a replica: its name may soon mean another
                OSError,
            ) as error:
                self._note(command, began, error)
                if _is_refusal(error):
                    refused.add(credentials)
                    if self._renew(refused):
                        continue
                attempt += 1
                may_repeat = repeatable or _is_unsent(error)
                if attempt > self.config.retries or _is_final(error) or not may_repeat:
                    raise Unreachable(self._words(error)) from None
                time.sleep(backoff.pause(attempt))
            except Exception as error:
                self._note(command, began, error)
                raise
            else:
                self._note(command, began, None)
                return value

    def rotate(self, username: str, password: str) -> None:
        """Use other credentials from now on, once the server has accepted them.

        Connections in use finish what they do. Raises Unreachable, and the old ones stay.
        """
        pool = self._pool((username, password), size=1)
        try:
            redis.Redis(connection_pool=pool).ping()
        except (redis.RedisError, OSError) as error:
            raise Unreachable(self._words(error)) from None
        finally:
            pool.disconnect()
        self._rotated = (username, password)
        self._adopt(self._rotated)

    def certificate_expiry(self) -> datetime | None:
        """When the server's certificate expires; None without TLS. Raises Unreachable."""
        return self.call("CERTIFICATE", lambda _: self._expiry()) if self.config.use_tls else None

    def connections(self) -> tuple[int, int]:
        """How many connections run a command, and how many wait for one."""
        pool = self.pool
        slots = list(pool.pool.queue)  # one for each connection that is free, or not yet made
        return pool.max_connections - len(slots), sum(slot is not None for slot in slots)

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        with contextlib.suppress(Exception):
            self.pool.disconnect()

    def _pool(self, credentials: Credentials, size: int = 0) -> Any:
        config = self.config
        require_package()
        kind = redis.SSLConnection if config.use_tls else redis.Connection
        options: dict[str, Any] = {}
        if config.use_tls:
            options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
            options["ssl_min_version"] = ssl.TLSVersion.TLSv1_2
            if config.cert:
                is_text = config.cert.lstrip().startswith("-----BEGIN")
                options["ssl_ca_data" if is_text else "ssl_ca_certs"] = config.cert
        username, password = credentials
        return redis.BlockingConnectionPool(
            connection_class=kind,
            max_connections=size or config.pool_size,
            timeout=config.timeout,
            host=config.host,
            port=config.port,
            db=config.db,
            username=username or None,
            password=password or None,
            socket_timeout=config.timeout,
            socket_connect_timeout=config.timeout,
            socket_keepalive=True,
            health_check_interval=30,
            client_name="lakelog",
            decode_responses=True,
            # Bytes that are no text survive a round trip.
            encoding_errors="surrogateescape",
            retry=_no_retry(),
            **options,
        )

    def _adopt(self, credentials: Credentials) -> None:
        with self._mutex:
            pool, self._credentials = self.pool, credentials
            self.pool = self._pool(credentials)
            self.client = redis.Redis(connection_pool=self.pool)
        pool.disconnect(inuse_connections=False)

    def _renew(self, refused: set[Credentials]) -> bool:
        """Ask for credentials again; whether there are others than the refused ones."""
        for fresh in (self._credentials, self._source(), self._rotated):
            if fresh not in refused:
                if fresh != self._credentials:  # else another thread was first
                    self._adopt(fresh)
                return True
        return False

    def _expiry(self) -> datetime | None:
        connection = self.pool.get_connection()
        try:
            peer: dict[str, Any] = getattr(connection._sock, "getpeercert", dict)() or {}
        finally:
            self.pool.release(connection)
        if "notAfter" not in peer:
            return None
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(peer["notAfter"]), UTC)

    def _note(self, command: str, began: float, error: Exception | None) -> None:
        if self._watch is not None:
            self._watch(command, time.perf_counter() - began, error)

    def _words(self, error: Exception) -> str:
        """Say in one line what is wrong, without a secret."""
        where, text = self.config.address, self._without_secrets(_text(error))
        found = _CERTIFICATE.search(text)
        if found:
            words = f"the certificate of {where} is refused: {found[1].strip()}; see REDIS_CERT"
        elif _is_refusal(error):
            words = f"{where} refuses user or password: see REDIS_USERNAME and REDIS_PASSWORD"
        elif isinstance(error, FileNotFoundError) or "No such file" in text:
            words = "REDIS_CERT names a file that is not there"
        elif "SSL" in text or "wrong version" in text:
            words = f"no TLS with {where}: {text}; see REDIS_USE_TLS"
        elif isinstance(error, redis.TimeoutError) or "No connection available" in text:
            words = f"{where} did not answer within {self.config.timeout:g} s"
        else:
            words = f"{where} does not answer: {text}; is the server running?"
        return words

    def _without_secrets(self, text: str) -> str:
        """Return the text of an error without passwords. Where it names the host it stays: to hide
        a word of it would hide the address, and show which word is the password."""
        secrets = (self._credentials[1], self.config.password)
        parts = text.split(self.config.host)
        return self.config.host.join(without_secrets(part, secrets) for part in parts)


def require_package() -> None:
    """Import redis-py. Raises MissingPackage."""
    try:
        _ = redis.Redis
    except ModuleNotFoundError:
        words = "Redis is reached by redis-py: pip install 'lakelog[redis]'"
        raise MissingPackage(words) from None


def is_of_other_type(error: Exception) -> bool:
    """Whether a key holds another kind of value than a command is for."""
    return str(error).startswith("WRONGTYPE")


def _no_retry() -> Any:
    """Tell redis-py not to retry by itself, which would not know what can be repeated."""
    return redis.retry.Retry(redis.backoff.NoBackoff(), 0)


def _text(error: Exception) -> str:
    return " ".join(str(error).split())


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, redis.AuthenticationError)


def _is_final(error: Exception) -> bool:
    """Whether another attempt cannot help."""
    is_trust = isinstance(error, ssl.SSLError | FileNotFoundError) or "SSL" in str(error)
    return _is_refusal(error) or is_trust


def _is_unsent(error: Exception) -> bool:
    """Whether a command certainly never arrived: there was no connection to send it on."""
    return "connecting to" in str(error) or isinstance(error, redis.MaxConnectionsError)
