"""The cache of views: gone, damaged, cut or full, it costs time and changes no answer."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lakelog
from lakelog import views
from lakelog.query import tail_rows
from lakelog.views import layers
from lakelog.views.background_writer import BackgroundWriter
from lakelog.views.engine import Limits, Projector
from lakelog.views.layers import LayerBuilder, LayerTable
from lakelog.views.partials import Partials
from tests.conftest import MakeLake
from tests.support.effort import share
from tests.support.view_events import rows, some
from tests.support.viewhistory import WIDE

NAMES = ("status", "rates", "funnel", "failures")


def pieces(home: Path) -> list[Path]:
    return sorted((home / "lake" / "cache" / "views").rglob("*.piece"))


def notes(home: Path) -> list[Path]:
    return sorted((home / "lake" / "cache" / "views").rglob("notes"))


def without_notes(home: Path) -> None:
    """Have the next reader look at all that each piece says of itself."""
    for path in notes(home):
        path.unlink()


def answers(home: Path) -> list[list[tuple[object, ...]]]:
    """What another process reads."""
    with lakelog.open(str(home / "lake"), create=False) as lake:
        return [rows(lake, name) for name in NAMES]


@pytest.fixture
def right(make_lake: MakeLake, home: Path) -> list[list[tuple[object, ...]]]:
    """Answers of a lake whose states were kept by an earlier process, then extended."""
    lake = make_lake()
    for seed in range(3):
        lake.append(some(100, seed))
        lake.settle()
        answers(home)
    return answers(home)


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def flip_body(data: bytes) -> bytes:
    return data[:-50] + bytes([data[-50] ^ 4]) + data[-49:]


def flip_head(data: bytes) -> bytes:
    return data[:40] + bytes([data[40] ^ 1]) + data[41:]


def empty(_: bytes) -> bytes:
    return b""


@pytest.mark.matrix
@pytest.mark.parametrize("damage", [cut, flip_body, flip_head, empty])
def test_a_damaged_piece_is_computed_anew(
    right: list[list[tuple[object, ...]]], home: Path, damage: Callable[[bytes], bytes]
) -> None:
    """Files that are cut, emptied, or off by a bit are noticed, removed and written again."""
    before = {path: path.read_bytes() for path in pieces(home)}
    assert before
    for path, data in before.items():
        path.write_bytes(damage(data))
    without_notes(home)
    assert answers(home) == right
    assert pieces(home)
    kept = [path for path in pieces(home) if path in before]
    assert all(path.read_bytes() != damage(before[path]) for path in kept)
    assert answers(home) == right


def other_rows(data: bytes) -> bytes:
    """A whole Parquet file of the same columns, without the first row."""
    start = data.index(b"PAR1")
    body = io.BytesIO()
    pq.write_table(pq.read_table(pa.BufferReader(data[start:])).slice(1), body)
    return data[:start] + body.getvalue()


def test_a_piece_with_other_rows_is_computed_anew(
    right: list[list[tuple[object, ...]]], home: Path
) -> None:
    """A piece that is a whole file, but not the one that was written, is noticed."""
    for is_noted in (True, False):
        for path in pieces(home):
            path.write_bytes(other_rows(path.read_bytes()))
        if not is_noted:
            without_notes(home)
        assert answers(home) == right


@pytest.mark.rounds
def test_any_flipped_bit_changes_no_answer(
    right: list[list[tuple[object, ...]]], home: Path
) -> None:
    """A bit flipped anywhere in the cache, a hundred times over, is never seen in an answer."""
    pick = random.Random(4)
    for _ in range(share(100)):
        path = pick.choice([*pieces(home), *notes(home)])
        data = bytearray(path.read_bytes())
        data[pick.randrange(len(data))] ^= 1 << pick.randrange(8)
        path.write_bytes(data)
        assert answers(home) == right


def test_a_missing_cache_is_made_again(right: list[list[tuple[object, ...]]], home: Path) -> None:
    """Deleting pieces, while a lake is open or not, changes nothing."""
    with lakelog.open(str(home / "lake"), create=False) as lake:
        assert rows(lake, "status") == right[0]
        for path in pieces(home):
            path.unlink()
        assert rows(lake, "status") == right[0]
        assert rows(lake, "rates") == right[1]
    assert answers(home) == right


def test_the_cache_keeps_to_its_limit(make_lake: MakeLake, home: Path) -> None:
    """The oldest pieces go when the directory outgrows its limit, whatever else lies there; the
    newest stays."""
    lake = make_lake()
    (home / "lake" / "cache" / "views").mkdir(parents=True)
    (home / "lake" / "cache" / "views" / "stray").write_text("no directory")
    session, limits = lake._session, Limits(disk_bytes=20_000)
    lake._views._engine = Projector(lake.store, session.connect(), session.tables, limits)
    for seed in range(8):
        lake.append(some(100, seed))
        lake.settle()
        for name in NAMES:
            rows(lake, name)
        lake._views.engine.background_writer.drain()
        newest = max(path.stat().st_size for path in pieces(home))
        assert sum(path.stat().st_size for path in pieces(home)) <= max(20_000, newest)
    assert pieces(home)


def test_a_cache_that_cannot_be_written_is_no_fault(make_lake: MakeLake, home: Path) -> None:
    """Where the directory cannot be made, views answer all the same."""
    lake = make_lake()
    (home / "lake" / "cache" / "views").write_text("in the way")
    lake.append(some(50))
    lake.settle()
    assert rows(lake, "rates") == rows(lake, "rates", since="0001-01-02")
    lake._views.engine.background_writer.drain()
    assert pieces(home) == []


def test_many_small_pieces_become_one(make_lake: MakeLake, home: Path) -> None:
    """A process that had to read many pieces writes what they make as one."""
    lake = make_lake()
    for seed in range(14):
        lake.append(some(30, seed))
        lake.settle()
        rows(lake, "status")
    lake._views.engine.background_writer.drain()
    assert len(pieces(home)) == 14
    expected = rows(lake, "status")
    with lakelog.open(str(home / "lake"), create=False) as again:
        assert rows(again, "status") == expected
    assert len(pieces(home)) < 5
    with lakelog.open(str(home / "lake"), create=False) as again:
        assert rows(again, "status") == expected


def test_what_was_sealed_and_compacted_unseen_costs_only_itself(
    make_lake: MakeLake, home: Path
) -> None:
    """A segment that came and went between two readings does not make the state start anew."""
    lake = make_lake()
    lake.append(some(100, 1))
    lake.settle()
    rows(lake, "status")
    lake._views.engine.background_writer.drain()
    with lakelog.open(lake.path, create=False) as other:
        for seed in (2, 3):
            other.append(some(30, seed))
            other.settle()
        other.compact()
    assert rows(lake, "status") == rows(lake, "status", since="0001-01-02")
    lake._views.engine.background_writer.drain()
    kept = lake._views.engine._writer.partials
    assert sorted(kept._header(p.parent.name, str(p)).file.events for p in pieces(home)) == [
        60,
        100,
    ]
    assert rows(lake, "status") == answers(home)[0]


def test_types_that_parquet_would_change_are_kept_exactly(make_lake: MakeLake) -> None:
    """A state of huge integers comes back to another process as it was."""
    lake = make_lake()
    lake.append(some(60))
    lake.settle()
    first = rows(lake, "items")
    lake._views.engine.background_writer.drain()
    with lakelog.open(lake.path, create=False) as again:
        held = again._views.engine
        assert rows(again, "items") == first
        assert isinstance(held._writer.partials, Partials)
        (layer,) = held._layers_by_state.values()
        assert dict(layer.shape.columns)["place"] == "HUGEINT"
        assert views.read(again, "status").num_rows


def test_tables_in_use_are_not_dropped(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another thread lets go of between two statements is never what they still need."""
    make, names = LayerBuilder.table, ("status", "sessions", "funnel", "durations", "stuck")

    def beside(self: LayerBuilder, cursor: duckdb.DuckDBPyConnection, query: str) -> LayerTable:
        self.cursor().close()  # drops what nothing refers to
        return make(self, cursor, query)

    lake = make_lake()
    lake._views.engine._builder._small = 0
    monkeypatch.setattr(LayerBuilder, "table", beside)
    for seed in range(6):
        lake.append(some(60, seed))
        if seed == 3:
            lake.settle()
        live = [rows(lake, name) for name in names]
        assert live == [rows(lake, name, **WIDE) for name in names]


