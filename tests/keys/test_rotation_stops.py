"""A rotation of master keys may be stopped at every change it makes to a disk, in the lake and
beside it: the key of before or the new one opens all that is there, and the same call ends it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.errors import LakelogError
from lakelog.keys.vault import VAULT
from lakelog.protect import PROTECTIONS
from tests.support import cli, protected
from tests.support.effort import IS_WHOLE
from tests.support.protected import payloads, shown
from tests.support.scratch import memory

CHANGES = (
    "open write pwrite ftruncate fsync fdatasync link unlink replace rename mkdir rmdir".split()
)
VARIABLES = ("LAKELOG_KEY", "LAKELOG_KEY_FILE", "LAKELOG_KEY_COMMAND", "LAKELOG_KMS_COMMAND")
SERVICE = """import base64, sys
data = base64.b64decode(sys.stdin.read())
print(base64.b64encode(bytes(byte ^ {} for byte in data)).decode())
"""
KINDS = ("file", "environment", "command", "service", "default")


def environment(home: Path, kind: str, which: str) -> dict[str, str]:
    """What somebody sets who gives the `old` key or the `new` one."""
    file = home / f"{which}.key"
    held = file.read_text().strip() if file.exists() else "none"
    return {
        "file": {"LAKELOG_KEY_FILE": str(file)},
        "environment": {"LAKELOG_KEY": held},
        "command": {"LAKELOG_KEY_COMMAND": f"cat {file}"},
        "service": {"LAKELOG_KMS_COMMAND": f"{sys.executable} -S {home}/{which}.py"},
        "default": {},
    }[kind]


@contextlib.contextmanager
def given(home: Path, kind: str, which: str) -> Iterator[None]:
    """Be as a new process with one of the keys."""
    PROTECTIONS.clear()
    VAULT.lakes.clear()
    VAULT._secrets.clear()
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        for name, value in environment(home, kind, which).items():
            patch.setenv(name, value)
        patch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        patch.setenv("LAKELOG_SUBJECT_KEYS", str(home / "keys"))
        yield


def create(home: Path, kind: str) -> tuple[str, ...]:
    """Create an encrypted lake with protected fields; return the call that rotates its key."""
    for which, number in (("old", 90), ("new", 17)):
        (home / f"{which}.py").write_text(SERVICE.format(number))
    if kind != "default":
        (home / "old.key").write_text("5a" * 32)
        (home / "old.key").chmod(0o600)
    (home / "keys").mkdir()
    with given(home, kind, "old"):
        cli.run(home / "lake", "init", "--encrypt")
        with lakelog.open(home / "lake") as lake:
            lake.protect(protected.FIELDS)
            protected.append(lake, range(10))
            lake.settle()
            protected.append(lake, range(10, 12))
    new = {
        "service": ("--kms", environment(home, kind, "new").get("LAKELOG_KMS_COMMAND", "")),
        "default": (),
    }.get(kind, (str(home / "new.key"),))
    return ("key", "rotate", *new)


def die(number: int, lake: Path, words: tuple[str, ...]) -> bool:
    """Whether a process that dies before a change came to its end; what it had not synced is half
    there."""
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9)
        return code == 0
    counter = itertools.count(1)

    def guarded(name: str, real: Any, *args: Any, **more: Any) -> Any:
        is_change = name != "open" or args[1] & (os.O_WRONLY | os.O_RDWR)
        if is_change and next(counter) == number:
            with contextlib.suppress(OSError):
                if name in ("fsync", "fdatasync"):
                    os.truncate(args[0], os.fstat(args[0]).st_size // 2)
            os._exit(9)
        return real(*args, **more)

    try:
        for name in CHANGES:
            real = getattr(os, name)
            setattr(os, name, lambda *a, _n=name, _r=real, **m: guarded(_n, _r, *a, **m))
        cli.run(lake, *words)
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.matrix
@pytest.mark.parametrize("kind", KINDS)
def test_a_rotation_may_stop_at_every_change(kind: str, tmp_path: Path) -> None:
    """Nobody is without a key that opens the lake and its protected fields."""
    home, kept = Path(memory() or tmp_path, f"rotation-{os.getpid()}-{kind}"), tmp_path / "kept"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    try:
        words = create(home, kind)
        shutil.copytree(home, kept)
        number, is_whole = 0, False
        while not is_whole:
            number += 1 if IS_WHOLE else 4
            shutil.rmtree(home)
            shutil.copytree(kept, home)
            with given(home, kind, "old"):
                is_whole = die(number, home / "lake", words)
            where = f"stopped before change {number}"
            works = next((w for w in ("old", "new") if _opens(home, kind, w)), "")
            assert works, where
            with given(home, kind, works):
                cli.run(home / "lake", *words)
            assert _opens(home, kind, "new"), where
            assert kind == "default" or not _opens(home, kind, "old"), where
            names = {path.suffix for path in (home / "keys").iterdir()}
            assert names == {".subjects", ".lock"}, where
        assert number > 12
    finally:
        shutil.rmtree(home)


def _opens(home: Path, kind: str, which: str) -> bool:
    lake = home / "lake"
    with (
        given(home, kind, which),
        contextlib.suppress(LakelogError),
        lakelog.open(lake, create=False) as opened,
    ):
        return payloads(opened) == shown(range(12)) and opened.verify().intact
    return False
