"""Protected fields in a shared lake: each machine has a copy of the keys, and destroys its own."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog.erasure import ErasureStatus
from lakelog.errors import InvalidKey, LakelogError, NotAllowed
from lakelog.lake import Lake
from lakelog.remotes.shared import name_file
from tests.support import encrypted, protected, seam
from tests.support.attached import SharedMachines, append, before_links
from tests.support.cli import run
from tests.support.effort import IS_WHOLE
from tests.support.protected import FIELDS, PLANTED, payloads, shown


class KeyedMachines(SharedMachines):
    """Machines of which each has keys of subjects in a folder of its own."""

    def __init__(self, root: Path, environment: pytest.MonkeyPatch) -> None:
        super().__init__(root)
        self._environment = environment
        environment.setenv("LAKELOG_KEY", encrypted.KEY)

    def keys(self, name: str) -> Path:
        """The folder of a machine's keys."""
        (folder := self.root / f"keys-{name}").mkdir(parents=True, exist_ok=True)
        return folder

    def __getitem__(self, name: str) -> Lake:
        """Return the lake of a machine, whose keys are then those of this process."""
        self._environment.setenv("LAKELOG_SUBJECT_KEYS", str(self.keys(name)))
        return super().__getitem__(name)

    def copy_keys(self, source: str, *names: str) -> None:
        """Copy the file of keys of a machine to others."""
        for name in names:
            shutil.copytree(self.keys(source), self.keys(name), dirs_exist_ok=True)


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyedMachines]:
    """Machines `a` and `b` that protect FIELDS, with ten events of each that both have."""
    machines = KeyedMachines(tmp_path, monkeypatch)
    machines["a"].protect(FIELDS)
    machines.copy_keys("a", "b")
    for name, values in (("a", range(10)), ("b", range(10, 20))):
        protected.append(machines[name], values)
    machines.exchange("a", "b")
    yield machines
    machines.close()


def ended(machines: KeyedMachines, *names: str) -> ErasureStatus:
    """Let machines exchange until their WALs went on in new files; return how far it is."""
    for _ in range(3):
        for name in names:
            append(machines[name], 99, type="late")
            machines[name].exchange()
    return machines[names[0]].erasures()[-1]


def rows(lake: Lake) -> list[object]:
    """The payloads that a lake shows, without those of `ended`."""
    return [row for row in payloads(lake) if row[0]]


def test_every_machine_seals_and_opens_and_the_bucket_has_no_word(
    machines: KeyedMachines, tmp_path: Path
) -> None:
    """A server, a compaction and a machine without keys carry what is sealed."""
    for name in "ab":
        assert payloads(machines[name]) == shown(range(20))
    assert {"email", "person"}.isdisjoint(payloads(machines["c"])[0][1])
    machines["c"].compact()
    machines["c"].tag("v1")
    with pytest.raises(InvalidKey, match="is missing"):
        protected.append(machines["c"], range(1))
    machines.exchange("c", "a", "b")
    assert payloads(machines["a"]) == payloads(machines["b"]) == shown(range(20))
    protected.append(machines["b"], range(20, 30))
    machines.exchange("b", "a")
    machines["a"].rollback("v1")
    machines.exchange("a", "b")
    assert payloads(machines["b"]) == shown(range(20))
    assert machines["b"].verify().intact
    assert encrypted.found(tmp_path, [PLANTED]) == []


