"""The line editor of the shell: history, Enter that runs complete statements, colours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from prompt_toolkit.output import ColorDepth, Output

from lakelog.cli.render import terminal
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    from pygments.lexers import sql as sql_lexers
else:
    sql_lexers = Lazy("pygments.lexers.sql")


_MENU_LINES = 6


class Editor:
    """Reads one statement after another. `is_whole` decides whether Enter runs it or adds a
    line."""

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
            # Only at Tab: a menu that opens by itself would take Enter and the arrow keys.
            complete_while_typing=False,
            reserve_space_for_menu=_MENU_LINES,
            lexer=PygmentsLexer(sql_lexers.PostgresLexer) if coloured else None,
            # has_colour decides for everything that is painted; a depth of one bit is no colour.
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
        """Return the text that was typed. Raises EOFError on Ctrl-D, KeyboardInterrupt on
        Ctrl-C."""
        try:
            return self._session.prompt([("bold", prompt)])
        # asyncio.run takes over Ctrl-C before it sets its count of them to 0 (CPython 3.11): one
        # that comes between cancels the prompt, and is not counted as what did so.
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


def bindings(is_whole: Callable[[str], bool]) -> KeyBindings:
    """Return the key bindings: Enter, and Alt-Enter that runs the text as it is."""
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
    """Return the path of the history file: $XDG_STATE_HOME/lakelog/history."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.expanduser("~/.local/state")
    return os.path.join(state, "lakelog", "history")


def history(path: str | None) -> History:
    """Return the history stored in a private file, or one of this session only."""
    if path is None:
        return InMemoryHistory()
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        # Created before prompt_toolkit opens it, since that would give everybody the right to read.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with contextlib.suppress(OSError):
            os.fchmod(file, 0o600)
        os.close(file)
    except OSError:
        return InMemoryHistory()
    return _DurableHistory(path)


class _DurableHistory(FileHistory):
    """A history whose write errors, such as a full disk, do not end the shell."""

    def store_string(self, string: str) -> None:
        # prompt_toolkit writes within the key binding of Enter: an error there would end the
        # session.
        with contextlib.suppress(OSError):
            super().store_string(string)
