"""Saved states of several machines, and of one whose clock jumps: whose a state is, which one is
the latest, what is pruned, and what of another machine's is never carried out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import document
from lakelog.chunks.state_files import StateRecord
from lakelog.disk import disk
from lakelog.errors import NotAllowed, RollbackRefused, StateRefused, UnknownRef
from lakelog.moves.publication import Change, publish
from lakelog.remotes import known
from lakelog.remotes.fetches import clone, fetch
from lakelog.remotes.pushes import push
from lakelog.rollback.rollback import rollback, undo
from lakelog.state import exchange, safety_tags
from lakelog.state.catalog import StateCatalog
from lakelog.state.restore import restore_state, undo_restore
from lakelog.state.retention import Retention, select_expired
from lakelog.state.state import list_states, save_state
from lakelog.store import Machine, Store
from tests.support import lakes
from tests.support.cli import answer, run
from tests.support.deaths import dies

HOUR, DAY, YEAR = 3600 * 1_000_000, 86_400 * 1_000_000, 365 * 86_400 * 1_000_000


class Clock:
    """The clock of this host, which a test sets."""

    def __init__(self) -> None:
        self.offset, self._real = 0, disk.now_us

    def __call__(self) -> int:
        return self._real() + self.offset


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(disk, "now_us", made)
    return made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "a").write_bytes(b"one")
    return tmp_path / "app"


@pytest.fixture
def lake(tmp_path: Path, home: Path) -> Iterator[lakelog.Lake]:
    with lakes.opened(str(tmp_path / "lake")) as opened:
        yield opened


def save(lake: lakelog.Lake, home: Path, content: str, **options: Any) -> str:
    (home / "a").write_text(content)
    return save_state(lake, {"app": str(home)}, **options).state.name


def test_a_clock_that_goes_back_changes_no_order(
    lake: lakelog.Lake, home: Path, clock: Clock, tmp_path: Path
) -> None:
    """The last save is the latest, holds its own directories, and stays; undo brings back what was
    overwritten last."""
    save(lake, home, "one", name="first")
    clock.offset = -HOUR
    (tmp_path / "b").mkdir()
    name = save_state(lake, {"b": str(tmp_path / "b")}, name="sb").state.name
    assert [r.label for r in StateCatalog(lake).find(name).directories] == ["b"]
    assert restore_state(lake, "sb").targets == {"b": str(tmp_path / "b")}
    clock.offset = -DAY
    second = save(lake, home, "two", keep=1)
    clock.offset = -2 * DAY
    third = save(lake, home, "three", keep=1)
    assert StateCatalog(lake).find("latest").name == third
    assert {state.name for state in list_states(lake) if not state.before} == {"first", "sb", third}
    clock.offset = 0
    (home / "a").write_text("overwritten first")
    restore_state(lake, "first")
    clock.offset = -3 * DAY
    (home / "a").write_text("overwritten last")
    restore_state(lake, "first")
    undo_restore(lake)
    assert (home / "a").read_text() == "overwritten last"
    assert second not in lake.store.refs.tag_names()


def test_safety_tags_are_pruned_in_their_order(
    lake: lakelog.Lake, home: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock goes back: the tag of the rollback just made stays, the first one goes."""
    monkeypatch.setattr(safety_tags, "KEPT", 2)
    save(lake, home, "one", name="v1")
    made = []
    for number in range(4):
        clock.offset = -number * DAY
        made.append(rollback(lake, "v1").safety)
    kept = {name for name in lake.store.refs.tag_names() if name.startswith("before-rollback")}
    assert kept == set(made[2:])


def test_states_of_a_peer_are_neither_counted_nor_undone(
    tmp_path: Path, lake: lakelog.Lake, home: Path, clock: Clock
) -> None:
    """A peer whose clock is in 2099 takes no place of ours; its backup is none of ours, and its
    path is a suggestion."""
    mine = save(lake, home, "mine")
    there = tmp_path / "peer-app"
    there.mkdir()
    clock.offset = 73 * YEAR
    with lakes.opened(str(tmp_path / "peer")) as peer:
        (there / "a").write_text("theirs")
        states = [save_state(peer, {"app": str(there)}).state.name for _ in range(3)]
        restore_state(peer, states[0])
    clock.offset = 0
    known.add(lake.store, "peer", str(tmp_path / "peer"))
    fetch(lake, "peer")
    assert len(list_states(lake)) == 5
    (there / "a").write_text("not to be touched")
    with pytest.raises(UnknownRef, match="nothing to undo"):
        undo_restore(lake)
    assert StateCatalog(lake).find("latest").name == mine
    with pytest.raises(StateRefused, match="another machine"):
        restore_state(lake, states[0])
    assert (there / "a").read_text() == "not to be touched"
    restore_state(lake, "latest", source="ANY", to=str(tmp_path / "out"))
    restore_state(lake, states[0], to=str(tmp_path / "look"))
    assert (tmp_path / "look" / "a").read_text() == "theirs"
    newest = [save(lake, home, f"{n}", keep=3) for n in range(4)]
    names = {state.name for state in list_states(lake)}
    assert names.issuperset([*newest[1:], *states])
    assert mine not in names
    cleaned = StateCatalog(lake).clean(Retention(1), source="ANY", dry_run=True)
    assert cleaned == [*newest[2:0:-1], *states[1::-1]]


