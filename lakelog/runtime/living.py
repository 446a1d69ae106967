"""Objects that live, which one thread lists while others make more and the collector frees some.

A `weakref.WeakSet` cannot be listed then: "Set changed size during iteration".
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, ClassVar, Generic, TypeVar

T = TypeVar("T")


class Living(Generic[T]):
    """A set that keeps nothing alive, of objects that are equal to themselves alone."""

    SETS: ClassVar[list[Living[Any]]] = []
    """All that there are: each is made with its module."""

    def __init__(self) -> None:
        self._known: set[weakref.ref[T]] = set()
        self.SETS.append(self)

    def add(self, member: T) -> None:
        """Add an object."""
        self._known.add(weakref.ref(member, self._known.discard))

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()

    @staticmethod
    def never_free(*objects: object) -> None:
        """Keep what belongs to the parent of a fork for ever: freeing it would wait for threads, or
        crash."""
        import ctypes  # here: only the child of a fork needs it, and most processes have none

        for item in objects:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(item))

    def __iter__(self) -> Iterator[T]:
        # A copy in one step of the interpreter; each object lives while it is looked at.
        return (member for reference in self._known.copy() if (member := reference()) is not None)
