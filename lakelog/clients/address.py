"""Addresses of servers, divided: `SCHEME://USER:PASSWORD@HOST:PORT,HOST2:PORT/PATH?NAME=VALUE`.

part                  what it may hold
USER, PASSWORD        what is written as %XX is decoded, once; all else stands for itself, also
                      a `%` that begins no escape, `+`, blanks and tabs. `@` and `:` may stand in a
                      password: the last `@` before `/`, `?` or `#` ends it
HOST                  a name, an address, or an IPv6 address in brackets
PATH, NAME, VALUE     as above, but for `@` and `#`, which are written as %40 and %23

A password with `/`, `?` or `#` in it would end before the host, and the rest of it be taken for a
path or an option, which messages show. Such an address has an `@` where none may stand, and is
refused. No message repeats a part of an address that did not divide as it should.

`urllib.parse.urlsplit` takes tabs and line breaks out of a password, `parse_qsl` makes `+` a blank,
and libpq lets the first `@` end the password: so these are not asked. What comes from a variable is
no address and is never decoded.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import quote, quote_plus, unquote

from lakelog.errors import InvalidSetting

_URL = re.compile(
    r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://(?P<authority>[^/?#]*)"
    r"(?P<path>[^?#@]*)(?:\?(?P<query>[^#@]*))?",
    re.DOTALL,
)
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+(?:%[\w.-]+)?\]|[\w.-]*)(?::(?P<port>\d{1,5}))?")


@dataclass(frozen=True)
class Address:
    """An address, divided. Its `path` begins with a slash, if there is one, and is as written;
    all else is decoded. A host that is not named is "", a port None."""

    scheme: str
    hosts: tuple[tuple[str, int | None], ...]
    user: str = ""
    password: str = field(default="", repr=False)
    path: str = ""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    ESCAPES: ClassVar = "in a password / ? # % are written as %2F %3F %23 %25, elsewhere @ as %40"

    @classmethod
    def parse(cls, url: str, example: str, options: Iterable[str] | None = None) -> Address:
        """Divide an address; `options` names those that it may have.

        Raises InvalidSetting, which says `example` and nothing of the address.
        """
        match = _URL.fullmatch(url)
        if match is None:
            raise InvalidSetting(
                f"{example}; {cls.ESCAPES}" if "@" in url or "#" in url else example
            )
        userinfo, _, places = match["authority"].rpartition("@")
        user, _, password = userinfo.partition(":")
        hosts = [_HOST.fullmatch(place) for place in places.split(",")]
        ports = [int(host["port"]) if host and host["port"] else None for host in hosts]
        if None in hosts or any(port is not None and not 0 < port < 65536 for port in ports):
            raise InvalidSetting(f"{example}; {cls.ESCAPES}" if "@" in url else example)
        pairs = [option.partition("=") for option in (match["query"] or "").split("&") if option]
        values = {_decoded(name): _decoded(value) for name, _, value in pairs}
        if options is not None and values.keys() - set(options):
            # Not which: it may be what follows an `&` in a password.
            allowed = ", ".join(options) or "none"
            raise InvalidSetting(f"{example}; its options are {allowed}; & is written as %26")
        names = [host["name"].strip("[]") for host in hosts if host]
        return cls(
            match["scheme"].lower(),
            tuple(zip(names, ports, strict=True)),
            _decoded(user),
            _decoded(password),
            match["path"],
            values,
        )

    @property
    def host(self) -> str:
        """The first host."""
        return self.hosts[0][0]

    @property
    def port(self) -> int | None:
        """The port of the first host."""
        return self.hosts[0][1]

    def names(self) -> list[str]:
        """The names in the path, decoded."""
        return [_decoded(name) for name in self.path.removeprefix("/").split("/")]

    @staticmethod
    def quoted(value: str) -> str:
        """Return a part of an address with all escaped that needs it."""
        return quote(value, safe="", errors="surrogateescape")

    @staticmethod
    def place(host: str, port: int | None = None) -> str:
        """Return a host and its port as an address has them."""
        name = f"[{host}]" if ":" in host else host
        return f"{name}:{port}" if port else name

    @staticmethod
    def is_loopback(host: str) -> bool:
        """Whether a host is this machine: what goes to it needs no encryption."""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(host).is_loopback
        return host == "localhost"

    @staticmethod
    def without_secrets(message: str, secrets: Iterable[str]) -> str:
        """Return the words of a server or a library without secrets, in whatever spelling."""
        plain = list(secrets)
        spelled = {*plain, *map(Address.quoted, plain)}
        spelled |= {quote_plus(secret, errors="surrogateescape") for secret in plain}
        # The longest first: one may be a part of another.
        for form in sorted(filter(None, spelled), key=len, reverse=True):
            message = message.replace(form, "***")
        return message


def _decoded(value: str) -> str:
    # Bytes that are no text stay what they are, as in what Python reads of the environment.
    return unquote(value, errors="surrogateescape")
