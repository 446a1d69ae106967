"""Keys and protected fields of a lake that several processes change at once: none is taken back."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lakelog.errors import NotAllowed
from lakelog.keys.master import MasterKey
from lakelog.store import Store
from tests.support import encrypted, protected
from tests.support.cli import run

_OTHER = "7b" * 32
_CHANGES = 3


def _at_once(lake: str, *commands: list[str]) -> list[subprocess.CompletedProcess[str]]:
    """Run commands together, each in a process of its own."""

    def call(words: list[str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lakelog", "--lake", lake, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(len(commands)) as pool:
        return list(pool.map(call, commands))


def _config(lake: str) -> dict[str, dict[str, list[str]]]:
    body: dict[str, dict[str, list[str]]] = json.loads(Path(lake, "lakelog.json").read_bytes())
    return body


def test_concurrent_changes_keep_each_data_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new data key, which encrypts from then on, stays whatever others write at the time."""
    lake = encrypted.create(tmp_path / "lake", monkeypatch)
    commands = [["key", "rotate", "--data"]] * _CHANGES
    commands += [["config", "set", f"history_days={9 + n}"] for n in range(_CHANGES)]
    ended = _at_once(lake, *commands)
    assert [process.returncode for process in ended] == [0] * 2 * _CHANGES
    assert len(_config(lake)["encryption"]["keys"]) == 1 + _CHANGES


def test_a_process_with_older_keys_takes_back_no_data_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it adds comes to those that another process has made since it opened the lake."""
    root = encrypted.create(tmp_path / "lake", monkeypatch)
    store = Store.load(root)
    assert store.paths.keys is not None
    ring, master = store.paths.keys.ring, MasterKey(bytes.fromhex(encrypted.KEY), "LAKELOG_KEY")
    _at_once(root, ["key", "rotate", "--data"])
    (newest,) = _config(root)["encryption"]["keys"].keys() - ring.keys.keys()
    added = ring.with_new_key(master)
    store.change_keys(added, master)
    encryption = _config(root)["encryption"]
    assert set(encryption["keys"]) == {*ring.keys, newest, added.key}
    assert encryption["key"] == added.key
    # Keys that it has not cannot be wrapped by another master key.
    _at_once(root, ["key", "rotate", "--data"])
    other = MasterKey(bytes.fromhex(_OTHER), "LAKELOG_KEY")
    before = Path(root, "lakelog.json").read_bytes()
    with pytest.raises(NotAllowed, match="has just changed the keys of the lake"):
        store.change_keys(added.rotated(other), other)
    assert Path(root, "lakelog.json").read_bytes() == before


def test_concurrent_protections_end_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field that one process protects stays so whatever others protect at the time."""
    lake = tmp_path / "lake"
    protected.keys_in(tmp_path, monkeypatch)
    run(lake, "init")
    run(lake, "config", "protect", "email")
    names = [f"field{n}" for n in range(_CHANGES)]
    ended = _at_once(str(lake), *(["config", "protect", name] for name in names))
    assert [process.returncode for process in ended] == [0] * _CHANGES
    assert {*_config(str(lake))["protect"]["fields"]} == {"email", *names}
