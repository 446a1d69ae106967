"""Erasing in a shared lake: in the bucket, in every directory, and for whoever comes later."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import train
from lakelog.erasure import ErasureStatus, confirm
from lakelog.errors import GcRefused, InvalidEvent, LakelogError, Unreachable
from lakelog.lake import Lake
from lakelog.remotes import known
from lakelog.sync.sync import sync
from tests.support import protected, seam
from tests.support.attached import Killed, SharedMachines, before_links, die, numbers
from tests.support.cli import run
from tests.support.effort import IS_WHOLE
from tests.support.erasure_histories import places_with

ADA = "ada-3f9k2m"
POINTS = 2
"""Changes at which it is stopped, of all that it makes; each one with LAKELOG_MATRIX=all."""


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[SharedMachines]:
    """Machines with a bucket of files."""
    machines = SharedMachines(tmp_path)
    yield machines
    machines.close()


def put(lake: Lake, *values: int, subject: str = ADA) -> None:
    """Append events of a subject, whose name is in their messages as well."""
    for value in values:
        lake.append({"type": "T", "subject": subject, "message": subject, "data": {"n": value}})


def filled(machines: SharedMachines, *names: str) -> None:
    """Let machines publish events of ada (even numbers) and of others, and read them all."""
    for name in names:
        for n in range(4):
            value = 10 * (ord(name) - ord("a")) + n
            put(machines[name], value, subject=f"u{n}" if n % 2 else ADA)
            machines[name].exchange()
    machines.exchange(*names)
    machines[names[0]].tag("v1")
    machines.exchange(*names)
    for name in names:
        numbers(machines[name])


def ended(machines: SharedMachines, *names: str) -> ErasureStatus:
    """Let machines exchange until their WALs went on in new files; return how far it is."""
    for _ in range(3):
        for name in names:
            put(machines[name], 99, subject="late")
            machines[name].exchange()
    return machines[names[0]].erasures()[-1]


def test_an_erased_subject_is_gone_from_the_bucket_and_from_every_machine(
    machines: SharedMachines, tmp_path: Path
) -> None:
    filled(machines, "a", "b")
    assert places_with(tmp_path / "bucket", [ADA])
    assert places_with(tmp_path / "b", [ADA])
    status = machines["a"].erase(subject=ADA, why="asked")
    assert places_with(tmp_path / "bucket", [ADA]) == places_with(tmp_path / "a", [ADA]) == []
    assert not status.is_done
    assert status.erasure.events == 4
    (place,) = status.copies
    assert place["place"] == "machine"
    assert place["name"].endswith("/b")
    assert ended(machines, "b", "a").is_done
    assert machines["a"].erasures()[0].is_done
    assert places_with(tmp_path, [ADA]) == []
    for name in "ab":
        assert numbers(machines[name], "subject <> 'late'") == [1, 3, 11, 13]
        assert machines[name].at("v1").count() == 4
        assert machines[name].verify().intact


def test_what_was_recorded_is_named_on_every_machine(
    machines: SharedMachines, tmp_path: Path
) -> None:
    """Until it is erased on one of them. It keeps no machine from saying that it let go of rows."""
    filled(machines, "a", "b")
    put(machines["a"], 20, subject="told")
    machines["a"].append({"type": "NOTED", "source": "lakelog", "id": "n1", "message": ADA})
    machines["a"].exchange()
    machines["a"].erase(subject=ADA, why="asked")
    assert [copy["place"] for copy in ended(machines, "b", "a").copies] == ["finding"]
    assert [copy["place"] for copy in machines["a"].erasures()[0].copies] == ["finding"]
    machines["b"].erase(where="id = 'n1'", why="asked")
    ended(machines, "a", "b")
    for name in "ab":
        assert [status.is_done for status in machines[name].erasures()] == [True, True]
    assert places_with(tmp_path, [ADA]) == []


def test_who_comes_later_has_nothing_and_waits_for_nobody(
    machines: SharedMachines, tmp_path: Path
) -> None:
    filled(machines, "a")
    assert machines["a"].erase(subject=ADA, why="asked").is_done
    assert numbers(machines["b"]) == [1, 3]
    with pytest.raises(InvalidEvent, match="erased"):
        machines["b"].append({"type": "T", "subject": ADA, "time": "2020-01-01T00:00:00Z"})
    machines["b"].exchange()
    assert machines["b"].erasures()[0].is_done
    assert places_with(tmp_path, [ADA]) == []


def test_an_old_copy_that_is_put_in_the_place_of_a_directory_is_cleaned_again(
    machines: SharedMachines, tmp_path: Path
) -> None:
    filled(machines, "a", "b")
    machines["b"].search(ADA, rank=True).fetchall()
    machines.close()
    shutil.copytree(tmp_path / "b", tmp_path / "old")
    machines.reopened("a").erase(subject=ADA, why="asked")
    machines.reopened("b")
    assert ended(machines, "b", "a").is_done
    machines["b"].close()
    shutil.rmtree(tmp_path / "b")
    (tmp_path / "old").rename(tmp_path / "b")
    machines.reopened("b").exchange()
    erased = machines["b"].store.erased
    erased.refresh()
    ranked = {name[:64] for name in os.listdir(tmp_path / "b/cache/ranks")}
    assert not erased.segments().keys() & ranked
    assert ended(machines, "b", "a").is_done
    assert places_with(tmp_path, [ADA]) == []


def test_what_an_offline_machine_publishes_later_is_refused_and_said(
    machines: SharedMachines, tmp_path: Path
) -> None:
    filled(machines, "a", "b")
    put(machines["b"], 20)
    put(machines["b"], 21, subject="other")
    # A clock that is ahead stamps what is stored before: it had arrived all the same.
    machines["b"].append({"type": "T", "subject": ADA, "time": "2999-01-01T00:00:00Z"})
    before_links(machines["b"], lambda: machines["a"].erase(subject=ADA, why="asked"))
    machines["b"].exchange()
    assert numbers(machines["a"].exchange() and machines["a"]) == [1, 3, 11, 13, 21]
    assert any("2 erased events refused" in e.move.message for e in machines["a"].log())
    assert ended(machines, "b", "a").is_done
    assert places_with(tmp_path, [ADA]) == []


@pytest.mark.parametrize("is_protected", [False, True])
def test_lines_that_an_offline_machine_quarantined_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_protected: bool
) -> None:
    """Those with the subject as a word, also where they are sealed; not those of others."""
    protected.keys_in(tmp_path, monkeypatch)
    machines = SharedMachines(tmp_path)
    filled(machines, "a", "b")
    if is_protected:
        machines["a"].protect(["email"])
        machines["b"].exchange()
    lines = [("file", n, "no event", f"bad {name}") for n, name in enumerate([ADA, f"{ADA}x", "u"])]
    machines["b"].quarantine(lines)
    machines["a"].erase(subject=ADA, why="asked", rows=True)
    assert ended(machines, "b", "a").is_done
    query = "SELECT line FROM quarantine ORDER BY position"
    for name in "ab":
        assert machines[name].sql(query).fetchall() == [(f"bad {ADA}x",), ("bad u",)]
    machines.close()


def test_what_is_under_way_while_it_is_erased_is_not_published(
    machines: SharedMachines, tmp_path: Path
) -> None:
    """A compaction, a tag, a branch and a version of a machine that has not heard of it."""
    filled(machines, "a", "b")
    before_links(machines["b"], lambda: machines["a"].erase(subject=ADA, why="asked"))
    machines["b"].compact()
    put(machines["b"], 30)
    before_links(machines["b"], lambda: machines["a"].erase(subject=ADA, why="again"))
    event = {"type": "T", "subject": "s", "data": {"n": 31}}
    old = {"type": "T", "subject": ADA, "time": "2020-01-01T00:00:00Z"}
    with pytest.raises(InvalidEvent, match="erased"):
        machines["b"].append([event, old], expect={"s": 0})
    assert machines["b"].stream("s").version == 0
    assert ended(machines, "b", "a").is_done
    assert numbers(machines["a"], "subject <> 'late'") == [1, 3, 11, 13]
    assert places_with(tmp_path, [ADA]) == []


def test_refs_of_a_machine_that_has_not_heard_carry_nothing(
    machines: SharedMachines, tmp_path: Path
) -> None:
    filled(machines, "a", "b")
    machines["a"].erase(subject=ADA, why="asked")
    attachment: Any = machines["b"].store.attachment
    attachment.refresh = lambda _: 0
    machines["b"].tag("old", "@2")
    machines["b"].branch("side", "@2").close()
    machines.reopened("b")
    assert ended(machines, "b", "a").is_done
    assert places_with(tmp_path, [ADA]) == []
    assert machines["a"].at("old").count() == machines["b"].at("side").count() == 0


def test_an_offer_of_before_is_not_taken_and_leaves_the_bucket(
    machines: SharedMachines, tmp_path: Path
) -> None:
    filled(machines, "a", "b")
    put(machines["a"], 40)
    put(machines["a"], 41, subject="other")
    put(machines["b"], 42, subject="other")
    before_links(machines["a"], machines["b"].exchange, die)
    with contextlib.suppress(Killed):
        machines["a"].exchange()
    assert list((tmp_path / "bucket" / "offers").rglob("*.json"))
    machines["b"].erase(subject=ADA, why="asked")
    assert places_with(tmp_path / "bucket", [ADA]) == []
    machines.reopened("a")
    assert ended(machines, "a", "b").is_done
    assert numbers(machines["b"], "subject <> 'late'") == [1, 3, 11, 13, 41, 42]
    assert places_with(tmp_path, [ADA]) == []


def erased_unheard(machines: SharedMachines, place: Path) -> None:
    """Erase on "a"; "b" has not heard of it, and its copies of segments are gone."""
    filled(machines, "a", "b")
    machines["a"].erase(subject=ADA, why="asked")
    for path in (place / "b" / "segments").rglob("*.parquet"):
        path.unlink()


def test_a_query_that_meets_a_segment_that_is_gone_finds_the_others(
    machines: SharedMachines, tmp_path: Path
) -> None:
    erased_unheard(machines, tmp_path)
    assert numbers(machines["b"]) == [1, 3, 11, 13]


def test_a_backup_of_a_machine_that_has_not_heard_has_the_others(
    machines: SharedMachines, tmp_path: Path
) -> None:
    erased_unheard(machines, tmp_path)
    machines["b"].backup(tmp_path / "backup")
    with lakelog.open(tmp_path / "backup", create=False) as backup:
        assert numbers(backup) == [1, 3, 11, 13]
        assert backup.verify().intact
    assert places_with(tmp_path / "backup/segments", [ADA]) == []


def test_a_machine_that_is_gone_for_good_is_given_up(machines: SharedMachines) -> None:
    filled(machines, "a", "b")
    status = machines["a"].erase(subject=ADA, why="asked")
    (place,) = status.copies
    confirm(machines["a"].store, status.erasure.key, place["name"])
    assert machines["a"].erasures()[0].is_done


def test_the_bucket_that_is_pruned_as_a_remote_is_no_copy(
    machines: SharedMachines, tmp_path: Path
) -> None:
    """No push could clean it: what is erased there is erased from there."""
    filled(machines, "a", "b")
    attachment = machines["a"].store.attachment
    assert attachment
    known.add(machines["a"].store, "origin", attachment.url)
    status = machines["a"].erase(subject=ADA, why="asked")
    assert [copy["place"] for copy in status.copies] == ["machine"]
    machines.exchange("b", "a")
    assert machines["a"].erasures()[0].is_done


def test_it_is_not_done_while_the_bucket_is_away(machines: SharedMachines, tmp_path: Path) -> None:
    filled(machines, "a")
    assert machines["a"].erase(subject=ADA, why="asked").is_done
    (tmp_path / "bucket").rename(tmp_path / "away")
    with pytest.raises(Unreachable):
        machines.reopened("a").erase(subject=ADA, why="asked")
    (tmp_path / "away").rename(tmp_path / "bucket")
    assert machines["a"].erasures()[0].is_done


def test_one_machine_erases_at_a_time(machines: SharedMachines) -> None:
    filled(machines, "a", "b")
    attachment = machines["b"].store.attachment
    assert attachment is not None
    with attachment.alone("erase"), pytest.raises(GcRefused):
        machines["a"].erase(subject=ADA, why="asked")


def test_a_condition_chooses_of_what_is_published(machines: SharedMachines, tmp_path: Path) -> None:
    filled(machines, "a", "b")
    status = machines["a"].erase(where=f"message = '{ADA}'", why="asked")
    assert status.erasure.events == 4
    assert ended(machines, "b", "a").is_done
    assert places_with(tmp_path, [ADA]) == []


def test_the_verb_names_the_machines_that_are_due(machines: SharedMachines, tmp_path: Path) -> None:
    filled(machines, "a", "b")
    machines.close()
    run(tmp_path / "a", "erase", "--subject", ADA, "--why", "asked", "--yes")
    shown = run(tmp_path / "a", "erase", "status", "--format", "table", code=3).output
    assert f"{tmp_path}/b" in shown.replace("\n", "")
    assert "exchange" in shown
    run(tmp_path / "b", "exchange")
    run(tmp_path / "a", "erase", "status")


def _stopped(
    machines: SharedMachines, name: str, work: Callable[[Lake], object], fault: str, at: int
) -> bool:
    """Let a machine do something, which ends at a change of the disk, and open it again; whether it
    came so far."""
    error = seam.Killed() if fault == "death" else OSError(errno.EIO, "planted")
    planted, lake = seam.Fault(at, error), machines[name]
    with pytest.MonkeyPatch.context() as patch:
        seam.install(patch, planted)
        with contextlib.suppress(seam.Killed, OSError, LakelogError):
            work(lake)
    if fault == "death":
        planted.release()
        machines._lakes.pop(name)
        machines._lakes[name] = lakelog.open(f"{machines.root}/{name}", create=False)
    else:
        machines.reopened(name)
    return bool(planted.fired)


def test_what_is_not_shared_yet_takes_nothing_from_others(
    machines: SharedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that cannot tell the bucket of its erasure leaves there what tags name."""
    filled(machines, "a", "b")

    def away(name: str, real: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if name in seam.CHANGES and any("/bucket/erasures" in str(value) for value in args):
            raise OSError(errno.EIO, "planted")
        return real(*args, **options)

    with monkeypatch.context() as patch:
        seam.install(patch, away)
        with pytest.raises((OSError, LakelogError)):
            machines["a"].erase(subject=ADA, why="asked")
    assert not any(status.is_done for status in machines.reopened("a").erasures())
    assert machines["c"].at("v1").count() == 8
    machines["a"].erase(subject=ADA, why="asked")
    assert ended(machines, "b", "c", "a").is_done
    assert machines["c"].at("v1").count() == 4


@pytest.mark.parametrize("fault", ["death", "error"])
@pytest.mark.parametrize("who", ["eraser", "other", "heir"])
def test_it_may_stop_at_every_step(fault: str, who: str, tmp_path: Path) -> None:
    """Killed or failed anywhere, by whoever: it is not done while a byte is there, and ends."""

    def erase(lake: Lake) -> object:
        return lake.erase(subject=ADA, why="asked")

    now, before = tmp_path / "now", tmp_path / "before"
    start = SharedMachines(now)
    filled(start, "a", "b")
    put(start["b"], 50)
    if who == "other":
        erase(start["a"])
    start.close()
    now.rename(before)
    at, step, fired = 1, 1, True
    while fired:
        shutil.copytree(before, now)
        machines = SharedMachines(now)
        where = f"{who} {fault} at change {at}"
        name, work = ("b", Lake.exchange) if who == "other" else ("a", erase)
        fired = _stopped(machines, name, work, fault, at)
        for temporary in now.rglob(".tmp-*"):
            os.utime(temporary, (0, 0))  # an hour later they are nobody's
        if any(status.is_done for status in machines[name].erasures()):
            assert places_with(now, [ADA]) == [], where
        if who != "other":
            for lease in now.glob("bucket/gc/lease-*"):
                os.utime(lease, (0, 0))  # ten minutes later another takes over
            # What it had not shared yet it has to end itself.
            for heir in "ba" if who == "heir" else "a":
                erase(machines[heir])
        assert ended(machines, "b", "a").is_done, (where, machines["b"].erasures())
        assert machines["a"].erasures()[0].is_done, where
        assert places_with(now, [ADA]) == [], where
        for lake in (machines["a"], machines["b"]):
            assert numbers(lake, "subject <> 'late'") == [1, 3, 11, 13], where
            assert lake.at("v1").count() == 4, where
            assert lake.verify().intact, where
        machines.close()
        shutil.rmtree(now)
        if at == 1 and not IS_WHOLE:
            step = _changes(before, tmp_path, name, work) // POINTS
        at += step
    assert at > 2


def _changes(before: Path, tmp_path: Path, name: str, work: Callable[[Lake], object]) -> int:
    """How many changes of the disk something makes."""
    shutil.copytree(before, tmp_path / "now")
    machines, counted = SharedMachines(tmp_path / "now"), seam.Fault(10**9, None)
    lake = machines[name]
    with pytest.MonkeyPatch.context() as patch:
        seam.install(patch, counted)
        work(lake)
    machines.close()
    shutil.rmtree(tmp_path / "now")
    return counted.changes


class _EndsOnceSwept(seam.Fault):
    """A death as soon as any document says that nothing of an erasure is left."""

    def __init__(self, root: Path) -> None:
        super().__init__(10**9, seam.Killed())
        self._root = root

    def __call__(self, name: str, real: seam.Hook, *args: Any, **kwargs: Any) -> Any:
        documents = self._root.rglob("erasures/*.json")
        if not self.fired and any(b'"phase":"swept"' in path.read_bytes() for path in documents):
            self.at = self.changes + 1
        return super().__call__(name, real, *args, **kwargs)


def test_copies_of_another_machine_keep_an_erasure_open(
    machines: SharedMachines, tmp_path: Path
) -> None:
    """Whoever asks hears of the machine, which names the copy; it is done once that is clean."""
    filled(machines, "a", "b")
    rows = tmp_path / "rows.csv"
    machines["b"].export("events", str(rows))
    sync(machines["b"], f"sqlite:{tmp_path}/rows.db")
    machines["a"].erase(subject=ADA, why="asked")
    (place,) = ended(machines, "a", "b").copies
    assert place["name"].endswith("/b")
    status = machines["b"].erasures()[0]
    assert [copy["place"] for copy in status.copies] == ["export", "sync"]
    rows.unlink()
    machines["b"].exchange()
    assert not machines["a"].erasures()[0].is_done
    confirm(machines["b"].store, status.erasure.key, f"sqlite:{tmp_path}/rows.db")
    machines["b"].exchange()
    assert all(machines[name].erasures()[0].is_done for name in "ab")


def test_training_set_of_another_machine_keeps_an_erasure_open(
    machines: SharedMachines, tmp_path: Path
) -> None:
    """The one that erases has the tag of its state, and not the directory."""
    filled(machines, "a", "b")
    folder, recipe = tmp_path / "set", tmp_path / "all.toml"
    recipe.write_text(
        'name = "all"\n[select]\nsql = "FROM events"\n[shape]\nkind = "events"\n'
        "[split]\ntrain = 1.0\nvalidation = 0.0\ntest = 0.0\n"
    )
    train.export(machines["b"], str(recipe), str(folder))
    folder.rename(tmp_path / "elsewhere")
    machines["a"].erase(subject=ADA, why="asked")
    (tmp_path / "elsewhere").rename(folder)
    ended(machines, "b")
    (place,) = machines["b"].erasures()[0].copies
    assert (place["place"], place["name"]) == ("training set", str(folder))
    assert not machines["a"].erasures()[0].is_done


def test_a_death_at_its_end_keeps_nobody_waiting(
    machines: SharedMachines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the copies that the machine knows of are named, whoever has said that it is done."""
    filled(machines, "a", "b")
    machines["a"].export("events", str(tmp_path / "rows.csv"))
    death = _EndsOnceSwept(tmp_path)
    with monkeypatch.context() as patch, contextlib.suppress(seam.Killed):
        seam.install(patch, death)
        machines["a"].erase(subject=ADA, why="asked")
    death.release()
    assert death.fired
    machines._lakes.pop("a")
    for lease in tmp_path.glob("bucket/gc/lease-*"):
        os.utime(lease, (0, 0))
    ended(machines, "a", "b")
    first, *_ = machines["a"].erasures()
    assert [copy["name"] for copy in first.copies] == [str(tmp_path / "rows.csv")]
    assert not first.leftovers
    (tmp_path / "rows.csv").unlink()
    assert all(status.is_done for name in "ab" for status in machines[name].erasures())
    assert places_with(tmp_path, [ADA]) == []


class Schedule:
    """Machines that interleave by chance while one erases: before a link others do something, and
    some are killed."""

    def __init__(self, root: Path, seed: int) -> None:
        self.machines, self.chance = SharedMachines(root), random.Random(seed)
        self._next, self._running = 0, set[str]()
        self.kept: list[int] = []
        self.erasing = False

    def play(self, turns: int) -> None:
        """Let machines take turns, and one of them erase in the middle; then let all end it."""
        for turn in range(turns):
            self._turn(self.chance.choice("abc"), is_erasing=turn == turns // 2)
        self.chance = random.Random(0)
        for name in "abc":
            self.machines.reopened(name)
        for lease in self.machines.root.glob("bucket/gc/lease-*"):
            os.utime(lease, (0, 0))
        self.machines["a"].erase(subject=ADA, why="asked")

    def _turn(self, name: str, *, is_erasing: bool = False) -> None:
        if name in self._running:
            return
        self._running.add(name)
        lake = self.machines[name]
        before_links(lake, *[self._interfere] * 6)
        try:
            if is_erasing:
                self.erasing = True
                lake.erase(subject=ADA, why="asked")
            else:
                self._work(lake)
        except (Killed, InvalidEvent, GcRefused):
            self.machines.reopened(name)
        finally:
            self._running.discard(name)

    def _work(self, lake: Lake) -> None:
        value, self._next = self._next, self._next + 1
        is_ada = self.chance.random() < 0.4 and not self.erasing
        put(lake, value, subject=ADA if is_ada else "other")
        self.kept += [] if is_ada else [value]
        step = self.chance.random()
        if step < 0.1:
            lake.compact()
        elif step < 0.2:
            lake.tag(f"t{value}")
        elif step < 0.25:
            lake.branch(f"b{value}").close()
        elif step < 0.4:
            numbers(lake)
        else:
            lake.exchange()

    def _interfere(self) -> None:
        while self.chance.random() < 0.4:
            self._turn(self.chance.choice("abc"))
        if self.chance.random() < 0.1:
            raise Killed


@pytest.mark.matrix
@pytest.mark.parametrize("seed", range(8))
def test_nothing_of_it_stays_whatever_comes_between(tmp_path: Path, seed: int) -> None:
    schedule = Schedule(tmp_path, seed)
    schedule.play(20)
    machines = schedule.machines
    assert ended(machines, *"abc").is_done, [machines[name].erasures() for name in "abc"]
    machines.exchange(*"abc")
    assert places_with(tmp_path, [ADA]) == []
    for name in "abc":
        assert numbers(machines[name], "subject <> 'late'") == schedule.kept
        assert machines[name].verify().intact
    machines.close()


def test_a_machine_that_has_not_heard_of_an_erasure_reports_no_damage(
    machines: SharedMachines, tmp_path: Path
) -> None:
    """Segments that it looks for are gone from the bucket."""
    filled(machines, "a", "b")
    for subject, ref in ((ADA, "v1"), ("u1", None)):
        machines.exchange("b")
        shutil.rmtree(tmp_path / "b/segments")
        machines["a"].erase(subject=subject, why="asked")
        assert machines.reopened("b").verify(ref).intact


def test_events_that_are_published_while_none_is_known_are_erased(
    machines: SharedMachines, tmp_path: Path
) -> None:
    """Another machine publishes the only ones once the states were read, before it can hear."""
    machines.exchange("a", "b")
    put(machines["b"], 1)
    put(machines["b"], 2, subject="bob")
    before_links(machines["a"], machines["b"].exchange)
    assert machines["a"].erase(subject=ADA, why="asked").erasure.events == 1
    machines.exchange("a", "b")
    assert numbers(machines["a"]) == numbers(machines["b"]) == [2]
    assert machines["a"].erasures()[0].is_done
    assert places_with(tmp_path, [ADA]) == []
