"""The bytes of FORMAT.md, sections 4 to 8: segments, id runs, manifests, moves, tags, the rest."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import zstandard

import lakelog
from lakelog.identities import IdentityKeys
from lakelog.moves.publication import Change, publish
from lakelog.settings import Settings
from tests.support import damage, lakes, second_reader, statements
from tests.support.statements import parse_document, parse_object

EVENT_COLUMNS = [
    "time",
    "type",
    "category",
    "source",
    "subject",
    "level",
    "message",
    "data",
    "id",
    "ingested_at",
    "origin",
    "position",
]
STAMP = pa.timestamp("us", tz="UTC")
OPS = set(
    "init branch seal ingest compact maintain snapshot retention quarantine dedupe rollback undo"
    " delete repair lost".split()
)


@pytest.fixture
def rich() -> Path:
    """A lake with every kind of file, at rest."""
    return lakes.at_rest(damage.build)


@pytest.fixture
def paged() -> Path:
    """A lake with pages of every level."""
    return lakes.at_rest(lakes.paged)


def segments(lake: Path) -> list[pq.ParquetFile]:
    """Every segment of a lake."""
    return [pq.ParquetFile(path) for path in sorted((lake / "segments").rglob("*.parquet"))]


def notes(segment: pq.ParquetFile) -> dict[str, str]:
    """The lakelog.* metadata of a segment."""
    found = segment.metadata.metadata or {}
    return {k.decode(): v.decode() for k, v in found.items() if k.startswith(b"lakelog.")}


def states(lake: Path) -> dict[str, dict[str, Any]]:
    """Every manifest of a lake by digest; pages left out."""
    files = {p.name[:64]: parse_object(p) for p in (lake / "manifests").rglob("*.zst")}
    files = {digest: body for digest, body in files.items() if "totals" in body}
    return files | statements.carried(lake)


# --- 4. segments --------------------------------------------------------------------------------


def test_columns_of_segments(rich: Path) -> None:
    """F4.1, F4.2, F4.3, F4.6: the columns, their order and types, by kind and layout; zstd
    throughout."""
    typed = 0
    for segment in segments(rich):
        kind, layout = (notes(segment)[f"lakelog.{k}"] for k in ("kind", "layout"))
        events = EVENT_COLUMNS + ["seq"] * (layout == "sorted")
        bad = ["ingested_at", "origin", "position", "reason", "line"]
        is_typed = "lakelog.fields" in notes(segment)
        typed += is_typed
        schema = segment.schema_arrow
        assert schema.names == (events + ["fields"] * is_typed if kind == "events" else bad)
        types = {"time": STAMP, "ingested_at": STAMP, "position": pa.int64(), "seq": pa.int64()}
        plain = [name for name in schema.names if name != "fields"]
        assert all(schema.field(n).type == types.get(n, pa.string()) for n in plain)
        assert not is_typed or pa.types.is_struct(schema.field("fields").type)
        table = segment.read()
        for name in {"time", "type", "ingested_at"} & set(schema.names):
            assert table[name].null_count == 0
        for group, column in itertools.product(
            range(segment.num_row_groups), range(segment.metadata.num_columns)
        ):
            chunk = segment.metadata.row_group(group)
            assert chunk.column(column).compression == "ZSTD"
            assert chunk.num_rows <= 131_072
    assert typed


def test_order_of_rows(rich: Path, paged: Path) -> None:
    """F4.3: sorted segments go by type, seq; arrival ones by writer, sequence and line."""
    layouts = set()
    for segment in [*segments(rich), *segments(paged)[:50]]:
        rows = segment.read().to_pylist()
        layouts.add(notes(segment)["lakelog.layout"])
        if notes(segment)["lakelog.kind"] == "quarantine":
            continue
        if notes(segment)["lakelog.layout"] == "sorted":
            keys = [(row["type"], row["seq"]) for row in rows]
            assert keys == sorted(keys)
        else:
            writers = [key for key, _ in itertools.groupby(row["origin"] for row in rows)]
            assert len(writers) == len(set(writers))
            for writer in writers:
                places = [row["position"] for row in rows if row["origin"] == writer]
                assert places == sorted(places)
    assert layouts == {"arrival", "sorted"}


def test_strings_are_ordered_by_their_bytes(tmp_path: Path) -> None:
    """F1.2, F4.3, F6.7: types and bounds of subjects go by UTF-8, not by UTF-16 or by language."""
    names = ["z", "\u00e9", "\uffff", "\U0001f600"]
    with lakes.opened(str(tmp_path / "lake")) as lake:
        lake.append([{"type": name, "subject": name} for name in reversed(names)])
        lake.settle()
        lake.compact()
    (entry,) = statements.segment_entries(tmp_path / "lake")
    file = tmp_path / f"lake/segments/{entry['key'][:2]}/{entry['key']}.parquet"
    assert pq.ParquetFile(file).read()["type"].to_pylist() == names
    assert entry["subject"] == [names[0], names[-1]]


def test_notes_of_segments(rich: Path) -> None:
    """F4.4: metadata says format, commit, kind, layout, and what WAL frames were sealed."""
    sealed = 0
    for segment in segments(rich):
        found = notes(segment)
        assert found["lakelog.format"] == "1"
        assert re.fullmatch(r"[0-9a-f]{32}", found["lakelog.commit"])
        ranges = eval(found["lakelog.wal"], {})
        sealed += bool(ranges)
        assert found.get("lakelog.branch", "") == ("main" if ranges else "")
        lake_id = json.loads((rich / "lakelog.json").read_text())["lake"]
        assert found.get("lakelog.lake", "") == (lake_id if ranges else "")
        level = found.get("lakelog.zstd", "0")
        assert 0 <= int(level) <= (22 if found["lakelog.layout"] == "sorted" else 0)
        assert all(0 <= first <= last for first, last in ranges.values())
    assert sealed >= 4


def test_segments_are_checked_before_they_are_believed(rich: Path, tmp_path: Path) -> None:
    """F4.5: page checksums are there; a flip that Parquet lets pass is still an error."""
    copy = Path(damage.copied(str(rich), tmp_path / "lake"))
    key = next(e["key"] for e in statements.segment_entries(copy) if e["kind"] == "events")
    file = copy / f"segments/{key[:2]}/{key}.parquet"
    data = file.read_bytes()
    for at in range(4, 60, 5):
        file.write_bytes(damage.flipped(data, at, 1))
        assert isinstance(damage.outcome(str(copy)), lakelog.Damaged)
    file.write_bytes(data)
    pq.ParquetFile(file, page_checksum_verification=True).read()
    body = data.index(b"\x28\xb5\x2f\xfd")
    file.write_bytes(damage.flipped(data, body + 12, 0))
    with pytest.raises(OSError, match=r"(?i)crc|checksum"):
        pq.ParquetFile(file, page_checksum_verification=True).read()


# --- 5. id runs ---------------------------------------------------------------------------------


def test_bytes_of_id_runs(rich: Path) -> None:
    """F5.1, F5.2: the header as the table says, then the keys' two parts, ascending."""
    files = list((rich / "ids").rglob("*.ids"))
    assert files
    for file in files:
        data = file.read_bytes()
        tag, count, commit, crc = struct.unpack_from("<4s4xQ16sI", data)
        assert (tag, len(data)) == (b"LKI1", 64 + 12 * count)
        assert data[4:8] == bytes(4)
        assert data[36:60] == bytes(24)
        assert len(commit) == 16
        assert crc == zlib.crc32(data[64:])
        assert struct.unpack_from("<I", data, 60)[0] == zlib.crc32(data[:60])
        parts = struct.unpack_from(f"<{count}Q{count}I", data, 64)
        keys = list(zip(parts[:count], parts[count:], strict=True))
        assert keys == sorted(keys)


