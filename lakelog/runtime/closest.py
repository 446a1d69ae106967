"""Suggestions for mistyped names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import difflib
else:
    difflib = Lazy("difflib")  # needed only after a mistake


def closest(name: str, names: Iterable[str]) -> str | None:
    """Return the name that is most like a mistyped one, or None where none is close."""
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(name.lower(), by_lower, 1)
    return by_lower[near[0]] if near else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `did you mean 'X'?`, or nothing where no name is close."""
    near = closest(name, names)
    return "" if near is None else f"did you mean {near!r}?"
