"""Addresses that take notifications by POST: in our form, in that of Alertmanager's webhooks, and
Alertmanager itself.

A request has the notification's id in `Lakelog-Notification` and `Idempotency-Key`, the same at
each attempt, by which a receiver knows one that it has. Nothing is followed that an answer says.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson

from lakelog.alerts import notices
from lakelog.alerts.notices import Notice
from lakelog.alerts.sinks.sink import SECONDS, DeliveryFailed, divided, secret
from lakelog.clients import ConnectionLost, Endpoint, HttpConnection, Reply
from lakelog.errors import InvalidSetting, LakelogError

ALERTMANAGER = "alertmanager+"
API = "/api/v2/alerts"
_OPTIONS = ("form", "token_env", "token_file", "url_env", "url_file", "ca_cert")
_FORMS = ("lakelog", "alertmanager")
_ANSWER_MAX = 65_536
_AGAIN = frozenset((401, 403, 404, 405, 407, 408, 425, 429))
"""Answers below 500 that are of the address and not of the body: another attempt may do."""
_ANY = tuple(range(300, 600))


@dataclass(frozen=True)
class _Url:
    """An address, divided for a request."""

    endpoint: Endpoint
    path: str

    @classmethod
    def parse(cls, url: str, authority: str) -> _Url:
        """Divide a URL. Raises InvalidSetting, which does not repeat it."""
        usage = "an address is http://HOST/PATH or https://HOST/PATH, without a user"
        try:
            places = urlsplit(url)
            # Raises ValueError for what is no number.
            port = places.port
        except ValueError:
            raise InvalidSetting(usage) from None
        host, is_tls = places.hostname, places.scheme == "https"
        # A user in an address would be shown wherever the address is.
        if places.scheme not in ("http", "https") or not host or "@" in places.netloc:
            raise InvalidSetting(usage)
        # What is no URL could hold a line break, and with it a header.
        if not url.isascii() or any(c.isspace() for c in url):
            raise InvalidSetting(f"{usage}; what is not ASCII is written as %XX")
        port = port or (443 if is_tls else 80)
        options = {"ca_cert": authority} if authority else {}
        # The path of a webhook is often its secret: no message has it.
        address = f"{places.scheme}://{places.netloc}"
        path = (places.path or "/") + (f"?{places.query}" if places.query else "")
        return cls(Endpoint(address, host, port, is_tls, "", options=options), path)


class Webhook:
    """An address. Its form is `lakelog`, or `alertmanager` for what that sends to webhooks."""

    def __init__(self, spelled: str) -> None:
        """Read a sink's text. Raises InvalidSetting."""
        address, self._options = divided(spelled, _OPTIONS)
        self._is_api = address.startswith(ALERTMANAGER)
        self._form = self._options.get("form", "lakelog")
        if self._form not in _FORMS:
            raise InvalidSetting(f"a form is one of {', '.join(_FORMS)}")
        # Some services have their secret in the address: then all of it is one.
        place = self._options.get("url_env") or self._options.get("url_file")
        self._target = "" if place else address.removeprefix(ALERTMANAGER)
        # Of an address in a variable it is only known when it is needed.
        self.address = f"webhook at {place}" if place else self._url().endpoint.address

    def deliver(self, notice: Notice) -> None:
        """POST it. Raises DeliveryFailed."""
        try:
            url = self._url()
        except InvalidSetting as error:
            raise DeliveryFailed(str(error)) from None
        headers = {
            "Lakelog-Notification": notice.id,
            "Idempotency-Key": notice.id,
            "Lakelog-Attempt": str(notice.attempt),
        }
        if token := secret(self._options, "token"):
            headers["Authorization"] = f"Bearer {token}"
        link = HttpConnection(
            url.endpoint, headers, compresses=False, seconds=SECONDS, answer_max=_ANSWER_MAX
        )
        try:
            with contextlib.closing(link):
                # All answers are read: what they mean is decided below.
                reply = link.request("POST", url.path, self._body(notice), accept=_ANY)
        except ConnectionLost as error:
            raise DeliveryFailed(str(error)) from None
        except LakelogError as error:
            raise DeliveryFailed(str(error)) from None
        _require(reply, url.endpoint.address)

    def _url(self) -> _Url:
        url = self._target or secret(self._options, "url")
        parsed = _Url.parse(url, self._options.get("ca_cert", ""))
        if not self._is_api:
            return parsed
        # The address may be that of its page.
        path, _, _ = parsed.path.partition("?")
        return _Url(parsed.endpoint, path.rstrip("/") + API)

    def _body(self, notice: Notice) -> bytes:
        if self._is_api:
            # A list, as Alertmanager takes several.
            return orjson.dumps([notices.alertmanager_alert(notice)])
        if self._form == "alertmanager":
            return orjson.dumps(notices.alertmanager_body(notice))
        return orjson.dumps(notice.body)


def _require(reply: Reply, address: str) -> None:
    """Raise DeliveryFailed unless a notification was taken."""
    if reply.status < 300:
        return
    if reply.status < 400:
        raise DeliveryFailed(
            f"{address}: HTTP {reply.status}: it redirects: give the address that it redirects to"
        )
    # An answer may repeat what was sent: its text is not shown.
    is_final = reply.status < 500 and reply.status not in _AGAIN
    raise DeliveryFailed(f"{address}: HTTP {reply.status}", is_final=is_final)
