"""Remotes in registries: the suite, on Docker's own registry, and what other clients see there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import registry_server
from tests.support.remote_suite import RemoteSuite

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    """HOST:PORT of a registry."""
    with registry_server.served() as host:
        yield host


class TestOci(RemoteSuite):
    """A repository, a new one for each test."""

    CUTS = 40

    @pytest.fixture
    def url(self, home: Path, registry: str, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setenv("DOCKER_CONFIG", str(home))
        return f"oci://{registry}/lakes/n{next(_NUMBERS)}"