def test_the_worked_example_of_an_id_run() -> None:
    """F5.3, F13.1: the run shown is that of the example frame's event, and as lakelog writes it."""
    import numpy as np

    data = statements.example("F5.3")
    key = hashlib.sha256(b"\0a1").hexdigest()[:24]
    assert key == "d86f87421d1b5d2c2c892472"
    high = np.array([int(key[:16], 16)], dtype="u8")
    low = np.array([int(key[16:], 16)], dtype="u4")
    commit = "00112233445566778899aabbccddeeff"
    assert IdentityKeys.of_numbers(high, low).encode(commit) == data
    assert lakelog.event.identity_key(None, "a1") == key


# --- 6. manifests and pages ---------------------------------------------------------------------


def test_members_of_manifests(rich: Path, paged: Path) -> None:
    """F6.1, F6.2: a manifest is a zstd frame of one JSON object with these members."""
    names = (
        "format parent commit time author op message next_seq totals pages tail ids retention"
    ).split()
    for lake in (rich, paged):
        for digest, state in states(lake).items():
            assert list(state) == names
            assert state["format"] == 1
            assert state["parent"] == "" or len(state["parent"]) == 64
            assert list(state["totals"]) == ["events", "bytes", "segments", "quarantined"]
            assert state["retention"] is None
            assert digest in statements.carried(lake)


