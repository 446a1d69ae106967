"""How to reach a Redis server: a frozen value from the environment or a URL, without its secrets in
`repr`.

variable              meaning                                                    when it is not set
REDIS_HOST            host name or address                                       127.0.0.1
REDIS_PORT            port                                                       6379
REDIS_USERNAME        user of the access control list                            the default user
REDIS_PASSWORD        its password                                               none
REDIS_PASSWORD_FILE   file with the password, read again when it is refused      none
REDIS_USE_TLS         1, true, yes, on; 0, false, no, off                        on beyond the local
                                                                                 network
REDIS_CERT            file with the certificates of the authorities to trust,    those of the system
                      or their PEM text
REDIS_CLIENT_CERT     file with our own certificate, where the server wants one   none
REDIS_CLIENT_KEY      file with its key                                          in that file
REDIS_DB              number of the database                                     0
REDIS_SOCKET          path of a socket, instead of a host                        none
REDIS_SENTINELS       HOST:PORT,HOST:PORT of Sentinels, instead of a host        none
REDIS_MASTER          what they call the server                                  mymaster
REDIS_SENTINEL_USERNAME, REDIS_SENTINEL_PASSWORD: of the Sentinels themselves    none

A URL names the same: `redis://USER:PASSWORD@HOST:PORT/DB`, with TLS `rediss://`, of a socket
`unix://USER:PASSWORD@/PATH?db=DB`, by Sentinels `redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT
/MASTER/DB` or `rediss+sentinel://`; and by the names of redis-py those of OPTIONS.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import quote, unquote, urlencode

from lakelog.clients.address import Address
from lakelog.errors import InvalidSetting
from lakelog.values import JsonObject

RedisLogin = tuple[str, str]
"""A user name and a password; empty ones are not sent."""
_TRUTH = {
    word: word in ("1", "true", "yes", "on") for word in "1 true yes on 0 false no off".split()
}
_LOGIN = ("username", "password")
SENTINEL_PORT = 26379
_EXAMPLE = (
    "a Redis URL looks like redis://HOST:PORT/DB, rediss://HOST:PORT/DB with TLS, unix:///PATH?db=DB"
    " or redis+sentinel://HOST:PORT,HOST:PORT/MASTER/DB"
)


@dataclass(frozen=True)
class RedisConfig:
    """Where a server is and who asks; times are in seconds.

    Certificates and host names are always checked when TLS is in use. Raises InvalidSetting for a
    value that cannot be used.
    """

    host: str = "127.0.0.1"
    port: int = 6379
    username: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""
    use_tls: bool = False
    cert: str = field(default="", repr=False)
    db: int = 0
    timeout: float = 5.0
    pool_size: int = 20
    retries: int = 6
    client_cert: str = ""
    client_key: str = ""
    socket: str = ""
    sentinels: tuple[tuple[str, int], ...] = ()
    master: str = ""
    sentinel_username: str = ""
    sentinel_password: str = field(default="", repr=False)
    SCHEMES: ClassVar = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
    OPTIONS: ClassVar = (
        *_LOGIN,
        "db",
        "socket_timeout",
        "ssl_ca_certs",
        "ssl_certfile",
        "ssl_keyfile",
    )
    """What a URL may have after its `?`."""

    def __post_init__(self) -> None:
        for name, low, high in (("port", 1, 65535), ("db", 0, 2**31), ("pool_size", 1, 100_000)):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise InvalidSetting(f"{_variable(name)} has to be a number from {low} to {high}")
        if not self.host or re.search(r"[\s/@]", self.host):
            raise InvalidSetting("REDIS_HOST has to be the name or the address of a host")
        if any(not host for host, _ in self.sentinels) or bool(self.sentinels) != bool(self.master):
            raise InvalidSetting("a server is found by the hosts of Sentinels and its name there")
        if self.timeout <= 0 or self.retries < 0:
            raise InvalidSetting("the timeout of Redis is above 0, its retries are not below 0")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> RedisConfig:
        """Return the configuration that the environment names. Raises InvalidSetting."""
        env = os.environ if environ is None else environ
        host = env.get("REDIS_HOST") or cls.host
        secure = env.get("REDIS_USE_TLS", "").strip().lower()
        # A misspelt word must not mean without TLS.
        if secure and secure not in _TRUTH:
            raise InvalidSetting("REDIS_USE_TLS has to be true or false")
        sentinels: tuple[tuple[str, int], ...] = ()
        if sentinel_list := env.get("REDIS_SENTINELS"):
            hosts = Address.parse(
                f"x://{sentinel_list}/", "REDIS_SENTINELS: HOST:PORT,HOST:PORT"
            ).hosts
            sentinels = tuple((name, port or SENTINEL_PORT) for name, port in hosts)
            # Nobody names the server: whether it needs TLS is seen by where its Sentinels are.
            host = env.get("REDIS_HOST") or sentinels[0][0]
        return cls(
            host=host,
            port=_number(env, "REDIS_PORT", cls.port),
            username=env.get("REDIS_USERNAME", ""),
            password=env.get("REDIS_PASSWORD", ""),
            password_file=env.get("REDIS_PASSWORD_FILE", ""),
            use_tls=_TRUTH[secure] if secure else not _is_local(host),
            cert=env.get("REDIS_CERT", ""),
            client_cert=env.get("REDIS_CLIENT_CERT", ""),
            client_key=env.get("REDIS_CLIENT_KEY", ""),
            db=_number(env, "REDIS_DB", cls.db),
            socket=env.get("REDIS_SOCKET", ""),
            sentinels=sentinels,
            master=env.get("REDIS_MASTER", "mymaster") if sentinels else "",
            sentinel_username=env.get("REDIS_SENTINEL_USERNAME", ""),
            sentinel_password=env.get("REDIS_SENTINEL_PASSWORD", ""),
        )

    @classmethod
    def from_url(cls, url: str, environ: Mapping[str, str] | None = None) -> RedisConfig:
        """Return the configuration of a URL of those above.

        What it does not say of user, password and certificates comes from the environment. Raises
        InvalidSetting, which does not repeat the URL.
        """
        config, names = cls.divide(Address.parse(url, _EXAMPLE, cls.OPTIONS), environ)
        if any(names):
            raise InvalidSetting(_EXAMPLE)
        return config

    @classmethod
    def divide(
        cls, address: Address, environ: Mapping[str, str] | None = None
    ) -> tuple[RedisConfig, list[str]]:
        """Return the configuration of an address, see `from_url`, and what follows in its path."""
        env, options = os.environ if environ is None else environ, address.options
        if address.scheme not in cls.SCHEMES:
            raise InvalidSetting(_EXAMPLE)
        places: JsonObject = {}
        names = address.names()
        if address.scheme == "unix":
            places, names = {"socket": unquote(address.path)}, []
        elif address.scheme.endswith("+sentinel"):
            sentinels = tuple((host, port or SENTINEL_PORT) for host, port in address.hosts)
            places, names = {"sentinels": sentinels, "master": names[0]}, names[1:]
        elif len(address.hosts) > 1:
            raise InvalidSetting(_EXAMPLE)
        else:
            places = {"host": address.host or cls.host, "port": address.port or cls.port}
        db = (names and names[0]) or options.get("db", "0")
        timeout = options.get("socket_timeout", str(cls.timeout))
        if not db.isdecimal() or not re.fullmatch(r"\d{1,6}(\.\d+)?", timeout):
            raise InvalidSetting(_EXAMPLE)
        password = address.password or options.get("password", "")
        config = cls(
            **places,
            username=address.user or options.get("username") or env.get("REDIS_USERNAME", ""),
            password=password or env.get("REDIS_PASSWORD", ""),
            # The file is for who names no password.
            password_file="" if password else env.get("REDIS_PASSWORD_FILE", ""),
            use_tls=address.scheme.startswith("rediss"),
            cert=options.get("ssl_ca_certs") or env.get("REDIS_CERT", ""),
            client_cert=options.get("ssl_certfile") or env.get("REDIS_CLIENT_CERT", ""),
            client_key=options.get("ssl_keyfile") or env.get("REDIS_CLIENT_KEY", ""),
            db=int(db),
            timeout=float(timeout),
            sentinel_username=env.get("REDIS_SENTINEL_USERNAME", ""),
            sentinel_password=env.get("REDIS_SENTINEL_PASSWORD", ""),
        )
        return config, names[1:]

    @property
    def place(self) -> str:
        """The server without scheme and database: host and port, a socket, or what the Sentinels
        call it."""
        if self.socket or self.sentinels:
            return self.socket or f"sentinel:{Address.quoted(self.master)}"
        return Address.place(self.host, self.port)

    @property
    def address(self) -> str:
        """Where the server is, and the database, for messages."""
        scheme = "rediss" if self.use_tls else "redis"
        if self.socket:
            return f"unix://{quote(self.socket)}?db={self.db}"
        if self.sentinels:
            hosts = ",".join(Address.place(*sentinel) for sentinel in self.sentinels)
            return f"{scheme}+sentinel://{hosts}/{Address.quoted(self.master)}/{self.db}"
        return f"{scheme}://{Address.place(self.host, self.port)}/{self.db}"

    def url(self) -> str:
        """The address with user and options, for a command line: without a password."""
        scheme, _, location = self.address.partition("://")
        certificates = {"ssl_certfile": self.client_cert, "ssl_keyfile": self.client_key}
        if not self.cert.lstrip().startswith("-----BEGIN"):
            certificates["ssl_ca_certs"] = self.cert
        if self.timeout != type(self).timeout:
            certificates["socket_timeout"] = f"{self.timeout:g}"
        options = urlencode({k: v for k, v in certificates.items() if v}, quote_via=quote)
        user = f"{Address.quoted(self.username)}@" if self.username else ""
        return f"{scheme}://{user}{location}{'&' if '?' in location else '?'}{options}".rstrip("?&")

    def credentials(self) -> RedisLogin:
        """Return user and password, read again from the password file if there is one.

        Raises InvalidSetting if that cannot be read.
        """
        if not self.password_file:
            return self.username, self.password
        try:
            with open(self.password_file, encoding="utf-8", newline="") as file:
                # One line: blanks at its ends may be of the password.
                return self.username, file.read().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            problem = f"REDIS_PASSWORD_FILE {self.password_file} cannot be read: {reason}"
            raise InvalidSetting(problem) from None


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    value = env.get(name, "").strip()
    if not value:
        return default
    if not value.isdecimal():
        raise InvalidSetting(f"{name} has to be a number, not {value[:40]!r}")
    return int(value)


def _variable(name: str) -> str:
    return {"pool_size": "the pool's size"}.get(name, f"REDIS_{name.upper()}")


def _is_local(host: str) -> bool:
    """Whether a host is of this machine or its own network, as a name without a dot is."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host
    return address.is_private or address.is_loopback
