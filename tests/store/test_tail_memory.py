"""What a reader of the tail keeps in memory, and what it leaves behind."""

from __future__ import annotations

import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lakelog
from lakelog.wal.tail import Tail

MakeLake = Callable[..., lakelog.Lake]
TEXT = "".join(random.Random(7).choices("0123456789abcdef", k=200_000))


@pytest.fixture
def held() -> Iterator[Callable[[], int]]:
    """Bytes that Python's objects hold, of those made during the test."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()


def tail_of(lake: lakelog.Lake) -> Tail:
    return Tail(lake.store.paths, lake.store.refs, "main")


def test_a_reader_lets_go_of_frames_that_are_sealed(
    make_lake: MakeLake, held: Callable[[], int]
) -> None:
    """Of what was sealed since it was read only the last frame of a file stays in memory."""
    lake = make_lake(seal="never")
    for n in range(8):
        lake.append({"type": "A", "data": TEXT[n:]})
    lake.append({"type": "B"})
    reader = tail_of(lake)
    assert reader.collect().events == 9
    lake.settle()
    before = held()
    assert reader.collect().events == 0
    assert before - held() > 500_000


def test_a_reader_of_small_commits_holds_what_they_hold(
    make_lake: MakeLake, held: Callable[[], int]
) -> None:
    """Neither the space after a frame nor the rest of what was read with it stays in memory."""
    lake = make_lake(seal="never")
    reader, before = tail_of(lake), held()
    for n in range(400):
        lake.append({"type": "A", "data": n})
        reader.collect()
    assert reader.collect().events == 400
    assert held() - before < 1_000_000


def test_to_read_ahead_leaves_no_thread(make_lake: MakeLake) -> None:
    """Whoever forks after a first query meets no thread of the library."""
    lake = make_lake(seal="never")
    for _ in range(20):
        lake.append([{"type": "A", "data": TEXT}] * 20)
    before, reader = set(threading.enumerate()), tail_of(lake)
    with reader.read_ahead(is_wanted=True):
        pass
    assert set(threading.enumerate()) <= before
    assert reader.collect().events == 400


@pytest.mark.damaged
def test_a_first_query_tells_of_a_damaged_tail(make_lake: MakeLake) -> None:
    lake = make_lake(seal="never")
    lake.append([{"type": "A", "data": TEXT}] * 3)
    lake.append({"type": "B"})
    [path] = Path(lake.path, "wal/main").iterdir()
    data = bytearray(path.read_bytes())
    data[5_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(lakelog.errors.DamagedWal):
        lakelog.open(lake.path).sql("SELECT type FROM events").fetchall()
