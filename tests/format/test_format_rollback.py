"""What a rollback of several parts writes, and the policy (FORMAT.md, 8)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lakelog import document
from lakelog.disk import disk
from lakelog.errors import NotAllowed
from lakelog.rollback.rollback import rollback
from lakelog.state.rewind import Rollbacks
from lakelog.state.state import save_state
from tests.support.lakes import opened


def test_policy(tmp_path: Path) -> None:
    """F8.10: nobody is denied without the file, everybody by one that cannot be read."""
    with opened(str(tmp_path / "lake")) as lake:
        lake.gc()
        lake.backup(tmp_path / "plain")
        (tmp_path / "lake" / "policy.toml").write_text('[allow]\ndefault = ["*"]\n')
        lake.gc()
        lake.backup(tmp_path / "copy")
        (tmp_path / "lake" / "policy.toml").write_text("[allow")
        with pytest.raises(NotAllowed):
            lake.gc()
    assert not (tmp_path / "plain" / "policy.toml").exists()
    assert (tmp_path / "copy" / "policy.toml").read_text() == '[allow]\ndefault = ["*"]\n'


def test_documents_of_a_rollback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F8.11: the intent is there before the first effect, and is kept by its safety tag without
    steps; copies leave it out."""
    home, root = tmp_path / "app", tmp_path / "lake"
    home.mkdir()
    (home / "a").write_text("old")
    pending: list[bytes] = []
    link = disk.link

    def linked(source: str, target: str) -> None:
        path = root / "refs" / "rollback.json"
        if path.exists():
            pending.append(path.read_bytes())
        link(source, target)

    with opened(str(root)) as lake:
        save_state(lake, {"app": str(home)}, name="v1", deployment={"name": "api", "hash": "h"})
        (home / "a").write_text("new")
        monkeypatch.setattr(disk, "link", linked)
        done = rollback(lake, "v1", ("data", "state"))
        move = lake.log(1)[0].move
        lake.backup(tmp_path / "copy")
    body = document.decode(pending[0])
    assert body["commit"] == move.commit
    assert (body["op"], body["branch"], body["parts"]) == ("rollback", "main", ["data", "state"])
    (step,) = body["steps"]
    assert step["target"] == str(home / "a")  # all that differs
    assert step["inode"] == (home / "a").stat().st_ino
    machine = document.decode((root / "machine.json").read_bytes())["machine"]
    whose = (body["machine"], body["lake"], body["inode"])
    assert whose == (machine, str(root), root.stat().st_ino)
    kept = document.decode((root / "refs" / "rollbacks" / f"{done.safety}.json").read_bytes())
    assert kept == body | {"steps": []}
    assert not (root / "refs" / "rollback.json").exists()
    copied = tmp_path / "copy" / "refs" / "rollbacks" / f"{done.safety}.json"
    assert document.decode(copied.read_bytes()) == kept
    assert not (tmp_path / "copy" / "refs" / "rollback.json").exists()
    assert not (tmp_path / "copy" / "machine.json").exists()
    with opened(str(root)) as lake:
        assert Rollbacks(lake.store).find(move.commit)


def test_deployment_of_a_state(tmp_path: Path) -> None:
    """F21.1: a state entry may say in which revision it was saved; other moves keep that."""
    home = tmp_path / "app"
    home.mkdir()
    ran = {"name": "api", "namespace": "n", "hash": "h1", "image": "api:1"}
    with opened(str(tmp_path / "lake")) as lake:
        save_state(lake, {"app": str(home)}, name="v1", deployment=ran)
        lake.snapshot("later")
        (record,) = lake.store.manifests.records(lake.store.state("main"), "state")
    assert json.loads(json.dumps(record.members))["deployment"] == ran
