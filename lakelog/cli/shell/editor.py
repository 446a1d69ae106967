"""The line editor of the shell: history, Enter that knows when a statement is whole, colours."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import Lexer, PygmentsLexer
from prompt_toolkit.output import ColorDepth, Output

from lakelog.cli.render import terminal

_MENU_LINES = 6


class Editor:
    """Reads one statement after another. `is_whole` tells whether Enter ends it or goes on."""

    def __init__(
        self,
        is_whole: Callable[[str], bool],
        completer: Completer,
        *,
        path: str | None = None,
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        coloured = terminal.has_colour(sys.stdout)
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            history=history(path),
            completer=completer,
            complete_while_typing=False,
            reserve_space_for_menu=_MENU_LINES,
            lexer=_lexer() if coloured else None,
            color_depth=None if coloured else ColorDepth.DEPTH_1_BIT,
            key_bindings=bindings(is_whole),
            prompt_continuation=lambda width, line, wrapped: "-> ".rjust(width),
            enable_open_in_editor=True,
            tempfile_suffix=".sql",
            enable_suspend=True,
            input=input,
            output=output,
        )

    def read(self, prompt: str) -> str:
        """Return what was typed. Raises EOFError on Ctrl-D, KeyboardInterrupt on Ctrl-C."""
        return self._session.prompt([("bold", prompt)])


def bindings(is_whole: Callable[[str], bool]) -> KeyBindings:
    """Return the keys: Enter, and Alt-Enter that runs a text as it is."""
    keys = KeyBindings()

    @keys.add("enter", filter=has_focus(DEFAULT_BUFFER))
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None  # it is taken
        elif is_whole(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.newline(copy_margin=True)

    @keys.add("escape", "enter", filter=has_focus(DEFAULT_BUFFER))
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    return keys


def history_path() -> str:
    """The file that keeps what was typed: $XDG_STATE_HOME/lakelog/history."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.expanduser("~/.local/state")
    return os.path.join(state, "lakelog", "history")


def history(path: str | None) -> History:
    """Return the history kept at a path that nobody else may read, or one of this run only."""
    if path is None:
        return InMemoryHistory()
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with contextlib.suppress(OSError):
            os.fchmod(file, 0o600)
        os.close(file)
    except OSError:
        return InMemoryHistory()
    return _DurableHistory(path)


class _DurableHistory(FileHistory):
    """A history that a full disk does not end the shell for."""

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(string)


def _lexer() -> Lexer:
    from pygments.lexers.sql import PostgresLexer

    return PygmentsLexer(PostgresLexer)
