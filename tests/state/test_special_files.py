"""Saved states: what is neither file nor directory, and who may read what is restored, and what
no time tells."""

from __future__ import annotations

import mmap
import os
import socket
import stat
import struct
import time
from pathlib import Path

import lakelog
from lakelog.chunks import state_files
from lakelog.state.catalog import StateCatalog
from lakelog.state.restore import restore_state
from lakelog.state.state import save_state
from tests.support import state_trees
from tests.support.requirements import give_up
from tests.support.state_lakes import lake, make

__all__ = ["lake"]
ACL, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def acl(*named: tuple[int, int], other: int = 0) -> bytes:
    """Return an ACL of rwx for the owner and r-x for its group and the named users."""
    entries = [(1, 7, -1), *((2, bits, user) for user, bits in named), (4, 0, -1), (16, 7, -1)]
    packed = [struct.pack("<HHi", *entry) for entry in [*entries, (32, other, -1)]]
    return struct.pack("<I", 2) + b"".join(packed)


def set_acl(path: Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value)
    except OSError:
        give_up("a file system with ACLs")


def test_pipes_sockets_and_names_of_links_come_back(tmp_path: Path, lake: lakelog.Lake) -> None:
    """As what they are, and names of one thing as names of one thing."""
    home = make(tmp_path, {"a": b"1"})
    os.mkfifo(home / "pipe")
    (home / "pipe").chmod(0o2620)
    os.link(home / "pipe", home / "pipe2")
    (home / "link").symlink_to("nowhere")
    os.link(home / "link", home / "link2", follow_symlinks=False)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(home / "sock"))
        result = save_state(lake, {"app": str(home)})
    assert result.skipped == ()
    before = state_trees.facts(home)
    for path in home.iterdir():
        path.unlink()
    restore_state(lake, "latest")
    assert state_trees.facts(home) == before
    assert stat.S_ISFIFO(os.stat(home / "pipe").st_mode)
    assert lake.verify().intact


def test_writes_through_a_mapping_are_saved(tmp_path: Path, lake: lakelog.Lake) -> None:
    """A page that is written again before it went to the disk leaves the times as they were."""
    home = make(tmp_path, {"large": bytes(300_000), "small": bytes(9_000)})
    maps = {}
    for path in home.iterdir():
        with open(path, "r+b") as file:
            maps[path] = mmap.mmap(file.fileno(), 0)
    for content in (b"one", b"two", b"three"):
        for mapped in maps.values():
            mapped[: len(content)] = content
        time.sleep(0.03)  # beyond the time within which files are read again anyway
        save_state(lake, {"app": str(home)})
        for path in home.iterdir():
            saved = b"".join(StateCatalog(lake).read_file("latest", path.name))
            assert saved[: len(content)] == content, path.name


def test_older_versions_read_states_without_special_files(
    tmp_path: Path, lake: lakelog.Lake
) -> None:
    """Only an index that they would refuse has the later format."""
    home = make(tmp_path, {"a": b"1"})
    os.link(home / "a", home / "b")
    first = save_state(lake, {"app": str(home)}).state.directories[0]
    os.mkfifo(home / "pipe")
    second = save_state(lake, {"app": str(home)}).state.directories[0]
    paths = lake.store.paths
    for record, version in ((first, b'{"format":1,'), (second, b'{"format":2,')):
        data = state_files.read_file(paths.state_file(record.index, ".json.zst"))
        assert state_files.unseal(data, record.index).startswith(version)


def test_restored_files_inherit_no_acl(tmp_path: Path, lake: lakelog.Lake) -> None:
    """A default ACL of the directory around it lets nobody into what is restored, and what
    no time tells."""
    home = make(tmp_path, {"secret": b"1", "sub/secret": b"2"})
    for path in (home / "secret", home / "sub" / "secret"):
        path.chmod(0o640)
    save_state(lake, {"app": str(home)}, name="one")
    before = state_trees.facts(home)
    around = tmp_path / "around"
    around.mkdir()
    set_acl(around, DEFAULT, acl((1234, 7), other=5))
    restore_state(lake, "one", to=str(around / "app"))
    assert state_trees.facts(around / "app") == before


def test_acls_come_back(tmp_path: Path, lake: lakelog.Lake) -> None:
    """Those that were saved, of a file and for what is made in a directory."""
    home = make(tmp_path, {"shared": b"1", "sub/a": b"2"})
    set_acl(home / "shared", ACL, acl((1234, 4)))
    set_acl(home / "sub", DEFAULT, acl((1234, 5)))
    save_state(lake, {"app": str(home)}, name="one")
    restore_state(lake, "one", to=str(tmp_path / "out"))
    assert state_trees.facts(tmp_path / "out") == state_trees.facts(home)
