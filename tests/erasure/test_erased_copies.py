"""What got rows of an erased subject outside the lake is named until it is clean."""

from __future__ import annotations

import datetime
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import outcomes, train
from lakelog.errors import InvalidEvent
from lakelog.history import delete_tag
from lakelog.lake import Lake
from tests.support import encrypted, seam
from tests.support.cli import answer, run
from tests.support.erasure_histories import places_with
from tests.support.sync_places import synced

ADA, WORD = "ada-3f9k2m", "secret-8x4q7t"
RECIPE = """
name = "failing"
[select]
sql = "SELECT * FROM events"
[shape]
kind = "decision"
decision = "START"
chosen = "type"
outcome = ["DONE", "FAIL"]
window = "5h"
keep = ["source"]
[split]
train = 0.4
validation = 0.1
test = 0.5
before = {}
"""


def filled(path: Path) -> Lake:
    """A lake with ten events, five of them of ADA."""
    lake = lakelog.open(path / "lake", settings={"seal": "never"})
    lake.append([{"type": "A", "subject": ADA if n % 2 else f"u{n}"} for n in range(10)])
    lake.settle()
    return lake


def decided(path: Path) -> Path:
    """Fill a lake with decisions and their outcomes, of ADA and others; return a recipe."""
    start = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)
    events = []
    for number in range(400):
        is_hers = number % 7 == 0
        item = {"subject": ADA if is_hers else f"u{number}", "source": WORD if is_hers else "web"}
        outcome = "FAIL" if number * 7919 % 11 < 4 else "DONE"
        for seconds, name in ((0, "START"), (60, outcome)):
            time = start + datetime.timedelta(minutes=10 * number, seconds=seconds)
            events.append({**item, "type": name, "time": time.isoformat()})
    recipe = path / "failing.toml"
    recipe.write_text(RECIPE.format((start + datetime.timedelta(hours=40)).isoformat()))
    with lakelog.open(path / "lake", settings={"seal": "never"}) as lake:
        lake.append(events)
    return recipe


def killed(path: Path, work: Callable[[Lake], object]) -> None:
    """Let a process die that does something with the lake, once what it writes elsewhere is whole
    but for its name."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        names = str(arguments[1]) if event in ("os.rename", "os.link") else ""
        if re.search(r"/(set|copy/refs/heads/.*)$", names):
            os._exit(9)

    child = os.fork()
    if child == 0:
        try:
            sys.addaudithook(hook)
            with lakelog.open(path / "lake") as lake:
                work(lake)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("writer", ["export", "backup", "train", "predict"])
def test_what_a_killed_writer_left_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    """It has no name yet that anybody gave it, and has the rows all the same."""
    recipe, elsewhere = str(decided(tmp_path)), tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    work: dict[str, Callable[[Lake], object]] = {
        "export": lambda lake: lake.export("events", f"{elsewhere}/set/"),
        "backup": lambda lake: lake.backup(f"{elsewhere}/copy"),
        "train": lambda lake: train.export(lake, recipe, f"{elsewhere}/set"),
        "predict": lambda lake: outcomes.train_model(lake, recipe),
    }
    killed(tmp_path, work[writer])
    assert places_with(elsewhere, [ADA]) != []
    with lakelog.open(tmp_path / "lake") as lake:
        (copy, *_) = lake.erase(subject=ADA, why="asked").copies
        assert places_with(Path(str(copy["name"])), [ADA]) != []
        assert str(copy["name"]) in str(copy["command"])
        shutil.rmtree(str(copy["name"]))
        assert places_with(elsewhere, [ADA]) == []
        assert lake.erasures()[0].is_done


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process has its temporary files, beside an encrypted lake."""
    encrypted.create(tmp_path / "lake", monkeypatch)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    return elsewhere


def test_rows_of_an_encrypted_lake_are_learnt_from_in_memory(
    tmp_path: Path, elsewhere: Path
) -> None:
    """A process that was killed leaves nothing plain on disk, and what it left is named."""
    recipe = str(decided(tmp_path))
    killed(tmp_path, lambda lake: outcomes.train_model(lake, recipe))
    assert not [*elsewhere.iterdir()]
    with lakelog.open(tmp_path / "lake") as lake:
        (copy, *_) = lake.erase(subject=ADA, why="asked").copies
        folder = Path(str(copy["name"])).parent
        assert folder.parent == Path("/dev/shm")
        shutil.rmtree(folder)
        assert lake.erasures()[0].is_done


