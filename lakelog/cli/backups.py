"""backups: the copies of watched files: which there are, whether they are whole, getting one back.

The options with which watching makes them stand here too.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import click

from lakelog.backup import copy as copies
from lakelog.backup.copy import Backup
from lakelog.backup.directory import BackupDirectory, DirectoryListing
from lakelog.backup.restore import restore
from lakelog.backup.scheduler import INTERVAL, KEEP, BackupPlan, shelves
from lakelog.cli import exits
from lakelog.cli.app import App, verb
from lakelog.cli.render.output import Target, emit, with_output
from lakelog.cli.render.tables import Count, cell
from lakelog.cli.render.terminal import many, size
from lakelog.export.formats import of_records
from lakelog.export.values import micros, second
from lakelog.ingest.cursors import printable
from lakelog.settings import span_us

_LIST = (
    "source",
    "backup",
    "made",
    "size",
    "stored",
    "sha256",
    "mtime",
    "mode",
    "cursor",
    "published",
    "number",
)
_VERIFY = ("backup", "source", "state", "reason")


def with_backups(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the options of backups; it gets them as `plan`, None without --backup-dir."""

    @functools.wraps(command)
    def run(
        *args: Any,
        backup_dir: str | None,
        backup_interval: float,
        backup_keep: int,
        backup_age: str | None,
        backup_zstd: bool,
        remove_processed: bool,
        remove_after: str | None,
        **rest: Any,
    ) -> Any:
        plan = None
        if backup_dir is not None:
            age = span_us(backup_age) if backup_age else None
            after = span_us(remove_after) / 1e6 if remove_after else None
            remove = remove_processed or after is not None
            keep = backup_keep or None
            plan = BackupPlan(backup_dir, backup_interval, keep, age, backup_zstd, remove, after)
        elif remove_processed or remove_after or backup_age or backup_zstd:
            raise click.UsageError("there are no backups without --backup-dir DIR")
        return command(*args, plan=plan, **rest)

    for option in reversed(_OPTIONS):
        run = option(run)
    return run


_OPTIONS = [
    click.option(
        "--backup-dir",
        type=click.Path(),
        metavar="DIR",
        help="Copy each file that changed to DIR, with the time in its name.",
    ),
    click.option(
        "--backup-interval",
        type=click.FloatRange(0.1),
        default=INTERVAL,
        show_default=True,
        metavar="SECONDS",
        help="Copy a file at most this often.",
    ),
    click.option(
        "--backup-keep",
        type=click.IntRange(0),
        default=KEEP,
        show_default=True,
        metavar="N",
        help="Keep the newest N backups of a file; 0 keeps all.",
    ),
    click.option(
        "--backup-age", metavar="SPAN", help="Delete backups older than SPAN, such as 30d."
    ),
    click.option("--backup-zstd", is_flag=True, help="Compress backups with zstd."),
    click.option(
        "--remove-processed",
        is_flag=True,
        help="Remove a rotated file once its backup is verified and its lines are published.",
    ),
    click.option(
        "--remove-after",
        metavar="SPAN",
        help="Also remove files that have not been written to for SPAN.",
    ),
]


def words_of(plan: BackupPlan | None) -> list[str]:
    """Return the options that a plan was made of."""
    if plan is None:
        return []
    words = ["--backup-dir", os.path.abspath(plan.directory)]
    words += ["--backup-interval", f"{plan.interval:g}"] if plan.interval != INTERVAL else []
    words += ["--backup-keep", str(plan.keep or 0)] if plan.keep != KEEP else []
    words += ["--backup-age", f"{plan.age_us}us"] if plan.age_us is not None else []
    words += ["--backup-zstd"] * plan.packed + ["--remove-processed"] * plan.remove
    after = plan.remove_after
    return words + (["--remove-after", f"{after * 1e6:.0f}us"] if after is not None else [])


