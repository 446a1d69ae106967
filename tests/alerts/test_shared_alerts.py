"""Of the machines that share a lake one evaluates its rules, and another one goes on."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakelog.alerts import AlertRule, RuleBook, evaluating, overview
from lakelog.remotes.shared import lease
from tests.support.alert_lake import MINUTE, watched
from tests.support.attached import SharedMachines


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[SharedMachines]:
    """Two machines with a rule, and errors that one of them has published."""
    machines = SharedMachines(tmp_path)
    RuleBook(machines["a"]).add(AlertRule("r", search="level>=ERROR", above=0, every=MINUTE))
    machines["a"].append([{"type": "x", "level": "ERROR"}])
    machines.exchange("a", "b")
    yield machines
    machines.close()


def is_refused(machines: SharedMachines, name: str) -> bool:
    """Whether a machine may not evaluate."""
    with evaluating(machines[name], lambda _: None, threading.Event()) as evaluator:
        return evaluator is None


def test_one_machine_tells(machines: SharedMachines) -> None:
    """The next one knows what the first has told, without any other exchange."""
    assert not overview(machines["b"])["evaluated"]
    with watched(machines["a"]) as alerts:
        assert len(alerts.round()) == 1
        assert is_refused(machines, "b")
        assert overview(machines["b"])["evaluated"]
    with watched(machines["b"]) as alerts:
        assert not alerts.round(MINUTE)
        assert is_refused(machines, "a")
        assert [line.split()[1] for line in alerts.round(60 * MINUTE)] == ["resolved"]
    assert not is_refused(machines, "a")


def test_a_machine_goes_on_where_another_one_died(machines: SharedMachines) -> None:
    """It waits ten minutes; the one that died begins again at once."""
    attachment = machines["a"].store.attachment
    assert attachment is not None
    with watched(machines["a"]) as alerts:
        assert len(alerts.round()) == 1
        (file,) = (machines.root / "bucket" / "gc").glob("lease-alerts*.json")
        died = file.read_bytes()
    (file,) = (machines.root / "bucket" / "gc").glob("lease-alerts*.json")
    file.write_bytes(died)
    assert is_refused(machines, "b")
    assert not is_refused(machines, "a")
    (file,) = (machines.root / "bucket" / "gc").glob("lease-alerts*.json")
    file.write_bytes(died)
    os.utime(file, (0, file.stat().st_mtime - lease.SECONDS - 1))
    with watched(machines["b"]) as alerts:
        assert not alerts.round(MINUTE)


def test_a_machine_that_slept_gives_way(
    machines: SharedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks the bucket, and tells nothing, where it did not look for long."""
    with watched(machines["a"]) as alerts:
        (file,) = (machines.root / "bucket" / "gc").glob("lease-alerts*.json")
        os.utime(file, (0, file.stat().st_mtime - lease.SECONDS - 1))
        with watched(machines["b"]) as others:
            assert len(others.round()) == 1
            monkeypatch.setattr(lease, "SECONDS", 0.0)
            assert not alerts.round(MINUTE)
            assert alerts.evaluator is not None
            assert not alerts.evaluator.is_alone()


def test_alerts_are_told_while_the_bucket_is_away(
    machines: SharedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change is told, and published later; not when another machine may have the turn."""
    with watched(machines["a"]) as alerts:
        (machines.root / "bucket").rename(machines.root / "away")
        assert len(alerts.round()) == 1
        with monkeypatch.context() as patch:
            patch.setattr(lease, "SECONDS", 0.0)
            assert not alerts.round(60 * MINUTE)
        (machines.root / "away").rename(machines.root / "bucket")
    machines.exchange("a", "b")
    assert [alert["state"] for alert in overview(machines["b"])["alerts"]] == ["firing"]


def test_a_bucket_that_cannot_be_asked_may_have_an_evaluator(machines: SharedMachines) -> None:
    """A page that is answered by a process without a network says nothing that it does not know."""
    attachment = machines["b"].store.attachment
    assert attachment is not None
    assert not overview(machines["b"])["evaluated"]
    attachment.relay(lambda _: b"")
    assert overview(machines["b"])["evaluated"]
