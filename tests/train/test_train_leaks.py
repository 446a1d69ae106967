"""The certificate: planted leaks are found in the files alone, clean sets raise none."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lakelog import train
from lakelog.cli import cli
from lakelog.disk import disk
from lakelog.errors import ExportRefused
from tests.support import trainsets
from tests.support.effort import share
from tests.support.leaky_sets import FENCE
from tests.support.planted_leaks import PLANTS, any_row, kinds, plant_group, told
from tests.support.trainsets import lake_of, notes, recipe, rewrite

NOTES = "SELECT * FROM events WHERE type = 'note'"


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two exports of one family, one of them after more data, and one with labels."""
    home = tmp_path_factory.mktemp("sets")
    with lake_of(home / "lake", notes(400, 120)) as lake:
        made = recipe("text", NOTES, shape={"keep": ["level"]}, split=FENCE)
        train.export(lake, made, home / "a")
        lake.append(notes(200, 120, seed=3, first=400))
        train.export(lake, made, home / "b")
        labelled = recipe("classification", NOTES, shape={"label": "level", "keep": ["data.tag"]})
        train.export(lake, labelled, home / "c")
    return home


def copied(sets: Path, name: str, to: Path) -> Path:
    shutil.copytree(sets / name, to)
    return to


def test_rows_of_a_check_are_beside_its_set_alone(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an erasure looks for what a killed one left, which the next one removes."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    left = sets / f".a{disk.TEMPORARY}0123"
    left.mkdir()
    (left / ".lock").touch()
    others = set(sets.iterdir()) - {left}
    assert train.check(str(sets / "a")).clean
    assert set(sets.iterdir()) == others
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("kind", PLANTS)
@pytest.mark.matrix
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_planted_leak_is_found(sets: Path, tmp_path: Path, kind: str, seed: int) -> None:
    """One row in the wrong split is found and named for what it is."""
    path = copied(sets, "a", tmp_path / "out")
    PLANTS[kind](path, random.Random(seed))
    expected = {"exact", "near"} if kind == "exact" else {kind}
    assert kinds(path) == expected


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["exact", "near", "group"])
def test_a_leak_across_exports_is_found(sets: Path, tmp_path: Path, kind: str) -> None:
    """A row of one export's train in the other's test is found, from either side."""
    path = copied(sets, "b", tmp_path / "out")
    rng = random.Random(1)
    row, mine = any_row(sets / "a", "train", rng), any_row(path, "test", rng)
    text, words = trainsets.texts(1, 77)[0], row["text"].split(" ")
    planted = {
        "exact": {**mine, "text": row["text"]},
        "near": {**mine, "text": " ".join([*words[:-1], "planted"])},
        "group": {**mine, "text": text, "subject": row["subject"]},
    }[kind]
    rewrite(path, "test", lambda _: [planted])
    assert kind in kinds(path, sets / "a")
    assert kind in kinds(sets / "a", path)


@pytest.mark.parametrize("column", ["tag", "text"])
def test_a_column_that_tells_the_label_is_found(sets: Path, tmp_path: Path, column: str) -> None:
    """A column with another name for the label, or a text that holds it, is found."""
    path = copied(sets, "c", tmp_path / "out")
    for side in ("train", "validation", "test"):
        rewrite(path, side, lambda rows: [told(row, column) for row in rows])
    found = train.check(str(path)).leaks
    assert [column in leak.words for leak in found if leak.kind == "label"] == [True]


def test_a_number_that_tells_the_label_is_found(tmp_path: Path) -> None:
    """A score with a threshold gives the label away though no value comes twice."""
    rng = random.Random(3)
    events = []
    for text in trainsets.texts(600):
        score = rng.random()
        data = {"score": score, "label": "high" if score > 0.5 else "low"}
        events.append({"type": "note", "message": text, "data": data})
    query = "SELECT message, data->>'$.label' AS y, (data->>'$.score')::DOUBLE AS s FROM events"
    shape = {"label": "y", "keep": ["s"]}
    with lake_of(tmp_path / "lake", events) as lake:
        made = train.export(lake, recipe("classification", query, shape=shape), tmp_path / "out")
    assert [leak.words for leak in made.certificate.leaks] == ["the column s tells label"]


@pytest.mark.matrix
@pytest.mark.rounds
@pytest.mark.parametrize("seed", range(share(10)))
def test_clean_sets_raise_nothing(tmp_path: Path, seed: int) -> None:
    """Random sets of several shapes have a clean certificate."""
    rng = random.Random(seed)
    with lake_of(tmp_path / "lake", notes(300, 100, seed=seed)) as lake:
        shapes: list[tuple[str, dict[str, Any]]] = [
            ("events", {}),
            ("text", {"keep": ["data.tag", "level"]}),
            ("classification", {"label": "level", "keep": ["data.tag"]}),
            ("sequence", {}),
        ]
        for kind, shape in shapes:
            split = rng.choice([{}, {"group": "subject"}, FENCE])
            made = recipe(kind, NOTES, shape=shape, split=split)
            done = train.export(lake, made, tmp_path / kind)
            assert done.certificate.leaks == ()
            assert train.check(str(tmp_path / kind)).leaks == ()


def test_changed_missing_and_strange_files_are_named(sets: Path, tmp_path: Path) -> None:
    """The manifest's SHA-256 holds for every file, and no other data file is there."""
    path = copied(sets, "a", tmp_path / "out")
    data = next(path.glob("data/train-*"))
    shutil.copy(data, path / "data/test-00007-of-00008.parquet")
    (path / "README.md").write_text("changed")
    next(path.glob("lineage/test-*")).unlink()
    words = " ".join(leak.words for leak in train.check(str(path)).leaks if leak.kind == "files")
    assert "README.md was changed" in words
    assert "is missing" in words
    assert "test-00007-of-00008.parquet is not in the manifest" in words


def test_check_exits_with_three_on_a_leak(sets: Path, tmp_path: Path) -> None:
    """The verb exits 0 on a clean export, 3 on a leak, 1 on no export."""
    run = CliRunner()
    assert run.invoke(cli, ["train", "check", str(sets / "a")]).exit_code == 0
    path = copied(sets, "a", tmp_path / "out")
    plant_group(path, random.Random(1))
    done = run.invoke(cli, ["train", "check", str(path), "--json"])
    assert done.exit_code == 3
    assert not json.loads(done.stdout)["clean"]
    none = run.invoke(cli, ["train", "check", str(tmp_path)])
    assert none.exit_code == 1
    with pytest.raises(ExportRefused, match="not an export"):
        train.check(str(tmp_path))


def test_groups_that_differ_in_case_alone_are_found_beside_equal_ones(tmp_path: Path) -> None:
    """In train here and in test there, two groups are equal, and one differs by its case."""
    with lake_of(tmp_path / "lake", notes(40)) as lake:
        for name, subjects in (("train", "'Ann', 'ANN', 'bob'"), ("test", "'Ann', 'ANN', 'BOB'")):
            query = f"SELECT unnest([{subjects}]) AS subject, message FROM events ORDER BY ALL"
            split = {"group": "subject", "train": 0.0, "validation": 0.0, "test": 0.0, name: 1.0}
            made = recipe("text", query, split=split, dedupe={"exact": False, "near": False})
            train.export(lake, made | {"name": name}, tmp_path / name)
    leaks = train.check(str(tmp_path / "test"), against=str(tmp_path / "train")).leaks
    equal, alike = [leak.words for leak in leaks if leak.kind == "group"]
    assert equal == "2 values of subject in more than one split"
    assert alike.startswith("1 value of subject in more than one split, if case, spaces")
