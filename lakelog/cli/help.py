"""help: the help of lakelog, of a verb, or of a verb's own verb."""

from __future__ import annotations

import click

from lakelog.cli.app import App, complete_verb, verb
from lakelog.cli.options import argument
from lakelog.runtime.closest import did_you_mean


@verb("""
    lakelog help
    lakelog help export
    lakelog help train check
""")
def help(
    app: App,
    arguments: tuple[str, ...] = argument("[VERB]...", nargs=-1, shell_complete=complete_verb),
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
