"""The names that programs, people and backups rely on.

`python -m tests.support.public_surface` writes the list for
`tests/test_public_surface.py`.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import click

import lakelog
from lakelog.cli import cli
from tests.support.tree import ROOT

FILE = ROOT / "tests/public_surface.json"
_IMPORTS = re.compile(r"from (lakelog[\w.]*) import ([\w, ]+)")
_REFERENCES = re.compile(r"auto(?:class|function|module):: (lakelog[\w.]*)")


def surface() -> dict[str, Any]:
    """Return what is public now, except the documented imports, which only grow."""
    return {
        "all": lakelog.__all__,
        "dir": [name for name in dir(lakelog) if not name.startswith("_")],
        "older systems": older_systems(),
        "programs": programs(),
        "verbs": verbs(cli, click.Context(cli, info_name="lakelog")),
        "files of a lake": files_of_a_lake(),
    }


def documented_imports() -> list[str]:
    """Return each import that a page, notebook or the reference shows, as "module:name"."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*"), *(ROOT / "notebooks").glob("*.ipynb")]
    texts = [page.read_text() for page in pages if page.suffix in (".md", ".rst", ".ipynb")]
    found = {
        f"{module}:{name.strip()}"
        for text in texts
        for module, names in _IMPORTS.findall(text)
        for name in names.split(",")
    }
    for text in texts:
        found |= {resolved(path) for path in _REFERENCES.findall(text)}
    return sorted(found)


def resolved(path: str) -> str:
    """Return a dotted path as "module:name", or "module:" if it is a module."""
    module, _, name = path.rpartition(".")
    try:
        importlib.import_module(path)
    except ImportError:
        return f"{module}:{name}"
    return f"{path}:"


def older_systems() -> dict[str, list[str]]:
    """Return the modules of older systems with the public names that each defines."""
    names = []
    for home in ("lakelog.compat", "lakelog.containers", "lakelog.oos"):
        package = importlib.import_module(home)
        names += [found.name for found in pkgutil.iter_modules(package.__path__, f"{home}.")]
    return {name: defined_names(importlib.import_module(name)) for name in sorted(names)}


def defined_names(module: ModuleType) -> list[str]:
    """Return the public names that a module defines and does not import."""
    values = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    own = module.__name__
    return sorted(name for name, value in values.items() if own == getattr(value, "__module__", ""))


def programs() -> dict[str, str]:
    """Return the programs that an installation has, and what they call."""
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])


def verbs(command: click.Command, context: click.Context) -> dict[str, Any]:
    """Return the options and arguments of a verb, and its own verbs."""
    shown: dict[str, Any] = {
        "parameters": sorted(
            " ".join([*option.opts, *option.secondary_opts, option.type.name])
            for option in command.params
        )
    }
    if isinstance(command, click.Group):
        children = {
            name: command.get_command(context, name) for name in command.list_commands(context)
        }
        shown["verbs"] = {
            name: verbs(child, click.Context(child, parent=context, info_name=name))
            for name, child in children.items()
            if child is not None
        }
    return shown


def files_of_a_lake() -> list[str]:
    """Return the files of a lake after an append, a seal and a tag, numbers and hashes as `*`."""
    with TemporaryDirectory() as place:
        root = Path(place) / "lake"
        with lakelog.open(root) as lake:
            lake.append({"type": "A", "subject": "s", "data": {"n": 1}})
            lake.snapshot("sealed")
            lake.tag("v1")
            lake.append({"type": "B"})
        paths = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    return sorted(
        {re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{2,}\b|\b[0-9a-f]{2}(?=/)|\d+", "*", p) for p in paths}
    )


if __name__ == "__main__":
    former = json.loads(FILE.read_text())["documented imports"] if FILE.exists() else []
    content = {**surface(), "documented imports": sorted({*former, *documented_imports()})}
    FILE.write_text(json.dumps(content, indent=1) + "\n")
