"""Push of a lake of which 1 % is new, against `rsync -a` of its directory, as commands.

Both start with a copy of all but what is new, in turn on the same disk; over SSH both use the same
sshd on loopback. Bytes are those of objects and of the move, or, over SSH, those that ssh has sent.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import lakes, measure
from benchmarks.measure import Scale, directory
from benchmarks.report import Row, Target
from lakelog.store import bootstrap
from lakelog.transfer import known
from tests.support import ssh_server
from tests.support.ssh_server import SshServer

_MARGIN = 1.2
_SENT = re.compile(r"Transferred: sent (\d+)")


def push(scale: Scale) -> list[Row]:
    """Push 1 % of a lake, several times, to a directory and over SSH."""
    if not shutil.which("rsync"):
        return [Row("push of 1 % new", "s", [], note="rsync is not installed")]
    with directory() as root:
        rows = _measured("to a directory", root, scale, None)
        if ssh_server.MISSING:
            return [*rows, Row("push of 1 % new over ssh", "s", [], note=ssh_server.REASON)]
        (root / "ssh").mkdir()
        with ssh_server.running(root / "ssh") as server:
            return [*rows, *_measured("over ssh", root, scale, server)]


def _measured(how: str, root: Path, scale: Scale, server: SshServer | None) -> list[Row]:
    lake, far, copy = (root / f"{name}-{how.split()[-1]}" for name in ("lake", "far", "copy"))
    lakes.copy(lakes.segmented(scale.many), lake)
    store, fresh = bootstrap.load(str(lake)), max(scale.many // 100, 1)
    far_url = server.url(far) if server else str(far)
    known.add(store, "origin", far_url)
    log = root / "ssh.log"
    seconds, peer, sent, peer_sent, shares = ([] for _ in range(5))
    with _environment(server, log):
        _push(lake)
        _rsync(lake, copy, server)
        for number in range(scale.rounds):
            before = _objects(lake)
            lakes.add_segments(store, scale.many + number * fresh, fresh)
            new = _objects(lake) - before
            runs = [lambda: _push(lake), lambda: _rsync(lake, copy, server)]
            for index in (0, 1) if number % 2 == 0 else (1, 0):
                os.sync()
                stood = _objects(far) if index == 0 else _bytes(copy)
                log.unlink(missing_ok=True)
                (seconds, peer)[index].append(runs[index]())
                grown = (_objects(far) if index == 0 else _bytes(copy)) - stood
                wire = sum(map(int, _SENT.findall(log.read_text()))) if server else grown
                (sent, peer_sent)[index].append(wire / 1e6)
            shares.append(sent[-1] * 1e6 / new)
    target = Target("<=", 1.0)
    return [
        Row(f"push of 1 % new {how}, against rsync -a: seconds", "s", seconds, peer, target),
        Row(f"push of 1 % new {how}: MB sent, rsync's beside", "MB", sent, peer_sent),
        Row(
            f"push of 1 % new {how}: sent of what is new",
            "x",
            shares,
            [],
            Target("<=", _MARGIN, "figure"),
        ),
    ]


def _push(lake: Path) -> float:
    command = [sys.executable, "-m", "lakelog", "--lake", str(lake), "push", "origin"]
    return measure.process(command)[0]


def _rsync(lake: Path, copy: Path, server: SshServer | None) -> float:
    command = ["rsync", "-a", f"{lake}/", str(copy)]
    if server:
        shell = f"{os.environ['LAKELOG_SSH']} -p {server.port}"
        command = ["rsync", "-a", "-e", shell, f"{lake}/", f"127.0.0.1:{copy}"]
    return measure.process(command)[0]


@contextlib.contextmanager
def _environment(server: SshServer | None, log: Path) -> Iterator[None]:
    """Let ssh know the server, and write down what it sends."""
    if server:
        os.environ["LAKELOG_SSH"] = server.command("-v", "-E", str(log))
    try:
        yield
    finally:
        os.environ.pop("LAKELOG_SSH", None)


def _objects(root: Path) -> int:
    """Bytes of the objects of a lake."""
    return sum(_bytes(root / kind) for kind in ("segments", "ids", "manifests"))


def _bytes(root: Path) -> int:
    command = ["find", str(root), "-type", "f", "-printf", "%s\\n"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return sum(map(int, found.stdout.split()))