def test_frames_state_their_content_size(rich: Path) -> None:
    """F6.1: every zstd frame says in its header how long its content is."""
    frames = [p.read_bytes() for p in (rich / "manifests").rglob("*.zst")]
    packed = (lakes.at_rest(lakes.packed) / "refs/heads/main").glob("packed-*")
    frames += [p.read_bytes()[:-44] for p in packed]
    for path in (rich / "wal/main").iterdir():
        data = path.read_bytes()
        for frame in statements.parse_wal(data).frames:
            frames.append(data[frame["at"] + 64 + frame["cursor"] :])
    assert len(frames) > 5
    assert all(zstandard.get_frame_parameters(f).content_size > 0 for f in frames)


def test_the_retention_of_a_manifest(tmp_path: Path) -> None:
    """F6.2: after a retention the manifest says its line and when it was."""
    lakes.retained(str(tmp_path / "lake"))
    found = [state["retention"] for state in states(tmp_path / "lake").values()]
    assert any(r and r.keys() == {"before", "time"} and r["before"] < r["time"] for r in found)


def test_pages(rich: Path, paged: Path) -> None:
    """F6.3, F6.4: tails of at most 16, pages by level, and what a manifest says of each."""
    levels = set()
    for lake, state in [(place, s) for place in (rich, paged) for s in states(place).values()]:
        assert len(state["tail"]) <= 16
        bottom = [page for page in state["pages"] if page["level"] == 3]
        assert state["pages"][: len(bottom)] == bottom
        assert all(page["removals"] == 0 and page["entries"] <= 4_096 for page in bottom)
        for page in state["pages"]:
            assert list(page) == "digest bytes level entries removals events time what".split()
            body = statements.manifest(lake, page["digest"])
            assert list(body) == ["format", "commit", "level", "entries"]
            file = lake / f"manifests/{page['digest'][:2]}/{page['digest']}.json.zst"
            assert page["bytes"] == file.stat().st_size
            assert page["level"] == body["level"]
            assert page["entries"] == len(body["entries"]) <= 16 ** (page["level"] + 1)
            assert page["removals"] == sum("del" in e for e in body["entries"])
            adds = [e for e in body["entries"] if e.get("add") == "segment"]
            assert page["events"] == sum(e["events"] for e in adds)
            times = [e["time"] for e in adds if e["kind"] == "events"]
            span = [min(t[0] for t in times), max(t[1] for t in times)] if times else None
            assert page["time"] == span
            assert page["what"] == sorted({e.get("add") or e["del"] for e in body["entries"]})
            levels.add(page["level"])
    assert levels == {0, 1, 2, 3}


