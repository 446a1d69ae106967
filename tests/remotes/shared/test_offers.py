"""Machines that lose a move are taken along by whoever wins it: each event is published once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakelog import document
from lakelog.errors import Unreachable
from lakelog.lake import Lake
from lakelog.remotes.shared import offers
from tests.support.attached import (
    Killed,
    SharedMachines,
    append,
    before_links,
    numbers,
    offer_and_die,
    origins,
)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[SharedMachines]:
    """Machines with a bucket of files, which all have its first event."""
    machines = SharedMachines(tmp_path)
    append(machines["a"], 0)
    machines.exchange("a", "b", "c")
    yield machines
    machines.close()


def moves(lake: Lake) -> int:
    """Return the number of the newest move."""
    return lake.store.refs.head("main").move.number


def offered(machines: SharedMachines) -> list[Path]:
    """Return the offers that are in the bucket."""
    return list((machines.root / "bucket" / "offers" / "main").glob("*.json"))


def left_offer(machines: SharedMachines) -> Path:
    """Let machine a offer its event 1 and end; return the file of the offer."""
    offer_and_die(machines, 1, 2)
    (offer,) = offered(machines)
    return offer


def test_who_loses_a_move_is_published_with_the_next_one(machines: SharedMachines) -> None:
    append(machines["a"], 1)
    append(machines["b"], 2)
    append(machines["c"], 3)
    start = moves(machines["a"])
    before_links(machines["a"], machines["b"].exchange, machines["c"].exchange)
    machines["a"].exchange()
    assert moves(machines["a"]) == start + 2
    assert numbers(machines["a"]) == numbers(machines["c"]) == [0, 1, 2, 3]
    assert not offered(machines)


def test_what_a_machine_offered_before_it_died_is_published_once(machines: SharedMachines) -> None:
    left_offer(machines)
    append(machines["c"], 3)
    machines["c"].exchange()
    assert numbers(machines["c"]) == [0, 1, 2, 3]
    append(machines.reopened("a"), 4)
    machines.exchange("a", "b", "c")
    for name in "abc":
        assert numbers(machines[name]) == [0, 1, 2, 3, 4]
        assert max(origins(machines[name]).values()) == 1


def test_an_offer_that_comes_back_is_never_published_again(machines: SharedMachines) -> None:
    # The request that stored it was repeated on the way, long after.
    offer = left_offer(machines)
    data = offer.read_bytes()
    for number in range(2 * offers.HEADS):
        append(machines.reopened("a") if number % 9 == 0 else machines["a"], 10 + number)
        machines["a"].exchange()
        offer.write_bytes(data)
        if number % 5 == 0:
            append(machines["c"], 100 + number)
            machines["c"].exchange()
    machines.exchange("a", "b", "c")
    assert max(origins(machines["b"]).values()) == 1
    assert numbers(machines["b"])[:3] == [0, 1, 2]


def test_an_id_that_was_published_meanwhile_is_not_taken_from_an_offer(
    machines: SharedMachines,
) -> None:
    machines["a"].append([{"type": "T", "id": "x", "data": {"n": 1}}, {"type": "T", "id": "y"}])
    machines["c"].append({"type": "T", "id": "x", "data": {"n": 3}})
    append(machines["b"], 2)
    before_links(machines["a"], machines["b"].exchange, machines["c"].exchange)
    machines["a"].exchange()
    machines.exchange("b", "c")
    for name in "abc":
        ids = machines[name].sql(
            "SELECT id, count(*) FROM events WHERE id IN ('x', 'y') GROUP BY 1"
        )
        assert sorted(ids.fetchall()) == [("x", 1), ("y", 1)]
        assert numbers(machines[name], "data IS NOT NULL AND id = 'x'") == [3]


def test_an_offer_of_before_a_rollback_is_made_again(machines: SharedMachines) -> None:
    machines["c"].tag("good")
    left_offer(machines)
    machines["c"].rollback("good")
    append(machines["c"], 3)
    machines["c"].exchange()
    assert numbers(machines["c"]) == [0, 3]
    machines.reopened("a")
    machines.exchange("a", "b")
    assert numbers(machines["b"]) == [0, 1, 3]


@pytest.mark.parametrize("harm", ["garbage", "no segment", "removes rows", "another name"])
def test_an_offer_that_cannot_be_believed_is_passed_over(
    machines: SharedMachines, harm: str
) -> None:
    offer = left_offer(machines)
    body = document.decode(offer.read_bytes())
    if harm == "no segment":
        key = body["entries"][0]["key"]
        (machines.root / "bucket" / "segments" / key[:2] / f"{key}.parquet").unlink()
        data = offer.read_bytes()
    elif harm == "removes rows":
        body["entries"] = [{**body["entries"][0], "seq": [0, 0]}]
        data = document.encode(body)
    else:
        data = b"{}" if harm == "garbage" else offer.read_bytes()
    digest = document.digest(data if harm != "another name" else b"")
    offer.unlink()
    offer.with_name(f"{offer.name[:12]}-{digest}.json").write_bytes(data)
    append(machines["c"], 3)
    machines["c"].exchange()
    assert numbers(machines["c"]) == [0, 2, 3]


def test_a_prune_knows_more_offers_than_one_move_takes(
    machines: SharedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = document.decode(left_offer(machines).read_bytes())
    monkeypatch.setattr(offers, "READ_MAX", 0)
    store = machines["c"].store
    assert store.attachment is not None
    key = body["entries"][0]["key"]
    assert f"segments/{key[:2]}/{key}.parquet" in store.attachment.offered_keys(store)


class Schedule:
    """Machines that interleave by chance: before a link others exchange, and some are killed."""

    def __init__(self, root: Path, seed: int) -> None:
        self.machines, self._chance = SharedMachines(root), random.Random(seed)
        self._next, self._running = 0, set[str]()
        self.acknowledged: list[int] = []

    def play(self, turns: int) -> None:
        """Let machines take turns; then let all exchange."""
        for _ in range(turns):
            self._turn(self._chance.choice("abcd"))
        self._chance = random.Random(0)
        for name in "abcd" * 2:
            self.machines.reopened(name).exchange()

    def _turn(self, name: str) -> None:
        if name in self._running:
            return
        self._running.add(name)
        lake = self.machines[name]
        append(lake, self._next)
        self.acknowledged.append(self._next)
        self._next += 1
        before_links(lake, *[self._interfere] * 4)
        try:
            lake.exchange()
        except Killed:
            self.machines.reopened(name)
        finally:
            self._running.discard(name)
        if self._chance.random() < 0.2:
            self.machines.reopened(name)

    def _interfere(self) -> None:
        while self._chance.random() < 0.5:
            self._turn(self._chance.choice("abcd"))
        if self._chance.random() < 0.1:
            raise Killed


@pytest.mark.matrix
@pytest.mark.parametrize("seed", range(16))
def test_each_event_is_published_once_whatever_comes_between(tmp_path: Path, seed: int) -> None:
    schedule = Schedule(tmp_path, seed)
    schedule.play(12)
    heads = {schedule.machines[name].store.refs.head("main").digest for name in "abcd"}
    assert len(heads) == 1
    for name in "abcd":
        assert numbers(schedule.machines[name]) == schedule.acknowledged
    schedule.machines.close()


def test_nothing_is_left_where_the_bucket_is_away_before_a_move(machines: SharedMachines) -> None:
    """An exchange that tries again and again would fill the disk, and run out of open files."""
    append(machines["a"], 1)

    def fail(*_: object) -> None:
        raise Unreachable("away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offers.OfferBook, "_listed", fail)
        with pytest.raises(Unreachable):
            machines["a"].exchange()
    for folder in ("segments", "ids"):
        assert list((machines.root / "a" / folder).rglob(".tmp-*")) == []
    assert machines["a"].exchange() == (0, 1)
    assert numbers(machines["a"]) == [0, 1]
