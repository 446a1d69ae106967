"""Erasing a subject: no byte of it stays, nothing of others changes, and what is left is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import proofs, ranks, remotes
from lakelog.disk import disk
from lakelog.erased import Refusal
from lakelog.errors import InvalidEvent, NotAllowed, QueryFailed, UnknownRef
from lakelog.lake import Lake
from lakelog.moves import publication as publish
from lakelog.proofs import snapshot_tree
from tests.conftest import MakeLake
from tests.support import erasure_histories as histories
from tests.support.requirements import need

ADA, WORD = "ada-3f9k2m", "secret-8x4q7t"
SETTINGS = {"seal": "never"}


@pytest.mark.parametrize(
    ("subject", "goes", "stays"),
    [
        ("Иван", '{"user":"Иван"', '{"user":"Иванов"'),
        (
            "Иван",
            r'{"user":"\u0418\u0432\u0430\u043d"',
            r'{"user":"\u0418\u0432\u0430\u043d\u043e"',
        ),
        ("Zoé", r'{"user":"Zo\u00E9"', r'{"user":"Zo\u00e9e"'),
        ('a "q" b', r'{"user":"a \"q\" b"', r'{"user":"a \"q\" bc"'),
        ("ada", r'{"text":"and\nada\u0027s"', r'{"text":"ada\u0435"'),
        ("ada", r"C:\home\ada\users", r"C:\home\adas\users"),
    ],
)
def test_a_line_goes_in_which_a_subject_is_a_word(
    make_lake: MakeLake, subject: str, goes: str, stays: str
) -> None:
    """In any script, and however JSON writes it; one in which it is a part of another stays."""
    lake = make_lake()
    lake.quarantine(
        [("file", number, "no event", text) for number, text in enumerate((goes, stays))]
    )
    lake.erase(subject=subject, why="asked")
    assert lake.sql("SELECT line FROM quarantine").fetchall() == [(stays,)]


def test_words_of_a_line_are_whole_in_any_script() -> None:
    """By which a machine of a shared lake refuses lines from before an erasure."""
    words = Refusal.words("bad Иванов, ada@x")
    assert words >= {"Иванов", "ada", "ada@x"}
    assert "Иван" not in words
    # Of a letter and its marks nobody's name is only the letter.
    words = Refusal.words("bad क्षत्रियकृष्णमूर्तिनारायणस्वामी, Zoe\u0308 x")
    assert words >= {"क्षत्रियकृष्णमूर्तिनारायणस्वामी", "Zoe\u0308"}
    assert "Zoe" not in words


def filled(path: Path, batches: int = 3) -> Lake:
    """A lake with events of ADA and of others, sealed batch by batch."""
    lake = lakelog.open(path / "lake", settings=SETTINGS)
    for number in range(batches):
        lake.append([event(n) for n in range(number * 10, number * 10 + 10)])
        lake.settle()
    return lake


def event(number: int) -> dict[str, Any]:
    """An event, every fifth one of ADA."""
    is_hers = number % 5 == 0
    message = f"number {number} {WORD}" if is_hers else f"number {number}"
    return {"type": "A", "subject": ADA if is_hers else f"u{number}", "message": message}


def words_in(path: Path) -> list[str]:
    """The files of the lake that have a word of ADA's."""
    return histories.places_with(path / "lake", [ADA, WORD])


HISTORIES = int(os.environ.get("LAKELOG_ERASURES", "1"))
"""Random histories of which a subject is erased."""


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_no_byte_of_a_subject_stays(tmp_path: Path, seed: int) -> None:
    """Histories with tags, branches, rollback, compaction, views, files and quarantine."""
    histories.check(tmp_path, seed, steps=25 if HISTORIES > 1 else 14)


def test_no_byte_stays_in_an_encrypted_lake(tmp_path: Path) -> None:
    """Nor in what its files are once they are decrypted; its record is encrypted, too."""
    need("cryptography")
    histories.check(tmp_path, 0, steps=12, encrypted=True)
    for path in (tmp_path / "lake/erasures").iterdir():
        assert path.read_bytes()[:4] == b"LKN1"


def test_pages_and_packed_moves_are_cleaned(tmp_path: Path) -> None:
    """A history that is long enough for pages, manifests in files of their own and packed moves."""
    lake = lakelog.open(tmp_path / "lake", settings={**SETTINGS, "history_dense_hours": 0})
    for number in range(20):
        lake.append(event(number))
        lake.settle()
        if number == 10:
            lake.tag("early")
    for _ in range(200):
        publish.note(lake.store, "main", "later", "")
    lake.gc()
    assert list((tmp_path / "lake/refs/heads/main").glob("packed-*"))
    others = lake.at("early").sql("SELECT seq, message FROM events WHERE subject <> ?", [ADA])
    before = others.fetchall()
    assert lake.erase(subject=ADA, why="asked").is_done
    assert words_in(tmp_path) == []
    assert lake.verify().intact
    assert lake.at("early").sql("SELECT seq, message FROM events").fetchall() == before
    lake.close()


