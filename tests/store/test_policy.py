"""The policy of a lake: asked by command line and Python alike, and strict when it is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import lakelog
from lakelog import history
from lakelog.errors import InvalidPolicy, NotAllowed
from lakelog.ingest.quarantine import Quarantine
from lakelog.maintain.repair import repair
from lakelog.remotes import known
from lakelog.remotes.fetches import pull
from lakelog.remotes.pushes import push
from lakelog.rollback.rollback import rollback, undo
from lakelog.state.catalog import StateCatalog
from lakelog.state.restore import restore_state
from lakelog.state.retention import Retention
from lakelog.state.state import save_state
from lakelog.store import Policy
from tests.support import lakes
from tests.support.cli import answer, run

Act = Callable[[lakelog.Lake], object]
GUARDED: dict[str, tuple[Act | None, tuple[str, ...]]] = {
    "rollback": (lambda lake: lake.rollback("v1"), ("rollback", "v1")),
    "undo": (lambda lake: lake.undo(), ("undo",)),
    "restore": (lambda lake: restore_state(lake, "s1"), ("state", "restore", "s1", "--yes")),
    "clean": (
        lambda lake: StateCatalog(lake).clean(Retention(0)),
        ("state", "clean", "0", "--yes"),
    ),
    "delete-tag": (lambda lake: history.delete_tag(lake.store, "v1"), ("tag", "-d", "v1")),
    "delete-branch": (
        lambda lake: history.delete_branch(lake.store, "dev", lake.settle),
        ("branch", "-d", "dev"),
    ),
    "remove-remote": (lambda lake: known.remove(lake.store, "far"), ("remote", "remove", "far")),
    "push-force": (
        lambda lake: push(lake, "far", branches=["main"], force=True),
        ("push", "far", "--force", "--yes"),
    ),
    "pull-force": (lambda lake: pull(lake, "far", force=True), ("pull", "far", "--force", "--yes")),
    "retention": (
        lambda lake: lake.retention("1d", apply=True),
        ("retention", "--older-than", "1d", "--apply", "--yes"),
    ),
    "dedupe": (
        None,  # Python plans it by the function that the verb calls
        ("dedupe", "--by", "type", "--apply", "--yes"),
    ),
    "drop-quarantine": (
        lambda lake: Quarantine(lake.store, "main").drop(),
        ("quarantine", "drop", "--yes"),
    ),
    "gc": (lambda lake: lake.gc(), ("gc",)),
    "repair": (lambda lake: repair.repair(lake.store, lake.engine), ()),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A lake in which every guarded operation has something to do."""
    home = tmp_path / "app"
    home.mkdir()
    (home / "a").write_text("a")
    with lakes.opened(str(tmp_path / "lake")) as lake:
        lake.append(lakes.events("A", 3))
        lake.quarantine([("a.log", 1, "not JSON", "x")])
        lake.tag("v1")
        save_state(lake, {"app": str(home)}, name="s1")
        save_state(lake, {"app": str(home)})
        lake.append(lakes.events("A", 3))
        lake.snapshot("one")
        lake.branch("dev").close()
        known.add(lake.store, "far", str(tmp_path / "far"))
        push(lake, "far", branches=["main"])
    return tmp_path / "lake"


def write(path: Path, text: str) -> None:
    (path / "policy.toml").write_text(text)


