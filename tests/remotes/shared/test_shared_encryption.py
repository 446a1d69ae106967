"""An encrypted lake that machines share: no word of an event is in the bucket, nor on any disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakelog.errors import InvalidKey, LakelogError, NotAllowed
from lakelog.keys import VAULT
from lakelog.keys.master import MasterKey
from lakelog.lake import Lake
from lakelog.remotes.shared import attach, move_spans, name_file, names
from lakelog.server.sql.query_limits import QueryLimits
from lakelog.server.sql.workers import QueryWorkers
from tests.support import encrypted, seam
from tests.support.attached import SharedMachines, append, numbers, offer_and_die
from tests.support.cli import run
from tests.support.effort import IS_WHOLE
from tests.support.erasure_histories import places_with

PLANTED = "zzplanted"
WORDS = [PLANTED]
SUBJECT = f"SELECT count(*) FROM events WHERE subject = '{PLANTED}3'"
NEW = "6b" * 32


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedMachines]:
    """Machines with an encrypted lake in a bucket of files."""
    machines = encrypted.share(tmp_path, monkeypatch)
    yield machines
    machines.close()


def put(lake: Lake, values: range, noise: int = 0) -> None:
    """Append events in which every text is planted."""
    lake.append(
        [
            {
                "type": f"{PLANTED}type",
                "source": f"{PLANTED}source",
                "subject": f"{PLANTED}{n % 10}",
                "id": f"{PLANTED}{lake.path[-1]}{n}",
                "message": f"{PLANTED} message {os.urandom(noise).hex()}",
                "data": {"n": n, f"{PLANTED}key": PLANTED},
            }
            for n in values
        ]
    )


def with_key(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Be as a process that has opened nothing, with a master key."""
    encrypted.forget(monkeypatch)
    if key:
        monkeypatch.setenv("LAKELOG_KEY", key)


def rotate(lake: Lake, key: str = "") -> None:
    """Wrap the data keys by another master key, or make a new data key."""
    assert lake.store.paths.keys is not None
    ring = lake.store.paths.keys.ring
    master = MasterKey(bytes.fromhex(key or encrypted.KEY), "LAKELOG_KEY")
    lake.store.change_keys(ring.rotated(master) if key else ring.with_new_key(master), master)


def put_file(lake: Lake, folder: Path, subject: str) -> None:
    """Ingest a file of a planted name, with a line that is no event."""
    folder.mkdir()
    event = {
        "type": f"{PLANTED}T",
        "subject": subject,
        "message": f"{PLANTED}file",
        "data": {"n": 1, "folder": folder.name},
    }
    path = folder / f"{PLANTED}-{lake.path[-1]}.jsonl"
    path.write_text(f"{json.dumps(event)}\nno event {subject} {PLANTED}line\n")
    lake.ingest(path)


