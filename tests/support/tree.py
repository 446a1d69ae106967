"""Where the project is, its source texts, and the real files beside it, where they are there."""

from __future__ import annotations

import ast
import functools
import gc
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
Sources = dict[str, str]
"""Source text by path from the root, so that a planted breach is one line."""
Function = ast.FunctionDef | ast.AsyncFunctionDef
Module = tuple[str, ...]
OWN = "lakelog"


def sources(*folders: str) -> Sources:
    """Return the Python files below the folders: path from the root to source text."""
    return {path: text for folder in folders for path, text in _read(folder).items()}


@functools.cache
def _read(folder: str) -> Sources:
    # The same texts each time: what is kept by text would hash new ones from end to end.
    files = sorted((ROOT / folder).rglob("*.py"))
    return {file.relative_to(ROOT).as_posix(): file.read_text("utf-8") for file in files}


@functools.cache
def parsed(text: str) -> ast.Module:
    """Return the tree of a source text."""
    return ast.parse(text)


@functools.cache
def _by_kind(text: str) -> dict[type[ast.AST], list[ast.AST]]:
    """The nodes of a source text: it is walked once, however many rules look at it.

    They stay, millions of them, and searches for garbage leave them out.
    """
    found: dict[type[ast.AST], list[ast.AST]] = {}
    gc.disable()
    try:
        for node in ast.walk(parsed(text)):
            found.setdefault(type(node), []).append(node)
    finally:
        gc.freeze()
        gc.enable()
    return found


def nodes(text: str, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes of these kinds in a source text."""
    found = _by_kind(text)
    for kind in kinds:
        yield from found.get(kind, ())


def functions(text: str) -> Iterator[Function]:
    """Yield the functions and methods of a source text."""
    yield from nodes(text, ast.FunctionDef, ast.AsyncFunctionDef)  # type: ignore[misc]


def module_of(path: str) -> Module:
    """Return lakelog/store/wal.py as ("store", "wal")."""
    return tuple(path.removesuffix(".py").split("/")[1:])


def dotted(module: Module) -> str:
    """Return ("store", "wal") as lakelog.store.wal."""
    return ".".join((OWN, *module)).removesuffix(".__init__")


def imported_names(node: ast.AST, importer: Module) -> Iterator[str]:
    """Yield the dotted names that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = [OWN, *importer[: len(importer) - node.level]] if node.level else []
        yield from (".".join([*above, *filter(None, [node.module, a.name])]) for a in node.names)


def behind_face(name: str, text: str, tree: Sources) -> set[str]:
    """Return what of our own a name loads that a module imports: of a lazy face, what it uses."""
    if not name.startswith(f"{OWN}."):
        return set()
    package, face = name.split(".")[1], tree.get(f"{OWN}/{name.split('.')[1]}/__init__.py", "")
    if "lazy_face" not in face:
        return {name}
    homes = {
        alias.name: f"{node.module}.{alias.name}"
        for node in nodes(face, ast.ImportFrom)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    if name != f"{OWN}.{package}":
        return {homes.get(name.split(".")[-1], name)}
    used = {
        node.attr
        for node in nodes(text, ast.Attribute)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[-1] == package
    }
    return {homes[attribute] for attribute in used & homes.keys()} or set(homes.values())