def test_entries(rich: Path, paged: Path) -> None:
    """F6.5, F6.8: an entry adds or removes a key; a removal carries what it takes away."""
    seen = set()
    for file in [p for lake in (rich, paged) for p in (lake / "manifests").rglob("*.zst")]:
        body = parse_object(file)
        for entry in body.get("tail") or body.get("entries", ()):
            assert ("add" in entry) != ("del" in entry)
            what = entry.get("add") or entry["del"]
            assert what in ("segment", "cursor", "artifact", "view", "host", "field")
            assert isinstance(entry["key"], str)
            if entry.get("del") == "segment":
                assert list(entry) == ["del", "key", "events", "bytes", "kind"]
            seen.add((what, "add" in entry))
    both = {(what, adds) for what in ("segment", "artifact") for adds in (True, False)}
    assert seen == {*both, ("host", True), ("field", True)}


def test_live_entries(paged: Path) -> None:
    """F6.6: reading pages in order and then the tail gives the entries lakelog holds for live."""
    mine = {entry["key"]: entry for entry in statements.segment_entries(paged)}
    with lakelog.open(str(paged)) as lake:
        state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
        live = lake.store.manifests.segments(state)
        theirs = {entry.key: orjson.loads(orjson.dumps(entry.to_json())) for entry in live}
    assert mine == theirs
    assert list(mine) == list(theirs)


def counts(column: pa.ChunkedArray) -> dict[str, int] | str:
    """Count the values of a column as an entry does."""
    pairs = Counter({"": column.null_count} if column.null_count else {})
    for row in pc.value_counts(column.drop_null()).to_pylist():
        pairs[row["values"]] += row["counts"]
    return "many" if len(pairs) > 32 or any(len(name) > 64 for name in pairs) else pairs


def test_segment_entries(rich: Path, tmp_path: Path) -> None:
    """F6.7: what an entry says of a segment is what is in the segment."""
    names = {*"add key bytes kind events layout time".split()}
    lakes.plain(str(tmp_path / "lake"))
    with lakelog.open(str(tmp_path / "lake")) as lake:
        lake.append([{"type": f"T{i}", "subject": f"{i}"} for i in range(40)])
        lake.settle()
    for place in (rich, tmp_path / "lake"):
        for entry in statements.segment_entries(place):
            file = place / f"segments/{entry['key'][:2]}/{entry['key']}.parquet"
            table = pq.ParquetFile(file).read()
            assert (entry["bytes"], entry["events"]) == (file.stat().st_size, table.num_rows)
            column = "time" if entry["kind"] == "events" else "ingested_at"
            times = pc.min_max(table[column].cast("int64")).as_py()
            assert entry["time"] == [times["min"], times["max"]]
            if entry["kind"] == "quarantine":
                assert entry.keys() == names
                continue
            for field, source in (("types", "type"), ("sources", "source"), ("levels", "level")):
                assert entry[field] == counts(table[source])
            low, high = pc.min_max(table["subject"]).as_py().values()
            short = low is not None and len(low) <= 64 and len(high) <= 64
            assert entry["subject"] == ([low, high] if short else None)
            more = {"from", "numbers"} if entry["layout"] == "sorted" else set()
            if "fields" in table.column_names:
                more |= {"fields", "texts"}
                assert entry["texts"] == table.num_rows - table["data"].null_count
            assert entry.keys() == names | {"seq", "types", "sources", "levels", "subject"} | more


