"""The command line: `lakelog [--lake DIR] [--branch NAME] VERB`; verbs load when used."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
import orjson
from click.shell_completion import CompletionItem

from lakelog.cli import exits, signals
from lakelog.cli.app import DEFAULT_LAKE, App, complete_branch
from lakelog.cli.options import bind, flag, option
from lakelog.runtime.lazy import lazy_face
from lakelog.runtime.tables import ModuleFiles
from lakelog.settings import VERSION

if TYPE_CHECKING:
    from lakelog.cli.render.tables import cell as cell
    from lakelog.cli.shell.complete import CompletionNames as CompletionNames
    from lakelog.cli.shell.complete import SqlCompleter as SqlCompleter
    from lakelog.cli.shell.statements import StatementRunner as StatementRunner

__getattr__, __all__ = lazy_face(__name__)
__all__ += ["cli", "main"]

# In JSON, as each run needs it, and what reads TOML takes as long to load as all of this.
SECTIONS: dict[str, dict[str, tuple[str, str]]] = orjson.loads(
    ModuleFiles(__file__).text("verbs.json")
)
"""The verbs that help shows, by section: the module below this that defines each, and what it
does."""
MODULES = {verb: module for verbs in SECTIONS.values() for verb, (module, _) in verbs.items()}
del SECTIONS["hidden"]  # found by their names, and shown by no help


class Verbs(click.Group):
    """The verbs of `SECTIONS`, each loaded by its name; every mistake ends in exits.guard."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs that help and completion show."""
        return [verb for verbs in SECTIONS.values() for verb in verbs]

    # Their words stand in SECTIONS: click would load every verb for them, and somebody waits.
    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the verbs and options that begin with what was typed."""
        summaries = {v: words for verbs in SECTIONS.values() for v, (_, words) in verbs.items()}
        matching = [name for name in summaries if name.startswith(incomplete)]
        verbs = [CompletionItem(name, help=summaries[name]) for name in matching]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]

    # Looked up and imported on demand: a run loads the modules of its own verb only.
    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Load a verb."""
        if name not in MODULES:
            return None
        command: click.Command = getattr(
            importlib.import_module(f"lakelog.cli.{MODULES[name]}"), name.replace("-", "_")
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs by section, without loading them."""
        # The words stand in SECTIONS: help would otherwise have to load every verb.
        widest = max(map(len, MODULES))
        for section, verbs in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(
                    [(f"{v:{widest}}", summary) for v, (_, summary) in verbs.items()]
                )

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; a reader that closed our pipe is no error (click would make it one)."""
        try:
            return super().invoke(ctx)
        # click 8.5 turns it into exit code 1 (Context.exit in its main), though the reader had what
        # it wanted.
        except BrokenPipeError:
            raise exits.ReaderLeft from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: object,
    ) -> Any:
        """Run; with `standalone_mode` every error becomes one line and an exit code."""
        # Its import tells click how our scripts are answered.
        if "_LAKELOG_COMPLETE" in os.environ:
            importlib.import_module("lakelog.cli.completion")
        run = functools.partial(
            super().main, args, "lakelog", complete_var, standalone_mode=False, **extra
        )
        # Tests and callers of the group see the error itself.
        if not standalone_mode:
            return run()
        sys.exit(exits.guard(run))


EPILOG = """REF is a tag, a branch, a snapshot id or its first digits, @N or BRANCH@N for
a move, REF~N for N states before, or a time such as 2026-11-20T08:00.
Exit codes: 0 success, 1 failure, 2 wrong usage, 3 a check found problems,
130 interrupted. Any option can be set in the environment: LAKELOG_LAKE,
LAKELOG_SQL_FORMAT. LAKELOG_DEBUG=1 prints tracebacks. `lakelog help VERB`
explains a verb.

\b
Examples:
  echo '{"type": "deploy", "data": {"version": 3}}' | lakelog append
  lakelog sql "SELECT type, count(*) FROM events GROUP BY 1"
  lakelog tag v1; lakelog rollback v1; lakelog undo
"""


def _set_globals(
    ctx: click.Context,
    lake: str = option(
        "--lake DIR", "The lake's directory; ./lake by default.", default=DEFAULT_LAKE
    ),
    branch: str = option(
        "--branch NAME",
        "The branch to work on; main by default.",
        default="main",
        shell_complete=complete_branch,
    ),
    quiet: bool = flag("-q, --quiet", "Write only errors to stderr."),
    verbose: bool = flag("-v, --verbose", "Write details to stderr."),
) -> None:
    ctx.obj = App(lake, branch, quiet, verbose)


@click.group(
    cls=Verbs,
    name="lakelog",
    epilog=EPILOG,
    subcommand_metavar="VERB [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "LAKELOG"},
    params=bind(_set_globals)[1],
)
# LAKELOG_VERSION in the environment, which packagers set, would else print it and end the run.
@click.version_option(VERSION, message="lakelog %(version)s", allow_from_autoenv=False)
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> None:
    """The flight recorder for data and AI systems.

    One directory is one lake: append events from any number of processes, query
    them with SQL at once, name any state, verify it, and return to it.
    """
    # The function behind the options does the work, so that their declarations are typed like any
    # verb's.
    _set_globals(ctx, **options)


class _WithoutPandas:
    """A finder of modules by which pandas cannot be imported.

    Where pandas is installed, pyarrow 26 imports it to make its first array of Python values:
    0.3 s and 45 MB of every process, and no verb has a use for it.
    """

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse pandas; leave all else to the finders behind."""
        if name == "pandas":
            raise ModuleNotFoundError("the command line does without pandas", name=name)


def main() -> None:
    """Run the command line of this process."""
    # Only in a process that is the command line: a program that imports lakelog may want pandas.
    sys.meta_path.insert(0, _WithoutPandas())
    try:
        cli.main()
    except SystemExit as end:
        if end.code == exits.INTERRUPTED:
            signals.end_soon()
        raise