def test_the_history_stays_and_cannot_bring_it_back(tmp_path: Path) -> None:
    """Tags, old moves and rollbacks show the events of others, under the names they had."""
    with filled(tmp_path) as lake:
        lake.tag("v1")
        snapshot = lake.store.refs.tag("v1").snapshot
        lake.append(event(5))
        lake.erase(subject=ADA, why="asked")
        assert lake.store.refs.tag("v1").snapshot == snapshot
        assert lake.at("v1").count() == 24
        assert lake.rollback("v1").events == 24
        lake.undo()
        assert [entry.move.op for entry in lake.log()][:4] == ["undo", "rollback", "erase", "seal"]
        assert words_in(tmp_path) == []


def test_a_lake_that_is_open_elsewhere_reads_on(tmp_path: Path) -> None:
    """A process that has old states in memory notices that they are read from elsewhere now."""
    with filled(tmp_path) as lake, lakelog.open(tmp_path / "lake") as other:
        lake.tag("v1")
        assert (other.at("v1").count(), other.count()) == (30, 30)
        lake.erase(subject=ADA, why="asked")
        query = "SELECT count(*) FROM events"
        assert other.at("v1").sql(query).fetchall() == other.sql(query).fetchall() == [(24,)]


def test_places_that_are_given_again_are_other_events(tmp_path: Path) -> None:
    """After a rollback a stream has the versions of erased events again, and a subscriber their
    positions: what is appended then is stored."""

    def react(event: dict[str, Any]) -> dict[str, Any]:
        return {"type": "R", "subject": event["subject"]}

    with lakelog.open(tmp_path / "lake", settings=SETTINGS) as lake:
        with lake.subscribe("react", where="type = 'A'") as subscription:
            lake.tag("subscribed")
            lake.append([event(0), event(1)], expect={ADA: 0, "u1": 0})
            subscription.run(react, once=True)
            lake.erase(subject=ADA, why="asked")
            lake.rollback("subscribed")
            lake.append([event(0), event(0)], expect={ADA: 0})
            subscription.run(react, once=True)
            lake.settle()
        rows = lake.sql("SELECT type FROM events ORDER BY seq").fetchall()
        assert [name for (name,) in rows] == ["A", "A", "R", "R"]
        assert lake.stream(ADA).version == 2


def test_an_erasure_is_seen_whatever_the_time_of_its_folder_says(tmp_path: Path) -> None:
    with filled(tmp_path) as lake, lakelog.open(tmp_path / "lake") as reader:
        lake.tag("before")
        lake.erase(subject="u1", why="asked for it")
        folder = tmp_path / "lake/erasures"
        future = folder.stat().st_mtime_ns + 60_000_000_000
        os.utime(folder, ns=(future, future))
        assert reader.at("before").count() == 29
        lake.erase(subject=ADA, why="asked for it")
        os.utime(folder, ns=(future, future))  # both were written within a tick of its clock
        assert reader.at("before").sql("SELECT count(*) FROM events").fetchall() == [(23,)]


def test_a_condition_chooses_rows(tmp_path: Path) -> None:
    """What is erased may be said in SQL over the columns of events."""
    with filled(tmp_path) as lake:
        preview = lake.preview_erasure(where="message LIKE '%secret%' AND seq > 5")
        assert (preview.events, preview.branches) == (4, {"main": 4})
        status = lake.erase(where="message LIKE '%secret%' AND seq > 5", why="leak")
        assert (status.erasure.events, lake.count()) == (4, 26)
        with pytest.raises(QueryFailed, match="the condition cannot be used"):
            lake.erase(where="no_such_column = 1", why="leak")


def test_a_living_writer_keeps_it_pending(tmp_path: Path) -> None:
    """A write-ahead log that another process holds is named until its writer went on."""
    with filled(tmp_path) as lake, lakelog.open(tmp_path / "lake") as writer:
        writer.append(event(5))
        status = lake.erase(subject=ADA, why="asked")
        assert [left.place.split("/")[0] for left in status.leftovers] == ["wal"]
        assert not status.is_done
        assert words_in(tmp_path) != []
        # The first append notices, the second one is in a new file.
        writer.append({"type": "B"})
        writer.append({"type": "B"})
        (status,) = lake.erasures()
        assert status.is_done
        assert words_in(tmp_path) == []
        assert lake.count() == 26


