"""Event streams: versions are given once, without gaps, whoever appends; they go with the state."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog.appends import stream_marks
from lakelog.disk import disk
from lakelog.errors import Damaged, InvalidEvent, LakelogError, WrongVersion
from lakelog.folds import Fold
from lakelog.remotes import known
from lakelog.remotes.fetches import clone, pull
from lakelog.remotes.pushes import push
from tests.conftest import MakeLake
from tests.support import lakes
from tests.support.cli import answer, run
from tests.support.lakes import opened
from tests.support.stream_fights import FIGHT, judge


def event(subject: str | None = "x", type: str = "A", **columns: Any) -> dict[str, Any]:
    return {"type": type, "subject": subject, **columns}


def types(lake: lakelog.Lake, subject: str = "x") -> list[str]:
    stream = lake.stream(subject)
    assert [e["version"] for e in stream] == list(range(1, stream.version + 1))
    return [e["type"] for e in stream]


@pytest.fixture
def lake(tmp_path: Path) -> Any:
    with opened(str(tmp_path / "lake")) as lake:
        yield lake


def test_events_get_the_next_versions(lake: lakelog.Lake) -> None:
    """Those of a subject in `expect`, in their order; others are stored with them."""
    batch = [event(type="A"), event("y"), event(type="B"), event(None)]
    receipt = lake.append(batch, expect={"x": 0})
    assert receipt.versions == {"x": 2}
    assert receipt.ids[0] == "stream:x:1"
    lake.append(event(type="PLAIN"))
    lake.append(event(type="C", id="c"), expect={"x": 2})
    for _ in range(2):
        assert types(lake) == ["A", "B", "C"]
        assert lake.count() == 6
        assert lake.stream("y").version == 0
        assert [e["type"] for e in lake.stream("x", after=1, limit=1)] == ["B"]
        assert (len(lake.stream("x", limit=0)), lake.stream("x", after=9).version) == (0, 3)
        lake.settle()
        lake.compact()


def test_the_loser_is_told_the_version(lake: lakelog.Lake) -> None:
    """Nothing of an append is stored where one version is not as expected."""
    lake.append([event("x"), event("x"), event("y")], expect={"x": 0, "y": 0})
    for expect in ({"x": 1, "y": 1}, {"y": 1, "x": 3}, {"y": 1, "x": 0}):
        with pytest.raises(WrongVersion, match="read it again") as caught:
            lake.append([event("x"), event("y"), event("z")], expect=expect)
        error = caught.value
        assert (error.subject, error.expected, error.actual) == ("x", expect["x"], 2)
        assert "\n" not in str(error)
    assert lake.count() == 3


def test_a_retry_by_id_gets_the_first_answer(lake: lakelog.Lake) -> None:
    """The same ids with the same versions are the same append, sealed or not; others are not."""
    batch = [event("x", id="1"), event("y", id="2"), event("x", id="3")]
    expect = {"x": 0, "y": 0}
    first = lake.append(batch, expect=expect)
    lake.append(event("x", type="B"), expect={"x": 2})
    for _ in range(2):
        again = lake.append(batch, expect=expect)
        assert (again.versions, again.ids, again.count) == (first.versions, first.ids, 3)
        lake.settle()
    for other in ([event("x", id="1"), event("y", id="9")], [event("x"), event("y", id="2")]):
        with pytest.raises(WrongVersion):
            lake.append(other, expect=expect)
    assert lake.count() == 4


def test_versions_go_with_the_state(lake: lakelog.Lake) -> None:
    """Rollback, undo, branch and tag take them along; each branch goes on by itself."""
    lake.append(event(type="A"), expect={"x": 0})
    lake.tag("one")
    lake.append(event(type="B"), expect={"x": 1})
    with lake.branch("other") as other:
        other.append(event(type="C"), expect={"x": 2})
        lake.append(event(type="D"), expect={"x": 2})
        assert (types(other), types(lake)) == (["A", "B", "C"], ["A", "B", "D"])
    lake.rollback("one")
    with pytest.raises(WrongVersion, match="at version 1, not 3"):
        lake.append(event(type="E"), expect={"x": 3})
    assert types(lake) == ["A"]
    lake.undo()
    lake.append(event(type="F"), expect={"x": 3})
    assert types(lake) == ["A", "B", "D", "F"]
    assert [e["type"] for e in lake.at("one").stream("x")] == ["A"]
    assert lake.at("one").stream("x").version == 1


@pytest.mark.parametrize(
    ("expect", "events", "words"),
    [
        ({"x": -1}, [event()], "0 or more, not -1"),
        ({"x": True}, [event()], "a number, not True"),
        ({"x": "1"}, [event()], "a number, not '1'"),
        ({"x": 1 << 64}, [event()], "0 or more"),
        ({}, [event()], "with a subject at least"),
        ([("x", 0)], [event()], "with a subject at least"),
        ({"": 0}, [event("")], "is a text, not ''"),
        ({7: 0}, [event()], "is a text, not 7"),
        ({"a\0b": 0}, [event("a\0b")], "NUL character"),
        ({"\ud800": 0}, [event("\ud800")], "not valid Unicode"),
        ({"x" * 1_000_000: 0}, [event("x" * 1_000_000)], "1,000,000 bytes: .* at most 1,024"),
        ({"line\nbreak": 0}, [event()], "no event has that subject"),
        ({"x": 0, "y": 0}, [event()], "'y', but no event has that subject"),
        ({"x": 0}, [], "no event has that subject"),
        ({"x": 0}, [event(), {"no": "type"}], "event 1: no type"),
    ],
    ids=[f"case{n}" for n in range(15)],
)
def test_bad_input_is_refused_in_one_line(
    lake: lakelog.Lake, expect: Any, events: list[Any], words: str
) -> None:
    """Nothing is stored, and the message says what is wrong."""
    with pytest.raises(InvalidEvent, match=words) as caught:
        lake.append(events, expect=expect)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    assert lake.count() == 0


def test_what_cannot_be_read_is_refused(lake: lakelog.Lake) -> None:
    """Subjects and bounds of reading are checked, and `dedupe` does not go with `expect`."""
    for options in ({"subject": ""}, {"subject": "x", "after": -1}, {"subject": "x", "limit": 1.5}):
        with pytest.raises(InvalidEvent):
            lake.stream(**options)  # type: ignore[arg-type]
    with pytest.raises(InvalidEvent, match="exclude each other"):
        lake.append(event(), dedupe="content", expect={"x": 0})


def test_odd_subjects(lake: lakelog.Lake) -> None:
    """Any text of 1,024 bytes is a subject, and no two are the same stream."""
    subjects = ["a'b\"c", "stream:x", "x:1", "ž" * 512, "line\nbreak", " ", "{", "%s", "🎙", "1"]
    for _ in range(2):
        for number, subject in enumerate(subjects):
            version = lake.stream(subject).version
            lake.append(event(subject, data=number), expect={subject: version})
        lake.settle()
    assert [lake.stream(s).version for s in subjects] == [2] * len(subjects)
    assert {e["data"] for e in lake.stream("x:1")} == {"2"}


def test_a_disk_that_fails(lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append fails with the error of the disk, and the next one finds the true version."""
    lake.append(event(), expect={"x": 0})
    for _ in range(2):
        version = lake.stream("x").version
        with lakes.failing("sync_file", 2), pytest.raises(OSError, match="no space"):
            lake.append(event(type="FAILED"), expect={"x": version})
        before = lake.stream("x").version
        lake.append(event(), expect={"x": before})
        assert lake.stream("x").version == before + 1
        types(lake)

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(disk, "map_shared", refuse)  # a cache that nobody can write to
    with opened(lake.path) as other:
        other.append(event(), expect={"x": before + 1})
    assert lake.stream("x").version == before + 2


