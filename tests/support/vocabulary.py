"""How a tree is worded: what its bindings are called, which names of types it defines more than
once, how often it says Any, and how many names one package takes from another.

    python -m tests.support.vocabulary

prints the figures of each package, for the ceilings in tests/vocabulary.toml.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.tree import Sources, nodes, sources

VAGUE = frozenset(
    """one more other others few rest each first last second part parts piece pieces words text
    texts way ways kind side much many most least what who where when at on by of to now then there
    here own mine theirs""".split()
)
"""Names that fit anything: they say nothing of what they hold."""
PARTICIPLES = frozenset(
    """found made kept held told known given asked taken gone begun done lost left shown said meant
    seen wanted listed opened read written sent stored saved named chosen cut put set grown fitted
    merged typed packed loaded bound alike apart beside behind ahead aside below above anew
    again""".split()
)
"""What happened to a thing, or where it is, in place of what it is."""
_TYPE_NAME = re.compile(r"_*[A-Z]\w*[a-z]\w*\Z")


@dataclass
class Wording:
    """The figures of one package."""

    bindings: int = 0
    vague: int = 0
    participles: int = 0
    anys: int = 0
    lines: int = 0
    taken: int = 0
    """Names that other packages take from it."""

    def figures(self) -> dict[str, float]:
        """Return what has a ceiling: shares of all bindings in percent, Any per 1,000 lines, and
        names."""
        bindings, lines = max(self.bindings, 1), max(self.lines, 1)
        return {
            "vague": round(100 * self.vague / bindings, 1),
            "participles": round(100 * self.participles / bindings, 1),
            "any": round(1000 * self.anys / lines, 1),
            "taken": self.taken,
        }


def package_of(path: str) -> str:
    """Return the package of a path: store for lakelog/store/wal.py, lakelog for lakelog/lake.py."""
    folders = path.split("/")
    return folders[1] if len(folders) > 2 else folders[0]


def bindings(text: str) -> Iterator[str]:
    """Yield the names of parameters and variables, once for each place that binds one."""
    for node in nodes(text, ast.Name):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id.strip("_")
    for node in nodes(text, ast.arg):
        if isinstance(node, ast.arg):
            yield node.arg.strip("_")


def type_names(text: str) -> Iterator[str]:
    """Yield the names of the classes and aliases of types that a module defines at its top."""
    for node in nodes(text, ast.Module):
        for statement in getattr(node, "body", ()):
            if isinstance(statement, ast.ClassDef):
                yield statement.name
            elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                target = statement.targets[0]
                if isinstance(target, ast.Name) and _TYPE_NAME.match(target.id):
                    yield target.id
            elif isinstance(statement, ast.AnnAssign) and _is_alias(statement):
                yield ast.unparse(statement.target)


def _is_alias(statement: ast.AnnAssign) -> bool:
    return ast.unparse(statement.annotation) == "TypeAlias"


def repeated_types(tree: Sources) -> dict[str, list[str]]:
    """Return the modules that define a name of a type which stands in another one too."""
    places = defaultdict[str, list[str]](list)
    for path, text in tree.items():
        for name in set(type_names(text)):
            places[name].append(path)
    return {name: paths for name, paths in sorted(places.items()) if len(paths) > 1}


def names_taken(tree: Sources) -> dict[str, set[str]]:
    """Return, for each package, the names of it that other packages use."""
    modules = {_dotted(path): path for path in tree}
    taken = defaultdict[str, set[str]](set)
    for path, text in tree.items():
        home, aliases = package_of(path), dict[str, str]()
        for node in nodes(text, ast.ImportFrom):
            assert isinstance(node, ast.ImportFrom)
            for imported in node.names if node.module else ():
                whole = f"{node.module}.{imported.name}"
                if whole in modules:
                    aliases[imported.asname or imported.name] = whole
                elif node.module in modules and package_of(modules[node.module]) != home:
                    taken[package_of(modules[node.module])].add(whole)
        for node in nodes(text, ast.Import):
            assert isinstance(node, ast.Import)
            known = (name for name in node.names if name.asname and name.name in modules)
            aliases |= {str(name.asname): name.name for name in known}
        for node in nodes(text, ast.Attribute):
            assert isinstance(node, ast.Attribute)
            if isinstance(node.value, ast.Name) and node.value.id in aliases:
                module = aliases[node.value.id]
                if package_of(modules[module]) != home:
                    taken[package_of(modules[module])].add(f"{module}.{node.attr}")
    return taken


def _dotted(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def measure(tree: Sources) -> dict[str, Wording]:
    """Return the figures of each package."""
    packages = defaultdict[str, Wording](Wording)
    for path, text in tree.items():
        wording = packages[package_of(path)]
        for name in bindings(text):
            wording.bindings += 1
            wording.vague += name in VAGUE
            wording.participles += name in PARTICIPLES
        wording.lines += text.count("\n")
        names = nodes(text, ast.Name)
        wording.anys += sum(isinstance(node, ast.Name) and node.id == "Any" for node in names)
    for package, names_of_it in names_taken(tree).items():
        packages[package].taken = len(names_of_it)
    return dict(packages)


def _main() -> None:
    tree = sources("lakelog")
    for package, wording in sorted(measure(tree).items()):
        figures = ", ".join(f"{name} = {value}" for name, value in wording.figures().items())
        print(f"{package} = {{ {figures} }}")
    print("repeated_types =", list(repeated_types(tree)))


if __name__ == "__main__":
    _main()
