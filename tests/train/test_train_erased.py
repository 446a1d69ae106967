"""A training set is made again without an erased subject: every other row is where it was."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import train
from lakelog.errors import ExportRefused, InvalidKey
from tests.support import cli, protected
from tests.support.erasure_histories import places_with
from tests.support.trainsets import lake_of, recipe, rows

ADA, WORD = "ada-3f9k2m", "secret8x4q7t"


def events(count: int) -> list[dict[str, Any]]:
    """Events of ADA and of 60 others; the text of a fourth of them is near to hers, and hers are
    the earliest."""
    made = []
    for n in range(count):
        subject = ADA if n % 8 == 0 else f"u{n % 60}"
        near = "the quick brown fox jumps over the lazy dog and runs away from case"
        message = f"{near} {n // 4}" if n % 4 == 0 else f"note {n} about {n * 7919 % 10007}"
        made.append(
            {
                "type": "A" if n % 3 else "B",
                "subject": subject,
                "message": f"{message} {WORD}" if subject == ADA and n % 16 else message,
                "time": f"2026-01-01T00:{n // 60:02d}:{n % 60:02d}Z",
            }
        )
    return made


SPLITS: dict[str, dict[str, Any]] = {
    "grouped": {"group": "subject"},
    "by content": {},
    "stratified": {"group": "subject", "stratify": "type"},
}


@pytest.mark.parametrize("name", SPLITS)
def test_no_other_row_changes_its_split(home: Path, name: str) -> None:
    """Also where the split of a row hangs on others: on a duplicate, or on the groups before it."""
    query = "SELECT * FROM events WHERE type IN ('A', 'B')"
    made_of = recipe("text", query, split=SPLITS[name])
    out, twin = home / "out", home / "twin"
    with lake_of(home / "lake", events(320)) as lake:
        train.export(lake, made_of, out)
        train.export(lake, made_of, twin)
        before = {row["text"]: row["side"] for row in rows(out)}
        status = lake.erase(subject=ADA, why="asked")
        sets = {str(c["name"]): c for c in status.copies if c["place"] == "training set"}
        assert set(sets) == {str(out), str(twin)}
        assert sets[str(out)]["command"] == f"lakelog train rebuild --erased {out}"
        (out / "mine.txt").write_text("notes")
        with pytest.raises(ExportRefused, match="no file of the set"):
            train.rebuild(lake, str(out), erased=True)
        (out / "mine.txt").unlink()
        key, count = status.erasure.key, status.erasure.tags
        result = train.rebuild(lake, str(out), erased=True)
        assert result.erased == {key: 40} == {key: next(iter(count.values()))}
        assert [c["name"] for c in lake.erasures()[0].copies] == [str(twin)]
        shutil.rmtree(twin)
        assert lake.erasures()[0].is_done
    after = {row["text"]: row["side"] for row in rows(out)}
    assert after
    assert not [text for text in after if WORD in text]
    assert {t: s for t, s in after.items() if t in before and before[t] != s} == {}
    unlike = [e["message"] for e in events(320) if "fox" not in e["message"]]
    assert {text: after.get(text) for text in unlike} == {text: before[text] for text in unlike}
    assert places_with(home, [WORD]) == []
    assert json.loads((out / "certificate.json").read_text())["erased"] == {key: 40}
    assert train.check(str(out)).clean
    with lakelog.open(home / "lake") as lake:
        assert train.rebuild(lake, str(out)).same


def test_a_set_without_the_subject_stays_as_it_is(home: Path) -> None:
    """Nothing is made again where nothing was erased, and one that was killed is ended."""
    with lake_of(home / "lake", events(200)) as lake:
        train.export(lake, recipe("text", "SELECT * FROM events WHERE type = 'A'"), home / "out")
        with pytest.raises(ExportRefused, match="nothing was erased"):
            train.rebuild(lake, str(home / "out"), erased=True)
        lake.erase(subject=ADA, why="asked")
        # Killed when the old set had lost its manifest, and the new one was complete.
        shutil.copytree(home / "out", home / "old")
        train.rebuild(lake, str(home / "out"), erased=True)
        (home / "out").rename(home / "out.without-erased")
        (home / "old").rename(home / "out")
        (home / "out/manifest.json").unlink()
        assert not lake.erasures()[0].is_done
        train.rebuild(lake, str(home / "out"), erased=True)
        assert lake.erasures()[0].is_done
    assert not (home / "out.without-erased").exists()
    assert places_with(home, [WORD]) == []
    with lakelog.open(home / "lake") as lake:
        assert lake.verify().intact


def test_a_set_is_made_again_without_the_fields_of_a_destroyed_key(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the status says to; a process without keys would take those of all others out as well."""
    query = """SELECT subject, data->>'plan' AS plan, data->>'email' AS email FROM events
        WHERE type = 'SIGNUP'"""
    made_of = recipe("events", query, split={"group": "subject"}, dedupe={"exact": False})
    out = home / "out"
    with protected.create(home / "lake", monkeypatch) as lake:
        lake.append([protected.event(n, 40) for n in range(200)])
        train.export(lake, made_of, out)
        before = rows(out)
        status = lake.erase(subject="s3", why="asked")
        (place,) = status.copies
        assert place["command"] == f"lakelog train rebuild --erased {out}"
        with protected.without_keys(home), pytest.raises(InvalidKey):
            train.rebuild(lake, str(out), erased=True)
        with protected.without_keys(home), pytest.raises(InvalidKey):
            train.rebuild(lake, str(out))
        assert train.rebuild(lake, str(out)).not_erased == (status.erasure.key,)
        told = cli.run(home / "lake", "train", "rebuild", str(out), "--format", "table", code=3)
        assert told.stdout.splitlines()[-2:] == [
            "not the same bytes",
            f"1 erasure came after it was made: `lakelog train rebuild --erased {out}` makes it"
            " again without",
        ]
        result = train.rebuild(lake, str(out), erased=True)
        assert result.erased == {status.erasure.key: 0}
        assert lake.erasures()[0].is_done
        remade = train.rebuild(lake, str(out))
        assert (remade.same, remade.not_erased) == (True, ())
    gone = {"email": None}
    assert rows(out) == [row | gone if row["subject"] == "s3" else row for row in before]
    assert places_with(home / "out", [f"{protected.PLANTED}3@"]) == []
    assert train.check(str(out)).clean


