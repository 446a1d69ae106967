"""One machine at a time compacts a shared lake, and any takes over from one that died."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakelog.lake import Lake
from lakelog.remotes.shared import lease
from tests.support.attached import SharedMachines, append, numbers, publish_each


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[SharedMachines]:
    """Machines with a bucket of files, and four small segments."""
    machines = SharedMachines(tmp_path)
    publish_each(machines["a"], range(4))
    machines.exchange("b")
    yield machines
    machines.close()


def segments(lake: Lake) -> int:
    """Return the number of segments."""
    return len(lake.store.manifests.segments(lake.store.state("main")))


def test_what_one_machine_compacts_all_machines_read(machines: SharedMachines) -> None:
    append(machines["b"], 4)
    machines["b"].exchange()
    assert machines["a"].compact().removed == 5
    append(machines["b"], 5)
    machines.exchange("b", "a", "c")
    for name in "abc":
        assert numbers(machines[name]) == [0, 1, 2, 3, 4, 5]
        assert segments(machines[name]) == 2


def test_a_second_machine_does_not_compact_meanwhile(machines: SharedMachines) -> None:
    with machines["a"].store.alone("compact") as is_alone:
        assert is_alone
        assert machines["b"].compact().removed == 0
        assert machines["a"].compact().removed == 0
    assert machines["b"].compact().removed == 4


def test_the_lease_of_a_machine_that_died_runs_out(machines: SharedMachines) -> None:
    attachment = machines["a"].store.attachment
    assert attachment is not None
    with attachment.alone("compact"):
        (file,) = (machines.root / "bucket" / "gc").glob("lease-compact-*.json")
        assert machines["b"].compact().removed == 0
        os.utime(file, (0, file.stat().st_mtime - lease.SECONDS - 1))
        assert machines["b"].compact().removed == 4


def test_a_machine_that_could_not_end_its_lease_goes_on_at_once(machines: SharedMachines) -> None:
    """As where the store did not answer: others take over when it has run out."""
    with machines["a"].store.alone("compact"):
        (file,) = (machines.root / "bucket" / "gc").glob("lease-compact-*.json")
        held = file.read_bytes()
    file.write_bytes(held)
    assert machines["b"].compact().removed == 0
    assert machines["a"].compact().removed == 4


def test_who_slept_through_the_end_of_its_lease_publishes_nothing(machines: SharedMachines) -> None:
    with machines["a"].store.alone("compact"):
        (file,) = (machines.root / "bucket" / "gc").glob("lease-compact-*.json")
        os.utime(file, (0, file.stat().st_mtime - lease.SECONDS - 1))
        assert machines["b"].compact().removed == 4
        for number in (4, 5):
            append(machines["b"], number)
            machines.exchange("b", "a")
        head = machines["a"].store.refs.head("main")
        # It holds the lock of its directory and believes that it may: so it is asked what it would.
        with pytest.raises(lease.StaleFiles):
            _held(machines["a"]).require(head.move)
    machines.exchange("a", "b")
    assert numbers(machines["b"]) == [0, 1, 2, 3, 4, 5]


def _held(lake: Lake) -> lease.Lease:
    return lake.store.attachment._lease  # type: ignore[union-attr]
