"""FORMAT.md, F1.5, F4.4 and F6.19: which host an event was stored on."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import orjson
import pytest

import lakelog
from lakelog.disk import disk
from lakelog.segments import segment
from lakelog.store import Hosts
from tests.golden import kit
from tests.support import lakes, second_reader, statements
from tests.support.lakes import on_host

HOSTS_OF_TYPES = (
    "SELECT DISTINCT type, host FROM events LEFT JOIN origins USING (origin) ORDER BY 1"
)


def entries(lake: lakelog.Lake) -> dict[str, dict[str, object]]:
    state = lake.store.state(lake.branch_name)
    return {record.key: record.members for record in lake.store.manifests.records(state, "host")}


def tree(path: str) -> dict[str, bytes]:
    """The files of a lake, without what is derived."""
    files = [file for file in Path(path).rglob("*") if file.is_file()]
    names = {str(file.relative_to(path)): file for file in files}
    return {n: file.read_bytes() for n, file in names.items() if not n.startswith("cache/")}


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def test_a_writer_ends_in_its_host(tmp_path: Path) -> None:
    """F1.5, F3.3: the last 12 digits of a writer are the digest of the host in all of its headers,
    also after the machine got another name; the others are random."""
    path = str(tmp_path / "lake")
    with on_host("before"):
        one, other = (lakes.opened(path, rotate_events=1) for _ in range(2))
        one.append({"type": "A"})
        other.append({"type": "A"})
    with on_host("after"), one, other:
        one.append({"type": "B"})
    found = statements.wals(tmp_path / "lake")
    headers = [wal.header for wal in found.values()]
    assert len(headers) == 3
    assert {header["host"] for header in headers} == {"before"}
    writers = {header["writer"] for header in headers}
    assert {writer[-12:] for writer in writers} == {sha("before")}
    assert len({writer[:-12] for writer in writers}) == 2


def test_a_seal_adds_the_hosts_that_its_state_lacks(tmp_path: Path) -> None:
    """F6.19, F4.4: one entry for each host, with its name, whatever the number of writers; what a
    segment is sealed from names them too, and a compacted one does not."""
    path = str(tmp_path / "lake")
    for name in ("web", "web", "db", "web"):
        with on_host(name), lakes.opened(path) as lake:
            lake.append({"type": "A"})
            lake.settle()
    wanted = {sha(name): {"name": name} for name in ("web", "db")}
    with lakes.opened(path) as lake:
        assert entries(lake) == wanted
        assert sum(entry.entry_type == "host" for entry in lake.store.state("main").recent) == 2
        for entry in lake.store.manifests.segments(lake.store.state("main")):
            named = orjson.loads(segment.Segment(lake.store.paths, entry.key).metadata()["hosts"])
            assert named.items() <= {sha(name): name for name in ("web", "db")}.items()
            assert len(named) == 1
        lake.compact()
        (entry,) = lake.store.manifests.segments(lake.store.state("main"))
        assert "hosts" not in segment.Segment(lake.store.paths, entry.key).metadata()
        assert entries(lake) == wanted
        assert lake.verify().problems == ()


@pytest.mark.parametrize("name", ["x" * 255, "", "Rechner Ü", "a'b\n\"", "caf\udce9", "a" * 12])
def test_odd_names(tmp_path: Path, name: str) -> None:
    """F6.19: any name is a host; bytes that are not UTF-8 are escaped. One without a name is not
    known."""
    printed = name.replace("\udce9", "\\xe9")
    with on_host(name), lakes.opened(str(tmp_path / "lake")) as lake:
        lake.append({"type": "A"})
        for _ in range(2):
            assert lake.sql(HOSTS_OF_TYPES).fetchall() == [("A", printed or None)]
            lake.settle()
        assert entries(lake) == {sha(printed): {"name": printed}}


def test_older_writers_have_no_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F1.5, F6.19: of a writer with random digits no host is known, pending or sealed, and no entry
    is made for it; one of this release beside it has its own."""
    path = str(tmp_path / "lake")
    with monkeypatch.context() as patch:
        patch.setattr(Hosts, "new_writer", lambda host: disk.random_hex())
        old = lakes.opened(path)
        old.append({"type": "OLD"})
    with old, lakes.opened(path) as new:
        assert new.sql(HOSTS_OF_TYPES).fetchall() == [("OLD", None)]
        old.settle()
        assert entries(new) == {}
        new.append({"type": "NEW"})
        new.settle()
        wanted = [("NEW", os.uname().nodename), ("OLD", None)]
        assert new.sql(HOSTS_OF_TYPES).fetchall() == wanted


@pytest.mark.parametrize("name", ["first", "published", "identity", "writers", "rewound"])
def test_older_lakes_have_no_hosts(tmp_path: Path, name: str) -> None:
    """F6.19: a lake of before answers without hosts, and gets them with its next events."""
    path = kit.unpack(name, str(tmp_path))
    with lakes.opened(path) as lake:
        known = "SELECT count(*) FROM origins WHERE kind = 'writer'"
        assert lake.sql(known).fetchall() == [(0,)]
        lake.append({"type": "NEWER"})
        lake.settle()
        assert lake.sql(known).fetchall() == [(1,)]
        assert lake.verify().problems == ()


def test_the_golden_lake(tmp_path: Path) -> None:
    """F6.19, F15.4: each state of the golden lake knows the hosts of its events; the second reader
    needs none of it."""
    path = kit.unpack("hosts", str(tmp_path))
    a, b, d = ("A", "web-1"), ("B", "Rechner Ü"), ("D", "db-1")
    wanted = {"main": [a, d], "other": [a, b]}
    for branch, found in wanted.items():
        with lakelog.open(path, branch=branch, settings={"seal": "never"}) as lake:
            assert [(t[0], host) for t, host in lake.sql(HOSTS_OF_TYPES).fetchall()] == found
        types_read = {row["type"][0] for row in second_reader.rows(path, branch)}
        assert types_read == {type_ for type_, _ in found}


def test_a_copy_on_another_machine(tmp_path: Path) -> None:
    """F6.19: events keep their host in a copied lake; to tell it writes nothing but the cache, and
    new ones get the host that they are stored on."""
    path, copy = str(tmp_path / "lake"), str(tmp_path / "copy")
    with on_host("here"), lakes.opened(path) as lake:
        lake.append({"type": "SEALED"})
        lake.settle()
        lake.append({"type": "TAIL"})
    shutil.copytree(path, copy)
    here = [("SEALED", "here"), ("TAIL", "here")]
    with on_host("there"):
        before = tree(copy)
        with lakelog.open(copy, create=False) as lake:
            assert lake.sql(HOSTS_OF_TYPES).fetchall() == here
        assert tree(copy) == before
        with lakes.opened(copy) as lake:
            lake.append({"type": "THERE"})
            assert lake.sql(HOSTS_OF_TYPES).fetchall() == [*here, ("THERE", "there")]
