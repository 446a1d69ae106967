"""Make the conformance kit: `python -m tests.golden.kit`; with a LAKE, print its answers instead.

docs/conformance has a lake for each case, `<case>.tar.gz`, and what a reader has to find in it,
`<case>.json`. Lakes that are there are never written again; the answers are, from lakelog itself,
and a test compares them with those that are kept. Names and times are made up.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import sys
import tarfile
import tempfile
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import zstandard

import lakelog
from lakelog import database, document, frame_rows, history
from lakelog.disk import disk
from lakelog.entries.entry import Record, Removal
from lakelog.errors import Damaged, FormatTooNew, UnknownRef
from lakelog.event import EncodedBatch
from lakelog.identities import IdentityKeys
from lakelog.moves.publication import Change, publish
from lakelog.segments import segment_sql
from lakelog.store import Store
from lakelog.values import parse_time, to_micros
from lakelog.wal import frames as wal_format
from lakelog.wal.tail import Tail
from tests.golden import erasures, make
from tests.support import damage, lakes, statements

Answer = dict[str, Any]
KIT = make.LAKES
EVENT = [
    *"time type category source subject level message data id ingested_at origin position".split(),
    "seq",
]
BAD_LINE = "ingested_at origin position reason line".split()
FLAT = re.compile(r'\[\n *(?:"(?:\\.|[^"\\])*"|[^"\[\]{}])*\]')
"""A list of texts and numbers in indented JSON."""
CASES: dict[str, tuple[str, Callable[[str], object] | None]] = {
    f"format{number}": (f"A lake of format {number} with every kind of file.", None)
    for number in (1, 2, 3, 4)
}


# --- the lakes ------------------------------------------------------------------------------------


def case(function: Callable[[str], object]) -> Callable[[str], object]:
    """Add a lake to the kit; its docstring says what it shows."""
    assert function.__doc__
    what = " ".join(function.__doc__.split())
    CASES[function.__name__.replace("_", "-")] = what, function
    return function


@case
def first(path: str) -> None:
    """Three events in one WAL; nothing is published. Start here."""
    with lakes.opened(path) as lake:
        lake.append({"type": "PING", "time": "2026-01-01T00:00:00Z", "id": "a1"})
        read = {"type": "READ", "time": "2026-01-01T00:00:01.5Z", "level": "warning"}
        lake.append([{**read, "data": {"b": 1.10, "a": 2}}, read])


@case
def published(path: str) -> None:
    """One event segment and one quarantine segment, no tail, a tag, and branches whose names are
    encoded."""
    with lakes.opened(path) as lake:
        lake.append(lakes.events("A", 3))
        lake.quarantine([("a.log", 12, "not JSON", "{oops")])
        lake.tag("v1")
        for name in ("Übung/ä", "UPPER", ".dot", "a%b"):
            lake.branch(name).close()


@case
def identity(path: str) -> None:
    """Ids given twice: in one batch, across writers, across seals, with and without a source; the
    empty id; content keys. The earliest by ingested_at wins, whichever writer has it."""
    lakes.ids(path)
    with lakes.opened(path) as lake:
        lake.append(lakes.events("X", 2), dedupe="content")
        lake.append(lakes.events("X", 3), dedupe="content")
        lake.append(lakes.events("X", 1))


@case
def streams(path: str) -> None:
    """Event streams: versions that two writers gave in turn, before and after a seal; an append of
    two streams and an event without a version; a rollback, after which a version is given again."""

    def event(name: str, subject: str | None = None, **columns: Any) -> dict[str, Any]:
        return {"type": name, "time": make.NEW_YEAR, "subject": subject, **columns}

    with lakes.opened(path) as a, lakes.opened(path) as b:
        a.append([event("A1", "a", id="1"), event("A2", "a", id="1")], expect={"a": 0})
        b.append(event("A3", "a", data={"n": 1}), expect={"a": 2})
        a.append([event("A4", "a"), event("B1", "b"), event("PLAIN")], expect={"a": 3, "b": 0})
        a.append(event("PLAIN", "a", id="1"))
        a.settle()
        a.tag("v1")
        b.append(event("A5", "a"), expect={"a": 4})
        a.append(event("GONE", "gone"), expect={"gone": 0})
        a.rollback("v1")
        a.append(event("AGAIN", "a", source="s"), expect={"a": 4})
        b.append(event("A6", "a"), expect={"a": 5})
        b.append(
            [event("Ž", "ž 🎙"), {"item_id": "ž 🎙", "event_type": "X", "ts": make.NEW_YEAR}],
            expect={"ž 🎙": 0},
        )
        a.append(event("A7", "a"), expect={"a": 6})


@case
def retried(path: str) -> None:
    """Failed appends: doubtful sequences, one present and one absent, and a frame in two files."""
    lakes.doubtful(path)


@case
def writers(path: str) -> None:
    """Four writers with one file per frame: some are sealed and removed, so they have no watermark;
    one continues in a file whose first sequence is above 0."""
    lakes.writers(path)


@case
def long_tail(path: str) -> None:
    """A tail longer than a segment may be (setting segment_rows), numbered segment by segment."""
    with lakes.opened(path, segment_rows=5) as one, lakes.opened(path) as other:
        for turn in range(4):
            one.append(lakes.events("A", 2, 2 * turn, id=f"a{turn}"))
            other.append(lakes.events("B", 3, 3 * turn))


@case
def rewritten(path: str) -> None:
    """Compaction and retention: sorted segments, seq ranges wider than their rows, types ordered by
    their bytes, null and empty strings."""
    with lakes.opened(path) as lake:
        for year, name in ((2020, "z"), (2022, "\u00e9"), (2024, "\uffff"), (2025, "\U0001f600")):
            times = [f"{year}-{month:02d}-01" for month in (1, 5, 9)]
            lake.append([{"type": name, "time": time, "source": "ab"[year % 2]} for time in times])
            lake.append({"type": "z", "time": "2023-01-01", "source": "", "subject": ""})
            lake.settle()
        lake.compact()
        lake.tag("all")
        age = disk.now_us() - to_micros(parse_time("2022-06-15"))
        lake.retention(f"{age}us", apply=True)
        lake.append(lakes.events("LATER", 2))


@case
def typed(path: str) -> None:
    """Typed segments: payloads as structs of every kind, compact and spaced ones; those that a
    struct does not give back byte for byte are text beside them."""
    numbers = [0.5, -0.0, 1e16, 1e15, 0.0001, 1e-5, 1e22, 5e-324, 1.7976931348623157e308, 3.0]
    texts = ['{"int":1e1}', '{"float":1.50}', "[1,2]", '"text"', "{}", '{"int":1,"int":2}', "null"]
    for spaced in (False, True):
        for n in range(40):
            value = {
                "text": f'\u00e9"\\\t/\x7f\u2028 {n}',
                "int": n - 9_007_199_254_740_993,
                "float": numbers[n % len(numbers)],
                "number": [n, n / 4][n % 2],
                "bool": n % 2 == 0,
                "null": None if n % 3 else "x",
                "object": {"x": n} | ({"y": {"z": "\U0001f600"}} if n % 2 else {}),
                "list": [[None, n * 0.5][n % 2], 1.5],
                "objects": [{"p": n}, {}, None],
            }
            value |= {} if spaced else {"json": [n, "a", [n], {"b": n}][n % 4]}
            marks = (", ", ": ") if spaced else (",", ":")
            texts.append(json.dumps(value, ensure_ascii=False, separators=marks))
        head = '{"time":"2026-01-01T00:00:00Z","type":"T","data":'
        lines = "\n".join(f"{head}{text}}}" for text in texts).encode()
        with lakes.opened(path, segment_rows=64) as lake:
            lake.append_encoded(EncodedBatch(lines, [None] * len(texts), False))
            lake.compact()
        texts.clear()


CASES["texts-in-parts"] = (
    "Typed segments of an earlier version: texts as their words and as the numbers in them, and"
    " those that these do not give back.",
    None,
)


@case
def rewound(path: str) -> None:
    """Rollback and undo: the head names an older state; its watermarks and generation are new."""
    lakes.rewound(path)


@case
def hosts(path: str) -> None:
    """Writers on three hosts, of which a state knows those whose events it has: one was sealed and
    compacted, one sealed only on a branch, and one is in the tail."""
    with lakes.on_host("web-1"), lakes.opened(path) as lake:
        lake.append(lakes.events("A", 3))
        lake.settle()
        lake.tag("v1")
    with lakes.on_host("Rechner Ü"), lakes.opened(path) as lake:
        with lake.branch("other") as other:
            other.append(lakes.events("B", 2))
            other.settle()
        lake.append(lakes.events("C", 2))
        lake.settle()
        lake.compact()
        lake.rollback("v1")
    with lakes.on_host("db-1"), lakes.opened(path) as lake:
        lake.append(lakes.events("D", 2))


@case
def deleted(path: str) -> None:
    """A deleted branch, which does not exist, and one that was deleted and came back."""
    with lakes.opened(path) as lake:
        lake.append(lakes.events("ROOT", 2))
        for name in ("gone", "back"):
            with lake.branch(name) as other:
                other.append(lakes.events(name, 2))
            with lakelog.open(path, branch=name, settings={"seal": "never"}) as other:
                history.delete_branch(lake.store, name, other.settle)
        with lake.branch("back") as other:
            other.append({"type": "AGAIN", "time": "2026-01-01"})


@case
def unknown(path: str) -> None:
    """What a reader ignores: members and entries that it does not know, unfinished files, a hint
    that is damaged."""
    with lakes.opened(path) as lake:
        lake.append(lakes.events("A", 2))
        lake.settle()
        segment = replace(lakes.tiny_segment(lake, "B"), unknown={"later": {"x": 1}})
        entries = (Record("later", "k", {"x": [1]}), segment)
        publish(lake.store, "main", lambda *_: Change("later", entries=entries))
        lake.append(lakes.events("TAIL", 2))
    config = Path(path, "lakelog.json")
    config.write_bytes(document.encode({**document.decode(config.read_bytes()), "later": True}))
    for folder in ("wal/main", "refs/heads/main", "refs/tags", "segments/00"):
        Path(path, folder).mkdir(exist_ok=True)
        Path(path, folder, ".tmp-0123").write_bytes(b"unfinished")
    hint = Path(path, "refs/heads/main/hint")
    hint.write_bytes(hint.read_bytes().replace(b'"number":', b'"number":9'))


case(erasures.erased)
case(erasures.erased_shards)
case(erasures.sealed)


@case
def handmade(path: str) -> None:
    """What the format allows and lakelog does not write: ids in a frame that is not keyed, a key
    beside an id, a frame both keyed and quarantined; and every other spelling of a member."""
    lakes.opened(path).close()
    frames: list[tuple[int, list[bytes]]] = [
        (0, [b'{"time":"2026-01-01T00:00:00Z","type":"UNKEYED","id":"1"}'] * 2),
        (0, [b'{"time":"2026-01-01T00:00:00Z","type":"UNKEYED","key":"%024d"}' % 1] * 2),
        (
            1,
            [
                b'{"time":"2026-01-01T00:00:00Z","type":"KEY","id":"1","key":"%024d"}' % n
                for n in (1, 2, 1)
            ],
        ),
        (5, [b'{"origin":"a.log","position":7,"reason":"bad","line":"{","id":"1"}'] * 2),
        (
            0,
            [
                b'{"timestamp":"2026-01-01T00:00:00.5Z","event_type":"A","content_type":"c"}',
                b'{"ts":"2026-01-01T00:00:00.123456Z","item_id":"s","type":"B","level":null}',
                b'{"@timestamp":"2026-01-01T00:00:00Z","type":"C","data":null}',
                b'{"time":"2026-01-01T00:00:00Z","type":"D","message":"\\"data\\":1"'
                b',"data":[1.0, 2]}',
            ],
        ),
    ]
    header = wal_format.Header(
        json.loads(Path(path, "lakelog.json").read_bytes())["lake"],
        "main",
        "b" * 32,
        0,
        0,
        (),
        "example",
        1,
        disk.now_us(),
    )
    data, position = wal_format.Header.encode(header), 0
    compressor = zstandard.ZstdCompressor()
    for sequence, (flags, lines) in enumerate(frames):
        text, count = b"\n".join(lines), len(lines)
        data += wal_format.encode_frame(
            text, count, sequence, flags, position, disk.now_us(), compressor
        )
        position += len(lines)
    Path(path, "wal/main").mkdir(parents=True, exist_ok=True)
    Path(path, f"wal/main/{'b' * 32}-000000.jsonl.zst").write_bytes(data)


@case
def removed(path: str) -> None:
    """Segments that pages add and the manifest's recent entries remove; one is added again, and an
    entry of an unknown kind has the key of another."""
    with lakes.opened(path) as lake:
        segments = [lakes.tiny_segment(lake, f"S{n}") for n in range(18)]
        publish(lake.store, "main", lambda *_: Change("ingest", entries=tuple(segments)))
        state = lake.store.manifests.load(lake.store.refs.head("main").move.snapshot)
        entries = lake.store.manifests.segments(state)
        steps: list[tuple[Any, ...]] = [
            tuple(entry.tombstone() for entry in entries[:3]),
            (entries[1],),
            (Record("later", entries[5].key, {"kind": "events"}),),
            (Removal("later", entries[6].key),),
        ]
        for step in steps:
            publish(lake.store, "main", lambda *_, step=step: Change("later", entries=step))


def base(path: str) -> None:
    """A lake to be damaged: two segments with ids, a tag, a tail of three frames, a branch."""
    with lakes.opened(path) as lake:
        lake.append([{"type": "A", "id": f"a{i}", "time": "2026-01-01"} for i in range(2)])
        lake.tag("v1")
        lake.append([{"type": "B", "id": f"b{i}", "time": "2026-01-02"} for i in range(2)])
        with lake.branch("other") as other:
            other.append(lakes.events("OTHER", 2))
        lake.settle()
    with lakes.opened(path) as lake:
        for i in range(3):
            lake.append({"type": "TAIL", "id": f"a{i}", "time": f"2026-01-0{3 + i}"})


def damaged(what: str) -> Callable[[Callable[[Path], object]], Callable[[str], object]]:
    """Add the base lake with a damage to the kit."""

    def add(change: Callable[[Path], object]) -> Callable[[str], object]:
        def build(path: str) -> None:
            base(path)
            change(Path(path))

        build.__name__, build.__doc__ = change.__name__, what
        return case(build)

    return add


def flip(file: Path, at: int) -> None:
    """Flip one bit of a file."""
    file.write_bytes(damage.flipped(file.read_bytes(), at, 1))


def wal(lake: Path) -> Path:
    """The WAL of the newest writer on the branch main."""
    files = (lake / "wal/main").iterdir()
    return max(files, key=lambda file: statements.parse_wal(file.read_bytes()).header["started"])


def head(lake: Path) -> Path:
    """The newest move of the branch main."""
    return max((lake / "refs/heads/main").glob("0*.json"))


@damaged(
    "An unfinished frame at the end of a WAL, and zeros at the end of another: torn, not damaged."
)
def torn(lake: Path) -> None:
    file = wal(lake)
    os.truncate(file, file.stat().st_size - 24 - 10)
    (other,) = (lake / "wal/other").iterdir()
    other.write_bytes(other.read_bytes()[:-24] + bytes(200))


@case
def space(path: str) -> None:
    """Writers that died: space after their frames, of which one file has less; zeros where the head
    of the space did not reach the disk; and an END with zeros after it."""
    for number in range(4):
        with lakes.opened(path) as lake:
            for n in range(3):
                lake.append(lakes.events(f"W{number}N{n}", 2))
            writer, size = lake.writer(), (0, 3, 8, 0)[number]
            if number < 3:
                disk.close(writer._fd)
                writer._fd = -1
        file = wal(Path(path))
        data = file.read_bytes()
        ends = data.rstrip(b"\0")
        if number == 1:
            file.write_bytes(data[: len(ends) + size])
        elif number == 2:
            head = data.rindex(b"\x5e\x2a\x4d\x18")
            file.write_bytes(data[:head] + bytes(len(data) - head))
        elif number == 3:
            file.write_bytes(data + bytes(500))


@damaged(
    "A frame over space of which only the end reached the disk, and one without its end: torn."
)
def torn_in_space(lake: Path) -> None:
    after = b"\x5e\x2a\x4d\x18\xf8\x01\0\0" + bytes(504)
    file = wal(lake)
    data = file.read_bytes()[:-24]
    at = statements.parse_wal(data).frames[-1]["at"]
    file.write_bytes(data[:at] + bytes(70) + data[at + 70 :] + after)
    (other,) = (lake / "wal/other").iterdir()
    data = other.read_bytes()[:-24]
    frame = data[statements.parse_wal(data).frames[-1]["at"] :]
    other.write_bytes(data + frame[:-20] + bytes(20) + after)


@damaged("A bad frame with a good one after it. The other branch and the tag can be read.")
def bad_frame(lake: Path) -> None:
    flip(wal(lake), statements.parse_wal(wal(lake).read_bytes()).frames[1]["at"] + 70)


@damaged("A WAL that ends within its first frame, which is never torn.")
def bad_first_frame(lake: Path) -> None:
    os.truncate(wal(lake), statements.parse_wal(wal(lake).read_bytes()).frames[0]["at"] + 40)


@damaged("A copy of a WAL under the name of another writer.")
def bad_header(lake: Path) -> None:
    shutil.copy(wal(lake), lake / f"wal/main/{'f' * 32}-000000.jsonl.zst")


def rotated(path: str, lost: int) -> None:
    """A writer with a file for each of three frames, one of which is lost."""
    with lakes.opened(path, rotate_events=1) as lake:
        for name in "XYZ":
            lake.append({"type": name, "time": "2026-01-06"})
        Path(path, f"wal/main/{lake.writer().name}-{lost:06d}.jsonl.zst").unlink()


@case
def lost_frame(path: str) -> None:
    """A writer with three WAL files, of which the second is missing."""
    rotated(path, 1)


@case
def lost_start(path: str) -> None:
    """A writer without a watermark with three WAL files, of which the first is missing."""
    rotated(path, 0)


@damaged("One flipped bit in the document of the newest move.")
def bad_move(lake: Path) -> None:
    flip(head(lake), 40)


@damaged("One flipped bit in the manifest that the newest move carries.")
def bad_manifest(lake: Path) -> None:
    flip(head(lake), head(lake).stat().st_size - 30)


@damaged("The newest move is missing, as the hint shows.")
def lost_move(lake: Path) -> None:
    head(lake).unlink()


@damaged("One flipped bit in a segment.")
def bad_segment(lake: Path) -> None:
    flip(segment_of(lake), 30)


@damaged("A segment is missing.")
def lost_segment(lake: Path) -> None:
    segment_of(lake).unlink()


def segment_of(lake: Path) -> Path:
    """The newest segment of the branch main."""
    key = statements.segment_entries(lake)[-1]["key"]
    return lake / f"segments/{key[:2]}/{key}.parquet"


@damaged("One flipped bit in an id run in which the keys of the tail are looked up.")
def bad_ids(lake: Path) -> None:
    state = statements.manifest(lake, statements.moves(lake)[-1]["snapshot"])
    digest = state["ids"][0]["digest"]
    flip(lake / f"ids/{digest[:2]}/{digest}.ids", 64)


@damaged("One flipped bit in a tag.")
def bad_tag(lake: Path) -> None:
    flip(lake / "refs/tags/v1.json", 40)


@damaged("One flipped bit in lakelog.json.")
def bad_lake(lake: Path) -> None:
    flip(lake / "lakelog.json", 20)


@damaged("A lake of a later format.")
def newer(lake: Path) -> None:
    config = lake / "lakelog.json"
    config.write_bytes(document.encode({**document.decode(config.read_bytes()), "format": 99}))


# --- the answers ----------------------------------------------------------------------------------


def answers(path: str) -> Answer:
    """Return what a lake holds, as docs/conformance/README.md says, read by lakelog."""
    with refusals(path) as refused:
        store = Store.load(path)
        found: Answer = {"format": store.format, "branches": {}, "tags": {}, "states": {}}
        for name in store.refs.all_branches():
            with contextlib.suppress(UnknownRef):
                found["branches"][name] = branch_answer(path, name)
        for name in store.refs.tag_names():
            found["tags"][name] = tag_answer(store, name)
        named = {tag["state"] for tag in found["tags"].values() if "state" in tag}
        for digest in sorted(named | store.refs.states().keys()):
            if store.manifests.is_there(digest):
                found["states"][digest] = state_answer(store, digest)
        return found
    return refused


@contextlib.contextmanager
def refusals(path: str) -> Iterator[Answer]:
    """Catch what stops a reader; the yielded answer then says it."""
    refused: Answer = {}
    try:
        yield refused
    except Damaged as error:
        file = os.path.relpath(error.path, os.path.abspath(path))
        refused.update({"error": "damaged", "file": file})
    except FormatTooNew:
        refused.update({"error": "newer", "file": "lakelog.json"})


def branch_answer(path: str, name: str) -> Answer:
    """Return the rows of a branch, and what its tail adds to them."""
    with refusals(path) as refused, lakelog.open(path, create=False, branch=name) as lake:
        events = as_rows(lake.sql("SELECT * FROM events").to_arrow_table(), EVENT)
        bad = as_rows(lake.sql("SELECT * FROM quarantine").to_arrow_table(), BAD_LINE)
        store = lake.store
        pending = Tail(store.paths, store.refs, name).collect()
        frames = [frame for each in pending.frames.values() for frame in each]
        with contextlib.closing(database.connect(store.paths, store.settings)) as con:
            tail = as_rows(frame_rows.events(lambda: con, frames), ["origin", "position"])
            quarantined = frame_rows.quarantined(lambda: con, frames).num_rows
        counted = [row[10:12] for row in events]
        next_seq = store.manifests.load(pending.head.move.snapshot).next_seq
        return {
            "move": pending.head.move.number,
            "generation": pending.head.move.generation,
            "state": pending.head.move.snapshot,
            "events": sorted(events, key=lambda row: row[12]),
            "quarantine": sorted(bad, key=lambda row: row[1:]),
            "tail": {
                "events": sum(row[12] >= next_seq for row in events),
                "quarantined": quarantined,
                "duplicates": sorted(place for place in tail if place not in counted),
            },
        }
    return refused


def tag_answer(store: Store, name: str) -> Answer:
    """Return the state that a tag names."""
    with refusals(store.paths.root) as refused:
        return {"state": store.refs.tag(name).snapshot}
    return refused


def state_answer(store: Store, digest: str) -> Answer:
    """Return the counts of a state, and the digest of its rows."""
    with refusals(store.paths.root) as refused:
        state = store.manifests.load(digest)
        entries = store.manifests.segments(state)
        store.verified.require(entries)
        group = [entry for entry in entries if entry.kind == "events"]
        found: list[Any] = []
        if group:
            with contextlib.closing(database.connect(store.paths, store.settings)) as con:
                table = con.sql(segment_sql.rows_sql(store.paths, group)).to_arrow_table()
            found = sorted(as_rows(table, EVENT), key=lambda row: row[12])
        read = [IdentityKeys.read(store, run) for run in state.ids]
        runs = [np.stack((keys.high, keys.low)).T for keys in read]
        keys = np.unique(np.concatenate(runs), axis=0) if runs else []
        bad = sum(entry.events for entry in entries if entry.kind == "quarantine")
        return {
            "events": len(found),
            "quarantined": bad,
            "keys": len(keys),
            "rows": digest_of_rows(found),
        }
    return refused


def as_rows(table: Any, columns: list[str]) -> list[list[Any]]:
    """Return the rows of a table as lists, times in microseconds."""
    for index, field in enumerate(table.schema):
        if field.name in ("time", "ingested_at"):
            table = table.set_column(index, field.name, table[field.name].cast("int64"))
    return [[row[column] for column in columns] for row in table.to_pylist()]


def digest_of_rows(found: list[list[Any]]) -> str:
    """Return the SHA-256 of rows, each value with its length before it."""

    def field(value: Any) -> str:
        return "-" if value is None else f"{len(str(value).encode())}:{value}"

    text = "".join("".join(map(field, row)) + "\n" for row in found)
    return hashlib.sha256(text.encode()).hexdigest()


# --- the files ------------------------------------------------------------------------------------


def build(name: str, path: str) -> None:
    """Make the lake of a case, the same every time but for what libraries write."""
    what = CASES[name][1]
    assert what is not None
    dice, clock = random.Random(name), make.stamps()
    host = types.SimpleNamespace(nodename="example")
    with (
        mock.patch.object(disk, "random_hex", side_effect=lambda n=16: dice.randbytes(n).hex()),
        mock.patch.object(disk, "now_us", side_effect=clock),
        mock.patch.object(os, "uname", return_value=host),
        mock.patch.object(os, "getpid", return_value=1),
        mock.patch.dict(os.environ, LAKELOG_AUTHOR="someone@example"),
    ):
        what(path)


def unpack(name: str, folder: str) -> str:
    """Unpack the lake of a case into a folder; return its path."""
    with tarfile.open(KIT / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return f"{folder}/lake"


def kept(name: str) -> Answer:
    """Return the answers of a case as they are kept."""
    found: Answer = json.loads((KIT / f"{name}.json").read_text("utf-8"))
    return found


def as_text(name: str, found: Answer) -> str:
    """Return the file of answers, a row on each line."""
    digest = hashlib.sha256((KIT / f"{name}.tar.gz").read_bytes()).hexdigest()
    body = {"what": CASES[name][0], "sha256": digest, **found}
    text = json.dumps(body, indent=1, ensure_ascii=False)
    return FLAT.sub(lambda row: re.sub(r"\n *", "", row[0]), text) + "\n"


def main() -> None:
    """Write the lakes that are not there yet, and the answers of all; or print those of a lake."""
    if len(sys.argv) > 1:
        print(json.dumps(answers(sys.argv[1]), ensure_ascii=False))
        return
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            file = KIT / f"{name}.tar.gz"
            if not file.exists():
                build(name, f"{folder}/lake")
                file.write_bytes(make.pack(f"{folder}/lake"))
                shutil.rmtree(f"{folder}/lake")
            text = as_text(name, answers(unpack(name, folder)))
            (KIT / f"{name}.json").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
