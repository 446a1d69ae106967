"""The demonstration of the OOS log stream, and the check of its components."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lakelog.cli import cli
from lakelog.oos import oos_demo


def test_every_component_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`validate` checks all of them and leaves nothing behind; `demo` writes its results."""
    monkeypatch.chdir(tmp_path)
    checked = CliRunner().invoke(cli, ["oos", "validate", "--json"])
    assert checked.exit_code == 0, checked.output
    record = json.loads(checked.stdout)
    assert record["passed"] is True
    assert [check["component"] for check in record["checks"]] == [
        *("OOS logger", "processing", "views", "end to end", "AI logger", "lake", "database sync")
    ]
    assert list(tmp_path.iterdir()) == []
    shown = CliRunner().invoke(cli, ["oos", "demo"])
    assert shown.exit_code == 0, shown.output
    results = json.loads((tmp_path / "demo_results.json").read_text())
    assert results["answers"]["views"]["podcast_status"]["completed"] == 23
    assert results["answers"]["end to end"]["errors"]["total_failures"] == 2


def test_a_component_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are checked all the same, and the exit code tells."""
    monkeypatch.setattr(oos_demo, "EPISODES", 9)
    monkeypatch.setattr(oos_demo, "_BAD", "nothing")
    checked = CliRunner().invoke(cli, ["oos", "validate"])
    assert checked.exit_code == 3
    assert "completed episodes: 27 instead of 26" in checked.stderr
    assert "AI logger" in checked.stderr