def test_decisions_without_an_outcome_are_redacted_in_memory(
    tmp_path: Path, elsewhere: Path
) -> None:
    """Nothing is on disk that a process killed in between would leave there."""
    recipe = str(decided(tmp_path))
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append({"subject": ADA, "type": "START"})
        batches = train.undecided(lake, recipe)
        assert next(batches)["subject"].to_pylist() == [ADA]
        assert not [*elsewhere.iterdir()]


def test_several_subjects_are_all_told_of(tmp_path: Path) -> None:
    """It is done when all of them are; a reason may name none of them."""
    with filled(tmp_path) as lake:
        lake.export("events", tmp_path / "out.csv")
        status = lake.erase(subject=["u0", ADA, "u2"], why="asked")
        assert [s.erasure.events for s in (*status.earlier, status)] == [1, 5, 1]
        assert len({s.erasure.key for s in (*status.earlier, status)}) == 3
        with pytest.raises(InvalidEvent, match="names the subject"):
            lake.erase(subject=["u4", "u6"], why="u6 asked")
        # Of many, too, of which the first are erased before the last.
        with pytest.raises(InvalidEvent, match="names the subject"):
            lake.erase(subject=["u4", *(f"v{n}" for n in range(100)), "u6"], why="u6 asked")
        assert lake.count() == 3
        keys = [s.erasure.key for s in status.earlier]
        for key in (*keys[1:], status.erasure.key):
            lakelog.erasure.confirm(lake.store, key, str(tmp_path / "out.csv"))
        assert not lake.erasures()[0].is_done
        assert not status.is_done


def test_a_copy_of_what_the_lake_lost_before_is_named(tmp_path: Path) -> None:
    """The rows are in no state any more, and may be in an export."""
    with filled(tmp_path) as lake:
        lake.export("events", tmp_path / "out.csv")
        lake.erase(where=f"subject = '{ADA}'", why="by mistake")
        (tmp_path / "out.csv").touch()
        status = lake.erase(subject=ADA, why="asked")
        assert status.erasure.events == 0
        assert [place["name"] for place in status.copies] == [str(tmp_path / "out.csv")]


@pytest.mark.parametrize(
    ("words", "place", "name"),
    [
        ("sql SELECT%*%FROM%events -o {path}/rows.csv", "export", "{path}/rows.csv"),
        ("search {ada} -o {path}/found.jsonl", "export", "{path}/found.jsonl"),
        ("export events -o {path}/all.parquet", "export", "{path}/all.parquet"),
        ("stats -o {path}/stats.json", "export", "{path}/stats.json"),
        ("replay --speed max --to-command cat%>{path}/seen", "replay", "cat"),
        ("subscriptions run mail --once --to-command cat%>{path}/seen", "subscription", "mail"),
    ],
)
def test_every_command_that_gives_rows_away_is_named(
    tmp_path: Path, words: str, place: str, name: str
) -> None:
    """A place that has the subject, by a search of its bytes, is named until it is gone or said to
    be clean."""
    filled(tmp_path).close()
    given = [w.format(path=tmp_path, ada=ADA).replace("%", " ") for w in words.split()]
    run(tmp_path / "lake", *given)
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert len(files) == 1
    assert place == "export" or ADA.encode() in files[0].read_bytes()
    with lakelog.open(tmp_path / "lake") as lake:
        status = lake.erase(subject=ADA, why="asked")
        (copy,) = status.copies
        name = name.format(path=tmp_path)
        assert (copy["place"], copy["name"]) == (place, name)
        assert name in str(copy["command"])
        lakelog.erasure.confirm(lake.store, status.erasure.key, name)
        assert lake.erasures()[-1].is_done


def test_the_next_sync_takes_the_rows_out(tmp_path: Path) -> None:
    """Also where the lake goes back to a state from before, which is read without them."""

    def subjects() -> list[str]:
        with sqlite3.connect(tmp_path / "out.db") as database:
            rows = database.execute("SELECT DISTINCT subject FROM events ORDER BY 1").fetchall()
        return [name for (name,) in rows]

    lake_path, target = str(tmp_path / "lake"), f"sqlite:{tmp_path}/out.db"
    with filled(tmp_path) as lake:
        lake.tag("before")
    others = [f"u{n}" for n in range(0, 10, 2)]
    synced(lake_path, target)
    assert subjects() == [ADA, *others]
    with lakelog.open(lake_path) as lake:
        status = lake.erase(subject=ADA, why="asked")
        assert [place["place"] for place in status.copies] == ["sync"]
        lake.rollback("before")
    said: list[str] = []
    assert synced(lake_path, target, say=said.append).is_rebuilt
    assert said == ["events were erased: all rows are written again"]
    assert subjects() == others
    assert ADA.encode() not in (tmp_path / "out.db").read_bytes()
    assert not synced(lake_path, target).is_rebuilt


