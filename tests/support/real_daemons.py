"""Daemons of Debian as clients of a server: rsyslog, collectd, systemd-journal-upload.

Each is started with a configuration of its own, in the folder LAKELOG_CLIENTS_STATE, where a next
one finds what was left, and ends with whoever started it. Where a service manager would start it
again, that is done here.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

Sender = tuple[Callable[[str], object], Callable[[], object]]
_DIE_WITH_PARENT = 1
_AGAIN = 0.2
_SYSTEMD = "/usr/lib/systemd"
_RSYSLOG = """
global(workDirectory="{folder}")
module(load="imfile" mode="polling" pollingInterval="1")
module(load="omelasticsearch")
template(name="document" type="list" option.jsonf="on") {{
  property(outname="message" name="msg" format="jsonf") }}
input(type="imfile" file="{folder}/input.log" tag="clients" persistStateInterval="1"
  ruleset="send")
ruleset(name="send" queue.type="LinkedList" queue.timeoutShutdown="10000") {{
  action(type="omelasticsearch" server="{host}" serverport="{port}" template="document"
    searchIndex="clients" searchType="" bulkmode="on" errorFile="{folder}/refused"
    action.resumeRetryCount="-1" action.resumeInterval="1" queue.type="LinkedList"
    queue.timeoutShutdown="10000") }}
"""
_COLLECTD = """
FQDNLookup false
Hostname "clients"
BaseDir "{folder}"
PIDFile "{folder}/pid"
Interval 1
LoadPlugin unixsock
LoadPlugin write_http
<Plugin unixsock>
  SocketFile "{folder}/socket"
  DeleteSocket true
</Plugin>
<Plugin write_http>
  <Node "server">
    URL "{url}/collectd"
    Format "JSON"
    BufferSize 1024
  </Node>
</Plugin>
"""


class Daemon:
    """A program that runs until this one ends, and again where its service would be restarted."""

    def __init__(self, words: list[str], *, is_restarted: bool = False) -> None:
        self._words, self._is_ended = words, False
        self._process = self._start()
        if is_restarted:
            threading.Thread(target=self._restart, daemon=True).start()

    def _start(self) -> subprocess.Popen[bytes]:
        libc = ctypes.CDLL(None)
        return subprocess.Popen(
            self._words,
            stdin=subprocess.DEVNULL,
            stdout=2,
            # Of the thread that starts it, which is why that one has to stay.
            preexec_fn=lambda: libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL),
        )

    def _restart(self) -> None:
        while not self._is_ended:
            self._process.wait()
            time.sleep(_AGAIN)
            if not self._is_ended:
                self._process = self._start()

    def end(self) -> None:
        """Ask it to end, and wait."""
        self._is_ended = True
        self._process.terminate()
        self._process.wait(30)


def rsyslog(url: str) -> Sender:
    """Lines of a file that rsyslog reads and sends with omelasticsearch."""
    folder, parts = _folder(), urlsplit(url)
    configuration = _RSYSLOG.format(folder=folder, host=parts.hostname, port=parts.port)
    (folder / "configuration").write_text(configuration)
    daemon = Daemon(["rsyslogd", "-n", "-f", str(folder / "configuration"), "-i", "NONE"])

    def send(mark: str) -> None:
        with open(folder / "input.log", "a") as lines:
            lines.write(f"{mark}\n")

    def finish() -> None:
        time.sleep(3)  # it looks at the file each second
        daemon.end()

    return send, finish


def collectd(url: str) -> Sender:
    """Values that collectd is given, and sends with write_http."""
    folder = _folder()
    (folder / "configuration").write_text(_COLLECTD.format(folder=folder, url=url))
    daemon = Daemon(["collectd", "-f", "-C", str(folder / "configuration")])
    connection = socket.socket(socket.AF_UNIX)
    while connection.connect_ex(str(folder / "socket")):
        time.sleep(_AGAIN)
    answers = connection.makefile()

    def send(mark: str) -> None:
        connection.sendall(f"PUTVAL clients/clients/gauge-{mark} interval=1 N:1\n".encode())
        answers.readline()

    return send, daemon.end


def journal_upload(url: str) -> Sender:
    """Entries of a journal that systemd-journal-upload sends."""
    folder = _folder()
    journal = folder / f"{time.time_ns()}.journal"
    writer = subprocess.Popen(
        [f"{_SYSTEMD}/systemd-journal-remote", f"--output={journal}", "-"], stdin=subprocess.PIPE
    )
    assert writer.stdin is not None
    entries, boot = writer.stdin, "b" * 32

    def send(mark: str) -> None:
        now = time.time_ns() // 1000
        fields = f"__REALTIME_TIMESTAMP={now}\n__MONOTONIC_TIMESTAMP={now}\n_BOOT_ID={boot}\n"
        entries.write(f"{fields}MESSAGE={mark}\n\n".encode())
        entries.flush()

    upload = [f"{_SYSTEMD}/systemd-journal-upload", f"--url={url}", f"--directory={folder}"]
    daemon = Daemon([*upload, f"--save-state={folder}/state", "--follow"], is_restarted=True)

    def finish() -> None:
        entries.close()
        writer.wait(30)
        time.sleep(3)
        daemon.end()

    return send, finish


def _folder() -> Path:
    folder = Path(os.environ["LAKELOG_CLIENTS_STATE"])
    folder.mkdir(exist_ok=True)
    return folder


DAEMONS: dict[str, Callable[[str], Sender]] = {
    "rsyslog": rsyslog,
    "collectd": collectd,
    "systemd-journal-upload": journal_upload,
}
"""Daemons, and what sends a message by them."""
