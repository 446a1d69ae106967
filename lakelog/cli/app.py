"""What every verb receives: the lake, the branch, the verbosity; and the names for completion."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from lakelog import lake as lakes
from lakelog import views
from lakelog.cli.options import bind, complete_directory, option, output_files
from lakelog.cli.render import terminal
from lakelog.entries import Counts
from lakelog.erased import copies
from lakelog.errors import LakelogError
from lakelog.runtime.tables import ModuleFiles
from lakelog.settings import NAMES
from lakelog.store import Store

DEFAULT_LAKE = "lake"
_VALUES_MAX = 200
_EVENTS_MAX = 200_000


@dataclass
class App:
    """The global options, given before or after the verb."""

    path: str = DEFAULT_LAKE
    branch: str = "main"
    quiet: bool = False
    verbose: bool = False

    def open(self, *, notes_outputs: bool = True) -> lakes.Lake:
        """Open the lake, which must exist. What options of the verb name for its output gets rows
        of it, and is noted for erasures."""
        lake = lakes.open(self.path, create=False, branch=self.branch)
        for path in output_files() if notes_outputs else ():
            copies.note(lake.store.paths, "export", os.path.abspath(path))
        return lake

    def new_lake(self, url: str, directory: str | None) -> str:
        """Return where the lake of an address gets its directory."""
        named = self.path if self.path != DEFAULT_LAKE else ""
        return directory or named or os.path.basename(url.rstrip("/"))

    def open_or_create(self) -> lakes.Lake:
        """Open the lake, or create one and say so."""
        # A branch other than main cannot exist in a lake that does not: opening it says so.
        if Store.is_lake(self.path) or self.branch != "main":
            return self.open()
        lake = lakes.open(self.path)
        self.say(f"created a lake at {lake.path}")
        return lake

    def say(self, message: str, **style: object) -> None:
        """Write a message to stderr unless --quiet."""
        if not self.quiet:
            terminal.say(message, **style)

    def detail(self, message: str) -> None:
        """Write a message to stderr only with --verbose."""
        if self.verbose:
            terminal.say(message, dim=True)

    def progress(self, activity: str, unit: str = "") -> terminal.ProgressLine:
        """Return a progress line for stderr, if that is a terminal."""
        return terminal.ProgressLine(activity, unit, self.quiet)


class _WithExamples(click.Command):
    """A command whose help ends with its examples, those of its `path` in examples.toml."""

    path = ""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, which are read only for this: no other run needs them."""
        examples = ModuleFiles(__file__).tables("examples.toml").get(self.path, "")
        # \b tells click to keep the lines as they are.
        lines = ["\b", "Examples:", *(f"  {line}" for line in examples.splitlines())]
        self.epilog = "\n".join(lines) if examples else None
        super().format_epilog(ctx, formatter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line, of which SQL that begins with a comment is no option."""
        try:
            return super().parse_args(ctx, list(args))
        except click.NoSuchOption as error:
            name = error.option_name
            if not (name[2:3].isspace() or "\n" in name):
                raise
            # A blank before it means nothing in SQL, and no option begins with one.
            return self.parse_args(ctx, [f" {a}" if a.startswith(name) else a for a in args])


def verb(
    name: str | None = None, group: str = "", **attributes: object
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command that gets the App first and accepts --lake, --branch, -q and -v, too."""

    def make(function: Callable[..., Any]) -> click.Command:
        run, parameters = bind(function)
        # A verb's own option wins, such as `demo --lake`.
        option_names = {name for parameter in parameters for name in parameter.opts}
        parameters += [p for p in everywhere() if option_names.isdisjoint(p.opts)]
        # A function is called list_ where `list` would hide the builtin.
        verb_name = name or function.__name__.rstrip("_").replace("_", "-")
        make_command = click.command(verb_name, _WithExamples, params=parameters, **attributes)
        command = make_command(click.pass_obj(run))
        command.path = f"{group} {verb_name}".strip()
        return command

    return make


class VerbGroup(_WithExamples, click.Group):
    """A verb with verbs of its own. `fallback` names the one that is meant where the first word is
    none of them."""

    def __init__(self, *names: Any, fallback: str = "", **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self._fallback = fallback

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb that the words mean, and what is left of them."""
        # `lakelog view errors` means `view show errors`, as a file is queried by its bare name.
        if self._fallback and args[0] not in self.commands:
            args = [self._fallback, *args]
        return super().resolve_command(ctx, args)

    def verb(
        self, name: str | None = None, **attributes: object
    ) -> Callable[[Callable[..., None]], click.Command]:
        """Make a verb of this one, as `verb` does."""

        def add(function: Callable[..., None]) -> click.Command:
            command = verb(name, self.path, **attributes)(function)
            self.add_command(command)
            return command

        return add


def verb_group(**attributes: object) -> Callable[[Callable[..., None]], VerbGroup]:
    """Make a verb with verbs of its own. It gets the App first if it has options. One that is
    invoked without a verb runs only so: options of a verb come after it."""

    def make(function: Callable[..., None]) -> VerbGroup:
        run, parameters = bind(function)
        if attributes.get("invoke_without_command"):
            run = functools.wraps(run)(functools.partial(_run_alone, run, parameters))
        # A group without options needs no App, and click would call it before a mere -h, too.
        make_group = click.group(None, VerbGroup, params=parameters, **attributes)
        group = make_group(click.pass_obj(run) if parameters else function)
        group.path = str(group.name)
        return group

    return make


def _run_alone(
    run: Callable[..., None], parameters: list[click.Parameter], app: App, **values: object
) -> None:
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        run(app, **values)
        return
    # Refused and not ignored: click runs the group before its verb, where they change nothing.
    sources = [context.get_parameter_source(parameter.name or "") for parameter in parameters]
    if ParameterSource.COMMANDLINE in sources:
        raise click.UsageError(f"options of {context.invoked_subcommand} come after it")


def everywhere() -> list[click.Parameter]:
    """Return the global options as a verb accepts them: hidden, and effective only when given."""
    return [
        _hidden_option(["--lake"], "path", type=click.Path(), shell_complete=complete_directory),
        _hidden_option(["--branch"], "branch", shell_complete=complete_branch),
        _hidden_option(["-q", "--quiet"], "quiet", is_flag=True, default=None),
        _hidden_option(["-v", "--verbose"], "verbose", is_flag=True, default=None),
    ]


def state_option(help: str = "Use a tag, branch, snapshot or time instead of now.") -> Any:
    """Return --at, the state that a verb works on."""
    return option("--at REF", help, shell_complete=complete_ref)


Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def names_in(
    ctx: click.Context, names: Callable[[lakes.Lake], Iterable[CompletionItem | str]]
) -> list[CompletionItem]:
    """Return what the lake of a command line has to offer, nothing where it cannot be opened."""
    # Completion parses the line but runs no verb, so there is no App to ask; and what is typed has
    # not been through the shell.
    params = ctx.find_root().params
    path = os.path.expandvars(os.path.expanduser(params.get("lake") or DEFAULT_LAKE))
    app = App(path, params.get("branch") or "main")
    with contextlib.suppress(LakelogError, OSError), app.open() as lake:
        return [CompletionItem(name) if isinstance(name, str) else name for name in names(lake)]
    return []


def completing(names: Callable[[lakes.Lake], Iterable[CompletionItem | str]]) -> Completer:
    """Return the completion of what a lake has to offer."""

    def complete(ctx: click.Context, _: click.Parameter, prefix: str) -> list[CompletionItem]:
        return [item for item in names_in(ctx, names) if item.value.startswith(prefix)]

    return complete


def _refs(lake: lakes.Lake) -> Iterator[CompletionItem]:
    yield from (CompletionItem(tag.name, help="tag") for tag in lake.store.refs.tags())
    yield from (CompletionItem(name, help="branch") for name in lake.store.refs.branches())


def counted_values(store: Store, branch: str, column: str) -> list[str]:
    """Return values of type, source or level that the published segments count.

    Raises LakelogError, OSError.
    """
    values: set[str] = set()
    for entry in store.manifests.segments(store.state(branch)):
        counts: Counts = getattr(entry, f"{column}s")
        # A segment with too many values counts none of them.
        values |= counts.keys() if isinstance(counts, dict) else set()
    return sorted(values)[:_VALUES_MAX]


complete_ref = completing(_refs)
complete_type = completing(lambda lake: counted_values(lake.store, lake.branch_name, "type"))
complete_source = completing(lambda lake: counted_values(lake.store, lake.branch_name, "source"))
complete_branch = completing(lambda lake: lake.store.refs.branches())


def complete_verb(ctx: click.Context, _: click.Parameter, prefix: str) -> list[str]:
    """Verbs that begin with what was typed, after those of `lakelog help VERB`."""
    context = ctx.find_root()
    for word in ctx.params.get("arguments") or ():
        group = context.command
        command = group.get_command(context, word) if isinstance(group, click.Group) else None
        if command is None:
            return []
        context = click.Context(command, context, info_name=word)
    group = context.command
    names = group.list_commands(context) if isinstance(group, click.Group) else []
    return [name for name in names if name.startswith(prefix)]


def complete_view(ctx: click.Context, _: click.Parameter, prefix: str) -> list[CompletionItem]:
    """Views that begin with what was typed; FILE where `view create NAME` wants one."""
    arguments: tuple[str, ...] = ctx.params.get("arguments") or ()
    if arguments[:1] == ("create",):
        # Completion hands over all words typed so far, but not the one that is being completed.
        return [CompletionItem(prefix, type="file")] if len(arguments) == 2 else []
    is_first = not arguments
    if not is_first and (len(arguments) > 1 or arguments[0] not in ("drop", "show")):
        return []
    names = _views(ctx, own=arguments[:1] == ("drop",))
    items = [CompletionItem(name, help="view") for name in names]
    items += [CompletionItem(word) for word in ("create", "drop", "show") if is_first]
    return [item for item in items if item.value.startswith(prefix)]


def complete_table(ctx: click.Context, _: click.Parameter, prefix: str) -> list[str]:
    """Tables and views that begin with what was typed."""
    return [name for name in ("events", "quarantine", *_views(ctx)) if name.startswith(prefix)]


def complete_subject(ctx: click.Context, _: click.Parameter, prefix: str) -> list[CompletionItem]:
    """Subjects that begin with what was typed, of a lake that is small enough to look."""

    def subjects(lake: lakes.Lake) -> list[str]:
        if lake.store.state(lake.branch_name).totals.events > _EVENTS_MAX:
            return []
        query = "SELECT DISTINCT subject FROM events WHERE starts_with(subject, $p) ORDER BY 1"
        rows = lake.sql(f"{query} LIMIT {_VALUES_MAX}", {"p": prefix}).fetchall()
        return [subject for (subject,) in rows]

    return names_in(ctx, subjects)


def complete_setting(_: click.Context, __: click.Parameter, prefix: str) -> list[str]:
    """Names of settings that begin with what was typed."""
    return [name for name in NAMES if name.startswith(prefix)]


def complete_pair(_: click.Context, __: click.Parameter, prefix: str) -> list[str]:
    """Settings as `name=`."""
    return [f"{name}=" for name in NAMES if name.startswith(prefix)]


def _views(ctx: click.Context, *, own: bool = False) -> list[str]:
    """Return the names of the built-in views and of the lake's own, or of its own alone."""
    own_views = names_in(
        ctx, lambda lake: sorted(views.stored_views(lake.store, lake.store.state(lake.branch_name)))
    )
    return [*(() if own else views.BUILT_IN), *(item.value for item in own_views)]


def _hidden_option(names: list[str], attribute: str, **attributes: Any) -> click.Option:
    return click.Option(
        names,
        hidden=True,
        expose_value=False,
        # LAKELOG_LAKE belongs to the group. Else click would also look for LAKELOG_SQL_LAKE and
        # take it for given.
        allow_from_autoenv=False,
        callback=functools.partial(_set, attribute),
        **attributes,
    )


def _set(attribute: str, ctx: click.Context, _: click.Parameter, value: object) -> None:
    app = ctx.find_object(App)
    # Only what was given after the verb changes what was given before it.
    if value is None:
        return
    if app is not None:
        setattr(app, attribute, value)
    else:  # while a shell completes
        ctx.find_root().params["lake" if attribute == "path" else attribute] = value
