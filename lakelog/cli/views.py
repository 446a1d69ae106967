"""views, view: named SQL over the lake, updated incrementally."""

from __future__ import annotations

import dataclasses
import sys
import time

import click

from lakelog import views as lake_views
from lakelog.cli.app import App, complete_view, state_option, verb
from lakelog.cli.arguments import moment, pair_of
from lakelog.cli.options import ON, argument, flag, option
from lakelog.cli.render import terminal
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, open_output, write_text
from lakelog.cli.render.results import result_of
from lakelog.cli.render.terminal import many
from lakelog.disk import disk
from lakelog.lake import Lake
from lakelog.render import QueryResult, micros
from lakelog.runtime.closest import did_you_mean
from lakelog.views import read

_ACTIONS = ("build", "create", "drop", "show")
_LISTED = ("view", "about", "params", "version", "from")


@verb()
def views(
    app: App,
    at: str | None = state_option("List the views of a tag, branch or time."),
    target: OutputTarget = OUTPUT,
) -> None:
    """List the views: the built-in ones and the lake's own.

    Each is also a table in SQL, its parameters at their defaults.
    """
    with app.open() as lake:
        definitions = lake_views.LakeViews(lake.at(at) if at else lake).listed()
    records = [_record(definition, is_own) for definition, is_own in definitions]
    table = [{k: r[k] for k in ("view", "about", "params")} for r in records]
    emit(records, target, table, _LISTED)


@verb()
def view(
    app: App,
    arguments: tuple[str, ...] = argument(
        "NAME | create NAME FILE | drop NAME | show NAME | build [NAME]...",
        shell_complete=complete_view,
    ),
    params: tuple[str, ...] = option("--param K=V", "Value of a parameter of the view."),
    since: str | None = option(
        "--since TIME", "Only events since TIME: a time, or 2h for two hours ago."
    ),
    until: str | None = option("--until TIME", "Only events before TIME."),
    at: str | None = state_option("Query a tag, branch, snapshot or time."),
    watch: bool = flag("--watch", "Show it again whenever it changes, until Ctrl-C."),
    replace: bool = flag("--replace", "With create: replace a view of that name."),
    workers: str | None = ON,
    target: OutputTarget = OUTPUT,
) -> None:
    """Query the view NAME, or create, drop or show the definition of one.

    build computes what is not computed yet of views, of all without a NAME, so that
    the next query is fast.

    FILE is one SELECT over events. A view that reads only new events has the sections `--
    map` over segment, `-- merge` over partials and `-- finish` over state; `-- totals` may
    sum the state for finish (`lakelog view show status` prints an example). Both kinds are
    checked on a sample before they are stored.
    """
    values = dict(map(pair_of, params))
    action = arguments[0] if arguments and arguments[0] in _ACTIONS else None
    count = {None: 1, "create": 3, "drop": 2, "show": 2}.get(action, len(arguments))
    if len(arguments) != count:
        near = did_you_mean(arguments[0], _ACTIONS) if len(arguments) > 1 and action is None else ""
        usage = "give NAME, create NAME FILE, drop NAME, show NAME, or build [NAME]..."
        raise click.UsageError(f"{arguments[0]!r} takes no name: {near}" if near else usage)
    if workers and action != "build":
        raise click.UsageError("--on is for build")
    if action is None:
        with app.open() as lake:
            _answer(app, lake, arguments[0], values, (since, until), at, watch, target)
        return
    # Refused and not ignored: a definition has no time.
    if since or until or watch or (at and action not in ("build", "show")):
        raise click.UsageError(f"--since, --until, --at and --watch are not for {action}")
    with app.open() as lake:
        if action == "build":
            read_count = lake_views.LakeViews(lake.at(at) if at else lake).build(
                *arguments[1:], workers=workers or "local"
            )
            app.say(f"read {many(read_count, 'segment')}" if read_count else "nothing to compute")
        elif action == "create":
            definition = lake_views.LakeViews(lake).create(
                arguments[1], _text(arguments[2]), values, replace=replace
            )
            view_kind = "incremental view" if definition.is_projection else "view"
            app.say(f"created {view_kind} {definition.name}, version {definition.version}")
        elif action == "drop":
            lake_views.LakeViews(lake).drop(arguments[1])
            app.say(f"dropped view {arguments[1]}; earlier states still have it")
        else:
            definition = lake_views.LakeViews(lake.at(at) if at else lake).definition(arguments[1])
            # The text as it was stored, whatever the format: it can be given to `view create`
            # again.
            with open_output(target.path) as out:
                write_text(definition.text.rstrip() + "\n", out, target)


def _answer(
    app: App,
    lake: Lake,
    name: str,
    values: dict[str, str],
    window: tuple[str | None, str | None],
    ref: str | None,
    watch: bool,
    target: OutputTarget,
) -> None:
    start = time.monotonic()
    state = lake.at(ref) if ref else lake

    def times() -> dict[str, int | None]:
        # Taken again for each answer: --since 2h moves along, at a past state, too.
        pairs = zip(("since", "until"), window, strict=True)
        return {name: moment(f"--{name}", value) for name, value in pairs}

    # The main columns of a view are the last that a narrow terminal leaves out.
    main = lake_views.LakeViews(state).definition(name).main
    previous = read(state, name, values, **times())
    emit(_result(lake, previous, target, main), target)
    app.detail(f"{time.monotonic() - start:.2f} s")
    while watch:
        time.sleep(1)
        rows = read(state, name, values, **times())
        # Nothing is written while nothing changes, so that a pipe gets only news.
        if rows.equals(previous):
            continue
        previous = rows
        if target.format == "table" and terminal.is_terminal(sys.stdout):
            # The screen is cleared only where the view is shown to somebody.
            sys.stdout.write("\x1b[H\x1b[2J")
            sys.stdout.flush()
        app.detail(micros(disk.now_us()))
        emit(_result(lake, rows, target, main), target)


def _result(lake: Lake, rows: object, target: OutputTarget, main: tuple[str, ...]) -> QueryResult:
    result = result_of(lake.engine().cursor().from_arrow(rows), target.format)
    return dataclasses.replace(result, main=main)


def _record(definition: lake_views.ViewDefinition, is_own: bool) -> dict[str, object]:
    return {
        "view": definition.name,
        "about": definition.about,
        "params": "; ".join(map(str, definition.params)),
        "version": definition.version,
        "from": "this lake" if is_own else "lakelog",
    }


def _text(path: str) -> str:
    if path == "-":
        return sys.stdin.buffer.read().decode("utf-8-sig", "replace")
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        return file.read()
