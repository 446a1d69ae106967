"""A long file is loaded by several processes: the same events, each once, whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lakelog
from lakelog.audit.audit import audit
from lakelog.formats.uniform import typed_payloads
from lakelog.ingest import batch, group, splits
from lakelog.lines import checksum, source
from tests.support.tree import ROOT

MakeLake = Callable[..., lakelog.Lake]
LINES, ROWS = 16_000, 1536
EXECUTABLE = sys.executable


def line(number: int, **members: Any) -> bytes:
    """One event, spelled as all others."""
    event = {
        "time": f"2026-11-20T10:{number // 60 % 60:02d}:{number % 60:02d}.{number % 10**6:06d}Z",
        "type": ("FETCH", "PARSE")[number % 2],
        "subject": f"item-{number:06d}",
        "data": {"url": f"https://example.com/{number}", "ms": number % 977},
    }
    return json.dumps(event | members, separators=(",", ":")).encode() + b"\n"


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """The lines of a long file."""
    return [line(number) for number in range(LINES)]


@pytest.fixture(autouse=True)
def given_splits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Split files of a megabyte already; return where splits began that another process got."""
    monkeypatch.setattr(splits, "LEAST", 1 << 20)
    monkeypatch.setattr(source.Source, "SHORT", 1 << 17)
    monkeypatch.setattr(group, "PIECE_MAX", 1 << 17)
    monkeypatch.setattr(typed_payloads, "LINES", 0)
    monkeypatch.setattr(batch, "ROWS_MAX", 6_000)
    found, real = list[int](), splits.Splits.give

    def give(self: splits.Splits, base: int, size: int) -> splits.PendingSplit:
        found.append(base)
        return real(self, base, size)

    monkeypatch.setattr(splits.Splits, "give", give)
    return found


@pytest.fixture
def load(make_lake: MakeLake, tmp_path: Path) -> Callable[..., lakelog.Lake]:
    """Load lines into a lake by so many processes; the same lines are the same file."""

    path, counts = tmp_path / "events.jsonl", list[tuple[int, ...]]()

    def loaded(lines: list[bytes], processes: int = 2, **options: Any) -> lakelog.Lake:
        if not path.exists():
            path.write_bytes(b"".join(lines))
        lake = make_lake(f"by-{processes}", threads=processes, segment_rows=ROWS)
        (report,) = lake.ingest(str(path), **options).files
        counts.append(
            (report.lines, report.events, report.quarantined, report.skipped, report.nuls)
        )
        assert not report.error
        assert counts[-1] == counts[0]
        label = options.get("source")
        assert audit(lake.store, "main", lake.engine, [str(path)], label=label).wrong == []
        return lake

    return loaded


def stored(lake: lakelog.Lake) -> list[Any]:
    """What a lake has of each event and bad line but for when it came, in its order."""
    events = "SELECT * EXCLUDE (ingested_at) FROM events ORDER BY seq"
    bad = "SELECT * EXCLUDE (ingested_at) FROM quarantine ORDER BY position"
    return [*lake.sql(events).fetchall(), *lake.sql(bad).fetchall()]


@pytest.fixture(params=[2, 3])
def processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So many processes, on a machine that has a processor for each."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    count: int = request.param
    return count


@pytest.mark.matrix
def test_splits_give_what_one_process_gives(
    load: Callable[..., lakelog.Lake], lines: list[bytes], given_splits: list[int], processes: int
) -> None:
    """Events, their order and places, and the cursor are the same."""
    lake = load(lines, processes)
    assert len(given_splits) >= 3
    given_splits.clear()
    assert stored(lake) == stored(load(lines, 1))
    assert given_splits == []


