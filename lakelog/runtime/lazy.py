"""Modules that load when first used, so that a program that only appends stays small.

A module of ours behind a Lazy name is imported for the type checker as well, so the import rules
cover it; numpy, pyarrow and DuckDB, which take a quarter of a second, are Lazy everywhere.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, overload

if TYPE_CHECKING:
    from importlib.abc import SourceLoader

LazyValue = TypeVar("LazyValue")
_EXPORTS = re.compile(r"^    from (\S+) import \(?\s*(\w+) as \2\b", re.MULTILINE)
"""An import under TYPE_CHECKING that type checkers take for a name of the package (PEP 484)."""
_PROBES = ("__bases__", "__test__", "__wrapped__", "_mock_name")
"""Asked of every name by pytest and inspect, to tell what it is: no module is loaded for that."""


class Lazy:
    """Stands for a module; the first attribute asked for loads it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._module: ModuleType | None = None

    def __getattr__(self, attribute: str) -> Any:
        if self._module is None and attribute in _PROBES:
            raise AttributeError(attribute)
        # Kept only once it is whole: sys.modules also names modules that a thread still executes.
        module = self._module or importlib.import_module(self._name)
        self._module = module
        return getattr(module, attribute)


class LazyProperty(Generic[LazyValue]):
    """Decorates a method: a property that is computed at its first use, maybe by several threads.

    For functools.cached_property of CPython 3.11 holds one lock for all objects of a class while it
    computes: a child that is forked meanwhile would wait for it for ever.
    """

    def __init__(self, compute: Callable[[Any], LazyValue]) -> None:
        self._compute, self._name = compute, compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None) -> LazyValue: ...

    def __get__(self, instance: object, owner: type | None = None) -> object:
        if instance is None:  # asked of the class, as by whoever makes documents of it
            return self
        # The instance's own attribute comes first from now on, as this has no __set__.
        value = instance.__dict__[self._name] = self._compute(instance)
        return value


def lazy_face(package: str) -> tuple[Callable[[str], object], list[str]]:
    """Return `__getattr__` and `__all__` of a package whose names load their modules at first use.

    They are what its file, `__init__.py`, imports as themselves for type checkers, and is read
    there: nothing repeats it. No name may be that of a module, but for a module itself: importing
    that would put it in its place.
    """
    homes = _exports(sys.modules[package])
    module_of = dict[str, ModuleType]()

    def load(name: str) -> object:
        # Kept, as to ask for a module that is there takes many times as long.
        module = module_of.get(name)
        if module is None:
            if name not in homes:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            if homes[name] == package:
                return importlib.import_module(f"{package}.{name}")
            module = module_of[name] = importlib.import_module(homes[name])
        # The name is looked up anew each time: what the module binds to it is what others see.
        return getattr(module, name)

    return load, list(homes)


def _exports(package: ModuleType) -> dict[str, str]:
    """Return the modules of the names that a package imports for type checkers."""
    # By what has loaded the package, which may be in a zip file.
    loader = cast("SourceLoader", package.__loader__)
    try:
        source = loader.get_data(package.__file__ or "").decode()
        return {name: home for home, name in _EXPORTS.findall(source)}
    except (OSError, UnicodeDecodeError):  # frozen, or installed without its sources
        import dis

    homes, home, name = dict[str, str](), "", ""
    code = loader.get_code(package.__name__)
    for instruction in dis.get_instructions(code) if code else ():
        match instruction.opname:
            case "IMPORT_NAME":
                home = instruction.argval
            case "IMPORT_FROM":
                name = instruction.argval
            case "STORE_NAME" if instruction.argval == name and not hasattr(package, name):
                homes[name] = home
    return homes
