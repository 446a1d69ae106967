"""Encrypted lakes: every way in and out works, and no word of an event is in any byte of them."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

import lakelog
from lakelog.disk import disk
from lakelog.errors import DamagedLake, InvalidKey, LakelogError, NotAllowed
from lakelog.loggers.buffer import DiskBuffer, recover
from lakelog.server.sql.query_limits import QueryLimits
from lakelog.server.sql.workers import QueryWorkers
from lakelog.settings import DEFAULTS
from tests.support import encrypted
from tests.support.cli import answer, run, segments

PLANTED = "zzplanted"
WORDS = [
    PLANTED + word
    for word in "type subject source message key value id file line label tag saved".split()
]


def events(count: int, first: int = 0) -> list[dict[str, object]]:
    """Events of which every text is planted."""
    return [
        {
            "type": f"{PLANTED}type",
            "source": f"{PLANTED}source",
            "subject": f"{PLANTED}subject{number % 7}",
            "message": f"a message with {PLANTED}message {number}",
            "id": f"{PLANTED}id{number}",
            "data": {f"{PLANTED}key": f"{PLANTED}value{number % 3}", "n": number},
        }
        for number in range(first, first + count)
    ]


def rows(lake: Path | str) -> int:
    """How many events a lake has, as a program sees it that opens it."""
    return int(answer(lake, "sql", "SELECT count(*) AS n FROM events")[0]["n"])


def test_no_word_of_an_event_is_in_any_byte_of_a_lake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the tail, sealed, ingested, quarantined, indexed, tagged, as views, saved directories,
    compacted, rolled back, copied, pushed and cloned; and the same answers everywhere."""
    root = Path(encrypted.create(tmp_path / "lake", monkeypatch))
    log = tmp_path / f"{PLANTED}file.log"
    log.write_text("".join(f"2026-01-01T00:00:0{n}Z INFO {PLANTED}line {n}\n" for n in range(9)))
    broken = tmp_path / f"{PLANTED}file.jsonl"
    broken.write_text(f'{{"type": "x", "data": {{}}}}\n{{"type": "{PLANTED}line", \n')
    saved = tmp_path / "state"
    saved.mkdir()
    (saved / f"{PLANTED}file.txt").write_text(f"{PLANTED}saved" * 50)
    searched: list[str] = []

    def look() -> None:
        searched.extend(encrypted.found(tmp_path / "lake", WORDS))

    with lakelog.open(root) as lake:
        lake.append(events(5))
        look()
        lake.settle()
        lake.append(events(1100, 5))
        lake.settle()
        assert lake.sql(
            f"SELECT count(*) FROM events WHERE subject = '{PLANTED}subject3'"
        ).fetchall()
        look()
        lake.ingest(str(log))
        lake.ingest(str(broken))
        assert len(lake.sql("SELECT * FROM quarantine").fetchall()) == 1
        lake.tag("v1", message=f"{PLANTED}tag")
        lake.compact()
        look()
        for name in ("status", "items"):
            lake.view(name)
    assert answer(root, "search", f"{PLANTED}message", "--count")[0]["count"] == 1105
    run(root, "state", "save", "--dir", str(saved))
    run(root, "snapshot", "-m", f"{PLANTED}label")
    look()
    run(root, "remote", "add", "far", str(tmp_path / "far"))
    run(root, "push", "far")
    run(root, "clone", str(tmp_path / "far"), str(tmp_path / "cloned"))
    run(root, "backup", str(root), str(tmp_path / "copied"))
    run(root, "rollback", "v1", "--yes")
    look()
    for name in ("far", "cloned", "copied"):
        searched += encrypted.found(tmp_path / name, WORDS)
    assert searched == []
    assert rows(root) == 1115
    assert rows(tmp_path / "copied") == rows(tmp_path / "cloned") > 1100
    for name in ("lake", "far", "cloned", "copied"):
        assert answer(tmp_path / name, "verify")["intact"]


