"""The commands remote, push, pull, fetch and clone, as a user types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import answer, lines, run


@pytest.fixture
def lake(home: Path) -> Path:
    path = home / "lake"
    run(path, "append", input=lines(5))
    run(path, "remote", "add", "origin", str(home / "there"))
    return path


def test_push_clone_and_pull(lake: Path, home: Path) -> None:
    """What one lake pushes, its clone has, and the other way round."""
    assert answer(lake, "push", "--dry-run")["refs"] == {"main": "new"}
    assert answer(lake, "push")["refs"] == {"main": "new"}
    clone = home / "clone"
    said = run(clone, "clone", str(home / "there"), str(clone))
    assert f"cloned into {clone}" in said.stderr
    run(clone, "append", input=lines(2, "MORE"))
    assert answer(clone, "push")["refs"] == {"main": "updated"}
    assert answer(lake, "pull")["refs"]["main"] == "updated"
    count = run(lake, "sql", "SELECT count(*) FROM events", "--format", "csv").stdout
    assert count.split() == ["count_star()", "7"]
    (row,) = answer(lake, "remote", "list")
    assert (row["remote"], row["url"]) == ("origin", str(home / "there"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["push", "orgin"], 1, "no remote 'orgin': did you mean 'origin'?"),
        (["remote", "add", "origin", "x"], 1, "remote 'origin' exists"),
        (["remote", "add", "a/b", "x"], 2, "cannot name a remote"),
        (["remote", "add", "a"], 2, "takes NAME and URL"),
        (["remote", "add", "a", "gopher://x/y"], 1, "no remotes of kind gopher://"),
        (["push", "--force"], 2, "add --yes"),
        (["push", "--tag", "none"], 1, "no tag 'none'"),
        (["pull"], 1, "there is no lake: check the address, or push to it"),
        (["clone", "nowhere", "x"], 1, "there is no lake"),
    ],
)
def test_a_mistake_is_one_line(lake: Path, words: list[str], code: int, said: str) -> None:
    """The line says what is wrong and what to do."""
    shown = run(lake, *words, code=code).stderr
    assert said in shown
    assert shown.count("\n") == 1


def test_a_password_in_an_address_is_refused_and_not_shown(lake: Path) -> None:
    """Credentials come from the environment; the error does not repeat them."""
    shown = run(lake, "remote", "add", "a", "s3://me:secret@bucket/x", code=1).stderr
    assert "leave it out" in shown
    assert "secret" not in shown
