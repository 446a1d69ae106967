"""What a lake keeps of its remotes, and what a remote holds (FORMAT.md, 8)."""

from __future__ import annotations

import hashlib
import json
import os
import time
import urllib.request
from pathlib import Path

import pytest

import lakelog
from lakelog import document
from lakelog.disk import disk
from lakelog.remotes import known, oci
from lakelog.remotes.fetches import clone
from lakelog.remotes.site import Site
from lakelog.state.state import save_state
from tests.support import registry_server, statements
from tests.support.lakes import opened
from tests.support.remote_suite import add, pull, push, rows, snapshot


@pytest.fixture
def pushed(home: Path) -> tuple[Path, Path]:
    """A lake and the directory that it was pushed to."""
    here, there = home / "lake", home / "remote"
    add(str(here), "first")
    with opened(str(here)) as lake:
        known.add(lake.store, "origin", str(there))
    push(str(here))
    return here, there


def test_what_is_known_of_a_remote(pushed: tuple[Path, Path]) -> None:
    """F8.8: a document with the remote's address and id, and what was seen of each branch."""
    here, there = pushed
    body = document.decode(disk.read(str(here / "remotes" / "origin.json")))
    with opened(str(there)) as lake:
        head = lake.store.refs.head("main").move
        assert (body["name"], body["url"], body["lake"]) == (
            "origin",
            str(there),
            lake.store.lake_id,
        )
    seen = {"number": head.number, "generation": head.generation, "snapshot": head.snapshot}
    assert body["branches"]["main"]["seen"] == seen
    assert body["branches"]["main"]["common"]["local"]["snapshot"] == snapshot(str(here))


def test_what_came_from_a_remote(pushed: tuple[Path, Path], home: Path) -> None:
    """F8.19, F14.7: a note of segments of each download, and of each push to a directory; gc puts
    those of a day ago together, without what is gone."""
    there, clone_path = pushed[1], home / "clone"
    clone(str(there), str(clone_path))
    add(str(pushed[0]), "more")
    push(str(pushed[0]))
    pull(str(clone_path))
    notes = clone_path / "gc" / "received"
    entries = statements.segment_entries(clone_path)
    assert _noted(notes) == [[entry["key"]] for entry in sorted(entries, key=lambda e: e["key"])]
    assert _noted(there / "gc" / "received") == _noted(notes)
    old = time.time() - 100_000
    for file in notes.iterdir():
        assert file.name == f"{hashlib.sha256(file.read_bytes()).hexdigest()[:32]}.json"
        os.utime(file, (old, old))
    with opened(str(clone_path)) as lake:
        lake.compact()
        lake.gc()
        assert _noted(notes) == [sorted(entry["key"] for entry in entries)]
        for file in notes.iterdir():
            os.utime(file, (old, old))
        known.remove(lake.store, "origin")
        lake.expire()
        lake.gc()
    assert _noted(notes) == []


def _noted(notes: Path) -> list[list[str]]:
    return sorted(document.decode(file.read_bytes())["segments"] for file in notes.iterdir())


def test_what_a_remote_holds(pushed: tuple[Path, Path]) -> None:
    """F8.9: the files of a lake with an id of its own; each push is one move named `push`."""
    here, there = pushed
    with opened(str(there)) as lake, opened(str(here)) as own:
        before = lake.store.refs.head("main").move
        assert before.op == "push"
        assert lake.store.lake_id != own.store.lake_id
    assert snapshot(str(there)) == snapshot(str(here))
    add(str(here), "more")
    push(str(here))
    with opened(str(there)) as lake:
        after = lake.store.refs.head("main").move
    assert (after.number, after.generation) == (before.number + 1, before.generation)
    assert after.wal == before.wal


