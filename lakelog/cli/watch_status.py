"""What `watch --status` shows of the watchers of a lake."""

from __future__ import annotations

import os
import time
from typing import Any

import click
import orjson

from lakelog.cli.app import App
from lakelog.cli.render.output import choose, emit_record
from lakelog.cli.render.terminal import arrival, many
from lakelog.collect import journal_path, status_path
from lakelog.render import micros
from lakelog.store import disk

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
        status: dict[str, Any] = orjson.loads(disk.read(path))
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
