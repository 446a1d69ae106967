"""Lakes and remotes of the same keys learn from each other which fields are protected."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import InvalidKey
from tests.support import encrypted, protected
from tests.support.cli import run
from tests.support.protected import PLANTED

BY_EMAIL = """\
-- name: by_email
-- map
SELECT data->>'email' AS email, count(*) AS n FROM segment GROUP BY ALL
-- merge
SELECT email, sum(n) AS n FROM partials GROUP BY ALL
-- finish
SELECT email, n FROM state
"""


def _append(path: Path, number: int) -> None:
    with lakelog.open(path) as lake:
        protected.append(lake, [number])
        lake.settle()


def _plain_with_protected_clone(root: Path) -> tuple[Path, Path, Path]:
    """A plain lake with one event, its remote, and a clone that protects a field since."""
    lake, hub, clone = (root / name for name in ("lake", "hub", "clone"))
    _append(lake, 1)
    run(lake, "remote", "add", "origin", str(hub))
    run(lake, "push")
    run(root / "none", "clone", str(hub), str(clone))
    run(clone, "config", "protect", "email")
    return lake, hub, clone


def _fields(path: Path) -> set[str]:
    with lakelog.open(path) as lake:
        assert lake.store.paths.protection
        return set(lake.store.paths.protection.fields)


def test_fields_that_are_protected_stay_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is protected later comes to those before, and views go on reading all of them."""
    protected.keys_in(tmp_path, monkeypatch)
    with lakelog.open(tmp_path / "lake") as lake:
        lake.protect(["email"], types=["SIGNUP"])
        protected.append(lake, range(3))
        lake.settle()
        lake.protect(["person"], types=["LOGIN"])
        protected.append(lake, range(3, 6))
        lake.settle()
        protection = lake.store.paths.protection
        assert protection
        assert (protection.fields, protection.types) == (("email", "person"), ("SIGNUP", "LOGIN"))
        mails = {row["email"] for row in lake.view(BY_EMAIL).to_pylist()}
        assert mails == {f"{PLANTED}{n}@example.org" for n in range(5)}
        lake.protect(["person"])
        assert lake.store.paths.protection
        assert lake.store.paths.protection.types == ()
    assert encrypted.found(tmp_path / "lake", [f"{PLANTED}4@example.org"]) == []


