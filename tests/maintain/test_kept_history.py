"""What history keeps when its settings change, or the clock goes back, after gc has run."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import lakelog
from lakelog.disk import disk
from lakelog.errors import AlreadyExists, GcRefused
from lakelog.history import window as history_window
from lakelog.history.thinning import KEEP_MOVES
from lakelog.maintain import gc
from lakelog.settings import Settings, parse
from lakelog.store import Store

Clock = Callable[[float], None]
HOUR = 3_600_000_000


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let the clock jump by so many hours."""
    offset = [0]

    def now() -> int:
        return time.time_ns() // 1000 + offset[0]

    def jump_by(hours: float) -> None:
        offset[0] += round(hours * HOUR)

    monkeypatch.setattr(disk, "now_us", now)
    monkeypatch.setattr(history_window, "lake_time", lambda store: now())
    return jump_by


def grown(path: Path, jump: Clock, steps: int) -> lakelog.Lake:
    """Return a lake that publishes every three hours, and keeps the history of a day."""
    lake = lakelog.open(path, settings=Settings(history_days=1, gc_grace_hours=0))
    for number in range(steps):
        jump(3)
        lake.append({"type": "T", "n": number})
        lake.settle()
        if number % 10 == 0:
            lake.snapshot(str(number))
    return lake


def changed(lake: lakelog.Lake, **settings: object) -> lakelog.Lake:
    """Open a lake again with other settings."""
    lake.close()
    store = Store.load(lake.path)
    store.change_settings(parse(settings, store.settings))
    return lakelog.open(lake.path)


def goes_on(lake: lakelog.Lake, jump: Clock, *, hours: int, events: int) -> None:
    """A lake is intact, gc runs, and a state stays though a hundred moves follow."""
    assert lake.verify().problems == ()
    lake.gc()
    state = lake.snapshot("wanted later").id
    for _ in range(110):
        jump(hours)
        lake.snapshot("")
    lake.gc()
    assert lake.verify().problems == ()
    assert lake.at(state).count() == events


def test_a_longer_history_begins_with_what_is_left(tmp_path: Path, jump: Clock) -> None:
    """States that gc let go are no damage once `history_days` is raised, here and in copies; those
    that come stay for the new time."""
    lake = grown(tmp_path / "lake", jump, 150)
    assert lake.gc().packed
    lake.backup(tmp_path / "copy")
    lake = changed(lake, history_days=365)
    goes_on(lake, jump, hours=24, events=150)
    copy = changed(lakelog.open(tmp_path / "copy", create=False), history_days=365)
    assert copy.verify().problems == ()
    copy.gc()


@pytest.mark.parametrize("is_compacted", [False, True])
def test_what_only_pages_name_stays(tmp_path: Path, *, is_compacted: bool) -> None:
    """Segments stay whose own moves are in no history any more, as the head's pages have them, and
    those go that its pages remove."""
    settings = Settings(history_days=0, gc_grace_hours=0)
    with lakelog.open(tmp_path / "lake", settings=settings) as lake:
        for number in range(20):
            lake.append({"type": "T", "n": number})
            lake.settle()
        if is_compacted:
            lake.compact()
        for number in range(KEEP_MOVES):
            lake.snapshot(str(number))
        assert lake.gc().packed
        lake.gc()
        live = {e.key for e in lake.store.manifests.segments(lake.store.state("main"))}
        assert set(lake.store.paths.digests("segments")) == live
        assert lake.count() == 20
        assert lake.verify().problems == ()


def published(path: Path, name: str, count: int) -> lakelog.Lake:
    """Open a lake, and publish so many events one by one."""
    lake = lakelog.open(path, settings=Settings(history_dense_hours=0, gc_grace_hours=0))
    for _ in range(count):
        lake.append({"type": name})
        lake.settle()
    return lake


def test_a_copy_of_what_a_lake_that_was_put_back_lacks_is_refused(
    tmp_path: Path, jump: Clock
) -> None:
    """Also when gc has let go the move that took the place of the copy's newest one."""
    path, copy = tmp_path / "lake", tmp_path / "copy"
    published(path, "base", 2).close()
    shutil.copytree(path, tmp_path / "older")
    with published(path, "newer", 20) as lake:
        lake.backup(copy)
        newest = lake.store.refs.head_number("main")
    shutil.rmtree(path)
    (tmp_path / "older").rename(path)
    published(path, "other", 30).close()
    jump(72)
    with published(path, "late", KEEP_MOVES + 5) as lake:
        lake.gc()
        assert newest not in lake.store.refs.numbers("main")
        with pytest.raises(AlreadyExists, match="or put back"):
            lake.backup(copy)
    with lakelog.open(copy) as lake:
        assert lake.verify().problems == ()
        assert lake.count() == 22
        lake.gc()


