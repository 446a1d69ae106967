"""What of an erased subject is in the lake beside the rows of its states."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import subscriptions
from lakelog.chunks import ChunkWriter, StateEntry, StateIndex
from lakelog.entries.entry import Removal
from lakelog.history import delete_branch
from lakelog.lake import Lake
from lakelog.maintain import indexing
from lakelog.manifest import manifest
from lakelog.moves import publication as publish
from lakelog.remotes import known
from lakelog.segments import segment
from lakelog.state.state import save_state
from lakelog.subscriptions import registry
from lakelog.subscriptions.commit import CommitRequest, commit
from lakelog.subscriptions.delivery import Handled
from lakelog.views import LakeViews, builds, catalog, params
from tests.support import encrypted, protected, seam
from tests.support import erasure_histories as histories
from tests.support.cli import run
from tests.support.requirements import need_module

ADA, WORD = "ada-3f9k2m", "secret-8x4q7t"


def found(path: Path) -> list[str]:
    """The files of the lake that have a word of ADA's."""
    return histories.places_with(path / "lake", [ADA, WORD])


def opened(path: Path) -> Lake:
    """A lake that seals when it is told to."""
    return lakelog.open(path / "lake", settings={"seal": "never"})


def commit_outputs(lake: Lake, name: str, outputs: list[Any]) -> None:
    """Append what a subscription has to say."""
    access = lake.subscriptions()
    head = access.head()
    record = registry.require(access, access.state(head), name)
    handled = Handled(0, 0, outputs)
    commit(access, CommitRequest(record, head, {}, {}, handled))


def test_the_log_of_a_deleted_branch(tmp_path: Path) -> None:
    """What a branch had sealed before it was deleted leaves its write-ahead log, too."""
    with opened(tmp_path) as lake:
        with lake.branch("tried") as branch:
            branch.append({"type": "A", "subject": ADA})
            branch.settle()
        delete_branch(lake.store, "tried", lake.settle)
        assert lake.erase(subject=ADA, why="asked").is_done
        assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("batches", "left"),
    [
        # The lowest and the highest subject of an entry, here ADA both.
        ([[(ADA, None)] * 4, [("zoe", None)] * 4], 4),
        # ADA is neither, but it counts the rows of each source.
        ([[("a", "s"), (ADA, WORD), ("zoe", "s")]], 2),
    ],
)
def test_states_whose_segments_are_gone(
    tmp_path: Path, batches: list[list[tuple[str, str | None]]], left: int
) -> None:
    """Their entries lose the words of erased rows."""
    with opened(tmp_path) as lake:
        for batch in batches:
            lake.append([{"type": "A", "subject": name, "source": place} for name, place in batch])
            lake.settle()
        lake.compact()
        lake.tag("v1")
        lake.expire()
        assert found(tmp_path)
        assert lake.erase(subject=ADA, why="asked").is_done
        assert found(tmp_path) == []
        assert lake.verify().intact
        assert lake.at("v1").count() == lake.count() == left


def test_a_segment_of_no_state(tmp_path: Path) -> None:
    """As a publish leaves one that lost its race, or was killed."""
    with opened(tmp_path) as lake:
        lake.append([{"type": "A", "subject": "bob"}, {"type": "A", "subject": ADA}])
        lake.settle()
        (entry,) = lake.store.manifests.segments(lake.store.state("main"), "events")
        rows = segment.Segment(lake.store.paths, entry.key).read()
        stray = segment.write_segment(
            lake.store.paths, rows, kind="events", layout="arrival", commit="7" * 32
        )
        lake.erase(where="subject = 'bob'", why="by mistake")
        lake.erase(subject=ADA, why="asked")
        assert not Path(lake.store.paths.object("segments", stray.key)).exists()
        assert found(tmp_path) == []
        assert lake.verify().intact


def test_rows_are_known_by_their_places(tmp_path: Path) -> None:
    """Lines without a time get that of their arrival: another one, each time they come."""
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"type":"A","subject":"{ADA}"}}\n{{"type":"A","subject":"bob"}}\n')
    with opened(tmp_path) as lake:
        lake.tag("before")
        lake.ingest(path)
        lake.erase(subject=ADA, why="asked")
        lake.rollback("before")
        lake.ingest(path)
        assert lake.sql("SELECT subject FROM events").fetchall() == [("bob",)]


