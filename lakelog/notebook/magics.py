"""`%lakelog` and `%sql`: a lake and its verbs, and SQL over it, in the cells of a notebook.

    %load_ext lakelog
    %lakelog data/lake
    %%sql --at v1 errors <<
    SELECT source, count(*) FROM events WHERE level = 'ERROR' AND time > $since GROUP BY 1

`$since` is the value of that variable, bound and never pasted into the query. In a function it is
the function's own, as any name in it is, and only then the notebook's.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import threading
import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import click
from IPython.core.error import UsageError
from IPython.core.magic import (
    Magics,
    line_cell_magic,
    line_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
)
from IPython.display import HTML, DisplayHandle

from lakelog import lake as lakes
from lakelog.cli import cell
from lakelog.engine.messages import EngineMessage
from lakelog.engine.syntax import ParsedStatement
from lakelog.errors import LakelogError, QueryFailed
from lakelog.lake import Lake
from lakelog.notebook import complete, objects
from lakelog.query import Relation
from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from lakelog import cli
else:
    cli = Lazy("lakelog.cli")

_OPTION = re.compile(r"\s*(?:--at[ =]\s*(?P<at>\S+)|(?P<name>[A-Za-z_]\w*)\s*<<)")
_PARAMETER = re.compile(r"[$?]")
_PATH = "lake"
_AFTER, _EVERY = 1.0, 0.5


class MagicFailed(LakelogError):
    """Raised in a cell: a notebook shows its words, without the stack of lakelog below them."""

    def _render_traceback_(self) -> list[str]:
        return [cell(line) for line in str(self).splitlines()]


@magics_class
class LakelogMagics(Magics):
    """The magics, and the lake that they are about."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self._variables: dict[str, object] = shell.user_ns
        self._lake: Lake | None = None
        self._default_lake: Lake | None = None

    @property
    def lake(self) -> Lake:
        """The lake of `%lakelog PATH`, else the variable `lake`, else LAKELOG_LAKE or ./lake."""
        return self._lake_among(self._variables)

    def _lake_among(self, variables: Mapping[str, object]) -> Lake:
        if self._lake is not None:
            return self._lake
        candidate = variables.get("lake")
        if isinstance(candidate, Lake):
            return candidate
        # Not the chosen one: a completion opens it before a cell sets the variable.
        if self._default_lake is None:
            path = os.environ.get("LAKELOG_LAKE", _PATH)
            self._default_lake = lakes.open(path, create=False)
        return self._default_lake

    def _visible(self, local: dict[str, object] | None) -> Mapping[str, object]:
        """The variables that a magic sees: those of the function that it is in, then all others."""
        return self._variables if local is None else ChainMap(local, self._variables)

    @no_var_expand
    @needs_local_scope
    @line_magic
    def lakelog(self, line: str, local_ns: dict[str, object] | None = None) -> object:
        """Open a lake, or run a verb of the command line on it.

        %lakelog PATH        open the lake at PATH; %sql asks it from now on
        %lakelog             show it
        %lakelog log         what `lakelog log` shows; any other verb, too
        """
        with _explained():
            try:
                arguments = shlex.split(line)
            except ValueError as error:
                raise UsageError(f"{str(error).lower()} in: {line}") from None
            if arguments and arguments[0] in cli.cli.list_commands(_context()):
                return _run_verb(arguments, self._lake_among(self._visible(local_ns)))
            if len(arguments) > 1 or line.startswith("-"):
                raise UsageError(
                    f"{arguments[0]} is no verb: `%lakelog PATH` or `%lakelog VERB ...`"
                )
            if arguments:
                self._lake = lakes.open(os.path.expanduser(arguments[0]), create=False)
            return self._lake_among(self._visible(local_ns))

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    def sql(
        self, line: str, body: str | None = None, local_ns: dict[str, object] | None = None
    ) -> Relation | None:
        """Run SQL over the lake.

        %sql SELECT ...                  or a whole cell that begins with %%sql
        %%sql --at REF                   over a tag, branch or snapshot
        %%sql name <<                    keep the answer in a variable, show nothing
        $variable                        the value of a variable, bound as a parameter
        """
        ref, name, query = _parsed(line, body)
        if name and local_ns is not None and local_ns is not self._variables:
            raise UsageError(f"`{name} <<` is for cells: in a function write `{name} = %sql ...`")
        variables = self._visible(local_ns)
        with _explained(query):
            lake = self._lake_among(variables)
            source = lake if ref is None else lake.at(ref)
            params = _params(lake, query, variables)
            relation = source.sql(query, params, variables=variables)
            if name:
                self._variables[name] = relation
                return None
            if relation is not None:
                # Here, so that what goes wrong is shown as the query's, and not as the display's.
                with _progress(relation.watch()):
                    _ = relation.head
            return relation


def _params(lake: Lake, query: str, variables: Mapping[str, object]) -> dict[str, object] | None:
    """Return the variables that a query names. Raises QueryFailed where one is missing."""
    if not _PARAMETER.search(query):
        return None
    cursor = lake.engine().cursor()
    try:
        parsed = ParsedStatement.list_of(cursor, query)
    except Exception:
        return None  # it is not SQL: asking says so, with the place
    names = {name for statement in parsed for name in statement.parameters}
    if any(name.isdigit() for name in names):
        raise QueryFailed("a parameter is a variable of the notebook: write $name")
    missing = sorted(names - variables.keys())
    if missing:
        raise QueryFailed(f"there is no variable {missing[0]} for ${missing[0]}: set it first")
    return {name: variables[name] for name in names} or None


