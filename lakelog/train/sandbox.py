"""Checking a set in a child process whose memory the operating system limits.

A small file can decode to far more than the available memory, in more ways than can be foreseen.
The check therefore runs in a child that may allocate `MEMORY_BYTES` plus `MEMORY_TIMES` the size of
the set; a set that needs more, or crashes the child, is a finding like any other.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys

from lakelog.errors import ExportRefused
from lakelog.export import scratch_directory
from lakelog.runtime import interpreter
from lakelog.train import dataset, inspection
from lakelog.train.leaks import FILE_CHECKS, Certificate, Leak
from lakelog.train.tables import JsonMap

MEMORY_BYTES, MEMORY_TIMES = 800_000_000, 8
"""What the child may allocate besides its program, and how the limit grows with the set."""


def check(path: str, against: str | None = None, *, near: float | None = None) -> Certificate:
    """Check the set in a directory; `near` is another threshold than the recipe's.

    Nothing of the set is run, and nothing outside it is read or written but a temporary directory
    beside it, so that its rows are nowhere else; where nobody may write, it checks in memory alone.
    Raises ExportRefused for a directory that is no export.
    """
    paths = [os.path.abspath(os.fspath(p)) for p in (path, against) if p is not None]
    size = sum(dataset.scan(p).bytes_on_disk for p in paths)
    # By bytes on disk and not by apparent size, or a sparse file would raise its own limit.
    memory_max = MEMORY_BYTES + MEMORY_TIMES * size
    with contextlib.ExitStack() as stack:
        is_open = os.access(os.path.dirname(paths[0]), os.W_OK)
        spill = stack.enter_context(scratch_directory(paths[0])) if is_open else ""
        request = {"paths": paths, "near": near, "spill": spill, "memory": memory_max}
        process = _run(request)
    try:
        answer = json.loads(process.stdout)
    except ValueError:
        return _out_of_memory(memory_max)
    if "refused" in answer:
        raise ExportRefused(answer["refused"])
    leaks = tuple(Leak(**leak) for leak in answer["leaks"])
    return Certificate(answer["checks"], leaks)


def _run(request: JsonMap) -> subprocess.CompletedProcess[bytes]:
    # Threads and arenas that are created in advance count against the memory limit of the child.
    variables = {
        "PYTHONPATH": interpreter.environment()["PYTHONPATH"],
        "OPENBLAS_NUM_THREADS": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "MALLOC_ARENA_MAX": "2",
    }
    # -P, and a directory of our own: a module that lies in the set must never be imported.
    return subprocess.run(
        [sys.executable, "-P", "-m", "lakelog.train.sandbox"],
        input=json.dumps(request).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=request["spill"] or "/",
        env={**os.environ, **variables},
        check=False,
    )


def _out_of_memory(memory_max: int) -> Certificate:
    finding = (
        f"the check wants more than {memory_max / 1e6:,.0f} MB, or ended early:"
        " the files are damaged, or made to exhaust memory"
    )
    return Certificate(FILE_CHECKS, (Leak("files", 1, finding),))


def _bound(memory_max: int) -> None:
    """Bound what this process may allocate; libraries and files that are mapped do not count."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    # RLIMIT_DATA and not RLIMIT_AS: libraries and memory-mapped files take address space and no
    # memory.
    soft = memory_max if hard == resource.RLIM_INFINITY else min(memory_max, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Check what standard input names; the certificate goes to standard output."""
    request = json.loads(sys.stdin.read())
    path, against = (*request["paths"], None)[:2]
    # Before the first byte of the set is read.
    _bound(request["memory"])
    answer: JsonMap
    try:
        answer = inspection.inspect(path, against, request["near"], request["spill"]).record()
    except ExportRefused as error:
        answer = {"refused": str(error)}
    except (MemoryError, RecursionError):
        answer = _out_of_memory(request["memory"]).record()
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)  # threads of the engine that died of want of memory are not waited for


if __name__ == "__main__":
    main()
