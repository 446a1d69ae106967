"""Workers: tasks in other processes, done again where a process dies."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from lakelog.errors import DamagedSegment, InvalidSetting, MissingPackage, Unreachable
from lakelog.workers import WorkerPool
from tests.support import worker_tasks
from tests.support.tree import ROOT


def test_results_come_in_the_order_of_the_tasks() -> None:
    """Of more tasks than workers each has its result, whatever a task prints; one that raises is
    raised with its members, and the workers go on."""
    with WorkerPool.at("local:2") as workers:
        assert workers is not None
        numbers = [*workers.results(worker_tasks.doubled, ((n,) for n in range(9)))]
        assert numbers == [0, 2, 4, 6, 8, 10, 12, 14, 16]
        with pytest.raises(DamagedSegment, match="here at byte 7: the content") as caught:
            [*workers.results(worker_tasks.finds_damage, [()])]
        assert (caught.value.path, caught.value.offset) == ("here", 7)
        assert [*workers.results(worker_tasks.prints, [("a",), ("b",)])] == ["a", "b"]


def test_a_task_is_done_again_where_its_worker_died(tmp_path: Path) -> None:
    """Each worker is killed once, and nothing is missing; a task that kills them all is given
    up."""
    with WorkerPool.at("local:2") as workers:
        assert workers is not None
        tasks = [(n, str(tmp_path)) for n in range(2)]
        assert [*workers.results(worker_tasks.dies_once, tasks)] == [0, 1]
        with pytest.raises(Unreachable, match=r"4 processes died of it \(the last with -9\)"):
            [*workers.results(worker_tasks.dies, [()])]


def test_workers_end_with_their_program() -> None:
    """A program that is killed leaves no worker behind."""
    program = (
        "import os, signal\n"
        "from lakelog.workers import WorkerPool\n"
        "with WorkerPool.at('local:1') as workers:\n"
        "    [pid] = workers.results(os.getpid, [()])\n"
        "    print(pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    pid = int(ended.stdout)
    # Its input has ended, so it does: to wait for another's child takes a descriptor of it.
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(descriptor) as file:
        poll = select.poll()
        poll.register(file, 1)
        assert poll.poll(60_000)


@pytest.mark.parametrize("place", ["", "local:0", "local:x", "ray://", "slurm", "ray:6379"])
def test_a_place_without_workers_is_refused(place: str) -> None:
    """One line says which places there are."""
    with (
        pytest.raises(InvalidSetting, match=r"name local, local:N, ray or ray://HOST:PORT"),
        WorkerPool.at(place),
    ):
        pass


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Ray is not installed, one line says what to install."""
    monkeypatch.setitem(sys.modules, "ray", None)
    for place in ("ray", "ray://head:10001"):
        wanted = rf"^--on {place}: pip install 'lakelog\[ray\]'$"
        with pytest.raises(MissingPackage, match=wanted), WorkerPool.at(place):
            pass
