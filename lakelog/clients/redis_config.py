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
REDIS_DB              number of the database                                     0
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lakelog.clients.address import Address, shown
from lakelog.errors import InvalidSetting

Credentials = tuple[str, str]
"""A user name and a password; empty ones are not sent."""
_TRUTH = {
    word: word in ("1", "true", "yes", "on") for word in "1 true yes on 0 false no off".split()
}
_SCHEMES = {"redis": False, "rediss": True}
_EXAMPLE = "a Redis URL looks like redis://HOST:PORT/DB, or rediss://HOST:PORT/DB with TLS"


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

    def __post_init__(self) -> None:
        for name, low, high in (("port", 1, 65535), ("db", 0, 2**31), ("pool_size", 1, 100_000)):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise InvalidSetting(f"{_variable(name)} has to be a number from {low} to {high}")
        if not self.host or re.search(r"[\s/@]", self.host):
            raise InvalidSetting("REDIS_HOST has to be the name or the address of a host")
        if self.timeout <= 0 or self.retries < 0:
            raise InvalidSetting("the timeout of Redis is above 0, its retries are not below 0")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> RedisConfig:
        """Return the configuration that the environment names. Raises InvalidSetting."""
        env = os.environ if environ is None else environ
        host = env.get("REDIS_HOST") or cls.host
        secure = env.get("REDIS_USE_TLS", "").strip().lower()
        if secure and secure not in _TRUTH:
            raise InvalidSetting("REDIS_USE_TLS has to be true or false")
        return cls(
            host=host,
            port=_number(env, "REDIS_PORT", cls.port),
            username=env.get("REDIS_USERNAME", ""),
            password=env.get("REDIS_PASSWORD", ""),
            password_file=env.get("REDIS_PASSWORD_FILE", ""),
            use_tls=_TRUTH[secure] if secure else not _is_local(host),
            cert=env.get("REDIS_CERT", ""),
            db=_number(env, "REDIS_DB", cls.db),
        )

    @classmethod
    def from_url(cls, url: str, environ: Mapping[str, str] | None = None) -> RedisConfig:
        """Return the configuration of `redis://` or, with TLS, `rediss://USER:PASSWORD@HOST:PORT/DB`.

        The certificate, and a password that the URL lacks, come from the environment. Raises
        InvalidSetting, which does not repeat the URL.
        """
        address = Address.parse(url, _EXAMPLE, ())
        db = address.path.strip("/") or "0"
        if address.scheme not in _SCHEMES or not db.isdecimal() or len(address.hosts) > 1:
            raise InvalidSetting(_EXAMPLE)
        return cls.at(address, int(db), environ)

    @classmethod
    def at(cls, address: Address, db: int, environ: Mapping[str, str] | None = None) -> RedisConfig:
        """Return the configuration of an address, as `from_url` does, whatever its path says."""
        env = os.environ if environ is None else environ
        return cls(
            host=address.host or cls.host,
            port=address.port or cls.port,
            username=address.user or env.get("REDIS_USERNAME", ""),
            password=address.password or env.get("REDIS_PASSWORD", ""),
            # The file is for who names no password.
            password_file="" if address.password else env.get("REDIS_PASSWORD_FILE", ""),
            use_tls=_SCHEMES[address.scheme],
            cert=env.get("REDIS_CERT", ""),
            db=db,
        )

    @property
    def address(self) -> str:
        """Host, port and database, for messages."""
        scheme = "rediss" if self.use_tls else "redis"
        return f"{scheme}://{shown(self.host, self.port)}/{self.db}"

    def credentials(self) -> Credentials:
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
            words = f"REDIS_PASSWORD_FILE {self.password_file} cannot be read: {reason}"
            raise InvalidSetting(words) from None


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal():
        raise InvalidSetting(f"{name} has to be a number, not {text[:40]!r}")
    return int(text)


def _variable(name: str) -> str:
    return {"pool_size": "the pool's size"}.get(name, f"REDIS_{name.upper()}")


def _is_local(host: str) -> bool:
    """Whether a host is of this machine or its own network, as a name without a dot is."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host
    return address.is_private or address.is_loopback
