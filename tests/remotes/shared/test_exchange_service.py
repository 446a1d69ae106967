"""Machines whose bucket or disk fails for a while: events wait, and are published afterwards."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import pytest

from tests.support.attached import SharedMachines, append, numbers
from tests.support.processes import environment
from tests.support.requirements import MOUNTS
from tests.torture import mounts

Trouble = Callable[[SharedMachines, Path], AbstractContextManager[str]]


@contextlib.contextmanager
def bucket_away(machines: SharedMachines, disk: Path) -> Iterator[str]:
    """The bucket is not there."""
    os.rename(machines.root / "bucket", machines.root / "away")
    yield "is not there now"
    os.rename(machines.root / "away", machines.root / "bucket")


@contextlib.contextmanager
def disk_full(machines: SharedMachines, disk: Path) -> Iterator[str]:
    """The disk of the directory has room for an event, and for no segment."""
    with (disk / "filler").open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(file.tell() - 8192)
    yield "the disk is full"
    (disk / "filler").unlink()


@pytest.mark.needs(MOUNTS)
@pytest.mark.parametrize("trouble", [bucket_away, disk_full])
def test_a_service_says_it_once_and_goes_on(tmp_path: Path, trouble: Trouble) -> None:
    with mounts.tmpfs(tmp_path / "a", 16 << 20) as disk, contextlib.ExitStack() as stack:
        machines = SharedMachines(tmp_path)
        stack.callback(machines.close)
        append(machines["a/lake"], 1)
        command = [sys.executable, "-m", "lakelog", "--lake", machines["a/lake"].path]
        process = subprocess.Popen(
            [*command, "exchange", "--every", "50ms"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(),
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        said = process.stdout
        assert said is not None
        stack.enter_context(said)
        assert '"published":1' in next_line(said)
        with trouble(machines, disk) as words:
            append(machines["a/lake"], 2)
            line = next_line(said)
            assert words in line
            assert "events wait here" in line
        assert "exchanged again" in next_line(said)
        assert '"published":1' in next_line(said)
        machines["b"].exchange()
        assert numbers(machines["b"]) == [1, 2]
        assert process.poll() is None


def next_line(said: IO[bytes]) -> str:
    """Return what the process says next, "" if it has ended."""
    return said.readline().decode()


@pytest.mark.needs(MOUNTS)
def test_a_query_without_room_for_a_segment_answers_once_there_is_some(tmp_path: Path) -> None:
    with mounts.tmpfs(tmp_path / "b", 16 << 20) as disk:
        machines = SharedMachines(tmp_path)
        append(machines["a"], *range(5_000))
        machines.exchange("a", "b/lake")
        with disk_full(machines, disk), pytest.raises(OSError, match="No space left"):
            numbers(machines["b/lake"])
        assert numbers(machines["b/lake"]) == list(range(5_000))
        assert not machines["b/lake"].verify().problems
        machines.close()
