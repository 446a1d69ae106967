"""Addresses that take notifications by POST: in our form, in that of Alertmanager's webhooks, and
Alertmanager itself.

A request has the notification's id in `Lakelog-Notification` and `Idempotency-Key`, the same at
each attempt, by which a receiver knows one that it has. Nothing is followed that an answer says.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

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


class Webhook:
    """An address. Its form is `lakelog`, or `alertmanager` for what that sends to webhooks."""

    def __init__(self, spelled: str) -> None:
        """Read a sink's text. Raises InvalidSetting."""
        address, self._options = divided(spelled, _OPTIONS)
        self.is_alertmanager = address.startswith(ALERTMANAGER)
        self._form = self._options.get("form", "lakelog")
        if self._form not in _FORMS:
            raise InvalidSetting(f"a form is one of {', '.join(_FORMS)}")
        # Some services have their secret in the address: then all of it is one.
        place = self._options.get("url_env") or self._options.get("url_file")
        self._target = "" if place else address.removeprefix(ALERTMANAGER)
        # Of an address in a variable it is only known when it is needed.
        self.address = f"webhook at {place}" if place else self._endpoint().address

    def deliver(self, notice: Notice) -> None:
        """POST it. Raises DeliveryFailed."""
        headers = {
            "Lakelog-Notification": notice.id,
            "Idempotency-Key": notice.id,
            "Lakelog-Attempt": str(notice.attempt),
        }
        self._post(self._body(notice), headers)

    def repeat(self, firing: list[Notice]) -> None:
        """POST to Alertmanager once more what fires. Raises DeliveryFailed."""
        self._post(orjson.dumps([notices.alertmanager_alert(notice) for notice in firing]), {})

    def _post(self, body: bytes, headers: dict[str, str]) -> None:
        try:
            endpoint = self._endpoint()
        except InvalidSetting as error:
            raise DeliveryFailed(str(error)) from None
        if token := secret(self._options, "token"):
            headers["Authorization"] = f"Bearer {token}"
        link = HttpConnection(
            endpoint, headers, compresses=False, seconds=SECONDS, answer_max=_ANSWER_MAX
        )
        try:
            with contextlib.closing(link):
                # All answers are read: what they mean is decided below.
                reply = link.request("POST", endpoint.path, body, accept=_ANY)
        except ConnectionLost as error:
            raise DeliveryFailed(str(error)) from None
        except LakelogError as error:
            raise DeliveryFailed(str(error)) from None
        _require(reply, endpoint.address)

    def _endpoint(self) -> Endpoint:
        url = self._target or secret(self._options, "url")
        endpoint = Endpoint.of_request(url, self._options.get("ca_cert", ""))
        if not self.is_alertmanager:
            return endpoint
        # The address may be that of its page.
        path, _, _ = endpoint.path.partition("?")
        return replace(endpoint, path=path.rstrip("/") + API)

    def _body(self, notice: Notice) -> bytes:
        if self.is_alertmanager:
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
    raise DeliveryFailed(
        f"{address}: HTTP {reply.status}", is_final=is_final, retry_after=reply.retry_after or 0
    )
