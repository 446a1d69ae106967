"""Compaction: fewer, sorted segments and the same events with the same places in the order."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

import lakelog
from lakelog.disk import LockFile, disk
from lakelog.entries.entry import UNNUMBERED, SegmentEntry
from lakelog.errors import DamagedSegment
from lakelog.maintain import compact, row_order
from lakelog.moves.publication import Change, publish
from lakelog.segments import segment
from lakelog.settings import Settings
from lakelog.store import SealerProcess

MakeLake = Callable[..., lakelog.Lake]


def put(lake: lakelog.Lake, *types: str) -> None:
    """Append one event per type, sealed into a segment of its own."""
    lake.append([{"type": name, "time": 2_000 - ord(name[0]), "data": name} for name in types])
    lake.settle()


def rows(lake: Any) -> list[Any]:
    """Return all that compaction must not change."""
    return lake.sql("SELECT seq, type, time, data, id, origin, position FROM events").fetchall()


def entries(lake: lakelog.Lake) -> list[SegmentEntry]:
    """Return the segments of the branch."""
    state = lake.store.manifests.load(lake.store.refs.head(lake.branch_name).move.snapshot)
    return lake.store.manifests.segments(state)


def entry(
    first: int, events: int, size: int, layout: str = "arrival", kind: str = "events"
) -> SegmentEntry:
    """Return what the policy looks at."""
    seq = (first, first + events - 1) if kind == "events" else UNNUMBERED
    return SegmentEntry(f"{kind[0]}{first}", size, kind, events, layout, (0, 0), seq=seq)


SORTED = "sorted"


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ([], []),
        ([entry(0, 5, 10)], [["e0"]]),
        ([entry(0, 5, 10, SORTED)], []),
        ([entry(0, 5, 10), entry(5, 5, 10)], [["e0", "e5"]]),
        ([entry(5, 5, 10), entry(0, 5, 10)], [["e0", "e5"]]),
        ([entry(0, 60, 10), entry(60, 60, 10)], [["e0"], ["e60"]]),
        ([entry(0, 60, 10), entry(60, 40, 10)], [["e0", "e60"]]),
        ([entry(0, 5, 600), entry(5, 5, 600)], [["e0"], ["e5"]]),
        ([entry(0, 5, 600), entry(5, 5, 400)], [["e0", "e5"]]),
        ([entry(0, 100, 999, SORTED), entry(100, 5, 10)], [["e100"]]),
        ([entry(0, 50, 10, SORTED), entry(50, 5, 10)], [["e0", "e50"]]),
        ([entry(0, 99, 10, SORTED), entry(99, 99, 10, SORTED)], []),
        ([entry(0, 5, 10, SORTED), entry(5, 5, 10, SORTED)], [["e0", "e5"]]),
        ([entry(0, 500, 5000), entry(500, 5, 10), entry(505, 5, 10)], [["e0"], ["e500", "e505"]]),
        ([entry(0, 5, 10), entry(0, 9, 10, kind="quarantine"), entry(5, 5, 10)], [["e0", "e5"]]),
        ([entry(0, 9, 10, kind="quarantine")], []),
    ],
)
def test_what_is_merged(given: list[SegmentEntry], chosen: list[list[str]]) -> None:
    """Neighbours in seq that fit the targets together; sorted ones that fit nothing stay."""
    settings = Settings(segment_rows=100, segment_bytes=1_000)
    groups = compact.choose(given, settings)
    assert [[e.key for e in group] for group in groups] == chosen


def test_rows_and_their_order_stay(lake: lakelog.Lake) -> None:
    """Every column of every event is as before, seq too; the segment is one and sorted."""
    for types in ("c", "ab", "bca", "a"):
        put(lake, *types)
    lake.append({"type": "live"})
    before = sorted(rows(lake), key=str)
    done = lake.compact()
    assert (done.removed, done.added) == (5, 1)
    [made] = entries(lake)
    assert (made.layout, made.seq, made.events) == ("sorted", (0, 7), 8)
    assert len(made.made_from) == 5
    table = segment.Segment(lake.store.paths, made.key).read().to_pydict()
    order = list(zip(table["type"], table["seq"], strict=True))
    assert order == sorted(order)
    after = sorted(rows(lake), key=str)
    assert [r[1:] for r in after if r[1] != "live"] == [r[1:] for r in before if r[1] != "live"]
    assert sorted(r[0] for r in after) == list(range(8))
    assert lake.count() == 8


def test_row_groups_are_cut_by_time() -> None:
    """F4.3: row groups follow each other by type, time and seq; in one, rows keep their order."""
    random = Random(3)
    rows = [(random.choice("ab\u00e9"), random.randrange(50), seq) for seq in range(200)]
    columns = dict(zip(("type", "time", "seq"), map(list, zip(*rows, strict=True)), strict=True))
    for step in (1, 7, 200, 1_000):
        order = row_order.sort_order(pa.table(columns), step).to_pylist()
        groups = [[rows[n] for n in order[at : at + step]] for at in range(0, 200, step)]
        assert [sorted(group) for group in groups] == [
            sorted(rows)[at : at + step] for at in range(0, 200, step)
        ]
        assert all(group == sorted(group, key=lambda r: (r[0], r[2])) for group in groups)


def test_row_groups_are_cut_by_subject() -> None:
    """F4.3: a cluster has the next subjects of all, by type and seq, whatever row groups are."""
    random = Random(4)
    rows = [(random.choice("ab"), random.choice(["x", "y\u00e9", None]), n) for n in range(200)]
    columns = dict(zip(("type", "subject", "seq"), map(list, zip(*rows, strict=True)), strict=True))
    table = pa.table(columns | {"time": columns["seq"]})
    by_subject = sorted(rows, key=lambda r: (r[1] is None, r[1] or "", r[2]))
    for step, cluster in ((200, 30), (64, 16), (1_000, 1)):
        order = row_order.sort_order(table, step, cluster).to_pylist()
        for first in range(0, 200, cluster):
            assert [rows[n] for n in order[first : first + cluster]] == sorted(
                by_subject[first : first + cluster], key=lambda r: (r[0], r[2])
            )


def test_rows_of_a_subject_stand_together(lake: lakelog.Lake) -> None:
    """Where subjects are common, their rows are in neighbouring clusters; each is found, in the
    same order as before."""
    names = [f"user-{number % 90:05d}" for number in Random(6).sample(range(20_000), 20_000)]
    for first in range(0, 20_000, 4_000):
        lake.append(
            {"type": "ab"[number % 2], "subject": names[number], "data": {"n": number}}
            for number in range(first, first + 4_000)
        )
        lake.settle()
    query = "SELECT data->>'n' FROM events WHERE subject = 'user-00007' ORDER BY seq"
    before = lake.sql(query).fetchall()
    lake.compact()
    [made] = entries(lake)
    table = segment.Segment(lake.store.paths, made.key).read(["subject", "seq"])
    assert sorted(table["seq"].to_pylist()) == list(range(20_000))
    clusters: dict[str, set[int]] = {}
    for place, name in enumerate(table["subject"].to_pylist()):
        clusters.setdefault(name, set()).add(place // row_order.CLUSTER)
    assert set.union(*clusters.values()) == {0, 1}
    assert all(max(places) - min(places) <= 1 for places in clusters.values())
    assert lake.sql(query).fetchall() == before


def test_segments_are_larger_where_subjects_are_common(make_lake: MakeLake) -> None:
    """So that reading a subject opens few; not where each event has its own, and never more rows
    than the settings allow."""
    for name, subjects, rows_max, expected in (
        ("common", 9, 1_000_000, 1),
        ("own", 70_000, 1_000_000, 2),
        ("limited", 9, 65_536, 2),
    ):
        lake = make_lake(name, segment_rows=rows_max)
        for first in (0, 35_000):
            lake.append(
                {"type": "a", "subject": f"s{number % subjects}"}
                for number in range(first, first + 35_000)
            )
            lake.settle()
        lake.compact()
        assert len(entries(lake)) == expected, name
        assert lake.compact().added == 0
        assert lake.sql("SELECT count(DISTINCT subject) FROM events").fetchall() == [(subjects,)]


def test_the_smallest_form_is_idempotent(lake: lakelog.Lake) -> None:
    """What is merged already is compressed once more when asked, once; no event changes."""
    random = Random(5)
    words = [random.randbytes(3).hex() for _ in range(50)]
    for _ in range(2):
        texts = [" ".join(random.choices(words, k=9)) for _ in range(1_000)]
        lake.append([{"type": "t", "message": text} for text in texts])
        lake.compact()
    before = sorted(rows(lake), key=str)
    done = lake.compact(smallest=True)
    assert (done.removed, done.added) == (1, 1)
    assert done.bytes_after < 0.95 * done.bytes_before
    assert sorted(rows(lake), key=str) == before
    lake.append({"type": "late"})
    assert lake.compact(smallest=True).removed == 2
    assert lake.compact(smallest=True) == lake.compact() == compact.Compaction()


def test_a_compacted_lake_is_left_alone(lake: lakelog.Lake) -> None:
    """Nothing is rewritten twice: a second run makes no move."""
    put(lake, "a")
    put(lake, "b")
    lake.compact()
    moves = len(lake.log())
    assert lake.compact() == compact.Compaction()
    assert len(lake.log()) == moves


def test_new_segments_join_a_small_sorted_one(lake: lakelog.Lake) -> None:
    """Sorted and arrival segments mix freely, again and again."""
    for number in range(5):
        put(lake, "b", "a")
        lake.compact()
        assert [e.events for e in entries(lake)] == [2 * number + 2]
        assert sorted(r[0] for r in rows(lake)) == list(range(2 * number + 2))


def test_targets_are_kept(make_lake: MakeLake) -> None:
    """No segment grows past the rows asked for, unless it was that large before."""
    lake = make_lake(segment_rows=5)
    for types in ("ab", "ab", "abc", "abcdefgh", "a"):
        put(lake, *types)
    lake.compact()
    assert [e.events for e in entries(lake)] == [4, 3, 8, 1]
    assert sorted(r[0] for r in rows(lake)) == list(range(16))


def test_bad_lines_are_not_compacted(lake: lakelog.Lake) -> None:
    """Segments of quarantined lines stay as they are, where they are."""
    for line in "{[":
        lake.quarantine([("a.log", 1, "bad", line)])
        put(lake, "a")
    before = [e for e in entries(lake) if e.kind == "quarantine"]
    lake.compact()
    assert [e for e in entries(lake) if e.kind == "quarantine"] == before
    assert lake.stats().quarantined == 2


def test_ids_still_count_after_compaction(lake: lakelog.Lake) -> None:
    """Merged segments keep their id runs."""
    for _ in range(2):
        for name in "ab":
            lake.append({"type": "A", "id": name})
            lake.settle()
        lake.compact()
        assert lake.count() == 2


def test_old_states_keep_their_segments(lake: lakelog.Lake) -> None:
    """A tag made before compaction reads what it named."""
    put(lake, "a")
    put(lake, "b")
    lake.tag("v1")
    put(lake, "c")
    lake.compact()
    assert len(rows(lake.at("v1"))) == 2
    assert lake.at("v1").snapshot().segments == 2
    lake.rollback("v1")
    put(lake, "d")
    lake.compact()
    assert sorted(r[1] for r in rows(lake)) == ["a", "b", "d"]
    assert sorted(r[0] for r in rows(lake)) == [0, 1, 2]


def test_a_rewind_in_between_stops_it(make_lake: MakeLake) -> None:
    """Groups merged before a rollback stay in the log; those after it are abandoned."""
    lake, other = make_lake(segment_rows=2), make_lake()
    for name in "abcd":
        put(lake, name)
    lake.tag("v1")
    put(lake, "e")
    done = lake.compact(lambda group, _: other.rollback("v1") if group == 1 else None)
    assert (done.removed, done.added) == (2, 1)
    assert sorted(r[1] for r in rows(lake)) == list("abcd")
    assert lake.compact().removed == 4
    assert sorted(r[0] for r in rows(lake)) == [0, 1, 2, 3]


def test_events_sealed_in_between_stay(make_lake: MakeLake) -> None:
    """A seal between two groups does not disturb the next one."""
    lake, other = make_lake(segment_rows=2), make_lake()
    for name in "abcd":
        put(lake, name)
    done = lake.compact(lambda group, _: put(other, "x"))
    assert (done.removed, done.added) == (4, 2)
    assert sorted(r[1] for r in rows(lake)) == list("abcdxx")
    assert sorted(r[0] for r in rows(lake)) == list(range(6))


def test_an_input_removed_in_between_is_not_resurrected(make_lake: MakeLake) -> None:
    """If retention takes an input away first, the merged output is abandoned."""
    lake, other = make_lake(segment_rows=2), make_lake()
    for name in "abcd":
        put(lake, name)
    done = lake.compact(lambda *_: other.retention("1d", apply=True))
    assert (done.removed, done.added) == (2, 1)
    assert rows(lake) == []


def test_two_compactors_do_not_do_it_twice(lake: lakelog.Lake) -> None:
    """While another process compacts this one does nothing."""
    put(lake, "a")
    put(lake, "b")
    with LockFile(f"{lake.store.paths.cache}/compact.lock").claim() as alone:
        assert alone
        assert lake.compact() == compact.Compaction()
    assert lake.compact().removed == 2


@pytest.mark.damaged
@pytest.mark.parametrize("what", ["flipped", "missing"])
def test_a_damaged_input_is_not_written_anew(make_lake: MakeLake, what: str) -> None:
    """Damage is named before rows are copied, and the branch stays where it was."""
    lake = make_lake()
    put(lake, "a")
    put(lake, "b")
    path = Path(lake.store.paths.object("segments", entries(lake)[0].key))
    data = bytearray(path.read_bytes())
    path.unlink()
    if what == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    moves = len(lake.log())
    with pytest.raises(DamagedSegment, match=path.stem):
        make_lake().compact()
    assert len(lake.log()) == moves


def test_a_group_that_cannot_be_read_stops_no_other(make_lake: MakeLake) -> None:
    """All other groups are merged; then the damaged file is named."""
    lake = make_lake(segment_rows=2)
    for name in "abcdef":
        put(lake, name)
    path = Path(lake.store.paths.object("segments", entries(lake)[2].key))
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DamagedSegment, match=path.stem):
        make_lake().compact()
    assert [e.layout for e in entries(lake)].count("sorted") == 2
    assert len(entries(lake)) == 4
    path.write_bytes(data)
    assert lake.compact().removed == 2
    assert sorted(r[1] for r in rows(lake)) == list("abcdef")


def test_many_short_segments_are_merged_in_steps(lake: lakelog.Lake) -> None:
    """No step takes more than a bounded number of files, and nothing is left over at the end."""
    table = many_segments(lake, compact.FILES_MAX + 40)
    assert lake.compact().added == 3  # two steps by number of files, and one of what they left
    assert [e.layout for e in entries(lake)] == ["sorted"]
    assert sorted(r[0] for r in rows(lake)) == list(range(table))
    assert lake.compact() == compact.Compaction()
    assert {len(e.made_from) for e in merged(lake)} == {compact.FILES_MAX, 41, 2}


def many_segments(lake: lakelog.Lake, count: int) -> int:
    """Publish so many segments of two rows at once; return the number of rows."""
    lake.append([{"type": "B", "time": 2}, {"type": "A", "time": 1}])
    made = lake.sealer()
    head = lake.store.refs.head("main")
    work = made._prepare(head, lake.store.manifests.load(head.move.snapshot))
    disk.finish(work.pending_writes)
    table = segment.Segment(lake.store.paths, work.entries[0].key).read()
    fresh = [
        segment.write_segment(
            lake.store.paths, table, kind="events", layout="arrival", commit=disk.random_hex()
        )
        for _ in range(count)
    ]
    publish(lake.store, "main", lambda *_: Change("seal", entries=tuple(fresh)))
    lake.settle()
    return 2 * count + 2


def merged(lake: lakelog.Lake) -> list[SegmentEntry]:
    """Return every segment that some move's compaction made."""
    states = (lake.store.manifests.load(e.move.snapshot) for e in lake.log())
    made = {e.key: e for s in states for e in lake.store.manifests.segments(s) if e.made_from}
    return list(made.values())


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        ([5, 5, 5], [["e0", "e1"], ["e2"]]),
        ([11, 5, 5], [["e1", "e2"]]),
        ([5, 11, 5], [["e0"], ["e2"]]),
        ([4, 3, 3], [["e0", "e1", "e2"]]),
    ],
)
def test_a_group_is_cut_by_the_memory_of_its_rows(weights: list[int], parts: Any) -> None:
    """A step holds no more rows than the memory allows; what is larger alone stays as it is."""
    group = [entry(n, 1, 1) for n in range(3)]
    assert [[e.key for e in part] for part in compact.portions(group, weights, 10)] == parts


