"""`lakelog patterns` and `patterns show`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import lakelog
from lakelog.cli import cli


@pytest.fixture
def lake(home: Path) -> Path:
    path = home / "lake"
    with lakelog.open(path) as lake:
        lake.append(
            [{"type": "log", "source": "db", "message": f"read {n} rows"} for n in range(9)]
        )
        lake.tag("v1")
        lake.append([{"type": "log", "source": "web", "message": "gave \x1b[31m up after 3 tries"}])
    return path


def run(lake: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--lake", str(lake), "patterns", *arguments])


def test_the_list(lake: Path) -> None:
    rows = [json.loads(line) for line in run(lake).stdout.splitlines()]
    assert [(row["template"], row["count"], row["source"]) for row in rows] == [
        ("read <*> rows", 9, "db"),
        ("gave \x1b[<*> up after <*> tries", 1, "web"),
    ]
    table = run(lake, "--format", "table", "-n", "1").stdout
    assert table.split() == [
        *("count", "share", "id", "template", "9", "90.0%", "█" * 8, rows[0]["pattern_id"]),
        *("read", "<*>", "rows", "1", "of", "2", "templates;", "-n", "2", "shows", "all"),
    ]
    assert "\x1b" not in run(lake, "--format", "table").stdout
    assert json.loads(run(lake, "--new", "v1").stdout)["template"].endswith("tries")
    assert json.loads(run(lake, "--at", "v1").stdout)["count"] == 9
    assert run(lake, "--gone", "v1", "--format", "csv").stdout.count("read <*> rows") == 1
    assert json.loads(run(lake, "--source", "web").stdout)["share"] == 1.0
    assert len(run(lake, "--since", "2h").stdout.splitlines()) == 2
    assert run(lake, "--until", "2h").output == ""
    assert run(lake, "--until", "2h", "--format", "table").output == "no templates\n"


def test_one_of_them(lake: Path) -> None:
    template = json.loads(run(lake, "--source", "web").stdout)["pattern_id"]
    text = run(lake, "show", template, "--format", "table").stdout
    assert "1 message, 10.0% of all; web" in text
    assert "\x1b" not in text
    assert json.loads(run(lake, "show", template).stdout)["source"] == "web"


def test_what_does_not_go(lake: Path) -> None:
    for arguments, said in (
        (("show", "nope"), "no pattern 'nope': `lakelog patterns` lists them"),
        (("--new", "v1", "--gone", "v1"), "--new and --gone do not go together"),
        (("--source", "web", "show", "x"), "options of show come after it"),
        (("--new", "nowhere"), "nowhere"),
    ):
        result = run(lake, *arguments)
        assert result.exit_code in (1, 2), arguments
        assert said in result.stderr, arguments
