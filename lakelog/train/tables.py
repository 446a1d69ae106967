"""The tables of this package, TOML files beside its modules, and what many of those need."""

from __future__ import annotations

import functools
import importlib.util
import re
from typing import TYPE_CHECKING, Any

from lakelog.errors import ExportRefused
from lakelog.libraries import np
from lakelog.runtime.tables import ModuleFiles

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]
else:
    # For signatures: numpy itself loads where it is used.
    Array = None
JsonMap = dict[str, Any]
"""An object as JSON or TOML has it: a manifest, facts on an export, a section of a recipe."""
DIALECTS = "shapes/dialects.toml"
_REFERENCE = re.compile(r"%\{(\w+)\}")


@functools.cache
def read_table(name: str) -> JsonMap:
    """Return what a file beside this module holds."""
    return ModuleFiles(__file__).tables(name)


def invert(lists: dict[str, list[str]]) -> dict[str, str]:
    """Return the name of the list in which each word stands."""
    return {word: name for name, words_listed in lists.items() for word in words_listed}


def expand(pattern: str | list[str], fragments: dict[str, str | list[str]]) -> str:
    """Return a pattern, or its pieces joined, with each `%{name}` replaced by that fragment."""
    joined = pattern if isinstance(pattern, str) else "".join(pattern)
    return _REFERENCE.sub(lambda reference: expand(fragments[reference[1]], fragments), joined)


def require_extra(library: str, extra: str, key: str) -> None:
    """Raise ExportRefused where the library of an extra, which a key of a recipe needs, is not
    installed."""
    if importlib.util.find_spec(library) is None:
        needed = f"{key} needs the library {library}"
        raise ExportRefused(f"{needed}: pip install 'lakelog[{extra}]'")


def quantity(count: int, noun: str, singular: str = "", plural: str = "") -> str:
    """Return "1 row is there", "2 rows are there": a count, its noun, and what follows.

    `singular` follows a count of one, `plural` any other; without `plural` the same follows both.
    """
    ending = singular if count == 1 or not plural else plural
    return f"{count:,} {noun}{'' if count == 1 else 's'}{f' {ending}' if ending else ''}"