def test_a_forged_id_is_another_machine(tmp_path: Path, lake: lakelog.Lake, home: Path) -> None:
    """Whoever saw our states may name our machine, and changes a path in vain."""
    save(lake, home, "one", name="ours")
    (record,) = StateRecord.all_of(lake.store.manifests, lake.store.state("main"))
    (tmp_path / "keys").mkdir()
    forged = replace(record, path=str(tmp_path / "keys"), number=record.number + 1)
    publish(lake.store, "main", lambda *_: Change("state", "", (forged.entry(),)))
    lake.tag("forged")
    assert StateCatalog(lake).find("latest").name == "ours"
    with pytest.raises(StateRefused, match="another machine"):
        restore_state(lake, "forged")
    with pytest.raises(RollbackRefused, match="another machine"):
        rollback(lake, "forged", ("data", "state"))
    assert not os.listdir(tmp_path / "keys")


def test_states_that_name_no_machine_are_to_be_adopted(
    tmp_path: Path, lake: lakelog.Lake, home: Path
) -> None:
    """Anybody could have written them: in a lake that somebody sent, their paths are ignored."""
    save(lake, home, "one", name="new")
    (record,) = StateRecord.all_of(lake.store.manifests, lake.store.state("main"))
    bare = replace(record, machine="", number=0, save="", parent="", mac="")
    publish(lake.store, "main", lambda *_: Change("state", "", (bare.entry(),)))
    lake.tag("old")
    (home / "a").write_text("two")
    with pytest.raises(StateRefused, match="another machine"):
        restore_state(lake, "old")
    with pytest.raises(RollbackRefused, match="another machine"):
        rollback(lake, "old", ("data", "state"))
    assert run(lake.path, "state", "latest", "--from", "unknown").stdout.strip() == "old"
    run(lake.path, "machine", "adopt", "unknown", "--yes")
    rollback(lake, "old", ("data", "state"))
    assert (home / "a").read_text() == "one"
    assert StateCatalog(lake).find("new").is_own


def test_a_copy_is_another_machine_until_it_adopts(tmp_path: Path, home: Path) -> None:
    """A copy of the lake has none of its states; an adopted id brings them with their paths."""
    path, other = tmp_path / "lake", tmp_path / "copy"
    name = str(answer(path, "state", "save", "--dir", str(home))["state"])
    shutil.copytree(path, other)
    assert run(path, "state", "latest").stdout.strip() == name
    assert "adopt" in run(other, "state", "latest", code=1).stderr
    assert run(other, "state", "latest", "--from", "ANY").stdout.strip() == name
    run(other, "state", "restore", "latest", "--from", "ANY", "--yes", code=1)
    answer(other, "state", "save", "--dir", str(home), "--keep", "1")
    run(other, "machine", "adopt", "--yes")
    assert name in [each["state"] for each in answer(other, "state", "list") if each["own"]]
    assert {each["is"] for each in answer(other, "machine", "show")} == {"this", "adopted"}
    (home / "a").write_text("two")
    run(other, "state", "restore", name, "--yes")
    assert (home / "a").read_bytes() == b"one"


