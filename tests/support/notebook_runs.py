"""The notebooks in `notebooks/`: run them, compare what they show, write it into them.

    python -m tests.support.notebook_runs [--write] [--html DIR] [NOTEBOOK...]

They run in their own directory, as Jupyter would run them. What differs from run to run (times of
the clock, ids, sizes, rates, images) is compared by its form only.
"""

from __future__ import annotations

import argparse
import difflib
import html
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from tests.support.pages import stable

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "notebooks"
SECONDS = 200
_TAG = re.compile(r"<(?:/?(?:b|i|code|small|span|th|td|thead|tbody|table|p)\b[^>]*)>")
_VERSION = re.compile(r"vegalite\.v\d+|VegaLite \d+")
"""How charts name the version of Vega-Lite, which is that of Altair."""
_PLACE = re.compile(r"/\S*lakelog-notebook-\w+|…\w+(?=/)")
Notebook = Any


def paths() -> list[Path]:
    """The notebooks, in order."""
    return sorted(FOLDER.glob("*.ipynb"))


def executed(path: Path) -> Notebook:
    """Return a notebook as it is after a run of all cells. Raises CellExecutionError."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    wanted = {"PYTHONPATH": str(ROOT), "LAKELOG_AUTHOR": "ada@laptop", "TZ": "UTC"}
    environment = {**os.environ, **wanted, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    environment.pop("LAKELOG_LAKE", None)
    with tempfile.TemporaryDirectory() as folder:  # a socket's path may not be long
        # Not ports: they are chosen, and taken when the kernel has started, by others too.
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/kernel")
        client = NotebookClient(
            notebook,
            km=kernel,
            timeout=SECONDS,
            startup_timeout=SECONDS,
            resources={"metadata": {"path": str(FOLDER)}},
        )
        client.execute(env=environment)
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number}"
        cell.metadata = {}
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not _was_progress(output)]
    spec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": spec, "language_info": {"name": "python"}}
    return notebook


def _was_progress(output: Any) -> bool:
    """Whether it said how far a query was that took longer than a second, and was wiped off."""
    return dict(output.get("data", {})) == {"text/plain": ""}


def warnings(notebook: Notebook) -> list[str]:
    """What the cells wrote to stderr."""
    return [
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream" and output.name == "stderr"
    ]


def differences(committed: Notebook, seen: Notebook) -> str:
    """Return how the output of a run differs from the committed one, as a diff; or nothing."""
    before, after = [*_lines(committed)], [*_lines(seen)]
    return "\n".join(difflib.unified_diff(before, after, "committed", "now", lineterm="", n=1))


def _lines(notebook: Notebook) -> Iterator[str]:
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", ()):
            yield f"--- output of cell {number}: {output.output_type}"
            if output.output_type == "stream":
                yield from _stable(output.text)
            for kind, value in sorted(output.get("data", {}).items()):
                yield f"- {_VERSION.sub('vegalite', kind)}"
                if kind == "text/plain":
                    yield from _stable(value)
                elif kind == "text/html":
                    yield from _stable(html.unescape(_TAG.sub(" ", value.replace("</t", "\n</t"))))
                elif "json" in kind:
                    yield json.dumps([value["mark"], value["encoding"]], sort_keys=True)


def _stable(text: str) -> list[str]:
    return stable(_PLACE.sub("PLACE", _VERSION.sub("VegaLite", text)))


def main() -> int:
    """Run notebooks; 1 if one fails, warns or shows something else than before."""
    parser = argparse.ArgumentParser(description="Run the notebooks and compare what they show.")
    parser.add_argument("--write", action="store_true", help="write the output into them")
    parser.add_argument("--html", type=Path, metavar="DIR", help="write pages there")
    parser.add_argument("notebooks", nargs="*", type=Path)
    given = parser.parse_args()
    failed = False
    for path in given.notebooks or paths():
        committed = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        seen = executed(path)
        changed, warned = differences(committed, seen), warnings(seen)
        failed |= bool(warned) or bool(changed and not given.write)
        if given.write and changed:
            nbformat.write(seen, path)  # type: ignore[no-untyped-call]
        if given.html:
            _page(seen, given.html / f"{path.stem}.html")
        state = "written" if given.write and changed else changed or "as committed"
        print("\n".join([f"{path.name}: {state}", *warned]), flush=True)
    return int(failed)


def _page(notebook: Notebook, path: Path) -> None:
    from nbconvert import HTMLExporter

    path.parent.mkdir(parents=True, exist_ok=True)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    path.write_text(page, "utf-8")


if __name__ == "__main__":
    sys.exit(main())
