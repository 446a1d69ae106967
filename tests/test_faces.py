"""The faces of packages: others import only the names that a package's `__init__` lists.

FACES has the packages for which that holds; a further one is added there. As in the other laws, a
tree is a dict of path to source text, so that a planted breach is one line.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Iterator

import pytest

from tests.support.tree import Sources, nodes, sources

FACES = set(
    """alerts analyze anomalies appends arrays audit backup bloom chunks cli clients
    collect column_encodings compat consume containers database dataframes decisions
    deploy disk document engine entries erased erasure event eventsourcing export
    files folds forecasts formats frame_rows history identities ingest keys libraries
    lines loggers maintain manifest moves notebook oos open_tables outcomes paths
    patterns pictures pipeline proofs protect query ranks recent refs remotes render replay
    rollback runtime search segments server sql state store streams subscriptions sync
    tokenization top trace train typed_columns values views volume wal word_indexes
    workers""".split()
)
NAMES_MAX = 12
FACE_NODES = (ast.ImportFrom, ast.Assign, ast.AugAssign)


def face_of(package: str, tree: Sources) -> list[str]:
    """Return the names that a package imports as themselves or lists in `__all__`."""
    names = list[str]()
    for node in nodes(tree[f"lakelog/{package}/__init__.py"], *FACE_NODES):
        if isinstance(node, ast.ImportFrom):
            names += [alias.name for alias in node.names if alias.asname == alias.name]
        # In a lazy face these are the names that it defines itself.
        elif isinstance(node, FACE_NODES) and ast.unparse(node).startswith("__all__ "):
            names += ast.literal_eval(node.value)
    return names


@functools.cache
def imported(text: str) -> list[tuple[int, str]]:
    """Return the line and the dotted name of everything that a module imports, lazily or not."""
    return list(_imports(text))


@functools.cache
def attributes(text: str) -> list[tuple[int, str, str]]:
    """Return the attributes that a module takes: the line, of what, and the name."""
    return [
        (node.lineno, ast.unparse(node.value), node.attr)
        for node in nodes(text, ast.Attribute)
        if isinstance(node, ast.Attribute)
    ]


def _imports(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name of everything that a module imports, lazily or not."""
    for node in nodes(text, ast.Import, ast.ImportFrom, ast.Call):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "Lazy":
            # Of a name that is put together, its beginning says whose it is.
            yield node.lineno, ast.unparse(node.args[0]).lstrip("f").strip("'")


def aliases(text: str, package: str) -> set[str]:
    """Return the names under which a module has a package itself."""
    return _names_by_import(text).get(f"lakelog.{package}", set())


@functools.cache
def _names_by_import(text: str) -> dict[str, set[str]]:
    """Return the names under which a module has what it imports, by what that is."""
    names: dict[str, set[str]] = {}
    for node in nodes(text, ast.Import, ast.ImportFrom):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                whole = f"{getattr(node, 'module', None) or ''}.{alias.name}".strip(".")
                names.setdefault(whole, set()).add(alias.asname or alias.name)
    return names


def names_used(package: str, module: str, tree: Sources) -> set[str]:
    """Return the names that other packages use of a module that a face lists."""
    whole = f"lakelog.{package}.{module}"
    used = set()
    for path, text in tree.items():
        if path.startswith(f"lakelog/{package}/"):
            continue
        known_as = {
            alias.asname or alias.name
            for node in nodes(text, ast.ImportFrom)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if f"{node.module}.{alias.name}" == whole
        } | {f"{alias}.{module}" for alias in aliases(text, package)}
        used |= {
            name.removeprefix(f"{whole}.")
            for _, name in imported(text)
            if name.startswith(f"{whole}.")
        }
        used |= {name for _, value, name in attributes(text) if value in known_as}
    return used


def modules_of(package: str, face: list[str], tree: Sources) -> set[str]:
    """Return the modules that a face lists as such."""
    meant = {name for _, name in imported(tree[f"lakelog/{package}/__init__.py"])}
    return {name for name in face if f"lakelog.{package}.{name}" in meant}


def size_of(package: str, face: list[str], tree: Sources) -> int:
    """Return how many names a face has; a module counts as the names that are used of it."""
    modules = modules_of(package, face, tree)
    used = sum(len(names_used(package, module, tree)) for module in modules)
    return len(face) - len(modules) + used


def shadowed(package: str, face: list[str], tree: Sources) -> list[str]:
    """Return names of a lazy face that a module of the package replaces once it is loaded."""
    if "lazy_face" not in tree[f"lakelog/{package}/__init__.py"]:
        return []
    modules = modules_of(package, face, tree)
    return [name for name in face if f"lakelog/{package}/{name}.py" in tree and name not in modules]


