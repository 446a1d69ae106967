"""Moves carry their manifests, and those of states that are gone are dropped (FORMAT.md, F7.11)."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import struct
import tarfile
from pathlib import Path

import pytest
import zstandard

import lakelog
from lakelog import document
from lakelog.disk import NotIntact, disk
from lakelog.entries.entry import Record
from lakelog.errors import Damaged, DamagedRef, UnknownRef
from lakelog.history import thinning
from lakelog.history import window as history_window
from lakelog.moves.publication import Change, publish
from lakelog.values import from_micros
from lakelog.volume import MovePack
from tests.golden import make
from tests.support import damage, lakes, second_reader, statements
from tests.support.effort import IS_WHOLE
from tests.support.seam import Fault, Killed, install

SECOND, HOUR, DAY = 1_000_000, 3_600_000_000, 86_400_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time of all that is done, in us, as a list of one."""
    now = [disk.now_us()]
    monkeypatch.setattr(disk, "now_us", lambda: now[0])
    monkeypatch.setattr(history_window, "lake_time", lambda store: now[0])
    return now


def put(lake: lakelog.Lake, clock: list[int], number: int) -> None:
    """Publish one event, half a minute after the last."""
    clock[0] += 30 * SECOND
    lake.append({"type": "T", "data": number})
    lake.settle()


def long_life(path: str, clock: list[int]) -> list[str]:
    """Make a lake whose history has been thinned; return the operations in its log."""
    with lakes.opened(path, gc_grace_hours=0) as lake:
        for number in range(260):
            put(lake, clock, number)
            if number == 40:
                lake.tag("v1")
            if number in (80, 81, 120):
                lake.snapshot(f"s{number}")
            if number == 140:
                lake.rollback("@130")
        with lakelog.open(path) as short:
            short.append({"type": "SHORT"})
        put(lake, clock, 260)
        clock[0] += 2 * HOUR
        for number in range(261, 381):
            put(lake, clock, number)
        lake.gc()
        return [entry.move.op for entry in lake.log()]


def chain(path: str) -> dict[int, bytes]:
    """Every move of the main branch by number, as bytes."""
    folder = Path(path, "refs/heads/main")
    found = {
        n: data for file in folder.glob("packed-*") for n, data in MovePack.read(str(file)).items()
    }
    return found | {int(file.name[:12]): file.read_bytes() for file in folder.glob("0*.json")}


def test_a_move_and_a_tag_carry_their_manifest(tmp_path: Path) -> None:
    """F7.11: a small manifest has no file; its text is behind whatever names it, and its digest is
    there. A long one has a file, and nothing is carried."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        lake.append({"type": "A"})
        lake.tag("v1")
        lake.append({"type": "B"})
        lake.rollback("v1")
        long = Record("artifact", "long", {"text": "x" * 40_000})
        publish(lake.store, "main", lambda *_: Change("ingest", entries=(long,)))
        found = {entry.move.op: entry.move for entry in lake.log()}
        files = [p.name[:64] for p in Path(path, "manifests").rglob("*.zst")]
    assert files == [found["ingest"].snapshot]
    assert not found["ingest"].carried
    assert {op for op, move in found.items() if move.carried} == {"init", "seal", "rollback"}
    tag = Path(path, "refs/tags/v1.json").read_bytes()
    assert document.digest(found["rollback"].carried) == found["rollback"].snapshot
    assert document.split(tag)[1] == found["rollback"].carried + b"\n"
    with lakelog.open(path) as lake:
        assert (lake.count(), lake.at("v1").count()) == (1, 1)
        assert not lake.verify().problems
    assert len(second_reader.rows(path)) == len(second_reader.rows(path, tag="v1")) == 1


@pytest.mark.parametrize("where", ["head", "tag"])
def test_every_flipped_bit_of_a_carried_manifest_is_noticed(tmp_path: Path, where: str) -> None:
    """F7.11: whatever is not the text that the digest is of is damage, by the name of the file."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        lake.append({"type": "A"})
        lake.tag("v1")
    name = {"head": "refs/heads/main/000000000002.json", "tag": "refs/tags/v1.json"}[where]
    file = Path(path, name)
    data = file.read_bytes()
    start = len(document.split(data)[0]) - 1
    for at in range(start, len(data), 7):
        file.write_bytes(damage.flipped(data, at, at % 8))
        with pytest.raises(Damaged, match=file.name), lakelog.open(path) as lake:
            lake.at("v1" if where == "tag" else "@2").count()
    file.write_bytes(data)
    assert not damage.checked(path).problems