def test_what_was_stored_before_is_published_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a machine that has heard of it, and not before it has the keys."""
    machines = KeyedMachines(tmp_path, monkeypatch)
    protected.append(machines["b"], range(5))
    machines["a"].protect(FIELDS)
    with pytest.raises(InvalidKey, match="is missing"):
        machines["b"].exchange()
    assert [row[1]["n"] for row in payloads(machines["b"])] == list(range(5))
    machines.copy_keys("a", "b")
    machines.exchange("b", "a")
    assert payloads(machines["a"]) == payloads(machines["b"]) == shown(range(5))
    assert encrypted.found(tmp_path / "bucket", [PLANTED]) == []
    machines.close()


def test_a_key_is_destroyed_on_every_machine(machines: KeyedMachines, tmp_path: Path) -> None:
    """It is pending until all have said so; what comes later has another key."""
    status = machines["a"].erase(subject="s1", why="asked")
    assert not status.is_done
    assert [place["name"].rpartition("/")[2] for place in status.copies] == ["b"]
    assert payloads(machines["a"]) == shown(range(20), ("s1",))
    protected.append(machines["b"], range(20, 25))  # offline: it has not heard
    assert payloads(machines["b"]) == shown(range(25))
    machines.exchange("b", "a")
    for name in "ab":
        assert payloads(machines[name]) == shown(range(25), ("s1",))
        assert machines[name].erasures()[0].is_done
    protected.append(machines["b"], range(25, 30))
    machines.exchange("b", "a")
    assert payloads(machines["a"])[26] == shown(range(26, 27))[0]
    assert machines["b"].erase(subject="s2", why="asked").copies
    machines["a"].exchange()
    assert machines["a"].erasures()[1].is_done
    destroyed = {machines[name].store.paths.protection.destroyed for name in "ab"}  # type: ignore[union-attr]
    assert destroyed == {2}
    machines.copy_keys("b", "c")
    assert payloads(machines["c"]) == payloads(machines["a"])
    machines["c"].exchange()
    assert all(status.is_done for status in machines["c"].erasures())
    assert encrypted.found(tmp_path, [PLANTED]) == []


def test_an_older_file_of_keys_opens_nothing(machines: KeyedMachines, tmp_path: Path) -> None:
    shutil.copytree(machines.keys("b"), tmp_path / "old")
    machines["a"].erase(subject="s1", why="asked")
    machines["b"].exchange()
    for name in "bc":
        shutil.copytree(tmp_path / "old", machines.keys(name), dirs_exist_ok=True)
        if name == "b":
            with pytest.raises(InvalidKey, match="older file"):
                payloads(machines[name])
        machines[name].exchange()
        assert payloads(machines[name]) == shown(range(20), ("s1",))
    assert all(machines[name].erasures()[0].is_done for name in "abc")


def test_events_of_before_do_not_bring_fields_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that knew of no protected fields had stored them in plain."""
    machines = KeyedMachines(tmp_path, monkeypatch)
    protected.append(machines["b"], range(4))
    machines["a"].protect(FIELDS)
    machines.copy_keys("a", "b")
    machines["a"].erase(subject="s1", why="asked")
    machines.exchange("b", "a")
    assert payloads(machines["a"]) == [row for row in shown(range(4)) if row[0] != "s1"]
    assert ended(machines, "b", "a").is_done
    assert encrypted.found(tmp_path, [PLANTED]) == []
    machines.close()


def test_of_two_that_protect_at_once_the_second_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = KeyedMachines(tmp_path, monkeypatch)
    volume = machines["b"].store.attachment.config._volume  # type: ignore[union-attr]
    create = type(volume.bucket).create

    def late(self: object, key: str, data: bytes) -> None:
        monkeypatch.setattr(type(volume.bucket), "create", create)
        if key.startswith("config/"):
            machines["a"].protect(["email"])
            _ = machines["b"]
        create(volume.bucket, key, data)

    monkeypatch.setattr(type(volume.bucket), "create", late)
    with pytest.raises(NotAllowed, match="run it again"):
        machines["b"].protect(["person"])
    with pytest.raises(InvalidKey, match="is missing"):
        machines["b"].protect(["email", "person"])
    machines.copy_keys("a", "b")
    machines["b"].protect(["email", "person"])
    machines["a"].exchange()
    fields = machines["a"].store.paths.protection
    assert fields
    assert fields.fields == ("email", "person")
    machines.close()


