"""The README and the guides, run as a reader would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *GUIDES]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
LINES_MAX = 200


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return (language, text) of the page's blocks that can be run, in order."""
    return BLOCK.findall(page.read_text("utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """All blocks of a page run one after another in an empty directory."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "LAKELOG_LAKE": "lake"}
    assert len(blocks(page)) >= 2
    for language, text in blocks(page):
        command = ["sh", "-euc", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


CELLS = re.compile(r"^```ipython\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NOTEBOOK = """
import sys
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance().run_cell(sys.stdin.read()).raise_error()
"""


def test_cells_of_a_notebook_run(tmp_path: Path) -> None:
    """What the guide shows for notebooks runs there, over the events that the page starts with."""
    pytest.importorskip(
        "sql.magic", reason="NOT TESTED: jupysql is not installed", exc_type=ImportError
    )
    page = ROOT / "docs" / "querying.md"
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    environment = {
        **os.environ,
        "PATH": path,
        "LAKELOG_LAKE": "lake",
        "IPYTHONDIR": str(tmp_path),
        "PLOOMBER_STATS_ENABLED": "false",
        "HOME": str(tmp_path),
    }
    start = ["sh", "-euc", blocks(page)[0][1]]
    subprocess.run(start, cwd=tmp_path, env=environment, check=True)
    (cells,) = CELLS.findall(page.read_text("utf-8"))
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK],
        cwd=tmp_path,
        env=environment,
        input=cells,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *GUIDES], ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    """Each relative link of a document names a file of the project."""
    links = [link for link in LINK.findall(page.read_text("utf-8")) if "://" not in link]
    missing = [link for link in links if not (page.parent / link.split("#")[0]).exists()]
    assert not missing


def test_the_readme_is_short_and_links_every_guide() -> None:
    """At most 200 lines; what is longer is a guide, and each guide is linked."""
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= LINES_MAX
    linked = set(LINK.findall(text))
    assert {f"docs/{guide.name}" for guide in GUIDES} <= linked
