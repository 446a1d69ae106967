"""completion: the script for a shell, and what the shell is offered when somebody presses Tab.

The script hands over the line up to the cursor as COMP_LINE. It gets a line for each offer: its
type, its value and what it means, with tabs between them. A `plain` value is complete, behind an
`open` one something comes without a blank; for `file` and `dir` the shell offers paths that begin
with the value.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class

from lakelog.cli.app import App, verb
from lakelog.cli.options import argument
from lakelog.cli.render import terminal
from lakelog.runtime.tables import ModuleFiles

_HINTS = {
    "bash": 'eval "$(lakelog completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(lakelog completion zsh)" in ~/.zshrc',
    "fish": "lakelog completion fish > ~/.config/fish/completions/lakelog.fish",
}
_PLAIN = frozenset("_-./%+,:=@^")
"""What the shell takes as it is, besides letters and digits."""


@dataclass(frozen=True)
class TypedWord:
    """The word before the cursor: its value, the quote that is open, and the place in its value
    from which the line editor of bash replaces it."""

    value: str = ""
    quote: str = ""
    start: int = 0


def split_line(line: str, breaks: str = "") -> tuple[list[str], TypedWord]:
    """Split what was typed into words without their quotes, and the last one, which may be empty.
    Characters of `breaks` begin a word for the line editor, though not for the shell."""
    words: list[str] = []
    value, quote, is_escaped, is_word = "", "", False, False
    start = quoted_from = 0
    for character in line:
        if is_escaped:
            value += character if quote != '"' or character in '"\\$`' else f"\\{character}"
            is_escaped = False
        elif character == "\\" and quote != "'":
            is_escaped = is_word = True
        elif quote:
            value, quote = (value, "") if character == quote else (value + character, quote)
        elif character in "'\"":
            quote, quoted_from, is_word = character, len(value), True
        elif not character.isspace():
            value, is_word = value + character, True
            start = len(value) if character in breaks else start
        elif is_word:
            words.append(value)
            value, is_word, start = "", False, 0
    return words, TypedWord(value, quote, quoted_from if quote else start)


def _script(shell: str) -> str:
    return ModuleFiles(__file__).text(f"completion.{shell}")


class _Offers(ShellComplete):
    """What a shell is offered, as it stands in its script's lines."""

    breaks: ClassVar[str] = ""
    typed = TypedWord()

    def source(self) -> str:
        """Return the script."""
        return _script(self.name)

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the arguments before the word that is completed, and that word."""
        breaks = os.environ.get("COMP_WORDBREAKS", "")
        words, self.typed = split_line(os.environ.get("COMP_LINE", ""), breaks)
        return words[1:], self.typed.value

    @property
    def option(self) -> str:
        """The option and its "=" where its value is completed within the same word."""
        name, equals, _ = self.typed.value.partition("=")
        return name + equals if equals and name.startswith("-") else ""

    def value_of(self, value: str) -> str:
        """Return a value as the shell's script wants it."""
        return value

    def meaning_of(self, item: CompletionItem[Any]) -> str:
        """Return what is said of an offer."""
        return " ".join((item.help or "").split())

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return the line of an offer."""
        if item.type != "plain":
            return f"{item.type}\t{item.value}\t{self.option}"
        item_type = "open" if item.value.endswith(("=", "/", ":")) else "plain"
        return f"{item_type}\t{self.value_of(item.value)}\t{self.meaning_of(item)}"


@add_completion_class
class BashOffers(_Offers):
    """Offers for bash, which neither quotes them nor knows what they mean."""

    name = "bash"

    def value_of(self, value: str) -> str:
        """Return what the line editor puts in the place of its word."""
        quote = self.typed.quote
        value = (self.option + value)[self.typed.start :]
        if quote == "'":
            return value.replace("'", "'\\''")
        return "".join(
            character
            if character in _PLAIN or character.isalnum() or (quote and character not in '"\\$`')
            else f"\\{character}"
            for character in value
        )


@add_completion_class
class ZshOffers(_Offers):
    """Offers for zsh, in which a colon ends a value."""

    name = "zsh"

    def value_of(self, value: str) -> str:
        """Return a value whose colons do not end it."""
        return value.replace("\\", "\\\\").replace(":", "\\:")


@add_completion_class
class FishOffers(_Offers):
    """Offers for fish, which completes --option=value as one word."""

    name = "fish"

    def value_of(self, value: str) -> str:
        """Return the whole word."""
        return self.option + value


@verb()
def completion(app: App, shell: str = argument(type=click.Choice([*_HINTS]))) -> None:
    """Print the completion script for a shell.

    It completes verbs, options, tags, branches, remotes, types, views and settings.
    """
    click.echo(_script(shell), nl=False)
    if terminal.is_terminal(sys.stdout):
        app.say(f"to have it always: {_HINTS[shell]}", dim=True)
