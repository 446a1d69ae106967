"""Exchanging names: fresh files or directories take the places of others, whenever it dies.

cache/restore.json notes the steps, each a fresh tree next to its target. While a fresh one has no
inode in the note it is not complete, and is deleted by whoever comes next; once all have one,
whoever comes next exchanges those that are left. One exchange is atomic (renameat2). What was
exchanged out and cannot be deleted stays under the fresh one's name, which is part of no state.
What was written to since it was looked at is not deleted: it gets a name of its own beside the
target.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lakelog import document
from lakelog.disk import File, Folder, LockFile, NotIntact, OpenFile, disk
from lakelog.state import filesystems, fingerprint, origin
from lakelog.store import Store

_PATHS = ("target", "fresh", "root")
STAGING = ".lakelog-restore-"
"""The names of fresh directories begin so; they are part of no state."""
_OLD, _DOOMED = b".old", b".doomed"
_KEPT = ".lakelog-changed-"
"""Between the name of a target and some digits: what a program wrote to meanwhile."""
_NAME_MAX = 255
_BEGUN = "a restore has begun there: the next `lakelog state save` or `restore` goes on with it"
Stamp = tuple[str, int, int]
"""A directory in that of a step, relative and in hex; its time, and its mode or -1."""


@dataclass(frozen=True)
class ExchangeStep:
    """A path to exchange: `inode` is that of the fresh tree, 0 until it is complete; negative, it
    is that of the target, which only goes. The paths are in `root`, a directory of which
    nothing else changes, and afterwards these `stamps` are set in it; "" stands for whatever
    directory holds the target. `seen` is the fingerprint of what the target was when it was looked
    at, "" where nobody knows."""

    target: str
    fresh: str
    inode: int = 0
    root: str = ""
    stamps: tuple[Stamp, ...] = ()
    seen: str = ""


def note_step(step: ExchangeStep) -> dict[str, Any]:
    """Return the members of a step in a note."""
    body = asdict(step)
    for name in _PATHS:
        # Names are bytes to the system; JSON is Unicode.
        if not body[name].isprintable():
            body[name] = {"hex": os.fsencode(body[name]).hex()}
    return body


def parse_step(body: dict[str, Any]) -> ExchangeStep:
    """Return a step that was noted. Raises KeyError, TypeError."""
    for name in _PATHS:
        if isinstance(body.get(name), dict):
            body[name] = os.fsdecode(bytes.fromhex(body[name]["hex"]))
    stamps = tuple((str(path), int(time), int(mode)) for path, time, mode in body.get("stamps", ()))
    return ExchangeStep(**(body | {"stamps": stamps}))


def recover(store: Store) -> tuple[str, ...]:
    """Finish the exchanges of a restore that died, or delete what it had extracted; return what to
    tell. A note of another lake, of which this one is a copy, is set aside."""
    body = _read_journal(store)
    if body and not origin.is_here(store, body):
        return (origin.set_aside(store, _journal(store), "a restore", body),)
    steps = [parse_step(step) for step in body.get("steps", ())]
    # Durable and complete, or not begun: a note with some inodes missing deletes what was
    # extracted.
    if all(step.inode for step in steps):
        for step in steps:
            try:
                put_in_place(step)
            except OSError as error:
                error.filename = step.target
                error.add_note(_BEGUN)
                raise
    discard(store, steps)
    return tuple(kept_notes(steps))


def fresh_path(target: str) -> str:
    """Return a name for the fresh directory of a target."""
    # In the same directory: only there an exchange is possible, and atomic.
    return f"{os.path.dirname(target)}/{STAGING}{disk.random_hex(8)}"


@contextlib.contextmanager
def open_parent(step: ExchangeStep) -> Iterator[int]:
    """Open the directory that holds target and fresh tree; below `root` never through a link."""
    parent = os.path.dirname(step.target)
    top = step.root or parent
    with OpenFile.closing(os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        fd = filesystems.open_inside(root, os.fsencode(parent[len(top) :].strip("/")))
    with OpenFile.closing(fd):
        yield fd


def put_in_place(step: ExchangeStep) -> None:
    """Put the fresh tree in the target's place, unless that is done already."""
    target, fresh = (os.fsencode(os.path.basename(path)) for path in (step.target, step.fresh))
    with open_parent(step) as folder:
        # Afterwards what was exchanged out has the fresh name, until it is deleted.
        if step.inode < 0:
            if inode_of(target, folder) == -step.inode:
                _move_away(target, fresh, folder)
        elif inode_of(fresh, folder) == step.inode:
            # A missing target is one that a restore creates, or that the steps below had renamed.
            if not inode_of(target, folder):
                os.rename(fresh, target, src_dir_fd=folder, dst_dir_fd=folder)
            elif not filesystems.exchange(folder, fresh, target):
                # Not atomic, but the note says how to go on when the target is missing in between.
                _move_away(target, fresh + _OLD, folder)
                os.rename(fresh, target, src_dir_fd=folder, dst_dir_fd=folder)
        # Before the note goes: it says what is left to do.
        os.fsync(folder)


def _move_away(name: bytes, new_name: bytes, folder: int) -> None:
    try:
        os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # A directory of a lower layer: it can only be deleted, after what is in it.
        _delete_tree(name, folder)


