"""The README and the guides, run as a reader would run them, and the links of all documents."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lakelog
from tests.support import pages
from tests.support.requirements import need, need_module
from tests.support.tree import ROOT

README = ROOT / "README.md"
INDEX = ROOT / "docs" / "index.md"
GUIDES = sorted(set((ROOT / "docs").glob("*.md")) - {INDEX})
RUN = [README, *GUIDES]
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.md"))
NESTED = sorted((ROOT / "docs").glob("*/README.md"))
DOCUMENTS = [*sorted(ROOT.glob("*.md")), INDEX, *GUIDES, *NESTED, *BENCHMARKS]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LINES_MAX = 200


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.thorough if p.parent != ROOT else ()) for p in RUN],
    ids=name_of,
)
def test_every_block_of_a_page_runs_and_prints_what_it_shows(page: Path, tmp_path: Path) -> None:
    """All blocks of a page run one after another in an empty directory."""
    need(*pages.programs(page))
    faults = list(pages.run(page, tmp_path))
    assert not faults, "\n\n".join(faults)


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_every_block_of_a_page_is_one_that_is_run(page: Path) -> None:
    """Only diagrams and commands that need another machine or root stand as plain text."""
    languages = [language for language, _ in pages.blocks(page)]
    assert len(languages) == len(FENCE.findall(page.read_text("utf-8")))
    assert set(languages) <= {*pages.RUN, "ipython", "text"}
    assert set(languages) & set(pages.RUN)


@pytest.mark.parametrize(
    ("expected", "printed", "agree"),
    [
        ("stored 3 events in 0.0 s\n", "stored 3 events in 1.5 s\n", True),
        ("stored 3 events in 0.0 s\n", "stored 4 events in 0.0 s\n", False),
        ("tag v1 names 28496b88dfdf\n", "tag v1 names c8a755470abc\n", True),
        ("one\n...\nfour\n", "one\ntwo\nthree\nfour\n", True),
        ("one\n...\nfour\n", "one\ntwo\nthree\n", False),
        ("python ... on Linux\n", "python 3.13.1 on Linux\n", True),
        ("python ... on Linux\n", "python 3.13.1\non Linux\n", False),
        ("4 rows, 22 rows/s\n", "4 rows, 5 rows/s\n", True),
        ("n\n─\n1\n", "n\n────\n1\n", True),
        ("one\n", "one\ntwo\n", False),
    ],
)
def test_only_what_differs_from_run_to_run_may_differ(
    expected: str, printed: str, agree: bool
) -> None:
    """Times, ids and sizes are compared by their form, everything else by its text."""
    assert pages.agree(expected, printed) is agree


def test_programs_of_a_page_are_those_of_its_commands(tmp_path: Path) -> None:
    """What a page runs beyond a bare machine is found behind prompts and pipes, not in output."""
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ cat a | gzip > b && find .\ngrep\n```\n```python\nbash = 1\n```\n"
        "```sh\nskopeo list-tags x  # not podman\n```\n"
    )
    assert pages.programs(page) == ["find", "gzip", "skopeo"]


CELLS = re.compile(r"^```ipython\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NOTEBOOK = """
import sys
sys.modules["pyspark"] = None  # jupysql loads it where it is, and it ends a process with pandas 3
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance().run_cell(sys.stdin.read()).raise_error()
"""


@pytest.mark.parametrize("needs", ["", "jupysql"])
def test_cells_of_a_notebook_run(tmp_path: Path, needs: str) -> None:
    """What the guide shows for notebooks runs there, over the events that the page starts with."""
    need_module("IPython")
    if needs:
        need("sql.magic")  # a folder of tests is named sql
    page = ROOT / "docs" / "notebooks.md"
    environment = {
        **pages.environment(tmp_path),
        "IPYTHONDIR": str(tmp_path),
        "PLOOMBER_STATS_ENABLED": "false",
        "HOME": str(tmp_path),
    }
    start = ["sh", "-euc", next(text for kind, text in pages.blocks(page) if kind == "sh")]
    subprocess.run(start, cwd=tmp_path, env=environment, check=True)
    cells = CELLS.findall(page.read_text("utf-8"))
    chosen = [cell for cell in cells if ("# needs jupysql" in cell) == bool(needs)]
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK],
        cwd=tmp_path,
        env=environment,
        input="\n".join(chosen),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings have in a repository browser."""
    titles = HEADING.findall(FENCE.sub("", page.read_text("utf-8")))
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.strip().replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    """Each relative link names a file of the project and, behind #, a heading of it."""
    missing = []
    for link in LINK.findall(page.read_text("utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    assert not missing


def test_the_readme_is_short_and_links_every_guide() -> None:
    """At most 200 lines; what is longer is a guide, and each guide is linked."""
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= LINES_MAX
    linked = set(LINK.findall(text))
    assert {f"docs/{guide.name}" for guide in GUIDES} <= linked


def test_the_index_of_the_documentation_lists_every_document() -> None:
    """No document is left out of the built pages."""
    listed = set(INDEX.read_text("utf-8").split())
    wanted = {os.path.relpath(page.with_suffix(""), INDEX.parent) for page in DOCUMENTS}
    assert wanted - {"index"} <= listed


def test_the_reference_has_every_public_name() -> None:
    """A name that a program may import is described on the built pages."""
    page = (ROOT / "docs" / "api.rst").read_text("utf-8")
    described = set(re.findall(r"::\s+lakelog\.(?:\w+\.)*(\w+)$", page, re.MULTILINE))
    described |= {*dir(lakelog.errors), "__version__", "views"}
    assert set(lakelog.__all__) | {"train"} <= described


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    """What `make docs` does, where its generator is installed."""
    need_module("sphinx")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-c", ROOT / "docs", ROOT, tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "docs" / "api.html").exists()


def test_the_architecture_names_modules_that_exist() -> None:
    """Titles and first columns of tables are packages and modules of lakelog."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    places = re.findall(r"^## .+|^\| [^|]+", text, re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", "".join(places)))
    files = [path for path in (ROOT / "lakelog").rglob("*") if path.suffix in ("", ".py")]
    assert len(named) > 30
    assert not named - {path.stem for path in files}
