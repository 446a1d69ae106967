"""A connection pool to one Redis server: retries with back-off, TLS, and credentials that rotate.

The server is reached by TCP, TLS or a socket, or by what Sentinels name. A Sentinel is asked
whenever a connection is made, so that after a fail-over the next one leads to the new primary. A
connection has the name `lakelog` in CLIENT LIST, where the user may set one.

what happens                          what a call does
nothing answers, a connection breaks  again after 0.05, 0.1, 0.2 … 2 s, each shortened by chance;
                                      after `retries` of them it raises Unreachable
a command that is no repeatable one   is not sent again once it may have arrived
user or password refused              credentials are read again, and tried if they changed
the certificate is not valid for the  raises Unreachable at once: another attempt cannot help
host, or of an unknown authority
the server is loading, a replica, of  as if nothing answered
a cluster that is down, or runs a
long script
"""

from __future__ import annotations

import contextlib
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

from lakelog.clients import connection
from lakelog.clients.address import Address
from lakelog.clients.redis_config import RedisConfig, RedisLogin
from lakelog.errors import LakelogError, MissingPackage, Unreachable
from lakelog.runtime.lazy import Lazy
from lakelog.values import JsonObject

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
        credentials: Callable[[], RedisLogin] | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Connect. Raises Unreachable, MissingPackage, InvalidSetting.

        `credentials` returns user and password, and is asked again when they are refused; as a rule
        they are those of the configuration.
        """
        self.config = config
        self._source = credentials or config.credentials
        # What is refused is asked for again: passwords rotate while programs run.
        self._credentials = self._rotated = self._source()
        self._watch = watch
        self._mutex = threading.Lock()
        self.pool = pool_of(config, self._credentials)
        self.client: Any = redis.Redis(connection_pool=self.pool)
        try:
            self.call("PING", lambda client: client.ping())
        except redis.ResponseError as error:
            # The server answered, and does not let this user in: no attempt would change that.
            self.close()
            raise Unreachable(self._words(error)) from None
        except BaseException:
            self.close()
            raise

    def call(self, command: str, run: Callable[[Any], Value], *, repeatable: bool = True) -> Value:
        """Return what `run` returns of a `redis.Redis`, retried as the table above says.

        Raises Unreachable, and redis.ResponseError for what the server says of the command.
        """
        attempt, refused = 0, set[RedisLogin]()
        while True:
            began, credentials = time.perf_counter(), self._credentials
            try:
                value = run(self.client)
            # Ours, of whoever looks at what the server said.
            except LakelogError:
                raise
            except Exception as error:
                self._note(command, began, error)
                if not _may_pass(error):
                    raise
                if isinstance(error, redis.ResponseError):
                    # Behind Sentinels the next connections lead to another server.
                    disconnect_idle(self.pool)
                if _is_refusal(error):
                    # Each pair of credentials is tried once.
                    refused.add(credentials)
                    if self._renew(refused):
                        continue
                # Only what the network did counts: other credentials are no new attempt.
                attempt += 1
                may_repeat = repeatable or _is_unsent(error)
                if attempt > self.config.retries or _is_final(error) or not may_repeat:
                    raise Unreachable(self._words(error)) from None
                time.sleep(connection.pause(attempt))
            else:
                self._note(command, began, None)
                return value

    def rotate(self, username: str, password: str) -> None:
        """Use other credentials from now on, once the server has accepted them.

        Connections in use finish what they do. Raises Unreachable, and the old ones stay.
        """
        # One connection, which is closed again: those in use stay until the new ones are accepted.
        pool = pool_of(self.config, (username, password), size=1)
        try:
            redis.Redis(connection_pool=pool).ping()
        except (redis.RedisError, OSError) as error:
            raise Unreachable(self._words(error)) from None
        finally:
            pool.disconnect()
        # Kept: the source may still give the old ones.
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

    def _adopt(self, credentials: RedisLogin) -> None:
        with self._mutex:
            # Under the lock: two threads that renew must not leave a pool open.
            pool, self._credentials = self.pool, credentials
            self.pool = pool_of(self.config, credentials)
            self.client = redis.Redis(connection_pool=self.pool)
        # Those that run a command end it with the credentials that they have.
        disconnect_idle(pool)

    def _renew(self, refused: set[RedisLogin]) -> bool:
        """Ask for credentials again; whether there are others than the refused ones."""
        for fresh in (self._credentials, self._source(), self._rotated):
            if fresh not in refused:
                if fresh != self._credentials:  # else another thread was first
                    self._adopt(fresh)
                return True
        return False

    def _expiry(self) -> datetime | None:
        link = self.pool.get_connection()
        # A socket without TLS has no certificate.
        try:
            peer: JsonObject = getattr(link._sock, "getpeercert", dict)() or {}
        finally:
            self.pool.release(link)
        if "notAfter" not in peer:
            return None
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(peer["notAfter"]), UTC)

    @staticmethod
    def require_package() -> None:
        """Import redis-py. Raises MissingPackage."""
        with MissingPackage.unless("redis", "Redis is reached by redis-py"):
            _ = redis.Redis

    @staticmethod
    def is_of_other_type(error: Exception) -> bool:
        """Whether the server refused a command as the key holds a value of another type."""
        return str(error).startswith("WRONGTYPE")

    def _note(self, command: str, began: float, error: Exception | None) -> None:
        if self._watch is not None:
            self._watch(command, time.perf_counter() - began, error)

    def _words(self, error: Exception) -> str:
        """Say in one line what is wrong, without a secret."""
        # Passwords stand in what servers and libraries say.
        server, reply = self.config.address, self._without_secrets(" ".join(str(error).split()))
        fault = _CERTIFICATE.search(reply)
        if fault:
            message = f"the certificate of {server} is refused: {fault[1].strip()}; see REDIS_CERT"
        elif _is_refusal(error):
            message = f"{server} refuses user or password: see REDIS_USERNAME and REDIS_PASSWORD"
        elif self.config.socket and ("No such file" in reply or "refused" in reply):
            message = f"{server} does not answer: is the server running, and is that its socket?"
        elif isinstance(error, FileNotFoundError) or "No such file" in reply:
            variables = (
                "REDIS_CERT or REDIS_CLIENT_CERT" if self.config.client_cert else "REDIS_CERT"
            )
            message = f"{variables} names a file that is not there"
        elif "CERTIFICATE_REQUIRED" in reply:
            message = f"{server} wants a certificate of ours: see REDIS_CLIENT_CERT"
        elif "SSL" in reply or "wrong version" in reply:
            message = f"no TLS with {server}: {reply}; see REDIS_USE_TLS"
        elif isinstance(error, redis.TimeoutError) or "No connection available" in reply:
            message = f"{server} did not answer within {self.config.timeout:g} s"
        elif isinstance(error, redis.exceptions.NoPermissionError):
            message = (
                f"{server} does not let this user connect: {reply}; give it +ping, and +select"
            )
            message += " for another database than 0"
        elif isinstance(error, _answers()):
            message = f"{server} answers: {reply}"
        else:
            message = f"{server} does not answer: {reply}; is the server running?"
            if self.config.use_tls and not self.config.client_cert:
                message += " Or does it want a certificate of ours, see REDIS_CLIENT_CERT?"
        return message

    def _without_secrets(self, message: str) -> str:
        """Return the text of an error without passwords. Where it names the host it stays: to hide
        a word of it would hide the address, and show which word is the password."""
        config = self.config
        secrets = (self._credentials[1], config.password, config.sentinel_password)
        fragments = message.split(self.config.host)
        return self.config.host.join(
            Address.without_secrets(fragment, secrets) for fragment in fragments
        )


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may help: nothing answered, or the server cannot answer now."""
    # The primary became a replica: its name may soon mean another server.
    is_replica = redis.ReadOnlyError, redis.exceptions.MasterDownError
    # While a cluster chooses another primary.
    is_down = redis.exceptions.ClusterDownError, redis.exceptions.TryAgainError
    unanswered = redis.ConnectionError, redis.TimeoutError, OSError, *is_replica, *is_down
    return isinstance(error, unanswered) or str(error).startswith("BUSY ")