def test_what_a_merge_adds(pushed: tuple[Path, Path], home: Path) -> None:
    """F7.5, F7.14: theirs as they are, then ours in new segments, numbered on; the generation is
    one higher, and the message says which numbers came and ends in the move whose state came."""
    here, there, other = pushed[0], pushed[1], home / "other"
    clone(str(there), str(other))
    add(str(here), "more", 5)
    push(str(here))
    add(str(other), "own", 3)
    before, theirs = rows(str(other)), rows(str(here))
    assert pull(str(other), merge=True).refs["main"] == "merged"
    after = rows(str(other))
    assert after[: len(theirs)] == theirs
    assert [row[1:] for row in after[len(theirs) :]] == [row[1:] for row in before[-3:]]
    assert [row[0] for row in after] == list(range(len(after)))
    with opened(str(other)) as lake, opened(str(there)) as remote:
        move, head = lake.store.refs.head("main").move, remote.store.refs.head("main").move
        place = f"move {head.number} of generation {head.generation}, state {head.snapshot}"
        count = len(theirs) - len(before) + 3
        assert (move.op, move.generation) == ("merge", 1)
        assert move.message.endswith(f"{count} events from {len(before) - 3} on came; {place}")
        state = lake.store.state("main")
        assert state.parent == head.snapshot
        own = {entry.key: entry for entry in lake.store.manifests.segments(state)}
        foreign = remote.store.manifests.segments(remote.store.state("main"))
        assert all(own[entry.key] == entry for entry in foreign)
        lake.append({"type": "more", "id": "more-0"})
        assert lake.count() == len(after)