def test_a_flipped_bit_gives_an_error_and_never_another_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bits of every file of a lake with a tail, segments, tags and quarantine: the answer is the
    same, or one line that names a file."""
    root = Path(encrypted.create(tmp_path / "lake", monkeypatch))
    with lakelog.open(root) as lake:
        lake.append(events(1200))
        lake.settle()
        lake.tag("v1", message="first")
        lake.append(events(20, 1200))
    query = "SELECT * EXCLUDE (ingested_at) FROM events ORDER BY seq"

    def state() -> object:
        with lakelog.open(root, create=False) as lake:
            tagged = lake.sql("SELECT count(*) FROM v1.events").fetchall()
            return lake.sql(query).fetchall(), tagged

    right, rng, lines = state(), random.Random(7), list[str]()
    files = [path for path in root.rglob("*") if path.is_file() and path.stat().st_size > 64]
    for path in files:
        whole = path.read_bytes()
        for _ in range(2):
            data = bytearray(whole)
            place = rng.randrange(8 * len(data))
            data[place // 8] ^= 1 << place % 8
            path.write_bytes(data)
            try:
                assert state() == right, path
            except LakelogError as error:
                lines.append(str(error))
        path.write_bytes(whole)
    assert state() == right
    assert len(lines) > 3
    assert "\n" not in "".join(lines)


def test_a_lake_does_not_open_without_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key and another key are one line each, with an exit code; and `verify` says so too."""
    root = Path(encrypted.create(tmp_path / "lake", monkeypatch))
    with lakelog.open(root) as lake:
        lake.append(events(3))
    encrypted.forget(monkeypatch)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    with pytest.raises(InvalidKey, match=r"the lake is encrypted with the master key .*: set LAKE"):
        lakelog.open(root)
    output = run(root, "sql", "SELECT 1", code=2, env={"LAKELOG_KEY": "11" * 32}).output
    assert "LAKELOG_KEY gives the master key" in output
    assert len(output.splitlines()) == 1
    monkeypatch.setenv("LAKELOG_KEY", encrypted.KEY)
    assert rows(root) == 3


def test_a_data_key_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lakelog.json of before a second data key: what that encrypted says which one it needs."""
    root = Path(encrypted.create(tmp_path / "lake", monkeypatch))
    before = (root / "lakelog.json").read_bytes()
    run(root, "key", "rotate", "--data")
    with lakelog.open(root) as lake:
        lake.append(events(3))
    (root / "lakelog.json").write_bytes(before)
    encrypted.forget(monkeypatch)
    monkeypatch.setenv("LAKELOG_KEY", encrypted.KEY)
    output = run(root, "sql", "SELECT count(*) FROM events", code=2).output
    assert "data key" in output
    assert "lakelog.json does not have" in output


def test_rotation_rewrites_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old master key is refused, the new one opens all; a new data key is for what comes."""
    root = Path(encrypted.create(tmp_path / "lake", monkeypatch))
    with lakelog.open(root) as lake:
        lake.append(events(10))
        lake.settle()
    files = {path: path.read_bytes() for path in segments(root)}
    new_key = tmp_path / "new.key"
    run(root, "key", "rotate", str(new_key), "--data")
    encrypted.forget(monkeypatch)
    monkeypatch.setenv("LAKELOG_KEY", encrypted.KEY)
    assert "was rotated away" in run(root, "sql", "SELECT 1", code=2).output
    monkeypatch.delenv("LAKELOG_KEY")
    monkeypatch.setenv("LAKELOG_KEY_FILE", str(new_key))
    with lakelog.open(root) as lake:
        lake.append(events(10, 10))
        lake.settle()
    assert rows(root) == 20
    assert {path: path.read_bytes() for path in files} == files
    shown = answer(root, "key", "show")
    assert [key["current"] for key in shown["keys"]] == [False, True]
    key_ids = {path.read_bytes()[8:16].hex() for path in segments(root)}
    assert key_ids == {key["id"] for key in shown["keys"]}


