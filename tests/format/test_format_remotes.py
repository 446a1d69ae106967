"""What a lake keeps of its remotes, and what a remote holds (FORMAT.md, 8)."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakelog.store import disk, document
from lakelog.transfer import known
from tests.support.lakes import opened
from tests.support.remote_suite import add, push, snapshot


@pytest.fixture
def pushed(home: Path) -> tuple[Path, Path]:
    """A lake and the directory that it was pushed to."""
    here, there = home / "lake", home / "remote"
    add(str(here), "first")
    with opened(str(here)) as lake:
        known.add(lake.store, "origin", str(there))
    push(str(here))
    return here, there


def test_what_is_known_of_a_remote(pushed: tuple[Path, Path]) -> None:
    """F8.8: a document with the remote's address and id, and what was seen of each branch."""
    here, there = pushed
    body = document.decode(disk.read(str(here / "remotes" / "origin.json")))
    with opened(str(there)) as lake:
        head = lake.store.refs.head("main").move
        assert (body["name"], body["url"], body["lake"]) == (
            "origin",
            str(there),
            lake.store.lake_id,
        )
    seen = {"number": head.number, "generation": head.generation, "snapshot": head.snapshot}
    assert body["branches"]["main"]["seen"] == seen
    assert body["branches"]["main"]["common"]["local"]["snapshot"] == snapshot(str(here))


def test_what_a_remote_holds(pushed: tuple[Path, Path]) -> None:
    """F8.9: the files of a lake with an id of its own; each push is one move named `push`."""
    here, there = pushed
    with opened(str(there)) as lake, opened(str(here)) as own:
        before = lake.store.refs.head("main").move
        assert before.op == "push"
        assert lake.store.lake_id != own.store.lake_id
    assert snapshot(str(there)) == snapshot(str(here))
    add(str(here), "more")
    push(str(here))
    with opened(str(there)) as lake:
        after = lake.store.refs.head("main").move
    assert (after.number, after.generation) == (before.number + 1, before.generation)
    assert after.wal == before.wal
