"""What a bucket and the directories attached to it hold (FORMAT.md, 22)."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakelog import bloom, document
from lakelog.alerts import evaluating
from lakelog.entries import Removal, SegmentEntry
from lakelog.errors import FormatTooNew, TransferRefused, UnsupportedStore, WrongVersion
from lakelog.manifest import manifest
from lakelog.remotes import conditions
from lakelog.remotes.directory import DirectoryRemote
from lakelog.remotes.shared import move_spans, name_file, offers
from lakelog.store import Store
from lakelog.volume import MovePack
from tests.support import encrypted
from tests.support.attached import SharedMachines, append, numbers, offer_and_die


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[SharedMachines]:
    """Two machines, each with an event that both have."""
    machines = SharedMachines(tmp_path)
    append(machines["a"], 1)
    append(machines["b"], 2)
    machines.exchange("a", "b")
    yield machines
    machines.close()


def test_keys_change_by_numbered_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F22.17: what a file of `config/` says, and that lakelog.json follows in both places."""
    machines = encrypted.share(tmp_path, monkeypatch)
    store = machines["a"].store
    keys = store.paths.keys
    assert keys
    ring = keys.ring.with_new_key(keys.ring.find_master())
    store.change_keys(ring)
    news = document.decode((tmp_path / "bucket/config/000000000001.json").read_bytes())
    members = {"requires": ["bucket", "encryption"], "encryption": ring.to_json()}
    assert {name: news[name] for name in members} == members
    assert not news.keys() - members.keys() - {"checksum"}
    machines["b"].exchange()
    for place in ("bucket", "a", "b"):
        body = document.decode((tmp_path / place / "lakelog.json").read_bytes())
        assert {name: body[name] for name in members} == members
        assert place == "bucket" or body["bucket"]["config"] == 1
    machines.close()


def test_a_bucket_of_an_encrypted_lake_has_envelopes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F22.18: what is an envelope, what the digest of an offer and hashes of blocks are of."""
    monkeypatch.setattr(name_file, "FILE_LEAST", 0)
    monkeypatch.setattr("lakelog.database.block_ranges.LEAST", 1)
    machines = encrypted.share(tmp_path, monkeypatch)
    append(machines["a"], 0)
    machines["a"].exchange()
    offer_and_die(machines, 1, 2)
    (offer,) = (tmp_path / "bucket/offers").rglob("*.json")
    assert hashlib.sha256(offer.read_bytes()).hexdigest() == offer.stem.partition("-")[2]
    opened = [encrypted.opened(offer.read_bytes(), _secret(machines))]
    machines["b"].erase(where="data->>'n' = '2'", why="asked")
    folders = ["machines", "cache/names", "erasures"]
    files = [path for name in folders for path in (tmp_path / "bucket" / name).iterdir()]
    opened += [encrypted.opened(path.read_bytes(), _secret(machines)) for path in files]
    assert {data[:4] for data in opened} == {b"LKN2", *(b'{"' + n for n in _MEMBERS)}
    machines.close()


_MEMBERS = (b"nu", b"na", b"st", b"ke", b"pl")
"""How the first members of offers, machines, states, erasures and their rows begin."""


def _secret(machines: SharedMachines) -> bytes:
    keys = machines["b"].store.paths.keys
    assert keys
    return keys.secret


def refs_of(root: Path) -> dict[str, bytes]:
    """Return the moves and tags below a directory."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in (root / "refs").rglob("*.json")
        if path.is_file()
    }


def test_both_configurations_keep_other_programs_away(
    machines: SharedMachines, tmp_path: Path
) -> None:
    """F22.1: what lakelog.json of a bucket and of an attached directory says."""
    bucket = document.decode((tmp_path / "bucket" / "lakelog.json").read_bytes())
    attached = document.decode(Path(machines["a"].store.paths.config).read_bytes())
    assert bucket["requires"] == attached["requires"] == ["bucket"]
    assert bucket["lake"] == attached["lake"]
    assert attached["bucket"].keys() == {"url", "proven", "cache", "machine"}
    assert bucket["proven"] == ""
    with pytest.raises(UnsupportedStore):
        Store.load(str(tmp_path / "bucket"))
    with pytest.raises(FormatTooNew):
        document.require_known(attached["requires"], "it")