def test_what_a_registry_holds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F8.12: objects as blobs of their digests, all else as tags that list what they need; F23.4:
    after an erasure what is read instead."""
    monkeypatch.setenv("DOCKER_CONFIG", str(home))
    monkeypatch.setattr(oci, "SETTLING", 0.0)
    path = home / "lake"
    add(str(path), "first")
    (home / "app").mkdir()
    (home / "app" / "file").write_bytes(b"content")
    with registry_server.served() as host:
        with opened(str(path)) as lake:
            save_state(lake, {"app": str(home / "app")}, name="_a b")
            known.add(lake.store, "origin", f"oci://{host}/a")
        push(str(path))
        push(str(path), "_a b")

        def get(place: str) -> bytes:
            accept = {"Accept": "application/vnd.oci.image.manifest.v1+json, " + oci.INDEX_TYPE}
            request = urllib.request.Request(f"http://{host}/v2/a/{place}", headers=accept)
            with urllib.request.urlopen(request, timeout=240) as answer:
                return bytes(answer.read())

        tags = json.loads(get("tags/list"))["tags"]
        listed = {tag for tag in tags if tag.startswith("_l") and len(tag) == 66}
        assert sorted(set(tags) - listed) == ["__a_20b", "_lakelog", "main", "main_m1"]
        assert get("manifests/main") == get("manifests/main_m1")
        config = json.loads(get("manifests/_lakelog"))
        assert config["artifactType"] == "application/vnd.lakelog.document.v1"
        index = json.loads(get("manifests/__a_20b"))
        assert index["artifactType"] == "application/vnd.lakelog.snapshot.v1"
        assert {f"_l{m['digest'].removeprefix('sha256:')}" for m in index["manifests"]} <= listed
        first, *lists = (json.loads(get(f"manifests/{m['digest']}")) for m in index["manifests"])
        own = get(f"blobs/{first['layers'][0]['digest']}")
        assert own == (path / "refs" / "tags" / "_a%20b.json").read_bytes()
        title = "org.opencontainers.image.title"
        layers = {layer["annotations"][title]: layer for each in lists for layer in each["layers"]}
        assert {name.partition("/")[0] for name in layers} == {"segments", "ids", "states"}
        assert len(layers) == sum(len(each["layers"]) for each in lists)
        for name, layer in layers.items():
            assert get(f"blobs/{layer['digest']}") == (path / name).read_bytes()
            in_name = Path(name).name.partition(".")[0]
            assert name.startswith("states/") or layer["digest"] == f"sha256:{in_name}"
        kinds = [m["annotations"]["vnd.lakelog.kind"] for m in index["manifests"]]
        assert "states" in kinds

        with opened(str(path)) as lake:
            lake.erase(where="true", why="asked")
        push(str(path))
        state = document.decode((path / "refs/tags/_a%20b.json").read_bytes())["snapshot"]
        states = json.loads(get("manifests/_xstates.json"))["layers"][0]
        stand_in = document.decode(get(f"blobs/{states['digest']}"))["states"][state]
        index = json.loads(get("manifests/__a_20b"))
        first, *lists = (json.loads(get(f"manifests/{m['digest']}")) for m in index["manifests"])
        titles = [layer["annotations"][title] for layer in first["layers"]]
        assert titles[1:] == ["lakelog.json", "erasures/states.json"]
        names = {layer["annotations"][title] for each in lists for layer in each["layers"]}
        assert f"manifests/{stand_in[:2]}/{stand_in}.json.zst" in names
        assert not any(name.startswith("segments/") for name in names)
        assert b"first" not in get(f"blobs/{first['layers'][0]['digest']}").partition(b"\n")[2]


def test_a_change_of_lakelog_json_is_counted(tmp_path: Path) -> None:
    """F8.20: each change in the directory follows the one before, also where settings come back."""
    with lakelog.open(str(tmp_path / "lake")) as lake:
        file, texts = Path(lake.store.paths.config), list[bytes]()
        for hours in (1, 2, 1, 2):
            texts.append(file.read_bytes())
            lake.store.change_settings(lakelog.Settings(gc_grace_hours=hours))
            digest = hashlib.sha256(texts[-1]).hexdigest()
            follows = tmp_path / "lake" / "gc" / f"config-{digest}.json"
            assert follows.read_bytes() == file.read_bytes()
    assert [document.decode(text).get("changes", 0) for text in texts] == [0, 1, 2, 3]


def test_what_a_push_over_sftp_has_just_made_is_followed(tmp_path: Path) -> None:
    """F8.20: also where it sleeps before it replaces the file; what was put back is not."""
    with lakelog.open(str(tmp_path / "lake")) as lake:
        file = Path(lake.store.paths.config)
        before = file.read_bytes()
        lake.store.change_settings(lakelog.Settings(gc_grace_hours=1))
        pushed = file.read_bytes()
        theirs = document.encode({**document.decode(pushed), "theirs": 1})
        follows = tmp_path / "lake" / "gc" / f"config-{hashlib.sha256(pushed).hexdigest()}.json"
        follows.write_bytes(theirs)
        lake.store.change_settings(lakelog.Settings(gc_grace_hours=2))
        after = document.decode(file.read_bytes())
        assert (after["theirs"], after["settings"]) == (1, {"gc_grace_hours": 2})
        file.write_bytes(before)
        lake.store.change_settings(lakelog.Settings(gc_grace_hours=3))
        assert "theirs" not in document.decode(file.read_bytes())
        follows = tmp_path / "lake" / "gc" / f"config-{hashlib.sha256(before).hexdigest()}.json"
        assert follows.read_bytes() == file.read_bytes()


def test_what_follows_a_lakelog_json(pushed: tuple[Path, Path]) -> None:
    """F8.20: who changes it at a remote goes on from what followed it, also where that one died."""
    _, there = pushed
    before = (there / "lakelog.json").read_bytes()
    follows = there / "gc" / f"config-{hashlib.sha256(before).hexdigest()}.json"
    theirs = document.encode({**document.decode(before), "theirs": 1})
    follows.write_bytes(theirs)
    with known.connected(str(there)) as remote:
        Site(remote).change_config(lambda _: {"ours": 2})
    assert follows.read_bytes() == theirs
    after = (there / "lakelog.json").read_bytes()
    assert document.decode(after) == {**document.decode(theirs), "ours": 2}
    digest = hashlib.sha256(theirs).hexdigest()
    assert (there / "gc" / f"config-{digest}.json").read_bytes() == after
