"""Push of a lake of which 1 % is new, against `rsync -a` of its directory, as commands.

There are two lakes: one of many small segments, and one of a hundred large ones, as compaction
leaves them. A push syncs what it stores and rsync does not: its copy may vanish with a power cut.
So rsync is timed with a `sync` of the new files behind it as well, where both are on this machine.

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
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import lakes, measure
from benchmarks.measure import Scale, directory
from benchmarks.report import Row, Target
from lakelog.remotes import known
from lakelog.store import Store
from tests.support import ssh_server
from tests.support.ssh_server import SshServer

_MARGIN = 1.2
_PROGRAM = """
import sys, time
import lakelog
from lakelog.remotes import carry, directory, pushes as push
with lakelog.open(sys.argv[1], create=False) as lake:
    lake.log(1)
    began = time.perf_counter()
    push.push(lake, "origin", branches=["main"])
    print(time.perf_counter() - began)
"""
_SENT = re.compile(r"Transferred: sent (\d+)")


def push(scale: Scale) -> list[Row]:
    """Push 1 % of a lake, several times, to a directory and over SSH."""
    if not shutil.which("rsync"):
        return [Row("push of 1 % new", "s", [], note="rsync is not installed")]
    with directory() as root:
        lots = _lots(scale)
        rows = [row for lot in lots for row in _measured(lot, "to a directory", root, scale, None)]
        within = "to a directory, by a program that runs"
        rows += [
            row for lot in lots for row in _measured(lot, within, root, scale, None, _push_within)
        ]
        if ssh_server.MISSING:
            return [*rows, Row("push of 1 % new over ssh", "s", [], note=ssh_server.REASON)]
        (root / "ssh").mkdir()
        with ssh_server.running(root / "ssh") as server:
            for lot in lots:
                rows += _measured(lot, "over ssh", root, scale, server)
            return rows


@dataclass(frozen=True)
class _Lot:
    """A lake to push, and how the nth piece of a hundredth of it is added."""

    name: str
    make: Callable[[], Path]
    add: Callable[[Store, int], None]


def _lots(scale: Scale) -> list[_Lot]:
    fresh = max(scale.many // 100, 1)
    return [
        _Lot(
            f"{scale.many} segments",
            lambda: lakes.segmented(scale.many),
            lambda store, n: lakes.add_segments(store, scale.many + n * fresh, fresh),
        ),
        _Lot(
            f"{scale.pushed_mb} MB",
            lambda: lakes.large(scale.pushed_mb),
            lambda store, n: lakes.add_large(store, lakes.LARGE + n, scale.pushed_mb),
        ),
    ]


def _measured(
    lot: _Lot,
    how: str,
    root: Path,
    scale: Scale,
    server: SshServer | None,
    pushed: Callable[[Path], float] | None = None,
) -> list[Row]:
    # Short, as over SFTP each request names a path from the root on.
    place = Path(tempfile.mkdtemp(prefix="", dir=root))
    lake, far, copy = (place / name for name in ("lake", "far", "copy"))
    lakes.copy(lot.make(), lake)
    store = Store.load(str(lake))
    far_url = server.url(far) if server else str(far)
    known.add(store, "origin", far_url)
    log = root / "ssh.log"
    seconds, peer, synced, sent, peer_sent, shares = ([] for _ in range(6))
    with _environment(server, log):
        _push(lake)
        _rsync(lake, copy, server)
        for number in range(scale.rounds):
            before = _objects(lake)
            lot.add(store, number)
            new = _objects(lake) - before
            os.sync()
            runs = [lambda: (pushed or _push)(lake), lambda: _rsync(lake, copy, server)]
            for index in (0, 1) if number % 2 == 0 else (1, 0):
                stood = _objects(far) if index == 0 else _bytes(copy)
                log.unlink(missing_ok=True)
                (seconds, peer)[index].append(runs[index]())
                if index == 1:
                    began = time.perf_counter()
                    os.sync()
                    synced.append(peer[-1] + time.perf_counter() - began)
                grown = (_objects(far) if index == 0 else _bytes(copy)) - stood
                wire = sum(map(int, _SENT.findall(log.read_text()))) if server else grown
                (sent, peer_sent)[index].append(wire / 1e6)
            shares.append(sent[-1] * 1e6 / new)
    what, target = f"push of 1 % new of {lot.name} {how}", Target("<=", 1.0)
    return [
        Row(f"{what}, against rsync -a: seconds", "s", seconds, peer, target),
        Row(f"{what}, against rsync -a and sync: seconds", "s", seconds, synced),
        Row(f"{what}: MB sent, rsync's beside", "MB", sent, peer_sent),
        Row(f"{what}: sent of what is new", "x", shares, [], Target("<=", _MARGIN, "figure")),
    ]


def _push(lake: Path) -> float:
    command = [sys.executable, "-m", "lakelog", "--lake", str(lake), "push", "origin"]
    return measure.process(command)[0]


def _push_within(lake: Path) -> float:
    """Seconds of a push in a program that has lakelog loaded: without the start of Python."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(lake)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


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
