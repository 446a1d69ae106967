"""An erasure goes to remotes with the next push, comes to clones with a pull, and neither brings
anything back."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

import pytest

import lakelog
from lakelog import document, remotes
from lakelog.disk import disk
from lakelog.errors import DamagedManifest, Diverged, TransferRefused
from lakelog.lake import Lake
from lakelog.manifest import manifest
from lakelog.state.state import save_state
from lakelog.volume import DirectoryVolume, ErasedStates
from tests.support import seam
from tests.support.erased_lakes import ADA, SETTINGS, WORD, add, found
from tests.support.seam import Fault, Killed


@pytest.fixture(scope="module")
def pushed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake that was pushed several times, with a tag and a branch, to a directory beside it."""
    path = tmp_path_factory.mktemp("pushed")
    with lakelog.open(path / "lake", settings=SETTINGS) as lake:
        remotes.add_tested(lake.store, "home", str(path / "far"))
        for n in range(3):
            add(lake, 10 * n)
            remotes.push(lake, "home", branches=["main"])
        lake.tag("v1")
        lake.branch("side").close()
        remotes.push(lake, "home", branches=["main", "side"], tags=["v1"])
        lake.compact()
        remotes.push(lake, "home", branches=["main"])
    return path


@pytest.fixture
def pushed(pushed_once: Path, tmp_path: Path) -> Lake:
    """A copy of it, and of its remote."""
    shutil.copytree(pushed_once, tmp_path, dirs_exist_ok=True)
    known = tmp_path / "lake/remotes/home.json"
    body = document.decode(known.read_bytes())
    known.write_bytes(document.encode({**body, "url": str(tmp_path / "far")}))
    return lakelog.open(tmp_path / "lake", settings=SETTINGS)


def test_a_push_erases_there_too(pushed: Lake, tmp_path: Path) -> None:
    """Old moves, a tag, a branch that is not pushed: no byte stays, the others' events do, and only
    then the erasure is done."""
    far = tmp_path / "far"
    assert found(far)
    status = pushed.erase(subject=ADA, why="asked")
    assert [(c["name"], c["command"]) for c in status.copies] == [("home", "lakelog push home")]
    result = remotes.push(pushed, "home", branches=["main"])
    assert result.erased == [status.erasure.key]
    assert found(far) == found(tmp_path / "lake") == []
    assert pushed.erasures()[0].is_done
    assert remotes.check(pushed, "home", read_data=True).faults == []
    assert remotes.push(pushed, "home", branches=["main"], tags=["v1"]).erased == []
    remotes.clone(str(far), str(tmp_path / "clone"))
    with lakelog.open(tmp_path / "clone") as clone, lakelog.open(far) as there:
        for lake in (clone, there):
            assert lake.verify().intact
            assert lake.count() == lake.at("v1").count() == 6
            assert lake.erasures()[0].is_done
        with pytest.raises(lakelog.errors.InvalidEvent, match="erased"):
            clone.append({"type": "A", "subject": ADA, "time": "2020-01-01T00:00:00Z"})
    assert found(tmp_path / "clone") == []


def test_a_rollback_and_a_tag_of_an_erased_state_can_be_pushed(
    pushed: Lake, tmp_path: Path
) -> None:
    """The remote knows what to read for a state that it never had, and that had erased rows."""
    add(pushed, 30)
    pushed.tag("later")
    pushed.erase(subject=ADA, why="asked")
    remotes.push(pushed, "home", branches=["main"])
    pushed.rollback("later")
    remotes.push(pushed, "home", branches=["main"], tags=["later"], force=True)
    remotes.clone(str(tmp_path / "far"), str(tmp_path / "clone"))
    with lakelog.open(tmp_path / "clone") as clone:
        assert clone.at("later").count() == clone.count() == 8
        assert clone.verify().intact