@pytest.mark.parametrize("first_step", ["pull", "push"])
def test_a_clone_learns_what_is_protected_later(
    first_step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It seals those fields from its next exchange on, and never takes them off a remote."""
    hub, clone = tmp_path / "hub", tmp_path / "clone"
    with protected.create(tmp_path / "lake", monkeypatch):
        pass
    run(tmp_path / "lake", "remote", "add", "origin", str(hub))
    _append(tmp_path / "lake", 1)
    run(tmp_path / "lake", "push")
    run(tmp_path / "none", "clone", str(hub), str(clone))
    run(clone, "config", "protect", "phone")
    with lakelog.open(tmp_path / "lake") as lake:
        lake.protect(["plan"])
    run(tmp_path / "lake", "push")
    run(clone, first_step)
    assert _fields(clone) == {*protected.FIELDS, "phone", "plan"}
    _append(clone, 2)
    run(clone, "push")
    assert _fields(hub) == {*protected.FIELDS, "phone", "plan"}
    run(tmp_path / "lake", "pull")
    assert _fields(tmp_path / "lake") == {*protected.FIELDS, "phone", "plan"}
    run(tmp_path / "none", "clone", str(hub), str(tmp_path / "third"))
    assert _fields(tmp_path / "third") == {*protected.FIELDS, "phone", "plan"}


def test_a_plain_lake_learns_it_from_the_push_that_would_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has plain is noted at the remote, as what was there before the fields were
    protected; what comes is sealed."""
    protected.keys_in(tmp_path, monkeypatch)
    lake, hub, clone = _plain_with_protected_clone(tmp_path)
    run(clone, "push")
    _append(lake, 2)
    run(lake, "push")
    assert _fields(lake) == {"email"}
    with lakelog.open(hub) as opened:
        protection = opened.store.paths.protection
        assert protection
        arrived = opened.sql("SELECT max(epoch_us(ingested_at)) FROM events").fetchone()
        assert arrived
        assert protection.since > arrived[0]
        mails = {row["email"] for row in opened.view(BY_EMAIL).to_pylist()}
        assert mails == {f"{PLANTED}{n}@example.org" for n in (1, 2)}
    _append(lake, 3)
    run(lake, "push")
    assert encrypted.found(hub, [f"{PLANTED}3@example.org"]) == []


def test_a_pull_destroys_the_keys_of_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the clone's own copy of their file; an older copy is refused from then on, until a repair
    destroys them in it. One that comes where none was is named by the status."""
    lake, hub = tmp_path / "lake", str(tmp_path / "hub")
    with protected.create(lake, monkeypatch) as opened:
        protected.append(opened, range(5))
    run(lake, "remote", "add", "origin", hub)
    run(lake, "push")
    folders = {name: tmp_path / f"keys-of-{name}" for name in ("clone", "keyless")}
    for name, folder in folders.items():
        shutil.copytree(tmp_path / "keys", folder)
        run(tmp_path / "none", "clone", hub, str(tmp_path / name))
    run(lake, "erase", "--subject", "s1", "--why", "asked", "--yes")
    run(lake, "push")
    before = protected.key_file(tmp_path).name
    for name in folders:
        monkeypatch.setenv("LAKELOG_SUBJECT_KEYS", str(folders[name]))
        copy = folders[name] / before
        older = copy.read_bytes()
        if name == "keyless":
            copy.unlink()
        assert "done here, too" in run(tmp_path / name, "pull").stderr
        if name == "clone":
            with lakelog.open(tmp_path / name) as opened:
                assert protected.payloads(opened) == protected.shown(range(5), ("s1",))
            run(tmp_path / name, "erase", "status")
            assert "1 destroyed" in run(tmp_path / name, "doctor").stdout
        else:
            assert "is missing: protected fields are NULL" in run(tmp_path / name, "doctor").stdout
        copy.write_bytes(older)
        assert "`lakelog repair`" in run(tmp_path / name, "doctor", code=1).stdout
        status = run(tmp_path / name, "erase", "status", code=3)
        assert "`lakelog repair` with its master key" in status.stdout
        if name == "clone":
            refused = pytest.raises(InvalidKey, match="older file")
            with lakelog.open(tmp_path / name) as opened, refused:
                protected.payloads(opened)
        run(tmp_path / name, "repair", "--dry-run")
        run(tmp_path / name, "erase", "status", code=3)
        assert "destroyed in it again" in run(tmp_path / name, "repair").stderr
        assert "again" not in run(tmp_path / name, "repair").stderr
        run(tmp_path / name, "erase", "status")
        with lakelog.open(tmp_path / name) as opened:
            assert protected.payloads(opened) == protected.shown(range(5), ("s1",))
        # By a program, too, and where something is damaged besides.
        copy.write_bytes(older)
        with lakelog.open(tmp_path / name) as opened:
            assert "destroyed in it again" in str(opened.repair().done)
        copy.write_bytes(older)
        (tmp_path / name / "refs/tags/odd.json").write_bytes(b"damaged")
        assert "destroyed in it again" in run(tmp_path / name, "repair", "--yes").stderr


def test_a_plain_lake_forgets_answers_when_it_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it kept of fields that its remote protects now is deleted, and they may be plain in its
    own events until then."""
    protected.keys_in(tmp_path, monkeypatch)
    lake, _, clone = _plain_with_protected_clone(tmp_path)
    _append(clone, 2)
    run(clone, "push")
    _append(lake, 3)
    with lakelog.open(lake) as opened:
        opened.view(BY_EMAIL)
    assert list((lake / "cache/views").rglob("*.piece"))
    run(lake, "pull", "--merge")
    assert not list((lake / "cache/views").rglob("*.piece"))
    with lakelog.open(lake) as opened:
        protection = opened.store.paths.protection
        assert protection
        arrived = opened.sql("SELECT max(epoch_us(ingested_at)) FROM events").fetchone()
        assert arrived
        assert protection.since > arrived[0]
        assert len(opened.view(BY_EMAIL).to_pylist()) == 3
