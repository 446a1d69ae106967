"""The tables of this package: TOML files beside its modules."""

from __future__ import annotations

import functools
import re
from typing import Any

from lakelog.runtime.tables import tables_beside

JsonMap = dict[str, Any]
"""An object as JSON or TOML has it: a manifest, facts on an export, a section of a recipe."""
DIALECTS = "shapes/dialects.toml"
_REFERENCE = re.compile(r"%\{(\w+)\}")


@functools.cache
def read_table(name: str) -> JsonMap:
    """Return what a file beside this module holds."""
    return tables_beside(__file__, name)


def invert(lists: dict[str, list[str]]) -> dict[str, str]:
    """Return the name of the list in which each word stands."""
    return {word: name for name, words_listed in lists.items() for word in words_listed}


def expand(pattern: str | list[str], fragments: dict[str, str | list[str]]) -> str:
    """Return a pattern, or its pieces joined, with each `%{name}` replaced by that fragment."""
    joined = pattern if isinstance(pattern, str) else "".join(pattern)
    return _REFERENCE.sub(lambda reference: expand(fragments[reference[1]], fragments), joined)
