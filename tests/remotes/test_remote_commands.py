"""The commands remote, push, pull and clone, as a user types them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lakelog.remotes import known
from lakelog.remotes.shared import bucket
from tests.support.cli import answer, flip, lines, run
from tests.support.requirements import need_module
from tests.support.tree import ROOT


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
    run(home / "named", "clone", str(home / "there"))
    assert (home / "named" / "lakelog.json").exists()


def test_a_push_to_a_lake_that_is_gone_makes_no_other_one(lake: Path, home: Path) -> None:
    """As where its disk is not mounted."""
    run(lake, "push")
    (home / "there").rename(home / "disk")
    (home / "there").mkdir()
    said = run(lake, "push", code=1).stderr
    assert "the lake that was there is gone" in said
    assert list((home / "there").iterdir()) == []
    assert "`lakelog push --repair`" in said
    assert answer(lake, "push", "--repair")["refs"] == {"main": "new"}


def test_what_is_missing_at_a_remote_is_sent_again_by_a_lake(lake: Path, home: Path) -> None:
    """As of a bucket that somebody cleaned, where nothing but lakelog on another machine looks."""
    run(lake, "push")
    for path in (home / "there/segments").rglob("*.parquet"):
        path.unlink()
    said = run(home, "clone", str(home / "there"), str(home / "clone"), code=1).stderr
    assert "is missing there: a lake that has it" in said
    (repair,) = re.findall(r"`lakelog (.*?)`", said)
    run(lake, *repair.split())
    run(home, "clone", str(home / "there"), str(home / "clone"))


@pytest.mark.parametrize("words", [["pull", "--fetch"], ["fetch"]])
def test_a_fetch_changes_no_branch(lake: Path, home: Path, words: list[str]) -> None:
    """The states at the remote get names here; `fetch` is the older word for `pull --fetch`."""
    run(lake, "push")
    clone = home / "clone"
    run(clone, "clone", str(home / "there"), str(clone))
    run(clone, "append", input=lines(2, "MORE"))
    run(clone, "push")
    assert answer(lake, *words, "--dry-run")["refs"]
    run(lake, *words)
    count = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM 'origin/main'.events)"
    count = count.replace("'", '"')
    assert run(lake, "sql", count, "--format", "csv").stdout.split()[-1] == "5,7"
    assert "--fetch changes no branch" in run(lake, "pull", "--fetch", "--force", code=2).stderr


def test_a_damaged_tag_is_named_after_the_branch_came(lake: Path, home: Path) -> None:
    run(lake, "push")
    clone = home / "clone"
    run(clone, "clone", str(home / "there"), str(clone))
    run(lake, "append", input=lines(2, "MORE"))
    run(lake, "tag", "v1")
    run(lake, "push", "--tags")
    flip(home / "there/refs/tags/v1.json")
    said = run(clone, "pull", code=1).stderr
    assert "tag 'v1': " in said
    assert "nothing was changed" not in said
    count = run(clone, "sql", "SELECT count(*) FROM events", "--format", "csv").stdout
    assert count.split() == ["count_star()", "7"]


def test_a_tag_that_is_another_there_is_named_after_the_branch_went(lake: Path, home: Path) -> None:
    """As one is that was deleted and made again; the error does not say that nothing was done."""
    run(lake, "tag", "v1")
    run(lake, "push", "--tags")
    run(lake, "tag", "--delete", "v1")
    run(lake, "append", input=lines(2, "MORE"))
    run(lake, "tag", "v1")
    said = run(lake, "push", "--tags", code=1).stderr
    assert "tag 'v1' names another state there" in said
    assert "nothing was changed" not in said
    count = run(home / "there", "sql", "SELECT count(*) FROM events", "--format", "csv").stdout
    assert count.split() == ["count_star()", "7"]


def test_a_refused_tag_or_branch_keeps_no_other_back(lake: Path, home: Path) -> None:
    """All that are refused are named, and what is said to replace a tag does."""
    run(lake, "branch", "aside")
    for tag in ("a", "c"):
        run(lake, "tag", tag)
    run(lake, "push", "--all", "--tags")
    clone = home / "clone"
    run(clone, "clone", str(home / "there"), str(clone))
    run(clone, "--branch", "aside", "append", "type=T")
    run(clone, "--branch", "aside", "push")
    run(lake, "append", input=lines(2, "MORE"))
    run(lake, "--branch", "aside", "append", "type=U")
    for tag in ("a", "c"):
        run(lake, "tag", "--delete", tag)
    for tag in ("a", "b", "c", "d"):
        run(lake, "tag", tag)
    said = run(lake, "push", "--all", "--tags", code=1).stderr
    assert "branch 'aside' moved on there" in said
    assert "tag 'a' names another state" in said
    assert "tag 'c' names another state" in said
    names = answer(home / "there", "tag")
    assert [tag["tag"] for tag in names] == ["a", "b", "c", "d"]
    run(lake, *re.findall(r"`lakelog (push --tag c --force)`", said)[0].split(), "--yes")
    assert "tag 'c'" not in run(lake, "push", "--all", "--tags", code=1).stderr


def test_a_damaged_or_unknown_tag_keeps_no_other_back(lake: Path, home: Path) -> None:
    run(lake, "push")
    for tag in ("a", "b", "c"):
        run(lake, "tag", tag)
    flip(lake / "refs/tags/a.json")
    said = run(lake, "push", "--tag", "a", "--tag", "b", "--tag", "x", "--tag", "c", code=1).stderr
    assert "a.json: the tag is damaged" in said
    assert "no tag 'x'" in said
    assert [row["tag"] for row in answer(home / "there", "tag")] == ["b", "c"]


def test_a_branch_that_was_made_again_is_said_to_be(lake: Path) -> None:
    """Its events are all there, and it did not move on there; what is not possible is no advice."""
    run(lake, "tag", "old")
    run(lake, "branch", "work")
    run(lake, "--branch", "work", "append", input=lines(2, "MORE"))
    run(lake, "push", "--all")
    run(lake, "branch", "--delete", "work")
    run(lake, "branch", "work", "old")
    said = run(lake, "--branch", "work", "push", code=1).stderr
    assert "branch 'work' was rewound here: `lakelog --branch work pull` first" in said
    said = run(lake, "--branch", "work", "pull", code=1).stderr
    assert "it was rewound here (a rollback, an undo, or made again)" in said
    assert "--merge" not in said
    assert "`lakelog --branch work pull --force`" in said
    run(lake, "--branch", "work", "pull", "--force", "--yes")
    assert answer(lake, "--branch", "work", "push")["refs"] == {"work": "up to date"}


def test_advice_about_a_branch_names_it(lake: Path, home: Path) -> None:
    """As it is typed: without the option it would be about another branch."""
    branch = "o'dd"
    run(lake, "branch", branch)
    run(lake, "push", "--all")
    clone = home / "clone"
    run(clone, "clone", str(home / "there"), str(clone))
    for path in (lake, clone):
        run(path, "--branch", branch, "append", input=lines(1, path.name))
    run(clone, "push", "--all")
    for words in (["push", "--all"], ["--branch", branch, "pull"]):
        said = run(lake, *words, code=1).stderr
        commands = [shlex.split(words) for words in re.findall(r"`(.*?)`", said)]
        assert len(commands) >= 2
        assert all(command[:3] == ["lakelog", "--branch", branch] for command in commands)
    run(lake, "--branch", branch, "pull", "--merge")
    run(lake, "push", "--all")


def test_a_name_means_one_thing_at_a_remote(lake: Path, home: Path) -> None:
    """As in a lake: no branch and tag of one name, whichever was pushed before."""
    run(lake, "tag", "a")
    run(lake, "branch", "b")
    run(lake, "push", "--all", "--tags")
    run(lake, "tag", "--delete", "a")
    run(lake, "branch", "--delete", "b")
    run(lake, "branch", "a")
    run(lake, "append", input=lines(2, "MORE"))
    said = run(lake, "push", "--all", code=1).stderr
    assert "'a' is the name of a tag there" in said
    other = home / "other"
    run(other, "clone", str(home / "there"), str(other))
    run(home / "there", "branch", "c")
    run(other, "tag", "c")
    assert "'c' is the name of a branch there" in run(other, "push", "--tags", code=1).stderr
    assert [row["tag"] for row in answer(home / "there", "tag")] == ["a"]
    assert [row["branch"] for row in answer(home / "there", "branch")] == ["b", "c", "main"]
    assert answer(home / "there", "sql", "SELECT count(*) AS n FROM events") == [{"n": 7}]


def test_removal_says_how_to_take_it_back(lake: Path, home: Path) -> None:
    said = run(lake, "remote", "remove", "origin").stderr
    assert f"`lakelog remote add origin {home / 'there'}` brings it back" in said
    assert answer(lake, "remote", "list") == []
    run(lake, "remote", "add", "origin", str(home / "there"))
    [known] = lake.rglob("origin.json")
    known.write_text("{")
    assert "remote add origin URL" in run(lake, "remote", "remove", "origin").stderr


def test_a_remote_is_checked_and_repaired(lake: Path, home: Path) -> None:
    """The exit code says whether all is there, and the words what to do."""
    run(lake, "push")
    assert "intact: 1 branch or tag, " in run(lake, "remote", "check", "origin").stderr
    (segment,) = (home / "there").glob("segments/*/*.parquet")
    flip(segment)
    run(lake, "remote", "check", "origin")
    found = run(lake, "remote", "check", "origin", "--read-data", "--json", code=3)
    (fault,) = json.loads(found.stdout)
    assert fault["path"] == str(segment.relative_to(home / "there"))
    assert "`lakelog push origin --repair --read-data`" in found.stderr
    repaired = run(lake, "push", "--repair", "--read-data").stderr
    assert "main: repaired\n1 object, " in repaired
    run(lake, "remote", "check", "origin", "--read-data")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["push", "orgin"], 1, "no remote 'orgin': did you mean 'origin'?"),
        (["remote", "add", "origin", "x"], 1, "remote 'origin' exists"),
        (["remote", "add", "a/b", "x"], 2, "cannot name a remote"),
        (["remote", "add", "a"], 2, "takes NAME and URL"),
        (["remote", "add", "a", "gopher://x/y"], 1, "no remotes of kind gopher://"),
        (["remote", "add", "a", "file://../lake"], 1, ".. is no host here: write the path alone"),
        (["remote", "add", "a", "s3://"], 1, "name a bucket, as in s3://BUCKET/PREFIX"),
        (["remote", "add", "a", "s3:///x"], 1, "name a bucket"),
        (["push", "--force"], 2, "add --yes"),
        (["push", "--read-data"], 2, "goes with --repair"),
        (["remote", "list", "--read-data"], 2, "goes with remote check"),
        (["remote", "check"], 2, "takes NAME"),
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


def test_what_was_signed_is_checked_in_a_clone(lake: Path, home: Path) -> None:
    """A clone is another lake; the id of the one that signed has to be given."""
    need_module("cryptography")
    key, clone = str(home / "key"), home / "clone"
    run(lake, "key", "generate", key)
    run(lake, "tag", "v1", "--sign", key)
    assert "1 signature sent" in run(lake, "push", "--tags").stderr
    run(clone, "clone", str(home / "there"), str(clone))
    refused = run(clone, "verify", "--signed-by", f"{key}.pub", code=3).stdout
    id = re.search(r"--signed-in\s+([0-9a-f]{32})", refused)
    assert id
    run(clone, "verify", "--signed-by", f"{key}.pub", "--signed-in", id[1])
    assert "goes with --signed-by" in run(clone, "verify", "--signed-in", id[1], code=2).stderr


def test_an_address_of_a_registry_is_checked(lake: Path) -> None:
    """A tag in the address is a mistake that a user of registries makes."""
    shown = run(lake, "remote", "add", "a", "oci://host/name:latest", code=1).stderr
    assert "oci://HOST/REPOSITORY, in lower case and without a tag" in shown


def test_a_push_of_nothing_loads_nothing_that_makes_rows(lake: Path) -> None:
    """A push that runs every minute costs little where nothing is new."""
    run(lake, "push")
    code = (
        "import sys; from lakelog.cli import cli;"
        f"cli.main(['--lake', {str(lake)!r}, 'push'], standalone_mode=False);"
        "print('loaded', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    rows = {"duckdb", "pyarrow", "numpy", "lakelog.query.session", "lakelog.views.tables"}
    others = {"lakelog.remotes.fetches", "lakelog.proofs.envelope", "tomllib", "cryptography"}
    assert "lakelog.remotes.pushes" in loaded
    assert not loaded & (rows | others)


@pytest.mark.parametrize("scheme", known._KINDS)
def test_every_kind_is_known_wherever_one_is_named(home: Path, scheme: str) -> None:
    """Help and the guide name it; a deployment takes it; a machine is attached to it, or told that
    no shared lake can be there."""
    url, lake = f"{scheme}://{known._KINDS[scheme]}", home / "machine"
    assert url in " ".join(run(lake, "remote", "--help").stdout.split())
    assert f"{scheme}://" in (ROOT / "docs/remotes.md").read_text()
    render = ("deploy", "render", "api", "--image", "r/a:1", "--remote", url.lower())
    assert run(lake, *render).stderr == ""
    if not issubclass(known.class_of(url), bucket.Bucket):
        refused = run(lake, "attach", url.lower(), code=1).stderr
        assert "a shared lake is in a bucket" in refused
