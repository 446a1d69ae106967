"""Payloads of a loaded file become typed columns at once, and stay what they were."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lakelog
from lakelog.entries.entry import SegmentEntry
from lakelog.formats.uniform import typed_payloads
from lakelog.ingest import group, transform
from lakelog.lines import source
from lakelog.segments import segment
from tests.support.effort import share
from tests.support.json_documents import ACCEPTED, NUMBERS, RECORDS, VALUES

MakeLake = Callable[..., lakelog.Lake]
HEAD = '{{"time":"2026-01-01T00:00:{:09.6f}Z","type":"{}","data":{}}}\n'


@pytest.fixture(autouse=True)
def small_files_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of few lines are loaded as long ones are."""
    monkeypatch.setattr(typed_payloads, "LINES", 0)
    monkeypatch.setattr(transform, "FEW", 0)
    monkeypatch.setattr(group, "PIECE_MAX", 0)


def lines_of(texts: Sequence[str], kind: str = "t") -> bytes:
    """Return events with payloads of these texts, a line each."""
    lines = (HEAD.format(n % 60 + n / 1e6 % 1e-3, kind, text) for n, text in enumerate(texts))
    return "".join(lines).encode("utf-8", "surrogatepass")


def entries(lake: lakelog.Lake) -> list[SegmentEntry]:
    """Return the event segments of the branch."""
    return [
        e
        for e in lake.store.manifests.segments(lake.store.state("main"))
        if e.events and e.kind == "events"
    ]


def share_typed(lake: lakelog.Lake) -> float:
    """Return the part of the rows whose payload is a struct."""
    found = entries(lake)
    return sum(e.events - e.text_rows for e in found if e.fields) / sum(e.events for e in found)


def payloads(lake: lakelog.Lake) -> list[str | None]:
    """Return payloads in order: what SQL says, Python says, and the Arrow reader."""
    rows = lake.sql("SELECT data, seq FROM events ORDER BY seq").fetchall()
    texts = [text for text, _ in rows]
    assert [event["data"] for event in lake.tail(max(len(rows), 1))] == texts
    found = list[tuple[int, str | None]]()
    for entry in entries(lake):
        table = segment.Segment(lake.store.paths, entry.key).read()
        first = range(entry.seq[0], entry.seq[0] + entry.events)
        seqs = table["seq"].to_pylist() if entry.layout == "sorted" else first
        found += zip(seqs, table["data"].to_pylist(), strict=True)
    sealed = dict(found)
    assert {seq: text for text, seq in rows if seq in sealed} == sealed
    return texts


def check_load(make_lake: MakeLake, folder: Path, data: bytes, *, least: float = 0) -> None:
    """Load a file with typed payloads and without: SQL and Python give the same of both, before
    and after compaction."""
    path = folder / "events.ndjson"
    path.write_bytes(data)
    lake, plain = make_lake("typed"), make_lake("plain")
    report = lake.ingest(str(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typed_payloads, "LINES", 1 << 40)
        other = plain.ingest(str(path))
    assert not any(e.fields for e in entries(plain))
    assert (report.events, report.quarantined) == (other.events, other.quarantined)
    wanted = payloads(plain)
    assert payloads(lake) == wanted
    assert share_typed(lake) >= least
    good = [line for line in data.splitlines() if _is_json(line)]
    if not report.quarantined and len(good) == len(wanted):
        for line, text in zip(good, wanted, strict=True):
            said = None if text is None else json.loads(text)
            # Half of a surrogate pair is no character: it is replaced wherever it comes from.
            is_whole = b"\\ud" not in line.lower()
            assert not is_whole or repr(said) == repr(json.loads(line).get("data"))
    lake.compact()
    assert payloads(lake) == wanted


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode()), dict)
    except ValueError:
        return False


def alike(count: int, **more: Any) -> list[str]:
    """Return payloads of one program."""
    return [
        orjson.dumps(
            {"n": n, "ratio": n / 8 + 0.125, "name": f"é{n}", "ok": n % 2 == 0, "o": {"p": [n]}}
            | more
        ).decode()
        for n in range(count)
    ]


def mixed(texts: Sequence[str], count: int = 0) -> list[str]:
    """Return texts among those of one program, in any order."""
    found = [*texts, *alike(count or 4 * len(texts))]
    random.Random(7).shuffle(found)
    return found


def test_a_loaded_file_is_typed(make_lake: MakeLake, tmp_path: Path) -> None:
    """Members are columns right after the load, without any compaction."""
    check_load(make_lake, tmp_path, lines_of(alike(400)), least=1)


def test_every_document_is_what_it_was(make_lake: MakeLake, tmp_path: Path) -> None:
    """Documents in every spelling, among those of one program."""
    check_load(make_lake, tmp_path, lines_of(mixed(ACCEPTED)), least=0.5)