@verb(
    examples="""
    lakelog backups list
    lakelog backups verify --json
    lakelog backups restore logs/app.log --to /tmp
    lakelog backups restore /backup/logs/app_20261120_140619.log --force
"""
)
@click.argument("action", type=click.Choice(["list", "verify", "restore"]))
@click.argument("names", nargs=-1, metavar="[FILE]...", type=click.Path())
@click.option(
    "--backup-dir",
    "folders",
    multiple=True,
    type=click.Path(),
    metavar="DIR",
    help="Where the backups are; by default, wherever this lake's files were backed up.",
)
@click.option("--to", type=click.Path(), metavar="PATH", help="Restore to this path, or into it.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@with_output
def backups(
    app: App,
    action: str,
    names: tuple[str, ...],
    folders: tuple[str, ...],
    to: str | None,
    force: bool,
    target: Target,
) -> None:
    """List, verify or restore backups of watched files.

    FILE is a backup, or a file that was backed up: list and verify then cover all of its
    backups, and restore uses the newest. verify exits with 3 if a backup is damaged.
    restore writes the file atomically, with its time and mode.
    """
    if action != "restore" and (to is not None or force):
        raise click.UsageError("--to and --force go with restore")
    if action == "restore" and not names:
        raise click.UsageError("name a backup, or the file it was made from")
    if to is not None and len(names) > 1 and not os.path.isdir(to):
        raise click.UsageError("several files need a directory: --to DIR")
    found = _found(app, folders)
    if action == "restore":
        _restore(app, [_newest(found, name) for name in names], to, force, target)
        return
    chosen = [b for b in found.backups if not names or any(_is_of(b, name) for name in names)]
    if names and not chosen:
        raise click.ClickException(f"no backup of {', '.join(map(printable, names))}")
    if action == "list":
        shown = of_records([_row(b) for b in chosen])
        emit(of_records([record(b) for b in chosen], _LIST), target, shown)
        held = size(sum(b.stored for b in chosen))
        app.say(f"{many(len(chosen), 'backup')}, {held}{_others(found)}")
    else:
        _verify(app, found, chosen, bool(names), target)


def record(one: Backup) -> dict[str, Any]:
    """Return a backup as an object."""
    return {
        "source": one.source,
        "backup": printable(one.path),
        "made": micros(one.made),
        "size": one.size,
        "stored": one.stored,
        "sha256": one.sha256,
        "mtime": micros(one.mtime_ns // 1000),
        "mode": f"{one.mode:04o}",
        "cursor": one.cursor,
        "published": one.covered,
        "number": one.number,
    }


def _found(app: App, folders: tuple[str, ...]) -> DirectoryListing:
    """What is in the directories given, or in those that the lake knows."""
    if folders:
        chosen = [BackupDirectory(folder) for folder in folders]
        for shelf in chosen:
            os.stat(shelf.root)
    else:
        with app.open() as lake:
            chosen = shelves(lake)
        if not chosen:
            raise click.ClickException(
                "no backups are known: watch with --backup-dir DIR, or name it"
            )
    whole = DirectoryListing()
    for shelf in chosen:
        part = shelf.look()
        whole.backups += part.backups
        whole.damaged |= part.damaged
        whole.strangers += part.strangers
    return whole


def _is_of(one: Backup, name: str) -> bool:
    """Whether a name is that of a backup, or of the file it was made of."""
    path = os.path.abspath(name)
    return path in (one.path, one.origin) or name in (one.source, printable(one.path))


def _newest(found: DirectoryListing, name: str) -> Backup:
    """The newest backup of a name. Raises ClickException."""
    chosen = [b for b in found.backups if _is_of(b, name)]
    if not chosen:
        damaged = found.damaged.get(os.path.abspath(name))
        reason = f"; {damaged}" if damaged else ": see `lakelog backups list`"
        raise click.ClickException(f"no backup of {printable(name)}{reason}")
    return max(chosen, key=lambda b: (b.number, b.made))


def _restore(app: App, chosen: list[Backup], to: str | None, force: bool, target: Target) -> None:
    done = []
    for one in chosen:
        where = restore(one, to, force=force)
        done.append({**record(one), "restored": printable(where)})
        app.say(f"{cell(printable(where))}: restored, {size(one.size)} as of {micros(one.made)}")
    if target.format != "table" or target.path:
        emit(of_records(done), target)


def _verify(
    app: App, found: DirectoryListing, chosen: list[Backup], named: bool, target: Target
) -> None:
    rows = []
    with app.progress("verifying", "backups") as progress:
        for number, one in enumerate(chosen):
            progress(number, len(chosen))
            reason = copies.fault_of(one)
            state = "damaged" if reason else "sound"
            rows.append((printable(one.path), one.source, state, reason))
    if not named:
        rows += [(printable(p), "", "damaged", why) for p, why in found.damaged.items()]
    records = [dict(zip(_VERIFY, row, strict=True)) for row in rows]
    bad = [r for r in records if r["state"] != "sound"]
    shown = of_records([{n: r[n] for n in ("state", "source", "reason")} for r in bad])
    if target.format != "table" or target.path or bad:
        emit(of_records(records, _VERIFY), target, shown)
    for row in bad:
        app.say(f"{cell(row['backup'])}: {row['reason']}", fg="red")
    held = size(sum(b.size for b in chosen))
    whole = f"{many(len(records) - len(bad), 'backup')} intact"
    app.say(f"{whole}, {len(bad):,} damaged; {held} read again{_others(found)}")
    if bad:
        click.get_current_context().exit(exits.WRONG)


def _row(one: Backup) -> dict[str, Any]:
    """What a table shows."""
    name = os.path.basename(printable(one.path))
    return {
        "source": os.path.basename(one.source),
        "backup": name,
        "made": second(one.made),
        "size": Count(one.size),
        "stored": Count(one.stored),
    }


def _others(found: DirectoryListing) -> str:
    """A word on copies that have no document."""
    count = len(found.strangers)
    return f"; {many(count, 'other file')} without metadata" if count else ""