def test_names_are_taken_once_and_a_lost_answer_is_told_from_a_loss(tmp_path: Path) -> None:
    """F22.2: what is asked of a store, and that one's own bytes are a success."""
    from lakelog.remotes import remote as remotes

    remote = DirectoryRemote(str(tmp_path))
    conditions.require(remote)
    assert remotes.put_new(remote, "refs/tags/v.json", b"mine")
    assert remotes.put_new(remote, "refs/tags/v.json", b"mine")
    assert not remotes.put_new(remote, "refs/tags/v.json", b"another's")


def test_refs_of_a_directory_are_those_of_the_bucket(
    machines: SharedMachines, tmp_path: Path
) -> None:
    """F22.3: the same moves and tags, byte by byte, once both have exchanged; F22.6: as files."""
    machines["a"].tag("v1")
    machines.exchange("a", "b")
    bucket = refs_of(tmp_path / "bucket")
    assert bucket == refs_of(tmp_path / "a") == refs_of(tmp_path / "b")
    assert "refs/heads/main/000000000003.json" in bucket
    assert not (tmp_path / "bucket" / "wal").exists()


def test_a_directory_that_is_ahead_of_its_bucket_publishes_nothing(
    machines: SharedMachines, tmp_path: Path
) -> None:
    """F22.4: it is not joined to an older copy."""
    moves = tmp_path / "bucket" / "refs" / "heads" / "main"
    newest = max(moves.glob("0*.json"))
    newest.unlink()
    append(machines["a"], 3)
    with pytest.raises(TransferRefused):
        machines["a"].exchange()
    assert not newest.exists()


def test_watermarks_of_others_stay(machines: SharedMachines, tmp_path: Path) -> None:
    """F22.5: a machine omits those of its own writers, of which no offer may count any more."""
    writer = machines["a"].writer().name
    machines.reopened("a")
    append(machines["b"], 3)
    machines["b"].exchange()
    assert writer in machines["b"].store.refs.head("main").move.wal
    assert writer in (tmp_path / "a" / "cache" / "own-writers").read_text().split()
    for number in range(4, 6 + offers.HEADS):
        append(machines["a"], number)
        machines["a"].exchange()
        if number == offers.HEADS // 2:
            assert writer in machines["a"].store.refs.head("main").move.wal
    assert writer not in machines["a"].store.refs.head("main").move.wal
    shutil.rmtree(tmp_path / "b" / "cache")
    assert numbers(machines.reopened("b")) == [1, 2, 3]


def test_an_offer_is_what_its_seal_would_publish(machines: SharedMachines, tmp_path: Path) -> None:
    """F22.8: its name and members, and whose move takes it."""
    append(machines["a"], 3)
    append(machines["b"], 4)
    volume, seen = machines["a"].store.volume, list[Path]()
    link = volume.link

    def late_link(*words: object) -> None:
        seen[:] = (tmp_path / "bucket" / "offers" / "main").glob("*")
        machines["b"].exchange()
        if not seen:
            return link(*words)
        body = document.decode(seen[0].read_bytes())
        head = machines["b"].store.refs.head("main").move
        assert seen[0].name == f"{body['number']:012d}-{document.digest(seen[0].read_bytes())}.json"
        assert body["base"].keys() == body["sealed"].keys() <= head.wal.keys()
        append(machines["b"], 5)
        machines["b"].exchange()
        head = machines["b"].store.refs.head("main").move
        assert {writer: head.wal[writer] for writer in body["sealed"]} == body["sealed"]
        return link(*words)

    volume.link = late_link
    machines["a"].exchange()
    assert seen
    assert numbers(machines["a"]) == [1, 2, 3, 4, 5]


def test_the_first_published_of_equal_ids_stays(machines: SharedMachines) -> None:
    """F22.7: of two events with an id one is published."""
    machines["b"].append({"type": "T", "id": "x", "data": {"n": 8}})
    machines["a"].append({"type": "T", "id": "x", "data": {"n": 7}})
    machines.exchange("a", "b")
    assert numbers(machines["a"]) == numbers(machines["b"]) == [1, 2, 7]
    (line,) = machines["a"].sql("SELECT line->>'data' FROM quarantine").fetchall()
    assert line == ('{"n":8}',)