@pytest.mark.matrix
@pytest.mark.parametrize("text", ["1", "1.5", '"1"', "true", "[1]", '["a"]', '{"b":1}'])
def test_every_spelling_of_a_member_is_kept(make_lake: MakeLake, tmp_path: Path, text: str) -> None:
    """A column of one kind, and every other value in some rows: -0.0, 1.0 beside 1, 1e2, null."""
    odd = [*NUMBERS, "null", "true", "false", '"1"', '"a\\nb"', '"\\u0041"', "[]", "{}", "[null]"]
    texts = [f'{{"a":{each},"z":0}}' for each in (text, *odd)] + ['{"z":0}', "{}", '{"z":0,"a":1}']
    texts = [*texts, *[f'{{"a":{text},"z":{n}}}' for n in range(6_000)]]
    random.Random(text).shuffle(texts)
    check_load(make_lake, tmp_path, lines_of(texts), least=0.5)


def test_absent_is_not_null(make_lake: MakeLake, tmp_path: Path) -> None:
    """A member that is absent stays so, and a null is one, also as the payload itself."""
    texts = ['{"a":1}', '{"a":null}', "{}", '{"a":1,"b":null}', '{"b":null,"a":1}', "null"]
    data = lines_of(texts * 60) + b'{"time":"2026-01-01T00:00:00Z","type":"none"}\n' * 9
    check_load(make_lake, tmp_path, data)


@pytest.mark.matrix
@pytest.mark.parametrize(
    "odd",
    [
        b'{"a":"x\x01y"}',
        b'{"a":"x\ty"}',
        b'{"a":"\xff\xfe"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"x}',
        b'{"a":1,}',
        b'{"a":0x1F}',
        b'{"a":+1}',
        b'{"a":01}',
        b'{"a":.5}',
        b'{"a":1.}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":nan}',
        b'{"a":1 2}',
        b'{"a":}',
    ],
)
def test_what_is_no_json_is_refused(make_lake: MakeLake, tmp_path: Path, odd: bytes) -> None:
    """A line that looks like the others and is no JSON is treated as in a load of text."""
    for good in (b'{"a":"xyz"}', b'{"a":12}', b'{"a":1.5}'):
        lines = lines_of([good.decode()] * 200).splitlines(keepends=True)
        lines[100:100] = [line.replace(good, odd) for line in lines[:3]]
        folder = tmp_path / good.hex()
        folder.mkdir()
        check_load(
            lambda name, sub=folder: make_lake(f"{sub.name}-{name}"), folder, b"".join(lines)
        )


@pytest.mark.matrix
@pytest.mark.parametrize(
    "texts",
    [
        [f'{{"k{n}":{n}}}' for n in range(2_000)],
        [json.dumps({f"k{n}": n for n in range(2_000)}, separators=(",", ":"))] * 20,
        ['{"a":' * 64 + "1" + "}" * 64] * 100,
        ['{"a":' * 7 + '"x"' + "}" * 7] * 100,
        ['{"a":[' * 9 + "]}" * 9] * 100,
        [f'{{"a":"{"x" * 70_000}","n":{n}}}' for n in range(40)],
        [f'{{"a":{n}}}' if n % 2 else f'{{"a":"{n}"}}' for n in range(300)],
        ['{"a":{}}', '{"a":[]}', '{"a":{"b":[]}}', '{"a":[""]}'] * 50,
        ['{"a":1,"a":2}', '{"A":1,"a":2}', '{"a":1,"A":2}', '{"":1}', '{"a":{"":1}}'] * 50,
        ['{"a": 1, "b": "x"}', '{"a":1,"b":"x"}', '{ "a":1,"b":"x" }'] * 60,
        ['{"a":"{\\"b\\":1}"}', '{"a":"\\\\"}', '{"a":"b"}'] * 60,
        ['"text"', "1", "[1,2]", "true", '{"a":1}'] * 60,
    ],
    ids=range(12),
)
def test_hostile_shapes_are_what_they_were(
    make_lake: MakeLake, tmp_path: Path, texts: list[str]
) -> None:
    """Many names, depth, length, conflicting types, empty objects and lists, names twice."""
    check_load(make_lake, tmp_path, lines_of(texts))


