"""What was erased is refused at every entrance, and what its subject does later is not."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

import lakelog
from lakelog import document, remotes
from lakelog.audit.audit import audit
from lakelog.errors import InvalidEvent, TransferRefused
from lakelog.event import EncodedBatch
from lakelog.lake import Lake
from lakelog.loggers.buffer import DiskBuffer
from lakelog.loggers.destination import queue_of
from tests.support import erasure_histories as histories
from tests.support import protected

ADA = "ada-3f9k2m"
OLD = "2020-01-01T00:00:00Z"
LINES = f'{{"type":"A","subject":"{ADA}","time":"{OLD}"}}\n{{"type":"A","subject":"bob"}}\n'


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with two events."""
    lake = lakelog.open(tmp_path / "lake", settings={"seal": "never"})
    lake.append([{"type": "A", "subject": ADA}, {"type": "A", "subject": "bob"}])
    lake.settle()
    return lake


def hers(lake: Lake) -> int:
    """How many events of ADA the lake has."""
    return int(lake.sql("SELECT count(*) FROM events WHERE subject = ?", [ADA]).fetchall()[0][0])


def test_an_append_is_refused(lake: Lake) -> None:
    """An event from before the erasure is refused by name; a later one is stored."""
    status = lake.erase(subject=ADA, why="asked")
    with pytest.raises(InvalidEvent, match=f"erased .erasure {status.erasure.key}"):
        lake.append([{"type": "A"}, {"type": "A", "subject": ADA, "time": OLD}])
    with pytest.raises(InvalidEvent, match="erased"):
        lake.append({"type": "A", "subject": ADA, "time": OLD}, expect={ADA: 0})
    assert lake.count() == 1
    lake.append({"type": "A", "subject": ADA})
    assert hers(lake) == 1


@pytest.mark.parametrize("subject", ["subject", "item_id"])
@pytest.mark.parametrize("moment", ["time", "timestamp", "ts", "@timestamp"])
def test_an_append_is_refused_in_each_spelling(lake: Lake, moment: str, subject: str) -> None:
    """A plain event keeps the names of its members, such as those of Elasticsearch's clients."""
    old, later = ({"type": "A", moment: t, subject: ADA} for t in (OLD, "2999-01-01T00:00:00Z"))
    lake.append(later)
    lake.erase(subject=ADA, why="asked")
    for event in (old, later):
        with pytest.raises(InvalidEvent, match="erased"):
            lake.append(event)
    lake.append({**later, "message": "another"})
    assert hers(lake) == 1


def refused(path: str) -> set[str]:
    """Which of three subjects a new process could not append an old event of."""
    subjects = set()
    with lakelog.open(path, create=False) as fresh:
        for subject in (ADA, "bob", "cid"):
            try:
                fresh.append({"type": "A", "subject": subject, "time": OLD})
            except InvalidEvent:
                subjects.add(subject)
    return subjects


