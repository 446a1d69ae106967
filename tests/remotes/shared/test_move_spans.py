"""Spans of moves: a new directory, and one that was away for long, take many in one request."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakelog.errors import TransferRefused
from lakelog.remotes.shared import attach, move_spans
from tests.support.attached import SharedMachines, append, numbers


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedMachines]:
    """One machine that has made fifteen moves: three spans, two moves of the next one, and one."""
    monkeypatch.setattr(move_spans, "SPAN", 4)
    monkeypatch.setattr(move_spans, "GROWTH", 2)
    machines = SharedMachines(tmp_path)
    for number in range(14):
        append(machines["a"], number)
        machines["a"].exchange()
    yield machines
    machines.close()


def spans(root: Path) -> list[Path]:
    """Return the files of spans in a bucket, in their order."""
    return sorted((root / "bucket" / "packs" / "main").iterdir())


def history(machines: SharedMachines, name: str) -> list[tuple[int, str]]:
    """Return the moves that a machine knows."""
    refs = machines[name].store.refs
    return [(move.number, move.snapshot) for move in refs.newest_first("main")]


def test_a_new_directory_has_all_moves_and_goes_on(
    machines: SharedMachines, tmp_path: Path
) -> None:
    assert [path.name[7:19] for path in spans(tmp_path)] == [f"{n:012d}" for n in (1, 5, 9, 13)]
    assert history(machines, "b") == history(machines, "a")
    folder = tmp_path / "b" / "refs" / "heads" / "main"
    assert not (folder / "000000000003.json").exists()
    append(machines["b"], 14)
    machines.exchange("b", "a")
    assert numbers(machines["a"]) == numbers(machines["b"]) == list(range(15))
    assert machines["b"].at("@2").count() == machines["a"].at("@2").count()


def test_spans_that_nobody_stored_are_stored_by_who_asked_for_each_move(
    machines: SharedMachines, tmp_path: Path
) -> None:
    before = [path.read_bytes() for path in spans(tmp_path)]
    shutil.rmtree(tmp_path / "bucket" / "packs")
    assert history(machines, "b") == history(machines, "a")
    assert [path.read_bytes() for path in spans(tmp_path)] == before


@pytest.mark.parametrize("damage", ["flipped", "cut", "swapped"])
def test_a_span_that_cannot_be_believed_is_passed_over(
    machines: SharedMachines, tmp_path: Path, damage: str
) -> None:
    first, second, *_ = spans(tmp_path)
    data = second.read_bytes()
    wrong = {"flipped": data[:40] + bytes([data[40] ^ 1]) + data[41:], "cut": data[:-9]}
    second.write_bytes(wrong.get(damage) or first.read_bytes())
    assert history(machines, "b") == history(machines, "a")
    assert numbers(machines["b"]) == list(range(14))


def test_a_span_of_another_history_is_found_out(machines: SharedMachines, tmp_path: Path) -> None:
    other = SharedMachines(tmp_path / "other")
    for number in range(14):
        append(other["a"], number)
        other["a"].exchange()
    for path in spans(tmp_path):
        shutil.copy(tmp_path / "other" / "bucket" / "packs" / "main" / path.name, path)
    other.close()
    with pytest.raises(TransferRefused, match="is not there as this machine has it"):
        attach(machines.url, str(tmp_path / "b"))


def test_an_attachment_that_was_interrupted_between_spans_goes_on(
    machines: SharedMachines, tmp_path: Path
) -> None:
    assert numbers(machines["b"]) == list(range(14))
    folder = tmp_path / "b" / "refs" / "heads" / "main"
    for path in [*folder.glob("0*.json"), folder / "hint"]:
        path.unlink(missing_ok=True)
    attach(machines.url, str(tmp_path / "b"))
    machines.reopened("b").exchange()
    assert history(machines, "b") == history(machines, "a")
