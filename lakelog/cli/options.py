"""The arguments and options of verbs, declared as help shows them, where a verb takes them:

def snapshot(app: App, message: str = option("-m, --message TEXT", "The message.")) -> None:
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import click


# These are no dataclasses: to make two would take longer than all else that this module does, and
# `lakelog --version` loads it.
class Declaration:
    """An argument or option, which has the name of the parameter that it is the default of."""

    def __init__(
        self, kind: type[click.Parameter], flags: tuple[str, ...], attributes: dict[str, Any]
    ) -> None:
        self.kind, self.flags, self.attributes = kind, flags, attributes

    def parameters(self, name: str) -> list[click.Parameter]:
        """Return it as click knows it."""
        return [self.kind([name, *self.flags], **self.attributes)]

    def value(self, name: str, values: dict[str, object]) -> object:
        """Return what a verb gets, of all values by name."""
        return values[name]


class Combination:
    """Arguments and options of which a verb gets one value."""

    def __init__(
        self, combine: Callable[..., object], members: dict[str, Declaration | Combination]
    ) -> None:
        self.combine, self.members = combine, members

    def parameters(self, _: str) -> list[click.Parameter]:
        """Return them as click knows them."""
        return [p for name, member in self.members.items() for p in member.parameters(name)]

    def value(self, _: str, values: dict[str, object]) -> object:
        """Return what a verb gets, of all values by name."""
        return self.combine(**{n: member.value(n, values) for n, member in self.members.items()})


def argument(metavar: str | None = None, **attributes: object) -> Any:
    """Declare an argument; help shows it by its name unless it has a `metavar`."""
    return Declaration(click.Argument, (), {"metavar": metavar, **attributes})


def option(spec: str, help: str | None = None, **attributes: object) -> Any:
    """Declare an option: `-n, --limit N`, where N is what its value stands for.

    `shown` is a default that help mentions.
    """
    flags, _, metavar = spec.replace(", ", ",").partition(" ")
    if "shown" in attributes:
        attributes |= {"default": attributes.pop("shown"), "show_default": True}
    attributes |= {"metavar": metavar or None, "help": help}
    return Declaration(click.Option, tuple(flags.split(",")), attributes)


def flag(spec: str, help: str, **attributes: object) -> Any:
    """Declare an option without a value."""
    return option(spec, help, is_flag=True, **attributes)


def combined(combine: Callable[..., object], **members: Any) -> Any:
    """Declare arguments and options of which a verb gets what `combine` returns for them."""
    return Combination(combine, members)


def bind(function: Callable[..., None]) -> tuple[Callable[..., None], list[click.Parameter]]:
    """Return a function that click can call in place of a verb's, and the parameters for it."""
    # They would be lost without a word.
    if hasattr(function, "__click_params__"):
        raise TypeError(f"{function.__name__} has decorators of click: declare options as defaults")
    declared = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if isinstance(parameter.default, (Declaration, Combination))
    }

    # Combined before the verb runs: a mistake in its options must not come after the work.
    @functools.wraps(function)
    def run(app: object, **values: object) -> None:
        function(app, **{name: entry.value(name, values) for name, entry in declared.items()})

    return run, [p for name, entry in declared.items() for p in entry.parameters(name)]


YES = flag("--yes", "Do not ask.")
WHY = option("-m, --message TEXT", "Why, for the log.", default="")
MESSAGE = option("-m, --message TEXT", "The message.", default="")
