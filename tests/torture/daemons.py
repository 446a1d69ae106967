"""The processes of a rotation: rsyslog, nginx, writers, and a watcher that is killed."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tests.support.redis_server import free_port
from tests.support.requirements import need
from tests.support.tree import ROOT
from tests.torture.logwriters import Spec

_RSYSLOG = """
global(workDirectory="{place}")
module(load="imtcp")
input(type="imtcp" address="127.0.0.1" port="0" listenPortFileName="{place}/port")
action(type="omfile" file="{log}" template="RSYSLOG_FileFormat")
"""
_NGINX = """
daemon off; master_process off; pid {place}/nginx.pid; error_log {place}/nginx.err;
events {{ worker_connections 64; }}
http {{
  access_log {log} combined{buffer};
  keepalive_requests 1000000000;
  client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/fastcgi; uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
  server {{ listen 127.0.0.1:{port}; location / {{ return 204; }} }}
}}
"""
NEEDS = {"rsyslog": "rsyslogd", "nginx": "nginx", "bufnginx": "nginx"}
"""The program that a kind of writer needs."""
SIGNALS = {
    "rsyslog": "HUP",
    "nginx": "USR1",
    "bufnginx": "USR1",
    "blocks": "USR1",
    "textblocks": "USR1",
}
"""What makes a writer open its path again; others look at each line."""


class Processes:
    """Starts processes; none outlives the block, however it ends."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()

    def start(self, words: list[str], name: str) -> subprocess.Popen[bytes]:
        """Run a program of this tree or the system; what it says is appended to NAME.out."""
        with open(self.place / f"{name}.out", "ab") as out:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT
            )
        self._started.append(process)
        return process

    def lakelog(self, *words: str) -> subprocess.Popen[bytes]:
        """Run a verb on the lake of this place."""
        lake = str(self.place / "lake")
        return self.start([sys.executable, "-m", "lakelog", "--lake", lake, *words], words[0])

    def said(self, name: str, most: int = 600) -> str:
        """The end of what a program said."""
        path = self.place / f"{name}.out"
        return path.read_text(errors="replace")[-most:] if path.exists() else ""


class Writer:
    """One log with the process that has it open, and the one that gives it lines."""

    def __init__(self, processes: Processes, spec: Spec) -> None:
        self.spec, self._daemon = spec, None
        if spec.kind == "rsyslog":
            spec = self._rsyslog(processes, spec)
        elif spec.kind in NEEDS:
            spec = self._nginx(processes, spec)
        self._feeder = processes.start(spec.words, f"writer-{Path(spec.path).name}")
        _wait_for(Path(spec.progress).stat)

    _daemon: subprocess.Popen[bytes] | None

    @property
    def pid(self) -> int:
        """The process that writes to the file."""
        return (self._daemon or self._feeder).pid

    @property
    def running(self) -> bool:
        """Whether lines still come. Raises AssertionError if it failed."""
        code = self._feeder.poll()
        assert not code, f"the writer of {self.spec.path} ended with {code}"
        return code is None

    def end(self, is_written: Callable[[], bool]) -> None:
        """Wait until all lines are in files, and end it. Raises AssertionError if they are not."""
        self._feeder.wait(240)
        if self._daemon is None:
            return
        if self.spec.kind == "bufnginx":
            self._daemon.send_signal(signal.SIGUSR1)  # it writes what it holds
        until = time.monotonic() + 240
        while not is_written():
            assert time.monotonic() < until, f"{self.spec.kind} did not write all lines"
            time.sleep(0.3)
        self._daemon.terminate()
        self._daemon.wait(240)

    def _rsyslog(self, processes: Processes, spec: Spec) -> Spec:
        place = processes.place / f"rsyslog-{Path(spec.path).name}"
        place.mkdir()
        (place / "conf").write_text(_RSYSLOG.format(place=place, log=spec.path))
        words = [need("rsyslogd"), "-n", "-i", f"{place}/pid", "-f", f"{place}/conf"]
        self._daemon = processes.start(words, "rsyslogd")
        return Spec(
            **{**spec.__dict__, "port": _wait_for(lambda: int((place / "port").read_text()))}
        )

    def _nginx(self, processes: Processes, spec: Spec) -> Spec:
        place = processes.place / f"nginx-{Path(spec.path).name}"
        place.mkdir()
        port = free_port()
        buffer = " buffer=16k flush=1s" if spec.kind == "bufnginx" else ""
        text = _NGINX.format(place=place, log=spec.path, port=port, buffer=buffer)
        (place / "conf").write_text(text)
        words = [need("nginx"), "-p", str(place), "-e", f"{place}/nginx.err"]
        self._daemon = processes.start([*words, "-c", f"{place}/conf"], "nginx")
        _wait_for(lambda: socket.create_connection(("127.0.0.1", port), 1).close())
        return replace(spec, port=port)


def _wait_for(attempt: Callable[[], Any]) -> Any:
    until = time.monotonic() + 240
    while time.monotonic() < until:
        with contextlib.suppress(OSError, ValueError):
            return attempt()
        time.sleep(0.02)
    raise AssertionError("a daemon did not start within 240 s")


class WatchProcess:
    """`lakelog watch`, which is killed and started again."""

    def __init__(self, processes: Processes, roots: list[Path]) -> None:
        self._processes, self._roots = processes, [str(root) for root in roots]
        self._process: subprocess.Popen[bytes] | None = None
        self.kills = self._before = 0
        self.ups: list[float] = []
        """When it was started."""
        self.downs: list[float] = []

    @property
    def up(self) -> bool:
        """Whether it runs. Raises AssertionError if it ended by itself."""
        if self._process is None:
            return False
        code = self._process.poll()
        assert code is None, f"the watcher ended by itself with {code}"
        return True

    def start(self) -> None:
        """Start it."""
        if self._process is None:
            self._before = self._announced()
            self._process = self._processes.lakelog("watch", *self._roots)
            self.ups.append(time.time())

    def kill(self) -> None:
        """Kill it."""
        if self.up and self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self.kills += 1
            self.downs.append(time.time())

    def end(self) -> None:
        """Ask it to end, and wait."""
        if self.up and self._process is not None:
            self._await_start()
            self._process.terminate()
            code = self._process.wait(240)
            self._process = None
            assert code == 0, f"the watcher ended with {code}"
            self.downs.append(time.time())

    def _await_start(self) -> None:
        """Until it says what it watches: before, a signal ends it as it ends any program."""
        until = time.monotonic() + 240
        while self._announced() == self._before:
            assert self.up
            assert time.monotonic() < until, "the watcher does not start"
            time.sleep(0.02)

    def _announced(self) -> int:
        return self._processes.said("watch", 1 << 20).count(" watching ")

    def down_within(self, times: Any, spans: Any) -> Any:
        """For how many seconds of each span from a time on it was down."""
        down = np.zeros_like(times)
        for since, until in zip(self.downs, self.ups[1:], strict=False):
            down += np.maximum(np.minimum(times + spans, until) - np.maximum(times, since), 0)
        return down

    def once(self) -> None:
        """Take in what is there."""
        code = self._processes.lakelog("watch", *self._roots, "--once").wait(240)
        assert code == 0, f"watch --once ended with {code}"