def test_a_program_that_got_recorded_decisions_is_named(tmp_path: Path) -> None:
    """As a receiver of a replay is: it has what the subject's events say."""
    decision = {"type": "decision", "subject": ADA, "data": {"chosen": "ask", "decision_id": "d1"}}
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append([decision])
    run(tmp_path / "lake", "replay", "--against", f"tee {tmp_path}/seen")
    assert ADA in (tmp_path / "seen").read_text()
    with lakelog.open(tmp_path / "lake") as lake:
        (copy,) = lake.erase(subject=ADA, why="asked").copies
    assert (copy["place"], copy["name"]) == ("replay", "tee")


def test_copies_of_log_files_are_named(tmp_path: Path) -> None:
    """Those that a watcher made: nobody rewrites them."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "a.jsonl").write_text(f'{{"type":"A","subject":"{ADA}"}}\n')
    lakelog.open(tmp_path / "lake").close()
    run(tmp_path / "lake", "watch", str(logs), "--once", "--backup-dir", str(tmp_path / "kept"))
    assert places_with(tmp_path / "kept", [ADA])
    with lakelog.open(tmp_path / "lake") as lake:
        (copy,) = lake.erase(subject=ADA, why="asked").copies
    assert (copy["place"], copy["name"]) == ("logs", str(tmp_path / "kept"))
    assert copy["name"] in copy["command"]


def test_what_was_recorded_of_the_rows_is_named(tmp_path: Path) -> None:
    """A finding with words that nobody else has, with the command that erases it; no other one."""
    with lakelog.open(tmp_path / "lake", settings={"seal": "never"}) as lake:
        events = [{"type": "A", "subject": f"u{n}", "message": f"began {n} now"} for n in range(9)]
        events += [{"type": "A", "subject": ADA, "message": f"told zanzibar {n}"} for n in range(9)]
        lake.append(events)
    run(tmp_path / "lake", "patterns", "--record")
    with lakelog.open(tmp_path / "lake") as lake:
        copies = lake.erase(subject=ADA, why="asked").copies
        assert [(c["place"], c["name"]) for c in copies] == [("finding", "PATTERN_DETECTED")]
        assert places_with(tmp_path / "lake", ["zanzibar"])
    words = shlex.split(str(copies[0]["command"]))
    run(tmp_path / "lake", *words[1:], "--why", "asked", "--yes")
    with lakelog.open(tmp_path / "lake") as lake:
        assert all(status.is_done for status in lake.erasures())
        assert places_with(tmp_path / "lake", ["zanzibar"]) == []
        patterns = "SELECT data->>'pattern' FROM events WHERE type = 'PATTERN_DETECTED'"
        assert lake.sql(patterns).fetchall() == [("began <*> now",)]


def test_what_was_recorded_is_named_in_a_clone_that_never_had_the_rows(tmp_path: Path) -> None:
    """It came with the erasure; the clone is clean with what erased it, and not before."""
    lake, far, clone = (tmp_path / name for name in ("lake", "far", "clone"))
    append(lake, {"type": "A", "message": "told of nothing"})
    run(lake, "remote", "add", "far", str(far))
    run(lake, "push", "far")
    run(lake, "clone", str(far), str(clone))
    append(lake, {"type": "A", "subject": ADA, "message": "told zanzibar"}, note("n1"))
    with lakelog.open(lake) as opened:
        opened.erase(subject=ADA, why="asked")
    for _ in range(2):
        run(lake, "push", "far")
        run(clone, "pull")
        with lakelog.open(clone) as opened:
            (status,) = opened.erasures()
            assert not status.is_done
            assert [(c["place"], c["name"]) for c in status.copies] == [("finding", "NOTED")]
    words = shlex.split(str(status.copies[0]["command"]))
    run(lake, *words[1:], "--why", "asked", "--yes")
    run(lake, "push", "far")
    run(clone, "pull")
    with lakelog.open(clone) as opened:
        assert [status.is_done for status in opened.erasures()] == [True, True]
        assert places_with(clone, ["zanzibar"]) == []


def test_what_a_clone_recorded_itself_is_named_with_what_came(tmp_path: Path) -> None:
    """The command of a type erases both."""
    lake, far, clone = (tmp_path / name for name in ("lake", "far", "clone"))
    append(lake, {"type": "A", "subject": ADA, "message": "told zanzibar"})
    run(lake, "remote", "add", "far", str(far))
    run(lake, "push", "far")
    run(lake, "clone", str(far), str(clone))
    append(lake, note("n1"))
    with lakelog.open(clone) as opened:
        opened.branch("side")
    append(clone, note("n2"), branch="side")
    with lakelog.open(lake) as opened:
        opened.erase(subject=ADA, why="asked")
    run(lake, "push", "far")
    run(clone, "pull")
    with lakelog.open(clone) as opened:
        (status,) = opened.erasures()
        assert [(c["name"], c["ids"]) for c in status.copies] == [("NOTED", ["n1", "n2"])]
    run(clone, *shlex.split(str(status.copies[0]["command"]))[1:], "--why", "asked", "--yes")
    with lakelog.open(clone) as opened:
        places = [copy["place"] for status in opened.erasures() for copy in status.copies]
        assert (places, places_with(clone, ["zanzibar"])) == (["remote"], [])


def test_what_was_recorded_and_comes_with_a_later_pull_is_named(tmp_path: Path) -> None:
    """A look before it came says that nothing is left, and not for ever."""
    lake, far, clone = (tmp_path / name for name in ("lake", "far", "clone"))
    append(lake, {"type": "A", "message": "told of nothing"})
    run(lake, "remote", "add", "far", str(far))
    run(lake, "push", "far")
    run(lake, "clone", str(far), str(clone))
    append(lake, {"type": "A", "subject": ADA, "message": "told zanzibar"})
    with lakelog.open(lake) as opened:
        opened.branch("side")
    append(lake, note("n1"), branch="side")
    with lakelog.open(lake) as opened:
        opened.erase(subject=ADA, why="asked")
    run(lake, "push", "far")
    run(clone, "pull")
    with lakelog.open(clone) as opened:
        assert [status.is_done for status in opened.erasures()] == [True]
    run(lake, "--branch", "side", "push", "far")
    run(clone, "pull", "--fetch")
    with lakelog.open(clone) as opened:
        (status,) = opened.erasures()
        assert [(c["name"], c["ids"]) for c in status.copies] == [("NOTED", ["n1"])]


def append(lake: Path, *events: dict[str, Any], branch: str = "main") -> None:
    """Append events to a branch, and seal them."""
    with lakelog.open(lake, branch=branch, settings={"seal": "never"}) as opened:
        opened.append(list(events))
        opened.settle()


def note(id: str) -> dict[str, Any]:
    """An event that lakelog recorded, with a word of ADA's."""
    return {"type": "NOTED", "source": "lakelog", "id": id, "message": "a word: zanzibar"}


