"""Aggregates: classes whose attributes are a state, and whose methods apply events.

@aggregate()
class Account:
    balance: int = 0

    @on("deposited")
    def deposited(self, event):
        self.balance += event.data["amount"]

Account.fold.of(lake, "account-1").state.balance
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

from lakelog.errors import InvalidSetting
from lakelog.folds.fold import EVERY, Fold
from lakelog.folds.upcasting import FoldEvent, Json, Upcaster

ClassT = TypeVar("ClassT", bound=type)
Method = Callable[[Json, FoldEvent], None]
_MARK = "_lakelog_event_types"


def on(*types: str) -> Callable[[Method], Method]:
    """Decorate a method of an aggregate that applies events of these types."""

    def mark(method: Method) -> Method:
        setattr(method, _MARK, types)
        return method

    return mark


def aggregate(
    name: str = "", *, upcasters: tuple[Upcaster, ...] = (), revision: int = 1, every: int = EVERY
) -> Callable[[ClassT], ClassT]:
    """Decorate a class without arguments; its `fold` then gives the object of a subject.

    Raises InvalidSetting if two methods are of one type. See `Fold` for the options.
    """

    def decorate(cls: ClassT) -> ClassT:
        handlers: dict[str, Callable[[Json, FoldEvent], Json]] = {}
        # Only of the class itself: methods of a base class belong to its own fold.
        for method in vars(cls).values():
            for type_name in getattr(method, _MARK, ()):
                if type_name in handlers:
                    raise InvalidSetting(f"two methods of {cls.__name__} are on {type_name!r}")
                handlers[type_name] = _MethodCall(method)
        fold: Fold[Json] = Fold(
            name or cls.__name__,
            cls,
            handlers,
            upcasters=upcasters,
            revision=revision,
            every=every,
            # A copy: the object goes on changing after it was saved.
            dump=lambda instance: copy.deepcopy(vars(instance)),
            load=_loader(cls),
        )
        cls.fold = fold  # type: ignore[attr-defined]
        return cls

    return decorate


class _MethodCall:
    """Applies an event by a method, and returns the object it belongs to."""

    def __init__(self, method: Method) -> None:
        self._method = method
        # The fold tells other code by this.
        self.__func__ = method

    def __call__(self, instance: Json, event: FoldEvent) -> Json:
        self._method(instance, event)
        return instance


def _loader(cls: type) -> Callable[[dict[str, Json]], Json]:
    def load(attributes: dict[str, Json]) -> Json:
        # Made as always, so that attributes that are new have their first values.
        instance = cls()
        for name, value in attributes.items():
            setattr(instance, name, value)
        return instance

    return load
