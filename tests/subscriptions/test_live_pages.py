"""Live pages: whoever stands behind an event gets exactly what follows it, however it is stored."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.errors import InvalidSetting, QueryFailed
from lakelog.lake import Lake
from lakelog.remotes import known
from lakelog.remotes.fetches import clone, pull
from lakelog.remotes.pushes import push
from lakelog.subscriptions import LivePages, live_pages
from tests.conftest import MakeLake
from tests.support.effort import share

HISTORIES, STEPS = share(24), share(30, 3)


class Reader:
    """A client that reads pages of some events together, from a position on."""

    def __init__(self, lake: Lake, condition: str | None = None) -> None:
        self.pages = LivePages(lake.subscriptions(), condition)

    def read(self, after: str, limit: int = 1_000) -> tuple[list[tuple[int, str]], str]:
        """The numbers of what follows with the position behind each, -1 for a rewind; the end."""
        events: list[tuple[int, str]] = []
        while True:
            page = self.pages.page(after, self.pages.pending(), limit)
            after = page.position
            if page.rewound is not None:
                events.append((-1, after))
            if page.positions:
                numbers = [json.loads(data)["n"] for data in page.events["data"].to_pylist()]
                events += zip(numbers, page.positions, strict=True)
            if page.is_end:
                return events, after

    def numbers(self, after: str) -> list[int]:
        return [number for number, _ in self.read(after)[0]]


def events(first: int, count: int, **columns: Any) -> list[dict[str, Any]]:
    return [{"type": f"t{n % 3}", "data": {"n": n}, **columns} for n in range(first, first + count)]


def test_each_event_follows_the_one_before(make_lake: MakeLake) -> None:
    lake = make_lake()
    reader = Reader(lake)
    lake.append(events(0, 5))
    given, end = reader.read("beginning", 2)
    assert [number for number, _ in given] == [0, 1, 2, 3, 4]
    for number, position in given:
        assert reader.numbers(position) == list(range(number + 1, 5))
    lake.settle()
    for number, position in given:
        assert reader.numbers(position) == list(range(number + 1, 5))
    assert reader.numbers(end) == []
    lake.append(events(5, 1))
    assert reader.numbers(end) == [5]
    assert reader.numbers("end") == []
    assert reader.numbers("4") == [4, 5]


def test_versions_of_streams_are_given_once(make_lake: MakeLake) -> None:
    """The version of an event is no place among those of its writer: none is skipped behind a high
    one, and none comes again once it is published."""
    lake = make_lake()
    lake.append(events(0, 50, subject="a"), expect={"a": 0})
    lake.settle()
    lake.close()
    with lakelog.open(lake.path) as other:
        reader = Reader(other)
        _, end = reader.read("beginning")
        other.append(events(50, 1, subject="a"), expect={"a": 50})
        other.append(events(51, 1))
        other.append(events(52, 2, subject="b"), expect={"b": 0})
        given, last = reader.read(end, 1)
        assert [number for number, _ in given] == [50, 51, 52, 53]
        for number, position in given:
            assert reader.numbers(position) == list(range(number + 1, 54))
        other.settle()
        other.append(events(54, 1, subject="a"), expect={"a": 51})
        assert reader.numbers(last) == [54]
        for number, position in given:
            assert reader.numbers(position) == list(range(number + 1, 55))
        for number, position in [*given, (53, last)]:  # a reader that has seen nothing of them
            assert Reader(other).numbers(position) == list(range(number + 1, 55))


def test_versions_that_are_given_anew_are_other_events(make_lake: MakeLake) -> None:
    """After a rollback a stream has its versions again: whoever had those before gets these."""
    lake = make_lake()
    lake.append(events(0, 1))
    lake.tag("before")
    reader = Reader(lake)
    _, end = reader.read("beginning")
    lake.append(events(1, 2, subject="a"), expect={"a": 0})
    given, last = reader.read(end, 1)
    lake.settle()
    lake.rollback("before")
    lake.append(events(3, 2, subject="a"), expect={"a": 0})
    for _, position in (*given, (2, last)):
        assert reader.numbers(position)[-3:] == [-1, 3, 4]
    lake.settle()
    for _, position in (*given, (2, last)):
        assert reader.numbers(position)[-3:] == [-1, 3, 4]
        assert Reader(lake).numbers(position)[-3:] == [-1, 3, 4]


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_no_history_skips_or_repeats_an_event(
    make_lake: MakeLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Writers, files, seals and compactions between the pages of clients at all places."""
    monkeypatch.setattr(live_pages, "_TAIL_EVENTS", 3)  # so that a page ends within a tail
    rng = random.Random(seed)
    lake = make_lake()
    count = 0
    places: list[tuple[str, frozenset[int]]] = [("beginning", frozenset())]
    stored: list[int] = []
    with lakelog.open(lake.path) as other:
        for step in range(STEPS):
            action = rng.randrange(6)
            batch = events(count, rng.randrange(1, 9))
            if action < 3:
                (other if action else lake).append(batch)
            elif action == 3:
                path = tmp_path / f"{step}.jsonl"
                path.write_text("".join(json.dumps(event) + "\n" for event in batch))
                other.ingest(path)
            else:
                batch = []
                lake.settle()
                if action == 5:
                    lake.compact()
            count += len(batch)
            stored += [event["data"]["n"] for event in batch]
            # One that is as old as any, and one of the newest.
            for after, seen in rng.sample(places, min(2, len(places))) + places[-1:]:
                reader = Reader(lake, "(data->>'n')::INT >= 0" if rng.random() < 0.3 else None)
                given, end = reader.read(after, rng.randrange(2, 12))
                numbers = [number for number, _ in given]
                assert len(numbers) == len(set(numbers))
                assert sorted(seen | set(numbers)) == stored, (step, after)
                assert not seen & set(numbers)
                for place, (_, position) in enumerate(given):
                    if rng.random() < 0.2:
                        places.append((position, seen | set(numbers[: place + 1])))
                places.append((end, seen | set(numbers)))