def _answers() -> tuple[type[Exception], ...]:
    """Errors that a server sends."""
    return redis.ResponseError, redis.BusyLoadingError, redis.ReadOnlyError


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, redis.AuthenticationError)


def _is_final(error: Exception) -> bool:
    """Whether another attempt cannot help."""
    # OpenSSL's own errors, and those that redis-py wraps in text.
    is_trust = isinstance(error, ssl.SSLError | FileNotFoundError) or "SSL" in str(error)
    return _is_refusal(error) or is_trust


def _is_unsent(error: Exception) -> bool:
    """Whether a command certainly never arrived: there was no connection to send it on."""
    # redis-py says it in words only.
    return "connecting to" in str(error) or isinstance(error, redis.MaxConnectionsError)


NAME = "lakelog"
ServerAddress = tuple[str, int]


def pool_of(config: RedisConfig, credentials: RedisLogin, size: int = 0) -> Any:
    """Return a pool of redis-py, not connected. Raises MissingPackage."""
    RedisClient.require_package()
    connection_class, options = redis.Connection, _shared(config)
    if config.socket:
        connection_class = redis.UnixDomainSocketConnection
        options["path"] = config.socket
    else:
        # Keep-alive: a firewall that drops idle connections is noticed.
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
        # A connection that was idle for half a minute is tried before it is used.
        health_check_interval=30,
        decode_responses=True,
        # Bytes that are no text survive a round trip.
        encoding_errors="surrogateescape",
        **options,
    )


