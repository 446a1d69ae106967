"""Expected versions in a shared lake: of machines that give the same one the first publishes it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakelog.disk import disk
from lakelog.errors import OutcomeUnknown, Unreachable, WrongVersion
from lakelog.lake import Lake
from tests.support.attached import Killed, SharedMachines, append, before_links, die, numbers

MACHINES, EACH = 4, 3


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[SharedMachines]:
    """Machines with a bucket of files."""
    machines = SharedMachines(tmp_path)
    yield machines
    machines.close()


def give(lake: Lake, expected: int, value: int = 0, **more: str) -> dict[str, int]:
    """Append an event to a stream that is at a version."""
    event = {"type": "T", "subject": "s", "data": {"n": value}, **more}
    return lake.append(event, expect={"s": expected}).versions


def versions(lake: Lake) -> list[tuple[int, int]]:
    """Return the versions of the stream, each with the number of its event."""
    lake.exchange()
    return [(event["version"], json.loads(event["data"])["n"]) for event in lake.stream("s")]


def test_the_first_machine_gives_a_version_and_others_are_told(machines: SharedMachines) -> None:
    assert give(machines["a"], 0, 1) == {"s": 1}
    with pytest.raises(WrongVersion) as refused:
        give(machines["b"], 0, 2)
    assert refused.value.actual == 1
    assert give(machines["b"], 1, 3) == {"s": 2}
    assert versions(machines["a"]) == versions(machines["c"]) == [(1, 1), (2, 3)]


def test_a_version_that_another_machine_gives_meanwhile_is_not_given_again(
    machines: SharedMachines,
) -> None:
    give(machines["b"], 0, 1)
    before_links(machines["a"], lambda: give(machines["b"], 1, 2))
    with pytest.raises(WrongVersion):
        give(machines["a"], 1, 3)
    assert numbers(machines["a"]) == [1, 2]
    # Another event takes the number of the move, and no version.
    append(machines["b"], 9)
    before_links(machines["a"], machines["b"].exchange)
    assert give(machines["a"], 2, 4) == {"s": 3}
    assert versions(machines["b"]) == [(1, 1), (2, 2), (3, 4)]


def test_a_machine_that_dies_before_the_move_has_stored_nothing(machines: SharedMachines) -> None:
    before_links(machines["a"], die)
    with contextlib.suppress(Killed):
        give(machines["a"], 0, 1)
    machines.reopened("a")
    machines.exchange("a", "b")
    assert numbers(machines["a"]) == numbers(machines["b"]) == []
    assert give(machines["b"], 0, 2) == {"s": 1}


def test_who_does_not_know_the_outcome_appends_again_and_gets_the_first_answer(
    machines: SharedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = machines["a"].store.volume
    link = volume.link

    def lost(*words: object) -> None:
        link(*words)
        raise OutcomeUnknown("the answer was lost")

    monkeypatch.setattr(volume, "link", lost)
    with pytest.raises(OutcomeUnknown):
        give(machines["a"], 0, 1, id="one")
    monkeypatch.setattr(volume, "link", link)
    assert give(machines["a"], 0, 1, id="one") == {"s": 1}
    assert versions(machines["b"]) == [(1, 1)]


def test_offline_versions_are_refused_and_other_events_are_not(
    machines: SharedMachines, tmp_path: Path
) -> None:
    give(machines["a"], 0, 1)
    (tmp_path / "bucket").rename(tmp_path / "away")
    with pytest.raises(Unreachable, match="nothing was stored"):
        give(machines.reopened("a"), 1, 2)
    append(machines["a"], 3)
    assert numbers(machines["a"]) == [1, 3]
    (tmp_path / "away").rename(tmp_path / "bucket")
    assert give(machines["a"], 1, 2) == {"s": 2}
    assert versions(machines["b"]) == [(1, 1), (2, 2)]


def test_versions_go_back_with_a_rollback_and_ascend_whatever_clocks_say(
    machines: SharedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(machines["a"], 0, 1)
    machines["a"].tag("one")
    monkeypatch.setattr(disk, "now_us", lambda now=disk.now_us: now() - 86_400_000_000)
    give(machines["b"], 1, 2)
    monkeypatch.undo()
    rows = "SELECT position FROM events WHERE origin = 'stream:s' ORDER BY seq"
    machines["a"].exchange()
    assert machines["a"].sql(rows).fetchall() == [(1,), (2,)]
    machines["a"].rollback("one")
    assert give(machines["b"], 1, 3) == {"s": 2}
    assert versions(machines["a"]) == [(1, 1), (2, 3)]


def test_events_beside_a_stream_are_stored_with_it_once(machines: SharedMachines) -> None:
    both = [
        {"type": "T", "subject": "s", "data": {"n": 1}},
        {"type": "T", "id": "x", "data": {"n": 2}},
    ]
    machines["a"].append(both[1])
    machines["a"].exchange()
    machines["b"].append(both, expect={"s": 0})
    machines.exchange("a", "b")
    assert numbers(machines["a"]) == numbers(machines["b"]) == [1, 2]


def test_runs_of_versions_are_merged_though_nothing_else_is_appended(
    machines: SharedMachines,
) -> None:
    store = machines["a"].store
    store.settings = dataclasses.replace(store.settings, seal="never")  # no process beside it
    for number in range(20):
        give(machines["a"], number, number)
    assert len(store.state("main").ids) < 8
    with pytest.raises(WrongVersion):
        give(machines["b"], 7)
    assert [version for version, _ in versions(machines["b"])] == list(range(1, 21))


def test_machines_that_fight_leave_no_gap(machines: SharedMachines) -> None:
    def fight(lake: Lake, name: int) -> None:
        expected = 0
        for number in range(EACH):
            while True:
                try:
                    expected = give(lake, expected, 10 * name + number)["s"]
                    break
                except WrongVersion as error:
                    expected = error.actual

    lakes = [machines[str(name)] for name in range(MACHINES)]
    threads = [threading.Thread(target=fight, args=(lake, n)) for n, lake in enumerate(lakes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = versions(lakes[0])
    assert [version for version, _ in seen] == list(range(1, MACHINES * EACH + 1))
    assert sorted(n for _, n in seen) == [10 * m + n for m in range(MACHINES) for n in range(EACH)]
    assert all(versions(lake) == seen for lake in lakes)
