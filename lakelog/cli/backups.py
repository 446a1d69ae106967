"""backups: list, verify and restore the copies of watched files.

The options with which watch and dump make them are defined here, too.
"""

from __future__ import annotations

import os
from typing import Any

import click

import lakelog.backup as copying
from lakelog.backup import (
    INTERVAL,
    KEEP,
    Backup,
    BackupDirectory,
    BackupPlan,
    DirectoryListing,
    backup_directories,
    restore,
)
from lakelog.cli import exits
from lakelog.cli.app import App, verb
from lakelog.cli.options import argument, combined, flag, option
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit
from lakelog.cli.render.tables import Count, cell, second
from lakelog.cli.render.terminal import many, size
from lakelog.files import printable
from lakelog.render import micros
from lakelog.settings import span_us

_LIST = tuple("source backup made size stored sha256 mtime mode cursor published number".split())
_VERIFY = ("backup", "source", "state", "reason")


def backup_options(directory: str | None = None) -> Any:
    """Declare the options of which a verb gets its BackupPlan, None without --backup-dir, whose
    default is `directory`."""
    return combined(
        _plan,
        backup_dir=option(
            "--backup-dir DIR",
            "Copy each file that changed to DIR, with the time in its name.",
            default=directory,
            show_default=directory is not None,
        ),
        backup_interval=option(
            "--backup-interval SECONDS",
            "Copy a file at most this often.",
            type=click.FloatRange(0.1),
            shown=INTERVAL,
        ),
        backup_keep=option(
            "--backup-keep N",
            "Keep the newest N backups of a file; 0 keeps all.",
            type=click.IntRange(0),
            shown=KEEP,
        ),
        backup_age=option("--backup-age SPAN", "Delete backups older than SPAN, such as 30d."),
        backup_zstd=flag("--backup-zstd", "Compress backups with zstd."),
        remove_processed=flag(
            "--remove-processed",
            "Remove a rotated file once its backup is verified and its lines are published.",
        ),
        remove_after=option(
            "--remove-after SPAN", "Also remove files that have not been written to for SPAN."
        ),
    )


def _plan(
    *,
    backup_dir: str | None,
    backup_interval: float,
    backup_keep: int,
    backup_age: str | None,
    backup_zstd: bool,
    remove_processed: bool,
    remove_after: str | None,
) -> BackupPlan | None:
    if backup_dir is None:
        # Refused and not ignored: who asks for removal expects a backup first.
        if remove_processed or remove_after or backup_age or backup_zstd:
            raise click.UsageError("there are no backups without --backup-dir DIR")
        return None
    age = span_us(backup_age) if backup_age else None
    after = span_us(remove_after) / 1e6 if remove_after else None
    # --remove-after alone asks for removal as well.
    remove = remove_processed or after is not None
    keep = backup_keep or None
    return BackupPlan(backup_dir, backup_interval, keep, age, backup_zstd, remove, after)


@verb()
def backups(
    app: App,
    action: str = argument(type=click.Choice(["list", "verify", "restore"])),
    names: tuple[str, ...] = argument("[FILE]...", type=click.Path()),
    folders: tuple[str, ...] = option(
        "--backup-dir DIR",
        "Where the backups are; by default, wherever this lake's files were backed up.",
    ),
    to: str | None = option("--to PATH", "Restore to this path, or into it.", type=click.Path()),
    force: bool = flag("--force", "Replace an existing file."),
    target: OutputTarget = OUTPUT,
) -> None:
    """List, verify or restore backups of watched files.

    FILE is a backup, or a file that was backed up: list and verify then cover all of its
    backups, and restore uses the newest. verify exits with 3 if a backup is damaged.
    restore writes the file atomically, with its time and mode.
    """
    # What does not go together is refused before any directory is read.
    if action != "restore" and (to is not None or force):
        raise click.UsageError("--to and --force go with restore")
    if action == "restore" and not names:
        raise click.UsageError("name a backup, or the file it was made from")
    # Only a directory can take several files under their own names.
    if to is not None and len(names) > 1 and not os.path.isdir(to):
        raise click.UsageError("several files need a directory: --to DIR")
    listing = _listing(app, folders)
    if action == "restore":
        _restore(app, [_newest(listing, name) for name in names], to, force, target)
        return
    selection = [b for b in listing.backups if not names or any(_is_of(b, name) for name in names)]
    # A name that matches nothing is a mistake; no backups at all is an answer.
    if names and not selection:
        raise click.ClickException(f"no backup of {', '.join(map(printable, names))}")
    if action == "list":
        table = [_row(b) for b in selection]
        emit([record(b) for b in selection], target, table, _LIST)
        stored_size = size(sum(b.stored for b in selection))
        app.say(f"{many(len(selection), 'backup')}, {stored_size}{_others(listing)}")
    else:
        _verify(app, listing, selection, bool(names), target)