def disconnect_idle(pool: Any) -> None:
    """End the connections that run no command; others end what they do."""
    # redis-py has an option for it from version 7 on.
    for slot in list(pool.pool.queue):
        if slot is not None:
            slot.disconnect()


def _shared(config: RedisConfig) -> dict[str, object]:
    """Options of connections to servers and to Sentinels."""
    # redis-py must not retry by itself: it does not know what can be repeated.
    retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    return {"socket_timeout": config.timeout, "retry": retry}


def _tls(config: RedisConfig) -> dict[str, object]:
    options: dict[str, object] = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    options["ssl_min_version"] = ssl.TLSVersion.TLSv1_2
    if config.cert:
        # Given as text, as secrets of containers are, it needs no file.
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
        # Asked when a connection is made: the primary may be another one by then.
        try:
            place: ServerAddress = finder.discover_master(config.master)
        finally:
            # Asked seldom: no connection waits for the next time.
            for sentinel in finder.sentinels:
                sentinel.connection_pool.disconnect()
        return place

    return discover


def _encoded(words: Iterable[object]) -> tuple[object, ...]:
    """Return the words of a command with those of text as bytes: hiredis refuses words that stand
    for bytes which are no text, whatever the connection's `encoding_errors` are."""
    return tuple(
        word.encode(errors="surrogateescape") if isinstance(word, str) else word for word in words
    )


def _connection_class(base_class: Any, discover: Callable[[], ServerAddress] | None) -> Any:
    class Connection(base_class):  # type: ignore[misc]
        """A connection that introduces itself, and looks for the primary first."""

        def __init__(self, **options: object) -> None:
            super().__init__(**options)
            self.register_connect_callback(self._introduce)

        def connect(self) -> None:
            """Connect, if it is not connected."""
            # A reconnect asks again, since the primary may have changed.
            if discover is not None and self._sock is None:
                self.host, self.port = discover()
            super().connect()

        def send_command(self, *words: object, **options: object) -> None:
            """Send a command."""
            super().send_command(*_encoded(words), **options)

        def pack_commands(self, commands: Iterable[Iterable[object]]) -> object:
            """Return the commands of a pipeline as a server takes them."""
            return super().pack_commands(map(_encoded, commands))

        def _introduce(self, _: object) -> None:
            # Only for others to see: users of few rights have none to CLIENT SETNAME.
            with contextlib.suppress(redis.ResponseError):
                self.send_command("CLIENT", "SETNAME", NAME, check_health=False)
                self.read_response()

    return Connection