@pytest.mark.parametrize(("processors", "is_shared"), [(1, False), (2, False), (3, True)])
def test_one_process_keeps_two_processors_busy(
    load: Callable[..., lakelog.Lake],
    lines: list[bytes],
    given_splits: list[int],
    monkeypatch: pytest.MonkeyPatch,
    processors: int,
    is_shared: bool,
) -> None:
    """Unless the settings say so, another process begins only where a processor is left for it."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(processors)})
    assert load(lines, 0).count() == LINES
    assert bool(given_splits) == is_shared


def test_payloads_of_splits_are_typed(
    load: Callable[..., lakelog.Lake], lines: list[bytes], given_splits: list[int]
) -> None:
    """Payloads become columns of one schema, in segments of about as many rows as they should."""
    lake = load(lines)
    assert given_splits
    found = lake.store.manifests.segments(lake.store.state("main"))
    assert len({entry.fields for entry in found}) == 1
    assert not any(entry.text_rows for entry in found[:-2])  # but for the last few lines
    assert sum(entry.events < ROWS / 2 for entry in found) <= len(found) / 3


def test_a_source_and_a_later_part(
    load: Callable[..., lakelog.Lake], lines: list[bytes], tmp_path: Path
) -> None:
    """Events get the source that is asked for; a file that has grown goes on at its end."""
    lake = load(lines[: LINES // 2], source="crawler")
    with open(tmp_path / "events.jsonl", "ab") as file:
        file.writelines(lines[LINES // 2 :])
    assert lake.ingest(str(tmp_path / "events.jsonl"), source="crawler").events == LINES // 2
    found = lake.sql("SELECT count(DISTINCT subject), count(*), min(source) FROM events")
    assert found.fetchall() == [(LINES, LINES, "crawler")]


ODD = {
    "no JSON": [b"oops {\n"],
    "no text": [b'{"time":"2026-11-20T10:00:00Z","type":"A","subject":"\xff\xfe","data":{}}\n'],
    "an id, twice": [line(1, id="same"), line(2, id="same")],
    "blank lines": [b"\n", b"   \n"],
    "NULs": [bytes(5000) + line(3)],
    "a long line": [line(4, message="x" * 200_000)],
    "a control character": [line(5).replace(b"item-", b"item\x01")],
    "another spelling": [json.dumps(json.loads(line(n))).encode() + b"\n" for n in range(600)],
    "no time": [b'{"type":"A","subject":"untimed"}\n'],
}


@pytest.mark.matrix
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("at", [0.4, 0.9])
def test_what_others_refuse_is_read_again(
    load: Callable[..., lakelog.Lake], lines: list[bytes], odd: str, at: float
) -> None:
    """Lines that are not like the others give what they give to one process, each once."""
    place = int(at * len(lines))
    mixed = [*lines[:place], *ODD[odd], *lines[place:]]
    # the time of ingest is that of an event without one
    query = "SELECT * EXCLUDE (ingested_at) REPLACE (CASE WHEN subject = 'untimed' THEN NULL ELSE"
    query += " time END AS time) FROM events ORDER BY seq"
    lakes = [load(mixed, 2), load(mixed, 1)]
    assert lakes[0].sql(query).fetchall() == lakes[1].sql(query).fetchall()
    bad = "SELECT * EXCLUDE (ingested_at) FROM quarantine ORDER BY position"
    assert lakes[0].sql(bad).fetchall() == lakes[1].sql(bad).fetchall()


@pytest.mark.matrix
@pytest.mark.parametrize(
    "script",
    ["exit 1", "sleep 0.3; exit 1", 'timeout -s KILL 0.8 "$real" "$@"', "echo nonsense"],
    ids=["none", "late", "killed", "nonsense"],
)
def test_a_worker_that_fails_costs_time_alone(
    load: Callable[..., lakelog.Lake],
    lines: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
) -> None:
    """Whatever becomes of other processes, each event is stored once."""
    false = tmp_path / "python"
    false.write_text(f"#!/bin/sh\nreal={EXECUTABLE}\n{script}\n")
    false.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(false))
    lake = load(lines)
    monkeypatch.setattr(sys, "executable", EXECUTABLE)
    assert stored(lake) == stored(load(lines, 1))


def test_no_worker_where_none_can_be_started(
    load: Callable[..., lakelog.Lake],
    lines: list[bytes],
    given_splits: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In an embedded interpreter, which would start itself, one process loads."""
    monkeypatch.setattr(sys, "executable", "/usr/bin/notepad")
    assert load(lines).count() == LINES
    assert given_splits == []


# --- the end of processes -------------------------------------------------------------------------


DRIVER = """
    import os, sys, time
    import lakelog
    from lakelog.lines import source
    from lakelog.ingest import batch, group, splits
    splits.LEAST, batch.ROWS_MAX = 1 << 20, 6_000
    source.Source.SHORT = group.PIECE_MAX = 1 << 17

    def progress(done, total, events):
        if {at} and done > {at} * total:
            {act}

    with lakelog.open(sys.argv[1], create=False) as lake:
        print(lake.ingest(sys.argv[2], progress=progress).events, flush=True)
"""


