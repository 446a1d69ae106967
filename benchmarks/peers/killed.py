"""Recovery: die by SIGKILL after many commits that nothing tidied, then open and ask."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from benchmarks.peers.steps import Maker, batches, reopened

EACH = 1_000


def killed(make: Maker, events: str, count: str, span: str) -> dict[str, Any]:
    """Let another process commit and die; time the next open with its first question.

    Raises AssertionError if an acknowledged event is not there.
    """
    command = [sys.executable, "-m", "benchmarks.peers.work", make.name, "fill", make.root]
    done = subprocess.run([*command, events, count, span], stdout=subprocess.PIPE, text=True)
    if done.returncode != -signal.SIGKILL:
        raise AssertionError(f"the process that commits ended with {done.returncode}")
    acknowledged = int(done.stdout.split()[-1])
    taken = reopened(make, 1)
    [(found,)] = make().ask("count")
    if found < acknowledged:
        raise AssertionError(f"{acknowledged} events were acknowledged, {found} are there")
    return {"recovery": taken, "unsealed": acknowledged, "found": found}


def fill(make: Maker, events: str, count: str, span: str) -> dict[str, Any]:
    """Commit by a thousand, up to a number or a time, and die."""
    peer, parts, done = make(), batches(events, EACH), 0
    if make.can("hold"):
        peer.hold()
    until = time.perf_counter() + float(span)
    while done < int(count) and time.perf_counter() < until:
        peer.commit(next(parts))
        done += EACH
    print(done, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    return {}