def test_large_events_are_merged_a_few_at_a_time(make_lake: MakeLake) -> None:
    """Rows that packed well are counted as what they are when unpacked."""
    lake = make_lake(memory_bytes=8_000_000)
    for number in range(6):
        lake.append({"type": "BIG", "time": number, "data": "x" * 400_000})
        lake.settle()
    assert sum(e.bytes for e in entries(lake)) < 100_000
    lake.compact()
    assert [len(e.made_from) for e in entries(lake)] == [2, 2, 2]
    assert [len(d) for (d,) in lake.sql("SELECT data FROM events").fetchall()] == [400_002] * 6


@pytest.mark.parametrize("files", [1, SealerProcess.FILES])
def test_a_helper_gives_way_unless_files_have_piled_up(make_lake: MakeLake, files: int) -> None:
    """It takes no processor from any other program, until that has left it behind."""
    lake = make_lake(seal="never")
    for _ in range(files):
        with make_lake(seal="never") as short:
            short.append({"type": "x"})
    process = SealerProcess(lake.store, "main").start()
    policies = set()
    while process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            policies.add(os.sched_getscheduler(process.pid))
        time.sleep(0.001)
    assert (os.SCHED_IDLE in policies) == (files < SealerProcess.FILES)


def test_a_helper_outlives_who_started_it_in_silence(make_lake: MakeLake) -> None:
    """Python warns of a child that runs and that nobody refers to: programs would fail by it that
    take warnings for errors, wherever they are just then."""
    lake = make_lake(seal="never")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pid = SealerProcess(lake.store, "main").start().pid
        gc.collect()
        assert os.path.exists(f"/proc/{pid}")
    assert not caught
    os.waitpid(pid, 0)