def test_a_log_with_lines_is_named(tmp_path: Path) -> None:
    """Quarantined lines in a write-ahead log that another process holds."""
    with opened(tmp_path) as lake, lakelog.open(tmp_path / "lake") as writer:
        writer.quarantine([("file", 7, "no event", f"broken {ADA} {WORD}")])
        status = lake.erase(subject=ADA, why="asked")
        assert status.erasure.lines == 1
        assert [left.place.split("/")[0] for left in lake.erasures()[0].leftovers] == ["wal"]
        writer.append({"type": "B"})
        writer.append({"type": "B"})
        assert lake.erasures()[0].is_done
        assert found(tmp_path) == []


def test_dead_letters_go_with_their_events(tmp_path: Path) -> None:
    """What a handler gave up is retried as long as it is there; its error may name it, too."""

    def fail(event: dict[str, Any]) -> None:
        raise ValueError(f"no room for {event['subject']} at {event['message']}")

    with opened(tmp_path) as lake:
        lake.append([{"type": "A", "subject": s, "message": WORD} for s in (ADA, "bob", None)])
        with lake.subscribe("mail") as subscription:
            subscription.run(fail, once=True, attempts=1)
        lake.erase(where=f"subject = '{ADA}'", why="asked")
        lake.erase(subject=ADA, why="asked")
        assert lake.erasures()[-1].is_done
        assert histories.places_with(tmp_path / "lake", [ADA]) == []
        letters = subscriptions.dead_letters(lake.subscriptions(), "mail")
        assert [letter.event["subject"] for letter in letters] == ["bob", None]
        assert subscriptions.retry(lake.subscriptions(), "mail", lambda _: None) == (2, 0)


def test_dead_letters_hold_no_protected_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protected.keys_in(tmp_path, monkeypatch)
    with opened(tmp_path) as lake:
        lake.protect(["secret"])
        lake.append({"type": "A", "subject": ADA, "data": {"secret": WORD}})
        with lake.subscribe("mail") as subscription:
            subscription.run(lambda event: 1 / 0, once=True, attempts=1)
        assert histories.places_with(tmp_path / "lake", [WORD]) == []
        (letter,) = subscriptions.dead_letters(lake.subscriptions(), "mail")
        assert WORD in letter.event["data"]
        lake.erase(subject=ADA, why="asked")
        (letter,) = subscriptions.dead_letters(lake.subscriptions(), "mail")
        assert letter.event["data"] == "{}"


def test_letters_of_earlier_builds_are_named(tmp_path: Path) -> None:
    """They hold the whole event, and have no id; those of others stay."""
    with opened(tmp_path) as lake:
        lake.append({"type": "A", "subject": ADA, "message": WORD})
        lake.subscribe("mail").close()
        letter = {"type": "lakelog.dead_letter", "source": "lakelog", "subject": "mail"}
        texts: list[dict[str, Any]] = [
            {"attempts": 1, "error": "x", "event": {"subject": name}}
            for name in (ADA, *(f"u{n}" for n in range(7)))
        ]
        commit_outputs(lake, "mail", [{**letter, "message": "x", "data": t} for t in texts])
        (place,) = lake.erase(subject=ADA, why="asked").copies
        run(tmp_path / "lake", *shlex.split(place["command"])[1:], "--why", "asked", "--yes")
        assert all(status.is_done for status in lake.erasures())
        assert found(tmp_path) == []
        assert len(subscriptions.dead_letters(lake.subscriptions(), "mail")) == 7


SPILLING = """
import sys, lakelog
with lakelog.open(sys.argv[1]) as lake:
    rows = "SELECT message || range AS m, random() AS r FROM events, range(20000000) ORDER BY r"
    lake.sql(rows).fetchall()
"""


def test_what_a_killed_query_spilled_is_named(tmp_path: Path) -> None:
    """Its rows are on disk until somebody deletes them, whoever they are of."""

    def spilled() -> list[Path]:
        files = (tmp_path / "lake/cache").glob("spill-*/*")
        return [file for file in files if WORD.encode() in file.read_bytes()]

    with lakelog.open(tmp_path / "lake", settings={"memory_bytes": 60_000_000}) as lake:
        lake.append([{"type": "A", "subject": ADA, "message": WORD}, {"type": "A"}])
        lake.settle()
        with subprocess.Popen([sys.executable, "-c", SPILLING, lake.path]) as query:
            while not spilled():  # it takes minutes to end
                assert query.poll() is None
                time.sleep(0.05)
            query.kill()
        folder = spilled()[0].parent
        status = lake.erase(subject=ADA, why="asked")
        assert [left.place for left in status.leftovers] == [f"cache/{folder.name}"]
        shutil.rmtree(folder)
        assert lake.erasures()[0].is_done
        assert found(tmp_path) == []