def record(backup: Backup) -> dict[str, object]:
    """Return a backup as an object."""
    return {
        "source": backup.source,
        "backup": printable(backup.path),
        "made": micros(backup.made),
        "size": backup.size,
        "stored": backup.stored,
        "sha256": backup.sha256,
        "mtime": micros(backup.mtime_ns // 1000),
        "mode": f"{backup.mode:04o}",
        "cursor": backup.cursor,
        "published": backup.covered,
        "number": backup.number,
    }


def _listing(app: App, folders: tuple[str, ...]) -> DirectoryListing:
    """List the given directories, or those that the lake knows."""
    if folders:
        directories = [BackupDirectory(folder) for folder in folders]
        for directory in directories:
            # A directory that the user names has to exist, while one that the lake remembers may be
            # unmounted.
            os.stat(directory.root)
    else:
        with app.open() as lake:
            directories = backup_directories(lake)
        if not directories:
            raise click.ClickException(
                "no backups are known: watch with --backup-dir DIR, or name it"
            )
    listing = DirectoryListing()
    for directory in directories:
        partial = directory.scan()
        listing.backups += partial.backups
        listing.damaged |= partial.damaged
        listing.undocumented += partial.undocumented
    return listing


def _is_of(backup: Backup, name: str) -> bool:
    """Whether a name is that of a backup, or of the file it was made from."""
    path = os.path.abspath(name)
    return path in (backup.path, backup.origin) or name in (backup.source, printable(backup.path))


def _newest(listing: DirectoryListing, name: str) -> Backup:
    """Return the newest backup of a name. Raises ClickException."""
    matches = [b for b in listing.backups if _is_of(b, name)]
    if not matches:
        damaged = listing.damaged.get(os.path.abspath(name))
        reason = f"; {damaged}" if damaged else ": see `lakelog backups list`"
        raise click.ClickException(f"no backup of {printable(name)}{reason}")
    # By number first: the clock may have been set back between two backups.
    return max(matches, key=lambda b: (b.number, b.made))


def _restore(
    app: App, selection: list[Backup], to: str | None, force: bool, target: OutputTarget
) -> None:
    records = []
    for backup in selection:
        destination = printable(restore(backup, to, force=force))
        records.append({**record(backup), "restored": destination})
        app.say(f"{cell(destination)}: restored, {size(backup.size)} as of {micros(backup.made)}")
    # A table repeats what the lines on stderr said; a file or a program asked for records.
    if target.format != "table" or target.path:
        emit(records, target)


def _verify(
    app: App,
    listing: DirectoryListing,
    selection: list[Backup],
    by_name: bool,
    target: OutputTarget,
) -> None:
    rows = []
    with app.progress("verifying", "backups") as progress:
        for number, backup in enumerate(selection):
            progress(number, len(selection))
            reason = copying.fault_of(backup)
            state = "damaged" if reason else "sound"
            rows.append((printable(backup.path), backup.source, state, reason))
    # A damaged document does not say of which file its copy is, so it matches no name.
    if not by_name:
        rows += [(printable(p), "", "damaged", why) for p, why in listing.damaged.items()]
    records = [dict(zip(_VERIFY, row, strict=True)) for row in rows]
    bad = [r for r in records if r["state"] != "sound"]
    table = [{n: r[n] for n in ("state", "source", "reason")} for r in bad]
    # Of intact backups only the count is of interest to a person.
    if target.format != "table" or target.path or bad:
        emit(records, target, table, _VERIFY)
    for row in bad:
        app.say(f"{cell(row['backup'])}: {row['reason']}", fg="red")
    read_size = size(sum(b.size for b in selection))
    intact = f"{many(len(records) - len(bad), 'backup')} intact"
    app.say(f"{intact}, {len(bad):,} damaged; {read_size} read again{_others(listing)}")
    exits.exit_if(bad, exits.WRONG)


def _row(backup: Backup) -> dict[str, object]:
    """Return a row of the table."""
    name = os.path.basename(printable(backup.path))
    return {
        "source": os.path.basename(backup.source),
        "backup": name,
        "made": second(backup.made),
        "size": Count(backup.size),
        "stored": Count(backup.stored),
    }


def _others(listing: DirectoryListing) -> str:
    """Return a note on copies without a document."""
    count = len(listing.undocumented)
    return f"; {many(count, 'other file')} without metadata" if count else ""