@pytest.fixture
def driven(make_lake: MakeLake, tmp_path: Path, lines: list[bytes]) -> Any:
    """Start a program that loads the lines, and does something on the way."""
    lake = make_lake(threads=2, segment_rows=ROWS)
    (tmp_path / "events.jsonl").write_bytes(b"".join(lines))

    def start(act: str = "pass", at: float = 0) -> tuple[subprocess.Popen[bytes], lakelog.Lake]:
        program = textwrap.dedent(DRIVER).format(act=act, at=at)
        given = [sys.executable, "-c", program, lake.path, str(tmp_path / "events.jsonl")]
        return subprocess.Popen(given, stdout=subprocess.PIPE, cwd=ROOT), lake

    return start


def workers(lake: lakelog.Lake) -> list[str]:
    """The processes that load splits of the file beside a lake."""
    file, found = str(Path(lake.path).parent), []
    for folder in Path("/proc").iterdir():
        try:
            if b"worker_process" in (folder / "cmdline").read_bytes():
                opened = [os.readlink(each) for each in (folder / "fd").iterdir()]
                found += [folder.name] if any(o.startswith(file) for o in opened) else []
        except OSError:
            continue
    return found


@pytest.mark.matrix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("at", [0.3, 0.7])
def test_an_end_on_the_way_leaves_no_process_and_loses_nothing(
    driven: Any, tmp_path: Path, number: signal.Signals, at: float
) -> None:
    """A load that is killed or interrupted goes on where it was; its workers end."""
    process, lake = driven(f"os.kill(os.getpid(), {int(number)})", at)
    assert process.wait(120) != 0
    process.stdout.close()
    until = time.monotonic() + 60
    while workers(lake) and time.monotonic() < until:
        time.sleep(0.05)
    assert workers(lake) == []
    lake.ingest(str(tmp_path / "events.jsonl"))
    found = lake.sql(
        "SELECT count(*), count(DISTINCT position), count(DISTINCT subject) FROM events"
    )
    assert found.fetchall() == [(LINES, LINES, LINES)]


def test_a_child_of_the_program_does_not_keep_it_waiting(driven: Any) -> None:
    """A child that was forked meanwhile has the pipes of workers open; they end all the same."""
    act = "os.fork() or (time.sleep(600), os._exit(0)); progress.__globals__['act'] = 1"
    act = f"not globals().get('act') and ({act.partition(';')[0]}); globals()['act'] = 1"
    process, _ = driven(act, 0.3)
    assert process.wait(120) == 0
    # its child has the pipe of the output, too
    os.set_blocking(process.stdout.fileno(), False)
    assert process.stdout.read() == f"{LINES}\n".encode()
    process.stdout.close()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                given = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if b"events.jsonl" in given and str(process.args[-1]).encode() in given:
                os.kill(int(folder.name), signal.SIGKILL)


def test_what_is_left_of_refused_splits_is_collected(
    load: Callable[..., lakelog.Lake], lines: list[bytes]
) -> None:
    """Segments that no state names are removed by gc."""
    lake = load([*lines[:-2000], b"oops\n", *lines[-2000:]])
    lake.store.change_settings(lakelog.Settings(gc_grace_hours=0))
    lake.gc()
    lake.gc()
    live = {entry.key for entry in lake.store.manifests.segments(lake.store.state("main"))}
    kept = {path.stem for path in Path(lake.path, "segments").rglob("*.parquet")}
    assert kept == live
    shutil.rmtree(Path(lake.path, "cache"))


# --- checksums ------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=8), st.binary())
def test_checksums_of_parts_are_that_of_the_whole(
    parts: list[tuple[bytes, bool]], start: bytes
) -> None:
    """Whether parts are summed up here or elsewhere, the CRC-32 is that of all bytes."""
    with ThreadPoolExecutor(1) as pool:
        found = checksum.Checksum(zlib.crc32(start), pool)
        unknown = checksum.Checksum(None, pool)
        whole = start
        for data, elsewhere in parts:
            for each in (found, unknown):
                if elsewhere:
                    each.add_sum(lambda data=data: zlib.crc32(data), len(data))
                else:
                    each.add([data[:7], memoryview(data)[7:]], len(data))
            whole += data
            assert unknown.value() is None
        assert found.value() == zlib.crc32(whole)
        assert found.value() == zlib.crc32(whole)


@given(st.binary(max_size=64), st.binary(max_size=64), st.integers(0, 1 << 22))
def test_long_texts_are_joined(first: bytes, second: bytes, zeros: int) -> None:
    """The CRC-32 of a long text behind another is found without reading it."""
    second += bytes(zeros)
    joined = checksum.joined(zlib.crc32(first), zlib.crc32(second), len(second))
    assert joined == zlib.crc32(first + second)
    assert checksum.of_zeros(zeros) == zlib.crc32(bytes(zeros))