def test_counts_of_an_entry_miss_no_row(tmp_path: Path) -> None:
    """F6.7, F12.7: null and the empty string are counted together under ""."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        lake.append([{"type": "A"}, {"type": "A", "source": ""}, {"type": "A", "source": "s"}])
        lake.settle()
    (entry,) = statements.segment_entries(tmp_path / "lake")
    assert entry["sources"] == {"": 2, "s": 1}
    assert entry["levels"] == {"": 3}


def test_seq_of_a_rewritten_segment_is_a_range(tmp_path: Path) -> None:
    """F6.7: retention leaves fewer rows than numbers; all rows lie within `seq`."""
    with lakes.opened(str(tmp_path / "lake")) as lake:
        lake.append([{"type": "A", "time": f"20{20 + i}-01-01"} for i in range(6)])
        lake.settle()
        line = lakelog.values.to_micros(lakelog.values.parse_time("2022-06-01"))
        lake.retention(f"{lakelog.disk.disk.now_us() - line}us", apply=True)
    (entry,) = statements.segment_entries(tmp_path / "lake")
    assert (entry["layout"], entry["seq"], entry["events"]) == ("sorted", [0, 5], 3)
    assert [row["seq"] for row in second_reader.rows(str(tmp_path / "lake"))] == [3, 4, 5]


def test_cursor_entries(tmp_path: Path) -> None:
    """F6.9: an ingested file leaves a cursor entry, which readers of rows pass over."""
    log = tmp_path / "a.jsonl"
    log.write_text('{"type":"A","time":"2026-01-01T00:00:00Z"}\n' * 3)
    with lakes.opened(str(tmp_path / "lake")) as lake:
        lake.ingest(str(log))
    (state,) = [s for s in states(tmp_path / "lake").values() if s["op"] == "ingest"]
    (cursor,) = [e for e in state["tail"] if e.get("add") == "cursor"]
    assert set("key origin bytes head_len tail lines name size".split()) <= cursor.keys()
    assert cursor["bytes"] == log.stat().st_size
    assert len(second_reader.rows(str(tmp_path / "lake"))) == 3


def test_totals(rich: Path, paged: Path) -> None:
    """F6.10: the totals are the sums over the live segments, by kind."""
    for lake in (rich, paged):
        entries = statements.segment_entries(lake)
        state = statements.manifest(lake, statements.moves(lake)[-1]["snapshot"])
        rows = {
            kind: sum(e["events"] for e in entries if e["kind"] == kind)
            for kind in ("events", "quarantine")
        }
        assert state["totals"] == {
            "events": rows["events"],
            "bytes": sum(e["bytes"] for e in entries),
            "segments": len(entries),
            "quarantined": rows["quarantine"],
        }


def test_id_runs_of_a_manifest(rich: Path) -> None:
    """F6.11: a manifest lists each id run with its length and its number of keys."""
    runs = [run for state in states(rich).values() for run in state["ids"]]
    assert runs
    for run in runs:
        assert list(run) == ["digest", "bytes", "count"]
        data = (rich / f"ids/{run['digest'][:2]}/{run['digest']}.ids").read_bytes()
        assert (run["bytes"], run["count"]) == (len(data), struct.unpack_from("<Q", data, 8)[0])


def test_seq_is_given_at_publish_and_kept(tmp_path: Path) -> None:
    """F6.12: seq is dense when given; compaction and retention change no number."""
    path = str(tmp_path / "lake")
    query = "SELECT seq, type, position FROM events ORDER BY seq"
    with lakes.opened(path) as lake:
        for i in range(4):
            lake.append([{"type": f"T{9 - i}", "time": f"20{20 + i}-01-01"} for _ in range(3)])
            head = lake.settle()
            state = statements.manifest(tmp_path / "lake", head.move.snapshot)
            assert state["next_seq"] == 3 * (i + 1)
            assert statements.segment_entries(tmp_path / "lake")[-1]["seq"] == [3 * i, 3 * i + 2]
        before = lake.sql(query).fetchall()
        assert [row[0] for row in before] == list(range(12))
        lake.compact()
        assert lake.sql(query).fetchall() == before
        line = lakelog.values.to_micros(lakelog.values.parse_time("2021-06-01"))
        lake.retention(f"{lakelog.disk.disk.now_us() - line}us", apply=True)
        assert lake.sql(query).fetchall() == before[6:]
        assert lake.settle().move.number == statements.moves(tmp_path / "lake")[-1]["number"]


def test_the_first_manifest(tmp_path: Path) -> None:
    """F6.13: a new lake's manifest has no parent, op init, and nothing in it."""
    lakes.empty(str(tmp_path / "lake"))
    (state,) = states(tmp_path / "lake").values()
    assert (state["parent"], state["op"], state["next_seq"]) == ("", "init", 0)
    assert set(state["totals"].values()) == {0}
    assert state["pages"] == state["tail"] == state["ids"] == []


# --- 7. moves, hints, packed moves, tags --------------------------------------------------------