def test_rows_with_protected_fields_do_not_go_to_ray(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which writes rows to disks, as plain text, where nobody would look for them."""
    with protected.create(home / "lake", monkeypatch) as lake:
        lake.append([protected.event(n, 40) for n in range(200)])
        wanted = recipe("events", redact={"kinds": "all"}, split={"group": "subject"})
        with pytest.raises(ExportRefused, match="Ray writes rows to disk"):
            train.export(lake, wanted, home / "out", workers="ray")


def test_sets_that_a_rebuild_leaves_are_named(home: Path) -> None:
    """One that it was told to keep, one that was moved, and what it had when it was killed, which
    the next one removes."""
    with lake_of(home / "lake", events(200)) as lake:
        train.export(lake, recipe("text", "SELECT * FROM events WHERE type = 'A'"), home / "out")
        (home / "out").rename(home / "moved")
        train.rebuild(lake, str(home / "moved"), str(home / "kept"))
    child = os.fork()
    if not child:
        with lakelog.open(home / "lake") as lake:
            train.rebuild(lake, str(home / "moved"), progress=_die_when_written)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    known = {home / "lake", home / "moved", home / "kept"}
    (left,) = set(home.iterdir()) - known
    with lakelog.open(home / "lake") as lake:
        lake.erase(subject=ADA, why="asked")
        named = {str(place["name"]) for place in lake.erasures()[0].copies}
        assert named == {str(home / "moved"), str(home / "kept"), str(left)}
        for name in ("moved", "kept"):
            train.rebuild(lake, str(home / name), erased=True)
        assert set(home.iterdir()) == known
        assert lake.erasures()[0].is_done
    assert places_with(home, [WORD]) == []


def _die_when_written(stage: str) -> None:
    """End the process when the files of a set are there."""
    if stage == "looking for leaks":
        os._exit(0)


@pytest.mark.parametrize("kind", ["TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE"])
def test_rows_of_any_time_are_known_again(home: Path, kind: str) -> None:
    """A set without groups is made again by what its rows hold: also where Parquet has another
    time than the query gives."""
    made_of = recipe("events", f"SELECT subject, message, time::{kind} AS at FROM events")
    with lake_of(home / "lake", events(320)) as lake:
        train.export(lake, made_of, home / "out")
        before = {row["message"]: row["side"] for row in rows(home / "out")}
        lake.erase(subject=ADA, why="asked")
        train.rebuild(lake, str(home / "out"), erased=True)
        after = {row["message"]: row["side"] for row in rows(home / "out")}
        assert after == {text: side for text, side in before.items() if text in after}
        assert train.check(str(home / "out")).leaks == ()
        assert len(after) > 200


def test_a_set_that_was_made_without_keys_is_the_same_without(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As is one that has no protected field. Where rows differ for want of keys, that is said."""
    names = ("subject", "plan", "email")
    with protected.create(home / "lake", monkeypatch) as lake:
        lake.append([protected.event(n, 40) for n in range(200)])
        for out, columns in {"plain": names[:2], "sealed": names, "open": names}.items():
            selected = "".join(f", data->>'{name}' AS {name}" for name in columns[1:])
            query = f"SELECT subject{selected} FROM events WHERE type = 'SIGNUP'"
            made_of = recipe("events", query, split={"group": "subject"}, dedupe={"exact": False})
            if out == "sealed":
                with protected.without_keys(home):
                    train.export(lake, made_of, home / out)
            else:
                train.export(lake, made_of, home / out)
    with protected.without_keys(home), lakelog.open(home / "lake") as lake:
        assert all(train.rebuild(lake, str(home / out)).same for out in ("plain", "sealed"))
        told = cli.run(home / "lake", "train", "rebuild", str(home / "open"), code=2)
    assert "is missing, which has the keys of the lake's subjects: set LAKE" in told.stderr
    assert told.stderr.count("\n") == 1


def test_a_set_that_is_exported_again_in_its_place_is_clean(home: Path) -> None:
    """Though an erasure named the one that was there; and one of an old state, which had the rows,
    can be made again all the same."""
    made_of = recipe("text", "SELECT * FROM events WHERE type IN ('A', 'B')")
    out = home / "out"
    with lake_of(home / "lake", events(320)) as lake:
        lake.tag("v1")
        train.export(lake, made_of, out)
        assert not lake.erase(subject=ADA, why="asked").is_done
        shutil.rmtree(out)
        train.export(lake, made_of, out)
        assert lake.erasures()[0].is_done
        shutil.rmtree(out)
        train.export(lake, {**made_of, "select": {**made_of["select"], "at": "v1"}}, out)
        for place in lake.erasures()[0].copies:
            train.rebuild(lake, str(place["name"]), erased=True)
        assert lake.erasures()[0].is_done
    assert places_with(home / "out", [WORD]) == []


def test_a_set_has_no_values_of_the_set_before_that_are_erased(home: Path) -> None:
    """Its drift is measured against them: neither one that never had the rows, which no erasure
    names, nor one that is made again without them."""
    query = "SELECT * FROM events WHERE type IN ('A', 'B')"
    made_of = recipe("sequence", query, shape={"by": "subject", "token": "message"})
    others = [e | {"message": e["type"]} for e in events(320) if e["subject"] != ADA]
    with lake_of(home / "lake", others) as lake:
        lake.tag("without")
        lake.append([e for e in events(320) if e["subject"] == ADA] * 2)
        for out, at in ((home / "1", "main"), (home / "2", "main"), (home / "3", "without")):
            train.export(lake, {**made_of, "select": {"sql": query, "at": at}}, out)
        assert WORD in (home / "2/manifest.json").read_text()
        copies = lake.erase(subject=ADA, why="asked").copies
        assert {c["name"] for c in copies} == {str(home / n) for n in "12"}
        shutil.rmtree(home / "1")
        train.rebuild(lake, str(home / "2"), erased=True)
        assert lake.erasures()[0].is_done
        assert places_with(home, [WORD]) == []
        assert all(train.rebuild(lake, str(home / n)).same for n in "23")
    drifted = json.loads((home / "3/manifest.json").read_text())["quality"]["drift"]
    assert drifted["label"] > 0.2
    assert all(train.check(str(home / n)).clean for n in "23")


@pytest.mark.parametrize("stage", ["selecting", "deduplicating", "writing", "looking"])
def test_a_set_from_which_is_erased_while_it_is_made(home: Path, stage: str) -> None:
    """It is named, can be made again without the rows, and until then it is said why it differs."""
    made_of = recipe("text", "SELECT * FROM events WHERE type IN ('A', 'B')")
    out = home / "out"

    def erase(said: str) -> None:
        if said.startswith(stage):
            cli.run(home / "lake", "erase", "--subject", ADA, "--why", "asked", "--yes")

    with lake_of(home / "lake", events(320)) as lake:
        train.export(lake, made_of, out, progress=erase)
    with lakelog.open(home / "lake") as lake:
        (erasure,) = lake.erasures()
        assert [place["name"] for place in erasure.copies] == [str(out)]
        found = train.rebuild(lake, str(out))
        assert found.same or found.not_erased == (erasure.erasure.key,)
        train.rebuild(lake, str(out), erased=True)
        assert lake.erasures()[0].is_done
        assert train.rebuild(lake, str(out)).same
    assert train.check(str(out)).clean
    assert places_with(home / "out", [WORD]) == []
