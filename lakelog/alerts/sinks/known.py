"""Which sinks there are, by how their text begins.

Programs as receivers: `command:ARGV`, started for each notification, which they read as JSON.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable

import orjson

from lakelog.alerts.notices import Notice
from lakelog.alerts.sinks import mail, webhook
from lakelog.alerts.sinks.mail import Mail
from lakelog.alerts.sinks.sink import SECONDS, AlertSink, DeliveryFailed
from lakelog.alerts.sinks.webhook import Webhook
from lakelog.errors import InvalidSetting

_WEBHOOK, _COMMAND = "webhook:", "command:"
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
    if spelled.startswith(_COMMAND):
        return Command(spelled)
    raise InvalidSetting(USAGE)


def is_safe(spelled: str) -> bool:
    """Whether a rule that comes over the network may name it: it runs no program, and reads no file
    or variable of this machine."""
    # Options of secrets and files: they would send what is theirs to an address of the sender.
    names = ("_env=", "_file=", "ca_cert=")
    return not spelled.startswith(_COMMAND) and not any(
        name in spelled.partition("#")[2] for name in names
    )


_ERROR_MAX = 300


class Command:
    """A program with its arguments, without a shell. It took a notification when it ends with 0."""

    def __init__(self, spelled: str) -> None:
        """Read a sink's text. Raises InvalidSetting."""
        try:
            # As a shell would divide them; none is started.
            self._argv = shlex.split(spelled.removeprefix(_COMMAND))
        except ValueError as error:
            raise InvalidSetting(f"the command cannot be read: {error}") from None
        if not self._argv:
            raise InvalidSetting(
                "a command sink looks like command:/usr/local/bin/page-me --urgent"
            )
        # Arguments may be secrets.
        self.address = f"{_COMMAND}{self._argv[0]}"

    def deliver(self, notice: Notice) -> None:
        """Run the program. Raises DeliveryFailed."""
        # In the environment as well, for scripts that do not read JSON.
        environment = {**os.environ, "LAKELOG_NOTIFICATION": notice.id}
        # A file and no pipe: a program that writes much would wait for its reader.
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    self._argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    env=environment,
                    # A group of its own, so that all of it can be ended.
                    start_new_session=True,
                )
            except OSError as error:
                raise DeliveryFailed(error.strerror or type(error).__name__) from None
            try:
                process.communicate(orjson.dumps(notice.body) + b"\n", timeout=SECONDS)
            except subprocess.TimeoutExpired:
                raise DeliveryFailed(f"ran longer than {SECONDS:g} s") from None
            finally:
                _end(process)
            if process.returncode:
                errors.seek(0)
                lines = errors.read(_ERROR_MAX).decode("utf-8", "replace").split()
                reason = f"ended with {process.returncode}: {' '.join(lines)}".rstrip(": ")
                raise DeliveryFailed(reason)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program that runs on, with all that it started."""
    if process.poll() is None:
        # The whole group: a script's children would go on.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