def test_who_is_patient_gets_much_of_a_tail_once_it_is_sealed(make_lake: MakeLake) -> None:
    """Rows of a segment cost a fraction of those of a tail; the others are not kept from them."""
    lake = make_lake(rotate_events=1_000)
    reader = Reader(lake)
    _, after = reader.read("end")
    lake.append(events(0, 8_000))
    for _ in range(2):
        pending = reader.pages.pending()
        page = reader.pages.page(after, pending, 10_000, is_patient=True)
        assert (page.awaits_seal, page.is_end, page.positions) == (True, False, [])
    assert len(reader.numbers(after)) == 8_000
    lake.settle()
    lake.append(events(8_000, 10))
    page = reader.pages.page(after, reader.pages.pending(), 10_000, is_patient=True)
    assert (len(page.positions), page.awaits_seal) == (8_000, False)
    page = reader.pages.page(page.position, reader.pages.pending(), 10_000, is_patient=True)
    assert (len(page.positions), page.is_end) == (10, True)


def test_a_tail_of_very_many_writers_has_positions_to_go_on_from(make_lake: MakeLake) -> None:
    """Of programs that append an event and are gone, in a lake that nobody seals: each position is
    taken again, and none is too long for the headers of proxies."""
    for number in range(400):
        with make_lake() as short:
            short.append(events(number, 1))
    reader = Reader(make_lake())
    given, end = reader.read("beginning")
    assert max(len(position) for _, position in given) < 8_000
    places = random.Random(1).sample(given, 10)
    for number, position in places:
        assert reader.numbers(position) == list(range(number + 1, 400))
    make_lake().settle()
    for number, position in places:
        assert reader.numbers(position) == list(range(number + 1, 400))
    assert reader.numbers(end) == []


def test_a_position_with_whole_ids_of_writers_is_one(make_lake: MakeLake) -> None:
    """As clients have kept it from servers of versions before."""
    lake = make_lake()
    lake.append(events(0, 2))
    reader = Reader(lake)
    (_, position), _ = reader.read("beginning")[0]
    stem = position.partition("~")[0]
    older = f"{stem}~{lake.writer().name}.1"
    assert reader.numbers(older) == [1]
    lake.settle()
    assert reader.numbers(older) == [1]


def test_the_tail_of_many_dead_writers_is_sealed_for_a_reader(make_lake: MakeLake) -> None:
    """Else each event would come with the names of all of them."""
    lake = make_lake(seal="auto")
    for number in range(20):
        with make_lake(seal="auto") as short:
            short.append(events(number, 1))
    reader = Reader(lake)
    _, end = reader.read("beginning")
    while "~" in end:
        time.sleep(0.05)
        _, end = reader.read(end)
    assert reader.numbers("beginning") == list(range(20))


def test_the_same_id_from_a_file_is_not_given_again(make_lake: MakeLake, tmp_path: Path) -> None:
    """The file is published first, so what stands in the tail becomes its duplicate."""
    lake = make_lake()
    reader = Reader(lake)
    start = reader.read("end")[1]
    lake.append(events(0, 2, source="s", id="x")[:1])
    given, end = reader.read(start)
    assert [number for number, _ in given] == [0]
    path = tmp_path / "same.jsonl"
    path.write_text(json.dumps(events(0, 1, source="s", id="x")[0]) + "\n")
    lake.ingest(path)
    lake.settle()
    assert lake.count() == 1
    assert reader.numbers(end) == []
    assert reader.numbers(start) == [0]