def test_a_version_is_given_by_a_move_without_watermarks(machines: SharedMachines) -> None:
    """F22.13: its operation, watermarks, and the run with its key; nothing is in a WAL."""
    before = machines["a"].store.refs.head("main").move
    event = {"type": "T", "subject": "s", "data": {"n": 3}}
    machines["a"].append(event, expect={"s": 0})
    head = machines["a"].store.refs.head("main").move
    assert (head.op, head.number, head.wal) == ("seal", before.number + 1, before.wal)
    assert len(machines["a"].store.state("main").ids) == 1
    rows = "SELECT origin, position FROM events WHERE subject = 's'"
    assert machines["a"].sql(rows).fetchall() == [("stream:s", 1)]
    with pytest.raises(WrongVersion):
        machines["b"].append(event, expect={"s": 0})


def test_spans_of_moves_are_packed_moves(
    machines: SharedMachines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F22.11: the name of a span, and that it holds the bytes of its moves."""
    monkeypatch.setattr(move_spans, "GROWTH", 4)
    append(machines["a"], 3)
    machines["a"].exchange()
    (span,) = (tmp_path / "bucket" / "packs" / "main").iterdir()
    assert span.name == "packed-000000000001-000000000256.jsonl.zst"
    moves = MovePack("main", 1, 256).decode(span.read_bytes())
    folder = tmp_path / "bucket" / "refs" / "heads" / "main"
    assert moves == {n: (folder / f"{n:012d}.json").read_bytes() for n in range(1, 5)}


def test_names_of_a_segment_are_sorted_hashes(
    machines: SharedMachines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F22.12: the head of the file about a segment, and the keys of its ids and subjects."""
    monkeypatch.setattr(name_file, "FILE_LEAST", 0)
    events = [{"type": "T", "id": f"i{n}", "subject": "s"} for n in range(3)]
    machines["a"].append(events)
    machines["a"].exchange()
    (file,) = (tmp_path / "bucket" / "cache" / "names").iterdir()
    data = file.read_bytes()
    magic, crc, ids, subjects, about = struct.unpack_from("<4sIqq32s", data)
    assert (magic, ids, subjects, about.hex()) == (b"LKN2", 3, 1, file.name)
    assert crc == zlib.crc32(data[8:88])
    assert struct.unpack_from("<2I", data, 80) == (zlib.crc32(data[88:112]), zlib.crc32(data[112:]))
    keys = struct.unpack_from("<4Q", data, 88)
    assert struct.unpack_from("<2Q", data, 64) == (keys[0], keys[3])
    hashed = bloom.hashes(pa.array(["i0", "i1", "i2"])).tolist()
    assert list(keys[:3]) == sorted(value >> 16 << 16 for value in hashed)


def test_names_of_pages_number_their_entries(
    machines: SharedMachines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F22.12: the digest of a unit, and the keys of its entries, also of those that remove."""
    monkeypatch.setattr(manifest, "FAN", 2)
    for number in range(5):
        machines["a"].append({"type": "T", "id": f"i{number}", "subject": f"s{number}"})
        machines["a"].exchange()
    machines["a"].compact()
    store = machines["a"].store
    pages = store.state("main").pages
    while not pages[-1].level:
        pages = pages[:-1]
    digest = hashlib.sha256("".join(f"\n{page.digest}" for page in pages).encode()).hexdigest()
    data = (tmp_path / "bucket" / "cache" / "names" / digest).read_bytes()
    ids, subjects, about = struct.unpack_from("<qq32s", data, 8)
    assert about.hex() == digest
    keys = struct.unpack(f"<{ids + subjects}Q", data[-8 * (ids + subjects) :])
    expected: dict[str, set[tuple[int, int, int]]] = {"id": set(), "subject": set()}
    for place, page in enumerate(pages):
        for number, entry in enumerate(store.manifests.page(page)):
            named: dict[str, list[str]] = {"id": [], "subject": []}
            if isinstance(entry, Removal):
                named["subject"] = [entry.key]
            elif isinstance(entry, SegmentEntry):
                table = pq.read_table(store.paths.object("segments", entry.key))
                named = {name: table[name].to_pylist() for name in named}
            for name, values in named.items():
                hashed = bloom.hashes(pa.array(values, pa.string())).tolist()
                expected[name] |= {(value >> 18, place, number) for value in hashed}
    split = [(key >> 18, key >> 12 & 63, key & 4095) for key in keys]
    assert split[:ids] == sorted(expected["id"])
    assert split[ids:] == sorted(expected["subject"])
    assert any(page.removals for page in pages)


def test_an_entry_binds_the_hashes_of_blocks(
    machines: SharedMachines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F22.16: behind the keys of a segment's names, and their root in its entry (F6.7)."""
    monkeypatch.setattr("lakelog.database.block_ranges.LEAST", 100_000)
    machines["a"].append({"type": "T", "id": "i", "subject": "s", "data": os.urandom(90_000).hex()})
    machines["a"].exchange()
    (file,) = (tmp_path / "bucket" / "cache" / "names").iterdir()
    (segment,) = (tmp_path / "bucket" / "segments").rglob(f"{file.name}.parquet")
    data, bytes_there = file.read_bytes(), segment.read_bytes()
    blocks = [bytes_there[n : n + 65_536] for n in range(0, len(bytes_there), 65_536)]
    assert struct.unpack_from("<q", data, 56) == (len(blocks),)
    hashes = data[-32 * len(blocks) :]
    assert hashes == b"".join(hashlib.sha256(block).digest() for block in blocks)
    store = machines["a"].store
    entries = store.manifests.segments(store.state("main"))
    (entry,) = (entry for entry in entries if entry.key == file.name)
    assert entry.blocks == hashlib.sha256(hashes).hexdigest()[:32]
    assert entry.to_json()["blocks"] == entry.blocks


def test_who_evaluates_has_a_lease_of_the_branch(machines: SharedMachines, tmp_path: Path) -> None:
    """F22.9: its work is of letters, and its holder the machine."""
    digits = hashlib.sha256(b"main").hexdigest()[:8]
    letters = digits.translate(str.maketrans("0123456789", "ghijklmnop"))
    with evaluating(machines["a"], lambda _: None, threading.Event()):
        (file,) = (tmp_path / "bucket" / "gc").glob("lease-alerts*.json")
        body = document.decode(file.read_bytes())
    assert file.name == f"lease-alerts{letters}-000000000001.json"
    assert (tmp_path / "bucket" / "machines" / f"{body['holder']}.json").is_file()
    assert not body["ended"]


def test_a_compaction_has_the_number_of_its_lease(machines: SharedMachines, tmp_path: Path) -> None:
    """F22.9: its file, and the watermark; F22.10: the moves stay."""
    machines["a"].compact()
    head = machines["a"].store.refs.head("main").move
    name = hashlib.sha256(b"compact").hexdigest()[:32]
    assert (head.op, head.wal[name]) == ("compact", 1)
    (file,) = (tmp_path / "bucket" / "gc").glob("*")
    assert file.name == "lease-compact-000000000001.json"
    assert document.decode(file.read_bytes()).keys() == {"holder", "ended"}
    machines["a"].expire()
    assert (tmp_path / "bucket" / "refs" / "heads" / "main" / "000000000001.json").exists()


def test_an_erasure_is_in_the_bucket_before_its_move_and_each_machine_confirms_it(
    machines: SharedMachines, tmp_path: Path
) -> None:
    """F22.14: its documents, and a move on each branch; F22.15: the document of a machine."""
    machines["a"].append({"type": "T", "subject": "ada"})
    machines.exchange("a", "b")
    key = machines["a"].erase(subject="ada", why="asked").erasure.key
    folder = tmp_path / "bucket" / "erasures"
    assert {path.name for path in folder.iterdir()} == {f"{key}.json", f"{key}.rows", "states.json"}
    assert document.decode((folder / f"{key}.json").read_bytes())["phase"] == "swept"
    head = machines["a"].store.refs.head("main").move
    assert (head.op, head.wal[hashlib.sha256(b"erase").hexdigest()[:32]]) == ("erase", 1)
    machines["b"].exchange()
    for name in "ab":
        config = document.decode(Path(machines[name].store.paths.config).read_bytes())
        note = tmp_path / "bucket" / "machines" / f"{config['bucket']['machine']}.json"
        body = document.decode(note.read_bytes())
        assert body["name"].endswith(f":{tmp_path}/{name}")
        assert body["erased"] == [key]
