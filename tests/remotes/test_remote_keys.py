"""Master keys and data keys of an encrypted lake that change between a push and a pull."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import encrypted, protected
from tests.support.cli import answer, run

OLD, NEW = {"LAKELOG_KEY": encrypted.KEY}, {"LAKELOG_KEY": "7b" * 32}


@pytest.fixture
def lakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A lake, and a clone of what it pushed."""
    lake, clone = Path(encrypted.create(tmp_path / "lake", monkeypatch)), tmp_path / "clone"
    protected.keys_in(tmp_path, monkeypatch)
    run(lake, "append", "type=T", "data.n=1")
    run(lake, "remote", "add", "origin", str(tmp_path / "hub"))
    run(lake, "push")
    run(tmp_path / "none", "clone", str(tmp_path / "hub"), str(clone))
    monkeypatch.delenv("LAKELOG_KEY")
    return lake, clone


def _new_key(folder: Path) -> str:
    path = folder / "new.key"
    path.touch(0o600)
    path.write_text(NEW["LAKELOG_KEY"])
    return str(path)


def _contents(lake: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in lake.rglob("*") if path.is_file()}


def _numbers(lake: Path, env: dict[str, str]) -> list[dict[str, str]]:
    return answer(lake, "sql", "SELECT data->>'n' AS n FROM events ORDER BY n", env=env)


def test_no_rows_are_pushed_that_only_a_former_master_key_opens(
    lakes: tuple[Path, Path], tmp_path: Path
) -> None:
    """The master key was rotated, and pushed; the clone made a data key under the one before."""
    lake, clone = lakes
    run(lake, "key", "rotate", _new_key(tmp_path), env=OLD)
    run(lake, "push", env=NEW)
    run(clone, "key", "rotate", "--data", env=OLD)
    run(clone, "append", "type=T", "data.n=2", env=OLD)
    said = run(clone, "push", code=1, env=OLD).stderr
    assert "give both the same one by `lakelog key rotate FILE`" in said
    assert answer(lake, "pull", env=NEW)["refs"]["main"] == "up to date"
    run(clone, "key", "rotate", _new_key(tmp_path), env=OLD)
    run(clone, "push", env=NEW)
    run(lake, "pull", env=NEW)
    assert _numbers(lake, NEW) == [{"n": "1"}, {"n": "2"}]


def test_a_clone_follows_a_rotated_master_key(lakes: tuple[Path, Path], tmp_path: Path) -> None:
    """Its pull says what to do, which brings all."""
    lake, clone = lakes
    run(lake, "key", "rotate", _new_key(tmp_path), "--data", env=OLD)
    run(lake, "append", "type=T", "data.n=2", env=NEW)
    run(lake, "push", env=NEW)
    said = run(clone, "pull", code=1, env=OLD).stderr
    assert "give both the same one by `lakelog key rotate FILE`" in said
    run(clone, "key", "rotate", _new_key(tmp_path), env=OLD)
    run(clone, "pull", env=NEW)
    assert _numbers(clone, NEW) == [{"n": "1"}, {"n": "2"}]


def test_a_check_reads_what_a_key_that_is_only_there_encrypts(
    lakes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, clone = lakes
    run(lake, "key", "rotate", "--data", env=OLD)
    run(lake, "append", "type=T", "data.n=2", env=OLD)
    run(lake, "push", env=OLD)
    encrypted.forget(monkeypatch)
    said = run(clone, "remote", "check", "origin", "--read-data", env=OLD).stderr
    assert said.startswith("intact: 1 branch or tag, 2 objects")


@pytest.mark.parametrize("option", [[], ["--fetch"]])
def test_a_dry_run_takes_over_no_keys(lakes: tuple[Path, Path], option: list[str]) -> None:
    """It counts what was encrypted with keys that are only there, and leaves the lake as it was;
    one of a merge receives what the keys are for, and no protected fields."""
    lake, clone = lakes
    run(lake, "key", "rotate", "--data", env=OLD)
    run(lake, "config", "protect", "email", env=OLD)
    run(lake, "append", "type=T", "data.n=2", env=OLD)
    run(lake, "push", env=OLD)
    before = _contents(clone)
    assert answer(clone, "pull", *option, "--dry-run", env=OLD)["objects"] == 1
    assert _contents(clone) == before
    run(clone, "append", "type=T", "data.n=3", env=OLD)
    run(clone, "pull", "--merge", "--dry-run", env=OLD)
    count = answer(clone, "sql", 'SELECT count(*) AS n FROM "origin/main".events', env=OLD)
    assert count == [{"n": 2}]
    assert '"protect"' not in (clone / "lakelog.json").read_text()
    run(clone, "pull", "--merge", env=OLD)
    assert '"protect"' in (clone / "lakelog.json").read_text()
