"""The --format of input: a format's name, a LogFormat after access:, or a pattern.

The options that go with a pattern are defined here too, for all verbs that read files.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
from click.shell_completion import CompletionItem

from lakelog.cli.app import App, completing, names_in
from lakelog.cli.options import combined, option
from lakelog.cli.rounds import SpanParam
from lakelog.errors import InvalidSetting
from lakelog.formats import FORMATS, FormatDefinition
from lakelog.ingest import LakeFormat
from lakelog.lake import Lake
from lakelog.store import Store

NO_TIME = "the pattern has no group called time: each event gets the time of its ingest"


class InputFormat(click.ParamType[str]):
    """A format's name, `access:LOGFORMAT`, or a pattern; a lake may have formats of its own."""

    name = "format"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return the placeholder for help texts; there are too many formats to name all."""
        return "FORMAT"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Return the value. Fails with a one-line reason where no lake could know it."""
        name = str(value)
        try:
            # Only what no lake could define is checked here; a plain name may be a format of the
            # lake, which is not open yet.
            if FormatDefinition.is_pattern(name) or ":" in name or "@" in name:
                FORMATS.by_name(name)
        except InvalidSetting as error:
            self.fail(str(error), param, ctx)
        return name

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names that begin with what was typed, those of the lake first."""
        items = [*names_in(ctx, _own), *map(CompletionItem, FORMATS)]
        return [item for item in items if item.value.startswith(incomplete)]


def _own(lake: Lake) -> list[CompletionItem]:
    names = sorted(LakeFormat.present(lake.store, lake.branch_name))
    return [CompletionItem(name, help="of this lake") for name in names]


complete_own = completing(_own)


def formats_at(app: App) -> dict[str, LakeFormat]:
    """The formats of the lake, none where there is no lake."""
    if not Store.is_lake(app.path):
        return {}
    return LakeFormat.present(Store.load(app.path), app.branch)


EXCLUDED = option(
    "--exclude GLOB",
    "Names of files and directories to leave out, or paths if they have a slash.",
    multiple=True,
)


def ignore_older(note: str = "") -> Any:
    """Declare the option that leaves out old files, in seconds; `note` ends its help."""
    return option(
        "--ignore-older TIME",
        f"Leave out files that were last written longer ago, such as 7d{note}.",
        type=SpanParam(),
    )


def definition_of(
    form: str | None, *, levels: tuple[str, ...], define: tuple[str, ...], **rules: str
) -> FormatDefinition | None:
    """Return the definition that a format and the values of RULES make, None for nothing.

    Raises InvalidSetting, UsageError.
    """
    result = FormatDefinition.of_name(form) if form else FormatDefinition()
    result = replace(
        # An option that is left out is empty, and must not replace what the format itself says.
        result,
        **{name: value for name, value in rules.items() if value},
        levels=_pairs("--level", "WORD=LEVEL", levels) or result.levels,
        define=_pairs("--define", "NAME=REGEX", define) or result.define,
    )
    return None if result == FormatDefinition() else result


def _checked(form: str | None, **rules: Any) -> str | None:
    """Return a format, or the pattern that options make of it."""
    asked = definition_of(form, **rules)
    if asked is None:
        return form
    # click's own context: a callback for options has no parameter for the App.
    app: App = click.get_current_context().obj
    resolved = LakeFormat.resolve(asked.spelled(), formats_at(app))
    # A pattern without a time is allowed but rarely meant.
    if resolved.pattern and not FORMATS.by_name(resolved.spelled()).has_time:
        app.say(NO_TIME)
    # A plain name stays one, so that the lake's own format of that name is still found.
    return form if asked == FormatDefinition(format=form or "") else asked.spelled()


_RULES: dict[str, object] = {
    "begins": option(
        "--begins REGEX",
        "A line whose start matches begins a record; other lines continue it.",
        default="",
    ),
    "continues": option(
        "--continues REGEX", "A line whose start matches continues the one before.", default=""
    ),
    "time_format": option(
        "--time-format FORMAT",
        "The format of the group time: '%d.%m.%Y %H:%M:%S', iso, epoch or none.",
        default="",
    ),
    "zone": option(
        "--zone ZONE",
        "Time zone of times that name none, such as Europe/Berlin or +02:00.",
        default="",
    ),
    "encoding": option(
        "--encoding NAME",
        "The encoding of lines that are not UTF-8, such as latin-1 or shift_jis.",
        default="",
    ),
    "levels": option(
        "--level WORD=LEVEL", "Map a word to a level, such as SCHWER=ERROR.", multiple=True
    ),
    "define": option(
        "--define NAME=REGEX",
        "Name a part of the pattern, used in it as %{NAME:group}.",
        multiple=True,
    ),
}
RULES = combined(dict, **_RULES)
"""The options that go with a pattern, of which a verb gets a dict for `definition_of`."""
PATTERN = combined(
    _checked,
    form=option(
        "--format",
        "The format of the input: a name (`lakelog formats list`), or your own pattern,"
        " such as '%{IP:client} %{WORD:method}'.",
        type=InputFormat(),
    ),
    **_RULES,
)
"""--format and RULES, of which a verb gets the format, checked."""


def _pairs(option: str, shape: str, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = {}
    for pair in values:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise click.UsageError(f"{option} is {shape}, not {pair!r}")
        pairs[name] = value
    # Sorted, so that the same options in another order make the same definition.
    return tuple(sorted(pairs.items()))
