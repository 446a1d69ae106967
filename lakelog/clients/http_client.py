"""HTTP connections of targets: URLs with their secrets taken out, TLS, back-pressure, one retry."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import os
import ssl
import time
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from lakelog.clients import connection
from lakelog.clients.address import Address
from lakelog.clients.connection import ConnectionLost
from lakelog.errors import InvalidSetting, LakelogError, SyncRefused

# One that was closed meanwhile would fail the first request on it.
_IDLE = 4.0
"""Servers close connections that are idle for 5 s or longer."""
_BUSY = (429, 502, 503, 504)
_TRIES, _WAIT_MAX = 8, 30.0
_LOGIN = {401: "the user, password or token is wrong", 403: "a right is missing"}
_NAME_AUTHORITY = "name its authority with ?ca_cert=FILE"


@dataclass(frozen=True)
class Endpoint:
    """A URL `NAME://USER:PASSWORD@HOST:PORT/PATH?OPTIONS`, divided. No message has its secrets.

    NAME may end in +http or +https; without, it is TLS unless the host is this machine.
    """

    address: str
    host: str
    port: int
    is_tls: bool
    path: str
    user: str = ""
    password: str = field(default="", repr=False)
    options: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, url: str, port: int, example: str, options: tuple[str, ...]) -> Endpoint:
        """Divide a URL. Raises InvalidSetting, which does not repeat it."""
        usage = f"a target of this kind looks like {example}"
        parsed = Address.parse(url, usage, (*options, "ca_cert"))
        # A suffix such as +http says how; without it only this machine is spoken to in the clear.
        _, _, how = parsed.scheme.partition("+")
        path, host, port = unquote(parsed.path.strip("/")), parsed.host, parsed.port or port
        if not host or "/" in path or how not in ("", "http", "https") or len(parsed.hosts) > 1:
            raise InvalidSetting(usage)
        return cls(
            f"{parsed.scheme}://{Address.place(host, port)}{'/' * bool(path)}{path}",
            host,
            port,
            how == "https" or (not how and not Address.is_loopback(host)),
            path,
            parsed.user,
            parsed.password,
            dict(parsed.options),
        )

    @classmethod
    def of_request(cls, url: str, authority: str = "") -> Endpoint:
        """Divide the address of a request; its `path` is what is asked for, with the query, and
        `authority` a file of certificates. Raises InvalidSetting, which does not repeat it."""
        usage = "an address is http://HOST/PATH or https://HOST/PATH, without a user"
        try:
            places = urlsplit(url)
            port = places.port
        except ValueError:  # of a port that is none, or half of an IPv6 address
            raise InvalidSetting(usage) from None
        host, is_tls = places.hostname, places.scheme == "https"
        # A user in an address would be shown wherever the address is.
        if places.scheme not in ("http", "https") or not host or "@" in places.netloc:
            raise InvalidSetting(usage)
        # What is no URL could hold a line break, and with it a header.
        if not url.isascii() or any(c.isspace() for c in url):
            raise InvalidSetting(f"{usage}; what is not ASCII is written as %XX")
        return cls(
            # The path of a webhook is often its secret: no message has it.
            f"{places.scheme}://{places.netloc}",
            host,
            port or (443 if is_tls else 80),
            is_tls,
            (places.path or "/") + (f"?{places.query}" if places.query else ""),
            options={"ca_cert": authority} if authority else {},
        )

    def login(self, scheme: str, token: str, variables: str) -> dict[str, str]:
        """Return the header that tells who we are: the user of the URL, else a token, else the user
        that the variables `variables`_USERNAME and _PASSWORD name; none for nobody."""
        # User and password in the address come first: they were given for this server.
        if token and not self.user:
            return {"Authorization": f"{scheme} {token}"}
        user = self.user or os.environ.get(f"{variables}_USERNAME", "")
        password = self.password or os.environ.get(f"{variables}_PASSWORD", "")
        if not user:
            return {}
        # Bytes of a variable that are no text stay what they are.
        pair = f"{user}:{password}".encode(errors="surrogateescape")
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    status: int
    body: bytes
    headers: http.client.HTTPMessage

    @property
    def retry_after(self) -> float | None:
        """The seconds that a server asks to wait; a date is not read."""
        requested = self.headers.get("Retry-After", "")
        return float(requested) if requested.isdecimal() else None


class HttpConnection:
    """A connection that is kept open between requests. One thread uses it."""

    TIMEOUT = 30.0
    """Seconds in which a server has to answer."""

    def __init__(
        self,
        endpoint: Endpoint,
        headers: dict[str, str],
        *,
        compresses: bool = True,
        seconds: float = TIMEOUT,
        answer_max: int | None = None,
    ) -> None:
        """`compresses` sends long bodies in gzip, which not every server takes. With `answer_max`
        an answer is read up to so many bytes, and all of a request ends after `seconds`, however
        slowly the server answers; without, each step does."""
        self._to, self._headers, self._compresses = endpoint, headers, compresses
        self._seconds, self._answer_max = seconds, answer_max
        self._link: http.client.HTTPConnection | None = None
        self._used = 0.0

    def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        content_type: str = "application/json",
        accept: tuple[int, ...] = (),
    ) -> Reply:
        """Return the answer, if it is 2xx or `accept` has its status; wait while a server is busy.

        Raises ConnectionLost where no answer comes, or none but "busy"; then the request may have
        been carried out. Raises SyncRefused for 401 and 403, LakelogError for other statuses.
        """
        # A busy server has done nothing, so asking again is safe; a lost connection is the caller's
        # affair, who knows whether the request may be made twice.
        for attempt in range(1, _TRIES + 1):
            reply = self._once(method, path, body, content_type)
            if reply.status not in _BUSY or reply.status in accept:
                break
            if attempt < _TRIES:
                # As long as the server asks for, or growing times.
                time.sleep(_pause(reply, attempt))
        else:
            raise ConnectionLost(f"{self._to.address}: {_words(reply)}")
        if reply.status < 300 or reply.status in accept:
            return reply
        # Another attempt would not help, and may lock the account.
        if reply.status in _LOGIN:
            raise SyncRefused(
                f"{self._to.address}: {_words(reply)}: {_LOGIN[reply.status]}: change it and run"
                " it again"
            )
        raise LakelogError(f"{self._to.address}: {_words(reply)}")

    def close(self) -> None:
        """Close the connection; never raises."""
        link, self._link = self._link, None
        # Closing a broken connection raises all kinds of errors.
        if link is not None:
            with contextlib.suppress(Exception):
                link.close()

    def _once(self, method: str, path: str, body: bytes, content_type: str) -> Reply:
        headers = {"User-Agent": "lakelog", **self._headers}
        if body:
            headers["Content-Type"] = content_type
            # More than a packet; InfluxDB does not unpack forms.
            is_long = len(body) > 1400 and "urlencoded" not in content_type
            if is_long and self._compresses:
                # Level 1: a little smaller costs much more time. Without a time, equal bodies stay
                # equal.
                body = gzip.compress(body, 1, mtime=0)
                headers["Content-Encoding"] = "gzip"
        # Whether the server has closed it shows only when it is used.
        if time.monotonic() - self._used > _IDLE:
            self.close()
        try:
            self._link = self._link or self._open()
            response, content = self._exchanged(self._link, method, path, body, headers)
        except ssl.SSLCertVerificationError as error:  # a ValueError, too
            self.close()
            authority = self._to.options.get("ca_cert")
            hint = f"its authority has to be in {authority}" if authority else _NAME_AUTHORITY
            reason = f"the certificate is not accepted: {error.verify_message}: {hint}"
            raise SyncRefused(f"{self._to.address}: {reason}") from None
        except ValueError:
            self.close()
            # Not from it: the error holds the value.
            raise InvalidSetting(
                f"{self._to.address}: a token or key has a line break or a character that HTTP"
                " does not carry"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            # What stands in place of a status may be our own request, with its token or path.
            if isinstance(error, http.client.BadStatusLine) and not isinstance(error, OSError):
                reason = "what came is no answer of HTTP"
            raise ConnectionLost(f"{self._to.address}: {reason}") from None
        self._used = time.monotonic()
        return Reply(response.status, content, response.headers)

    def _exchanged(
        self,
        link: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes,
        headers: dict[str, str],
    ) -> tuple[http.client.HTTPResponse, bytes]:
        if self._answer_max is None:
            link.request(method, path, body or None, headers)
            response = link.getresponse()
            return response, response.read()
        with connection.cut_off(self._seconds, lambda: link.sock):
            link.request(method, path, body or None, headers)
            response = link.getresponse()
            # Up to so many bytes: an answer without end must not fill the memory.
            content = response.read(self._answer_max)
        self.close()  # the end of a longer answer would be taken for the next one
        return response, content

    def _open(self) -> http.client.HTTPConnection:
        endpoint, seconds = self._to, self._seconds
        if not endpoint.is_tls:
            return http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=seconds)
        authority = endpoint.options.get("ca_cert")
        if authority and not os.path.isfile(authority):
            raise InvalidSetting(f"ca_cert: there is no file {authority}")
        # Of the system, or the one that the address names.
        context = ssl.create_default_context(cafile=authority)
        return http.client.HTTPSConnection(
            endpoint.host, endpoint.port, timeout=seconds, context=context
        )


def _pause(reply: Reply, attempt: int) -> float:
    """The seconds that a server asks for, or growing ones."""
    requested = reply.retry_after
    return connection.pause(attempt) if requested is None else min(requested, _WAIT_MAX)


def _words(reply: Reply) -> str:
    body = " ".join(reply.body[:500].decode("utf-8", "replace").split())
    return f"HTTP {reply.status} {body[:200]}".rstrip()
