"""help, config: what verbs do, and the lake's settings."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

import click

from lakelog import settings as settings
from lakelog.cli.app import (
    App,
    complete_pair,
    complete_setting,
    complete_type,
    complete_verb,
    everywhere,
    verb,
    verb_group,
)
from lakelog.cli.arguments import pair_of
from lakelog.cli.keys import new_ring
from lakelog.cli.options import argument, option
from lakelog.cli.render import terminal
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit_words
from lakelog.cli.render.tables import Count
from lakelog.errors import AlreadyExists, NotAllowed
from lakelog.runtime.closest import did_you_mean
from lakelog.store import Store


@verb()
def help(
    app: App, arguments: tuple[str, ...] = argument("[VERB]...", shell_complete=complete_verb)
) -> None:
    """Show the help of a verb, as `lakelog VERB -h` does."""
    context = click.get_current_context().find_root()
    for word in arguments:
        group = context.command
        command = group.get_command(context, word) if isinstance(group, click.Group) else None
        if command is None:
            names = group.list_commands(context) if isinstance(group, click.Group) else ()
            hint = did_you_mean(word, names)
            problem = f"{context.command_path} has no verb {word!r}"
            raise click.UsageError(f"{problem}: {hint}" if hint else problem, context)
        context = click.Context(command, context, info_name=word)
    click.echo(context.get_help())


@verb_group(invoke_without_command=True)
def config(app: App, target: OutputTarget = OUTPUT) -> None:
    """Show and set the settings of the lake.

    Without a verb: each setting with its value, its default and what it means. Programs that
    have the lake open keep the settings they opened it with.
    """
    present = _current_settings(app)
    meanings = meanings_of(settings)
    rows = [
        {
            "setting": name,
            "value": getattr(present, name),
            "default": getattr(settings.DEFAULTS, name),
            "meaning": meanings.get(name, ""),
        }
        for name in settings.NAMES
    ]
    emit_words(rows, target, lambda: "\n".join(map(_setting_lines, rows)) + "\n")


@config.verb(name="get")
def get_setting(app: App, name: str = argument(shell_complete=complete_setting)) -> None:
    """Print the value of a setting."""
    if name not in settings.NAMES:
        settings.parse({name: ""})  # which says that there is none, and which one was meant
    click.echo(getattr(_current_settings(app), name))


@config.verb(name="set")
def set_settings(
    app: App,
    pairs: tuple[str, ...] = argument("NAME=VALUE...", required=True, shell_complete=complete_pair),
) -> None:
    """Change settings of the lake; sizes may be written as 16MB."""
    store = Store.load(app.path)
    changed = settings.parse(dict(map(pair_of, pairs)), store.settings)
    store.change_settings(changed)
    # As the lake has it now, such as 64000000 for 64MB.
    for name in dict(map(pair_of, pairs)):
        app.say(f"{name} = {getattr(changed, name)}")


@config.verb(name="encrypt")
def encrypt_lake(
    app: App, key: str = option("--key FILE", "The master key; made if it is missing.", default="")
) -> None:
    """Encrypt all that is written to the lake from now on.

    What is there stays as it is, plain. Programs that have the lake open go on
    writing in plain until they open it again: restart them. Where the master key
    comes from without --key, `lakelog init -h` says. It cannot be undone.
    """
    store = Store.load(app.path)
    if store.attachment is not None and store.paths.keys is None:
        raise NotAllowed(
            f"{store.paths.root}: a shared lake is encrypted from its beginning or never: attach to"
            " an empty place with --encrypt"
        )
    # A second encryption would make new keys, and the old ones would open nothing any more.
    if store.paths.keys is not None:
        raise AlreadyExists(f"the lake at {store.paths.root} is encrypted: see `lakelog key show`")
    store.change_keys(new_ring(app, app.path, key))
    app.say("what is written from now on is encrypted; restart programs that have the lake open")


@config.verb(name="protect")
def protect_fields(
    app: App,
    fields: tuple[str, ...] = argument("FIELD...", required=True),
    types: tuple[str, ...] = option(
        "--type NAME", "Only of events of this type; repeatable.", shell_complete=complete_type
    ),
    subject: str = option("--subject FIELD", "The field that has the subject.", default=""),
) -> None:
    """Seal fields of payloads from now on, each by its subject's key.

    A FIELD is a member of `data`. Whose key seals is the event's subject, or the field that
    --subject names. The keys are in a file outside of the lake, that of LAKELOG_SUBJECT_KEYS or
    below ~/.config/lakelog/keys: without it the fields are NULL. Fields of before stay protected.
    Events that are there stay plain until they are compacted. `lakelog erase --subject X`
    destroys the key of X.
    """
    with app.open() as lake:
        lake.protect(fields, types=types, subject=subject)
        protection = lake.store.paths.protection
    # mypy cannot know that `protect` has just set it.
    assert protection is not None
    names, path = ", ".join(protection.fields), protection.path
    app.say(f"{names}: sealed from now on, with keys from {path}")
    app.say("restart programs that ingest or watch, and keep a copy of that file elsewhere")


# A group is no `verb`, so it has to get the global options here.
config.params += everywhere()


def meanings_of(module: Any) -> dict[str, str]:
    """Return the docstrings of the fields of `Settings`, which Python does not keep at run time."""
    try:
        tree = ast.parse(inspect.getsource(module.Settings))
    # There is no source in a zipped or compiled installation; the settings are listed without
    # meanings.
    except (OSError, TypeError):
        return {}
    meanings, name = {}, ""
    for node in tree.body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign):
            name = ast.unparse(node.target)
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            meanings[name] = " ".join(str(node.value.value).split())
            # A second string behind a field would be no docstring of it.
            name = ""
    return meanings


def _current_settings(app: App) -> settings.Settings:
    """Return the lake's settings, or the defaults without a lake."""
    if Store.is_lake(app.path):
        return Store.load(app.path).settings
    app.say(f"no lake at {app.path}: these are the defaults")
    return settings.DEFAULTS


def _setting_lines(row: dict[str, Any]) -> str:
    # Count, for commas in numbers; times and texts stay as a user would write them.
    pair = row["value"], row["default"]
    value, default = (f"{Count(v):,}" if isinstance(v, int) else v for v in pair)
    note = "" if value == default else f" (default {default})"
    lead = f"{row['setting']:<19} {value:>13}  "
    room = max(terminal.width() - len(lead) - 1, 24)
    lines = textwrap.wrap(f"{row['meaning']}{note}", room) or [""]
    return lead + f"\n{' ' * len(lead)}".join(lines)