def test_no_word_of_an_event_is_in_the_bucket_or_on_any_machine(
    machines: SharedMachines,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Names, offers, ranges, tags, erasures, compactions by others, gc, files and their names, and
    all that was cached; once an erasure is done, not even ciphertext has what was erased."""
    monkeypatch.setattr(name_file, "FILE_LEAST", 0)
    monkeypatch.setattr("lakelog.database.block_ranges.LEAST", 1 << 18)
    searched, inputs = list[str](), tmp_path_factory.mktemp("inputs")
    monkeypatch.setattr(move_spans, "SPAN", 8)
    monkeypatch.setattr(move_spans, "GROWTH", 4)
    for turn in range(4):
        for name in "ab":
            put(machines[name], range(100 * turn, 100 * turn + 20))
            put_file(machines[name], inputs / f"{turn}{name}", f"{PLANTED}3")
            machines[name].exchange()
    put(machines["a"], range(1000, 1040), noise=10_000)
    machines["a"].exchange()
    machines["b"].tag(f"{PLANTED[2:]}tag", message=PLANTED)
    assert machines["b"].sql(SUBJECT).fetchall() == [(28,)]
    assert list((tmp_path / "b/cache/ranges").iterdir())  # of the segment with the noise
    assert machines["c"].sql(SUBJECT).fetchall() == [(28,)]
    offer_and_die(machines, 1, 2)
    assert list((tmp_path / "bucket/offers").rglob("*.json"))
    searched += encrypted.found(tmp_path, WORDS)
    machines.reopened("a")
    machines.exchange("a", "b", "c")
    machines["c"].compact()
    machines["c"].branch("other").close()
    machines.exchange("a", "b", "c")
    hers = [f"{PLANTED}3", f"{PLANTED}file", f"{PLANTED}line"]
    there = {path.split("/")[0] for path in places_with(tmp_path, hers)}
    assert there >= {"bucket", "a", "b", "c"}
    machines["a"].erase(subject=f"{PLANTED}3", why=f"{PLANTED} why")
    machines.exchange("a", "b", "c")
    for name in "abc":
        put(machines[name], range(5, 7))
        put(machines[name], range(5, 7))
    machines.exchange("a", "b", "c")
    assert all(status.is_done for name in "abc" for status in machines[name].erasures())
    assert places_with(tmp_path, hers) == []
    assert machines["b"].sql(SUBJECT).fetchall() == [(0,)]
    run(machines["b"].path, "gc")
    searched += encrypted.found(tmp_path, WORDS)
    assert searched == []
    rows = {tuple(numbers(machines[name])) for name in "abc"}
    assert len(rows) == 1
    assert all(machines[name].verify().intact for name in "abc")


def test_a_machine_that_has_no_segment_yet_reads_and_erases(
    machines: SharedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it needs is fetched before the engine is told where it is."""
    monkeypatch.setattr(name_file, "FILE_LEAST", 0)
    for turn in range(2):
        put(machines["a"], range(10 * turn, 10 * turn + 10))
        machines["a"].exchange()
        machines["a"].append({"type": "lakelog.alert", "source": "lakelog", "message": "a word"})
        machines["a"].exchange()
        put(machines["a"], range(10 * turn + 104, 10 * turn + 109))
        machines["a"].exchange()
    own = machines["b"].tail(5, where="source = 'lakelog'")
    assert [event["message"] for event in own] == ["a word"] * 2
    preview = machines["c"].preview_erasure(subject=f"{PLANTED}3")
    assert (preview.events, preview.mentions) == (2, 0)
    assert machines["d"].erase(subject=f"{PLANTED}3", why="asked").erasure.events == 2


def test_names_of_many_segments_are_read_in_bounded_memory(
    machines: SharedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_file, "FILE_LEAST", 1)
    monkeypatch.setattr(names, "_OPEN_MAX", 2)
    for number in range(8):
        machines["a"].append({"type": "T", "id": f"i{number}", "data": {"n": number}})
        machines["a"].exchange()
    assert numbers(machines["b"], "id = 'i3'") == [3]
    index = machines["b"].store.attachment._names
    assert 0 < len(index._plain) <= 2
    assert numbers(machines["b"], "id = 'i7'") == [7]


def test_long_segments_are_read_by_ranges(
    machines: SharedMachines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here, and by the processes of a server, which have the keys of their server alone."""
    monkeypatch.setattr("lakelog.database.block_ranges.LEAST", 1 << 20)
    put(machines["a"], range(40), noise=30_000)
    machines["a"].exchange()
    machines["b"].exchange()
    needle = f"SELECT (data->>'n')::INT AS n FROM events WHERE id = '{PLANTED}a7'"

    async def ask() -> list[int]:
        limits = QueryLimits(workers=1, seconds=60, memory=700 << 20, fetch=1_500_000)
        workers = QueryWorkers(machines["b"].path, "main", limits)
        try:
            return [row["n"] for row in (await workers.query(needle)).to_pylist()]
        finally:
            await workers.close()

    assert machines["b"].sql(needle).fetchall() == [(7,)]
    (cached,) = (tmp_path / "b/cache/ranges").iterdir()
    os.unlink(cached)
    assert asyncio.run(ask()) == [7]
    assert not list((tmp_path / "b/segments").rglob("*.parquet"))
    assert encrypted.found(tmp_path, WORDS) == []


def test_damage_in_the_bucket_is_an_error_and_is_repaired(
    machines: SharedMachines, tmp_path: Path
) -> None:
    put(machines["a"], range(5))
    machines["a"].exchange()
    machines["b"].exchange()
    (segment,) = (tmp_path / "bucket/segments").rglob("*.parquet")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    with pytest.raises(LakelogError, match="damaged there"):
        numbers(machines["b"])
    machines["a"].repair()
    assert numbers(machines.reopened("b")) == list(range(5))


@pytest.mark.parametrize("key", ["", NEW])
def test_without_the_key_nothing_is_attached(
    machines: SharedMachines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    put(machines["a"], range(3))
    machines["a"].exchange()
    with_key(monkeypatch, key)
    result = run("", "attach", machines.url, str(tmp_path / "x"), code=2)
    assert "encrypted with" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "x").exists()


def test_a_lake_is_encrypted_from_its_beginning_or_never(tmp_path: Path) -> None:
    plain = SharedMachines(tmp_path)
    append(plain["a"], 1)
    key, url = str(tmp_path / "key"), plain.url
    refused = run("", "attach", url, str(tmp_path / "b"), "--encrypt", "--key", key, code=1)
    assert "not encrypted" in refused.output
    assert "--encrypt" in run(plain["a"].path, "config", "encrypt", "--key", key, code=1).output
    assert not (tmp_path / "key").exists()
    plain.close()


def test_a_machine_goes_on_offline_and_follows_a_new_master_key(
    machines: SharedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads and appends what is here; its exchange says which key it needs."""
    append(machines["a"], 1)
    machines.exchange("a", "b")
    rotate(machines["a"], NEW)
    append(machines["b"], 2)
    with pytest.raises(InvalidKey, match="rotated away"):
        machines["b"].exchange()
    assert numbers(machines["b"]) == [1, 2]
    with_key(monkeypatch, encrypted.KEY)
    assert numbers(machines.reopened("b")) == [1, 2]
    with pytest.raises(InvalidKey, match="give its successor"):
        machines["b"].exchange()
    with_key(monkeypatch, NEW)
    machines.reopened("a")
    assert numbers(machines.reopened("b")) == [1, 2]
    machines.exchange("b", "a", "c")
    assert numbers(machines["a"]) == numbers(machines["c"]) == [1, 2]


def test_a_new_data_key_is_found_by_whoever_meets_it(machines: SharedMachines) -> None:
    """Also in a process that does not exchange, while another one here has done so."""
    append(machines["a"], 1)
    machines.exchange("a", "b")
    secrets = set(VAULT.secrets())
    rotate(machines["a"])
    append(machines["a"], 2)
    machines["a"].exchange()
    (fresh,) = set(VAULT.secrets()) - secrets
    config = Path(machines["b"].store.paths.config)
    assert fresh not in config.read_text()
    for _ in range(2):
        VAULT.finders.pop(machines["a"].path, None)
        VAULT._secrets.pop(bytes.fromhex(fresh))
        machines["b"].exchange()
        assert numbers(Lake(machines["b"].store, "main")) == [1, 2]
        assert fresh in config.read_text()


def test_a_server_goes_on_when_the_data_key_changes(machines: SharedMachines) -> None:
    append(machines["a"], 1)
    machines.exchange("a", "b")

    async def ask() -> list[int]:
        limits = QueryLimits(workers=1, seconds=60, memory=700 << 20)
        workers, counts = QueryWorkers(machines["b"].path, "main", limits), list[int]()
        try:
            for value in (2, 3):
                table = await workers.query("SELECT count(*) AS n FROM events")
                counts.append(table["n"][0].as_py())
                rotate(machines["a"])
                append(machines["a"], value)
                machines.exchange("a", "b")
        finally:
            await workers.close()
        return counts

    assert asyncio.run(ask()) == [1, 2]


def test_of_two_that_rotate_at_once_the_second_is_told(machines: SharedMachines) -> None:
    append(machines["a"], 1)
    machines.exchange("a", "b")
    rotate(machines["a"])
    with pytest.raises(NotAllowed, match="run it again"):
        rotate(machines["b"])
    rotate(machines["b"])
    append(machines["b"], 2)
    machines.exchange("b", "a")
    assert numbers(machines["a"]) == [1, 2]
    keys = [machines.reopened(name).store.paths.keys for name in "ab"]
    assert keys[0]
    assert keys[1]
    assert keys[0].ring == keys[1].ring
    assert len(keys[0].ring.keys) == 3


def test_a_clone_does_not_change_keys_of_others(machines: SharedMachines, tmp_path: Path) -> None:
    append(machines["a"], 1)
    machines["a"].exchange()
    clone = tmp_path / "clone"
    run("", "clone", str(tmp_path / "bucket"), str(clone))
    run(clone, "append", "type=T", "data.n=2")
    run(clone, "push")
    machines.exchange("a")
    assert numbers(machines["a"]) == [1, 2]
    run(clone, "key", "rotate", "--data")
    run(clone, "append", "type=T", "data.n=3")
    assert "attached" in run(clone, "push", code=1).output
    machines.exchange("a", "b")
    assert numbers(machines["b"]) == [1, 2]
    run(clone, "erase", "--where", "data->>'n' = '3'", "--why", "asked", "--yes")
    assert "attached" in run(clone, "push", code=1).output
    machines.exchange("a", "b")


def test_a_rotation_may_stop_at_every_step(
    machines: SharedMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had made known holds everywhere; of what it had not nothing is encrypted with it."""
    append(machines["a"], 0)
    machines.exchange("a", "b")
    at, fired, values = 1, True, [0]
    while fired:
        planted = seam.Fault(at, seam.Killed())
        with pytest.MonkeyPatch.context() as patch:
            seam.install(patch, planted)
            with contextlib.suppress(seam.Killed, LakelogError):
                rotate(machines["a"])
        fired = bool(planted.fired)
        planted.release()
        with_key(monkeypatch, encrypted.KEY)
        append(machines.reopened("a"), at)
        machines.reopened("b")
        machines.exchange("a", "b")
        values.append(at)
        assert numbers(machines["b"]) == values, at
        rings = [machines.reopened(n).store.paths.keys.ring for n in "ab"]  # type: ignore[union-attr]
        assert rings[0] == rings[1], at
        attach(machines.url, f"{machines.root}/late{at}")
        at += 1 if IS_WHOLE else 4
    assert at > 4