def test_an_unfinished_sweep_is_no_end(tmp_path: Path) -> None:
    """An old segment that came back, as with files from a backup, is named and cleaned."""
    with opened(tmp_path) as lake:
        lake.append([{"type": "A", "subject": ADA}, {"type": "A", "subject": "bob"}])
        lake.settle()
        (entry,) = lake.store.manifests.segments(lake.store.state("main"), "events")
        path = Path(lake.store.paths.object("segments", entry.key))
        data = path.read_bytes()
        lake.erase(subject=ADA, why="asked")
        path.write_bytes(data)
        assert [s.place for s in lake.erasures()[0].leftovers] == [
            str(path.relative_to(tmp_path / "lake"))
        ]
        assert lake.erase(subject=ADA, why="asked").is_done
        assert found(tmp_path) == []


def test_what_people_wrote_is_named(tmp_path: Path) -> None:
    """A view, the messages of moves, and saved files, as they are and in the escapes of JSON."""
    name, notes = "ada ö 3f9k2m", tmp_path / "notes"
    notes.mkdir()
    (notes / "a.json").write_text('{"who": "ada \\u00f6 3f9k2m"}')
    with opened(tmp_path) as lake:
        lake.append({"type": "A", "subject": name})
        query = f"SELECT count(*) AS n FROM events WHERE subject = '{name}'"
        LakeViews(lake).create("hers", query)
        publish.note(lake.store, "main", "later", f"a call of {name}")
        save_state(lake, {"notes": str(notes)})
        status = lake.erase(subject=name, why="asked")
        places = sorted(left.place.split("/")[0].split(" ")[0] for left in status.leftovers)
        assert places == ["definition:", "move", "states"]


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_a_file_that_names_a_subject_is_named_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_encrypted: bool
) -> None:
    """By its folder where its own name is the subject, in an encrypted lake, too."""
    if is_encrypted:
        need_module("cryptography")
        encrypted.create(tmp_path / "lake", monkeypatch)
    with opened(tmp_path) as lake:
        lake.append([{"type": "A", "subject": ADA}, {"type": "A", "subject": "bob"}])
        lake.settle()
        lake.tag(ADA)
        lake.tag("v1", message=f"before {ADA} left")
        lake.branch(f"of-{ADA}").close()
        aside = tmp_path / "lake/cache/damaged" / ADA
        aside.parent.mkdir()
        aside.write_text("x")
        status = lake.erase(subject=ADA, why="asked")
        places = {left.place for left in status.leftovers}
        names = {"a name in cache/", "a name in refs/", "the name of a branch"}
        assert places == names | {"refs/tags/v1.json"}
        assert ADA not in repr(lake.erasures())


def test_an_erasure_ends_whose_copy_had_the_name_of_the_subject(tmp_path: Path) -> None:
    """Its own document names the copy until somebody says that it is clean."""
    copy = tmp_path / f"{ADA}.csv"
    with opened(tmp_path) as lake:
        lake.append([{"type": "A", "subject": ADA}, {"type": "A", "subject": "bob"}])
        lake.export("events", copy)
        status = lake.erase(subject=ADA, why="asked")
        assert [place["name"] for place in status.copies] == [str(copy)]
        copy.unlink()
        lakelog.erasure.confirm(lake.store, status.erasure.key, str(copy))
        for note in (tmp_path / "lake/copies").iterdir():
            note.unlink()
        lake.erase(subject=ADA, why="asked again")
        assert all(status.is_done for status in lake.erasures())
        assert found(tmp_path) == []


def test_an_earlier_erasure_ends_with_the_same_one_again(tmp_path: Path) -> None:
    """A view that was dropped since is no file, of which `status` could see that it is gone."""
    with opened(tmp_path) as lake:
        lake.append([{"type": "A", "subject": name} for name in (ADA, "bob")])
        query = f"SELECT count(*) AS n FROM events WHERE subject = '{ADA}'"
        LakeViews(lake).create("hers", query)
        (left,) = lake.erase(subject=ADA, why="asked").leftovers
        assert left.place == "definition: view hers"
        LakeViews(lake).drop("hers")
        for number in range(101):  # until its move is packed, which has the text of the state
            publish.note(lake.store, "main", "later", f"note {number}")
        lake.expire()
        lake.gc()
        assert found(tmp_path) == []
        lake.erase(subject="bob", why="asked")
        assert not lake.erasures()[0].is_done
        lake.erase(subject=[ADA, "bob"], why="asked again")
        assert all(status.is_done for status in lake.erasures())