def test_each_part_of_a_file_may_have_another_type(
    make_lake: MakeLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a program changes what it writes, other columns are learnt, and none is lost."""
    monkeypatch.setattr(source.Source, "CHUNK", 20_000)
    values = [json.dumps, str, float, lambda n: [n], lambda n: {"b": n}, lambda n: None]
    texts = [orjson.dumps({"a": value(n), "n": n}).decode() for value in values for n in range(400)]
    check_load(make_lake, tmp_path, lines_of(texts), least=0.3)


def test_a_value_of_a_hundred_megabytes(
    make_lake: MakeLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A payload that is longer than a chunk stays text, among typed ones (a tenth of the size)."""
    monkeypatch.setattr(source.Source, "CHUNK", 1 << 20)
    texts = [*alike(500), json.dumps({"a": "x" * 10_000_000}), *alike(500)]
    path = tmp_path / "events.ndjson"
    path.write_bytes(lines_of(texts))
    lake = make_lake("typed")
    lake.ingest(str(path))
    rows = lake.sql("SELECT strlen(data) FROM events ORDER BY seq").fetchall()
    assert [size for (size,) in rows] == [len(orjson.dumps(json.loads(text))) for text in texts]


def test_files_of_different_programs_share_a_batch(make_lake: MakeLake, tmp_path: Path) -> None:
    """Files with other columns are stored in segments of their own, in one publish."""
    wanted = list[str]()
    for number, value in enumerate([1, "x", [1.5], {"deep": True}]):
        texts = [orjson.dumps({f"k{number}": value, "n": n}).decode() for n in range(300)]
        (tmp_path / f"{number}.ndjson").write_bytes(lines_of(texts))
        wanted += texts
    lake = make_lake("typed")
    lake.ingest(str(tmp_path))
    assert sorted(map(str, payloads(lake))) == sorted(wanted)


def test_a_dry_run_shows_payloads(make_lake: MakeLake, tmp_path: Path) -> None:
    """A dry run stores nothing, and says what a run would."""
    path = tmp_path / "events.ndjson"
    path.write_bytes(lines_of(alike(300)))
    lake = make_lake("typed")
    assert lake.ingest(str(path), dry_run=True).events == lake.ingest(str(path)).events == 300


def test_loads_appends_and_compactions_mix(make_lake: MakeLake, tmp_path: Path) -> None:
    """Typed and text segments and rows of the tail, merged again and again, keep their payloads."""
    lake, chance, wanted = make_lake("typed"), random.Random(11), list[str]()
    for turn in range(6):
        texts = mixed(chance.sample(ACCEPTED, 20), 150)
        if turn == 3:
            texts = [orjson.dumps({"ratio": n, "other": f"{n} x"}).decode() for n in range(200)]
        before = lake.count()
        if turn % 3 == 2:
            lake.append([{"type": "t", "data": json.loads(text)} for text in alike(40)])
            assert sorted(map(str, payloads(lake))) == sorted([*wanted, *alike(40)])
            lake.settle()
        else:
            path = tmp_path / f"{turn}.ndjson"
            path.write_bytes(lines_of(texts))
            lake.ingest(str(path))
        now = [str(text) for text in payloads(lake)]
        assert now[:before] == wanted
        wanted = now
        if turn % 2:
            lake.compact()
            assert [str(text) for text in payloads(lake)] == wanted
    assert share_typed(lake) > 0.5


def test_texts_that_change_their_spelling_are_typed_in_every_segment(
    make_lake: MakeLake, tmp_path: Path
) -> None:
    """Texts are whole, so that segments have one schema however their texts are spelled."""
    lake, chance = make_lake("typed", segment_rows=1000), random.Random(5)
    spelled = ["https://a.example/{}/{}", "https://a.example/{}/{}", "{:x}-{:x}", "{:x}-{:x}"]
    texts = [
        orjson.dumps({"url": text.format(chance.getrandbits(40), n)}).decode()
        for text in spelled
        for n in range(1000)
    ]
    for part in range(4):
        path = tmp_path / f"{part}.ndjson"
        path.write_bytes(lines_of(texts[1000 * part : 1000 * part + 1000]))
        lake.ingest(str(path))
    lake.compact()
    assert [entry.text_rows for entry in entries(lake)] == [0] * 4
    assert len({entry.fields for entry in entries(lake)}) == 1
    assert payloads(lake) == texts


@settings(max_examples=share(15), deadline=None)
@given(st.data())
def test_generated_documents_are_what_they_were(
    make_lake: MakeLake, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever JSON a file has: loaded, read, compacted and read again."""
    values = data.draw(st.lists(RECORDS | VALUES, min_size=40, max_size=80))
    texts = [json.dumps(v, ensure_ascii=False, separators=(",", ":")) for v in values]
    folder = tmp_path_factory.mktemp("generated")
    check_load(lambda name: make_lake(f"{folder.name}-{name}"), folder, lines_of(mixed(texts, 120)))


@pytest.mark.thorough
def test_long_payloads_are_encoded_in_parts(make_lake: MakeLake, tmp_path: Path) -> None:
    """Rows that wait to be encoded are few where they are long, so that memory holds them."""
    texts = [orjson.dumps({"n": n, "text": f"{n} " * (2 << 18)}).decode() for n in range(70)]
    path = tmp_path / "long.ndjson"
    path.write_bytes(lines_of(texts))
    lake = make_lake("typed")
    lake.ingest(str(path))
    (entry,) = entries(lake)
    file = pq.ParquetFile(lake.store.paths.object("segments", entry.key))
    sizes = [file.metadata.row_group(n).total_byte_size for n in range(file.num_row_groups)]
    assert max(sizes) < 100_000_000 < sum(sizes)
    assert [str(text) for text in payloads(lake)] == texts
