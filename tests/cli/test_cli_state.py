"""state: the verbs of saved state directories, their variables and their questions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.cli import answer, run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "a").write_bytes(b"one")
    return tmp_path / "app"


def test_directories_and_retention_come_from_the_environment(tmp_path: Path, home: Path) -> None:
    """STATE_DIRECTORY names the directories, STATE_SNAPSHOT_RETENTION how many states stay."""
    lake = tmp_path / "lake"
    environment = {"STATE_DIRECTORY": str(home), "STATE_SNAPSHOT_RETENTION": "2"}
    names = [answer(lake, "state", "save", env=environment)["state"] for _ in range(3)]
    assert [each["state"] for each in answer(lake, "state", "list")] == names[:0:-1]
    assert run(lake, "state", "latest").stdout.strip() == names[-1]
    (shown,) = answer(lake, "state", "info", names[-1])
    assert (shown["label"], shown["path"], shown["files"]) == ("app", str(home), 1)
    assert answer(lake, "state", "clean", "1", "--yes")["deleted"] == [names[1]]
    run(lake, "state", "save", code=1)


def test_saving_and_restoring_can_be_turned_off(tmp_path: Path, home: Path) -> None:
    """SNAPSHOT_ENABLED=false saves nothing and is no failure; RESTORE_ENABLED=false refuses."""
    lake, words = tmp_path / "lake", ("state", "save", "one", "--dir", str(home))
    run(lake, *words, env={"SNAPSHOT_ENABLED": "false"})
    assert not lake.exists()
    run(lake, *words)
    run(lake, "state", "restore", "one", "--yes", code=1, env={"RESTORE_ENABLED": "0"})


def test_restore_asks_diffs_and_can_be_undone(tmp_path: Path, home: Path) -> None:
    """Without a terminal what overwrites needs --yes; a fresh place needs none."""
    lake = tmp_path / "lake"
    run(lake, "state", "save", "one", "--dir", f"state={home}")
    (home / "a").write_bytes(b"two")
    run(lake, "state", "save", "two", "--dir", f"state={home}")
    (change,) = answer(lake, "state", "diff", "one", "two")
    assert (change["change"], change["path"]) == ("changed", "state/a")
    assert "content" in change["what"]
    assert run(lake, "state", "cat", "one", "state/a").stdout == "one"
    asked = run(lake, "state", "restore", "one", code=2).stderr
    assert re.search(r"by one of \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ: add --yes", asked)
    assert (home / "a").read_bytes() == b"two"
    run(lake, "state", "restore", "one", "--to", str(tmp_path / "look"))
    assert (tmp_path / "look" / "a").read_bytes() == b"one"
    run(lake, "state", "restore", "one", "--yes")
    assert (home / "a").read_bytes() == b"one"
    run(lake, "state", "restore", "--undo", "--yes")
    assert (home / "a").read_bytes() == b"two"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("info", "none"), 1),
        (("restore",), 2),
        (("restore", "one", "--undo"), 2),
        (("restore", "one", "--dir", "other", "--yes"), 1),
        (("cat", "one", "none"), 1),
        (("save", "one", "--dir", "APP"), 1),
        (("save", "--dir", "APP", "--dir", "APP"), 1),
        (("save", "--dir", "none"), 1),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, home: Path, words: tuple[str, ...], code: int
) -> None:
    """What does not exist or cannot be is refused, and nothing changes."""
    lake = tmp_path / "lake"
    run(lake, "state", "save", "one", "--dir", str(home))
    given = [str(home) if word == "APP" else word for word in words]
    run(lake, "state", *given, code=code)
    assert [each["state"] for each in answer(lake, "state", "list")] == ["one"]


def test_restore_if_empty_is_what_a_new_volume_needs(tmp_path: Path, home: Path) -> None:
    """As the init container of a deployment runs it: at the first start, on a new volume, later."""
    lake, state = home / "lake", tmp_path / "state"
    words = ("state", "restore", "latest", "--if-empty", "--yes")
    assert "there is no lake" in run(lake, *words).stderr
    run(lake, "append", "type=a")
    assert "no state was saved yet" in run(lake, *words).stderr
    state.mkdir()
    (state / "counter").write_text("7")
    run(lake, "state", "save", "--dir", str(state))
    (state / "counter").write_text("8")
    assert "is not empty" in run(lake, *words).stderr
    assert (state / "counter").read_text() == "8"
    (state / "counter").unlink()
    run(lake, *words)
    assert (state / "counter").read_text() == "7"


def test_names_of_states_and_tags_are_whole_in_a_narrow_table(tmp_path: Path, home: Path) -> None:
    """They are what the next command takes; what does not fit beside them is named."""
    lake = tmp_path / "lake"
    name = "before-rollback-20261122-124544"
    run(lake, "state", "save", name, "--dir", str(home), "-m", "a message of some length " * 4)
    for words in (("state", "list"), ("tag", "--list")):
        shown = run(lake, *words, "--format", "table").stdout.splitlines()
        assert any(line.startswith(f"{name} ") for line in shown)
        assert max(map(len, shown)) <= 80
