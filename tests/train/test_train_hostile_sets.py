"""A training set from elsewhere is hostile input: nothing of it runs, and no forgery passes."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import lakelog
from lakelog import train
from lakelog.errors import ExportRefused
from tests.support import doctored, trainsets, witness
from tests.support.doctored import Case


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clean sets, and a directory beside them that nobody may touch."""
    home = tmp_path_factory.mktemp("doctored")
    (home / "outside").mkdir()
    (home / "outside/canary.txt").write_text("canary")
    doctored.build(home)
    return home


def every(home: Path) -> list[tuple[str, Path, Case]]:
    return doctored.cases([home / n for n in ("fenced", "chats", "labelled")], home / "outside")


def play(home: Path, to: Path, name: str, set_: Path, case: Case) -> train.Certificate:
    """Doctor a copy of a set and check it."""
    path = to / "set"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(set_, path, symlinks=True)
    case(path, random.Random(name))
    with doctored.contained(path, home / "outside", name):
        return train.check(str(path))


@pytest.mark.thorough
def test_the_generator_makes_three_hundred_doctored_sets(home: Path) -> None:
    """There are at least 300 cases, of every kind."""
    names = [name for name, _, _ in every(home)]
    assert len(names) == len(set(names)) >= 300


@pytest.mark.matrix
@pytest.mark.parametrize("part", range(4))
def test_no_doctored_set_passes(home: Path, tmp_path: Path, part: int) -> None:
    """A sample of the doctored sets: each is found, and none reaches outside."""
    chosen = every(home)[part::60]
    clean = [name for name, *case in chosen if play(home, tmp_path, name, *case).clean]
    assert clean == []


@pytest.mark.matrix
@pytest.mark.parametrize("make", doctored.BOMBS)
def test_a_bomb_is_found_in_bounded_memory(
    home: Path, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """What is small on disk and large in memory exits with 3 below one gigabyte."""
    path = tmp_path / "set"
    shutil.copytree(home / "fenced", path)
    doctored.plant_bomb(make, path)
    answer = doctored.checked(path)
    assert answer.is_refused, answer


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["before", "fenced", "chats", "labelled"])
def test_a_clean_set_is_clean_where_it_stands(home: Path, tmp_path: Path, name: str) -> None:
    """A set as it was exported has no finding, wherever it is copied to."""
    path = tmp_path / "quo'te \" dir"
    shutil.copytree(home / name, path)
    assert train.check(str(path)).leaks == ()


def test_a_manifest_that_hides_its_group_is_named(home: Path, tmp_path: Path) -> None:
    """The finding says what the recipe says."""
    path = tmp_path / "set"
    shutil.copytree(home / "fenced", path)
    manifest = doctored.read(path)
    manifest["roles"]["group"] = manifest["fence"] = None
    doctored.write(path, manifest)
    words = [leak.words for leak in train.check(str(path)).leaks]
    assert any("roles.group is 'None', and by recipe.toml it is 'subject'" in w for w in words)
    assert any(w.startswith("manifest.json: fence is None") for w in words)


def test_a_flipped_byte_is_named_by_its_shard(home: Path, tmp_path: Path) -> None:
    """A damaged shard is a finding with its name, also where it cannot be decoded."""
    path = tmp_path / "set"
    shutil.copytree(home / "fenced", path)
    file = next(path.glob("data/train-*"))
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 255
    file.write_bytes(bytes(data))
    words = [leak.words for leak in train.check(str(path)).leaks]
    assert f"data/{file.name} was changed" in words


@pytest.mark.parametrize("place", [0, 3, -6, -1])
def test_flipped_magic_is_found_though_the_hash_fits(
    home: Path, tmp_path: Path, place: int
) -> None:
    """A shard whose first or last bytes are others is named, also where a reader does not mind."""
    path = tmp_path / "set"
    shutil.copytree(home / "fenced", path)
    file = next(path.glob("data/train-*"))
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(bytes(data))
    doctored.sign(path)
    assert any(file.name in leak.words for leak in train.check(str(path)).leaks)


def test_a_module_in_the_set_is_not_imported(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checking `.` does not run a duckdb.py that lies there."""
    path = tmp_path / "set"
    shutil.copytree(home / "fenced", path)
    for name in ("duckdb", "lakelog", "json"):
        (path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(path)
    found = train.check(".")
    assert not (tmp_path / "ran").exists()
    assert {leak.words for leak in found.leaks} >= {"duckdb.py is not in the manifest"}


def test_other_verbs_refuse_a_doctored_manifest(home: Path, tmp_path: Path) -> None:
    """`train diff` reads nothing through a manifest whose values are not what they must be."""
    path = tmp_path / "set"
    shutil.copytree(home / "fenced", path)
    manifest = doctored.read(path)
    manifest["splits"]["train"]["files"] = ["../../canary.parquet"]
    doctored.write(path, manifest)
    with pytest.raises(ExportRefused, match="no name of a data file"):
        train.diff(str(path), str(home / "fenced"))


def test_a_rebuild_runs_only_recipes_that_the_lake_knows(home: Path, tmp_path: Path) -> None:
    """The SQL of a recipe from elsewhere, or of one that was changed, is not run."""
    path = tmp_path / "set"
    shutil.copytree(home / "fenced", path)
    planted = f"SELECT * FROM read_text('{home}/outside/canary.txt')"
    doctored.in_recipe("select", "sql", planted)(path, random.Random(1))
    with (
        lakelog.open(str(home / "lake")) as lake,
        witness.watching({home / "outside": witness.TOUCHES}) as touched,
        pytest.raises(ExportRefused, match="this lake knows no such export"),
    ):
        train.rebuild(lake, str(path))
    assert touched == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS x); COPY (SELECT 1) TO '{}'; SELECT * FROM (SELECT 1 AS x",
        "SELECT 1 AS x; COPY (SELECT 1) TO '{}'",
        "COPY (SELECT 1) TO '{}'",
    ],
)
def test_a_recipe_selects_and_does_nothing_else(home: Path, tmp_path: Path, sql: str) -> None:
    """A recipe whose query goes on after its SELECT is refused before anything of it runs."""
    target = tmp_path / "written.csv"
    made = trainsets.recipe("text", sql.format(target))
    with lakelog.open(str(home / "lake")) as lake, pytest.raises(ExportRefused, match="sql"):
        train.export(lake, made, str(tmp_path / "out"))
    assert not target.exists()
