"""Letters by SMTP: `mailto:A@B,C@D#server=HOST:PORT&from=…&user=…&password_file=…&tls=…`.

The Message-ID is made of the notification's id, so a letter that comes twice is known as one, and
the letter that an alert is over answers the one that it fired.
"""

from __future__ import annotations

import contextlib
import email.message
import email.policy
import email.utils
import os
import smtplib
import socket
import ssl
from urllib.parse import unquote

from lakelog.alerts.notices import Notice, text_body
from lakelog.alerts.sinks.sink import SECONDS, DeliveryFailed, divided, secret
from lakelog.alerts.standing import micros_of
from lakelog.clients import Address, cut_off
from lakelog.errors import InvalidSetting

SCHEME = "mailto:"
_OPTIONS = ("server", "from", "user", "password_env", "password_file", "tls", "ca_cert")
_SECURITY = ("starttls", "tls", "none")
_DOMAIN = "lakelog.invalid"
"""Of Message-IDs: a name that nobody has, and the same on every machine."""
_USAGE = "a mail sink looks like mailto:ops@example.org#server=mail.example.org:587&from=a@b.org"


class Mail:
    """Receivers by mail, and the server that takes letters for them."""

    def __init__(self, spelled: str) -> None:
        """Read a sink's text. Raises InvalidSetting."""
        address, self._options = divided(spelled, _OPTIONS)
        self._receivers = [unquote(a) for a in address.removeprefix(SCHEME).split(",")]
        host, _, port = self._options.get("server", "localhost:25").rpartition(":")
        if not host or not port.isdigit():
            raise InvalidSetting(f"{_USAGE}; the server has its port")
        self._host, self._port = host.strip("[]"), int(port)
        self._sender = self._options.get("from", self._receivers[0])
        if not all(map(_is_address, (*self._receivers, self._sender))):
            raise InvalidSetting(_USAGE)
        default = "none" if Address.is_loopback(self._host) else "starttls"
        self._security = self._options.get("tls", default)
        if self._security not in _SECURITY:
            raise InvalidSetting(f"tls is one of {', '.join(_SECURITY)}")
        if self._security == "none" and not Address.is_loopback(self._host):
            raise InvalidSetting("a letter to another machine's server goes by tls or starttls")
        # Now, and not with the first letter at night.
        authority = self._options.get("ca_cert")
        if authority and not os.path.isfile(authority):
            raise InvalidSetting(f"ca_cert: there is no file {authority}")
        self.address = f"{SCHEME}{','.join(self._receivers)}"

    def deliver(self, notice: Notice) -> None:
        """Send a letter. Raises DeliveryFailed."""
        password = secret(self._options, "password")
        # smtplib's timeout is for each read: a server that sends a byte a second would hold it for
        # ever.
        connections: list[smtplib.SMTP] = []
        try:
            with cut_off(SECONDS, lambda: connections[0].sock if connections else None):
                refused = self._send(connections, password, self.letter(notice))
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise self._failed(error) from None
        # Some have it: another attempt would tell those twice.
        if refused:
            raise DeliveryFailed(
                f"{self._host}: the others have it, but not {', '.join(refused)}", is_final=True
            )

    def letter(self, notice: Notice) -> email.message.EmailMessage:
        """Return the letter of a notification, the same at each attempt."""
        document = notice.document
        letter = email.message.EmailMessage(policy=email.policy.SMTP)
        labels = "".join(f" {name}={value}" for name, value in sorted(document["labels"].items()))
        subject = f"[{document['state']}] {document['rule']}{labels}"
        letter["Subject"] = "".join(c if c.isprintable() else " " for c in subject)[:200]
        letter["From"], letter["To"] = self._sender, ", ".join(self._receivers)
        # The time of the change, so that a letter is the same at each attempt.
        letter["Date"] = email.utils.formatdate(micros_of(document["time"]) / 1e6)
        letter["Message-ID"] = f"<{notice.id}@{_DOMAIN}>"
        if before := document.get("resolves"):
            sink = notice.id.partition("-")[2]
            # The letter that it fired, as the same sink got it: mail programs show them as one
            # thread.
            letter["In-Reply-To"] = letter["References"] = f"<{before}-{sink}@{_DOMAIN}>"
        # RFC 3834: no answers of people on holiday.
        letter["Auto-Submitted"] = "auto-generated"
        letter["Lakelog-Notification"] = notice.id
        letter.set_content(text_body(notice))
        return letter

    def _send(
        self, connections: list[smtplib.SMTP], password: str, letter: email.message.EmailMessage
    ) -> list[str]:
        """Hand a letter over; return who does not get it. `connections` gets its connection."""
        with contextlib.closing(self._connected(connections)) as server:
            if user := self._options.get("user"):
                server.login(user, password)
            refused = server.send_message(letter, self._sender, self._receivers)
            with contextlib.suppress(smtplib.SMTPException, OSError):
                server.quit()  # it has the letter, whatever it says to this
        return list(refused)

    def _connected(self, connections: list[smtplib.SMTP]) -> smtplib.SMTP:
        # A name that is not ASCII is refused by many servers.
        name = socket.gethostname()
        name = name if name.isascii() else "localhost"
        context = ssl.create_default_context(cafile=self._options.get("ca_cert"))
        if self._security == "tls":
            return _TlsServer(connections, self._host, self._port, name, context)
        server = _Server(connections, self._host, self._port, name)
        try:
            if self._security == "starttls":
                server.starttls(context=context)
        except BaseException:
            server.close()
            raise
        return server

    def _failed(self, error: Exception) -> DeliveryFailed:
        """The error of a server, without its own words: it may repeat a letter or a password."""
        place = f"{self._host}:{self._port}"
        # In the order of the classes: the first ones are special cases of those below.
        if isinstance(error, ssl.SSLCertVerificationError):
            return DeliveryFailed(f"{place}: the certificate is not accepted: {error.reason}")
        if isinstance(error, smtplib.SMTPAuthenticationError):
            return DeliveryFailed(f"{place}: the user or password is wrong ({error.smtp_code})")
        if isinstance(error, smtplib.SMTPNotSupportedError):
            return DeliveryFailed(f"{place}: it has no STARTTLS or no login")
        if isinstance(error, smtplib.SMTPRecipientsRefused):
            codes = {code for code, _ in error.recipients.values()}
            # 5xx is final in SMTP; 4xx asks for another attempt.
            is_final = all(code >= 500 for code in codes)
            return DeliveryFailed(f"{place}: it refuses all receivers", is_final=is_final)
        if isinstance(error, smtplib.SMTPResponseException):
            # A server that is busy may refuse a connection by 5xx, too.
            is_final = error.smtp_code >= 500 and not isinstance(error, smtplib.SMTPConnectError)
            return DeliveryFailed(f"{place}: SMTP {error.smtp_code}", is_final=is_final)
        reason = getattr(error, "strerror", None) or type(error).__name__
        return DeliveryFailed(f"{place}: {reason}")


class _Server(smtplib.SMTP):
    """A connection that is known before it has reached the server."""

    def __init__(self, connections: list[smtplib.SMTP], host: str, port: int, name: str) -> None:
        # Before connecting, which may be what hangs.
        connections.append(self)
        super().__init__(host, port, name, timeout=SECONDS)


class _TlsServer(smtplib.SMTP_SSL):
    """The same over TLS from the first byte on."""

    def __init__(
        self,
        connections: list[smtplib.SMTP],
        host: str,
        port: int,
        name: str,
        context: ssl.SSLContext,
    ) -> None:
        connections.append(self)
        super().__init__(host, port, name, timeout=SECONDS, context=context)


def _is_address(address: str) -> bool:
    user, mark, host = address.rpartition("@")
    # No angle brackets or commas: they would make another header of it.
    return bool(user and mark and host) and address.isprintable() and not set(address) & set(" <>,")