@pytest.mark.parametrize("operation", GUARDED)
def test_denied_operations_are_denied_everywhere(
    path: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the verb and by Python, in one line, with nothing changed; others are allowed to."""
    act, words = GUARDED[operation]
    write(path, f'[allow]\n{operation} = ["ada@*", "*-ops"]\n')
    moves = len(answer(path, "log"))
    tags = len(answer(path, "tag"))
    if words:
        done = run(path, *words, code=1)
        assert f"tester may not {Policy.OPERATIONS[operation]}" in done.stderr
        assert done.stderr.count("\n") <= 2
    if act is None:
        return
    monkeypatch.setenv("LAKELOG_AUTHOR", "tester")
    with lakelog.open(path) as lake, pytest.raises(NotAllowed):
        act(lake)
    assert (len(answer(path, "log")), len(answer(path, "tag"))) == (moves, tags)
    monkeypatch.setenv("LAKELOG_AUTHOR", "night-ops")
    with lakelog.open(path) as lake:
        act(lake)


def test_parts_of_a_rollback_need_their_own_permission(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKELOG_AUTHOR", "bob")
    write(path, '[allow]\nrestore = ["ada"]\n')
    with lakelog.open(path) as lake:
        with pytest.raises(NotAllowed, match="overwrite state directories"):
            rollback(lake, "s1", ("data", "state"))
        rollback(lake, "s1", ("data",))
        monkeypatch.setenv("LAKELOG_AUTHOR", "ada")
        rollback(lake, "s1", ("data", "state"))
        monkeypatch.setenv("LAKELOG_AUTHOR", "bob")
        with pytest.raises(NotAllowed):
            undo(lake)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[allow", "Expected"),
        ("[allow]\nrolback = []\n", "did you mean 'rollback'"),
        ("[deny]\ngc = []\n", "no section 'deny'"),
        ("allow = 1\n", "section of operations"),
        ("[allow]\ngc = 'ada'\n", "gc needs a list of users"),
        ("[allow]\ngc = [1]\n", "gc needs a list of users"),
        ("\udcff", "decode"),
        ("#" * (1 << 21), "bytes"),
    ],
)
def test_wrong_policies_allow_nothing(path: Path, text: str, reason: str) -> None:
    (path / "policy.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with lakelog.open(path) as lake:
        lake.append({"type": "STILL"})
        with pytest.raises(InvalidPolicy, match=reason) as caught:
            lake.rollback("v1")
    assert "\n" not in str(caught.value)
    for words in (("policy", "check"), ("policy", "show"), ("rollback", "v1"), ("gc",)):
        assert reason in run(path, *words, code=1).stderr


def test_unreadable_policy_allows_nothing(path: Path) -> None:
    (path / "policy.toml").mkdir()
    with lakelog.open(path) as lake, pytest.raises(InvalidPolicy, match="directory"):
        lake.gc()


def test_default_is_for_operations_without_a_rule(path: Path) -> None:
    write(path, '[allow]\ngc = ["tester"]\ndefault = []\n')
    assert "may not" in run(path, "undo", code=1).stderr
    assert "the policy is valid" in run(path, "policy", "check").stderr
    run(path, "gc")
    rows = {row["operation"]: row["allowed"] for row in answer(path, "policy", "show")}
    assert rows.keys() == Policy.OPERATIONS.keys()
    assert [name for name, allowed in rows.items() if allowed] == ["gc"]
    run(path, "policy", "check", "gc")
    run(path, "policy", "check", "gc", "--user", "bob", code=3)


def test_lake_without_a_policy_says_so(path: Path) -> None:
    assert "there is no policy at" in run(path, "policy", "check").stderr
    assert "everybody may do all" in run(path, "policy", "show").stderr


def test_log_says_who_and_why(path: Path) -> None:
    """Every operation on what is outside of the branch is a move that changes nothing."""
    run(path, "tag", "-d", "v1", "-m", "not needed")
    run(path, "state", "restore", "s1", "--yes", "-m", "it broke")
    run(path, "state", "clean", "0", "--yes", "-m", "the disk is full")
    newest = [each for each in answer(path, "log") if each["op"] in ("untag", "restore", "clean")]
    assert [each["op"] for each in newest] == ["clean", "restore", "untag"]
    for move, why in zip(newest, ("the disk is full", "it broke", "not needed"), strict=True):
        assert move["message"].endswith(f": {why}")
        assert move["author"] == "tester"
    assert "deleted tag v1" in newest[2]["message"]
    # They are no moves to undo: that goes back before the last one that changed the branch.
    assert "undone: snapshot one" in run(path, "undo", "--force").stderr