def read_of_erasures(lake: Lake, use: Callable[[], object]) -> list[str]:
    """Which files of erasures were read meanwhile."""
    opened: list[str] = []
    real = os.open

    def counting(path: Any, *more: Any, **named: Any) -> int:
        opened.append(os.path.relpath(path, lake.path))
        return real(path, *more, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", counting)
        use()
    names = [name for name in opened if "erasures/" in name and name.endswith((".json", ".rows"))]
    return [name for name in names if name != "erasures/states.json"]


def test_an_append_reads_one_file_however_many_were_erased(lake: Lake) -> None:
    """Not their documents, but of those that are new, nor their rows: subjects alone refuse it."""
    for erased in (ADA, "bob", ADA):
        lake.erase(subject=erased, why="asked")
    lake.close()
    found = list[set[str]]()

    def read() -> list[str]:
        """Which files of erasures a process read."""
        return read_of_erasures(lake, lambda: found.append(refused(lake.path)))

    time.sleep(0.1)
    refused(lake.path)
    assert read() == []
    assert read() == []
    with lakelog.open(lake.path, create=False) as other:
        time.sleep(0.1)
        refused(lake.path)
        status = other.erase(subject=ADA, why="asked again")
    assert read() == [f"erasures/{status.erasure.key}.json"]
    Path(lake.path, f"erasures/{status.erasure.key}.json").unlink()
    assert len(read()) == 3
    assert found == [{ADA, "bob"}] * len(found)


def test_a_seal_reads_one_file_however_many_were_erased(lake: Lake, tmp_path: Path) -> None:
    """And so does ingest, unless rows of their origin were erased, or of their time and known by
    their content."""
    path, other_path = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    path.write_text(LINES)
    other_path.write_text('{"type":"B"}\n' + LINES)
    lake.tag("before")
    lake.ingest(path)
    for erased in (ADA, "bob"):
        lake.erase(subject=erased, why="asked")
    lake.append({"type": "Old", "time": "2001-01-01T00:00:00Z"})
    (key,) = {lake.erase(where="type = 'Old'", why="asked").erasure.key}
    lake.rollback("before")
    time.sleep(0.1)
    lake.append({"type": "A"})
    lake.settle()
    lake.append({"type": "A"})
    assert read_of_erasures(lake, lake.settle) == []
    assert read_of_erasures(lake, lambda: lake.ingest(other_path)) == []
    lake.append({"type": "A", "time": "2001-01-01T00:00:00Z"})
    assert read_of_erasures(lake, lake.settle) == [f"erasures/{key}.rows"]
    # Both subjects had rows of that file.
    assert len(read_of_erasures(lake, lambda: lake.ingest(path))) == 2
    with pytest.raises(InvalidEvent, match="the content of one that was erased"):
        lake.append({"type": "Old", "time": "2001-01-01T00:00:00Z"})
    assert lake.sql("SELECT count(*) FROM events WHERE type = 'Old'").fetchall() == [(0,)]


def test_rows_of_erasures_that_earlier_versions_wrote(lake: Lake, tmp_path: Path) -> None:
    """Of which origins and of what time they are is not said there: each row is looked for."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"type":"A"}\nno event of bob\n')
    lake.tag("before")
    lake.ingest(path)
    lake.append({"type": "Old", "time": OLD})
    erased = [
        lake.erase(subject="bob", why="asked"),
        lake.erase(where="type = 'Old' OR type = 'A'", why="asked"),
    ]
    lake.rollback("before")
    lake.close()
    time.sleep(0.1)
    for status in erased:
        rows = Path(lake.path, f"erasures/{status.erasure.key}.rows")
        whole = document.decode(rows.read_bytes())
        del whole["origins"], whole["times"]
        rows.write_bytes(document.encode(whole))
    with lakelog.open(lake.path, create=False) as again:
        with pytest.raises(InvalidEvent, match="the content of one that was erased"):
            again.append({"type": "Old", "time": OLD})
        again.writer().append(EncodedBatch.of([{"type": "Old", "time": OLD}]))
        again.settle()
        report = again.ingest(path)
        assert (report.events, report.erased, report.quarantined) == (0, 2, 0)
        assert again.count() == 0


def test_what_the_cache_has_of_erasures_is_never_too_little(lake: Lake, tmp_path: Path) -> None:
    """It is that of an earlier erasure, of a copy of the lake, or damaged: then it is not used."""
    cache = Path(lake.path, "cache/erasures.json")
    lake.erase(subject=ADA, why="asked")
    time.sleep(0.1)
    assert refused(lake.path) == {ADA}
    of_one = cache.read_bytes()
    lake.erase(subject="bob", why="asked")
    assert refused(lake.path) == {ADA, "bob"}
    time.sleep(0.1)
    assert refused(lake.path) == {ADA, "bob"}
    of_two = cache.read_bytes()
    assert of_one != of_two
    for stale in (of_one, of_two[:-3], of_two.replace(b"a", b"b"), b""):
        cache.write_bytes(stale)
        assert refused(lake.path) == {ADA, "bob"}
    # A copy with all its times, in which something else was erased since.
    lake.close()
    copy = tmp_path / "copy"
    shutil.copytree(lake.path, copy)
    times = os.stat(copy / "erasures")
    with lakelog.open(copy, create=False) as other:
        other.erase(subject="cid", why="asked")
    os.utime(copy / "erasures", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (copy / "cache/erasures.json").exists()
    assert refused(str(copy)) == {ADA, "bob", "cid"}
    assert ADA.encode() not in b"".join(
        p.read_bytes() for p in Path(lake.path, "cache").glob("*.json")
    )


def test_a_file_that_is_ingested_again(lake: Lake, tmp_path: Path) -> None:
    """After a rollback of its cursor a file gives everything but the erased events."""
    lake.tag("before")
    path = tmp_path / "a.jsonl"
    path.write_text(LINES)
    lake.ingest(path)
    lake.erase(subject=ADA, why="asked")
    lake.rollback("before")
    report = lake.ingest(path)
    assert (report.events, report.skipped, report.erased) == (1, 0, 1)
    assert (hers(lake), lake.count()) == (0, 2)
    assert lake.log()[0].move.message.endswith("1 erased events refused")
    assert histories.places_with(tmp_path / "lake", [ADA]) == []


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("others", [0, 2])
def test_lines_that_are_no_events_are_refused_again(
    lake: Lake, tmp_path: Path, others: int, end: str
) -> None:
    """Of a file after a rollback of its cursor, and of a writer at the same place."""
    lake.tag("before")
    paths = [tmp_path / f"{number}.jsonl" for number in range(others + 1)]
    for number, path in enumerate(paths):
        path.write_text(f'{{"type":"A","source":"{number}"}}\nbroken bob\nbroken {ADA}{end}')
    lake.ingest(paths)
    lake.quarantine([("file", 5, "no event", f"bad {ADA}")])
    assert lake.erase(subject=ADA, why="asked").erasure.lines == len(paths) + 1
    lake.rollback("before")
    report = lake.ingest(paths)
    assert (report.events, report.skipped, report.quarantined, report.erased) == (
        len(paths),
        0,
        len(paths),
        len(paths),
    )
    lake.quarantine([("file", 5, "no event", f"bad {ADA}")])
    lake.settle()
    lines = lake.sql("SELECT line FROM quarantine").fetchall()
    assert lines == [("broken bob",)] * len(paths)
    result = audit(lake.store, lake.branch_name, lake.engine, list(map(str, paths)))
    assert (result.wrong, result.failed) == ([], [])
    assert lake.erasures()[0].is_done
    lake.close()
    assert histories.places_with(tmp_path / "lake", [ADA]) == []


@pytest.mark.parametrize("count", [1, 2, 4, 12])
@pytest.mark.parametrize("others", [0, 2])
def test_a_file_that_grew_before_it_is_ingested_again(
    lake: Lake, tmp_path: Path, count: int, others: int
) -> None:
    """Lines without a time are known by their place, however much longer the file is by then."""
    lake.tag("before")
    paths = [tmp_path / f"{number}.jsonl" for number in range(others + 1)]
    for number, path in enumerate(paths):
        path.write_text(f'{{"type":"A","subject":"{ADA}","n":{number}}}\n' * count)
    lake.ingest(paths)
    lake.erase(subject=ADA, why="asked")
    for path in paths:
        lake.rollback("before")
        with path.open("a") as file:
            file.write('{"type":"B","subject":"bob"}\n' * 80)
        report = lake.ingest(paths)
        assert (report.erased, hers(lake)) == (count * len(paths), 0)
    files = audit(lake.store, lake.branch_name, lake.engine, list(map(str, paths))).files
    assert [(file.missing, file.let_go) for file in files] == [(0, count)] * len(paths)


def test_the_id_of_a_refused_line_is_not_known(lake: Lake, tmp_path: Path) -> None:
    """An event with the id of one that was refused is stored, as it is where no file was read."""
    lake.erase(subject=ADA, why="asked")
    path = tmp_path / "a.jsonl"
    path.write_text(LINES.replace('"type"', '"source":"web","id":"1","type"', 1))
    lake.ingest(path)
    event = {"type": "A", "subject": "cid", "source": "web", "id": "1"}
    lake.append(event)
    lake.append(event)
    assert (hers(lake), lake.count()) == (0, 3)


def test_rows_of_a_condition_are_known(lake: Lake, tmp_path: Path) -> None:
    """What a condition chose is known by its place in the file, and by its content elsewhere."""
    path = tmp_path / "a.jsonl"
    path.write_text(LINES)
    lake.tag("before")
    lake.ingest(path)
    lake.erase(where="time < '2021-01-01'", why="too old")
    lake.rollback("before")
    lake.ingest(path)
    other = tmp_path / "b.jsonl"
    other.write_text('{"type":"B"}\n' + LINES)
    lake.ingest(other)
    assert lake.sql("SELECT count(*) FROM events WHERE time < '2021-01-01'").fetchall() == [(0,)]


def test_a_time_to_come_after_the_key_is_gone(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such an event is known by its content, though nobody could read its protected field any
    more when it was erased."""
    protected.keys_in(tmp_path, monkeypatch)
    lake.protect(["secret"])
    lake.tag("before")
    for name, note in (("a.jsonl", "one"), ("b.jsonl", "two")):
        event = {"type": "A", "source": "s", "subject": ADA, "time": "2999-01-01T00:00:00Z"}
        data = {"secret": note, "n": 1} if note == "one" else {"n": 2}
        (tmp_path / name).write_bytes(orjson.dumps(event | {"data": data}) + b"\n")
        lake.ingest(tmp_path / name)
    lake.erase(subject=ADA, why="asked")
    lake.erase(subject=ADA, why="asked", rows=True)
    lake.rollback("before")
    lines = (tmp_path / "b.jsonl").read_text() + (tmp_path / "a.jsonl").read_text()
    other = tmp_path / "c.jsonl"
    other.write_text(lines + lines.replace("A", "LATER"))
    lake.ingest(other)
    assert (
        lake.sql("SELECT type FROM events WHERE subject = ?", [ADA]).fetchall() == [("LATER",)] * 2
    )


@pytest.mark.parametrize("by", ["subject", "condition"])
def test_an_event_that_an_append_accepts_is_kept(lake: Lake, by: str) -> None:
    """Sealing leaves out what it knows by its content: each entrance refuses just that."""
    later = {"type": "A", "subject": ADA, "time": "2999-01-01T00:00:00Z", "data": {"n": [1, 2.50]}}
    odd = {"event_type": "A", "item_id": ADA, "ts": "2999-01-01T00:00:00.5+02:00", "x": "\u2028"}
    for event in (later, odd):
        lake.append(event)
    lake.erase(**({"subject": ADA} if by == "subject" else {"where": "type = 'A'"}), why="asked")
    for event in (later, odd):
        with pytest.raises(InvalidEvent, match="the content of one that was erased"):
            lake.append([{"type": "B"}, event])
        with pytest.raises(InvalidEvent, match="the content of one that was erased"):
            lake.append(event, expect={ADA: 0})
    # As loggers and servers ask.
    batch = lake.without_erased(EncodedBatch.of([later, later | {"data": {"n": 2}}]))
    assert [b'"n":2' in line for line in batch.lines] == [True]
    accepted = [later | {"time": "2999-01-01T00:00:01Z"}, odd | {"x": "y"}, later | {"level": "a"}]
    lake.append(accepted)
    assert hers(lake) == 3
    lake.settle()
    assert hers(lake) == 3


def test_a_version_of_another_branch_is_another_event(lake: Lake) -> None:
    """That one of its stream and version was erased takes none that was acknowledged there."""
    with lake.branch("side") as side:
        event = {"type": "S", "subject": "s"}
        lake.append({**event, "data": {"c": "red"}}, expect={"s": 0})
        lake.erase(where="data->>'c' = 'red'", why="asked")
        side.append({**event, "data": {"c": "blue"}}, expect={"s": 0})
        side.settle()
        query = "SELECT data->>'c' FROM events WHERE subject = 's'"
        assert [branch.sql(query).fetchall() for branch in (lake, side)] == [[], [("blue",)]]


def test_a_frame_of_a_writer_that_looked_before(lake: Lake) -> None:
    """What reached a write-ahead log all the same is dropped when it is sealed."""
    encoded = EncodedBatch.of([{"type": "A", "subject": ADA, "time": OLD}])
    lake.erase(subject=ADA, why="asked")
    lake.writer().append(encoded)
    lake.settle()
    assert hers(lake) == 0


def test_a_logger_goes_on_without_what_was_erased(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It holds up neither what a dead process buffered, nor what comes after it; both are said."""
    old = [{"type": "A", "subject": name, "time": OLD} for name in (ADA, "cid")]
    buffer = DiskBuffer(lake.store.paths.buffers)
    buffer.add(EncodedBatch.of(old).text.splitlines())
    buffer.after_fork()
    lake.erase(subject=ADA, why="asked")
    queue = queue_of(lake)
    for name in (ADA, "dan"):  # made before it, stored after it
        queue.put(EncodedBatch.of([{"type": "B", "subject": name, "time": OLD}]).text)
    queue.close()
    stats = queue.stats()
    assert (stats.stored, stats.refused) == (1, 2)
    assert "events were left out, which were erased" in capsys.readouterr().err
    lake.settle()
    assert histories.places_with(tmp_path / "lake", [ADA]) == []
    subjects = lake.sql("SELECT subject FROM events ORDER BY 1").fetchall()
    assert subjects == [("bob",), ("cid",), ("dan",)]


def test_a_pull_of_erased_rows_is_refused(lake: Lake, tmp_path: Path) -> None:
    """A remote to which the erasure did not go yet brings nothing back."""
    url = str(tmp_path / "remote")
    remotes.add_tested(lake.store, "origin", url)
    remotes.push(lake, "origin", branches=["main"])
    remotes.clone(url, str(tmp_path / "clone"))
    status = lake.erase(subject=ADA, why="asked")
    assert [place["name"] for place in status.copies] == ["origin"]
    with lakelog.open(tmp_path / "clone", settings={"seal": "never"}) as clone:
        clone.append([{"type": "B", "subject": ADA, "time": OLD}, {"type": "B"}])
        clone.compact()
        remotes.push(clone, "origin", branches=["main"])
    with pytest.raises(TransferRefused, match="`lakelog push` erases them there"):
        remotes.pull(lake, "origin", force=True)
    assert hers(lake) == 0
    assert histories.places_with(tmp_path / "lake/segments", [ADA]) == []


def test_what_a_repair_brings_back_is_erased_again(lake: Lake, tmp_path: Path) -> None:
    """From a copy that is older than the erasure, where the newest moves and a segment are lost."""
    copy = tmp_path / "copy"
    lake.append([{"type": "C", "subject": f"u{n}"} for n in range(5)])
    lake.backup(copy)
    lake.close()
    with lakelog.open(tmp_path / "lake") as again:
        status = again.erase(subject=ADA, why="asked")
        assert status.erasure.events == 1
    moves = sorted((tmp_path / "lake/refs/heads/main").glob("0*.json"))
    moves[-1].unlink()
    moves[-2].unlink()
    for path in (tmp_path / "lake/segments").rglob("*.parquet"):
        path.unlink()
    with lakelog.open(tmp_path / "lake") as broken:
        broken.repair(str(copy))
    with lakelog.open(tmp_path / "lake") as repaired:
        assert hers(repaired) == 0
        assert repaired.erasures()[0].erasure.events == 1  # and not those that came back as well
        assert repaired.count() >= 1
        assert repaired.verify().intact
    assert histories.places_with(tmp_path / "lake", [ADA]) == []