@pytest.mark.damaged
def test_what_is_lost_with_a_carried_manifest(tmp_path: Path) -> None:
    """F14.5: a damaged text costs the state, not the move; one behind a damaged move saves it."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        for name in "ABC":
            lake.append({"type": name})
            lake.settle()
    right = damage.read(path)
    head = Path(path, "refs/heads/main/000000000004.json")
    data = head.read_bytes()
    for at in (40, len(data) - 40):
        copy = str(tmp_path / f"copy{at}")
        shutil.copytree(path, copy)
        Path(copy, "refs/heads/main", head.name).write_bytes(damage.flipped(data, at, 1))
        with pytest.raises(DamagedRef, match=head.name), lakelog.open(copy) as lake:
            lake.count()
        done = damage.repaired(copy)
        assert done.after is not None
        assert not done.after.problems
        assert damage.read(copy) == right
        with lakelog.open(copy) as lake:
            ops = [entry.move.op for entry in lake.log()]
        assert ops[1] == ("lost" if at == 40 else "seal")


def test_moves_of_states_that_are_gone_are_dropped(tmp_path: Path, clock: list[int]) -> None:
    """F7.12: what users did, the state before it, tagged states, the last word on a writer, and the
    newest hundred stay; of the rest the states of a minute, and the chain between neighbours."""
    path = str(tmp_path / "lake")
    ops = long_life(path, clock)
    moves = {n: statements.parse_document(data) for n, data in chain(path).items()}
    newest = max(moves)
    assert set(range(newest - 99, newest + 1)) <= set(moves)
    assert ops.count("snapshot") == 3
    assert ops.count("rollback") == 1
    for number, move in moves.items():
        if move["op"] in ("snapshot", "rollback"):
            assert number - 1 in moves
        if number - 1 in moves:
            before = document.split(chain(path)[number - 1])[0]
            assert move["prev"] == document.digest(before)
    dropped = set(range(1, newest)) - set(moves)
    assert 80 < len(dropped) < newest - 100
    with lakelog.open(path) as lake:
        tag = lake.store.refs.tag("v1")
        assert tag.snapshot in {move["snapshot"] for move in moves.values()}
        assert all(entry.events is not None for entry in lake.log())
        writers = {w for move in moves.values() for w in move["wal"]}
        assert len(writers) == 2
        assert not lake.verify().problems
        assert lake.gc().packed == 0
    assert {n: statements.parse_document(data) for n, data in chain(path).items()} == moves


@pytest.mark.thorough
def test_dropped_moves_do_no_harm(tmp_path: Path, clock: list[int]) -> None:
    """F7.12, F7.13: a backup, another reader and a repair of a thinned lake find what it holds."""
    path, copy = str(tmp_path / "lake"), str(tmp_path / "copy")
    long_life(path, clock)
    right = damage.read(path)
    assert len(second_reader.rows(path)) == len(right[0])
    with lakelog.open(path) as lake:
        lake.backup(copy)
        put(lake, clock, 1_000)
        clock[0] += 3 * HOUR
        lake.gc()
        lake.backup(copy)
        right = damage.read(path)
    assert damage.read(copy) == right
    assert not damage.checked(copy).problems
    head = max(Path(path, "refs/heads/main").glob("0*.json"))
    head.write_bytes(b"\0" * 100)
    done = damage.repaired(path, copy)
    assert (done.lost, damage.read(path)) == ([], right)
    (pack,) = Path(path, "refs/heads/main").glob("packed-*")
    data = pack.read_bytes()
    pack.write_bytes(damage.flipped(data, len(data) // 2, 1))
    assert [p.path for p in damage.checked(path).problems] == [str(pack)]
    done = damage.repaired(path, copy)
    assert done.lost == []
    assert not damage.checked(path).problems
    pack.write_bytes(damage.flipped(data, len(data) // 2, 1))
    done = damage.repaired(path)
    assert "of its log" in " ".join(done.lost)
    assert done.after is not None
    assert not done.after.problems
    assert damage.read(path) == right


def test_a_packed_file_with_another_seal_is_not_believed(tmp_path: Path) -> None:
    """F7.9: the seal is a checksum; a file whole but for it is damaged, and verify says so."""
    path = lakes.copied(lakes.packed, tmp_path)
    (pack,) = Path(path, "refs/heads/main").glob("packed-*")
    assert len(MovePack.read(str(pack))) > 100
    data = pack.read_bytes()
    pack.write_bytes(damage.flipped(data, len(data) - 5, 1))
    with pytest.raises(DamagedRef, match="checksum does not match"):
        MovePack.read(str(pack))
    assert [problem.path for problem in damage.checked(path).problems] == [str(pack)]


@pytest.mark.parametrize("says_length", [True, False])
def test_packed_moves_longer_than_any_are_refused(says_length: bool) -> None:
    """Those of a remote are read, too, which may send anything with a true seal."""
    compressor = zstandard.ZstdCompressor(level=1, write_content_size=says_length)
    data = compressor.compress(bytes(1 << 28)) + struct.pack("<II4s", 0x184D2A5D, 36, b"LKP1")
    with pytest.raises(NotIntact, match="longer than any"):
        MovePack("main", 1, 1).decode(data + hashlib.sha256(data).digest())


def test_names_of_states_over_dropped_moves(tmp_path: Path, clock: list[int]) -> None:
    """F7.13: a time and REF~n name kept states; the number of a dropped move is refused."""
    path, began = str(tmp_path / "lake"), clock[0]
    long_life(path, clock)
    with lakelog.open(path) as lake:
        log = [entry.move for entry in lake.log()]
        for moment in range(began + 60 * SECOND, clock[0], 17 * 60 * SECOND):
            kept = next(move for move in log if move.time <= moment)
            assert lake.at(from_micros(moment).isoformat()).id == kept.snapshot
        newest = log[0]
        back = [lake.at(f"@{newest.number}~{n}").id for n in range(120)]
        assert back == list(dict.fromkeys(back))
        assert set(back) <= {move.snapshot for move in log}
        assert lake.at(log[150].snapshot[:16]).id == log[150].snapshot
        gone = min(set(range(1, newest.number)) - {move.number for move in log})
        with pytest.raises(UnknownRef, match="outside the kept history"):
            lake.at(f"@{gone}")


@pytest.mark.matrix
@pytest.mark.parametrize("keep", [True, False])
def test_thinning_may_die_at_every_step(
    tmp_path: Path, clock: list[int], monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    """Whatever step gc dies at, the lake reads the same, and the next run ends what it began."""
    monkeypatch.setattr(MovePack, "MOVES_MAX", 10)
    path, copy = str(tmp_path / "lake"), str(tmp_path / "copy")
    real = thinning.pack
    monkeypatch.setattr(thinning, "pack", lambda *given: iter(()) if not keep else real(*given))
    long_life(path, clock)
    monkeypatch.setattr(thinning, "pack", real)
    clock[0] += 30 * HOUR
    right, at = damage.read(path), 0
    while True:
        at += 1 + at // (3 if IS_WHOLE else 1)  # the unlinks are many, and alike
        shutil.copytree(path, copy)
        planted = Fault(at, Killed())
        with monkeypatch.context() as patch, lakelog.open(copy, create=False) as lake:
            install(patch, planted)
            try:
                lake.gc()
            except Killed:
                planted.release()
        assert damage.read(copy) == right
        with lakelog.open(copy) as lake:
            lake.gc()
            assert lake.gc().packed == 0
            assert not lake.verify().problems
            ops = [entry.move.op for entry in lake.log()]
            assert (ops.count("snapshot"), ops.count("rollback")) == (3, 1)
        spans = [tuple(map(int, f.name[7:32].split("-"))) for f in Path(copy).rglob("packed-*")]
        assert len(spans) > 1
        assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(sorted(spans)))
        shutil.rmtree(copy)
        if not planted.fired:
            break
    assert at > 10


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("writes", ["append", "tag"])
def test_an_earlier_format_is_raised_by_the_first_write(
    tmp_path: Path, number: int, writes: str
) -> None:
    """F15.3, F15.5, F15.6: reading and collecting leave a lake as it is; an append or a publish
    makes it one of format 3, with its settings, before it writes anything of that format."""
    with tarfile.open(make.LAKES / f"format{number}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    path = str(tmp_path / "lake")
    config = Path(path, "lakelog.json")
    before = json.loads(config.read_bytes())
    with lakelog.open(path, create=False, settings={"seal": "never"}) as lake:
        lake.count()
        lake.gc()
        assert json.loads(config.read_bytes())["format"] == number
        trace = statements.Trace()
        with pytest.MonkeyPatch.context() as patch:
            install(patch, trace)
            if writes == "append":
                lake.append({"type": "ON"})
            else:
                lake.tag("on")  # which publishes the tail
        named = [path for name, path in trace.steps if name in ("link", "rename")]
        newer = [path for path in named if not path.endswith((".ids", ".parquet"))]
        assert os.path.basename(newer[0]) == "lakelog.json"
        assert [path for path in newer if "/wal/" in path or "/refs/" in path]
        lake.settle()
        assert not lake.verify().problems
    after = json.loads(config.read_bytes())
    assert (after["format"], after["settings"]) == (3, before["settings"])
    assert after["lake"] == before["lake"]
    assert second_reader.rows(path)


def test_an_expire_names_the_state_of_the_move_before(tmp_path: Path) -> None:
    """F9.12: the move of `expire` changes nothing of the state, and earlier ones are given up."""
    with lakelog.open(str(tmp_path / "lake")) as lake:
        for name in "AB":
            lake.append({"type": name})
            lake.settle()
        earlier = lake.store.refs.head("main").move
        lake.expire("space")
        move = lake.store.refs.head("main").move
        assert (move.op, move.snapshot) == ("expire", earlier.snapshot)
        assert lake.count() == 2
