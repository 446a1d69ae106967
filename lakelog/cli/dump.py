"""dump: the log dump service, with its old flags."""

from __future__ import annotations

import functools
import os

import click

from lakelog.backup.scheduler import BackupPlan
from lakelog.cli.app import App, verb
from lakelog.cli.backups import with_backups
from lakelog.cli.input_formats import with_pattern
from lakelog.cli.recent import RedisPlan, with_redis
from lakelog.cli.watch import follow
from lakelog.compat.dump import BACKUPS, LOGS, PATTERNS
from lakelog.store import disk


@verb(
    examples="""
    lakelog dump --logs-dir logs --backup-dir backups
    lakelog dump --logs-dir logs --backup-dir backups --backup-interval 600
    lakelog dump --backup-zstd --backup-age 30d --remove-processed
    lakelog dump --pattern '*.log' --pattern '*.jsonl' --once
"""
)
@click.option(
    "--logs-dir",
    default=LOGS,
    show_default=True,
    type=click.Path(),
    metavar="DIR",
    help="The directory to watch.",
)
@click.option(
    "--pattern",
    "patterns",
    multiple=True,
    metavar="GLOB",
    default=PATTERNS,
    show_default=True,
    help="Names to follow; their rotated and compressed copies, too.",
)
@with_pattern
@click.option("--once", is_flag=True, help="Ingest and back up what is there, then exit.")
@functools.partial(with_backups, directory=BACKUPS)
@with_redis
def dump(
    app: App,
    logs_dir: str,
    patterns: tuple[str, ...],
    form: str | None,
    once: bool,
    plan: BackupPlan | None,
    recent: RedisPlan | None,
) -> None:
    """Watch a directory of logs and back its files up, until Ctrl-C or SIGTERM.

    Each line becomes an event, once. `lakelog watch` does the same with more options;
    `lakelog tail`, `sql`, `recent` and `backups` show the result.
    """
    disk.make_dirs(os.path.abspath(logs_dir))
    follow(app, [logs_dir], patterns=patterns, plan=plan, recent=recent, form=form, once=once)