def _parsed(line: str, body: str | None) -> tuple[str | None, str, str]:
    """Return (ref, variable, query) of a magic's line and cell."""
    ref, name, remainder = None, "", line
    while match := _OPTION.match(remainder):
        ref, name = match["at"] or ref, match["name"] or name
        remainder = remainder[match.end() :]
    return ref, name, "\n".join(filter(str.strip, (remainder, body or "")))


@contextlib.contextmanager
def _explained(query: str = "") -> Iterator[None]:
    """Raise what is wrong as one line, for SQL with the place below it."""
    try:
        yield
    except QueryFailed as error:
        raise MagicFailed("\n".join([str(error), *_place(error.details, query)])) from None
    except LakelogError as error:
        raise MagicFailed(str(error)) from None
    except KeyboardInterrupt as interrupt:
        # Where it was interrupted says nothing, and to colour it takes IPython a second.
        interrupt._render_traceback_ = lambda: ["interrupted"]  # type: ignore[attr-defined]
        raise


def _place(details: str, query: str) -> list[str]:
    """Return the line of a query that the engine complains of, and a caret below the place."""
    if picture := EngineMessage(details).renumbered(query).picture():
        return picture
    # While it binds names it does not say where: only a name that is there once is sure.
    name = re.escape(EngineMessage(details).missing_name())
    matches = [*re.finditer(rf"(?<!\w){name}(?!\w)", query, re.I)] if name else []
    if len(matches) != 1:
        return []
    before = query[: matches[0].start()].split("\n")
    line = query.split("\n")[len(before) - 1]
    start = f"LINE {len(before)}: "
    return [f"{start}{line}", " " * (len(start) + len(before[-1])) + "^" * len(matches[0][0])]


def _context() -> click.Context:
    return cli.cli.make_context("lakelog", [], resilient_parsing=True)


def _command(arguments: list[str]) -> click.Command | None:
    """Return the command that words name, which `state list` does with two of them."""
    command = cli.cli.get_command(_context(), arguments[0])
    # Options of a group, if it has any, do not come before the name of its command.
    for word in arguments[1:]:
        if command is None or not hasattr(command, "get_command"):
            break
        command = command.get_command(_context(), word)
    return command


def _run_verb(arguments: list[str], lake: Lake) -> HTML | None:
    """Run a verb as the command line does; its table becomes one of the notebook."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    command = _command(arguments)
    types = [p.type for p in command.params if p.name == "format"] if command else []
    choices = [name for kind in types if isinstance(kind, click.Choice) for name in kind.choices]
    # Of a verb without tables the lines that a terminal gets.
    default_format = next((name for name in ("html", "lines") if name in choices), None)
    is_chosen = any(word in ("--json", "-h", "--help") or "--format" in word for word in arguments)
    format_options = ["--format", default_format] if default_format and not is_chosen else []
    command_line = ["--lake", lake.path, "--branch", lake.branch_name, *arguments, *format_options]
    code = 0
    # Messages are part of the answer here: what is on stderr looks like a warning.
    with contextlib.redirect_stderr(sys.stdout), contextlib.redirect_stdout(out):
        try:
            cli.cli.main(command_line, "lakelog")
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
    output = out.buffer.getvalue().decode("utf-8", "replace")
    if output.startswith(("<table", "<pre>")):
        return HTML(output)
    sys.stdout.write(output)
    if code:
        raise MagicFailed(f"lakelog {arguments[0]} ended with {code}")
    return None


def load(shell: InteractiveShell) -> None:
    """Register the magics, completion and display with a shell of IPython."""
    magics = LakelogMagics(shell)
    shell.register_magics(magics)
    formatter = shell.display_formatter
    assert formatter is not None  # every shell has one
    objects.register(formatter.formatters)
    matcher = complete.matcher(lambda: magics.lake)
    # Of an extension that is loaded again, the one before is about another lake.
    same = [m for m in shell.Completer.custom_matchers if complete.is_ours(m)]
    for former in same:
        shell.Completer.custom_matchers.remove(former)
    shell.Completer.custom_matchers.append(matcher)
    objects.register_plots()


@contextlib.contextmanager
def _progress(share: Callable[[], float | None]) -> Iterator[None]:
    """Show below its cell how long a query takes and, where the engine knows it, the share that is
    done, after a second."""
    finished = threading.Event()
    display = threading.Thread(target=_show_progress, args=(share, finished), daemon=True)
    display.start()
    try:
        yield
    finally:
        finished.set()
        display.join(_EVERY * 4)


def _show_progress(share: Callable[[], float | None], finished: threading.Event) -> None:
    started, handle = time.monotonic(), None
    while not finished.wait(_EVERY if handle else _AFTER):
        seconds, fraction = time.monotonic() - started, share()
        note = f"{seconds:.0f} s" + (f", {fraction:.0%}" if fraction is not None else "")
        if handle is None:
            handle = DisplayHandle()
            handle.display({"text/plain": note}, raw=True)
        else:
            handle.update({"text/plain": note}, raw=True)
    if handle is not None:
        handle.update({"text/plain": ""}, raw=True)