def chain(lake: Path, branch: str = "main") -> list[tuple[dict[str, Any], bytes]]:
    """All moves of a branch with their bytes, packed ones too, oldest first."""
    folder = lake / "refs/heads" / branch
    found = {}
    for file in folder.glob("packed-*"):
        text = zstandard.ZstdDecompressor().decompress(file.read_bytes()[:-44])
        lines = [line for line in text.splitlines(keepends=True) if b'"number":' in line[:10]]
        found |= {parse_document(line)["number"]: line for line in lines}
    for file in folder.glob("0*.json"):
        parse_document(file.read_bytes())
        found[int(file.name[:12])] = file.read_bytes().splitlines(keepends=True)[0]
    return [(parse_document(found[n]), found[n]) for n in sorted(found)]


def test_the_chain_of_moves(rich: Path) -> None:
    """F7.1, F7.2, F7.3, F7.4: members, links to the move before, later times, numbers from 1."""
    names = (
        "number branch prev commit time author op message snapshot generation wal inline_from"
        " inline checksum"
    ).split()
    for lake in (rich, *map(lakes.at_rest, (lakes.packed, lakes.rewound))):
        found = chain(lake)
        assert [move["number"] for move, _ in found] == list(range(1, len(found) + 1))
        before: tuple[dict[str, Any], bytes] | None = None
        for move, data in found:
            assert list(move) == names
            assert (move["branch"], move["inline_from"], move["inline"]) == ("main", 0, [])
            assert move["prev"] == (hashlib.sha256(before[1]).hexdigest() if before else "")
            assert before is None or move["time"] > before[0]["time"]
            before = (move, data)


def test_generations(tmp_path: Path) -> None:
    """F7.5: the generation rises at rollback, undo and a deleted branch's return, only then."""
    path = str(tmp_path / "lake")
    lakes.rewound(path)
    with lakelog.open(path) as lake:
        lake.compact()
        with lake.branch("gone") as gone:
            gone.append({"type": "G"})
        with lakelog.open(path, branch="gone") as gone:
            lakelog.history.delete_branch(gone.store, "gone", gone.settle)
        lake.branch("gone").close()
    rises = set()
    for branch in ("main", "gone"):
        for (old, _), (new, _) in itertools.pairwise(chain(tmp_path / "lake", branch)):
            risen = new["generation"] - old["generation"]
            assert risen >= 0
            back = old["op"] == "delete"
            assert (risen > 0) == (back or new["op"] in ("rollback", "undo")), new["op"]
            rises.add("return" if back else new["op"] if risen else "")
    assert rises == {"", "rollback", "undo", "return"}


def test_watermarks() -> None:
    """F7.6: watermarks only rise, and are left out only when no WAL file of the writer is left."""
    for lake in map(lakes.at_rest, (damage.build, lakes.writers, lakes.rewound)):
        marks: dict[str, int] = {}
        dropped: dict[str, int] = {}
        for move, _ in chain(lake):
            assert all(last >= marks.get(writer, -1) for writer, last in move["wal"].items())
            dropped |= {w: last for w, last in marks.items() if w not in move["wal"]}
            marks = move["wal"]
        for wal in statements.wals(lake).values():
            assert wal.header["first"] > dropped.get(wal.header["writer"], -1)
    lake = lakes.at_rest(lakes.writers)
    late = [w for n, w in statements.wals(lake).items() if w.header["first"] > 0]
    head = statements.moves(lake)[-1]
    assert late
    assert all(wal.header["writer"] in head["wal"] for wal in late)


def test_operations(tmp_path: Path) -> None:
    """F7.7: every move's op is a word of the list; a branch whose newest is delete is not there."""
    seen = set()
    kinds = (damage.build, lakes.branches, lakes.rewound, lakes.compacted, lakes.packed)
    for lake in map(lakes.at_rest, kinds):
        for folder in (lake / "refs/heads").iterdir():
            seen |= {move["op"] for move, _ in chain(lake, folder.name)}
    assert seen <= OPS
    assert {"init", "branch", "seal", "compact", "rollback", "undo", "delete", "snapshot"} <= seen


