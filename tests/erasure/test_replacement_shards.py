"""What stands in the place of erased states is found by two short files, however old a lake is."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from pathlib import Path

import pytest

import lakelog
from lakelog import document, remotes
from lakelog.errors import DamagedRef
from lakelog.keys import VAULT
from lakelog.volume import DirectoryVolume, ErasedStates
from tests.support import encrypted, seam
from tests.support.seam import Fault, Killed


def digests(count: int, start: int = 0) -> list[str]:
    """So many digests of states."""
    return [hashlib.sha256(b"%d" % n).hexdigest() for n in range(start, start + count)]


def pairs(count: int, start: int = 0) -> dict[str, str]:
    """What is read in the place of so many states."""
    return dict(zip(digests(count, start), digests(count, start + 1_000_000), strict=True))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A lake with a tag from before ada was erased, and what stands in the place of 2,500 other
    states."""
    with lakelog.open(tmp_path / "lake", settings={"seal": "never"}) as lake:
        lake.append([{"type": "A", "subject": subject} for subject in ("ada", "bob", "cid")])
        lake.tag("v1")
        lake.erase(subject="ada", why="asked")
        lake.append({"type": "A", "subject": "dan"})
        lake.settle()
        lake.store.erased.add(pairs(2500), {})
    return tmp_path / "lake"


def states_of(root: Path) -> ErasedStates:
    """As another process reads them."""
    found = ErasedStates(DirectoryVolume(str(root)))
    found.refresh()
    return found


def test_opening_an_old_lake_reads_one_part(root: Path) -> None:
    """A query of the newest state needs no shard but its own: it is answered without the others."""
    with lakelog.open(root, create=False) as lake:
        prefix = lake.store.refs.head("main").move.snapshot[:2]
    names = document.decode((root / "erasures/states.json").read_bytes())["shards"]
    for path in root.glob("erasures/*.shard"):
        if path.stem != names[int(prefix, 16)]:
            path.unlink()
    with lakelog.open(root, create=False) as lake:
        assert lake.count() == 3
        with pytest.raises(DamagedRef, match="it is missing"):
            lake.store.erased.segments()


def test_an_undivided_note_is_divided_at_the_next_erasure(root: Path) -> None:
    """What an older version wrote in one file is read as it is, and nothing of it is lost then."""
    whole = states_of(root)
    states = pairs(2500) | {d: whole.of(d) for d in named(root) if whole.holds(d)}
    text = document.encode({"states": states, "segments": whole.segments()})
    for path in root.glob("erasures/*.shard"):
        path.unlink()
    (root / "erasures/states.json").write_bytes(text)
    with lakelog.open(root, create=False) as lake:
        assert lake.at("v1").count() == 2
        assert lake.erase(subject="bob", why="asked").is_done
        assert [row[0] for row in lake.at("v1").sql("SELECT subject FROM events").fetchall()] == [
            "cid"
        ]
        assert lake.verify().intact
    assert document.decode((root / "erasures/states.json").read_bytes()).keys() == {"shards"}
    after = states_of(root)
    assert {digest: after.of(digest) for digest in pairs(2500)} == pairs(2500)


def named(root: Path) -> set[str]:
    """The states that moves and tags name."""
    found = states_of(root)
    return {snapshot for key in found.refs() for snapshot, _ in found.named(key)}


def test_a_reader_goes_on_while_parts_are_replaced(root: Path) -> None:
    """Who read the index before another process added to it finds all of it, old and new."""
    reader = states_of(root)
    states_of(root).add(pairs(3000, 5000), {})
    for digest, stored in (pairs(2500) | pairs(3000, 5000)).items():
        assert reader.of(digest) == stored


def test_concurrent_additions_are_all_kept(root: Path) -> None:
    """Two processes that add at the same time take nothing from each other."""
    added = [pairs(20, 10_000 * n) for n in range(1, 9)]
    threads = [threading.Thread(target=states_of(root).add, args=(each, {})) for each in added]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = states_of(root)
    for each in added:
        assert {digest: found.of(digest) for digest in each} == each