def test_a_clone_gets_the_erasure_with_a_pull(pushed: Lake, tmp_path: Path) -> None:
    """Also one with events of its own: it may not push before, and then has no byte left."""
    remotes.clone(str(tmp_path / "far"), str(tmp_path / "clone"))
    with lakelog.open(tmp_path / "clone") as clone:
        add(clone, 40)
        clone.tag("mine")
        key = pushed.erase(subject=ADA, why="asked").erasure.key
        remotes.push(pushed, "home", branches=["main"])
        with pytest.raises(TransferRefused, match="is not known here"):
            remotes.push(clone, "origin", branches=["main"])
        assert found(tmp_path / "far") == []
        result = remotes.pull(clone, "origin", merge=True)
        assert result.erased == [key]
        (status,) = clone.erasures()
        assert status.is_done, status
        assert found(tmp_path / "clone") == []
        assert clone.count() == clone.at("mine").count() == 8
        assert clone.verify().intact
        remotes.push(clone, "origin", branches=["main"])
    remotes.pull(pushed, "home")
    assert pushed.count() == 8
    assert found(tmp_path / "far") == found(tmp_path / "lake") == []
    assert pushed.verify().intact


def test_an_erasure_that_found_nothing_hinders_no_clone(tmp_path: Path) -> None:
    """A directory that is a lake has no document of the rows of such an erasure."""
    with lakelog.open(tmp_path / "lake") as lake:
        add(lake, 4)
        key = lake.erase(where="subject = 'nobody'", why="asked").erasure.key
        remotes.clone(str(tmp_path / "lake"), str(tmp_path / "clone"))
        with lakelog.open(tmp_path / "clone") as clone:
            assert clone.count() == lake.count()
            assert [status.erasure.key for status in clone.erasures()] == [key]
            later = lake.erase(where="subject = 'no one'", why="asked").erasure.key
            assert remotes.pull(clone, "origin").erased == [later]


def test_a_remote_that_was_removed_is_named(pushed: Lake, tmp_path: Path) -> None:
    """By its address, until somebody says that it is clean; one that was added again as any."""
    far = str(tmp_path / "far")
    remotes.remove(pushed.store, "home")
    status = pushed.erase(subject=ADA, why="asked")
    assert [place["name"] for place in status.copies] == [far]
    lakelog.erasure.confirm(pushed.store, status.erasure.key, far)
    assert pushed.erasures()[0].is_done
    remotes.add_tested(pushed.store, "again", far)
    status = pushed.erase(subject="u1", why="asked")
    assert [place["name"] for place in status.copies] == ["again"]


def test_a_clone_counts_no_row_twice(pushed: Lake, tmp_path: Path) -> None:
    """It erases rows that the lake has counted: the number stays what was erased."""
    remotes.clone(str(tmp_path / "far"), str(tmp_path / "clone"))
    erasure = pushed.erase(subject=ADA, why="asked").erasure
    remotes.push(pushed, "home", branches=["main"])
    with lakelog.open(tmp_path / "clone") as clone:
        remotes.pull(clone, "origin")
        (status,) = clone.erasures()
    assert (status.erasure.events, status.erasure.lines) == (erasure.events, erasure.lines)
    assert erasure.events > 0


@pytest.mark.parametrize("by", ["here", "there"])
@pytest.mark.parametrize("subject", ["common", "only-here", "only-there", "everywhere"])
def test_a_merge_follows_an_erasure(tmp_path: Path, by: str, subject: str) -> None:
    """Whichever side erased, and whether both had the events, or one had, or nothing is left."""
    theirs, ours = ("common", "only-there", "kept"), ("kept", "only-here", "common")

    def store(lake: Lake, *subjects: str) -> None:
        lake.append([{"type": "A", "subject": name} for name in subjects])
        lake.settle()

    def is_left(name: str) -> bool:
        return subject not in (name, "everywhere")

    def subjects_of(*names: str) -> tuple[str, ...]:
        return ("everywhere",) * len(names) if subject == "everywhere" else names

    with (
        lakelog.open(tmp_path / "here", settings=SETTINGS) as here,
        lakelog.open(tmp_path / "there", settings=SETTINGS) as there,
    ):
        for lake in (here, there):
            remotes.add_tested(lake.store, "far", str(tmp_path / "far"))
        store(there, *subjects_of("kept", "common"))
        remotes.push(there, "far", branches=["main"])
        remotes.pull(here, "far")
        store(there, *subjects_of(*theirs))
        remotes.push(there, "far", branches=["main"])
        store(here, *subjects_of(*ours))
        if by == "here":
            here.erase(subject=subject, why="asked")
            with pytest.raises(Diverged):
                remotes.push(here, "far", branches=["main"])
        else:
            there.erase(subject=subject, why="asked")
            remotes.push(there, "far", branches=["main"])
        merged = remotes.pull(here, "far", merge=True).merged
        assert merged is not None
        assert (merged.events, merged.known) == (sum(map(is_left, theirs)), 0)
        left = [name for (name,) in here.sql("SELECT subject FROM events ORDER BY seq").fetchall()]
        assert left == list(filter(is_left, ("kept", "common", *theirs, *ours)))
        remotes.push(here, "far", branches=["main"])
        remotes.pull(there, "far")
        assert there.count() == here.count()
        assert here.verify().intact
        assert there.verify().intact


