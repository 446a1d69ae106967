"""Connections to an OCI registry and to the servers that it names: requests and their answers.

Connections are kept open and shared by threads. A server that sends too slowly is given up, and one
that is busy is asked again after the time that it names: a request that was interrupted raises
Interrupted, and the caller makes it again.

Credentials for a registry from the configuration that `docker login` and others write.

`$DOCKER_CONFIG/config.json`, by default `~/.docker/config.json`: `credHelpers` of a host, then
`credsStore`, both programs `docker-credential-<name>`, then `auths`. No message shows a secret.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from lakelog.errors import TransferRefused, Unreachable
from lakelog.remotes.remote import Interrupted, Pace

RequestBody = bytes | None
_ANSWER_MAX, _PIECE = 64 << 10, 1 << 20
_TIMEOUT = 60.0
_IDLE = 4.0
"""Servers close connections that are idle for 5 s or longer."""
_WAIT_MAX = 30.0
_CUT = (
    "if it stays so, it is damaged in the registry's storage, where no push replaces it:"
    " restore it there, or push to another registry"
)


class Unreadable(Interrupted):
    """Raised where a registry answers that something is wrong with what it has."""


@dataclass(frozen=True)
class _Link:
    """A connection that is open: where to, and when it was used last."""

    to: tuple[str, str]
    http: http.client.HTTPConnection
    used: float = 0.0


class _PacedStream(io.RawIOBase):
    """The bytes of a connection, given up where they come too slowly, in headers as in bodies."""

    def __init__(self, raw: io.RawIOBase, url: str) -> None:
        self._raw, self._pace = raw, Pace(url)

    def readable(self) -> bool:
        """It is only read."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read what is there."""
        started = time.monotonic()
        # Time in the read alone: what the caller does meanwhile is not the server's slowness.
        count = self._raw.readinto(buffer)
        self._pace.add(time.monotonic() - started, count or 0)
        return count

    def close(self) -> None:
        """Close the connection's side of it."""
        self._raw.close()
        super().close()


class RegistryResponse:
    """What a server answered; its body is read later, or the connection ends with `close`."""

    def __init__(
        self,
        url: str,
        response: http.client.HTTPResponse,
        link: _Link,
        give_back: Callable[[_Link], None],
    ) -> None:
        self.status, self.headers = response.status, response.headers
        self._url, self._response = url, response
        self._link, self._give_back = link, give_back

    def pieces(self) -> Iterator[bytes]:
        """Yield the body. Raises Interrupted."""
        whole = False
        try:
            while chunk := self._response.read1(_PIECE):
                yield chunk
            # A body that ends early has no error of its own here.
            if self._response.length:
                raise Interrupted(f"{self._url}: the connection was lost")
            whole = True
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, (Interrupted, Unreachable)):
                raise
            raise _interrupted(self._url, error) from None
        finally:
            self._end(whole)

    def body(self, limit: int = _ANSWER_MAX) -> bytes:
        """Return the body, cut at a limit. Raises Interrupted."""
        data = bytearray()
        for chunk in self.pieces():
            data += chunk
            if len(data) > limit:
                break
        return bytes(data)

    def reason(self) -> str:
        """Read the body, and return the status and what the registry says, in one line."""
        data = b""
        with contextlib.suppress(Interrupted):
            data = self.body()
        answer_text = data[:500].decode("utf-8", "replace")
        with contextlib.suppress(ValueError, KeyError, TypeError, IndexError, RecursionError):
            error: Any = json.loads(data)["errors"][0]
            answer_text = f"{error['code']}: {error['message']}"
        printable = "".join(c if c.isprintable() else " " for c in answer_text)[:200]
        return f"HTTP {self.status} {' '.join(printable.split())}".rstrip()

    def close(self) -> None:
        """Read no further."""
        self._end(False)

    def _end(self, whole: bool) -> None:
        # Read to the end, or the next answer on the connection would begin with the rest of this
        # one.
        if whole and self._response.isclosed() and not self._response.will_close:
            self._give_back(self._link)
        else:
            self._response.close()
            self._link.http.close()