def test_a_killed_append_is_made_durable_before_it_counts(
    lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds an append that was cut off syncs the frames that it relies on."""
    lake.append(event(), expect={"x": 0})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    real, synced = disk.sync_file, list[str]()
    monkeypatch.setattr(disk, "sync_file", killed)
    with pytest.raises(KeyboardInterrupt):
        lake.append(event(), expect={"x": 1})
    monkeypatch.setattr(
        disk, "sync_file", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd))
    )
    with opened(lake.path) as other:
        with pytest.raises(WrongVersion) as caught:
            other.append(event(), expect={"x": 7})
        assert caught.value.actual == lake.stream("x").version
        assert any(lake.writer().name in path for path in synced)


def test_more_streams_than_marks(lake: lakelog.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where marks give way to others, the tail and the keys of the state tell."""
    monkeypatch.setattr(stream_marks, "_SETS", 2)
    monkeypatch.setattr(stream_marks, "_set_at", lambda digest: 128 + 128 * (digest[16] % 2))
    versions = Counter[str]()
    for number in range(120):
        name = f"s{number * 7 % 30}"
        if number % 50 == 30:
            lake.settle()
        lake.append(event(name), expect={name: versions[name]})
        versions[name] += 1
    for name, version in versions.items():
        assert lake.stream(name).version == version


def test_the_subject_is_read_where_it_stands(lake: lakelog.Lake) -> None:
    """A text or a payload that looks like the member of a subject is none."""
    likeness = '{"subject":"x"}'
    for columns in ({"message": likeness}, {"data": {"subject": "x"}}, {"id": ',"subject":"x"'}):
        for name in ("y", None):
            with pytest.raises(InvalidEvent, match="no event has that subject"):
                lake.append(event(name, **columns), expect={"x": 0})
    for version, named in enumerate(
        ({"subject": "x"}, {"item_id": "x"}, {"subject": "x", "id": "i"})
    ):
        lake.append({"type": "A", "message": likeness, **named}, expect={"x": version})
    assert types(lake) == ["A"] * 3


@pytest.mark.parametrize("between", ["nothing", "seal", "cache", "rollback"])
def test_two_writers_take_turns(lake: lakelog.Lake, tmp_path: Path, between: str) -> None:
    """What one remembers of the marks and of the head is what the other left, or it looks again."""
    lake.tag("start")
    versions = Counter[str]()
    with opened(str(tmp_path / "lake")) as other:
        for turn in range(12):
            writer, reader = (lake, other) if turn % 2 else (other, lake)
            for name in ("x", f"s{turn % 3}"):
                with pytest.raises(WrongVersion) as caught:
                    writer.append(event(name), expect={name: versions[name] + 1})
                assert caught.value.actual == versions[name]
                writer.append(event(name), expect={name: versions[name]})
                versions[name] += 1
            if turn % 4 == 2 and between == "seal":
                reader.settle()
            elif turn % 4 == 2 and between == "cache":
                shutil.rmtree(tmp_path / "lake/cache/streams")
            elif turn % 4 == 2 and between == "rollback":
                reader.rollback("start")
                versions.clear()
        for name, version in versions.items():
            assert lake.stream(name).version == version


def test_threads_share_a_lake(lake: lakelog.Lake) -> None:
    """Each version goes to one thread, also where many are given in one group."""
    wins, losses = Counter[tuple[str, int]](), list[WrongVersion]()

    def fight(number: int) -> None:
        seen = {"a": 0, "b": 0}
        for turn in range(20):
            name = "ab"[(turn + number) % 2]
            try:
                lake.append(event(name), expect={name: seen[name]})
                seen[name] += 1
                wins[name, seen[name]] += 1
            except WrongVersion as error:
                losses.append(error)
                seen[name] = error.actual

    threads = [threading.Thread(target=fight, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(wins.values()) + len(losses) == 120
    assert all(error.actual > error.expected for error in losses)
    for name in "ab":
        version = lake.stream(name).version
        assert [wins[name, v] for v in range(1, version + 1)] == [1] * version
        types(lake, name)


@pytest.mark.parametrize("kills", [0, 3], ids=["all-live", "three-killed"])
def test_processes_fight_for_subjects(tmp_path: Path, kills: int) -> None:
    """No version is lost, doubled or left out, also where processes are killed at any moment."""
    path = str(tmp_path / "lake")
    lakelog.open(path, settings={"rotate_events": 40}).close()
    args = [sys.executable, "-c", FIGHT, path]
    crew = [
        subprocess.Popen([*args, str(n), "60", "3"], stdout=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    for process in crew[:kills]:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    outputs = [process.communicate(timeout=60)[0] for process in crew]
    assert [process.returncode for process in crew[kills:]] == [0] * (4 - kills)
    assert judge(path, outputs, 3) > 20


def test_live_readers_see_each_event_once(lake: lakelog.Lake, tmp_path: Path) -> None:
    """Following gives versions in their order and once, before and after they are sealed."""
    with opened(lake.path) as other:
        follower = lake.follow(timeout=0.1, pause=0.01)
        expected = list[str]()
        for turn in range(6):
            writer = (lake, other)[turn % 2]
            writer.append(event(type=f"V{turn}", id=f"i{turn % 3}"), expect={"x": turn})
            expected.append(f"V{turn}")
            if turn == 3:
                lake.settle()
        assert [e["type"] for e in follower] == expected
        handled = list[str]()
        with lake.subscribe("all") as subscription:
            subscription.run(lambda e: handled.append(e["type"]), once=True)
        assert handled == expected
        fold: Fold[list[str]] = Fold(
            "types", list, {f"V{n}": lambda state, e: [*state, e.type] for n in range(6)}
        )
        assert fold.of(lake, "x").state == expected


def test_two_machines_merge_what_does_not_collide(tmp_path: Path) -> None:
    """Streams that one side alone went on with keep their versions; see also F7.14."""
    hub = str(tmp_path / "hub")
    with opened(str(tmp_path / "here")) as here:
        here.append(event("x"), expect={"x": 0})
        known.add(here.store, "origin", hub)
        push(here, "origin", branches=["main"])
        clone(hub, str(tmp_path / "there"))
        with opened(str(tmp_path / "there")) as there:
            there.append(event("x", type="THERE"), expect={"x": 1})
            push(there, "origin", branches=["main"])
        here.append([event("y"), event("y")], expect={"y": 0})
        assert pull(here, "origin", merge=True).merged is not None
        assert types(here) == ["A", "THERE"]
        assert here.stream("y").version == 2
        here.append([event("x"), event("y")], expect={"x": 2, "y": 2})


def test_dedupe_leaves_streams_alone(lake: lakelog.Lake) -> None:
    """An event of a stream is nobody's duplicate; another one equal to it may go."""
    same = event(time=0, data={"a": 1})
    lake.append([same, same], expect={"x": 0})
    lake.append([same, same])
    lakelog.dedupe.apply(lake, lakelog.dedupe.plan(lake, "content"))
    assert types(lake) == ["A", "A"]
    assert lake.count() == 2


def test_repair_keeps_versions(lake: lakelog.Lake, tmp_path: Path) -> None:
    """An id run that is gone is made again from a copy, with the keys of versions."""
    lake.append([event(), event()], expect={"x": 0})
    lake.settle()
    lake.backup(tmp_path / "copy")
    [run_file] = (Path(lake.path) / "ids").rglob("*.ids")
    run_file.unlink()
    lake.close()
    with opened(lake.path) as damaged:
        with pytest.raises(LakelogError, match=r"\.ids"):
            damaged.append(event("new"), expect={"new": 0})
        damaged.repair(str(tmp_path / "copy"))
        damaged.append(event(), expect={"x": 2})
        assert types(damaged) == ["A", "A", "A"]


@pytest.mark.parametrize("damage", ["segments", "wal", "ids"])
def test_lost_versions_are_not_given_again(tmp_path: Path, damage: str) -> None:
    """F13.8, F14.5: where events of a stream are lost and later ones are left, it stays at the
    version of those, and what is appended is there."""
    path = tmp_path / "lake"
    with opened(str(path)) as lake:
        lake.append(event(time="2001-01-01"), expect={"x": 0})
        if damage != "wal":
            lake.settle()
    if damage != "wal":
        [sealed] = (path / "wal/main").iterdir()
        sealed.unlink()
    with opened(str(path)) as lake:
        lake.append(event(type="B"), expect={"x": 1})
        if damage == "ids":
            lake.retention("365d", apply=True)
    for file in filter(Path.is_file, (path / damage).rglob("*")):
        data = file.read_bytes()
        if damage != "wal":
            file.unlink()
        elif b"2001" in data:
            file.write_bytes(data.replace(b"2001", b"2002"))
    with opened(str(path)) as lake:
        lake.repair()
        with pytest.raises(WrongVersion):
            lake.append(event(type="C"), expect={"x": 0})
        lake.append(event(type="C"), expect={"x": 2})
        for _ in range(2):
            assert [(e["version"], e["type"]) for e in lake.stream("x")] == [(2, "B"), (3, "C")]
            lake.settle()
        assert lake.verify().problems == ()


@pytest.mark.damaged
def test_a_gap_is_an_error_until_what_follows_it_is_published(tmp_path: Path) -> None:
    """Where the WAL of one writer is gone, what another one wrote behind it is not read as whole.
    Once that is sealed, the gap is for good, and the stream is what is left."""
    with opened(str(tmp_path / "lake")) as lake:
        with lakelog.open(lake.path) as first_writer:
            first_writer.append(event(), expect={"x": 0})
            [wal] = (tmp_path / "lake/wal/main").iterdir()
            lake.append([event(type="B"), event(type="C")], expect={"x": 1})
        wal.unlink()
        with pytest.raises(Damaged, match="the stream 'x' are missing"):
            lake.stream("x")
        assert lake.stream("x", after=1).version == 3
        lake.settle()
        assert [(e["version"], e["type"]) for e in lake.stream("x")] == [(2, "B"), (3, "C")]


def test_streams_on_the_command_line(tmp_path: Path) -> None:
    """append --expect is all or nothing; stream shows the events; a wrong version is one line."""
    path = tmp_path / "lake"
    append = ("append", "type=A", "subject=a=b", "--expect")
    assert "a=b is at version 1" in run(path, *append, "a=b=0").stderr
    lines = '{"type":"B","subject":"a=b"}\n{"type":"C","subject":"z"}\n'
    two = ("append", "--expect", "a=b=1", "--expect", "z=0")
    assert "z is at version 1" in run(path, *two, input=lines).stderr
    output = run(path, *append, "a=b=1", code=1).stderr
    assert output == (
        "lakelog: error: the stream 'a=b' is at version 2, not 1: read it again, then append\n"
    )
    bad = run(path, "append", "--expect", "a=b=2", input=lines + "oops\n", code=2)
    assert "line 3: not JSON" in bad.stderr
    for argument in ("a", "a=", "=1", "a=-1", "a=x", "a=1.5"):
        assert (
            "is not SUBJECT=N" in run(path, "append", "type=A", "--expect", argument, code=2).stderr
        )
    assert [e["version"] for e in answer(path, "stream", "a=b", "--after", "1")] == [2]
    assert run(path, "stream", "none").stderr == "0 events; the stream is at version 0\n"


def test_a_stream_reads_the_same_wherever_it_lies(make_lake: MakeLake) -> None:
    """In the tail alone, partly published, published, compacted (where rows lie by type) or of a
    fixed state: one answer."""
    lake = make_lake()
    made = [
        {"type": "EDC"[n % 3], "subject": "a", "data": {"n": n}, "id": f"i{n}"} for n in range(5)
    ]
    lake.append([{"type": "E", "subject": "b"}, {"type": "E", "subject": "a"}])
    lake.settle()
    with make_lake() as other:
        answers = []
        for step in range(3):
            if step < 2:
                other.append({"type": "E", "subject": "a"})  # in its history, without a version
                lake.append(made[3 * step : 3 * step + 3], expect={"a": 3 * step})
            for reader in (lake, other, other.at("main")):
                whole, rest = reader.stream("a"), reader.stream("a", after=1, limit=2)
                assert list(whole)[1:3] == list(rest)
                assert rest.version == whole.version == len(whole)
                answers.append([dict(event) for event in whole])
            other.settle()
        other.compact()
        for reader in (lake, other, other.at("main")):
            answers.append([dict(event) for event in reader.stream("a")])
            assert list(reader.stream("a", after=2)) == list(reader.stream("a"))[2:]
        assert [e["type"] for e in answers[-1]] == [*"EDCED"]
        assert all(answers[n] == answers[3] for n in (4, 6, 7, 8, 9, 10, 11))
        assert len(lake.stream("never")) == len(lake.stream("a", limit=0)) == 0
