"""Bringing a deleted branch back under its name: its next move, in a generation of its own."""

from __future__ import annotations

from lakelog.disk import disk
from lakelog.errors import AlreadyExists
from lakelog.moves import link_move
from lakelog.refs import Head, Move, author, escape_text
from lakelog.store import Clock, Store
from lakelog.wal import Tail


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
