"""Branches: made, deleted, made again under one name, and what writers of a deleted one see."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

import lakelog
from lakelog import history
from lakelog.errors import AlreadyExists, InUse, UnknownRef
from lakelog.history import deletion
from lakelog.refs import BranchLife
from lakelog.wal import frames as wal

MakeLake = Callable[..., lakelog.Lake]


def put(lake: lakelog.Lake, *types: str) -> None:
    """Append one event per type."""
    lake.append([{"type": name} for name in types])


def types(lake: Any) -> str:
    """Return the types of all events, sorted, as one word."""
    return "".join(sorted(t for (t,) in lake.sql("SELECT type FROM events").fetchall()))


def ops(lake: lakelog.Lake) -> list[str]:
    """Return the operations of the log, oldest first, sealing and maintenance left out."""
    skipped = ("seal", "maintain", "init", "branch")
    return [e.move.op for e in reversed(lake.log()) if e.move.op not in skipped]


# --- names ----------------------------------------------------------------------------------------


def test_branches_go_their_own_ways(make_lake: MakeLake) -> None:
    """A branch starts with all that was acknowledged; later events stay on theirs."""
    main = make_lake()
    put(main, "a")
    with main.branch("dev", message="try it") as dev:
        put(dev, "d")
        put(main, "m")
        assert (types(main), types(dev)) == ("am", "ad")
        dev.settle()
        main.settle()
        assert (types(main), types(dev)) == ("am", "ad")
        assert dev.log()[-1].move.op == "branch"
        assert dev.log()[-1].move.message == "try it"
        seq = "SELECT type, seq FROM events ORDER BY seq"
        assert dev.sql(seq).fetchall() == [("a", 0), ("d", 1)]


def test_a_branch_may_start_anywhere(lake: lakelog.Lake) -> None:
    """With a ref a branch starts at that state."""
    put(lake, "a")
    lake.tag("v1")
    put(lake, "b")
    with lake.branch("old", "v1") as old, lake.branch("same", "main") as same:
        assert (types(old), types(same)) == ("a", "ab")
    with pytest.raises(AlreadyExists, match="'old' exists"):
        lake.branch("old")
    with pytest.raises(UnknownRef):
        lake.branch("bad", "nothing")


def test_a_deleted_branch_ends_by_a_move_and_may_come_back(make_lake: MakeLake) -> None:
    """Deleting keeps the history; the name may be taken again and the numbers go on."""
    main = make_lake()
    dev = main.branch("dev")
    put(dev, "a")
    with pytest.raises(InUse, match="active writer"):
        history.delete_branch(main.store, "dev", dev.settle)
    dev.close()
    history.delete_branch(main.store, "dev", make_lake(branch="dev").settle)
    assert main.store.refs.branches() == ["main"]
    with pytest.raises(UnknownRef):
        main.at("dev")
    assert types(main.at("dev@2")) == "a"
    put(main, "m")
    with main.branch("dev") as again:
        assert types(again) == "m"
        put(again, "x")
        again.settle()
        assert types(again) == "mx"
        assert [e.move.op for e in again.log()] == ["seal", "branch", "delete", "seal", "branch"]
        assert [e.move.number for e in again.log()] == [5, 4, 3, 2, 1]


def test_an_append_to_a_branch_that_was_deleted_fails(make_lake: MakeLake) -> None:
    """It is not stored, now nor in a later branch of that name, until the lake is opened again."""
    main = make_lake()
    main.branch("dev").close()
    early = make_lake(branch="dev")
    history.delete_branch(main.store, "dev", make_lake(branch="dev").settle)
    with pytest.raises(UnknownRef, match="'dev' was deleted since"):
        put(early, "lost")
    with main.branch("dev") as again:
        put(again, "x")
        for _ in range(2):
            with pytest.raises(UnknownRef, match="'dev' was deleted since"):
                put(early, "lost")
        again.settle()
        assert types(again) == "x"
    with make_lake(branch="dev") as reopened:
        put(reopened, "y")
        assert types(reopened) == "xy"
    assert main.verify().problems == ()


def test_a_rollback_does_not_close_a_branch_to_those_who_have_it_open(make_lake: MakeLake) -> None:
    main, early = make_lake(), make_lake()
    put(main, "a")
    main.tag("v1")
    put(main, "b")
    main.rollback("v1")
    put(early, "c")
    assert types(main) == "ac"


def test_a_branch_that_is_written_to_while_it_is_deleted_stays(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer looked for the branch before it ended: what it was told is stored, is."""
    main = make_lake()
    main.branch("dev").close()
    early = make_lake(branch="dev")
    real = deletion.publish

    def publish(*args: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(BranchLife, "goes_on", lambda *_: True)
            put(early, "acknowledged")
        return real(*args)

    monkeypatch.setattr(deletion, "publish", publish)
    with pytest.raises(InUse, match="was written to"):
        history.delete_branch(main.store, "dev", make_lake(branch="dev").settle)
    assert types(make_lake(branch="dev")) == "acknowledged"
    assert main.verify().problems == ()


def test_what_a_killed_process_left_is_not_in_a_later_branch(make_lake: MakeLake) -> None:
    """It wrote its first frame to a branch that had ended, and was killed before it looked."""
    main = make_lake()
    main.branch("dev").close()
    with make_lake(branch="dev") as dev:
        history.delete_branch(main.store, "dev", dev.settle)
    name, uname = "ab" * 16, os.uname().nodename
    header = wal.Header(main.store.lake_id, "dev", name, 0, 0, (), uname, 0, 1)
    frame = wal.encode_frame(b'{"type":"z"}', 1, 0, 0, 0, 1, zstandard.ZstdCompressor())
    file = Path(main.store.paths.wal("dev", name, 0))
    file.write_bytes(wal.Header.encode(header) + frame)
    with main.branch("dev") as again:
        put(again, "x")
        assert types(again) == "x"
        again.settle()
        assert types(again) == "x"
    assert main.verify().problems == ()


# --- log and diff ---------------------------------------------------------------------------------
