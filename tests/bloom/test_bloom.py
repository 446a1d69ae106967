"""Bloom filters: a needle opens only segments it may be in, and never misses a row."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lakelog
from lakelog.bloom import filters as bloom
from lakelog.disk import disk
from tests.conftest import MakeLake
from tests.support import lakes

SEGMENTS, ROWS = 20, 1500
TEXTS = st.lists(st.none() | st.text(max_size=60), max_size=300)


def many_segments(path: str) -> None:
    """A lake of twenty segments, each with ids and subjects of its own."""
    with lakes.opened(path) as lake:
        for part in range(SEGMENTS):
            lake.append(
                [
                    {"type": "T", "id": f"{part}/{n}", "subject": f"s{part * 7 + n % 7:03d}"}
                    for n in range(ROWS)
                ]
            )
            lake.settle()


@pytest.fixture
def many(home: Path, make_lake: MakeLake) -> lakelog.Lake:
    """A copy of such a lake."""
    lakes.copied(many_segments, home)
    return make_lake()


def found(lake: lakelog.Lake, where: str, params: dict[str, str] | None = None) -> tuple[int, int]:
    """How many rows a condition gives, and how many segments are opened for it."""
    query = f"SELECT count(*) FROM events WHERE {where}"
    ((count,),) = lake.sql(query, params).fetchall()
    return count, lake.explain(query, params)[0]


@given(texts=TEXTS)
def test_no_value_is_denied(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """Whatever texts a segment holds, its filter allows for each of them."""
    table = pa.table({"id": pa.array(texts, pa.string()), "subject": pa.array(texts, pa.string())})
    paths = lakelog.paths.Paths(str(tmp_path_factory.mktemp("bloom")))
    disk.make_dirs(paths.cache)
    bloom.save(paths, "0" * 64, table)
    filters = bloom.Filters(paths)
    held = [text for text in texts if text is not None]
    for column in bloom.COLUMNS:
        for value in filters.hashes_of(held):
            assert filters.containing(["0" * 64], column, [value])


@given(texts=st.lists(st.text(max_size=60)))
def test_a_name_hashes_as_in_a_column(texts: list[str]) -> None:
    """Names that are looked up, a few in Python, have the hashes that Arrow gives columns."""
    assert bloom.Filters.hashes_of(texts) == bloom.hashes(pa.array(texts, pa.string())).tolist()


def test_sliced_columns_hash_alike() -> None:
    """A text has one hash, whatever stands before it in its column and however long others are."""
    texts = ["", "a", "b" * 48, "c" * 49, "\u20ac" * 40, None, "d" * 7]
    whole = bloom.hashes(pa.array(texts, pa.string()))
    alone = [bloom.hashes(pa.array([t], pa.string()))[0] for t in texts if t is not None]
    assert whole.tolist() == alone
    assert bloom.hashes(pa.array(texts, pa.string())[2:]).tolist() == alone[2:]


def test_needles_open_few_segments(many: lakelog.Lake) -> None:
    """By id or subject, literal or parameter or list, hardly any other segment is opened."""
    assert many.explain("SELECT * FROM events") == (SEGMENTS, SEGMENTS)
    for where, params, rows, own in (
        ("id = '7/77'", None, 1, 1),
        ("id = $v", {"v": "19/1499"}, 1, 1),
        ("subject = $v", {"v": "s139"}, 214, 1),
        ("id IN ('3/3', '4/4') AND type = 'T'", None, 2, 2),
        ("id = 'none'", None, 0, 0),
        ("subject = 's000' AND id = '0/0'", None, 1, 1),
    ):
        count, opened = found(many, where, params)
        assert count == rows
        assert own <= opened <= own + 2


def test_what_the_filters_say_holds_after_compaction(many: lakelog.Lake) -> None:
    """Compacted segments have filters of their own, and those that were merged none any more; an
    older state is searched as before."""
    many.tag("before")
    many.compact()
    segments = many.stats().segments
    assert found(many, "id = '7/77'")[0] == 1
    assert len(os.listdir(many.store.paths.blooms)) == segments
    query = "SELECT count(*) FROM events WHERE id = '7/70'"
    assert many.at("before").sql(query).fetchall() == [(1,)]


@pytest.mark.matrix
@pytest.mark.parametrize("harm", ["gone", "cut", "flipped", "foreign"])
def test_a_filter_that_is_not_whole_is_made_anew(many: lakelog.Lake, harm: str) -> None:
    """A missing or damaged filter hides no row, and is whole again after the query."""
    folder = Path(many.store.paths.blooms)
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    for name, data in whole.items():
        flipped = data[:100] + bytes([data[100] ^ 255]) + data[101:]
        changed = {"cut": data[:-1], "flipped": flipped, "foreign": b"x" * 80}
        if harm == "gone":
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(changed[harm])
    with lakelog.open(many.path, create=False) as lake:
        assert [found(lake, "id = $v", {"v": f"{n}/5"})[0] for n in range(SEGMENTS)] == [1] * 20
        assert found(lake, "id = '7/77'")[1] <= 3
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == whole


def test_small_segments_get_a_filter_when_asked(lake: lakelog.Lake) -> None:
    """Filters of small segments are made by the first query that needs them."""
    for n in range(5):
        lake.append([{"type": "T", "subject": name} for name in ("a", f"s{n}", "z")])
        lake.settle()
    assert not os.path.exists(lake.store.paths.blooms)
    assert found(lake, "subject = 's3'") == (1, 1)
    assert len(os.listdir(lake.store.paths.blooms)) == 5


def test_a_lake_that_cannot_be_written_is_searched_all_the_same(
    many: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filters that cannot be kept are used for all that."""
    for file in Path(many.store.paths.blooms).iterdir():
        file.unlink()

    def refuse(path: str, data: bytes, *, sync: bool = True) -> None:
        raise PermissionError(13, "read-only", path)

    monkeypatch.setattr(disk, "replace_whole", refuse)
    with lakelog.open(many.path, create=False) as lake:
        count, opened = found(lake, "id = '7/77'")
    assert count == 1
    assert opened <= 3
