"""dump: the log dump service, with its old flags."""

from __future__ import annotations

import os

from lakelog.cli.app import App, verb
from lakelog.cli.backups import backup_options
from lakelog.cli.input_formats import PATTERN
from lakelog.cli.options import combined, flag, option
from lakelog.cli.recent import REDIS
from lakelog.cli.watch import WatchPlan, follow
from lakelog.compat.dump import BACKUPS, LOGS, PATTERNS
from lakelog.store import disk

_PLAN = combined(
    WatchPlan,
    patterns=option(
        "--pattern GLOB",
        "Names to follow; their rotated and compressed copies, too.",
        shown=PATTERNS,
    ),
    form=PATTERN,
    once=flag("--once", "Ingest and back up what is there, then exit."),
    backups=backup_options(BACKUPS),
    recent=REDIS,
)


@verb()
def dump(
    app: App,
    logs_dir: str = option("--logs-dir DIR", "The directory to watch.", shown=LOGS),
    plan: WatchPlan = _PLAN,
) -> None:
    """Watch a directory of logs and back its files up, until Ctrl-C or SIGTERM.

    Each line becomes an event, once. `lakelog watch` does the same with more options;
    `lakelog tail`, `sql`, `recent` and `backups` show the result.
    """
    disk.make_dirs(os.path.abspath(logs_dir))
    follow(app, [logs_dir], plan)
