"""Ids and subjects are found in a bucket without fetching the segments that have none of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog.bloom import Filters
from lakelog.lake import Lake
from lakelog.manifest import LEVEL_MAX, manifest
from lakelog.moves.publication import run_maintenance
from lakelog.remotes.shared import attach, name_file, name_units, names, segment_cache
from tests.support.attached import SharedMachines

SUBJECTS = 12


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedMachines]:
    """A machine that has published 20 segments, in pages of two to eight entries."""
    monkeypatch.setattr(name_file, "FILE_LEAST", 0)
    monkeypatch.setattr(names, "_OPENED", 0)
    monkeypatch.setattr(name_units, "_BASE", 2)
    monkeypatch.setattr(name_units, "MOST", 4)
    monkeypatch.setattr(manifest, "FAN", 2)
    machines = SharedMachines(tmp_path)
    store = machines["a"].store
    store.settings = dataclasses.replace(store.settings, seal="never")  # no process beside it
    publish(machines["a"], range(20))
    run_maintenance(store, "main")
    yield machines
    machines.close()


def publish(lake: Lake, numbers: range) -> None:
    """Publish a segment for each number, with three subjects of which two others have, too."""
    for number in numbers:
        lake.append(
            [
                {"type": "T", "id": f"id-{number}-{n}", "subject": f"s{(number + n) % SUBJECTS}"}
                for n in range(3)
            ]
        )
        lake.exchange()


def segments_of(lake: Lake) -> set[str]:
    """Return the segments that a machine has fetched."""
    return {path.stem for path in Path(lake.store.paths.root).glob("segments/*/*.parquet")}


def of_subject(lake: Lake, subject: str) -> int:
    """Count the events of a subject."""
    return int(
        lake.sql("SELECT count(*) FROM events WHERE subject = ?", [subject]).fetchall()[0][0]
    )


def counts(lake: Lake) -> Counter[str]:
    """Count the events of each subject, by reading all of them."""
    return Counter(subject for (subject,) in lake.sql("SELECT subject FROM events").fetchall())


@pytest.mark.parametrize("is_indexed", [False, True])
def test_only_segments_with_the_name_are_fetched(
    machines: SharedMachines, is_indexed: bool
) -> None:
    if is_indexed:
        assert machines["a"].store.attachment.index(machines["a"].store, "main") > 0
    assert of_subject(machines["b"], "nobody") == 0
    assert not segments_of(machines["b"])
    (row,) = machines["b"].sql("SELECT subject FROM events WHERE id = 'id-19-1'").fetchall()
    assert row == ("s8",)
    assert len(segments_of(machines["b"])) == 1
    assert of_subject(machines["b"], "s8") == counts(machines["a"])["s8"]
    both = "SELECT count(*) FROM events a JOIN events b USING (type) WHERE a.id = ? AND b.id = ?"
    assert machines["b"].sql(both, ["id-1-1", "id-19-1"]).fetchall() == [(1,)]


def test_files_of_names_are_bounded_and_read_again(
    machines: SharedMachines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They count among the bytes that `--cache` allows, and memory has few of them."""
    monkeypatch.setattr(names, "_HEADS_MAX", 2)
    monkeypatch.setattr(names, "_ABSENT_MAX", 2)
    attach(machines.url, str(tmp_path / "small"), cache=1)
    with lakelog.open(str(tmp_path / "small")) as lake:
        expected = counts(machines["a"])
        kept = tmp_path / "small" / "cache" / "names"
        assert of_subject(lake, "s8") == expected["s8"]
        assert list(kept.iterdir())  # they were just read
        monkeypatch.setattr(segment_cache, "_RESTING_SECONDS", -1)
        lake.exchange()
        assert not list(kept.iterdir())
        monkeypatch.undo()
        assert all(of_subject(lake, subject) == count for subject, count in expected.items())


def test_pages_without_the_name_are_not_fetched(machines: SharedMachines) -> None:
    machines["a"].append({"type": "T", "id": "needle", "subject": "rare"})
    machines["a"].exchange()
    publish(machines["a"], range(20, 30))
    store = machines["a"].store
    assert store.attachment.index(store, "main") > 0
    assert store.attachment.index(store, "main") == 0
    pages = {page.digest for page in store.state("main").pages}
    assert of_subject(machines["b"], "rare") == 1
    fetched = {p.name[:64] for p in Path(machines["b"].store.paths.root).glob("manifests/*/*")}
    assert 0 < len(pages & fetched) < len(pages) / 2


def test_every_state_gives_what_reading_all_of_it_gives(machines: SharedMachines) -> None:
    lake = machines["a"]
    states = [lake.store.state("main").digest]
    lake.compact()
    publish(lake, range(20, 32))
    lake.retention("0s")
    lake.compact()
    states.append(lake.store.state("main").digest)
    lake.rollback(states[0])
    publish(lake, range(32, 40))
    lake.compact()
    states.append(lake.store.state("main").digest)
    machines.exchange("a", "b")
    for digest in states:
        expected = counts(lake.at(digest))
        for number in range(SUBJECTS):
            subject = f"s{number}"
            assert of_subject(machines["b"].at(digest), subject) == expected[subject]