def test_the_command_for_what_was_recorded_with_any_id(tmp_path: Path) -> None:
    """Its id may have what SQL and a shell take for something else."""
    note = {"type": "NOTED", "source": "lakelog", "id": "it's $HOME"}
    with lakelog.open(tmp_path / "lake") as lake:
        lake.append([{"type": "A", "subject": ADA, "message": "told zanzibar"}])
        lake.append([{**note, "message": "a word: zanzibar"}])
        (copy,) = lake.erase(subject=ADA, why="asked").copies
    shown = subprocess.run(["sh", "-c", f"printf '%s|' {copy['command']}"], stdout=subprocess.PIPE)
    words = shown.stdout.decode().split("|")[:-1]
    run(tmp_path / "lake", *words[1:], "--why", "asked", "--yes")
    with lakelog.open(tmp_path / "lake") as lake:
        assert (lake.count(), lake.erasures()[0].is_done) == (0, True)


def test_a_model_that_was_learnt_from_the_rows_is_named(tmp_path: Path) -> None:
    """Its categories are words of events. It is clean once no state has it any more."""
    recipe = decided(tmp_path)
    with lakelog.open(tmp_path / "lake") as lake:
        outcomes.train_model(lake, str(recipe))
        place = next(c for c in lake.erase(subject=ADA, why="x").copies if c["place"] == "model")
        assert (place["name"], "predict train" in place["command"]) == ("failing", True)
        assert "model" in [c["place"] for c in lake.erasures()[0].copies]
        outcomes.train_model(lake, str(recipe))
        lake.erase(subject=ADA, why="x")
        assert outcomes.find_model(lake, "failing").features
        assert lake.verify().intact
        assert "model" not in [c["place"] for c in lake.erasures()[0].copies]
        assert places_with(tmp_path / "lake", [ADA, WORD]) == []


