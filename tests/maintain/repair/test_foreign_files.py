"""What others put among a lake's files, such as a file manager or a sync program."""

from __future__ import annotations

from pathlib import Path

import lakelog
from lakelog.cli.exits import FAILED
from tests.support.cli import answer, run

FILES = [
    *(f"{folder}/.DS_Store" for folder in ("segments", "ids", "manifests", "states", "wal")),
    *("segments/notes", "states/notes", "refs/heads/x", "refs/heads/.DS_Store"),
    *("refs/tags/.DS_Store", "refs/tags/._v1.json", "refs/signatures/.DS_Store"),
]
FOLDERS = [
    "segments/lost+found",
    "refs/heads/lost+found",
    "refs/heads/@eaDir",
    "refs/tags/lost+found",
]


def test_foreign_files_are_passed_over(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Every verb works as without them, gc deletes its garbage and not them, and so does a copy."""
    lake.append({"type": "A"})
    lake.settle()
    lake.tag("v1")
    garbage = Path(lake.store.paths.object("segments", "ab" * 32))
    garbage.parent.mkdir(exist_ok=True)
    garbage.write_bytes(b"garbage")
    foreign = [Path(lake.path, name) for name in (*FILES, *FOLDERS)]
    for path in foreign[: len(FILES)]:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    for path in foreign[len(FILES) :]:
        path.mkdir(parents=True)
    run(lake.path, "config", "set", "gc_grace_hours=0")
    run(lake.path, "gc")
    assert not garbage.exists()
    for verb in ("verify", "repair", "doctor", "tag", "stats", "branch"):
        run(lake.path, verb)
    assert lake.branches() == ["main"]
    for _ in range(2):
        run(lake.path, "backup", lake.path, str(tmp_path / "copy"))
    (tmp_path / "copy/refs/tags/.DS_Store").touch()
    run(lake.path, "backup", lake.path, str(tmp_path / "copy"))
    assert (tmp_path / "copy/refs/tags/.DS_Store").exists()
    run(tmp_path / "copy", "verify")
    assert answer(tmp_path / "copy", "sql", "SELECT type FROM events") == [{"type": "A"}]
    assert all(path.exists() for path in foreign)


def test_a_file_in_the_place_of_a_branch_is_still_an_error(lake: lakelog.Lake) -> None:
    """Where its moves were, gc deletes nothing."""
    run(lake.path, "branch", "b")
    head = Path(lake.path, "refs/heads/b")
    moves = head.rename(Path(lake.path, "moves"))
    head.write_bytes(b"x")
    assert "nothing was deleted" in run(lake.path, "gc", code=FAILED).output
    head.unlink()
    moves.rename(head)