def test_the_message_of_a_state_without_a_move_is_named(tmp_path: Path) -> None:
    """A tag has the state of another clone, whose move is not here."""
    with opened(tmp_path) as lake:
        lake.append({"type": "A", "subject": ADA})
        head = lake.store.state("main")
        state = dataclasses.replace(head, time=head.time - 1, message=f"a call of {ADA}")
        known.track(lake.store, "home", "main", lake.store.manifests.write(state).digest)
        lake.erase(subject=ADA, why="asked")
        (left,) = lake.erasures()[0].leftovers
        assert left.place.startswith("state ")


def test_a_preview_names_what_has_any_of_the_subjects(tmp_path: Path) -> None:
    """Each place once."""
    with opened(tmp_path) as lake:
        lake.append([{"type": "A", "subject": name} for name in (ADA, "bob-7h2w")])
        query = f"SELECT count(*) AS n FROM events WHERE subject IN ('bob-7h2w', '{ADA}')"
        LakeViews(lake).create("theirs", query)
        publish.note(lake.store, "main", "later", "a call of bob-7h2w")
        for subjects in (["bob-7h2w"], [ADA, "bob-7h2w"]):
            leftovers = lake.preview_erasure(subject=subjects).leftovers
            places = sorted(leftover.place for leftover in leftovers)
            assert places == ["definition: view theirs", "move 3 of main"]


@pytest.mark.parametrize("folder", ["words", "ranks", "views"])
def test_what_is_derived_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """An index or a piece of a view that was being made goes, too: nobody would remove it."""
    if folder == "ranks":
        need_module("tantivy")
    path, erased = tmp_path / "lake", list[bool]()
    with opened(tmp_path) as lake:
        rows = [{"type": "A", "subject": f"u{n}", "message": f"m {n}"} for n in range(9_000)]
        lake.append([*rows, {"type": WORD, "subject": ADA, "message": WORD}])
        lake.compact()
        for cached in (path / "cache").iterdir():
            if cached.is_dir():
                shutil.rmtree(cached)
        (path / f"cache/{folder}").mkdir()

        def erase_before(name: str, real: seam.Hook, *args: Any, **kwargs: Any) -> Any:
            is_last = name == ("rename" if folder == "ranks" else "replace_whole")
            if is_last and f"/cache/{folder}/" in args[0] and not erased:
                erased.append(True)
                with opened(tmp_path) as other:
                    other.erase(subject=ADA, why="asked")
            return real(*args, **kwargs)

        entries = lake.store.manifests.segments(lake.store.state("main"), "events")
        with monkeypatch.context() as patch:
            seam.install(patch, erase_before)
            if folder == "views":
                view = catalog.find("throughput", {})
                values = params.values(view.name, view.params, None)
                builds._keep(lake.path, "main", view, values, entries)
            else:
                indexing.build_missing(lake.store, "main")
        assert erased
        derived = [file for file in (path / f"cache/{folder}").rglob("*") if file.is_file()]
        old = [f for f in derived if folder == "views" or entries[0].key in f.parts]
        assert old == []
    with opened(tmp_path) as lake:
        assert lake.erasures()[0].is_done
    assert found(tmp_path) == []