def inode_of(name: bytes, folder: int) -> int:
    """Return the inode of a name in an open directory, 0 if it is not there."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return 0


def discard(store: Store, steps: Sequence[ExchangeStep]) -> None:
    """Delete what is left next to the targets, set the times around it, and delete the note. What
    cannot be deleted stays: see `leftovers`."""
    for step in steps:
        # Whatever the note says, nothing else is deleted than what a restore has made.
        name = os.fsencode(os.path.basename(step.fresh))
        if name.startswith(STAGING.encode()):
            with contextlib.suppress(FileNotFoundError), open_parent(step) as folder:
                for candidate in (name, name + _OLD):
                    _set_aside(step, candidate, folder)
                _delete_tree(name + _DOOMED, folder)
    for step in steps:
        _set_stamps(step)
    drop_journal(store)


def _is_changed(step: ExchangeStep, name: bytes, folder: int) -> bool:
    """Whether a name has what was exchanged out, and that was written to since it was seen."""
    inode = inode_of(name, folder)
    if not step.seen or not step.inode or inode in (0, step.inode):
        return False
    try:
        # By the descriptor, as the folder may have been renamed meanwhile.
        path = b"/proc/self/fd/%d/%b" % (folder, name)
        is_layered = filesystems.is_layered(f"/proc/self/fd/{folder}")
        return fingerprint.of_tree(path, STAGING.encode(), is_layered=is_layered) != step.seen
    except OSError:
        return True  # nobody can tell


def _set_aside(step: ExchangeStep, name: bytes, folder: int) -> None:
    """Give what was exchanged out the name by which it is deleted, also by whoever comes after a
    death: of half of it nobody could tell whether it was written to. What was, is kept."""
    new_name = os.fsencode(os.path.basename(step.fresh)) + _DOOMED
    if _is_changed(step, name, folder):
        new_name = os.fsencode(os.path.basename(_kept_path(step)))
    with contextlib.suppress(FileNotFoundError):
        os.rename(name, new_name, src_dir_fd=folder, dst_dir_fd=folder)


def _kept_path(step: ExchangeStep) -> str:
    suffix = os.fsencode(_KEPT + step.fresh[-8:])
    # Cut from the end, so that the suffix by which it is found stays whole.
    name = os.fsencode(os.path.basename(step.target))[: _NAME_MAX - len(suffix)] + suffix
    return f"{os.path.dirname(step.target)}/{os.fsdecode(name)}"


def kept_notes(steps: Iterable[ExchangeStep]) -> list[str]:
    """Say what was not deleted, as it was written to since it was looked at."""
    return [
        f"{step.target} was written to while it was being replaced: what it was then is kept as"
        f" {_kept_path(step)}"
        for step in steps
        # lexists: a link that leads nowhere was kept as well.
        if os.path.lexists(_kept_path(step))
    ]


def leftovers(steps: Sequence[ExchangeStep]) -> list[str]:
    """Return what was exchanged out and could not be deleted."""
    paths = (step.fresh + suffix.decode() for step in steps for suffix in (b"", _OLD, _DOOMED))
    return [path for path in paths if os.path.lexists(path)]


def _set_stamps(step: ExchangeStep) -> None:
    if not step.stamps:
        return
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    with (
        contextlib.suppress(FileNotFoundError),
        OpenFile.closing(os.open(step.root, flags)) as root,
    ):
        # The innermost first; a directory that a program removed or replaced has none to set.
        for path, mtime, mode in step.stamps:
            inner = bytes.fromhex(path)
            with (
                contextlib.suppress(OSError),
                OpenFile.closing(filesystems.open_inside(root, inner)) as fd,
            ):
                if mode >= 0:
                    os.fchmod(fd, mode)
                os.utime(fd, ns=(mtime, mtime))


def drop_journal(store: Store) -> None:
    """Delete the note alone: the directories are another's now."""
    File(_journal(store)).remove()


def _delete_tree(name: bytes, folder: int) -> None:
    """Delete a name of an open directory with all below it that this user may delete."""

    def retry(_: Any, path: Any, error: Any) -> None:
        # A directory that its owner may not write to, as it was saved.
        if isinstance(error[1], PermissionError):
            inner = f"/proc/self/fd/{folder}/{os.fsdecode(path)}"
            with contextlib.suppress(OSError):
                os.chmod(os.path.dirname(inner), 0o700)
                if stat.S_ISDIR(os.lstat(inner).st_mode):
                    os.chmod(inner, 0o700)
                    shutil.rmtree(inner, ignore_errors=True)
                else:
                    os.unlink(inner)

    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(status.st_mode):
            shutil.rmtree(name, onerror=retry, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)


def _journal(store: Store) -> str:
    return f"{store.paths.cache}/restore.json"


def write_journal(store: Store, steps: Sequence[ExchangeStep]) -> None:
    """Note the steps, durably."""
    body = {"steps": [note_step(step) for step in steps], **origin.place(store)}
    Folder(store.paths.cache).make_all()
    File(_journal(store)).replace(document.encode(body))


def noted_steps(store: Store) -> list[ExchangeStep]:
    """Return the steps of a restore that is at work, or died."""
    return [parse_step(step) for step in _read_journal(store).get("steps", ())]


def _read_journal(store: Store) -> dict[str, Any]:
    try:
        # Damaged: a restore that died while it wrote the note has exchanged nothing.
        return document.decode(File(_journal(store)).read())
    except (FileNotFoundError, NotIntact):
        return {}


@contextlib.contextmanager
def alone(store: Store) -> Iterator[bool]:
    """Keep two restores of a lake apart; yields whether there is no other."""
    Folder(store.paths.cache).make_all()
    with LockFile(store.paths.restore_lock).claim() as is_alone:
        yield bool(is_alone)
