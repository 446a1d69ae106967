"""An erasure goes to a registry with the next push: its garbage collection frees the last bytes."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog import erasure, remotes
from lakelog.errors import InvalidEvent, Unreachable
from lakelog.lake import Lake
from lakelog.remotes import known, oci, oci_manifests
from tests.support import cutting_proxy, registry_server
from tests.support import erasure_histories as histories
from tests.support.effort import IS_WHOLE
from tests.support.erased_lakes import ADA, SETTINGS, add, found
from tests.support.requirements import need


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr(oci, "SETTLING", 0.0)
    monkeypatch.setattr(oci_manifests, "_LISTED", 4)


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """HOST:PORT of a registry that deletes."""
    with registry_server.served() as host:
        yield host


def pushed(path: Path, url: str) -> Lake:
    """A lake that was pushed once, with a tag."""
    lake = lakelog.open(path, settings=SETTINGS)
    remotes.add_tested(lake.store, "hub", url)
    add(lake, 0)
    lake.tag("v1")
    remotes.push(lake, "hub", branches=["main"], tags=["v1"])
    return lake


def pushed_often(path: Path, url: str) -> Lake:
    """A lake that was pushed several times, with a tag and a branch."""
    lake = pushed(path, url)
    add(lake, 10)
    lake.branch("side").close()
    remotes.push(lake, "hub", branches=["main", "side"])
    lake.compact()
    remotes.push(lake, "hub", branches=["main"])
    return lake


def test_a_push_and_a_collection_erase_there(tmp_path: Path, host: str) -> None:
    """Old moves, a tag, a branch that is not pushed: no byte stays; clones have all others."""
    url = f"oci://{host}/erased"
    lake = pushed_often(tmp_path / "lake", url)
    remotes.clone(url, str(tmp_path / "clone"))
    assert found(registry_server.folder(host))
    status = lake.erase(subject=ADA, why="asked")
    assert [(c["name"], c["command"]) for c in status.copies] == [("hub", "lakelog push hub")]
    assert remotes.push(lake, "hub", branches=["main"]).erased == [status.erasure.key]
    (copy,) = lake.erasures()[0].copies
    assert "garbage collection of the registry, then say --cleaned hub" in copy["command"]
    registry_server.collect_garbage(host)
    assert found(registry_server.folder(host)) == found(tmp_path / "lake") == []
    assert remotes.check(lake, "hub", read_data=True).faults == []
    assert remotes.push(lake, "hub", branches=["main"], tags=["v1"]).erased == []
    remotes.clone(url, str(tmp_path / "again"))
    with lakelog.open(tmp_path / "clone") as clone:
        assert remotes.pull(clone, "origin").erased == [status.erasure.key]
    for name in ("clone", "again"):
        with lakelog.open(tmp_path / name) as clone:
            assert clone.verify().intact
            assert (clone.count(), clone.at("v1").count()) == (4, 2)
            with pytest.raises(InvalidEvent, match="erased"):
                clone.append({"type": "A", "subject": ADA, "time": "2020-01-01T00:00:00Z"})
        assert found(tmp_path / name) == []
    lake.close()
    # An index of an erased state has beside it what is read in its place.
    for tag in ("main", "v1"):
        ends = [f"docker://{host}/{name}:{tag}" for name in ("erased", "alone")]
        tls = ["--src-tls-verify=false", "--dest-tls-verify=false"]
        subprocess.run([need("skopeo"), "copy", "--all", *tls, *ends], check=True)
    remotes.clone(f"oci://{host}/alone", str(tmp_path / "alone"))
    with lakelog.open(tmp_path / "alone") as clone:
        assert (clone.count(), clone.at("v1").count()) == (4, 2)
        assert clone.verify().intact


def test_an_interrupted_push_erases_when_it_is_made_again(tmp_path: Path, host: str) -> None:
    """Cut off at any request it loses no event of others, and leaves no byte that nobody names."""
    with cutting_proxy.proxied(host) as proxy:
        url = f"oci://{proxy.address}/cut"
        lake = pushed(tmp_path / "lake", url)
        lake.erase(subject=ADA, why="asked")
        proxy.pass_all()
        remotes.push(lake, "hub", branches=["main"])
        cuts, between = 0, 7 if IS_WHOLE else proxy.requests
        at = between // 2
        for step in itertools.count():
            name = f"bob-7t{step}x"
            lake.append({"type": "A", "subject": name})
            remotes.push(lake, "hub", branches=["main"])
            status = lake.erase(subject=name, why="asked")
            proxy.cut(at)
            try:
                remotes.push(lake, "hub", branches=["main"])
                break
            except Unreachable:
                cuts += 1
            finally:
                proxy.pass_all()
            is_due = "push" in lake.erasures()[-1].copies[0]["command"]
            result = remotes.push(lake, "hub", branches=["main"])
            assert result.erased == [status.erasure.key] * is_due
            at += between
        assert cuts
        registry_server.collect_garbage(host)
        folder = registry_server.folder(host)
        names = [f"bob-7t{number}x" for number in range(step + 1)]
        assert histories.places_with(folder, [ADA, *names]) == []
        assert remotes.check(lake, "hub", read_data=True).faults == []
        remotes.clone(url, str(tmp_path / "clone"))
        with lakelog.open(tmp_path / "clone") as clone:
            assert clone.verify().intact
            assert clone.count() == clone.at("v1").count() == 2
        lake.close()


def test_a_registry_that_deletes_nothing_is_named(tmp_path: Path) -> None:
    """Until its operator allows it, and the push is repaired; what is listed is clean before."""
    folder = str(tmp_path / "registry")
    storage: dict[str, dict[str, object]] = {"filesystem": {"rootdirectory": folder}}
    with registry_server.served(storage=storage) as host:
        lake = pushed(tmp_path / "lake", f"oci://{host}/kept")
        key = lake.erase(subject=ADA, why="asked").erasure.key
        remotes.push(lake, "hub", branches=["main"])
        (copy,) = lake.erasures()[0].copies
        assert "lakelog push --repair hub" in copy["command"]
        remotes.clone(f"oci://{host}/kept", str(tmp_path / "clone"))
        assert found(tmp_path / "clone") == []
        registry_server.collect_garbage(host)
    storage["delete"] = {"enabled": True}
    with registry_server.served(storage=storage) as host:
        assert found(tmp_path / "registry")
        known.remove(lake.store, "hub")
        known.add(lake.store, "hub", f"oci://{host}/kept")
        remotes.push(lake, "hub", branches=["main"], repair=True)
        registry_server.collect_garbage(host)
    assert found(tmp_path / "registry") == []
    assert "collection" in lake.erasures()[0].copies[0]["command"]
    erasure.confirm(lake.store, key, "hub")
    assert lake.erasures()[0].is_done
    lake.close()


def test_a_state_that_clones_erased_from_in_another_order_is_named(
    tmp_path: Path, host: str
) -> None:
    """What is read there in the place of a state is what the one said who erased first: a tag of
    another clone lists that, and not what this clone has in its place."""
    url = f"oci://{host}/orders"
    lake = pushed(tmp_path / "lake", url)
    remotes.clone(url, str(tmp_path / "clone"))
    for name in (ADA, "u1"):
        lake.erase(subject=name, why="asked")
        remotes.push(lake, "hub", branches=["main"])
    with lakelog.open(tmp_path / "clone") as clone:
        clone.tag("v2", "v1")
        assert remotes.pull(clone, "origin").erased
        assert remotes.push(clone, "origin", branches=["main"], tags=["v2"]).refs["v2"] == "new"
        assert clone.verify().intact
    registry_server.collect_garbage(host)
    assert found(registry_server.folder(host)) == []
    assert remotes.check(lake, "hub", read_data=True).faults == []
    remotes.clone(url, str(tmp_path / "again"))
    with lakelog.open(tmp_path / "again") as clone:
        assert clone.at("v2").count() == clone.count() == lake.count()
    lake.close()
