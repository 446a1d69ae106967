"""The --format of input: a format's name, a LogFormat after access:, or a pattern.

The options that go with a pattern are defined here too, for all verbs that read files.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click
from click.shell_completion import CompletionItem

from lakelog.cli.app import DEFAULT_LAKE, App
from lakelog.cli.rounds import SpanParam
from lakelog.errors import InvalidSetting, LakelogError
from lakelog.formats import custom, definition, registry
from lakelog.formats.definition import Definition
from lakelog.ingest import definitions
from lakelog.ingest.definitions import Formats
from lakelog.store import bootstrap

NO_TIME = "the pattern has no group called time: each event gets the time of its ingest"


class InputFormat(click.ParamType[str]):
    """A format's name, `access:LOGFORMAT`, or a pattern; a lake may have formats of its own."""

    name = "format"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return the placeholder for help texts; there are too many formats to name all."""
        return "FORMAT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value. Fails with a one-line reason where no lake could know it."""
        name = str(value)
        try:
            # Only what no lake could define is checked here; a plain name may be a format of the
            # lake, which is not open yet.
            if definition.is_pattern(name) or ":" in name or "@" in name:
                registry.by_name(name)
        except InvalidSetting as error:
            self.fail(str(error), param, ctx)
        return name

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names that begin with what was typed, those of the lake first."""
        names = [(name, "of this lake") for name in _names(ctx)]
        names += [(name, "") for name in registry.FORMATS]
        return [CompletionItem(n, help=about) for n, about in names if n.startswith(incomplete)]


def complete_own(ctx: click.Context, _: click.Parameter, prefix: str) -> list[str]:
    """Formats of the lake that begin with what was typed."""
    return [name for name in _names(ctx) if name.startswith(prefix)]


def formats_at(app: App) -> Formats:
    """The formats of the lake, none where there is no lake."""
    if not bootstrap.is_lake(app.path):
        return {}
    return definitions.present(bootstrap.load(app.path), app.branch)


def with_selection(older: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options that leave files out to a verb; it gets `excluded` and `ignore_older`, in
    seconds. `older` ends the help of the second."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        excluded = click.option(
            "--exclude",
            "excluded",
            multiple=True,
            metavar="GLOB",
            help="Names of files and directories to leave out, or paths if they have a slash.",
        )
        ignored = click.option(
            "--ignore-older",
            type=SpanParam(),
            metavar="TIME",
            help=f"Leave out files that were last written longer ago, such as 7d{older}.",
        )
        return excluded(ignored(command))

    return add


def with_pattern(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --format and the pattern options to a verb; it gets them as `form`, checked."""

    @functools.wraps(command)
    def run(app: App, *args: Any, form: str | None, **options: Any) -> Any:
        rules = definition_of(form, options)
        if rules is not None:
            definition = definitions.resolve(rules.spelled(), formats_at(app))
            # A plain name stays one, so that the lake's own format of that name is still found.
            form = form if rules == Definition(format=form or "") else rules.spelled()
            # A pattern without a time is allowed but rarely meant.
            if definition.pattern and not custom.form(definition.spelled()).has_time:
                app.say(NO_TIME)
        return command(app, *args, form=form, **options)

    return click.option(
        "--format",
        "form",
        type=InputFormat(),
        help="The format of the input: a name (`lakelog formats list`), or your own pattern,"
        " such as '%{IP:client} %{WORD:method}'.",
    )(with_rules(run))


def with_rules(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the pattern options to a verb."""
    # click lists the outermost decorator first: reversed, the order is that of _RULES.
    for option in reversed(_RULES):
        command = option(command)
    return command


_RULES = [
    click.option(
        "--begins",
        default="",
        metavar="REGEX",
        help="A line whose start matches begins a record; other lines continue it.",
    ),
    click.option(
        "--continues",
        default="",
        metavar="REGEX",
        help="A line whose start matches continues the one before.",
    ),
    click.option(
        "--time-format",
        default="",
        metavar="FORMAT",
        help="The format of the group time: '%d.%m.%Y %H:%M:%S', iso, epoch or none.",
    ),
    click.option(
        "--zone",
        default="",
        metavar="ZONE",
        help="Time zone of times that name none, such as Europe/Berlin or +02:00.",
    ),
    click.option(
        "--encoding",
        default="",
        metavar="NAME",
        help="The encoding of lines that are not UTF-8, such as latin-1 or shift_jis.",
    ),
    click.option(
        "--level",
        "levels",
        multiple=True,
        metavar="WORD=LEVEL",
        help="Map a word to a level, such as SCHWER=ERROR.",
    ),
    click.option(
        "--define",
        multiple=True,
        metavar="NAME=REGEX",
        help="Name a part of the pattern, used in it as %{NAME:group}.",
    ),
]


def definition_of(form: str | None, options: dict[str, Any]) -> Definition | None:
    """Take the options of `with_rules` out of `options`; return the definition that they and a
    format make, None for nothing. Raises InvalidSetting, UsageError."""
    result = definition.read(form) if form else Definition()
    levels = _pairs("--level", "WORD=LEVEL", options.pop("levels"))
    defines = _pairs("--define", "NAME=REGEX", options.pop("define"))
    names = ("begins", "continues", "time_format", "zone", "encoding")
    rules = {name: options.pop(name) for name in names}
    non_empty = {name: value for name, value in rules.items() if value}
    result = replace(
        result, **non_empty, levels=levels or result.levels, define=defines or result.define
    )
    return None if result == Definition() else result


def _pairs(option: str, shape: str, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = {}
    for pair in values:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise click.UsageError(f"{option} is {shape}, not {pair!r}")
        pairs[name] = value
    # Sorted, so that the same options in another order make the same definition.
    return tuple(sorted(pairs.items()))


def _names(ctx: click.Context) -> list[str]:
    root = ctx.find_root().params
    app = App(root.get("lake") or DEFAULT_LAKE, root.get("branch") or "main")
    with contextlib.suppress(LakelogError, OSError):
        return sorted(formats_at(app))
    return []