def lakes_apart(tmp_path: Path) -> tuple[Lake, Lake]:
    """Two lakes with a remote, of which the second has pushed events that the first, which has
    others since, has not pulled."""
    here = lakelog.open(tmp_path / "here", settings=SETTINGS | {"gc_grace_hours": 0})
    there = lakelog.open(tmp_path / "there", settings=SETTINGS)
    for lake in (there, here):
        remotes.add_tested(lake.store, "far", str(tmp_path / "far"))
    add(there, 0)
    remotes.push(there, "far", branches=["main"])
    remotes.pull(here, "far")
    for lake, first in ((there, 10), (here, 20)):
        add(lake, first)
    remotes.push(there, "far", branches=["main"])
    return here, there


def test_gc_between_an_erasure_and_a_merge_takes_nothing_that_is_needed(tmp_path: Path) -> None:
    """A push of an erasure brings the state there for a while; what was read in its place is gone
    again when it is merged."""
    here, there = lakes_apart(tmp_path)
    with here, there:
        here.erase(subject=ADA, why="asked")
        with pytest.raises(Diverged):
            remotes.push(here, "far", branches=["main"])
        assert here.gc().deleted
        merged = remotes.pull(here, "far", merge=True).merged
        assert merged is not None
        assert (merged.events, here.count()) == (2, 6)
        assert here.verify().intact


def test_a_merge_finds_the_state_that_both_had_where_it_was_erased_from(tmp_path: Path) -> None:
    """Only the remote has it, once no branch or tag here names it."""
    here, there = lakes_apart(tmp_path)
    with here, there:
        remotes.pull(here, "far", merge=True)
        there.erase(subject=ADA, why="asked")
        add(there, 31, 1)
        remotes.push(there, "far", branches=["main"])
        remotes.fetch(here, "far")
        here.gc()
        merged = remotes.pull(here, "far", merge=True).merged
        assert merged is not None
        assert (merged.events, here.count()) == (1, 7)
        assert here.verify().intact


def test_a_backup_gets_the_erasure_from_a_remote_that_it_did_not_know(tmp_path: Path) -> None:
    """Erasing here what was erased there is nothing that the remote lacks."""
    with lakelog.open(tmp_path / "lake", settings=SETTINGS) as lake:
        add(lake, 0)
        lake.backup(tmp_path / "backup")
        remotes.add_tested(lake.store, "home", str(tmp_path / "far"))
        remotes.push(lake, "home", branches=["main"])
        key = lake.erase(subject=ADA, why="asked").erasure.key
        add(lake, 10, 1)
        remotes.push(lake, "home", branches=["main"])
    with lakelog.open(tmp_path / "backup", create=False) as backup:
        remotes.add_tested(backup.store, "home", str(tmp_path / "far"))
        result = remotes.pull(backup, "home")
        assert (result.refs["main"], result.erased) == ("updated", [key])
        assert backup.count() == 3
        assert backup.verify().intact


