"""Two lakes that share a past and both got new events become one: `pull --merge`."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import document
from lakelog.audit.audit import audit
from lakelog.disk import disk
from lakelog.errors import Damaged, Diverged, TransferRefused
from lakelog.ingest import Quarantine
from lakelog.manifest import Manifests
from lakelog.remotes import known
from lakelog.remotes.carry import Merged
from lakelog.remotes.fetches import clone, fetch, pull
from lakelog.remotes.merge import Merge
from lakelog.remotes.pushes import push
from lakelog.remotes.site import Site
from lakelog.store import Store
from lakelog.sync.sync import sync
from lakelog.views import LakeViews
from tests.support import seam
from tests.support.cli import answer, flip, run
from tests.support.lakes import opened
from tests.support.own_views import BUSIEST

Lakes = tuple[lakelog.Lake, lakelog.Lake]


def sent(lake: lakelog.Lake) -> str:
    return push(lake, "origin", branches=["main"]).refs["main"]


def merged(lake: lakelog.Lake, **options: Any) -> Merged | None:
    return pull(lake, "origin", merge=True, **options).merged


def types(lake: lakelog.Lake) -> list[str]:
    return [name for (name,) in lake.sql("SELECT type FROM events ORDER BY seq").fetchall()]


def whole(*lakes: lakelog.Lake) -> None:
    for lake in lakes:
        assert lake.verify().problems == ()


@pytest.fixture
def lakes(home: Path) -> Lakes:
    """Two lakes and the directory that both push to; they share three events."""
    first = opened(str(home / "first"))
    first.append([{"type": "SHARED", "id": f"s{i}"} for i in range(3)])
    known.add(first.store, "origin", str(home / "hub"))
    sent(first)
    clone(str(home / "hub"), str(home / "second"))
    return first, opened(str(home / "second"))


def diverge(lakes: Lakes) -> None:
    """Append to both, publish one side, and push the other."""
    first, second = lakes
    first.append([{"type": "FIRST", "data": {"n": 1.50}}, {"type": "BOTH", "id": "b"}])
    sent(first)
    second.append([{"type": "SECOND"}, {"type": "BOTH", "id": "b"}])


def test_both_sides_have_all_events_and_a_push_goes_on(lakes: Lakes) -> None:
    first, second = lakes
    diverge(lakes)
    with pytest.raises(Diverged, match="pull --merge"):
        pull(second, "origin")
    assert merged(second) == Merged(1, 1)
    expected = ["SHARED"] * 3 + ["FIRST", "BOTH", "SECOND"]
    assert types(second) == expected
    assert merged(second) is None, "nothing is new there"
    assert pull(second, "origin").refs["main"] == "up to date"
    assert sent(second) == "updated"
    assert pull(first, "origin").refs["main"] == "updated"
    assert types(first) == expected
    payload = first.sql("SELECT data::VARCHAR FROM events WHERE type = 'FIRST'").fetchone()
    assert payload == ('{"n":1.5}',)
    whole(first, second)


def test_an_id_that_came_by_a_merge_is_known(lakes: Lakes) -> None:
    first, second = lakes
    first.append({"type": "FIRST", "id": "f"})
    sent(first)
    second.append({"type": "SECOND"})
    merged(second)
    second.append({"type": "FIRST", "id": "f"})
    assert types(second) == ["SHARED"] * 3 + ["FIRST", "SECOND"]


def test_merge_without_divergence_is_a_pull(lakes: Lakes) -> None:
    first, second = lakes
    first.append({"type": "FIRST"})
    sent(first)
    assert pull(second, "origin", merge=True).refs["main"] == "updated"
    assert second.store.refs.head("main").move.op == "pull"


def test_a_dry_run_counts_and_changes_no_branch(lakes: Lakes) -> None:
    diverge(lakes)
    second = lakes[1]
    head = second.settle()
    assert merged(second, dry_run=True) == Merged(1, 1)
    assert second.store.refs.head("main").move == head.move
    whole(second)
    assert merged(second) == Merged(1, 1)


def test_undo_takes_a_merge_back(lakes: Lakes) -> None:
    diverge(lakes)
    second = lakes[1]
    before = types(second)
    merged(second)
    second.undo()
    assert types(second) == before
    with pytest.raises(Diverged, match="rewound here"):
        merged(second)


def test_merges_alternate(lakes: Lakes) -> None:
    """Each side merges what the other pushed, again and again, also without a push between."""
    first, second = lakes
    for number in range(3):
        for lake in lakes:
            lake.append({"type": f"EVENT{number}", "id": f"{id(lake)}-{number}"})
        sent(first)
        assert merged(second) == Merged(1, 0)
        first.append({"type": "MORE"})
        sent(first)
        assert merged(second) == Merged(1, 0)
        assert sent(second) == "updated"
        assert pull(first, "origin").refs["main"] == "updated"
    assert (
        sorted(types(first))
        == ["EVENT0"] * 2 + ["EVENT1"] * 2 + ["EVENT2"] * 2 + ["MORE"] * 3 + ["SHARED"] * 3
    )
    whole(first, second)


@pytest.mark.parametrize("side", [0, 1])
def test_compaction_is_followed(lakes: Lakes, side: int) -> None:
    """Also a segment with rows of before and after the state that both had."""
    first, second = lakes
    for lake, name in ((first, "FIRST"), (second, "SECOND")):
        for number in range(12):
            lake.append({"type": name, "data": {"n": number, "text": "a b"}})
            lake.settle()
    lakes[side].compact()
    sent(first)
    assert merged(second) == Merged(12, 0)
    assert types(second) == ["SHARED"] * 3 + ["FIRST"] * 12 + ["SECOND"] * 12
    numbers = second.sql(
        "SELECT data->>'n' FROM events WHERE type = 'SECOND' ORDER BY seq"
    ).fetchall()
    assert [int(n) for (n,) in numbers] == list(range(12))
    second.compact()
    whole(second)


def _retention(lake: lakelog.Lake) -> None:
    lake.append({"type": "OLD", "time": "2001-01-01T00:00:00Z"})
    lake.settle()
    lake.retention("1000d", apply=True)


def _rollback(lake: lakelog.Lake) -> None:
    lake.rollback(lake.snapshot().id)
    lake.append({"type": "AFTER"})


@pytest.mark.parametrize(
    ("side", "change", "reason"),
    [
        (0, _retention, "a retention removed events there"),
        (1, _retention, "a retention removed events here"),
        (0, _rollback, "rewound there"),
        (1, _rollback, "rewound here"),
    ],
)
def test_what_was_removed_is_not_merged(
    lakes: Lakes, side: int, change: Callable[[lakelog.Lake], None], reason: str
) -> None:
    first, second = lakes
    diverge(lakes)
    change(lakes[side])
    push(first, "origin", branches=["main"], force=True)
    head = second.settle()
    with pytest.raises(Diverged, match=reason) as refused:
        merged(second)
    assert "lakelog branch NAME" in str(refused.value)
    assert second.store.refs.head("main").move == head.move


def test_a_view_that_both_defined_is_a_conflict(lakes: Lakes) -> None:
    first, second = lakes
    for text in (BUSIEST, BUSIEST.replace("busiest", "mine")):
        LakeViews(first).create(text.split()[2], text)
    sent(first)
    LakeViews(second).create("busiest", BUSIEST.replace("at_least int = 1", "at_least int = 2"))
    with pytest.raises(Diverged, match="the view 'busiest' was defined on both sides"):
        merged(second)
    LakeViews(second).drop("busiest")
    assert merged(second) == Merged(0, 0)
    assert second.view("mine").num_rows == 1


def write(path: Path, name: str, *lines: str) -> str:
    path.mkdir(exist_ok=True)
    with open(path / name, "a") as file:
        file.writelines(
            f"2026-01-0{1 + i % 9}T00:00:00Z INFO {line}\n" for i, line in enumerate(lines)
        )
    return str(path / name)


def test_files_of_one_side_travel_with_their_cursors(lakes: Lakes, home: Path) -> None:
    first, second = lakes
    path = write(home / "logs", "a.log", *(f"line {i} of a" for i in range(20)))
    first.ingest(path)
    sent(first)
    second.append({"type": "SECOND"})
    assert merged(second) == Merged(20, 0)
    second.ingest(path)
    assert len(types(second)) == 24, "the cursor came, so that nothing is ingested twice"
    write(home / "logs", "a.log", "one more line 1234")
    second.ingest(path)
    assert len(types(second)) == 25
    proof = audit(second.store, "main", second.engine, [path])
    assert not proof.wrong
    assert not proof.failed


def test_a_file_that_both_read_to_one_place_is_stored_once(lakes: Lakes, home: Path) -> None:
    first, second = lakes
    path = write(home / "logs", "a.log", *(f"line {i} of a" for i in range(20)), "{ no event")
    first.ingest(path)
    sent(first)
    shutil.copy(path, home / "copy.log")
    second.ingest(str(home / "copy.log"))
    counts = merged(second)
    assert counts is not None
    assert counts.events == 0
    assert len(types(second)) == 3 + counts.known >= 23
    whole(second)


def test_a_file_that_both_read_on_is_a_conflict(lakes: Lakes, home: Path) -> None:
    first, second = lakes
    path = write(home / "logs", "a.log", *(f"line {i} of a" for i in range(20)))
    copy = shutil.copy(path, home / "copy.log")
    first.ingest(path)
    write(home / "logs", "a.log", "another line 1 of a")
    first.ingest(path)
    sent(first)
    second.ingest(copy)
    with pytest.raises(Diverged, match=r"the file .* was read on on both sides"):
        merged(second)


def test_a_file_of_one_machine_that_both_began_is_a_conflict(lakes: Lakes, home: Path) -> None:
    """Also where it was so short for one of them that its cursor has another key."""
    first, second = lakes
    path = write(home / "logs", "a.log", "line 1 of a")
    second.ingest(path)
    write(home / "logs", "a.log", *(f"line {i} of a" for i in range(20)))
    first.ingest(path)
    sent(first)
    with pytest.raises(Diverged, match=r"the file .* was read on on both sides"):
        merged(second)


def test_a_push_of_another_lake_is_not_taken_for_what_was_merged(lakes: Lakes, home: Path) -> None:
    """After a merge the remote goes on: what came later there is never dropped."""
    first, second = lakes
    diverge(lakes)
    merged(second)
    first.append({"type": "LATER"})
    sent(first)
    with pytest.raises(Diverged):
        sent(second)
    assert merged(second) == Merged(1, 0)
    assert sent(second) == "updated"


def test_lakes_that_never_met_find_the_state_that_both_had(lakes: Lakes, home: Path) -> None:
    """Both cloned one remote; one of them then becomes a remote of the other."""
    second = lakes[1]
    clone(str(home / "hub"), str(home / "third"))
    with opened(str(home / "third")) as third:
        third.append({"type": "THIRD"})
        third.settle()
        second.append({"type": "SECOND"})
        known.add(second.store, "third", str(home / "third"))
        assert pull(second, "third", merge=True).merged == Merged(1, 0)
        whole(second)
    strange = opened(str(home / "strange"))
    strange.append({"type": "STRANGE"})
    strange.settle()
    known.add(second.store, "strange", str(home / "strange"))
    with pytest.raises(Diverged, match="no past in common"):
        pull(second, "strange", merge=True)


def test_what_a_restored_remote_lost_comes_back_by_a_merge(lakes: Lakes, home: Path) -> None:
    """Its backup is from before the last push, and others have pushed to it since."""
    first, second = lakes
    shutil.copytree(home / "hub", home / "backup")
    first.append({"type": "LOST"})
    sent(first)
    shutil.rmtree(home / "hub")
    shutil.move(home / "backup", home / "hub")
    second.append({"type": "SECOND"})
    sent(second)
    first.append({"type": "FIRST"})
    with pytest.raises(Diverged, match="lakelog pull --merge"):
        pull(first, "origin")
    assert merged(first) == Merged(1, 0)
    assert types(first) == ["SHARED"] * 3 + ["SECOND", "LOST", "FIRST"]
    assert sent(first) == "updated"
    pull(second, "origin")
    assert types(second) == types(first)
    whole(first, second)


def test_of_an_id_on_both_sides_the_published_event_stays(lakes: Lakes) -> None:
    """Also where ours is pending: other lakes have the other one, and an id is stored once."""
    first, second = lakes
    first.append([{"type": "X", "id": "x", "data": "there"}, {"type": "Y", "id": "y", "data": 1}])
    sent(first)
    second.append({"type": "X", "id": "x", "data": "here"})
    second.settle()
    assert merged(second) == Merged(1, 1)
    second.append({"type": "Y", "id": "y", "data": 2})
    payloads = second.sql("SELECT data::VARCHAR FROM events WHERE id IN ('x', 'y') ORDER BY seq")
    assert payloads.fetchall() == [('"there"',), ("1",)]
    whole(second)


@pytest.mark.parametrize("meanwhile", ["seal", "merge", "rollback", "gc"])
def test_what_comes_while_a_merge_is_written(
    lakes: Lakes, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """Events come before it; of two merges at once one does all; after a rewind it is refused; what
    a gc took is written again."""
    second = lakes[1]
    diverge(lakes)
    second.settle()
    real, calls = Merge._write, []

    def late(self: Merge, *arguments: Any) -> Any:
        written = real(self, *arguments)
        calls.append(meanwhile)
        if len(calls) == 1:
            with opened(second.store.paths.root) as other:
                if meanwhile == "seal":
                    other.append([{"type": "MEANWHILE"}, {"type": "FIRST", "id": "b2"}])
                    other.settle()
                elif meanwhile == "merge":
                    merged(other)
                elif meanwhile == "gc":
                    for entry in self._found.entries:
                        Path(other.store.paths.object("segments", entry.key)).unlink()
                else:
                    other.append({"type": "GONE"})
                    other.settle()
                    other.rollback("main~1")
        return written

    monkeypatch.setattr(Merge, "_write", late)
    if meanwhile == "rollback":
        with pytest.raises(Diverged, match="rewound here"):
            merged(second)
        return
    merged(second)
    assert meanwhile != "gc" or len(calls) == 2
    events = ["FIRST", "BOTH", "SECOND", "MEANWHILE", "FIRST"]
    assert types(second)[3:] == (events if meanwhile == "seal" else ["FIRST", "BOTH", "SECOND"])
    whole(second)


def test_a_kill_at_any_step_leaves_before_or_after(
    lakes: Lakes, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverge(lakes)
    second = lakes[1]
    second.settle()
    second.close()
    before, at, outcomes = 5, 0, set()
    while "ended" not in outcomes:
        at += 1
        path = str(home / f"copy{at}")
        shutil.copytree(home / "second", path)
        with monkeypatch.context() as patch, opened(path) as lake:
            seam.install(patch, fault := seam.Fault(at, seam.Killed()))
            try:
                merged(lake)
                outcomes.add("ended")
            except seam.Killed:
                assert fault.fired
        with opened(path) as lake:
            count = len(types(lake))
            assert count in (before, before + 1)
            outcomes.add(count)
            assert merged(lake) == (Merged(1, 1) if count == before else None)
            assert len(types(lake)) == before + 1
            if at % 8 == 0:
                whole(lake)
        shutil.rmtree(path)
    assert outcomes == {"ended", before, before + 1}
    assert at > 20


def test_views_and_followers_see_what_a_merge_brought(lakes: Lakes) -> None:
    second = lakes[1]
    diverge(lakes)
    LakeViews(second).create("busiest", BUSIEST)
    assert second.view("busiest").to_pylist() == [{"source": None, "events": 5}]
    fetch(second, "origin")
    assert second.sql('SELECT count(*) FROM "origin/main".events').fetchone() == (5,)
    followed = second.follow(pause=0.01, timeout=60)
    timer = threading.Timer(0.2, second.append, ({"type": "BEFORE"},))
    timer.start()
    assert next(followed)["type"] == "BEFORE"
    timer.join()
    merged(second)
    assert next(followed)["type"] == "FIRST"
    assert second.view("busiest").to_pylist() == [{"source": None, "events": 7}]


def test_rows_that_are_not_what_the_state_counts_are_refused(lakes: Lakes, home: Path) -> None:
    """A remote whose state names segments with other rows than it says; nothing changes here."""
    second = lakes[1]
    diverge(lakes)
    head = second.settle()
    hub = Store.load(str(home / "hub"))
    move = hub.refs.head("main").move
    number = move.carried.rindex(b'"next_seq":5')
    carried = move.carried[:number] + b'"next_seq":6' + move.carried[number + 12 :]
    lie(hub, move, carried)
    with pytest.raises((Diverged, TransferRefused), match=r"removed|counts"):
        merged(second)
    lie(hub, move, move.carried.replace(b'"seq":[3,4]', b'"seq":["3",4]'))
    with pytest.raises(TransferRefused, match="wrong seq"):
        merged(second)
    lie(hub, move, move.carried.replace(b'"seq":[3,4]', b'"seq":[4,5]'))
    with pytest.raises(TransferRefused, match="not those that its state counts"):
        merged(second)
    assert second.store.refs.head("main").move == head.move


def lie(hub: Store, move: Any, carried: bytes) -> None:
    """Replace the newest move of a remote by one that carries another manifest."""
    false = dataclasses.replace(move, snapshot=document.digest(carried), carried=carried)
    disk.replace_whole(hub.paths.move("main", move.number), false.encode())


def test_the_command_says_what_came(lakes: Lakes, home: Path) -> None:
    diverge(lakes)
    path = str(home / "second")
    lakes[1].close()
    shown = run(path, "pull", "--merge", "--dry-run")
    assert "main: would be merged" in shown.stderr
    assert "1 event would come; 1 of there were known" in shown.stderr
    body = answer(path, "pull", "--merge")
    assert (body["refs"]["main"], body["events"], body["known"]) == ("merged", 1, 1)
    assert "main: up to date" in run(path, "pull", "--merge").stderr
    run(path, "pull", "--merge", "--force", code=2)


def test_a_synced_table_has_what_was_merged(lakes: Lakes, home: Path) -> None:
    """Its rows get the numbers of the branch; what came is added, and nothing is there twice."""
    second, database = lakes[1], str(home / "events.db")
    diverge(lakes)
    sync(second, f"sqlite:{database}")
    merged(second)
    result = sync(second, f"sqlite:{database}")
    assert result.total == len(types(second)) == 6
    with contextlib.closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT seq, type FROM events ORDER BY seq").fetchall()
    assert rows == list(enumerate(types(second)))


def test_payloads_keep_their_text(lakes: Lakes, home: Path) -> None:
    """Those of typed segments, too: the lines of a long file, compacted on both sides."""
    texts = [f'{{"n": {i}.50, "name": "é {i % 7}", "list": [{i}, null]}}' for i in range(3_000)]
    for number, lake in enumerate(lakes):
        path = home / f"{number}.jsonl"
        events = (
            f'{{"time":"2026-01-01T00:00:00Z","type":"T{number}","data":{text}}}' for text in texts
        )
        path.write_text("\n".join(events) + "\n")
        lake.ingest(str(path))
        lake.append([{"type": f"T{number}", "data": {"k": i}} for i in range(50)])
        lake.compact()
    first, second = lakes
    sent(first)
    ask = "SELECT data::VARCHAR FROM events WHERE type = '{}' ORDER BY seq"
    expected = [lake.sql(ask.format(f"T{n}")).fetchall() for n, lake in enumerate(lakes)]
    assert merged(second) == Merged(3_050, 0)
    assert [second.sql(ask.format(f"T{n}")).fetchall() for n in range(2)] == expected
    whole(second)


def test_a_merge_goes_to_other_remotes_without_force(lakes: Lakes, home: Path) -> None:
    """Their rows get other numbers, which their generation tells; a remote that is merged with
    another one is not merged with this."""
    second = lakes[1]
    known.add(second.store, "backup", str(home / "backup"))
    second.append({"type": "OWN"})
    push(second, "backup", branches=["main"])
    diverge(lakes)
    merged(second)
    with opened(str(home / "backup")) as backup:
        backup.append({"type": "ELSEWHERE"})
        backup.settle()
        with pytest.raises(Diverged):
            push(second, "backup", branches=["main"])
        with pytest.raises(Diverged, match="merged with another remote"):
            pull(second, "backup", merge=True)
        push(second, "backup", branches=["main"], force=True)
        generation = backup.store.refs.head("main").move.generation
        lakes[0].append({"type": "AGAIN"})
        sent(lakes[0])
        second.append({"type": "MORE"})
        push(second, "backup", branches=["main"])
        assert backup.store.refs.head("main").move.generation == generation
        assert merged(second) == Merged(1, 0)
        assert push(second, "backup", branches=["main"]).refs["main"] == "updated"
        assert backup.store.refs.head("main").move.generation == generation + 1
        assert types(backup) == types(second)
        whole(backup)


def test_the_state_that_both_had_comes_from_the_remote_if_it_is_gone_here(
    lakes: Lakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = lakes[1]
    diverge(lakes)
    second.settle()
    monkeypatch.setattr(Manifests, "is_there", lambda *_: False)
    with monkeypatch.context() as patch:
        real = Site.move
        patch.setattr(Site, "move", lambda site, name, n: None if n == 1 else real(site, name, n))
        with pytest.raises(Diverged, match="kept neither here nor there"):
            merged(second)
    assert merged(second) == Merged(1, 1)


def test_refused_lines_that_each_took_in_its_format(lakes: Lakes, home: Path) -> None:
    lines = ['level=info msg="logged"', "<34>Oct 11 22:14:15 host app: sent", "no line", "again"]
    (home / "mixed.jsonl").write_text("\n".join(['{"type": "OK"}', *lines, ""]))
    first, second = lakes
    first.ingest(str(home / "mixed.jsonl"))
    sent(first)
    pull(second, "origin")
    for lake, form in ((first, "logfmt"), (second, "syslog")):
        result = Quarantine(lake.store, "main").replay(lake.engine, form=form)
        assert (result.stored, result.left) == (1, 3)
    sent(first)
    assert merged(second) == Merged(1, 0)
    refused = "SELECT line FROM quarantine ORDER BY position"
    assert second.sql(refused).fetchall() == [("no line",), ("again",)]
    assert types(second)[-2:] == ["log", "syslog"]
    sent(second)
    pull(first, "origin")
    # What one side dropped is gone, though the other wrote it again with other lines.
    Quarantine(first.store, "main").drop()
    sent(first)
    Quarantine(second.store, "main").replay(second.engine, form="plain")
    second.append({"type": "SECOND"})
    merged(second)
    assert second.sql(refused).fetchall() == []
    whole(first, second)


def test_refused_lines_that_each_read_from_stdin(lakes: Lakes) -> None:
    """A line is known by its place, which each input has for itself."""
    first, second = lakes
    for lake, line in zip(lakes, ("about ada", "about bob"), strict=True):
        run(Path(lake.path), "append", input=f"{line}\n", code=1)
        lake.append({"type": "MORE"})
    sent(first)
    assert merged(second) == Merged(1, 0)
    refused = "SELECT line, position FROM quarantine ORDER BY line"
    assert second.sql(refused).fetchall() == [("about ada", 0), ("about bob", 0)]
    assert answer(Path(second.path), "quarantine", "list")[0]["lines"] == 2
    second.erase(subject="ada", why="asked")
    assert second.sql(refused).fetchall() == [("about bob", 0)]


def test_refused_lines_of_a_segment_that_gc_removed(lakes: Lakes, home: Path) -> None:
    """Which of them either side took is not known then: they stay, each once."""
    lines = ['level=info msg="logged"', "<34>Oct 11 22:14:15 host app: sent", "no line"]
    (home / "mixed.jsonl").write_text("\n".join(['{"type": "OK"}', *lines, ""]))
    first, second = lakes
    first.ingest(str(home / "mixed.jsonl"))
    sent(first)
    pull(second, "origin")
    (entry,) = second.store.manifests.segments(second.store.state("main"), "quarantine")
    for lake, form in ((first, "logfmt"), (second, "syslog")):
        Quarantine(lake.store, "main").replay(lake.engine, form=form)
    sent(first)
    Path(second.store.paths.object("segments", entry.key)).unlink()
    assert merged(second) == Merged(1, 0)
    refused = second.sql("SELECT line FROM quarantine ORDER BY position").fetchall()
    assert refused == [(line,) for line in lines]


def test_refused_lines_that_are_damaged_here_are_not_merged(lakes: Lakes, home: Path) -> None:
    first, second = lakes
    first.append({"type": "FIRST"})
    sent(first)
    (home / "bad.jsonl").write_text("no line\n" * 20)
    second.ingest(str(home / "bad.jsonl"))
    (entry,) = second.store.manifests.segments(second.store.state("main"), "quarantine")
    second.close()
    flip(Path(second.store.paths.object("segments", entry.key)))
    with opened(str(home / "second")) as lake, pytest.raises(Damaged, match=entry.key[:12]):
        merged(lake)


def test_a_version_that_is_given_before_a_merge_is_written(
    lakes: Lakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the remote has it: the merge is refused, and does not take it from who was answered."""
    first, second = lakes
    first.append({"type": "THERE", "subject": "s"}, expect={"s": 0})
    diverge(lakes)
    real = Merge.publish

    def late(self: Merge, judged: Any) -> Any:
        if "HERE" not in types(second):
            second.append({"type": "HERE", "subject": "s"}, expect={"s": 0})
        return real(self, judged)

    monkeypatch.setattr(Merge, "publish", late)
    with pytest.raises(Diverged, match="version 1 here and another"):
        merged(second)
    second.settle()
    assert [event["type"] for event in second.stream("s")] == ["HERE"]
