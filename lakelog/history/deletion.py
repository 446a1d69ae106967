"""Deleting tags and branches, and bringing a deleted branch back under its name.

Their states stay while a move that is kept names them. A branch that comes back goes on with its
next move, in a generation of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from lakelog.disk import Folder, LockFile, disk
from lakelog.errors import AlreadyExists, InUse
from lakelog.history.snapshot import Snapshot
from lakelog.moves import Change, link_move, note, publish, with_reason
from lakelog.paths import KEYS
from lakelog.refs import Head, Move, Tag, author, escape_text
from lakelog.store import Clock, Policy, Signatures, Store
from lakelog.wal import Tail

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


def last_frames(store: Store, branch: str) -> dict[str, int]:
    """The last sequence that is in a branch's WAL files, by writer."""
    files = Tail(store.paths, store.refs, branch).scan()
    last_frame = {writer: max(file.last for file in group) for writer, group in files.items()}
    return {writer: sequence for writer, sequence in last_frame.items() if sequence >= 0}


def revive(store: Store, name: str, target: str, message: str, watermarks: dict[str, int]) -> Head:
    """Append the next move to a deleted branch; frames up to `watermarks` count as sealed."""
    number = store.refs.head_number(name)
    old = store.refs.read_head(name, number)
    now_us = Clock.following(old.move.time, disk.now_us())
    # One more generation: what a consumer has read of the branch before may not be in this one.
    move = Move(
        number + 1,
        name,
        old.digest,
        disk.random_hex(),
        now_us,
        author(),
        "branch",
        escape_text(message),
        target,
        old.move.generation + 1,
        {**old.move.wal, **watermarks},
        carried=store.manifests.text_to_carry(target),
    )
    head = link_move(store, move)
    if head is None:
        raise AlreadyExists(f"branch {name!r} exists: choose another name")
    store.refs.note(head)
    return head
