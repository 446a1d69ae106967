"""Exchanging directories: fresh ones take the places of others, all or none, whenever it dies.

cache/restore.json notes the steps, each a fresh directory next to its target. While a fresh one has
no inode in the note it is not complete, and is deleted by whoever comes next; once all have one,
whoever comes next exchanges those that are left. One exchange is atomic (renameat2).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lakelog.state import filesystems, origin
from lakelog.store import disk, document
from lakelog.store.bootstrap import Store

STAGING = ".lakelog-restore-"
"""The names of fresh directories begin so; they are part of no state."""


@dataclass(frozen=True)
class Step:
    """A directory to exchange: `inode` is that of the fresh one, 0 until it is complete."""

    target: str
    fresh: str
    inode: int = 0


def recover(store: Store) -> tuple[str, ...]:
    """Finish the exchanges of a restore that died, or delete what it had extracted; return what to
    tell. A note of another lake, of which this one is a copy, is set aside."""
    body = _read_journal(store)
    if body and not origin.is_here(store, body):
        return (origin.set_aside(store, _journal(store), "a restore", body),)
    steps = [Step(**step) for step in body.get("steps", ())]
    if all(step.inode for step in steps):
        for step in steps:
            put_in_place(step)
    discard(store, steps)
    return ()


def fresh_path(target: str) -> str:
    """Return a name for the fresh directory of a target."""
    # In the same directory: only there an exchange is possible, and atomic.
    return f"{os.path.dirname(target)}/{STAGING}{disk.random_hex(8)}"


def put_in_place(step: Step) -> None:
    """Put the fresh directory in the target's place, unless that is done already."""
    try:
        # Afterwards what was exchanged out has this name, until it is deleted.
        is_due = os.lstat(step.fresh).st_ino == step.inode
    except FileNotFoundError:
        is_due = False
    if is_due:
        try:
            _exchange_paths(step.fresh, step.target)
        except FileNotFoundError:
            os.rename(step.fresh, step.target)
    disk.sync_dir(os.path.dirname(step.target))


def _exchange_paths(fresh: str, target: str) -> None:
    if not filesystems.exchange(fresh, target):
        # Not atomic, but the note says how to go on when the target is missing in between.
        os.rename(target, _old_path(fresh))
        os.rename(fresh, target)


def _old_path(fresh: str) -> str:
    return f"{fresh}.old"


def discard(store: Store, steps: Sequence[Step]) -> None:
    """Delete what is left next to the targets, then the note."""
    for step in steps:
        for path in (step.fresh, _old_path(step.fresh)):
            # Whatever the note says, nothing else is deleted than what a restore has made.
            if os.path.basename(path).startswith(STAGING):
                _delete_tree(path)
    drop_journal(store)


def drop_journal(store: Store) -> None:
    """Delete the note alone: the directories are another's now."""
    disk.unlink(_journal(store))


def _delete_tree(path: str) -> None:
    def retry(function: Any, name: str, error: Any) -> None:
        # A directory that its owner may not write to, as it was saved.
        if isinstance(error[1], PermissionError):
            os.chmod(os.path.dirname(name), 0o700)
            with contextlib.suppress(PermissionError):
                os.chmod(name, 0o700, follow_symlinks=False) if os.path.isdir(name) else None
            function(name)

    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path, onerror=retry)


def _journal(store: Store) -> str:
    return f"{store.paths.cache}/restore.json"


def write_journal(store: Store, steps: list[Step]) -> None:
    """Note the steps, durably."""
    body = {"steps": [asdict(step) for step in steps], **origin.place(store)}
    disk.make_dirs(store.paths.cache)
    disk.replace_whole(_journal(store), document.encode(body))


def _read_journal(store: Store) -> dict[str, Any]:
    try:
        return document.decode(disk.read(_journal(store)))
    except (FileNotFoundError, document.NotIntact):
        return {}


@contextlib.contextmanager
def alone(store: Store) -> Iterator[bool]:
    """Keep two restores of a lake apart; yields whether there is no other."""
    disk.make_dirs(store.paths.cache)
    with disk.claim(store.paths.restore_lock) as is_alone:
        yield bool(is_alone)
