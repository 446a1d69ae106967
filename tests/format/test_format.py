"""The bytes of FORMAT.md, sections 1 to 8, on real files; each test names what it checks (F2.1)."""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
import zstandard

import lakelog
from tests.support import damage, lakes, second_reader, statements
from tests.support.requirements import find
from tests.support.statements import parse_document, parse_object

STATEMENT = re.compile(r"F\d+\.\d+")
PATHS = re.compile(
    r"""lakelog\.json
    | wal/[a-z0-9._%-]+/[0-9a-f]{32}-\d{6}\.jsonl\.zst
    | (segments|ids|manifests)/(?P<two>[0-9a-f]{2})/(?P=two)[0-9a-f]{62}\.(parquet|ids|json\.zst)
    | refs/heads/[a-z0-9._%-]+/(\d{12}\.json | packed-\d{12}-\d{12}\.jsonl\.zst | hint)
    | refs/tags/[a-z0-9._%-]+\.json
    | refs/signatures/(@[0-9a-f]{64} | [a-z0-9._%-]+)\.[0-9a-f]{16}\.json
    | gc/(condemned|let_go|lost)\.json | cache/.+""",
    re.X,
)


@pytest.fixture
def rich() -> Path:
    """A lake with every kind of file, at rest."""
    return lakes.at_rest(damage.build)


@pytest.fixture
def zoo() -> dict[str, Path]:
    """Lakes of the kinds that say most about the bytes."""
    kinds = (lakes.plain, lakes.branches, lakes.rewound, lakes.doubtful, lakes.writers)
    return {build.__name__: lakes.at_rest(build) for build in kinds}


# --- every statement is checked -----------------------------------------------------------------