def test_the_id_outlives_what_replaces_the_configuration(tmp_path: Path, home: Path) -> None:
    """Settings, a repair, and a death at any step of either: the lake is the same machine's."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        save(lake, home, "one")
        store = lake.store
    found = Machine.read(store.paths).id

    def change() -> None:
        opened = Store.load(path)
        opened.change_settings(opened.settings)

    at = 1
    while dies(change, at, path):
        assert Machine.read(store.paths).id == found
        at += 1
    assert at > 5
    with open(store.paths.config, "r+b") as file:
        file.write(b"x")
    run(tmp_path / "lake", "repair", "--yes")
    assert Machine.read(store.paths).id == found
    with lakes.opened(path) as lake:
        assert StateCatalog(lake).find("latest").is_own


@pytest.mark.parametrize(
    "members",
    [{"keys": []}, {"keys": {"x": "y"}}, {"trusted": 3}, {"bound": [[1]]}, {"former": {"": {}}}],
    ids=str,
)
def test_a_malformed_id_is_that_of_nobody(
    lake: lakelog.Lake, home: Path, members: dict[str, Any]
) -> None:
    """It is replaced by the next save, as is one that is damaged, or no file."""
    name = save(lake, home, "one")
    path = Path(lake.store.paths.machine)
    path.write_bytes(document.encode(document.decode(path.read_bytes()) | members))
    with pytest.raises(UnknownRef, match="no state was saved by this machine"):
        StateCatalog(lake).find("latest")
    path.unlink()
    os.mkfifo(path)
    assert StateCatalog(lake).find(save(lake, home, "two")).is_own
    assert not StateCatalog(lake).find(name).is_own


def test_a_damaged_id_is_named_and_set_aside(tmp_path: Path, home: Path) -> None:
    """`verify` says so; after a repair the machine of before can be adopted."""
    lake = tmp_path / "lake"
    name = str(answer(lake, "state", "save", "--dir", str(home))["state"])
    path = lake / "machine.json"
    path.write_bytes(path.read_bytes().replace(b"trusted", b"Trusted"))
    assert "machine.json" in run(lake, "verify").output
    run(lake, "repair", "--yes")
    assert "machine.json" not in run(lake, "verify").output
    run(lake, "machine", "adopt", "--yes")
    assert run(lake, "state", "latest").stdout.strip() == name


def interrupted(lake: lakelog.Lake, home: Path, run: Any, note: str) -> None:
    """Have a restore or rollback die while its note is there, and before anything is exchanged."""
    real = exchange.put_in_place

    def die(step: Any) -> None:
        os._exit(9)

    child = os.fork()
    if child == 0:
        exchange.put_in_place = die
        try:
            run()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert exchange.put_in_place is real
    assert os.path.exists(note)


@pytest.mark.parametrize("kind", ["restore", "rollback"])
def test_a_copy_carries_out_nothing_that_was_interrupted(
    tmp_path: Path, lake: lakelog.Lake, home: Path, kind: str
) -> None:
    """The note of another lake is set aside and said; the lake itself still finishes it."""
    save(lake, home, "one", name="v1")
    (home / "a").write_text("two")
    paths, other = lake.store.paths, tmp_path / "copy"
    if kind == "restore":
        note = f"{paths.cache}/restore.json"
        interrupted(lake, home, lambda: restore_state(lake, "v1"), note)
    else:
        note = paths.rollback
        interrupted(lake, home, lambda: rollback(lake, "v1", ("data", "state")), note)
    shutil.copytree(paths.root, other)
    if kind == "rollback":
        found = {each["check"]: each["words"] for each in answer(other, "doctor")}
        assert "in another lake" in found["rollback"]
    before = sorted(os.listdir(tmp_path))
    with lakes.opened(str(other)) as copied:
        (tmp_path / "etc").mkdir()
        result = save_state(copied, {"etc": str(tmp_path / "etc")})
        assert "not finished here" in result.notes[0]
        assert paths.root in result.notes[0]
        assert not save_state(copied, {"etc": str(tmp_path / "etc")}).notes
    assert (home / "a").read_text() == "two"
    assert set(before) <= set(os.listdir(tmp_path))
    lake.store.refs.forget()
    assert save_state(lake, {"etc": str(tmp_path / "etc")}).notes == ()
    assert (home / "a").read_text() == "one"
    assert not [name for name in os.listdir(tmp_path) if name.startswith(exchange.STAGING)]


def test_undo_in_a_copy_leaves_the_directories_of_the_lake(
    tmp_path: Path, lake: lakelog.Lake, home: Path
) -> None:
    """A rollback with directories is undone together where it was made, alone in a copy."""
    save(lake, home, "one", name="v1")
    (home / "a").write_text("two")
    rollback(lake, "v1", ("data", "state"))
    shutil.copytree(lake.path, tmp_path / "copy")
    with lakes.opened(str(tmp_path / "copy")) as copied:
        assert undo(copied).notes == ("another machine moved state as well: left alone",)
    assert (home / "a").read_text() == "one"
    undo(lake)
    assert (home / "a").read_text() == "two"


def test_two_machines_save_in_one_second(tmp_path: Path, lake: lakelog.Lake, home: Path) -> None:
    """Lakes that exchange states give them names of their own, and get each other's."""
    known.add(lake.store, "origin", str(tmp_path / "bare"))
    push(lake, "origin")
    clone(str(tmp_path / "bare"), str(tmp_path / "clone"))
    with lakes.opened(str(tmp_path / "clone")) as other:
        pairs = [(lake, save(lake, home, "one")), (other, save(other, home, "two"))]
        assert pairs[0][1] != pairs[1][1]
        for each, name in pairs:
            push(each, "origin", tags=[name])
        fetch(lake, "origin")
        assert len(list_states(lake)) == 2


