"""Snapshots of containers with a real Podman: image and state are saved, verified, restored."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog.containers import container_snapshots as snapshots
from lakelog.deploy.container import Container, Engine, Mount
from lakelog.errors import AlreadyExists, ContainerFailed, Damaged, StateRefused, UnknownRef
from lakelog.remotes import known
from lakelog.remotes.fetches import fetch
from lakelog.state.state import list_states, save_state
from tests.support import podman as podmans
from tests.support.cli import answer, flip, run
from tests.support.podman import Podman


@pytest.fixture(scope="module")
def engine() -> Iterator[Podman]:
    # Podman refuses a path of more than 50 characters, which a folder of pytest may have.
    with tempfile.TemporaryDirectory(prefix="podman-", dir="/tmp") as folder:
        podman = podmans.start(Path(folder))
        yield podman
        podman.remove_all()


@pytest.fixture
def podman(engine: Podman, monkeypatch: pytest.MonkeyPatch) -> Iterator[Podman]:
    monkeypatch.setenv("PATH", engine.path)
    yield engine
    engine.remove_all()


def launch(podman: Podman, name: str, *options: str) -> None:
    # Its program does not end by itself.
    words = ("--detach", "--stop-timeout", "0", "--name", name)
    podman.run("run", *words, *options, "localhost/base")


def running(podman: Podman) -> set[str]:
    return set(podman.run("ps", "--format", "{{.Names}}").split())


def volume(podman: Podman, name: str) -> Path:
    return Path(podman.run("volume", "inspect", name, "--format", "{{.Mountpoint}}").strip())


def test_restored_container_has_its_files_and_state(podman: Podman, tmp_path: Path) -> None:
    """What was written in the container and in its volume is there again, and it is running."""
    launch(podman, "web", "--volume", "webdata:/data", "--restart", "on-failure:3")
    (volume(podman, "webdata") / "state.txt").write_text("saved")
    (tmp_path / "inside").write_text("in the container")
    podman.run("cp", str(tmp_path / "inside"), "web:/inside")
    lake = tmp_path / "lake"
    found = answer(lake, "omega", "snapshot", "web", "stable", "-m", "before the upgrade")
    assert (found["containers"], found["tags"]) == (["web"], ["stable"])
    assert running(podman) == {"web"}  # paused only meanwhile
    assert "lakelog" not in podman.run("images")  # the lake has the image, and the engine no copy
    (volume(podman, "webdata") / "state.txt").write_text("broken")
    podman.run("rm", "--force", "--time", "0", "web")
    (started,) = answer(lake, "omega", "restore-snapshot", "stable", "--yes")["started"]
    assert started["image"] == f"localhost/lakelog/web:{found['id']}"
    assert started["backup"].startswith("state-")
    assert running(podman) == {"web"}
    assert (volume(podman, "webdata") / "state.txt").read_text() == "saved"
    podman.run("cp", "web:/inside", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "in the container"
    again = Engine("podman").inspect("web")
    assert (again.restart, [m.name for m in again.mounts]) == ("on-failure:3", ["webdata"])


def test_places_that_differ_in_slashes_alone(podman: Podman, tmp_path: Path) -> None:
    """What is mounted at /data_a and at /data/a is saved and restored, each to its place."""
    words = ("--volume", "first:/data_a", "--volume", "second:/data/a")
    launch(podman, "web", *words)
    for name in ("first", "second"):
        (volume(podman, name) / "state.txt").write_text(name)
    with lakelog.open(tmp_path / "lake") as lake:
        id = snapshots.snapshot_containers(lake, ["web"]).state.name
        for name in ("first", "second"):
            (volume(podman, name) / "state.txt").write_text("broken")
        podman.run("rm", "--force", "--time", "0", "web")
        snapshots.restore_snapshot(lake, id)
    for name in ("first", "second"):
        assert (volume(podman, name) / "state.txt").read_text() == name


@pytest.mark.thorough
def test_a_killed_snapshot_leaves_no_container_paused(podman: Podman, tmp_path: Path) -> None:
    """Whoever holds a container and is killed, even with -9, lets it go."""
    launch(podman, "web")
    real = podman.root / "bin" / "podman"
    (tmp_path / "bin").mkdir()
    slow = tmp_path / "bin" / "podman"
    slow.write_text(f'#!/bin/sh\n[ "$1" = commit ] && exec sleep 60\nexec {real} "$@"\n')
    slow.chmod(0o755)
    command = [sys.executable, "-m", "lakelog", "--lake", str(tmp_path / "lake")]
    with subprocess.Popen(
        [*command, "omega", "snapshot", "web", "--engine", "podman"],
        env={**os.environ, "PATH": f"{tmp_path}/bin:{podman.path}"},
        start_new_session=True,
    ) as saving:
        await_state(podman, "web", "paused")
        os.killpg(saving.pid, signal.SIGKILL)
    await_state(podman, "web", "running")
    with lakelog.open(tmp_path / "lake") as lake:
        assert snapshots.list_snapshots(lake) == []
        assert snapshots.snapshot_containers(lake, ["web"], engine=Engine("podman"))
    await_state(podman, "web", "running")


def await_state(podman: Podman, name: str, wanted: str) -> None:
    for _ in range(2400):
        if podman.run("inspect", name, "--format", "{{.State.Status}}").strip() == wanted:
            return
        time.sleep(0.1)
    raise AssertionError(f"{name} is not {wanted}")


@pytest.mark.thorough
def test_another_name_shares_no_state(podman: Podman, tmp_path: Path) -> None:
    """A container beside the first one has a volume of its own, with what was saved."""
    launch(podman, "web", "--volume", "shared:/data")
    (volume(podman, "shared") / "a").write_text("1")
    with lakelog.open(tmp_path / "lake") as lake:
        id = snapshots.snapshot_containers(lake, ["web"]).state.name
        (volume(podman, "shared") / "a").write_text("2")
        (started,) = snapshots.restore_snapshot(lake, id, "web2")
    assert running(podman) == {"web", "web2"}
    assert started.backup == "" or started.backup.startswith("state-")
    assert (volume(podman, "web2-shared") / "a").read_text() == "1"
    assert (volume(podman, "shared") / "a").read_text() == "2"


@pytest.mark.thorough
def test_a_container_of_that_name_is_kept(podman: Podman, tmp_path: Path) -> None:
    """It is refused, or with --replace stopped and renamed; it comes back if the new one fails."""
    launch(podman, "web")
    lake = tmp_path / "lake"
    id = answer(lake, "omega", "snapshot", "web")["id"]
    said = run(lake, "omega", "restore-snapshot", id, "--yes", code=1).output
    assert "a container web is there: choose another name, or --replace it" in said
    words = ("omega", "restore-snapshot", id, "--replace", "--yes")
    run(lake, *words, "--", "--no-such-option", code=1)
    assert running(podman) == {"web"}
    before = podman.run("inspect", "web", "--format", "{{.Id}}")
    run(lake, *words)
    assert podman.run("inspect", "web", "--format", "{{.Id}}") != before
    names = podman.run("ps", "--all", "--format", "{{.Names}}").split()
    assert len(names) == 2
    assert any(name.startswith("web-before-") for name in names)


@pytest.mark.thorough
def test_start_that_fails_after_its_state_was_restored_names_the_backup(
    podman: Podman, tmp_path: Path
) -> None:
    """The error says what brings back the state that was there."""
    launch(podman, "web", "--volume", "shared:/data")
    (volume(podman, "shared") / "a").write_text("1")
    lake = tmp_path / "lake"
    id = answer(lake, "omega", "snapshot", "web")["id"]
    (volume(podman, "shared") / "a").write_text("2")
    words = ("omega", "restore-snapshot", id, "--replace", "--yes", "--", "--no-such-option")
    said = run(lake, *words, code=1).output
    assert (volume(podman, "shared") / "a").read_text() == "1"
    backup = re.search(r"`lakelog state restore (\S+)` brings back what was there", said)
    assert backup is not None
    run(lake, "state", "restore", backup[1], "--yes")
    assert (volume(podman, "shared") / "a").read_text() == "2"


@pytest.mark.thorough
def test_several_containers_are_one_snapshot(podman: Podman, tmp_path: Path) -> None:
    """One manifest has all; their common layers are stored once; each can be restored alone."""
    launch(podman, "one")
    launch(podman, "Two_")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "x").write_text("x")
    with lakelog.open(tmp_path / "lake") as lake:
        result = snapshots.snapshot_containers(
            lake, ["one", "Two_"], directories={"etc": str(tmp_path / "etc")}
        )
        assert result.state.bytes > 6 << 20 > result.written  # 3 MiB of noise in each archive
        again = snapshots.snapshot_containers(lake, ["one", "Two_"])
        assert again.written < 3 << 20  # the chunks around what is new
        found = snapshots.find_snapshot(lake, result.state.name)
        assert found.containers == ("one", "Two_")
        assert [x.id for x in snapshots.list_snapshots(lake)] == [again.state.name, found.id]
        assert list_states(lake) == []
        with pytest.raises(StateRefused, match="name one of them"):
            snapshots.restore_snapshot(lake, found.id, "three")
        snapshots.restore_snapshot(lake, found.id, "three", only=["Two_"])
        assert running(podman) == {"one", "Two_", "three"}
        with pytest.raises(UnknownRef, match="no container 'four'"):
            snapshots.restore_snapshot(lake, found.id, only=["four"])
        assert lake.verify().intact
        assert not os.path.exists(f"{lake.store.paths.cache}/containers")


def test_damaged_snapshots_are_named_and_not_started(podman: Podman, tmp_path: Path) -> None:
    """A flipped bit of the archive is found by verify-snapshot, and restore starts nothing."""
    launch(podman, "web")
    lake = tmp_path / "lake"
    id = answer(lake, "omega", "snapshot", "web")["id"]
    assert "intact" in run(lake, "omega", "verify-snapshot", id).output
    chunk = max(lake.glob("states/*/*.chunk.zst"), key=lambda path: path.stat().st_size)
    run(lake, "key", "generate", str(tmp_path / "key"))
    signed = ("omega", "verify-snapshot", id, "--signed-by", str(tmp_path / "key.pub"))
    assert "has no signature" in run(lake, *signed, code=3).output
    run(lake, "sign", id, "--key", str(tmp_path / "key"))
    run(lake, *signed)
    flip(chunk)
    problems = answer(lake, "omega", "verify-snapshot", id, code=3)["problems"]
    assert [each["path"] for each in problems] == [str(chunk)]
    with lakelog.open(lake) as opened, pytest.raises(Damaged):
        snapshots.restore_snapshot(opened, id, "web2")
    assert running(podman) == {"web"}


def test_names_of_snapshots(podman: Podman, tmp_path: Path) -> None:
    """Tags are further names; unknown and taken ones are refused."""
    launch(podman, "web")
    with lakelog.open(tmp_path / "lake") as lake:
        with pytest.raises(UnknownRef, match="no snapshot"):
            snapshots.find_snapshot(lake, "latest")
        id = snapshots.snapshot_containers(lake, ["web"], tag="a").state.name
        snapshots.tag_snapshot(lake, "a", "b")
        assert snapshots.find_snapshot(lake, "b").id == id
        assert snapshots.find_snapshot(lake, "latest").tags == ("a", "b")
        with pytest.raises(AlreadyExists):
            snapshots.tag_snapshot(lake, id, "b")
        for taken, error in (("a", AlreadyExists), ("latest", StateRefused)):
            with pytest.raises(error):
                snapshots.snapshot_containers(lake, ["web"], tag=taken)
        with pytest.raises(StateRefused, match="is empty"):
            snapshots.restore_snapshot(lake, id, "")
        assert [entry.id for entry in snapshots.list_snapshots(lake)] == [id]
        with pytest.raises(ContainerFailed, match="nothing"):
            snapshots.snapshot_containers(lake, ["nothing"])


def test_a_container_that_is_named_twice_is_saved_once(podman: Podman, tmp_path: Path) -> None:
    """Also by its id; what is in memory is there again, empty, with its options."""
    launch(podman, "web", "--tmpfs", "/scratch:size=65536k")
    id = podman.run("ps", "--quiet", "--no-trunc").strip()
    with lakelog.open(tmp_path / "lake") as lake:
        snapshots.snapshot_containers(lake, ["web", id])
        assert snapshots.find_snapshot(lake, "latest").containers == ("web",)
        snapshots.restore_snapshot(lake, "latest", "web2")
    options = podman.run("inspect", "web2", "--format", "{{json .HostConfig.Tmpfs}}")
    assert "size=65536k" in json.loads(options)["/scratch"]


def test_what_docker_says_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is paused is not to be paused; what it mounts in memory is mounted so again."""
    mounts = [{"Type": "tmpfs", "Source": "", "Destination": "/scratch", "RW": True}]
    inspected = {"Name": "/web", "State": {"Running": True, "Paused": True}, "Mounts": mounts}
    inspected["Config"] = {"Env": None, "Image": "image"}
    inspected["HostConfig"] = {"Tmpfs": {"/run": "size=1m"}}
    (tmp_path / "inspected").write_text(json.dumps([inspected]))
    docker, said = tmp_path / "docker", tmp_path / "said"
    docker.write_text(
        f'#!/bin/sh\n[ "$1" = run ] && echo "$@" > {said}\nexec cat {tmp_path}/inspected\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    engine = Engine("docker")
    container = engine.inspect("web")
    assert not container.is_running
    engine.run("web2", "image", container)
    assert said.read_text() == (
        "run --detach --name web2 --restart no --tmpfs /scratch --tmpfs /run:size=1m image\n"
    )


@pytest.mark.thorough
def test_push_sends_the_image_to_a_registry(podman: Podman, tmp_path: Path) -> None:
    """It is there under the id of the snapshot, as another client sees."""
    launch(podman, "web")
    with podmans.registry(tmp_path / "registry") as host:
        lake = tmp_path / "lake"
        id = answer(lake, "omega", "snapshot", "web")["id"]
        name = f"{host}/team/web"
        assert answer(lake, "omega", "push-snapshot", id, name)["pushed"] == [f"{name}:{id}"]
        podman.run("pull", "--tls-verify=false", f"{name}:{id}")
        url = f"oci://{host}/team/lake"
        words = ("omega", "push-snapshot", id, url)
        assert f"lakelog remote add NAME {url}" in run(lake, *words, code=1).output
        run(lake, "remote", "add", "origin", url)
        image = f"{host}/team/lake/web:{id}"
        assert answer(lake, *words)["pushed"] == [f"{url} {id}", image]
        podman.run("pull", "--tls-verify=false", image)
        run(tmp_path / "clone", "clone", url, str(tmp_path / "clone"))
        assert "intact" in run(tmp_path / "clone", "omega", "verify-snapshot", id).output
    said = run(lake, "omega", "push-snapshot", id, "nowhere", code=1).output
    assert "is not like registry.example.com/team/app" in said


@pytest.mark.parametrize("volume", ["", "/etc"])
def test_paths_of_another_machine_are_not_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, volume: str
) -> None:
    """A snapshot that was fetched names directories of this host: nothing is run or overwritten."""
    said = tmp_path / "said"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "podman").write_text(f'#!/bin/sh\necho "$@" >> {said}\n')
    (tmp_path / "bin" / "podman").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    mount = Mount(volume, str(tmp_path), "/data", is_writable=True)
    described = Container("web", "image", False, (mount,), (), "no", {})
    staged = tmp_path / "staged"
    staged.mkdir()
    body = {"image": "image", "container": described.to_json(), "state": {}}
    (staged / "container.json").write_text(json.dumps(body))
    (staged / "image.tar").write_bytes(b"")
    with lakelog.open(tmp_path / "there") as there:
        save_state(there, {"container:web": str(staged)}, name="snap", op="container", keep=None)
    with lakelog.open(tmp_path / "lake") as lake:
        known.add(lake.store, "there", str(tmp_path / "there"))
        fetch(lake, "there")
        with pytest.raises(StateRefused, match="saved by another machine, and mounts"):
            snapshots.restore_snapshot(lake, "snap", engine=Engine("podman"))
    assert "run" not in said.read_text().split()


def test_without_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not installed, and not answering, are told apart; no lake is made."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    said = run(tmp_path / "lake", "omega", "snapshot", "web", code=1).output
    assert "docker or podman is not installed" in said
    said = run(tmp_path, "omega", "snapshot", "web", "--engine", "podman", code=1).stderr
    assert "podman is not installed: install it" in said
    assert "docker" not in said
    docker = tmp_path / "bin" / "docker"
    docker.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('Cannot connect to the daemon')\n")
    docker.chmod(docker.stat().st_mode | stat.S_IEXEC)
    said = run(tmp_path / "lake", "omega", "snapshot", "web", code=1).output
    assert "no container engine answers: docker ps: Cannot connect to the daemon" in said
    assert not (tmp_path / "lake").exists()
