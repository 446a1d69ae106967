"""Completion in a shell: what is offered for a line, and how it comes into the line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lakelog
from tests.support.cli import offers, run
from tests.support.requirements import need

TAGS = ("v1", "v:2", "mit leer", "it's", "dollar$x", "a,b", "Größe")


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A lake with tags that a shell has to quote, a branch, a view, a token and events."""
    path = tmp_path / "lake"
    event = {"type": "FAIL", "source": "Tech Podcast", "subject": "ep:1"}
    with lakelog.open(str(path)) as opened:
        opened.append([event, {"type": "Größe", "source": "a,b", "subject": "ünï"}])
        for tag in TAGS:
            opened.tag(tag)
        opened.branch("exp")
    run(path, "view", "create", "slow", "-", input="SELECT type FROM events")
    run(path, "token", "add", "grafana", "--scope", "read")
    run(path, "remote", "add", "origin", str(tmp_path / "remote"))
    return path


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(tmp_path: Path, shell: str) -> None:
    """completion prints the shell's script, which calls lakelog back."""
    assert f"_LAKELOG_COMPLETE={shell}_complete" in run(tmp_path, "completion", shell).stdout


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("lakelog roll", ["rollback"]),
        ("lakelog --li", []),
        ("lakelog --la", ["--lake"]),
        ("lakelog --lake LAKE rollback v", ["v:2", "v1"]),
        ("lakelog --lake LAKE diff m", ["mit leer", "main"]),
        ("lakelog --lake LAKE --branch m", ["main"]),
        ("lakelog config get se", ["seal", "segment_rows", "segment_bytes"]),
        ("lakelog init --setting se", ["seal=", "segment_rows=", "segment_bytes="]),
        ("lakelog --lake /nowhere show v", []),
        ("lakelog --lake LAKE tag v", ["v:2", "v1"]),
        ("lakelog --lake LAKE view rel", ["reliability"]),
        ("lakelog --lake LAKE view slo", ["slow"]),
        ("lakelog --lake LAKE view drop s", ["slow"]),
        ("lakelog --lake LAKE export slo", ["slow"]),
        ("lakelog help exp", ["export", "expire"]),
        ("lakelog help train ch", ["check"]),
        ("lakelog --lake LAKE push o", ["origin"]),
        ("lakelog --lake LAKE append --type ", ["FAIL", "Größe"]),
        ("lakelog --lake LAKE patterns --source T", ["Tech Podcast"]),
        ("lakelog --lake LAKE stream e", ["ep:1"]),
        ("lakelog --lake LAKE token revoke g", ["grafana"]),
    ],
)
def test_names_are_completed(lake: Path, line: str, found: list[str]) -> None:
    """Verbs, options and what a lake has are completed; an absent lake completes nothing."""
    assert offers(line.replace("LAKE", str(lake))) == found


@pytest.mark.parametrize(
    "line",
    [
        "lakelog show --lake LAKE v",
        "lakelog --lake=LAKE show v",
        "lakelog --lake '~/lake' show v",
        "lakelog --lake $HOME/lake show v",
        "lakelog show v",
    ],
)
def test_the_lake_is_found_wherever_it_is_named(lake: Path, line: str) -> None:
    """Before and after the verb, as a shell would have expanded it, and in the environment."""
    environment = {"HOME": str(lake.parent), "LAKELOG_LAKE": "" if "lake " in line else str(lake)}
    assert offers(line.replace("LAKE", str(lake)), **environment) == ["v:2", "v1"]


def test_verbs_are_completed_without_loading_them(tmp_path: Path) -> None:
    """The first Tab costs what the start of the program does, not the loading of all verbs."""
    code = "from lakelog.cli import main\ntry:\n main()\nfinally:\n"
    code += " import sys; print('lakelog.cli.train' in sys.modules, file=sys.stderr)"
    environment = {**os.environ, "COMP_LINE": "lakelog t", "_LAKELOG_COMPLETE": "zsh_complete"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert "plain\ttrain\tbuild and check leak-free training sets" in done.stdout
    assert done.stderr == "False\n"


@pytest.mark.parametrize(
    ("shell", "line", "found"),
    [
        ("zsh", "lakelog show v:", ["v\\:2"]),
        ("zsh", "lakelog show 'mi", ["mit leer"]),
        ("zsh", "lakelog --branch=e", ["exp"]),
        ("fish", "lakelog show a", ["a,b"]),
        ("fish", "lakelog show v:", ["v:2"]),
        ("fish", "lakelog --branch=e", ["--branch=exp"]),
    ],
)
def test_offers_are_what_the_shell_takes(
    lake: Path, shell: str, line: str, found: list[str]
) -> None:
    """zsh completes the value of --option=value, fish the whole word; commas stay."""
    assert offers(line, shell, LAKELOG_LAKE=str(lake)) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("lakelog show v", ["v:2", "v1"]),
        ("lakelog show v:", ["2"]),
        ("lakelog show i", ["it\\'s"]),
        ("lakelog show mit\\ ", ["mit\\ leer"]),
        ("lakelog show 'mi", ["mit leer"]),
        ("lakelog show 'i", ["it'\\''s"]),
        ("lakelog show d", ["dollar\\$x"]),
        ('lakelog show "d', ["dollar\\$x"]),
        ("lakelog show a", ["a,b"]),
        ("lakelog --branch=e", ["exp"]),
        ("lakelog sql --format=md", ["md"]),
        ("lakelog config set gc", ["gc_grace_hours="]),
    ],
)
def test_bash_gets_what_stands_in_its_line(lake: Path, line: str, found: list[str]) -> None:
    """The offers of bash are quoted as the word is, and replace what its line editor replaces."""
    need("bash")
    script = run(lake, "completion", "bash").stdout
    words = line.split(" ")
    asked = f"""{script}
lakelog() {{ {sys.executable} -m lakelog; }}
compopt() {{ :; }}
COMP_LINE=$1 COMP_POINT=${{#1}} COMP_WORDS=({"x " * len(words)}) COMP_CWORD={len(words) - 1}
_lakelog_completion lakelog
printf '%s\n' "${{COMPREPLY[@]}}"
"""
    environment = {**os.environ, "LAKELOG_LAKE": str(lake)}
    command = ["bash", "--norc", "-c", asked, "bash", line]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert (done.stdout.splitlines(), done.stderr) == (found, "")
