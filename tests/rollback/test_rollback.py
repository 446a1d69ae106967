"""One rollback for all: together or not at all, whatever is missing and whenever it dies."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.entries.entry import Record
from lakelog.errors import Damaged, DeploymentFailed, RollbackRefused, WouldDropEvents
from lakelog.moves.publication import Change, publish
from lakelog.rollback.rollback import finish, preview, rollback, undo
from lakelog.state import safety_tags
from lakelog.state.catalog import StateCatalog
from lakelog.state.restore import restore_state
from lakelog.state.rewind import Rollbacks
from lakelog.state.state import list_states, save_state
from tests.support import lakes, seam, state_trees
from tests.support.cli import answer, flip, run
from tests.support.cluster import Cluster, cluster
from tests.support.deaths import dies

__all__ = ["cluster"]
STEP = int(os.environ.get("LAKELOG_STATE_STEP", "9"))
"""1 dies at every step, as the names of the tests say; larger ones at some of them."""
ALL = ("data", "cursors", "state", "deployment")
COMBINATIONS = [
    ("data", *cursors, *state, *deployment)
    for cursors in ((), ("cursors",))
    for state in ((), ("state",))
    for deployment in ((), ("deployment",))
] + [("state",), ("deployment",), ("state", "deployment")]
RAN = {"name": "api", "namespace": "default", "hash": "h1"}


class World:
    """A lake with a cursor, two state directories and a deployment, which moved on since `v1`."""

    def __init__(self, root: Path, cluster: Cluster) -> None:
        self.root, self.cluster, self.path = root, cluster, str(root / "lake")
        self.homes = {name: root / name for name in ("app", "etc")}
        log = root / "log.jsonl"
        log.write_text('{"type": "A"}\n')
        for name, home in self.homes.items():
            home.mkdir()
            (home / "a").write_text(f"old {name}")
            (home / "only-old").mkdir()
        directories = {name: str(home) for name, home in self.homes.items()}
        with self.open() as lake:
            lake.ingest(str(log))
            save_state(lake, directories, name="v1", deployment=RAN)
            with log.open("a") as file:
                file.write('{"type": "B"}\n{"type": "B"}\n')
            lake.ingest(str(log))
            lake.compact()
        for name, home in self.homes.items():
            (home / "a").write_text(f"new {name}")
            (home / "only-old").rmdir()
            (home / "only-new").symlink_to("nowhere")

    def open(self) -> lakelog.Lake:
        return lakes.opened(self.path)

    def facts(self) -> dict[str, Any]:
        """What each part is now."""
        with self.open() as lake:
            now = lake.store.state("main")
            cursors = [r.members for r in lake.store.manifests.records(now, "cursor")]
            return {
                "data": lake.count(),
                "cursors": cursors,
                "state": [state_trees.facts(home) for home in self.homes.values()],
                "deployment": self.cluster.current(),
            }

    def is_tidy(self) -> bool:
        """Whether nothing is left over, beside the directories or in the lake."""
        with self.open() as lake:
            names = {p.name for p in self.root.iterdir()} - {"bin"}
            is_clean = names == {"lake", "log.jsonl", *self.homes}
            return is_clean and Rollbacks(lake.store).read() is None and lake.verify().intact


@pytest.fixture
def world(tmp_path: Path, cluster: Cluster) -> World:
    return World(tmp_path, cluster)


@pytest.mark.matrix
@pytest.mark.parametrize("parts", COMBINATIONS, ids=",".join)
def test_parts_go_back_together_and_undo_brings_them_back(
    world: World, parts: tuple[str, ...]
) -> None:
    """Exactly the parts that were named; undo is undone as well."""
    new = world.facts()
    with world.open() as lake:
        done = rollback(lake, "v1", parts, why="too new")
        assert done.message.endswith(": too new")
        assert lake.store.refs.tag(done.safety)
    old = world.facts()
    assert {part for part in ALL if old[part] != new[part]} == set(parts)
    with world.open() as lake:
        undo(lake, why="after all")
        assert "after all" in lake.log(1)[0].move.message
    assert world.facts() == new
    with world.open() as lake:
        undo(lake)
    assert world.facts() == old
    assert world.is_tidy()


def test_directory_that_equals_its_record_is_not_written(world: World) -> None:
    with world.open() as lake:
        rollback(lake, "v1", ("data", "state"))
        inodes = [os.stat(home).st_ino for home in world.homes.values()]
        plan = preview(lake, "v1", ("data", "state"))
        assert [each.then for each in plan.findings if each.part == "state"] == ["as it is"] * 2
        done = rollback(lake, "v1", ("data", "state"))
        assert not done.directories
    assert [os.stat(home).st_ino for home in world.homes.values()] == inodes


def test_undo_of_the_state_alone_drops_no_later_events(world: World) -> None:
    new = world.facts()
    with world.open() as lake:
        rollback(lake, "v1", ("state",))
        lake.append({"type": "LATER"})
        undo(lake)
    assert world.facts() == new | {"data": new["data"] + 1}


def test_undo_asks_what_happens_to_later_events(world: World) -> None:
    """Nothing moves before that is said, not the directories either; then all of it does."""
    new = world.facts()
    with world.open() as lake:
        rollback(lake, "v1", ALL)
    old = world.facts()
    with world.open() as lake:
        lake.append({"type": "LATER"})
        with pytest.raises(WouldDropEvents):
            undo(lake)
    assert world.facts() == old | {"data": old["data"] + 1}
    with world.open() as lake:
        undo(lake, to_branch="rescued")
        assert lake.at("rescued").count() == old["data"] + 1
    assert world.facts() == new


@pytest.mark.parametrize("step", ["rollback", "undo"])
def test_change_between_the_plan_and_the_lock_is_saved(world: World, step: str) -> None:
    """All was saved when the plan was made, and a file changes before its directory is locked: an
    undo brings the change back."""
    home = world.homes["app"]
    changed: list[str] = []

    def change(path: str) -> None:
        # Locking a directory opens it by its name, as nothing before does.
        if path == str(home) and not changed:
            changed.append(path)
            (home / "a").write_text("late")

    directories = {name: str(path) for name, path in world.homes.items()}
    with world.open() as lake:
        save_state(lake, directories, name="v2")
        if step == "undo":
            rollback(lake, "v1", ("state",))
            rollback(lake, "v2", ("state",))
            save_state(lake, directories, name="v3")
        with seam.opens_watched(change):
            undo(lake) if step == "undo" else rollback(lake, "v1", ("state",))
        assert changed
        assert (home / "a").read_text() == "old app"
        undo(lake)
    assert (home / "a").read_text() == "late"


# --- what is missing -----------------------------------------------------------------------------


def state_files(world: World, ending: str) -> list[Path]:
    return sorted(Path(world.path).glob(f"states/*/*{ending}"))


def old_segment(world: World) -> Path:
    """The segment that only v1 has: compaction has replaced it since."""
    with world.open() as lake:
        manifests = lake.store.manifests
        old = {
            e.key for e in manifests.segments(manifests.load(lake.store.refs.tag("v1").snapshot))
        }
        old -= {e.key for e in manifests.segments(lake.store.state("main"))}
        return Path(lake.store.paths.object("segments", old.pop()))


DAMAGES: dict[str, Callable[[World], object]] = {
    "segment missing": lambda w: old_segment(w).unlink(),
    "segment flipped": lambda w: flip(old_segment(w)),
    "segment cut": lambda w: os.truncate(old_segment(w), 100),
    "index missing": lambda w: state_files(w, ".json.zst")[0].unlink(),
    "index flipped": lambda w: flip(state_files(w, ".json.zst")[1]),
    "chunk missing": lambda w: state_files(w, ".chunk.zst")[0].unlink(),
    "chunk flipped": lambda w: flip(state_files(w, ".chunk.zst")[1]),
    "directory is a link": lambda w: (
        shutil.move(w.homes["app"], w.root / "bin"),
        w.homes["app"].symlink_to(w.root / "bin" / "app"),
    ),
    "directory is a file": lambda w: (
        shutil.rmtree(w.homes["app"]),
        w.homes["app"].write_text("mine"),
    ),
    "revision gone": lambda w: w.cluster.write(replicasets=w.cluster.read()["replicasets"][1:]),
    "cluster unreachable": lambda w: w.cluster.write(failure="no route to host"),
    "kubectl missing": lambda w: (w.root / "bin" / "kubectl").unlink(),
}


@pytest.mark.matrix
@pytest.mark.parametrize("damage", DAMAGES)
def test_preflight_refuses_before_anything_moved(world: World, damage: str) -> None:
    """The missing piece is named, by a dry run too, and no part has changed."""
    DAMAGES[damage](world)
    before, tags = world.facts(), os.listdir(f"{world.path}/refs/tags")
    with world.open() as lake:
        assert len(preview(lake, "v1", ALL).problems) >= 1
        with pytest.raises(RollbackRefused, match="nothing was changed") as caught:
            rollback(lake, "v1", ALL)
    assert "\n" not in str(caught.value)
    assert world.facts() == before
    assert os.listdir(f"{world.path}/refs/tags") == tags
    assert not [p for p in world.root.iterdir() if p.name.startswith(".lakelog")]


def test_damaged_cursors_are_refused(world: World) -> None:
    """Cursors stand in the pages of a state: with one of these damaged nothing goes back."""
    with world.open() as lake:
        entries = tuple(Record("cursor", f"c{n}", {"n": n}) for n in range(300))
        publish(lake.store, "main", lambda *_: Change("ingest", entries=entries))
        pages = lake.store.state("main").pages
        save_state(lake, {n: str(h) for n, h in world.homes.items()}, name="v2", deployment=RAN)
        rollback(lake, "v1")
    before = world.facts()
    flip(Path(lake.store.paths.object("manifests", pages[0].digest)))
    with world.open() as lake, pytest.raises(RollbackRefused, match=pages[0].digest):
        rollback(lake, "v2", ALL)
    assert world.facts() == before


def test_segments_of_now_that_are_missing_are_refused(world: World) -> None:
    with world.open() as lake:
        lake.tag("now")
        (segment,) = lake.store.manifests.segments(lake.store.state("main"))
        os.unlink(lake.store.paths.object("segments", segment.key))
        with pytest.raises(RollbackRefused, match="segment is missing"):
            rollback(lake, "now")


def test_refused_revision_leaves_all_as_it_was(world: World) -> None:
    """A cluster that answers and refuses: nothing else was touched by then."""
    before = world.facts()
    program = world.root / "bin" / "kubectl"
    refusing = program.read_text().replace(
        'elif words[:2] == ["rollout", "undo"]:',
        'elif words[:2] == ["rollout", "undo"]:\n    sys.exit("forbidden")',
    )
    program.write_text(refusing)
    with world.open() as lake, pytest.raises(DeploymentFailed, match="nothing was changed"):
        rollback(lake, "v1", ALL)
    assert world.facts() == before
    assert world.is_tidy()


def cut_off(world: World) -> None:
    """Leave a rollback that lost the cluster right after it was told the revision."""
    program = world.root / "bin" / "kubectl"
    whole = program.read_text()
    program.write_text(
        whole.replace(
            'elif words[:2] == ["rollout", "undo"]:',
            'elif words[:2] == ["rollout", "undo"]:\n    cluster["failure"] = "cut off"\n'
            '    json.dump(cluster, open(path, "w"))\n    sys.exit("cut off")',
        )
    )
    with world.open() as lake, pytest.raises(DeploymentFailed, match="--continue"):
        rollback(lake, "v1", ALL)
    program.write_text(whole)


def test_unknown_outcome_is_pending_until_it_is_finished_or_taken_back(world: World) -> None:
    """verify names it; a save of the state goes on meanwhile; undo takes it back without the
    cluster, and the next rollback finishes it with one."""
    new = world.facts()
    cut_off(world)
    found = answer(world.path, "verify", code=3)
    assert "was interrupted" in found["problems"][0]["reason"]
    with world.open() as lake:
        save_state(lake, {"app": str(world.homes["app"])})
    assert "taken back" in run(world.path, "undo", "--yes").stderr
    world.cluster.write(failure=None)
    assert world.facts() == new
    assert world.is_tidy()
    cut_off(world)
    world.cluster.write(failure=None)
    assert "finished: rollback to v1" in run(world.path, "rollback", "--continue").stderr
    assert world.facts()["deployment"] == "h1"
    assert world.facts()["data"] == 1
    with world.open() as lake:
        undo(lake)
    assert world.facts() == new


def test_full_disk_after_the_intent_says_who_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error and doctor name `rollback --continue`, which finishes it."""
    pending, failed = Path(world.path, "refs", "rollback.json"), list[str]()

    def once_full(name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if name in seam.CHANGES and pending.exists() and not failed:
            failed.append(name)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        seam.install(patch, once_full)
        words = ("rollback", "v1", "--with", "data,cursors,state", "--yes")
        shown = run(world.path, *words, code=1).stderr
    assert "the disk is full" in shown
    assert "`lakelog rollback --continue` finishes it" in shown
    checks = {check["check"]: check for check in answer(world.path, "doctor")}
    assert checks["rollback"]["state"] == "warning"
    assert "`lakelog rollback --continue`" in checks["rollback"]["words"]
    run(world.path, "rollback", "--continue")
    assert world.facts()["data"] == 1
    checks = {check["check"]: check for check in answer(world.path, "doctor")}
    assert checks["rollback"]["state"] == "OK"


def test_dry_run_leaves_an_interrupted_rollback_as_it_is(world: World) -> None:
    """Neither finished nor undone, whatever else is on the line."""
    cut_off(world)
    world.cluster.write(failure=None)
    before = world.facts()
    assert "interrupted" in run(world.path, "rollback", "v1", "--dry-run", "--yes").stderr
    assert "interrupted" in run(world.path, "undo", "--dry-run", "--yes").stderr
    assert world.facts() == before
    with world.open() as lake:
        assert Rollbacks(lake.store).read() is not None


def test_ref_counts_from_the_state_before_pending_events_are_published(tmp_path: Path) -> None:
    """`main~1` is one before what the log shows, though publishing is a move as well."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        for count in (1, 2):
            lake.append({"type": "A", "number": count})
            lake.settle()
        lake.append({"type": "A", "number": 3})
        assert rollback(lake, "main~1").snapshot.events == 1
        assert lake.log(1)[0].move.message == "to main~1"


# --- deaths --------------------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("of", ["rollback", "undo"])
def test_crash_at_every_step_is_old_or_new(world: World, of: str) -> None:
    """Each part is old or new at every death, and all are one of both once somebody goes on: a
    rollback, a save or the verb itself."""
    new = world.facts()
    with world.open() as lake:
        rollback(lake, "v1", ALL)
    old = world.facts()
    if of == "rollback":
        with world.open() as lake:
            undo(lake)

    def act() -> None:
        with world.open() as lake:
            rollback(lake, "v1", ALL) if of == "rollback" else undo(lake)

    start, end = (new, old) if of == "rollback" else (old, new)
    at = count = 1
    while dies(act, at, str(world.root)):
        now = world.facts()
        for part in ("data", "cursors", "deployment"):
            assert now[part] in (old[part], new[part])
        for number, facts in enumerate(now["state"]):
            assert facts in (old["state"][number], new["state"][number])
        with world.open() as lake:
            finish(lake) if count % 2 else save_state(lake, {"etc": str(world.homes["etc"])})
        now = world.facts()
        assert now in (old, new), (at, [part for part in ALL if now[part] != start[part]])
        assert world.is_tidy()
        if now == end:
            with world.open() as lake:
                undo(lake)
            assert world.facts() == start
        at, count = at + STEP, count + 1
    assert at > 80
    print(f"{count - 1} deaths of {of}")


def test_death_while_it_is_taken_back_leaves_the_old(world: World) -> None:
    new = world.facts()
    cut_off(world)
    at = 1

    def act() -> None:
        with world.open() as lake:
            undo(lake)

    while dies(act, at, str(world.root)):
        at += 4
    assert at > 4
    world.cluster.write(failure=None)
    assert world.facts() == new
    assert world.is_tidy()


def test_flips_of_the_intent_are_named_and_mended(world: World) -> None:
    cut_off(world)
    world.cluster.write(failure=None)
    flip(Path(world.path) / "refs" / "rollback.json")
    assert answer(world.path, "verify", code=3)["problems"][0]["path"] == "refs/rollback.json"
    with world.open() as lake, pytest.raises(Damaged):
        rollback(lake, "v1")
    run(world.path, "repair", "--yes")
    with world.open() as lake:
        rollback(lake, "v1", ALL)


# --- the verbs -----------------------------------------------------------------------------------


def test_safety_tags_are_pruned_and_others_stay(world: World) -> None:
    with world.open() as lake:
        lake.tag("before-rollback-of-mine")
        made = [rollback(lake, "v1").safety for _ in range(safety_tags.KEPT + 3)]
        names = lake.store.refs.tag_names()
        assert set(made[3:]) <= set(names)
        assert not set(made[:3]) & set(names)
        assert "before-rollback-of-mine" in names
        for _ in range(safety_tags.KEPT + 3):
            rollback(lake, "v1", ("state",))
        assert len(os.listdir(f"{world.path}/refs/rollbacks")) == safety_tags.KEPT
        assert "v1" in {state.name for state in list_states(lake)}


def test_verbs_show_the_plan_and_ask(world: World) -> None:
    before = world.facts()
    words = ("rollback", "v1", "--with", ",".join(ALL))
    shown = run(world.path, *words, "--dry-run", "--format", "table").stdout.splitlines()
    plan = shown[:-2]
    assert shown[-2:] == [f"  {name}: writes {home}" for name, home in world.homes.items()]
    assert [line.split()[0] for line in plan] == ["part", *ALL[:2], "state", "state", "deployment"]
    assert all(line.endswith("ok") for line in plan[1:])
    assert max(map(len, plan)) <= 80
    assert [r["part"] for r in answer(world.path, *words, "--dry-run")][-1] == "deployment"
    assert "add --yes" in run(world.path, *words, code=2).stderr
    off = run(world.path, *words, "--yes", code=1, env={"RESTORE_ENABLED": "false"})
    assert "nothing was changed: RESTORE_ENABLED is off" in off.stderr
    assert world.facts() == before
    run(world.path, *words, "--yes", "-m", "it was slow")
    assert "add --yes" in run(world.path, "undo", code=2).stderr
    newest = answer(world.path, "log", "-n", "1")[0]
    assert (newest["author"], newest["op"]) == ("tester", "rollback")
    assert newest["message"] == "to v1 with data, cursors, state, deployment: it was slow"
    run(world.path, "rollback", "--undo", "--yes")
    assert world.facts() == before
    # What one move of the branch undoes asks nothing, as ever.
    run(world.path, "rollback", "v1", "-m", "why not")
    run(world.path, "undo")
    assert world.facts() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rollback",), "name a state"),
        (("rollback", "v1", "--undo"), "alone"),
        (("rollback", "v1", "--with", "cursors"), "with data only"),
        (("rollback", "v1", "--with", "states"), "no part 'states'"),
        (("rollback", "nothing", "--with", "state"), "no tag"),
    ],
)
def test_mistakes_are_one_line(world: World, words: tuple[str, ...], said: str) -> None:
    done = run(world.path, *words, code=1 if "--with" in words else 2)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_state_without_a_revision_or_directory_says_so(tmp_path: Path) -> None:
    with lakes.opened(str(tmp_path / "lake")) as lake:
        lake.append({"type": "A"})
        lake.tag("v1")
        with pytest.raises(RollbackRefused, match="no saved state"):
            rollback(lake, "v1", ("state",))
        with pytest.raises(RollbackRefused, match="names no revision"):
            rollback(lake, "v1", ("deployment",))


def test_latest_state_is_the_one_that_the_branch_holds(world: World) -> None:
    """So that a pod which starts with an empty directory does not undo a rollback."""
    with world.open() as lake:
        directories = {name: str(home) for name, home in world.homes.items()}
        save_state(lake, directories, name="v2")
        assert StateCatalog(lake).find("latest").name == "v2"
        (world.homes["app"] / "a").write_text("unsaved")
        rollback(lake, "v1", ("data", "cursors", "state"))
        assert StateCatalog(lake).find("latest").name == "v1"
        undo(lake)
        assert StateCatalog(lake).find("latest").name.startswith("before-rollback-")
        save_state(lake, directories, name="v3")
        restore_state(lake, "v1")
        assert StateCatalog(lake).find("latest").name == "v3"


def test_a_copy_tells_no_cluster_what_was_interrupted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback dies before its deployment is told: the lake goes on, and its copy does not."""
    new = world.facts()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with world.open() as lake, monkeypatch.context() as patch:
        patch.setattr(Rollbacks, "_carry_out", die)
        with pytest.raises(KeyboardInterrupt):
            rollback(lake, "v1", ALL)
    shutil.copytree(world.path, world.root / "copy")
    with lakes.opened(str(world.root / "copy")) as copied:
        done = save_state(copied, {"app": str(world.homes["app"])})
        assert "a rollback that was interrupted" in done.notes[0]
    assert world.facts()["deployment"] == new["deployment"]
    assert world.facts()["state"] == new["state"]
    with world.open() as lake:
        assert finish(lake)
    assert world.facts()["deployment"] != new["deployment"]


def test_undo_in_a_restored_backup_says_what_it_leaves(world: World) -> None:
    """The directories were moved by the lake whose place it took."""
    with world.open() as lake:
        rollback(lake, "v1", ("data", "cursors", "state"))
        lake.backup(world.root / "copy")
    old = world.facts()
    shutil.rmtree(world.path)
    shutil.copytree(world.root / "copy", world.path)
    with world.open() as lake:
        done = undo(lake)
    assert done.notes == ("another machine moved state as well: left alone",)
    assert world.facts()["state"] == old["state"]
    assert world.facts()["data"] != old["data"]
