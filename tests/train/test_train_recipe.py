"""Recipes: every key is checked, every fault is one line that names file and key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lakelog.cli import cli
from lakelog.errors import InvalidRecipe
from lakelog.train import recipe
from lakelog.train.recipe_schema import KEYS, SHAPES, template
from tests.support.tree import ROOT

GOOD = '[select]\nsql = "SELECT 1"\n[shape]\nkind = "text"\n'


@pytest.mark.parametrize("kind", SHAPES)
def test_the_commented_recipe_is_in_force(kind: str) -> None:
    """What `train init` prints is a recipe as it stands, and with every key uncommented too."""
    text = template(kind, "demo")
    assert recipe.parse(text, "demo.toml").kind == kind
    key = re.compile(r"# ([a-z_]+ = )")
    lines = [key.sub(r"\1", line) for line in text.splitlines()]
    if kind != "preference":
        assert recipe.parse("\n".join(lines), "demo.toml").kind == kind


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("[selct]", "unknown key 'selct': did you mean select?"),
        ("[dedupe]\nexcat = true", "unknown key [dedupe] excat: did you mean exact?"),
        ("[split]\ntrain = 0.5\ntest = 0.6", "train 0.5 + test 0.6 is 1.1, it must be 1"),
        ("[split]\ntrain = 2", "[split] train is a part from 0 to 1, not 2"),
        ("[split]\nbefore = 'soon'", "[split] before is a time"),
        ("[split]\nbefore = 2026-01-01\ntrain = 1", "before needs a test part"),
        ("[split]\ntrain = '1'", "[split] train is a number, not '1'"),
        ("[dedupe]\nnear = 0.2", "Jaccard index from 0.5 to 1, not 0.2"),
        ("[dedupe]\nkeep = 'any'", "[dedupe] keep is one of first, last, not 'any'"),
        ("[redact]\nkinds = ['mail']", "[redact] kinds has no 'mail': did you mean email?"),
        ("[redact]\nkinds = 'all'\nmode = 'pseudonym'", "[redact] key_env is missing"),
        ("[redact]\nkey_env = 's3cret-key'", "never the key itself"),
        ("[budget]\nrows = 0", "[budget] rows is a number above 0, not 0"),
        ("split = 3", "[shape] split"),
        ("length = 3", "[shape] length belongs to sequence, not to text"),
    ],
)
def test_a_fault_names_the_key(more: str, words: str) -> None:
    """An unknown key, a wrong type or a value that cannot be is told in one line."""
    with pytest.raises(InvalidRecipe, match=r"^bad\.toml: ") as raised:
        recipe.parse(GOOD + more, "bad.toml")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"shape": {"kind": "text"}}, "[select] sql is missing"),
        ({"select": {"sql": "x"}}, "[shape] kind is missing"),
        ({"select": {"sql": "x"}, "shape": {"kind": "chat"}}, "[shape] kind is one of"),
        ({"select": {"sql": "x"}, "shape": {"kind": "classification"}}, "[shape] label"),
        ({"select": {"sql": "x"}, "shape": {"kind": "decision"}}, "[shape] outcome"),
        ({"select": {"sql": "x"}, "shape": {"kind": "preference"}}, "chosen and rejected, or"),
        ({"select": 3}, "[select] is a table"),
    ],
)
def test_what_a_shape_needs_is_asked_for(made: dict[str, Any], words: str) -> None:
    """A key that the shape cannot do without is named."""
    with pytest.raises(InvalidRecipe) as raised:
        recipe.load(made)
    assert words in str(raised.value)


def test_a_dict_and_its_text_are_one_recipe() -> None:
    """A recipe given as a dict has the text it would have as a file."""
    made = {"name": 'a "b"\n', "select": {"sql": "SELECT 'x\\y'"}, "shape": {"kind": "text"}}
    loaded = recipe.load(made)
    assert recipe.parse(loaded.text, "x.toml").select == loaded.select
    assert recipe.parse(loaded.text, "x.toml").name == made["name"]


def test_init_writes_a_file_once(home: Path) -> None:
    """`train init -o` writes a recipe and never over another."""
    run = CliRunner()
    assert run.invoke(cli, ["train", "init", "events", "-o", f"{home}/a.toml"]).exit_code == 0
    assert recipe.load(home / "a.toml").name == "a"
    again = run.invoke(cli, ["train", "init", "events", "-o", f"{home}/a.toml"])
    assert again.exit_code == 1
    assert "exists" in again.output


def test_a_recipe_that_is_not_there_or_no_toml(home: Path) -> None:
    """A missing file and broken TOML are named."""
    with pytest.raises(InvalidRecipe, match="no such recipe"):
        recipe.load(home / "none.toml")
    (home / "bad.toml").write_text("[select\n")
    with pytest.raises(InvalidRecipe, match=r"bad\.toml"):
        recipe.load(home / "bad.toml")


def test_every_key_is_documented() -> None:
    """The guide names every section and key of the grammar, and every shape."""
    page = (ROOT / "docs" / "training.md").read_text()
    for section, keys in KEYS.items():
        assert f"`[{section}]`" in page
        assert not [key for key in keys if f"`{key}`" not in page]
    assert not [shape for shape in SHAPES if f"`{shape}`" not in page]