@pytest.mark.parametrize("where", ["start", "middle", "end", "swapped"])
def test_a_damaged_part_is_named(root: Path, where: str) -> None:
    """A flipped bit in a shard, or another shard in its place, is never an answer."""
    shard, other = sorted(root.glob("erasures/*.shard"))[:2]
    data = bytearray(shard.read_bytes())
    data[{"start": 0, "middle": len(data) // 2, "end": -2}.get(where, 0)] ^= 1
    shard.write_bytes(other.read_bytes() if where == "swapped" else data)
    with pytest.raises(DamagedRef, match=shard.name):
        states_of(root).segments()


def test_a_write_that_is_killed_at_any_step_is_before_or_after(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each change of the disk, all of it reads as before or as after; the next one
    leaves no shard that is not named."""
    start, at, is_over = 20_000, 0, False
    while not is_over:
        at += 1
        planted = Fault(at, Killed())
        more = pairs(1, start + at)
        writer = states_of(root)
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            seam.install(patch, planted)
            writer.add(more, {})
            is_over = not planted.fired
        planted.release()
        found = states_of(root)
        (digest,) = more
        assert found.of(digest) in (digest, more[digest])
        assert {d: found.of(d) for d in pairs(2500)} == pairs(2500)
        assert found.segments()
    assert at > 4
    names = document.decode((root / "erasures/states.json").read_bytes())["shards"]
    assert {path.stem for path in root.glob("erasures/*.shard")} == {*names}


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_copies_and_remotes_carry_it(
    is_encrypted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy has all of it, again where it was made before; who clones the copy or pushes to it
    reads the tag without the rows."""
    if is_encrypted:
        encrypted.create(tmp_path / "lake", monkeypatch)
    copy, clone = str(tmp_path / "copy"), str(tmp_path / "clone")
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append([{"type": "A", "subject": subject} for subject in ("ada", "bob", "cid")])
        lake.settle()
        lake.tag("v1")
        lake.backup(copy)
        lake.erase(subject="ada", why="asked")
        lake.store.erased.add(pairs(300), {})
        lake.backup(copy)
        lake.store.erased.forget(digests(100))
        lake.backup(copy)
        assert states_of(tmp_path / "copy").segments() == lake.store.erased.segments()
        index = VAULT.decrypt((tmp_path / "copy/erasures/states.json").read_bytes())
        assert document.decode(index).keys() == {"shards"}
        remotes.clone(copy, clone)
        with lakelog.open(clone) as cloned:
            assert cloned.at("v1").count() == 2
            cloned.store.erased.add(pairs(300), {})
        lake.erase(subject="bob", why="asked")
        remotes.add_tested(lake.store, "home", clone)
        assert len(remotes.push(lake, "home", branches=["main"], tags=["v1"]).erased) == 1
    with lakelog.open(clone) as cloned:
        assert cloned.at("v1").count() == 1
        assert cloned.verify().intact
        after = {digest: cloned.store.erased.of(digest) for digest in pairs(300)}
        assert after == pairs(300)
        assert cloned.erase(subject="cid", why="asked").erasure.events == 1
    assert list((tmp_path / "clone/erasures").glob("*.shard"))


@pytest.mark.parametrize("count", [1, 400], ids=["one file", "shards"])
def test_an_older_copy_takes_nothing_back(count: int, tmp_path: Path) -> None:
    """A second erasure replaced what the first one put there, of which alone a copy knows."""
    old, new, newest = (digests(count, start) for start in (0, 10_000, 20_000))
    places = tmp_path / "here", tmp_path / "copy"
    for place in places:
        place.mkdir()
    here, copy = (ErasedStates(DirectoryVolume(str(place))) for place in places)
    for states in (here, copy):
        states.add(dict(zip(old, new, strict=True)), dict(zip(old, new, strict=True)))
        states.refresh()
    again = dict(zip(new, newest, strict=True))
    here.add(again, again)
    here.adopt(copy)
    here.refresh()
    copy.refresh()
    copy.adopt(here)
    copy.refresh()
    expected = dict(zip(old, newest, strict=True)) | again
    for states in (here, copy):
        assert {digest: states.of(digest) for digest in expected} == expected
        assert states.segments() == expected
