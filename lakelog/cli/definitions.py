"""formats: list formats, show how one parses a file, and manage those of the lake."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import replace
from typing import Any

import click

from lakelog import database
from lakelog.cli.app import App, verb_group
from lakelog.cli.input_formats import (
    NO_TIME,
    RULES,
    InputFormat,
    complete_own,
    definition_of,
    formats_at,
)
from lakelog.cli.options import argument, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, choose, emit, emit_record
from lakelog.cli.render.tables import cell, fit
from lakelog.cli.render.terminal import arrival, many, width
from lakelog.event import Severity
from lakelog.formats import FORMATS, FormatDefinition
from lakelog.ingest import LakeFormat, Preview
from lakelog.paths import Paths
from lakelog.settings import DEFAULTS

_LINES = 5
_NAMES = 14
"""Columns that the name of a field takes at least."""
_SCORES = 5
_ABOUT = ("format", "zone", "encoding")
_OPTIONS = {
    "pattern": "--pattern",
    "format": "--format",
    "begins": "--begins",
    "continues": "--continues",
    "time_format": "--time-format",
    "zone": "--zone",
    "encoding": "--encoding",
}


@verb_group()
def formats() -> None:
    """Show how files are parsed, and add log formats of your own.

    A format of your own is a pattern in grok (%{IP:client}) or a regex with
    named groups ((?P<client>...)). Groups called time, level, message, source,
    subject, type, category or id fill that column, all others go into data.
    """


@formats.verb(name="list")
def list_formats(app: App, target: OutputTarget = OUTPUT) -> None:
    """List the formats of this lake, then the built-in ones."""
    records = [
        {
            "format": form.name,
            "from": "this lake",
            "for": _files(form),
            "about": form.definition.pattern
            or ", ".join(filter(None, map(vars(form.definition).get, _ABOUT))),
        }
        for form in formats_at(app).values()
    ]
    records += [
        {
            "format": name,
            "from": "lakelog",
            "for": "",
            "about": " ".join(form.about.split("\n\n")[0].split()),
        }
        for name, form in FORMATS.items()
    ]
    has_own = any(record["for"] for record in records)
    table = [{k: r[k] for k in ("format", *(["for"] if has_own else []), "about")} for r in records]
    # A column that is empty for all formats would take its width from the one that explains.
    emit(records, target, table)


@formats.verb(name="test")
def show_preview(
    app: App,
    file: str = argument(type=click.Path()),
    form: str | None = option(
        "--format, --as, --pattern",
        "Read it as this format: a name, or your own pattern.",
        type=InputFormat(),
    ),
    rules: dict[str, Any] = RULES,
    source: str | None = option("--source NAME", "Parse it as if ingested with this --source."),
    lines: int = option(
        "-n, --lines N", "Number of lines or records to show.", shown=_LINES, type=click.IntRange(1)
    ),
    as_json: bool = flag("--json", "Print the result as JSON."),
) -> None:
    """Show how the first lines of FILE (- is stdin) are parsed.

    Prints which format was chosen and why, which others match, and for each line every
    column and field, or the reason why it would be quarantined. Stores nothing and needs no
    lake.
    """
    rules_given, lake_formats = definition_of(form, **rules), formats_at(app)
    definition = (
        # A format of the lake may be built on another one of the lake: resolved before it is used.
        LakeFormat.resolve(rules_given.spelled(), lake_formats) if rules_given is not None else None
    )
    # The engine wants a directory for what it spills, and there may be no lake.
    with tempfile.TemporaryDirectory() as scratch:
        result = Preview.of(
            file,
            lambda: database.connect(Paths(scratch), DEFAULTS),
            formats=lake_formats,
            requested=definition,
            label=source,
            count=lines,
        )
    # Said before the result, which shows the time of ingest for every line.
    if (
        definition is not None
        and definition.pattern
        and not FORMATS.by_name(definition.spelled()).has_time
    ):
        app.say(NO_TIME)
    target = choose(None if as_json else "table", as_json, None)
    emit_record(_record(result), target, lambda: "\n".join(_words(result)) + "\n")


@formats.verb(name="add")
def add_format(
    app: App,
    name: str = argument(),
    form: str | None = option(
        "--pattern, --format PATTERN",
        "Grok, a regex with named groups, or a built-in format.",
        type=InputFormat(),
    ),
    rules: dict[str, Any] = RULES,
    globs: tuple[str, ...] = option(
        "--for GLOB",
        "Files it is for, by name or by path; their rotated and compressed copies, too.",
    ),
    sources: tuple[str, ...] = option("--source NAME", "For files of this --source."),
    overwrite: bool = flag("--replace", "Replace a format of that name."),
) -> None:
    """Add a format to the lake, for files by name or by --source.

    From then on, ingest, watch, dump, audit and `quarantine replay` use it for these files,
    whoever opens the lake. Without --for and --source, it is used only as --format NAME. A
    rollback does not remove it.
    """
    # What cannot be a format is refused first, and no empty lake stays behind.
    definition = definition_of(form, **rules) or FormatDefinition()
    lake_format = LakeFormat(replace(definition, name=name), globs, sources)
    lake_format.check_new()
    with app.open_or_create() as lake:
        lake_format.add(lake.store, lake.branch_name, overwrite=overwrite)
    if definition.pattern and not FORMATS.by_name(lake_format.definition.spelled()).has_time:
        app.say(NO_TIME)
    scope = f"for {_files(lake_format)}" if globs or sources else f"used only with --format {name}"
    app.say(f"added format {name} to {app.path}, {scope}")


@formats.verb(name="show")
def show_format(
    app: App, name: str = argument(shell_complete=complete_own), target: OutputTarget = OUTPUT
) -> None:
    """Show a format of this lake, as the command that adds it."""
    with app.open() as lake:
        form = LakeFormat.named(LakeFormat.present(lake.store, lake.branch_name), name)
    record = {k: v for k, v in form.entry().members.items() if k != "time"}
    emit_record({"name": name, **record}, target, lambda: f"{_command(form)}\n")


@formats.verb(name="remove")
def remove_format(app: App, name: str = argument(shell_complete=complete_own)) -> None:
    """Remove a format from the lake.

    Events that were parsed with it stay as they are.
    """
    with app.open() as lake:
        LakeFormat.remove(lake.store, lake.branch_name, name)
    app.say(f"removed format {name}; from now on the format of its files is detected by content")


def _files(form: LakeFormat) -> str:
    return ", ".join([*form.globs, *(f"--source {name}" for name in form.sources)])


def _command(form: LakeFormat) -> str:
    """The command that adds a format."""
    definition = form.definition
    arguments = [
        f"{option} {shlex.quote(getattr(definition, name))}"
        for name, option in _OPTIONS.items()
        if getattr(definition, name)
    ]
    arguments += [f"--level {shlex.quote(f'{word}={level}')}" for word, level in definition.levels]
    arguments += [f"--define {shlex.quote(f'{name}={regex}')}" for name, regex in definition.define]
    arguments += [f"--for {shlex.quote(glob)}" for glob in form.globs]
    arguments += [f"--source {shlex.quote(name)}" for name in form.sources]
    return " \\\n  ".join([f"lakelog formats add {form.name}", *arguments])


def _record(result: Preview) -> dict[str, Any]:
    """Return the result as an object."""
    lines = []
    for outcome in result.outcomes:
        record: dict[str, Any] = {"line": outcome.line, "offset": outcome.offset}
        record |= {"text": outcome.text, "event": outcome.event}
        if outcome.event is not None:
            record["event"] = {**outcome.event, "data": outcome.data}
            record["time_of_ingest"] = outcome.timeless
        record["quarantine"] = outcome.reason or None
        if outcome.then:
            record |= {"fits": outcome.fits, "stops_at": outcome.then}
        lines.append(record)
    names = ("file", "format", "why", "note")
    return {
        **{name: getattr(result, name) for name in names},
        "scores": [{"format": name, "score": score} for name, score in result.scores],
        "groups": dict(result.groups),
        "lines": result.lines,
        "events": result.events,
        "quarantined": result.quarantined,
        "arrival": result.arrivals,
        "outcomes": lines,
    }


def _words(result: Preview) -> list[str]:
    """Return the result as text, no line wider than the terminal."""
    room = width()
    lines = [f"{cell(result.file)}: {cell(result.format)}"[:room], f"  {result.why}"[:room]]
    lines += [*([fit(f"  {result.note}", room)] if result.note else []), ""]
    if result.scores:
        lines += [" fits  format"]
        for name, score in _best(result):
            mark = "  <- chosen" if name == result.format else ""
            lines.append(fit(f"{score:5.0%}  {cell(name)}", room - len(mark)) + mark)
        lines.append("")
    if result.groups:
        lines += [fit(f"  {name} -> {place}", room) for name, place in result.groups] + [""]
    for place in range(len(result.outcomes)):
        lines += [*_outcome_words(result, place, room), ""]
    bad = f", {many(result.quarantined, 'record')} to quarantine" if result.quarantined else ""
    bad += f"; {arrival(result.arrivals)}" if result.arrivals else ""
    total = f"of the first {many(result.lines, 'line')}: {many(result.events, 'event')}{bad}"
    # Cut by cells, not characters: a CJK letter takes two columns.
    return [*lines, fit(total, room)]


def _best(result: Preview) -> list[tuple[str, float]]:
    """Return the scores that deserve a line: the highest, and that of the chosen format."""
    # Most formats do not fit at all; the one that was chosen by hand may be among them.
    scores = [pair for pair in result.scores if pair[1] >= 0.01 or pair[0] == result.format]
    return scores[:_SCORES] + [pair for pair in scores[_SCORES:] if pair[0] == result.format]


def _outcome_words(result: Preview, place: int, room: int) -> list[str]:
    outcome = result.outcomes[place]
    lines = [fit(f"line {outcome.line}  {cell(outcome.text)}", room)]
    if outcome.event is None:
        lines.append(fit(f"  quarantine      {outcome.reason}", room))
        if outcome.then:
            fits = f"only up to: {cell(outcome.fits)}" if outcome.fits else "not its beginning"
            lines.append(fit(f"  fits            {fits}", room))
            lines.append(fit(f"  stops at        {cell(outcome.then)}", room))
        return lines
    fields = {name: cell(value) for name, value in outcome.event.items()}
    if outcome.timeless:
        fields["time"] += "  (time of ingest)"
    data = outcome.data if isinstance(outcome.data, dict) else {"": outcome.data}
    fields |= {f"data.{n}".rstrip("."): cell(v) for n, v in data.items() if v is not None}
    # The commonest surprise with a pattern of one's own: a word that means a level, and is not
    # known as one.
    if "level" in data and "level" not in outcome.event:
        fields["data.level"] += "  (no level that is known: see --level)"
    if "level" in outcome.event and Severity.of(outcome.event["level"]) is None:
        fields["level"] += "  (a level of its own: see --level)"
    # At most half of the line: one long name must not leave no room for the values.
    wide = min(max([_NAMES, *map(len, fields)]), room // 2)
    return lines + [fit(f"  {name:{wide}}  {value}", room) for name, value in fields.items()]