def test_pages_that_are_published_meanwhile_stay_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publish spills entries of older segments into a page, after the states were read. Others
    that go on publishing do not keep the erasure from its end."""
    monkeypatch.setattr(manifest, "FAN", 4)
    published = list[int]()

    def settle_before(name: str, real: seam.Hook, *args: Any, **kwargs: Any) -> Any:
        if name == "replace_whole" and args[0].endswith("/erasures/states.json"):
            with opened(tmp_path) as other:
                for number in range(1 if published else 6):
                    published.append(number)
                    other.append({"type": "A", "subject": f"later-{number}"})
                    other.settle()
        return real(*args, **kwargs)

    with opened(tmp_path) as lake:
        for number in range(3):
            lake.append([{"type": "A", "subject": name} for name in (ADA, f"u{number}")])
            lake.settle()
        with monkeypatch.context() as patch:
            seam.install(patch, settle_before)
            lake.erase(subject=ADA, why="asked")
        assert published
        assert lake.verify().intact
        assert lake.count() == 3 + len(published)
        assert lake.erasures()[0].is_done
        assert found(tmp_path) == []


def test_a_word_across_two_chunks_of_a_saved_file_is_named(tmp_path: Path) -> None:
    """The content of a directory is cut anywhere."""
    with opened(tmp_path) as lake:
        lake.append({"type": "A", "subject": ADA})
        content = f"x {ADA} y".encode()
        with ChunkWriter(lake.store.paths) as writer:
            pieces = [
                writer.add(piece).result() for piece in (content[:6], content[6:8], content[8:])
            ]
            entry = StateEntry(b"a", "file", size=len(content), extents=((0, len(content)),))
            index = writer.add_index(StateIndex((StateEntry(b"", "dir"), entry), tuple(pieces)))
            writer.finish()
        status = lake.erase(subject=ADA, why="asked")
        assert [left.place for left in status.leftovers] == [f"states/{index[:2]}/{index}.json.zst"]


def test_a_state_that_came_back_beside_an_older_one(tmp_path: Path) -> None:
    """An older state, of which only a file is left, has a segment that an earlier erasure replaced;
    the one that a remote's branch names has removed it since. Its pages stay readable."""
    with opened(tmp_path) as lake:
        manifests = lake.store.manifests
        for subject in (ADA, "bob"):
            lake.append([{"type": "A", "subject": name} for name in (subject, "zoe")])
            lake.settle()
        before = lake.store.state("main")
        theirs, later = manifests.segments(before, "events")
        lake.erase(subject=ADA, why="asked")
        removal = Removal("segment", theirs.key, theirs.events, theirs.bytes, theirs.kind)
        first = manifests.write_page((theirs,), "c" * 16)
        second = manifests.write_page((removal, later), "d" * 16)
        totals = manifest.add_up(manifest.Totals(), [later])
        newer = dataclasses.replace(before, pages=(first, second), recent=(), totals=totals)
        older = dataclasses.replace(newer, time=before.time - 1, pages=(first,))
        manifests.write(older)
        known.track(lake.store, "home", "main", manifests.write(newer).digest)
        lake.erase(subject="bob", why="asked")
        state = manifests.load(lake.store.refs.tag("home/main").snapshot)
        assert [entry.events for entry in manifests.segments(state)] == [1]
        assert lake.verify().intact


def test_a_state_that_is_only_a_file_is_erased_from_twice(tmp_path: Path) -> None:
    """As one that a remote names: what was put in its place is replaced itself."""
    with opened(tmp_path) as lake:
        manifests = lake.store.manifests
        lake.append([{"type": "A", "subject": name} for name in (ADA, "bob", "zoe")])
        lake.settle()
        head = lake.store.state("main")
        state = manifests.write(dataclasses.replace(head, time=head.time - 1)).digest
        for left, subject in ((2, ADA), (1, "bob")):
            lake.erase(subject=subject, why="asked")
            assert manifests.load(state).totals.events == left


def test_the_subjects_of_a_segment_that_is_gone_come_back(tmp_path: Path) -> None:
    """With a state that a remote's branch names, after an erasure took them out of all others."""
    with opened(tmp_path) as lake:
        manifests = lake.store.manifests
        lake.append([{"type": "A", "subject": name} for name in (ADA, "zoe")])
        lake.settle()
        lake.append([{"type": "A", "subject": name} for name in ("bob", "zoe")])
        lake.settle()
        before = lake.store.state("main")
        lake.compact()
        lake.tag("v1")
        lake.expire()
        lake.erase(subject=ADA, why="asked")
        newer = dataclasses.replace(before, time=before.time + 1)
        known.track(lake.store, "home", "main", manifests.write(newer).digest)
        lake.erase(subject="bob", why="asked")
        state = manifests.load(lake.store.refs.tag("home/main").snapshot)
        assert next(entry.subject for entry in manifests.segments(state)) is None
        assert found(tmp_path) == []


def test_a_state_that_came_back_with_a_segment_that_lost_all_rows(tmp_path: Path) -> None:
    """Nothing stands in its place, and the state reads without it."""
    with opened(tmp_path) as lake:
        manifests = lake.store.manifests
        for subject in (ADA, "bob", "zoe"):
            lake.append({"type": "A", "subject": subject})
            lake.settle()
        before = lake.store.state("main")
        lake.erase(subject=ADA, why="asked")
        newer = dataclasses.replace(before, time=before.time + 1)
        known.track(lake.store, "home", "main", manifests.write(newer).digest)
        lake.erase(subject="bob", why="asked")
        assert lake.at("home/main").count() == lake.count() == 1
        assert lake.verify().intact
