"""The life of a branch: from its creation to its deletion, so that a writer of a branch that was
deleted and created again under its name does not write to the new one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from lakelog.errors import DamagedRef, UnknownRef
from lakelog.refs.ref import Head
from lakelog.refs.refs import Refs


@dataclass(frozen=True)
class BranchLife:
    """The number of the branch's newest move and its generation; 0 and 0 if that is damaged."""

    number: int
    generation: int

    @classmethod
    def of(cls, refs: Refs, branch: str) -> BranchLife | None:
        """Return where a branch stands, None where it is not there."""
        try:
            move = refs.head(branch).move
        except UnknownRef:
            return None
        except DamagedRef:
            return cls(0, 0)
        return cls(move.number, move.generation)

    def goes_on(self, refs: Refs, branch: str) -> bool:
        """Whether a branch is alive and was not deleted since, either."""
        present = BranchLife.of(refs, branch)
        if present is None:
            return False
        # It is damaged, or was not rewound: a deleted branch comes back with another generation.
        is_rewound = present.generation != self.generation
        if not present.number or not self.number or not is_rewound:
            return True
        since = itertools.takewhile(lambda m: m.number > self.number, refs.newest_first(branch))
        return all(move.op != "delete" for move in since)

    def require(self, refs: Refs, branch: str) -> None:
        """Refuse the first append to a branch that was deleted since it was opened, though one of
        its name may be there again. From now on the lock of the writer's file keeps it from being
        deleted.

        Raises UnknownRef.
        """
        if not self.goes_on(refs, branch):
            raise UnknownRef(
                f"branch {branch!r} was deleted since this lake was opened: nothing was stored;"
                " open the lake again"
            )


def was_at(refs: Refs, head: Head, earlier: Head) -> bool:
    """Whether a branch that is at a head was once where this process saw it: it was not if an older
    copy of the lake, or another lake, took the place of that one."""
    number = earlier.move.number
    if number >= head.move.number:
        return head.digest == earlier.digest
    try:
        return refs.read(earlier.move.branch, number).commit == earlier.move.commit
    except (UnknownRef, DamagedRef):
        return True  # gc dropped the move, or it is damaged: nothing tells any more