def test_a_rollback_is_told_and_what_came_after_it_follows(make_lake: MakeLake) -> None:
    lake = make_lake()
    reader = Reader(lake)
    lake.append(events(0, 3))
    lake.tag("v1")
    lake.append(events(3, 3))
    given, end = reader.read("beginning")
    behind_two = given[1][1]
    lake.append(events(6, 1))
    lake.rollback("v1")
    lake.append(events(10, 2))
    # 6 came before the branch was taken back, and is given first.
    assert reader.numbers(end) == [6, -1, 10, 11]
    assert reader.numbers(behind_two) == [2, 3, 4, 5, 6, -1, 10, 11]
    assert reader.numbers("beginning") == [0, 1, 2, 10, 11]


@pytest.mark.parametrize(
    "token", ["", "x", "-1", "99", "00000000-0-1-0", "e~f.1", "9" * 30, "0" * 9_000]
)
def test_what_is_no_position_of_this_branch_is_refused(make_lake: MakeLake, token: str) -> None:
    lake = make_lake()
    lake.append(events(0, 1))
    with pytest.raises(InvalidSetting):
        Reader(lake).read(token)


def test_a_position_of_a_newer_copy_is_refused(make_lake: MakeLake) -> None:
    lake = make_lake()
    lake.append(events(0, 1))
    branch = Reader(lake).read("end")[1].split("-")[0]
    for token in ("0-1-99", "0-1-0-99-5-0", "0-999-0", "7-1-0"):
        with pytest.raises(InvalidSetting, match="newer copy"):
            Reader(lake).read(f"{branch}-{token}")


def test_a_position_of_a_lake_that_was_restored_is_refused(
    make_lake: MakeLake, tmp_path: Path
) -> None:
    """Also once it has grown past it: its numbers mean other events. One of what the backup has
    goes on, without a commit too, as older versions gave it."""
    lake = make_lake()
    reader = Reader(lake)
    lake.append(events(0, 2))
    lake.settle()
    kept = reader.read("end")[1]
    lake.backup(tmp_path / "copy")
    lake.append(events(2, 3))
    end_of_tail = reader.read("end")[1]
    lake.settle()
    sealed, end = reader.read("beginning", 1)
    shutil.rmtree(lake.path)
    shutil.copytree(tmp_path / "copy", lake.path)
    with lakelog.open(lake.path, create=False) as restored:
        for number in range(10, 15):
            restored.append(events(number, 1))
            restored.settle()
        for position in (sealed[1][1], sealed[3][1], end):
            for each in (reader, Reader(restored)):
                with pytest.raises(InvalidSetting, match="newer copy"):
                    each.read(position)
        for position in (kept, kept.split("-c")[0], end_of_tail):
            assert Reader(restored).numbers(position) == [10, 11, 12, 13, 14]


def test_a_condition_that_is_none_is_refused(make_lake: MakeLake) -> None:
    with pytest.raises(QueryFailed):
        Reader(make_lake(), "nonsense = 1")


@pytest.mark.parametrize(("size", "is_of_tail"), [(1, False), (100, False), (2, True)])
def test_a_merge_gives_what_came_and_nothing_again(
    make_lake: MakeLake, tmp_path: Path, size: int, is_of_tail: bool
) -> None:
    """Own events have other numbers behind those that came, and what follows the merge comes."""
    lake = make_lake()
    lake.append(events(0, 3))
    lake.settle()
    known.add(lake.store, "far", str(tmp_path / "far"))
    push(lake, "far", branches=["main"])
    clone(str(tmp_path / "far"), str(tmp_path / "other"))
    with lakelog.open(tmp_path / "other") as other:
        other.append(events(10, 3))
        push(other, "origin", branches=["main"])
    lake.append(events(3, 4))
    if not is_of_tail:
        lake.settle()
    reader = Reader(lake)
    given, _ = reader.read("beginning", 2)
    assert [number for number, _ in given] == [0, 1, 2, 3, 4, 5, 6]
    pull(lake, "far", merge=True)
    lake.append(events(20, 2))
    for is_sealed in (False, True):
        if is_sealed:
            lake.settle()
        for number, position in given:
            following, _ = Reader(lake).read(position, size)
            numbers = [number for number, _ in following]
            assert sorted(numbers) == [*range(number + 1, 7), 10, 11, 12, 20, 21]
            for place, (_, after) in enumerate(following):
                assert reader.numbers(after) == numbers[place + 1 :]
