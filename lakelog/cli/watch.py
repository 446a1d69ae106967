"""watch: follow the files of directories, continuously or once; dump: the same, by older flags."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
import orjson

from lakelog import collect
from lakelog.backup import BackupPlan, BackupScheduler
from lakelog.cli import exits
from lakelog.cli.app import App, verb
from lakelog.cli.backups import backup_options
from lakelog.cli.consume import report_consumed
from lakelog.cli.input_formats import EXCLUDED, PATTERN, ignore_older
from lakelog.cli.options import argument, combined, flag, option
from lakelog.cli.recent import REDIS, RedisPlan
from lakelog.cli.render.output import choose, emit_record
from lakelog.cli.render.terminal import arrival, is_terminal, many
from lakelog.cli.rounds import SIGNALS, StopEvent, repeat, unit
from lakelog.collect import (
    JournalReporter,
    Say,
    journal_path,
    lock_path,
    raise_descriptor_limit,
    status_path,
)
from lakelog.compat import OMEGALogManager
from lakelog.consume import Consumer, ConsumeResult, JournalSource
from lakelog.disk import File, Folder, LockFile, disk
from lakelog.lake import Lake
from lakelog.paths import Paths
from lakelog.recent import CLOSE_SECONDS, RecentFeeder
from lakelog.render import micros
from lakelog.store import Store

INTERVAL = 1.0


@dataclass(frozen=True)
class WatchPlan:
    """What is followed and how; `patterns` are all without any, the others as of a Watcher.

    It looks each `interval` seconds, or `once`, and only polls if `poll` is set.
    """

    patterns: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    ignore_older: float | None = None
    from_end: bool = False
    form: str | None = None
    source: str | None = None
    interval: float = INTERVAL
    poll: bool = False
    once: bool = False
    backups: BackupPlan | None = None
    recent: RedisPlan | None = None


_PLAN = combined(
    WatchPlan,
    patterns=option(
        "--pattern GLOB",
        "Names to follow, all by default; their rotated and compressed copies, too.",
    ),
    excluded=EXCLUDED,
    ignore_older=ignore_older(", unless they are known"),
    from_end=flag(
        "--from-end",
        "Begin at the ends of the files that are there, if none of them was read before.",
    ),
    form=PATTERN,
    source=option("--source NAME", "Source of events that name none."),
    interval=option(
        "--interval SECONDS",
        "Time between scans; five times that where the file system sends notifications.",
        shown=INTERVAL,
        type=click.FloatRange(0.1),
    ),
    poll=flag("--poll", "Poll only; for network mounts, which send no notifications."),
    once=flag("--once", "Ingest what is there, then exit."),
    backups=backup_options(),
    recent=REDIS,
)

_DUMP_PLAN = combined(
    WatchPlan,
    patterns=option(
        "--pattern GLOB",
        "Names to follow; their rotated and compressed copies, too.",
        shown=OMEGALogManager.PATTERNS,
    ),
    form=PATTERN,
    once=flag("--once", "Ingest and back up what is there, then exit."),
    backups=backup_options(OMEGALogManager.BACKUPS),
    recent=REDIS,
)


@verb()
def watch(
    app: App,
    roots: tuple[str, ...] = argument("DIR...", type=click.Path()),
    plan: WatchPlan = _PLAN,
    journal: bool = flag("--journal", "Follow this machine's journal instead, by journalctl."),
    status: bool = flag("--status", "Show what the watcher of this lake is doing."),
    as_json: bool = flag("--json", "Print the status as JSON."),
    print_unit: bool = flag("--print-unit", "Print a systemd unit that does the same."),
) -> None:
    """Follow the files of directories: each new line becomes an event, once.

    Renamed, truncated, compressed and removed files are recognized by their
    content, so that nothing is ingested twice. It runs until Ctrl-C or SIGTERM.
    """
    if status:
        show_status(app, as_json)
        return
    # A watcher reads files; the journal has its own cursor and process.
    if journal and roots:
        raise click.UsageError("--journal is followed by itself: watch directories with another")
    if not (roots or journal):
        raise click.UsageError("a directory is needed, such as /var/log/app")
    # The unit repeats the options, so that what was tried by hand is what systemd starts.
    if print_unit:
        places = [os.path.abspath(root) for root in roots]
        subject = f"watches {', '.join(places) or 'the journal'}"
        # Without its password: a unit file is readable by everybody, the environment is not.
        redis_url = plan.recent.config.url() if plan.recent else ""
        after = "After=local-fs.target"
        shown = unit(app, ["watch", *places], subject, after=after, redis_url=redis_url)
        click.echo(shown, nl=False)
    elif journal:
        follow_journal(app, every=None if plan.once else plan.interval)
    else:
        follow(app, list(roots), plan)


@verb()
def dump(
    app: App,
    logs_dir: str = option("--logs-dir DIR", "The directory to watch.", shown=OMEGALogManager.LOGS),
    plan: WatchPlan = _DUMP_PLAN,
) -> None:
    """Watch a directory of logs and back its files up, until Ctrl-C or SIGTERM.

    Each line becomes an event, once. `lakelog watch` does the same with more options;
    `lakelog tail`, `sql`, `recent` and `backups` show the result.
    """
    Folder(os.path.abspath(logs_dir)).make_all()
    follow(app, [logs_dir], plan)


def follow(app: App, roots: list[str], plan: WatchPlan) -> None:
    """Watch until a signal arrives, with backups and Redis if planned; sum up at the end."""
    _refuse_lakes(app.path, roots)
    tell = _reporter(app)
    # Before the watcher, which takes its share of the limit.
    raise_descriptor_limit()
    with app.open_or_create() as lake:
        feeder = plan.recent.feeder(lake, tell) if plan.recent else None
        backups = None
        if plan.backups:
            backups = BackupScheduler(lake, roots, plan.backups, label=plan.source, say=tell)
        watcher = collect.Watcher(
            lake,
            roots,
            patterns=plan.patterns or ("*",),
            excluded=plan.excluded,
            ignore_older=plan.ignore_older,
            from_end=plan.from_end,
            form=plan.form,
            source=plan.source,
            say=tell,
            # With --once there is one round of backups, at the end (below).
            after=None if plan.once else backups,
        )
        stop = StopEvent()

        def end(*_: object) -> None:
            stop.set()
            if backups:
                backups.halt()

        # Before the files are opened: from here on a signal ends the round in order.
        previous_handlers = {s: signal.signal(s, end) for s in SIGNALS}
        # From an earlier life of this process, whose id, lock and counters it goes on with.
        renewed, descriptor = _resume(watcher, backups)
        watcher.totals.redis = feeder.figures if feeder else {}
        try:
            with _alone(lake, roots, descriptor):
                if feeder:
                    feeder.start()
                if plan.once:
                    _once(watcher, stop, backups)
                else:
                    if not renewed:
                        tell(f"watching {', '.join(watcher.totals.roots)}")
                    collect.run(
                        watcher, stop, interval=plan.interval, poll=plan.poll, say=tell, renew=True
                    )
                # Once means all of it; else the next watcher continues where this one stopped.
                is_whole = plan.once and not stop.is_set()
                _close(backups, feeder, math.inf if is_whole else CLOSE_SECONDS)
                watcher.save_totals()  # with what Redis has by now
        except collect.RestartRequested as rest:
            # What comes now, comes later: the mask survives the exec, and with it what is pending.
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            _close(backups, feeder)
            lake.close()
            # A signal that came meanwhile ends the watcher instead of restarting it.
            if not stop.is_set():
                _restart_process(rest.memory, backups)
        finally:
            # RestartRequested leaves by exec, which never comes back here.
            _close(backups, feeder)
            for number, handler in previous_handlers.items():
                signal.signal(number, handler)
        _sum_up(app, plan, watcher, backups)


def _sum_up(
    app: App, plan: WatchPlan, watcher: collect.Watcher, backups: BackupScheduler | None
) -> None:
    """Say what was stored, and exit otherwise than with 0 where something was not."""
    totals = watcher.totals
    message = f"{many(totals.events, 'new event')} from {many(totals.files, 'file')};"
    message += f" {totals.quarantined:,} quarantined"
    message += f"; {arrival(totals.arrivals)}" if totals.arrivals else ""
    app.say(f"{message}; {backups.summary()}" if backups else message)
    # A file that went unread is a loss; one that cannot be read can still be mended.
    exits.exit_if(plan.once and totals.lost_files, exits.WRONG)
    exits.exit_if(plan.once and watcher.has_unreadable, exits.FAILED)


def follow_journal(app: App, *, every: float | None) -> None:
    """Store the entries of the journal, once or every so many seconds until a signal arrives."""
    source = JournalSource(follows=every is not None)
    with (
        app.open_or_create() as lake,
        contextlib.closing(Consumer(lake, source, form="journald", say=_reporter(app))) as consumer,
    ):
        reporter = JournalReporter(lake)

        def work(stop: threading.Event) -> ConsumeResult:
            start = time.monotonic()
            result = consumer.run(stop)
            reporter.count(start, result.events, result.quarantined)
            return result

        repeat(work, functools.partial(report_consumed, app), every)


def _refuse_lakes(path: str, roots: list[str]) -> None:
    """Refuse to watch a lake, or the files of the one at `path`. Raises UsageError."""
    lake = Paths(os.path.realpath(path))
    for root in roots:
        # Each round would ingest what the one before it has stored, without end.
        real = os.path.realpath(root)
        is_own = real == lake.root or f"{real}/".startswith(
            tuple(f"{d}/" for d in lake.directories())
        )
        if is_own or Store.is_lake(real):
            raise click.UsageError(
                f"{root} holds the files of a lake, which are no input: watch the logs themselves"
            )


_MEMORY = "LAKELOG_WATCH_MEMORY"


@contextlib.contextmanager
def _alone(lake: Lake, roots: list[str], descriptor: int) -> Iterator[None]:
    """Hold the lock of these directories, over a restart, too. Raises ClickException."""
    # Two watchers would both read each new line. The cursor would keep them from being stored
    # twice, but not from being read twice.
    with LockFile(lock_path(lake, roots)).claim(descriptor) as lock:
        if not lock:
            raise click.ClickException(f"another process is watching {', '.join(roots)}")
        try:
            yield
        except collect.RestartRequested as rest:
            rest.memory["lock"] = lock.keep()
            raise


def _once(watcher: collect.Watcher, stop: threading.Event, backups: BackupScheduler | None) -> None:
    watcher.round(final=True)
    while (
        watcher.has_arriving_files or watcher.is_behind or watcher.is_unsettled
    ) and not stop.is_set():
        # Waiting is only for copies that are still arriving; what is behind can be read at once.
        if watcher.has_arriving_files and not watcher.is_behind:
            stop.wait(collect.STABLE / 4)
        watcher.round(final=True)
    # Closed before the backups: a file counts as read once its last lines are published.
    watcher.close()
    if backups:
        backups.run(watcher.selection.scan(watcher.totals.roots))


def _close(
    backups: BackupScheduler | None, feeder: RecentFeeder | None, seconds: float = CLOSE_SECONDS
) -> None:
    if backups:
        backups.close()
    if feeder:
        feeder.close(seconds)


def _restart_process(memory: dict[str, object], backups: BackupScheduler | None) -> None:
    """Restart this process with what it knows, without the modules that it had loaded."""
    if backups:
        counts = [backups.copies, backups.removals, backups.expirations]
        memory = {**memory, "backups": counts}
    # A file and not an environment variable: the memory of 20,000 files is larger than exec takes.
    file = tempfile.TemporaryFile()  # noqa: SIM115  it goes with the process
    file.write(json.dumps(memory).encode())  # names may hold bytes that are no text
    file.seek(0)
    os.set_inheritable(file.fileno(), True)
    sys.stderr.flush()
    os.environ[_MEMORY] = str(file.fileno())
    # The same process id, so that systemd and status files go on naming it.
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _resume(watcher: collect.Watcher, backups: BackupScheduler | None) -> tuple[bool, int]:
    """Continue with what this process knew before its restart; return whether there was one, and
    the descriptor of the lock that it kept, -1 if none."""
    number = os.environ.pop(_MEMORY, "")
    if not number:
        return False, -1
    # The mask survives the exec; a signal that was held back is delivered here, to the new handler.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    with os.fdopen(int(number), "rb") as file:
        memory = json.load(file)
    if backups and "backups" in memory:
        backups.copies, backups.removals, backups.expirations = memory["backups"]
    watcher.remember(memory)
    return True, memory["lock"]


def _reporter(app: App) -> Say:
    """Return a function that writes messages to stderr, with the time unless it is a terminal."""
    # systemd's journal adds a time of its own, but a log file or a pipe does not.

    def tell(message: str) -> None:
        stamp = "" if is_terminal(sys.stderr) else f"{micros(disk.now_us())} "
        app.say(f"{stamp}{message}")

    return tell


_JOURNAL_MEMBERS = (
    *("running", "pid", "started", "rounds", "events", "quarantined"),
    *("last_round", "last_event", "slowest_round"),
)


def show_status(app: App, as_json: bool) -> None:
    """Show how far the watchers of a lake are. Raises ClickException where there was none."""
    with app.open() as lake:
        status, journal = _status_of(status_path(lake)), _status_of(journal_path(lake))
    if not (status or journal):
        raise click.ClickException("no watcher has run on this lake yet")
    lines = _status_lines(status) if status else ""
    if journal:
        lines += _journal_lines(journal)
        status["journal"] = {name: journal[name] for name in _JOURNAL_MEMBERS}
    target = choose(None if as_json else "table", as_json, None)
    emit_record(status, target, lambda: lines)


def _status_of(path: str) -> dict[str, Any]:
    """Return what a watcher wrote of itself, and whether it is running; nothing if none did."""
    try:
        status: dict[str, Any] = orjson.loads(File(path).read())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    # By its last round as well, because the process id may belong to another process by now.
    # Two minutes are many rounds, also of a slow one: no watcher is silent for so long.
    status["running"] = _is_alive(status["pid"]) and time.time() - status["last_round"] < 120
    for name in ("started", "last_round", "last_event"):
        status[name] = micros(int(status[name] * 1e6)) if status[name] else None
    return status


def _running(status: dict[str, object]) -> str:
    if status["running"]:
        return f"running since {status['started']}, process {status['pid']}"
    return f"not running; last started {status['started']}"


def _journal_lines(status: dict[str, object]) -> str:
    lines = [
        f"the journal: {_running(status)}",
        f"  events       {status['events']:,}; {status['quarantined']:,} entries quarantined",
        f"  last round   {status['last_round']}, the slowest took {status['slowest_round']:.2f} s",
        f"  last event   {status['last_event'] or '-'}",
    ]
    return "\n".join(lines) + "\n"


def _status_lines(status: dict[str, Any]) -> str:
    lines = [
        _running(status),
        f"  watches      {', '.join(status['roots'])}",
        f"  files        {status['files']:,}",
        f"  events       {status['events']:,}; {status['quarantined']:,} lines quarantined"
        + (f"; {arrival(status['arrivals'])}" if status.get("arrivals") else ""),
        f"  last round   {status['last_round']}, the slowest took {status['slowest_round']:.2f} s",
        f"  last event   {status['last_event'] or '-'}",
    ]
    if status.get("nuls"):
        lines.append(f"  skipped      {status['nuls']:,} NUL bytes, where nobody wrote text")
    if status.get("lost_files"):
        lines.append(
            f"  lost         {many(status['lost_files'], 'file')} that went with"
            f" {status['lost_bytes']:,} bytes unread"
        )
    if status.get("repeated_lines"):
        lines.append(
            f"  repeated     {many(status['repeated_lines'], 'line')} that may be stored twice"
        )
    if redis := status.get("redis"):
        lag = "?" if redis["entries_behind"] is None else f"{redis['entries_behind']:,}"
        lines.append(
            f"  Redis        {redis['address']}: {lag} events behind;"
            f" {redis['entries_written']:,} entries in {redis['seconds']:.1f} s"
        )
        lines += [f"  fault        {redis['trouble']}"] if redis["trouble"] else []
    lines += [f"  fault        {path}: {reason}" for path, reason in status["faults"].items()]
    return "\n".join(lines) + "\n"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process of another user exists, although nobody else may signal it.
    except PermissionError:
        return True
    return True
