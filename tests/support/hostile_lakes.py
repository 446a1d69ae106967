"""Lakes from somebody else, in which a file is something else: a pipe, a device, a huge file.

Run as a program it plays all cases on copies of a lake and says in JSON what came of each.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from lakelog.cli import cli
from tests.support.peak_memory import peak

FILES = {
    "lakelog.json": "lakelog.json",
    "tag": "refs/tags/v1.json",
    "signature": "refs/signatures/v1.*.json",
    "move": "refs/heads/main/0000000000??.json",
    "hint": "refs/heads/main/hint",
    "wal": "wal/main/*",
    "segment": "segments/*/*.parquet",
    "ids": "ids/*/*.ids",
    "policy": "policy.toml",
    "verified": "cache/verified*",
    "remote": "remotes/origin.json",
}
VERBS = {
    "verify": ["verify"],
    "signed": ["verify", "--signed-by", "KEY"],
    "sql": ["sql", "SELECT count(*), max(time) FROM events"],
    "log": ["log"],
    "tags": ["tag", "--list"],
    "push": ["push", "origin", "--tags"],
    "stats": ["stats"],
    "doctor": ["doctor"],
    "gc": ["gc", "--dry-run"],
}


def pipe(path: Path) -> None:
    """Wait for a writer that never comes."""
    os.mkfifo(path)


def zeros(path: Path) -> None:
    """Have no end."""
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    """Say that it is long, which costs nothing on disk."""
    with path.open("wb") as file:
        file.truncate(1 << 40)


def folder(path: Path) -> None:
    """Be no file."""
    path.mkdir()


def listening(path: Path) -> None:
    """Be a socket."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{os.open(path.parent, os.O_RDONLY)}/{path.name}")


KINDS: dict[str, Callable[[Path], None]] = {
    kind.__name__: kind for kind in (pipe, zeros, sparse, folder, listening)
}


def play(lake: Path, key: str, files: list[str], kinds: list[str]) -> list[dict[str, Any]]:
    """Put each kind in the place of each file, and run all verbs."""
    found = []
    copy = lake.parent / "received"
    for file in files:
        for kind in kinds:
            for name, words in VERBS.items():
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(lake, copy)
                path = max(copy.glob(FILES[file]))
                path.unlink()
                KINDS[kind](path)
                said = _run(copy, [key if word == "KEY" else word for word in words])
                found.append({"case": f"{kind} as {file}: {name}", **said})
    return found


def _run(lake: Path, words: list[str]) -> dict[str, Any]:
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(20)
    try:
        result = CliRunner().invoke(cli, ["--lake", str(lake), *words])
    finally:
        signal.alarm(0)
    error = "" if isinstance(result.exception, (SystemExit, type(None))) else repr(result.exception)
    return {"code": result.exit_code, "said": result.stderr[-500:], "error": error}


def _too_long(*_: Any) -> None:
    raise TimeoutError("it hangs")


if __name__ == "__main__":
    cases = play(Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(","), sys.argv[4].split(","))
    print(json.dumps({"cases": cases, "memory": peak()}))
