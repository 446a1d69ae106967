"""Saved states under attack and accident: forged indices, flipped bits, deaths at every step."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from lakelog import document
from lakelog.chunks import state_files
from lakelog.disk import disk
from lakelog.errors import Damaged
from lakelog.state import exchange
from lakelog.state.restore import restore_state
from lakelog.state.state import list_states, save_state
from tests.support import lakes, state_bombs, state_trees
from tests.support.deaths import dies
from tests.support.hostile_states import HOSTILE, ROOT_ENTRY, file, forge
from tests.support.peak_memory import forget, peak
from tests.support.tree import ROOT

FLIPS = int(os.environ.get("LAKELOG_STATE_FLIPS", "60"))
STEP = int(os.environ.get("LAKELOG_STATE_STEP", "7"))
"""1 dies at every step, as the names of the tests say; larger ones at some of them."""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_indices_are_refused(tmp_path: Path, name: str) -> None:
    """No index leads out of the directory; nothing is touched, and what is there stays."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "mine").write_bytes(b"mine")
    with lakes.opened(str(tmp_path / "lake")) as lake:
        body = {"format": 1, "entries": [ROOT_ENTRY, *HOSTILE[name]], "chunks": []}
        forge(lake, json.dumps(body).encode())
        with pytest.raises(Damaged):
            restore_state(lake, "forged")
    assert sorted(os.listdir(tmp_path)) == ["app", "lake"]
    assert (tmp_path / "app" / "mine").read_bytes() == b"mine"
    assert not os.path.lexists("/tmp/evil")


def test_hostile_content_is_refused_within_bounds(tmp_path: Path) -> None:
    """Bombs, wrong lengths and wrong digests are refused without taking memory for them."""
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(1 << 29))
    liar = b"\x28\xb5\x2f\xfd\xe0" + (1 << 60).to_bytes(8, "little") + bytes(50)
    names = [document.digest(str(n).encode()) for n in range(4)]
    with lakes.opened(str(tmp_path / "lake")) as lake:
        paths = lake.store.paths
        forget()
        before = peak()
        for name, frame in zip(names, (bomb, liar, b"", b"junk"), strict=True):
            seal = state_files.seal(b"")[-44:-32]
            sealed = frame + seal
            sealed += bytes.fromhex(document.digest(sealed))
            disk.put_object(paths.state_file(name, ".chunk.zst"), sealed)
            body = {"format": 1, "entries": [ROOT_ENTRY, file("a", 9)], "chunks": [[name, 9]]}
            forge(lake, json.dumps(body).encode())
            with pytest.raises(Damaged):
                restore_state(lake, "forged")
            lake.store.refs.forget()
            disk.unlink(paths.tag("forged"))
        content = json.dumps({"format": 1, "entries": [ROOT_ENTRY] * 9, "chunks": []}).encode()
        forge(lake, content, state_files.seal(content + b" "))
        with pytest.raises(Damaged):
            restore_state(lake, "forged")
    assert sorted(os.listdir(tmp_path)) == ["lake"]
    assert peak() - before < 64 << 20  # the bomb is one of 512 MiB


@pytest.mark.thorough
def test_bombs_are_refused_in_bounded_memory(home: Path) -> None:
    """Each index is refused in one line by restore and verify, whatever it would expand to."""
    with lakes.opened(str(home / "lake")) as lake:
        state_bombs.plant_all(lake)
    command = [sys.executable, "-m", "tests.support.state_bombs", str(home / "lake")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["said"]) == len(state_bombs.PLAYED) + 3
    for name, words in found["said"].items():
        assert words != "restored", name
        assert words.isprintable(), name
        assert len(words) < 500, name
    assert len(found["problems"]) == len(found["said"])
    assert max(found["memory"]) < 200 << 20
    assert sorted(os.listdir(home)) == ["lake"]


def test_flipped_bits_are_named_by_verify_and_restore(tmp_path: Path) -> None:
    """A flip in a chunk, index or manifest is named; restore refuses before anything is moved."""
    home, dice = tmp_path / "app", random.Random(5)
    home.mkdir()
    (home / "a").write_bytes(dice.randbytes(200_000))
    (home / "b").write_bytes(b"text " * 1000)
    with lakes.opened(str(tmp_path / "lake")) as lake:
        save_state(lake, {"app": str(home)}, name="one")
        before = state_trees.facts(home)
        files = list((tmp_path / "lake" / "states").rglob("*.zst"))
        # The manifest of a small state travels in its tag.
        for folder in ("manifests", "refs/tags"):
            files += [path for path in (tmp_path / "lake" / folder).rglob("*") if path.is_file()]
        assert len(files) > 3
        for _ in range(FLIPS):
            path = dice.choice(files)
            whole = path.read_bytes()
            bad = bytearray(whole)
            bad[dice.randrange(len(bad))] ^= 1 << dice.randrange(8)
            path.write_bytes(bad)
            assert [p.path for p in lake.verify().problems] == [str(path)]
            with pytest.raises(Damaged) as caught, lakes.opened(str(tmp_path / "lake")) as again:
                restore_state(again, "one", to=str(tmp_path / "out"))
            assert caught.value.path == str(path)
            path.write_bytes(whole)
        assert lake.verify().intact
    assert state_trees.facts(home) == before
    assert sorted(os.listdir(tmp_path)) == ["app", "lake"]