def test_cleaning_keeps_saves_and_backups_apart(lake: lakelog.Lake, home: Path) -> None:
    """What a restore saved before takes the place of no state that somebody meant to save."""
    first, second = save(lake, home, "one"), save(lake, home, "two")
    for _ in range(2):
        backup = restore_state(lake, first).backup
    deleted = StateCatalog(lake).clean(Retention(1))
    assert {state.name for state in list_states(lake)} == {second, backup}
    assert first in deleted
    assert StateCatalog(lake).find("latest").name == second


def test_latest_is_what_the_branch_went_back_to_even_after_a_restore(
    lake: lakelog.Lake, home: Path
) -> None:
    """And cleaning does not delete it."""
    names = [save(lake, home, str(n)) for n in range(3)]
    rollback(lake, names[1], ("data", "state"))
    restore_state(lake, names[0])
    assert StateCatalog(lake).find("latest").name == names[1]
    assert names[1] not in StateCatalog(lake).clean(Retention(1))


def test_saving_does_not_pass_round_the_policy(
    lake: lakelog.Lake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may not delete states saves without pruning, and is told."""
    names = [save(lake, home, str(n)) for n in range(2)]
    Path(lake.store.paths.policy).write_text("[allow]\ndefault = []\n")
    result = save_state(lake, {"app": str(home)}, keep=1)
    assert "may not delete saved states" in result.notes[0]
    assert {state.name for state in list_states(lake)} == {*names, result.state.name}
    with pytest.raises(NotAllowed):
        StateCatalog(lake).clean(Retention(1))


def test_restoring_can_be_turned_off_for_programs(
    lake: lakelog.Lake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RESTORE_ENABLED=false holds for restores and rollbacks from Python, too."""
    save(lake, home, "one", name="v1")
    (home / "a").write_text("two")
    monkeypatch.setenv("RESTORE_ENABLED", "false")
    for call in (
        lambda: restore_state(lake, "v1"),
        lambda: rollback(lake, "v1", ("data", "state")),
    ):
        with pytest.raises(StateRefused, match="RESTORE_ENABLED"):
            call()
    assert (home / "a").read_text() == "two"


def test_scripts_can_say_yes_by_a_variable(tmp_path: Path, home: Path) -> None:
    """Without a terminal, LAKELOG_YES=1 answers what scripts of before are asked now."""
    run(tmp_path / "lake", "state", "save", "one", "--dir", str(home))
    (home / "a").write_text("two")
    words = ("state", "restore", "one")
    assert "LAKELOG_YES" in run(tmp_path / "lake", *words, code=2, env={"LAKELOG_YES": "0"}).stderr
    run(tmp_path / "lake", *words, env={"LAKELOG_YES": "1"})
    assert (home / "a").read_bytes() == b"one"


def test_concurrent_saves_that_prune_all_succeed(tmp_path: Path, home: Path) -> None:
    """Each is saved although others delete tags meanwhile; the last one is there."""
    path, children = str(tmp_path / "lake"), []
    with lakes.opened(path) as lake:
        save(lake, home, "one")
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                with lakes.opened(path) as lake:
                    for _ in range(6):
                        save_state(lake, {"app": str(home)}, keep=1)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    with lakes.opened(path) as lake:
        assert restore_state(lake, "latest", to=str(tmp_path / "out"))
        assert len(list_states(lake)) <= 4


class Dated:
    """A state as retention sees it."""

    def __init__(self, day: int) -> None:
        self.day, self.time = day, day * DAY


@pytest.mark.parametrize(
    ("days", "keep", "kept"),
    [
        ([9, 9, 8, 7, 6], Retention(1), [9]),
        ([9, 9, 8, 8, 7, 6], Retention(0, daily=3), [9, 8, 7]),
        ([40, 39, 33, 32, 31, 20, 3], Retention(0, monthly=2), [40, 20]),
        ([11, 10, 4, 3, 2], Retention(1, weekly=3), [11, 10, 3]),
        ([800, 799, 400, 30], Retention(0, yearly=9), [800, 400, 30]),
        # The clock was in another century for a while: the order counts.
        ([5, 40_000, 4, 3], Retention(2, daily=2), [5, 40_000]),
        ([5, 4], Retention(0), []),
    ],
)
def test_states_of_days_weeks_months_and_years_stay(
    days: list[int], keep: Retention, kept: list[int]
) -> None:
    """The newest of each period that has one, beside the newest of all (day 0 was a Thursday)."""
    states = [Dated(day) for day in days]
    expired = select_expired(states, keep)
    assert [state.day for state in states if state not in expired] == kept
