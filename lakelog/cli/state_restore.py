"""state restore: put saved directories back where they were."""

from __future__ import annotations

import os

import click

from lakelog.cli.app import App, complete_ref, verb
from lakelog.cli.options import WHY, YES, argument, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit_record
from lakelog.cli.render.tables import cell, second
from lakelog.cli.render.terminal import confirm
from lakelog.state.listing import SavedState, list_states
from lakelog.state.restore import (
    Restored,
    check_restore,
    overwritten,
    require_enabled,
    restore_state,
    undo_restore,
)
from lakelog.store import bootstrap

OF_MACHINE = option(
    "--from ID",
    "Of this machine, as `state list` shows it, or ANY; by default of this one.",
    default="",
)


@verb(group="state")
def restore(
    app: App,
    name: str | None = argument(shell_complete=complete_ref),
    paths: tuple[str, ...] = argument("[PATH]..."),
    to: str | None = option("--to PATH", "Restore to this directory instead.", type=click.Path()),
    labels: tuple[str, ...] = option("--dir LABEL", "Only this directory."),
    source: str = OF_MACHINE,
    undo: bool = flag("--undo", "Bring back what the last restore overwrote."),
    if_empty: bool = flag(
        "--if-empty", "Only where nothing is there yet, and if there is such a state."
    ),
    skip: bool = flag("--skip", "Leave out what cannot be made, such as devices."),
    why: str = WHY,
    yes: bool = YES,
    target: OutputTarget = OUTPUT,
) -> None:
    """Put the directories of a state back where they were.

    What differs is checked first, and what is there is saved as a state. Then it is
    exchanged; what is equal stays. With PATHs, only these files or directories are
    restored; a PATH may begin with the label. States of another machine go where --to
    says.
    RESTORE_ENABLED=false turns restoring off.
    """
    require_enabled()
    if undo == (name is not None) or (undo and (to or labels or if_empty)):
        raise click.UsageError("name a state, or give --undo alone")
    # A name or an id is one state; only `latest` differs from machine to machine.
    if source and name != "latest":
        raise click.UsageError("--from says whose `latest` is meant: another name is one state")
    # Before anything is opened: what starts a pod with this finds no lake the first time.
    if if_empty and name is not None and (reason := _needless(app, name, to, labels, source)):
        app.say(f"nothing was restored: {reason}")
        return
    with app.open() as lake:
        if name is not None:
            _ask(*check_restore(lake, name, to, labels, source, paths), yes, paths)
        else:
            _ask(*check_restore(lake, overwritten(lake).name), yes)
        with app.progress("restoring", "bytes") as progress:
            if name is None:
                result = undo_restore(lake, progress, why, skip=skip)
            else:
                result = restore_state(
                    lake,
                    name,
                    to=to,
                    labels=labels,
                    paths=paths,
                    source=source,
                    why=why,
                    skip=skip,
                    progress=progress,
                )
    _show_restored(app, result, target)


def _needless(app: App, name: str, to: str | None, labels: tuple[str, ...], source: str) -> str:
    """Say why --if-empty has nothing to do, "" if it has."""
    if not bootstrap.is_lake(app.path):
        return f"there is no lake at {app.path} yet"
    with app.open() as lake:
        if not list_states(lake):
            return "no state was saved yet"
        _, targets = check_restore(lake, name, to, labels, source)
    # An existing directory without a file is where an empty volume is mounted.
    filled = [path for path in targets.values() if os.path.isdir(path) and os.listdir(path)]
    return f"{filled[0]} is not empty" if filled else ""


def _ask(
    entry: SavedState, targets: dict[str, str], yes: bool, paths: tuple[str, ...] = ()
) -> None:
    present = [path for path in targets.values() if os.path.isdir(path)]
    scope = f"{', '.join(paths)} in " if paths else ""
    question = f"replace {scope}{', '.join(present)} by {entry.name} of {second(entry.time)}?"
    if present and not confirm(question, yes):
        raise click.ClickException("nothing was changed")


def _show_restored(app: App, result: Restored, target: OutputTarget) -> None:
    for note in result.notes:
        app.say(cell(note), fg="yellow")
    if result.backup:
        app.say(
            f"what was there is saved as {result.backup}; `state restore --undo` brings it back"
        )
    paths = ", ".join(map(cell, result.targets.values()))
    record = {
        "state": result.state.name,
        "targets": result.targets,
        "backup": result.backup,
        "notes": result.notes,
    }
    emit_record(record, target, lambda: f"{result.state.name} restored to {paths}\n")
