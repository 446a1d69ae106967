"""The HTTP API of an OCI registry: manifests, blobs and tags of one repository.

See https://github.com/opencontainers/distribution-spec. Bodies are bounded, secrets go to the
registry and to the token server that it names and nowhere else, and nothing is sent in the clear
but to this machine. A request that was interrupted raises Interrupted; the caller makes it again.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlencode, urljoin, urlsplit

from lakelog import clients
from lakelog.clients import Address
from lakelog.errors import TransferRefused, Unreachable
from lakelog.remotes import registry_connections
from lakelog.remotes.registry_connections import (
    RegistryConnections,
    RegistryResponse,
    RequestBody,
    Unreadable,
)
from lakelog.remotes.remote import TRIES, Interrupted

MANIFEST_MAX = 4 << 20
"""Bytes of a manifest at most, as registries have it."""
PART = 8 << 20
"""Longer blobs are sent in parts of this length."""
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_TAGS_MAX = 8 << 20
_NAMES_MAX, _PAGES_MAX = 400_000, 1_000
_REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)
_REFERENCE = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_CHALLENGE = re.compile(r'([a-z_]+)="([^"]*)"', re.IGNORECASE)


class Repository:
    """One repository of a registry, by the address `oci://HOST[:PORT]/REPOSITORY`."""

    def __init__(self, url: str) -> None:
        self.url = url
        host, self._name = divide(url)
        self._config_host = host
        # Docker's registry answers under another host than the one that its images are named by.
        server = "registry-1.docker.io" if host == "docker.io" else host
        scheme = "http" if Address.is_loopback(urlsplit(f"//{server}").hostname or "") else "https"
        self._root = (scheme, server)
        self._connections = RegistryConnections(url)
        self._lock = threading.Lock()
        self._authorization = ""
        self._login: registry_connections.Login | None = None

    # --- manifests and tags -----------------------------------------------------------------------

    def manifest(self, reference: str) -> bytes | None:
        """Return the manifest or index of a tag or digest, None where it is not there."""
        accept = {"Accept": f"{INDEX_TYPE}, {MANIFEST_TYPE}"}
        # Both types: a registry may answer 404 to a client that does not accept what it has.
        answer = self._request("GET", f"manifests/{reference}", headers=accept)
        if answer.status == 404:
            answer.close()
            return None
        data = self._require(answer, 200).body(MANIFEST_MAX)
        if len(data) > MANIFEST_MAX:
            raise TransferRefused(f"{self.url}: the manifest {reference} is too long: refused")
        return data

    def has_manifest(self, reference: str) -> bool:
        """Whether a manifest is there."""
        accept = {"Accept": f"{INDEX_TYPE}, {MANIFEST_TYPE}"}
        return self._size(f"manifests/{reference}", accept) is not None

    def put_manifest(
        self, reference: str, data: bytes, media_type: str, *, new: bool = False
    ) -> bool:
        """Store a manifest under a tag or digest. With `new` registries that know conditions are
        asked to keep one that is there: then False."""
        # 409 is what some registries answer in place of 412.
        headers = {"Content-Type": media_type} | ({"If-None-Match": "*"} if new else {})
        answer = self._request("PUT", f"manifests/{reference}", data, headers)
        if new and answer.status in (409, 412):
            answer.close()
            return False
        self._require(answer, 201, 200, 202).body()
        return True

    def tags(self) -> Iterator[str]:
        """Yield the tags; none of a repository that is not there."""
        path: str | None = f"/v2/{self._name}/tags/list?n=1000"
        for _ in range(_PAGES_MAX):
            answer = self._request("GET", path or "")
            if answer.status == 404:
                answer.close()
                return
            link = self._require(answer, 200).headers.get("Link", "")
            data = answer.body(_TAGS_MAX)
            with self._reading("its list of tags"):
                # Before parsing: small values take ten times their bytes of memory.
                if data.count(b"[") + data.count(b"{") > 9 or data.count(b",") > _NAMES_MAX:
                    raise ValueError("no list of names")
                names = json.loads(data)["tags"] or []
                if not all(isinstance(name, str) for name in names):
                    raise TypeError(names)
                yield from names
            match = re.match(r'\s*<([^<>]+)>\s*;\s*rel="?next"?', link)
            after = match and urlsplit(match[1])
            following = f"{after.path}?{after.query}" if after else None
            # A link that leads to itself would be followed without end.
            if not following or following == path:
                return
            path = following
        raise TransferRefused(f"{self.url}: its list of tags has no end: refused")

    def delete(self, path: str) -> bool:
        """Delete `manifests/DIGEST` or `blobs/DIGEST`; whether it is gone: registries may have that
        turned off."""
        answer = self._request("DELETE", path)
        answer.close()
        return answer.status in (200, 202, 204, 404)

    # --- blobs ------------------------------------------------------------------------------------

    def blob_size(self, digest: str) -> int | None:
        """The length of a blob, None where it is not there; 0 of one that the registry cannot read,
        however often it is asked, as of a link that was cut when its disk was full."""
        for number in range(1, TRIES):
            with contextlib.suppress(Unreadable):
                return self._size(f"blobs/{digest}")
            time.sleep(clients.pause(number))
        return 0

    def blob(self, digest: str, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes of a blob from `start` on. Raises FileNotFoundError."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        answer = self._request("GET", f"blobs/{digest}", headers=headers)
        # The end of an upload that was complete: there is nothing more to come.
        if answer.status == 416:
            answer.close()
            return
        if answer.status == 404:
            answer.close()
            raise FileNotFoundError(f"{self.url}: {digest} is not there")
        # 200 to a request with a range means that the server ignored it: what we have is skipped.
        skip = start if self._require(answer, 200, 206).status == 200 else 0
        for chunk in answer.pieces():
            yield chunk[skip:]
            skip = max(0, skip - len(chunk))

    def put_blob(self, digest: str, chunks: Iterator[bytes], size: int) -> None:
        """Store a blob. The registry checks its digest and shows it only when it is whole."""
        if size <= PART:
            # Read to its end first: damage raises before anything is sent.
            data = b"".join(chunks)
            place = self._begin()
        else:
            place, data = self._put_parts(chunks)
        place += f"{'&' if urlsplit(place).query else '?'}{urlencode({'digest': digest})}"
        answer = self._request("PUT", place, data, _OCTETS)
        self._require(answer, 201, 204).body()

    def _begin(self) -> str:
        # A location may be at another host, as of a store behind the registry.
        answer = self._require(self._request("POST", "blobs/uploads/", b""), 202)
        place = answer.headers.get("Location", "")
        answer.body()
        return self._absolute(place)

    def _put_parts(self, chunks: Iterator[bytes]) -> tuple[str, bytes]:
        """Send all but the last part; return where the upload is, and the last part."""
        place, offset, waiting = self._begin(), 0, bytearray()
        for chunk in chunks:
            waiting += chunk
            while len(waiting) > PART:
                place = self._put_part(place, offset, bytes(waiting[:PART]))
                offset += PART
                del waiting[:PART]
        return place, bytes(waiting)

    def _put_part(self, place: str, start: int, data: bytes) -> str:
        """Send a part; one that was interrupted goes on where the registry says it is."""
        # A part that was sent in full, and whose answer was lost, must not be sent again.
        for attempt in (1, 2, 3):
            headers = {"Content-Range": f"{start}-{start + len(data) - 1}", **_OCTETS}
            try:
                answer = self._require(self._request("PATCH", place, data, headers), 202)
                place = self._absolute(answer.headers.get("Location", place))
                answer.body()
                return place
            except Interrupted:
                if attempt == 3:
                    raise
            answer = self._require(self._request("GET", place), 204, 200)
            place = self._absolute(answer.headers.get("Location", place))
            match = re.fullmatch(r"(?:bytes=)?0-(\d+)", answer.headers.get("Range", ""))
            answer.body()
            # Registries say 0-0 of an upload that is empty.
            stop = int(match[1]) + 1 if match and match[1] != "0" else 0
            if not start <= stop <= start + len(data):
                raise Interrupted(f"{self.url}: the registry lost an upload")
            start, data = stop, data[stop - start :]
            if not data:
                return place
        raise AssertionError

    # --- requests ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def _size(self, path: str, headers: dict[str, str] | None = None) -> int | None:
        answer = self._request("HEAD", path, headers=headers)
        if answer.status == 404:
            answer.close()
            return None
        length = self._require(answer, 200).headers.get("Content-Length", "0")
        answer.body()
        return int(length) if length.isdecimal() else 0

    def _request(
        self,
        method: str,
        path: str,
        body: RequestBody = None,
        headers: dict[str, str] | None = None,
    ) -> RegistryResponse:
        """Return the answer to a request, after redirects, with authorization where it is needed.
        Raises Interrupted, Unreachable, TransferRefused."""
        url = self._absolute(path if path[:1] in "/h" else f"/v2/{self._name}/{path}")
        own_headers = headers or {}
        answer = self._follow(method, url, body, own_headers)
        # Only the registry itself may ask who we are.
        if answer.status == 401 and self._of_registry(url):
            challenge = answer.headers.get("WWW-Authenticate", "")
            answer.body()
            self._authorize(challenge)
            answer = self._follow(method, url, body, own_headers)
        return answer

    def _follow(
        self, method: str, url: str, body: RequestBody, headers: dict[str, str]
    ) -> RegistryResponse:
        for _ in range(_REDIRECTS):
            authorization = {"Authorization": self._authorization} if self._authorization else {}
            # What is not the registry itself, such as the store behind it, gets no secrets.
            answer = self._connections.request(
                method, url, body, headers | (authorization if self._of_registry(url) else {})
            )
            # A body that was sent cannot be sent again by following a redirect: the caller begins
            # anew.
            if answer.status not in _MOVED or method not in ("GET", "HEAD"):
                return answer
            answer.close()
            url = self._absolute(answer.headers.get("Location", ""), url)
        raise TransferRefused(f"{self.url}: redirects without end: refused")

    def _absolute(self, place: str, base: str = "") -> str:
        """Return a URL. Raises TransferRefused for one that would be sent in the clear, or that a
        registry elsewhere has on this machine, where it could reach what others cannot."""
        try:
            url = urljoin(base or f"{self._root[0]}://{self._root[1]}/", place)
            address = urlsplit(url)
        except ValueError:
            raise TransferRefused(f"{self.url}: it leads to no address") from None
        is_here, of_here = Address.is_loopback(address.hostname or ""), self._root[0] == "http"
        is_safe = address.scheme == "https" or (address.scheme == "http" and is_here)
        if not is_safe or not address.hostname or (is_here and not of_here):
            raise TransferRefused(f"{self.url}: it leads to {address.scheme}://{address.hostname}")
        return url

    def _of_registry(self, url: str) -> bool:
        return urlsplit(url)[:2] == self._root

    # --- authorization ----------------------------------------------------------------------------

    def _authorize(self, challenge: str) -> None:
        """Get the right to push and pull. Raises Unreachable, TransferRefused."""
        with self._lock:
            # Asked once: a credential helper may open a window.
            login = self._login = self._login or registry_connections.login(self._config_host)
        scheme, _, parameters = challenge.partition(" ")
        if scheme.lower() == "basic":
            self._authorization = login.basic
        elif scheme.lower() == "bearer":
            demand = {name.lower(): value for name, value in _CHALLENGE.findall(parameters)}
            self._authorization = f"Bearer {self._token(demand, login)}"
        if not self._authorization:
            raise self._refused()

    def _token(self, demand: dict[str, str], login: registry_connections.Login) -> str:
        realm = self._absolute(demand.get("realm", ""))
        scope = demand.get("scope") or f"repository:{self._name}:pull,push"
        query = {"service": demand.get("service", ""), "scope": scope}
        if login.identity:
            form = {"grant_type": "refresh_token", "refresh_token": login.identity}
            body = urlencode({**query, **form, "client_id": "lakelog"}).encode()
            form_headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._connections.request("POST", realm, body, form_headers)
        else:
            mark = "&" if "?" in realm else "?"
            headers = {"Authorization": login.basic} if login.basic else {}
            answer = self._connections.request(
                "GET", f"{realm}{mark}{urlencode(query)}", None, headers
            )
        if answer.status in (400, 401, 403):
            answer.close()
            raise self._refused()
        data = self._require(answer, 200).body()
        with self._reading("its token"):
            body_ = json.loads(data)
            token = body_.get("token") or body_["access_token"]
            # A header must not be continued by what a server sends in a token.
            if not re.fullmatch(r"[\x21-\x7e]+", token):
                raise ValueError
            return str(token)

    def _refused(self) -> Unreachable:
        return Unreachable(
            f"{self.url}: access is refused: `docker login {self._config_host}`, or check the"
            " rights of that user"
        )

    def _require(self, answer: RegistryResponse, *statuses: int) -> RegistryResponse:
        """Return an answer with one of the statuses. Raises FileNotFoundError, Unreachable for
        missing rights, TransferRefused."""
        if answer.status in statuses:
            return answer
        if answer.status in (401, 403):
            answer.close()
            raise self._refused()
        reason = answer.reason()
        if answer.status in (404, 416):  # an upload that the registry forgot, or has otherwise
            raise Interrupted(f"{self.url}: {reason}")
        raise TransferRefused(f"{self.url}: the registry refuses: {reason}")

    @contextlib.contextmanager
    def _reading(self, subject: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise TransferRefused(f"{self.url}: {subject} is malformed: refused") from None


_OCTETS = {"Content-Type": "application/octet-stream"}


def divide(url: str) -> tuple[str, str]:
    """Return host and repository of an address. Raises TransferRefused."""
    address = urlsplit(url)
    name = address.path.strip("/")
    try:
        is_valid = bool(address.hostname) and "@" not in address.netloc and (address.port or 1) > 0
    except ValueError:
        is_valid = False
    if not is_valid or not all(_REFERENCE.fullmatch(component) for component in name.split("/")):
        raise TransferRefused(
            f"{url}: an address of this kind looks like oci://HOST/REPOSITORY, in lower case and"
            " without a tag"
        )
    return address.netloc, name