def test_every_statement_is_named_by_a_test() -> None:
    """Each numbered statement of FORMAT.md is there once, and some test's docstring names it."""
    stated = re.findall(r"\*\*(F\d+\.\d+)\*\*", (statements.ROOT / "FORMAT.md").read_text("utf-8"))
    named: set[str] = set()
    for file in (statements.ROOT / "tests" / "format").glob("test_format*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                named.update(STATEMENT.findall(ast.get_docstring(node) or ""))
    assert len(stated) == len(set(stated))
    assert sorted(set(stated) - named) == []
    assert sorted(named - set(stated)) == []


# --- 1. files -----------------------------------------------------------------------------------


def test_every_file_has_a_path_of_the_list(rich: Path, zoo: dict[str, Path]) -> None:
    """F1.1, F1.5: every file of every lake is where the list says, under a name of its form."""
    for lake in (rich, *zoo.values()):
        for file in (p.relative_to(lake).as_posix() for p in lake.rglob("*") if p.is_file()):
            assert PATHS.fullmatch(file) or Path(file).name.startswith(".tmp-"), file


def test_numbers_times_and_text(rich: Path) -> None:
    """F1.2: integers are little-endian, times microseconds, JSON plain UTF-8, hex lower case."""
    now = lakelog.disk.disk.now_us()
    for file in (p for p in rich.rglob("*.json") if p.is_file()):
        assert not file.read_bytes().startswith(b"\xef\xbb\xbf")
        file.read_bytes().decode("utf-8")
    assert all(0 < now - move["time"] < 86_400 * 1_000_000 for move in statements.moves(rich))
    assert struct.unpack("<I", b"\x5a\x2a\x4d\x18")[0] == statements.HEADER
    assert zlib.crc32(b"123456789") == 0xCBF43926


def test_objects_are_named_by_their_bytes(rich: Path) -> None:
    """F1.3: an object's name is the SHA-256 of its bytes, its directory the first two digits."""
    for kind in ("segments", "ids", "manifests"):
        files = [p for p in (rich / kind).rglob("*") if p.is_file()]
        assert files
        for file in files:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            assert (file.parent.name, file.name[:64]) == (digest[:2], digest)


def test_names_are_percent_encoded(zoo: dict[str, Path]) -> None:
    """F1.4: names keep a-z 0-9 . _ -, all other bytes and a first dot are % and two digits."""
    folders = {path.name for path in (zoo["branches"] / "refs/heads").iterdir()}
    assert {"main", "%c3%9cbung%2f%c3%a4", "%55%50%50%45%52", "%2edot", "a%25b"} <= folders
    assert {path.name for path in (zoo["branches"] / "wal").iterdir()} == folders
    tags = {path.name for path in (zoo["branches"] / "refs/tags").iterdir()}
    assert "tag%20%55%50%50%45%52.json" in tags
    assert second_reader.encode("Main") == "%4dain"


def test_unfinished_files_are_ignored(rich: Path, tmp_path: Path) -> None:
    """F1.6: files that start with .tmp- are no part of the lake, wherever they are; gc's prey."""
    copy = Path(damage.copied(str(rich), tmp_path / "lake"))
    before, second = damage.read(str(copy)), second_reader.rows(str(copy))
    folders = ("", "wal/main", "segments/00", "refs/heads/main", "refs/tags", "manifests/ff", "gc")
    for folder in folders:
        (copy / folder).mkdir(exist_ok=True)
        temporary = copy / folder / ".tmp-0123456789abcdef"
        temporary.write_bytes(b"{")
        os.utime(temporary, (0, 0))  # by nobody who is about to name it
    assert damage.read(str(copy)) == before
    assert second_reader.rows(str(copy)) == second
    with lakelog.open(str(copy)) as lake:
        assert lake.verify().problems == ()
        lake.store.change_settings(lakelog.Settings(gc_grace_hours=0))
        lake.gc()
        lake.gc()
    assert list(copy.rglob(".tmp-*")) == []


def test_empty_directories_may_be_missing(rich: Path, tmp_path: Path) -> None:
    """F1.7: a lake without its empty directories reads, verifies, and is written as before."""
    copy = Path(damage.copied(str(rich), tmp_path / "lake"))
    shutil.rmtree(copy / "cache")
    for folder in sorted((p for p in copy.rglob("*") if p.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    assert len(list((copy / "ids").iterdir())) < 256
    assert damage.read(str(copy)) == damage.read(str(rich))
    with lakelog.open(str(copy), create=False) as lake:
        assert lake.verify().problems == ()
        lake.append([{"type": "NEW", "id": f"new{i}"} for i in range(3)])
        lake.tag("new")
        lake.compact()
        assert lake.count() == damage.read(str(rich))[2] + 3


def test_every_attempt_has_a_commit(rich: Path) -> None:
    """F1.8: segments, id runs, manifests, pages, moves and tags hold 16 random bytes as commit."""
    found = [move["commit"] for move in statements.moves(rich)]
    found += [parse_document(p.read_bytes())["commit"] for p in (rich / "refs/tags").iterdir()]
    found += [parse_object(p)["commit"] for p in (rich / "manifests").rglob("*.zst")]
    found += [p.read_bytes()[16:32].hex() for p in (rich / "ids").rglob("*.ids")]
    for file in (rich / "segments").rglob("*.parquet"):
        found.append(pq.read_metadata(file).metadata[b"lakelog.commit"].decode())
    assert all(re.fullmatch(r"[0-9a-f]{32}", commit) for commit in found)
    twice = {}
    for _ in range(2):
        data = lakelog.document.encode({"commit": lakelog.disk.disk.random_hex()})
        twice[hashlib.sha256(data).hexdigest()] = data
    assert len(twice) == 2


# --- 2. documents -------------------------------------------------------------------------------


def test_documents_end_with_their_sum(rich: Path) -> None:
    """F2.1, F2.2: a document is a line of JSON that ends with the SHA-256 of what is before."""
    files = [p for p in rich.rglob("*.json") if p.is_file()] + [rich / "refs/heads/main/hint"]
    assert len(files) >= 6
    for file in files:
        data = file.read_bytes()
        assert data.endswith(b"}\n")
        assert data.count(b"\n") in ((1, 2) if "refs" in file.parts else (1,))
        assert list(json.loads(data.splitlines()[0]))[-1] == "checksum"
        parse_document(data)


def test_the_lake_document(rich: Path) -> None:
    """F2.3: lakelog.json has the format, the lake's random id, and settings unlike the defaults."""
    body = parse_document((rich / "lakelog.json").read_bytes())
    assert list(body) == ["format", "lake", "settings", "checksum"]
    assert body["format"] == 3
    assert re.fullmatch(r"[0-9a-f]{32}", body["lake"])
    assert body["settings"] == {"seal": "never", "history_days": 0, "threads": 1}


# --- 3. write-ahead logs ------------------------------------------------------------------------


def test_any_zstd_tool_prints_the_lines(rich: Path) -> None:
    """F3.1: a WAL is standard zstd: a decompressor, or zstdcat, gives the JSON lines alone."""
    for name, wal in statements.wals(rich).items():
        file = rich / "wal/main" / name
        text = b"".join(frame["text"] for frame in wal.frames)
        reader = zstandard.ZstdDecompressor().stream_reader(
            file.read_bytes(), read_across_frames=True
        )
        assert reader.read() == text
        if zstdcat := find("zstdcat"):
            assert subprocess.run([zstdcat, file], capture_output=True).stdout == text


def test_the_header_of_a_wal(rich: Path) -> None:
    """F3.2, F3.3: the header's bytes are as the table says, its members those of its path."""
    names = "format lake branch writer n first doubtful host pid started".split()
    for name, wal in statements.wals(rich).items():
        assert list(wal.header) == names
        assert wal.header["format"] == 3
        assert f"{wal.header['writer']}-{wal.header['n']:06d}.jsonl.zst" == name
        assert wal.header["branch"] == "main"
        assert wal.header["first"] == wal.frames[0]["sequence"]
        lake_id = parse_document((rich / "lakelog.json").read_bytes())["lake"]
        assert wal.header["lake"] == lake_id


def test_a_wal_under_another_name_is_damage(rich: Path, tmp_path: Path) -> None:
    """F3.3: a header that says another branch, writer or number than the path is damage."""
    copy = Path(damage.copied(str(rich), tmp_path / "lake"))
    file = sorted((copy / "wal/main").iterdir())[0]
    file.rename(file.with_name(f"{'0' * 32}-000000.jsonl.zst"))
    assert isinstance(damage.outcome(str(copy)), lakelog.Damaged)
    with pytest.raises(second_reader.Damaged):
        second_reader.rows(str(copy))


def test_the_frames_of_a_wal(rich: Path, zoo: dict[str, Path]) -> None:
    """F3.4, F3.6: a frame's bytes are as the table says, its text exactly `events` lines."""
    found = [w for lake in (rich, *zoo.values()) for w in statements.wals(lake).values()]
    for frame in (frame for wal in found for frame in wal.frames):
        assert frame["text"].endswith(b"\n")
        assert frame["text"].count(b"\n") == frame["events"] > 0
        assert frame["cursor"] == 0


def test_a_frame_is_good_if_both_sums_hold(rich: Path) -> None:
    """F3.5: a frame with any bit changed, or any byte missing, is not good."""
    name, wal = next(iter(statements.wals(rich).items()))
    data = (rich / "wal/main" / name).read_bytes()
    start, stop = wal.frames[0]["at"], wal.frames[1]["at"]
    assert second_reader.read_frame(data, start) is not None
    for at in range(start, stop):
        assert second_reader.read_frame(damage.flipped(data, at, at % 8), start) is None
        assert second_reader.read_frame(data[:at], start) is None


def test_the_end_of_a_wal(rich: Path, zoo: dict[str, Path]) -> None:
    """F3.7: END names the last sequence; nothing follows it, and it may be missing."""
    found = [w for lake in (rich, *zoo.values()) for w in statements.wals(lake).values()]
    assert {wal.end is None for wal in found} == {True, False}
    assert all(wal.end in (None, wal.frames[-1]["sequence"]) for wal in found)


def test_sequence_and_position_go_on_across_files(rich: Path) -> None:
    """F3.8: sequence counts frames and position lines, from 0 and on across a writer's files."""
    (second,) = [n for n in statements.wals(rich) if n.endswith("-000001.jsonl.zst")]
    frames = [
        f
        for n, w in sorted(statements.wals(rich).items())
        if n[:32] == second[:32]
        for f in w.frames
    ]
    assert [f["sequence"] for f in frames] == list(range(len(frames)))
    counts = [0, *itertools.accumulate(f["events"] for f in frames)]
    assert [f["position"] for f in frames] == counts[:-1]


def test_the_flags_of_frames(rich: Path) -> None:
    """F3.9: frames with an id or content key are keyed, quarantined lines flagged, others plain."""
    for wal in statements.wals(rich).values():
        for frame in wal.frames:
            lines = [json.loads(line) for line in frame["text"].splitlines()]
            keyed = any(line.get("id") or line.get("key") for line in lines)
            bad = "reason" in lines[0]
            assert frame["flags"] == keyed * 1 + bad * 4


def test_quarantined_lines_have_no_identity() -> None:
    """F3.9: a frame that says both keyed and quarantined holds quarantined lines."""
    from lakelog import database, frame_rows
    from lakelog.paths import Paths
    from lakelog.wal import frames as wal

    line = b'{"origin":"a.log","position":3,"reason":"bad","line":"{","id":"1"}'
    flags = wal.Frame.KEYED | wal.Frame.QUARANTINED
    data = wal.encode_frame(line, 1, 0, flags, 0, 0, zstandard.ZstdCompressor())
    frames = list(wal.scan(data, 0, "w").frames)
    con = database.connect(Paths("/nowhere"), lakelog.Settings())
    assert frame_rows.events(lambda: con, frames).num_rows == 0
    assert frame_rows.quarantined(lambda: con, frames)["position"].to_pylist() == [3]
    con.close()


def test_doubtful_sequences(zoo: dict[str, Path]) -> None:
    """F3.10: only sequences named in a later header's `doubtful` are missing between others."""
    found = list(statements.wals(zoo["doubtful"]).values())
    have = {frame["sequence"] for wal in found for frame in wal.frames}
    named = {sequence for wal in found for sequence in wal.header["doubtful"]}
    assert len(named) == 2
    assert len(named & have) == 1
    assert set(range(max(have) + 1)) - have == named - have
    types = {row["type"] for row in second_reader.rows(str(zoo["doubtful"]))}
    assert types == {"FIRST", "WRITTEN", "SECOND", "THIRD", "RETRIED", "FOURTH"}


def test_a_wal_appears_with_its_first_frame(tmp_path: Path) -> None:
    """F3.11: no WAL is ever there without a frame, and each frame is synced before the next."""
    with lakes.opened(str(tmp_path / "lake"), rotate_events=2) as lake:
        assert list((tmp_path / "lake/wal/main").iterdir()) == []
        for i in range(5):
            lake.append({"type": "A", "data": i})
            found = statements.wals(tmp_path / "lake")
            assert sum(len(wal.frames) for wal in found.values()) == i + 1
            assert all(wal.frames for wal in found.values())


def test_space_follows_the_frames(tmp_path: Path) -> None:
    """F3.16, F3.1: after the second frame of a file stands space, up to its end; commits that fit
    leave the size as it is, and zstd prints the lines and nothing else, before and after END."""
    path = tmp_path / "lake"
    with lakes.opened(str(path)) as lake:
        spaces, sizes = [], set()
        for i in range(6):
            lake.append({"type": "A", "data": i})
            [(name, wal)] = statements.wals(path).items()
            spaces.append(wal.space)
            data = (path / "wal/main" / name).read_bytes()
            sizes.add(len(data))
            reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
            assert reader.read() == b"".join(frame["text"] for frame in wal.frames)
            assert wal.space == 0 or wal.space == 8 + int.from_bytes(
                data[len(data) - wal.space + 4 :][:4], "little"
            )
    assert spaces[0] == 0
    assert all(spaces[1:])
    assert len(sizes) == 2
    (wal,) = statements.wals(path).values()
    assert (wal.space, wal.end) == (0, 5)


def test_frames_have_limits(tmp_path: Path) -> None:
    """F3.12: a frame holds at most 4,096 lines and 1 MiB, but for a single longer line."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        lake.append([{"type": "A", "data": i} for i in range(10_000)])
        lake.append([{"type": "B", "data": "x" * 300_000} for _ in range(9)])
        lake.append([{"type": "C", "data": "x" * 3_000_000}, {"type": "D"}])
    (wal,) = statements.wals(tmp_path / "lake").values()
    assert all(f["events"] <= 4096 for f in wal.frames)
    assert [f["events"] for f in wal.frames if f["raw"] > 1 << 20] == [1]


def test_lines_of_a_wal(zoo: dict[str, Path]) -> None:
    """F3.13: a line has each column once under a spelling of it, strings all, and data last."""
    plain = ("time", "key", *second_reader.TEXTS)
    spellings = {**second_reader.SPELLINGS, **{name: name for name in plain}}
    seen = set()
    for wal in [w for n in ("plain", "rewound") for w in statements.wals(zoo[n]).values()]:
        for text in itertools.chain(*(frame["text"].splitlines() for frame in wal.frames)):
            pairs = json.loads(text, object_pairs_hook=list)
            names = [spellings[name] for name, _ in pairs]
            assert len(set(names)) == len(names)
            assert {"time", "type"} <= set(names)
            assert "data" not in names[:-1]
            head, found, data = text.partition(b',"data":')
            values = json.loads(head + b"}" if found else text)
            assert all(isinstance(v, (str, type(None))) for v in values.values())
            time = values[next(n for n in values if spellings[n] == "time")]
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", time)
            assert (orjson.loads(data[:-1]) is not ...) if found else "data" not in names
            seen.update(name for name, _ in pairs)
    assert {"timestamp", "event_type", "item_id", "data", "id"} <= seen


def test_quarantined_lines(rich: Path) -> None:
    """F3.14: a quarantined line is an object of origin, position, reason and line."""
    frames = [f for w in statements.wals(rich).values() for f in w.frames if f["flags"] & 4]
    assert frames
    for text in itertools.chain(*(frame["text"].splitlines() for frame in frames)):
        assert list(json.loads(text)) == ["origin", "position", "reason", "line"]


def test_the_worked_example_of_a_frame() -> None:
    """F3.15: the frame shown is one lakelog reads, with the values that the text gives."""
    data = statements.example("F3.15")
    frame, end = statements.parse_frame(data, 0)
    assert end == len(data) == 129
    values = {k: frame[k] for k in ("sequence", "bytes", "raw", "events", "flags", "position")}
    assert list(values.values()) == [0, 65, 56, 1, 1, 0]
    assert frame["ingested_at"] == 0x0006474846204000 == 1_767_225_600_000_000
    assert frame["crc"] == 0x22246334
    assert struct.unpack_from("<I", data, 60)[0] == 0x87CF4CA1
    assert frame["text"] == b'{"time":"2026-01-01T00:00:00Z","type":"PING","id":"a1"}\n'
    (again,) = lakelog.wal.frames.scan(data, 0, "w").frames
    assert again.lines() == frame["text"]
