"""Which sinks there are, by how their text begins."""

from __future__ import annotations

from collections.abc import Callable

from lakelog.alerts.notices import Notice
from lakelog.alerts.sinks import command, mail, webhook
from lakelog.alerts.sinks.command import Command
from lakelog.alerts.sinks.mail import Mail
from lakelog.alerts.sinks.sink import AlertSink
from lakelog.alerts.sinks.webhook import Webhook
from lakelog.errors import InvalidSetting

_WEBHOOK = "webhook:"
_HTTP = ("http://", "https://")
USAGE = (
    "a receiver is log, an http(s) address, alertmanager+http://HOST:9093, mailto:ADDRESS, or"
    " command:PROGRAM"
)


class LogSink:
    """Writes a line to the log of the process that evaluates: standard error of `alerts run`, the
    log of a server."""

    address = "log"

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def deliver(self, notice: Notice) -> None:
        """Write it."""
        self._say(f"alert {notice.line}")


def parse(spelled: str, say: Callable[[str], None]) -> AlertSink:
    """Return the receiver that a text names; `say` takes the lines of `log`. Raises
    InvalidSetting."""
    if spelled == "log":
        return LogSink(say)
    if spelled.startswith((*_HTTP, *(webhook.ALERTMANAGER + scheme for scheme in _HTTP))):
        return Webhook(spelled)
    if spelled.startswith(f"{_WEBHOOK}#"):
        return Webhook(spelled)
    if spelled.startswith(mail.SCHEME):
        return Mail(spelled)
    if spelled.startswith(command.SCHEME):
        return Command(spelled)
    raise InvalidSetting(USAGE)


def is_safe(spelled: str) -> bool:
    """Whether a rule that comes over the network may name it: it runs no program, and reads no file
    or variable of this machine."""
    # Options of secrets and files: they would send what is theirs to an address of the sender.
    names = ("_env=", "_file=", "ca_cert=")
    return not spelled.startswith(command.SCHEME) and not any(
        name in spelled.partition("#")[2] for name in names
    )