def test_a_clock_that_was_ahead_does_no_harm(tmp_path: Path, jump: Clock) -> None:
    """What gc let go in a year that was none is no damage when the clock is right again, and what
    is made since is kept as ever."""
    lake = grown(tmp_path / "lake", jump, 250)
    lake = changed(lake, history_days=30)
    jump(365 * 24)
    assert lake.gc().packed
    jump(-365 * 24)
    goes_on(lake, jump, hours=1, events=250)


def test_gc_goes_on_after_a_clock_that_was_ahead(tmp_path: Path, jump: Clock) -> None:
    """It is due, and deletes after the grace what it saw unneeded in a year that was none."""
    lake = changed(grown(tmp_path / "lake", jump, 20), gc_grace_hours=24)
    lake.compact()
    for _ in range(110):
        jump(1)
        lake.snapshot("")
    jump(365 * 24)
    assert lake.gc().condemned
    jump(-365 * 24)
    condemned_at = time.time() + 365 * 24 * 3600
    os.utime(lake.store.paths.condemned, (condemned_at, condemned_at))
    assert gc.is_due(lake.store)
    assert lake.gc().deleted == 0
    jump(25)
    assert lake.gc().deleted > 0
    assert lake.verify().problems == ()


def test_what_is_kept_and_lost_is_damage(tmp_path: Path, jump: Clock) -> None:
    """What no run of gc has let go is missed, also after the settings have changed."""
    lake = grown(tmp_path / "lake", jump, 150)
    lake.gc()
    lake = changed(lake, history_days=365)
    lake.append({"type": "T"})
    lake.snapshot("before the compaction")
    state = lake.store.state("main")
    newest = lake.store.manifests.segments(state, "events")[-1]
    lake.compact()
    for _ in range(110):
        lake.snapshot("")
    lake.gc()
    assert lake.verify().problems == ()
    segment = lake.store.paths.object("segments", newest.key)
    Path(segment).unlink()
    assert {problem.path for problem in lake.verify().problems} == {segment}


def test_a_damaged_note_of_what_is_let_go_is_named(tmp_path: Path, jump: Clock) -> None:
    """F8.18: windows.json says what gc kept; gc refuses to write over a damaged one."""
    lake = grown(tmp_path / "lake", jump, 150)
    lake.gc()
    Path(lake.store.paths.let_go).write_bytes(b"{}\n")
    assert [problem.path for problem in lake.verify().problems] == [lake.store.paths.let_go]
    with pytest.raises(GcRefused, match=r"let_go\.json"):
        lake.gc()


@pytest.mark.parametrize("days", [1, 90])
def test_the_log_of_a_deleted_branch_goes(tmp_path: Path, jump: Clock, days: int) -> None:
    """What a deleted branch has sealed leaves its log, also once its states are gone."""
    lake = grown(tmp_path, jump, 3)
    with lake.branch("tried") as branch:
        branch.append({"type": "T", "message": "tried"})
        branch.settle()
    lakelog.history.delete_branch(lake.store, "tried", lake.settle)
    folder = Path(lake.store.paths.wal_dir("tried"))
    assert list(folder.iterdir())
    jump(days * 24)
    lake.gc()
    jump(days * 24)
    lake.gc()
    assert list(folder.iterdir()) == []
    assert lake.verify().problems == ()


@pytest.mark.parametrize("seed", range(3))
def test_random_settings_and_clocks(tmp_path: Path, jump: Clock, seed: int) -> None:
    """Whatever settings and clock do, a lake is intact, and gc runs."""
    dice = random.Random(seed)
    lake = lakelog.open(tmp_path, settings=Settings(gc_grace_hours=0))
    events, tags = 0, dict[str, int]()
    for step in range(250):
        deed = dice.random()
        if deed < 0.55:
            lake.append({"type": "T"})
            lake.settle()
            events += 1
        elif deed < 0.7:
            lake.snapshot(str(step))
        elif deed < 0.75:
            tags[f"t{step}"] = events
            lake.tag(f"t{step}")
        elif deed < 0.78 and tags:
            name = dice.choice(list(tags))
            lake.rollback(name)
            events = tags[name]
        elif deed < 0.82:
            lake.compact()
        elif deed < 0.9:
            jump(dice.choice([1, 3, 24, 24, 200, -2, -300]))
        elif deed < 0.94:
            days, dense = dice.choice([0, 1, 5, 30]), dice.choice([0, 1, 48])
            lake = changed(lake, history_days=days, history_dense_hours=dense)
        else:
            lake.gc()
            assert lake.verify().problems == ()
        assert lake.count() == events
    for name, count in tags.items():
        assert lake.at(name).count() == count