def test_a_plain_lake_is_encrypted_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there stays readable, what comes is encrypted, also by a writer that was open."""
    root = tmp_path / "lake"
    monkeypatch.setenv("LAKELOG_KEY", encrypted.KEY)
    with lakelog.open(root) as lake:
        lake.append({"type": "before"})
        lake.settle()
        run(root, "config", "encrypt")
        lake.append(events(3))
    assert rows(root) == 4
    with lakelog.open(root) as lake:
        lake.append(events(3, 3))
        lake.compact()
    assert rows(root) == 7
    assert encrypted.found(root, WORDS) == []
    assert "is encrypted: see" in run(root, "config", "encrypt", code=1).output
    assert json.loads((root / "lakelog.json").read_bytes())["requires"] == ["encryption"]


def test_what_is_not_encrypted_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that nobody encrypts is not written below the lake, and the cache is an envelope."""
    root = encrypted.create(tmp_path / "lake", monkeypatch)
    for write in (
        lambda: disk.put_object(f"{root}/segments/ab/cd.parquet", b"plain"),
        lambda: disk.create_whole(f"{root}/notes.txt", b"plain"),
        lambda: disk.replace_whole(f"{root}/states/ab/x", b"plain"),
        lambda: disk.append_line(f"{root}/cache/new.jsonl", b"plain\n"),
    ):
        with pytest.raises((NotAllowed, FileNotFoundError), match="was not written: the lake is"):
            write()
    disk.replace_whole(f"{root}/cache/derived", b"plain")
    assert Path(root, "cache/derived").read_bytes()[:4] == b"LKN1"
    assert disk.read(f"{root}/cache/derived") == b"plain"


def test_plain_and_encrypted_lakes_exchange_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push to a plain remote, a pull from an encrypted one into a plain lake: both refused."""
    root = encrypted.create(tmp_path / "lake", monkeypatch)
    with lakelog.open(tmp_path / "plain") as plain:
        plain.append({"type": "x"})
    run(tmp_path / "plain", "remote", "add", "far", str(tmp_path / "far"))
    run(tmp_path / "plain", "push", "far")
    run(root, "remote", "add", "far", str(tmp_path / "far"))
    assert "is not encrypted, this one is" in run(root, "push", "far", code=1).output
    run(root, "remote", "add", "own", str(tmp_path / "own"))
    run(root, "push", "own")
    run(tmp_path / "plain", "remote", "add", "own", str(tmp_path / "own"))
    output = run(tmp_path / "plain", "pull", "own", code=1).output
    assert "is encrypted, this one is not" in output


def test_a_pull_brings_the_data_keys_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a new data key here, a clone that is older reads what it encrypted; a push before says
    that a pull is needed."""
    root = encrypted.create(tmp_path / "lake", monkeypatch)
    run(root, "remote", "add", "far", str(tmp_path / "far"))
    with lakelog.open(root) as lake:
        lake.append(events(3))
    run(root, "push", "far")
    run(root, "clone", str(tmp_path / "far"), str(tmp_path / "clone"))
    run(root, "key", "rotate", "--data")
    with lakelog.open(root) as lake:
        lake.append(events(3, 3))
    run(root, "push", "far")
    encrypted.forget(monkeypatch)
    monkeypatch.setenv("LAKELOG_KEY", encrypted.KEY)
    run(tmp_path / "clone", "append", "type=x")
    for options in ((), ("--dry-run",)):
        output = run(tmp_path / "clone", "push", "origin", *options, code=1).output
        assert "moved on there: `lakelog pull` first" in output
    run(tmp_path / "clone", "pull", "origin", "--merge")
    assert rows(tmp_path / "clone") == 7


