"""Suggestions for mistyped names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import difflib
else:
    difflib = Lazy("difflib")  # needed only after a mistake


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `did you mean 'X'?`, or nothing where no name is close."""
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(name.lower(), by_lower, 1)
    return f"did you mean {by_lower[near[0]]!r}?" if near else ""
