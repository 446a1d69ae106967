"""Remotes over SSH: the suite, on a loopback sshd, and what a connection adds."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import Settings
from lakelog.errors import MissingPackage, TransferRefused, Unreachable
from lakelog.ingest.quarantine import Quarantine
from lakelog.maintain import Sealer
from lakelog.paths import Paths
from lakelog.remotes import fetches as fetching
from lakelog.remotes import known
from lakelog.remotes.sftp import SftpClient
from lakelog.remotes.site import Site
from lakelog.remotes.ssh import SshRemote
from lakelog.store.lake_config import LakeConfig
from tests.support import ssh_server
from tests.support.lakes import opened
from tests.support.remote_suite import RemoteSuite, add, heads, push, rows
from tests.support.ssh_server import SshServer
from tests.support.volume_suite import RemoteVolumeSuite

pytestmark = pytest.mark.needs("ssh", "ssh-keygen", "sshd")
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """A server that runs for the tests of this module."""
    with ssh_server.running(tmp_path_factory.mktemp("ssh")) as running:
        yield running


@pytest.mark.matrix
class TestSsh(RemoteSuite, RemoteVolumeSuite):
    """A directory behind sshd, a new one for each test."""

    CUTS = 16

    @pytest.fixture
    def url(self, home: Path, server: SshServer, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("LAKELOG_SSH", server.command(shared=True))
        return server.url(home / "far" / str(next(_NUMBERS)))

    def test_a_remote_directory_is_a_lake(self, path: str, url: str, home: Path) -> None:
        push(path)
        there = str(next((home / "far").iterdir()))
        assert rows(there) == rows(path)
        with lakelog.open(there) as lake:
            assert lake.verify().problems == ()
            assert [n for n in os.listdir(lake.store.paths.gc) if n.startswith("push-")] == []
        assert list(Path(there).rglob(".tmp-*")) == []

    def test_a_version_that_a_push_takes_is_quarantined(
        self, path: str, url: str, home: Path
    ) -> None:
        push(path)
        with opened(str(next((home / "far").iterdir()))) as there, opened(path) as here:
            there.append({"type": "add", "subject": "s"}, expect={"s": 0})
            here.append({"type": "add", "subject": "s"}, expect={"s": 0})
            push(path)
            there.settle()
            assert list(there.stream("s")) == list(here.stream("s"))
            (line,) = there.sql("SELECT reason, line->>'subject' FROM quarantine").fetchall()
            assert line == (Sealer.TAKEN_VERSION, "s")
            assert Quarantine(there.store, "main").replay(there.engine).left == 1

    @pytest.mark.parametrize("is_first", [False, True])
    def test_concurrent_changes_there_and_by_a_push_lose_nothing(
        self, path: str, url: str, home: Path, is_first: bool
    ) -> None:
        """Neither has a lock that the other one sees: a data key, and all under it, would go."""
        push(path)
        local = LakeConfig(Paths(str(next((home / "far").iterdir()))))
        with known.connected(url) as connection:
            pushed = Site(connection).change_config
            ours, theirs = (pushed, local.change) if is_first else (local.change, pushed)
            waiting = [theirs]

            def members(_: Any) -> dict[str, int]:
                if waiting:
                    waiting.pop()(lambda _: {"theirs": 1})
                return {"ours": 1}

            ours(members)
        assert {"ours", "theirs"} <= local.read().keys()

    @pytest.mark.parametrize("late", [False, True])
    def test_gc_at_the_remote_takes_nothing_that_a_push_names(
        self, path: str, url: str, home: Path, monkeypatch: pytest.MonkeyPatch, late: bool
    ) -> None:
        """Before the lease gc deletes all that was uploaded, and it is sent again; after it, gc
        deletes nothing."""
        push(path)
        there = str(next((home / "far").iterdir()))
        with opened(there) as lake:
            lake.store.change_settings(Settings(gc_grace_hours=0))
        add(path, "more")
        name = "_await_gc" if late else "_make_lease"
        real, runs = getattr(SshRemote, name), list[int]()

        def hook(remote: SshRemote, lease: object) -> object:
            if not runs:
                with opened(there) as lake:
                    runs.append(lake.gc().deleted)
            return real(remote, lease)

        monkeypatch.setattr(SshRemote, name, hook)
        push(path)
        assert runs == [0] if late else runs[0] >= 2
        assert rows(there) == rows(path)
        with opened(there) as lake:
            assert lake.verify().problems == ()

    def test_a_push_that_slept_publishes_nothing(
        self, path: str, url: str, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A lease that gc took for dead can no longer become a ref."""
        push(path)
        there, before = str(next((home / "far").iterdir())), heads(url)
        with opened(there) as lake:
            lake.store.change_settings(Settings(gc_grace_hours=0))
        add(path, "more")
        real = Site.advance

        def sleeping(*words: Any, **options: Any) -> object:
            (file,) = Path(there, "gc").glob("push-*")
            os.utime(file, (0, 0))
            with opened(there) as lake:
                assert lake.gc().deleted >= 2
            assert not file.exists()
            return real(*words, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Site, "advance", sleeping)
            with pytest.raises(TransferRefused, match="run it again"):
                push(path)
        assert heads(url) == before
        assert push(path).refs == {"main": "updated"}
        with opened(there) as lake:
            assert lake.verify().problems == ()

    def test_a_push_waits_for_a_gc_that_deletes(
        self, path: str, url: str, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        push(path)
        marker = next((home / "far").iterdir()) / "gc" / "deleting"
        marker.touch()
        add(path, "more")
        looks = list[int]()

        def ends(seconds: float) -> None:
            looks.append(1)
            if len(looks) == 3:
                marker.unlink()

        with monkeypatch.context() as patch:
            patch.setattr("lakelog.remotes.ssh.time.sleep", ends)
            assert push(path).refs == {"main": "updated"}
        assert len(looks) >= 3
        add(path, "again")
        marker.touch()
        os.utime(marker, (0, 0))
        with pytest.raises(TransferRefused, match="run `lakelog gc` on that machine"):
            push(path)

    def test_a_lost_connection_is_made_again(
        self, path: str, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """ssh is killed after every few requests; the push goes on and sends nothing twice."""
        real, requests = SftpClient._ask, itertools.count(1)

        def ask(client: SftpClient, *words: Any, **more: Any) -> Any:
            if next(requests) % 150 == 0:
                client._process.kill()
            return real(client, *words, **more)

        monkeypatch.setattr(SftpClient, "_ask", ask)
        assert push(path).refs == {"main": "new"}
        assert next(requests) > 450


def lake_at(home: Path, url: str) -> str:
    """A lake of one event with a remote."""
    path = str(home / "lake")
    add(path, "one", 1)
    with opened(path) as lake:
        known.add(lake.store, "origin", url)
    return path


@pytest.fixture
def plain(server: SshServer, monkeypatch: pytest.MonkeyPatch) -> SshServer:
    """The server, to which each connection is made anew."""
    monkeypatch.setattr("lakelog.clients.connection.pause", lambda attempt: 0.0)
    monkeypatch.setenv("LAKELOG_SSH", server.command())
    return server


def refusal(path: str) -> str:
    """The one line with which a push ends."""
    with pytest.raises((Unreachable, TransferRefused)) as failed:
        push(path)
    assert "\n" not in str(failed.value)
    return str(failed.value)


def test_unknown_and_changed_host_keys_are_refused(
    home: Path, plain: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lake_at(home, plain.url(home / "far"))
    plain.trust("other_key")
    try:
        assert "ssh-keygen -R 127.0.0.1" in refusal(path)
        (plain.folder / "known_hosts").write_text("")
        assert "run `ssh 127.0.0.1` once" in refusal(path)
        # Nor can the user's own options turn the check off.
        monkeypatch.setenv("LAKELOG_SSH", plain.command("-o", "StrictHostKeyChecking=no"))
        assert "is not known" in refusal(path)
    finally:
        plain.trust()
    assert not (home / "far").exists()


def test_wrong_keys_and_hosts_are_one_line(
    home: Path, plain: SshServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lake_at(home, plain.url(home / "far"))
    authorized = plain.folder / "authorized_keys"
    text = authorized.read_text()
    authorized.write_text((plain.folder / "other_key.pub").read_text())
    try:
        assert "accepts none of your keys" in refusal(path)
    finally:
        authorized.write_text(text)
    monkeypatch.setenv("LAKELOG_SSH", "no-such-program")
    with pytest.raises(MissingPackage, match="install OpenSSH"):
        push(path)
    monkeypatch.setenv("LAKELOG_SSH", plain.command())
    with pytest.raises(Unreachable, match="Connection refused: run it again"):
        fetching.clone("ssh://127.0.0.1:9/x", str(home / "clone"))
    cut = home / "ssh"
    cut.write_text("#!/bin/sh\necho Connection to h closed by remote host. >&2\nexit 255\n")
    cut.chmod(0o700)
    monkeypatch.setenv("LAKELOG_SSH", str(cut))
    with pytest.raises(Unreachable, match="closed by remote host: run it again"):
        fetching.clone("ssh://h/x", str(home / "clone"))


def test_what_the_other_side_refuses_is_one_line(home: Path, plain: SshServer) -> None:
    with pytest.raises(lakelog.LakelogError, match="no lake"):
        fetching.clone(plain.url(home / "nowhere"), str(home / "clone"))
    (home / "file").write_text("")
    assert "the server refuses it" in refusal(lake_at(home, plain.url(home / "file" / "x")))


@pytest.mark.parametrize("missing", ["hardlink", "fsync", "posix-rename"])
def test_servers_that_cannot_store_safely_are_read_only(
    home: Path, plain: SshServer, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    path = lake_at(home, plain.url(home / "far"))
    push(path)
    real = SftpClient.await_version

    def without(client: SftpClient) -> None:
        real(client)
        client.extensions -= {f"{missing}@openssh.com"}

    monkeypatch.setattr(SftpClient, "await_version", without)
    fetching.clone(plain.url(home / "far"), str(home / "clone"))
    assert rows(str(home / "clone")) == rows(path)
    add(path, "more")
    assert "OpenSSH 6.5 or later" in refusal(path)


def test_addresses(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short form is one of ssh only where it can be nothing else."""
    monkeypatch.chdir(home)
    assert known.checked_url("ada@host:lakes/a b") == "ssh://ada@host/~/lakes/a%20b"
    assert known.checked_url("host:/srv/lake") == "ssh://host/srv/lake"
    for local in ("./host:x", "/srv/host:x", "a/host:x"):
        assert known.checked_url(local) == os.path.abspath(local)
    (home / "here:x").mkdir()
    assert known.checked_url("here:x") == str(home / "here:x")
    for wrong in ("ssh://host", "ssh://host/", "ssh://-oProxyCommand=x/y", "ssh:///x", "-x:y"):
        with pytest.raises(TransferRefused, match="as in ssh://"):
            known.checked_url(wrong)
    for wrong in ("ssh://-l@host/x", "ssh://host:no/x", "ssh://host/~"):
        with pytest.raises(TransferRefused):
            known.checked_url(wrong)
    with pytest.raises(TransferRefused, match="password"):
        known.checked_url("ssh://ada:secret@host/x")