def test_hints(rich: Path, tmp_path: Path) -> None:
    """F7.8: a hint names its branch and a move that is there; any other hint is ignored."""
    body = parse_document((rich / "refs/heads/main/hint").read_bytes())
    assert list(body) == ["branch", "number", "checksum"]
    assert body["branch"] == "main"
    assert body["number"] <= statements.moves(rich)[-1]["number"]
    copy = Path(damage.copied(str(rich), tmp_path / "lake"))
    right = damage.read(str(rich))
    foreign = {"branch": "other", "number": 99}
    for hint in (lakelog.document.encode(foreign), b"", b"nonsense\n"):
        (copy / "refs/heads/main/hint").write_bytes(hint)
        assert damage.read(str(copy)) == right


def test_packed_moves() -> None:
    """F7.9: packed moves are the old files in a zstd frame and its SHA-256; never the newest."""
    lake = lakes.at_rest(lakes.packed)
    (file,) = (lake / "refs/heads/main").glob("packed-*")
    first, last = (int(part) for part in file.name.split(".")[0].split("-")[1:])
    data = file.read_bytes()
    assert data[-44:-32] == struct.pack("<II4s", statements.SEAL, 36, b"LKP1")
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()
    lines = zstandard.ZstdDecompressor().decompress(data[:-44]).splitlines(keepends=True)
    files, text = list[bytes](), b"".join(lines)
    while text:
        cut = text.find(b'{"number":', 1) if b'{"number":' in text[1:] else len(text)
        files, text = [*files, text[:cut]], text[cut:]
    numbers = [parse_document(file)["number"] for file in files]
    assert numbers == list(range(first, last + 1))
    assert len(chain(lake)) - last >= 100


def test_tags(rich: Path, tmp_path: Path) -> None:
    """F7.10: a tag's members; its name is that of its path, it never changes, and can be remade."""
    (file,) = (rich / "refs/tags").iterdir()
    body = parse_document(file.read_bytes())
    names = "name snapshot time author message branch commit checksum".split()
    assert list(body) == names
    assert (body["name"], body["message"], body["branch"]) == ("v1", "the first", "main")
    copy = damage.copied(str(rich), tmp_path / "lake")
    with lakelog.open(copy) as lake:
        with pytest.raises(lakelog.LakelogError):
            lake.tag("v1")
        lakelog.history.delete_tag(lake.store, "v1")
        assert lake.tag("v1").snapshot != body["snapshot"]


# --- 8. the rest --------------------------------------------------------------------------------


def test_the_condemned(rich: Path) -> None:
    """F8.1: condemned.json names unreferenced files and when each was first seen so."""
    body = parse_document((rich / "gc/condemned.json").read_bytes())
    assert body["names"]
    for name, since in body["names"].items():
        assert re.fullmatch(r"(segments|ids|manifests)/[0-9a-f]{64}", name)
        assert 0 < lakelog.disk.disk.now_us() - since < 86_400 * 1_000_000


def test_what_gc_let_go(tmp_path: Path) -> None:
    """F8.18: let_go.json has the moves whose states are not kept, newest first."""
    with lakelog.open(tmp_path, settings=Settings(history_days=0)) as lake:
        lake.append({"type": "T"})
        for number in range(120):
            lake.snapshot(str(number))
        lake.gc()
    body = parse_document((tmp_path / "gc/let_go.json").read_bytes())
    assert body["moves"] == {"main": [[1, 22]]}