def test_lost_pieces_are_repaired_or_named(tmp_path: Path) -> None:
    """A copy brings chunks back; without one, repair names the states that lost files, and a
    later save of the same content makes them whole."""
    home = tmp_path / "app"
    home.mkdir()
    (home / "a").write_bytes(os.urandom(50_000))  # one chunk
    with lakes.opened(str(tmp_path / "lake")) as lake:
        save_state(lake, {"app": str(home)}, name="one")
        lake.backup(tmp_path / "copy")
        (chunk,) = (tmp_path / "lake" / "states").rglob("*.chunk.zst")
        whole = chunk.read_bytes()
        chunk.write_bytes(whole[:-1])
        assert lake.repair(str(tmp_path / "copy")).fetched == [str(chunk)]
        assert chunk.read_bytes() == whole
        chunk.unlink()
        assert any("state 'app' of one" in line for line in lake.repair().lost)
        report = lake.verify()
        assert report.intact
        assert report.lost
        with pytest.raises(Damaged):
            restore_state(lake, "one", to=str(tmp_path / "out"))
        # Without an index nobody knows its chunks: garbage is collected all the same.
        next((tmp_path / "lake" / "states").rglob("*.json.zst")).unlink()
        lake.repair()
        lake.gc()
        save_state(lake, {"app": str(home)})
        restore_state(lake, "one")
        assert not lake.verify().lost


@pytest.mark.parametrize("several", [False, True])
def test_crash_at_every_step_of_restore_is_old_or_new(tmp_path: Path, several: bool) -> None:
    """Each directory is old or new at every death, and all are one of both after the next save."""
    names = ["one", "two"] if several else ["one"]
    homes = {name: tmp_path / name for name in names}
    lake_path = str(tmp_path / "lake")
    for home in homes.values():
        home.mkdir()
        (home / "a").write_bytes(b"old")
    directories = {name: str(home) for name, home in homes.items()}
    with lakes.opened(lake_path) as lake:
        save_state(lake, directories, name="old")
        for home in homes.values():
            (home / "a").write_bytes(b"new")
            (home / "b").mkdir()
        save_state(lake, directories, name="new")
    facts = {"new": [state_trees.facts(home) for home in homes.values()]}

    def restore(name: str) -> None:
        with lakes.opened(lake_path) as lake:
            restore_state(lake, name)

    restore("old")
    facts["old"] = [state_trees.facts(home) for home in homes.values()]
    at, present = 1, "old"
    while dies(lambda: restore("new" if present == "old" else "old"), at, str(tmp_path)):  # noqa: B023
        for number, home in enumerate(homes.values()):
            assert state_trees.facts(home) in (facts["old"][number], facts["new"][number])
        with lakes.opened(lake_path) as lake, exchange.alone(lake.store) as is_alone:
            assert is_alone
            exchange.recover(lake.store)
        now = [state_trees.facts(home) for home in homes.values()]
        present = next(name for name, known in facts.items() if known == now)
        assert sorted(os.listdir(tmp_path)) == sorted([*names, "lake"])
        at += STEP
    assert at > 30


def test_crash_at_every_step_of_save_keeps_the_states(tmp_path: Path) -> None:
    """A save that dies leaves the states that were there, or its own as well, all whole."""
    home, lake_path = tmp_path / "app", str(tmp_path / "lake")
    state_trees.grow(home, 3)
    with lakes.opened(lake_path) as lake:
        save_state(lake, {"app": str(home)}, name="first")
    at = 1

    def save() -> None:
        (home / "n").write_bytes(os.urandom(1000))
        with lakes.opened(lake_path) as lake:
            save_state(lake, {"app": str(home)}, keep=2)

    while dies(save, at, lake_path):
        with lakes.opened(lake_path) as lake:
            assert lake.verify().intact
            assert "first" in {state.name for state in list_states(lake)}
            for state in list_states(lake)[:1]:
                restore_state(lake, state.name, to=str(tmp_path / "out"))
        at += STEP
    assert at > 10