def test_what_cannot_be_deleted_is_named(tmp_path: Path) -> None:
    """A tag's message, a file that was set aside and an export are named, and keep it pending."""
    with filled(tmp_path) as lake:
        lake.tag("v1", message=f"before {ADA} left")
        (tmp_path / "lake/cache/damaged").mkdir()
        (tmp_path / "lake/cache/damaged/old").write_text(f"x {ADA} y")
        out = tmp_path / "out.csv"
        lake.export("events", out)
        status = lake.erase(subject=ADA, why="asked")
        places = {left.place for left in status.leftovers}
        assert {"cache/damaged/old", "refs/tags/v1.json"} <= places
        assert [(c["place"], c["name"]) for c in status.copies] == [("export", str(out))]
        (tmp_path / "lake/cache/damaged/old").unlink()
        lake.store.refs.forget()
        (tmp_path / "lake/refs/tags/v1.json").unlink()
        out.unlink()
        (status,) = lake.erasures()
        assert status.leftovers == status.copies == ()


def test_a_tag_of_what_a_subject_does_later_is_no_remnant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state that a tag carries names the subject of what came while an erasure ended."""
    with filled(tmp_path) as lake, lakelog.open(tmp_path / "lake", settings=SETTINGS) as other:
        link = lake.store.volume.link

        def late_link(*words: Any) -> None:
            link(*words)
            monkeypatch.undo()
            other.append({"type": "LATER", "subject": ADA})
            other.tag("v1")

        monkeypatch.setattr(lake.store.volume, "link", late_link)
        assert lake.erase(subject=ADA, why="asked").is_done
        rows = lake.at("v1").sql("SELECT type FROM events WHERE subject = ?", [ADA])
        assert rows.fetchall() == [("LATER",)]


def test_a_backup_is_cleaned_by_the_next_one(tmp_path: Path) -> None:
    """A copy of the lake is named until it was brought up to date, and then has no byte of it."""
    copy = tmp_path / "copy"
    with filled(tmp_path, 18) as lake:
        lake.tag("v1")
        lake.backup(copy)
        (place,) = lake.erase(subject=ADA, why="asked").copies
        assert place["command"] == f"lakelog backup {tmp_path}/lake {copy}"
        lake.backup(copy)
        assert lake.erasures()[0].is_done
    assert histories.places_with(copy, [ADA, WORD]) == []
    with lakelog.open(copy) as copied:
        assert copied.verify().intact
        assert copied.at("v1").count() == copied.count() == 144


def test_a_clock_that_was_ahead_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(tmp_path) as lake, monkeypatch.context() as patch:
        patch.setattr(disk, "now_us", lambda: 1_700_000_000_000_000)  # and now it is set right
        late = {"time": "2031-01-01T00:00:00Z"}
        lake.append([event(0) | late, event(1)])
        status = lake.erase(subject=ADA, why="asked for it")
        assert status.erasure.events == 7
        assert lake.sql("SELECT count(*) FROM events WHERE subject = ?", [ADA]).fetchall() == [(0,)]
        lake.append([event(0) | late | {"message": "what she did later"}])
        lake.settle()
        rows = lake.sql("SELECT message FROM events WHERE subject = ?", [ADA]).fetchall()
        assert rows == [("what she did later",)]
    assert histories.places_with(tmp_path / "lake", [WORD]) == []


def test_what_somebody_still_writes_stays(tmp_path: Path) -> None:
    """An unfinished file is deleted once nobody can be at work on it; until then it is named."""
    young, old = (tmp_path / f"lake/wal/main/{disk.TEMPORARY}{n}" for n in range(2))
    with filled(tmp_path) as lake:
        for path in (young, old):
            path.write_bytes(ADA.encode())
        os.utime(old, (0, 0))
        status = lake.erase(subject=ADA, why="asked")
        assert young.exists()
        assert not old.exists()
        assert {left.place for left in status.leftovers} == {f"wal/main/{young.name}"}


def test_a_preview_counts_all_subjects(tmp_path: Path) -> None:
    with filled(tmp_path) as lake:
        single = lake.preview_erasure(subject=ADA)
        both = lake.preview_erasure(subject=[ADA, "u1"])
        assert (single.events, both.events) == (6, 7)
        assert (both.segments, both.branches) == (3, {"main": 7})
        lake.erase(subject=[ADA, "u1"], why="asked for it")
        assert lake.count() == 23


@pytest.mark.parametrize("is_copied", [False, True], ids=["default", "copied"])
def test_a_repaired_configuration_tells_older_versions(tmp_path: Path, is_copied: bool) -> None:
    with filled(tmp_path) as lake:
        lake.backup(tmp_path / "copy")  # from before the erasure
        lake.erase(subject=ADA, why="asked for it")
        (tmp_path / "lake/lakelog.json").unlink()
        lake.repair(str(tmp_path / "copy") if is_copied else None)
    assert b'"requires":["erasure"]' in (tmp_path / "lake/lakelog.json").read_bytes()


def test_two_erasures_after_each_other(tmp_path: Path) -> None:
    """What was rewritten once is rewritten again, and nothing of the first comes back."""
    with filled(tmp_path, 18) as lake:
        lake.tag("v1")
        lake.erase(subject=ADA, why="asked")
        lake.erase(subject="u7", why="asked too")
        assert lake.at("v1").count() == 143
        assert lake.verify().intact
        assert words_in(tmp_path) == histories.places_with(tmp_path / "lake", ['number 7"']) == []
        assert [status.erasure.events for status in lake.erasures()] == [36, 1]


def test_signed_states_and_proofs_hold(tmp_path: Path) -> None:
    """The root of a signed state and proofs of others hold; of an erased event there is none."""
    need("cryptography")
    with filled(tmp_path, 4) as lake:
        lake.tag("v1")
        proofs.PrivateKey.generate(str(tmp_path / "key"), "")
        key = proofs.PrivateKey.load(str(tmp_path / "key"))
        target = proofs.Target.of(lake.store, "main", "v1")
        proofs.sign(lake.store, "main", target, key)
        lake.erase(subject=ADA, why="asked")
        assert proofs.SignatureCheck(lake.store, [key.public]).ref("main", "v1") == []
        proof = proofs.prove(lake.store, target, 7)
        assert proofs.check_proof(proof, [key.public]).event["subject"] == "u7"
        with pytest.raises(UnknownRef, match="was erased"):
            proofs.prove(lake.store, target, 5)


def test_who_may_erase_and_why(tmp_path: Path) -> None:
    """The reason is required and must not name the subject; a policy may refuse it."""
    with filled(tmp_path) as lake:
        with pytest.raises(InvalidEvent, match="names the subject"):
            lake.erase(subject=ADA, why=f"{ADA} asked")
        with pytest.raises(InvalidEvent, match="say why"):
            lake.erase(subject=ADA, why=" ")
        (tmp_path / "lake/policy.toml").write_text("[allow]\nerase = []\n")
        with pytest.raises(NotAllowed):
            lake.erase(subject=ADA, why="asked")
        assert lake.count() == 30


def test_a_policy_refuses_erasures_of_others_and_of_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that a pull brings, of which nothing is done then, and where a key would go."""
    need("cryptography")
    policy = "[allow]\nerase = []\n"
    with filled(tmp_path) as lake:
        lake.settle()
        remotes.add_tested(lake.store, "far", str(tmp_path / "far"))
        remotes.push(lake, "far", branches=["main"])
        remotes.clone(str(tmp_path / "far"), str(tmp_path / "clone"))
        lake.erase(subject=ADA, why="asked")
        remotes.push(lake, "far", branches=["main"])
    (tmp_path / "clone/policy.toml").write_text(policy)
    with lakelog.open(tmp_path / "clone") as clone:
        with pytest.raises(NotAllowed):
            remotes.pull(clone, "origin")
        assert clone.count() == 30
        monkeypatch.setenv("LAKELOG_SUBJECT_KEYS", str(tmp_path / "subjects"))
        (tmp_path / "clone/policy.toml").unlink()
        clone.protect(["message"])
        clone.append(event(0))
        (tmp_path / "clone/policy.toml").write_text(policy)
        with pytest.raises(NotAllowed):
            clone.erase(subject=ADA, why="asked")
        assert clone.erasures() == []


