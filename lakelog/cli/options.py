"""The arguments and options of verbs, declared as help shows them, where a verb takes them:

def snapshot(app: App, message: str = option("-m, --message TEXT", "The message.")) -> None:

Their types are those of the parameters: `int` and `float` are parsed, `tuple[str, ...]` may be
given several times, a `str` is empty where an option is left out, and an argument may be left out
that may be None. What stands for a FILE or a DIR is completed as one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

_COUNT_MAX = 10**15
"""Of numbers that options take: what is added to one is still an integer to every library."""


# These are no dataclasses: to make two would take longer than all else that this module does, and
# `lakelog --version` loads it.
class Declaration:
    """An argument or option, which has the name of the parameter that it is the default of."""

    def __init__(
        self,
        parameter_class: type[click.Parameter],
        flags: tuple[str, ...],
        attributes: dict[str, Any],
    ) -> None:
        self.parameter_class, self.flags, self.attributes = parameter_class, flags, attributes

    def parameters(self, name: str, annotation: str) -> list[click.Parameter]:
        """Return it as click knows it, of a parameter with a name and an annotation."""
        attributes = {**_attributes_of(self.parameter_class, annotation), **self.attributes}
        # The default of a str is empty: with one, a required option would never be missed.
        if attributes.get("required") or attributes.get("is_flag"):
            attributes.pop("default", None)
        if attributes["metavar"] in ("FILE", "DIR"):
            attributes.setdefault("type", click.Path())
        if attributes["metavar"] == "DIR":
            attributes.setdefault("shell_complete", complete_directory)
        value_type = attributes.get("type")
        if value_type is int or isinstance(value_type, click.IntRange):
            attributes.setdefault("callback", _counted)
        return [self.parameter_class([name, *self.flags], **attributes)]

    def value(self, name: str, values: dict[str, object]) -> object:
        """Return what a verb gets, of all values by name."""
        return values[name]


class Combination:
    """Arguments and options of which a verb gets one value."""

    def __init__(
        self, combine: Callable[..., object], members: dict[str, Declaration | Combination]
    ) -> None:
        self.combine, self.members = combine, members

    def parameters(self, _: str, __: str) -> list[click.Parameter]:
        """Return them as click knows them."""
        declared = self.members.items()
        types = _annotations(self.combine)
        return [p for n, member in declared for p in member.parameters(n, types.get(n, ""))]

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


def complete_directory(_: click.Context, __: click.Parameter, prefix: str) -> list[CompletionItem]:
    """Let the shell offer directories."""
    return [CompletionItem(prefix, type="dir")]


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

    types = _annotations(function)
    return run, [p for n, entry in declared.items() for p in entry.parameters(n, types.get(n, ""))]


def output_files() -> list[str]:
    """The files that options of the verb which runs name for its output, to be added to."""
    context = click.get_current_context(silent=True)
    paths: list[str] = context.meta.setdefault("lakelog.outputs", []) if context else []
    return paths


def _attributes_of(parameter_class: type[click.Parameter], annotation: str) -> dict[str, Any]:
    """Return what an annotation says of an argument or option."""
    is_argument = parameter_class is click.Argument
    if annotation == "tuple[str, ...]":
        return {"nargs": -1} if is_argument else {"multiple": True}
    attributes: dict[str, Any] = {}
    name, _, optional = annotation.partition(" | ")
    if name in ("int", "float"):
        attributes["type"] = {"int": int, "float": float}[name]
    if is_argument and optional:
        attributes["required"] = False
    if not is_argument and annotation == "str":
        attributes["default"] = ""
    return attributes


def _counted(_: click.Context, __: click.Parameter, value: int | None) -> int | None:
    """Return a number that an option was given. Raises BadParameter where nothing counts so far."""
    if value is not None and abs(value) > _COUNT_MAX:
        raise click.BadParameter(f"{value} is too large: the largest is {_COUNT_MAX}")
    return value


def _annotations(function: Callable[..., object]) -> dict[str, str]:
    """Return the annotations of the parameters of a function, or of a dataclass, as text."""
    # `from __future__ import annotations` has left them as text, which is all that is needed.
    # Not by its signature, which takes as long as all else: dataclasses have their own.
    annotations = getattr(function, "__annotations__", {})
    return {name: str(annotation) for name, annotation in annotations.items()}


YES = flag("--yes", "Do not ask.")
WHY = option("-m, --message TEXT", "Why, for the log.")
MESSAGE = option("-m, --message TEXT", "The message.")
ON = option("--on PLACE", "By local processes, local:N, ray, or ray://HOST:PORT.")
