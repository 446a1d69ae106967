"""Deleting tags and branches. Their states stay while a move that is kept names them."""

from __future__ import annotations

from collections.abc import Callable

from lakelog.disk import Folder, LockFile
from lakelog.errors import InUse
from lakelog.history.branch_revival import last_frames, revive
from lakelog.history.snapshot import Snapshot
from lakelog.moves import Change, note, publish, with_reason
from lakelog.paths import KEYS
from lakelog.refs import Head, Tag
from lakelog.store import Policy, Signatures, Store

Settle = Callable[[], Head]


def delete_tag(store: Store, name: str, branch: str = "", why: str = "") -> Tag:
    """Delete a tag with its signatures and return it; its snapshot stays while a move in the window
    names it. The log of `branch`, if one is given, says so and `why`. Raises NotAllowed."""
    Policy.require(store.paths, "delete-tag")
    deleted = remove_tag(store, name)
    if branch:
        message = f"deleted tag {name} ({deleted.snapshot[: Snapshot.SHORT]})"
        note(store, branch, "untag", with_reason(message, why))
    return deleted


def remove_tag(store: Store, name: str) -> Tag:
    """Delete a tag that was made automatically, whatever the policy says."""
    deleted = store.refs.tag(name)
    # First: another tag of that name must not find them.
    Signatures(store.paths).remove_of_tag(name)
    store.volume.remove(KEYS.tag(name))
    return deleted


def delete_branch(store: Store, name: str, settle: Settle) -> None:
    """Delete a branch by a move, so that its history stays readable. Raises InUse, UnknownRef,
    NotAllowed."""
    Policy.require(store.paths, "delete-branch")
    store.refs.head(name)  # raises UnknownRef
    directory = store.paths.wal_dir(name)
    for file in Folder(directory).names():
        if LockFile(f"{directory}/{file}").is_held():
            raise InUse(f"branch {name!r} has an active writer: close it, then delete the branch")
    # What its writers left is published first: the log then still has it.
    settle()
    deleted = publish(store, name, lambda now, _: Change("delete", snapshot=now.move.snapshot))
    assert deleted is not None
    # A process that opened the branch before and wrote its first file since may not have seen the
    # move. It looks after it linked its file, we look after we linked ours: one of us notices.
    marks = deleted.move.wal
    if any(frame > marks.get(writer, -1) for writer, frame in last_frames(store, name).items()):
        revive(store, name, deleted.move.snapshot, "it was written to", {})
        raise InUse(f"branch {name!r} was written to just now: it stays; delete it again")
