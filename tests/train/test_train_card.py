"""What an export says of itself: classes, sizes of splits, and why no row fits a shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lakelog
from lakelog import train
from lakelog.errors import ExportRefused
from lakelog.train import recipe as recipes
from lakelog.train.report import report
from lakelog.train.tables import quantity
from tests.support import trainsets
from tests.support.cli import run

LABEL = {"text": "message", "label": "data.kind"}


def labelled(path: Path, kinds: list[str], **sections: Any) -> train.Export:
    """Export texts whose labels take turns."""
    events = trainsets.notes(200, 60)
    for n, event in enumerate(events):
        event["data"]["kind"] = kinds[n % len(kinds)]
    with trainsets.lake_of(path / "lake", events) as lake:
        recipe = trainsets.recipe("classification", shape=LABEL, **sections)
        return train.export(lake, recipe, str(path / "set"))


def features(path: Path) -> list[str]:
    """Return the lines of the card's features."""
    text = (path / "set/README.md").read_text()
    return text.partition("  features:\n")[2].partition("  splits:")[0].splitlines()


def test_a_label_is_a_class_label_on_the_card(tmp_path: Path) -> None:
    """Its classes are numbered in order of their names, quoted so that YAML reads any text."""
    labelled(tmp_path, ["b", "no", 'a"q: #'])
    assert features(tmp_path)[2:] == [
        '  - name: "label"',
        "    dtype:",
        "      class_label:",
        "        names:",
        '          \'0\': "a\\"q: #"',
        "          '1': \"b\"",
        "          '2': \"no\"",
    ]
    assert train.check(str(tmp_path / "set")).leaks == ()


def test_every_type_is_named_as_loaders_name_it(tmp_path: Path) -> None:
    """Days, ENUMs, whole seconds and columns of nothing, within lists and structs as well; the
    files have what the card says."""
    columns = {
        "d": ("time::DATE", ["    dtype: date32"]),
        "n": ("NULL", ['    dtype: "null"']),
        "e": ("'a'::ENUM('a', 'b')", ["    dtype: string"]),
        "s": ("time::TIMESTAMP_S", ['    dtype: "timestamp[us]"']),
        "l": ("[NULL]", ['    list: "null"']),
        "o": (
            "{'d': [time::DATE], 'e': 'a'::ENUM('a', 'b')}",
            [
                "    struct:",
                '    - name: "d"',
                "      list: date32",
                '    - name: "e"',
                "      dtype: string",
            ],
        ),
    }
    listing = ", ".join(f"{sql} AS {name}" for name, (sql, _) in columns.items())
    recipe = trainsets.recipe("events", f"SELECT subject, message, {listing} FROM events")
    with trainsets.lake_of(tmp_path / "lake", trainsets.notes(60)) as lake:
        train.export(lake, recipe, str(tmp_path / "set"))
        assert train.check(str(tmp_path / "set")).leaks == ()
        assert train.rebuild(lake, str(tmp_path / "set")).same
    expected = [
        line for name, (_, lines) in columns.items() for line in (f'  - name: "{name}"', *lines)
    ]
    assert features(tmp_path)[4:] == expected


@pytest.mark.parametrize("kinds", [[f"k{n}" for n in range(201)], ["x", "y" * 201]])
def test_a_label_of_many_or_long_values_is_a_text(tmp_path: Path, kinds: list[str]) -> None:
    """More than 200 values, or one longer than 200 characters, make no classes."""
    events = [
        {"type": "t", "message": text, "data": {"kind": kinds[n % len(kinds)]}}
        for n, text in enumerate(trainsets.texts(420, 3))
    ]
    with trainsets.lake_of(tmp_path / "lake", events) as lake:
        train.export(lake, trainsets.recipe("classification", shape=LABEL), str(tmp_path / "set"))
    assert features(tmp_path)[2:] == ['  - name: "label"', "    dtype: string"]


def test_classes_of_a_manifest_are_those_of_the_rows(tmp_path: Path) -> None:
    """A check finds another name for a class."""
    labelled(tmp_path, ["a", "b"])
    file = tmp_path / "set/manifest.json"
    text = file.read_text()
    manifest = json.loads(text)
    assert manifest["quality"]["classes"] == {"label": ["a", "b"]}
    manifest["quality"]["classes"]["label"] = ["b", "a"]
    file.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    words = [leak.words for leak in train.check(str(tmp_path / "set")).leaks]
    assert "manifest.json: quality.classes is not what the rows give" in words


def test_an_edited_file_is_a_finding_and_no_leak(tmp_path: Path) -> None:
    """A check names the file, says that no leak was found, and exits with 3 all the same."""
    labelled(tmp_path, ["a", "b"])
    with (tmp_path / "set/README.md").open("a") as card:
        card.write("edited\n")
    check = ("train", "check", str(tmp_path / "set"), "--format", "table")
    done = run(tmp_path / "lake", *check, code=3)
    assert "README.md" in done.stdout
    assert "no leak found, but 2 findings about files and manifest" in done.stdout


