"""watch: follow the files of directories, as long as it runs or once."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
from typing import Any

import click
import orjson

from lakelog.backup.scheduler import BackupPlan, BackupScheduler
from lakelog.cli import exits
from lakelog.cli.app import App, verb
from lakelog.cli.backups import with_backups, words_of
from lakelog.cli.input_formats import with_pattern
from lakelog.cli.render.output import choose, emit_record
from lakelog.cli.render.terminal import is_terminal, many
from lakelog.collect import loop
from lakelog.collect import watch as following
from lakelog.export.values import micros
from lakelog.ingest.scan import scan
from lakelog.store import disk

INTERVAL = 1.0
_UNIT = """[Unit]
Description=lakelog watches {where}
After=local-fs.target

[Service]
ExecStart={command}
Restart=always
RestartSec=5
KillSignal=SIGTERM
TimeoutStopSec=60
LimitNOFILE=65536
NoNewPrivileges=true

[Install]
WantedBy=multi-user.target
"""


@verb(
    examples="""
    lakelog watch /var/log/app
    lakelog watch logs --pattern '*.log' --pattern '*.jsonl'
    lakelog watch logs --backup-dir /backup/logs --remove-processed
    lakelog watch --status
    lakelog watch /var/log/app --print-unit > lakelog.service
"""
)
@click.argument("roots", nargs=-1, metavar="DIR...", type=click.Path())
@click.option(
    "--pattern",
    "patterns",
    multiple=True,
    metavar="GLOB",
    help="Names to follow, all by default; their rotated and compressed copies, too.",
)
@with_pattern
@click.option("--source", metavar="NAME", help="Source of events that name none.")
@click.option(
    "--interval",
    default=INTERVAL,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(0.1),
    help="Time between scans; five times that where the file system sends notifications.",
)
@click.option(
    "--poll", is_flag=True, help="Poll only; for network mounts, which send no notifications."
)
@click.option("--once", is_flag=True, help="Ingest what is there, then exit.")
@click.option("--status", is_flag=True, help="Show what the watcher of this lake is doing.")
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
@click.option("--print-unit", is_flag=True, help="Print a systemd unit that does the same.")
@with_backups
def watch(
    app: App,
    roots: tuple[str, ...],
    patterns: tuple[str, ...],
    form: str | None,
    source: str | None,
    interval: float,
    poll: bool,
    once: bool,
    status: bool,
    as_json: bool,
    print_unit: bool,
    plan: BackupPlan | None,
) -> None:
    """Follow the files of directories: each new line becomes an event, once.

    Renamed, truncated, compressed and removed files are recognized by their
    content, so that nothing is ingested twice. It runs until Ctrl-C or SIGTERM.
    """
    if status:
        _show_status(app, as_json)
        return
    if not roots:
        raise click.UsageError("a directory is needed, such as /var/log/app")
    if print_unit:
        options = [word for pattern in patterns for word in ("--pattern", pattern)]
        options += ["--format", form] if form else []
        options += ["--source", source] if source is not None else []
        options += ["--interval", f"{interval:g}"] if interval != INTERVAL else []
        options += ["--poll"] * poll + ["--once"] * once
        options += ["-q"] * app.quiet + ["-v"] * app.verbose + words_of(plan)
        click.echo(_unit(app, roots, options), nl=False)
        return
    follow(
        app,
        list(roots),
        patterns=patterns or ("*",),
        form=form,
        source=source,
        interval=interval,
        poll=poll,
        once=once,
        plan=plan,
    )


def follow(
    app: App,
    roots: list[str],
    *,
    patterns: tuple[str, ...],
    plan: BackupPlan | None,
    form: str | None = None,
    source: str | None = None,
    interval: float = INTERVAL,
    poll: bool = False,
    once: bool = False,
) -> None:
    """Watch until told to end, with backups if there is a plan for them; sum up at the end."""
    tell = _teller(app)
    following.raise_descriptor_limit()
    with app.open_or_create() as lake:
        rounds = BackupScheduler(lake, roots, plan, label=source, say=tell) if plan else None
        watcher = following.Watcher(
            lake,
            roots,
            patterns=patterns,
            form=form,
            source=source,
            say=tell,
            after=None if once else rounds,
        )
        stop = threading.Event()

        def end(*_: object) -> None:
            stop.set()
            if rounds:
                rounds.halt()

        before = {s: signal.signal(s, end) for s in _SIGNALS}
        renewed = _take_over(watcher, rounds)
        try:
            with disk.claim(following.lock_path(lake, roots)) as alone:
                if not alone:
                    raise click.ClickException(f"another process is watching {', '.join(roots)}")
                if once:
                    _once(watcher, stop)
                    if rounds:
                        rounds.run(scan(watcher.totals.roots, patterns))
                else:
                    if not renewed:
                        tell(f"watching {', '.join(watcher.totals.roots)}")
                    loop.run(watcher, stop, interval=interval, poll=poll, say=tell, renew=True)
        except loop.RestartRequested as rest:
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # what comes now, comes later
            if rounds:
                rounds.close()
            lake.close()
            if not stop.is_set():
                counts = [rounds.made, rounds.removed, rounds.expired] if rounds else [0, 0, 0]
                _renew({**rest.memory, "backups": counts})
        finally:
            if rounds:
                rounds.close()
            for number, handler in before.items():
                signal.signal(number, handler)
        done = watcher.totals
        words = f"{many(done.events, 'new event')} from {many(done.files, 'file')};"
        words += f" {done.quarantined:,} quarantined"
        app.say(f"{words}; {rounds.summary()}" if rounds else words)
        if once and watcher.unread:
            click.get_current_context().exit(exits.FAILED)


_MEMORY = "LAKELOG_WATCH_MEMORY"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _once(watcher: following.Watcher, stop: threading.Event) -> None:
    watcher.round(final=True)
    while (watcher.waiting or watcher.behind) and not stop.is_set():
        if not watcher.behind:
            stop.wait(following.STABLE / 4)
        watcher.round(final=True)
    watcher.close()


def _renew(memory: dict[str, Any]) -> None:
    """Begin this process anew with what it knows, without all that it had loaded."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  it goes with the process
    file.write(json.dumps(memory).encode())  # names may hold bytes that are no text
    file.seek(0)
    os.set_inheritable(file.fileno(), True)
    sys.stderr.flush()
    os.environ[_MEMORY] = str(file.fileno())
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _take_over(watcher: following.Watcher, rounds: BackupScheduler | None) -> bool:
    """Go on with what this process knew before it was renewed, if it was."""
    number = os.environ.pop(_MEMORY, "")
    if not number:
        return False
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    with os.fdopen(int(number), "rb") as file:
        memory = json.load(file)
    if rounds and "backups" in memory:
        rounds.made, rounds.removed, rounds.expired = memory["backups"]
    watcher.remember(memory)
    return True


