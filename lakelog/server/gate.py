"""Who may do what: tokens with scopes, and checks that a browser cannot be used against a server.

Without a token a server answers only on loopback, and only requests that name a host of its own:
a page elsewhere whose name was made to point to 127.0.0.1 is refused by the Host header, and one
that sends here from another origin by Origin, or by Sec-Fetch-Site where that is missing.

A token is 32 random bytes; the lake keeps its SHA-256 alone, which is enough for a secret that
nobody can guess.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from lakelog.server.arrivals import RequestRefused
from lakelog.server.tokens import TokenEntry, TokenFile, TokenScope

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_ASK = {"WWW-Authenticate": 'Bearer realm="lakelog"'}


@dataclass(frozen=True)
class Caller:
    """Who sent a request: the name of the token, or "" for one without, and what it may do."""

    name: str
    scopes: frozenset[TokenScope]

    def require(self, scope: TokenScope) -> None:
        """Raise RequestRefused if it may not."""
        if scope not in self.scopes:
            raise RequestRefused(403, f"this token has no scope {scope.value!r}")


_ANYBODY = Caller("", frozenset(TokenScope))


class Gate:
    """Lets requests in. With `is_local` only this machine sends them, and none needs a token until
    there is one; `hosts` are the names of this server beside those of the machine itself."""

    def __init__(self, tokens: TokenFile, *, is_local: bool, hosts: Iterable[str] = ()) -> None:
        self._tokens, self._is_local = tokens, is_local
        self._hosts = {host.lower() for host in (*LOOPBACK_NAMES, *hosts)}
        self._entries: tuple[TokenEntry, ...] | None = None

    def admit(self, headers: Mapping[str, str], scheme: str) -> Caller:
        """Return who sent a request with these headers; names are in small letters.

        Raises RequestRefused: 421 for the name of another host, 403 for a page of another origin,
        401 for a token that is missing, unknown or revoked. What the caller may do is for
        `Caller.require` to say.
        """
        host = headers.get("host", "").lower()
        # In `[::1]` what follows the last colon is `1]`, which is no port.
        name, _, port = host.rpartition(":")
        if (name if port.isdigit() and name else host) not in self._hosts:
            raise RequestRefused(
                421, "this server does not answer for that host: start it with --host-name"
            )
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        # A page elsewhere may have this request sent without an Origin, as for an image. A link
        # that a user follows is let in.
        is_link = headers.get("sec-fetch-dest") == "document"
        is_elsewhere = site not in ("none", "same-origin") and not is_link
        if is_elsewhere or (origin is not None and not _is_same(origin, scheme, host)):
            raise RequestRefused(403, "requests from pages of other origins are refused")
        return self._caller(headers.get("authorization", ""))

    def admit_for_long(
        self, headers: Mapping[str, str], scheme: str, scope: TokenScope
    ) -> Callable[[], None]:
        """Admit who sent a request whose answer has no end; return what raises RequestRefused once
        it would not be admitted any more, and InvalidSetting or OSError where nobody can tell."""

        def admit() -> tuple[TokenEntry, ...]:
            self.admit(headers, scheme).require(scope)
            return self._present()

        tokens = admit()

        def check() -> None:
            nonlocal tokens
            if self._present() is not tokens:  # a token was made, or revoked
                tokens = admit()

        return check

    def _caller(self, authorization: str) -> Caller:
        scheme, _, secret = authorization.partition(" ")
        if not authorization:
            if self._is_local and not self._present():
                return _ANYBODY
            raise RequestRefused(401, "a token is needed: Authorization: Bearer TOKEN", _ASK)
        if scheme.lower() != "bearer":
            raise RequestRefused(401, "a token is sent as Authorization: Bearer TOKEN", _ASK)
        digest = hashlib.sha256(secret.strip().encode("utf-8", "replace")).hexdigest()
        entry = None
        # All are compared, whichever fits: the time tells nothing.
        for candidate in self._present():
            if hmac.compare_digest(candidate.digest, digest):
                entry = candidate
        if entry is None:
            raise RequestRefused(401, "this token is not known, or was revoked", _ASK)
        return Caller(entry.name, entry.scopes)

    def _present(self) -> tuple[TokenEntry, ...]:
        """The tokens there are: looked at once in a turn of the loop, whose requests had all come
        before. A look waits for the threads that store."""
        if self._entries is None:
            self._entries = self._tokens.entries()
            asyncio.get_running_loop().call_soon(self._forget)
        return self._entries

    def _forget(self) -> None:
        self._entries = None


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_same(origin: str, scheme: str, host: str) -> bool:
    try:
        address = urlsplit(origin)
    except ValueError:
        return False
    # Browsers leave out the port that is the scheme's own, from Origin and from Host. The colons of
    # an IPv6 address stand before its `]`.
    default = {"http": ":80", "https": ":443"}.get(scheme, "")
    expected = host if ":" in host.rpartition("]")[2] else host + default
    named = address.netloc.lower()
    named = named if ":" in named.rpartition("]")[2] else named + default
    return address.scheme == scheme and named == expected