def test_names_of_a_large_segment_are_read_without_it(machines: SharedMachines) -> None:
    large, store = 270_000, machines["b"].store
    machines["a"].append(
        {"type": "T", "id": f"large-{number}", "subject": f"l{number}"} for number in range(large)
    )
    machines["a"].exchange()
    publish(machines["a"], range(20, 30))
    run_maintenance(machines["a"].store, "main")
    machines["b"].exchange()
    assert store.attachment.index(store, "main") > 0
    assert not segments_of(machines["b"])
    assert of_subject(machines["b"], "l7") == 1


@pytest.mark.parametrize("damage", ["flipped", "cut", "swapped", "missing"])
def test_damaged_files_of_names_take_nothing_away(
    machines: SharedMachines, tmp_path: Path, damage: str
) -> None:
    machines["a"].store.attachment.index(machines["a"].store, "main")
    files = sorted((tmp_path / "bucket" / "cache" / "names").iterdir())
    contents = [path.read_bytes() for path in files]
    for number, path in enumerate(files):
        data = contents[number]
        place = number * 7 % len(data)
        flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        path.write_bytes(
            {"flipped": flipped, "cut": data[: place + 1], "swapped": contents[number - 1]}.get(
                damage, b""
            )
        )
        if damage == "missing":
            path.unlink()
    expected = counts(machines["a"])
    for subject in expected:
        assert of_subject(machines["b"], subject) == expected[subject]


def test_what_is_here_is_found_while_the_bucket_is_away(
    machines: SharedMachines, tmp_path: Path
) -> None:
    machines["a"].store.attachment.index(machines["a"].store, "main")
    expected = counts(machines["b"])
    (tmp_path / "bucket").rename(tmp_path / "away")
    machines.reopened("b")
    for subject in expected:
        assert of_subject(machines["b"], subject) == expected[subject]


def test_a_name_that_many_entries_have_is_found_in_all_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import numpy as np

    monkeypatch.setattr(name_file, "BLOCK", 8)
    about = bytes(range(32))
    chance = np.random.default_rng(3)
    hashed = chance.integers(0, 50, 400, dtype=np.uint64) << np.uint64(60 - 6)
    entries = np.arange(400, dtype=np.uint64)
    keys = np.unique(hashed | entries)
    for columns in ([keys, keys[:9]], [None, keys], [keys[:0], keys[:1]]):
        data = name_file.encode(about, columns)
        head = name_file.NameHead(data[: name_file.head_size(data)], about)
        for column, expected in zip(name_file.COLUMNS, columns, strict=True):
            assert head.knows(column) == (expected is not None)
            for value in {*hashed.tolist(), 5 << 54, 77 << 54} if expected is not None else ():
                found = set[int]()
                if span := head.span(column, value):
                    first, start, size = span
                    found = head.entries(first, data[start : start + size], size, value)
                wanted = {
                    int(k) & name_file.LOW for k in expected.tolist() if k >> 18 == value >> 18
                }
                assert found == wanted


def test_names_of_pages_are_merged_without_their_segments(
    machines: SharedMachines, tmp_path: Path
) -> None:
    """A file is made of those that were there before its last page: incremental."""
    store = machines["b"].store
    entries, index = store.manifests.segments(store.state("main")), store.attachment._names
    pages = [
        store.manifests.write_page(tuple(entries[start : start + 4]), "", LEVEL_MAX)
        for start in range(0, 20, 4)
    ]
    assert index.build(store, [tuple(pages[:2]), (pages[2],)]) == 2
    for entry in entries[:12]:
        (tmp_path / "bucket/cache/names" / entry.key).unlink()
    assert index.build(store, [tuple(pages[:4])]) == 1
    assert not segments_of(machines["b"])
    digest = name_units.unit_digest(tuple(pages[:4]))
    hashed = Filters.hashes_of(["s5", "nobody"])
    holders = {number for number in range(16) if (5 - number) % SUBJECTS < 3}
    found = index.entries(digest, [("subject", hashed)])
    assert found == {n // 4 * name_units.PAGE + n % 4 for n in holders}


def test_names_that_are_too_many_for_one_file_are_in_those_of_its_parts(
    machines: SharedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = machines["a"].store
    units = name_units.units(store.state("main").pages)
    most = max(sum(page.events for page in unit) for unit in units)
    monkeypatch.setattr(names, "_KEYS_MAX", most // 2)
    assert store.attachment.index(store, "main") > len(units)
    assert of_subject(machines["b"], "nobody") == 0
    assert not list(Path(machines["b"].store.paths.root).glob("segments/*/*"))
    assert of_subject(machines["b"], "s8") == of_subject(machines["a"], "s8")


def test_pages_that_remove_are_not_read_for_other_segments(
    machines: SharedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which segments a page removes is among its names."""
    lake = machines["a"]
    lake.compact()
    publish(lake, range(20, 32))
    lake.compact()
    lake.store.attachment.index(lake.store, "main")
    state = lake.store.state("main")
    assert sum(page.removals > 0 for page in state.pages) > 0
    other = machines["b"]
    fetched = Path(other.store.paths.root, "manifests")
    here = set(fetched.glob("*/*"))
    assert of_subject(other, "nobody") == 0
    assert set(fetched.glob("*/*")) == here
    for number in range(12):
        assert of_subject(other, f"s{number}") == of_subject(lake, f"s{number}")
