"""state: save state directories with the lake's states, list, compare and restore them."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any

import click

from lakelog.cli.app import App, complete_ref, verb_group
from lakelog.cli.options import MESSAGE, WHY, YES, argument, combined, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit, emit_record, write_new
from lakelog.cli.render.tables import Count, FullName, cell, clock, second
from lakelog.cli.render.terminal import confirm, many, size
from lakelog.errors import StateRefused
from lakelog.render import micros
from lakelog.runtime.tables import ModuleFiles
from lakelog.state import (
    RestoreRequest,
    Retention,
    SavedState,
    StateCatalog,
    StateSwitch,
    save_state,
)
from lakelog.store import Machine, Store

OF_MACHINE = option(
    "--from ID",
    "Of this machine, as `state list` shows it, or ANY; by default of this one.",
    default="",
)
_LIST = (
    *("state", "time", "bytes", "files", "directories", "author", "message", "snapshot"),
    *("machine", "own", "before"),
)
_PERIODS = {"daily": "day", "weekly": "week", "monthly": "month", "yearly": "year"}
_SCRIPTS = ("create_state_snapshot.sh", "restore_state_snapshot.sh", "omega_snapshot.sh")
_DIFF = ("change", "path", "before", "after", "what")
_INFO = (
    *("state", "label", "path", "bytes", "files", "captured_at", "index", "deployment"),
    *("machine", "own"),
)


def _retention(keep: object) -> Any:
    """Declare `keep` with the options that keep states of days, weeks, months and years."""
    words = "Keep also the newest state of each of the last N {}s that have one."
    periods = {
        f"keep_{period}": option(
            f"--keep-{period} N", words.format(unit), type=click.IntRange(0), default=0
        )
        for period, unit in _PERIODS.items()
    }
    return combined(
        lambda keep, **counts: Retention(keep, *(counts[f"keep_{name}"] for name in _PERIODS)),
        keep=keep,
        **periods,
    )


_SAVED = _retention(
    option(
        "--keep N",
        "Keep the newest N states that have no NAME of yours; 0 keeps all.",
        type=click.IntRange(0),
        envvar="STATE_SNAPSHOT_RETENTION",
        shown=Retention.LAST,
    )
)
_CLEANED = _retention(argument("N", type=click.IntRange(0)))


@verb_group()
def state() -> None:
    """Save state directories, and restore them.

    A state is a tag of the lake: what is in the lake and the directories belong
    together. Content that is there already is not stored again.
    """


@state.verb()
def save(
    app: App,
    name: str | None = argument(),
    directories: tuple[str, ...] = option(
        "--dir PATH", "A directory, or LABEL=PATH; by default those of STATE_DIRECTORY."
    ),
    message: str = MESSAGE,
    retention: Retention = _SAVED,
    exclude: tuple[str, ...] = option("--exclude GLOB", "Leave out such paths or names."),
    target: OutputTarget = OUTPUT,
) -> None:
    """Save directories as one state, named NAME or by its time.

    Files that change while they are read are read again. Nothing is saved if a
    file cannot be read. Only older states of this machine are pruned.
    SNAPSHOT_ENABLED=false turns saving off.
    """
    # No failure: what runs at the end of every pod must not hold up those that save nothing.
    if not StateSwitch.SAVE.is_on:
        app.say("not saved: SNAPSHOT_ENABLED is off")
        return
    selection = chosen_directories(directories)
    # Before a lake is created: a mistyped path must not leave an empty one behind.
    for path in selection.values():
        os.stat(path)
    with app.open_or_create() as lake, app.progress("saving", "bytes") as progress:
        result = save_state(
            lake,
            selection,
            name=name,
            message=message,
            # Keeping 0 is keeping all: an empty retention would prune the state that was just
            # saved.
            keep=retention if retention.last else None,
            exclude=exclude,
            progress=progress,
        )
    if result.skipped:
        app.say(f"only named, as devices are not restored: {_few(result.skipped)}")
    if result.changed:
        app.say(f"kept changing while they were read: {_few(result.changed)}", fg="yellow")
    for note in result.notes:
        app.say(cell(note), fg="yellow")
    if result.pruned:
        app.say(f"pruned {many(len(result.pruned), 'older state')}")
    new_state = result.state
    line = f"{new_state.name}: {many(new_state.files, 'file')}, {size(new_state.bytes)}"
    record = {**_record(new_state), "written": result.written, "skipped": result.skipped}
    record |= {"changed": result.changed, "pruned": result.pruned}
    emit_record(record, target, lambda: f"{line}; {size(result.written)} written\n")


@state.verb()
def list_(app: App, target: OutputTarget = OUTPUT) -> None:
    """List the states, newest first."""
    with app.open() as lake:
        states = StateCatalog(lake).states()
    table = [_row(entry, not all(entry.is_own for entry in states)) for entry in states]
    emit([_record(entry) for entry in states], target, table, _LIST)


@state.verb()
def info(
    app: App,
    name: str = argument(default="latest", shell_complete=complete_ref),
    target: OutputTarget = OUTPUT,
) -> None:
    """Show the directories of a state; of the newest without NAME."""
    with app.open() as lake:
        entry = StateCatalog(lake).find(name)
    rows = [
        {
            "state": entry.name,
            **dataclasses.asdict(directory),
            "captured_at": micros(directory.captured_at),
            "own": entry.is_own,
        }
        for directory in entry.directories
    ]
    rows = [{name: row[name] for name in _INFO} for row in rows]
    table = [{"label": r["label"], "path": r["path"], "bytes": Count(r["bytes"])} for r in rows]
    for row, directory in zip(table, entry.directories, strict=True):
        row |= {"files": Count(directory.files), "captured": second(directory.captured_at)}
    emit(rows, target, table, _INFO)


@state.verb()
def latest(app: App, source: str = OF_MACHINE, target: OutputTarget = OUTPUT) -> None:
    """Print the name of the newest state of this machine."""
    with app.open() as lake:
        entry = StateCatalog(lake).find("latest", source)
    # For scripts: a name is what they pass on.
    if target == OutputTarget("ndjson"):
        click.echo(entry.name)
    else:
        emit_record(_record(entry), target, lambda: f"{entry.name}\n")


@state.verb()
def clean(
    app: App,
    retention: Retention = _CLEANED,
    source: str = OF_MACHINE,
    dry_run: bool = flag("--dry-run", "Only name them."),
    why: str = WHY,
    yes: bool = YES,
    target: OutputTarget = OUTPUT,
) -> None:
    """Delete all but the newest N states that have no name of yours.

    Of what was saved before restores, N are kept as well. Only states of this
    machine are deleted, with --from those of another, with --from ANY all but N
    of each. gc then deletes what no other state needs.
    """
    with app.open() as lake:
        # A dry run first, so that the question names how many.
        catalog = StateCatalog(lake)
        names = catalog.clean(retention, source=source, dry_run=True)
        if not dry_run:
            if not confirm(f"delete {many(len(names), 'state')}?", yes):
                raise click.ClickException("nothing was changed")
            names = catalog.clean(retention, why, source)
    verb = "would delete" if dry_run else "deleted"
    emit_record({"deleted": names}, target, lambda: f"{verb} {many(len(names), 'state')}\n")


@state.verb()
def diff(
    app: App,
    a: str = argument(shell_complete=complete_ref),
    b: str = argument(default="latest", shell_complete=complete_ref),
    target: OutputTarget = OUTPUT,
) -> None:
    """List what was added, removed or changed from state A to state B.

    Files are compared by their content, too, and by mode, owner, time and attributes;
    `what` names the differences. Sizes are in bytes.
    """
    with app.open() as lake:
        changes = StateCatalog(lake).diff(a, b)
    rows = [{**vars(change), "what": list(change.what)} for change in changes]
    table = [
        {
            "change": change.change,
            "path": change.path,
            "before": "" if change.before is None else Count(change.before),
            "after": "" if change.after is None else Count(change.after),
            "what": ", ".join(change.what),
        }
        for change in changes
    ]
    emit(rows, target, table, _DIFF)


@state.verb()
def cat(
    app: App, name: str = argument(shell_complete=complete_ref), path: str = argument()
) -> None:
    """Print a file of a state.

    PATH may begin with the label of a directory.
    """
    with app.open() as lake:
        for chunk in StateCatalog(lake).read_file(name, path):
            sys.stdout.buffer.write(chunk)


@state.verb()
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
    StateSwitch.RESTORE.require()
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
        name = name if name is not None else StateCatalog(lake).overwritten().name
        request = RestoreRequest(lake, name, to, labels, paths, source)
        _ask(*request.check(), yes, paths)
        with app.progress("restoring", "bytes") as progress:
            result = request.run(why, skip=skip, progress=progress)
    for note in result.notes:
        app.say(cell(note), fg="yellow")
    if result.backup:
        app.say(
            f"what was there is saved as {result.backup}; `state restore --undo` brings it back"
        )
    record = {**vars(result), "state": result.state.name}
    targets = ", ".join(map(cell, result.targets.values()))
    emit_record(record, target, lambda: f"{result.state.name} restored to {targets}\n")


def _needless(app: App, name: str, to: str | None, labels: tuple[str, ...], source: str) -> str:
    """Say why --if-empty has nothing to do, "" if it has."""
    if not Store.is_lake(app.path):
        return f"there is no lake at {app.path} yet"
    with app.open() as lake:
        if not StateCatalog(lake).states():
            return "no state was saved yet"
        _, targets = RestoreRequest(lake, name, to, labels, source=source).check()
    # An existing directory without a file is where an empty volume is mounted.
    filled = [path for path in targets.values() if os.path.isdir(path) and os.listdir(path)]
    return f"{filled[0]} is not empty" if filled else ""


def _ask(
    entry: SavedState, targets: dict[str, str], yes: bool, paths: tuple[str, ...] = ()
) -> None:
    present = [path for path in targets.values() if os.path.isdir(path)]
    scope = f"{', '.join(paths)} in " if paths else ""
    question = f"replace {scope}{', '.join(present)} by {entry.name} of {clock(entry.time)}?"
    if present and not confirm(question, yes):
        raise click.ClickException("nothing was changed")


@state.verb()
def scripts(
    app: App, directory: str = argument("[DIR]", default=".", type=click.Path(file_okay=False))
) -> None:
    """Write the drop-in scripts of the older snapshot system into DIR.

    create_state_snapshot.sh, restore_state_snapshot.sh and omega_snapshot.sh run under any
    POSIX shell.
    """
    os.makedirs(directory, exist_ok=True)
    for name in _SCRIPTS:
        path = os.path.join(directory, name)
        write_new(path, ModuleFiles(__file__).text(name), "remove it, or name another directory")
        # Executable, as the scripts that they stand in for were.
        os.chmod(path, 0o755)
        app.say(f"wrote {path}")


def chosen_directories(values: tuple[str, ...]) -> dict[str, str]:
    """Return the directories to save by label: as given, or else of STATE_DIRECTORY."""
    # systemd separates several by colons.
    arguments = values or tuple(filter(None, os.environ.get("STATE_DIRECTORY", "").split(":")))
    selection: dict[str, str] = {}
    for word in arguments:
        label, mark, path = word.partition("=")
        # A path may hold "=", but no label has a slash: `./a=b` is a path.
        if not mark or "/" in label:
            label, path = os.path.basename(os.path.realpath(word)), word
        if label in selection:
            raise StateRefused(f"two directories are labelled {label!r}: write --dir LABEL=PATH")
        selection[label] = path
    return selection


def _record(entry: SavedState) -> dict[str, object]:
    return {
        "state": entry.name,
        "time": micros(entry.time),
        "bytes": entry.bytes,
        "files": entry.files,
        "directories": [record.path for record in entry.directories],
        "author": entry.author,
        "message": entry.message,
        "snapshot": entry.snapshot,
        "machine": entry.machine,
        "own": entry.is_own,
        "before": entry.before,
    }


def _row(entry: SavedState, with_machine: bool) -> dict[str, object]:
    labels = ", ".join(record.label for record in entry.directories)
    saver = "this" if entry.is_own else Machine.short(entry.machine)
    return {
        "state": FullName(entry.name),
        "time": second(entry.time),
        "size": Count(entry.bytes),
        "directories": labels,
        "message": entry.message,
        "files": Count(entry.files),
        **({"machine": saver} if with_machine else {}),
    }


def _few(names: tuple[str, ...]) -> str:
    remainder = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(map(cell, names[:5])) + remainder
