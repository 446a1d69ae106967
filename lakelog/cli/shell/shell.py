"""The SQL shell: `lakelog sql` on a terminal.

A statement runs when its semicolon is there; a line that begins with a dot is a command of the
shell, and so are the commands of psql that have an equivalent, such as \\d and \\?. Nothing
typed ends the shell but .quit and Ctrl-D: Ctrl-C stops the statement that runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import click

from lakelog import sql
from lakelog.cli.app import App
from lakelog.cli.render import terminal
from lakelog.cli.render.monitor import QueryMonitor
from lakelog.cli.render.output import OutputTarget, emit
from lakelog.cli.render.tables import cell
from lakelog.cli.render.terminal import many
from lakelog.cli.shell.complete import CompletionNames, SqlCompleter
from lakelog.cli.shell.editor import Editor, history_path
from lakelog.cli.shell.screen import complain, draw, duration, show
from lakelog.cli.shell.statements import ShellStatement, StatementRunner
from lakelog.compat import omega
from lakelog.lake import Lake
from lakelog.query import TypeTable
from lakelog.render import OutputFormat, QueryResult
from lakelog.runtime.closest import did_you_mean

TEXT_FORMATS = [str(form) for form in OutputFormat if form not in OutputFormat.binary()]
COMMANDS = {
    "at": ("REF | off", "query a tag, branch, snapshot or time; off: the present"),
    "exit": ("", "leave, like .quit and Ctrl-D"),
    "format": ("FORMAT", ", ".join(TEXT_FORMATS)),
    "help": ("", "this list"),
    "quit": ("", "leave"),
    "schema": ("[TABLE]", "columns and their types"),
    "tables": ("", "tables, views, tags and branches"),
    "timer": ("on | off", "show rows and time after each result"),
}
_TYPES_MAX = 20
SYNONYMS = {
    "help": "help",
    "quit": "quit",
    "exit": "exit",
    "\\?": "help",
    "\\h": "help",
    "\\q": "quit",
    "\\d": "schema",
    "\\dt": "tables",
    "\\dv": "tables",
    "\\l": "tables",
    "\\timing": "timer",
}
"""What people type who know other shells; `\\d` without a name lists the tables."""
_HELP = """
psql's \\d, \\d NAME, \\dt, \\timing, \\? and \\q work, too; so do help, quit, exit.
A statement may take many lines and ends with ;  Alt-Enter runs it as it is.
Tab completes, Ctrl-R searches the history, Ctrl-X Ctrl-E opens $EDITOR.
Ctrl-C clears the line, or stops the statement that runs. Tables, views, macros
and variables that you create last until you leave."""


def start(app: App, ref: str | None, params: dict[str, object], form: str) -> None:
    """Run the shell until the user leaves. `params` are values of $names in any statement."""
    with app.open() as lake, StatementRunner(lake.store, lake.branch_name) as runner:
        shell = Shell(app, lake, runner, params, form)
        if ref:
            shell.look_at(ref)
        editor = Editor(
            shell.is_whole, SqlCompleter(shell.names, shell.offers()), path=history_path()
        )
        app.say(
            f"{many(shell.count(), 'event')} in {cell(lake.path)}; .help lists the commands",
            dim=True,
        )
        shell.talk(editor.read)


class Shell:
    """The shell's settings, and how it runs statements and commands."""

    def __init__(
        self,
        app: App,
        lake: Lake,
        runner: StatementRunner,
        params: dict[str, object],
        form: str = "table",
    ) -> None:
        self._app, self._lake, self._runner, self._params = app, lake, runner, params
        self.names = CompletionNames(lake.store, lake.branch_name, runner)
        self.format, self.is_timed, self.is_over = form, True, False
        self._ref = ""
        self._digest: str | None = None

    @property
    def prompt(self) -> str:
        """The prompt: the branch if it is not main, and the state that is queried."""
        branch = self._lake.branch_name
        branch_note = "" if branch == "main" else f"/{branch}"
        state = f"@{self._ref}" if self._ref else ""
        return f"{cell(f'lakelog{branch_note}{state}')}> "

    def talk(self, read_line: Callable[[str], str]) -> None:
        """Run what `read_line` returns, until it raises EOFError or the user leaves."""
        while True:
            # Around the loop: Ctrl-C may come between an answer and the next prompt, too.
            try:
                while not self.is_over:
                    self.answer(read_line(self.prompt))
                return
            # Ctrl-C at the prompt drops the line that was typed.
            except KeyboardInterrupt:
                continue
            except EOFError:
                return

    def is_whole(self, query: str) -> bool:
        """Whether Enter runs what was typed."""
        return _command_in(query) is not None or self._runner.is_whole(query)

    def answer(self, line: str) -> None:
        """Run statements, or a command; report an error, and skip what comes after it."""
        command, running = _command_in(line), line
        try:
            if command is not None:
                self._obey(command)
                return
            for statement in self._runner.statements(line):
                # Kept for the error, which shows the statement that failed and not all that was
                # typed.
                running = statement.text
                self._run(statement)
        # Nothing that goes wrong in a statement ends the shell.
        except (KeyboardInterrupt, Exception) as error:
            complain(
                self._runner.as_asked(error), running, self._runner.session.binder.refs.as_written
            )

    def count(self) -> int:
        """Return the number of events in the state that is queried."""
        return self._runner.session.count(self._digest)

    def look_at(self, ref: str) -> None:
        """Query a state from now on; "off" returns to the present. Raises UnknownRef."""
        if ref == "off":
            self._ref, self._digest = "", None
        else:
            self._digest = self._lake.at(ref).id
            self._ref = ref

    def offers(self) -> dict[str, Callable[[], Iterable[str]]]:
        """Return the possible arguments of each command, for completion."""
        completions: dict[str, Callable[[], Iterable[str]]] = dict.fromkeys(COMMANDS, tuple)
        completions["at"] = lambda: [*(name for name, _ in self.names.refs()), "off"]
        completions["format"] = lambda: TEXT_FORMATS
        completions["schema"] = lambda: [
            *self.names.tables(),
            *(name for name, _ in self.names.views()),
            *(f"{TypeTable.SCHEMA}.{name}" for name, _ in self.names.types()),
        ]
        completions["timer"] = lambda: ("on", "off")
        return completions

    # --- statements ---

    def _run(self, statement: ShellStatement) -> None:
        start = time.monotonic()
        # The engine refuses parameters that a statement does not name.
        params = {k: v for k, v in self._params.items() if k in statement.params}
        with QueryMonitor(self._runner.interrupt, self._app.progress("running", "s")) as monitor:
            relation = self._runner.sql(statement.text, params or None, self._digest)
            output, count_words, note = self._outcome(statement, relation, monitor)
        # Before the pager opens: reading is not running.
        seconds = time.monotonic() - start
        if output:
            show(output)
        if self.is_timed:
            note = "; ".join(filter(None, [f"{count_words}, {duration(seconds)}", note]))
        if note:
            terminal.say(note, dim=True)

    def _outcome(
        self, statement: ShellStatement, relation: Any, monitor: QueryMonitor
    ) -> tuple[str, str, str]:
        """Return (text to show, how many rows, what to know); other formats are written at once."""
        if not statement.gives_rows(relation):
            count_rows = relation.fetchall() if relation is not None else []
            count_words = many(count_rows[0][0], "row") if count_rows else "done"
            return "", f"{count_words} until you leave" if statement.changes else count_words, ""
        # DuckDB 2.0 gives a plan as one cell of many lines, which no table could show.
        if list(relation.columns) == ["explain_key", "explain_value"]:
            lines = [line for _, plan in relation.fetchall() for line in plan.splitlines()]
            return "".join(f"{cell(line)}\n" for line in lines), "planned", ""
        result = self._runner.result(relation, statement.text, self.format)
        if self.format == "table":
            return draw(result)
        emit(replace(result, batches=monitor.over(result.batches)), OutputTarget(self.format))
        return "", many(monitor.rows, "row"), ""

    # --- commands ---

    def _obey(self, line: str) -> None:
        command, _, argument = line.partition(" ")
        # A beginning is enough, as in sqlite3's shell, if it means one command only.
        matches = (
            [command] if command in COMMANDS else [n for n in COMMANDS if n.startswith(command)]
        )
        if len(matches) != 1:
            display = command if command.startswith("\\") else f".{command}"
            hint = did_you_mean(command, COMMANDS) or ".help lists them"
            raise click.ClickException(f"no command {display}: {hint}")
        getattr(self, f"_{matches[0]}")(argument.strip())

    def _at(self, argument: str) -> None:
        if argument:
            self.look_at(argument)
        state = f"{self._ref}, snapshot {self._digest[:12]}" if self._digest else "the present"
        terminal.say(f"asking {cell(state)}: {many(self.count(), 'event')}", dim=True)

    def _format(self, argument: str) -> None:
        if argument and argument not in (*TEXT_FORMATS, *OutputFormat.synonyms()):
            raise click.ClickException(f"a format is one of {', '.join(TEXT_FORMATS)}")
        self.format = OutputFormat.synonyms().get(argument, argument) or self.format
        terminal.say(f"the format is {self.format}", dim=True)

    def _help(self, _: str) -> None:
        usages = {f".{name} {usage}": summary for name, (usage, summary) in COMMANDS.items()}
        widest = max(map(len, usages))
        lines = [f"{usage:{widest}}  {summary}" for usage, summary in usages.items()]
        show("\n".join([*lines, _HELP, ""]))

    def _quit(self, _: str) -> None:
        self.is_over = True

    _exit = _quit

    def _schema(self, argument: str) -> None:
        all_tables = {table: sql.identifier(table) for table in self.names.tables()}
        tables = {argument: argument} if argument else all_tables
        rows = []
        for table, quoted in tables.items():
            # The engine binds `SELECT *` without running it: columns and types cost nothing.
            relation = self._runner.sql(f"SELECT * FROM {quoted}", None, self._digest)
            for name, column_type in zip(relation.columns, relation.types, strict=True):
                rows.append({"table": table, "column": name, "type": str(column_type)})
        show(draw(QueryResult.of_records(rows))[0])

    def _tables(self, _: str) -> None:
        state = f"as of {self._ref}" if self._ref else "those just appended included"
        tables = {"events": f"{many(self.count(), 'event')}, {state}"}
        tables["quarantine"] = "lines that could not be read as events"
        tables |= {t: "created in this session" for t in self.names.tables() if t not in tables}
        tables |= {
            name: f"view: {about}" for name, about in self.names.views() if name not in tables
        }
        types = [name for name, _ in self.names.types()]
        tables |= {
            f"{TypeTable.SCHEMA}.{name}": "events of the type" for name in types[:_TYPES_MAX]
        }
        if len(types) > _TYPES_MAX:
            tables[f"{TypeTable.SCHEMA}.NAME"] = f"{many(len(types), 'type')} in all"
        tables |= {f"omega.{name}": "the older event store" for name in omega.TABLES}
        for name, ref_kind in self.names.refs():
            tables[f"{sql.identifier(name)}.events"] = ref_kind
        show(draw(QueryResult.of_records([{"table": t, "what": w} for t, w in tables.items()]))[0])

    def _timer(self, argument: str) -> None:
        if argument not in ("", "on", "off"):
            raise click.ClickException("the timer is on or off")
        self.is_timed = argument == "on" if argument else self.is_timed
        terminal.say(f"the timer is {'on' if self.is_timed else 'off'}", dim=True)


def _command_in(line: str) -> str | None:
    """Return a command of the shell without its dot, or None; see SYNONYMS."""
    # `.tables;` and `\d;` are typed by habit.
    line = line.strip().rstrip("; ")
    if line.startswith("."):
        return line[1:]
    command, _, argument = line.partition(" ")
    if command.startswith("\\"):
        command = command.removesuffix("+")
        name = "tables" if command == "\\d" and not argument else SYNONYMS.get(command, command)
        return f"{name} {argument}".strip()
    return SYNONYMS.get(line.lower())