class RegistryConnections:
    """The connections of one repository, of which `url` is the address that errors name."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._idle: list[_Link] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close those that are idle."""
        with self._lock:
            links, self._idle = self._idle, []
        for link in links:
            link.http.close()

    def request(
        self, method: str, url: str, body: RequestBody, headers: dict[str, str]
    ) -> RegistryResponse:
        """Return the answer to one request. Raises Interrupted, Unreachable."""
        address = urlsplit(url)
        target = (address.path or "/") + (f"?{address.query}" if address.query else "")
        link = self._take((address.scheme, address.netloc))
        try:
            link.http.request(method, target, body, {"User-Agent": "lakelog", **headers})
            answer = RegistryResponse(self.url, link.http.getresponse(), link, self._give_back)
        except ssl.SSLCertVerificationError as error:
            link.http.close()
            raise Unreachable(
                f"{self.url}: the certificate is not accepted: {error.verify_message}: name its"
                " authority with SSL_CERT_FILE"
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            link.http.close()
            if isinstance(error, Unreachable):
                raise
            raise _interrupted(self.url, error) from None
        # Busy or broken: both may be over with the next attempt.
        if answer.status == 429 or answer.status >= 500:
            if answer.status == 500 and method in ("GET", "HEAD"):
                # What is cut in its storage gives that each time.
                raise Unreadable(f"{self.url}: {address.path}: {answer.reason()}", _CUT)
            self._wait(answer)
        return answer

    def _wait(self, answer: RegistryResponse) -> None:
        """Wait as long as a busy server asks, and have the request made again."""
        seconds = answer.headers.get("Retry-After", "")
        reason = answer.reason()
        # Some send a date in place of seconds: then the pause of the attempt has to do.
        if seconds.isdecimal():
            time.sleep(min(float(seconds), _WAIT_MAX))
        raise Interrupted(f"{self.url}: {reason}")

    def _take(self, root: tuple[str, str]) -> _Link:
        with self._lock:
            # From the newest on: it is the likeliest to be open still.
            for index in range(len(self._idle) - 1, -1, -1):
                if self._idle[index].to == root:
                    link = self._idle.pop(index)
                    if time.monotonic() - link.used < _IDLE:
                        return link
                    link.http.close()
        scheme, netloc = root
        if scheme == "http":
            connection = http.client.HTTPConnection(netloc, timeout=_TIMEOUT)
        else:
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(netloc, timeout=_TIMEOUT, context=context)
        connection.response_class = self._paced  # type: ignore[assignment]
        return _Link(root, connection)

    def _paced(self, sock: Any, *arguments: Any, **options: Any) -> http.client.HTTPResponse:
        # http.client has no hook for the stream; its buffered reader is put on a paced one.
        response = http.client.HTTPResponse(sock, *arguments, **options)
        raw: Any = response.fp.detach()
        response.fp = io.BufferedReader(_PacedStream(raw, self.url))
        return response

    def _give_back(self, link: _Link) -> None:
        with self._lock:
            self._idle.append(_Link(link.to, link.http, time.monotonic()))


def _interrupted(url: str, error: Exception) -> Interrupted:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Interrupted(f"{url}: {' '.join(reason.split())[:200]}")


_HUB = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_HELPER_S = 30
_NO_CREDENTIALS = "credentials not found"
_TOKEN_USER = "<token>"
"""The user name with which a helper says that the secret is an identity token."""


@dataclass(frozen=True)
class Login:
    """A user and a password, or an identity token (an OAuth2 refresh token); all "" for nobody."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header, "" without a password."""
        pair = f"{self.user}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}" if self.password else ""


def login(host: str) -> Login:
    """Return the credentials of a registry, `HOST` or `HOST:PORT`. Raises TransferRefused."""
    path = os.path.join(
        os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"), "config.json"
    )
    config = _read(path)
    # Docker Hub has had three names; other registries are stored with or without their scheme.
    names = _HUB if host == "docker.io" else (host, f"https://{host}", f"https://{host}/v1/")
    helpers = config.get("credHelpers") or {}
    store = next((helpers[name] for name in names if name in helpers), config.get("credsStore"))
    if store:
        secret = _ask(str(store), names)
        if secret:
            return secret
    auths = config.get("auths") or {}
    entry: dict[str, str] = next((auths[name] for name in names if auths.get(name)), {})
    try:
        return _of_entry(entry)
    except (AttributeError, TypeError, ValueError):
        raise TransferRefused(f"{path}: the credentials of {host} cannot be read") from None


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        if not all(isinstance(config.get(n) or {}, dict) for n in ("auths", "credHelpers")):
            raise ValueError
    except FileNotFoundError:
        return {}  # an anonymous pull, which many registries allow
    except (OSError, ValueError, AttributeError):  # the last for JSON that is no object
        # The parser's own words would repeat a part of the file.
        raise TransferRefused(f"{path}: cannot be read as Docker configuration") from None
    return config  # type: ignore[no-any-return]


def _of_entry(entry: dict[str, str]) -> Login:
    if entry.get("identitytoken"):
        return Login(identity=entry["identitytoken"])
    if entry.get("auth"):
        user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        return Login(user, password.rstrip("\0"))
    return Login(entry.get("username", ""), entry.get("password", ""))


def _ask(store: str, names: tuple[str, ...]) -> Login | None:
    """Return what a credential helper knows, None where it knows nothing."""
    program = f"docker-credential-{store}"
    if not _HELPER.fullmatch(store):
        raise TransferRefused(f"{store!r} in the Docker configuration is no credential helper")
    # Each name that docker may have stored it under.
    for name in names:
        try:
            process = subprocess.run(
                [program, "get"], input=name, capture_output=True, text=True, timeout=_HELPER_S
            )
        except FileNotFoundError:
            raise TransferRefused(f"{program} is not installed: `docker login` needs it") from None
        except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
            raise TransferRefused(f"{program} does not answer") from None
        if process.returncode:
            if _NO_CREDENTIALS in (process.stdout + process.stderr).lower():
                continue
            raise TransferRefused(f"{program} failed for {name}: `docker login {names[0]}` again")
        try:
            answer = json.loads(process.stdout)
            user, secret = str(answer["Username"]), str(answer["Secret"])
        except (ValueError, KeyError, TypeError):
            raise TransferRefused(f"{program} answered something else than credentials") from None
        return Login(identity=secret) if user == _TOKEN_USER else Login(user, secret)
    return None