def test_a_lopsided_split_is_a_warning(tmp_path: Path) -> None:
    """One large group takes its split's size with it: the terminal, JSON and the card say so."""
    events = [
        {"type": "t", "message": text, "subject": "one" if n % 10 else f"user{n}"}
        for n, text in enumerate(trainsets.texts(400, 3))
    ]
    recipe = trainsets.recipe("text", split={"group": "subject", "validation": 0.1, "test": 0.1})
    file = tmp_path / "recipe.toml"
    file.write_text(recipes.load(recipe).text)
    with trainsets.lake_of(tmp_path / "lake", events):
        pass
    out = str(tmp_path / "set")
    done = run(tmp_path / "lake", "train", "export", str(file), "-o", out, "--json")
    (words, *_) = json.loads(done.stdout)["warnings"]
    assert "the recipe asks for 80%: groups of subject differ in size" in words
    assert f"warning: {words}" in done.stderr
    assert f"- Warning: {words}." in (tmp_path / "set/README.md").read_text()


def sizes(train_: int, validation: int, test: int, **split: Any) -> list[str]:
    """Return the warnings about splits of these sizes for 0.8, 0.1 and 0.1."""
    parts = {"train": 0.8, "validation": 0.1, "test": 0.1, "group": None, "before": None, **split}
    counts = zip(("train", "validation", "test"), (train_, validation, test), strict=True)
    splits = {side: {"rows": n} for side, n in counts}
    return report.warnings({"splits": splits, "recipe": {"split": parts}})


def test_sizes_near_the_parts_are_no_warning() -> None:
    """Neither hashing's spread nor a test split that the cutoff alone decides is worth one."""
    assert sizes(13_442, 1_680, 1_680) == sizes(13_300, 1_500, 2_002) == sizes(16, 1, 3) == []
    assert sizes(700, 90, 4_000, before="2026-01-01T00:00:00+00:00") == []


def test_sizes_far_from_the_parts_are_each_named() -> None:
    """13,572, 47 and 3,183 rows for 0.8, 0.1 and 0.1 are two warnings."""
    first, second = sizes(13_572, 47, 3_183, group="subject")
    assert first.startswith("validation has 47 of 16,802 rows (0.3%); the recipe asks for 10%")
    assert second.startswith("test has 3,183 of 16,802 rows (18.9%); the recipe asks for 10%")
    (cutoff,) = sizes(13_572, 47, 1_700, group="subject", before="2026-01-01T00:00:00+00:00")
    assert cutoff.endswith("move [split] before")


def test_the_error_that_no_row_fits_names_the_other_shapes(tmp_path: Path) -> None:
    """It says what the shape needs, where to look, and what else there is."""
    with trainsets.lake_of(tmp_path / "lake", [{"type": "t", "data": {"a": 1}}]) as lake:
        assert isinstance(lake, lakelog.Lake)
        with pytest.raises(ExportRefused) as caught:
            train.export(lake, trainsets.recipe("text"), str(tmp_path / "set"))
    assert str(caught.value) == (
        "no row of the selection fits the shape text, which needs rows with text in the column that"
        " [shape] text names; there are rows without text (1); check [select] sql and [shape] in"
        " recipe, or choose another shape:"
        " events, classification, messages, decision, preference, sequence"
    )


def test_a_count_agrees_with_its_noun_and_verb() -> None:
    """One row is, two rows are, and a thousand has its comma."""
    words = [quantity(n, "row", "is", "are") for n in (0, 1, 2, 1000)]
    assert words == ["0 rows are", "1 row is", "2 rows are", "1,000 rows are"]
    assert quantity(1, "value") == "1 value"


@pytest.mark.parametrize(
    "value",
    [
        "INTERVAL 3 DAYS",
        "union_value(n := 2)",
        "[1.0]::FLOAT[1]",
        "{'m': [MAP{'a': 1}]}",
        "'101'::BIT",
        "seq::UHUGEINT",
        "TIMETZ '12:00:00+05'",
    ],
)
def test_a_column_that_loaders_cannot_read_is_refused(tmp_path: Path, value: str) -> None:
    """The message says how to convert it, and that way gives a set that its check finds clean."""
    with trainsets.lake_of(tmp_path / "lake", trainsets.notes(200, 60)) as lake:
        sql = f"SELECT subject, message, {value} AS odd FROM events ORDER BY seq"
        recipe = trainsets.recipe("events", select={"sql": sql})
        with pytest.raises(ExportRefused, match=r"column 'odd' of type .* x::VARCHAR"):
            train.export(lake, recipe, str(tmp_path / "set"))
        recipe["select"]["sql"] = sql.replace(" AS odd", "::VARCHAR AS odd")
        train.export(lake, recipe, str(tmp_path / "set"))
    assert train.check(str(tmp_path / "set")).leaks == ()