def test_the_note_of_a_place_is_durable_before_it_gets_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut an export that is there has its note, which names it in an erasure."""
    changes = list[tuple[str, str]]()

    def record(name: str, real: Any, *args: Any, **options: Any) -> Any:
        fd = args[0] if name == "sync_file" else None
        changes.append((name, os.readlink(f"/proc/self/fd/{fd}") if fd is not None else ""))
        return real(*args, **options)

    with lakelog.open(tmp_path / "lake") as lake:
        lake.append({"type": "A"})
        seam.install(monkeypatch, record)
        lake.export("SELECT * FROM events", tmp_path / "out.csv")
    assert "/lake/copies/" in next(path for name, path in changes if name == "sync_file")


def test_a_training_set_without_its_tag_is_named(tmp_path: Path) -> None:
    """Whoever deletes the tag of its state takes no row out of it."""
    recipe = tmp_path / "all.toml"
    recipe.write_text(
        'name = "all"\n[select]\nsql = "FROM events"\n[shape]\nkind = "events"\n'
        "[split]\ntrain = 1.0\nvalidation = 0.0\ntest = 0.0\n"
    )
    with filled(tmp_path) as lake:
        train.export(lake, str(recipe), str(tmp_path / "set"))
        (tag,) = lake.tags()
        delete_tag(lake.store, tag.name)
        status = lake.erase(subject=ADA, why="asked")
        assert [place["name"] for place in status.copies] == [str(tmp_path / "set")]
        shutil.rmtree(tmp_path / "set")
        assert lake.erasures()[0].is_done


def test_a_copy_that_was_moved_away_is_named(tmp_path: Path) -> None:
    """It counts as clean, for it may have been deleted; but nobody is told so without a word, until
    they say that they cleaned it."""
    path = tmp_path / "lake"
    with lakelog.open(path) as lake:
        lake.append({"type": "A", "subject": "ada"})
    run(path, "backup", str(path), str(tmp_path / "disk"))
    run(path, "export", "events", "-o", str(tmp_path / "out.csv"))
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    key = answer(path, "erase", "--subject", "ada", "--why", "asked", "--yes")["key"]
    (tmp_path / "out.csv").unlink()
    for place in ("backup", "export"):
        said = run(path, "erase", "status", "--format", "table").stdout
        assert "done" in said
        gone = dict(re.findall(r"gone: (\w+) (\S+): clean it where", said))
        run(path, "erase", "status", key, "--cleaned", gone[place])
    assert "gone" not in run(path, "erase", "status", "--format", "table").stdout


def test_a_restored_backup_knows_what_the_lake_gave_away(tmp_path: Path) -> None:
    """As the lake does that it takes the place of, and the backup itself."""
    backup = tmp_path / "backup"
    with filled(tmp_path) as lake:
        lake.export("events", tmp_path / "out.csv")
        lake.backup(backup)
    shutil.rmtree(tmp_path / "lake")
    shutil.copytree(backup, tmp_path / "lake")
    with lakelog.open(tmp_path / "lake") as lake:
        status = lake.erase(subject=ADA, why="asked")
        assert {place["name"] for place in status.copies} == {
            str(backup),
            str(tmp_path / "out.csv"),
        }
        (tmp_path / "out.csv").unlink()
        lake.backup(backup)
        assert lake.erasures()[0].is_done


def test_an_encrypted_backup_gets_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the eyes of a process that has not opened it."""
    encrypted.create(tmp_path / "lake", monkeypatch)
    with filled(tmp_path) as lake:
        lake.backup(tmp_path / "backup")
        assert not lake.erase(subject=ADA, why="asked").is_done
        lake.backup(tmp_path / "backup")
    encrypted.forget(monkeypatch)
    monkeypatch.setenv("LAKELOG_KEY", encrypted.KEY)
    with lakelog.open(tmp_path / "lake") as lake:
        assert lake.erasures()[0].is_done