def test_verified_files(rich: Path, tmp_path: Path) -> None:
    """F8.3: verified.jsonl holds a digest, a file's numbers, a CRC a line; others are skipped."""
    found = 0
    for line in (rich / "cache/verified.jsonl").read_bytes().splitlines():
        text, _, crc = line.rpartition(b" ")
        assert int(crc) == zlib.crc32(text)
        digest, size, inode, mtime, ctime = text.decode().split()
        (file,) = rich.glob(f"*/{digest[:2]}/{digest}.*")
        status = file.stat()
        numbers = (status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        found += numbers == (int(size), int(inode), int(mtime), int(ctime))
    assert found > 2
    copy = Path(damage.copied(str(rich), tmp_path / "lake"))
    with (copy / "cache/verified.jsonl").open("ab") as file:
        file.write(b"nonsense\n\xff\xfe 1 2 3\n")
    assert damage.read(str(copy)) == damage.read(str(rich))


def test_lost_objects(tmp_path: Path) -> None:
    """F8.2: lost.json names what a repair gave up; verify and gc do not stumble over it."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        for name in "AB":
            lake.append({"type": name})
            lake.settle()
        old = lake.store.refs.read("main", 2).snapshot
    manifest = Path(path, f"manifests/{old[:2]}/{old}.json.zst")
    manifest.parent.mkdir(exist_ok=True)
    manifest.write_bytes(b"")
    damage.repaired(path)
    body = parse_document(Path(path, "gc/lost.json").read_bytes())
    assert list(body["names"]) == [f"manifests/{old}"]
    with lakelog.open(path) as lake:
        assert lake.verify().problems == ()
        assert lake.gc().deleted == 0


def test_bloom_filters(tmp_path: Path) -> None:
    """F8.4: a segment's filter has the bits of its ids and subjects, where the statement says."""
    path = str(tmp_path / "lake")
    with lakelog.open(path, settings={"seal": "never"}) as lake:
        texts = [f"{n}" * (n % 30) or "\u20ac" for n in range(1200)]
        lake.append([{"type": "T", "subject": t, "id": f"i{n}"} for n, t in enumerate(texts)])
        lake.settle()
    (name,) = os.listdir(f"{path}/cache/bloom")
    data = Path(path, "cache/bloom", name).read_bytes()
    assert Path(path, f"segments/{name[:2]}/{name}.parquet").exists()
    magic, crc, ids, subjects = struct.unpack_from("<4sIQQ", data)
    assert (magic, crc, data[24:64]) == (b"LKB1", zlib.crc32(data[8:]), bytes(40))
    assert len(data) == 64 + (ids + 7) // 8 + (subjects + 7) // 8
    fields = {64: (ids, [f"i{n}" for n in range(1200)]), 64 + (ids + 7) // 8: (subjects, texts)}
    for start, (size, values) in fields.items():
        held = [statements.in_bloom(data[start:], size, value) for value in values]
        assert all(held)
        strangers = [statements.in_bloom(data[start:], size, f"no {n}") for n in range(1000)]
        assert sum(strangers) < 50


def test_the_clock_holds_the_highest_stamp(tmp_path: Path) -> None:
    """F8.5: the highest ingested_at of an acknowledged frame, and 16 bytes of the boot."""
    path = str(tmp_path / "lake")
    with lakes.opened(path) as lake:
        for n in range(3):
            lake.append({"type": "T", "data": {"n": n}})
        data = Path(path, "cache/clock").read_bytes()
        (highest,) = lake.sql("SELECT max(epoch_us(ingested_at)) FROM events").fetchone()
        lake.append({"type": "T"})
    assert (int.from_bytes(data[:8], "little", signed=True), len(data)) == (highest, 24)
    later = Path(path, "cache/clock").read_bytes()
    assert int.from_bytes(later[:8], "little", signed=True) > highest
    assert later[8:] == data[8:] != bytes(16)


def test_the_cache_may_go(rich: Path, tmp_path: Path) -> None:
    """F8.6: without cache/ a lake reads the same; what repair set aside is kept there."""
    import shutil

    copy = damage.copied(str(rich), tmp_path / "lake")
    shutil.rmtree(Path(copy, "cache"))
    assert damage.read(copy) == damage.read(str(rich))
    publish_something(copy)
    lakes.torn(str(tmp_path / "torn"))
    with lakelog.open(str(tmp_path / "torn")) as lake:
        lake.settle()
    assert len(os.listdir(tmp_path / "torn/cache/cut")) == 1
    assert damage.repaired(str(tmp_path / "torn")).aside == []


def publish_something(path: str) -> None:
    """Make one more move."""
    with lakelog.open(path) as lake:
        assert publish(lake.store, "main", lambda *_: Change("snapshot")) is not None