def test_each_row_of_a_growing_tail_is_mapped_once(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a tail that grows, only new rows are mapped, also where its chunks were joined."""
    monkeypatch.setattr(tail_rows, "_COMBINE", 2)
    mapped, rows_of = [], Projector._tail_rows

    def counted(self: Projector, cursor: Any, tail: pa.Table, first: int, next_seq: int) -> str:
        mapped.append(tail.num_rows - first)
        return rows_of(self, cursor, tail, first, next_seq)

    lake = make_lake()
    monkeypatch.setattr(Projector, "_tail_rows", counted)
    for seed in range(6):
        lake.append(some(20, seed))
        live = rows(lake, "status")
    assert mapped == [20] * 6
    assert live == rows(lake, "status", **WIDE)


def test_new_rows_are_read_once_for_all_views_and_of_no_view_change_nothing(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views share a table of the new rows; one that has none of these keeps its very answer."""
    lake, made, make = make_lake(), list[str](), LayerBuilder.table

    def counted(self: LayerBuilder, cursor: duckdb.DuckDBPyConnection, query: str) -> LayerTable:
        made.append(query)
        return make(self, cursor, query)

    monkeypatch.setattr(LayerBuilder, "table", counted)
    names = ("throughput", "errors", "status", "health")
    lake.append([{"type": "COMPLETE", "subject": "a"}, {"type": "FAIL", "subject": "b"}])
    before = [lake.view(name) for name in names]
    made.clear()
    lake.append({"type": "DISCOVER", "subject": "c"})
    after = [lake.view(name) for name in names]
    assert sum("lakelog_tail_rows" in query for query in made) == 1
    assert [old is new for old, new in zip(before, after, strict=True)] == [
        True,
        True,
        False,
        False,
    ]
    assert after[2]["items"].to_pylist() == [1, 1, 1]
    assert after[3]["events"].to_pylist() == [3]


def test_a_view_that_is_first_read_after_another_has_the_newest_rows(make_lake: MakeLake) -> None:
    """The rows that the other had were fewer, though as many are sealed."""
    lake = make_lake()
    lake.append(some(20, 0))
    rows(lake, "status")
    lake.append(some(20, 1))
    with lakelog.open(lake.path) as other:
        assert rows(lake, "rates") == rows(other, "rates")


def test_totals_outlast_the_folding_of_a_layer(make_lake: MakeLake) -> None:
    """Where what lies over a base is made part of it, the totals of both are still there."""
    lake = make_lake()
    engine = lake._views.engine
    engine._builder._small = 0
    for seed in range(3):
        lake.append(some(60, seed))
        lake.settle()
        rows(lake, "status")
        engine.background_writer.drain()
    layer = list(engine._layers_by_state.values())[-1]
    assert len(layer.parts) == 1
    assert [table.rows for table, _ in layer.sums.values()] == [len(rows(lake, "status"))]
    assert rows(lake, "status") == rows(lake, "status", **WIDE)


def test_keyed_views_stay_right_over_many_small_changes(
    make_lake: MakeLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Subjects that change again and again, some of equal hash, in parts that are joined or not,
    found by scan and by index, give at each step what all events give."""
    monkeypatch.setattr(layers, "_PARTS", 2)
    monkeypatch.setattr(layers, "_SHORT", 3)
    monkeypatch.setattr(layers, "_TIMES", 1)
    monkeypatch.setattr(layers, "_SCANNED", 5)
    names = ("status", "sessions", "funnel", "durations", "stuck")
    lake = make_lake()
    engine = lake._views.engine
    engine._builder._small, engine._limits = 0, Limits(small=0, fold=10)
    lake.append(some(300, 99))
    lake.settle()
    depth = 0
    for seed in range(12):
        lake.append(some(5 if seed % 3 else 40, seed))
        if seed % 4 == 3:
            lake.settle()
        live = [rows(lake, name) for name in names]
        assert live == [rows(lake, name, **WIDE) for name in names]
        depth = max([depth, *(len(layer.parts) for layer in engine._layers_by_state.values())])
    assert depth > 2


def test_readers_of_the_same_segments_keep_one_piece(
    make_lake: MakeLake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another reader has kept is not written again."""
    lake = make_lake()
    lake.append(some(60))
    lake.settle()
    expected = answers(home)
    before = {path: path.stat().st_ino for path in pieces(home)}
    without_notes(home)
    monkeypatch.setattr(Partials, "of", lambda *_: [])  # as it was when this one looked
    assert answers(home) == expected
    assert {path: path.stat().st_ino for path in pieces(home)} == before


def test_what_is_kept_is_written_after_the_answer() -> None:
    """Tasks wait while answers are computed, but not for ever, and are all done once drained."""
    done: list[str] = []
    behind = BackgroundWriter()
    with behind.answering():
        behind.put(lambda: done.append("first"))
        with behind.answering():
            pass
        assert done == []
    behind.drain()
    assert done == ["first"]
    with behind.answering():
        behind.put(lambda: done.append("second"))
        behind.drain()
        assert done == ["first", "second"]
        done.clear()
        for _ in range(50):
            behind.put(lambda: done.append("many"))
        while len(done) < 40:
            time.sleep(0.001)
    behind.drain()
    assert done == ["many"] * 50


def test_files_in_each_other_s_place_are_not_taken_for_each_other(
    make_lake: MakeLake, home: Path
) -> None:
    """Pieces of two views with the same columns that were exchanged are computed anew."""
    asked = [("rates", {"bucket": bucket}) for bucket in ("1h", "1d")]
    with make_lake() as lake:
        lake.append(some(200))
        lake.settle()
        expected = [views.read(lake, *ask).to_pylist() for ask in asked]
    for one, other in (pieces(home), notes(home)):
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)
    with lakelog.open(str(home / "lake"), create=False) as lake:
        assert [views.read(lake, *ask).to_pylist() for ask in asked] == expected