def test_sealed_fields_are_read_by_ranges(
    machines: KeyedMachines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakelog.database.block_ranges.LEAST", 1 << 18)
    monkeypatch.setattr(name_file, "FILE_LEAST", 0)
    event = protected.event(7)
    noisy = [event | {"message": os.urandom(30_000).hex(), "subject": f"t{n}"} for n in range(20)]
    machines["a"].append(noisy)
    machines.exchange("a", "b")
    (row,) = machines["b"].sql("SELECT data->>'email' FROM events WHERE subject = 't7'").fetchall()
    assert row == (f"{PLANTED}2@example.org",)
    assert list((tmp_path / "b/cache/ranges").iterdir())
    sizes = [path.stat().st_size for path in (tmp_path / "b/segments").rglob("*.parquet")]
    assert max(sizes) < 1 << 18
    assert encrypted.found(tmp_path, [PLANTED]) == []


def test_the_verbs_say_where_the_keys_go(machines: KeyedMachines, tmp_path: Path) -> None:
    _ = machines["c"]
    shown_text = run("", "attach", machines.url, str(tmp_path / "x")).output
    assert "protected fields are NULL" in shown_text
    assert ".subjects" in shown_text
    _ = machines["a"]
    run(tmp_path / "a", "erase", "--subject", "s1", "--why", "asked", "--yes")
    pending = run(tmp_path / "a", "erase", "status", "--format", "table", code=3).output
    assert f"{tmp_path}/b" in pending.replace("\n", "")
    _ = machines["b"]
    run(tmp_path / "b", "exchange")
    run(tmp_path / "x", "exchange")
    run(tmp_path / "c", "exchange")
    _ = machines["a"]
    run(tmp_path / "a", "erase", "status")


@pytest.mark.parametrize("heir", ["a", "b"])
def test_it_may_stop_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heir: str
) -> None:
    """Killed anywhere, and ended by itself or by another machine: one key is gone, and no other."""
    before, now = tmp_path / "before", tmp_path / "now"
    start = KeyedMachines(now, monkeypatch)
    start["a"].protect(FIELDS)
    start.copy_keys("a", "b")
    protected.append(start["a"], range(5))
    start.exchange("a", "b")
    start.close()
    now.rename(before)
    at, fired = 1, True
    while fired:
        shutil.copytree(before, now)
        machines = KeyedMachines(now, monkeypatch)
        planted, lake = seam.Fault(at, seam.Killed()), machines["a"]
        with pytest.MonkeyPatch.context() as patch:
            seam.install(patch, planted)
            with contextlib.suppress(seam.Killed, LakelogError):
                lake.erase(subject="s1", why="asked")
        fired = bool(planted.fired)
        planted.release()
        machines._lakes["a"] = lakelog.open(f"{now}/a", create=False)
        for lease in now.glob("bucket/gc/lease-*"):
            os.utime(lease, (0, 0))  # ten minutes later another takes over
        # What it had not shared yet it has to end itself.
        for name in "ba" if heir == "b" else "a":
            machines[name].exchange()
            machines[name].erase(subject="s1", why="asked")
        assert ended(machines, "b", "a").is_done, at
        for name in "ab":
            assert rows(machines[name]) == shown(range(5), ("s1",)), at
            assert all(status.is_done for status in machines[name].erasures()), at
            protected.append(machines[name], range(5, 10))
        machines.exchange("a", "b")
        assert {row[1]["n"] for row in rows(machines["b"]) if "email" in row[1]} >= {0, 2, 6}, at
        machines.close()
        shutil.rmtree(now)
        at += 1 if IS_WHOLE else 43
    assert at > 10


def test_a_seal_under_way_while_fields_become_protected_is_made_again(
    machines: KeyedMachines, tmp_path: Path
) -> None:
    """What was sealed with a key that another machine destroys meanwhile stays so."""
    protected.append(machines["b"], range(20, 25))

    def erase() -> None:
        machines["a"].erase(subject="s1", why="asked")
        _ = machines["b"]

    before_links(machines["b"], erase)
    machines["b"].exchange()
    machines.exchange("b", "a")
    for name in "ab":
        assert payloads(machines[name]) == shown(range(25), ("s1",))
        assert machines[name].erasures()[0].is_done
    assert encrypted.found(tmp_path, [PLANTED]) == []
