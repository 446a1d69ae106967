"""Registries that lie, and saved states from remotes that would lead out of their directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lakelog
from lakelog.errors import TransferRefused
from lakelog.remotes import fetches as fetching
from lakelog.remotes import known
from lakelog.state.restore import restore_state
from tests.support import hostile_registry, registry_server
from tests.support.fake_registry import faked
from tests.support.hostile_states import HOSTILE, ROOT_ENTRY, entry, forge, link
from tests.support.lakes import opened
from tests.support.remote_suite import add, push
from tests.support.tree import ROOT

MEMORY = 200 << 20


def test_hostile_registries_are_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that one serves is believed, written elsewhere, or takes much memory."""
    monkeypatch.setenv("DOCKER_CONFIG", str(home))
    (home / "work").mkdir()
    with registry_server.served() as host:
        path = str(home / "lake")
        add(path, "event")
        with opened(path) as lake:
            known.add(lake.store, "origin", f"oci://{host}/{hostile_registry.GOOD}")
        push(path)
        with faked(hostile_registry.passing(host)) as fake:
            command = [sys.executable, "-m", "tests.support.hostile_registry"]
            done = subprocess.run(
                [*command, fake.address, str(home / "work")],
                capture_output=True, text=True, cwd=ROOT, timeout=240,
            )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["cases"]) >= 20
    for case, result in found["cases"].items():
        # What a tag names is read once or refused, so this clone may be whole.
        assert result["said"] or case == "a tag that changes", case
        assert result["rows"] == (0 if result["said"] else 40), case
        assert result["said"].isprintable(), (case, result["said"])
        assert len(result["said"]) < 500, case
        assert set(result["home"]) <= {"clone"}, case
    assert found["memory"] < MEMORY


@pytest.mark.parametrize("name", sorted(HOSTILE)[::3])
def test_hostile_states_are_refused_when_they_are_received(home: Path, name: str) -> None:
    with opened(str(home / "remote")) as lake:
        forge(
            lake,
            json.dumps(
                {"format": 1, "entries": [ROOT_ENTRY, *HOSTILE[name]], "chunks": []}
            ).encode(),
        )
    with pytest.raises(TransferRefused, match="of a saved state") as failed:
        fetching.clone(str(home / "remote"), str(home / "clone"))
    assert str(failed.value).isprintable()
    assert set(os.listdir(home)) <= {"remote", "clone"}
    with lakelog.open(str(home / "clone")) as lake:
        assert lake.verify().problems == ()


def test_chains_of_links_stay_links(home: Path) -> None:
    """CVE-2025-4517: long chains of links, which a path is too long to be resolved through."""
    folder = "d" * 247
    chain = [entry("/".join([folder] * n), "dir", mode=0o755) for n in range(1, 16)]
    links = [link("/".join([folder] * n + ["l"]), "../" * n + folder) for n in range(1, 15)]
    tree = sorted([*chain, *links], key=lambda each: str(each["path"]).split("/"))
    escape = [link("out", folder + "/l/" * 14 + "../" * 40), link("passwd", "/etc/passwd")]
    with opened(str(home / "remote")) as lake:
        body = {"format": 1, "entries": [ROOT_ENTRY, *tree, *escape], "chunks": []}
        forge(lake, json.dumps(body).encode())
    fetching.clone(str(home / "remote"), str(home / "clone"))
    before = Path("/etc/passwd").stat()
    with opened(str(home / "clone")) as lake:
        restore_state(lake, "forged", to=str(home / "out"))
        assert lake.verify().problems == ()
    assert os.readlink(home / "out" / "out") == escape[0]["target"]
    assert Path("/etc/passwd").stat() == before
    assert sorted(os.listdir(home)) == ["clone", "out", "remote"]