def test_what_was_derived_is_deleted(tmp_path: Path) -> None:
    """Filters, word and rank indexes, trees of proofs, cached views and folds of old segments."""
    cache = tmp_path / "lake/cache"
    with filled(tmp_path) as lake:
        lake.compact()
        lake.schema()
        lake.sql("SELECT * FROM events WHERE subject = ?", [ADA]).fetchall()
        snapshot_tree.root(lake.store, lake.store.refs.head("main").move.snapshot)
        if ranks.is_installed():
            lake.search("number", rank=True).fetchall()
    old = {path.stem for path in (tmp_path / "lake/segments").rglob("*.parquet")}
    derived = {path.parent.name for path in cache.rglob("*") if path.name[:64] in old}
    assert derived >= {"bloom", "words", "merkle"} | ({"ranks"} if ranks.is_installed() else set())
    answers = [cache / "views/x/answer.piece", cache / "folds/x.json"]
    for answer in answers:
        answer.parent.mkdir(parents=True)
        answer.write_bytes(b"an answer with " + ADA.encode())
    with lakelog.open(tmp_path / "lake") as lake:
        assert lake.erase(subject=ADA, why="asked").is_done
    assert [path for path in cache.rglob("*") if path.name[:64] in old] == []
    assert not [answer for answer in answers if answer.exists()]