def _teller(app: App) -> following.Say:
    """Words on stderr; with the time where nobody looks on."""

    def tell(text: str) -> None:
        stamp = "" if is_terminal(sys.stderr) else f"{micros(disk.now_us())} "
        app.say(f"{stamp}{text}")

    return tell


def _show_status(app: App, as_json: bool) -> None:
    with app.open() as lake:
        path = following.status_path(lake)
    try:
        found: dict[str, Any] = orjson.loads(disk.read(path))
    except (FileNotFoundError, orjson.JSONDecodeError):
        raise click.ClickException("no watcher has run on this lake yet") from None
    found["running"] = _is_alive(found["pid"]) and time.time() - found["last_round"] < 120
    for name in ("started", "last_round", "last_event"):
        found[name] = micros(int(found[name] * 1e6)) if found[name] else None
    target = choose(None if as_json else "table", as_json, None)
    emit_record(found, target, lambda: _words(found))


def _words(found: dict[str, Any]) -> str:
    started = found["started"]
    is_running = f"running since {started}, process {found['pid']}"
    lines = [
        is_running if found["running"] else f"not running; last started {started}",
        f"  watches      {', '.join(found['roots'])}",
        f"  files        {found['files']:,}",
        f"  events       {found['events']:,}; {found['quarantined']:,} lines quarantined",
        f"  last round   {found['last_round']}, the slowest took {found['slowest_round']:.2f} s",
        f"  last event   {found['last_event'] or '-'}",
    ]
    if found.get("nuls"):
        lines.append(f"  skipped      {found['nuls']:,} NUL bytes, where nobody wrote text")
    lines += [f"  fault        {path}: {reason}" for path, reason in found["faults"].items()]
    return "\n".join(lines) + "\n"


def _unit(app: App, roots: tuple[str, ...], options: list[str]) -> str:
    places = [os.path.abspath(root) for root in roots]
    program = [sys.executable, "-m", "lakelog", "--lake", os.path.abspath(app.path)]
    program += ["--branch", app.branch] if app.branch != "main" else []
    command = shlex.join([*program, "watch", *places, *options]).replace("%", "%%")
    return _UNIT.format(where=", ".join(places).replace("%", "%%"), command=command)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