def test_a_compaction_that_watches_gives_way(make_lake: MakeLake) -> None:
    """`compact --watch` takes no processor from who writes or asks, with any of its threads."""
    lake = make_lake(seal="never")
    for _ in range(2):
        lake.append({"type": "x"})
        lake.settle()
    command = [sys.executable, "-m", "lakelog", "--lake", lake.path, "compact", "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline()  # now it has all of its threads
            threads = [int(name) for name in os.listdir(f"/proc/{process.pid}/task")]
            assert len(threads) > 1
            assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_IDLE}
        finally:
            process.terminate()


def test_a_helper_compacts_and_collects_by_itself(make_lake: MakeLake) -> None:
    """What writers and watchers start beside themselves merges segments once they are many."""
    lake = make_lake(seal="never")
    many_segments(lake, compact.DUE - 10)
    helper(lake)
    assert len(entries(lake)) == compact.DUE - 9
    many_segments(lake, 20)
    os.utime(lake.store.paths.config, (1, 1))
    helper(lake)
    assert [e.layout for e in entries(lake)] == ["sorted"]
    assert Path(lake.store.paths.condemned).exists()


def helper(lake: lakelog.Lake) -> None:
    """Run what `start_sealer` starts, to its end."""
    process = SealerProcess(lake.store, "main").start()
    assert process.wait() == 0


def test_files_of_short_lived_writers_are_sealed_by_count(make_lake: MakeLake) -> None:
    """A thousand programs that append one event each do not leave a thousand files."""
    lake = make_lake(seal="inline")
    for number in range(2 * SealerProcess.FILES):
        with make_lake() as short:
            short.append({"type": "A", "data": number})
    assert len(disk.listing(lake.store.paths.wal_dir("main"))) < SealerProcess.FILES
    assert lake.stats().events >= SealerProcess.FILES
    assert lake.count() == 2 * SealerProcess.FILES
