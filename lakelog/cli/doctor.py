"""doctor: check what this machine and a lake need, one by one."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from lakelog import document, erasure, views
from lakelog.cli import exits
from lakelog.cli.app import App, verb
from lakelog.cli.render.output import OUTPUT, OutputTarget, emit_words
from lakelog.cli.render.tables import cell, clock
from lakelog.cli.render.terminal import many, paint, size, width
from lakelog.cli.schema import breaches
from lakelog.disk import File, FileSystem, Folder, LockFile, NotIntact, disk
from lakelog.errors import LakelogError
from lakelog.runtime.lazy import Lazy
from lakelog.settings import VERSION
from lakelog.state import Rollbacks
from lakelog.store import Store
from lakelog.wal import Tail

if TYPE_CHECKING:
    from lakelog import lake
else:
    lake = Lazy("lakelog.lake")

OK, WARNING, FAILED = "OK", "warning", "failed"
_COLOURS = {OK: "green", WARNING: "yellow", FAILED: "red"}
_LIBRARIES = ("duckdb", "pyarrow", "zstandard", "orjson", "click", "rich", "pytz")
_FREE_MIN = 1_000_000_000
_TAIL_MAX = 64_000_000
_CLOCK_SLACK = 2_000_000


@dataclass(frozen=True)
class DoctorCheck:
    """One check; `state` is OK, warning or failed."""

    check: str
    state: str
    words: str


@verb()
def doctor(app: App, target: OutputTarget = OUTPUT) -> None:
    """Check this machine, and the lake if there is one.

    Exits with 1 if a check failed; warnings do not count. `lakelog verify` reads every byte.
    """
    checks = list(environment())
    if Store.is_lake(app.path):
        checks += lake_checks(app.path, app.branch)
    else:
        root = os.path.abspath(app.path)
        checks.append(DoctorCheck("lake", OK, f"none at {root}: only the machine was checked"))
    people = "".join(f"{_check_line(check, target)}\n" for check in checks)
    emit_words([asdict(c) for c in checks], target, lambda: people)
    exits.exit_if(any(check.state == FAILED for check in checks), exits.FAILED)


def environment() -> Iterator[DoctorCheck]:
    """Check the interpreter and the libraries."""
    system = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    # The copy that runs: several may be installed, and the wrong one is a common fault.
    recent = sys.version_info >= (3, 11)
    yield DoctorCheck("python", OK if recent else FAILED, system)
    package = sys.modules[__name__.partition(".")[0]]
    package_dir = os.path.dirname(str(package.__file__))
    yield DoctorCheck("lakelog", OK, f"{VERSION} at {package_dir}")
    missing = []
    versions = []
    for name in _LIBRARIES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        yield DoctorCheck("libraries", FAILED, f"not installed: {', '.join(missing)}")
    yield DoctorCheck("libraries", OK, ", ".join(versions))


def lake_checks(path: str, branch: str) -> Iterator[DoctorCheck]:
    """Check a lake; what cannot be read is a failed check, never an exception."""
    try:
        store = Store.load(path)
    except (LakelogError, OSError) as error:
        yield DoctorCheck("lake", FAILED, exits.words_of(error))
        return
    yield DoctorCheck("lake", OK, f"{store.paths.root} opens")
    for name, look in _LOOKS.items():
        try:
            yield from (DoctorCheck(name, state, message) for state, message in look(store, branch))
        except (LakelogError, OSError) as error:
            yield DoctorCheck(name, FAILED, exits.words_of(error))


Findings = Iterator[tuple[str, str]]


def _disk(store: Store, _: str) -> Findings:
    root = store.paths.root
    if os.access(root, os.W_OK):
        # Tried, and not asked for: network file systems accept link and flock, and break them.
        FileSystem(root).probe()
        yield OK, "link refuses a taken name, flock excludes"
    else:
        yield WARNING, "not writable by this user: it can be read only"
    free = shutil.disk_usage(root).free
    yield (OK if free >= _FREE_MIN else WARNING), f"{size(free)} free"


def _head(store: Store, branch: str) -> Findings:
    head = store.refs.head(branch)
    state = store.manifests.of(head.move)
    segments = len(store.manifests.segments(state))
    contents = f"{many(state.totals.events, 'event')} in {many(segments, 'segment')}"
    yield OK, f"{branch} is at move {head.move.number}: {contents}"


def _tail(store: Store, branch: str) -> Findings:
    pending = Tail(store.paths, store.refs, branch).collect()
    groups = pending.files.values()
    # An unlocked file with a torn end has lost its writer; the end of a live one is still coming.
    torn = [
        group[-1] for group in groups if group[-1].torn and not LockFile(group[-1].path).is_held()
    ]
    message = f"{many(pending.events, 'event')}, {size(pending.bytes)}, wait to be published"
    if pending.bytes > _TAIL_MAX:
        yield WARNING, f"{message}; queries get slower: `lakelog compact` publishes them"
    else:
        yield OK, message if pending.events else "nothing waits to be published"
    for file in torn:
        name = os.path.basename(file.path)
        yield WARNING, f"{name} ends in {many(file.torn, 'torn byte')}; they are kept when cut"
    if store.settings.seal == "never" and any(f.frames for group in groups for f in group):
        yield WARNING, "setting seal is never: something else has to publish"


def _saved_files(store: Store, _: str) -> Findings:
    cut_files, damaged_files = Folder(store.paths.cut).names(), Folder(store.paths.damaged).names()
    if cut_files:
        yield WARNING, f"{many(len(cut_files), 'torn frame')} of dead writers, saved in cache/cut"
    if damaged_files:
        yield WARNING, f"{many(len(damaged_files), 'damaged file')} set aside in cache/damaged"
    if not cut_files and not damaged_files:
        yield OK, "no torn frames, nothing set aside"


def _hints(store: Store, _: str) -> Findings:
    bad = []
    for branch in store.refs.all_branches():
        # A hint is only a shortcut to the newest move: it is rebuilt when it is missed.
        with contextlib.suppress(FileNotFoundError):
            try:
                document.decode(File(store.paths.hint(branch)).read())
            except NotIntact:
                bad.append(branch)
    yield (
        (WARNING, f"the hint of {', '.join(bad)} is damaged; it will be rebuilt")
        if bad
        else (OK, "as they should be")
    )


def _pending(store: Store, _: str) -> Findings:
    rollbacks = Rollbacks(store)
    intent = rollbacks.read()
    if intent is None:
        yield OK, "no rollback is pending"
    elif not rollbacks.is_here(intent):
        advice = "the next save, restore or rollback sets it aside"
        yield WARNING, f"a {intent.op} was interrupted in another lake, {intent.lake!r}: {advice}"
    elif LockFile(store.paths.restore_lock).is_held():
        yield OK, f"a {intent.op} is at work: {intent.message}"
    else:
        advice = "`lakelog rollback --continue` finishes it, `lakelog undo` takes it back"
        yield WARNING, f"a {intent.op} {intent.message!r} was interrupted: {advice}"


def _clock(store: Store, branch: str) -> Findings:
    newest_time = store.refs.head(branch).move.time
    lead_us = newest_time - disk.now_us()
    if lead_us > _CLOCK_SLACK:
        yield (
            WARNING,
            f"this clock is {lead_us / 1e6:,.0f} s behind the last move, {clock(newest_time)}",
        )
    else:
        yield OK, f"{clock(time.time_ns() // 1000)}, the last move was {clock(newest_time)}"


def _keys(store: Store, _: str) -> Findings:
    protection = store.paths.protection
    if protection is None:
        return
    path = protection.path
    if protection.ciphers() is None:
        yield WARNING, f"{path} is missing: protected fields are NULL"
    elif erasure.has_destroyed_keys(store):
        verb = "repair" if store.attachment is None else "exchange"
        yield FAILED, f"{path} has destroyed keys: `lakelog {verb}` destroys them in it"
    else:
        yield OK, f"{path} has the keys of subjects, {protection.destroyed} destroyed"


def _schema(store: Store, branch: str) -> Findings:
    contracts = views.Contract.of_state(store, store.state(branch))
    if not contracts:
        return
    # Views need an open lake, which the checks before do without, to hold where it does not open.
    with lake.open(store.paths.root, create=False, branch=branch) as open_lake:
        breach_list = breaches(open_lake, contracts)
    types = many(len({breach.type for breach in breach_list}), "type")
    if breach_list:
        message = f"{many(len(breach_list), 'breach', 'breaches')} of the contracts of {types}"
        yield WARNING, f"{message}: `lakelog schema check` lists them"
    else:
        yield OK, f"events are as {many(len(contracts), 'contract')} say"


_LOOKS: dict[str, Callable[[Store, str], Findings]] = {
    "disk": _disk,
    "head": _head,
    "tail": _tail,
    "kept": _saved_files,
    "hints": _hints,
    "rollback": _pending,
    "clock": _clock,
    "keys": _keys,
    "schema": _schema,
}


def _check_line(check: DoctorCheck, target: OutputTarget) -> str:
    """Return a check as a line; a long text continues below its beginning."""
    state = f"{check.state:<8}"
    if target.path is None:
        state = paint(state, sys.stdout, fg=_COLOURS[check.state])
    indent = 8 + 1 + 10 + 1
    room = max(width() - indent, 40)
    lines = textwrap.wrap(cell(check.words), room, break_on_hyphens=False) or [""]
    return f"{state} {check.check:<10} " + f"\n{' ' * indent}".join(lines)
