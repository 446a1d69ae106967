"""Shared lakes and remotes in stores of Azure and Google: azurite, and moto behind a proxy."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import TransferRefused, Unreachable
from lakelog.remotes import conditions
from lakelog.remotes.known import open_remote
from lakelog.remotes.shared import attach
from tests.support import cloud_stores
from tests.support.attached import SharedMachines, append, numbers
from tests.support.cli import run
from tests.support.requirements import need_module

need_module("obstore")
need_module("moto")


@pytest.fixture(scope="module")
def azurite() -> Iterator[str]:
    """Azurite, for all tests of this file."""
    with cloud_stores.azurite() as address:
        yield address


@pytest.fixture
def azure(azurite: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty place there."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", cloud_stores.ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", cloud_stores.ACCOUNT_KEY)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", azurite)
    return f"az://lakes/{secrets.token_hex(4)}"


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty place in a store that understands Google's condition."""
    from tests.support.object_stores import moto_store

    with moto_store() as target, cloud_stores.google_store(target, tmp_path) as account:
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", account)
        yield f"gs://lakes/{secrets.token_hex(4)}"


def use(url: str, path: Path) -> None:
    """Share a lake there, erase from it, and push another one beside it."""
    conditions.require(open_remote(url))
    machines = SharedMachines(path, url)
    for number in range(3):
        append(machines["a"], number)
        append(machines["b"], 10 + number)
        machines.exchange("a", "b")
    machines["a"].tag("v1")
    machines["b"].append({"type": "T", "subject": "s", "data": {"n": 20}}, expect={"s": 0})
    machines.exchange("b", "a")
    assert numbers(machines["a"]) == numbers(machines["b"]) == [0, 1, 2, 10, 11, 12, 20]
    machines["a"].erase(where="(data->>'n')::int = 1", why="asked")
    machines.exchange("b", "a")
    assert machines["b"].at("v1").count() == 5
    machines["a"].compact()
    with lakelog.open(path / "own") as lake:
        append(lake, 1)
    run(path / "own", "remote", "add", "origin", f"{url}-own")
    run(path / "own", "push")
    run("", "clone", f"{url}-own", str(path / "copy"))
    with lakelog.open(path / "copy") as copy:
        assert numbers(copy) == [1]
    machines.close()


def test_a_lake_is_shared_in_azure(azure: str, tmp_path: Path) -> None:
    use(azure, tmp_path)


def test_a_lake_is_shared_at_google(google: str, tmp_path: Path) -> None:
    use(google, tmp_path)


def test_errors_of_azure_are_one_line(
    azure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TransferRefused, match="no such bucket"):
        attach("az://absent/lake", str(tmp_path / "a"))
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "AAAA")
    with pytest.raises(Unreachable, match="Azure credentials"):
        attach(azure, str(tmp_path / "a"))
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")
    with pytest.raises(TransferRefused, match="AZURE_STORAGE_ACCOUNT_NAME"):
        attach(azure, str(tmp_path / "a"))
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "name")
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://example.org/name")
    with pytest.raises(TransferRefused, match="https"):
        attach(azure, str(tmp_path / "a"))


def test_a_store_at_google_that_ignores_conditions_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.object_stores import moto_store

    with (
        moto_store() as target,
        cloud_stores.google_store(target, tmp_path, is_faithful=False) as account,
    ):
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", account)
        with pytest.raises(TransferRefused, match="does not refuse a name that is taken"):
            attach("gs://lakes/refused", str(tmp_path / "a"))
        assert not (tmp_path / "a").exists()