@pytest.mark.parametrize("member", ["subject", "subjects"])
def test_a_record_there_that_has_no_digests_is_refused(
    pushed: Lake, tmp_path: Path, member: str
) -> None:
    """A lake knows by digests alone who was erased: nothing else is taken over."""
    remotes.clone(str(tmp_path / "far"), str(tmp_path / "clone"))
    key = pushed.erase(subject=ADA, why="asked").erasure.key
    remotes.push(pushed, "home", branches=["main"])
    record = tmp_path / "far" / "erasures" / f"{key}.json"
    value = ADA if member == "subject" else [ADA]
    record.write_bytes(document.encode({**document.decode(record.read_bytes()), member: value}))
    with lakelog.open(tmp_path / "clone") as clone:
        with pytest.raises(TransferRefused, match=f"{key}.json is malformed"):
            remotes.pull(clone, "origin")
        assert clone.erasures() == []


def test_what_only_the_remote_has_is_erased(
    pushed: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States of another clone that this lake never had are brought, erased from and replaced."""
    monkeypatch.setattr(manifest, "FAN", 4)
    remotes.clone(str(tmp_path / "far"), str(tmp_path / "clone"))
    with lakelog.open(tmp_path / "clone") as clone:
        for n in range(6):
            add(clone, 40 + 2 * n, 2)
        clone.branch("theirs").close()
        remotes.push(clone, "origin", branches=["main", "theirs"])
    pushed.erase(subject=ADA, why="asked")
    with pytest.raises(lakelog.errors.Diverged):
        remotes.push(pushed, "home", branches=["main"])
    assert found(tmp_path / "far") == found(tmp_path / "lake") == []
    remotes.pull(pushed, "home")
    assert pushed.count() == 6 + 6
    assert pushed.verify().intact
    assert remotes.check(pushed, "home", read_data=True).faults == []
    remotes.clone(str(tmp_path / "far"), str(tmp_path / "again"))
    with lakelog.open(tmp_path / "again", branch="theirs") as again:
        assert again.count() == 12


def test_what_a_lake_that_was_put_back_brings_is_no_loss(pushed: Lake, tmp_path: Path) -> None:
    """What it had pushed since is here until gc, in segments with its own frames."""
    pushed.close()
    shutil.copytree(tmp_path / "lake", tmp_path / "older")
    with lakelog.open(tmp_path / "lake") as lake:
        add(lake, 40)
        add(lake, 51, count=1)  # not hers: the erasure leaves its segment as it is
        remotes.push(lake, "home", branches=["main"])
    shutil.rmtree(tmp_path / "lake")
    (tmp_path / "older").rename(tmp_path / "lake")
    with lakelog.open(tmp_path / "lake", settings=SETTINGS) as lake:
        before = lake.count()
        lake.erase(subject=ADA, why="asked")
        remotes.push(lake, "home", branches=["side"])
        for _ in range(2):
            assert lake.verify().problems == ()
            lake.gc()
        assert lake.count() < before
        remotes.pull(lake, "home")
        assert lake.count() == 9
        assert lake.verify().intact


def test_a_segment_of_no_state_at_the_remote(pushed: Lake, tmp_path: Path) -> None:
    """As a push that was killed leaves one there, of rows that this lake never had."""
    remotes.clone(str(tmp_path / "far"), str(tmp_path / "clone"))
    with lakelog.open(tmp_path / "clone", settings=SETTINGS) as clone:
        add(clone, 60)
        entry = clone.store.manifests.segments(clone.store.state("main"), "events")[-1]
        name = f"segments/{entry.key[:2]}/{entry.key}.parquet"
    (tmp_path / "far" / name).parent.mkdir(exist_ok=True)
    shutil.copy(tmp_path / "clone" / name, tmp_path / "far" / name)
    pushed.erase(subject=ADA, why="asked")
    remotes.push(pushed, "home", branches=["main"])
    assert found(tmp_path / "far") == found(tmp_path / "lake") == []
    assert pushed.erasures()[0].is_done


def test_what_is_gone_here_is_erased_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state there whose page is gone here names segments, long compacted, that a tag keeps."""
    monkeypatch.setattr(manifest, "FAN", 4)
    far = tmp_path / "far"
    lake = lakelog.open(tmp_path / "lake", settings=SETTINGS)
    remotes.add_tested(lake.store, "home", str(far))
    for n in range(5):
        add(lake, 10 * n)
    lake.tag("v1")
    lake.compact()
    add(lake, 60)
    remotes.push(lake, "home", branches=["main"])
    state = lake.store.refs.head("main").move.snapshot
    for n in range(16):
        add(lake, 70 + 10 * n)
    remotes.push(lake, "home", branches=["main"])
    lake.expire()
    with pytest.raises(DamagedManifest):
        lake.store.manifests.segments(lake.store.manifests.load(state))
    status = lake.erase(subject=ADA, why="asked")
    assert remotes.push(lake, "home", branches=["main"]).erased == [status.erasure.key]
    assert found(far) == found(tmp_path / "lake") == []
    assert remotes.check(lake, "home", read_data=True).faults == []
    assert [tag.name for tag in lake.tags()] == ["home/main", "v1"]
    with lakelog.open(far) as there:
        assert there.verify().intact
        assert (there.at(state).count(), there.count()) == (12, 44)


@pytest.mark.parametrize("has_rows", [True, False])
def test_words_of_segments_that_a_clone_never_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_rows: bool
) -> None:
    """A page counts the rows by source of a segment that retention took out of the branch: the tag
    that has it stays where it was made. The clone has other rows of ADA's, or none."""
    monkeypatch.setattr(manifest, "FAN", 4)
    far = tmp_path / "far"
    with lakelog.open(tmp_path / "lake", settings=SETTINGS) as lake:
        remotes.add_tested(lake.store, "home", str(far))
        with monkeypatch.context() as patch:
            patch.setattr(disk, "now_us", lambda: time.time_ns() // 1_000 + 3_600_000_000)
            for subject, source in (("a", "s"), (ADA, WORD), ("zoe", "s")):
                event = {"type": "A", "subject": subject, "source": source}
                lake.append({**event, "time": "2020-01-01T00:00:00Z"})
            lake.settle()
        lake.tag("v1")
        lake.append([{"type": "A", "subject": ADA if has_rows else "bob"}, {"type": "B"}])
        lake.settle()
        for n in range(4):
            lake.append({"type": "A", "subject": f"u{n}"})
            lake.settle()
        lake.retention("30d", apply=True)
        remotes.push(lake, "home", branches=["main"])
        remotes.clone(str(far), str(tmp_path / "clone"))
        assert found(tmp_path / "clone")
        lake.erase(subject=ADA, why="asked")
        remotes.push(lake, "home", branches=["main"])
        assert lake.at("v1").count() == 2
        replaced = lake.store.erased.segments()
        arrived = lake.erasures()[0].erasure.arrived
    with lakelog.open(tmp_path / "clone") as clone:
        remotes.pull(clone, "origin", force=True)
        assert found(tmp_path / "clone") == found(far) == []
        assert clone.verify().intact
        (status,) = clone.erasures()
        assert status.erasure.arrived == arrived
        # It knows no more of the segment than that it is gone, and tells nobody else so.
        clone.append({"type": "C"})
        clone.settle()
        remotes.push(clone, "origin", branches=["main"])
    there = ErasedStates(DirectoryVolume(str(far)))
    there.refresh()
    assert replaced.items() <= there.segments().items()


def test_a_saved_directory_at_the_remote_is_named(pushed: Lake, tmp_path: Path) -> None:
    """Its chunks are there, too, and no push deletes them."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app/notes").write_text(f"call {ADA}")
    save_state(pushed, {"app": str(tmp_path / "app")}, name="saved")
    remotes.push(pushed, "home", branches=["main"], tags=["saved"])
    (left,) = pushed.erase(subject=ADA, why="asked").leftovers
    assert (tmp_path / "far" / left.place).exists()
    remotes.push(pushed, "home", branches=["main"])
    (copy,) = pushed.erasures()[0].copies
    assert copy["name"] == "home"
    assert f"delete {left.place} there" in copy["command"]
    assert found(tmp_path / "far") == [left.place]


def test_what_was_erased_here_comes_back_for_a_while(tmp_path: Path) -> None:
    """A state that is gone here since has rows of two erasures there, in segments of their own."""
    far = tmp_path / "far"
    lake = lakelog.open(tmp_path / "lake", settings=SETTINGS)
    remotes.add_tested(lake.store, "home", str(far))
    for names in ((ADA, "bob"), ("cem", "dan"), ("eve",)):
        lake.append([{"type": "A", "subject": name} for name in (names[0], "zoe")])
        lake.settle()
        lake.append([{"type": "A", "subject": name} for name in (names[-1], "zoe")])
        lake.settle()
        remotes.push(lake, "home", branches=["main"])
        if names[0] == ADA:
            state = lake.store.refs.head("main").move.snapshot
    erased = [lake.erase(subject=name, why="asked").erasure.key for name in (ADA, "bob", "cem")]
    lake.compact()
    lake.expire()
    with pytest.raises(DamagedManifest):
        lake.store.manifests.load(state)
    assert sorted(remotes.push(lake, "home", branches=["main"]).erased) == sorted(erased)
    assert found(far) == found(tmp_path / "lake") == []
    assert remotes.check(lake, "home", read_data=True).faults == []
    with lakelog.open(far) as there:
        assert there.verify().intact
        assert (there.at(state).count(), there.count()) == (2, 9)


def test_a_clone_counts_for_the_erasure_that_came_first(pushed: Lake, tmp_path: Path) -> None:
    """Of several of one subject: its training sets are rebuilt without the rows of that one."""
    remotes.clone(str(tmp_path / "far"), str(tmp_path / "clone"))
    for _ in range(6):
        pushed.erase(subject=ADA, why="asked")
    remotes.push(pushed, "home", branches=["main"])
    with lakelog.open(tmp_path / "clone") as clone:
        remotes.pull(clone, "origin")
        counts = [bool(status.erasure.segments) for status in clone.erasures()]
        assert counts == [True] + 5 * [False]


@pytest.mark.parametrize("kind", ["line", "time to come"])
def test_a_pull_brings_back_nothing_that_was_stored_before(tmp_path: Path, kind: str) -> None:
    """A quarantined line that names the subject, and an event with a later time."""
    far, url = tmp_path / "far", str(tmp_path / "far")
    lake = lakelog.open(tmp_path / "lake", settings=SETTINGS)
    remotes.add_tested(lake.store, "home", url)
    lake.append({"type": "A", "subject": "bob"})
    remotes.push(lake, "home", branches=["main"])
    remotes.clone(url, str(tmp_path / "clone"))
    with lakelog.open(tmp_path / "clone", settings=SETTINGS) as clone:
        if kind == "line":
            clone.quarantine([("f", 0, "no event", f"{ADA}, broken")])
        else:
            clone.append({"type": "A", "subject": ADA, "time": "2999-01-01T00:00:00Z"})
        remotes.push(clone, "origin", branches=["main"])
    lake.erase(subject=ADA, why="asked")
    with pytest.raises(TransferRefused, match="rows that were erased here"):
        remotes.pull(lake, "home")
    with pytest.raises(Diverged):
        remotes.push(lake, "home", branches=["main"])
    remotes.pull(lake, "home")
    assert found(far) == found(tmp_path / "lake") == []


@pytest.mark.parametrize("is_protected", [False, True])
def test_a_clone_finds_lines_that_alone_name_the_subject(
    tmp_path: Path, is_protected: bool
) -> None:
    """One in its text, one by the key of its message."""
    url = str(tmp_path / "far")
    lake = lakelog.open(tmp_path / "lake", settings=SETTINGS)
    if is_protected:
        lake.protect(["email"])
    lake.append({"type": "A", "subject": "bob"})
    remotes.add_tested(lake.store, "home", url)
    remotes.push(lake, "home", branches=["main"])
    for number, line in enumerate((f"{ADA}, broken", "{broken")):
        path = str(tmp_path / f"clone{number}")
        remotes.clone(url, path)
        with lakelog.open(path, settings=SETTINGS) as clone:
            details = f'{{"topic":"t","partition":0,"offset":0,"key":"{ADA}"}}'
            clone.quarantine([("f", 0, f'no event; {{"kafka":{details}}}' * number, line)])
    lake.erase(subject=ADA, why="asked", **({"rows": True} if is_protected else {}))
    remotes.push(lake, "home", branches=["main"])
    for number in range(2):
        with lakelog.open(tmp_path / f"clone{number}", settings=SETTINGS) as clone:
            remotes.pull(clone, "origin", merge=True)
            assert clone.sql("FROM quarantine").fetchall() == []


def test_a_pull_that_was_refused_is_refused_again(tmp_path: Path) -> None:
    """What it received of a state that had another subject's rows is not believed then."""
    url = str(tmp_path / "far")
    with lakelog.open(tmp_path / "lake", settings=SETTINGS) as lake:
        remotes.add_tested(lake.store, "home", url)
        lake.append({"type": "A", "subject": "bob"})
        remotes.push(lake, "home", branches=["main"])
        remotes.clone(url, str(tmp_path / "clone"))
        lake.append({"type": "A", "subject": ADA})
        remotes.push(lake, "home", branches=["main"])
        lake.tag("v1")
        lake.erase(subject="bob", why="asked")
        remotes.push(lake, "home", tags=["v1"])
    with lakelog.open(tmp_path / "clone", settings=SETTINGS) as clone:
        clone.erase(subject=ADA, why="asked")
        for _ in range(2):
            with pytest.raises(TransferRefused, match="rows that were erased here"):
                remotes.pull(clone, "origin")
        assert clone.count() == 0


@pytest.mark.usefixtures("long_manifests")
def test_a_pull_that_was_refused_leaves_no_subject(pushed: Lake, tmp_path: Path) -> None:
    """Manifests that came name what was erased; nothing is left to erase again."""
    remotes.clone(str(tmp_path / "far"), str(tmp_path / "clone"))
    with lakelog.open(tmp_path / "clone", settings=SETTINGS) as clone:
        clone.append({"type": "A", "subject": ADA})
        remotes.push(clone, "origin", branches=["main"])
    assert pushed.erase(subject=ADA, why="asked").leftovers == ()
    with pytest.raises(TransferRefused, match="rows that were erased here"):
        remotes.pull(pushed, "home")
    assert pushed.erasures()[0].leftovers == ()
    remotes.push(pushed, "home", branches=["main"], force=True)
    assert found(tmp_path / "far") == found(tmp_path / "lake") == []


@pytest.mark.usefixtures("long_manifests")
def test_what_stood_in_for_a_state_there_is_gone_here(tmp_path: Path) -> None:
    """Two erasures put something in the place of a state that no ref here names, and gc took it."""
    here, there = lakes_apart(tmp_path)
    with here, there:
        there.append([{"type": "A", "subject": name} for name in ("eve", "zoe", "bob")])
        there.tag("v9")
        remotes.push(there, "far", branches=["main"], tags=["v9"])
        for subject in (ADA, "eve", "zoe"):
            here.erase(subject=subject, why="asked")
            if subject == "eve":
                assert here.gc().deleted
            else:
                remotes.push(here, "far", branches=["main"], force=True)
    remotes.clone(str(tmp_path / "far"), str(tmp_path / "again"))
    with lakelog.open(tmp_path / "again") as again:
        assert again.verify().intact
        rows = again.at("v9").sql("SELECT subject FROM events").fetchall()
        assert ("bob",) in rows
        assert not {(ADA,), ("eve",), ("zoe",)}.intersection(rows)
    assert found(tmp_path / "far") == []


@pytest.mark.parametrize("at", [20, 60, 100, 140])
def test_a_killed_pull_of_many_erasures_is_ended_by_the_next(
    pushed: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Each is told of with what it took; of two of one subject the first took all."""
    remotes.clone(str(tmp_path / "far"), str(tmp_path / "clone"))
    erased = [pushed.erase(subject=[ADA, "u0", "u1"], why="asked")]
    erased.append(pushed.erase(subject=[ADA, "u2"], why="asked again"))
    keys = [s.erasure.key for last in erased for s in (*last.earlier, last)]
    remotes.push(pushed, "home", branches=["main"])
    killed = lakelog.open(tmp_path / "clone", create=False)
    planted = Fault(at, Killed())
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        seam.install(patch, planted)
        remotes.pull(killed, "origin")
    assert planted.fired
    planted.release()
    with lakelog.open(tmp_path / "clone", create=False) as clone:
        remotes.pull(clone, "origin")
        for temporary in Path(clone.path).rglob(".tmp-*"):
            temporary.unlink()  # which gc does
        statuses = {status.erasure.key: status for status in clone.erasures()}
        assert statuses.keys() == set(keys)
        assert not [s for s in statuses.values() if not s.is_done]
        assert found(tmp_path / "clone") == []
        assert statuses[keys[0]].erasure.events > 0
        assert statuses[keys[3]].erasure.events == 0
        assert clone.count() == pushed.count()
        assert clone.verify().intact


@pytest.mark.parametrize("at", [-1, -2, -8, -30, -60])
def test_a_killed_push_is_ended_by_the_next(
    pushed: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Also where it was killed once all had gone there, before that was noted here."""
    pushed.erase(subject=ADA, why="asked")
    pushed.close()
    shutil.copytree(tmp_path / "far", tmp_path / "far-before")
    shutil.copytree(tmp_path / "lake", tmp_path / "lake-before")
    counted = Fault(10**9, None)
    faults = [counted]
    # Two random names may share a folder, which is then made once.
    faults += [Fault(0, Killed()) for _ in range(6)]
    for fewer, planted in enumerate(faults, start=-1):
        if planted is not counted:
            planted.at = counted.changes + 1 + at - fewer
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            seam.install(patch, planted)
            lake = lakelog.open(tmp_path / "lake", create=False)
            remotes.push(lake, "home", branches=["main"])
        if planted.fired:
            break
        assert lake.erasures()[0].is_done
        lake.close()
        for name in ("far", "lake"):
            shutil.rmtree(tmp_path / name)
            shutil.copytree(tmp_path / f"{name}-before", tmp_path / name)
    assert planted.fired
    planted.release()
    with lakelog.open(tmp_path / "lake", create=False) as lake:
        remotes.push(lake, "home", branches=["main"])
        for temporary in Path(lake.path).rglob(".tmp-*"):
            temporary.unlink()  # which gc does
        assert lake.erasures()[0].is_done, lake.erasures()
        assert found(tmp_path / "far") == []


@pytest.mark.parametrize("then", ["pull", "fetch", "push"])
@pytest.mark.parametrize("at", [25, 43, 70, 100])
def test_a_killed_push_leaves_no_row_of_the_remote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, then: str
) -> None:
    """What it brought here to erase from it is in no state after the next pull, fetch or push, and
    the erasure is ended by that."""
    remote, path = str(tmp_path / "far"), tmp_path / "lake"
    with lakelog.open(path, settings=SETTINGS) as lake:
        lake.append({"type": "A", "subject": "zoe"})
        remotes.add_tested(lake.store, "home", remote)
        remotes.push(lake, "home", branches=["main"])
    remotes.clone(remote, str(tmp_path / "clone"))
    with lakelog.open(tmp_path / "clone") as clone:
        clone.append({"type": "A", "subject": ADA})
        remotes.push(clone, "origin", branches=["main"])
    with lakelog.open(path) as lake:
        lake.erase(subject=ADA, why="asked")
    planted = Fault(at, Killed())
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        seam.install(patch, planted)
        remotes.push(lakelog.open(path, create=False), "home", branches=["main"])
    assert planted.fired
    planted.release()
    with lakelog.open(path, create=False) as lake:
        if then != "push":
            with contextlib.suppress(TransferRefused):  # that the push erases there, too
                {"pull": remotes.pull, "fetch": remotes.fetch}[then](lake, "home")
            for name in ("main", *(tag.name for tag in lake.tags())):
                assert lake.at(name).sql("SELECT subject FROM events").fetchall() == [("zoe",)]
        with contextlib.suppress(Diverged):
            remotes.push(lake, "home", branches=["main"])
        for temporary in path.rglob(".tmp-*"):
            temporary.unlink()  # which gc does
        assert lake.erasures()[0].is_done, lake.erasures()
        assert lake.verify().intact
    assert found(tmp_path / "far") == found(path) == []