def test_export_gives_plain_rows_where_the_user_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parquet outside of the lake; `connect`, which names the files of segments, is refused."""
    root = encrypted.create(tmp_path / "lake", monkeypatch)
    with lakelog.open(root) as lake:
        lake.append(events(3))
        lake.settle()
        assert len(lake.sql("SELECT * FROM events").arrow().read_all()) == 3
    run(root, "export", "SELECT * FROM events", "-o", str(tmp_path / "out.jsonl"))
    assert f"{PLANTED}message" in (tmp_path / "out.jsonl").read_text()
    assert "encrypted" in run(root, "connect", code=1).output


def test_a_damaged_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter, an index, a piece of a view that does not open counts as missing."""
    root = Path(encrypted.create(tmp_path / "lake", monkeypatch))
    with lakelog.open(root) as lake:
        lake.append(events(1200))
        lake.settle()
        assert lake.view("status").num_rows
    query = f"SELECT count(*) AS n FROM events WHERE id = '{PLANTED}id77'"
    for path in [p for p in (root / "cache").rglob("*") if p.is_file() and p.stat().st_size > 40]:
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes((data[-1] ^ 1,)))
    assert answer(root, "sql", query)[0]["n"] == 1
    with lakelog.open(root) as lake:
        assert lake.view("status").num_rows


def test_a_lost_lakelog_json_comes_from_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the wrapped data keys: repair refuses to make another, and takes that of a copy."""
    root = Path(encrypted.create(tmp_path / "lake", monkeypatch))
    with lakelog.open(root) as lake:
        lake.append(events(3))
        lake.settle()
    run(root, "backup", str(root), str(tmp_path / "copy"))
    assert run(tmp_path / "copy", "sql", "SELECT max(id) FROM events").output.count(PLANTED) == 1
    (root / "lakelog.json").unlink()
    encrypted.forget(monkeypatch)
    monkeypatch.setenv("LAKELOG_KEY", encrypted.KEY)
    assert "lakelog.json does not have" in run(root, "repair", "--yes", code=2).output
    run(root, "repair", "--yes", "--copy", str(tmp_path / "copy"))
    assert rows(root) == 3


@pytest.mark.parametrize("damage", [b"", b"no document"], ids=["lost", "damaged"])
def test_an_open_lake_writes_its_data_keys_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    path = encrypted.create(tmp_path / "lake", monkeypatch)
    config = tmp_path / "lake/lakelog.json"
    with lakelog.open(path) as lake:
        lake.append({"type": "A", "message": "kept"})
        lake.settle()
        config.write_bytes(damage) if damage else config.unlink()
        with pytest.raises(DamagedLake, match="repair"):
            lake.store.change_settings(DEFAULTS)
        lake.repair()
    encrypted.forget(monkeypatch)
    monkeypatch.setenv("LAKELOG_KEY", encrypted.KEY)
    with lakelog.open(path) as lake:
        assert lake.sql("SELECT message FROM events").fetchall() == [("kept",)]


def test_what_waits_for_the_lake_is_encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The buffer of a logger: lines of this process and of one that died are stored whole."""
    root = encrypted.create(tmp_path / "lake", monkeypatch)
    lines = [json.dumps({"type": f"{PLANTED}type", "data": {"n": n}}).encode() for n in range(5)]
    buffer = DiskBuffer(f"{root}/cache/buffer")
    first = buffer.add(lines[:2])
    buffer.remove(first)
    assert buffer.size == 0
    later = buffer.add(lines[:2]) + buffer.add(lines[2:])
    assert encrypted.found(Path(root), WORDS) == []
    got = list[bytes]()
    buffer.drain(got.extend)
    assert got == later
    left = buffer.add(lines)
    buffer.after_fork()
    assert recover(f"{root}/cache/buffer", got.extend) == 5
    assert got[5:] == left


def test_a_confined_process_gets_the_keys_of_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has neither the environment nor the home of the server, and answers all the same."""
    root = encrypted.create(tmp_path / "lake", monkeypatch)
    with lakelog.open(root) as lake:
        lake.append(events(1200))
        lake.settle()
        lake.append(events(1, 1200))
    monkeypatch.delenv("LAKELOG_KEY")
    limits = QueryLimits(workers=1, seconds=20, memory=700 << 20)
    query = f"SELECT count(*) AS n FROM events WHERE message LIKE '%{PLANTED}%'"

    async def ask() -> int:
        workers = QueryWorkers(root, "main", limits)
        try:
            table = await workers.query(query)
            return int(table["n"][0].as_py())
        finally:
            await workers.close()

    assert asyncio.run(ask()) == 1201
