"""Master keys: where they come from, and what is said where one is missing or wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from lakelog.errors import AlreadyExists, InvalidKey
from lakelog.keys import master
from lakelog.keys.keyring import KeyRing

HEX = "ab" * 32
VARIABLES = ("LAKELOG_KEY", "LAKELOG_KEY_FILE", "LAKELOG_KEY_COMMAND", "LAKELOG_KMS_COMMAND")
KMS = """
import base64, sys
data = base64.b64decode(sys.stdin.read())
print(base64.b64encode(bytes(byte ^ 90 for byte in data)).decode())
"""


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key of whoever runs the tests."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def key_file(path: Path, text: str = HEX, mode: int = 0o600) -> str:
    """Write a key to a file."""
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_every_source_gives_the_same_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment, a file, a command, in hex or base64, and the file of its id."""
    file = key_file(tmp_path / "key")
    encoded = "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s="
    ids = set()
    for name, value in (
        ("LAKELOG_KEY", HEX),
        ("LAKELOG_KEY", encoded),
        ("LAKELOG_KEY_FILE", file),
        ("LAKELOG_KEY_COMMAND", f"cat {file}"),
    ):
        monkeypatch.setenv(name, value)
        given = master.of_environment()
        assert given is not None
        ids.add(given.id)
        monkeypatch.delenv(name)
    (master_id,) = ids
    assert master.of_environment() is None
    generated = master.generate()
    assert os.stat(generated.origin).st_mode & 0o777 == 0o600
    assert master.find(generated.id).id == generated.id != master_id


def test_data_keys_open_with_the_master_key_that_wrapped_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a rotation with its successor alone; both times they are the same keys."""
    monkeypatch.setenv("LAKELOG_KEY", HEX)
    first = master.find(master.MasterKey(bytes.fromhex(HEX), "").id)
    ring = KeyRing.generate(first).with_new_key(first)
    secrets = ring.unlocked()
    assert len(secrets) == 2
    second = master.MasterKey(bytes(32), "the second")
    rotated = KeyRing.of_json(ring.rotated(second).to_json())
    assert rotated.unlocked(second) == secrets
    assert rotated.former == (first.id,)
    with pytest.raises(InvalidKey, match="which was rotated away: give its successor"):
        rotated.unlocked()
    with pytest.raises(InvalidKey, match=r"wrapped data key .* was changed"):
        rotated.unlocked(first)


def test_a_command_wraps_where_the_master_key_stays_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A key service by command; one that fails or answers nonsense is named."""
    script = tmp_path / "kms.py"
    script.write_text(KMS)
    service = master.KeyService(f"{sys.executable} {script}")
    ring = KeyRing.generate(service)
    monkeypatch.setenv("LAKELOG_KMS_COMMAND", service.command)
    assert ring.master == "kms"
    assert ring.unlocked() == ring.unlocked(service)
    script.write_text("import sys; print('access denied', file=sys.stderr); sys.exit(3)")
    with pytest.raises(InvalidKey, match="ended with code 3: access denied"):
        ring.unlocked()
    script.write_text("print('AAAA')")
    with pytest.raises(InvalidKey, match="unwrapped no data key of 32 bytes"):
        ring.unlocked()


def test_a_missing_or_wrong_key_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line each: no key, another key, what is no key, and a file that others may read."""
    ring = KeyRing.generate(master.MasterKey(bytes(32), "the right one"))
    with pytest.raises(InvalidKey, match=f"master key {ring.master}: set LAKELOG_KEY_FILE"):
        ring.unlocked()
    monkeypatch.setenv("LAKELOG_KEY", HEX)
    with pytest.raises(InvalidKey, match=f"LAKELOG_KEY gives .* encrypted with {ring.master}"):
        ring.unlocked()
    monkeypatch.setenv("LAKELOG_KEY", "letters")
    with pytest.raises(InvalidKey, match="LAKELOG_KEY: no master key, which is 64 hex digits"):
        ring.unlocked()
    monkeypatch.delenv("LAKELOG_KEY")
    monkeypatch.setenv("LAKELOG_KEY_FILE", key_file(tmp_path / "open", mode=0o644))
    with pytest.raises(InvalidKey, match="other users may read this key: run chmod 600"):
        ring.unlocked()
    monkeypatch.setenv("LAKELOG_KEY_FILE", str(tmp_path / "gone"))
    with pytest.raises(InvalidKey, match="the master key cannot be read: No such file"):
        ring.unlocked()


def test_a_key_is_never_overwritten_nor_kept_in_a_lake(tmp_path: Path) -> None:
    """A file that is there is read, another is made; below a lakelog.json none is."""
    path = str(tmp_path / "new.key")
    made = master.pick(path)
    assert master.pick(path).id == made.id
    with pytest.raises(AlreadyExists, match="keys are not overwritten"):
        master.generate(path)
    (tmp_path / "lakelog.json").touch()
    with pytest.raises(InvalidKey, match=r"is in the lake .*: keep its key elsewhere"):
        master.pick(path)