def breaches(tree: Sources, packages: set[str] = FACES) -> list[str]:
    """Report what is taken from inside a package that has a face, and a face that is too long."""
    reported = []
    for package in sorted(packages):
        home, face = f"lakelog/{package}/", face_of(package, tree)
        modules = modules_of(package, face, tree)
        if not 0 < size_of(package, face, tree) <= NAMES_MAX:
            reported.append(f"{home}__init__.py: gives other than 1 to {NAMES_MAX} names")
        reported += [
            f"{home}__init__.py: {name} is also a module" for name in shadowed(package, face, tree)
        ]
        for path, text in tree.items():
            if path.startswith(home):
                continue
            names = [
                (line, name.removeprefix(f"lakelog.{package}."))
                for line, name in imported(text)
                if name.startswith(f"lakelog.{package}.")
            ]
            known_as = aliases(text, package)
            names += [(line, name) for line, value, name in attributes(text) if value in known_as]
            reported += [
                f"{path}:{line}: takes {name}, which is not in the face of {package}"
                for line, name in names
                if name not in face and name.split(".")[0] not in modules
            ]
    return reported


def test_faces_are_walls() -> None:
    """No module takes anything from such a package but the names of its face."""
    assert "\n".join(breaches(sources("lakelog"))) == ""


@pytest.mark.parametrize("package", sorted(FACES))
def test_a_face_gives_its_names(package: str) -> None:
    """Each name that a face lists is there, however late its module is loaded."""
    face = importlib.import_module(f"lakelog.{package}")
    assert sorted(face.__all__) == sorted(face_of(package, sources("lakelog")))
    assert [name for name in face.__all__ if getattr(face, name) is None] == []
    assert not hasattr(face, "no_such_name")


@pytest.mark.parametrize(
    ("path", "text", "count"),
    [
        ("cli/train.py", "import lakelog.train as sets\nsets.export, sets.rebuild", 0),
        ("cli/train.py", "from lakelog import train\ntrain.export()", 0),
        ("cli/train.py", "from lakelog.train import export, rebuild", 0),
        ("cli/train.py", "sets = Lazy('lakelog.train')", 0),
        ("train/leaks.py", "from lakelog.train import cluster", 0),
        ("cli/train.py", "from lakelog.train.leaks import Leak", 1),
        ("cli/train.py", "if TYPE_CHECKING:\n    from lakelog.train import leaks", 1),
        ("cli/train.py", "import lakelog.train.leaks", 1),
        ("cli/train.py", "leaks = Lazy('lakelog.train.leaks')", 1),
        ("cli/train.py", "leaks = Lazy(f'lakelog.train.{name}')", 1),
        ("cli/train.py", "import lakelog.train as sets\nsets.leaks.find()", 1),
        ("cli/train.py", "from lakelog import train\ntrain.leaks", 1),
        ("train/__init__.py", "__getattr__, __all__ = lazy_face(__name__)", 1),
        ("train/__init__.py", "from lakelog.train.leaks import Leak", 1),
        ("train/__init__.py", f"__all__ = {[f'n{n:02}' for n in range(13)]}", 1),
    ],
)
def test_what_reaches_behind_a_face_is_reported(path: str, text: str, count: int) -> None:
    """Imports, lazy ones and attributes of the package alike; and a face that is no short list."""
    face = {"lakelog/train/__init__.py": "__all__ = ['export', 'rebuild']"}
    assert len(breaches({**face, f"lakelog/{path}": text}, {"train"})) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("from lakelog.train.leaks import leaks\n__getattr__ = lazy_face('', {})", 1),
        ("from lakelog.train import leaks\n__getattr__ = lazy_face('', {})", 0),
        ("from lakelog.train.leaks import leaks", 0),
    ],
)
def test_a_name_that_a_module_would_replace_is_reported(text: str, count: int) -> None:
    """In a lazy face, for importing a module binds its name in its package."""
    tree = {
        "lakelog/train/__init__.py": f"__all__ = ['leaks']\n{text}",
        "lakelog/train/leaks.py": "",
        "lakelog/cli/train.py": "from lakelog.train import leaks\nleaks.find()",
    }
    assert len(breaches(tree, {"train"})) == count


def test_a_module_counts_as_the_names_that_are_used_of_it() -> None:
    """However it is imported."""
    uses = "from lakelog.train import leaks\nimport lakelog.train as sets\n"
    uses += "from lakelog.train.leaks import n1\n"
    uses += "".join(f"leaks.n{n}, sets.leaks.n{n}\n" for n in range(13))
    tree = {
        "lakelog/train/__init__.py": "from lakelog.train import leaks\n__all__ = ['leaks']",
        "lakelog/train/leaks.py": "",
        "lakelog/cli/train.py": uses,
    }
    assert len(breaches(tree, {"train"})) == 1
    tree["lakelog/cli/train.py"] = uses.replace("n12", "n1")
    assert breaches(tree, {"train"}) == []
